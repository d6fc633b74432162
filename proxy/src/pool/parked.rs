//! Requests that a node of a cluster has not executed, and what waits of one client for its next attempt.
//!
//! That stands with its client, and goes with it. What it takes is counted as it is: a failover makes many clients wait at once.

use bytes::Bytes;

use super::ClientId;
use super::members::MemberIndex;
use super::private::Wait;
use super::ticket::Ticket;
use crate::protocol::{Protocol, Redirect};
use crate::time::Time;

/// What the allocator adds to a piece of memory, on average.
const PIECE_BYTES: usize = 16;
/// A place in the set of clients that are due, in nodes of which half is used.
const DUE_BYTES: usize = 3 * size_of::<(Time, ClientId)>();

/// A request that was not executed.
pub(super) struct Redirected<P: Protocol> {
    /// Who says so.
    pub from: MemberIndex,
    /// By when it has to be answered.
    pub deadline: Option<Time>,
    pub ticket: Ticket<P>,
    pub request: Bytes,
    /// In these words.
    pub reply: Bytes,
    /// It waits for data.
    pub wait: Option<Wait>,
}

impl<P: Protocol> Redirected<P> {
    /// Whether it has to be answered before then.
    pub fn is_late(&self, then: Time) -> bool {
        self.deadline.is_some_and(|deadline| deadline < then)
    }

    /// Which node is named, as long as that counts: for a script others have to agree.
    pub fn names_owner(&self) -> bool {
        !self.ticket.scripted.is_script() && matches!(P::redirect(&self.reply), Some(Redirect::Moved { .. }))
    }
}

/// A request that waits for its next attempt.
pub(super) struct Parked<P: Protocol> {
    /// Since when it waits.
    pub since: Time,
    /// When it is sent again, unless who owns what is known anew before.
    pub due: Time,
    pub redirected: Redirected<P>,
}

/// All requests of one client that wait for their next attempt: one at least.
pub(super) struct Waiting<P: Protocol> {
    requests: Vec<Parked<P>>,
    /// The place of the oldest of them: when that is due they all are.
    oldest: usize,
    /// Bytes of the requests, and of what nodes have said to them.
    texts: usize,
}

impl<P: Protocol> Waiting<P> {
    /// One more.
    pub fn add(slot: &mut Option<Box<Self>>, parked: Parked<P>) {
        let waiting = slot
            .get_or_insert_with(|| Box::new(Self { requests: Vec::with_capacity(1), oldest: 0, texts: 0 }));
        waiting.texts += texts(&parked.redirected);
        // A vector makes places for four at once; most clients have one request.
        waiting.requests.reserve_exact(waiting.missing_places());
        waiting.requests.push(parked);
        let newest = waiting.requests.len() - 1;
        if waiting.is_older(newest, waiting.oldest) {
            waiting.oldest = newest;
        }
    }

    /// Those that are so wait no more.
    pub fn extract(
        slot: &mut Option<Box<Self>>,
        is_meant: impl Fn(&Redirected<P>) -> bool,
    ) -> Vec<Parked<P>> {
        let Some(waiting) = slot else { return Vec::new() };
        let meant: Vec<_> = waiting.requests.extract_if(.., |parked| is_meant(&parked.redirected)).collect();
        waiting.texts -= meant.iter().map(|parked| texts(&parked.redirected)).sum::<usize>();
        waiting.requests.shrink_to_fit();
        match (1..waiting.requests.len()).fold(0, |old, other| waiting.older(old, other)) {
            _ if waiting.requests.is_empty() => *slot = None,
            oldest => waiting.oldest = oldest,
        }
        meant
    }

    /// For how long the request waits for data, where it does: then it is the only one.
    pub fn wait(&self) -> Option<Wait> {
        self.requests.first()?.redirected.wait
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.requests.len()
    }

    /// All of them.
    pub fn into_requests(self) -> Vec<Parked<P>> {
        self.requests
    }

    /// When they are sent again, unless who owns what is known anew before.
    pub fn due(&self) -> Time {
        self.requests[self.oldest].due
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        own_bytes::<P>() + self.requests.capacity() * size_of::<Parked<P>>() + self.texts
    }

    /// How much more that is with one more.
    pub fn cost(waiting: Option<&Self>, redirected: &Redirected<P>) -> usize {
        let own = if waiting.is_none() { own_bytes::<P>() } else { 0 };
        let places = waiting.map_or(1, Self::missing_places);
        own + places * size_of::<Parked<P>>() + texts(redirected)
    }

    /// Places that have to be made for one more.
    fn missing_places(&self) -> usize {
        let count = self.requests.len();
        if count < self.requests.capacity() { 0 } else { count.max(1) }
    }

    fn is_older(&self, one: usize, other: usize) -> bool {
        let number = |place: usize| self.requests[place].redirected.ticket.number;
        is_later(number(other), number(one))
    }

    fn older(&self, one: usize, other: usize) -> usize {
        if self.is_older(other, one) { other } else { one }
    }
}

/// What a client takes here beside its requests.
fn own_bytes<P: Protocol>() -> usize {
    size_of::<Waiting<P>>() + 2 * PIECE_BYTES + DUE_BYTES
}

fn texts<P: Protocol>(redirected: &Redirected<P>) -> usize {
    redirected.request.len() + redirected.reply.len() + 2 * PIECE_BYTES
}

/// Numbers of requests begin anew after the last one.
pub(super) fn is_later(number: u32, than: u32) -> bool {
    number.wrapping_sub(than).cast_signed() > 0
}
