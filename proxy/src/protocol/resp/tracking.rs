//! What is made of what one client has said of what it keeps: how it is told, and who is in its stead.

use bytes::Bytes;

use super::caching::{self, ToldBy, Tracking};
use super::encode;
use super::session::Session;
use crate::protocol::Found;
use crate::protocol::caching::{Broadcast, Receiver};

/// The client stays in a lane in which it is told so, or not at all.
pub fn keep_told_by(session: &mut Session, told_by: ToldBy) {
    if session.told_by() == told_by {
        return;
    }
    let can_hear = session.resp3;
    session.names_mut().tracking = match told_by {
        ToldBy::Nobody => None,
        ToldBy::ItsShard => Some(Box::default()),
        // What it was told of is not known any more.
        ToldBy::AllShards => Some(Tracking::of_all(can_hear)),
    };
}

/// What all shards are to tell of for the client.
pub fn broadcast(session: &Session) -> Option<Broadcast<'_>> {
    static ALL: [Bytes; 1] = [Bytes::new()];
    let tracking = session.tracking().filter(|_| session.told_by() == ToldBy::AllShards)?;
    Some(match &tracking.prefixes {
        Some(prefixes) => Broadcast { prefixes, is_of_read: false },
        None => Broadcast { prefixes: &ALL, is_of_read: true },
    })
}

/// The client that is told in the stead of this one is not there any more: what this one is told, if it can hear it.
pub fn receiver_is_lost(session: &mut Session, lost: u64, out: &mut Vec<u8>) {
    let is_resp3 = session.resp3;
    let Some(tracking) = session.names.as_mut().and_then(|names| names.tracking.as_mut()) else { return };
    if ![Receiver::There(lost), Receiver::Lost(lost)].map(Some).contains(&tracking.receiver) {
        return;
    }
    tracking.receiver = Some(Receiver::Lost(lost));
    if is_resp3 {
        encode::push(out, true, 2);
        encode::bulk(out, b"tracking-redir-broken");
        encode::integer(out, lost as i64);
    }
}

/// What another client is told, in the words of this one; nothing if it cannot hear it.
pub fn tell_for_another(session: &Session, told: &[u8], out: &mut Vec<u8>) {
    if session.resp3 {
        out.extend_from_slice(told);
    } else if session.mode.is_listening() {
        caching::tell_by_message(told, out);
    }
}

/// Whether the client is there that is to be told in the stead of this one.
pub fn found(session: &mut Session, found: Result<&Found, &str>) {
    if let Some(sought) = session.names_mut().sought.as_mut() {
        sought.is_there = found.map(|found| found.count > 0).map_err(str::to_owned);
    }
}
