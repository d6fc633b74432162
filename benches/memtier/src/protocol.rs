//! What clients say and what they hear: requests as bytes, and where a reply ends.
//! A reply's content is not kept, only what a measurement needs to know about it.

use std::io::Write;

/// What the clients speak. A new protocol is a variant here and the arms the compiler then asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2, what Redis and Valkey speak.
    Resp,
}

/// What a reply was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// Anything a client would be happy with.
    Fine,
    /// A GET that found nothing, or an MGET of which at least one key was not found.
    Miss,
    /// An error reply.
    Error,
}

/// One whole reply at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it was.
    pub kind: ReplyKind,
    /// How many bytes of the buffer it takes.
    pub length: usize,
}

/// The peer sent something that is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the peer sent something that is no reply")
    }
}

impl std::error::Error for Malformed {}

/// Both generators use these keys, so that what one filled in the other would find.
pub const KEY_PREFIX: &str = "bench-";

/// The key of this number.
pub fn key(number: u32) -> String {
    format!("{KEY_PREFIX}{number}")
}

impl Protocol {
    /// Appends a SET.
    pub fn set(self, output: &mut Vec<u8>, key: &str, value: &[u8]) {
        match self {
            Protocol::Resp => resp_command(output, &[b"SET", key.as_bytes(), value]),
        }
    }

    /// Appends a GET.
    pub fn get(self, output: &mut Vec<u8>, key: &str) {
        match self {
            Protocol::Resp => resp_command(output, &[b"GET", key.as_bytes()]),
        }
    }

    /// Appends an MGET.
    pub fn multi_get<'a>(self, output: &mut Vec<u8>, keys: impl Iterator<Item = &'a str>) {
        match self {
            Protocol::Resp => {
                let mut parts: Vec<&[u8]> = vec![b"MGET"];
                parts.extend(keys.map(str::as_bytes));
                resp_command(output, &parts);
            }
        }
    }

    /// Appends a PING.
    pub fn ping(self, output: &mut Vec<u8>) {
        match self {
            Protocol::Resp => resp_command(output, &[b"PING"]),
        }
    }

    /// Appends what empties a shard. Sent to shards only: proxies refuse it.
    pub fn flush(self, output: &mut Vec<u8>) {
        match self {
            Protocol::Resp => resp_command(output, &[b"FLUSHALL"]),
        }
    }

    /// The reply at the start of `input`, or nothing when more bytes are needed.
    pub fn reply(self, input: &[u8]) -> Result<Option<Reply>, Malformed> {
        match self {
            Protocol::Resp => resp_reply(input),
        }
    }
}

fn resp_command(output: &mut Vec<u8>, parts: &[&[u8]]) {
    // Writing into a Vec cannot fail.
    let _ = write!(output, "*{}\r\n", parts.len());
    for part in parts {
        let _ = write!(output, "${}\r\n", part.len());
        output.extend_from_slice(part);
        output.extend_from_slice(b"\r\n");
    }
}

fn resp_reply(input: &[u8]) -> Result<Option<Reply>, Malformed> {
    let Some(line) = resp_line(input)? else { return Ok(None) };
    let header_bytes = line.len() + 2;
    let (&sign, rest) = line.split_first().ok_or(Malformed)?;
    match sign {
        b'+' | b':' => Ok(Some(Reply { kind: ReplyKind::Fine, length: header_bytes })),
        b'-' => Ok(Some(Reply { kind: ReplyKind::Error, length: header_bytes })),
        b'$' => Ok(match resp_length(rest)? {
            None => Some(Reply { kind: ReplyKind::Miss, length: header_bytes }),
            Some(bytes) => Some(Reply { kind: ReplyKind::Fine, length: header_bytes + bytes + 2 })
                .filter(|whole| whole.length <= input.len()),
        }),
        b'*' => {
            let mut whole = Reply { kind: ReplyKind::Fine, length: header_bytes };
            for _ in 0..resp_length(rest)?.unwrap_or(0) {
                let Some(element) = resp_reply(&input[whole.length..])? else { return Ok(None) };
                whole.length += element.length;
                if element.kind != ReplyKind::Fine {
                    whole.kind = element.kind;
                }
            }
            Ok(Some(whole))
        }
        _ => Err(Malformed),
    }
}

/// The first line without its end. A line that does not end within this many bytes is none.
fn resp_line(input: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    const LINE_BYTES_MAX: usize = 4096;
    let Some(end) = input.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\n') else {
        return if input.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Malformed) };
    };
    input[..end].strip_suffix(b"\r").map(Some).ok_or(Malformed)
}

fn resp_length(digits: &[u8]) -> Result<Option<usize>, Malformed> {
    if digits == b"-1" {
        return Ok(None);
    }
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).map(Some).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], kind: ReplyKind) {
        let whole = Reply { kind, length: input.len() };
        assert_eq!(Protocol::Resp.reply(input), Ok(Some(whole)));
        for cut in 0..input.len() {
            assert_eq!(Protocol::Resp.reply(&input[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(Protocol::Resp.reply(&[input, b"+OK\r\n"].concat()), Ok(Some(whole)));
    }

    #[test]
    fn a_reply_ends_where_it_says() {
        check(b"+OK\r\n", ReplyKind::Fine);
        check(b"-ERR no\r\n", ReplyKind::Error);
        check(b":12\r\n", ReplyKind::Fine);
        check(b"$5\r\na\r\nbc\r\n", ReplyKind::Fine);
        check(b"$0\r\n\r\n", ReplyKind::Fine);
        check(b"$-1\r\n", ReplyKind::Miss);
        check(b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", ReplyKind::Fine);
        check(b"*2\r\n$1\r\na\r\n$-1\r\n", ReplyKind::Miss);
        check(b"*0\r\n", ReplyKind::Fine);
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for input in [&b"?\r\n"[..], b"\r\n", b"$x\r\n", b"+OK\n", &[b'+'; 5000]] {
            assert_eq!(Protocol::Resp.reply(input), Err(Malformed));
        }
    }

    #[test]
    fn requests_are_arrays_of_bulk_strings() {
        let mut output = Vec::new();
        Protocol::Resp.set(&mut output, &key(7), b"xy");
        assert_eq!(output, b"*3\r\n$3\r\nSET\r\n$7\r\nbench-7\r\n$2\r\nxy\r\n");
    }
}
