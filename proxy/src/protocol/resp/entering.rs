//! What is said first on a connection to a shard: what lets us in, and what clients have chosen.

use super::session::Settings;
use super::{Lane, Resp, encode, identity};
use crate::protocol::{Greeting, Protocol as _, ShardIdentity, Wide as _};

/// Whether a shard says that the password is another one. In the words of Redis 6 and later, and of those before.
pub(super) fn is_wrong_password(error: &[u8]) -> bool {
    error.starts_with(b"WRONGPASS") || error.starts_with(b"ERR invalid password")
}

/// Writes what follows once so many `requests` have let us in: who the shard is comes before all that a client may have
/// chosen, for another one may have no such database or version.
pub(super) fn entering(
    requests: usize,
    lane: Lane,
    is_replica: bool,
    identity: Option<&ShardIdentity>,
    out: &mut Vec<u8>,
) -> Greeting {
    let mut behind = 0;
    if let Some(identity) = identity {
        identity::ask(identity, out);
        if lane.resp3 {
            encode::request(out, &[b"HELLO", b"3"]);
            behind += 1;
        }
    }
    if is_replica {
        Resp::replica(true, out);
        behind += 1;
    }
    if lane.db > 0 {
        encode::request(out, &[b"SELECT", lane.db.to_string().as_bytes()]);
        behind += 1;
    }
    if Resp::registers(lane) {
        Resp::track(out);
        behind += 1;
    }
    let identity = identity.map(|_| behind + 1);
    Greeting { responses: requests + identity.unwrap_or(behind), identity }
}

/// Responses to two passwords and the request that shows whether one of them has been taken.
pub(super) const PROVEN: usize = 3;

/// Whether a shard says that it wants no password: then it has nothing to hide from us. In the words of Redis 6 and later,
/// and of those before.
pub fn is_needless_password(error: &[u8]) -> bool {
    let words = String::from_utf8_lossy(error);
    words.contains("without any password configured") || words.contains("AUTH, but no password is set")
}

/// What a new shard connection says first.
pub(super) fn greeting(
    settings: &Settings,
    lane: Lane,
    is_replica: bool,
    identity: Option<&ShardIdentity>,
    out: &mut Vec<u8>,
) -> Greeting {
    let mut requests = 0;
    let user = settings.user.as_deref().unwrap_or("default");
    // The version is a client's choice: who the shard is comes before that.
    let greets = lane.resp3 && identity.is_none();
    // One of the two will do, and the request behind them shows whether it has.
    if let (Some(password), Some(previous)) = (&settings.password, &settings.previous) {
        for password in [previous.expose().as_bytes(), password.expose().as_bytes()] {
            match &settings.user {
                Some(user) => encode::request(out, &[b"AUTH", user.as_bytes(), password]),
                None => encode::request(out, &[b"AUTH", password]),
            }
        }
        let proof: &[&[u8]] = if greets { &[b"HELLO", b"3"] } else { &[b"PING"] };
        encode::request(out, proof);
        return entering(PROVEN, lane, is_replica, identity, out);
    }
    let password = settings.password.as_ref().map(|password| password.expose().as_bytes());
    match (password, greets) {
        (Some(password), true) => {
            encode::request(out, &[b"HELLO", b"3", b"AUTH", user.as_bytes(), password]);
            requests += 1;
        }
        (None, true) => {
            encode::request(out, &[b"HELLO", b"3"]);
            requests += 1;
        }
        (Some(password), false) => {
            match &settings.user {
                Some(user) => encode::request(out, &[b"AUTH", user.as_bytes(), password]),
                None => encode::request(out, &[b"AUTH", password]),
            }
            requests += 1;
        }
        (None, false) => {}
    }
    entering(requests, lane, is_replica, identity, out)
}
