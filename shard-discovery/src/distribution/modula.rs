//! The hash modulo the sum of the weights: each live shard owns as many slots in a row as its weight.

use crate::explanation::Share;
use crate::shard::Shard;

#[derive(Debug, Clone, Copy)]
struct Interval {
    /// The first slot behind it.
    end: u32,
    shard: u32,
}

/// Consecutive intervals of slots. Twemproxy keeps one entry per slot, megabytes when weights are large.
#[derive(Debug, Clone)]
pub(crate) struct Intervals {
    intervals: Box<[Interval]>,
    /// The sum of the weights.
    slots: u32,
}

impl Intervals {
    /// `live` is not empty and in the order of `shards`, whose weights together fit into 32 bits.
    pub(super) fn new(shards: &[Shard], live: &[u16]) -> Intervals {
        let mut slots = 0;
        let interval = |&shard: &u16| {
            slots += shards[usize::from(shard)].weight;
            Interval { end: slots, shard: shard.into() }
        };
        Intervals { intervals: live.iter().map(interval).collect(), slots }
    }

    #[inline]
    pub(super) fn slot(&self, hash: u32) -> u32 {
        hash % self.slots
    }

    #[inline]
    pub(super) fn owner(&self, hash: u32) -> usize {
        let slot = self.slot(hash);
        self.intervals[self.intervals.partition_point(|interval| interval.end <= slot)].shard as usize
    }

    pub(super) fn add_shares(&self, shares: &mut [Share]) {
        // 2^32 hashes over the slots: each gets `each` of them, and one more goes to the first `rest`.
        let (each, rest) = ((1u64 << 32) / u64::from(self.slots), (1u64 << 32) % u64::from(self.slots));
        let mut start = 0u64;
        for interval in &self.intervals {
            let end = u64::from(interval.end);
            let hashes = (end - start) * each + end.min(rest) - start.min(rest);
            let share = &mut shares[interval.shard as usize];
            (share.points, share.share) = ((end - start) as usize, hashes as f64 / 2f64.powi(32));
            start = end;
        }
    }
}
