//! Shards that are made up.

use shard_discovery::{Address, DistributionKind, HashTag, KeyHash, Shard, Topology};

/// A ring of shards that are called by their numbers.
pub fn ring(numbers: impl Iterator<Item = usize>, tag: Option<HashTag>) -> Topology {
    let shards = numbers.map(|number| {
        let address = Address::Tcp { host: format!("shard-{number}"), port: 1 };
        Shard::new(address, 1, Some(format!("shard-{number}")))
    });
    Topology::new(shards.collect(), DistributionKind::Ketama, KeyHash::Fnv1a64, tag).expect("shards")
}
