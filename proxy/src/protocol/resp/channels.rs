//! What is said of channels: SUBSCRIBE and its like to shards, acknowledgements to clients, and messages.
//!
//! Shards are spoken to in RESP2, which all of them know. A message is the same in both versions but for its first byte.

use super::command::{Command, Handling, Local, Merge};
use super::session::Session;
use super::{Resp, encode, identity, slot, transaction};
use crate::protocol::channels::{Channels, Kind, Listening, TALLY_BITS, Told, Voice};
use crate::protocol::{Facts, Plan, Route};

/// The words that begin a message, and those of commands and of what is said to them, in the order of [`Kind::ALL`].
const MESSAGE: [&str; Kind::COUNT] = ["message", "pmessage", "smessage"];
const LISTEN: [&str; Kind::COUNT] = ["subscribe", "psubscribe", "ssubscribe"];
const LISTEN_NO_MORE: [&str; Kind::COUNT] = ["unsubscribe", "punsubscribe", "sunsubscribe"];

/// Between a channel and a letter for the bit that the name counts for: no channel that anybody uses ends so, and where users of
/// a shard may only listen to what begins like the channel they may listen to this.
const TALLY: &[u8] = b"\0memstore\0";

/// What the channels begin with on which each shard tells of what happens to its own keys. Those of fields are of Redis 8.8.
/// Source: <https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/>.
const EVENTS: [&[u8]; 4] = [b"__keyspace@", b"__keyevent@", b"__subkeyspace", b"__subkeyevent"];

/// The voices: which version a client speaks.
pub const RESP2: Voice = 2;
pub const RESP3: Voice = 3;

impl Channels for Resp {
    fn listen(change: Listening, name: &[u8], out: &mut Vec<u8>) {
        encode::request(out, &[word(change).to_ascii_uppercase().as_bytes(), name]);
    }

    fn ask_for_life(out: &mut Vec<u8>) {
        encode::request(out, &[b"PING"]);
    }

    fn tally(kind: Kind, channel: &[u8], bit: u32) -> Vec<u8> {
        let mut name = [channel, TALLY].concat();
        name.push(b'a' + bit as u8);
        if kind == Kind::Sharded {
            let filler = slot::filler(channel, &name);
            name.extend(filler);
        }
        name
    }

    fn tallied(kind: Kind, name: &[u8]) -> Option<&[u8]> {
        let filler = match kind {
            Kind::Channel => 0,
            Kind::Sharded => slot::FILLER_BYTES,
            Kind::Pattern => return None,
        };
        let (bit, rest) = name[..name.len().checked_sub(filler)?].split_last()?;
        let is_bit = (b'a'..b'a' + TALLY_BITS as u8).contains(bit);
        rest.strip_suffix(TALLY).filter(|_| is_bit)
    }

    fn is_of_each_shard(kind: Kind, name: &[u8]) -> bool {
        // What is before the first that stands for others.
        let special = name.iter().position(|byte| b"*?[\\".contains(byte)).filter(|_| kind == Kind::Pattern);
        let literal = &name[..special.unwrap_or(name.len())];
        let matches = |beginning: &[u8]| {
            literal.starts_with(beginning) || (special.is_some() && beginning.starts_with(literal))
        };
        kind != Kind::Sharded && EVENTS.into_iter().any(matches)
    }

    fn channel_of(message: &[u8]) -> Option<&[u8]> {
        let (_, rest) = message.split_at(memchr::memchr(b'\n', message)? + 1);
        let (word, rest) = identity::string(rest)?;
        let (name, rest) = identity::string(rest)?;
        if word == MESSAGE[Kind::Pattern.place()].as_bytes() {
            Some(identity::string(rest)?.0)
        } else {
            Some(name)
        }
    }

    fn told(response: &[u8]) -> Told<'_> {
        // What it is depends on whether a name is listened to.
        if response == b"+PONG\r\n" {
            return Told::Alive;
        }
        if let Some(words) = response.strip_prefix(b"-") {
            return Told::Refused(words.trim_ascii_end());
        }
        let Some(end) = memchr::memchr(b'\n', response) else { return Told::Odd };
        let (head, rest) = response.split_at(end + 1);
        let Some((word, rest)) = identity::string(rest).filter(|_| head.starts_with(b"*")) else {
            return Told::Odd;
        };
        let Some((name, _)) = identity::string(rest) else { return Told::Odd };
        if word == b"pong" {
            return Told::Alive;
        }
        let kind_of = |words: &[&str]| {
            let place = words.iter().position(|known| known.as_bytes() == word)?;
            Some(Kind::ALL[place])
        };
        if let Some(kind) = kind_of(&MESSAGE) {
            Told::Message(kind, name)
        } else if let Some(kind) = kind_of(&LISTEN) {
            Told::Done(Listening { kind, on: true }, name)
        } else if let Some(kind) = kind_of(&LISTEN_NO_MORE) {
            Told::Done(Listening { kind, on: false }, name)
        } else {
            Told::Odd
        }
    }

    #[inline]
    fn beginning(voice: Voice) -> (&'static [u8], usize) {
        if voice == RESP3 { (b">", 1) } else { (b"", 0) }
    }

    fn acknowledge(change: Listening, name: Option<&[u8]>, count: usize, voice: Voice, out: &mut Vec<u8>) {
        let resp3 = voice == RESP3;
        encode::push(out, resp3, 3);
        encode::bulk(out, word(change).as_bytes());
        match name {
            Some(name) => encode::bulk(out, name),
            None => encode::null(out, resp3),
        }
        encode::integer(out, count as i64);
    }
}

fn word(Listening { kind, on }: Listening) -> &'static str {
    if on { LISTEN[kind.place()] } else { LISTEN_NO_MORE[kind.place()] }
}

/// Judges a command of a client; none where that listens to nothing, or speaks RESP3: then it says what it likes.
pub fn rule(
    command: &Command,
    session: &Session,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Option<Route<Merge>> {
    let is_allowed = || match command.handling {
        Handling::Listen(..) => true,
        Handling::Answer(local) => matches!(local, Local::Quit | Local::Reset),
        _ => false,
    };
    if !session.mode.is_listening() || is_allowed() {
        return None;
    }
    // What comes before may be the end of that.
    if !facts.quiet {
        return Some(Route::WhenQuiet);
    }
    if command.handling == Handling::Answer(Local::Ping) {
        return None;
    }
    let words = format!(
        "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
        command.name
    );
    transaction::reject(command, &words, &mut plan.reply);
    Some(Route::Answer)
}

/// The request is about these words of it.
pub fn name<'b>(words: impl Iterator<Item = &'b [u8]>, canonical: &[u8], plan: &mut Plan<Resp>) {
    let base = canonical.as_ptr() as usize;
    plan.keys.extend(words.map(|word| (word.as_ptr() as usize - base, word.len())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_says_what_it_was_asked_and_what_came() {
        let channel = |on| Listening { kind: Kind::Channel, on };
        for (response, told) in [
            ("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n", Told::Message(Kind::Channel, b"c")),
            (
                "*4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$1\r\nc\r\n$0\r\n\r\n",
                Told::Message(Kind::Pattern, b"c*"),
            ),
            ("*3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n", Told::Message(Kind::Sharded, b"c")),
            ("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", Told::Done(channel(true), b"c")),
            ("*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n", Told::Done(channel(false), b"c")),
            ("*2\r\n$4\r\npong\r\n$0\r\n\r\n", Told::Alive),
            ("+PONG\r\n", Told::Alive),
            ("+OK\r\n", Told::Odd),
            ("-NOPERM no\r\n", Told::Refused(b"NOPERM no")),
            ("*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n", Told::Odd),
            ("*3\r\n$9\r\nsubscriba\r\n$1\r\nc\r\n:1\r\n", Told::Odd),
            ("*0\r\n", Told::Odd),
            (":1\r\n", Told::Odd),
        ] {
            assert_eq!(Resp::told(response.as_bytes()), told, "{response:?}");
        }
    }

    #[test]
    fn events_are_known_by_their_channels() {
        for name in ["__keyspace@0__:k", "__keyevent@15__:expired", "__subkeyspaceitem@0__:k\nf"] {
            assert!(Resp::is_of_each_shard(Kind::Channel, name.as_bytes()), "{name}");
            assert!(Resp::is_of_each_shard(Kind::Pattern, name.as_bytes()), "{name}");
            assert!(!Resp::is_of_each_shard(Kind::Sharded, name.as_bytes()), "{name}");
        }
        for pattern in
            ["*", "__key*__:*", "__keyevent@*__:expired", "_?key", "__keyspace@0__:[ab]", "\\__x", "__s*"]
        {
            assert!(Resp::is_of_each_shard(Kind::Pattern, pattern.as_bytes()), "{pattern}");
        }
        for other in ["news", "", "__keys", "_", "__"] {
            assert!(
                Kind::ALL.into_iter().all(|kind| !Resp::is_of_each_shard(kind, other.as_bytes())),
                "{other}"
            );
        }
        for other in ["news*", "__keyz*", "k?"] {
            assert!(!Resp::is_of_each_shard(Kind::Pattern, other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn the_channel_of_a_message_is_found() {
        let pattern = b"*4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$2\r\ncc\r\n$0\r\n\r\n";
        assert_eq!(Resp::channel_of(pattern), Some(&b"cc"[..]));
        assert_eq!(Resp::channel_of(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"), Some(&b"c"[..]));
        assert_eq!(Resp::channel_of(b"*3\r\n$7\r\nmessage"), None);
    }

    #[test]
    fn names_that_count_are_told_from_others() {
        for kind in [Kind::Channel, Kind::Sharded] {
            for bit in [0, 7, TALLY_BITS - 1] {
                let name = Resp::tally(kind, b"a{b}", bit);
                assert_eq!(Resp::tallied(kind, &name), Some(&b"a{b}"[..]));
                for other in Kind::ALL.into_iter().filter(|&other| other != kind) {
                    assert_eq!(Resp::tallied(other, &name), None);
                }
            }
        }
        for name in ["", "a", "ab", "abc", "\0memstore\0", "\0memstore\0xyzz"] {
            assert!(
                Kind::ALL.into_iter().all(|kind| Resp::tallied(kind, name.as_bytes()).is_none()),
                "{name:?}"
            );
        }
    }
}
