//! What has come of one shard connection: response after response is taken from it, and goes to whom it is for.
//!
//! The functions that every response passes are inlined: together they are one loop.

use bytes::{Buf, Bytes, BytesMut};
use shard_discovery::Topology;

use super::caches::Caches;
use super::channels::Channels;
use super::clients::Clients;
use super::connection::{Connection, Link};
use super::connections::ConnectionId;
use super::context::Context;
use super::handshake::Step;
use super::members::Members;
use super::parked::Redirected;
use super::private::Private;
use super::redirect::{Executed, Redirects};
use super::replies::Taken;
use super::ticket::{Ticket, Whom};
use super::waiting::is_for_us;
use super::wishes::Wishes;
use crate::buffer::{Piece, SHARE_MIN};
use crate::failure::ShardFailure;
use crate::metrics::ShardCounters;
use crate::protocol::{DecodeResponses, Interruption, Malformed, Protocol, Refused, Scripted};
use crate::time::Time;

mod attempt;
mod block;
mod caching;
mod feed;
mod script;
mod tracker;
mod watch;

/// From this size on a response goes to its client piece by piece instead of whole.
const STREAM_MIN: usize = 1024 * 1024;

/// A connection while responses are taken from what has come.
pub(super) struct Intake<'r, P: Protocol> {
    pub context: &'r Context<P>,
    pub clients: &'r mut Clients<P>,
    pub redirects: &'r mut Redirects<P>,
    pub wishes: &'r mut Wishes,
    pub channels: &'r mut Channels,
    pub caches: &'r mut Caches,
    /// Who owns which keys.
    pub topology: &'r Topology,
    pub members: &'r Members,
    pub connection: &'r mut Connection<P>,
    /// Those of its shard.
    pub counters: &'r ShardCounters,
    pub at: ConnectionId,
    pub now: Time,
    /// Bytes before this are done with.
    pub start: usize,
    /// The response at hand, which begins at `start`, is understood up to here.
    pub end: usize,
    /// There is more to be written to the shard.
    pub has_more: bool,
    pub responses: u64,
    pub response_bytes: u64,
    /// Of what takes so many microseconds, or is an error and takes so many, it is looked whether it is told of.
    pub note_min: u64,
    pub error_min: u64,
}

/// What was taken.
struct One {
    /// There may be more.
    goes_on: bool,
    /// It was the last of the oldest request in flight.
    is_answered: bool,
}

impl<P: Protocol> Intake<'_, P> {
    /// Takes what is complete, and of what is large as much as there is.
    #[inline(always)]
    pub fn take(&mut self, scratch: &mut BytesMut) -> Result<(), ShardFailure> {
        if self.connection.special {
            return self.take_special(scratch);
        }
        if self.connection.is_plain() {
            while self.take_next(scratch)? {}
        }
        // That may have begun just now.
        if self.connection.is_plain() { Ok(()) } else { self.take_carefully(scratch) }
    }

    /// The same, where other things come than responses to requests, or what comes is to be noted.
    #[cold]
    #[inline(never)]
    fn take_special(&mut self, scratch: &mut BytesMut) -> Result<(), ShardFailure> {
        if self.connection.feed.is_some() {
            self.take_feed(scratch)
        } else if self.connection.tracker.is_some() {
            self.take_tracker(scratch)
        } else {
            self.take_to_keep(scratch)
        }
    }

    /// The same, where a transaction is in flight, or a request was not executed: notes which of those behind it were.
    #[cold]
    #[inline(never)]
    fn take_carefully(&mut self, scratch: &mut BytesMut) -> Result<(), ShardFailure> {
        while self.take_one_carefully(scratch)?.goes_on {}
        Ok(())
    }

    /// The next response, or a piece of it, in that way.
    fn take_one_carefully(&mut self, scratch: &mut BytesMut) -> Result<One, ShardFailure> {
        let in_flight = self.connection.in_flight();
        let (first, before, redirected) =
            (in_flight.front().copied(), in_flight.len(), self.redirects.fresh.len());
        // Before it is written no response is one to it.
        let is_serving = matches!(self.connection.link, Link::Up) && self.connection.asked().is_some();
        let goes_on = match first.filter(|ticket| is_serving && ticket.is_block()) {
            Some(ticket) => self.take_of_block(ticket, scratch),
            None => self.take_next(scratch),
        };
        let is_redirected = self.redirects.fresh.len() > redirected;
        let is_answered = self.connection.in_flight().len() < before && !is_redirected;
        if is_answered {
            self.connection.watched = self.connection.watched.saturating_sub(1);
            self.redirects.executed.extend(first.as_ref().and_then(Executed::of));
        }
        Ok(One { goes_on: goes_on? || is_redirected, is_answered })
    }

    /// The next response, or a piece of it; false if there is none yet, or from here on it is to be watched who is answered.
    #[inline(always)]
    fn take_next(&mut self, scratch: &mut BytesMut) -> Result<bool, ShardFailure> {
        self.take_one::<false>(scratch)
    }

    /// The same, perhaps the last response to a transaction.
    #[inline(always)]
    fn take_one<const OF_BLOCK: bool>(&mut self, scratch: &mut BytesMut) -> Result<bool, ShardFailure> {
        let progress = self
            .connection
            .decoder
            .decode(&scratch[self.end..])
            .map_err(|Malformed(reason)| ShardFailure::Malformed(reason))?;
        self.end += progress.length;
        if progress.push {
            // It answers nothing.
            return Ok(self.take_push(scratch, progress.complete));
        }
        let is_complete = progress.complete;
        let response = &scratch[self.start..self.end];
        if matches!(self.connection.link, Link::Greeting { .. }) {
            return self.take_greeting(response, is_complete);
        }
        let Some(asked) = self.connection.asked() else {
            if scratch.len() == self.start {
                return Ok(false);
            }
            // One byte of it is enough: the next request would be answered with it.
            return Err(unasked::<P>(&self.context.settings, is_complete.then_some(response)));
        };
        let (expected, scripted, is_attempt) = (asked.expected, asked.scripted, asked.attempts().is_some());
        if !is_complete && (response.len() < STREAM_MIN || is_attempt && !self.is_overlong(response.len())?) {
            return Ok(false);
        }
        let mut note_min = self.note_min;
        // What is left of a response that was passed on in part may begin with anything.
        if !self.connection.streaming {
            if !P::fits(expected, response) {
                let words = beginning(response);
                return Err(ShardFailure::Malformed(format!("{words:?} is not a response to this request")));
            }
            if self.error_min < note_min && is_complete && P::error(response).is_some() {
                note_min = self.error_min;
            }
            if response[0] == P::ERROR && is_complete {
                if self.is_redirected(response, scripted.is_script()) {
                    return Ok(self.connection.is_plain());
                }
                if scripted == Scripted::Loaded && self.is_run_again(response) {
                    return Ok(true);
                }
            }
            if OF_BLOCK && is_complete {
                self.is_of_block(response);
            }
        }
        let ticket = if is_complete {
            self.connection.answered()
        } else {
            self.connection.in_flight().front().copied()
        };
        let ticket = ticket.expect("somebody has asked");
        self.response_bytes += response.len() as u64;
        if ticket.is_of_proxy() {
            if let Whom::Inquirer(id) = ticket.whom {
                let said = if is_complete { response } else { &[] };
                self.hear_of_scripts(id, ticket.number, said);
                return Ok(is_complete);
            }
            let refused = (response[0] == P::ERROR).then(|| P::script_refused(response));
            return Ok(self.take_own(&ticket, refused, is_complete));
        }
        if let Some(serial) = ticket.attempts() {
            return Ok(self.take_attempt(&ticket, serial, scratch, is_complete));
        }
        self.responses += u64::from(is_complete);
        // How long data was waited for says nothing of the shard. Where keys are watched nobody waits.
        let waits = |private: &Private| private.watch.is_none();
        if is_complete && !self.connection.private.as_deref().is_some_and(waits) {
            let micros = self.now.micros().saturating_sub(ticket.since.micros());
            self.counters.latency.record(micros);
            if micros >= note_min {
                self.note_request(&ticket, micros, response);
            }
        }
        self.connection.streaming = !is_complete;
        if self.deliver(&ticket, scratch, is_complete) {
            return Err(ShardFailure::Malformed("unexpected response to a part of a request".into()));
        }
        if !is_complete {
            self.counters.streamed.add(1);
        }
        Ok(is_complete)
    }

    /// The response to a request of the proxy itself, or a part of it, and what it means if it is an error.
    fn take_own(&mut self, ticket: &Ticket<P>, refused: Option<Refused>, is_complete: bool) -> bool {
        let is_refused = refused.is_some();
        self.start = self.end;
        if let Some(at) = ticket.ends_wait() {
            if is_complete {
                self.redirects.heard.push((at, is_refused));
            }
            return is_complete;
        }
        if let Some(mark) = ticket.loads() {
            if let Some(loaded) = &mut self.connection.loaded {
                loaded.answered(mark);
            }
            if let Some(refused) = refused {
                self.script_is_refused(mark, refused);
            }
        } else if let Some(private) = &mut self.connection.private {
            // It is not as clean as it was to become.
            private.is_tainted |= is_refused;
        }
        true
    }

    /// A response to what was said first on the connection.
    fn take_greeting(&mut self, response: &[u8], is_complete: bool) -> Result<bool, ShardFailure> {
        let Link::Greeting(handshake) = &mut self.connection.link else { return Ok(true) };
        if !is_complete {
            let is_long = response.len() > handshake.response_max();
            let failure = || ShardFailure::Malformed("handshake response too long".into());
            return if is_long { Err(failure()) } else { Ok(false) };
        }
        match handshake.hear::<P>(&self.context.settings, response)? {
            Step::Goes => {}
            Step::Asks => self.has_more = true,
            Step::Done => {
                let peer = handshake.peer;
                if let Some(private) = &mut self.connection.private {
                    private.peer = peer;
                }
                self.connection.up();
                self.has_more = true;
            }
        }
        self.start = self.end;
        Ok(true)
    }

    /// A response is an error. If it says that the request was not executed, that is taken back and sent elsewhere.
    fn is_redirected(&mut self, response: &[u8], scripted: bool) -> bool {
        let wait = self.connection.private.as_ref().and_then(|private| private.wait);
        if let Some(wait) = wait
            && P::interruption(response).is_some_and(|interruption| is_for_us(interruption, wait.ending))
            && let Some((ticket, request)) = self.connection.take_back()
        {
            self.responses += 1;
            self.response_bytes += response.len() as u64;
            let (from, reply) = (self.connection.member, Bytes::copy_from_slice(response));
            if let Some(private) = &mut self.connection.private {
                // The shard closes it where it serves such requests no more.
                private.is_tainted |= P::interruption(response) == Some(Interruption::Changed);
            }
            let wait = Some(wait);
            self.redirects.interrupted.push(Redirected {
                from,
                deadline: None,
                ticket,
                request,
                reply,
                wait,
            });
            self.start = self.end;
            return true;
        }
        if self.is_unwatched(response) {
            return true;
        }
        let is_ours = |ticket: &Ticket<P>| ticket.ends_wait().is_some() || ticket.attempts().is_some();
        if self.connection.follows()
            && !self.connection.asked().is_some_and(is_ours)
            && P::redirect(response).is_some()
            && let Some((ticket, request)) = self.connection.take_back()
        {
            self.responses += 1;
            self.response_bytes += response.len() as u64;
            let (from, deadline) = (self.connection.member, self.connection.policy.deadline(ticket.since));
            let reply = Bytes::copy_from_slice(response);
            self.connection.watched = self.connection.in_flight().len();
            self.redirects.fresh.push(Redirected { from, deadline, ticket, request, reply, wait });
            self.start = self.end;
            return true;
        }
        // What a script says is its client's word.
        if !scripted && P::is_complaint(response) {
            self.wishes.log_complaint(self.at, response);
        }
        false
    }

    /// The response at hand, or a piece of it, goes to whoever waits for it. True if it cannot be the response to its part of
    /// a request.
    #[inline(always)]
    fn deliver(&mut self, ticket: &Ticket<P>, scratch: &mut BytesMut, is_complete: bool) -> bool {
        let is_shared = self.end - self.start >= SHARE_MIN;
        let is_large = is_shared && self.end - self.start >= self.context.limits.large_value_min;
        if is_shared {
            scratch.advance(self.start);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let mut taken = Taken::Fine;
        match ticket.client().and_then(|id| self.clients.touch(id)) {
            Some(client) => {
                let activity =
                    client.activity.as_mut().expect("a client with a request in flight has an activity");
                self.wishes.large |= is_shared;
                if is_shared {
                    note_large(self.context, ticket, self.end - self.start, self.now);
                }
                if is_large {
                    client.weight.is_large();
                }
                let piece = if is_shared {
                    Piece::Shared(scratch.split_to(self.end).freeze())
                } else {
                    Piece::Copied(&scratch[self.start..self.end])
                };
                taken = activity.replies.answer(ticket.number, ticket.fragment, piece, is_complete);
            }
            None => {
                if matches!(ticket.whom, Whom::Nobody) {
                    self.counters.late_responses.add(u64::from(is_complete));
                }
                if is_shared {
                    scratch.advance(self.end);
                }
            }
        }
        self.start = if is_shared { 0 } else { self.end };
        self.end = self.start;
        if taken == Taken::Refused {
            self.context.counters.refused.add(1);
            // Nodes may own something else than is known.
            self.redirects.stale |= self.connection.follows();
        }
        taken == Taken::Odd
    }
}

/// What so much has come for may be known of: see [`crate::hot`].
#[cold]
fn note_large<P: Protocol>(context: &Context<P>, ticket: &Ticket<P>, bytes: usize, now: Time) {
    if context.limits.hot_keys_sample > 0
        && let Some(client) = ticket.client()
        && let Some(mut book) = context.hot.try_open(context.own_mailbox())
    {
        book.replied(client.number(), ticket.number, bytes, now);
        context.hot.settle(&mut book);
    }
}

/// What nobody asked for. A shard that has too many clients says so unasked, and closes.
fn unasked<P: Protocol>(settings: &P::Settings, response: Option<&[u8]>) -> ShardFailure {
    match response.map(|response| P::greeted(settings, response)) {
        Some(Err(words)) => ShardFailure::HandshakeRefused(words),
        _ => ShardFailure::Malformed("unexpected response without a request".into()),
    }
}

/// The first word of a response, for an error that any client may read: what follows may be the data of another one.
fn beginning(response: &[u8]) -> String {
    const SHOWN_MAX: usize = 32;
    let word = response.split(|byte| b" \r\n".contains(byte)).next().unwrap_or_default();
    String::from_utf8_lossy(&word[..word.len().min(SHOWN_MAX)]).into_owned()
}
