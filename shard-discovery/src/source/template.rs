//! A template of host names, as a StatefulSet gives them: so many shards, each called by its number. What is declared
//! counts, not what runs: a shard that cannot be found keeps its keys.

use crate::shard::check_name;
use crate::{Address, Shard};

/// Stands for the number of a shard, from 0 on.
const NUMBER: &str = "{}";

/// A template of host names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Host name with `{}` for the number.
    pub host: String,
    /// The port of all of them; 0 where SRV records say it.
    pub port: u16,
    /// How many there are.
    pub count: u16,
    /// Ring name with `{}` for the number.
    pub names: String,
}

impl Template {
    /// The shards that it stands for.
    pub fn servers(&self) -> Vec<Shard> {
        let shard = |number: u16| {
            let number = number.to_string();
            let host = self.host.replace(NUMBER, &number);
            let name = self.names.replace(NUMBER, &number);
            Shard::new(Address::Tcp { host, port: self.port }, 1, Some(name))
        };
        (0..self.count).map(shard).collect()
    }
}

/// `host-{}.domain:port`, or without a port if that comes from SRV records.
///
/// # Errors
/// What is allowed.
pub fn host(text: &str, has_srv: bool) -> Result<(String, u16), String> {
    const ALLOWED: &str =
        "allowed is host:port with {} in the host, such as cache-{}.cache.default.svc.cluster.local.:6379";
    if has_srv {
        return match (text.contains(':'), text.contains(NUMBER)) {
            (false, true) => Ok((text.to_owned(), 0)),
            _ => Err("with servers_srv it is a host with {} and no port".into()),
        };
    }
    let (host, port) = text.rsplit_once(':').ok_or(ALLOWED)?;
    let port = port.parse().ok().filter(|&port| port > 0).ok_or(ALLOWED)?;
    if host.contains(NUMBER) { Ok((host.to_owned(), port)) } else { Err(ALLOWED.into()) }
}

/// A template of ring names.
///
/// # Errors
/// What is allowed.
pub fn names(text: &str) -> Result<String, String> {
    if !text.contains(NUMBER) {
        return Err("it needs {} for the number".into());
    }
    check_name(&text.replace(NUMBER, &u16::MAX.to_string()))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_is_called_by_its_number_and_not_by_its_host() {
        let (host, port) = host("cache-{}.cache:6379", false).unwrap();
        let shards = Template { host, port, count: 11, names: names("shard-{}").unwrap() }.servers();
        assert_eq!(shards.len(), 11);
        assert_eq!(
            shards[10],
            Shard::new(
                Address::Tcp { host: "cache-10.cache".into(), port: 6379 },
                1,
                Some("shard-10".into())
            )
        );
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in ["cache:6379", "cache-{}", "cache-{}:0", "cache-{}:x", "cache:{}"] {
            assert!(host(text, false).is_err(), "{text}");
        }
        assert_eq!(host("cache-{}", true), Ok(("cache-{}".into(), 0)));
        assert!(host("cache-{}:1", true).is_err() && host("cache", true).is_err() && names("shard").is_err());
        assert!(names("a {}").is_err() && names("{}\n").is_err() && names(&"{}".repeat(99)).is_err());
    }
}
