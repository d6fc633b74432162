//! The book of shard connections: which there are, who shares them, and what the worker has to do about them.
//!
//! A connection has its place here from when it may be needed until its lane has ended or nothing remains of its shard,
//! which has left the pool, whether it is made or not. The next one in that place has another generation, so what comes late for the one before meets nobody.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};

use slab::Slab;

use super::connection::{Connection, Link};
use super::members::MemberIndex;
use super::policy::Policy;
use crate::failure::ShardFailure;
use crate::protocol::Protocol;
use crate::time::Time;

/// Which shard connection: its place in the book, and which of those that had the place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId {
    /// Place in the book.
    pub index: u32,
    /// Tells apart those that had the place.
    pub generation: u32,
}

/// Connections shared by clients of the same database and protocol version.
pub(super) struct Lane<P: Protocol> {
    pub key: P::Lane,
    /// It is for clients that move large values: see `heavy.rs`.
    pub heavy: bool,
    /// Clients that use it.
    pub clients: usize,
    /// Nothing remains of it: its place is for the next.
    pub ended: bool,
    /// For each member its connections; each client uses one of them. Empty where the lane has ended.
    pub of_members: Vec<Vec<ConnectionId>>,
}

/// A client that has a connection to itself beside those it shares: see `pins.rs`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientPin {
    /// Its lane without it.
    pub lane: u32,
    /// To this shard.
    pub member: MemberIndex,
    /// This one.
    pub connection: ConnectionId,
}

/// The shard connections of a pool. It is indexed by those that are known to be there; [`Self::get`] finds out.
pub(super) struct Connections<P: Protocol> {
    slab: Slab<Connection<P>>,
    next_generation: u32,
    /// What holds for those that clients share.
    policy: Policy,
    pub(super) lanes: Vec<Lane<P>>,
    /// Those that have not ended, by their keys and whether they are for large values.
    pub(super) lane_of: HashMap<(P::Lane, bool), u32>,
    /// The lane of new clients.
    pub(super) usual: u32,
    /// Clients that have one to themselves for all that they ask of its shard.
    pub(super) pins: Slab<ClientPin>,
    /// Those with something to write.
    dirty: Vec<ConnectionId>,
    to_connect: Vec<ConnectionId>,
    to_close: Vec<(ConnectionId, ShardFailure)>,
    /// Those that nobody needs any more, one entry each; to be closed unless somebody does by then.
    unneeded: Vec<ConnectionId>,
    /// Those with room for clients that wait for it.
    roomy: Vec<ConnectionId>,
}

impl<P: Protocol> Connections<P> {
    /// None so far.
    pub fn new(policy: Policy) -> Self {
        Self {
            slab: Slab::new(),
            next_generation: 0,
            policy,
            lanes: Vec::new(),
            lane_of: HashMap::new(),
            usual: 0,
            pins: Slab::new(),
            dirty: Vec::new(),
            to_connect: Vec::new(),
            to_close: Vec::new(),
            unneeded: Vec::new(),
            roomy: Vec::new(),
        }
    }

    /// This holds from now on for those that clients share, also for requests that are in flight.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        for (_, connection) in &mut self.slab {
            if connection.is_ours() {
                connection.policy = Policy::feed(policy.timeout);
            } else if connection.private.is_none() {
                connection.policy = policy;
            }
        }
    }

    /// The earliest deadline of all.
    pub fn deadline(&self) -> Option<Time> {
        self.iter().filter_map(Connection::deadline).min()
    }

    /// How many there are, made or not.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// The connection, if it is still there.
    #[inline]
    pub fn get(&self, id: ConnectionId) -> Option<&Connection<P>> {
        self.slab.get(id.index as usize).filter(|connection| connection.generation == id.generation)
    }

    /// The connection, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection<P>> {
        self.slab.get_mut(id.index as usize).filter(|connection| connection.generation == id.generation)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Connection<P>> {
        self.slab.iter().map(|(_, connection)| connection)
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection<P>> {
        self.slab.iter_mut().map(|(_, connection)| connection)
    }

    /// Those that are so.
    pub fn find(&self, is_meant: impl Fn(&Connection<P>) -> bool) -> Vec<ConnectionId> {
        let meant = self.slab.iter().filter(|(_, connection)| is_meant(connection));
        meant.map(|(index, connection)| id(index, connection)).collect()
    }

    /// Adds connections to a member to a lane; they are made when somebody needs them.
    pub(super) fn add(&mut self, lane: usize, member: MemberIndex, count: usize, keeps: bool) {
        let key = self.lanes[lane].key;
        let added: Vec<_> = (0..count).map(|_| self.insert(member, key, self.policy, keeps)).collect();
        let lists = &mut self.lanes[lane].of_members;
        if lists.len() <= member.place() {
            lists.resize_with(member.place() + 1, Vec::new);
        }
        debug_assert!(lists[member.place()].is_empty(), "it has its connections");
        lists[member.place()] = added;
    }

    /// One more, which is found by its id alone.
    pub(super) fn insert(
        &mut self,
        member: MemberIndex,
        lane: P::Lane,
        policy: Policy,
        keeps: bool,
    ) -> ConnectionId {
        self.next_generation = self.next_generation.wrapping_add(1);
        let connection = Connection::new(self.next_generation, member, lane, policy, keeps);
        let id = id(self.slab.vacant_key(), &connection);
        self.slab.insert(connection);
        id
    }

    /// Every lane gets connections to the member.
    pub fn add_member(&mut self, member: MemberIndex, count: usize, keeps: bool) {
        for lane in 0..self.lanes.len() {
            if !self.lanes[lane].ended {
                self.add(lane, member, count, keeps);
            }
        }
    }

    /// Takes the member's connections out of the book.
    pub fn remove_member(&mut self, member: MemberIndex) {
        for lane in 0..self.lanes.len() {
            if let Some(gone) = self.lanes[lane].of_members.get_mut(member.place()) {
                let gone = std::mem::take(gone);
                self.remove(gone);
            }
        }
    }

    /// Takes connections out of the book that are not made, and with which nothing is under way.
    pub(super) fn remove(&mut self, gone: impl IntoIterator<Item = ConnectionId>) {
        for id in gone {
            let connection = self.slab.remove(id.index as usize);
            debug_assert!(connection.generation == id.generation && connection.is_closed());
            debug_assert!(connection.is_quiet() && connection.counted == 0);
        }
    }

    /// The connections of a lane, to all members.
    pub fn of_lane(&self, lane: usize) -> impl Iterator<Item = ConnectionId> {
        self.lanes[lane].of_members.iter().flatten().copied()
    }

    /// The connections of a member, in all lanes.
    pub fn of_member(&self, member: MemberIndex) -> impl Iterator<Item = ConnectionId> {
        self.lanes.iter().filter_map(move |lane| lane.of_members.get(member.place())).flatten().copied()
    }

    /// Connections of other lanes than the usual one.
    pub fn extra(&self) -> impl Iterator<Item = ConnectionId> {
        let extra = (0..self.lanes.len()).filter(|&lane| lane != self.usual as usize);
        extra.flat_map(|lane| self.of_lane(lane))
    }

    /// Connections of the usual lane to a member.
    pub fn usual_of(&self, member: MemberIndex) -> impl Iterator<Item = ConnectionId> {
        self.lanes[self.usual as usize].of_members[member.place()].iter().copied()
    }

    /// The connection of the lane to the member that the client with this number uses: always the same one, so that its
    /// requests keep their order.
    #[inline]
    pub fn shared(&self, lane: u32, member: MemberIndex, number: u64) -> ConnectionId {
        let Some(known) = self.lanes.get(lane as usize) else {
            return self.shared_by_pinned(lane, member, number);
        };
        match known.of_members[member.place()].as_slice() {
            &[only] => only,
            several => several[(number % several.len() as u64) as usize],
        }
    }

    /// Whether something is to be written, or somebody can go on, in this pass.
    pub fn has_work(&self) -> bool {
        !self.dirty.is_empty() || !self.roomy.is_empty()
    }

    /// Whether connections are to be made or closed.
    #[inline]
    pub fn has_wishes(&self) -> bool {
        !self.to_connect.is_empty() || !self.to_close.is_empty() || !self.unneeded.is_empty()
    }

    /// The connection is to be made.
    pub fn connect(&mut self, id: ConnectionId) {
        self.connect_after(id, None);
    }

    /// The same; where the last attempt failed for this reason nobody waits for this one.
    pub fn connect_after(&mut self, id: ConnectionId, after: Option<ShardFailure>) {
        self[id].link = Link::Connecting { after };
        self.to_connect.push(id);
    }

    /// The connection is to be closed for this reason.
    pub fn close(&mut self, id: ConnectionId, failure: ShardFailure) {
        self.to_close.push((id, failure));
    }

    /// Those who wait for room in the queue of the connection can go on.
    pub fn has_room(&mut self, id: ConnectionId) {
        self.roomy.push(id);
    }

    /// One that has room.
    pub fn take_roomy(&mut self) -> Option<ConnectionId> {
        self.roomy.pop()
    }

    /// Everybody who waits for room looks for it anew; false if nobody does.
    pub fn wake_all(&mut self) -> bool {
        let waited_for = self.find(|connection| !connection.waiting.is_empty());
        self.roomy.extend(waited_for);
        !self.roomy.is_empty()
    }

    /// Nobody needs the connection any more.
    pub fn not_needed(&mut self, id: ConnectionId) {
        if !std::mem::replace(&mut self[id].unneeded, true) {
            self.unneeded.push(id);
        }
    }

    /// Those that are to be closed. A request may have come for some that were not needed.
    pub fn take_closes(&mut self, mut closes: impl FnMut(ConnectionId, ShardFailure)) {
        self.to_close.drain(..).for_each(|(id, failure)| closes(id, failure));
        for id in std::mem::take(&mut self.unneeded) {
            let Some(connection) = self.get_mut(id) else { continue };
            connection.unneeded = false;
            if connection.is_quiet() {
                closes(id, ShardFailure::Removed);
            }
        }
    }

    /// Those that are to be made.
    pub fn take_connects(&mut self) -> impl Iterator<Item = ConnectionId> {
        self.to_connect.drain(..)
    }

    /// Those with something to write, which are looked at by then.
    #[inline]
    pub fn take_dirty(&mut self, into: &mut Vec<ConnectionId>) {
        for id in self.dirty.drain(..) {
            if let Some(connection) = self.slab.get_mut(id.index as usize)
                && connection.generation == id.generation
            {
                connection.dirty = false;
                into.push(id);
            }
        }
    }

    /// Gives back the memory of places at the end of the book that are not used any more.
    pub fn shrink(&mut self) {
        self.slab.shrink_to_fit();
    }

    /// The connection has something to write.
    #[inline]
    pub fn mark(&mut self, id: ConnectionId) {
        if !std::mem::replace(&mut self[id].dirty, true) {
            self.dirty.push(id);
        }
    }
}

fn id<P: Protocol>(index: usize, connection: &Connection<P>) -> ConnectionId {
    ConnectionId { index: index as u32, generation: connection.generation }
}

impl<P: Protocol> Index<ConnectionId> for Connections<P> {
    type Output = Connection<P>;

    #[inline]
    fn index(&self, id: ConnectionId) -> &Connection<P> {
        let connection = &self.slab[id.index as usize];
        debug_assert_eq!(connection.generation, id.generation, "another connection has its place");
        connection
    }
}

impl<P: Protocol> IndexMut<ConnectionId> for Connections<P> {
    #[inline]
    fn index_mut(&mut self, id: ConnectionId) -> &mut Connection<P> {
        let connection = &mut self.slab[id.index as usize];
        debug_assert_eq!(connection.generation, id.generation, "another connection has its place");
        connection
    }
}
