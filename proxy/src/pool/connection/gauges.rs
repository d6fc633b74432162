//! What is shown of the queues of a connection, and what they hold.

use std::collections::VecDeque;

use super::Connection;
use crate::metrics::{Gauge, ShardCounters};
use crate::pool::ticket::Ticket;
use crate::pool::watch::Watch;
use crate::protocol::Protocol;

/// Room for tickets that an idle connection keeps.
const IN_FLIGHT_KEEP_MAX: usize = 1024;

impl<P: Protocol> Connection<P> {
    /// How long the queues are, in the order of `published`.
    fn gauges(counters: &ShardCounters) -> [&Gauge; 4] {
        [&counters.in_queue, &counters.in_queue_bytes, &counters.out_queue, &counters.out_queue_bytes]
    }

    /// What it was counted with `before` it is counted with there from now on.
    pub fn count_in(&self, before: &ShardCounters, counters: &ShardCounters) {
        for (counters, sign) in [(before, -1), (counters, 1)] {
            for (gauge, published) in Self::gauges(counters).into_iter().zip(self.published) {
                gauge.add(sign * published);
            }
            if self.is_made() && self.private.is_none() {
                counters.server_connections.add(sign);
            }
        }
    }

    /// Tells the counters how long the queues are.
    pub fn publish(&mut self, counters: &ShardCounters) {
        debug_assert!(self.is_in_step());
        self.tidy_trail();
        if self.private.is_some() {
            // What waits there for data is in nobody's way.
            return;
        }
        let unwritten_bytes = self.output.len() as i64;
        let unwritten = if unwritten_bytes == 0 { 0 } else { self.unwritten() as i64 };
        let now = [
            unwritten,
            unwritten_bytes,
            self.in_flight.len() as i64 - unwritten,
            (self.in_flight_bytes as i64 - unwritten_bytes).max(0),
        ];
        for ((gauge, now), before) in Self::gauges(counters).into_iter().zip(now).zip(self.published) {
            if now != before {
                gauge.add(now - before);
            }
        }
        self.published = now;
        if self.in_flight.is_empty() && self.in_flight.capacity() > IN_FLIGHT_KEEP_MAX {
            self.in_flight = VecDeque::new();
        }
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        self.output.memory()
            + self.kept.as_ref().map_or(0, |kept| kept.memory())
            + self.rest.memory()
            + self.in_flight.len() * size_of::<Ticket<P>>()
            + self.feed.as_ref().map_or(0, |feed| feed.bytes())
            + self.tracker.as_ref().map_or(0, |tracker| tracker.bytes())
            + self.loaded.as_ref().map_or(0, |loaded| loaded.bytes())
            + self.trail_bytes()
            + self.private.as_ref().and_then(|private| private.watch.as_ref()).map_or(0, Watch::bytes)
    }

    /// The requests whose bytes are held here, and how many of each.
    pub fn held_requests(&self) -> impl Iterator<Item = (&Ticket<P>, usize)> {
        let written = if self.kept.is_some() { 0 } else { self.in_flight.len() - self.unwritten() };
        let whole = self.in_flight.iter().skip(written).map(|ticket| (ticket, ticket.length as usize));
        // The one before may be written in part.
        let left = self.output.len().saturating_sub(whole.clone().map(|(_, length)| length).sum());
        let begun = written.checked_sub(1).map(|place| (&self.in_flight[place], left));
        begun.into_iter().chain(whole)
    }
}
