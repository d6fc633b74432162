//! The shards of a pool: which connection a request takes, and whether it may.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shard_discovery::{Address, Group, HashTag, Home, Topology};

use super::members::{Lane, Member};
use super::replies::{Merging, Replies};
use super::shard::{Admission, Link, ShardConnection};
use super::ticket::{Ticket, Waiter};
use super::{ClientId, ConnectionIndex, Failed, Limits, ShardEvent};
use crate::buffer::{Piece, SHARE_MIN};
use crate::failure::{Blame, ShardFailure};
use crate::metrics::{PoolCounters, ShardCounters};
use crate::protocol::{Owners, Part, Plan, Protocol, Spread};
use crate::time::Time;

/// The shards of a pool and the connections to them.
pub(super) struct Shards<P: Protocol> {
    pub topology: Arc<Topology>,
    /// For each shard of the topology, its member.
    pub(super) order: Vec<usize>,
    pub members: Vec<Member>,
    pub(super) lanes: Vec<Lane<P>>,
    /// Those that have not ended, by their keys.
    pub(super) lane_of: HashMap<P::Lane, u32>,
    /// The lane of new clients.
    pub(super) usual: u32,
    pub connections: Vec<ShardConnection<P>>,
    /// Places in `connections` that nobody has: the first of several, and how many.
    pub(super) vacant: Vec<(ConnectionIndex, usize)>,
    /// Connections to each shard that is added from now on.
    pub(super) per_shard: usize,
    /// Those keep requests until they are answered.
    pub(super) keeps: bool,
    pub dirty: Vec<ConnectionIndex>,
    pub to_connect: Vec<ConnectionIndex>,
    pub to_close: Vec<(ConnectionIndex, ShardFailure)>,
    /// Those that nobody needs any more; to be closed unless somebody does by then.
    pub unneeded: Vec<ConnectionIndex>,
    pub events: Vec<ShardEvent>,
    /// No deadline of any connection is earlier.
    pub deadline: Option<Time>,
    pub(super) timeout: Option<Duration>,
    /// Nobody who waits for room has waited long enough before.
    pub wait_deadline: Option<Time>,
    /// Whose turn it is: who waits for room goes before all others.
    pub turn: Turn,
    random: u64,
    /// Connections that the fragments of the split request at hand take.
    targets: Vec<ConnectionIndex>,
    /// Places in `targets` of shards that are down, with the reason, if the rest of the request is served.
    down: Vec<(usize, ShardFailure)>,
    /// For each unit of the topology, its place in `targets` while a request is split.
    pub(super) fragment_of: Vec<u32>,
    /// For each of `targets` the unit of its keys.
    units: Vec<usize>,
}

/// What the client at hand may do while others wait for room.
#[derive(Clone, Copy, Default)]
pub(super) struct Turn {
    /// It may queue so many requests on this connection.
    pub queue: Option<(ConnectionIndex, usize)>,
    /// It waits itself, since then.
    pub since: Option<Time>,
    /// Its requests have waited longer than they may altogether.
    pub late: bool,
}

/// Whose request it is.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub id: ClientId,
    /// The client's number: it stays on one connection of a shard, so that its requests keep their order.
    pub number: u64,
    pub lane: u32,
    /// When the request was read.
    pub since: Time,
    pub now: Time,
}

/// Why a request is not sent.
pub(super) enum Refusal {
    /// No single shard owns its keys.
    SpreadKeys,
    /// There is no shard to ask: all are ejected, or nobody owns the slot.
    Nobody,
    /// The shard cannot take it.
    Failed(ConnectionIndex, ShardFailure),
}

impl<P: Protocol> Shards<P> {
    pub fn new(
        topology: Arc<Topology>,
        counters: &[Arc<ShardCounters>],
        per_shard: usize,
        timeout: Option<Duration>,
        seed: u64,
    ) -> Self {
        let mut shards = Self {
            topology: topology.clone(),
            order: Vec::new(),
            members: Vec::new(),
            lanes: Vec::new(),
            lane_of: HashMap::new(),
            usual: 0,
            connections: Vec::new(),
            vacant: Vec::new(),
            per_shard,
            keeps: false,
            dirty: Vec::new(),
            to_connect: Vec::new(),
            to_close: Vec::new(),
            unneeded: Vec::new(),
            events: Vec::new(),
            deadline: None,
            timeout,
            wait_deadline: None,
            turn: Turn::default(),
            random: seed | 1,
            targets: Vec::new(),
            down: Vec::new(),
            fragment_of: Vec::new(),
            units: Vec::new(),
        };
        shards.adopt(topology, counters, per_shard, timeout);
        shards
    }

    /// Why these keys do not belong together.
    pub fn spread_of<'k>(&self, mut keys: impl Iterator<Item = &'k [u8]>) -> Spread {
        if self.topology.group() == Group::Slot {
            return Spread::Slots;
        }
        let tag = |key: &'k [u8]| {
            let part = HashTag::REDIS_CLUSTER.hashed_part(key);
            (part.len() < key.len()).then_some(part)
        };
        let first = keys.next().and_then(tag);
        let is_ignored = self.topology.hash_tag() != Some(HashTag::REDIS_CLUSTER)
            && first.is_some()
            && keys.all(|key| tag(key) == first);
        if is_ignored { Spread::IgnoredTag } else { Spread::Shards }
    }

    /// Members of a cluster that own slots or answer reads.
    pub fn needed_members(&self) -> HashSet<usize> {
        let (owners, readers) = self.owners_and_readers();
        owners.union(&readers).copied().collect()
    }

    /// Members of a cluster that own slots, and those that answer reads; none elsewhere.
    pub(super) fn owners_and_readers(&self) -> (HashSet<usize>, HashSet<usize>) {
        if !self.topology.redirects() {
            return Default::default();
        }
        // Slots lie in ranges: most have the owner of the one before.
        let mut before = None;
        let owners: HashSet<usize> = (0..self.topology.units())
            .filter_map(|slot| self.topology.owner_of_slot(slot as u16))
            .filter(|&owner| before.replace(owner) != Some(owner))
            .collect();
        let readers = owners.iter().flat_map(|&owner| self.topology.readers(owner)).copied();
        let member = |shard: usize| self.order[shard];
        (owners.iter().copied().map(member).collect(), readers.map(member).collect())
    }

    /// What is counted of the shard that the connection belongs to.
    pub fn counters_of(&self, connection: ConnectionIndex) -> &ShardCounters {
        &self.members[self.connections[connection].shard].counters
    }

    /// Name of the shard that the connection belongs to.
    pub fn name_of(&self, connection: ConnectionIndex) -> &Arc<str> {
        &self.members[self.connections[connection].shard].name
    }

    #[inline]
    fn connection(&self, sender: Sender, member: usize) -> ConnectionIndex {
        self.connection_of(sender.number, sender.lane, member)
    }

    #[inline]
    fn connection_of(&self, number: u64, lane: u32, member: usize) -> ConnectionIndex {
        let per_shard = self.members[member].per_shard;
        let nth = if per_shard == 1 { 0 } else { (number % per_shard as u64) as usize };
        self.lanes[lane as usize].first[member] + nth
    }

    /// The connection for a request to the shard of the topology. Reads may go to others that have the same keys: each
    /// client to one of them, to the shard itself where none is there.
    #[inline]
    fn connection_for(&self, sender: Sender, shard: usize, reads: bool) -> ConnectionIndex {
        let readers = self.topology.readers(shard);
        if reads && !readers.is_empty() {
            let start = (sender.number % readers.len() as u64) as usize;
            let in_turn = readers[start..].iter().chain(&readers[..start]);
            let mut connections = in_turn.map(|&reader| self.connection(sender, self.order[reader]));
            let is_there = |&index: &ConnectionIndex| !self.connections[index].is_down(sender.now);
            if let Some(connection) = connections.find(is_there) {
                return connection;
            }
        }
        self.connection(sender, self.order[shard])
    }

    /// The connection of the client and lane to the owner of the slot.
    pub fn connection_of_slot(&self, slot: u16, number: u64, lane: u32) -> Option<ConnectionIndex> {
        let owner = self.topology.owner_of_slot(slot)?;
        Some(self.connection_of(number, lane, self.order[owner]))
    }

    /// The connection of the client and lane to the server at this address, if it is in the pool.
    pub fn connection_at(&self, host: &str, port: u16, number: u64, lane: u32) -> Option<ConnectionIndex> {
        let is_at = |member: &&usize| match &self.members[**member].shard.address {
            Address::Tcp { host: known, port: at } => known == host && *at == port,
            Address::Unix(_) => false,
        };
        let member = *self.order.iter().find(is_at)?;
        Some(self.connection_of(number, lane, member))
    }

    /// Queues a request for the shard that owns all of its keys; the caller appends the bytes to the output of the
    /// connection it gets.
    #[inline]
    pub fn forward(
        &mut self,
        sender: Sender,
        replies: &mut Replies<P>,
        canonical: &[u8],
        plan: &Plan<P>,
        limits: &Limits,
    ) -> Result<ConnectionIndex, Refusal> {
        let mut home: Option<Home> = None;
        let text = plan.key_text(canonical);
        for &(start, length) in &plan.keys {
            let next = self.topology.home_of(&text[start..start + length]).ok_or(Refusal::Nobody)?;
            if home.get_or_insert(next).unit != next.unit {
                return Err(Refusal::SpreadKeys);
            }
        }
        let home = home.expect("a request that is forwarded has a key");
        let connection = self.connection_for(sender, home.shard, plan.reads);
        self.admit(connection, canonical.len(), limits, sender.now)
            .map_err(|failure| Refusal::Failed(connection, failure))?;
        let number = replies.submitted(plan.manner);
        self.submit(connection, sender, number, 0, canonical.len(), home.unit, plan);
        Ok(connection)
    }

    /// Queues a fragment of the request for every shard that owns a key of it. Where one shard is known to be down
    /// nothing is half done, unless the client wants it so.
    #[allow(clippy::too_many_arguments)] // as `forward`, and how the responses are joined
    pub fn forward_split(
        &mut self,
        sender: Sender,
        replies: &mut Replies<P>,
        decoder: &P::RequestDecoder,
        canonical: &[u8],
        merge: P::Merge,
        plan: &mut Plan<P>,
        limits: &Limits,
        counters: &PoolCounters,
    ) -> Result<(), Refusal> {
        self.find_owners(sender, canonical, plan)?;
        let partly = P::is_served_partly(plan.manner);
        self.admit_targets(sender, canonical.len(), limits, partly)?;
        if let (&[connection], true) = (&self.targets[..], self.down.is_empty()) {
            let number = replies.submitted(plan.manner);
            self.submit(connection, sender, number, 0, canonical.len(), self.units[0], plan);
            self.connections[connection].copy(canonical);
            return Ok(());
        }
        self.submit_fragments(sender, replies, decoder, canonical, merge, plan, counters);
        Ok(())
    }

    /// Queues a fragment of the request for every shard. One that is down fails its fragment only: what is meant for
    /// all is done by those that can.
    #[allow(clippy::too_many_arguments)] // as `forward_split`
    pub fn forward_everywhere(
        &mut self,
        sender: Sender,
        replies: &mut Replies<P>,
        decoder: &P::RequestDecoder,
        canonical: &[u8],
        merge: P::Merge,
        plan: &mut Plan<P>,
        limits: &Limits,
        counters: &PoolCounters,
    ) -> Result<(), Refusal> {
        plan.owners.clear();
        self.targets.clear();
        self.units.clear();
        for place in 0..self.order.len() {
            self.targets.push(self.connection(sender, self.order[place]));
        }
        self.admit_targets(sender, canonical.len(), limits, true)?;
        self.submit_fragments(sender, replies, decoder, canonical, merge, plan, counters);
        Ok(())
    }

    /// Whether `targets` take a fragment each. If the request is to be served partly, `down` has those that do not.
    fn admit_targets(
        &mut self,
        sender: Sender,
        length: usize,
        limits: &Limits,
        partly: bool,
    ) -> Result<(), Refusal> {
        self.down.clear();
        for place in 0..self.targets.len() {
            let connection = self.targets[place];
            match self.admit(connection, length, limits, sender.now) {
                Ok(()) => {}
                Err(failure) if partly && failure != ShardFailure::QueueFull => {
                    self.down.push((place, failure))
                }
                Err(failure) => return Err(Refusal::Failed(connection, failure)),
            }
        }
        Ok(())
    }

    /// Queues a fragment for each of `targets`; answers those of `down` at once.
    #[allow(clippy::too_many_arguments)] // as `forward_split`
    fn submit_fragments(
        &mut self,
        sender: Sender,
        replies: &mut Replies<P>,
        decoder: &P::RequestDecoder,
        canonical: &[u8],
        merge: P::Merge,
        plan: &mut Plan<P>,
        counters: &PoolCounters,
    ) {
        let number = self.begin_merging(replies, decoder, canonical, merge, plan, counters);
        let mut down = std::mem::take(&mut self.down).into_iter().peekable();
        for place in 0..self.targets.len() {
            let Some((_, failure)) = down.next_if(|(failed, _)| *failed == place) else {
                let mut bytes = std::mem::take(&mut plan.fragments[place]);
                self.submit_fragment(place, &mut bytes, sender, number, plan);
                plan.fragments[place] = bytes;
                continue;
            };
            counters.forward_error.add(1);
            self.counters_of(self.targets[place]).failures[failure.reason()].add(1);
            let words = failure.of_shard(self.name_of(self.targets[place]));
            plan.reply.clear();
            P::failure(plan.manner, &words, &mut plan.reply);
            replies.answer(number, place as u32, Piece::Copied(&plan.reply), true);
        }
    }

    /// One more request is in flight, in a fragment for each of `targets`; returns its number.
    fn begin_merging(
        &mut self,
        replies: &mut Replies<P>,
        decoder: &P::RequestDecoder,
        canonical: &[u8],
        merge: P::Merge,
        plan: &mut Plan<P>,
        counters: &PoolCounters,
    ) -> u32 {
        let count = self.targets.len();
        if plan.fragments.len() < count {
            plan.fragments.resize_with(count, Vec::new);
        }
        P::split(&merge, decoder, canonical, &plan.owners, &mut plan.fragments[..count]);
        counters.fragments.add(count as u64);
        let merging = Merging {
            merge,
            owners: Owners::new(&plan.owners, count),
            parts: self.targets.iter().map(|&target| Part::new(self.name_of(target).clone())).collect(),
            missing: count,
        };
        replies.submitted_split(plan.manner, merging)
    }

    /// Queues one fragment of a request.
    fn submit_fragment(
        &mut self,
        place: usize,
        bytes: &mut Vec<u8>,
        sender: Sender,
        number: u32,
        plan: &Plan<P>,
    ) {
        let connection = self.targets[place];
        let unit = self.units.get(place).copied().unwrap_or(0);
        self.submit(connection, sender, number, place as u32, bytes.len(), unit, plan);
        let connection = &mut self.connections[connection];
        if bytes.len() < SHARE_MIN {
            connection.copy(bytes);
            bytes.clear();
        } else {
            connection.share(Bytes::from(std::mem::take(bytes)));
        }
    }

    /// Sets `plan.owners` (a fragment for each key) and `targets` (a connection for each fragment).
    fn find_owners(&mut self, sender: Sender, canonical: &[u8], plan: &mut Plan<P>) -> Result<(), Refusal> {
        plan.owners.clear();
        self.targets.clear();
        self.units.clear();
        let mut complete = true;
        for &(start, length) in &plan.keys {
            let Some(Home { shard, unit }) = self.topology.home_of(&canonical[start..start + length]) else {
                complete = false;
                break;
            };
            if self.fragment_of[unit] == u32::MAX {
                self.fragment_of[unit] = self.targets.len() as u32;
                self.targets.push(self.connection_for(sender, shard, plan.reads));
                self.units.push(unit);
            }
            plan.owners.push(self.fragment_of[unit]);
        }
        for &unit in &self.units {
            self.fragment_of[unit] = u32::MAX;
        }
        if complete { Ok(()) } else { Err(Refusal::Nobody) }
    }

    /// Whether a request of so many bytes may be queued on the connection; if need be it is to be made.
    #[inline]
    pub fn admit(
        &mut self,
        index: ConnectionIndex,
        length: usize,
        limits: &Limits,
        now: Time,
    ) -> Result<(), ShardFailure> {
        if self.turn.late {
            return Err(ShardFailure::ResponseTimeout);
        }
        let connection = &self.connections[index];
        match connection.admission(length, limits, now) {
            Admission::Open => Ok(()),
            Admission::Connect => {
                self.connect(index);
                Ok(())
            }
            Admission::Probe(failure) => {
                self.connections[index].link = Link::Connecting { after: Some(failure.clone()) };
                self.to_connect.push(index);
                Err(failure)
            }
            Admission::Crowded if self.is_its_turn(index) => Ok(()),
            Admission::Full | Admission::Crowded => Err(ShardFailure::QueueFull),
            Admission::Down(failure) => Err(failure),
        }
    }

    /// Whether the client at hand goes before those that wait for room.
    fn is_its_turn(&mut self, index: ConnectionIndex) -> bool {
        if let Some((connection, left)) = &mut self.turn.queue
            && *connection == index
            && *left > 0
        {
            *left -= 1;
            return true;
        }
        let first = self.connections[index].waiting.front();
        self.turn.since.is_some_and(|since| first.is_none_or(|first| since <= first.since))
    }

    /// The client waits for room in the queue of the connection.
    pub fn wait(&mut self, index: ConnectionIndex, waiter: Waiter, limits: &Limits) {
        let deadline = waiter.deadline(limits);
        self.wait_deadline = Some(self.wait_deadline.map_or(deadline, |earliest| earliest.min(deadline)));
        self.connections[index].wait(waiter);
    }

    #[inline]
    #[allow(clippy::too_many_arguments)] // what makes a ticket
    fn submit(
        &mut self,
        index: ConnectionIndex,
        sender: Sender,
        number: u32,
        fragment: u32,
        length: usize,
        unit: usize,
        plan: &Plan<P>,
    ) {
        let ticket = Ticket {
            client: Some(sender.id),
            number,
            fragment,
            length: length as u64,
            since: sender.since,
            expected: plan.expected,
            slot: unit as u16,
            scripted: plan.scripted,
            reads: plan.reads,
            tries: 0,
            asks: false,
            unkept: false,
            prelude: false,
            expired: false,
        };
        self.submit_ticket(index, ticket, sender.now);
    }

    /// Queues a request; the caller appends the bytes to the connection.
    #[inline]
    pub fn submit_ticket(&mut self, index: ConnectionIndex, ticket: Ticket<P>, now: Time) {
        let connection = &mut self.connections[index];
        if let Some(timeout) = self.timeout
            && (connection.in_flight.len() == connection.expired || ticket.since < now)
        {
            // Requests that are queued as they are read come after this one, and so do their deadlines.
            let deadline = ticket.since.plus(timeout);
            self.deadline = Some(self.deadline.map_or(deadline, |earliest| earliest.min(deadline)));
        }
        connection.submitted(ticket, now);
        let counters = &self.members[connection.shard].counters;
        counters.requests.add(1);
        counters.request_bytes.add(ticket.length);
        self.mark(index);
    }

    /// The connection is to be made.
    pub fn connect(&mut self, index: ConnectionIndex) {
        self.connections[index].link = Link::Connecting { after: None };
        self.to_connect.push(index);
    }

    /// The connection has something to write.
    #[inline]
    pub fn mark(&mut self, index: ConnectionIndex) {
        if !std::mem::replace(&mut self.connections[index].dirty, true) {
            self.dirty.push(index);
        }
    }

    /// The shard with this name has answered somebody.
    pub fn recovered(&mut self, name: &str) {
        for member in self.members.iter_mut().filter(|member| *member.name == *name) {
            if std::mem::take(&mut member.failing) {
                member.counters.failing.add(-1);
                self.events.push(ShardEvent { shard: member.name.clone(), failure: None });
            }
        }
    }

    /// The shard does not serve: it counts as unhealthy until it answers somebody.
    pub fn failing(&mut self, member: usize) {
        let member = &mut self.members[member];
        if !member.leaving && !std::mem::replace(&mut member.failing, true) {
            member.counters.failing.add(1);
        }
    }

    /// Something that was begun at `began` has failed. What was under way at a failure fails with it: one stall is
    /// reported once for each timeout, however many requests and connections wait. One that has left may have a successor
    /// elsewhere, which is known by the same name.
    pub fn failed(&mut self, member: usize, failure: &ShardFailure, blame: Blame, began: Time, now: Time) {
        match blame {
            _ if self.members[member].leaving => return,
            Blame::Nobody => return,
            Blame::Unknown => {}
            Blame::Shard => {
                self.failing(member);
                let member = &mut self.members[member];
                if member.failed_at.is_some_and(|last| began < last) {
                    return;
                }
                member.failed_at = Some(now);
            }
        }
        let failed = Failed { failure: failure.clone(), blame, began, at: now };
        self.events.push(ShardEvent { shard: self.members[member].name.clone(), failure: Some(failed) });
    }

    /// The next number of a sequence that differs between workers (xorshift64*).
    pub fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
