//! Which shards exist, where they are, which one owns a key, which are fit.
//!
//! The placement is bit-exact with Twemproxy (nutcracker) 0.5.0 on x86-64: the same servers, hash and
//! distribution put every key on the same shard. The proxy uses this library, and so does an
//! application that partitions its keys itself:
//!
//! ```
//! use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let shards = ["cache-a", "cache-b", "cache-c"]
//!     .map(|host| Shard::new(Address::Tcp { host: host.into(), port: 6379 }, 1, None));
//! let topology = Topology::new(
//!     shards.into(),
//!     DistributionKind::Ketama,
//!     KeyHash::Fnv1a64,
//!     Some("{}".parse()?),
//! )?;
//!
//! let owner = topology.shard_for(b"user:{1000}:name").ok_or("every shard is ejected")?;
//! assert_eq!(topology.shard_for(b"user:{1000}:mail"), Some(owner));
//! println!("connect to {}", topology.shards()[owner].address);
//!
//! // The same pool while that shard is out: its keys move to the others.
//! let reduced = topology.without(&[owner]);
//! assert_ne!(reduced.shard_for(b"user:{1000}:name"), Some(owner));
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here does I/O, reads a clock or starts a thread: a [`Topology`] is immutable and shared in an
//! `Arc`, an [`Ejector`] takes the time as an argument.
#![forbid(unsafe_code)]

mod distribution;
mod ejector;
mod explanation;
mod hash;
mod hash_tag;
mod shard;
mod topology;

pub use distribution::{DistributionKind, UnknownDistribution};
pub use ejector::{Ejector, FitnessChange};
pub use explanation::{Explanation, Place, Share};
pub use hash::{KeyHash, UnknownKeyHash};
pub use hash_tag::{HashTag, HashTagLength};
pub use shard::{Address, Shard};
pub use topology::{Topology, TopologyError};
