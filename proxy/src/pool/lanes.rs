//! Lanes: the connections that clients of the same database and protocol version share; those that move large values have one
//! of their own ([`super::heavy`]). They come when a client needs one and end when none does.

use super::connections::{Connections, Lane};
use super::members::Members;
use crate::protocol::Protocol;

/// Lanes at the same time. Each costs memory for every shard, and descriptors once it is used.
const LANES_MAX: usize = 256;
/// From so many on none more is made for large values: databases come first.
const HEAVY_LANES_MAX: usize = 128;
/// From so many on those that no client uses end at once, and not only when they were not used for long.
const LANES_KEPT: usize = 32;

impl<P: Protocol> Connections<P> {
    /// Lanes that there are.
    pub fn lane_count(&self) -> usize {
        self.lane_of.len()
    }

    /// What is spoken in a lane.
    #[inline]
    pub fn lane_key(&self, lane: u32) -> P::Lane {
        match self.lanes.get(lane as usize) {
            Some(lane) => lane.key,
            None => self.lane_key(self.lane_of_pinned(lane)),
        }
    }

    /// Whether there is a lane with this key for a client of this one.
    pub fn has_lane(&self, lane: u32, key: P::Lane) -> bool {
        self.lane_of.contains_key(&(key, self.is_heavy(lane)))
    }

    /// What is spoken in the lane of new clients.
    pub fn usual_key(&self) -> P::Lane {
        self.lane_key(self.usual)
    }

    /// New clients use the lane with this key.
    pub fn set_usual_lane(&mut self, key: P::Lane, members: &Members) {
        self.usual = match self.lane_of.get(&(key, false)) {
            Some(&lane) => lane,
            None => self.add_lane(key, false, members),
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
    pub fn change_lane(&mut self, lane: &mut u32, key: P::Lane, members: &Members) -> bool {
        // What a client asked before in that database may still be executed where it was told has failed: it goes there again.
        let heavy = self.is_heavy(*lane);
        let waits = |heavy| self.lane_of.get(&(key, heavy)).is_some_and(|&lane| self.has_expired(lane));
        let heavy = if waits(!heavy) && !waits(heavy) { !heavy } else { heavy };
        self.change_to(lane, key, heavy, members)
            || (self.lane_of.contains_key(&(key, !heavy)) && self.change_to(lane, key, !heavy, members))
    }

    /// The same, for large values or for others.
    pub(super) fn change_to(&mut self, lane: &mut u32, key: P::Lane, heavy: bool, members: &Members) -> bool {
        let known = self.lane_of.get(&(key, heavy)).copied();
        if known.is_none() && self.lane_of.len() >= LANES_KEPT {
            self.end_spent_lanes();
            if self.lane_of.len() >= LANES_KEPT {
                self.close_unused_lanes();
            }
            let lanes_max = if heavy { HEAVY_LANES_MAX } else { LANES_MAX };
            if self.lane_of.len() >= lanes_max {
                return false;
            }
        }
        let next = known.unwrap_or_else(|| self.add_lane(key, heavy, members));
        self.client_gone(*lane);
        self.lanes[next as usize].clients += 1;
        *lane = next;
        true
    }

    /// A lane with this key, in the place of one that has ended if there is such a place.
    fn add_lane(&mut self, key: P::Lane, heavy: bool, members: &Members) -> u32 {
        let next = Lane { key, heavy, clients: 0, ended: false, of_members: Vec::new() };
        let lane = match self.lanes.iter().position(|lane| lane.ended) {
            Some(lane) => {
                self.lanes[lane] = next;
                lane
            }
            None => {
                self.lanes.push(next);
                self.lanes.len() - 1
            }
        };
        for member in members.indexes() {
            self.add(lane, member, members[member].per_shard, members[member].keeps);
        }
        self.lane_of.insert((key, heavy), lane as u32);
        lane as u32
    }

    /// Lanes that no client uses, and in which nothing is under way.
    fn unused_lanes(&self) -> Vec<usize> {
        let is_unused = |&lane: &usize| {
            let Lane { clients, ended, .. } = self.lanes[lane];
            lane != self.usual as usize
                && clients == 0
                && !ended
                && self.of_lane(lane).all(|id| self[id].is_quiet())
        };
        (0..self.lanes.len()).filter(is_unused).collect()
    }

    /// Ends lanes that no client uses and that have no connections.
    pub fn end_spent_lanes(&mut self) {
        for lane in self.unused_lanes() {
            if self.of_lane(lane).all(|id| self[id].is_closed()) {
                self.lanes[lane].ended = true;
                self.lane_of.remove(&(self.lanes[lane].key, self.lanes[lane].heavy));
                let gone = std::mem::take(&mut self.lanes[lane].of_members);
                self.remove(gone.into_iter().flatten());
            }
        }
    }

    /// Closes the connections of lanes that no client uses.
    fn close_unused_lanes(&mut self) {
        for lane in self.unused_lanes() {
            for id in self.of_lane(lane).collect::<Vec<_>>() {
                if self[id].is_made() {
                    self.not_needed(id);
                }
            }
        }
    }
}
