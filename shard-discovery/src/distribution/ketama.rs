//! Ketama as Twemproxy computes it: points from MD5, their number from single-precision weights.
//!
//! The published algorithm (<https://github.com/RJ/ketama>) gives every server of equal weight 160 points.
//! Twemproxy's rounding gives 156 for some numbers of servers, and keys live where those rings put them.

use std::io::Write;

use crate::explanation::Share;
use crate::hash::digest_words;
use crate::shard::Shard;

const POINTS_PER_SHARD: f32 = 160.0;
const POINTS_PER_DIGEST: f32 = 4.0;

/// Twemproxy formats `name-number` into a buffer and hashes at most this many bytes of it.
const POINT_NAME_BYTES_MAX: usize = 272;

#[derive(Debug, Clone, Copy)]
struct Point {
    value: u32,
    shard: u32,
}

/// Points in ascending order; a hash belongs to the first point at or above it.
#[derive(Debug, Clone)]
pub(crate) struct Ring {
    /// One more than there are points: the last repeats the owner of the first at the top of the hash
    /// space, so that a hash above all points wraps around without a test for it.
    points: Box<[Point]>,
    /// For each of the equal parts the hash space is cut into, the first point in or above it, and the
    /// last point for the end of the last part. About as many parts as points, so that a lookup searches
    /// one or two points instead of all.
    starts: Box<[u32]>,
    /// Shifts a hash to the number of its part.
    shift: u32,
}

impl Ring {
    /// `live` is not empty and in the order of `shards`.
    pub(super) fn new(shards: &[Shard], live: &[u16]) -> Ring {
        let total: u32 = live.iter().map(|&index| shards[usize::from(index)].weight).sum();
        let mut points = Vec::with_capacity(live.len() * POINTS_PER_SHARD as usize + 1);
        for &index in live {
            let shard = &shards[usize::from(index)];
            for number in 0..digests(shard.weight, total, live.len()) {
                for value in point_values(&shard.name, number) {
                    points.push(Point { value, shard: index.into() });
                }
            }
        }
        // Stable: where values are equal, the shard that comes first owns the point.
        points.sort_by_key(|point| point.value);
        // The heaviest shard has at least the average weight and so at least 39 digests.
        let first = points.first().expect("a ring has points").shard;

        let bits = points.len().ilog2() + 1;
        let shift = u32::BITS - bits;
        let starts = (0..1u64 << bits)
            .map(|part| points.partition_point(|point| u64::from(point.value) < part << shift) as u32)
            .chain([points.len() as u32])
            .collect();
        points.push(Point { value: u32::MAX, shard: first });
        Ring { points: points.into(), starts, shift }
    }

    #[inline]
    pub(super) fn owner(&self, hash: u32) -> usize {
        self.points[self.search(hash)].shard as usize
    }

    /// The value of the point that owns `hash`.
    pub(super) fn point(&self, hash: u32) -> u32 {
        let points = self.real_points();
        points.get(self.search(hash)).unwrap_or(&points[0]).value
    }

    pub(super) fn add_shares(&self, shares: &mut [Share]) {
        let points = self.real_points();
        let last = points[points.len() - 1].value;
        let mut owned = vec![0u64; shares.len()];
        let mut below = None;
        for point in points {
            // The first point also owns what lies above the last.
            owned[point.shard as usize] += match below {
                Some(below) => u64::from(point.value - below),
                None => u64::from(point.value) + 1 + u64::from(u32::MAX - last),
            };
            shares[point.shard as usize].points += 1;
            below = Some(point.value);
        }
        for (share, owned) in shares.iter_mut().zip(owned) {
            share.share = owned as f64 / 2f64.powi(32);
        }
    }

    fn real_points(&self) -> &[Point] {
        &self.points[..self.points.len() - 1]
    }

    #[inline]
    fn search(&self, hash: u32) -> usize {
        let part = (hash >> self.shift) as usize;
        let (start, end) = (self.starts[part] as usize, self.starts[part + 1] as usize);
        start + self.points[start..end].partition_point(|point| point.value < hash)
    }
}

/// How many digests of four points a shard gets. Every step rounds to single precision, as Twemproxy's
/// code does; in double precision or another order some rings come out different.
fn digests(weight: u32, total: u32, live: usize) -> u32 {
    let share = weight as f32 / total as f32;
    let digests = share * POINTS_PER_SHARD / POINTS_PER_DIGEST * live as f32;
    // Too small to matter next to a normal value; it is in the original and costs nothing here.
    ((f64::from(digests) + 1e-10) as f32).floor() as u32
}

fn point_values(name: &str, number: u32) -> [u32; 4] {
    let mut text = Vec::with_capacity(POINT_NAME_BYTES_MAX);
    write!(text, "{name}-{number}").expect("a Vec takes all that is written");
    text.truncate(POINT_NAME_BYTES_MAX);
    digest_words(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Address;

    fn shards(weights: &[u32]) -> Vec<Shard> {
        let address = Address::Tcp { host: "h".into(), port: 1 };
        let named = |(index, &weight)| Shard::new(address.clone(), weight, Some(format!("{index:04}")));
        weights.iter().enumerate().map(named).collect()
    }

    fn ring(weights: &[u32]) -> Ring {
        Ring::new(&shards(weights), &(0..weights.len() as u16).collect::<Vec<_>>())
    }

    #[test]
    fn points_are_those_of_twemproxys_own_test() {
        let values = point_values("server1", 8);
        assert_eq!((values[0], values[3]), (3853726576, 2667054752));
    }

    #[test]
    fn single_precision_costs_a_digest_at_some_numbers_of_shards() {
        let short: Vec<usize> = (1..=2000).filter(|&count| digests(1, count as u32, count) == 39).collect();
        let known = [25, 47, 50, 55, 61, 71, 94, 100, 107, 109, 110, 115, 122, 142, 159, 163, 188, 193, 200];
        assert_eq!(short[..known.len()], known);
        assert_eq!(short.len(), 207);
        assert!((1..=2000).all(|count| matches!(digests(1, count as u32, count), 39 | 40)));
    }

    #[test]
    fn a_tiny_weight_gets_no_points() {
        assert_eq!([1, 100_000].map(|weight| digests(weight, 100_001, 2)), [0, 79]);
        assert_eq!([1, 99].map(|weight| digests(weight, 100, 2)), [0, 79]);
    }

    #[test]
    fn names_are_cut_in_the_text_of_a_point() {
        let long = "n".repeat(300);
        assert_eq!(point_values(&long, 0), point_values(&long, 39));
        assert_eq!(point_values(&long, 0), digest_words(&long.as_bytes()[..272]));
        assert_ne!(point_values(&long[..270], 0), point_values(&long[..270], 1));
    }

    #[test]
    fn search_agrees_with_walking_around_the_ring() {
        for weights in [vec![1], vec![1, 1], vec![1, 100_000], vec![1, 2, 3, 5, 8], vec![1; 61]] {
            let ring = ring(&weights);
            let points = ring.real_points();
            let near = points
                .iter()
                .flat_map(|point| [point.value.wrapping_sub(1), point.value, point.value.wrapping_add(1)]);
            let spread = (0..10_000u32).map(|step| step.wrapping_mul(0x9e37_79b9));
            for hash in near.chain(spread).chain([0, u32::MAX]) {
                let walked = points.iter().find(|point| point.value >= hash).unwrap_or(&points[0]);
                assert_eq!(ring.owner(hash), walked.shard as usize, "hash {hash} weights {weights:?}");
                assert_eq!(ring.point(hash), walked.value);
            }
        }
    }

    #[test]
    fn the_first_shard_owns_points_of_equal_value() {
        // Names that differ only behind the cut have the same points.
        let names = [format!("{}a", "n".repeat(272)), format!("{}b", "n".repeat(272))];
        let address = Address::Tcp { host: "h".into(), port: 1 };
        let shards = names.map(|name| Shard::new(address.clone(), 1, Some(name)));
        let ring = Ring::new(&shards, &[0, 1]);
        assert!((0..=u32::MAX).step_by(1 << 20).all(|hash| ring.owner(hash) == 0));
    }
}
