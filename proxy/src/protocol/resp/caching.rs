//! Client-side caching: what a client has asked for by CLIENT TRACKING, which keys its requests read, and how it is told of changes.
//!
//! A server remembers for a connection the keys that commands without a write have read on it, and tells of each once when it changes. It knows
//! them by their names alone, whatever the database.
//! Source: <https://redis.io/docs/latest/develop/reference/client-side-caching/>.

use bytes::Bytes;

use super::command::{Command, Handling, Local, flag, index, is_corrected};
use super::decode::{RequestDecoder, RequestLimits};
use super::mode::Mode;
use super::{Resp, encode};
use crate::protocol::RequestBounds;
use crate::protocol::caching::{Caching, KeysRead, Receiver};
use crate::protocol::store::Store;

/// What a client is told of.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Told {
    /// Keys that it has read.
    #[default]
    Read,
    /// Those that it has said so of before (OPTIN).
    Named,
    /// But for those that it has said so of before (OPTOUT).
    NotNamed,
}

/// How shards tell of what a client may have kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ToldBy {
    /// They do not.
    Nobody,
    /// Each on the connection on which it was read.
    ItsShard,
    /// All of them, of whatever changes, on connections for that alone.
    AllShards,
}

/// What a client has asked for.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tracking {
    /// Of which keys it is told.
    pub told: Told,
    /// It need not be told of what it changes itself. (It is all the same: shards cannot tell clients of the proxy apart.)
    pub noloop: bool,
    /// It is told of all keys that begin with one of these instead, in order (BCAST).
    pub prefixes: Option<Box<[Bytes]>>,
    /// Another one is told in its stead (REDIRECT).
    pub receiver: Option<Receiver>,
}

/// What was asked before a request for that is served: whether the client with this number is there, or why that is not known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sought {
    /// Its number.
    pub number: i64,
    /// Whether it is there.
    pub is_there: Result<bool, String>,
}

impl Tracking {
    /// That of a client that is told of all keys, if it can hear of them.
    pub fn of_all(can_hear: bool) -> Box<Self> {
        let receiver = (!can_hear).then_some(Receiver::Lost(0));
        Box::new(Self { prefixes: Some(Box::new([Bytes::new()])), receiver, ..Self::default() })
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        let prefixes = self.prefixes.as_deref().unwrap_or_default().iter();
        size_of::<Self>() + prefixes.map(|prefix| size_of::<Bytes>() + prefix.len()).sum::<usize>()
    }

    /// Whether the client may keep what it hears in reply to a request, which was one that CLIENT CACHING speaks of or not.
    pub fn keeps(&self, is_named: bool) -> bool {
        match self.told {
            Told::Read => true,
            Told::Named => is_named,
            Told::NotNamed => !is_named,
        }
    }
}

/// Whether what CLIENT CACHING has said still holds after this command: it is for the next one that is not about the client itself, and for a
/// transaction as a whole.
pub fn outlasts(command: Option<&Command>, mode: Mode) -> bool {
    let Some(command) = command else { return mode.is_queueing() };
    let is_about_clients =
        command.subcommands.iter().any(|row| row.handling == Handling::Answer(Local::ClientCaching));
    match command.handling {
        Handling::Answer(Local::Multi) => true,
        Handling::Answer(Local::Exec | Local::Discard | Local::Reset) => false,
        _ => is_about_clients || mode.is_queueing(),
    }
}

impl Caching for Resp {
    fn keys_read(requests: &[u8], store: &Store, read: &mut KeysRead) -> bool {
        let bounds = RequestBounds { bytes: u64::MAX, arguments: i64::MAX as usize };
        let limits = RequestLimits { bounds, authenticated: true };
        let (mut start, mut is_known) = (0, true);
        while start < requests.len() {
            let (mut decoder, request) = (RequestDecoder::default(), &requests[start..]);
            let Ok(Some(length)) = decoder.decode(request, limits) else { return false };
            is_known &= read_by(&decoder, &request[..length], start, store, read);
            start += length;
        }
        is_known
    }

    fn subscribe(prefixes: &[Bytes], out: &mut Vec<u8>) {
        let mut words: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON", b"BCAST"];
        words.extend(prefixes.iter().flat_map(|prefix| [&b"PREFIX"[..], prefix]));
        encode::request(out, &words);
    }

    fn unsubscribe(out: &mut Vec<u8>) {
        encode::request(out, &[b"CLIENT", b"TRACKING", b"OFF"]);
    }

    fn tell_changed(keys: &[&[u8]], out: &mut Vec<u8>) {
        encode::push(out, true, 2);
        encode::bulk(out, b"invalidate");
        if keys.is_empty() {
            return encode::null(out, true);
        }
        encode::array(out, keys.len());
        keys.iter().for_each(|key| encode::bulk(out, key));
    }
}

/// What clients are told begins so, up to the keys.
const TOLD: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";
/// The same, as a message of the channel that is for that.
const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";

/// The same as a message for a client of RESP2.
pub fn tell_by_message(told: &[u8], out: &mut Vec<u8>) {
    let Some(keys) = told.strip_prefix(TOLD) else { return };
    out.extend_from_slice(MESSAGE);
    match keys {
        b"_\r\n" => encode::null(out, false),
        keys => out.extend_from_slice(keys),
    }
}

/// Adds the keys that the request reads, which begins at `start`. False if they are not known.
fn read_by(
    decoder: &RequestDecoder,
    request: &[u8],
    start: usize,
    store: &Store,
    read: &mut KeysRead,
) -> bool {
    let words: Vec<&[u8]> = decoder.arguments(request).map(|argument| argument.value).collect();
    let Some(&name) = words.first() else { return false };
    let learnt = match index::lookup(name) {
        Some(_) => None,
        None => store.commands.find(name, words.get(1).copied()),
    };
    let Some(command) = index::lookup(name).or(learnt.as_ref()) else { return false };
    let command = words.get(1).and_then(|word| command.subcommand(word)).unwrap_or(command);
    // What a script reads is what it was given, as far as anybody can know.
    let is_script = matches!(command.handling, Handling::Run(_));
    if !is_script && !command.flags.has(flag::READONLY) {
        return true;
    }
    let Ok(positions) = command.key_positions(words.len(), |index| words[index]) else {
        // The server finds none either, and says what is wrong.
        return true;
    };
    let base = request.as_ptr() as usize - start;
    // Where we know better than the shard which keys a command of a module has, the shard may not tell of them.
    let is_sure = learnt.is_none() || !is_corrected(name);
    let places = if is_sure { &mut read.keys } else { &mut read.unsure };
    places.extend(positions.map(|at| (words[at].as_ptr() as usize - base, words[at].len())));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> (Vec<String>, bool) {
        let mut requests = Vec::new();
        for line in lines {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            encode::request(&mut requests, &words);
        }
        let mut read = KeysRead::default();
        let is_known = Resp::keys_read(&requests, &Store::default(), &mut read);
        let text = |(start, length): (usize, usize)| {
            String::from_utf8_lossy(&requests[start..start + length]).into_owned()
        };
        (read.keys.into_iter().map(text).collect(), is_known)
    }

    #[test]
    fn keys_are_those_of_commands_that_only_read() {
        for (lines, keys) in [
            (&["GET a"][..], "a"),
            (&["MGET a b"], "a b"),
            (&["SET a 1"], ""),
            (&["GETDEL a"], ""),
            (&["EVAL x 2 a b c"], "a b"),
            (&["EVALSHA_RO x 1 a"], "a"),
            (&["XREAD STREAMS a b 0 0"], "a b"),
            (&["OBJECT ENCODING a"], "a"),
            (&["MULTI", "GET a", "SET b 1", "HGETALL c", "EXEC"], "a c"),
            (&["SCAN 0"], ""),
            (&["SINTERCARD x"], ""),
        ] {
            assert_eq!(
                read(lines),
                (keys.split_whitespace().map(str::to_owned).collect(), true),
                "{lines:?}"
            );
        }
        assert_eq!(read(&["GET a", "a.command.nobody.knows b"]), (vec!["a".to_owned()], false));
    }

    #[test]
    fn clients_of_resp2_are_told_by_a_message() {
        for (keys, said) in [(&[&b"k"[..]][..], "*1\r\n$1\r\nk\r\n"), (&[], "$-1\r\n")] {
            let (mut told, mut out) = (Vec::new(), Vec::new());
            Resp::tell_changed(keys, &mut told);
            tell_by_message(&told, &mut out);
            let begin = "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";
            assert_eq!(String::from_utf8(out).expect("text"), format!("{begin}{said}"));
        }
    }

    #[test]
    fn clients_are_told_in_the_words_of_a_server() {
        let told = |keys: &[&[u8]]| {
            let mut out = Vec::new();
            Resp::tell_changed(keys, &mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(told(&[b"k"]), ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
        assert_eq!(told(&[]), ">2\r\n$10\r\ninvalidate\r\n_\r\n");
    }
}
