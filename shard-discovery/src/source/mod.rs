//! Where the list of a pool's shards comes from, whoever asks: the proxy, or an application that partitions its keys itself.
//!
//! A [`Source`] yields whole [`Listing`]s, never changes to one: first what there is, then what there is after each change.
//! A list that cannot be read is an error with its place, and the one before stays in force. Another kind of source is
//! another file here, and a line of the enum.

pub mod cluster;
#[cfg(feature = "file")]
pub mod file;
pub mod fixed;
pub mod template;

use crate::mistake::Mistakes;
use crate::{DistributionKind, HashTag, KeyHash, Shard, Topology, TopologyError};

use cluster::Cluster;
#[cfg(feature = "file")]
use file::File;
use template::Template;

/// The shards of a pool at one moment, and who owns what if the source says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The shards, in any order if [`Self::owners`] is absent.
    pub servers: Vec<Shard>,
    /// For each slot the index of the shard that owns it. Absent: the pool's distribution computes it.
    pub owners: Option<Vec<Option<usize>>>,
    /// For each shard the indexes of those that answer reads of its keys as well; empty: nobody else does.
    pub readers: Vec<Vec<usize>>,
}

impl Listing {
    /// Shards among which the pool's distribution deals the keys.
    pub fn of(servers: Vec<Shard>) -> Self {
        Self { servers, ..Self::default() }
    }

    /// Who owns what. The pool's distribution, key hash and hash tag count unless the source says itself who owns what.
    ///
    /// # Errors
    /// See [`TopologyError`].
    pub fn topology(
        &self,
        kind: DistributionKind,
        key_hash: KeyHash,
        hash_tag: Option<HashTag>,
    ) -> Result<Topology, TopologyError> {
        let servers = self.servers.clone();
        let Some(owners) = &self.owners else { return Topology::new(servers, kind, key_hash, hash_tag) };
        let mut readers = self.readers.clone();
        readers.resize(servers.len(), Vec::new());
        Topology::of_cluster(servers, owners, readers)
    }
}

/// Where a list of shards comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// These shards.
    Fixed(Vec<Shard>),
    /// A list in a file.
    #[cfg(feature = "file")]
    File(File),
    /// A template of host names.
    Template(Template),
    /// A Redis Cluster, whose nodes say who owns what.
    Cluster(Cluster),
}

impl Source {
    /// What is listed as far as it is known without a network: of a cluster that nobody owns anything yet.
    ///
    /// # Errors
    /// The mistakes in a file, or that it cannot be read.
    pub fn read(&self) -> Result<Listing, Mistakes> {
        Ok(match self {
            Self::Fixed(servers) => Listing::of(servers.clone()),
            #[cfg(feature = "file")]
            Self::File(file) => Listing::of(file.read()?),
            Self::Template(template) => Listing::of(template.servers()),
            Self::Cluster(_) => cluster::Map::default().listing(),
        })
    }

    /// The cluster, if it is one.
    pub fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Cluster(cluster) => Some(cluster),
            _ => None,
        }
    }
}

/// A source that needs no network, followed: what it lists now, and again after each change.
///
/// It starts no thread: whoever uses it asks now and then, which costs one look at a file's times and size.
#[derive(Debug)]
pub struct Follower {
    source: Source,
    #[cfg(feature = "file")]
    seen: Option<crate::stamp::Stamp>,
    listing: Listing,
}

impl Follower {
    /// Reads the first list.
    ///
    /// # Errors
    /// As of [`Source::read`].
    pub fn new(source: Source) -> Result<Self, Mistakes> {
        #[cfg(feature = "file")]
        let seen = source.stamp();
        let listing = source.read()?;
        Ok(Self {
            source,
            #[cfg(feature = "file")]
            seen,
            listing,
        })
    }

    /// What was listed when it was last read.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Reads the list again if it may have changed; whether it lists something else.
    ///
    /// # Errors
    /// When the new list cannot be used: the one before stays, and the next call tries again.
    pub fn refresh(&mut self) -> Result<bool, Mistakes> {
        #[cfg(feature = "file")]
        {
            let now = self.source.stamp();
            if now != self.seen {
                let before = std::mem::replace(&mut self.listing, self.source.read()?);
                self.seen = now;
                return Ok(before != self.listing);
            }
        }
        Ok(false)
    }
}

#[cfg(feature = "file")]
impl Source {
    fn stamp(&self) -> Option<crate::stamp::Stamp> {
        match self {
            Self::File(file) => crate::stamp::Stamp::of(&file.path),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_owns_slots_is_told_by_the_source_or_computed() {
        let servers = ["10.0.0.1:1:1 a", "10.0.0.2:1:1 b"].map(|line| fixed::server(line).unwrap());
        let mut listing = Listing::of(servers.into());
        let topology = |listing: &Listing| {
            listing
                .topology(DistributionKind::Modula, KeyHash::Fnv1a64, Some(HashTag::REDIS_CLUSTER))
                .unwrap()
        };
        assert_eq!(topology(&listing).kind(), DistributionKind::Modula);
        listing.owners = Some(vec![Some(1); 16_384]);
        assert_eq!(topology(&listing).shard_for(b"foo"), Some(1));
        assert!(topology(&listing).readers(1).is_empty());
        listing.readers = vec![vec![], vec![0]];
        assert_eq!(topology(&listing).readers(1), [0]);
    }

    #[test]
    fn what_cannot_change_is_not_read_again() {
        let template = Template { host: "cache-{}".into(), port: 1, count: 2, names: "shard-{}".into() };
        let mut followed = Follower::new(Source::Template(template)).unwrap();
        assert_eq!(followed.listing().servers.len(), 2);
        assert!(!followed.refresh().unwrap());
    }

    #[cfg(feature = "file")]
    #[test]
    fn a_list_in_a_file_is_followed_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("servers.yml");
        // Put in the place of the one before, as a ConfigMap is.
        let put = |text: &str| {
            let beside = folder.path().join("beside");
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(&beside, &path).unwrap();
        };
        let missing = Follower::new(Source::File(File { path: path.clone() })).unwrap_err();
        assert!(
            missing
                .to_string()
                .ends_with("servers.yml:1:1: cannot be read: No such file or directory (os error 2)")
        );
        put("- 10.0.0.1:6379:1 a\n");
        let mut followed = Follower::new(Source::File(File { path: path.clone() })).unwrap();
        assert!(!followed.refresh().unwrap());
        put("- 10.0.0.1:6379:1 a\n- 10.0.0.2:6379\n");
        assert!(
            followed.refresh().unwrap_err().to_string().contains("servers.yml:2:3: server \"10.0.0.2:6379\"")
        );
        assert_eq!(followed.listing().servers.len(), 1);
        put("- 10.0.0.1:6379:1 a\n- 10.0.0.2:6379:1 b\n");
        assert!(followed.refresh().unwrap());
        assert_eq!(followed.listing().servers[1].name, "b");
        // Written anew, but no other list.
        put("# the same\n- 10.0.0.1:6379:1 a\n- 10.0.0.2:6379:1 b\n");
        assert!(!followed.refresh().unwrap());
    }
}
