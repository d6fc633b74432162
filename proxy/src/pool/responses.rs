//! From bytes of a shard to replies of clients, and what becomes of requests whose shard is lost.

use bytes::{Buf, BytesMut};
use shard_discovery::Shard;

use super::client::State;
use super::connection::Link;
use super::connections::ConnectionId;
use super::handshake::Handshake;
use super::intake::Intake;
use super::members::MemberIndex;
use super::private::Was;
use super::redirect::Executed;
use super::router::Router;
use super::ticket::Ticket;
use super::watch::Stage;
use super::{Pool, ShardEvent};
use crate::buffer::{Output, Piece};
use crate::failure::{Blame, ShardFailure};
use crate::protocol::{DecodeResponses, Protocol, ShardIdentity};
use crate::time::Time;

impl<P: Protocol> Pool<P> {
    /// Number of shard connections, made or not.
    pub fn connection_count(&self) -> usize {
        self.router.connections.len()
    }

    /// Which shard a connection belongs to; it may have left the pool. `None` if the connection is not there any more.
    pub fn shard_of(&self, id: ConnectionId) -> Option<&Shard> {
        let connection = self.router.connections.get(id)?;
        Some(&self.router.members[connection.member].shard)
    }

    /// Whether one client has the connection to itself.
    pub fn is_private(&self, id: ConnectionId) -> bool {
        self.router.connections.get(id).is_some_and(|connection| connection.private.is_some())
    }

    /// The worker has connected to the shard, which has to be this one where that can be asked.
    pub fn shard_connected(&mut self, id: ConnectionId, identity: Option<ShardIdentity>, now: Time) {
        let Some(connection) = self.router.connections.get_mut(id) else { return };
        let mut greeting = Vec::new();
        let is_replica = self.router.members[connection.member].is_replica;
        let mut said = P::greeting(
            &self.context.settings,
            connection.lane,
            is_replica,
            identity.as_ref(),
            &mut greeting,
        );
        connection.is_replica = is_replica;
        let is_private = connection.private.is_some();
        if is_private {
            Handshake::ask_peer::<P>(&mut said, &mut greeting);
        }
        let begin = if is_private { Handshake::with_peer } else { Handshake::new };
        let handshake = (said.responses > 0).then(|| begin(said, &greeting, identity, now));
        connection.connected(handshake, now);
        if is_private && connection.closing {
            self.router.connections.close(id, ShardFailure::Removed);
        }
        self.router.begin_feed(id, &self.channels, &self.context.limits, now);
        self.follow_tracker(id, now);
        let connection = &self.router.connections[id];
        let due = connection.identity_deadline();
        self.router.identity_deadline = self.router.identity_deadline.into_iter().chain(due).min();
        let counters = &self.router.members[connection.member].counters;
        counters.server_connections.add(i64::from(!is_private));
        counters.server_connections_total.add(1);
        self.router.connections.mark(id);
        self.settle_private(id, false, now);
        // Requests that had timed out meanwhile have left room.
        self.wake_waiting(id);
        self.router.close_if_left(id);
    }

    /// Puts what is left of earlier reads into `scratch`, with room for the next read behind it.
    pub fn before_shard_read(&mut self, id: ConnectionId, scratch: &mut BytesMut) {
        let Some(connection) = self.router.connections.get_mut(id) else { return };
        let missing = connection.decoder.missing();
        connection.rest.restore(scratch, usize::try_from(missing).unwrap_or(usize::MAX));
    }

    /// Nothing has come after all: takes back what [`Self::before_shard_read`] put into `scratch`.
    pub fn keep_shard_rest(&mut self, id: ConnectionId, scratch: &mut BytesMut) {
        match self.router.connections.get_mut(id) {
            Some(connection) => connection.rest.keep(scratch, 0),
            None => scratch.clear(),
        }
    }

    /// Bytes have come from the shard: they are at the end of `scratch`, which began with the rest of earlier ones.
    /// Leaves `scratch` empty. An error means that the connection is of no use any more and is to be closed.
    pub fn shard_received(
        &mut self,
        id: ConnectionId,
        scratch: &mut BytesMut,
        now: Time,
    ) -> Result<(), ShardFailure> {
        let Some(connection) = self.router.connections.get_mut(id) else {
            scratch.clear();
            return Ok(());
        };
        connection.received(now);
        self.shard_goes_on(id, scratch, now)
    }

    /// Takes what was put off of what has come from the shard, as [`Self::shard_received`].
    pub(super) fn shard_goes_on(
        &mut self,
        id: ConnectionId,
        scratch: &mut BytesMut,
        now: Time,
    ) -> Result<(), ShardFailure> {
        let was_up = matches!(self.router.connections[id].link, Link::Up);
        let length = scratch.len();
        let received = self.take_responses(id, scratch, now);
        if self.router.connections[id].feed.is_some() {
            self.follow_feed(id, now);
        }
        if self.router.connections[id].tracker.is_some() {
            self.follow_tracker(id, now);
        }
        let connection = &mut self.router.connections[id];
        // What it is now is settled once what is left of the bytes is put aside.
        let is_private = connection.private.is_some();
        match &received {
            Ok(()) => connection.rest.keep(scratch, length - scratch.len()),
            Err(_) => scratch.clear(),
        }
        connection.publish(&self.router.members[connection.member].counters);
        self.count_shard(id);
        self.wake_waiting(id);
        if is_private && received.is_ok() {
            self.settle_private(id, was_up, now);
        }
        self.settle_askers(now);
        self.settle_attempts(now);
        self.run_again(now);
        self.follow_redirects(now);
        self.settle_interrupted(now);
        received
    }

    fn take_responses(
        &mut self,
        at: ConnectionId,
        scratch: &mut BytesMut,
        now: Time,
    ) -> Result<(), ShardFailure> {
        let Self { context, clients, router, redirects, wishes, channels, caches, .. } = self;
        let Router { connections, members, topology, .. } = router;
        let connection = &mut connections[at];
        let (member, end) = (connection.member, std::mem::take(&mut connection.understood));
        let counters = &members[member].counters;
        let (start, has_more, responses, response_bytes) = (0, false, 0, 0);
        let (note_min, error_min) = wishes.samples.least(&context.limits, connection.in_flight().len());
        let mut intake = Intake {
            context,
            clients,
            redirects,
            wishes,
            channels,
            caches,
            topology,
            members,
            connection,
            counters,
            at,
            now,
            start,
            end,
            has_more,
            responses,
            response_bytes,
            note_min,
            error_min,
        };
        let taken = intake.take(scratch);
        let Intake { start, end, has_more, responses, response_bytes, .. } = intake;
        counters.responses.add(responses);
        counters.response_bytes.add(response_bytes);
        wishes.samples.passed(responses, note_min);
        connection.understood = end - start;
        if responses > 0 {
            connection.served();
            connection.trail_heard(now);
            members.answered(member);
        }
        if has_more {
            connections.mark(at);
        }
        // Not only after a response to a client: the last that was in flight may be dropped as the connection comes up, or be
        // a request of our own.
        router.close_if_left(at);
        scratch.advance(start);
        taken
    }

    /// Where the shard has room again, clients that wait for it go on.
    pub(super) fn wake_waiting(&mut self, id: ConnectionId) {
        if self.router.connections[id].wakes(&self.context.limits) {
            self.router.connections.has_room(id);
        }
    }

    /// Whether something waits to be written to the shard, here or in its transport.
    #[inline]
    pub fn has_shard_output(&mut self, id: ConnectionId) -> bool {
        let output = self.router.connections.get_mut(id).and_then(|connection| connection.writable());
        output.is_some_and(|output| !output.is_sent())
    }

    /// Bytes waiting to be written to the shard, if it may be written to. They are about to be: what is kept of them for the slow log
    /// is copied here, so whoever only wants to know whether there are some asks [`Self::has_shard_output`].
    pub fn shard_output(&mut self, id: ConnectionId) -> Option<&mut Output> {
        let connection = self.router.connections.get_mut(id)?;
        connection.stage_trail(self.context.limits.notes_requests());
        connection.writable()
    }

    /// As much as possible was written to the shard.
    pub fn settle_shard(&mut self, id: ConnectionId) {
        let Some(connection) = self.router.connections.get_mut(id) else { return };
        connection.settle_trail(self.pass.began());
        connection.publish(&self.router.members[connection.member].counters);
        self.count_shard(id);
        self.wake_waiting(id);
    }

    /// The connection is lost, or could not be made. What was sent on it is answered with the reason; what was not
    /// may be sent on the next one.
    pub fn shard_closed(&mut self, id: ConnectionId, failure: &ShardFailure, now: Time) {
        let (jitter, default_lane) = (self.router.random(), self.router.connections.usual_key());
        let Some(connection) = self.router.connections.get_mut(id) else { return };
        let member = connection.member;
        let counters = &self.router.members[member].counters;
        if connection.is_made() && connection.private.is_none() {
            counters.server_connections.add(-1);
        }
        let watch = connection.private.as_ref().and_then(|private| private.watch.as_ref());
        let (stage, lane) = (watch.map(|watch| watch.stage), connection.lane);
        // A shard executes nothing of it before it has read the last byte.
        let is_unexecuted = stage == Some(Stage::Spent) && connection.is_unfinished();
        let notes = self.context.limits.access_errors;
        let lost_traced = if notes { connection.trace_some(|ticket| !ticket.expired) } else { Vec::new() };
        let was = Was { up: matches!(connection.link, Link::Up), closing: connection.closing };
        // Whoever makes connections has judged an attempt that failed.
        let is_made = !matches!(connection.link, Link::Connecting { .. });
        let (blame, began) = (connection.blame(failure, default_lane, now), connection.heard);
        match failure {
            ShardFailure::Closed => counters.server_eof.add(1),
            ShardFailure::ResponseTimeout | ShardFailure::Removed => {}
            _ => counters.server_err.add(1),
        }
        // What was not written is not touched by what the shard has sent, nor by what else was held.
        let retry = match failure {
            ShardFailure::Closed | ShardFailure::Reset | ShardFailure::Malformed(_) => true,
            ShardFailure::Removed => connection.may_move() && connection.is_forsaken(),
            _ => false,
        };
        // Nor is it known then who has failed so.
        let unidentified =
            (blame == Blame::Shard && connection.is_identifying()).then(|| failure.unidentified());
        let failure = unidentified.as_ref().unwrap_or(failure);
        let ended = connection.ended_by_closing(failure);
        let askers = connection.take_askers();
        let (lost, connect) =
            connection.closed(failure, retry, self.context.limits.eager_connects, jitter, now);
        if connect {
            let sent = connection.carry_scripts(&self.context.scripts);
            self.context.counters.scripts_loaded.add(sent);
        }
        connection.publish(counters);
        connection.heard = now;
        let is_told = connection.caching.is_some_and(|caching| caching.registers);
        match failure {
            // Reported when the deadlines had passed.
            ShardFailure::ResponseTimeout if is_made => {}
            _ if is_made => self.router.members.failed(member, failure, blame, began, now),
            _ if blame == Blame::Nobody => {}
            _ => self.router.members.failing(member),
        }
        if is_told {
            self.lose_caches(id);
        }
        self.count_shard(id);
        if connect {
            self.router.connections.connect(id);
        }
        let lost_traced = lost_traced.into_iter().filter(|(ticket, _)| {
            lost.iter().any(|one| {
                one.whom == ticket.whom && one.number == ticket.number && one.fragment == ticket.fragment
            })
        });
        self.note_failed(id, lost_traced.collect(), failure, now);
        for ticket in lost {
            if is_unexecuted && ticket.is_block() {
                self.answer_unexecuted(ticket, lane);
            } else if ended.as_ref().is_none_or(|ended| ended.ticket.whom != ticket.whom) {
                self.fail(ticket, member, failure);
            }
        }
        askers.into_iter().for_each(|at| self.router.heard_of_private(at, true));
        self.wake_waiting(id);
        if self.router.connections[id].private.is_some() {
            let counted = std::mem::take(&mut self.router.connections[id].counted);
            self.share.change(counted, 0);
            // Those that wait for room in its queue look for another one.
            let waiting = std::mem::take(&mut self.router.connections[id].waiting);
            waiting.into_iter().for_each(|waiter| self.clients.resume(waiter.client));
            let holder = self.router.private_is_closed(id, failure, was, now);
            self.forget_private(holder, id);
            if let Some(stage) = stage {
                self.watch_is_gone(holder, stage);
            }
            if let Some(ended) = ended {
                self.interrupted(ended, now);
            }
        } else if self.router.connections[id].feed.is_some() {
            self.lose_feed(id, failure, now);
        } else if self.router.connections[id].tracker.is_some() {
            self.lose_tracker(id, failure, now);
        }
        self.router.retire(member);
    }

    /// Answers a request with the reason why its shard did not.
    pub(super) fn fail(&mut self, ticket: Ticket<P>, member: MemberIndex, failure: &ShardFailure) {
        if let Some(serial) = ticket.attempts() {
            return self.attempt_failed(serial, member, failure);
        }
        if ticket.is_of_proxy() {
            return self.stays_unknown(&ticket);
        }
        let Some(id) = ticket.client() else { return };
        let Some(client) = self.clients.touch(id) else { return };
        let activity = client.activity.as_mut().expect("a client with a request in flight has an activity");
        self.context.counters.forward_error.add(1);
        self.router.members[member].counters.failures[failure.reason()].add(1);
        if activity.parked.is_some() {
            // It may have been executed.
            self.redirects.executed.extend(Executed::of(&ticket));
        }
        if activity.replies.is_streaming(ticket.number) {
            // Half the reply is out: there is no way to say so but to close.
            if matches!(client.state, State::Open | State::Ended) {
                self.context.counters.client_cut.add(1);
            }
            client.state = State::Broken;
        } else {
            let mut reply = Vec::new();
            let words = failure.of_shard(&self.router.members[member].name);
            P::failure(activity.replies.manner(ticket.number), &words, &mut reply);
            activity.replies.forget_partial(ticket.number, ticket.fragment);
            activity.replies.answer(ticket.number, ticket.fragment, Piece::Copied(&reply), true);
        }
    }

    /// Shard connections with something to write.
    pub fn take_dirty_shards(&mut self, into: &mut Vec<ConnectionId>) {
        let before = into.len();
        self.router.connections.take_dirty(into);
        for &id in &into[before..] {
            self.count_shard(id);
        }
    }

    /// What became of shards since the last call.
    pub fn take_events(&mut self) -> Vec<ShardEvent> {
        std::mem::take(&mut self.router.members.events)
    }

    /// Whether the worker has something to write, to connect, to close or to go on with.
    pub fn has_work(&self) -> bool {
        self.has_more()
            || !self.clients.next_turn.is_empty()
            || self.channels.has_put_off()
            || self.caches.has_late()
            || self.has_lines_for_monitors()
    }

    /// The same, in this pass: one client that takes its replies as fast as they are made would have no end.
    pub fn has_more(&self) -> bool {
        self.clients.has_work()
            || self.channels.has_work()
            || self.wide.has_work()
            || self.confirmations.has_work()
            || self.caches.broadcasts.is_changed()
            || self.router.connections.has_work()
            || self.has_wishes()
            || self.is_asked_for_relief()
    }

    /// Whether the control thread is to be told something.
    pub fn has_events(&self) -> bool {
        !self.router.members.events.is_empty() || self.redirects.stale
    }
}
