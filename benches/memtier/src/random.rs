//! Random numbers that are the same in every run: rounds differ by the machine, not by the dice.

/// A splitmix64 generator: small, fast, and good enough to pick keys.
pub struct Random(u64);

impl Random {
    /// One stream of numbers per seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from zero up to but not including `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    /// The time to the next of events that come independently, this far apart on average.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        // In (0, 1]: the logarithm of zero would never come.
        let even = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        -mean * even.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_cover_the_range_evenly() {
        let mut random = Random::new(1);
        let mut seen = [0; 11];
        (0..11_000).for_each(|_| seen[random.below(11)] += 1);
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
    }

    #[test]
    fn gaps_have_the_mean_and_the_spread_of_poisson_arrivals() {
        let mut random = Random::new(2);
        let gaps: Vec<f64> = (0..100_000).map(|_| random.exponential(2.0)).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 2.0).abs() < 0.05 && (variance - 4.0).abs() < 0.3, "{mean} {variance}");
    }
}
