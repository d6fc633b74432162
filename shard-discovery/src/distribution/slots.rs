//! The 16,384 slots of Redis Cluster (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>),
//! as a cluster tells them, or divided evenly over the shards in their order; weights count for nothing.

use crate::explanation::Share;

pub(crate) const SLOTS: usize = 16_384;
/// The owner of a slot that nobody owns.
const NOBODY: u16 = u16::MAX;

/// The slot of a key whose CRC-16/XMODEM is in the low half of `hash`.
#[inline]
pub(crate) fn slot(hash: u32) -> u32 {
    hash % SLOTS as u32
}

/// The owner of every slot: 32 KiB, one load per lookup.
#[derive(Debug, Clone)]
pub(crate) struct SlotTable(Box<[u16]>);

impl SlotTable {
    /// `live` is not empty and holds some of the indexes below `shards`.
    pub(super) fn new(shards: usize, live: &[u16]) -> SlotTable {
        // Rounded as `redis-cli --cluster create` does it: 5461, 5462 and 5461 slots for three shards.
        let first = |shard: usize| (2 * shard * SLOTS + shards) / (2 * shards);
        let mut table = Vec::with_capacity(SLOTS);
        for shard in 0..shards {
            let slots = first(shard)..first(shard + 1);
            match live.binary_search(&(shard as u16)) {
                Ok(place) => table.extend(slots.map(|_| live[place])),
                // Slots of an ejected shard are dealt out one by one and all others stay where they are.
                Err(_) => table.extend(slots.map(|slot| live[slot % live.len()])),
            }
        }
        SlotTable(table.into())
    }

    /// As told: for each slot its owner.
    pub(super) fn told(owners: &[Option<usize>]) -> SlotTable {
        assert_eq!(owners.len(), SLOTS);
        SlotTable(owners.iter().map(|owner| owner.map_or(NOBODY, |owner| owner as u16)).collect())
    }

    /// `None` where nobody owns the slot.
    #[inline]
    pub(super) fn owner(&self, hash: u32) -> Option<usize> {
        let owner = self.0[slot(hash) as usize];
        if owner == NOBODY { None } else { Some(usize::from(owner)) }
    }

    pub(super) fn add_shares(&self, shares: &mut [Share]) {
        for &shard in self.0.iter().filter(|&&shard| shard != NOBODY) {
            shares[usize::from(shard)].points += 1;
        }
        for share in shares {
            share.share = share.points as f64 / SLOTS as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(shards: usize) -> SlotTable {
        SlotTable::new(shards, &(0..shards as u16).collect::<Vec<_>>())
    }

    #[test]
    fn every_shard_owns_one_range_of_slots() {
        for shards in [1, 2, 3, 7, 100, 1000, SLOTS] {
            let SlotTable(owners) = table(shards);
            assert!(owners.is_sorted());
            for shard in 0..shards {
                let owned = owners.iter().filter(|&&owner| usize::from(owner) == shard).count();
                assert!(
                    (SLOTS / shards..=SLOTS / shards + 1).contains(&owned),
                    "{shard} of {shards}: {owned}"
                );
            }
        }
        let SlotTable(owners) = table(3);
        assert_eq!([5460, 5461, 10922, 10923].map(|slot: usize| owners[slot]), [0, 1, 1, 2]);
    }

    #[test]
    fn only_slots_of_an_ejected_shard_move() {
        let (SlotTable(all), SlotTable(reduced)) = (table(4), SlotTable::new(4, &[0, 2, 3]));
        for (slot, (&before, &after)) in all.iter().zip(&reduced).enumerate() {
            assert_ne!(after, 1);
            assert!(before == after || before == 1, "slot {slot}");
        }
        let counts = [0, 2, 3].map(|shard| reduced.iter().filter(|&&owner| owner == shard).count());
        assert!(counts.iter().all(|count| (5461..=5462).contains(count)), "{counts:?}");
    }
}
