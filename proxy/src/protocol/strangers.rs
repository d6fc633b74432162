//! Peers that speak something else: recognised by their first bytes, told so in a way that they understand, and closed.
//!
//! What they send must not be taken for requests. The request that an HTTP/2 client or a load balancer's PROXY line is
//! read as is at best an error that shifts every reply by one, and at worst a command that somebody smuggled in.

use super::memcache::commands as memcached;
use super::resp::command::index as redis;

/// What a peer speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stranger {
    /// A TLS handshake.
    Tls,
    /// The PROXY protocol of load balancers, version 1 or 2.
    ProxyProtocol,
    /// HTTP of any version.
    Http,
    /// SSH.
    Ssh,
    /// RESP.
    Redis,
    /// memcached's text protocol.
    Memcached,
    /// memcached's binary protocol.
    MemcachedBinary,
}

/// Length of a header of memcached's binary protocol.
const BINARY_HEADER: usize = 24;

impl Stranger {
    /// Recognises it by the first bytes of a connection, which need not be a whole line. Asked where a request does not
    /// begin as usual.
    pub fn of_bytes(input: &[u8]) -> Option<Self> {
        match input {
            [0x16, 0x03, ..] => Some(Self::Tls),
            [0x80, ..] if input.len() >= BINARY_HEADER => Some(Self::MemcachedBinary),
            _ if input.starts_with(b"\r\n\r\n\0\r\nQUIT\n") || input.starts_with(b"PROXY ") => {
                Some(Self::ProxyProtocol)
            }
            _ if input.starts_with(b"SSH-") => Some(Self::Ssh),
            _ if input.starts_with(b"PRI * HTTP/") => Some(Self::Http),
            _ => None,
        }
    }

    /// Recognises it by a line that is no request.
    pub fn of_line(line: &[u8]) -> Option<Self> {
        if let Some(stranger) = Self::of_bytes(line) {
            return Some(stranger);
        }
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').take(4).collect();
        match words[..] {
            // The third line of the PROXY protocol's second version.
            [b"\0"] => Some(Self::ProxyProtocol),
            [method, _, version]
                if version.starts_with(b"HTTP/") && method.iter().all(u8::is_ascii_uppercase) =>
            {
                Some(Self::Http)
            }
            [first, ..] if first.eq_ignore_ascii_case(b"host:") => Some(Self::Http),
            _ => None,
        }
    }

    /// Whether a client of HTTP/1 would understand a page.
    fn is_http_1(line: &[u8]) -> bool {
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').take(4).collect();
        matches!(words[..], [_, _, version] if version.starts_with(b"HTTP/1."))
    }

    /// Recognises RESP where memcached is spoken.
    pub fn is_redis(line: &[u8]) -> bool {
        line.strip_prefix(b"*").is_some_and(|count| !count.is_empty() && count.iter().all(u8::is_ascii_digit))
    }

    /// Recognises memcached where RESP is spoken: a command that Redis does not know, or one that both know with the
    /// numbers that memcached wants.
    pub fn is_memcached(line: &[u8]) -> bool {
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).collect();
        let Some(row) = words.first().and_then(|name| memcached::lookup(name)) else { return false };
        if words.len() < row.words_min || words.len() > row.words_max {
            return false;
        }
        let is_number = |word: &&[u8]| word.iter().all(u8::is_ascii_digit);
        match redis::lookup(words[0]) {
            None => true,
            Some(_) => row.handling == memcached::Handling::Value && words[2..5].iter().all(is_number),
        }
    }

    /// What is said to it, and to the log; `own` is what is spoken here.
    pub fn sentence(self, own: &str) -> String {
        match self {
            Self::Tls => format!(
                "this is a TLS handshake, but this address speaks {own} without TLS; switch it off in the client, or \
                 set tls for this pool"
            ),
            Self::ProxyProtocol => {
                format!("this is the PROXY protocol, not {own}; switch it off in the load balancer in front")
            }
            Self::Http => format!("this is HTTP, not {own}"),
            Self::Ssh => format!("this is SSH, not {own}"),
            Self::Redis => format!("this is the protocol of Redis, but this address speaks {own}"),
            Self::Memcached => format!("this is memcached's text protocol, but this address speaks {own}"),
            Self::MemcachedBinary => {
                format!("this is memcached's binary protocol, but this address speaks {own}")
            }
        }
    }

    /// Writes the sentence in the way of who sent `input`. False if it has none of its own, or none that would be shown:
    /// then it is written as everybody is answered.
    pub fn reply(input: &[u8], sentence: &str, reply: &mut Vec<u8>) -> bool {
        let line = input.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match Self::of_bytes(input) {
            Some(Self::Tls) => {
                // A fatal alert, protocol version; a client of TLS reads no further, whoever looks at the bytes does.
                reply.extend_from_slice(&[0x15, 3, 1, 0, 2, 2, 70]);
                return false;
            }
            Some(Self::MemcachedBinary) => {
                let mut header = [0; BINARY_HEADER];
                header[0] = 0x81;
                header[1] = input[1];
                // The status: unknown command.
                header[7] = 0x81;
                header[8..12].copy_from_slice(&(sentence.len() as u32).to_be_bytes());
                header[12..16].copy_from_slice(&input[12..16]);
                reply.extend_from_slice(&header);
                reply.extend_from_slice(sentence.as_bytes());
            }
            _ if Self::is_http_1(line) => {
                let length = sentence.len() + 1;
                let head = format!(
                    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
                     Connection: close\r\n\r\n{sentence}\n"
                );
                reply.extend_from_slice(head.as_bytes());
            }
            _ if Self::is_redis(line) => reply.extend(format!("-ERR {sentence}\r\n").bytes()),
            _ if Self::is_memcached(line) => reply.extend(format!("CLIENT_ERROR {sentence}\r\n").bytes()),
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_known_by_their_first_line() {
        for (line, expected) in [
            (&b"GET /x HTTP/1.1"[..], Some(Stranger::Http)),
            (b"PRI * HTTP/2.0", Some(Stranger::Http)),
            (b"Host: a", Some(Stranger::Http)),
            (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2", Some(Stranger::ProxyProtocol)),
            (b"PROXY UNKNOWN", Some(Stranger::ProxyProtocol)),
            (b"\0", Some(Stranger::ProxyProtocol)),
            (b"SSH-2.0-OpenSSH_9.2", Some(Stranger::Ssh)),
            (b"\x16\x03\x01\x02\0\x01", Some(Stranger::Tls)),
            (b"GET k", None),
            (b"SET k HTTP/1.1 x", None),
            (b"", None),
            (b"PROXYSQL", None),
        ] {
            assert_eq!(Stranger::of_line(line), expected, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn redis_and_memcached_are_told_apart_where_they_can_be() {
        for (line, is_memcached) in [
            ("gets k", true),
            ("version", true),
            ("stats settings", true),
            ("mg k v", true),
            ("set k 0 0 5", true),
            ("append k 0 0 5 noreply", true),
            ("set k 0 0", false),
            ("set k v EX 5 NX", false),
            ("get k", false),
            ("PING", false),
            ("VERSION", false),
            ("incr k 1", false),
        ] {
            assert_eq!(Stranger::is_memcached(line.as_bytes()), is_memcached, "{line}");
        }
        assert!(Stranger::is_redis(b"*3") && !Stranger::is_redis(b"*") && !Stranger::is_redis(b"*x"));
    }
}
