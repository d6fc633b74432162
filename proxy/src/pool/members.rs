//! The members of a pool: its shards and their connections while the list of shards changes.
//!
//! A shard has a place of its own here, its member, that stays what it is while the list changes around it: only the way
//! from the topology to the members is made anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shard_discovery::{Address, Shard, Topology};

use super::failure::ShardFailure;
use super::shard::{Link, ShardConnection, Ticket};
use super::shards::Shards;
use super::time::Time;
use super::{ClientId, ConnectionIndex};
use crate::metrics::ShardCounters;
use crate::protocol::Protocol;

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

/// Connections shared by clients of the same database and protocol version.
pub(super) struct Lane<P: Protocol> {
    pub key: P::Lane,
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
            self.submit_ticket(index, Ticket::prelude(request.len(), now));
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

    /// Adds the member's connections of one lane; the place of the first.
    fn add_connections(&mut self, member: usize, key: P::Lane) -> ConnectionIndex {
        let first = self.connections.len();
        let Member { per_shard, keeps, .. } = self.members[member];
        self.connections.extend((0..per_shard).map(|_| ShardConnection::new(member, key, keeps)));
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
}
