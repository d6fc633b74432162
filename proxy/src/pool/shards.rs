//! The shards of a pool: which connection a request takes, and whether it may.
//!
//! A shard has a place of its own here, its member, that stays what it is while the list of shards changes around it:
//! only the way from the topology to the members is made anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shard_discovery::{Address, Shard, Topology};

use super::buffer::SHARE_MIN;
use super::failure::ShardFailure;
use super::replies::{Merging, Replies};
use super::shard::{Admission, Link, ShardConnection, Ticket};
use super::time::Time;
use super::{ClientId, ConnectionIndex, Limits, ShardEvent};
use crate::metrics::{PoolCounters, ShardCounters};
use crate::protocol::{Part, Piece, Plan, Protocol};

/// The shards of a pool and the connections to them.
pub(super) struct Shards<P: Protocol> {
    pub topology: Arc<Topology>,
    /// For each shard of the topology, its member.
    order: Vec<usize>,
    pub members: Vec<Member>,
    pub lanes: Vec<Lane<P>>,
    pub connections: Vec<ShardConnection<P>>,
    /// Connections to each shard that is added from now on.
    per_shard: usize,
    pub dirty: Vec<ConnectionIndex>,
    pub to_connect: Vec<ConnectionIndex>,
    pub to_close: Vec<(ConnectionIndex, ShardFailure)>,
    pub events: Vec<ShardEvent>,
    /// No deadline of any connection is earlier.
    pub deadline: Option<Time>,
    timeout: Option<Duration>,
    random: u64,
    /// Connections that the fragments of the split request at hand take.
    targets: Vec<ConnectionIndex>,
    /// Places in `targets` of shards that are down, with the reason, if the rest of the request is served.
    down: Vec<(usize, ShardFailure)>,
    /// For each member, its place in `targets` while a request is split.
    fragment_of: Vec<u32>,
}

/// One shard, and what stays the same as long as it is one.
pub(super) struct Member {
    pub shard: Shard,
    pub name: Arc<str>,
    pub counters: Arc<ShardCounters>,
    /// Connections to it in each lane.
    per_shard: usize,
    /// Its last event was a failure.
    pub failing: bool,
    /// It is not in the pool any more: what is in flight is finished, then its connections are closed.
    pub leaving: bool,
}

/// Connections shared by clients of the same database and protocol version.
pub(super) struct Lane<P: Protocol> {
    pub key: P::Lane,
    /// For each member the place of its first connection; its others stand behind.
    first: Vec<ConnectionIndex>,
}

/// Whose request it is.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub id: ClientId,
    /// The client's number: it stays on one connection of a shard, so that its requests keep their order.
    pub number: u64,
    pub lane: u32,
    pub now: Time,
}

/// Why a request is not sent.
pub(super) enum Refusal {
    /// No single shard owns its keys.
    SpreadKeys,
    /// There is no shard to ask.
    AllEjected,
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
            connections: Vec::new(),
            per_shard,
            dirty: Vec::new(),
            to_connect: Vec::new(),
            to_close: Vec::new(),
            events: Vec::new(),
            deadline: None,
            timeout,
            random: seed | 1,
            targets: Vec::new(),
            down: Vec::new(),
            fragment_of: Vec::new(),
        };
        shards.adopt(topology, counters, per_shard, timeout);
        shards
    }

    /// Takes another list of shards. Those that stay keep their connections, new ones are connected when they are
    /// needed, the others leave. Returns clients that waited for one of those.
    pub fn adopt(
        &mut self,
        topology: Arc<Topology>,
        counters: &[Arc<ShardCounters>],
        per_shard: usize,
        timeout: Option<Duration>,
    ) -> Vec<ClientId> {
        self.per_shard = per_shard.max(1);
        self.timeout = timeout;
        self.deadline = timeout.and_then(|timeout| {
            self.connections.iter().filter_map(|connection| connection.deadline(timeout)).min()
        });
        // Where a shard was found elsewhere its former member may still be leaving: the present one comes later here and
        // counts, or clients' requests could overtake those that are in flight there.
        let mut known: Vec<usize> = (0..self.members.len()).collect();
        known.retain(|&index| self.members[index].per_shard == self.per_shard);
        known.sort_by_key(|&index| !self.members[index].leaving);
        let staying: HashMap<(String, Address), usize> = known
            .into_iter()
            .map(|index| {
                let Shard { name, address, .. } = &self.members[index].shard;
                ((name.clone(), address.clone()), index)
            })
            .collect();
        let mut stays = vec![false; self.members.len()];
        let mut order = Vec::with_capacity(topology.shards().len());
        for (shard, counters) in topology.shards().iter().zip(counters) {
            let kept = staying.get(&(shard.name.clone(), shard.address.clone())).copied();
            if let Some(index) = kept {
                stays[index] = true;
                self.members[index].leaving = false;
                self.members[index].counters = counters.clone();
                self.members[index].shard.weight = shard.weight;
            }
            order.push(kept);
        }
        let mut waiting = Vec::new();
        for (index, _) in stays.iter().enumerate().filter(|(_, stays)| !**stays) {
            self.leave(index, &mut waiting);
        }
        let mut free: Vec<usize> = (0..stays.len()).filter(|&index| self.is_spent(index)).collect();
        self.order = order
            .into_iter()
            .zip(topology.shards().iter().zip(counters))
            .map(|(kept, (shard, counters))| {
                kept.unwrap_or_else(|| self.join(shard.clone(), counters.clone(), free.pop()))
            })
            .collect();
        self.topology = topology;
        waiting
    }

    /// The shard with this name gets a new member, and so new connections. Returns clients that waited for the present
    /// one.
    pub fn renew(&mut self, name: &str) -> Vec<ClientId> {
        let mut waiting = Vec::new();
        let of_name = |&member: &usize| *self.members[member].name == *name;
        let Some(place) = self.order.iter().position(of_name) else { return waiting };
        let before = self.order[place];
        self.leave(before, &mut waiting);
        let free = (0..self.members.len()).find(|&index| self.is_spent(index));
        let (shard, counters) = (self.members[before].shard.clone(), self.members[before].counters.clone());
        self.order[place] = self.join(shard, counters, free);
        waiting
    }

    /// A new member, in the place of one that is spent if there is such a place.
    fn join(&mut self, shard: Shard, counters: Arc<ShardCounters>, free: Option<usize>) -> usize {
        let member = Member {
            name: shard.name.as_str().into(),
            shard,
            counters,
            per_shard: self.per_shard,
            failing: false,
            leaving: false,
        };
        if let Some(index) = free {
            let before = std::mem::replace(&mut self.members[index], member);
            for lane in 0..self.lanes.len() {
                let (key, first) = (self.lanes[lane].key, self.lanes[lane].first[index]);
                if before.per_shard == self.per_shard {
                    for connection in &mut self.connections[first..first + before.per_shard] {
                        *connection = ShardConnection::new(index, key);
                    }
                } else {
                    self.lanes[lane].first[index] = self.add_connections(index, key);
                }
            }
            return index;
        }
        self.members.push(member);
        self.fragment_of.push(u32::MAX);
        let index = self.members.len() - 1;
        for lane in 0..self.lanes.len() {
            let first = self.add_connections(index, self.lanes[lane].key);
            self.lanes[lane].first.push(first);
        }
        index
    }

    /// Adds the member's connections of one lane; the place of the first.
    fn add_connections(&mut self, member: usize, key: P::Lane) -> ConnectionIndex {
        let first = self.connections.len();
        self.connections
            .extend((0..self.members[member].per_shard).map(|_| ShardConnection::new(member, key)));
        first
    }

    /// The connections of a member, in all lanes.
    fn connections_of(&self, member: usize) -> impl Iterator<Item = ConnectionIndex> {
        let per_shard = self.members[member].per_shard;
        let firsts: Vec<ConnectionIndex> = self.lanes.iter().map(|lane| lane.first[member]).collect();
        firsts.into_iter().flat_map(move |first| first..first + per_shard)
    }

    /// The member is in the pool no more. Clients that wait for it may go on elsewhere.
    fn leave(&mut self, member: usize, waiting: &mut Vec<ClientId>) {
        self.members[member].leaving = true;
        if std::mem::take(&mut self.members[member].failing) {
            self.members[member].counters.failing.add(-1);
        }
        for index in self.connections_of(member).collect::<Vec<_>>() {
            waiting.extend(self.connections[index].waiting.drain(..));
            self.close_if_left(index);
        }
    }

    /// Closes a connection that was only needed for what was in flight.
    pub fn close_if_left(&mut self, index: ConnectionIndex) {
        let connection = &self.connections[index];
        let is_made = matches!(connection.link, Link::Up | Link::Greeting { .. });
        if self.members[connection.shard].leaving && is_made && connection.in_flight.is_empty() {
            self.to_close.push((index, ShardFailure::Removed));
        }
    }

    /// Whether the member has left and nothing remains of it.
    fn is_spent(&self, member: usize) -> bool {
        self.members[member].leaving
            && self.connections_of(member).all(|index| {
                let connection = &self.connections[index];
                matches!(connection.link, Link::Idle | Link::Down { .. }) && connection.in_flight.is_empty()
            })
    }

    /// Connections of other lanes than the first.
    pub fn extra_connections(&self) -> impl Iterator<Item = ConnectionIndex> {
        let firsts = self.lanes.iter().skip(1).flat_map(|lane| lane.first.iter().enumerate());
        firsts.flat_map(|(member, &first)| first..first + self.members[member].per_shard)
    }

    /// The lane with this key, made if it is new.
    pub fn lane(&mut self, key: P::Lane) -> u32 {
        if let Some(index) = self.lanes.iter().position(|lane| lane.key == key) {
            return index as u32;
        }
        let first = (0..self.members.len()).map(|member| self.add_connections(member, key)).collect();
        self.lanes.push(Lane { key, first });
        self.lanes.len() as u32 - 1
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
        let per_shard = self.members[member].per_shard;
        let nth = if per_shard == 1 { 0 } else { (sender.number % per_shard as u64) as usize };
        self.lanes[sender.lane as usize].first[member] + nth
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
        let mut owner = None;
        let text = plan.key_text(canonical);
        for &(start, length) in &plan.keys {
            let shard = self.topology.shard_for(&text[start..start + length]);
            let shard = shard.ok_or(Refusal::AllEjected)?;
            if *owner.get_or_insert(shard) != shard {
                return Err(Refusal::SpreadKeys);
            }
        }
        let shard = owner.expect("a request that is forwarded has a key");
        let connection = self.connection(sender, self.order[shard]);
        self.admit(connection, limits, sender.now).map_err(|failure| Refusal::Failed(connection, failure))?;
        let number = replies.submitted(plan.manner);
        self.submit(connection, sender, number, 0, canonical.len());
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
        self.admit_targets(sender, limits, partly)?;
        if let (&[connection], true) = (&self.targets[..], self.down.is_empty()) {
            let number = replies.submitted(plan.manner);
            self.submit(connection, sender, number, 0, canonical.len());
            self.connections[connection].output.copy(canonical);
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
        for place in 0..self.order.len() {
            self.targets.push(self.connection(sender, self.order[place]));
        }
        self.admit_targets(sender, limits, true)?;
        self.submit_fragments(sender, replies, decoder, canonical, merge, plan, counters);
        Ok(())
    }

    /// Whether `targets` take a fragment each. If the request is to be served partly, `down` has those that do not.
    fn admit_targets(&mut self, sender: Sender, limits: &Limits, partly: bool) -> Result<(), Refusal> {
        self.down.clear();
        for place in 0..self.targets.len() {
            let connection = self.targets[place];
            match self.admit(connection, limits, sender.now) {
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
                self.submit_fragment(place, &mut plan.fragments[place], sender, number);
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
            owners: plan.owners.as_slice().into(),
            parts: self.targets.iter().map(|&target| Part::new(self.name_of(target).clone())).collect(),
            missing: count,
        };
        replies.submitted_split(plan.manner, merging)
    }

    /// Queues one fragment of a request.
    fn submit_fragment(&mut self, place: usize, bytes: &mut Vec<u8>, sender: Sender, number: u32) {
        let connection = self.targets[place];
        self.submit(connection, sender, number, place as u32, bytes.len());
        let output = &mut self.connections[connection].output;
        if bytes.len() < SHARE_MIN {
            output.copy(bytes);
            bytes.clear();
        } else {
            output.share(Bytes::from(std::mem::take(bytes)));
        }
    }

    /// Sets `plan.owners` (a fragment for each key) and `targets` (a connection for each fragment).
    fn find_owners(&mut self, sender: Sender, canonical: &[u8], plan: &mut Plan<P>) -> Result<(), Refusal> {
        plan.owners.clear();
        self.targets.clear();
        let mut complete = true;
        for &(start, length) in &plan.keys {
            let Some(shard) = self.topology.shard_for(&canonical[start..start + length]) else {
                complete = false;
                break;
            };
            let member = self.order[shard];
            if self.fragment_of[member] == u32::MAX {
                self.fragment_of[member] = self.targets.len() as u32;
                self.targets.push(self.connection(sender, member));
            }
            plan.owners.push(self.fragment_of[member]);
        }
        for &target in &self.targets {
            self.fragment_of[self.connections[target].shard] = u32::MAX;
        }
        if complete { Ok(()) } else { Err(Refusal::AllEjected) }
    }

    /// Whether a request may be queued on the connection; if need be it is to be made.
    #[inline]
    fn admit(&mut self, index: ConnectionIndex, limits: &Limits, now: Time) -> Result<(), ShardFailure> {
        let connection = &self.connections[index];
        match connection.admission(limits.shard_queue_max, limits.shard_queue_bytes_max, now) {
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
            Admission::Full => Err(ShardFailure::QueueFull),
            Admission::Down(failure) => Err(failure),
        }
    }

    #[inline]
    fn submit(&mut self, index: ConnectionIndex, sender: Sender, number: u32, fragment: u32, length: usize) {
        let connection = &mut self.connections[index];
        let length = length as u64;
        if let Some(timeout) = self.timeout
            && connection.in_flight.len() == connection.expired
        {
            // The other requests of the connection come after this one, and so do their deadlines.
            let deadline = sender.now.plus(timeout);
            self.deadline = Some(self.deadline.map_or(deadline, |earliest| earliest.min(deadline)));
        }
        connection.submitted(Ticket { client: Some(sender.id), number, fragment, length, since: sender.now });
        let counters = &self.members[connection.shard].counters;
        counters.requests.add(1);
        counters.request_bytes.add(length);
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

    /// The shard has failed.
    pub fn failed(&mut self, member: usize, failure: &ShardFailure) {
        let member = &mut self.members[member];
        if !std::mem::replace(&mut member.failing, true) {
            member.counters.failing.add(1);
        }
        self.events.push(ShardEvent { shard: member.name.clone(), failure: Some(failure.clone()) });
    }

    /// The next number of a sequence that differs between workers (xorshift64*).
    pub fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
