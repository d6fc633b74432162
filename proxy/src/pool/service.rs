//! One turn of one client: requests are taken from what was read of it, one after the other, until that is used up, the
//! client has to wait, or its turn is over.
//!
//! The functions that every request passes are inlined: together they are one loop.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use shard_discovery::Home;

use super::caches::Caches;
use super::channels::Channels;
use super::client::{Activity, Pause, Stall, State};
use super::clients::ClientId;
use super::confirming::Confirmations;
use super::connections::ConnectionId;
use super::context::Context;
use super::denials::Denials;
use super::heavy::Weight;
use super::listing::AskedQuestion;
use super::members::ShardIndex;
use super::pass::{REFUSED_WORK, answer_work, script_work, work};
use super::router::{Refusal, Router, Target};
use super::ticket::{Sender, Waiter};
use super::waiting::occupied;
use super::wide::WideWaits;
use super::wishes::{Notice, Wish, Wishes};
use crate::account::Share;
use crate::buffer::{Ahead, Piece, SHARE_MIN};
use crate::failure::ShardFailure;
use crate::protocol::{DecodeRequests, Facts, Malformed, Plan, Protocol, Request, RequestBounds, Route};
use crate::time::Time;
use look::Looks;

mod confirming;
pub mod look;
mod patterns;
mod script;
mod transaction;
mod transfer;
mod watching;
mod whole;
mod wide;

/// A request of this size is looked at before it is served: whether there is room for that.
const LARGE_MIN: usize = 256 * 1024;
/// What an argument takes while its request is served, beside its bytes.
const ARGUMENT_BYTES: usize = 48;
/// The reply to what would need one more kind of shard connections.
const TOO_MANY_LANES: &str =
    "too many databases are in use by other clients; use one of theirs, or try again later";

/// A client in its turn, and what its requests are served by.
pub(super) struct Service<'s, P: Protocol> {
    pub context: &'s Context<P>,
    /// What a request may want to know.
    pub facts: Facts<'s, P>,
    pub router: &'s mut Router<P>,
    pub denials: &'s mut Denials,
    pub wishes: &'s mut Wishes,
    pub channels: &'s mut Channels,
    pub caches: &'s mut Caches,
    pub wide: &'s mut WideWaits,
    pub confirmations: &'s mut Confirmations,
    pub share: &'s Share,
    /// Of the request at hand.
    pub plan: &'s mut Plan<P>,
    pub id: ClientId,
    /// Its unique number.
    pub number: u64,
    pub session: &'s mut P::Session,
    pub lane: &'s mut u32,
    pub weight: &'s mut Weight,
    pub state: &'s mut State,
    pub activity: &'s mut Activity<P>,
    /// When its bytes were read.
    pub arrived: Time,
    pub now: Time,
    /// Bytes that there were to begin with.
    pub received: usize,
    /// Bytes of the requests that were taken, as long as they stand before the others.
    pub used: usize,
    /// The request at hand has left the buffer already, with all that stood before it.
    pub shared: bool,
    /// Work done so far, and what the turn is over with.
    pub done: usize,
    pub turn: usize,
}

/// What comes after a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The next one.
    Request,
    /// Nothing in this turn.
    Stop,
    /// Nothing at all: the client has said goodbye.
    Close,
    /// Nothing at all, and the request is not answered: its client does not hear it.
    Drop,
    /// The same request again, later: it was not taken.
    Same,
}

impl<P: Protocol> Service<'_, P> {
    /// Takes requests from `scratch`, and leaves what was not taken.
    #[inline(always)]
    pub fn serve(&mut self, scratch: &mut BytesMut, looks: &mut impl Looks<P>) {
        while self.used < scratch.len() && self.may_go_on(scratch.len()) {
            let Some(length) = self.find_end(scratch) else { break };
            self.plan.begin();
            let route = self.find_route(&scratch[self.used..], length);
            self.done += self.work_of(&route, length);
            let is_counted = !matches!(route, Route::Ignore);
            looks.planned(self, &route, &scratch[self.used..][..length]);
            let next = match self.follow(route, scratch, length) {
                Ok(next) => next,
                Err(refusal) => {
                    self.done += REFUSED_WORK;
                    let next = self.refuse(refusal, scratch, length);
                    if next == Next::Request {
                        self.note_refused(&scratch[self.used..][..length]);
                    }
                    next
                }
            };
            looks.followed(self, next);
            if next == Next::Same {
                break;
            }
            self.taken(length, is_counted);
            if next != Next::Request {
                if matches!(next, Next::Close | Next::Drop) {
                    self.context.counters.client_quit.add(u64::from(next == Next::Close));
                    self.finish(scratch.len());
                }
                break;
            }
        }
        scratch.advance(self.used);
    }

    /// Whether a client that moves large values may be served now; otherwise it waits until all is answered.
    #[cold]
    pub fn weigh(&mut self) -> bool {
        let quiet = self.activity.replies.in_flight() == 0;
        let Router { connections, members, .. } = &mut *self.router;
        let may_go_on = connections.weigh(self.lane, self.weight, quiet, members);
        if !may_go_on {
            self.activity.paused = Some(Pause::UntilQuiet);
        }
        self.context.counters.lanes.set(connections.lane_count() as i64);
        may_go_on
    }

    /// Whether one more request may be taken in this turn.
    #[inline(always)]
    fn may_go_on(&mut self, all: usize) -> bool {
        if *self.state == State::Broken {
            self.used = all;
            self.activity.ahead = Ahead::default();
            return false;
        }
        if !self.activity.may_submit(&self.context.limits, 1) {
            self.activity.paused = Some(Pause::Full);
            self.context.counters.client_pauses.add(1);
            return false;
        }
        if self.done >= self.turn {
            self.activity.paused = Some(Pause::Turn);
            return false;
        }
        true
    }

    /// The length of the next request, if it is complete.
    #[inline(always)]
    fn find_end(&mut self, scratch: &BytesMut) -> Option<usize> {
        let input = &scratch[self.used..];
        let limits = &self.context.limits;
        let bounds = RequestBounds { bytes: limits.request_bytes_max, arguments: limits.arguments_max };
        match self.activity.decoder.next(self.session, input, bounds) {
            Ok(length) => length,
            Err(malformed) => {
                self.refuse_malformed(malformed, input, scratch.len());
                None
            }
        }
    }

    /// From here on nobody can tell where requests begin.
    #[cold]
    fn refuse_malformed(&mut self, malformed: Malformed, input: &[u8], all: usize) {
        self.context.counters.client_malformed.add(1);
        self.plan.reply.clear();
        P::malformed(&malformed, input, &mut self.plan.reply);
        self.activity.replies.replied(&self.plan.reply, P::Manner::default());
        self.wishes.log(Notice::Malformed(self.id, malformed));
        self.finish(all);
    }

    /// What else has come of the client is not served, and it goes once all is answered.
    fn finish(&mut self, all: usize) {
        *self.state = State::Finishing;
        self.used = all;
        self.activity.ahead = Ahead::default();
    }

    /// What is to be done with the request that `input` begins with.
    #[inline(always)]
    fn find_route(&mut self, input: &[u8], length: usize) -> Route<P::Merge> {
        let quiet = self.activity.replies.in_flight() == 0;
        self.facts.quiet = quiet;
        let decoder = &self.activity.decoder;
        let request = Request { decoder, canonical: decoder.canonical(&input[..length]) };
        // Serving it may take more than the request itself.
        let is_large = length >= LARGE_MIN;
        if is_large && decoder.argument_count() * ARGUMENT_BYTES > self.share.room() {
            return Route::NoRoom;
        }
        if length >= self.context.limits.large_value_min {
            let Router { connections, members, .. } = &mut *self.router;
            if !connections.make_heavy(self.lane, self.weight, quiet, members) {
                return Route::WhenQuiet;
            }
        }
        match P::plan(request, self.session, &self.facts, self.plan) {
            // The fragments are a second copy of it, and so is what is queued.
            Route::Split(_)
            | Route::Everywhere(_)
            | Route::AllShards(_)
            | Route::OnShard(_)
            | Route::Queue { .. }
            | Route::QueueRun(_)
                if is_large && length > self.share.room() =>
            {
                Route::NoRoom
            }
            route => route,
        }
    }

    /// How much of the turn the request takes.
    #[inline(always)]
    fn work_of(&self, route: &Route<P::Merge>, length: usize) -> usize {
        match route {
            Route::Forward
            | Route::ForwardWith { .. }
            | Route::Wait(_)
            | Route::Watch
            | Route::Split(_)
            | Route::Scan(_)
            | Route::Ignore
            | Route::NoRoom
            | Route::WhenQuiet
            | Route::Queue { .. }
            | Route::Execute(_) => work(self.plan.keys.len()),
            Route::Run(run) | Route::QueueRun(run) | Route::RunOn { run, .. } => {
                work(self.plan.keys.len()) + script_work(run)
            }
            Route::Listen(_) => work(self.plan.keys.len()).max(self.channels.names_of(self.id)),
            Route::Everywhere(_) | Route::AllShards(_) | Route::OnShard(_) | Route::Confirm { .. } => {
                let own = answer_work(0, self.plan.reply.len(), 0, self.plan.searched);
                work(self.router.topology.shards().len()) + own
            }
            // What is not sent on is read, looked up and answered by the proxy itself.
            _ => {
                let made = length + self.plan.reply.len();
                let shared = self.plan.shared.as_ref().map_or(0, Bytes::len);
                1 + answer_work(self.activity.decoder.argument_count(), made, shared, self.plan.searched)
            }
        }
    }

    /// Does with the request what is to be done.
    #[inline(always)]
    fn follow(
        &mut self,
        route: Route<P::Merge>,
        scratch: &mut BytesMut,
        length: usize,
    ) -> Result<Next, Refusal> {
        match route {
            Route::Ignore => {}
            Route::Forward => self.forward(scratch, length)?,
            Route::ForwardWith { patterns } => self.forward_with(patterns, scratch, length)?,
            Route::Run(run) => self.run(run, scratch, length)?,
            Route::RunOn { run, shard } => self.run_on(run, shard, scratch, length)?,
            Route::Wait(patience) => return self.wait(patience, scratch, length),
            Route::Split(merge) => self.split(merge, scratch, length)?,
            Route::Everywhere(merge) => self.send_everywhere(merge, &scratch[self.used..][..length])?,
            Route::AllShards(merge) => self.send_to_all(merge, scratch, length)?,
            Route::OnShard(merge) => self.send_to_named(merge, &scratch[self.used..][..length])?,
            Route::Scan(number) => self.scan(number, &scratch[self.used..][..length])?,
            Route::Watch => return self.watch(scratch, length),
            Route::Confirm { patience, marks } => return self.confirm(patience, marks, scratch, length),
            Route::Answer => {
                if P::error(&self.plan.reply).is_some() {
                    self.note_refused(&scratch[self.used..][..length]);
                }
                return Ok(self.answer());
            }
            Route::AnswerAndClose => {
                self.answer();
                return Ok(Next::Close);
            }
            Route::AnswerAndForget => {
                self.channels.forget(self.id);
                self.context.monitors.leave_client(self.number);
                return Ok(self.answer());
            }
            Route::Monitor => return Ok(self.begin_monitor()),
            Route::Listen(change) => return Ok(self.listen(change, scratch, length)),
            Route::NoRoom => return Ok(self.refuse_large(&scratch[self.used..][..length])),
            Route::Deny { slowly } => return Ok(self.deny(slowly)),
            Route::WhenQuiet => {
                self.activity.paused = Some(Pause::UntilQuiet);
                return Ok(Next::Same);
            }
            Route::Queue { here } => return Ok(self.queue(here, scratch, length)),
            Route::QueueRun(run) => return Ok(self.queue_run(run, scratch, length)),
            Route::Execute(merge) => return Ok(self.execute(merge, scratch, length)),
            Route::Ask(question) => {
                let number = self.activity.replies.submitted(self.plan.manner);
                let asked =
                    AskedQuestion { client: self.id, asker: self.number, number, question: *question };
                self.wishes.add(Wish::Ask(asked));
            }
            Route::AskFirst(question) => {
                let asked =
                    AskedQuestion { client: self.id, asker: self.number, number: 0, question: *question };
                self.wishes.add(Wish::Ask(asked));
                self.activity.paused = Some(Pause::Delayed);
                return Ok(Next::Same);
            }
        }
        Ok(Next::Request)
    }

    #[inline(always)]
    fn sender(&self) -> Sender {
        Sender { id: self.id, number: self.number, lane: *self.lane, since: self.arrived, now: self.now }
    }

    /// The request goes as it is to the shard that owns its keys.
    #[inline(always)]
    fn forward(&mut self, scratch: &mut BytesMut, length: usize) -> Result<(), Refusal> {
        let sender = self.sender();
        let input = &scratch[self.used..][..length];
        let canonical = self.activity.decoder.canonical(input);
        let target = self.router.admit_whole(sender, canonical, self.plan, &self.context.limits)?;
        self.submit_whole(target, sender, scratch, length);
        Ok(())
    }

    /// The request waits for data, on a connection that its client has to itself meanwhile.
    fn wait(
        &mut self,
        patience: Option<Duration>,
        scratch: &mut BytesMut,
        length: usize,
    ) -> Result<Next, Refusal> {
        if self.activity.replies.in_flight() > 0 {
            // They go to other connections, and come before it.
            self.activity.paused = Some(Pause::UntilQuiet);
            return Ok(Next::Same);
        }
        match self.state {
            State::Open => {}
            State::Ended | State::Broken => return Ok(Next::Drop),
            State::Finishing => {
                P::nothing_came(P::lane(self.session), &mut self.plan.reply);
                return Ok(self.answer());
            }
        }
        let sender = Sender { since: self.now, ..self.sender() };
        let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
        let Home { shard, unit } = match self.router.home_of_keys(canonical, self.plan) {
            Err(Refusal::SpreadKeys) => return self.wait_wide(patience, scratch, length),
            home => home?,
        };
        let member = self.router.members.of(ShardIndex(shard));
        let connection = self.router.take_private(sender, member, self.context)?;
        self.router.begin_wait(connection, patience, self.context.limits.timeout, self.now);
        self.submit_whole(Target { connection, unit }, sender, scratch, length);
        self.activity.private = Some(connection);
        self.activity.paused = Some(Pause::UntilQuiet);
        Ok(Next::Stop)
    }

    /// Queues the request as it is; a large one that came alone is not copied.
    #[inline(always)]
    fn submit_whole(&mut self, target: Target, sender: Sender, scratch: &mut BytesMut, length: usize) {
        let input = &scratch[self.used..][..length];
        let canonical = self.activity.decoder.canonical(input);
        let as_it_came = std::ptr::eq(canonical.as_ptr(), input.as_ptr());
        let request = if length < SHARE_MIN || length * 2 < self.received || !as_it_came {
            Piece::Copied(canonical)
        } else {
            self.note_large(input);
            self.shared = true;
            scratch.advance(self.used);
            Piece::Shared(scratch.split_to(length).freeze())
        };
        self.router.submit_whole(target, sender, request, self.plan, &mut self.activity.replies);
    }

    /// Each key goes to its owner.
    fn split(&mut self, merge: P::Merge, scratch: &mut BytesMut, length: usize) -> Result<(), Refusal> {
        let sender = self.sender();
        let Self { context, router, plan, activity, .. } = self;
        let Activity { decoder, replies, .. } = &mut **activity;
        let canonical = decoder.canonical(&scratch[self.used..][..length]);
        let target = router.admit_split(sender, canonical, plan, &context.limits)?;
        match target.filter(|_| !P::is_rewritten(&merge)) {
            Some(target) => self.submit_whole(target, sender, scratch, length),
            None => {
                let request = Request { decoder, canonical };
                router.submit_fragments(sender, request, merge, plan, replies, &context.counters);
            }
        }
        Ok(())
    }

    /// The proxy itself has the reply. Only what is answered here changes what a client speaks with shards.
    fn answer(&mut self) -> Next {
        if self.activity.block.is_some() && !P::has_block(self.session) {
            self.activity.block = None;
        }
        let next = if P::may_watch(self.session) { Next::Request } else { self.end_watch() };
        let Router { connections, members, .. } = &mut *self.router;
        let (present, wanted) = (connections.lane_key(*self.lane), P::lane(self.session));
        if wanted != present {
            if !connections.has_lane(*self.lane, wanted) {
                // It has a place for the connections to each shard.
                self.done += members.present().len();
            }
            if !connections.change_lane(self.lane, wanted, members) {
                P::keep_lane(self.session, present);
                self.context.counters.lanes_refused.add(1);
                self.plan.reply.clear();
                P::failure(self.plan.manner, TOO_MANY_LANES, &mut self.plan.reply);
            } else if connections.is_heavy(*self.lane) {
                self.weight.is_guest();
            }
            self.context.counters.lanes.set(connections.lane_count() as i64);
            P::listens(self.session, self.channels.listens(self.id));
        }
        if self.caches.set_tracking(self.id, P::tracks(self.session)) {
            self.context.counters.tracking_clients.set(self.caches.tracking() as i64);
        }
        if self.caches.tracking() > 0 || !self.caches.broadcasts.is_empty() {
            let was_of_read = self.caches.broadcasts.is_of_read(self.id);
            self.caches.broadcasts.settle(self.id, P::broadcast(self.session));
            if was_of_read && P::tracks(self.session) && !self.caches.broadcasts.is_of_read(self.id) {
                // Of what it has read so far nobody tells from now on.
                self.caches.empty_later(vec![self.id]);
            }
            self.caches.forwarding.settle(self.number, self.id, P::receiver(self.session).is_some());
        }
        let manner = self.plan.manner;
        self.activity.replies.replied_with(self.plan.take_reply(), manner);
        next
    }

    fn refuse_large(&mut self, input: &[u8]) -> Next {
        let decoder = &self.activity.decoder;
        let is_watch = P::is_watch(Request { decoder, canonical: decoder.canonical(input) });
        let next = if is_watch { self.refuse_watch() } else { Next::Request };
        self.context.counters.out_of_memory.add(1);
        self.plan.reply.clear();
        P::out_of_memory(&mut self.plan.reply);
        self.spoil_block();
        self.activity.replies.replied(&self.plan.reply, self.plan.manner);
        self.wishes.log_oversized(self.id, input.len());
        next
    }

    /// A wrong password.
    fn deny(&mut self, slowly: bool) -> Next {
        self.context.counters.refused.add(1);
        self.context.counters.wrong_passwords.add(1);
        self.wishes.log(Notice::WrongPassword(self.id));
        if !self.denials.is_one_too_many(self.now) && !slowly {
            self.activity.replies.replied(&self.plan.reply, self.plan.manner);
            return Next::Request;
        }
        self.activity.paused = Some(Pause::Delayed);
        let number = self.activity.replies.submitted(self.plan.manner);
        self.denials.delay(self.id, number, &self.plan.reply, self.now);
        Next::Stop
    }

    /// The request cannot be sent: its client is told, or waits for room.
    fn refuse(&mut self, refusal: Refusal, scratch: &BytesMut, length: usize) -> Next {
        let counters = &self.context.counters;
        match refusal {
            Refusal::SpreadKeys => {
                if let Some(next) = self.transfer(scratch, length) {
                    return next;
                }
                counters.refused.add(1);
                let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
                let keys = self.plan.keys.iter().map(|&(start, length)| &canonical[start..start + length]);
                let reply = P::spread_keys(self.router.spread_of(keys));
                self.activity.replies.replied(reply.as_bytes(), self.plan.manner);
                return Next::Request;
            }
            Refusal::Occupied(member) => {
                counters.refused.add(1);
                let words = occupied(self.context, &self.router.members[member].name);
                P::failure(self.plan.manner, &words, &mut self.plan.reply);
                self.activity.replies.replied(&self.plan.reply, self.plan.manner);
                return Next::Request;
            }
            Refusal::WatchesElsewhere => {
                counters.refused.add(1);
                let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
                let keys = self.plan.keys.iter().map(|&(start, length)| &canonical[start..start + length]);
                let reply = P::spread_watch(self.router.spread_of(keys));
                self.activity.replies.replied(reply.as_bytes(), self.plan.manner);
                return Next::Request;
            }
            Refusal::Reply(reply) => {
                counters.refused.add(1);
                self.activity.replies.replied(reply.as_bytes(), self.plan.manner);
                return Next::Request;
            }
            Refusal::Nobody => {
                P::failure(self.plan.manner, self.router.nobody(), &mut self.plan.reply);
            }
            Refusal::NoBlocks(connection) => {
                let said = self.router.connections[connection].refuses_blocks.as_deref().unwrap_or_default();
                let words = format!("shard {} refuses transactions: {said}", self.router.name_of(connection));
                P::failure(self.plan.manner, &words, &mut self.plan.reply);
            }
            Refusal::Failed(connection, failure) => {
                if failure == ShardFailure::QueueFull && self.waits_for_room(connection) {
                    return Next::Same;
                }
                self.router.counters_of(connection).failures[failure.reason()].add(1);
                let words = failure.of_shard(self.router.name_of(connection));
                P::failure(self.plan.manner, &words, &mut self.plan.reply);
            }
        }
        counters.forward_error.add(1);
        self.activity.replies.replied(&self.plan.reply, self.plan.manner);
        Next::Request
    }

    /// The queue of the connection is full; false if the client has waited for long enough.
    fn waits_for_room(&mut self, connection: ConnectionId) -> bool {
        let Self { context, activity, now, arrived, .. } = self;
        let Stall { since, .. } = *activity.stalled.get_or_insert_with(|| {
            context.counters.queue_waits.add(1);
            Stall { since: *now, at: connection }
        });
        if *now >= since.plus(context.limits.queue_wait) {
            context.counters.queue_full.add(1);
            return false;
        }
        activity.stalled = Some(Stall { since, at: connection });
        let waiter = Waiter { client: self.id, since, arrived: *arrived };
        self.router.wait(connection, waiter, &context.limits);
        true
    }

    /// The request is answered, or on its way.
    #[inline(always)]
    fn taken(&mut self, length: usize, is_counted: bool) {
        P::taken(self.session);
        self.context.counters.requests.add(u64::from(is_counted));
        self.context.counters.families[self.plan.family].add(u64::from(is_counted));
        self.activity.sent += length;
        self.used = if std::mem::take(&mut self.shared) { 0 } else { self.used + length };
        self.activity.decoder.reset();
        if self.activity.decoder.is_between_requests() {
            self.activity.begun = None;
        }
        if self.activity.stalled.take().is_some() {
            self.router.turn.since = None;
        }
    }

    /// What is left of `scratch` is kept until the client's next turn, or more has come.
    #[inline(always)]
    pub fn keep(&mut self, scratch: &mut BytesMut) {
        let activity = &mut *self.activity;
        let is_unfinished = !scratch.is_empty() || !activity.decoder.is_between_requests();
        if activity.waits() {
            (activity.arrived, activity.begun) = (Some(self.arrived), None);
        } else if is_unfinished {
            activity.begun.get_or_insert(self.now);
        }
        activity.rest.keep(scratch, self.received - scratch.len());
        self.plan.end();
    }
}
