//! What time does to a shard connection: requests that have waited too long for their response, and silence.

use super::{Connection, Link};
use crate::pool::ticket::Ticket;
use crate::protocol::Protocol;
use crate::time::Time;

/// A connection with requests in flight that is silent for so many timeouts is given up.
const SILENT_TIMEOUTS_MAX: u32 = 3;

impl<P: Protocol> Connection<P> {
    /// Whether something is in flight that its client was told has failed.
    pub fn has_expired(&self) -> bool {
        self.expired > 0
    }

    /// The earliest deadline of the connection, if it has requests in flight.
    pub fn deadline(&self) -> Option<Time> {
        let waiting = self.in_flight.iter().filter(|ticket| !ticket.expired);
        match waiting.map(|ticket| ticket.since).min() {
            Some(since) => self.policy.deadline(since),
            None if self.expired > 0 && matches!(self.link, Link::Up) => self.silence_ends(),
            None => None,
        }
    }

    fn silence_ends(&self) -> Option<Time> {
        self.policy.timeout.map(|timeout| self.heard.plus(timeout * SILENT_TIMEOUTS_MAX))
    }

    /// Silent for so long, with requests in flight, that it is given up.
    pub fn is_dead(&self, now: Time) -> bool {
        let is_over = |end| now >= end;
        self.is_made() && !self.in_flight.is_empty() && self.silence_ends().is_some_and(is_over)
    }

    /// Takes the tickets whose deadline has passed; they stay in line, for nobody. A response that is already on
    /// its way to its client goes on.
    pub fn expire(&mut self, now: Time, mut expired: impl FnMut(Ticket<P>)) {
        let Some(timeout) = self.policy.timeout else { return };
        for (place, ticket) in self.in_flight.iter_mut().enumerate() {
            if ticket.expired || ticket.since.plus(timeout) > now {
                continue;
            }
            if !(place == 0 && self.streaming) {
                expired(*ticket);
                ticket.forsake();
            }
            ticket.expired = true;
            self.expired += 1;
        }
    }

    /// Whether all bytes are written of those that change something and whose deadline has passed, wherever they stand.
    pub fn has_written_expired(&self) -> bool {
        let mut unwritten = self.output.len() as u64;
        for ticket in self.in_flight.iter().rev() {
            if unwritten == 0 {
                break;
            }
            if ticket.expired && !ticket.reads {
                return false;
            }
            unwritten = unwritten.saturating_sub(ticket.length);
        }
        true
    }
}
