//! One shard: the name that owns keys and the address where it is reached.

use std::fmt;
use std::path::PathBuf;

/// Twemproxy leaves this port out of the ring name, in redis pools too.
const MEMCACHED_PORT: u16 = 11211;

/// Where a shard is reached. Host names are kept as written and never resolved here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or IP address, without brackets around IPv6, and a port.
    Tcp {
        /// As written in the configuration.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// The path of a unix domain socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One backend server of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shard {
    /// The ring name. It alone decides which keys the shard owns, so a shard that keeps its name keeps its
    /// keys wherever it moves.
    pub name: String,
    /// Where it is now.
    pub address: Address,
    /// Its part of the keys relative to the other shards; at least 1.
    pub weight: u32,
}

impl Shard {
    /// A shard with the ring name Twemproxy would give it: `name`, or without one
    /// - `host:port`, the host as written and IPv6 without brackets,
    /// - only `host` when the port is 11211,
    /// - the path and a colon for a unix socket.
    ///
    /// A port written with leading zeros counts as written in Twemproxy (`h:06379`); pass such a ring name
    /// as `name`.
    pub fn new(address: Address, weight: u32, name: Option<String>) -> Shard {
        let name = name.unwrap_or_else(|| match &address {
            Address::Tcp { host, port: MEMCACHED_PORT } => host.clone(),
            Address::Tcp { host, port } => format!("{host}:{port}"),
            Address::Unix(path) => format!("{}:", path.display()),
        });
        Shard { name, address, weight }
    }
}

/// Longest ring name in bytes.
const NAME_MAX: usize = 256;

/// Whether a shard may be called that: names stand in log lines, metrics and replies of one line each.
///
/// # Errors
/// What is allowed.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let is_odd = |character: char| character.is_control() || character.is_whitespace();
    if name.is_empty() || name.len() > NAME_MAX || name.contains(is_odd) {
        return Err(format!("a name has 1 to {NAME_MAX} bytes, no blanks and no control characters"));
    }
    Ok(())
}

/// Puts shards into Twemproxy's order, by length of the name and then by its bytes.
pub(crate) fn put_in_order(shards: &mut [Shard]) {
    shards.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
}

/// The beginning of a text, at most so many bytes.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

/// Text for people as it was written, in quotes; cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    const QUOTED_MAX: usize = 200;
    match text.len() {
        ..=QUOTED_MAX => format!("{text:?}"),
        length => format!("{:?}... ({length} bytes)", cut(text, QUOTED_MAX)),
    }
}

/// An IPv6 address without the brackets that keep its colons together.
pub fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.into(), port }
    }

    fn check(address: Address, name: Option<&str>, ring_name: &str, displayed: &str) {
        let shard = Shard::new(address, 1, name.map(Into::into));
        assert_eq!(shard.name, ring_name);
        assert_eq!(shard.address.to_string(), displayed);
    }

    #[test]
    fn ring_names_are_those_of_twemproxy() {
        check(tcp("10.0.0.1", 6379), None, "10.0.0.1:6379", "10.0.0.1:6379");
        check(tcp("10.0.0.1", 11211), None, "10.0.0.1", "10.0.0.1:11211");
        check(tcp("10.0.0.1", 6379), Some("a"), "a", "10.0.0.1:6379");
        check(tcp("::1", 6379), None, "::1:6379", "[::1]:6379");
        check(Address::Unix("/run/a.sock".into()), None, "/run/a.sock:", "/run/a.sock");
        check(Address::Unix("/run/a.sock".into()), Some("b"), "b", "/run/a.sock");
    }
}
