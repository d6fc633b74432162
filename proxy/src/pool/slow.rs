//! Requests that were slow: which of them the log is told of, and when what is told of one is complete.
//!
//! A request is judged as its response is taken, by the time that is measured for the histogram anyway. Where it went is known by
//! then but for what comes after: whether other fragments, or replies to earlier requests, have to come before, and when the client
//! takes it. So an entry waits until its reply is out.
//!
//! One that is slow for thousands is no use in a log of a hundred: of those that have only waited behind others at their shard none has
//! an entry, and there are so many in a pass and in a second at most. All are counted.

use std::sync::Arc;
use std::time::Duration;

use super::Pool;
use super::clients::ClientId;
use super::connection::{Connection, Traced};
use super::connections::ConnectionId;
use super::context::Context;
use super::intake::Intake;
use super::ticket::Ticket;
use super::wishes::{Wish, Wishes};
use crate::protocol::Protocol;
use crate::slow::{Entry, Sender, Spent};
use crate::time::Time;

/// Entries in a pass, and in a second, of one worker. To make one takes about a microsecond.
const PASS_MAX: usize = 32;
const SECOND_MAX: usize = 1000;
/// Entries that wait until their reply is out.
pub const OPEN_MAX: usize = 1024;

/// A request that was slow, as far as it is known when its response has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slow {
    /// Who has sent it.
    pub client: ClientId,
    /// Its number among those of its client.
    number: u32,
    shard: Arc<str>,
    since: Time,
    written: Time,
    answered: Time,
    words: Vec<Box<[u8]>>,
    failed: bool,
}

/// Those whose reply is not out.
#[derive(Default)]
pub(super) struct SlowRequests {
    open: Vec<Open>,
}

struct Open {
    slow: Slow,
    sender: Sender,
    /// When its turn had come.
    merged: Option<Time>,
}

/// How many may be told of now.
#[derive(Default)]
pub(super) struct Budget {
    /// Since when it counts.
    since: Time,
    told: usize,
    pass: Option<Time>,
    in_pass: usize,
}

impl Budget {
    fn admits(&mut self, now: Time) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            (self.since, self.told) = (now, 0);
        }
        if self.pass != Some(now) {
            (self.pass, self.in_pass) = (Some(now), 0);
        }
        let admits = self.told < SECOND_MAX && self.in_pass < PASS_MAX;
        self.told += usize::from(admits);
        self.in_pass += usize::from(admits);
        admits
    }
}

impl<P: Protocol> Intake<'_, P> {
    /// The response at hand has come late.
    #[cold]
    #[inline(never)]
    pub(super) fn note_slow(&mut self, ticket: &Ticket<P>) {
        let Self { context, wishes, connection, now, .. } = self;
        let shard = || self.members[connection.member].name.clone();
        note(ticket, connection, || connection.trace_answered(ticket), context, wishes, shard, *now, false);
    }
}

/// Whether the log is told of it is decided here.
#[expect(clippy::too_many_arguments, reason = "two callers")]
pub(super) fn note<P: Protocol>(
    ticket: &Ticket<P>,
    connection: &Connection<P>,
    traced: impl FnOnce() -> Traced,
    context: &Context<P>,
    wishes: &mut Wishes,
    shard: impl FnOnce() -> Arc<str>,
    now: Time,
    failed: bool,
) {
    let Some(client) = ticket.client() else { return };
    context.counters.slow.add(1);
    if !context.limits.notes_requests() {
        return;
    }
    let Traced { written, head } = traced();
    let written = written.unwrap_or(if failed { now } else { ticket.since }).max(ticket.since);
    let is_long = |from: Time, to: Time| to.since(from).as_micros() >= u128::from(context.limits.slow_min);
    // What waits behind others at its shard is answered soon after them.
    let is_own = is_long(ticket.since, written) || is_long(written.max(connection.heard_before()), now);
    if !(is_own || failed) || !wishes.slow.admits(now) {
        return context.counters.slow_passed_over.add(1);
    }
    wishes.add(Wish::Slow(Box::new(Slow {
        client,
        number: ticket.number,
        shard: shard(),
        since: ticket.since,
        written,
        answered: now,
        words: P::shown(&head, context.limits.privacy),
        failed,
    })));
}

impl<P: Protocol> Pool<P> {
    /// These have had no response in time.
    pub(super) fn note_late(&mut self, at: ConnectionId, late: Vec<(Ticket<P>, Traced)>, now: Time) {
        for (ticket, traced) in late {
            let connection = &self.router.connections[at];
            let shard = || self.router.members[connection.member].name.clone();
            note(&ticket, connection, || traced, &self.context, &mut self.wishes, shard, now, true);
        }
    }

    /// A request was slow whose client has this address.
    pub fn log_slow(&mut self, slow: Slow, address: String) {
        let Some(client) = self.clients.get(slow.client) else { return };
        let [name, user] = P::names(&client.session, &self.context.settings);
        let sender = Sender { address, name, user };
        let open = Open { slow, sender, merged: None };
        if self.slow.open.len() < OPEN_MAX {
            self.slow.open.push(open);
        } else {
            let at = open.slow.answered;
            self.close_slow(open, at, at);
        }
    }

    /// The pass is at its end: whose reply is out is in the log from now on.
    #[inline]
    pub(super) fn finish_slow(&mut self, now: Time) {
        if !self.slow.open.is_empty() {
            self.close_finished(now);
        }
    }

    #[cold]
    fn close_finished(&mut self, now: Time) {
        for mut open in std::mem::take(&mut self.slow.open) {
            let activity = self.clients.activity(open.slow.client);
            if activity.is_some_and(|activity| activity.replies.has(open.slow.number)) {
                self.slow.open.push(open);
                continue;
            }
            let merged = *open.merged.get_or_insert(now);
            if activity.is_some_and(|activity| !activity.replies.output.is_sent()) {
                self.slow.open.push(open);
                continue;
            }
            self.close_slow(open, merged, now);
        }
    }

    fn close_slow(&mut self, Open { slow, sender, .. }: Open, merged: Time, taken: Time) {
        let micros = |from: Time, to: Time| to.micros().saturating_sub(from.micros());
        let spent = Spent {
            queued: micros(slow.since, slow.written),
            shard: micros(slow.written, slow.answered),
            merged: micros(slow.answered, merged),
            client: micros(merged, taken),
        };
        let at = self.context.identity.unix_start + slow.since.micros();
        let Slow { words, shard, failed, .. } = slow;
        let entry = Entry { id: 0, at, words, sender, shard, spent, failed };
        self.context.slow.add(entry, self.context.limits.slow_log_max);
    }
}
