//! Whether the user that a client is may send a request: asked of every request of a user with rules, before anything of it goes anywhere.
//!
//! The words are those of the shards' version, as far as that is known: Redis has others since 7.2, and so has Valkey.

use super::acl::user::{Denied, User};
use super::command::index::lookup;
use super::command::{Command, Merge};
use super::decode::RequestDecoder;
use super::session::Session;
use super::{Resp, Words, local, transaction, waiting};
use crate::denied::{Context, Event, Reason};
use crate::protocol::store::Store;
use crate::protocol::{Facts, Plan, Route};

/// Bytes of what was denied that are kept of a name.
const OBJECT_MAX: usize = 128;

/// Whether a request whose one key is there is certainly allowed; what is not is to be looked at further.
#[inline]
pub fn allow_plainly(
    command: &Command<'_>,
    canonical: &[u8],
    key: (usize, usize),
    session: &Session,
) -> bool {
    session.restricted().is_none_or(|user| user.allows_plainly(command, &canonical[key.0..key.0 + key.1]))
}

/// Refuses what the user may not do; none where it may.
pub fn refuse(
    command: &Command<'_>,
    words: &Words<'_>,
    session: &Session,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Option<Route<Merge>> {
    let user = session.restricted()?;
    let all = words.to_vec();
    let denied = user.check(command, all.len(), |place| all[place]).err()?;
    let reply = reply(denied, command, user, is_older(facts));
    transaction::reject(command, &reply, &mut plan.reply);
    note(denied, command, &all, user, session, facts);
    Some(Route::Answer)
}

/// Whether a request that was taken before may be sent by the user that its client is now.
pub fn may_send(session: &Session, request: &[u8], store: &Store) -> bool {
    let Some(user) = session.restricted() else { return true };
    let mut decoder = RequestDecoder::default();
    let Some(all) = waiting::words_of(&mut decoder, request) else { return false };
    let Some(&name) = all.first() else { return false };
    let learnt = store.commands.find(name, all.get(1).copied());
    let row = lookup(name).map(|row| all.get(1).and_then(|word| row.subcommand(word)).unwrap_or(row));
    let command = row.or(learnt.as_ref());
    command.is_some_and(|command| user.check(command, all.len(), |place| all[place]).is_ok())
}

/// Whether the shards have the words of Redis before 7.2.
pub fn is_older(facts: &Facts<'_, Resp>) -> bool {
    let (server, version) = local::info::kind(facts);
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    server == "redis" && version < (7, 2)
}

fn reply(denied: Denied, command: &Command<'_>, user: &User, is_older: bool) -> String {
    let name = command.name;
    match (denied, is_older) {
        (Denied::Command, true) => format!("NOPERM this user has no permissions to run the '{name}' command"),
        (Denied::Command, false) => {
            format!("NOPERM User {} has no permissions to run the '{name}' command", user.name)
        }
        (Denied::Key(_), true) => {
            "NOPERM this user has no permissions to access one of the keys used as arguments".into()
        }
        (Denied::Key(_), false) => "NOPERM No permissions to access a key".into(),
        (Denied::Channel(_), true) => {
            "NOPERM this user has no permissions to access one of the channels used as arguments".into()
        }
        (Denied::Channel(_), false) => "NOPERM No permissions to access a channel".into(),
        (Denied::Pattern(option), _) => {
            format!("ERR {option} option of SORT denied due to insufficient ACL permissions.")
        }
    }
}

/// What ACL DRYRUN says of it.
pub fn told(denied: Denied, command: &Command<'_>, all: &[&[u8]], user: &User, is_older: bool) -> String {
    let who = if is_older { "This user".to_owned() } else { format!("User {}", user.name) };
    let text = |place: usize| String::from_utf8_lossy(all[place]).into_owned();
    match denied {
        Denied::Command => format!("{who} has no permissions to run the '{}' command", command.name),
        Denied::Key(place) => format!("{who} has no permissions to access the '{}' key", text(place)),
        Denied::Channel(place) => format!("{who} has no permissions to access the '{}' channel", text(place)),
        Denied::Pattern(option) => format!("{who} has no permissions to use the {option} option of SORT"),
    }
}

/// For ACL LOG.
#[cold]
fn note(
    denied: Denied,
    command: &Command<'_>,
    all: &[&[u8]],
    user: &User,
    session: &Session,
    facts: &Facts<'_, Resp>,
) {
    let (reason, object) = match denied {
        Denied::Command => (Reason::Command, command.name.as_bytes()),
        Denied::Key(place) => (Reason::Key, all[place]),
        Denied::Channel(place) => (Reason::Channel, all[place]),
        Denied::Pattern(_) => (Reason::Key, &b"*"[..]),
    };
    let context = if session.mode.is_queueing() { Context::Multi } else { Context::Toplevel };
    note_event(reason, context, object, user.name.as_bytes(), command.name, session, facts);
}

/// The same of a wrong password.
#[cold]
pub fn note_wrong_password(name: &[u8], command: &str, session: &Session, facts: &Facts<'_, Resp>) {
    note_event(Reason::Auth, Context::Toplevel, command.as_bytes(), name, command, session, facts);
}

fn note_event(
    reason: Reason,
    context: Context,
    object: &[u8],
    user: &[u8],
    command: &str,
    session: &Session,
    facts: &Facts<'_, Resp>,
) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(OBJECT_MAX)]).into_owned();
    let name = session.names.as_ref().map_or("", |names| &names.name);
    let name = &name[..name.len().min(OBJECT_MAX)];
    let client = format!(
        "id={} name={name} db={} cmd={command} user={} resp={}",
        facts.client,
        session.db,
        session.user_name(facts.settings),
        if session.resp3 { 3 } else { 2 }
    );
    facts.denied.note(
        Event { reason, context, object: text(object), user: text(user), client },
        facts.unix_micros() / 1000,
    );
}
