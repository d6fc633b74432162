//! Clients that move large values: they have lanes of their own, so that a small request waits behind no large one.
//!
//! A shard answers a connection in the order of its requests, and reads and writes what is large piece by piece: on the
//! connection that all clients share the smallest request would wait until the values of all others are through. Between two
//! connections the shard takes turns.
//!
//! How large a request is, is known before it is sent; of a reply it is known only once it comes. So it is the client that is
//! called heavy: from a large request on, or after a large reply, until it was served [`TURNS`] times without one. It changes lanes where nothing
//! of it is in flight, so that its requests keep their order, and not while a request of it may still be executed that it was
//! told has failed.

use super::connections::Connections;
use super::members::Members;
use crate::protocol::Protocol;

/// A client stays heavy for so many turns after it has moved a large value.
const TURNS: u8 = u8::MAX;

/// Whether a client moves large values, or has lately.
#[derive(Clone, Copy, Default, Debug)]
pub struct Weight {
    /// Turns for which it is to be in a lane for large values.
    turns: u8,
}

impl Weight {
    /// It moves a large value.
    pub fn is_large(&mut self) {
        self.turns = TURNS;
    }

    /// It uses connections for large values for another reason: for as long as it has to.
    pub fn is_guest(&mut self) {
        self.turns = self.turns.max(1);
    }

    /// It has not, for long.
    #[inline]
    pub fn is_light(self) -> bool {
        self.turns == 0
    }
}

impl<P: Protocol> Connections<P> {
    /// Whether the lane is for large values.
    pub fn is_heavy(&self, lane: u32) -> bool {
        self.lanes.get(lane as usize).is_some_and(|lane| lane.heavy)
    }

    /// A client that is heavy, or was, has its next turn. False if its requests have to wait until it is `quiet`: then it
    /// can change lanes.
    #[cold]
    pub fn weigh(&mut self, lane: &mut u32, weight: &mut Weight, quiet: bool, members: &Members) -> bool {
        if self.pin_of(*lane).is_some() {
            return true;
        }
        if !self.is_heavy(*lane) {
            return self.make_heavy(lane, weight, quiet, members);
        }
        if quiet {
            weight.turns -= 1;
            if weight.is_light() && (self.has_expired(*lane) || !self.change_weight(lane, false, members)) {
                weight.turns = 1;
            }
        }
        true
    }

    /// A client has a large request, or has received something large. False if it has to wait until it is `quiet`.
    #[cold]
    pub fn make_heavy(
        &mut self,
        lane: &mut u32,
        weight: &mut Weight,
        quiet: bool,
        members: &Members,
    ) -> bool {
        if self.is_heavy(*lane) || self.pin_of(*lane).is_some() {
            weight.is_large();
            return true;
        }
        if !quiet {
            return false;
        }
        *weight = Weight::default();
        if !self.has_expired(*lane) && self.change_weight(lane, true, members) {
            weight.is_large();
        }
        true
    }

    /// Whether a shard may still execute what clients of the lane were told has failed.
    pub fn has_expired(&self, lane: u32) -> bool {
        self.of_lane(lane as usize).any(|id| self[id].has_expired())
    }

    fn change_weight(&mut self, lane: &mut u32, heavy: bool, members: &Members) -> bool {
        let key = self.lane_key(*lane);
        self.change_to(lane, key, heavy, members)
    }
}
