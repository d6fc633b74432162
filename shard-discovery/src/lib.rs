#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod distribution;
#[cfg(feature = "document")]
pub mod document;
mod ejector;
mod explanation;
mod hash;
mod hash_tag;
pub mod mistake;
mod pins;
#[cfg(feature = "watch")]
pub mod resolver;
mod shard;
pub mod source;
#[cfg(any(feature = "document", feature = "file"))]
mod stamp;
mod topology;
#[cfg(feature = "file")]
pub mod yaml;

pub use distribution::{DistributionKind, UnknownDistribution};
pub use ejector::{Ejector, EjectorOptions, FitnessChange};
pub use explanation::{Explanation, Place, Share};
pub use hash::{KeyHash, UnknownKeyHash};
pub use hash_tag::{HashTag, HashTagLength};
pub use pins::{Pin, PinError, PinTarget, Pins};
pub use shard::{Address, Shard};
pub use topology::{Group, Home, Placement, Topology, TopologyError};
