//! Commands for all shards at once: how their replies become the one of a single server.
//!
//! What one shard does not do is told with its name, and never left out: who empties a cache or counts its keys goes by that.

use bytes::{Buf as _, Bytes};

use super::command::Merge;
use super::decode::RequestDecoder;
use super::{Resp, Words, encode, session};
use crate::buffer::{Output, SHARE_MIN};
use crate::protocol::glob;
use crate::protocol::{Facts, Part, Plan, Route};

/// Longest list of names that is put together: all of them are kept until the last shard has answered, because their number
/// comes first.
const NAMES_MAX: usize = 64 << 20;
/// The same of entries and texts that are taken apart, for which several times as much is needed meanwhile.
const REPORTS_MAX: usize = 16 << 20;
/// The same of events and points in time, of which a server keeps few.
const EVENTS_MAX: usize = 4 << 20;
/// Entries of a log that a server shows who does not say how many.
const ENTRIES_USUAL: u32 = 10;
/// So many shards that have failed are named in an error.
const NAMED_MAX: usize = 8;

/// What is to be done with such a command where the pool has several shards.
pub fn plan(merge: Merge, words: &Words<'_>, facts: &Facts<'_, Resp>, plan: &mut Plan<Resp>) -> Route<Merge> {
    match merge {
        Merge::Keys => {
            if let Some(pattern) = words.iter().nth(1) {
                let start = pattern.as_ptr() as usize - words.canonical.as_ptr() as usize;
                plan.keys.push((start, glob::beginning(pattern).len()));
            }
            Route::AllShards(merge)
        }
        Merge::Any(_) => Route::AllShards(Merge::Any(scattered(facts))),
        Merge::Log(_) => Route::AllShards(Merge::Log(entries(words))),
        Merge::AllReset => Route::AllShards(Merge::AllOk),
        merge => Route::AllShards(merge),
    }
}

/// How many entries of a log the request asks for at most.
fn entries(words: &Words<'_>) -> u32 {
    match words.iter().nth(2).map(session::number) {
        None => ENTRIES_USUAL,
        // All of them; and what is no number is told by the shards.
        Some(number) => number.and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX),
    }
}

/// Another number each time.
fn scattered(facts: &Facts<'_, Resp>) -> u32 {
    let seed =
        facts.unix_micros().wrapping_add(facts.counters.requests.get() << 32).wrapping_add(facts.client);
    // splitmix64
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 32) as u32
}

/// Bytes that are kept until all shards have answered.
pub fn parts_max(merge: Merge) -> usize {
    match merge {
        Merge::Keys | Merge::Union | Merge::Every | Merge::AnyDone | Merge::Modules | Merge::Page(_) => {
            NAMES_MAX
        }
        Merge::Log(_) | Merge::Texts => REPORTS_MAX,
        Merge::History | Merge::Latest => EVENTS_MAX,
        Merge::Parameters | Merge::Sections(_) | Merge::MemoryStats | Merge::Histogram => NAMES_MAX,
        _ => usize::MAX,
    }
}

/// The reply to who asks for more.
pub fn refuse_long(merge: Merge, reply: &mut Vec<u8>) {
    let mib = parts_max(merge) >> 20;
    let instead = match merge {
        Merge::Page(_) => "ask with a smaller COUNT",
        Merge::Log(_) => "ask for fewer entries",
        Merge::History
        | Merge::Latest
        | Merge::Texts
        | Merge::Parameters
        | Merge::Sections(_)
        | Merge::MemoryStats
        | Merge::Histogram => "ask the shards directly",
        _ => "ask with a pattern, or with SCAN",
    };
    encode::error(reply, &format!("ERR the replies of the shards have more than {mib} MiB; {instead}"));
}

/// Whether a response, which is no error, cannot be the one to such a command.
pub fn is_odd(merge: Merge, response: &[u8]) -> bool {
    match merge {
        Merge::Keys => head(response).is_none(),
        Merge::Every => numbers(response).is_none(),
        Merge::Least => integer(response).is_none(),
        Merge::Any(_) => !matches!(response.first(), Some(b'$' | b'_')),
        _ => false,
    }
}

/// Joins the responses, none of which is an error. The shard whose response is none, if there is one.
pub fn merge<'p>(merge: Merge, parts: &'p [Part], reply: &mut Output) -> Result<(), &'p Part> {
    match merge {
        Merge::Least => {
            let mut least = i64::MAX;
            for part in parts {
                least = least.min(integer(&part.bytes).ok_or(part)?);
            }
            encode::integer(reply.tail(), least);
        }
        Merge::Every => {
            let mut all: Option<Vec<i64>> = None;
            for part in parts {
                let numbers = numbers(&part.bytes).ok_or(part)?;
                let before = all.get_or_insert_with(|| numbers.clone());
                if before.len() != numbers.len() {
                    return Err(part);
                }
                before.iter_mut().zip(numbers).for_each(|(least, number)| *least = number.min(*least));
            }
            let all = all.unwrap_or_default();
            encode::array(reply.tail(), all.len());
            all.into_iter().for_each(|number| encode::integer(reply.tail(), number));
        }
        Merge::Any(number) => {
            let is_something = |part: &&Part| !matches!(&part.bytes[..], b"_\r\n" | b"$-1\r\n");
            let something: Vec<&Part> = parts.iter().filter(is_something).collect();
            let chosen = match something.len() {
                0 => parts.first(),
                count => something.get(number as usize % count).copied(),
            };
            chosen.into_iter().for_each(|part| reply.copy(&part.bytes));
        }
        _ => {
            let first = parts.first();
            if let Some(other) =
                parts.iter().find(|part| first.is_some_and(|first| first.bytes != part.bytes))
            {
                return Err(other);
            }
            first.into_iter().for_each(|part| reply.copy(&part.bytes));
        }
    }
    Ok(())
}

/// Whether the last part, which the proxy has said itself, says something, or what shards say that answer. Else that part goes, and it is for
/// the others to be the reply.
pub fn has_own(merge: Merge, parts: &mut Vec<Part>) -> bool {
    let Some((own, shards)) = parts.split_last() else { return false };
    let is_something = !matches!(&own.bytes[..], b"*0\r\n" | b"%0\r\n" | b"$0\r\n\r\n" | b"=4\r\ntxt:\r\n");
    let mut silent = shards.iter().map(|part| encode::is_error(&part.bytes));
    // A section needs all of them.
    let is_answered = if matches!(merge, Merge::Sections(_)) {
        !silent.any(|silent| silent)
    } else {
        !silent.all(|silent| silent)
    };
    if !is_something && !is_answered {
        parts.pop();
    }
    is_something || is_answered
}

/// Writes what a shard is asked whose name is the word behind the next.
pub fn write_own(decoder: &RequestDecoder, canonical: &[u8], out: &mut Vec<u8>) {
    out.clear();
    encode::array(out, decoder.argument_count().saturating_sub(2));
    let words = decoder.arguments(canonical).enumerate().filter(|(place, _)| !(1..=2).contains(place));
    words.for_each(|(_, word)| out.extend_from_slice(word.encoded));
}

/// The names that all shards say. They are large together, so they are not copied.
pub fn merge_keys(parts: Vec<Part>, reply: &mut Output) {
    let heads: Option<Vec<(usize, usize)>> = parts.iter().map(|part| head(&part.bytes)).collect();
    let Some(heads) = heads else {
        let odd = parts.iter().find(|part| head(&part.bytes).is_none());
        return odd.into_iter().for_each(|part| refuse(&part.shard, reply));
    };
    encode::array(reply.tail(), heads.iter().map(|&(count, _)| count).sum());
    for (part, (_, start)) in parts.into_iter().zip(heads) {
        let mut names = part.bytes;
        names.advance(start);
        if names.len() < SHARE_MIN {
            reply.copy(&names);
        } else {
            reply.share(Bytes::from(names));
        }
    }
}

/// What any shard has done, if one has: those that were not there, or that refuse it for the moment, do it when it is needed. What is the
/// same on all of them is told by the one that has most of it. A shard's own words go before those about one that does not answer.
pub fn merge_any_done(parts: &[Part], reply: &mut Output) {
    let is_error = |part: &&Part| encode::is_error(&part.bytes);
    let is_absent = |part: &&Part| part.bytes.starts_with(format!("-ERR shard {}: ", part.shard).as_bytes());
    let mut longest: Option<&Part> = None;
    for part in parts.iter().filter(|part| !is_error(part)) {
        longest = longest.filter(|longest| longest.bytes.len() >= part.bytes.len()).or(Some(part));
    }
    let told = longest.or_else(|| parts.iter().find(|part| !is_absent(part))).or(parts.first());
    told.into_iter().for_each(|part| reply.copy(&part.bytes));
}

/// The error of one shard is the reply, word for word, and behind it which shards have failed, unless all say the same: the
/// others have done their part.
pub fn fail(error: &[u8], parts: &[Part], reply: &mut Output) {
    if parts.iter().all(|part| part.bytes == error) {
        return reply.copy(error);
    }
    let Some(words) = error.strip_suffix(b"\r\n").filter(|words| words.first() == Some(&b'-')) else {
        return reply.copy(error);
    };
    let failed: Vec<&str> =
        parts.iter().filter(|part| encode::is_error(&part.bytes)).map(|part| &*part.shard).collect();
    let named = failed[..failed.len().min(NAMED_MAX)].join(", ");
    let more = if failed.len() > NAMED_MAX { ", ..." } else { "" };
    reply.copy(words);
    reply.copy(
        format!(" (failed on {} of {} shards: {named}{more})\r\n", failed.len(), parts.len()).as_bytes(),
    );
}

/// The shard has said what is no answer.
pub fn refuse(shard: &str, reply: &mut Output) {
    encode::error(reply.tail(), &format!("ERR shard {shard}: unexpected response to a part of the request"));
}

/// A number that is not negative.
pub fn integer(part: &[u8]) -> Option<i64> {
    let count = std::str::from_utf8(part.strip_prefix(b":")?.strip_suffix(b"\r\n")?).ok()?.parse().ok()?;
    (count >= 0).then_some(count)
}

/// The line that a response begins with.
pub fn line(response: &[u8]) -> Option<&[u8]> {
    Some(&response[..=memchr::memchr(b'\n', response)?])
}

/// How many elements an array has, and where the first begins.
pub fn head(response: &[u8]) -> Option<(usize, usize)> {
    let end = memchr::memchr(b'\n', response)?;
    let (b'*' | b'~', count) = response[..end].strip_suffix(b"\r")?.split_first()? else { return None };
    Some((std::str::from_utf8(count).ok()?.parse().ok()?, end + 1))
}

/// The elements of an array of numbers.
fn numbers(response: &[u8]) -> Option<Vec<i64>> {
    let (count, start) = head(response)?;
    let numbers: Option<Vec<i64>> =
        response[start..].split_inclusive(|&byte| byte == b'\n').map(integer).collect();
    numbers.filter(|numbers| numbers.len() == count)
}

#[cfg(test)]
mod tests {
    use super::super::split::joined;
    use super::*;

    #[test]
    fn the_replies_of_several_shards_become_one() {
        for (merge, responses, reply) in [
            (Merge::Sum, &[":1\r\n", ":2\r\n"][..], ":3\r\n"),
            (Merge::Least, &[":5\r\n", ":2\r\n", ":9\r\n"], ":2\r\n"),
            (Merge::Every, &["*2\r\n:1\r\n:1\r\n", "*2\r\n:0\r\n:1\r\n"], "*2\r\n:0\r\n:1\r\n"),
            (Merge::Every, &["*0\r\n", "*0\r\n"], "*0\r\n"),
            (Merge::Every, &["*1\r\n:1\r\n", "-ERR shard shard-2: gone\r\n"], "*1\r\n:1\r\n"),
            (Merge::Every, &["-BUSY a\r\n", "-BUSY a\r\n"], "-BUSY a\r\n"),
            (
                Merge::Keys,
                &["*1\r\n$1\r\na\r\n", "*0\r\n", "*1\r\n$1\r\nb\r\n"],
                "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
            ),
            (Merge::Same, &["$1\r\na\r\n", "$1\r\na\r\n"], "$1\r\na\r\n"),
            (
                Merge::Same,
                &["$1\r\na\r\n", "$1\r\nb\r\n"],
                "-ERR shard shard-2: unexpected response to a part of the request\r\n",
            ),
            (Merge::Any(5), &["$-1\r\n", "$1\r\nb\r\n"], "$1\r\nb\r\n"),
            (Merge::Any(0), &["_\r\n", "_\r\n"], "_\r\n"),
            (Merge::AnyDone, &["-BUSY no\r\n", "$1\r\na\r\n"], "$1\r\na\r\n"),
            (Merge::AnyDone, &["*0\r\n", "*1\r\n$1\r\na\r\n", "*0\r\n"], "*1\r\n$1\r\na\r\n"),
            (Merge::AnyDone, &["-ERR shard shard-1: timed out\r\n", "-ERR no Lua\r\n"], "-ERR no Lua\r\n"),
            (
                Merge::AllOk,
                &["+OK\r\n", "-OOM no\r\n", "-BUSY no\r\n"],
                "-OOM no (failed on 2 of 3 shards: shard-2, shard-3)\r\n",
            ),
            (Merge::Keys, &["*0\r\n", "!3\r\nERR\r\n"], "!3\r\nERR\r\n"),
        ] {
            assert_eq!(joined(merge, responses), reply, "{merge:?}");
        }
        let chosen: std::collections::HashSet<_> =
            (0..10).map(|number| joined(Merge::Any(number), &["$1\r\na\r\n", "$1\r\nb\r\n"])).collect();
        assert_eq!(chosen.len(), 2, "each has its chance");
    }

    #[test]
    fn what_is_no_answer_is_not_taken_for_one() {
        for (merge, odd) in [
            (Merge::Keys, "+OK\r\n"),
            (Merge::Keys, "*-1\r\n"),
            (Merge::Every, "*1\r\n:1\r\n:1\r\n"),
            (Merge::Every, "*1\r\n$1\r\na\r\n"),
            (Merge::Least, "$1\r\n1\r\n"),
            (Merge::Least, ":-1\r\n"),
            (Merge::Any(1), ":1\r\n"),
        ] {
            assert!(is_odd(merge, odd.as_bytes()), "{merge:?} {odd:?}");
        }
    }
}
