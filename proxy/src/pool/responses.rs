//! From bytes of a shard to replies of clients, and what becomes of requests whose shard is lost.

use bytes::{Buf, Bytes, BytesMut};
use shard_discovery::Shard;

use super::client::State;
use super::connection::Link;
use super::connections::ConnectionId;
use super::handshake::{Handshake, Step};
use super::members::MemberIndex;
use super::redirect::Redirected;
use super::router::Router;
use super::ticket::{Ticket, Whom};
use super::{Pool, ShardEvent};
use crate::buffer::{Output, Piece, SHARE_MIN};
use crate::failure::{Blame, ShardFailure};
use crate::protocol::{Malformed, Protocol, ShardIdentity};
use crate::time::Time;

/// From this size on a response goes to its client piece by piece instead of whole.
const STREAM_MIN: usize = 1024 * 1024;

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

    /// The worker has connected to the shard, which has to be this one where that can be asked.
    pub fn shard_connected(&mut self, id: ConnectionId, identity: Option<ShardIdentity>, now: Time) {
        let Some(connection) = self.router.connections.get_mut(id) else { return };
        let mut greeting = Vec::new();
        let is_replica = self.router.members[connection.member].is_replica;
        let said = P::greeting(
            &self.context.settings,
            connection.lane,
            is_replica,
            identity.as_ref(),
            &mut greeting,
        );
        connection.is_replica = is_replica;
        let handshake = (said.responses > 0).then(|| Handshake::new(said, &greeting, identity, now));
        connection.connected(handshake, now);
        let due = connection.identity_deadline();
        self.router.identity_deadline = self.router.identity_deadline.into_iter().chain(due).min();
        let counters = &self.router.members[connection.member].counters;
        counters.server_connections.add(1);
        counters.server_connections_total.add(1);
        self.router.connections.mark(id);
        // Requests that had timed out meanwhile have left room.
        self.wake_waiting(id);
        self.router.close_if_left(id);
    }

    /// Puts what is left of earlier reads into `scratch`, with room for the next read behind it.
    pub fn before_shard_read(&mut self, id: ConnectionId, scratch: &mut BytesMut) {
        let Some(connection) = self.router.connections.get_mut(id) else { return };
        let missing = P::response_missing(&connection.decoder);
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
        let length = scratch.len();
        let received = self.take_responses(id, scratch, now);
        let connection = &mut self.router.connections[id];
        match &received {
            Ok(()) => connection.rest.keep(scratch, length - scratch.len()),
            Err(_) => scratch.clear(),
        }
        connection.publish(&self.router.members[connection.member].counters);
        self.count_shard(id);
        self.wake_waiting(id);
        self.follow_redirects(now);
        received
    }

    fn take_responses(
        &mut self,
        at: ConnectionId,
        scratch: &mut BytesMut,
        now: Time,
    ) -> Result<(), ShardFailure> {
        let Self { context, clients, router, redirects, wishes, .. } = self;
        let Router { connections, members, .. } = router;
        let connection = &mut connections[at];
        let member = connection.member;
        let counters = &members[member].counters;
        // To be written.
        let mut has_more = false;
        let (mut responses, mut response_bytes) = (0, 0);
        // Bytes of `scratch` before `start` are done with; the response at hand is understood up to `end`.
        let mut start = 0;
        let mut end = std::mem::take(&mut connection.understood);
        let failure = loop {
            let progress = match P::next_response(&mut connection.decoder, &scratch[end..]) {
                Ok(progress) => progress,
                Err(Malformed(reason)) => break Some(ShardFailure::Malformed(reason)),
            };
            end += progress.length;
            let stream = !progress.complete && end - start >= STREAM_MIN && !progress.push;
            if progress.push {
                // It answers nothing, and nobody is told of it.
                start = end;
                if progress.complete {
                    continue;
                }
                break None;
            }
            if let Link::Greeting(handshake) = &mut connection.link {
                if !progress.complete {
                    break (end - start > handshake.response_max())
                        .then(|| ShardFailure::Malformed("handshake response too long".into()));
                }
                match handshake.hear::<P>(&context.settings, &scratch[start..end]) {
                    Ok(Step::Goes) => {}
                    Ok(Step::Asks) => has_more = true,
                    Ok(Step::Done) => {
                        connection.up();
                        has_more = true;
                    }
                    Err(failure) => break Some(failure),
                }
                start = end;
                continue;
            }
            let Some(asked) = connection.asked() else {
                // One byte of it is enough: the next request would be answered with it.
                break (scratch.len() > start).then(|| {
                    unasked::<P>(&context.settings, progress.complete.then_some(&scratch[start..end]))
                });
            };
            let (expected, scripted) = (asked.expected, asked.scripted);
            if !progress.complete && !stream {
                break None;
            }
            if !connection.streaming && !P::fits(expected, &scratch[start..end]) {
                let words = beginning(&scratch[start..end]);
                break Some(ShardFailure::Malformed(format!("{words:?} is not a response to this request")));
            }
            // What is left of a response that was passed on in part may begin with anything.
            if scratch[start] == P::ERROR && progress.complete && !connection.streaming {
                if connection.keeps()
                    && P::redirect(&scratch[start..end]).is_some()
                    && let Some((ticket, request)) = connection.take_back()
                {
                    responses += 1;
                    response_bytes += (end - start) as u64;
                    let reply = Bytes::copy_from_slice(&scratch[start..end]);
                    let deadline = connection.policy.deadline(ticket.since);
                    redirects.fresh.push(Redirected { from: member, deadline, ticket, request, reply });
                    start = end;
                    continue;
                }
                // What a script says is its client's word.
                if !scripted && P::is_complaint(&scratch[start..end]) {
                    wishes.log_complaint(at, &scratch[start..end]);
                }
            }
            let ticket = if progress.complete {
                connection.answered()
            } else {
                connection.in_flight().front().copied()
            };
            let ticket = ticket.expect("somebody has asked");
            response_bytes += (end - start) as u64;
            if ticket.is_prelude() {
                start = end;
                continue;
            }
            if progress.complete {
                responses += 1;
                counters.latency.record(now.micros().saturating_sub(ticket.since.micros()));
            }
            connection.streaming = !progress.complete;
            let waiting = ticket.client().and_then(|id| clients.touch(id));
            let shared = end - start >= SHARE_MIN;
            if shared {
                scratch.advance(start);
                end -= start;
                start = 0;
            }
            let mut is_odd = false;
            match waiting {
                Some(client) => {
                    let activity =
                        client.activity.as_mut().expect("a client with a request in flight has an activity");
                    wishes.large |= shared;
                    let piece = if shared {
                        Piece::Shared(scratch.split_to(end).freeze())
                    } else {
                        Piece::Copied(&scratch[start..end])
                    };
                    is_odd =
                        activity.replies.answer(ticket.number, ticket.fragment, piece, progress.complete);
                }
                None => {
                    connection.streaming = !progress.complete;
                    if ticket.whom == Whom::Nobody {
                        counters.late_responses.add(u64::from(progress.complete));
                    }
                    if shared {
                        scratch.advance(end);
                    }
                }
            }
            if shared {
                end = 0;
            }
            start = end;
            if is_odd {
                break Some(ShardFailure::Malformed("unexpected response to a part of a request".into()));
            }
            if !progress.complete {
                counters.streamed.add(1);
                break None;
            }
        };
        counters.responses.add(responses);
        counters.response_bytes.add(response_bytes);
        if responses > 0 {
            connection.served();
        }
        connection.understood = end - start;
        if responses > 0 {
            members.answered(member);
        }
        if has_more {
            connections.mark(at);
        }
        // Not only after a response to a client: the last that was in flight may be dropped as the connection comes up, or be
        // a request of our own.
        router.close_if_left(at);
        scratch.advance(start);
        failure.map_or(Ok(()), Err)
    }

    /// Where the shard has room again, clients that wait for it go on.
    pub(super) fn wake_waiting(&mut self, id: ConnectionId) {
        if self.router.connections[id].wakes(&self.context.limits) {
            self.router.connections.has_room(id);
        }
    }

    /// Bytes waiting to be written to the shard, if it may be written to.
    pub fn shard_output(&mut self, id: ConnectionId) -> Option<&mut Output> {
        self.router.connections.get_mut(id)?.writable()
    }

    /// As much as possible was written to the shard.
    pub fn settle_shard(&mut self, id: ConnectionId) {
        let Some(connection) = self.router.connections.get_mut(id) else { return };
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
        if connection.is_made() {
            counters.server_connections.add(-1);
        }
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
        let (lost, connect) =
            connection.closed(failure, retry, self.context.limits.eager_connects, jitter, now);
        connection.publish(counters);
        connection.heard = now;
        match failure {
            // Reported when the deadlines had passed.
            ShardFailure::ResponseTimeout if is_made => {}
            _ if is_made => self.router.members.failed(member, failure, blame, began, now),
            _ if blame == Blame::Nobody => {}
            _ => self.router.members.failing(member),
        }
        self.count_shard(id);
        if connect {
            self.router.connections.connect(id);
        }
        for ticket in lost {
            self.fail(ticket, member, failure);
        }
        self.wake_waiting(id);
        self.router.retire(member);
    }

    /// Answers a request with the reason why its shard did not.
    pub(super) fn fail(&mut self, ticket: Ticket<P>, member: MemberIndex, failure: &ShardFailure) {
        let Some(id) = ticket.client() else { return };
        let Some(client) = self.clients.touch(id) else { return };
        let activity = client.activity.as_mut().expect("a client with a request in flight has an activity");
        self.context.counters.forward_error.add(1);
        self.router.members[member].counters.failures[failure.reason()].add(1);
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
        self.has_more() || !self.clients.next_turn.is_empty()
    }

    /// The same, in this pass: one client that takes its replies as fast as they are made would have no end.
    pub fn has_more(&self) -> bool {
        self.clients.has_work()
            || self.router.connections.has_work()
            || self.has_wishes()
            || self.is_asked_for_relief()
    }

    /// Whether the control thread is to be told something.
    pub fn has_events(&self) -> bool {
        !self.router.members.events.is_empty() || self.redirects.stale
    }
}

/// What nobody asked for. A shard that has too many clients says so unasked, and closes.
fn unasked<P: Protocol>(settings: &P::Settings, response: Option<&[u8]>) -> ShardFailure {
    match response.map(|response| P::greeted(settings, response)) {
        Some(Err(words)) => ShardFailure::GreetingRefused(words),
        _ => ShardFailure::Malformed("unexpected response without a request".into()),
    }
}

/// The first word of a response, for an error that any client may read: what follows may be the data of another one.
fn beginning(response: &[u8]) -> String {
    const SHOWN_MAX: usize = 32;
    let word = response.split(|byte| b" \r\n".contains(byte)).next().unwrap_or_default();
    String::from_utf8_lossy(&word[..word.len().min(SHOWN_MAX)]).into_owned()
}
