//! The topology document: the shards of pools and how keys are dealt to them, as JSON.
//!
//! It is the contract between whoever declares the shards and whoever looks for keys: proxies serve it at `/topology`,
//! applications in client-side partitioning mode read it from a file. Whoever reads it ignores fields it does not know;
//! a change that old readers would misunderstand gets another `version`: 2 if keys are pinned in any of its pools (`pin`),
//! else 1. The chart says `"tls": true` in a pool whose shards speak TLS.
//!
//! ```json
//! {
//!   "version": 1,
//!   "pools": {
//!     "cache": {
//!       "protocol": "redis", "hash": "fnv1a_64", "distribution": "ketama", "hash_tag": "{}",
//!       "shards": [
//!         { "name": "shard-0", "address": "10.0.0.1:6379", "weight": 1 },
//!         { "name": "shard-1", "address": "10.0.0.2:6379", "weight": 1, "ejected": true }
//!       ]
//!     }
//!   }
//! }
//! ```

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::shard::{bare, check_name, quoted};
use crate::stamp::Stamp;
use crate::{
    Address, DistributionKind, Group, HashTag, KeyHash, PinError, Pins, Shard, Topology, TopologyError,
};

/// The newest version that this crate reads. It writes the oldest that says it all.
pub const VERSION: u32 = 2;

/// The whole document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// At most [`VERSION`].
    pub version: u32,
    /// Pools by their names.
    pub pools: BTreeMap<String, Pool>,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// `redis` or `memcache`.
    pub protocol: String,
    /// Name of the key hash.
    pub hash: String,
    /// Name of the distribution.
    pub distribution: String,
    /// The two characters around the part of a key that is hashed; none if the whole key is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_tag: Option<String>,
    /// Prefixes of keys that share a shard: its name, or a hash tag in braces. See [`Pins`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pin: BTreeMap<String, String>,
    /// The shards, in any order.
    pub shards: Vec<PoolShard>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolShard {
    /// The name on the ring, which owns the keys.
    pub name: String,
    /// `host:port`, `[IPv6]:port` or the path of a Unix socket.
    pub address: String,
    /// Its part of the keys relative to the other shards; 1 if it is left out.
    #[serde(default = "one")]
    pub weight: u32,
    /// It is out of the ring for now, because it failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ejected: bool,
}

fn one() -> u32 {
    1
}

/// One pool of a document in a file, read again when the file changes.
///
/// It starts no thread: whoever uses it asks now and then, which costs one look at the file's times and size.
#[derive(Debug)]
pub struct DocumentFile {
    path: PathBuf,
    pool: String,
    seen: Option<Stamp>,
    topology: Arc<Topology>,
}

impl DocumentFile {
    /// Reads the file.
    ///
    /// # Errors
    /// See [`DocumentError`].
    pub fn read(path: impl Into<PathBuf>, pool: impl Into<String>) -> Result<Self, DocumentError> {
        let (path, pool) = (path.into(), pool.into());
        let seen = Stamp::of(&path);
        let topology = Arc::new(Document::parse(&std::fs::read_to_string(&path)?)?.topology(&pool)?);
        Ok(Self { path, pool, seen, topology })
    }

    /// Who owns what.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// Reads the file again if it has changed; whether it had.
    ///
    /// # Errors
    /// When the new file cannot be used: what held before goes on, and the next call tries again.
    pub fn refresh(&mut self) -> Result<bool, DocumentError> {
        let now = Stamp::of(&self.path);
        if now == self.seen {
            return Ok(false);
        }
        let text = std::fs::read_to_string(&self.path)?;
        self.topology = Arc::new(Document::parse(&text)?.topology(&self.pool)?);
        self.seen = now;
        Ok(true)
    }
}

/// Why a document makes no topology.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file cannot be read.
    #[error("the topology document cannot be read: {0}")]
    File(#[from] std::io::Error),
    /// It is no JSON, or not of this shape.
    #[error("the topology document cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// It is for other readers.
    #[error("the topology document has version {0}; this library reads versions 1 to {VERSION}")]
    Version(u32),
    /// The pool asked for is not in it.
    #[error("the topology document has no pool {0:?}; it has {1}")]
    NoPool(String, String),
    /// A name that means nothing.
    #[error("pool {pool}: unknown {what} {}", quoted(.value))]
    Unknown {
        /// The pool.
        pool: String,
        /// Which field.
        what: &'static str,
        /// What stands there.
        value: String,
    },
    /// No shard can be called that.
    #[error("pool {pool}: name {} cannot be used: {allowed}", quoted(.name))]
    Name {
        /// The pool.
        pool: String,
        /// What stands there.
        name: String,
        /// What is allowed.
        allowed: String,
    },
    /// The shards make no topology.
    #[error("pool {0}: {1}")]
    Topology(String, TopologyError),
    /// A prefix cannot be pinned.
    #[error("pool {0}: pin: {1}")]
    Pin(String, PinError),
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// When it is no JSON of this shape, or of another version.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let document: Self = serde_json::from_str(text)?;
        match document.version {
            1..=VERSION => Ok(document),
            version => Err(DocumentError::Version(version)),
        }
    }

    /// The document of these pools.
    pub fn of(pools: BTreeMap<String, Pool>) -> Self {
        let has_pins = pools.values().any(|pool| !pool.pin.is_empty());
        Self { version: if has_pins { 2 } else { 1 }, pools }
    }

    /// The topology of one pool, without the shards that are ejected.
    ///
    /// # Errors
    /// See [`DocumentError`].
    pub fn topology(&self, pool: &str) -> Result<Topology, DocumentError> {
        let Some(found) = self.pools.get(pool) else {
            let known: Vec<&str> = self.pools.keys().map(String::as_str).collect();
            return Err(DocumentError::NoPool(pool.into(), known.join(", ")));
        };
        found.topology(pool)
    }
}

impl Pool {
    fn topology(&self, name: &str) -> Result<Topology, DocumentError> {
        let unknown =
            |what, value: &str| DocumentError::Unknown { pool: name.into(), what, value: value.into() };
        let key_hash = KeyHash::from_str(&self.hash).map_err(|_| unknown("hash", &self.hash))?;
        let kind = DistributionKind::from_str(&self.distribution)
            .map_err(|_| unknown("distribution", &self.distribution))?;
        let hash_tag = match &self.hash_tag {
            None => None,
            Some(tag) => Some(HashTag::from_str(tag).map_err(|_| unknown("hash_tag", tag))?),
        };
        let mut shards = Vec::new();
        for shard in &self.shards {
            let address = address(&shard.address).ok_or_else(|| unknown("address", &shard.address))?;
            check_name(&shard.name).map_err(|allowed| DocumentError::Name {
                pool: name.into(),
                name: shard.name.clone(),
                allowed,
            })?;
            shards.push(Shard::new(address, shard.weight, Some(shard.name.clone())));
        }
        let pins = Pins::new(self.pin.iter().map(|(prefix, target)| (&**prefix, &**target)))
            .map_err(|error| DocumentError::Pin(name.into(), error))?;
        let topology = Topology::new(shards, kind, key_hash, hash_tag)
            .and_then(|topology| topology.with_pins(pins))
            .map_err(|error| DocumentError::Topology(name.into(), error))?;
        let names = self.shards.iter().filter(|shard| shard.ejected).map(|shard| shard.name.as_str());
        let names: HashSet<&str> = names.collect();
        let ejected: Vec<usize> = topology
            .shards()
            .iter()
            .enumerate()
            .filter(|(_, shard)| names.contains(shard.name.as_str()))
            .map(|(index, _)| index)
            .collect();
        Ok(if ejected.is_empty() { topology } else { topology.without(&ejected) })
    }

    /// What stands in a document for this topology.
    pub fn of(protocol: &str, topology: &Topology, ejected: &[usize]) -> Self {
        let ejected: HashSet<usize> = ejected.iter().copied().collect();
        let shard = |(index, shard): (usize, &Shard)| PoolShard {
            name: shard.name.clone(),
            address: shard.address.to_string(),
            weight: shard.weight,
            ejected: ejected.contains(&index),
        };
        Self {
            protocol: protocol.into(),
            hash: topology.key_hash().name().into(),
            // The slots of a cluster are told by its nodes, not computed: readers are to refuse it.
            distribution: match topology.group() {
                Group::Slot => "cluster",
                Group::Shard => topology.kind().name(),
            }
            .into(),
            // Two characters, or the two bytes of one.
            hash_tag: topology.hash_tag().map(|tag| {
                let bytes = [tag.open, tag.close];
                std::str::from_utf8(&bytes)
                    .map_or_else(|_| bytes.map(char::from).iter().collect(), Into::into)
            }),
            pin: topology.pins().iter().map(|pin| (pin.prefix.clone(), pin.target.to_string())).collect(),
            shards: topology.shards().iter().enumerate().map(shard).collect(),
        }
    }
}

/// `host:port`, `[IPv6]:port` or a path. A port that is not known yet is 0.
fn address(text: &str) -> Option<Address> {
    const ADDRESS_MAX: usize = 512;
    if text.len() > ADDRESS_MAX || text.contains(char::is_control) {
        return None;
    }
    if text.starts_with('/') {
        return Some(Address::Unix(text.into()));
    }
    let (host, port) = text.rsplit_once(':')?;
    let (host, port) = (bare(host), port.parse().ok()?);
    if host.is_empty() { None } else { Some(Address::Tcp { host: host.into(), port }) }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const TEXT: &str = r#"{ "version": 1, "more": true, "pools": { "cache": {
        "protocol": "redis", "hash": "md5", "distribution": "ketama", "hash_tag": "{}", "shards": [
            { "name": "a", "address": "10.0.0.1:6379", "later": 1 },
            { "name": "b", "address": "[::1]:6379", "weight": 2 },
            { "name": "c", "address": "/run/c.sock", "ejected": true }
        ] } } }"#;

    #[test]
    fn a_topology_is_what_its_document_says() {
        let document = Document::parse(TEXT).unwrap();
        let topology = document.topology("cache").unwrap();
        assert_eq!(topology.ejected(), [2]);
        assert_eq!(topology.shards()[1].address.to_string(), "[::1]:6379");
        let again = Pool::of("redis", &topology, topology.ejected());
        assert_eq!(again, document.pools["cache"]);
    }

    #[test]
    fn keys_that_are_pinned_make_it_a_document_that_old_readers_refuse() {
        let text = TEXT.replace("\"shards\"", "\"pin\": {\"rq:\": \"b\", \"s:\": \"{user}\"}, \"shards\"");
        let topology = Document::parse(&text).unwrap().topology("cache").unwrap();
        assert_eq!(topology.shard_for(b"rq:queue"), Some(1));
        assert_eq!(topology.shard_for(b"s:x"), topology.shard_for(b"user"));
        let pools = |text: &str| {
            let topology = Document::parse(text).unwrap().topology("cache").unwrap();
            BTreeMap::from([("cache".to_owned(), Pool::of("redis", &topology, topology.ejected()))])
        };
        let (pinned, plain) = (Document::of(pools(&text)), Document::of(pools(TEXT)));
        assert_eq!((pinned.version, plain.version), (2, 1));
        let again = Document::parse(&serde_json::to_string(&pinned).unwrap()).unwrap();
        assert_eq!(again.topology("cache").unwrap().pins(), topology.pins());
    }

    #[test]
    fn names_and_addresses_that_would_forge_log_lines_are_refused() {
        for (from, to) in [
            ("\"a\"", "\"\"".to_owned()),
            ("\"a\"", "\"a\\nERROR\"".to_owned()),
            ("\"a\"", format!("\"{}\"", "n".repeat(1_000_000))),
            ("10.0.0.1:", "h\\u001b:".to_owned()),
            ("10.0.0.1:", format!("{}:", "h".repeat(1_000_000))),
        ] {
            let error = Document::parse(&TEXT.replace(from, &to)).unwrap().topology("cache").unwrap_err();
            let told = error.to_string();
            assert!(told.len() < 512 && !told.contains(char::is_control), "{told}");
        }
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_a_broken_one_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str, second| {
            std::fs::write(file.path(), text).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
            std::fs::File::options().write(true).open(file.path()).unwrap().set_modified(time).unwrap();
        };
        write(TEXT, 1);
        let mut watched = DocumentFile::read(file.path(), "cache").unwrap();
        assert!(!watched.refresh().unwrap());
        write("{", 2);
        assert!(watched.refresh().is_err());
        assert_eq!(watched.topology().shards().len(), 3);
        write(&TEXT.replace("md5", "murmur"), 3);
        assert!(watched.refresh().unwrap());
        assert_eq!(watched.topology().key_hash(), KeyHash::Murmur);
    }

    #[test]
    fn a_file_that_another_one_takes_the_place_of_is_read_again_whatever_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("topology.json");
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        // As a Secret or an archive brings it: beside the old one, with the same time, then in its place.
        let place = |text: &str| {
            let beside = folder.path().join("beside.json");
            std::fs::write(&beside, text).unwrap();
            std::fs::File::options().write(true).open(&beside).unwrap().set_modified(time).unwrap();
            std::fs::rename(&beside, &path).unwrap();
        };
        place(TEXT);
        let mut watched = DocumentFile::read(&path, "cache").unwrap();
        assert!(!watched.refresh().unwrap());
        place(&TEXT.replace("10.0.0.1", "10.0.0.7"));
        assert!(watched.refresh().unwrap());
        assert_eq!(watched.topology().shards()[0].address.to_string(), "10.0.0.7:6379");
        assert!(!watched.refresh().unwrap());
    }

    #[test]
    fn a_document_of_many_shards_is_read_in_proportion() {
        let shard = |number: u32| PoolShard {
            name: format!("shard-{number}"),
            address: format!("10.0.0.1:{}", number % 65535 + 1),
            weight: 1,
            ejected: true,
        };
        let pool = Pool {
            protocol: "redis".into(),
            hash: "md5".into(),
            distribution: "modula".into(),
            hash_tag: None,
            pin: BTreeMap::new(),
            shards: (0..65_000).map(shard).collect(),
        };
        let topology = pool.topology("cache").unwrap();
        assert_eq!(topology.ejected().len(), 65_000);
        let again = Pool::of("redis", &topology, topology.ejected());
        assert!(again.shards.iter().all(|shard| shard.ejected));
    }

    #[test]
    fn a_hash_tag_of_two_bytes_comes_back_whatever_letters_they_are() {
        for tag in ["{}", "$$", "é", "\"\\"] {
            let mut pool = Document::parse(TEXT).unwrap().pools["cache"].clone();
            pool.hash_tag = Some(tag.into());
            let topology = pool.topology("cache").unwrap();
            let document = Pool::of("redis", &topology, topology.ejected());
            let text = serde_json::to_string(&document).unwrap();
            let again: Pool = serde_json::from_str(&text).unwrap();
            assert_eq!(again.topology("cache").unwrap().hash_tag(), topology.hash_tag(), "{tag}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let told = |text: &str| match Document::parse(text) {
            Ok(document) => document.topology("cache").unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(told("{}").contains("missing field `version`"));
        assert!(told(&TEXT.replace("\"version\": 1", "\"version\": 3")).contains("has version 3"));
        assert!(
            told(&TEXT.replace("\"shards\"", "\"pin\": {\"\": \"a\"}, \"shards\""))
                .contains("pool cache: pin: prefix")
        );
        assert!(
            told(&TEXT.replace("\"shards\"", "\"pin\": {\"k\": \"d\"}, \"shards\""))
                .contains("none of the shards")
        );
        assert!(told(&TEXT.replace("cache", "other")).contains("has no pool \"cache\"; it has other"));
        assert!(told(&TEXT.replace("md5", "sha1")).contains("unknown hash \"sha1\""));
        assert!(told(&TEXT.replace("10.0.0.1:6379", "nowhere")).contains("address \"nowhere\""));
        assert!(told(&TEXT.replace("\"b\"", "\"a\"")).contains("two shards are called \"a\""));
    }
}
