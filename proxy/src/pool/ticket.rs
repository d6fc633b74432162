//! What stands in line at a shard connection: a ticket for each request sent, and the clients that wait for room.

use super::policy::Policy;
use super::{ClientId, ConnectionId, Limits};
use crate::protocol::{Plan, Protocol, Scripted};
use crate::scripts::Mark;
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

/// Whom a response is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whom {
    /// This client; it may have gone meanwhile.
    Client(ClientId),
    /// Nobody any more: the request timed out, or its client had to go. It is dropped when it comes.
    Nobody,
    /// The proxy itself, as a prelude: what it says is of no interest, it only clears the way for the next request.
    Prelude,
    /// The proxy itself, which has asked for the end of a wait: see [`Ticket::ends_wait`].
    Asker,
    /// The proxy itself, which has sent a script: see [`Ticket::loads`].
    Loader,
    /// The proxy itself, which has asked which scripts the shard knows, because of what this client was told: see
    /// [`Ticket::inquirer`].
    Inquirer(ClientId),
    /// This client, whose value is asked for: see [`Ticket::fetch`].
    Fetch(ClientId),
    /// This client, where it ends its wait: see [`Ticket::attempts`].
    Attempt(ClientId),
}

/// What is expected of a shard: the response to one request, or to one fragment of it.
#[derive(Debug)]
pub struct Ticket<P: Protocol> {
    /// Whom it is for.
    pub whom: Whom,
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
    /// Whether it runs a script.
    pub scripted: Scripted,
    /// It changes nothing, so it does no harm when it is executed after its time.
    pub reads: bool,
    /// How often it was sent before and not executed.
    pub tries: u8,
    /// The one before it is its prelude, unless that was written already.
    pub asks: bool,
    /// Its bytes are not kept any more: it will not be sent again.
    pub unkept: bool,
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
        const { assert!(size_of::<Self>() <= 48, "there is one for every request in flight") };
        Self {
            whom: Whom::Client(sender.id),
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
            expired: false,
        }
    }

    /// Of a request of our own, whose response only clears the way for those behind it.
    pub fn prelude(since: Time) -> Self {
        Self {
            whom: Whom::Prelude,
            number: 0,
            fragment: 0,
            length: 0,
            since,
            expected: P::Expected::default(),
            slot: 0,
            scripted: Scripted::No,
            reads: true,
            tries: 0,
            asks: false,
            unkept: false,
            expired: false,
        }
    }

    /// Who waits for it, if anybody does.
    #[inline]
    pub fn client(&self) -> Option<ClientId> {
        match self.whom {
            Whom::Client(id) | Whom::Attempt(id) | Whom::Fetch(id) => Some(id),
            Whom::Nobody | Whom::Prelude | Whom::Asker | Whom::Loader | Whom::Inquirer(_) => None,
        }
    }

    /// Of a request of our own to end the wait on this connection.
    pub fn asker(at: ConnectionId, since: Time) -> Self {
        let ConnectionId { index, generation } = at;
        Self { whom: Whom::Asker, number: index, fragment: generation, ..Self::prelude(since) }
    }

    /// Of a request of our own after which the shard knows this script.
    pub fn loader(mark: Mark, since: Time) -> Self {
        Self { whom: Whom::Loader, number: mark.place, fragment: mark.number, ..Self::prelude(since) }
    }

    /// Of a question of our own with this number, because of what the client was told.
    pub fn inquirer(id: ClientId, question: u32, since: Time) -> Self {
        Self { whom: Whom::Inquirer(id), number: question, ..Self::prelude(since) }
    }

    /// The script that the shard knows after it, if it is such a request.
    #[inline]
    pub fn loads(&self) -> Option<Mark> {
        (self.whom == Whom::Loader).then_some(Mark { place: self.number, number: self.fragment })
    }

    /// Of a key that is tried for a client that waits at several shards.
    pub fn attempt(id: ClientId, number: u32, serial: u32, since: Time) -> Self {
        Self { whom: Whom::Attempt(id), number, fragment: serial, reads: false, ..Self::prelude(since) }
    }

    /// Of a question for a value that is to go to another shard: it has the number of an attempt, and is let go with its client.
    pub fn fetch(id: ClientId, number: u32, serial: u32, since: Time) -> Self {
        Self { whom: Whom::Fetch(id), number, fragment: serial, ..Self::prelude(since) }
    }

    /// Whether it is that of such a question.
    #[inline]
    pub fn fetches(&self) -> bool {
        matches!(self.whom, Whom::Fetch(_))
    }

    /// Which attempt it is, if it is one.
    #[inline]
    pub fn attempts(&self) -> Option<u32> {
        matches!(self.whom, Whom::Attempt(_) | Whom::Fetch(_)).then_some(self.fragment)
    }

    /// The connection whose wait is to end, where the request asks for that.
    #[inline]
    pub fn ends_wait(&self) -> Option<ConnectionId> {
        matches!(self.whom, Whom::Asker)
            .then_some(ConnectionId { index: self.number, generation: self.fragment })
    }

    /// Whether it is that of a transaction, with a response to each of its requests before the one that is waited for.
    #[inline]
    pub fn is_block(&self) -> bool {
        P::preceding(self.expected) > 0
    }

    /// Whether it is that of a request of our own, of whatever kind, but for an attempt.
    #[inline]
    pub fn is_of_proxy(&self) -> bool {
        matches!(self.whom, Whom::Prelude | Whom::Asker | Whom::Loader | Whom::Inquirer(_))
    }

    /// Whether it is that of a request of our own that clears the way for the next one.
    #[inline]
    pub fn is_prelude(&self) -> bool {
        matches!(self.whom, Whom::Prelude)
    }

    /// Its client does not wait for it any more.
    pub fn forsake(&mut self) {
        // What an attempt takes may be somebody else's.
        if matches!(self.whom, Whom::Client(_) | Whom::Fetch(_)) {
            self.whom = Whom::Nobody;
        }
    }
}
