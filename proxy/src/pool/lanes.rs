//! Lanes: the connections that clients of the same database and protocol version share. They come when a client needs one
//! and end when none does.

use super::ConnectionIndex;
use super::members::Lane;
use super::shard::{Link, ShardConnection};
use super::shards::Shards;
use crate::protocol::Protocol;

/// Lanes at the same time. Each costs memory for every shard, and descriptors once it is used.
const LANES_MAX: usize = 256;
/// From so many on those that no client uses end at once, and not only when they were not used for long.
const LANES_KEPT: usize = 32;

impl<P: Protocol> Shards<P> {
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
