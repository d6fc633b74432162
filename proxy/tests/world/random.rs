//! Numbers that are the same in every run with the same seed, and runs that are named by it.

use std::ops::Range;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// A place among so many; the first of none.
    pub fn place(&mut self, count: usize) -> usize {
        self.below(count.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }

    pub fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.place(from.len())]
    }

    /// How much goes of so many bytes at once.
    pub fn part(&mut self, length: usize, all: bool) -> usize {
        if all || self.one_in(2) { length } else { 1 + self.place(length) }
    }

    /// The same: mostly little, sometimes everything.
    pub fn cut(&mut self, length: usize) -> usize {
        let most = match self.below(4) {
            0 => 7,
            1 => 300,
            2 => 5_000,
            _ => length,
        };
        (1 + self.place(most)).min(length)
    }
}

/// `SEED` alone, or the first `SIMULATION_SEEDS`, or so many as are `usual`.
pub fn seeds(usual: u64) -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(usual),
    }
}

/// Does that with the seed, and says which it was if that fails.
pub fn run<R>(seed: u64, run: impl FnOnce() -> R) -> R {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        eprintln!("SEED={seed}");
        std::panic::resume_unwind(panic)
    })
}
