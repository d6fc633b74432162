//! Commands that wait for data under keys of several shards: BLPOP and its like, and reading streams.
//!
//! A shard tells of changes by what it has for clients that cache: on a connection with CLIENT TRACKING every key that is read, also
//! one that is missing, is told of once when it changes, whoever changes it and however. It knows keys by their names
//! alone, so that a connection hears of all databases.
//! Source: <https://redis.io/docs/latest/develop/reference/client-side-caching/>.

use bytes::Bytes;

use super::command::{Command, Trial, index};
use super::decode::RequestDecoder;
use super::waiting::{self, words_of};
use super::{Resp, encode, identity};
use crate::protocol::wide::{Alone, Tracked, Tried, Wide};
use crate::protocol::{Protocol, Spread};

/// Options that mean the same for one of several streams as for all. Others count entries of all of them, or wait for other
/// reasons than that one comes.
const OPTIONS: [&str; 3] = ["COUNT", "GROUP", "NOACK"];

/// A request that waits, and one of its keys.
struct Sought<'b> {
    command: &'static Command<'static>,
    trial: Trial,
    words: Vec<&'b [u8]>,
    /// Where the key stands, and where all do.
    at: usize,
    positions: Vec<usize>,
}

impl<'b> Sought<'b> {
    fn of(decoder: &'b mut RequestDecoder, request: &'b [u8], place: usize) -> Option<Self> {
        let words = words_of(decoder, request)?;
        let command = index::lookup(words[0])?;
        let trial = command.trial?;
        let positions = command.key_positions(words.len(), |index| words[index]).ok()?;
        let positions: Vec<usize> = positions.collect();
        let at = *positions.get(place)?;
        Some(Self { command, trial, words, at, positions })
    }

    fn last(&self) -> usize {
        self.positions.last().copied().unwrap_or_default()
    }

    fn key(&self) -> &'b [u8] {
        self.words[self.at]
    }

    /// Where the id stands from which a stream is read: behind the keys, in their order.
    fn id_at(&self) -> Option<usize> {
        let keys = self.positions.len();
        let is_paired = self.words.len() == self.last() + 1 + keys;
        is_paired.then_some(self.at + keys)
    }

    fn id(&self) -> &'b [u8] {
        self.id_at().map_or(&b""[..], |at| self.words[at])
    }

    /// The latest entry is to be found first, from which on others are waited for.
    fn asks_for_latest(&self) -> bool {
        matches!(self.trial, Trial::Entries) && self.id() == b"$"
    }

    fn group(&self) -> Option<&'b [u8]> {
        let heads = self.heads()?;
        let at = heads.iter().position(|word| word.eq_ignore_ascii_case(b"GROUP"))?;
        heads.get(at + 1).copied()
    }

    /// The words before the keys of streams, without the option to wait.
    fn heads(&self) -> Option<Vec<&'b [u8]>> {
        self.command.heads_without_waiting(&self.words, &OPTIONS)
    }
}

impl Wide for Resp {
    fn track(out: &mut Vec<u8>) {
        encode::request(out, &[b"CLIENT", b"TRACKING", b"ON"]);
    }

    fn look_at(key: &[u8], out: &mut Vec<u8>) {
        encode::request(out, &[b"EXISTS", key]);
    }

    fn tracked(response: &[u8]) -> Tracked<'_> {
        match response.first() {
            Some(b':' | b'+') => Tracked::Done,
            Some(b'-') => Tracked::Refused(response[1..].trim_ascii_end()),
            Some(b'>') => changed(response),
            _ => Tracked::Odd,
        }
    }

    fn alone(request: &[u8]) -> Option<Vec<Alone>> {
        let mut decoder = RequestDecoder::default();
        let mut sought = Sought::of(&mut decoder, request, 0)?;
        let is_tried_alone = match sought.trial {
            Trial::Element(_) | Trial::Scored(_) | Trial::Elements(..) => true,
            Trial::Entries | Trial::EntriesOfGroup => sought.heads().is_some() && sought.id_at().is_some(),
        };
        if !is_tried_alone || !waiting::is_plain(sought.command, &sought.words) {
            return None;
        }
        let family = sought.command.family as u8;
        let group = sought.group();
        let mut alone = Vec::with_capacity(sought.positions.len());
        for place in 0..sought.positions.len() {
            sought.at = sought.positions[place];
            let rivals = match sought.trial {
                // Those that take what the other has not see something else there.
                Trial::Element(_) | Trial::Scored(_) | Trial::Elements(..) => Some(vec![family]),
                Trial::EntriesOfGroup if sought.id() == b">" => {
                    group.map(|group| [&[family], group].concat())
                }
                Trial::Entries | Trial::EntriesOfGroup => None,
            };
            alone.push(Alone { rivals, is_early: sought.asks_for_latest() });
        }
        Some(alone)
    }

    fn try_key(request: &[u8], place: usize, out: &mut Vec<u8>) {
        let mut decoder = RequestDecoder::default();
        let Some(sought) = Sought::of(&mut decoder, request, place) else { return };
        let key = sought.key();
        match sought.trial {
            Trial::Element(name) | Trial::Scored(name) => encode::request(out, &[name.as_bytes(), key]),
            Trial::Elements(name, _) => {
                let behind = &sought.words[sought.last() + 1..];
                encode::request(out, &[&[name.as_bytes(), b"1", key], behind].concat());
            }
            Trial::Entries if sought.asks_for_latest() => {
                encode::request(out, &[b"XREVRANGE", key, b"+", b"-", b"COUNT", b"1"]);
            }
            Trial::Entries | Trial::EntriesOfGroup => {
                let mut words = sought.heads().unwrap_or_default();
                words.extend([key, sought.id()]);
                encode::request(out, &words);
            }
        }
    }

    fn tried(request: &[u8], place: usize, response: &[u8], out: &mut Vec<u8>) -> Tried {
        let mut decoder = RequestDecoder::default();
        let Some(sought) = Sought::of(&mut decoder, request, place) else { return Tried::Refused };
        if response.starts_with(b"-") {
            out.extend_from_slice(response);
            let is_kept = response.starts_with(b"-WRONGTYPE") && sought.trial != Trial::EntriesOfGroup;
            return if is_kept { Tried::WrongKind } else { Tried::Refused };
        }
        if sought.asks_for_latest() {
            let mut words = sought.words.clone();
            let at = sought.id_at().expect("it is asked for");
            words[at] = id_of_first(response).unwrap_or(b"0-0");
            encode::request(out, &words);
            return Tried::Rewritten;
        }
        if matches!(response, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n" | b"*0\r\n" | b"%0\r\n") {
            return Tried::Nothing;
        }
        match sought.trial {
            Trial::Element(_) => {
                encode::array(out, 2);
                encode::bulk(out, sought.key());
                out.extend_from_slice(response);
                Tried::Reply
            }
            Trial::Scored(_) => {
                encode::array(out, 3);
                encode::bulk(out, sought.key());
                out.extend_from_slice(without_head(response));
                Tried::Reply
            }
            Trial::Elements(..) => {
                out.extend_from_slice(response);
                Tried::Reply
            }
            Trial::Entries | Trial::EntriesOfGroup => {
                out.extend_from_slice(response);
                Tried::Part
            }
        }
    }

    fn join_parts(parts: &[Bytes], out: &mut Vec<u8>) {
        // Each is an array, or in RESP3 a map, of one.
        out.push(parts.first().and_then(|part| part.first()).copied().unwrap_or(b'*'));
        out.extend_from_slice(parts.len().to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
        parts.iter().for_each(|part| out.extend_from_slice(without_head(part)));
    }

    fn spread_wait(spread: Spread, most: Option<usize>) -> String {
        let plain = Resp::spread_keys(spread);
        let way_out = match (spread, most) {
            (Spread::Shards, Some(most)) => {
                format!("at most {most} keys on several shards can be waited for")
            }
            (Spread::Slots, Some(most)) => format!("at most {most} keys in several slots can be waited for"),
            (Spread::Slots | Spread::IgnoredTag, _) => return plain.into(),
            (Spread::Shards, None) => "give them a hash tag in common, as in {a}x and {a}y".into(),
        };
        format!("{}: {way_out}\r\n", plain.trim_end())
    }

    fn untracked(spread: Spread, shard: &str, words: &str) -> String {
        let plain = Resp::spread_keys(spread).trim_end();
        format!("{plain}, and shard {shard} refuses CLIENT TRACKING: {words}\r\n")
    }
}

/// The keys that a push tells of.
fn changed(push: &[u8]) -> Tracked<'_> {
    let Some((word, rest)) = identity::string(without_head(push)) else { return Tracked::Odd };
    if word != b"invalidate" {
        // Nothing else is asked for, but it does no harm.
        return Tracked::Changed(Vec::new());
    }
    if encode::is_null_array(rest) || rest == b"$-1\r\n" {
        return Tracked::AllChanged;
    }
    if !rest.starts_with(b"*") {
        return Tracked::Odd;
    }
    let (mut keys, mut rest) = (Vec::new(), without_head(rest));
    while let Some((key, behind)) = identity::string(rest) {
        keys.push(key);
        rest = behind;
    }
    if rest.is_empty() { Tracked::Changed(keys) } else { Tracked::Odd }
}

/// What stands behind the first line.
fn without_head(response: &[u8]) -> &[u8] {
    memchr::memchr(b'\n', response).map_or(&[], |end| &response[end + 1..])
}

/// The id of the first entry of several.
fn id_of_first(entries: &[u8]) -> Option<&[u8]> {
    Some(identity::string(without_head(without_head(entries)))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Vec<u8> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut request = Vec::new();
        encode::request(&mut request, &words);
        request
    }

    #[test]
    fn each_key_is_tried_by_what_does_the_same_without_waiting() {
        for (line, place, expected) in [
            ("BLPOP a b 0", 1, "LPOP b"),
            ("brpop a b 0", 0, "RPOP a"),
            ("BZPOPMIN a b 0", 1, "ZPOPMIN b"),
            ("BZPOPMAX a b 0", 1, "ZPOPMAX b"),
            ("BLMPOP 0 2 a b LEFT", 1, "LMPOP 1 b LEFT"),
            ("BZMPOP 0 2 a b MAX COUNT 3", 0, "ZMPOP 1 a MAX COUNT 3"),
            ("XREAD COUNT 2 BLOCK 0 STREAMS a b 0 1-1", 1, "XREAD COUNT 2 STREAMS b 1-1"),
            ("XREAD BLOCK 0 STREAMS a b 0 $", 1, "XREVRANGE b + - COUNT 1"),
            (
                "XREADGROUP GROUP block c BLOCK 0 NOACK STREAMS streams b > 5",
                0,
                "XREADGROUP GROUP block c NOACK STREAMS streams >",
            ),
        ] {
            let mut out = Vec::new();
            let alone = Resp::alone(&request(line)).expect(line);
            Resp::try_key(&request(line), place, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&request(expected)), "{line}");
            assert_eq!(alone[place].is_early, expected.starts_with("XREVRANGE"), "{line}");
        }
        for line in [
            "BLMOVE a b LEFT LEFT 0",
            "BRPOPLPUSH a b 0",
            "BLPOP a b inf",
            "XREAD BLOCK 0 NEWS 1 STREAMS a b 0 0",
            "XREAD BLOCK 0 MAXCOUNT 1 STREAMS a b 0 0",
            "XREAD BLOCK 0 STREAMS a b 0 0 0",
            "MGET a b",
        ] {
            assert_eq!(Resp::alone(&request(line)), None, "{line}");
        }
    }

    #[test]
    fn replies_are_those_of_the_command_that_waits() {
        for (line, place, response, tried, reply) in [
            ("BLPOP a b 0", 1, "$1\r\nx\r\n", Tried::Reply, "*2\r\n$1\r\nb\r\n$1\r\nx\r\n"),
            ("BLPOP a b 0", 1, "$-1\r\n", Tried::Nothing, ""),
            ("BLPOP a b 0", 1, "_\r\n", Tried::Nothing, ""),
            ("BLPOP a b 0", 1, "-WRONGTYPE x\r\n", Tried::WrongKind, "-WRONGTYPE x\r\n"),
            ("BLPOP a b 0", 1, "-NOPERM x\r\n", Tried::Refused, "-NOPERM x\r\n"),
            ("BZPOPMIN a b 0", 0, "*0\r\n", Tried::Nothing, ""),
            (
                "BZPOPMIN a b 0",
                0,
                "*2\r\n$1\r\nm\r\n,1.5\r\n",
                Tried::Reply,
                "*3\r\n$1\r\na\r\n$1\r\nm\r\n,1.5\r\n",
            ),
            ("BLMPOP 0 2 a b LEFT", 0, "*-1\r\n", Tried::Nothing, ""),
            ("XREAD BLOCK 0 STREAMS a b 0 0", 0, "*-1\r\n", Tried::Nothing, ""),
            ("XREAD BLOCK 0 STREAMS a b 0 0", 0, "-WRONGTYPE x\r\n", Tried::WrongKind, "-WRONGTYPE x\r\n"),
            (
                "XREADGROUP GROUP g c BLOCK 0 STREAMS a b > >",
                0,
                "-WRONGTYPE x\r\n",
                Tried::Refused,
                "-WRONGTYPE x\r\n",
            ),
        ] {
            let mut out = Vec::new();
            assert_eq!(Resp::tried(&request(line), place, response.as_bytes(), &mut out), tried, "{line}");
            assert_eq!(String::from_utf8_lossy(&out), reply, "{line}");
        }
    }

    #[test]
    fn the_latest_entry_is_found_once() {
        let line = "XREAD BLOCK 0 STREAMS a b $ $";
        for (response, again) in [
            ("*1\r\n*2\r\n$3\r\n5-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n", "XREAD BLOCK 0 STREAMS a b $ 5-1"),
            ("*0\r\n", "XREAD BLOCK 0 STREAMS a b $ 0-0"),
        ] {
            let mut out = Vec::new();
            assert_eq!(Resp::tried(&request(line), 1, response.as_bytes(), &mut out), Tried::Rewritten);
            assert_eq!(out, request(again));
        }
        let part = |of: &str| Bytes::copy_from_slice(of.as_bytes());
        let mut out = Vec::new();
        Resp::join_parts(
            &[part("*1\r\n*2\r\n$1\r\na\r\n*0\r\n"), part("*1\r\n*2\r\n$1\r\nb\r\n*0\r\n")],
            &mut out,
        );
        assert_eq!(out, b"*2\r\n*2\r\n$1\r\na\r\n*0\r\n*2\r\n$1\r\nb\r\n*0\r\n");
    }

    #[test]
    fn those_that_take_from_each_other_have_the_same_word() {
        let rivals = |line: &str, place| {
            let mut alone = Resp::alone(&request(line)).expect(line);
            alone.swap_remove(place).rivals
        };
        assert_eq!(rivals("BLPOP a b 0", 0), rivals("BLMPOP 0 2 c a RIGHT", 1));
        assert_ne!(rivals("BLPOP a b 0", 0), rivals("BZPOPMIN a b 0", 0));
        let group = rivals("XREADGROUP GROUP g c BLOCK 0 STREAMS a b > 0", 0);
        assert!(group.is_some());
        assert_eq!(group, rivals("XREADGROUP GROUP g d COUNT 1 BLOCK 0 STREAMS b a 0 >", 1));
        assert_ne!(group, rivals("XREADGROUP GROUP h c BLOCK 0 STREAMS a b > >", 0));
        assert_eq!(
            rivals("XREADGROUP GROUP g c BLOCK 0 STREAMS a b > 0", 1),
            None,
            "what it has read before"
        );
        assert_eq!(rivals("XREAD BLOCK 0 STREAMS a b 0 0", 0), None);
    }

    #[test]
    fn a_shard_tells_of_changes() {
        for (response, told) in [
            (":1\r\n", Tracked::Done),
            ("+OK\r\n", Tracked::Done),
            ("-NOPERM no\r\n", Tracked::Refused(b"NOPERM no")),
            (">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$2\r\nbc\r\n", Tracked::Changed(vec![b"a", b"bc"])),
            (">2\r\n$10\r\ninvalidate\r\n_\r\n", Tracked::AllChanged),
            (">2\r\n$10\r\ninvalidate\r\n:1\r\n", Tracked::Odd),
            ("*0\r\n", Tracked::Odd),
            ("$1\r\na\r\n", Tracked::Odd),
        ] {
            assert_eq!(Resp::tracked(response.as_bytes()), told, "{response:?}");
        }
    }
}
