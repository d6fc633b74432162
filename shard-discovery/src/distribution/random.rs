//! Any live shard. As in Twemproxy, weights count for nothing here.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    // One generator per thread: a shared one would make all workers write the same cache line at every
    // request, and a topology is shared between threads and never written.
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
}

/// One of `live`, which is not empty.
#[inline]
pub(super) fn pick(live: &[u16]) -> usize {
    // Multiply and shift instead of a division; the bias is below one in 2^16.
    let place = (u64::from(next()) * live.len() as u64) >> 32;
    usize::from(live[place as usize])
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014), its upper half.
/// Good enough to spread load; nothing here needs to be unpredictable.
#[inline]
fn next() -> u32 {
    STATE.with(|state| {
        let seed = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(seed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 32) as u32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_shards_are_picked_equally_often() {
        let mut picked = [0u32; 8];
        for _ in 0..40_000 {
            picked[pick(&[1, 2, 5, 7])] += 1;
        }
        for shard in 0..picked.len() {
            let expected = if [1, 2, 5, 7].contains(&shard) { 9_500..10_500 } else { 0..1 };
            assert!(expected.contains(&picked[shard]), "{picked:?}");
        }
    }
}
