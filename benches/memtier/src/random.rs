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
        // The logarithm of zero would never come.
        -mean * self.fraction().ln()
    }

    /// Evenly above zero up to one.
    fn fraction(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

/// Numbers of which low ones come more often, by a table of what all up to each one weigh.
pub struct Ranks(Vec<f64>);

impl Ranks {
    /// Zipf's law for so many numbers from zero: the n-th, counted from one, weighs 1/n to this power.
    pub fn zipf(count: usize, power: f64) -> Ranks {
        let mut whole = 0.0;
        Ranks(
            (1..=count)
                .map(|rank| {
                    whole += (rank as f64).powf(-power);
                    whole
                })
                .collect(),
        )
    }

    /// One of them.
    pub fn draw(&self, random: &mut Random) -> usize {
        let whole = self.0.last().copied().unwrap_or(0.0);
        let point = random.fraction() * whole;
        self.0.partition_point(|up_to| *up_to < point).min(self.0.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_halves_from_the_first_to_the_second() {
        let (ranks, mut random) = (Ranks::zipf(1000, 1.0), Random::new(3));
        let mut seen = vec![0_u32; 1000];
        (0..100_000).for_each(|_| seen[ranks.draw(&mut random)] += 1);
        // The sum of 1/n up to 1,000 is 7.485.
        for (rank, count) in [(1.0, seen[0]), (2.0, seen[1]), (10.0, seen[9])] {
            let due = 100_000.0 / 7.485 / rank;
            assert!((f64::from(count) - due).abs() < 5.0 * due.sqrt(), "{rank}: {count} instead of {due}");
        }
        assert!(seen[500..].iter().sum::<u32>() > 0);
    }

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
