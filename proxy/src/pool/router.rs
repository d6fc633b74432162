//! Which connection of which shard a request takes, and whether it may.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use shard_discovery::{Address, Group, HashTag, Home, Topology};

use super::block::Block;
use super::connection::Admission;
use super::connections::{ConnectionId, Connections};
use super::members::{MemberIndex, Members, ShardIndex};
use super::pace::Pace;
use super::policy::Policy;
use super::replies::Replies;
use super::spare::Spare;
use super::ticket::{Sender, Ticket, Waiter};
use super::transfers::Transfers;
use super::{ClientId, Limits};
use crate::buffer::{Piece, SHARE_MIN};
use crate::failure::ShardFailure;
use crate::metrics::ShardCounters;
use crate::protocol::{Plan, Protocol, Spread};
use crate::time::Time;

/// The way from requests to the shards of a pool.
pub(super) struct Router<P: Protocol> {
    pub topology: Arc<Topology>,
    pub members: Members,
    pub connections: Connections<P>,
    /// Those that a client may have to itself, and none has.
    pub spare: Spare<P>,
    /// Those that are to be made later.
    pub pace: Pace,
    /// Connections to each shard that is added from now on.
    pub(super) per_shard: usize,
    /// Those keep requests until they are answered.
    pub(super) keeps: bool,
    /// No deadline of any connection is earlier.
    pub deadline: Option<Time>,
    /// No shard has to have said who it is before.
    pub identity_deadline: Option<Time>,
    pub feeds: Feeds,
    /// Those on which shards tell of keys, by what they are for.
    pub trackers: [Feeds; 2],
    /// Values on their way from one shard to another.
    pub transfers: Transfers,
    /// Nobody who waits for room has waited long enough before.
    pub wait_deadline: Option<Time>,
    /// Whose turn it is: who waits for room goes before all others.
    pub turn: Turn,
    random: u64,
    pub(super) fragments: Fragments,
    /// What is left of the last transaction, for the next one.
    pub(super) spare_block: Option<Box<Block>>,
}

/// The shards that are listened to, or tell of keys.
#[derive(Default)]
pub(super) struct Feeds {
    /// The connections on which that is done.
    pub of_members: HashMap<MemberIndex, ConnectionId>,
    /// None of them has to be looked at before.
    pub due: Option<Time>,
}

/// What the client at hand may do while others wait for room.
#[derive(Clone, Copy, Default)]
pub(super) struct Turn {
    /// It may queue so many requests on this connection.
    pub queue: Option<(ConnectionId, usize)>,
    /// It waits itself, since then.
    pub since: Option<Time>,
}

/// Where a request goes, or a fragment of one.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub connection: ConnectionId,
    /// The unit of the topology that its keys are in.
    pub unit: usize,
}

/// The fragments of the split request at hand.
#[derive(Default)]
pub(super) struct Fragments {
    /// Where each of them goes.
    pub targets: Vec<Target>,
    /// Those of `targets` whose shard is down, by their places, with the reason, if the rest of the request is served.
    pub down: Vec<(usize, ShardFailure)>,
    /// For each unit of the topology, its place in `targets` while owners are looked for.
    pub of_units: Vec<u32>,
}

/// Why a request is not sent.
pub(super) enum Refusal {
    /// No single shard owns its keys.
    SpreadKeys,
    /// There is no shard to ask: all are ejected, or nobody owns the slot.
    Nobody,
    /// The shard does not execute transactions.
    NoBlocks(ConnectionId),
    /// The shard cannot take it.
    Failed(ConnectionId, ShardFailure),
    /// As many clients as may have connections of the shard to themselves.
    Occupied(MemberIndex),
    /// The client watches keys of another shard.
    WatchesElsewhere,
    /// This is the reply.
    Reply(String),
}

impl<P: Protocol> Router<P> {
    pub fn new(
        topology: Arc<Topology>,
        counters: &[Arc<ShardCounters>],
        per_shard: usize,
        policy: Policy,
        seed: u64,
    ) -> Self {
        let mut router = Self {
            topology: topology.clone(),
            members: Members::default(),
            connections: Connections::new(policy),
            spare: Spare::default(),
            pace: Pace::default(),
            per_shard,
            keeps: false,
            deadline: None,
            identity_deadline: None,
            feeds: Feeds::default(),
            trackers: Default::default(),
            transfers: Transfers::default(),
            wait_deadline: None,
            turn: Turn::default(),
            random: seed | 1,
            fragments: Fragments::default(),
            spare_block: None,
        };
        router.adopt(topology, counters, per_shard, policy);
        router
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
    pub fn needed_members(&self) -> HashSet<MemberIndex> {
        let (owners, readers) = self.owners_and_readers();
        owners.union(&readers).copied().collect()
    }

    /// Members of a cluster that own slots, and those that answer reads; none elsewhere.
    pub(super) fn owners_and_readers(&self) -> (HashSet<MemberIndex>, HashSet<MemberIndex>) {
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
        let member = |shard: usize| self.members.of(ShardIndex(shard));
        (owners.iter().copied().map(member).collect(), readers.map(member).collect())
    }

    /// What is counted of the shard that the connection belongs to.
    pub fn counters_of(&self, connection: ConnectionId) -> &ShardCounters {
        &self.members[self.connections[connection].member].counters
    }

    /// Name of the shard that the connection belongs to.
    pub fn name_of(&self, connection: ConnectionId) -> &Arc<str> {
        &self.members[self.connections[connection].member].name
    }

    #[inline]
    pub(super) fn connection(&self, sender: Sender, member: MemberIndex) -> ConnectionId {
        self.connections.shared(sender.lane, member, sender.number)
    }

    /// The connection for a request to the shard of the topology. Reads may go to others that have the same keys: each
    /// client to one of them, to the shard itself where none is there.
    #[inline(always)]
    pub(super) fn connection_for(&self, sender: Sender, shard: ShardIndex, reads: bool) -> ConnectionId {
        if reads && !self.topology.readers(shard.0).is_empty() {
            return self.connection_to_read(sender, shard);
        }
        self.connection(sender, self.members.of(shard))
    }

    /// The same, for a request that any of several may answer. Out of line: most pools have no replicas that are read.
    #[inline(never)]
    fn connection_to_read(&self, sender: Sender, shard: ShardIndex) -> ConnectionId {
        let readers = self.topology.readers(shard.0);
        if !self.connections.is_pinned(sender.lane, self.members.of(shard))
            // A replica hears of changes late.
            && !P::is_told(self.connections.lane_key(sender.lane))
        {
            let start = (sender.number % readers.len() as u64) as usize;
            let in_turn = readers[start..].iter().chain(&readers[..start]);
            let mut connections =
                in_turn.map(|&reader| self.connection(sender, self.members.of(ShardIndex(reader))));
            let is_there = |&id: &ConnectionId| !self.connections[id].is_down(sender.now);
            if let Some(connection) = connections.find(is_there) {
                return connection;
            }
        }
        self.connection(sender, self.members.of(shard))
    }

    /// The owner of the slot. Nobody owns it where the shards are no cluster any more: keys are dealt otherwise there.
    pub fn owner_of_slot(&self, slot: u16) -> Option<MemberIndex> {
        if !self.topology.redirects() {
            return None;
        }
        Some(self.members.of(ShardIndex(self.topology.owner_of_slot(slot)?)))
    }

    /// The server at this address, if it is in the pool.
    pub fn member_at(&self, host: &str, port: u16) -> Option<MemberIndex> {
        let is_at = |member: &&MemberIndex| match &self.members[**member].shard.address {
            Address::Tcp { host: known, port: at } => known == host && *at == port,
            Address::Unix(_) => false,
        };
        self.members.present().iter().find(is_at).copied()
    }

    /// Where a request goes that is sent to the shard that owns all of its keys; it may be submitted there.
    #[inline]
    pub fn admit_whole(
        &mut self,
        sender: Sender,
        canonical: &[u8],
        plan: &Plan<P>,
        limits: &Limits,
    ) -> Result<Target, Refusal> {
        let Home { shard, unit } = self.home_of_keys(canonical, plan)?;
        let connection = self.connection_for(sender, ShardIndex(shard), plan.reads);
        self.admit(connection, canonical.len(), limits, sender.since, sender.now)
            .map_err(|failure| Refusal::Failed(connection, failure))?;
        Ok(Target { connection, unit })
    }

    /// The shard that owns all keys of the request.
    #[inline(always)]
    pub fn home_of_keys(&self, canonical: &[u8], plan: &Plan<P>) -> Result<Home, Refusal> {
        let mut home: Option<Home> = None;
        let text = plan.key_text(canonical);
        for &(start, length) in &plan.keys {
            let next = self.topology.home_of(&text[start..start + length]).ok_or(Refusal::Nobody)?;
            if home.get_or_insert(next).unit != next.unit {
                return Err(Refusal::SpreadKeys);
            }
        }
        Ok(home.expect("a request that is forwarded has a key"))
    }

    /// Whether a request of so many bytes, read at `since`, may be queued on the connection; if need be it is to be made.
    #[inline(always)]
    pub fn admit(
        &mut self,
        id: ConnectionId,
        length: usize,
        limits: &Limits,
        since: Time,
        now: Time,
    ) -> Result<(), ShardFailure> {
        // One that is queued as it is read has all of its time.
        if since >= now && self.connections[id].is_open(length, limits) {
            return Ok(());
        }
        self.admit_with_care(id, length, limits, since, now)
    }

    /// The same for the few that waited before, or find their connection not ready or its queue long.
    #[inline(never)]
    fn admit_with_care(
        &mut self,
        id: ConnectionId,
        length: usize,
        limits: &Limits,
        since: Time,
        now: Time,
    ) -> Result<(), ShardFailure> {
        let connection = &self.connections[id];
        if since < now && connection.policy.deadline(since).is_some_and(|deadline| deadline <= now) {
            return Err(ShardFailure::ResponseTimeout);
        }
        match connection.admission(length, limits, now) {
            Admission::Open => Ok(()),
            Admission::Connect => {
                self.connections.connect(id);
                Ok(())
            }
            Admission::Probe(failure) => {
                self.connections.connect_after(id, Some(failure.clone()));
                Err(failure)
            }
            Admission::Crowded if self.is_its_turn(id) => Ok(()),
            Admission::Full | Admission::Crowded => Err(ShardFailure::QueueFull),
            Admission::Down(failure) => Err(failure),
        }
    }

    /// Whether the client at hand goes before those that wait for room.
    fn is_its_turn(&mut self, id: ConnectionId) -> bool {
        if let Some((connection, left)) = &mut self.turn.queue
            && *connection == id
            && *left > 0
        {
            *left -= 1;
            return true;
        }
        let first = self.connections[id].waiting.front();
        self.turn.since.is_some_and(|since| first.is_none_or(|first| since <= first.since))
    }

    /// The client waits for room in the queue of the connection.
    pub fn wait(&mut self, id: ConnectionId, waiter: Waiter, limits: &Limits) {
        let deadline = waiter.deadline(self.connections[id].policy, limits);
        self.wait_deadline = Some(self.wait_deadline.map_or(deadline, |earliest| earliest.min(deadline)));
        self.connections[id].wait(waiter);
    }

    /// The client does not wait for room any more.
    pub fn stop_waiting(&mut self, id: ConnectionId, client: ClientId, since: Time) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.stop_waiting(client, since);
        }
    }

    /// Queues a request that was admitted, as it is.
    #[inline]
    pub fn submit_whole(
        &mut self,
        Target { connection, unit }: Target,
        sender: Sender,
        request: Piece<'_>,
        plan: &Plan<P>,
        replies: &mut Replies<P>,
    ) {
        let number = replies.submitted(plan.manner);
        self.submit(connection, Ticket::new(sender, number, 0, unit, plan), request, sender.now);
    }

    /// Queues a request, or a fragment of one, that was admitted.
    #[inline]
    pub fn submit(&mut self, id: ConnectionId, ticket: Ticket<P>, request: Piece<'_>, now: Time) {
        let connection = &mut self.connections[id];
        // Requests that are queued as they are read come after this one, and so do their deadlines.
        if (!connection.is_waited_for() || ticket.since < now)
            && let Some(deadline) = connection.policy.deadline(ticket.since)
        {
            self.deadline = Some(self.deadline.map_or(deadline, |earliest| earliest.min(deadline)));
        }
        let counters = &self.members[connection.member].counters;
        counters.requests.add(1);
        counters.request_bytes.add(request.as_slice().len() as u64);
        connection.submit(ticket, request, now);
        self.connections.mark(id);
    }

    /// The same; what is large is not copied.
    pub fn submit_owned(&mut self, id: ConnectionId, ticket: Ticket<P>, request: Vec<u8>, now: Time) {
        if request.len() < SHARE_MIN {
            self.submit(id, ticket, Piece::Copied(&request), now);
        } else {
            self.submit(id, ticket, Piece::Shared(request.into()), now);
        }
    }

    /// Why there is no shard to ask.
    pub fn nobody(&self) -> &'static str {
        if self.topology.can_eject() {
            "every shard of the pool is ejected"
        } else {
            "no node of the cluster is known to serve the slot"
        }
    }

    /// The next number of a sequence that differs between workers (xorshift64*).
    pub fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
