//! Slots of a Redis Cluster that move while clients wait, one for each list: as `redis-cli --cluster reshard` moves them, and with the node
//! that has them where a replica takes its place. No node says a word of that to those that do not ask.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use shard_discovery::{Address, HashTag, KeyHash, Shard, Topology};

use crate::{LISTS, Run, SHARDS};

const SLOTS: usize = 16_384;
/// So often each moves at most, because a key that is sent elsewhere again and again is an error in the end.
const MOVES_MAX: u32 = 3;

type Stores = BTreeMap<String, HashMap<String, VecDeque<String>>>;

#[derive(Clone, Copy, Default)]
struct Slot {
    owner: usize,
    /// It is on its way there.
    coming: Option<usize>,
    moves: u32,
}

/// Those that lists are in, by the lists. All others are of no interest.
pub struct Slots(BTreeMap<String, Slot>);

impl Default for Slots {
    fn default() -> Self {
        let slot = |list: u64| Slot { owner: list as usize % SHARDS, ..Slot::default() };
        Self((0..LISTS).map(|list| (format!("{list}list"), slot(list))).collect())
    }
}

fn number(list: &str) -> usize {
    KeyHash::Crc16.hash(HashTag::REDIS_CLUSTER.hashed_part(list.as_bytes())) as usize % SLOTS
}

fn name(node: usize) -> String {
    format!("shard-{node}")
}

fn has(stores: &Stores, node: usize, list: &str) -> bool {
    let elements = stores.get(&name(node)).and_then(|lists| lists.get(list));
    elements.is_some_and(|elements| !elements.is_empty())
}

impl Slots {
    /// What nodes say of them together.
    pub fn topology(&self) -> Arc<Topology> {
        // What a node that owns nothing does not answer soon is given up.
        let mut owners: Vec<_> = (0..SLOTS).map(|slot| Some(slot % SHARDS)).collect();
        self.0.iter().for_each(|(list, slot)| owners[number(list)] = Some(slot.owner));
        let node = |node| Shard::new(Address::Tcp { host: name(node), port: 1 }, 1, Some(name(node)));
        let nodes = (0..SHARDS).map(node).collect();
        Arc::new(Topology::of_cluster(nodes, &owners, vec![Vec::new(); SHARDS]).expect("good nodes"))
    }

    /// The node that has the list, or gets it.
    pub fn place(&self, list: &str, stores: &Stores) -> String {
        let Slot { owner, coming, .. } = self.0[list];
        name(coming.filter(|_| !has(stores, owner, list)).unwrap_or(owner))
    }

    /// What a node says that does not serve a request for the list.
    pub fn refuses(&self, shard: &str, list: &str, is_asking: bool, stores: &Stores) -> Option<String> {
        let Slot { owner, coming, .. } = self.0[list];
        let slot = number(list);
        match coming {
            Some(to) if shard == name(owner) && !has(stores, owner, list) => {
                Some(format!("-ASK {slot} {}:1\r\n", name(to)))
            }
            Some(to) if shard == name(to) && is_asking => None,
            _ if shard == name(owner) => None,
            _ => Some(format!("-MOVED {slot} {}:1\r\n", name(owner))),
        }
    }
}

impl Run {
    /// One step of one slot on its way, or of a node that is replaced.
    pub fn move_slots(&mut self) {
        let list = format!("{}list", self.random.below(LISTS));
        let node = self.random.below(SHARDS as u64) as usize;
        let slots = self.slots.as_mut().expect("they are there");
        let slot = slots.0.get_mut(&list).expect("each list has one");
        let Slot { owner, coming, moves } = *slot;
        match coming {
            None if moves >= MOVES_MAX => {}
            None if self.random.one_in(8) => self.replace(owner, node),
            // Not all at the beginning.
            None if node != owner && self.random.one_in(4) => {
                (slot.coming, slot.moves) = (Some(node), moves + 1)
            }
            None => {}
            Some(to) if has(&self.stores, owner, &list) => self.migrate(owner, to, &list),
            Some(to) if self.random.one_in(3) && !has(&self.stores, to, &list) => slot.coming = None,
            Some(to) => {
                (slot.owner, slot.coming) = (to, None);
                self.coverage.slots_moved += 1;
            }
        }
        // Who asks is told, sooner or later, or never.
        if self.random.one_in(4) {
            self.adopt();
        }
    }

    fn migrate(&mut self, from: usize, to: usize, list: &str) {
        let elements = self.stores.get_mut(&name(from)).and_then(|lists| lists.remove(list));
        self.stores.entry(name(to)).or_default().insert(list.to_owned(), elements.expect("it is there"));
        self.changed(&name(from), list);
        self.changed(&name(to), list);
    }

    /// The node has another one in its place, which has all that it had.
    fn replace(&mut self, before: usize, now: usize) {
        let slots = self.slots.as_mut().expect("they are there");
        for (list, slot) in &mut slots.0 {
            if slot.owner != before || slot.coming.is_some() || slot.moves >= MOVES_MAX || before == now {
                continue;
            }
            (slot.owner, slot.moves) = (now, slot.moves + 1);
            self.coverage.slots_moved += 1;
            if let Some(elements) = self.stores.get_mut(&name(before)).and_then(|lists| lists.remove(list)) {
                self.stores.entry(name(now)).or_default().insert(list.clone(), elements);
            }
        }
    }

    /// What is on its way arrives.
    pub fn end_moves(&mut self) {
        let Some(slots) = &mut self.slots else { return };
        let mut left = Vec::new();
        for (list, slot) in &mut slots.0 {
            if let Some(to) = slot.coming.take() {
                left.push((slot.owner, to, list.clone()));
                slot.owner = to;
            }
        }
        for (from, to, list) in left {
            if has(&self.stores, from, &list) {
                self.migrate(from, to, &list);
            }
        }
    }
}
