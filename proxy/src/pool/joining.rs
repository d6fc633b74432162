//! Shards that come and go: their members and connections while the list of shards changes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use shard_discovery::{Address, Shard, Topology};

use super::ClientId;
use super::connections::ConnectionId;
use super::members::{Member, MemberIndex, Presence};
use super::policy::Policy;
use super::router::Router;
use super::ticket::Ticket;
use crate::buffer::Piece;
use crate::metrics::ShardCounters;
use crate::protocol::Protocol;
use crate::time::Time;

impl<P: Protocol> Router<P> {
    /// Takes another list of shards. Those that stay keep their connections, new ones are connected when they are
    /// needed, the others leave. Returns clients that waited for one of those.
    pub fn adopt(
        &mut self,
        topology: Arc<Topology>,
        counters: &[Arc<ShardCounters>],
        per_shard: usize,
        policy: Policy,
    ) -> Vec<ClientId> {
        self.per_shard = per_shard.max(1);
        self.connections.set_policy(policy);
        self.fragments.of_units = vec![u32::MAX; topology.units()];
        self.deadline = self.connections.deadline();
        // What is leaving comes back where it was, unless it is elsewhere by now. The present one comes later here and counts, or
        // clients' requests could overtake those that are in flight there.
        let keeps = topology.redirects();
        let is_alike = |member: &Member| {
            !member.is_outdated && member.per_shard == self.per_shard && member.keeps == keeps
        };
        let mut known = self.members.indexes();
        known.retain(|&index| is_alike(&self.members[index]));
        known.sort_by_key(|&index| self.members[index].is_present());
        let staying: HashMap<(String, Address), MemberIndex> = known
            .into_iter()
            .map(|index| {
                let Shard { name, address, .. } = &self.members[index].shard;
                ((name.clone(), address.clone()), index)
            })
            .collect();
        let mut stays = HashSet::new();
        let mut order = Vec::with_capacity(topology.shards().len());
        for (shard, counters) in topology.shards().iter().zip(counters) {
            let kept = staying.get(&(shard.name.clone(), shard.address.clone())).copied();
            if let Some(index) = kept {
                stays.insert(index);
                self.members[index].presence = Presence::Present;
                self.count_in(index, counters);
                self.members[index].shard.weight = shard.weight;
            }
            order.push(kept);
        }
        let mut waiting = Vec::new();
        for index in self.members.indexes() {
            if !stays.contains(&index) {
                self.leave(index, &mut waiting);
            }
        }
        self.keeps = keeps;
        let shards = topology.shards().iter().zip(counters);
        let present = order
            .into_iter()
            .zip(shards)
            .map(|(kept, (shard, counters))| {
                kept.unwrap_or_else(|| self.join(shard.clone(), counters.clone()))
            })
            .collect();
        self.members.set_present(present);
        self.topology = topology;
        waiting
    }

    /// The member is counted here from now on. Where it was away for a time that is elsewhere than before, and what it has
    /// goes along.
    fn count_in(&mut self, index: MemberIndex, counters: &Arc<ShardCounters>) {
        let before = std::mem::replace(&mut self.members[index].counters, counters.clone());
        if Arc::ptr_eq(&before, counters) {
            return;
        }
        if self.members[index].failing {
            before.failing.add(-1);
            counters.failing.add(1);
        }
        let of_ours: Vec<ConnectionId> =
            self.feed_id(index).into_iter().chain(self.trackers_of(index)).collect();
        for id in self.connections.of_member(index).chain(of_ours) {
            self.connections[id].count_in(&before, counters);
        }
        self.count_privates_in(index, &before, counters);
    }

    /// The shard with this name gets a new member, and so new connections. Returns clients that waited for the present
    /// one.
    pub fn renew(&mut self, name: &str) -> Vec<ClientId> {
        let mut waiting = Vec::new();
        let mut present = self.members.present().to_vec();
        let of_name = |&member: &MemberIndex| *self.members[member].name == *name;
        let Some(place) = present.iter().position(of_name) else { return waiting };
        let before = present[place];
        let (shard, counters) = (self.members[before].shard.clone(), self.members[before].counters.clone());
        let is_replica = self.members[before].is_replica;
        self.members[before].is_outdated = true;
        self.leave(before, &mut waiting);
        present[place] = self.join(shard, counters);
        self.members[present[place]].is_replica = is_replica;
        self.members.set_present(present);
        waiting
    }

    /// The topology says who is only read from. Connections on which something else was said are told.
    pub fn set_roles(&mut self, now: Time) {
        let (owners, readers) = self.owners_and_readers();
        for member in self.members.present().to_vec() {
            self.members[member].is_replica = readers.contains(&member) && !owners.contains(&member);
        }
        for id in self.connections.find(|connection| connection.is_made() && !connection.is_ours()) {
            let connection = &mut self.connections[id];
            let is_replica = self.members[connection.member].is_replica;
            if std::mem::replace(&mut connection.is_replica, is_replica) == is_replica {
                continue;
            }
            let mut request = Vec::new();
            P::replica(is_replica, &mut request);
            self.submit(id, Ticket::prelude(now), Piece::Copied(&request), now);
        }
    }

    /// A new member.
    fn join(&mut self, shard: Shard, counters: Arc<ShardCounters>) -> MemberIndex {
        let (per_shard, keeps) = (self.per_shard, self.keeps);
        let member = Member {
            name: shard.name.as_str().into(),
            shard,
            counters,
            per_shard,
            keeps,
            is_replica: false,
            failing: false,
            failed_at: None,
            privates: 0,
            privates_cleared: 0,
            privates_closing: 0,
            private_down: None,
            pace: Time::default(),
            presence: Presence::Present,
            is_outdated: false,
        };
        let index = self.members.add(member);
        self.connections.add_member(index, per_shard, keeps);
        index
    }

    /// The member is in the pool no more. Clients that wait for it may go on elsewhere.
    fn leave(&mut self, member: MemberIndex, waiting: &mut Vec<ClientId>) {
        self.members[member].presence = Presence::Leaving;
        if std::mem::take(&mut self.members[member].failing) {
            self.members[member].counters.failing.add(-1);
        }
        for id in self.connections.of_member(member).collect::<Vec<_>>() {
            waiting.extend(self.connections[id].waiting.drain(..).map(|waiter| waiter.client));
            self.close_if_left(id);
        }
        self.leave_feed(member);
        self.leave_trackers(member);
        self.retire(member);
    }

    /// Closes a connection that was only needed for what was in flight.
    pub fn close_if_left(&mut self, id: ConnectionId) {
        let connection = &self.connections[id];
        let is_left = connection.is_made() && connection.in_flight().is_empty();
        if !self.members[connection.member].is_present() && is_left {
            self.connections.not_needed(id);
        }
    }

    /// Once nothing remains of a member that has left, its connections go out of the book.
    pub fn retire(&mut self, member: MemberIndex) {
        let is_over = |id| {
            let connection = &self.connections[id];
            connection.is_closed() && connection.in_flight().is_empty()
        };
        let Member { presence, privates, .. } = self.members[member];
        let is_listened = self.feed_id(member).is_some() || self.trackers_of(member).next().is_some();
        let is_leaving = presence == Presence::Leaving && privates == 0 && !is_listened;
        if is_leaving && self.connections.of_member(member).all(is_over) {
            self.connections.remove_member(member);
            self.members.remove(member);
        }
    }
}
