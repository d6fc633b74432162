//! The book of values that are on their way from one shard to another (RENAME and its like); `transferring.rs` is how they get there.
//!
//! ```text
//!   time to live, value ──> write it at the other shard ──> remove it here ──> the client is answered
//!        (source)                  (destination)              (source)
//! ```
//!
//! A step is sent once the one before it is answered, so a value is removed only where it is known to be written elsewhere: what fails
//! in between leaves it where it was. It is not atomic: between the steps others may see both keys, and change either.
//!
//! What its client has sent before is answered by then, and what it sends after that is served once it has the reply. A client that goes
//! before the value is sent on leaves nothing behind; one that goes later leaves the rest to be done, or the value would be under
//! both keys.
//!
//! Each step has tickets of its own kind (`Whom::Fetch`, `Whom::Attempt`), so as many are in the book as the queues of shards allow, and
//! those that wait for room in one, which hold the value: in the account.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::ticket::Ticket;
use super::{ClientId, ConnectionId, Limits};
use crate::protocol::{Protocol, Transfer};
use crate::time::Time;

/// What one takes beside its keys and value.
const TRANSFER_BYTES: usize = 2 * size_of::<(u32, UnderWay)>() + 2 * size_of::<(ClientId, u32)>() + 64;

/// One of the two shards.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub at: ConnectionId,
    pub shard: Arc<str>,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Step {
    /// It was asked how long the value lives on, and for the value.
    Lifetime,
    /// The second answer is still to come.
    Value(Option<u64>),
    /// There is no room for this request at the destination; until then it is waited for.
    Waiting(Vec<u8>, Time),
    /// It is being written there.
    Store,
    /// It is being removed here.
    Remove,
}

/// A value on its way.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub client: ClientId,
    /// Nobody hears of it any more.
    pub is_alone: bool,
    /// Number of the request among those of its client.
    pub number: u32,
    pub transfer: Transfer,
    pub from: Place,
    pub to: Place,
    pub step: Step,
}

impl UnderWay {
    fn bytes(&self) -> usize {
        let value = if let Step::Waiting(request, _) = &self.step { request.len() } else { 0 };
        TRANSFER_BYTES + self.transfer.source.len() + self.transfer.destination.len() + value
    }

    /// What it is at, where, and what a failure there means for the keys; `is_known` if it is certain that the step was not done.
    pub fn at(&self, is_known: bool) -> (&'static str, &Place, &'static str) {
        const UNCHANGED: &str = "nothing was changed";
        match self.step {
            Step::Lifetime | Step::Value(_) => ("reading the value", &self.from, UNCHANGED),
            Step::Waiting(..) => ("writing the value", &self.to, UNCHANGED),
            Step::Store if is_known => ("writing the value", &self.to, UNCHANGED),
            Step::Store => (
                "writing the value",
                &self.to,
                "the source was kept, and the destination may have been written",
            ),
            Step::Remove if is_known => ("removing the source", &self.from, "the value is under both keys"),
            Step::Remove => ("removing the source", &self.from, "the value may be under both keys"),
        }
    }
}

/// All of a pool.
#[derive(Default)]
pub(super) struct Transfers {
    under_way: HashMap<u32, UnderWay>,
    of_clients: HashMap<ClientId, u32>,
    /// Those that wait for room, and when they are to be looked at.
    waiting: BTreeSet<(Time, u32)>,
    /// Bytes that all take, and what was last counted.
    held: usize,
    counted: usize,
}

impl Transfers {
    /// One begins.
    pub fn begin(
        &mut self,
        serial: u32,
        client: ClientId,
        number: u32,
        transfer: Transfer,
        [from, to]: [Place; 2],
    ) {
        let (is_alone, step) = (false, Step::Lifetime);
        self.put(serial, UnderWay { client, is_alone, number, transfer, from, to, step });
    }

    /// It goes on.
    pub fn put(&mut self, serial: u32, under_way: UnderWay) {
        self.held += under_way.bytes();
        if !under_way.is_alone {
            self.of_clients.insert(under_way.client, serial);
        }
        self.under_way.insert(serial, under_way);
    }

    /// It is at hand, or over.
    pub fn take(&mut self, serial: u32) -> Option<UnderWay> {
        let under_way = self.under_way.remove(&serial)?;
        self.held -= under_way.bytes();
        if !under_way.is_alone {
            self.of_clients.remove(&under_way.client);
        }
        if self.under_way.is_empty() {
            // Tables that many have needed are given back.
            (self.under_way, self.of_clients) = Default::default();
        }
        Some(under_way)
    }

    /// Whether it goes on, with this ticket.
    pub fn awaits<P: Protocol>(&self, ticket: &Ticket<P>) -> bool {
        ticket.attempts().is_some_and(|serial| self.under_way.contains_key(&serial))
    }

    /// What is held for the client.
    pub fn bytes_of(&self, id: ClientId) -> usize {
        self.of_client(id).and_then(|serial| self.under_way.get(&serial)).map_or(0, UnderWay::bytes)
    }

    /// What is under way for the client.
    pub fn of_client(&self, id: ClientId) -> Option<u32> {
        self.of_clients.get(&id).copied()
    }

    /// One that waits for room is to be looked at then.
    pub fn look_later(&mut self, serial: u32, due: Time) {
        self.waiting.insert((due, serial));
    }

    /// What they take, as it was counted last, and as it is.
    pub fn count(&mut self) -> (usize, usize) {
        (std::mem::replace(&mut self.counted, self.held), self.held)
    }

    /// When one is to be looked at that waits for room.
    pub fn due(&self) -> Option<Time> {
        self.waiting.first().map(|&(due, _)| due)
    }

    /// One that is to be looked at by now.
    pub fn take_due(&mut self, now: Time) -> Option<u32> {
        if self.due()? > now {
            return None;
        }
        self.waiting.pop_first().map(|(_, serial)| serial)
    }
}

/// The longest response that is taken for a value: it has to be a reply and a request.
pub(super) fn value_max(limits: &Limits) -> u64 {
    // Response and request are there at the same time.
    limits.request_bytes_max.min(limits.client_output_max as u64).min(limits.memory_max as u64 / 2)
}
