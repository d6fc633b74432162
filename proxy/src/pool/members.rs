//! The members of a pool: its shards and their connections while the list of shards changes.
//!
//! A shard has a place of its own here, its member, that stays what it is while the list changes around it: only the way
//! from the topology to the members is made anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shard_discovery::{Address, Shard, Topology};

use super::shard::{Link, ShardConnection};
use super::shards::Shards;
use super::ticket::Ticket;
use super::{ClientId, ConnectionIndex};
use crate::metrics::ShardCounters;
use crate::protocol::Protocol;
use crate::time::Time;

/// One shard, and what stays the same as long as it is one.
pub(super) struct Member {
    pub shard: Shard,
    pub name: Arc<str>,
    pub counters: Arc<ShardCounters>,
    /// Connections to it in each lane.
    pub per_shard: usize,
    /// They keep requests until they are answered.
    pub keeps: bool,
    /// It is a replica of a cluster that is only read from.
    pub is_replica: bool,
    /// Its last event was a failure.
    pub failing: bool,
    /// When the last failure was noticed that was reported as the shard's own.
    pub failed_at: Option<Time>,
    /// It is not in the pool any more: what is in flight is finished, then its connections are closed.
    pub leaving: bool,
}

/// Lanes at the same time. Each costs memory for every shard, and descriptors once it is used.
const LANES_MAX: usize = 256;
/// From so many on those that no client uses end at once, and not only when they were not used for long.
const LANES_KEPT: usize = 32;

/// Connections shared by clients of the same database and protocol version.
pub(super) struct Lane<P: Protocol> {
    pub key: P::Lane,
    /// Clients that use it.
    pub clients: usize,
    /// Nothing remains of it: its place is for the next.
    pub ended: bool,
    /// For each member the place of its first connection; its others stand behind.
    pub first: Vec<ConnectionIndex>,
}

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
        let keeps = topology.is_cluster();
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
    fn add_connections(&mut self, member: usize, key: P::Lane) -> ConnectionIndex {
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
    fn connections_of_lane(&self, lane: usize) -> impl Iterator<Item = ConnectionIndex> {
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

    /// Lanes that there are.
    pub fn lane_count(&self) -> usize {
        self.lane_of.len()
    }

    /// What is spoken in a lane.
    #[inline]
    pub fn lane_key(&self, lane: u32) -> P::Lane {
        self.lanes[lane as usize].key
    }

    /// New clients use the lane with this key.
    pub fn set_usual_lane(&mut self, key: P::Lane) {
        self.usual = match self.lane_of.get(&key) {
            Some(&lane) => lane,
            None => self.add_lane(key),
        };
    }

    /// One more client, in the usual lane; returns that.
    pub fn client_connected(&mut self) -> u32 {
        self.lanes[self.usual as usize].clients += 1;
        self.usual
    }

    /// One client less.
    pub fn client_gone(&mut self, lane: u32) {
        self.lanes[lane as usize].clients -= 1;
    }

    /// The client of `lane` uses the one with this key from now on; false if there are as many lanes as there may be.
    pub fn change_lane(&mut self, lane: &mut u32, key: P::Lane) -> bool {
        let known = self.lane_of.get(&key).copied();
        if known.is_none() && self.lane_of.len() >= LANES_KEPT {
            self.end_spent_lanes();
            if self.lane_of.len() >= LANES_KEPT {
                self.close_unused_lanes();
            }
            if self.lane_of.len() >= LANES_MAX {
                return false;
            }
        }
        let next = known.unwrap_or_else(|| self.add_lane(key));
        self.client_gone(*lane);
        self.lanes[next as usize].clients += 1;
        *lane = next;
        true
    }

    /// A lane with this key, in the place of one that has ended if there is such a place.
    fn add_lane(&mut self, key: P::Lane) -> u32 {
        let lane = match self.lanes.iter().position(|lane| lane.ended) {
            Some(lane) => {
                self.lanes[lane].key = key;
                self.lanes[lane].ended = false;
                for index in self.connections_of_lane(lane).collect::<Vec<_>>() {
                    let connection = &mut self.connections[index];
                    *connection = ShardConnection::new(connection.shard, key, connection.keeps());
                }
                lane
            }
            None => {
                let first = (0..self.members.len()).map(|member| self.add_connections(member, key)).collect();
                self.lanes.push(Lane { key, clients: 0, ended: false, first });
                self.lanes.len() - 1
            }
        };
        self.lane_of.insert(key, lane as u32);
        lane as u32
    }

    /// Lanes that no client uses, and in which nothing is under way.
    fn unused_lanes(&self) -> Vec<usize> {
        let is_quiet =
            |lane: usize| self.connections_of_lane(lane).all(|index| self.connections[index].is_quiet());
        let is_unused = |&lane: &usize| {
            let Lane { clients, ended, .. } = self.lanes[lane];
            lane != self.usual as usize && clients == 0 && !ended && is_quiet(lane)
        };
        (0..self.lanes.len()).filter(is_unused).collect()
    }

    /// Ends lanes that no client uses and that have no connections.
    pub fn end_spent_lanes(&mut self) {
        for lane in self.unused_lanes() {
            let is_closed = |index: ConnectionIndex| {
                matches!(self.connections[index].link, Link::Idle | Link::Down { .. })
            };
            if self.connections_of_lane(lane).all(is_closed) {
                self.lanes[lane].ended = true;
                self.lane_of.remove(&self.lanes[lane].key);
            }
        }
    }

    /// Closes the connections of lanes that no client uses.
    fn close_unused_lanes(&mut self) {
        for lane in self.unused_lanes() {
            for index in self.connections_of_lane(lane).collect::<Vec<_>>() {
                if matches!(self.connections[index].link, Link::Up | Link::Greeting { .. }) {
                    self.unneeded.push(index);
                }
            }
        }
    }
}
