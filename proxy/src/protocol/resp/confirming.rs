//! WAIT and WAITAOF: how many replicas, and files, have what was written.
//!
//! A server counts replicas by what was written on the connection that asks, so a mark is written on that before: whoever has it has all
//! that the server had executed by then. PUBLISH is one, because replicas get it and nothing is kept; nodes of a cluster tell each other
//! of channels in another way, so what is written there is a key, which is deleted in the same transaction. Reading, or deleting what
//! is not there, is no mark: later versions count from what was written last.
//! Source: <https://redis.io/docs/latest/commands/wait/>, <https://redis.io/docs/latest/commands/waitaof/>.

use std::time::Duration;

use bytes::Bytes;

use super::command::{Handling, index};
use super::decode::RequestDecoder;
use super::waiting::words_of;
use super::{Resp, encode, session};
use crate::protocol::{Confirming, Protocol};

/// Where a mark is published.
const CHANNEL: &[u8] = b"memstore:wait";
/// What was deleted is the second of two.
const DELETED: &[u8] = b"*2\r\n+OK\r\n";

/// How long the request waits at most, `None` for ever, and whether there is something to wait for. With `files` the first number is how many
/// servers themselves are to have it in their files.
pub fn read(files: bool, words: &[&[u8]]) -> Result<(Option<Duration>, bool), &'static str> {
    const NO_NUMBER: &str = "ERR value is not an integer or out of range";
    let mut wanted = 0;
    if files {
        let own = session::number(words[1]).ok_or(NO_NUMBER)?;
        if !(0..=1).contains(&own) {
            return Err("ERR value is out of range, value must between 0 and 1");
        }
        let replicas = session::number(words[2]).filter(|&replicas| replicas >= 0);
        wanted = own.max(replicas.ok_or("ERR value is out of range, must be positive")?);
    } else {
        wanted = wanted.max(session::number(words[1]).ok_or(NO_NUMBER)?);
    }
    let millis = session::number(words[words.len() - 1]);
    let millis = millis.ok_or("ERR timeout is not an integer or out of range")?;
    let millis = u64::try_from(millis).map_err(|_| "ERR timeout is negative")?;
    Ok(((millis > 0).then(|| Duration::from_millis(millis)), wanted > 0))
}

/// How many numbers a response to the request has.
fn numbers_of(request: &[u8]) -> usize {
    let mut decoder = RequestDecoder::default();
    let row = words_of(&mut decoder, request).and_then(|words| index::lookup(words[0]));
    if row.is_some_and(|row| row.handling == Handling::Confirm { files: true }) { 2 } else { 1 }
}

/// The numbers in a response, if it has so many.
fn numbers(count: usize, response: &[u8]) -> Option<Vec<i64>> {
    let rest = if count == 1 { response } else { response.strip_prefix(b"*2\r\n")? };
    let numbers = rest.strip_suffix(b"\r\n")?.split(|&byte| byte == b'\n');
    let numbers: Option<Vec<i64>> = numbers
        .map(|line| session::number(line.trim_ascii_end().strip_prefix(b":")?).filter(|&number| number >= 0))
        .collect();
    numbers.filter(|numbers| numbers.len() == count)
}

impl Confirming for Resp {
    fn mark(key: Option<&[u8]>) -> Vec<Vec<u8>> {
        let request = |words: &[&[u8]]| {
            let mut request = Vec::new();
            encode::request(&mut request, words);
            request
        };
        match key {
            None => vec![request(&[b"PUBLISH", CHANNEL, b""])],
            Some(key) => vec![
                request(&[b"MULTI"]),
                request(&[b"SET", key, b""]),
                request(&[b"DEL", key]),
                request(&[b"EXEC"]),
            ],
        }
    }

    fn is_marked(response: &[u8]) -> bool {
        match response.first() {
            Some(b'*') => response.starts_with(DELETED),
            Some(b'+' | b':') => true,
            _ => false,
        }
    }

    fn is_count(request: &[u8], response: &[u8]) -> bool {
        numbers(numbers_of(request), response).is_some()
    }

    fn least<'r>(request: &[u8], responses: impl Iterator<Item = Option<&'r Bytes>>, reply: &mut Vec<u8>) {
        let count = numbers_of(request);
        let of_shard = |response: Option<&Bytes>| {
            response.and_then(|response| numbers(count, response)).unwrap_or(vec![0; count])
        };
        let smaller =
            |one: Vec<i64>, other: Vec<i64>| one.into_iter().zip(other).map(|(a, b)| a.min(b)).collect();
        let least: Vec<i64> = responses.map(of_shard).reduce(smaller).unwrap_or(vec![0; count]);
        if count > 1 {
            encode::array(reply, count);
        }
        least.into_iter().for_each(|number| encode::integer(reply, number));
    }

    fn unconfirmed(shard: &str, error: &[u8], reply: &mut Vec<u8>) {
        if Resp::redirect(error).is_some() {
            return encode::error(
                reply,
                &format!(
                    "TRYAGAIN slots of shard {shard} are on their way, so nobody knows what replicas have"
                ),
            );
        }
        let words = String::from_utf8_lossy(error.strip_prefix(b"-").unwrap_or(error));
        encode::error(reply, &format!("{} (shard {shard})", words.trim_end()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<&[u8]> {
        line.split(' ').map(str::as_bytes).collect()
    }

    fn request(line: &str) -> Vec<u8> {
        let mut request = Vec::new();
        encode::request(&mut request, &words(line));
        request
    }

    #[test]
    fn arguments_are_read_as_the_server_reads_them() {
        const NO_INTEGER: &str = "ERR value is not an integer or out of range";
        const NO_TIMEOUT: &str = "ERR timeout is not an integer or out of range";
        let millis = |millis| Some(Duration::from_millis(millis));
        for (line, expected) in [
            ("WAIT 1 100", Ok((millis(100), true))),
            ("WAIT 1 0", Ok((None, true))),
            ("WAIT 0 0", Ok((None, false))),
            ("WAIT -1 5", Ok((millis(5), false))),
            ("WAIT a -1", Err(NO_INTEGER)),
            ("WAIT +1 0", Err(NO_INTEGER)),
            ("WAIT 01 0", Err(NO_INTEGER)),
            ("WAIT 99999999999999999999 0", Err(NO_INTEGER)),
            ("WAIT 1 a", Err(NO_TIMEOUT)),
            ("WAIT 1 99999999999999999999", Err(NO_TIMEOUT)),
            ("WAIT 1 -1", Err("ERR timeout is negative")),
            ("WAITAOF 1 0 100", Ok((millis(100), true))),
            ("WAITAOF 0 2 0", Ok((None, true))),
            ("WAITAOF 0 0 0", Ok((None, false))),
            ("WAITAOF a 0 0", Err(NO_INTEGER)),
            ("WAITAOF 2 0 -1", Err("ERR value is out of range, value must between 0 and 1")),
            ("WAITAOF -1 0 0", Err("ERR value is out of range, value must between 0 and 1")),
            ("WAITAOF 0 a 0", Err("ERR value is out of range, must be positive")),
            ("WAITAOF 0 -1 a", Err("ERR value is out of range, must be positive")),
            ("WAITAOF 1 1 a", Err(NO_TIMEOUT)),
            ("WAITAOF 1 1 -1", Err("ERR timeout is negative")),
        ] {
            assert_eq!(read(line.starts_with("WAITAOF"), &words(line)), expected, "{line}");
        }
    }

    #[test]
    fn the_reply_is_what_all_have_at_least() {
        let least = |line: &str, responses: &[Option<&'static str>]| {
            let responses: Vec<_> = responses.iter().map(|said| said.map(Bytes::from_static_str)).collect();
            let mut reply = Vec::new();
            Resp::least(&request(line), responses.iter().map(Option::as_ref), &mut reply);
            String::from_utf8(reply).expect("it is text")
        };
        assert_eq!(least("WAIT 2 0", &[Some(":2\r\n"), Some(":1\r\n"), Some(":3\r\n")]), ":1\r\n");
        assert_eq!(least("wait 2 0", &[Some(":2\r\n"), None]), ":0\r\n");
        assert_eq!(least("WAIT 2 0", &[]), ":0\r\n");
        let pairs = [Some("*2\r\n:1\r\n:2\r\n"), Some("*2\r\n:0\r\n:3\r\n")];
        assert_eq!(least("WAITAOF 1 2 0", &pairs), "*2\r\n:0\r\n:2\r\n");
        assert_eq!(least("WAITAOF 1 2 0", &[None]), "*2\r\n:0\r\n:0\r\n");
    }

    trait FromStaticStr {
        fn from_static_str(text: &'static str) -> Self;
    }

    impl FromStaticStr for Bytes {
        fn from_static_str(text: &'static str) -> Self {
            Self::from_static(text.as_bytes())
        }
    }

    #[test]
    fn what_is_no_count_is_none() {
        for (line, response, is_count) in [
            ("WAIT 1 0", ":1\r\n", true),
            ("WAIT 1 0", ":-1\r\n", false),
            ("WAIT 1 0", "*2\r\n:1\r\n:1\r\n", false),
            ("WAITAOF 1 0 0", "*2\r\n:1\r\n:1\r\n", true),
            ("WAITAOF 1 0 0", ":1\r\n", false),
            ("WAITAOF 1 0 0", "*3\r\n:1\r\n:1\r\n:1\r\n", false),
            ("WAIT 1 0", "+OK\r\n", false),
        ] {
            assert_eq!(Resp::is_count(&request(line), response.as_bytes()), is_count, "{line} {response}");
        }
        for (response, is_marked) in [
            (":0\r\n", true),
            ("+QUEUED\r\n", true),
            ("*2\r\n+OK\r\n:1\r\n", true),
            ("*2\r\n-OOM no\r\n:1\r\n", false),
            ("*-1\r\n", false),
            ("-NOPERM no\r\n", false),
        ] {
            assert_eq!(Resp::is_marked(response.as_bytes()), is_marked, "{response}");
        }
    }
}
