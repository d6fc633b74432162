//! Whether one more request may be queued on a shard connection.

use super::{Connection, Link};
use crate::failure::ShardFailure;
use crate::pool::Limits;
use crate::protocol::Protocol;
use crate::time::Time;

/// A request up to this size does not wait for room where few requests are queued: the queue is full of large ones.
const SMALL_MAX: usize = 4 * 1024;
/// Few: this share of `shard_queue_max`.
const OVERTAKE_SHARE: usize = 64;

/// Whether a request may be queued.
#[derive(Debug)]
pub enum Admission {
    /// It may.
    Open,
    /// It may, and somebody has to connect first.
    Connect,
    /// The shard is down; somebody should try to connect again meanwhile.
    Probe(ShardFailure),
    /// The queue is full.
    Full,
    /// There is room, but others wait for it.
    Crowded,
    /// The shard is down.
    Down(ShardFailure),
}

impl<P: Protocol> Connection<P> {
    /// Whether a small request may be queued without ado, as most may.
    #[inline(always)]
    pub fn is_open(&self, length: usize, limits: &Limits) -> bool {
        matches!(self.link, Link::Up) && self.is_overtaking(length, limits)
    }

    /// Whether a request waits for no room where others do: it is small, and few are queued.
    #[inline(always)]
    fn is_overtaking(&self, length: usize, limits: &Limits) -> bool {
        length <= SMALL_MAX && self.in_flight.len() < limits.shard_queue_max / OVERTAKE_SHARE
    }

    /// Whether one more request may be queued.
    #[inline]
    pub fn admission(&self, length: usize, limits: &Limits, now: Time) -> Admission {
        let (requests_max, bytes_max) = (limits.shard_queue_max, limits.shard_queue_bytes_max);
        match &self.link {
            Link::Down { until, failure } if now < *until => return Admission::Down(failure.clone()),
            Link::Down { failure, .. } if failure.takes_time() => return Admission::Probe(failure.clone()),
            Link::Idle | Link::Down { .. } => return Admission::Connect,
            Link::Connecting { .. } | Link::Greeting(_) => {
                if let Some(failure) = self.refusal() {
                    return Admission::Down(failure.clone());
                }
            }
            Link::Up => {}
        }
        if self.is_overtaking(length, limits) {
            return Admission::Open;
        }
        if self.in_flight.len() >= requests_max || self.in_flight_bytes >= bytes_max {
            return Admission::Full;
        }
        if self.waiting.is_empty() { Admission::Open } else { Admission::Crowded }
    }

    /// How many more requests may be queued before somebody has to wait; `None` if none. Without a connection nobody has
    /// to wait for room: there is an answer at once.
    pub fn room(&self, limits: &Limits) -> Option<usize> {
        let is_live = match self.link {
            Link::Connecting { .. } | Link::Greeting(_) => self.refusal().is_none(),
            Link::Up => true,
            Link::Idle | Link::Down { .. } => false,
        };
        if !is_live {
            return Some(usize::MAX);
        }
        let room = limits.shard_queue_max.saturating_sub(self.in_flight.len());
        (room > 0 && self.in_flight_bytes < limits.shard_queue_bytes_max).then_some(room)
    }
}
