//! The shards of a pool and who owns what, at one moment.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::distribution::{Distribution, DistributionKind, slots};
use crate::explanation::{Explanation, Share};
use crate::hash::KeyHash;
use crate::hash_tag::HashTag;
use crate::pins::{Pin, PinTarget, Pins};
use crate::shard::{Shard, put_in_order};
use whole::Holders;

mod whole;

/// Shard indexes are kept in 16 bits, which halves the tables a lookup reads.
const SHARDS_MAX: usize = u16::MAX as usize;

/// So many pins are told in an error.
const PINS_SHOWN: usize = 3;

/// The shards of a pool and which of them owns a key. Immutable: an ejection or a new list of shards makes
/// another topology, so that a reader never sees half a change. Share it in an `Arc`.
#[derive(Debug, Clone)]
pub struct Topology {
    /// In Twemproxy's order. Shared with every topology made by [`Topology::without`].
    shards: Arc<[Shard]>,
    kind: DistributionKind,
    key_hash: KeyHash,
    hash_tag: Option<HashTag>,
    pins: Pins,
    /// Where the keys of each pin go.
    pinned: Box<[Pinned]>,
    /// Ascending.
    ejected: Box<[usize]>,
    /// Whether the key decides anything; otherwise nothing is paid for its hash.
    hashes: bool,
    distribution: Distribution,
    /// The servers say themselves who owns what; else it is computed.
    is_told: bool,
    /// For each shard who else answers reads of its keys, if anybody does.
    readers: Option<Arc<[Vec<usize>]>>,
    holders: Holders,
}

/// Where keys with a prefix that is pinned go.
#[derive(Debug, Clone, Copy)]
enum Pinned {
    /// To the shard with this index.
    Shard(usize),
    /// To whoever owns this hash.
    Hash(u32),
}

/// What keys have to share to be used in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The shard that owns them.
    Shard,
    /// Their slot, which may move to another shard as a whole.
    Slot,
}

/// Where a key belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// Index of the shard that owns it.
    pub shard: usize,
    /// The keys of one request have to share it: see [`Group`].
    pub unit: usize,
}

/// How keys are dealt to shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The distribution.
    pub kind: DistributionKind,
    /// The key hash.
    pub key_hash: KeyHash,
    /// The hash tag, if there is one.
    pub hash_tag: Option<HashTag>,
    /// Prefixes of keys that are kept together.
    pub pins: Pins,
}

impl Placement {
    /// By hash alone, nothing pinned.
    pub fn new(kind: DistributionKind, key_hash: KeyHash, hash_tag: Option<HashTag>) -> Self {
        Self { kind, key_hash, hash_tag, pins: Pins::default() }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "distribution {} over hash {}", self.kind, self.key_hash)?;
        if let Some(tag) = self.hash_tag {
            write!(formatter, " with hash_tag {}{}", char::from(tag.open), char::from(tag.close))?;
        }
        for (number, pin) in self.pins.iter().enumerate() {
            if number == PINS_SHOWN {
                return formatter.write_str(" and more");
            }
            write!(
                formatter,
                "{} {:?}: {}",
                if number == 0 { " with pin" } else { "," },
                pin.prefix,
                pin.target
            )?;
        }
        Ok(())
    }
}

/// Why a list of shards makes no topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// The list is empty.
    #[error("a pool needs at least one shard")]
    NoShards,
    /// Two shards would own the same keys.
    #[error("two shards are called {0:?}; give one of them another name")]
    DuplicateName(String),
    /// It would own nothing.
    #[error("shard {0:?} has weight 0; leave it out or give it 1")]
    ZeroWeight(String),
    /// The sum of all weights has to fit into 32 bits; Twemproxy overflows silently.
    #[error("the weights add up to {0}, more than {max}; divide them all by the same number", max = u32::MAX)]
    TotalWeight(u64),
    /// More shards than a topology can number.
    #[error("{0} shards are more than {SHARDS_MAX}")]
    TooManyShards(usize),
    /// The source of the shards says that keys are dealt to them in another way.
    #[error("the list is for {0}, which differs from the pool")]
    OtherPlacement(Placement),
    /// `single` says that there is one shard.
    #[error("distribution single needs exactly one shard, not {0}; choose ketama to spread keys")]
    NotSingle(usize),
    /// Keys are to go to a shard that is not there.
    #[error("pin: the keys that begin with {prefix:?} are to go to {shard:?}, which is none of the shards")]
    UnknownPin {
        /// What the keys begin with.
        prefix: String,
        /// The shard's name.
        shard: String,
    },
    /// Keys are to follow a tag where no shard owns one.
    #[error(
        "pin: the keys that begin with {0:?} are to follow a hash tag, but no shard owns one with distribution random; name a shard"
    )]
    UnownedPin(String),
    /// The servers say themselves who owns what.
    #[error("pin: the slots of a Redis Cluster are assigned by its nodes; keys cannot be pinned")]
    PinInCluster,
}

impl Topology {
    /// A topology of `shards`, none of them ejected. They are put into Twemproxy's order, by length of the
    /// name and then by its bytes, which decides modula, ties on the ring and every index from here on.
    ///
    /// With [`DistributionKind::Slots`] `key_hash` and `hash_tag` are those of Redis Cluster whatever is
    /// given.
    ///
    /// # Errors
    /// See [`TopologyError`].
    pub fn new(
        mut shards: Vec<Shard>,
        kind: DistributionKind,
        key_hash: KeyHash,
        hash_tag: Option<HashTag>,
    ) -> Result<Topology, TopologyError> {
        put_in_order(&mut shards);
        check(&shards, kind)?;
        // The low half of Twemproxy's crc16 is the CRC that Redis Cluster takes slots from.
        let (key_hash, hash_tag) = match kind {
            DistributionKind::Slots => (KeyHash::Crc16, Some(HashTag::REDIS_CLUSTER)),
            _ => (key_hash, hash_tag),
        };
        let placement = Placement::new(kind, key_hash, hash_tag);
        Ok(Topology::build(shards.into(), placement, Box::default()))
    }

    /// The same shards, none of them ejected, with these prefixes kept together instead of those it has.
    ///
    /// # Errors
    /// [`TopologyError::UnknownPin`], [`TopologyError::UnownedPin`], [`TopologyError::PinInCluster`].
    pub fn with_pins(self, pins: Pins) -> Result<Topology, TopologyError> {
        if pins == self.pins {
            return Ok(self);
        }
        if self.is_told {
            return Err(TopologyError::PinInCluster);
        }
        for pin in pins.iter() {
            match &pin.target {
                PinTarget::Shard(name) if !self.shards.iter().any(|shard| shard.name == *name) => {
                    let (prefix, shard) = (pin.prefix.clone(), name.clone());
                    return Err(TopologyError::UnknownPin { prefix, shard });
                }
                PinTarget::Tag(_) if self.kind == DistributionKind::Random => {
                    return Err(TopologyError::UnownedPin(pin.prefix.clone()));
                }
                _ => {}
            }
        }
        let placement = Placement { pins, ..self.placement() };
        Ok(Topology::build(self.shards, placement, Box::default()))
    }

    /// The nodes of a Redis Cluster. `owners` has for each of the 16,384 slots the index of the node that owns it, and
    /// `readers` for each node the indexes of those that answer reads of its keys. Nodes stay in their order; there may
    /// be none while nothing is known.
    ///
    /// # Errors
    /// See [`TopologyError`].
    ///
    /// # Panics
    /// When `owners` or `readers` has another length, or an index is not one of a node.
    pub fn of_cluster(
        nodes: Vec<Shard>,
        owners: &[Option<usize>],
        readers: Vec<Vec<usize>>,
    ) -> Result<Topology, TopologyError> {
        assert!(readers.len() == nodes.len(), "{} lists of readers for {} nodes", readers.len(), nodes.len());
        let mut indexes = owners.iter().flatten().chain(readers.iter().flatten());
        assert!(indexes.all(|&index| index < nodes.len()), "a node that is none of {}", nodes.len());
        if !nodes.is_empty() {
            check(&nodes, DistributionKind::Slots)?;
        }
        let holders = Holders::of_slots(&nodes, owners);
        Ok(Topology {
            shards: nodes.into(),
            kind: DistributionKind::Slots,
            key_hash: KeyHash::Crc16,
            hash_tag: Some(HashTag::REDIS_CLUSTER),
            pins: Pins::default(),
            pinned: Box::default(),
            ejected: Box::default(),
            hashes: true,
            distribution: Distribution::told(owners),
            is_told: true,
            readers: Some(readers.into()),
            holders,
        })
    }

    /// What the keys of one request have to share.
    #[inline]
    pub fn group(&self) -> Group {
        if self.is_told { Group::Slot } else { Group::Shard }
    }

    /// Whether a shard sends requests for keys that it does not own to the one that does. Keys then move while both are
    /// there, so that requests of one client to them have to stay in order.
    #[inline]
    pub fn redirects(&self) -> bool {
        self.is_told
    }

    /// Whether shards can be taken out, so that their keys move to others. Not where the servers say who owns what.
    #[inline]
    pub fn can_eject(&self) -> bool {
        !self.is_told
    }

    /// Who else answers reads of the shard's keys.
    #[inline]
    pub fn readers(&self, shard: usize) -> &[usize] {
        self.readers.as_ref().map_or(&[], |readers| &readers[shard])
    }

    /// The same pool with exactly the shards `ejected` taken out, whichever are out now. Indexes stay what
    /// they are; the distribution is built anew over the live shards as Twemproxy does it: ketama shares
    /// points out again (survivors may gain or lose some), modula takes another modulus, and the keys of
    /// an ejected shard move. With `slots` only the slots of ejected shards move.
    ///
    /// # Panics
    /// When an index is not below `self.shards().len()`, and where no shard can be ejected.
    #[must_use]
    pub fn without(&self, ejected: &[usize]) -> Topology {
        if !self.can_eject() {
            assert!(ejected.is_empty(), "nodes of a cluster cannot be ejected");
            return self.clone();
        }
        let mut ejected = ejected.to_vec();
        ejected.sort_unstable();
        ejected.dedup();
        if let Some(&last) = ejected.last() {
            assert!(last < self.shards.len(), "shard {last} of {} cannot be ejected", self.shards.len());
        }
        Topology::build(self.shards.clone(), self.placement(), ejected.into())
    }

    fn build(shards: Arc<[Shard]>, placement: Placement, ejected: Box<[usize]>) -> Topology {
        let holders = Holders::all(&shards, &placement);
        let Placement { kind, key_hash, hash_tag, pins } = placement;
        let live: Vec<u16> = (0..shards.len())
            .filter(|index| ejected.binary_search(index).is_err())
            .map(|index| index as u16)
            .collect();
        let hashes = match kind {
            // Twemproxy does not hash in a pool of one server; that keys then "hash" to 0 shows in `explain`.
            DistributionKind::Ketama | DistributionKind::Modula => shards.len() > 1,
            DistributionKind::Slots => true,
            DistributionKind::Random | DistributionKind::Single => false,
        };
        let distribution = Distribution::new(kind, &shards, &live);
        let of_tag = |tag: &str| Pinned::Hash(if hashes { key_hash.hash(tag.as_bytes()) } else { 0 });
        let pinned = pins.iter().map(|pin| match &pin.target {
            PinTarget::Tag(tag) => of_tag(tag),
            // Names are in order, but of their lengths; and nobody builds topologies all the time.
            PinTarget::Shard(name) => live
                .iter()
                .find(|&&index| shards[usize::from(index)].name == *name)
                .map_or_else(|| of_tag(&pin.prefix), |&index| Pinned::Shard(usize::from(index))),
        });
        let pinned = pinned.collect();
        Topology {
            shards,
            kind,
            key_hash,
            hash_tag,
            pins,
            pinned,
            ejected,
            hashes,
            distribution,
            is_told: false,
            readers: None,
            holders,
        }
    }

    /// Where `key` belongs; `None` only when every shard is ejected, or nobody owns the slot.
    #[inline]
    pub fn home_of(&self, key: &[u8]) -> Option<Home> {
        let hash = match self.pins.find(key).map(|pin| self.pinned[pin]) {
            None if self.hashes => self.key_hash.hash(self.hashed_part(key)),
            None => 0,
            Some(Pinned::Hash(hash)) => hash,
            Some(Pinned::Shard(shard)) => return Some(Home { shard, unit: shard }),
        };
        let shard = self.distribution.pick(hash)?;
        let unit = match self.group() {
            Group::Slot => slots::slot(hash) as usize,
            Group::Shard => shard,
        };
        Some(Home { shard, unit })
    }

    /// Index of the node of a cluster that owns the slot.
    ///
    /// # Panics
    /// When there are fewer slots.
    pub fn owner_of_slot(&self, slot: u16) -> Option<usize> {
        assert!(usize::from(slot) < slots::SLOTS, "slot {slot}");
        self.distribution.pick(u32::from(slot))
    }

    /// How many units there may be: [`Home::unit`] is below it.
    pub fn units(&self) -> usize {
        match self.group() {
            Group::Slot => slots::SLOTS,
            Group::Shard => self.shards.len(),
        }
    }

    /// Index of the shard that owns `key`; `None` only when every shard is ejected. For `random` it is
    /// another one each time. Allocates nothing.
    #[inline]
    pub fn shard_for(&self, key: &[u8]) -> Option<usize> {
        self.home_of(key).map(|home| home.shard)
    }

    /// How [`Topology::shard_for`] finds its answer.
    pub fn explain<'k>(&'k self, key: &'k [u8]) -> Explanation<'k> {
        let pin = self.pins.find(key);
        let hashed = match pin.map(|at| (self.pinned[at], self.pins.at(at))) {
            None => self.hashed_part(key),
            Some((Pinned::Shard(shard), pin)) => {
                let shard = Some(shard);
                return Explanation {
                    hashed: key,
                    by_tag: false,
                    pin: Some(pin),
                    hash: 0,
                    place: None,
                    shard,
                };
            }
            Some((Pinned::Hash(_), Pin { target: PinTarget::Tag(tag), .. })) => tag.as_bytes(),
            Some((Pinned::Hash(_), pin)) => pin.prefix.as_bytes(),
        };
        let hash = if self.hashes { self.key_hash.hash(hashed) } else { 0 };
        let shard = match self.kind {
            DistributionKind::Random => None,
            _ => self.distribution.pick(hash),
        };
        Explanation {
            hashed,
            by_tag: pin.is_none() && hashed.len() < key.len(),
            pin: pin.map(|at| self.pins.at(at)),
            hash,
            place: self.distribution.place(hash),
            shard,
        }
    }

    /// What each shard owns, in the order of the shards; nothing where it is ejected, or where no key has a hash that it
    /// owns.
    pub fn shares(&self) -> Vec<Share> {
        let mut shares = self.distribution.shares(self.shards.len());
        let highest = self.key_hash.highest();
        if highest < u32::MAX && self.hashes && self.kind != DistributionKind::Random {
            let mut owned = vec![0_u32; shares.len()];
            (0..=highest).filter_map(|hash| self.distribution.pick(hash)).for_each(|shard| owned[shard] += 1);
            for share in &mut shares {
                share.share = f64::from(owned[share.shard]) / (f64::from(highest) + 1.0);
            }
        }
        shares
    }

    /// All shards, ejected ones too, in Twemproxy's order.
    #[inline]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Indexes of the shards that are out, ascending.
    #[inline]
    pub fn ejected(&self) -> &[usize] {
        &self.ejected
    }

    /// How keys are dealt to the shards.
    pub fn placement(&self) -> Placement {
        Placement {
            kind: self.kind,
            key_hash: self.key_hash,
            hash_tag: self.hash_tag,
            pins: self.pins.clone(),
        }
    }

    /// The distribution.
    pub fn kind(&self) -> DistributionKind {
        self.kind
    }

    /// The key hash in use.
    pub fn key_hash(&self) -> KeyHash {
        self.key_hash
    }

    /// The hash tag in use.
    pub fn hash_tag(&self) -> Option<HashTag> {
        self.hash_tag
    }

    /// The prefixes that are kept together.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    #[inline]
    fn hashed_part<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        self.hash_tag.map_or(key, |tag| tag.hashed_part(key))
    }
}

fn check(shards: &[Shard], kind: DistributionKind) -> Result<(), TopologyError> {
    if shards.is_empty() {
        return Err(TopologyError::NoShards);
    }
    if shards.len() > SHARDS_MAX {
        return Err(TopologyError::TooManyShards(shards.len()));
    }
    if kind == DistributionKind::Single && shards.len() != 1 {
        return Err(TopologyError::NotSingle(shards.len()));
    }
    let mut names = HashSet::new();
    if let Some(twice) = shards.iter().find(|shard| !names.insert(&shard.name)) {
        return Err(TopologyError::DuplicateName(twice.name.clone()));
    }
    if let Some(weightless) = shards.iter().find(|shard| shard.weight == 0) {
        return Err(TopologyError::ZeroWeight(weightless.name.clone()));
    }
    let total: u64 = shards.iter().map(|shard| u64::from(shard.weight)).sum();
    if total > u64::from(u32::MAX) {
        return Err(TopologyError::TotalWeight(total));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Address;

    fn shard(name: &str, weight: u32) -> Shard {
        Shard::new(Address::Tcp { host: "h".into(), port: 1 }, weight, Some(name.into()))
    }

    fn topology(names: &[&str], kind: DistributionKind) -> Result<Topology, TopologyError> {
        let shards = names.iter().map(|name| shard(name, 1)).collect();
        Topology::new(shards, kind, KeyHash::Fnv1a64, None)
    }

    #[test]
    fn shards_are_ordered_by_length_and_then_by_bytes() {
        let topology = topology(&["shard-10", "b", "zz", "B", "shard-9"], DistributionKind::Ketama).unwrap();
        let names: Vec<&str> = topology.shards().iter().map(|shard| &*shard.name).collect();
        assert_eq!(names, ["B", "b", "zz", "shard-9", "shard-10"]);
    }

    #[test]
    fn lists_that_make_no_sense_are_refused() {
        let refused = |names: &[&str], kind| topology(names, kind).unwrap_err();
        assert_eq!(refused(&[], DistributionKind::Ketama), TopologyError::NoShards);
        assert_eq!(
            refused(&["a", "b", "a"], DistributionKind::Modula),
            TopologyError::DuplicateName("a".into())
        );
        assert_eq!(refused(&["a", "b"], DistributionKind::Single), TopologyError::NotSingle(2));
        let weights = |weights: [u32; 2]| {
            let shards = vec![shard("a", weights[0]), shard("b", weights[1])];
            Topology::new(shards, DistributionKind::Ketama, KeyHash::Md5, None).unwrap_err()
        };
        assert_eq!(weights([1, 0]), TopologyError::ZeroWeight("b".into()));
        assert_eq!(weights([u32::MAX, 1]), TopologyError::TotalWeight(1 << 32));
    }

    #[test]
    fn slots_are_those_of_redis_cluster() {
        let topology = topology(&["a", "b", "c"], DistributionKind::Slots).unwrap();
        // CLUSTER KEYSLOT of each key, asked of redis-server 7.0.15.
        for (key, slot) in [("foo", 12182), ("bar", 5061), ("{foo}bar", 12182), ("", 0), ("123456789", 12739)]
        {
            let explanation = topology.explain(key.as_bytes());
            assert_eq!(explanation.place, Some(crate::Place::Slot(slot)), "{key}");
        }
    }

    #[test]
    fn a_cluster_says_who_owns_what() {
        let mut owners = vec![None; slots::SLOTS];
        owners[12182] = Some(1);
        let nodes = vec![shard("b", 1), shard("a", 1), shard("c", 1)];
        let topology = Topology::of_cluster(nodes, &owners, vec![vec![], vec![2], vec![]]).unwrap();
        assert_eq!(topology.home_of(b"foo"), Some(Home { shard: 1, unit: 12182 }));
        assert_eq!(topology.shards()[1].name, "a");
        assert_eq!(topology.readers(1), [2]);
        assert_eq!(topology.home_of(b"bar"), None);
        assert_eq!(topology.shares()[1].points, 1);
        let unknown = Topology::of_cluster(vec![], &vec![None; slots::SLOTS], vec![]).unwrap();
        assert_eq!(unknown.home_of(b"foo"), None);
        assert_eq!(
            (topology.group(), topology.redirects(), topology.can_eject()),
            (Group::Slot, true, false)
        );
        // Slots that are computed are only a way to deal keys to shards.
        let computed =
            Topology::new(vec![shard("a", 1)], DistributionKind::Slots, KeyHash::Md5, None).unwrap();
        assert_eq!(
            (computed.group(), computed.redirects(), computed.can_eject()),
            (Group::Shard, false, true)
        );
    }

    #[test]
    fn a_topology_without_live_shards_owns_nothing() {
        for kind in DistributionKind::ALL {
            let names: &[&str] = if kind == DistributionKind::Single { &["a"] } else { &["a", "b"] };
            let all = topology(names, kind).unwrap();
            let nobody = all.without(&(0..names.len()).collect::<Vec<_>>());
            assert_eq!(nobody.shard_for(b"k"), None);
            assert_eq!(nobody.explain(b"k").shard, None);
            assert!(nobody.shares().iter().all(|share| share.points == 0 && share.share == 0.0));
            assert!(nobody.without(&[]).shard_for(b"k").is_some());
        }
    }

    #[test]
    fn without_counts_from_the_whole_pool() {
        let topology = topology(&["a", "b", "c"], DistributionKind::Modula).unwrap();
        assert_eq!(topology.without(&[2, 0, 2]).ejected(), [0, 2]);
        assert_eq!(topology.without(&[0]).without(&[1]).ejected(), [1]);
    }

    #[test]
    fn pinned_prefixes_go_to_their_shard_or_with_their_tag() {
        let plain = |kind| topology(&["a", "b", "c"], kind).unwrap();
        let pinned = |kind, written: &[(&str, &str)]| {
            plain(kind).with_pins(Pins::new(written.iter().copied()).unwrap())
        };
        let keys: Vec<String> = (0..100).map(|number| format!("rq:{number}")).collect();
        for kind in [DistributionKind::Ketama, DistributionKind::Modula, DistributionKind::Slots] {
            let topology = pinned(kind, &[("rq:", "b"), ("rq:7", "{user}"), ("s:", "{user}")]).unwrap();
            let tagged = plain(kind).shard_for(b"user");
            for (key, number) in keys.iter().zip(0..) {
                let is_tagged = number == 7 || (70..80).contains(&number);
                let shard = if is_tagged { tagged } else { Some(1) };
                assert_eq!(topology.shard_for(key.as_bytes()), shard, "{key}");
                assert_eq!(topology.explain(key.as_bytes()).shard, shard, "{key}");
            }
            assert_eq!(topology.shard_for(b"s:{other}"), tagged);
            assert_eq!(topology.explain(b"s:x").hashed, b"user");
            assert_eq!(topology.shard_for(b"free"), plain(kind).shard_for(b"free"));
            // Without their shard they are together where their prefix is.
            let without = topology.without(&[1]);
            let together = plain(kind).without(&[1]).shard_for(b"rq:");
            assert!(keys[..7].iter().all(|key| without.shard_for(key.as_bytes()) == together));
            assert_eq!(without.without(&[]).shard_for(b"rq:1"), Some(1));
            assert_eq!(topology.without(&[0, 1, 2]).shard_for(b"rq:1"), None);
        }
        let error = pinned(DistributionKind::Ketama, &[("rq:", "d")]).unwrap_err().to_string();
        let told = "pin: the keys that begin with \"rq:\" are to go to \"d\", which is none of the shards";
        assert_eq!(error, told);
        let error = pinned(DistributionKind::Random, &[("rq:", "{d}")]).unwrap_err();
        assert_eq!(error, TopologyError::UnownedPin("rq:".into()));
        let cluster = Topology::of_cluster(vec![shard("a", 1)], &vec![None; slots::SLOTS], vec![vec![]]);
        let error = cluster.unwrap().with_pins(Pins::new([("rq:", "a")]).unwrap()).unwrap_err();
        assert_eq!(error, TopologyError::PinInCluster);
    }

    #[test]
    #[should_panic(expected = "shard 3 of 3 cannot be ejected")]
    fn a_shard_that_does_not_exist_cannot_be_ejected() {
        let topology = topology(&["a", "b", "c"], DistributionKind::Ketama).unwrap();
        let _ = topology.without(&[3]);
    }
}
