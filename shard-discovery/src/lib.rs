#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod distribution;
#[cfg(feature = "document")]
pub mod document;
mod ejector;
mod explanation;
mod hash;
mod hash_tag;
#[cfg(feature = "watch")]
pub mod resolver;
mod shard;
mod topology;

pub use distribution::{DistributionKind, UnknownDistribution};
pub use ejector::{Ejector, EjectorOptions, FitnessChange};
pub use explanation::{Explanation, Place, Share};
pub use hash::{KeyHash, UnknownKeyHash};
pub use hash_tag::{HashTag, HashTagLength};
pub use shard::{Address, Shard};
pub use topology::{Home, Topology, TopologyError};
