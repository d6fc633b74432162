//! The requests of a transaction: they are queued here until it is executed, and then sent to their shard in one piece.
//!
//! Where their keys are is known as they are queued, and found anew where the topology has changed since.

use std::sync::Arc;

use shard_discovery::{Home, Topology};

use super::limits::Limits;
use crate::protocol::{Plan, Protocol};
use crate::scripts::Digest;

/// Requests that the proxy itself answers, of one transaction: all of them are answered at once.
const OWN_MAX: usize = 4096;

/// Different scripts of one transaction that are sent ahead of it; further ones have to be known.
pub(super) const NAMED_MAX: usize = 64;

/// Room for a transaction as most are, so that it does not grow with each request.
const USUAL_BYTES: usize = 512;
const USUAL_COUNT: usize = 8;
/// One that holds no more is kept for the next transaction.
const SPARE_MAX: usize = 8 * 1024;

/// What a client has queued.
pub struct Block {
    /// By which the homes of its keys were found.
    topology: Arc<Topology>,
    /// Keys are watched: all of it is executed at once.
    is_watched: bool,
    /// What begins a block, and requests for shards behind it, as they are sent.
    requests: Vec<u8>,
    /// Where the first of those stands.
    start: usize,
    /// Requests that the proxy itself answers.
    own: Vec<u8>,
    /// How many those are.
    own_count: usize,
    /// The unit of the topology that all keys are in, or the first of several.
    unit: Option<usize>,
    /// All of them, in order.
    queued: Vec<Queued>,
    /// Places of their keys in `requests`, from request to request.
    keys: Vec<(usize, usize)>,
    /// Scripts that they name, at most [`NAMED_MAX`].
    scripts: Vec<Digest>,
    /// One of them makes shards forget scripts.
    forgets: bool,
}

/// One request.
struct Queued {
    place: Place,
    /// Its bytes end there, in `requests` or `own`.
    end: usize,
    /// Its keys end there.
    keys_end: usize,
}

/// Who executes a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The shard of its keys.
    At(Home),
    /// Any shard: it has no key.
    Anywhere,
    /// The proxy itself.
    Here,
}

impl Place {
    /// Where its keys are, if it has some.
    pub fn home(self) -> Option<Home> {
        if let Self::At(home) = self { Some(home) } else { None }
    }

    /// Whether the proxy itself executes it.
    pub fn is_here(self) -> bool {
        self == Self::Here
    }
}

/// Why a request is not queued, or a transaction not executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unfit {
    /// Its own keys are not together.
    Request,
    /// They are not with those of the others.
    Block,
    /// They are not where keys are watched.
    Watched,
    /// Nobody owns them.
    Nobody,
    /// There would be too much of it.
    TooLarge(&'static str),
}

impl Block {
    /// Nothing so far.
    pub fn new<P: Protocol>(topology: &Arc<Topology>, is_watched: bool) -> Self {
        let mut requests = Vec::with_capacity(USUAL_BYTES);
        P::begin_block(&mut requests);
        Self {
            topology: topology.clone(),
            is_watched,
            start: requests.len(),
            requests,
            own: Vec::new(),
            own_count: 0,
            unit: None,
            queued: Vec::with_capacity(USUAL_COUNT),
            keys: Vec::with_capacity(USUAL_COUNT),
            scripts: Vec::new(),
            forgets: false,
        }
    }

    /// The same, in what was left of another one.
    pub fn renewed<P: Protocol>(
        mut self: Box<Self>,
        topology: &Arc<Topology>,
        is_watched: bool,
    ) -> Box<Self> {
        self.requests.clear();
        P::begin_block(&mut self.requests);
        (self.start, self.own_count, self.unit) = (self.requests.len(), 0, None);
        self.own.clear();
        self.queued.clear();
        self.keys.clear();
        self.scripts.clear();
        self.forgets = false;
        self.is_watched = is_watched;
        self.topology.clone_from(topology);
        self
    }

    /// What is left of it for the next one.
    pub(super) fn spare(self: Box<Self>) -> Option<Box<Self>> {
        (self.bytes() <= SPARE_MAX).then_some(self)
    }

    /// Each of them, in no order.
    pub(super) fn each(&self) -> impl Iterator<Item = &[u8]> {
        let (mut sent, mut own) = (self.start, 0);
        self.queued.iter().map(move |queued| {
            let (all, from) = match queued.place {
                Place::Here => (&self.own, &mut own),
                _ => (&self.requests, &mut sent),
            };
            let start = std::mem::replace(from, queued.end);
            &all[start..queued.end]
        })
    }

    /// How many requests there are.
    pub fn len(&self) -> usize {
        self.queued.len()
    }

    /// Whether what shards are sent of it is as large as a request that others are not to wait behind.
    pub(super) fn is_large(&self, limits: &Limits) -> bool {
        self.requests.len() >= limits.large_value_min
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.requests.capacity()
            + self.own.capacity()
            + self.queued.capacity() * size_of::<Queued>()
            + self.keys.capacity() * size_of::<(usize, usize)>()
            + self.scripts.capacity() * size_of::<Digest>()
    }

    /// One more, with the keys of `plan`.
    pub(super) fn add<P: Protocol>(
        &mut self,
        here: bool,
        canonical: &[u8],
        plan: &Plan<P>,
        topology: &Arc<Topology>,
        limits: &Limits,
    ) -> Result<(), Unfit> {
        if (self.requests.len() + self.own.len() + canonical.len()) as u64 > limits.request_bytes_max {
            return Err(Unfit::TooLarge("request_bytes_max"));
        }
        if self.queued.len() >= limits.arguments_max {
            return Err(Unfit::TooLarge("arguments_max"));
        }
        if here {
            if self.own_count >= OWN_MAX {
                return Err(Unfit::TooLarge("what the proxy itself answers"));
            }
            self.own.extend_from_slice(canonical);
            self.own_count += 1;
            let (end, keys_end) = (self.own.len(), self.keys.len());
            self.queued.push(Queued { place: Place::Here, end, keys_end });
            return Ok(());
        }
        self.follow(topology, limits)?;
        let start = self.requests.len();
        // The place of a key that is none is the beginning of the request.
        let keys = plan.keys.iter().filter(|&&(place, _)| place > 0);
        let keys_start = self.keys.len();
        self.keys.extend(keys.map(|&(place, length)| (start + place, length)));
        self.requests.extend_from_slice(canonical);
        let place = self.place_of(&self.keys[keys_start..])?;
        self.join(place, limits)?;
        self.queued.push(Queued { place, end: self.requests.len(), keys_end: self.keys.len() });
        self.forgets |= P::forgets_scripts(canonical);
        Ok(())
    }

    /// One of the requests names this script.
    pub(super) fn names(&mut self, script: Digest) {
        if self.scripts.len() < NAMED_MAX && !self.scripts.contains(&script) {
            self.scripts.push(script);
        }
    }

    /// Whether shards that execute it forget the scripts that they know.
    pub(super) fn forgets_scripts(&self) -> bool {
        self.forgets
    }

    /// The scripts that they name.
    pub(super) fn scripts(&self) -> &[Digest] {
        &self.scripts
    }

    /// Who executes a request with these keys.
    fn place_of(&self, keys: &[(usize, usize)]) -> Result<Place, Unfit> {
        let mut place = Place::Anywhere;
        for &(start, length) in keys {
            let home = self.topology.home_of(&self.requests[start..start + length]).ok_or(Unfit::Nobody)?;
            match place {
                Place::At(first) if first.unit != home.unit => return Err(Unfit::Request),
                Place::At(_) => {}
                Place::Anywhere | Place::Here => place = Place::At(home),
            }
        }
        Ok(place)
    }

    /// A request there is to be executed with the others.
    fn join(&mut self, place: Place, limits: &Limits) -> Result<(), Unfit> {
        let Place::At(home) = place else { return Ok(()) };
        let unit = *self.unit.get_or_insert(home.unit);
        let is_spread = limits.per_shard_transactions && !self.is_watched;
        if unit == home.unit || is_spread { Ok(()) } else { Err(Unfit::Block) }
    }

    /// The homes of keys are those of this topology from now on.
    pub(super) fn follow(&mut self, topology: &Arc<Topology>, limits: &Limits) -> Result<(), Unfit> {
        if Arc::ptr_eq(topology, &self.topology) {
            return Ok(());
        }
        (self.topology, self.unit) = (topology.clone(), None);
        let mut start = 0;
        for at in 0..self.queued.len() {
            let Queued { place, keys_end, .. } = self.queued[at];
            if place != Place::Here {
                self.queued[at].place = self.place_of(&self.keys[start..keys_end])?;
                self.join(self.queued[at].place, limits)?;
            }
            start = keys_end;
        }
        Ok(())
    }

    /// Who executes each of them.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.queued.iter().map(|queued| queued.place)
    }

    /// Where the keys of each are, if it has some.
    pub(super) fn homes(&self) -> impl Iterator<Item = Home> {
        self.places().filter_map(Place::home)
    }

    /// Where those of the newest are.
    pub(super) fn newest_home(&self) -> Option<Home> {
        self.queued.last()?.place.home()
    }

    /// All keys, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(|&(start, length)| &self.requests[start..start + length])
    }

    /// Those that the proxy itself answers, one after the other.
    pub(super) fn own(&self) -> &[u8] {
        &self.own
    }

    /// How many those are.
    pub(super) fn own_count(&self) -> usize {
        self.own_count
    }

    /// Ends all that shards execute, as one part; the proxy answers none.
    pub(super) fn end<P: Protocol>(&mut self) -> P::Expected {
        P::end_block(self.queued.len() as u32, &mut self.requests)
    }

    /// All that shards execute.
    pub(super) fn requests(&mut self) -> &mut Vec<u8> {
        &mut self.requests
    }

    /// What the part of a shard consists of, where the owners are those of all requests.
    pub(super) fn part<P: Protocol>(&self, owners: &[u32], part: u32, out: &mut Vec<u8>) -> P::Expected {
        P::begin_block(out);
        let (mut start, mut count) = (self.start, 0);
        for (queued, &owner) in self.queued.iter().zip(owners) {
            if queued.place == Place::Here {
                continue;
            }
            if owner == part {
                out.extend_from_slice(&self.requests[start..queued.end]);
                count += 1;
            }
            start = queued.end;
        }
        P::end_block(count, out)
    }
}
