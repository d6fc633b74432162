//! What shards report of themselves: what was slow, how long things took, what they advise. To a client it is the report of one server.

use std::collections::HashMap;

use super::command::Merge;
use super::decode::ResponseDecoder;
use super::{encode, identity, whole};
use crate::buffer::Output;
use crate::protocol::Part;

/// Longest name of a figure or parameter.
pub const NAMES_MAX: usize = 256;
/// Pairs of a map that is read.
const PAIRS_MAX: usize = 100_000;

/// What an entry of a log has since Redis 4: with the address of its client, and the name of that behind it.
const ENTRY_FIELDS: usize = 6;

/// Points in time that a server remembers of an event.
const HISTORY_MAX: usize = 160;

/// Whether a response, which is no error, cannot be the one to such a command.
pub fn is_odd(merge: Merge, response: &[u8]) -> bool {
    match merge {
        Merge::Texts | Merge::Sections(_) => identity::string(response).is_none(),
        Merge::Parameters | Merge::MemoryStats | Merge::Histogram => {
            !matches!(response.first(), Some(b'*' | b'%'))
        }
        _ => !response.starts_with(b"*"),
    }
}

/// Joins the responses, none of which is an error but of texts. The shard whose response is none, if there is one.
pub fn merge<'p>(merge: Merge, parts: &'p [Part], reply: &mut Output) -> Result<(), &'p Part> {
    match merge {
        Merge::Log(limit) => {
            // The newest first, and of the same second those of the first shard.
            let mut entries = timed(parts, 1)?;
            entries.sort_by_key(|(time, ..)| std::cmp::Reverse(*time));
            entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            encode::array(reply.tail(), entries.len());
            entries.iter().for_each(|(_, entry, shard)| write_entry(entry, shard, reply));
        }
        Merge::History => {
            let mut points = timed(parts, 0)?;
            points.sort_by_key(|(time, ..)| *time);
            let oldest = points.len().saturating_sub(HISTORY_MAX);
            write(points[oldest..].iter().map(|(_, point, _)| *point), reply);
        }
        Merge::Latest => latest(parts, reply)?,
        _ => texts(parts, reply),
    }
    Ok(())
}

/// An entry of a log. Its client is a connection of the proxy, which has no name: there it says whose entry it is.
fn write_entry(entry: &[u8], shard: &str, reply: &mut Output) {
    const NO_NAME: &[u8] = b"$0\r\n\r\n";
    let fields = elements(entry).unwrap_or_default();
    if fields.len() == ENTRY_FIELDS && fields.last() == Some(&NO_NAME) {
        reply.copy(&entry[..entry.len() - NO_NAME.len()]);
        encode::bulk(reply.tail(), shard.as_bytes());
    } else {
        reply.copy(entry);
    }
}

/// The time of an element, itself and its shard.
type Timed<'p> = (i64, &'p [u8], &'p str);

/// The elements of all arrays, each with the time that its own element at this place says.
fn timed(parts: &[Part], place: usize) -> Result<Vec<Timed<'_>>, &Part> {
    let mut all = Vec::new();
    for part in parts {
        for entry in elements(&part.bytes).ok_or(part)? {
            let time = elements(entry).and_then(|fields| whole::integer(fields.get(place)?));
            all.push((time.ok_or(part)?, entry, &*part.shard));
        }
    }
    Ok(all)
}

fn write<'e>(entries: impl ExactSizeIterator<Item = &'e [u8]>, reply: &mut Output) {
    encode::array(reply.tail(), entries.len());
    entries.for_each(|entry| reply.copy(entry));
}

/// For each event when it was last seen and how long it took then, the longest, and sums of what later servers say behind those.
fn latest<'p>(parts: &'p [Part], reply: &mut Output) -> Result<(), &'p Part> {
    /// Places of numbers; between these two is how long it took last.
    const TIME: usize = 0;
    const LONGEST: usize = 2;
    let mut events: Vec<(&[u8], Vec<i64>)> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for part in parts {
        for entry in elements(&part.bytes).ok_or(part)? {
            let fields = elements(entry).ok_or(part)?;
            let (name, numbers) = fields.split_first().ok_or(part)?;
            let numbers: Option<Vec<i64>> = numbers.iter().map(|number| whole::integer(number)).collect();
            let numbers = numbers.filter(|numbers| numbers.len() > LONGEST).ok_or(part)?;
            let place = *places.entry(name).or_insert(events.len());
            let Some((_, known)) = events.get_mut(place) else {
                events.push((name, numbers));
                continue;
            };
            if numbers[TIME] > known[TIME] {
                known[..LONGEST].copy_from_slice(&numbers[..LONGEST]);
            }
            known[LONGEST] = known[LONGEST].max(numbers[LONGEST]);
            let further = known[LONGEST + 1..].iter_mut().zip(&numbers[LONGEST + 1..]);
            further.for_each(|(sum, number)| *sum = sum.saturating_add(*number));
        }
    }
    encode::array(reply.tail(), events.len());
    for (name, numbers) in events {
        encode::array(reply.tail(), 1 + numbers.len());
        reply.copy(name);
        numbers.into_iter().for_each(|number| encode::integer(reply.tail(), number));
    }
    Ok(())
}

/// What each shard says, below its name; also where it is an error, unless all of them are.
fn texts(parts: &[Part], reply: &mut Output) {
    let said = parts.iter().find(|part| !encode::is_error(&part.bytes));
    let Some(said) = said else {
        return parts.first().into_iter().for_each(|part| reply.copy(&part.bytes));
    };
    let mut text = Vec::new();
    for part in parts {
        let words = match identity::string(&part.bytes) {
            Some((words, _)) => words,
            None => part.bytes.strip_prefix(b"-").unwrap_or(&part.bytes),
        };
        if !text.is_empty() {
            text.extend_from_slice(b"\n\n");
        }
        text.extend_from_slice(format!("# {}\n", part.shard).as_bytes());
        text.extend_from_slice(words.trim_ascii_end());
    }
    match said.bytes.first() {
        Some(b'=') => encode::verbatim(reply.tail(), &text),
        _ => encode::bulk(reply.tail(), &text),
    }
}

/// The elements of an array, each with all that is in it.
fn elements(response: &[u8]) -> Option<Vec<&[u8]>> {
    let (count, start) = whole::head(response)?;
    values(response, count, start)
}

/// The names and values of a map, or of an array that stands for one.
pub fn pairs(response: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let (count, start) = match response.first()? {
        b'%' => {
            let end = memchr::memchr(b'\n', response)?;
            let count: usize =
                std::str::from_utf8(response[1..end].strip_suffix(b"\r")?).ok()?.parse().ok()?;
            (count.checked_mul(2)?, end + 1)
        }
        _ => whole::head(response)?,
    };
    if !count.is_multiple_of(2) || count > 2 * PAIRS_MAX {
        return None;
    }
    let values = values(response, count, start)?;
    Some(values.as_chunks::<2>().0.iter().map(|[name, value]| (*name, *value)).collect())
}

fn values(response: &[u8], count: usize, start: usize) -> Option<Vec<&[u8]>> {
    let (mut rest, mut found) = (&response[start..], Vec::new());
    for _ in 0..count {
        let progress = ResponseDecoder::default().decode(rest).ok().filter(|progress| progress.complete)?;
        let (element, behind) = rest.split_at(progress.length);
        found.push(element);
        rest = behind;
    }
    Some(found)
}

/// The modules of the shard that has most, by name and version: with which words they were loaded is not told, there may be passwords.
pub fn merge_modules(mut parts: Vec<Part>, reply: &mut Output) {
    for part in &mut parts {
        if encode::is_error(&part.bytes) {
            continue;
        }
        let Some(told) = modules(&part.bytes) else { return whole::refuse(&part.shard, reply) };
        part.bytes.clear();
        part.bytes.extend_from_slice(&told);
    }
    whole::merge_any_done(&parts, reply);
}

fn modules(response: &[u8]) -> Option<Vec<u8>> {
    let modules = elements(response)?;
    let mut out = Vec::new();
    encode::array(&mut out, modules.len());
    for module in modules {
        let is_told = |(name, _): &(&[u8], &[u8])| {
            identity::string(name).is_some_and(|(name, _)| name == b"name" || name == b"ver")
        };
        let told: Vec<_> = pairs(module)?.into_iter().filter(is_told).collect();
        encode::map(&mut out, module.starts_with(b"%"), told.len());
        for (name, value) in told {
            out.extend_from_slice(name);
            out.extend_from_slice(value);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::split::joined;
    use super::*;

    fn entry(id: u32, time: u32) -> String {
        format!("*4\r\n:{id}\r\n:{time}\r\n:9\r\n*1\r\n$4\r\nKEYS\r\n")
    }

    #[test]
    fn the_newest_of_all_logs_come_first_and_no_more_than_were_asked_for() {
        let one = format!("*2\r\n{}{}", entry(7, 30), entry(6, 10));
        let two = format!("*2\r\n{}{}", entry(7, 30), entry(5, 20));
        let reply = format!("*3\r\n{}{}{}", entry(7, 30), entry(7, 30), entry(5, 20));
        assert_eq!(joined(Merge::Log(3), &[&one, &two, "*0\r\n"]), reply);
        assert_eq!(joined(Merge::Log(0), &["*0\r\n", "*0\r\n"]), "*0\r\n");
    }

    #[test]
    fn an_entry_of_a_log_whose_client_has_no_name_has_that_of_its_shard() {
        let entry = |last: &str| format!("*6\r\n:1\r\n:2\r\n:3\r\n*1\r\n$0\r\n\r\n$1\r\na\r\n{last}");
        let one = format!("*2\r\n{}{}", entry("$0\r\n\r\n"), entry("$3\r\nown\r\n"));
        let reply = format!("*2\r\n{}{}", entry("$7\r\nshard-1\r\n"), entry("$3\r\nown\r\n"));
        assert_eq!(joined(Merge::Log(9), &[&one, "*0\r\n"]), reply);
        // A name that ends as if it were none.
        let tricky = format!("*1\r\n{}", entry("$6\r\na$0\r\n\r\r\n"));
        assert_eq!(joined(Merge::Log(9), &[&tricky, "*0\r\n"]), tricky);
        let tricky = format!("*1\r\n{}", entry("$5\r\na$0\r\n\r\n"));
        assert_eq!(joined(Merge::Log(9), &[&tricky, "*0\r\n"]), tricky);
        // Of another form: as it is.
        let odd = "*1\r\n*5\r\n:1\r\n:2\r\n:3\r\n*0\r\n$0\r\n\r\n";
        assert_eq!(joined(Merge::Log(9), &[odd, "*0\r\n"]), odd);
    }

    #[test]
    fn latencies_are_those_of_one_server() {
        let history = joined(
            Merge::History,
            &["*1\r\n*2\r\n:5\r\n:1\r\n", "*2\r\n*2\r\n:4\r\n:2\r\n*2\r\n:6\r\n:3\r\n"],
        );
        assert_eq!(history, "*3\r\n*2\r\n:4\r\n:2\r\n*2\r\n:5\r\n:1\r\n*2\r\n:6\r\n:3\r\n");
        let many = format!(
            "*161\r\n{}",
            (0..161).map(|time| format!("*2\r\n:{time}\r\n:1\r\n")).collect::<String>()
        );
        assert!(joined(Merge::History, &[&many, "*0\r\n"]).starts_with("*160\r\n*2\r\n:1\r\n"));
        let latest = joined(
            Merge::Latest,
            &[
                "*1\r\n*6\r\n$4\r\nfork\r\n:5\r\n:10\r\n:90\r\n:100\r\n:2\r\n",
                "*2\r\n*4\r\n$3\r\naof\r\n:1\r\n:1\r\n:1\r\n*6\r\n$4\r\nfork\r\n:6\r\n:20\r\n:30\r\n:50\r\n:2\r\n",
            ],
        );
        assert_eq!(
            latest,
            "*2\r\n*6\r\n$4\r\nfork\r\n:6\r\n:20\r\n:90\r\n:150\r\n:4\r\n*4\r\n$3\r\naof\r\n:1\r\n:1\r\n:1\r\n"
        );
    }

    #[test]
    fn a_shard_that_tells_of_very_many_events_holds_up_nobody() {
        const EVENTS: usize = 400_000;
        let events: String =
            (0..EVENTS).map(|number| format!("*4\r\n+e{number}\r\n:1\r\n:1\r\n:1\r\n")).collect();
        let began = std::time::Instant::now();
        let reply = joined(Merge::Latest, &[&format!("*{EVENTS}\r\n{events}"), "*0\r\n"]);
        assert!(reply.starts_with("*400000\r\n*4\r\n+e0\r\n") && began.elapsed().as_secs() < 20);
    }

    #[test]
    fn texts_stand_below_the_names_of_their_shards() {
        let advice = "$6\r\nHi Sam\r\n";
        assert_eq!(
            joined(Merge::Texts, &[advice, "-ERR No samples\r\n"]),
            "$42\r\n# shard-1\nHi Sam\n\n# shard-2\nERR No samples\r\n"
        );
        assert!(joined(Merge::Texts, &["=10\r\ntxt:Hi Sam\r\n", "=10\r\ntxt:Hi Sam\r\n"]).starts_with("="));
        assert_eq!(joined(Merge::Texts, &["-ERR a\r\n", "-ERR a\r\n"]), "-ERR a\r\n");
    }

    #[test]
    fn what_is_no_report_is_not_taken_for_one() {
        for (merge, odd) in [
            (Merge::Log(1), "*1\r\n:1\r\n"),
            (Merge::Log(1), "*1\r\n*1\r\n:1\r\n"),
            (Merge::History, "*1\r\n*2\r\n$1\r\na\r\n:1\r\n"),
            (Merge::Latest, "*1\r\n*2\r\n$1\r\na\r\n:1\r\n"),
            (Merge::Latest, "*1\r\n*0\r\n"),
        ] {
            let reply = joined(merge, &["*0\r\n", odd]);
            assert_eq!(
                reply, "-ERR shard shard-2: unexpected response to a part of the request\r\n",
                "{odd:?}"
            );
        }
        assert!(is_odd(Merge::Texts, b":1\r\n") && is_odd(Merge::Latest, b"$1\r\na\r\n"));
    }
}
