//! The shards of a stage, and which of them has which key.

use std::collections::BTreeMap;
use std::sync::Arc;

use shard_discovery::{Address, DistributionKind, HashTag, KeyHash, Shard, Topology};

const SLOTS: usize = 16_384;

/// What the nodes of a cluster say: who owns each slot, and who answers reads for whom.
pub struct Cluster {
    owners: Vec<Option<usize>>,
    readers: BTreeMap<usize, Vec<usize>>,
}

impl Cluster {
    /// The slots of `k1`, `k2`, … belong to shards 1, 2, …, all others to shard 1.
    pub fn of(count: usize) -> Self {
        let mut owners = vec![Some(0); SLOTS];
        (1..=count).for_each(|number| owners[slot(key(number).as_bytes())] = Some(number - 1));
        Self { owners, readers: BTreeMap::new() }
    }

    pub fn give(&mut self, key: &str, owner: Option<usize>) {
        self.owners[slot(key.as_bytes())] = owner;
    }

    pub fn read_from(&mut self, replica: usize, primary: usize) {
        self.readers.entry(primary).or_default().push(replica);
        self.owners
            .iter_mut()
            .filter(|owner| **owner == Some(replica))
            .for_each(|owner| *owner = Some(primary));
    }

    /// All slots of the one are the other's now. Where that was its replica, they change places.
    pub fn replace(&mut self, before: usize, now: usize) {
        self.owners.iter_mut().filter(|owner| **owner == Some(before)).for_each(|owner| *owner = Some(now));
        if let Some(mut readers) = self.readers.remove(&before) {
            readers.iter_mut().filter(|reader| **reader == now).for_each(|reader| *reader = before);
            self.readers.insert(now, readers);
        }
    }

    pub fn topology(&self, count: usize) -> Arc<Topology> {
        let nodes = (1..=count).map(shard).collect();
        let readers = (0..count).map(|node| self.readers.get(&node).cloned().unwrap_or_default()).collect();
        Arc::new(Topology::of_cluster(nodes, &self.owners, readers).expect("good nodes"))
    }
}

/// Key `k1` is on shard 1, `k2` on shard 2, and so on, and with a tag so is every key with one of them in braces.
pub fn of_shards(count: usize, tag: Option<HashTag>) -> Topology {
    // Modula counts a shard as often as it weighs, so weights move the keys about until they are right.
    for seed in 0..1_000_000_u32 {
        let hash = KeyHash::ALL[seed as usize % KeyHash::ALL.len()];
        let mut random = seed / KeyHash::ALL.len() as u32;
        let mut weights = Vec::new();
        for _ in 0..count {
            weights.push(1 + random % 7);
            random /= 7;
        }
        let total: u32 = weights.iter().sum();
        let is_right = (1..=count).all(|number| {
            let place = hash.hash(key(number).as_bytes()) % total;
            let before: u32 = weights[..number - 1].iter().sum();
            count == 1 || (before..before + weights[number - 1]).contains(&place)
        });
        if !is_right {
            continue;
        }
        let shards =
            (1..=count).map(|number| Shard { weight: weights[number - 1], ..shard(number) }).collect();
        let topology = Topology::new(shards, DistributionKind::Modula, hash, tag).expect("good shards");
        for number in 1..=count {
            assert_eq!(topology.shard_for(key(number).as_bytes()), Some(number - 1), "of {count} shards");
        }
        return topology;
    }
    panic!("no hash spreads the keys over {count} shards");
}

fn shard(number: usize) -> Shard {
    let name = format!("shard-{number}");
    Shard::new(Address::Tcp { host: name.clone(), port: 6379 }, 1, Some(name))
}

fn key(number: usize) -> String {
    format!("k{number}")
}

fn slot(key: &[u8]) -> usize {
    KeyHash::Crc16.hash(HashTag::REDIS_CLUSTER.hashed_part(key)) as usize % SLOTS
}
