//! When requests are told of, in the slow log and in the access log.
//!
//! A request is judged as its response is taken, by the time that is measured for the histogram anyway. Where it went is known by
//! then but for what comes after: whether other fragments, or replies to earlier requests, have to come before, and when the client
//! takes it. So an entry waits until its reply is out.
//!
//! Of those that have only waited behind others at their shard none has an entry in the slow log: one that is slow for thousands is no
//! use in a log of a hundred.

use std::sync::Arc;

use super::Pool;
use super::connection::{Connection, Traced};
use super::connections::ConnectionId;
use super::context::Context;
use super::intake::Intake;
use super::limits::NEVER_SLOW;
use super::noted::{Noted, OPEN_MAX, OPEN_TIME_MAX, Open, Samples, Told};
use super::service::Service;
use super::ticket::Ticket;
use super::wishes::{Notice, Wish, Wishes};
use crate::failure::ShardFailure;
use crate::privacy::Privacy;
use crate::protocol::Protocol;
use crate::slow::{Entry, Sender, Spent, Trace};
use crate::time::Time;

/// Bytes that are shown of an error.
const ERROR_MAX: usize = 128;
/// Codes that servers and the proxy give errors, sorted: where keys are private nothing else is shown of an error.
const CODES: [&[u8]; 40] = [
    b"ASK",
    b"BUSY",
    b"BUSYGROUP",
    b"BUSYKEY",
    b"CLIENT_ERROR",
    b"CLUSTERDOWN",
    b"CROSSSLOT",
    b"DENIED",
    b"ERR",
    b"ERROR",
    b"EXECABORT",
    b"INPROG",
    b"INVALIDOBJ",
    b"IOERR",
    b"LOADING",
    b"MASTERDOWN",
    b"MISCONF",
    b"MOVED",
    b"NOADDR",
    b"NOAUTH",
    b"NOGROUP",
    b"NOMASTERLINK",
    b"NONEXT",
    b"NOPERM",
    b"NOPROTO",
    b"NOREPLICAS",
    b"NOSCRIPT",
    b"NOTBUSY",
    b"NOTREADY",
    b"NOVALIDRDB",
    b"OOM",
    b"READONLY",
    b"REDIRECT",
    b"SERVER_ERROR",
    b"STALE",
    b"TRYAGAIN",
    b"UNBLOCKED",
    b"UNKILLABLE",
    b"WRONGPASS",
    b"WRONGTYPE",
];

impl<P: Protocol> Intake<'_, P> {
    /// The response at hand has taken long, or is an error, or is one of those that are looked at.
    #[cold]
    #[inline(never)]
    pub(super) fn note_request(&mut self, ticket: &Ticket<P>, micros: u64, response: &[u8]) {
        let limits = &self.context.limits;
        let [is_sampled, is_traced] =
            if self.note_min == 0 { self.wishes.samples.are_sampled(limits) } else { [false; 2] };
        let error = P::error(response).filter(|_| !self.connection.streaming);
        let told = Told {
            slow: limits.slow_min != NEVER_SLOW && micros >= limits.slow_min,
            access: is_sampled || error.is_some() && limits.access_errors,
            trace: is_traced || micros >= limits.trace_min,
        };
        if !told.slow && !told.access && !told.trace {
            return;
        }
        let error = error.map(|error| shown_error(error, limits.privacy));
        let (members, member) = (self.members, self.connection.member);
        let connection = &*self.connection;
        let traced = || connection.trace_answered(ticket);
        let shard = || members[member].name.clone();
        note(ticket, connection, traced, self.context, self.wishes, shard, self.now, told, error, false);
    }
}

/// Whether it is told of is decided here.
#[expect(clippy::too_many_arguments, reason = "what is known of one request")]
fn note<P: Protocol>(
    ticket: &Ticket<P>,
    connection: &Connection<P>,
    traced: impl FnOnce() -> Traced,
    context: &Context<P>,
    wishes: &mut Wishes,
    shard: impl FnOnce() -> Arc<str>,
    now: Time,
    mut told: Told,
    error: Option<Box<str>>,
    failed: bool,
) {
    let Some(client) = ticket.client() else { return };
    let Samples { slow, access, trace, .. } = &mut wishes.samples;
    context.counters.slow.add(u64::from(told.slow));
    let (is_slow, is_accessed) = (told.slow, told.access);
    // To find out what a request was costs more than all of this.
    told.slow = is_slow && slow.looks(now);
    told.access = is_accessed && access.admits(now);
    told.trace = told.trace && trace.admits(now);
    context.counters.access_passed_over.add(u64::from(is_accessed && !told.access));
    if !told.slow && !told.access && !told.trace {
        return context.counters.slow_passed_over.add(u64::from(is_slow));
    }
    let Traced { written, heard, head } = traced();
    let written = written.unwrap_or(if failed { now } else { ticket.since }).max(ticket.since);
    if told.slow {
        let slow_min = u128::from(context.limits.slow_min);
        let is_long = |from: Time, to: Time| to.since(from).as_micros() >= slow_min;
        // What waits behind others at its shard is answered soon after them, and written soon after others are answered.
        told.slow = failed
            || is_long(ticket.since.max(heard), written)
            || is_long(written.max(connection.heard_before()), now);
    }
    if told.slow {
        slow.tells();
    }
    context.counters.slow_passed_over.add(u64::from(is_slow && !told.slow));
    if told.slow || told.access || told.trace {
        wishes.add(Wish::Note(Box::new(Noted {
            client,
            number: ticket.number,
            shard: shard(),
            since: ticket.since,
            written,
            answered: now,
            words: P::shown(&head, context.limits.privacy),
            failed,
            error,
            told,
        })));
    }
}

/// As much of an error as is shown: what stands in quotes may be anything that a client has written, a password in the wrong place too.
fn shown_error(error: &[u8], privacy: Privacy) -> Box<str> {
    let ends: &[u8] = if privacy == Privacy::HashedKeys { b" \r\n" } else { b"'\"`\r\n" };
    let end = error.iter().position(|byte| ends.contains(byte)).unwrap_or(error.len()).min(ERROR_MAX);
    // A script makes an error of whatever it likes, the name of a key too.
    if privacy == Privacy::HashedKeys && CODES.binary_search(&&error[..end]).is_err() {
        return "(error)".into();
    }
    String::from_utf8_lossy(&error[..end]).trim_end().escape_debug().to_string().into()
}

impl<P: Protocol> Service<'_, P> {
    /// The request is answered with an error by the proxy itself. Of it no more is shown than its name: it may have a password in it,
    /// wherever its client has put that.
    #[cold]
    #[inline(never)]
    pub(super) fn note_refused(&mut self, input: &[u8]) {
        if !self.context.limits.access_errors {
            return;
        }
        if !self.wishes.samples.access.admits(self.now) {
            return self.context.counters.access_passed_over.add(1);
        }
        let privacy = self.context.limits.privacy;
        let error = P::error(&self.plan.reply).unwrap_or(b"refused");
        self.wishes.add(Wish::Note(Box::new(Noted {
            client: self.id,
            number: self.activity.replies.next_number(),
            shard: "".into(),
            since: self.arrived,
            written: self.now,
            answered: self.now,
            words: P::shown(input, privacy).into_iter().take(1).collect(),
            failed: false,
            error: Some(shown_error(error, privacy)),
            told: Told { slow: false, access: true, trace: false },
        })));
    }
}

impl<P: Protocol> Pool<P> {
    /// These have failed: they had no response in time, or their connection is lost.
    pub(super) fn note_failed(
        &mut self,
        at: ConnectionId,
        tickets: Vec<(Ticket<P>, Traced)>,
        failure: &ShardFailure,
        now: Time,
    ) {
        for (ticket, traced) in tickets {
            let connection = &self.router.connections[at];
            let name = &self.router.members[connection.member].name;
            let limits = &self.context.limits;
            let failed = *failure == ShardFailure::ResponseTimeout;
            let micros = now.micros().saturating_sub(ticket.since.micros());
            let told = Told {
                slow: failed && limits.slow_min != NEVER_SLOW && micros >= limits.slow_min,
                access: limits.access_errors,
                trace: failed && micros >= limits.trace_min,
            };
            if !told.slow && !told.access && !told.trace {
                continue;
            }
            let error = failure.of_shard(name);
            let error = match failure {
                // It has the first words of what the shard has sent.
                ShardFailure::Malformed(_) => shown_error(error.as_bytes(), limits.privacy),
                _ => error.into_boxed_str(),
            };
            let shard = || name.clone();
            let wishes = &mut self.wishes;
            note(
                &ticket,
                connection,
                || traced,
                &self.context,
                wishes,
                shard,
                now,
                told,
                Some(error),
                failed,
            );
        }
    }

    /// A request is told of whose client has this address.
    pub fn tell_of(&mut self, noted: Noted, address: String) {
        let Some(client) = self.clients.get(noted.client) else { return };
        let [name, user, trace] = P::names(&client.session, &self.context.settings);
        let trace = Trace::of_client(&trace);
        let sender = Sender { number: client.id, address, name, user };
        let open = Open { noted, sender, trace, merged: None };
        self.noted.open.push_back(open);
        if self.noted.open.len() > OPEN_MAX
            && let Some(oldest) = self.noted.open.pop_front()
        {
            let at = oldest.noted.answered;
            self.close_noted(oldest, at, at);
        }
    }

    /// The pass is at its end: of whose reply is out the logs are told. Whether something is wished for now.
    #[inline]
    pub(super) fn finish_noted(&mut self, now: Time) -> bool {
        !self.noted.open.is_empty() && self.close_finished(now)
    }

    #[cold]
    fn close_finished(&mut self, now: Time) -> bool {
        for _ in 0..self.noted.open.len() {
            let Some(mut open) = self.noted.open.pop_front() else { break };
            let has_time = now.since(open.noted.answered) < OPEN_TIME_MAX;
            let activity = self.clients.activity(open.noted.client);
            if has_time && activity.is_some_and(|activity| activity.replies.has(open.noted.number)) {
                self.noted.open.push_back(open);
                continue;
            }
            let merged = *open.merged.get_or_insert(now);
            if has_time && activity.is_some_and(|activity| !activity.replies.output.is_sent()) {
                self.noted.open.push_back(open);
                continue;
            }
            self.close_noted(open, merged, now);
        }
        self.has_wishes()
    }

    fn new_trace(&mut self) -> Trace {
        let [high, low] = [self.router.random(), self.router.random()];
        Trace { id: u128::from(high) << 64 | u128::from(low | 1), parent: 0 }
    }

    fn close_noted(&mut self, Open { noted, sender, trace, .. }: Open, merged: Time, taken: Time) {
        let micros = |from: Time, to: Time| to.micros().saturating_sub(from.micros());
        let spent = Spent {
            queued: micros(noted.since, noted.written),
            shard: micros(noted.written, noted.answered),
            merged: micros(noted.answered, merged),
            client: micros(merged, taken),
        };
        let at = self.context.identity.unix_start + noted.since.micros();
        let Noted { number, words, shard, failed, error, told, .. } = noted;
        let trace = told.trace.then(|| trace.unwrap_or_else(|| self.new_trace()));
        let entry = Entry { id: 0, number, at, words, sender, shard, spent, failed, error, trace };
        if told.trace {
            self.context.slow.trace(entry.clone());
        }
        if told.access {
            self.wishes.log(Notice::Access(Box::new(entry.clone())));
        }
        if told.slow {
            self.context.slow.add(entry, self.context.limits.slow_log_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_shown_without_what_a_client_has_written() {
        let shown = |error: &[u8], privacy| shown_error(error, privacy).into_string();
        let unknown = b"ERR unknown command 'AUHT', with args beginning with: 'secret' \r\n";
        assert_eq!(shown(unknown, Privacy::Shown), "ERR unknown command");
        assert_eq!(shown(unknown, Privacy::HashedKeys), "ERR");
        assert_eq!(shown(b"user:42 is no number\r\n", Privacy::HashedKeys), "(error)");
        assert_eq!(shown(b"SESSION is no number\r\n", Privacy::HashedKeys), "(error)");
        assert!(CODES.is_sorted());
        assert_eq!(shown(b"SERVER_ERROR out of memory\r\n", Privacy::HashedKeys), "SERVER_ERROR");
        assert_eq!(shown(b"WRONGTYPE Operation against\r\n", Privacy::Shown), "WRONGTYPE Operation against");
        assert_eq!(shown(&[b'x'; 1000], Privacy::Shown).len(), ERROR_MAX);
    }
}
