//! What is about all keys at once: who has keys, and who has all keys that begin alike.

use super::{Home, Placement, Topology};
use crate::distribution::{DistributionKind, slots};
use crate::hash::KeyHash;
use crate::shard::Shard;

/// Everybody who has keys.
#[derive(Debug, Clone)]
pub(super) struct Holders {
    /// In the order of the shards, each with the first unit that it owns.
    homes: Box<[Home]>,
    /// Nobody else is needed: every slot has an owner.
    is_complete: bool,
    fingerprint: u32,
    /// The slots of each of a cluster, found once: anybody may ask for them at any time.
    slots: Box<[String]>,
}

impl Holders {
    /// Each of these shards: what is ejected has keys as well.
    pub(super) fn all(shards: &[Shard], placement: &Placement) -> Self {
        let homes = (0..shards.len()).map(|shard| Home { shard, unit: shard }).collect();
        let Placement { kind, key_hash, hash_tag, pins } = placement;
        let tag = hash_tag.map(|tag| tag.to_string()).unwrap_or_default();
        let mut text = format!("{kind} {key_hash} {tag}\n");
        pins.iter()
            .for_each(|pin| text.push_str(&format!("{:?} {:?}\n", pin.prefix, pin.target.to_string())));
        shards.iter().for_each(|shard| text.push_str(&format!("{:?} {}\n", shard.name, shard.weight)));
        Self {
            homes,
            is_complete: true,
            fingerprint: KeyHash::Md5.hash(text.as_bytes()),
            slots: Box::default(),
        }
    }

    /// Those of the nodes that own a slot, in the order of their names, which is the same in every process.
    pub(super) fn of_slots(nodes: &[Shard], owners: &[Option<usize>]) -> Self {
        let mut first = vec![None; nodes.len()];
        for (slot, owner) in owners.iter().enumerate() {
            if let Some(node) = *owner {
                first[node].get_or_insert(slot);
            }
        }
        let homes = first.into_iter().enumerate();
        let mut homes: Box<[Home]> =
            homes.filter_map(|(shard, slot)| Some(Home { shard, unit: slot? })).collect();
        homes.sort_by(|one, other| nodes[one.shard].name.cmp(&nodes[other.shard].name));
        let is_complete = owners.len() == slots::SLOTS && owners.iter().all(Option::is_some);
        let mut text = String::new();
        let slots = ranges(nodes.len(), &homes, owners);
        for (home, slots) in homes.iter().zip(&slots) {
            text.push_str(&format!("{:?} {slots}\n", nodes[home.shard].name));
        }
        let fingerprint = KeyHash::Md5.hash(text.as_bytes());
        Self { homes, is_complete, fingerprint, slots: slots.into() }
    }
}

/// The slots of each holder among so many nodes, as they are written in CLUSTER NODES.
fn ranges(nodes: usize, homes: &[Home], owners: &[Option<usize>]) -> Vec<String> {
    let mut ranges = vec![String::new(); nodes];
    let mut start = 0;
    for run in owners.chunk_by(|one, other| one == other) {
        let (first, last) = (start, start + run.len() - 1);
        start += run.len();
        if let Some(node) = run[0] {
            let blank = if ranges[node].is_empty() { "" } else { " " };
            let text =
                if first == last { format!("{blank}{first}") } else { format!("{blank}{first}-{last}") };
            ranges[node].push_str(&text);
        }
    }
    homes.iter().map(|home| std::mem::take(&mut ranges[home.shard])).collect()
}

impl Topology {
    /// Every shard that keys are on, in order, each with a unit that it owns: all of a pool, ejected ones too, and the nodes of a
    /// cluster that own slots. None where a slot has no owner: its keys would be left out.
    pub fn holders(&self) -> Option<&[Home]> {
        self.holders.is_complete.then_some(&self.holders.homes[..])
    }

    /// Tells this list of shards, and how keys are dealt to them, from another one: the same in every process.
    pub fn fingerprint(&self) -> u32 {
        self.holders.fingerprint
    }

    /// In a cluster the slots of each of [`Self::holders`], as a node writes its own in CLUSTER NODES: `0-99 101`.
    pub fn slots_of_holders(&self) -> &[String] {
        &self.holders.slots
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
    use super::super::TopologyError;
    use super::*;
    use crate::{Address, HashTag, Pins};

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
        owners[16_000] = Some(0);
        let cluster = |owners: &[Option<usize>]| {
            Topology::of_cluster(shards(3), owners, vec![Vec::new(); 3]).expect("a topology")
        };
        assert_eq!(cluster(&owners).slots_of_holders(), ["7-99 16000", "0-6 100-15999 16001-16383"]);
        let holders = [Home { shard: 0, unit: 7 }, Home { shard: 2, unit: 0 }];
        assert_eq!(cluster(&owners).holders(), Some(&holders[..]));
        owners[16_000] = None;
        assert_eq!(cluster(&owners).holders(), None, "the keys of one slot would be left out");
    }

    #[test]
    fn every_change_of_who_owns_what_has_another_fingerprint() {
        let mut seen = std::collections::HashSet::new();
        let tag = Some(HashTag::REDIS_CLUSTER);
        for (tag, pins) in
            [(None, &[][..]), (tag, &[]), (tag, &[("a", "shard-1")]), (tag, &[("a", "shard-2")])]
        {
            assert!(seen.insert(pool(tag, pins).expect("a topology").fingerprint()));
        }
        let cluster = |reversed: bool, moved: usize| {
            let (mut nodes, mut owners) = (shards(3), vec![Some(2); slots::SLOTS]);
            owners[7..moved].fill(Some(0));
            if reversed {
                nodes.reverse();
                owners.iter_mut().for_each(|owner| *owner = owner.map(|node| 2 - node));
            }
            Topology::of_cluster(nodes, &owners, vec![Vec::new(); 3]).expect("a topology").fingerprint()
        };
        assert!(seen.insert(cluster(false, 100)) && seen.insert(cluster(false, 101)));
        assert_eq!(cluster(false, 100), cluster(true, 100), "another process may list the nodes otherwise");
    }
}
