//! Servers as they are written: one a line, as in nutcracker.yml.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

pub use crate::shard::bare;
use crate::shard::{check_name, quoted};
use crate::{Address, Shard};

/// A list that is read line by line. No two servers in it have the same name.
#[derive(Debug, Default)]
pub struct Servers {
    shards: Vec<Shard>,
    /// The line in which each name was first seen.
    lines: HashMap<String, usize>,
}

impl Servers {
    /// One more; `number` is its line in the file.
    ///
    /// # Errors
    /// What is wrong with it, and the way out.
    pub fn add(&mut self, line: &str, number: usize) -> Result<(), String> {
        let shard =
            server(line).map_err(|allowed| format!("server {} cannot be used: {allowed}", quoted(line)))?;
        if let Some(first) = self.lines.get(&shard.name) {
            return Err(format!(
                "server {} has the name {:?}, as the one in line {first}; give one of them another name",
                quoted(line),
                shard.name
            ));
        }
        self.lines.insert(shard.name.clone(), number);
        self.shards.push(shard);
        Ok(())
    }

    /// All of them.
    pub fn into_shards(self) -> Vec<Shard> {
        self.shards
    }
}

/// Longest line: more than a name, a host and two numbers need.
const LINE_MAX: usize = 1024;

/// A line of `servers:`, taken apart from the right as nutcracker does: `host:port:weight [name]` or
/// `/path:weight [name]`.
///
/// # Errors
/// What is allowed.
pub fn server(line: &str) -> Result<Shard, String> {
    if line.len() > LINE_MAX {
        return Err(format!("it is longer than {LINE_MAX} bytes"));
    }
    if line.contains(char::is_control) {
        return Err("it has control characters".into());
    }
    let shard = taken_apart(line)?;
    check_name(&shard.name)?;
    Ok(shard)
}

fn taken_apart(line: &str) -> Result<Shard, String> {
    const ALLOWED: &str =
        "allowed is host:port:weight or /path:weight, optionally followed by a blank and a name";
    let (address, name) = match line.rsplit_once(' ') {
        Some((address, name)) => (address.trim_end(), Some(name.to_owned())),
        None => (line, None),
    };
    let (rest, weight) = address.rsplit_once(':').ok_or(ALLOWED)?;
    let weight = match number(weight, u32::MAX) {
        Ok(weight) => weight,
        Err(_) if weight.bytes().all(|byte| byte == b'0') && !weight.is_empty() => {
            return Err("a server of weight 0 gets no keys; leave it out or give it 1".into());
        }
        Err(allowed) => return Err(format!("weight {weight:?}: {allowed}; {ALLOWED}")),
    };
    if rest.starts_with('/') {
        return Ok(Shard::new(Address::Unix(rest.into()), weight, name));
    }
    let Some((host, written_port)) = rest.rsplit_once(':') else {
        return Err(format!("a port or a weight is missing; {ALLOWED}"));
    };
    if host.is_empty() {
        return Err(format!("the host is missing; {ALLOWED}"));
    }
    let port =
        number(written_port, u16::MAX).map_err(|allowed| format!("port {written_port:?}: {allowed}"))?;
    let shard = Shard::new(Address::Tcp { host: bare(host).to_owned(), port }, weight, name.clone());
    // nutcracker hashes what is written: the port with its leading zeros, the host with its brackets.
    let as_written = format!("{host}:{written_port}");
    if name.is_none() && port != 11211 && shard.name != as_written {
        let Shard { address, .. } = shard;
        return Ok(Shard::new(address, weight, Some(as_written)));
    }
    Ok(shard)
}

/// `host:port`, IPv6 in brackets.
pub fn address(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|&port| port > 0)?;
    let host = bare(host);
    (!host.is_empty()).then(|| Address::Tcp { host: host.to_owned(), port })
}

/// Decimal digits, from 1 on.
fn number<N: FromStr + Default + PartialEq + Display + Copy>(text: &str, most: N) -> Result<N, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| is_number && *number != N::default());
    number.ok_or_else(|| format!("allowed is a whole number from 1 to {most}, in digits only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_server(line: &str, address: &str, weight: u32, name: &str) {
        let shard = server(line).expect(line);
        assert_eq!(
            (shard.address.to_string().as_str(), shard.weight, shard.name.as_str()),
            (address, weight, name)
        );
    }

    #[test]
    fn servers_are_taken_apart_from_the_right() {
        check_server("127.0.0.1:6379:1", "127.0.0.1:6379", 1, "127.0.0.1:6379");
        check_server("127.0.0.1:6379:3 alpha", "127.0.0.1:6379", 3, "alpha");
        check_server("cache:11211:1", "cache:11211", 1, "cache");
        check_server("h:07002:1", "h:7002", 1, "h:07002");
        check_server("h:011211:1", "h:11211", 1, "h");
        check_server("::1:6379:1", "[::1]:6379", 1, "::1:6379");
        check_server("[::1]:6379:1 six", "[::1]:6379", 1, "six");
        check_server("/run/a.sock:2 ua", "/run/a.sock", 2, "ua");
    }

    #[test]
    fn a_bad_server_is_told_what_is_missing() {
        for (line, part) in [
            ("127.0.0.1:6379", "a port or a weight is missing"),
            ("127.0.0.1:6379:0", "weight 0"),
            ("127.0.0.1:6379:x", "weight \"x\""),
            ("127.0.0.1:99999:1", "port \"99999\""),
            (":6379:1", "host is missing"),
            ("nonsense", "host:port:weight"),
            ("h:1:1 ", "a name has 1 to 256 bytes"),
            ("h:1:1 a\u{a0}b", "a name has 1 to 256 bytes"),
            ("h:1:1 a\nERROR", "control characters"),
            ("h\u{1b}[31m:1:1 a", "control characters"),
            (&format!("h:1:1 {}", "n".repeat(257)), "a name has 1 to 256 bytes"),
            (&"n".repeat(1025), "longer than 1024 bytes"),
        ] {
            let error = server(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
            let told = Servers::default().add(line, 1).expect_err(line);
            assert!(told.len() < 512 && !told.contains(char::is_control), "{told}");
        }
        check_server(&format!("h:1:1 {}", "n".repeat(256)), "h:1", 1, &"n".repeat(256));
    }
}
