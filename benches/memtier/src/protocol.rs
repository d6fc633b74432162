//! What clients say and what they hear: requests as bytes, and where a reply ends.
//! A reply's content is not kept, only what a measurement needs to know about it.

use std::io::Write;

/// What the clients speak. A new protocol is a variant here and the arms the compiler then asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2, what Redis and Valkey speak.
    Resp,
    /// The classic commands of memcached's text protocol: all of them that nutcracker knows.
    Memcache,
}

/// What a request asks for. memcached names the keys it has and is silent about the others, so its replies
/// mean nothing without this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A word that it was done.
    Done,
    /// So many values, each of them there.
    Values(usize),
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
    /// Every protocol.
    pub const ALL: [Protocol; 2] = [Protocol::Resp, Protocol::Memcache];

    /// The server that speaks it: its program, and the package with the same name.
    pub fn server(self) -> &'static str {
        match self {
            Protocol::Resp => "redis-server",
            Protocol::Memcache => "memcached",
        }
    }

    /// Appends a SET.
    pub fn set(self, output: &mut Vec<u8>, key: &str, value: &[u8]) -> Asked {
        match self {
            Protocol::Resp => resp_command(output, &[b"SET", key.as_bytes(), value]),
            Protocol::Memcache => {
                // Writing into a Vec cannot fail.
                let _ = write!(output, "set {key} 0 0 {}\r\n", value.len());
                output.extend_from_slice(value);
                output.extend_from_slice(b"\r\n");
            }
        }
        Asked::Done
    }

    /// Appends a GET.
    pub fn get(self, output: &mut Vec<u8>, key: &str) -> Asked {
        match self {
            Protocol::Resp => resp_command(output, &[b"GET", key.as_bytes()]),
            Protocol::Memcache => memcache_get(output, [key].into_iter()),
        }
        Asked::Values(1)
    }

    /// Appends one request for several keys: an MGET, or a get of them all.
    pub fn multi_get<'a>(self, output: &mut Vec<u8>, keys: impl ExactSizeIterator<Item = &'a str>) -> Asked {
        let asked = Asked::Values(keys.len());
        match self {
            Protocol::Resp => {
                let mut parts: Vec<&[u8]> = vec![b"MGET"];
                parts.extend(keys.map(str::as_bytes));
                resp_command(output, &parts);
            }
            Protocol::Memcache => memcache_get(output, keys),
        }
        asked
    }

    /// Appends a PING, or what comes nearest: a request without a key.
    pub fn ping(self, output: &mut Vec<u8>) -> Asked {
        match self {
            Protocol::Resp => resp_command(output, &[b"PING"]),
            Protocol::Memcache => output.extend_from_slice(b"version\r\n"),
        }
        Asked::Done
    }

    /// Appends what empties a shard. Sent to shards only: not every proxy takes it.
    pub fn flush(self, output: &mut Vec<u8>) -> Asked {
        match self {
            Protocol::Resp => resp_command(output, &[b"FLUSHALL"]),
            Protocol::Memcache => output.extend_from_slice(b"flush_all\r\n"),
        }
        Asked::Done
    }

    /// The reply at the start of `input`, or nothing when more bytes are needed.
    pub fn reply(self, input: &[u8], asked: Asked) -> Result<Option<Reply>, Malformed> {
        match self {
            // A miss has its own sign there.
            Protocol::Resp => resp_reply(input),
            Protocol::Memcache => memcache_reply(input, asked),
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
    let Some(line) = first_line(input)? else { return Ok(None) };
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

fn resp_length(digits: &[u8]) -> Result<Option<usize>, Malformed> {
    if digits == b"-1" {
        return Ok(None);
    }
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).map(Some).ok_or(Malformed)
}

fn memcache_get<'a>(output: &mut Vec<u8>, keys: impl Iterator<Item = &'a str>) {
    output.extend_from_slice(b"get");
    for key in keys {
        output.push(b' ');
        output.extend_from_slice(key.as_bytes());
    }
    output.extend_from_slice(b"\r\n");
}

/// A reply to another question than the one asked is none: it belongs to a neighbour in the pipeline.
fn memcache_reply(input: &[u8], asked: Asked) -> Result<Option<Reply>, Malformed> {
    let (mut found, mut length) = (0, 0);
    loop {
        let Some(line) = first_line(&input[length..])? else { return Ok(None) };
        length += line.len() + 2;
        let kind = match (asked, line) {
            (Asked::Values(_), [b'V', b'A', b'L', b'U', b'E', b' ', item @ ..]) => {
                length += memcache_value_bytes(item)?;
                let Some(end) = input.get(length..length + 2) else { return Ok(None) };
                if end != b"\r\n" {
                    return Err(Malformed);
                }
                found += 1;
                length += 2;
                continue;
            }
            (Asked::Values(wanted), b"END") if found == wanted => ReplyKind::Fine,
            (Asked::Values(wanted), b"END") if found < wanted => ReplyKind::Miss,
            (Asked::Done, b"STORED" | b"OK") => ReplyKind::Fine,
            (Asked::Done, _) if line.starts_with(b"VERSION ") => ReplyKind::Fine,
            _ if is_memcache_error(line) => ReplyKind::Error,
            _ => return Err(Malformed),
        };
        return Ok(Some(Reply { kind, length }));
    }
}

/// How long a value is, by what its line says after `VALUE`: key, flags, length.
fn memcache_value_bytes(item: &[u8]) -> Result<usize, Malformed> {
    let item = std::str::from_utf8(item).map_err(|_| Malformed)?;
    let words: Vec<&str> = item.split(' ').collect();
    let [_key, _flags, bytes] = words[..] else { return Err(Malformed) };
    bytes.parse::<u32>().map(|bytes| bytes as usize).map_err(|_| Malformed)
}

fn is_memcache_error(line: &[u8]) -> bool {
    line == b"ERROR" || line.starts_with(b"CLIENT_ERROR ") || line.starts_with(b"SERVER_ERROR ")
}

/// The first line without its end. A line that does not end within this many bytes is none.
fn first_line(input: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    const LINE_BYTES_MAX: usize = 4096;
    let Some(end) = input.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\n') else {
        return if input.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Malformed) };
    };
    input[..end].strip_suffix(b"\r").map(Some).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(protocol: Protocol, asked: Asked, input: &[u8], kind: ReplyKind) {
        let whole = Reply { kind, length: input.len() };
        assert_eq!(protocol.reply(input, asked), Ok(Some(whole)));
        for cut in 0..input.len() {
            assert_eq!(protocol.reply(&input[..cut], asked), Ok(None), "cut at {cut}");
        }
        assert_eq!(protocol.reply(&[input, b"+OK\r\n"].concat(), asked), Ok(Some(whole)));
    }

    #[test]
    fn a_reply_ends_where_it_says() {
        for (input, kind) in [
            (&b"+OK\r\n"[..], ReplyKind::Fine),
            (b"-ERR no\r\n", ReplyKind::Error),
            (b":12\r\n", ReplyKind::Fine),
            (b"$5\r\na\r\nbc\r\n", ReplyKind::Fine),
            (b"$0\r\n\r\n", ReplyKind::Fine),
            (b"$-1\r\n", ReplyKind::Miss),
            (b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", ReplyKind::Fine),
            (b"*2\r\n$1\r\na\r\n$-1\r\n", ReplyKind::Miss),
            (b"*0\r\n", ReplyKind::Fine),
        ] {
            check(Protocol::Resp, Asked::Done, input, kind);
        }
    }

    #[test]
    fn what_was_asked_decides_what_memcached_meant() {
        for (asked, input, kind) in [
            (Asked::Done, &b"STORED\r\n"[..], ReplyKind::Fine),
            (Asked::Done, b"OK\r\n", ReplyKind::Fine),
            (Asked::Done, b"VERSION 1.6.18\r\n", ReplyKind::Fine),
            (Asked::Done, b"ERROR\r\n", ReplyKind::Error),
            (Asked::Done, b"CLIENT_ERROR no\r\n", ReplyKind::Error),
            (Asked::Values(1), b"SERVER_ERROR no\r\n", ReplyKind::Error),
            (Asked::Values(1), b"END\r\n", ReplyKind::Miss),
            (Asked::Values(1), b"VALUE a 0 0\r\n\r\nEND\r\n", ReplyKind::Fine),
            (Asked::Values(1), b"VALUE a 0 5\r\nEND\r\n\r\nEND\r\n", ReplyKind::Fine),
            (Asked::Values(2), b"VALUE a 0 1\r\nx\r\nVALUE b 7 1\r\ny\r\nEND\r\n", ReplyKind::Fine),
            (Asked::Values(2), b"VALUE a 0 1\r\nx\r\nEND\r\n", ReplyKind::Miss),
            (Asked::Values(2), b"VALUE a 0 1\r\nx\r\nSERVER_ERROR no\r\n", ReplyKind::Error),
        ] {
            check(Protocol::Memcache, asked, input, kind);
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for input in [&b"?\r\n"[..], b"\r\n", b"$x\r\n", b"+OK\n", &[b'+'; 5000]] {
            assert_eq!(Protocol::Resp.reply(input, Asked::Done), Err(Malformed));
        }
        for (asked, input) in [
            (Asked::Done, &b"END\r\n"[..]),
            (Asked::Done, b"VALUE a 0 1\r\nx\r\nEND\r\n"),
            (Asked::Values(1), b"STORED\r\n"),
            (Asked::Values(1), b"VALUE a 0 1\r\nxyzEND\r\n"),
            (Asked::Values(1), b"VALUE a 0\r\nx\r\nEND\r\n"),
            (Asked::Values(1), b"VALUE a 0 -1\r\n"),
            (Asked::Values(1), b"VALUE a 0 1\r\nx\r\nVALUE b 0 1\r\nx\r\nEND\r\n"),
            (Asked::Values(1), b"END\n"),
        ] {
            assert_eq!(Protocol::Memcache.reply(input, asked), Err(Malformed));
        }
    }

    #[test]
    fn memcached_is_asked_in_lines() {
        let mut output = Vec::new();
        assert_eq!(Protocol::Memcache.set(&mut output, &key(7), b"xy"), Asked::Done);
        assert_eq!(Protocol::Memcache.get(&mut output, &key(7)), Asked::Values(1));
        assert_eq!(Protocol::Memcache.multi_get(&mut output, ["a", "b"].into_iter()), Asked::Values(2));
        assert_eq!(output, b"set bench-7 0 0 2\r\nxy\r\nget bench-7\r\nget a b\r\n");
    }

    #[test]
    fn requests_are_arrays_of_bulk_strings() {
        let mut output = Vec::new();
        Protocol::Resp.set(&mut output, &key(7), b"xy");
        assert_eq!(output, b"*3\r\n$3\r\nSET\r\n$7\r\nbench-7\r\n$2\r\nxy\r\n");
    }
}
