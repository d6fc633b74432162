//! Which keys are named most, in little memory: Space-Saving.
//!
//! Source: A. Metwally, D. Agrawal and A. El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams", ICDT 2005;
//! how several are taken together: P. K. Agarwal and others, "Mergeable Summaries", PODS 2012. With [`KEYS_MAX`] counters and accesses of
//! the weight N in all:
//!
//! 1. The count of a key is never below what is true, and its count less its error never above.
//! 2. No error is above N / [`KEYS_MAX`]. So whatever has more than that share has a counter.
//!
//! A key that has no counter takes that of the key with the least count, and what that had counted is its error. The hashes are looked
//! through from end to end, many at once; the counts from where the last one was found that was the least, for no count ever becomes
//! less: once for all those that have it. There is no tree and no list to keep in order. A key is known by its hash
//! ([`crate::privacy::hash`]), which nobody outside can foresee.

use std::collections::HashMap;

/// Keys that are counted at a time.
pub const KEYS_MAX: usize = 256;
/// Bytes that are kept of a key.
pub const SHOWN_MAX: usize = 256;
/// Hashes that are compared at once.
const COMPARED: usize = 16;
/// What a counter takes beside its key.
const COUNTER_BYTES: usize = 80;

/// Counts keys.
#[derive(Default, Debug)]
pub struct Sketch {
    hashes: Vec<u64>,
    counts: Vec<u64>,
    counters: Vec<Counter>,
    total: u64,
    bytes: usize,
    /// No count is less than this, and none before that place is this.
    floor: (u64, usize),
}

/// What is known of a key beside its count.
#[derive(Debug)]
struct Counter {
    error: u64,
    reads: u64,
    key: Key,
}

/// A key, as much of it as is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// Its beginning.
    pub shown: Box<[u8]>,
    /// Bytes it has in all.
    pub length: usize,
}

/// What was found of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its hash.
    pub hash: u64,
    /// The key.
    pub key: Key,
    /// Its accesses are not fewer than this.
    pub least: u64,
    /// Its accesses are not more than this.
    pub most: u64,
    /// Of `least`, those that change nothing.
    pub reads: u64,
}

impl Key {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { shown: bytes[..bytes.len().min(SHOWN_MAX)].into(), length: bytes.len() }
    }

    /// Whether all of it is kept.
    pub fn is_whole(&self) -> bool {
        self.shown.len() == self.length
    }
}

impl Sketch {
    /// A key with this hash, beginning and length was named: `weight` times, as far as is known.
    pub fn add(&mut self, hash: u64, shown: &[u8], length: usize, weight: u64, reads: bool) {
        self.total += weight;
        let place = match self.find(hash) {
            Some(place) => place,
            None => self.take_counter(hash, Key { shown: shown.into(), length }),
        };
        self.counts[place] += weight;
        self.counters[place].reads += if reads { weight } else { 0 };
    }

    fn find(&self, hash: u64) -> Option<usize> {
        let is_known = |known: &u64| *known == hash;
        let parts = self.hashes.chunks_exact(COMPARED);
        let rest = parts.remainder();
        let begun = self.hashes.len() - rest.len();
        for (part, hashes) in parts.enumerate() {
            // Without a way out in the midst of them they are compared together.
            if hashes.iter().fold(false, |is_there, known| is_there | is_known(known)) {
                return hashes.iter().position(is_known).map(|place| part * COMPARED + place);
            }
        }
        rest.iter().position(is_known).map(|place| begun + place)
    }

    /// Where the least count is; all are in use.
    fn place_of_least(&mut self) -> usize {
        let (mut least, mut from) = self.floor;
        let found = self.counts[from..].iter().position(|&count| count == least);
        let ahead = found.unwrap_or_else(|| {
            (least, from) = (self.least(), 0);
            self.counts.iter().position(|&count| count == least).unwrap_or_default()
        });
        // Who takes it counts more.
        self.floor = (least, from + ahead + 1);
        from + ahead
    }

    fn take_counter(&mut self, hash: u64, key: Key) -> usize {
        self.bytes += key.shown.len();
        if self.hashes.len() < KEYS_MAX {
            self.bytes += COUNTER_BYTES;
            self.hashes.push(hash);
            self.counts.push(0);
            self.counters.push(Counter { error: 0, reads: 0, key });
            return self.hashes.len() - 1;
        }
        let place = self.place_of_least();
        let error = self.counts[place];
        self.hashes[place] = hash;
        let before = std::mem::replace(&mut self.counters[place], Counter { error, reads: 0, key });
        self.bytes -= before.key.shown.len();
        place
    }

    /// No key without a counter was named more often.
    fn least(&self) -> u64 {
        if self.hashes.len() < KEYS_MAX { 0 } else { self.counts.iter().copied().min().unwrap_or_default() }
    }

    /// The weight of all accesses.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Several sketches taken together: who is known to be named most comes first. Their errors are added up as well.
pub fn merged<'s>(sketches: impl IntoIterator<Item = &'s Sketch>) -> Vec<Found> {
    let mut all: HashMap<u64, (Found, u64)> = HashMap::new();
    let mut least_of_all = 0;
    for sketch in sketches {
        let least = sketch.least();
        for ((&hash, &count), counter) in sketch.hashes.iter().zip(&sketch.counts).zip(&sketch.counters) {
            let (found, known_least) = all.entry(hash).or_insert_with(|| {
                (Found { hash, key: counter.key.clone(), least: 0, most: 0, reads: 0 }, 0)
            });
            found.least += count - counter.error;
            found.most += count;
            found.reads += counter.reads;
            *known_least += least;
        }
        least_of_all += least;
    }
    let mut found: Vec<Found> = all
        .into_values()
        .map(|(found, known_least)| {
            // It may have been named where it has no counter.
            Found { most: found.most + least_of_all - known_least, ..found }
        })
        .collect();
    found.sort_by(|a, b| {
        (b.least, b.most).cmp(&(a.least, a.most)).then_with(|| a.key.shown.cmp(&b.key.shown))
    });
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(key: u32) -> u64 {
        u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Sketches and exact counts of the same accesses.
    fn counted(accesses: &[(u32, u8)], sketches: usize) -> (Vec<Sketch>, HashMap<String, u64>) {
        let mut all: Vec<Sketch> = (0..sketches).map(|_| Sketch::default()).collect();
        let mut exact = HashMap::new();
        for (at, &(key, weight)) in accesses.iter().enumerate() {
            let (name, weight) = (format!("key:{key}"), u64::from(weight) + 1);
            all[at % sketches].add(hash(key), name.as_bytes(), name.len(), weight, key % 2 == 0);
            *exact.entry(name).or_default() += weight;
        }
        (all, exact)
    }

    proptest! {
        /// Keys of few and of many kinds, some of them far more often: bounds hold for each, and nobody large is missing.
        #[test]
        fn counts_are_within_their_bounds(
            accesses in prop::collection::vec((prop_oneof![0u32..8, 0u32..2000], 0u8..4), 0..6000),
            sketches in 1usize..4,
        ) {
            let (all, exact) = counted(&accesses, sketches);
            let total: u64 = all.iter().map(Sketch::total).sum();
            prop_assert_eq!(total, exact.values().sum::<u64>());
            for sketch in &all {
                prop_assert!(sketch.hashes.iter().enumerate().all(|(place, &hash)| sketch.find(hash) == Some(place)));
                prop_assert!(sketch.counts.iter().all(|&count| count >= sketch.floor.0));
            }
            let found = merged(&all);
            for found in &found {
                let truth = exact[std::str::from_utf8(&found.key.shown).expect("as it was written")];
                prop_assert!(found.least <= truth && truth <= found.most, "{found:?}: {truth}");
                prop_assert!(found.most - found.least <= total / KEYS_MAX as u64 + sketches as u64);
                prop_assert!(found.reads == 0 || found.reads == found.least);
            }
            for (name, &truth) in &exact {
                if truth > total / KEYS_MAX as u64 {
                    prop_assert!(found.iter().any(|found| *found.key.shown == *name.as_bytes()), "{name}: {truth} of {total}");
                }
            }
        }
    }

    #[test]
    fn what_is_held_does_not_grow_with_the_number_of_keys() {
        let mut sketch = Sketch::default();
        for key in 0..100_000u32 {
            let length = (key % 5000) as usize;
            sketch.add(hash(key), &[b'x'; SHOWN_MAX][..length.min(SHOWN_MAX)], length, 1, true);
        }
        assert_eq!(sketch.counters.len(), KEYS_MAX);
        let held: usize = sketch.counters.iter().map(|counter| counter.key.shown.len() + COUNTER_BYTES).sum();
        assert_eq!(sketch.bytes(), held);
        assert!(sketch.bytes() <= KEYS_MAX * (SHOWN_MAX + COUNTER_BYTES), "{}", sketch.bytes());
        assert!(size_of::<Counter>() + 16 <= COUNTER_BYTES);
    }
}
