//! What is about all keys at once: who has keys, and who has all keys that begin alike.

use super::{Home, Topology};
use crate::distribution::{DistributionKind, slots};

/// Everybody who has keys.
#[derive(Debug, Clone)]
pub(super) struct Holders {
    /// In the order of the shards, each with the first unit that it owns.
    homes: Box<[Home]>,
    /// Nobody else is needed: every slot has an owner.
    is_complete: bool,
}

impl Holders {
    /// Each of so many shards: what is ejected has keys as well.
    pub(super) fn all(shards: usize) -> Self {
        let homes = (0..shards).map(|shard| Home { shard, unit: shard }).collect();
        Self { homes, is_complete: true }
    }

    /// Those of so many nodes that own a slot.
    pub(super) fn of_slots(nodes: usize, owners: &[Option<usize>]) -> Self {
        let mut first = vec![None; nodes];
        for (slot, owner) in owners.iter().enumerate() {
            if let Some(node) = *owner {
                first[node].get_or_insert(slot);
            }
        }
        let homes = first.into_iter().enumerate();
        let homes = homes.filter_map(|(shard, slot)| Some(Home { shard, unit: slot? })).collect();
        let is_complete = owners.len() == slots::SLOTS && owners.iter().all(Option::is_some);
        Self { homes, is_complete }
    }
}

impl Topology {
    /// Every shard that keys are on, in order, each with a unit that it owns: all of a pool, ejected ones too, and the nodes of a
    /// cluster that own slots. None where a slot has no owner: its keys would be left out.
    pub fn holders(&self) -> Option<&[Home]> {
        self.holders.is_complete.then_some(&self.holders.homes[..])
    }

    /// Where all keys belong that begin so, if their beginning decides that: it has a whole hash tag, or is pinned.
    pub fn home_of_beginning(&self, beginning: &[u8]) -> Option<Home> {
        let takes_some = |prefix: &[u8]| prefix.len() > beginning.len() && prefix.starts_with(beginning);
        if self.kind == DistributionKind::Random
            || self.pins.iter().any(|pin| takes_some(pin.prefix.as_bytes()))
        {
            return None;
        }
        let is_decided =
            self.pins.find(beginning).is_some() || self.hashed_part(beginning).len() < beginning.len();
        if is_decided { self.home_of(beginning) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Placement, TopologyError};
    use super::*;
    use crate::{Address, HashTag, KeyHash, Pins, Shard};

    fn shards(count: usize) -> Vec<Shard> {
        let shard = |number| Shard {
            name: format!("shard-{number}"),
            address: Address::Tcp { host: "127.0.0.1".into(), port: 1 },
            weight: 1,
        };
        (0..count).map(shard).collect()
    }

    fn pool(tag: Option<HashTag>, pins: &[(&str, &str)]) -> Result<Topology, TopologyError> {
        let pins = Pins::new(pins.iter().copied()).expect("good pins");
        let Placement { kind, key_hash, hash_tag, .. } =
            Placement::new(DistributionKind::Ketama, KeyHash::Fnv1a64, tag);
        Topology::new(shards(5), kind, key_hash, hash_tag)?.with_pins(pins)
    }

    #[test]
    fn a_whole_tag_or_a_pin_decides_for_all_that_begin_so() {
        let pins = [("queue:", "shard-3"), ("queue:{a}:x", "shard-1"), ("{b}long", "shard-2")];
        let topology = pool(Some(HashTag::REDIS_CLUSTER), &pins).expect("a topology");
        for (beginning, is_decided) in [
            ("{user1}:", true),
            ("x{user1}", true),
            ("{user1", false),
            ("user1", false),
            ("{}{a}", false),
            ("", false),
            ("queue", false),
            ("queue:5", true),
            // Some of them are pinned elsewhere.
            ("queue:", false),
            ("queue:{a}", false),
            ("queue:{a}:x", true),
            ("{b}", false),
            ("{b}short", true),
        ] {
            let home = topology.home_of_beginning(beginning.as_bytes());
            assert_eq!(home.is_some(), is_decided, "{beginning}");
            for rest in ["", "1", "}", "{x}", ":x:long", "long"] {
                let key = format!("{beginning}{rest}");
                assert!(home.is_none() || home == topology.home_of(key.as_bytes()), "{key}");
            }
        }
        let without = pool(None, &[]).expect("a topology");
        assert_eq!(without.home_of_beginning(b"{user1}:"), None);
    }

    #[test]
    fn all_shards_have_keys_and_the_nodes_that_own_slots() {
        let topology = pool(None, &[]).expect("a topology").without(&[1]);
        let holders = topology.holders().expect("all of them");
        assert_eq!(holders.iter().map(|home| home.shard).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);

        let mut owners = vec![Some(2); slots::SLOTS];
        owners[7..100].fill(Some(0));
        let cluster = |owners: &[Option<usize>]| {
            Topology::of_cluster(shards(3), owners, vec![Vec::new(); 3]).expect("a topology")
        };
        let holders = [Home { shard: 0, unit: 7 }, Home { shard: 2, unit: 0 }];
        assert_eq!(cluster(&owners).holders(), Some(&holders[..]));
        owners[16_000] = None;
        assert_eq!(cluster(&owners).holders(), None, "the keys of one slot would be left out");
    }
}
