//! MULTI, EXEC and DISCARD: what is queued between them, and what a shard says to a transaction that it is sent as a whole.
//!
//! Nothing is sent before EXEC, so that a client that stops in between has done nothing, and nobody needs a connection of its
//! own: MULTI, the commands and EXEC are one request, with a response to each of them. A shard that refuses a command as it
//! queues it executes none, and says so to EXEC.
//!
//! WATCH is said to a shard, on a connection that the client has to itself until what it guards is executed or given up. Where that
//! is refused, a client that does not look at the replies would have something executed that it was to guard: so the next transaction
//! is an error. Where keys are watched no more (their shard is lost, they have another owner), EXEC says nil, as if one had
//! changed.

use super::command::{Command, Handling, Local, Merge};
use super::encode;
use super::mode::Mode;
use super::session::Session;
use super::split;
use crate::buffer::Output;
use crate::protocol::{BlockOutcome, Owners, Part, Route, Spread};

/// The reply to a command that is queued.
pub const QUEUED: &[u8] = b"+QUEUED\r\n";
/// The reply to EXEC where a command was refused.
const DISCARDED: &str = "EXECABORT Transaction discarded because of previous errors.";
/// What begins the same, where there is a reason to tell.
pub const DISCARDED_BECAUSE: &str = "EXECABORT Transaction discarded because of: ";

/// MULTI.
pub fn begin(session: &mut Session, out: &mut Vec<u8>) {
    session.mode = match session.mode {
        Mode::Unguarded => Mode::Spoiled,
        Mode::Lost => Mode::Doomed,
        _ => Mode::Queueing,
    };
    encode::simple(out, "OK");
}

/// EXEC. What is queued leaves the mode as it is until it is on its way.
pub fn execute(session: &mut Session, out: &mut Vec<u8>) -> Route<Merge> {
    match session.mode {
        Mode::Queueing => return Route::Execute(Merge::Transaction),
        Mode::Spoiled => {
            session.mode = Mode::Ordinary;
            encode::error(out, DISCARDED);
        }
        Mode::Doomed => {
            session.mode = Mode::Ordinary;
            encode::null_array(out, session.resp3);
        }
        Mode::Ordinary | Mode::Unguarded | Mode::Watching | Mode::Lost | Mode::Listening { .. } => {
            encode::error(out, "ERR EXEC without MULTI")
        }
    }
    Route::Answer
}

/// DISCARD.
pub fn discard(session: &mut Session, out: &mut Vec<u8>) {
    match session.mode {
        Mode::Ordinary | Mode::Unguarded | Mode::Watching | Mode::Lost | Mode::Listening { .. } => {
            encode::error(out, "ERR DISCARD without MULTI")
        }
        Mode::Queueing | Mode::Doomed | Mode::Spoiled => {
            session.mode = Mode::Ordinary;
            encode::simple(out, "OK");
        }
    }
}

/// WATCH. Where what was watched before is watched no more the next transaction is not executed anyway.
pub fn watch(session: &Session, out: &mut Vec<u8>) -> Route<Merge> {
    if matches!(session.mode, Mode::Unguarded | Mode::Lost) {
        encode::simple(out, "OK");
        return Route::Answer;
    }
    Route::Watch
}

/// What would change the connection that keys are watched on is refused, and with it what they were to guard.
pub fn refuse_change(name: &str, session: &mut Session, out: &mut Vec<u8>) {
    session.mode = Mode::Unguarded;
    let words = format!(
        "ERR '{name}' is refused while keys are watched: it would change the connection; send it before WATCH or after UNWATCH"
    );
    encode::error(out, &words);
}

/// UNWATCH outside of a transaction, or as one is executed. Nothing is watched any more.
pub fn unwatch(session: &mut Session, out: &mut Vec<u8>) {
    session.mode = Mode::Ordinary;
    encode::simple(out, "OK");
}

/// Writes MULTI.
pub fn write_begin(out: &mut Vec<u8>) {
    encode::request(out, &[b"MULTI"]);
}

/// Writes EXEC.
pub fn write_end(out: &mut Vec<u8>) {
    encode::request(out, &[b"EXEC"]);
}

/// Whether the response to MULTI, or to a command behind it, says that it is taken; none if it cannot be a response to that.
pub fn is_taken(is_first: bool, response: &[u8]) -> Option<bool> {
    match response {
        [b'-', ..] => Some(false),
        b"+OK\r\n" if is_first => Some(true),
        QUEUED if !is_first => Some(true),
        _ => None,
    }
}

/// What the response to EXEC, which begins so, says of a transaction of so many commands.
pub fn outcome(commands: u32, response: &[u8]) -> BlockOutcome {
    const CLEAN: [&[u8]; 6] =
        [b"-EXECABORT ", b"-MOVED ", b"-ASK ", b"-TRYAGAIN ", b"-CLUSTERDOWN ", b"-ERR EXEC without MULTI"];
    let mut head = Vec::new();
    encode::array(&mut head, commands as usize);
    match response {
        _ if response.starts_with(&head) => BlockOutcome::Executed,
        [b'*', b'-', ..] | [b'_', ..] => BlockOutcome::Changed,
        [b'-', ..] if CLEAN.iter().any(|words| response.starts_with(words)) => BlockOutcome::Refused,
        // It may take what comes next for more of the transaction: servers before Redis 6 while they load.
        [b'-', ..] => BlockOutcome::Unclear,
        _ => BlockOutcome::Odd,
    }
}

/// Refuses a command before it is looked at. An EXEC that is, as Redis words it, has discarded a transaction, whether there
/// was one or not.
pub fn reject(command: &Command<'_>, words: &str, reply: &mut Vec<u8>) {
    if command.handling == Handling::Answer(Local::Exec) {
        refuse(words.as_bytes(), reply);
    } else {
        encode::error(reply, words);
    }
}

/// The reply to a transaction that was not executed, because of an error that a shard, or the proxy, has found.
pub fn refuse(reason: &[u8], reply: &mut Vec<u8>) {
    let words = String::from_utf8_lossy(reason.strip_prefix(b"-").unwrap_or(reason));
    let words = words.trim_end();
    let words = words.strip_prefix("ERR ").unwrap_or(words);
    if words.starts_with("EXECABORT ") {
        encode::error(reply, words);
    } else {
        encode::error(reply, &format!("{DISCARDED_BECAUSE}{words}"));
    }
}

/// Joins the replies of the parts of a transaction, one element for each of its commands: some were executed by other shards than
/// others, or by the proxy, whose part has no name.
pub fn merge(owners: &Owners, parts: Vec<Part>, reply: &mut Output) {
    let of_shards = || parts.iter().filter(|part| !part.shard.is_empty());
    // One shard then has all that shards execute.
    if let Some(refused) = of_shards().find(|part| encode::is_null_array(&part.bytes)) {
        return reply.copy(&refused.bytes);
    }
    let is_error = |part: &&Part| part.bytes.first() == Some(&b'-');
    let Some(failed) = of_shards().find(is_error) else {
        return split::merge(Merge::Array, owners, parts, reply);
    };
    if of_shards().count() == 1 {
        return reply.copy(&failed.bytes);
    }
    encode::error(reply.tail(), &executed_in_part(&parts));
}

/// Which shards have executed their part of a transaction, which have not, and of which nobody knows.
fn executed_in_part(parts: &[Part]) -> String {
    let (mut done, mut not_done, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts.iter().filter(|part| !part.shard.is_empty()) {
        let words = String::from_utf8_lossy(&part.bytes);
        let (names, shown): (&mut Vec<String>, _) = match words.trim_end().strip_prefix('-') {
            None => (&mut done, part.shard.to_string()),
            Some(error) => match error.strip_prefix("EXECABORT ") {
                Some(reason) => (&mut not_done, format!("{} ({reason})", part.shard)),
                None => (
                    &mut unknown,
                    format!("{} ({})", part.shard, error.strip_prefix("ERR ").unwrap_or(error)),
                ),
            },
        };
        // Several slots of a node are executed one by one.
        if !names.contains(&shown) {
            names.push(shown);
        }
    }
    let mut text = "EXECABORT Transaction was not executed on all shards".to_owned();
    for (what, names) in [("executed on", done), ("not executed on", not_done), ("unknown on", unknown)] {
        if !names.is_empty() {
            text.push_str(&format!("; {what} {}", names.join(", ")));
        }
    }
    text
}

/// The reply to a command whose keys are not with those of its transaction, or not together.
pub fn spread_keys(spread: Spread, is_one_command: bool) -> &'static str {
    match (spread, is_one_command) {
        (Spread::Slots, true) => {
            "-CROSSSLOT Keys in request don't hash to the same slot: a command is not split inside a transaction; give its keys \
             the same hash tag\r\n"
        }
        (Spread::Slots, false) => {
            "-CROSSSLOT Keys of the transaction don't hash to the same slot: give them the same hash tag, or set \
             transactions: per-shard\r\n"
        }
        (Spread::IgnoredTag, _) => {
            "-CROSSSLOT Keys of the transaction don't hash to the same shard: this pool does not use braces as hash \
             tags; set hash_tag to \"{}\"\r\n"
        }
        (Spread::Shards, true) => {
            "-CROSSSLOT Keys in request don't hash to the same shard: a command is not split inside a transaction; give its keys \
             the same hash tag\r\n"
        }
        (Spread::Shards, false) => {
            "-CROSSSLOT Keys of the transaction don't hash to the same shard: give them the same hash tag, or set \
             transactions: per-shard\r\n"
        }
    }
}

/// The reply to WATCH of keys that are not where others are watched.
pub fn spread_watch(spread: Spread) -> &'static str {
    match spread {
        Spread::Slots => {
            "-CROSSSLOT Keys that are watched are not on the same node: give them the same hash tag\r\n"
        }
        Spread::Shards | Spread::IgnoredTag => {
            "-CROSSSLOT Keys that are watched don't hash to the same shard: give them the same hash tag\r\n"
        }
    }
}

/// The reply to a command whose keys are not where its transaction watches keys.
pub fn spread_from_watch(spread: Spread) -> &'static str {
    match spread {
        Spread::Slots => {
            "-CROSSSLOT Keys of a transaction with WATCH have to be in one slot, on the node of the watched keys: give them the same \
             hash tag\r\n"
        }
        Spread::Shards | Spread::IgnoredTag => {
            "-CROSSSLOT Keys of the transaction don't hash to the shard of the watched keys: give them the same hash tag\r\n"
        }
    }
}
