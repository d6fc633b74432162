//! Where the list of a pool's shards comes from, whoever asks: the proxy, or an application that partitions its keys itself.
//!
//! A [`Source`] yields whole [`Listing`]s, never changes to one: first what there is, then what there is after each change.
//! A list that cannot be read is an error with its place, and the one before stays in force. Another kind of source is
//! another file here, and a line of the enum.

pub mod cluster;
#[cfg(feature = "file")]
pub mod file;
pub mod fixed;
#[cfg(feature = "http")]
pub mod http;
pub mod template;

use std::net::SocketAddr;
use std::time::Duration;

use crate::mistake::Mistakes;
use crate::{Address, Placement, Shard, Topology, TopologyError};

use cluster::Cluster;
#[cfg(feature = "file")]
use file::File;
#[cfg(feature = "http")]
use http::Http;
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
    /// How keys are dealt to the shards, if the source says so: then it cannot be otherwise.
    pub placement: Option<Placement>,
}

/// What a source that is asked over the network has listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    /// What it had before.
    Same,
    /// This.
    Listed {
        /// The list.
        listing: Listing,
        /// What tells it from others of the same source: sent along when it is asked the next time.
        version: Option<String>,
    },
}

/// A source that is asked over the network for its whole list, by whoever has found the addresses of its hosts.
pub trait Poll {
    /// Whom to ask, one at least: any of them knows the list.
    fn places(&self) -> &[Address];

    /// How often.
    fn refresh(&self) -> Duration;

    /// Whether it is the same list, however often it is asked for.
    fn is_same(&self, other: &Source) -> bool;

    /// Asks at one of these addresses, which are those of its places in their order, if it has not this version any more. Blocks, but not for long.
    ///
    /// # Errors
    /// Why there is no list.
    fn poll(&self, at: &[SocketAddr], version: Option<&str>) -> Result<Polled, Mistakes>;
}

impl Listing {
    /// Shards among which the pool's distribution deals the keys.
    pub fn of(servers: Vec<Shard>) -> Self {
        Self { servers, ..Self::default() }
    }

    /// Who owns what. The pool's placement counts unless the source says itself who owns what.
    ///
    /// # Errors
    /// See [`TopologyError`].
    pub fn topology(&self, placement: &Placement) -> Result<Topology, TopologyError> {
        let servers = self.servers.clone();
        let Some(owners) = &self.owners else {
            let Placement { kind, key_hash, hash_tag, pins } = placement.clone();
            let topology = Topology::new(servers, kind, key_hash, hash_tag)?.with_pins(pins)?;
            return match &self.placement {
                Some(told) if *told != topology.placement() => {
                    Err(TopologyError::OtherPlacement(told.clone()))
                }
                _ => Ok(topology),
            };
        };
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
    /// A document at a URL.
    #[cfg(feature = "http")]
    Http(Http),
}

impl Source {
    /// What is listed as far as it is known without a network: of a cluster that nobody owns anything yet, of a source that is
    /// polled no shards.
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
            #[cfg(feature = "http")]
            Self::Http(_) => Listing::default(),
        })
    }

    /// What has to be asked over the network for its list, if it has to be.
    pub fn polled(&self) -> Option<&dyn Poll> {
        match self {
            #[cfg(feature = "http")]
            Self::Http(http) => Some(http),
            _ => None,
        }
    }

    /// The cluster, if it is one.
    pub fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Cluster(cluster) => Some(cluster),
            _ => None,
        }
    }
}

/// A source, followed: what it lists now, and again after each change. (Of a cluster nothing: see [`cluster`].)
///
/// It starts no thread: whoever uses it asks now and then, which costs one look at a file's times and size; or where the
/// source is polled, one question over the network, so as often as [`Poll::refresh`] says.
#[derive(Debug)]
pub struct Follower {
    source: Source,
    #[cfg(feature = "file")]
    seen: Option<crate::stamp::Stamp>,
    version: Option<String>,
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
        let mut follower = Self {
            source,
            #[cfg(feature = "file")]
            seen,
            version: None,
            listing,
        };
        follower.poll()?;
        Ok(follower)
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
        self.poll()
    }

    fn poll(&mut self) -> Result<bool, Mistakes> {
        let Some(source) = self.source.polled() else { return Ok(false) };
        let at = look_up(source.places())?;
        // After an error the whole list is asked for: it may be the condition that was refused.
        let version = self.version.take();
        match source.poll(&at, version.as_deref())? {
            Polled::Same => {
                self.version = version;
                Ok(false)
            }
            Polled::Listed { listing, version } => {
                self.version = version;
                Ok(std::mem::replace(&mut self.listing, listing.clone()) != listing)
            }
        }
    }
}

/// The addresses that the system finds, of those hosts that it knows.
fn look_up(places: &[Address]) -> Result<Vec<SocketAddr>, Mistakes> {
    use std::net::ToSocketAddrs as _;

    let (mut found, mut unknown) = (Vec::new(), None);
    for place in places {
        let Address::Tcp { host, port } = place else { continue };
        match (host.as_str(), *port).to_socket_addrs() {
            Ok(addresses) => found.extend(addresses),
            Err(error) => {
                unknown = Some(Mistakes::of_all(place.to_string(), format!("cannot be resolved: {error}")));
            }
        }
    }
    unknown.filter(|_| found.is_empty()).map_or(Ok(found), Err)
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
    use crate::{DistributionKind, HashTag, KeyHash, Pins};

    #[test]
    fn whoever_owns_slots_is_told_by_the_source_or_computed() {
        let servers = ["10.0.0.1:1:1 a", "10.0.0.2:1:1 b"].map(|line| fixed::server(line).unwrap());
        let mut listing = Listing::of(servers.into());
        let topology = |listing: &Listing| {
            let tag = Some(HashTag::REDIS_CLUSTER);
            let placement = Placement::new(DistributionKind::Modula, KeyHash::Fnv1a64, tag);
            listing.topology(&placement).unwrap()
        };
        assert_eq!(topology(&listing).kind(), DistributionKind::Modula);
        listing.owners = Some(vec![Some(1); 16_384]);
        assert_eq!(topology(&listing).shard_for(b"foo"), Some(1));
        assert!(topology(&listing).readers(1).is_empty());
        listing.readers = vec![vec![], vec![0]];
        assert_eq!(topology(&listing).readers(1), [0]);
    }

    #[test]
    fn a_list_that_says_how_keys_are_dealt_is_used_only_like_that() {
        let placement = Placement {
            kind: DistributionKind::Modula,
            key_hash: KeyHash::Md5,
            hash_tag: Some(HashTag::REDIS_CLUSTER),
            pins: Pins::new([("rq:", "a"), ("s:", "{user}")]).unwrap(),
        };
        let mut listing = Listing::of(vec![fixed::server("10.0.0.1:1:1 a").unwrap()]);
        listing.placement = Some(placement.clone());
        assert!(listing.topology(&placement).is_ok());
        for other in [
            Placement { key_hash: KeyHash::Murmur, ..placement.clone() },
            Placement { pins: Pins::default(), ..placement },
        ] {
            assert_eq!(
                listing.topology(&other).unwrap_err().to_string(),
                "the list is for distribution modula over hash md5 with hash_tag {} with pin \"rq:\": a, \"s:\": {user}, \
                 which differs from the pool"
            );
        }
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
