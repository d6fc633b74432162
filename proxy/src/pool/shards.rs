//! The shards of a pool: which connection a request takes, and whether it may.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shard_discovery::Topology;

use super::buffer::SHARE_MIN;
use super::failure::ShardFailure;
use super::replies::{Merging, Replies};
use super::shard::{Admission, Link, ShardConnection, Ticket};
use super::time::Time;
use super::{ClientId, ConnectionIndex, Limits, ShardEvent};
use crate::metrics::PoolCounters;
use crate::protocol::{Part, Piece, Plan, Protocol};

/// The shards of a pool and the connections to them.
pub(super) struct Shards<P: Protocol> {
    pub topology: Arc<Topology>,
    pub lanes: Vec<Lane<P>>,
    pub connections: Vec<ShardConnection<P>>,
    /// Connections to each shard.
    per_shard: usize,
    pub dirty: Vec<ConnectionIndex>,
    pub to_connect: Vec<ConnectionIndex>,
    pub to_close: Vec<(ConnectionIndex, ShardFailure)>,
    pub events: Vec<ShardEvent>,
    /// No deadline of any connection is earlier.
    pub deadline: Option<Time>,
    timeout: Option<Duration>,
    /// Shards whose last event was a failure.
    pub failing: Vec<bool>,
    random: u64,
    /// Connections that the fragments of the split request at hand take.
    targets: Vec<ConnectionIndex>,
    /// Places in `targets` of shards that are down, with the reason, if the rest of the request is served.
    down: Vec<(usize, ShardFailure)>,
    /// For each shard, its place in `targets` while a request is split.
    fragment_of: Vec<u32>,
}

/// Connections shared by clients of the same database and protocol version.
pub(super) struct Lane<P: Protocol> {
    pub key: P::Lane,
    /// Place of its first connection; those of each shard stand together.
    first: ConnectionIndex,
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
    pub fn new(topology: Arc<Topology>, per_shard: usize, timeout: Option<Duration>, seed: u64) -> Self {
        let count = topology.shards().len();
        Self {
            topology,
            lanes: Vec::new(),
            connections: Vec::new(),
            per_shard: per_shard.max(1),
            dirty: Vec::new(),
            to_connect: Vec::new(),
            to_close: Vec::new(),
            events: Vec::new(),
            deadline: None,
            timeout,
            failing: vec![false; count],
            random: seed | 1,
            targets: Vec::new(),
            down: Vec::new(),
            fragment_of: vec![u32::MAX; count],
        }
    }

    /// The lane with this key, made if it is new.
    pub fn lane(&mut self, key: P::Lane) -> u32 {
        if let Some(index) = self.lanes.iter().position(|lane| lane.key == key) {
            return index as u32;
        }
        self.lanes.push(Lane { key, first: self.connections.len() });
        for shard in 0..self.topology.shards().len() {
            for _ in 0..self.per_shard {
                self.connections.push(ShardConnection::new(shard, key));
            }
        }
        self.lanes.len() as u32 - 1
    }

    /// Ring name of the shard that the connection belongs to.
    pub fn name_of(&self, connection: ConnectionIndex) -> &str {
        &self.topology.shards()[self.connections[connection].shard].name
    }

    #[inline]
    fn connection(&self, sender: Sender, shard: usize) -> ConnectionIndex {
        let nth = if self.per_shard == 1 { 0 } else { (sender.number % self.per_shard as u64) as usize };
        self.lanes[sender.lane as usize].first + shard * self.per_shard + nth
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
        counters: &PoolCounters,
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
        let connection = self.connection(sender, shard);
        self.admit(connection, limits, sender.now).map_err(|failure| Refusal::Failed(connection, failure))?;
        let number = replies.submitted(plan.manner);
        self.submit(connection, sender, number, 0, canonical.len(), counters);
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
            self.submit(connection, sender, number, 0, canonical.len(), counters);
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
        for shard in 0..self.topology.shards().len() {
            self.targets.push(self.connection(sender, shard));
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
                self.submit_fragment(place, &mut plan.fragments[place], sender, number, counters);
                continue;
            };
            counters.forward_error.add(1);
            let name = |shard: usize| self.topology.shards()[shard].name.clone();
            let words = failure.of_shard(self.name_of(self.targets[place]));
            plan.reply.clear();
            P::failure(plan.manner, &words, &mut plan.reply);
            replies.answer(number, place as u32, Piece::Copied(&plan.reply), true, &name);
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
            parts: self.targets.iter().map(|&target| Part::new(self.connections[target].shard)).collect(),
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
        counters: &PoolCounters,
    ) {
        let connection = self.targets[place];
        self.submit(connection, sender, number, place as u32, bytes.len(), counters);
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
            if self.fragment_of[shard] == u32::MAX {
                self.fragment_of[shard] = self.targets.len() as u32;
                self.targets.push(self.connection(sender, shard));
            }
            plan.owners.push(self.fragment_of[shard]);
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
    fn submit(
        &mut self,
        index: ConnectionIndex,
        sender: Sender,
        number: u32,
        fragment: u32,
        length: usize,
        counters: &PoolCounters,
    ) {
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
        let counters = &counters.shards[connection.shard];
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

    /// The shard has failed.
    pub fn failed(&mut self, shard: usize, failure: &ShardFailure) {
        self.failing[shard] = true;
        self.events.push(ShardEvent { shard, failure: Some(failure.clone()) });
    }

    /// The next number of a sequence that differs between workers (xorshift64*).
    pub fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
