//! How a hash becomes a shard: one enum, so that the way of a key is a match and not a virtual call.

mod ketama;
mod modula;
mod random;
pub(crate) mod slots;

use std::fmt;
use std::str::FromStr;

use crate::explanation::{Place, Share};
use crate::shard::Shard;

use ketama::Ring;
use modula::Intervals;
use slots::SlotTable;

/// Which rule gives keys to shards (`distribution:` in the configuration).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DistributionKind {
    /// Consistent hashing with Twemproxy's points; its default.
    #[default]
    Ketama,
    /// The hash modulo the sum of the weights.
    Modula,
    /// Any shard that is live, whatever the key and the weights.
    Random,
    /// The 16,384 slots of Redis Cluster.
    Slots,
    /// All keys on the one shard there is.
    Single,
}

impl DistributionKind {
    /// Every distribution, those of Twemproxy first.
    pub const ALL: [DistributionKind; 5] = [
        DistributionKind::Ketama,
        DistributionKind::Modula,
        DistributionKind::Random,
        DistributionKind::Slots,
        DistributionKind::Single,
    ];

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            DistributionKind::Ketama => "ketama",
            DistributionKind::Modula => "modula",
            DistributionKind::Random => "random",
            DistributionKind::Slots => "slots",
            DistributionKind::Single => "single",
        }
    }
}

impl fmt::Display for DistributionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is none of [`DistributionKind::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown distribution {0:?}; it is one of {names}", names = DistributionKind::ALL.map(DistributionKind::name).join(", "))]
pub struct UnknownDistribution(pub String);

impl FromStr for DistributionKind {
    type Err = UnknownDistribution;

    /// Exactly the names of the configuration, in lower case.
    fn from_str(name: &str) -> Result<DistributionKind, UnknownDistribution> {
        DistributionKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownDistribution(name.into()))
    }
}

/// A distribution over the live shards of a pool, built once and then only read.
#[derive(Debug, Clone)]
pub(crate) enum Distribution {
    /// Every shard is ejected.
    Nobody,
    Ketama(Ring),
    Modula(Intervals),
    Random(Box<[u16]>),
    Slots(SlotTable),
    Single,
}

impl Distribution {
    /// `live` holds indexes into `shards`, ascending; `shards` are in Twemproxy's order.
    pub(crate) fn new(kind: DistributionKind, shards: &[Shard], live: &[u16]) -> Distribution {
        if live.is_empty() {
            return Distribution::Nobody;
        }
        match kind {
            DistributionKind::Ketama => Distribution::Ketama(Ring::new(shards, live)),
            DistributionKind::Modula => Distribution::Modula(Intervals::new(shards, live)),
            DistributionKind::Random => Distribution::Random(live.into()),
            DistributionKind::Slots => Distribution::Slots(SlotTable::new(shards.len(), live)),
            DistributionKind::Single => Distribution::Single,
        }
    }

    /// The slots of a cluster: for each its owner.
    pub(crate) fn told(owners: &[Option<usize>]) -> Distribution {
        Distribution::Slots(SlotTable::told(owners))
    }

    /// The shard that owns `hash`; `None` only when every shard is ejected, or nobody owns the slot.
    #[inline]
    pub(crate) fn pick(&self, hash: u32) -> Option<usize> {
        match self {
            Distribution::Nobody => None,
            Distribution::Ketama(ring) => Some(ring.owner(hash)),
            Distribution::Modula(intervals) => Some(intervals.owner(hash)),
            Distribution::Random(live) => Some(random::pick(live)),
            Distribution::Slots(table) => table.owner(hash),
            Distribution::Single => Some(0),
        }
    }

    /// Where `hash` falls, for people. `None` where the hash decides nothing.
    pub(crate) fn place(&self, hash: u32) -> Option<Place> {
        match self {
            Distribution::Nobody | Distribution::Random(_) | Distribution::Single => None,
            Distribution::Ketama(ring) => Some(Place::Point(ring.point(hash))),
            Distribution::Modula(intervals) => Some(Place::Slot(intervals.slot(hash))),
            Distribution::Slots(_) => Some(Place::Slot(slots::slot(hash))),
        }
    }

    /// What each of `count` shards owns, by index.
    pub(crate) fn shares(&self, count: usize) -> Vec<Share> {
        let mut shares: Vec<Share> = (0..count).map(|shard| Share { shard, points: 0, share: 0.0 }).collect();
        match self {
            Distribution::Nobody => {}
            Distribution::Ketama(ring) => ring.add_shares(&mut shares),
            Distribution::Modula(intervals) => intervals.add_shares(&mut shares),
            Distribution::Random(live) => {
                for &shard in live {
                    let share = &mut shares[usize::from(shard)];
                    (share.points, share.share) = (1, 1.0 / live.len() as f64);
                }
            }
            Distribution::Slots(table) => table.add_shares(&mut shares),
            Distribution::Single => (shares[0].points, shares[0].share) = (1, 1.0),
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for kind in DistributionKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!(
            "Ketama".parse::<DistributionKind>().unwrap_err().to_string(),
            "unknown distribution \"Ketama\"; it is one of ketama, modula, random, slots, single"
        );
    }
}
