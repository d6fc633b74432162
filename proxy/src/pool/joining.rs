//! Shards that come and go: their members and connections while the list of shards changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shard_discovery::{Address, Shard, Topology};

use super::members::Member;
use super::shard::{Link, ShardConnection};
use super::shards::Shards;
use super::ticket::Ticket;
use super::{ClientId, ConnectionIndex};
use crate::metrics::ShardCounters;
use crate::protocol::Protocol;
use crate::time::Time;

impl<P: Protocol> Shards<P> {
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
        self.fragment_of = vec![u32::MAX; topology.units()];
        self.deadline = timeout.and_then(|timeout| {
            self.connections.iter().filter_map(|connection| connection.deadline(timeout)).min()
        });
        // Where a shard was found elsewhere its former member may still be leaving: the present one comes later here and
        // counts, or clients' requests could overtake those that are in flight there.
        let mut known: Vec<usize> = (0..self.members.len()).collect();
        let keeps = topology.redirects();
        known.retain(|&index| {
            self.members[index].per_shard == self.per_shard && self.members[index].keeps == keeps
        });
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
                self.count_in(index, counters);
                self.members[index].shard.weight = shard.weight;
            }
            order.push(kept);
        }
        let mut waiting = Vec::new();
        for (index, _) in stays.iter().enumerate().filter(|(_, stays)| !**stays) {
            self.leave(index, &mut waiting);
        }
        let mut free: Vec<usize> = (0..stays.len()).filter(|&index| self.is_spent(index)).collect();
        self.keeps = keeps;
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

    /// The member is counted here from now on. Where it was away for a time that is elsewhere than before, and what it has
    /// goes along.
    fn count_in(&mut self, index: usize, counters: &Arc<ShardCounters>) {
        let before = std::mem::replace(&mut self.members[index].counters, counters.clone());
        if Arc::ptr_eq(&before, counters) {
            return;
        }
        if self.members[index].failing {
            before.failing.add(-1);
            counters.failing.add(1);
        }
        for connection in self.connections_of(index).collect::<Vec<_>>() {
            self.connections[connection].count_in(&before, counters);
        }
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
        let is_replica = self.members[before].is_replica;
        let member = self.join(shard, counters, free);
        self.members[member].is_replica = is_replica;
        self.order[place] = member;
        waiting
    }

    /// The topology says who is only read from. Connections on which something else was said are told.
    pub fn set_roles(&mut self, now: Time) {
        let (owners, readers) = self.owners_and_readers();
        for &member in &self.order {
            self.members[member].is_replica = readers.contains(&member) && !owners.contains(&member);
        }
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            let is_replica = self.members[connection.shard].is_replica;
            let is_made = matches!(connection.link, Link::Up | Link::Greeting { .. });
            if !is_made || std::mem::replace(&mut connection.is_replica, is_replica) == is_replica {
                continue;
            }
            let mut request = Vec::new();
            P::replica(is_replica, &mut request);
            self.submit_ticket(index, Ticket::prelude(request.len(), now), now);
            self.connections[index].copy(&request);
        }
    }

    /// A new member, in the place of one that is spent if there is such a place.
    fn join(&mut self, shard: Shard, counters: Arc<ShardCounters>, free: Option<usize>) -> usize {
        let member = Member {
            name: shard.name.as_str().into(),
            shard,
            counters,
            per_shard: self.per_shard,
            keeps: self.keeps,
            is_replica: false,
            failing: false,
            failed_at: None,
            leaving: false,
        };
        if let Some(index) = free {
            let before = std::mem::replace(&mut self.members[index], member);
            for lane in 0..self.lanes.len() {
                let (key, first) = (self.lanes[lane].key, self.lanes[lane].first[index]);
                if before.per_shard == self.per_shard {
                    for connection in &mut self.connections[first..first + before.per_shard] {
                        *connection = ShardConnection::new(index, key, self.keeps);
                    }
                } else {
                    self.vacant.push((first, before.per_shard));
                    self.lanes[lane].first[index] = self.add_connections(index, key);
                }
            }
            return index;
        }
        self.members.push(member);
        let index = self.members.len() - 1;
        for lane in 0..self.lanes.len() {
            let first = self.add_connections(index, self.lanes[lane].key);
            self.lanes[lane].first.push(first);
        }
        index
    }

    /// Adds the member's connections of one lane, at places that nobody has any more if there are such; the place of the
    /// first.
    pub(super) fn add_connections(&mut self, member: usize, key: P::Lane) -> ConnectionIndex {
        let Member { per_shard, keeps, .. } = self.members[member];
        let is_enough = |&place: &usize| self.vacant[place].1 >= per_shard;
        let vacant = (0..self.vacant.len()).filter(is_enough).min_by_key(|&place| self.vacant[place].1);
        let Some(place) = vacant else {
            let first = self.connections.len();
            self.connections.extend((0..per_shard).map(|_| ShardConnection::new(member, key, keeps)));
            return first;
        };
        let (first, count) = self.vacant.swap_remove(place);
        if count > per_shard {
            self.vacant.push((first + per_shard, count - per_shard));
        }
        for connection in &mut self.connections[first..first + per_shard] {
            *connection = ShardConnection::new(member, key, keeps);
        }
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
            waiting.extend(self.connections[index].waiting.drain(..).map(|waiter| waiter.client));
            self.close_if_left(index);
        }
    }

    /// Closes a connection that was only needed for what was in flight.
    pub fn close_if_left(&mut self, index: ConnectionIndex) {
        let connection = &self.connections[index];
        let is_made = matches!(connection.link, Link::Up | Link::Greeting { .. });
        if self.members[connection.shard].leaving && is_made && connection.in_flight.is_empty() {
            self.unneeded.push(index);
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

    /// The connections of a lane, to all members.
    pub(super) fn connections_of_lane(&self, lane: usize) -> impl Iterator<Item = ConnectionIndex> {
        let firsts = self.lanes[lane].first.iter().enumerate();
        firsts.flat_map(|(member, &first)| first..first + self.members[member].per_shard)
    }

    /// Connections of other lanes than the usual one.
    pub fn extra_connections(&self) -> impl Iterator<Item = ConnectionIndex> {
        let extra = (0..self.lanes.len()).filter(|&lane| lane != self.usual as usize);
        extra.flat_map(|lane| self.connections_of_lane(lane))
    }

    /// Connections of the usual lane to the shards that are in the pool.
    pub fn usual_connections(&self) -> impl Iterator<Item = ConnectionIndex> {
        let first = &self.lanes[self.usual as usize].first;
        self.order.iter().flat_map(|&member| first[member]..first[member] + self.members[member].per_shard)
    }
}
