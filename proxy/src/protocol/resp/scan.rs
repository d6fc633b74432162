//! SCAN over several shards. What is asked of a shard goes with the question which process it is, in one piece: a cursor means
//! something only to the process that has given it.

use bytes::{Buf as _, BytesMut};

use super::command::Merge;
use super::decode::RequestDecoder;
use super::mode::Mode;
use super::session::Session;
use super::{Resp, Words, encode, identity, transaction, whole};
use crate::buffer::{Output, SHARE_MIN};
use crate::protocol::glob;
use crate::protocol::scan::{Page, STALE, digest};
use crate::protocol::{Part, Plan, Route};

/// INFO and the command itself.
pub const COMMANDS: u32 = 2;

/// What is to be done with it where the pool has several shards.
pub fn plan(words: &Words<'_>, session: &Session, plan: &mut Plan<Resp>) -> Route<Merge> {
    if session.mode == Mode::Watching {
        encode::error(
            &mut plan.reply,
            "ERR 'scan' is refused while keys are watched: it is sent in a transaction; send it before WATCH or after UNWATCH",
        );
        return Route::Answer;
    }
    let all = words.to_vec();
    let Some(number) = number(all[1]) else {
        encode::error(&mut plan.reply, "ERR invalid cursor");
        return Route::Answer;
    };
    let mut options = all[2..].chunks_exact(2);
    if let Some(&[_, pattern]) = options.rfind(|option| option[0].eq_ignore_ascii_case(b"MATCH")) {
        let start = pattern.as_ptr() as usize - words.canonical.as_ptr() as usize;
        plan.keys.push((start, glob::beginning(pattern).len()));
    }
    Route::Scan(number)
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// Writes what a shard is asked.
pub fn write(page: Page, decoder: &RequestDecoder, canonical: &[u8], out: &mut Vec<u8>) {
    out.clear();
    transaction::write_begin(out);
    encode::request(out, &[b"INFO", b"server"]);
    encode::array(out, decoder.argument_count());
    for (place, word) in decoder.arguments(canonical).enumerate() {
        if place == 1 {
            let cursor = page.cursor_in(number(word.value).unwrap_or(0));
            encode::bulk(out, cursor.to_string().as_bytes());
        } else {
            out.extend_from_slice(word.encoded);
        }
    }
    transaction::write_end(out);
}

/// What a shard has said.
struct Said<'r> {
    /// Which process of it that was.
    process: &'r [u8],
    /// Its own cursor.
    cursor: u64,
    /// The names of keys, an array.
    names: &'r [u8],
}

/// Reads a response: an error where that is what a command was answered with, none if it cannot be one.
fn read(response: &[u8]) -> Option<Result<Said<'_>, &[u8]>> {
    let rest = response.strip_prefix(b"*2\r\n")?;
    if encode::is_error(rest) {
        return Some(Err(whole::line(rest)?));
    }
    let (info, rest) = identity::string(rest)?;
    if encode::is_error(rest) {
        return Some(Err(rest));
    }
    let (cursor, names) = identity::string(rest.strip_prefix(b"*2\r\n")?)?;
    let cursor = number(cursor)?;
    let of_process = |line: &'_ [u8]| line.starts_with(b"run_id:");
    let process = info.split(|&byte| byte == b'\n').find(|line| of_process(line)).unwrap_or_default();
    Some(Ok(Said { process: process.trim_ascii_end(), cursor, names }))
}

/// Whether a response cannot be that of a shard to such a request.
pub fn is_odd(response: &[u8]) -> bool {
    read(response).is_none()
}

/// Makes the reply of the only part. True if that is a refusal of the proxy itself.
pub fn merge(page: Page, parts: Vec<Part>, reply: &mut Output) -> bool {
    let Some(Part { shard, bytes }) = parts.into_iter().next() else { return false };
    if encode::is_error(&bytes) {
        fail(&bytes, &shard, reply);
        return false;
    }
    let said = match read(&bytes) {
        None => {
            whole::refuse(&shard, reply);
            return false;
        }
        Some(Err(error)) => {
            reply.copy(error);
            return false;
        }
        Some(Ok(said)) => said,
    };
    if said.process.is_empty() {
        let words = format!(
            "ERR shard {shard} does not say which process it is (run_id in INFO): it cannot be scanned"
        );
        encode::error(reply.tail(), &words);
        return true;
    }
    if !page.is_of(said.process) {
        encode::error(reply.tail(), &format!("ERR {STALE}"));
        return true;
    }
    let Some(next) = page.next(said.cursor, said.process) else {
        let words =
            format!("ERR shard {shard} has too many keys to be scanned: its cursor is {}", said.cursor);
        encode::error(reply.tail(), &words);
        return true;
    };
    let start = bytes.len() - said.names.len();
    reply_with(next, start, bytes, reply);
    false
}

fn reply_with(next: u64, start: usize, mut bytes: BytesMut, reply: &mut Output) {
    encode::array(reply.tail(), 2);
    encode::bulk(reply.tail(), next.to_string().as_bytes());
    bytes.advance(start);
    if bytes.len() < SHARE_MIN {
        reply.copy(&bytes);
    } else {
        reply.share(bytes.freeze());
    }
}

/// Why the shard has not executed it: in its words, and not in those of a transaction that nobody has asked for.
fn fail(error: &[u8], shard: &str, reply: &mut Output) {
    let words = String::from_utf8_lossy(error.strip_prefix(b"-").unwrap_or(error));
    match words.trim_end().strip_prefix(transaction::DISCARDED_BECAUSE) {
        Some(reason) => encode::error(reply.tail(), &format!("ERR shard {shard}: {reason}")),
        None => reply.copy(error),
    }
}

/// Asks a node what it owns.
pub fn write_end(out: &mut Vec<u8>) {
    out.clear();
    encode::request(out, &[b"CLUSTER", b"NODES"]);
}

/// The scan is over, unless nodes own something else than `owned` by now. True if it is not.
pub fn end(owned: u32, parts: &[Part], reply: &mut Output) -> bool {
    let mut all = 0;
    for part in parts {
        all ^= match identity::string(&part.bytes).and_then(|(nodes, _)| owned_by(nodes)) {
            Some(owned) => owned,
            None => {
                encode::error(reply.tail(), &format!("ERR {STALE}"));
                return true;
            }
        };
    }
    if all == owned {
        encode::array(reply.tail(), 2);
        encode::bulk(reply.tail(), b"0");
        encode::array(reply.tail(), 0);
        return false;
    }
    encode::error(reply.tail(), &format!("ERR {STALE}"));
    true
}

/// What the node owns that says this; none while a slot is on its way.
/// Source: <https://redis.io/docs/latest/commands/cluster-nodes/>.
fn owned_by(nodes: &[u8]) -> Option<u32> {
    let nodes = std::str::from_utf8(nodes).ok()?;
    let is_itself = |line: &&str| {
        line.split(' ').nth(2).is_some_and(|flags| flags.split(',').any(|flag| flag == "myself"))
    };
    let slots: Vec<&str> = nodes.lines().find(is_itself)?.split_ascii_whitespace().skip(8).collect();
    (!slots.iter().any(|slot| slot.starts_with('['))).then(|| digest(&slots.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_what_it_owns_unless_a_slot_is_on_its_way() {
        let nodes = "a 127.0.0.1:1@2 master - 0 1 2 connected 5-6\n\
                     b 127.0.0.1:3@4,host myself,master - 0 0 3 connected 0-4 7 9-10\n";
        assert_eq!(owned_by(nodes.as_bytes()), Some(digest("0-4 7 9-10")));
        let moving = nodes.replace("9-10", "9-10 [4->-a]");
        assert_eq!(owned_by(moving.as_bytes()), None);
        let importing = nodes.replace("9-10", "9-10 [6-<-a]");
        assert_eq!(owned_by(importing.as_bytes()), None);
        assert_eq!(owned_by(b"a 127.0.0.1:1@2 master - 0 1 2 connected 5-6\n"), None);
        assert_eq!(owned_by(b"\xff"), None);
    }

    #[test]
    fn what_is_no_page_is_not_taken_for_one() {
        let good = "*2\r\n$20\r\n# Server\r\nrun_id:ab\r\n*2\r\n$1\r\n5\r\n*1\r\n$1\r\nk\r\n";
        let info = "# Server\r\nrun_id:ab";
        let good = good.replace("$20", &format!("${}", info.len()));
        let said = read(good.as_bytes()).expect("a page").unwrap_or_else(|_| panic!("no error"));
        assert_eq!(
            (said.process, said.cursor, said.names),
            (&b"run_id:ab"[..], 5, &b"*1\r\n$1\r\nk\r\n"[..])
        );
        for end in 0..good.len() - 11 {
            assert!(is_odd(&good.as_bytes()[..end]), "{end}");
        }
        for odd in ["*3\r\n", "*2\r\n:1\r\n:2\r\n", "+OK\r\n", "*2\r\n$1\r\na\r\n*2\r\n$1\r\nx\r\n*0\r\n"] {
            assert!(is_odd(odd.as_bytes()), "{odd}");
        }
        let refused = "*2\r\n$1\r\na\r\n-ERR syntax error\r\n";
        assert!(matches!(read(refused.as_bytes()), Some(Err(b"-ERR syntax error\r\n"))));
    }
}
