//! What stands in line at a shard connection: a ticket for each request sent, and the clients that wait for room.

use super::policy::Policy;
use super::{ClientId, Limits};
use crate::protocol::{Plan, Protocol};
use crate::time::Time;

/// Whose request it is.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub id: ClientId,
    /// The client's number: it stays on one connection of a shard, so that its requests keep their order.
    pub number: u64,
    pub lane: u32,
    /// When the request was read.
    pub since: Time,
    pub now: Time,
}

/// Whom the response to one request, or to one fragment of it, goes to.
#[derive(Debug)]
pub struct Ticket<P: Protocol> {
    /// `None` once nobody waits: the request timed out and its response is dropped when it comes.
    pub client: Option<ClientId>,
    /// Number of the request among those of its client.
    pub number: u32,
    /// Fragment of a split request; 0 for a whole one.
    pub fragment: u32,
    /// Bytes of the request, as many as were queued with it.
    pub length: u64,
    /// When the request was read.
    pub since: Time,
    /// Which responses it can have.
    pub expected: P::Expected,
    /// In a cluster: the slot of its keys.
    pub slot: u16,
    /// Its errors may be words of its own, said after it has done something.
    pub scripted: bool,
    /// It changes nothing, so it does no harm when it is executed after its time.
    pub reads: bool,
    /// How often it was sent before and not executed.
    pub tries: u8,
    /// The one before it is its prelude, unless that was written already.
    pub asks: bool,
    /// Its bytes are not kept any more: it will not be sent again.
    pub unkept: bool,
    /// The response is of no interest: it only clears the way for the next request.
    pub prelude: bool,
    /// Its deadline has passed.
    pub expired: bool,
}

/// A client that waits for room in the queue of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    /// Which.
    pub client: ClientId,
    /// Since when it waits: who waits longest goes first.
    pub since: Time,
    /// When its request was read.
    pub arrived: Time,
}

impl Waiter {
    /// When it has waited long enough at a connection with this policy: for room, or altogether.
    pub fn deadline(&self, policy: Policy, limits: &Limits) -> Time {
        let room = self.since.plus(limits.queue_wait);
        policy.deadline(self.arrived).map_or(room, |deadline| room.min(deadline))
    }
}

impl<P: Protocol> Clone for Ticket<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Protocol> Copy for Ticket<P> {}

impl<P: Protocol> Ticket<P> {
    /// Of a request with keys in this unit, or of a fragment of one.
    #[inline]
    pub(super) fn new(sender: Sender, number: u32, fragment: u32, unit: usize, plan: &Plan<P>) -> Self {
        Self {
            client: Some(sender.id),
            number,
            fragment,
            length: 0,
            since: sender.since,
            expected: plan.expected,
            slot: unit as u16,
            scripted: plan.scripted,
            reads: plan.reads,
            tries: 0,
            asks: false,
            unkept: false,
            prelude: false,
            expired: false,
        }
    }

    /// Of a request of our own, whose response only clears the way for those behind it.
    pub fn prelude(since: Time) -> Self {
        Self {
            client: None,
            number: 0,
            fragment: 0,
            length: 0,
            since,
            expected: P::Expected::default(),
            slot: 0,
            scripted: false,
            reads: true,
            tries: 0,
            asks: false,
            unkept: false,
            prelude: true,
            expired: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::memcache::Memcache;
    use crate::protocol::resp::Resp;

    /// There may be many.
    #[test]
    fn a_ticket_is_small() {
        assert_eq!([size_of::<Ticket<Resp>>(), size_of::<Ticket<Memcache>>()], [48, 48]);
    }
}
