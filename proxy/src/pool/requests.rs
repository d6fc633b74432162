//! From bytes of a client to requests in the queues of shards.

use std::collections::BTreeSet;

use bytes::{Buf, Bytes, BytesMut};

use super::client::{Activity, Pause, Stall, State};
use super::clients::{ClientId, Clients, find, mark};
use super::connections::ConnectionId;
use super::pass::{REFUSED_WORK, answer_work, work};
use super::router::{Refusal, Router, Turn};
use super::ticket::{Sender, Waiter};
use super::wishes::{Notice, Wish};
use super::{Asked, Limits, Pool, SILENCE};
use crate::buffer::{Ahead, Piece, SHARE_MIN};
use crate::failure::ShardFailure;
use crate::protocol::{Facts, Protocol, Request, RequestBounds, Route, Silence};
use crate::time::Time;

/// A client whose replies so far are unknown in size may have so many requests in flight: what it asks for stands before
/// the requests of others in the queue of a shard.
const IN_FLIGHT_UNKNOWN_MAX: usize = 16;
/// A request of this size is looked at before it is served: whether there is room for that.
const LARGE_MIN: usize = 256 * 1024;
/// What an argument takes while its request is served, beside its bytes.
const ARGUMENT_BYTES: usize = 48;
/// The reply to what would need one more kind of shard connections.
const TOO_MANY_LANES: &str =
    "too many databases are in use by other clients; use one of theirs, or try again later";

impl<P: Protocol> Pool<P> {
    /// Goes on with clients that had to wait, those first that wait for their turn. Once in a pass. `scratch` is empty before
    /// and after.
    pub fn resume(&mut self, scratch: &mut BytesMut, now: Time) {
        self.pass.turns(self.limits.pass_work_max, now);
        // Those that come to wait for another turn meanwhile have theirs in the next pass.
        for _ in 0..self.clients.next_turn.len() {
            if self.pass.turn() == 0 {
                break;
            }
            let Some(id) = self.clients.next_turn.pop_front() else { break };
            if let Some(activity) = self.clients.activity_mut(id)
                && std::mem::take(&mut activity.in_line)
            {
                self.go_on(id, scratch, now);
            }
        }
        self.resume_others(scratch, now);
    }

    /// The same, in the same pass, but for those that wait for their turn.
    pub fn resume_others(&mut self, scratch: &mut BytesMut, now: Time) {
        self.relieve();
        while let Some(connection) = self.router.connections.take_roomy() {
            self.resume_waiting(connection, scratch, now);
        }
        while let Some(id) = self.clients.resumable.pop_front() {
            self.go_on(id, scratch, now);
        }
    }

    fn go_on(&mut self, id: ClientId, scratch: &mut BytesMut, now: Time) {
        let stalled = self.clients.activity(id).and_then(|activity| activity.stalled);
        if let Some(Stall { since, at }) = stalled {
            // It may stand in that line still; it will find its place again.
            self.router.stop_waiting(at, id, since);
        }
        self.resume_client(id, scratch, now);
    }

    /// There is room in the queue of the connection: those that wait for it share it, who waits longest first. One that
    /// wants more than its share waits anew, behind the others.
    fn resume_waiting(&mut self, at: ConnectionId, scratch: &mut BytesMut, now: Time) {
        while let Some(connection) = self.router.connections.get(at) {
            let waiting = connection.waiting.len();
            let Some(room) = connection.room(&self.limits) else { break };
            if waiting == 0 {
                break;
            }
            let share = (room / waiting).max(1);
            for _ in 0..waiting {
                let Some(connection) = self.router.connections.get_mut(at) else { break };
                if connection.room(&self.limits).is_none() {
                    break;
                }
                let Some(waiter) = connection.waiting.pop_front() else { break };
                self.router.turn.queue = Some((at, share));
                self.resume_client(waiter.client, scratch, now);
            }
        }
        self.router.turn = Turn::default();
    }

    fn resume_client(&mut self, id: ClientId, scratch: &mut BytesMut, now: Time) {
        let Clients { slab, silences, dirty, .. } = &mut self.clients;
        let Some(client) = find(slab, id) else { return };
        let Some(activity) = client.activity.as_mut() else { return };
        if !activity.waits() {
            return;
        }
        if activity.paused == Some(Pause::UntilQuiet) && activity.replies.in_flight() > 0 {
            // Room in a queue is not what it waits for; its last reply brings it here again.
            return;
        }
        let silence = match client.state {
            State::Ended => Silence::Final,
            _ if now.since(client.active) >= SILENCE => Silence::Long,
            _ => Silence::Short,
        };
        let arrived = activity.arrived.take().unwrap_or(now);
        let drops = activity.is_held() && client.state == State::Finishing;
        if drops {
            // What it sends next will not be read. It is told nothing, and nothing of it is executed.
            activity.drop_requests();
            listen_no_more(silences, activity, id);
        }
        mark(client, id.index, dirty);
        if !drops {
            self.process_ahead(id, scratch, silence, arrived, now);
        }
    }

    /// Takes requests from what was read of the client, as many as it has a turn for.
    fn process_ahead(
        &mut self,
        id: ClientId,
        scratch: &mut BytesMut,
        silence: Silence,
        arrived: Time,
        now: Time,
    ) {
        let Some(activity) = self.clients.activity_mut(id) else { return };
        if !activity.is_held() {
            activity.paused = None;
        }
        activity.rest.take(scratch);
        activity.ahead.pop(scratch);
        self.process(id, scratch, silence, arrived, now);
        if let Some(activity) = self.clients.activity_mut(id)
            && !activity.waits()
            && !activity.ahead.is_empty()
        {
            // The next block is for its next turn.
            activity.paused = Some(Pause::Turn);
        }
    }

    /// Takes requests from `scratch`, which was read at `arrived`, until it is used up or the client has to wait; keeps the
    /// rest.
    pub(super) fn process(
        &mut self,
        id: ClientId,
        scratch: &mut BytesMut,
        silence: Silence,
        arrived: Time,
        now: Time,
    ) {
        let Self { clients, router, counters, limits, plan, identity, settings, store, share, pass, .. } =
            self;
        let Clients { slab, silences, dirty, .. } = clients;
        let client = &mut slab[id.index as usize];
        let activity = client.activity.as_mut().expect("a client that is read has an activity");
        let session_bytes = P::session_bytes(&client.session);
        let received = scratch.len();
        let bounds = RequestBounds { bytes: limits.request_bytes_max, arguments: limits.arguments_max };
        if activity.is_held() {
            activity.paused = None;
        }
        router.turn.since = activity.stalled.map(|stall| stall.since);
        let mut used = 0;
        let mut shared = false;
        pass.read(limits.pass_work_max, now);
        // One that has had to wait for room is not made to wait for its turn as well.
        let turn = pass.turn().max(usize::from(activity.stalled.is_some()));
        let mut done = 0;
        while used < scratch.len() {
            if client.state == State::Broken {
                used = scratch.len();
                activity.ahead = Ahead::default();
                break;
            }
            if !may_submit(activity, limits, 1) {
                activity.paused = Some(Pause::Full);
                counters.client_pauses.add(1);
                break;
            }
            if done >= turn {
                activity.paused = Some(Pause::Turn);
                break;
            }
            let input = &scratch[used..];
            let decoded = P::next_request(&mut activity.decoder, &client.session, input, bounds);
            let length = match decoded {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(malformed) => {
                    counters.client_malformed.add(1);
                    plan.reply.clear();
                    P::malformed(&malformed, input, &mut plan.reply);
                    activity.replies.replied(&plan.reply, P::Manner::default());
                    self.wishes.log(Notice::Malformed(id, malformed));
                    client.state = State::Finishing;
                    used = scratch.len();
                    activity.ahead = Ahead::default();
                    break;
                }
            };
            plan.begin();
            let facts = Facts::<P> {
                settings,
                pool: &identity.name,
                client: client.id,
                unix_micros: identity.unix_start + now.micros(),
                uptime: now.micros() / 1_000_000,
                counters,
                store,
                account: share.account(),
                quiet: activity.replies.in_flight() == 0,
                delivered: activity.replies.is_empty(),
                silence,
                behind: &input[length..],
            };
            let canonical = P::canonical(&activity.decoder, &input[..length]);
            let request = Request { decoder: &activity.decoder, canonical };
            // Serving it may take more than the request itself.
            let is_large = length >= LARGE_MIN;
            let route = if is_large && P::arguments(&activity.decoder) * ARGUMENT_BYTES > share.room() {
                Route::NoRoom
            } else {
                P::plan(request, &mut client.session, &facts, plan)
            };
            let route = match route {
                // The fragments are a second copy of it.
                Route::Split(_) | Route::Everywhere(_) if is_large && length > share.room() => Route::NoRoom,
                route => route,
            };
            let sender = Sender { id, number: client.id, lane: client.lane, since: arrived, now };
            done += match route {
                Route::Forward | Route::Split(_) | Route::Ignore | Route::NoRoom => work(plan.keys.len()),
                Route::Everywhere(_) => work(router.topology.shards().len()),
                // What is not sent on is read, looked up and answered by the proxy itself.
                _ => {
                    let made = length + plan.reply.len();
                    let shared = plan.shared.as_ref().map_or(0, Bytes::len);
                    1 + answer_work(P::arguments(&activity.decoder), made, shared, plan.searched)
                }
            };
            let closes = matches!(route, Route::AnswerAndClose);
            let mut stops = closes;
            let ignored = matches!(route, Route::Ignore);
            let as_it_came = std::ptr::eq(canonical.as_ptr(), input.as_ptr());
            let outcome = match route {
                Route::Ignore => Ok(()),
                Route::Answer | Route::AnswerAndClose => {
                    // Only what is answered here changes what a client speaks with shards.
                    let Router { connections, members, .. } = router;
                    let (present, wanted) = (connections.lane_key(client.lane), P::lane(&client.session));
                    if wanted != present {
                        if !connections.has_lane(wanted) {
                            // It has a place for the connections to each shard.
                            done += members.present().len();
                        }
                        if !connections.change_lane(&mut client.lane, wanted, members) {
                            P::keep_lane(&mut client.session, present);
                            counters.lanes_refused.add(1);
                            plan.reply.clear();
                            P::failure(plan.manner, TOO_MANY_LANES, &mut plan.reply);
                        }
                        counters.lanes.set(connections.lane_count() as i64);
                    }
                    let manner = plan.manner;
                    activity.replies.replied_with(plan.take_reply(), manner);
                    Ok(())
                }
                Route::NoRoom => {
                    counters.out_of_memory.add(1);
                    plan.reply.clear();
                    P::out_of_memory(&mut plan.reply);
                    activity.replies.replied(&plan.reply, plan.manner);
                    self.wishes.log_oversized(id, length);
                    Ok(())
                }
                Route::Deny { slowly } => {
                    counters.refused.add(1);
                    counters.wrong_passwords.add(1);
                    self.wishes.log(Notice::WrongPassword(id));
                    stops = self.denials.is_one_too_many(now) || slowly;
                    if stops {
                        activity.paused = Some(Pause::Delayed);
                        let number = activity.replies.submitted(plan.manner);
                        self.denials.delay(id, number, &plan.reply, now);
                    } else {
                        activity.replies.replied(&plan.reply, plan.manner);
                    }
                    Ok(())
                }
                Route::Forward => match router.admit_whole(sender, canonical, plan, limits) {
                    Ok(target) => {
                        let request = if length < SHARE_MIN || length * 2 < received || !as_it_came {
                            Piece::Copied(canonical)
                        } else {
                            shared = true;
                            scratch.advance(used);
                            Piece::Shared(scratch.split_to(length).freeze())
                        };
                        router.submit_whole(target, sender, request, plan, &mut activity.replies);
                        Ok(())
                    }
                    Err(refusal) => Err(refusal),
                },
                Route::Split(merge) => {
                    router.admit_split(sender, canonical, plan, limits).map(|whole| match whole {
                        Some(target) => {
                            let request = Piece::Copied(canonical);
                            router.submit_whole(target, sender, request, plan, &mut activity.replies);
                        }
                        None => {
                            let replies = &mut activity.replies;
                            router.submit_fragments(sender, request, merge, plan, replies, counters);
                        }
                    })
                }
                Route::Everywhere(merge) => {
                    router.admit_everywhere(sender, canonical, plan, limits).map(|()| {
                        let replies = &mut activity.replies;
                        router.submit_fragments(sender, request, merge, plan, replies, counters);
                    })
                }
                Route::WhenQuiet => {
                    activity.paused = Some(Pause::UntilQuiet);
                    break;
                }
                Route::WhenSilent => {
                    activity.paused = Some(Pause::UntilSilent);
                    if activity.silent_at.is_none() {
                        let at = now.plus(SILENCE);
                        activity.silent_at = Some(at);
                        silences.insert((at, id));
                    }
                    break;
                }
                Route::Ask(question) => {
                    let number = activity.replies.submitted(plan.manner);
                    let asked = Asked { client: id, asker: client.id, number, question };
                    self.wishes.add(Wish::Ask(asked));
                    Ok(())
                }
            };
            if outcome.is_err() {
                done += REFUSED_WORK;
            }
            match outcome {
                Ok(()) => {}
                Err(Refusal::SpreadKeys) => {
                    counters.refused.add(1);
                    let canonical = P::canonical(&activity.decoder, &scratch[used..used + length]);
                    let keys = plan.keys.iter().map(|&(start, length)| &canonical[start..start + length]);
                    let reply = P::spread_keys(router.spread_of(keys));
                    activity.replies.replied(reply.as_bytes(), plan.manner);
                }
                Err(Refusal::Nobody) => {
                    counters.forward_error.add(1);
                    let words = match router.topology.can_eject() {
                        true => "every shard of the pool is ejected",
                        false => "no node of the cluster is known to serve the slot",
                    };
                    P::failure(plan.manner, words, &mut plan.reply);
                    activity.replies.replied(&plan.reply, plan.manner);
                }
                Err(Refusal::Failed(connection, failure)) => {
                    if failure == ShardFailure::QueueFull {
                        let Stall { since, .. } = *activity.stalled.get_or_insert_with(|| {
                            counters.queue_waits.add(1);
                            Stall { since: now, at: connection }
                        });
                        if now < since.plus(limits.queue_wait) {
                            activity.stalled = Some(Stall { since, at: connection });
                            router.wait(connection, Waiter { client: id, since, arrived }, limits);
                            break;
                        }
                        counters.queue_full.add(1);
                    }
                    counters.forward_error.add(1);
                    router.counters_of(connection).failures[failure.reason()].add(1);
                    let words = failure.of_shard(router.name_of(connection));
                    P::failure(plan.manner, &words, &mut plan.reply);
                    activity.replies.replied(&plan.reply, plan.manner);
                }
            }
            P::taken(&mut client.session);
            counters.requests.add(u64::from(!ignored));
            counters.families[plan.family].add(u64::from(!ignored));
            activity.sent += length;
            used = if std::mem::take(&mut shared) { 0 } else { used + length };
            P::reset(&mut activity.decoder);
            if P::is_between_requests(&activity.decoder) {
                activity.begun = None;
            }
            if activity.stalled.take().is_some() {
                router.turn.since = None;
            }
            if stops {
                if closes {
                    counters.client_quit.add(1);
                    client.state = State::Finishing;
                    used = scratch.len();
                    activity.ahead = Ahead::default();
                }
                break;
            }
        }
        pass.done(done);
        if activity.waits() {
            activity.arrived = Some(arrived);
        }
        if activity.silent_at.is_some() && !activity.is_held() {
            listen_no_more(silences, activity, id);
        }
        scratch.advance(used);
        let is_unfinished = !scratch.is_empty() || !P::is_between_requests(&activity.decoder);
        if activity.waits() {
            activity.begun = None;
        } else if is_unfinished {
            activity.begun.get_or_insert(now);
        }
        activity.rest.keep(scratch, received - scratch.len());
        plan.end();
        share.change(session_bytes, P::session_bytes(&client.session));
        mark(client, id.index, dirty);
    }
}

/// The silence of the client is not waited for any more.
pub(super) fn listen_no_more<P: Protocol>(
    silences: &mut BTreeSet<(Time, ClientId)>,
    activity: &mut Activity<P>,
    id: ClientId,
) {
    if let Some(at) = activity.silent_at.take() {
        silences.remove(&(at, id));
    }
}

/// Whether one more request of the client may be served. Replies may wait up to a pause, and beyond it as much as the
/// client has sent since it last took all: one that writes a whole pipeline before it reads is served on, and holds no more
/// here than it has written itself. With `share` 2 it has to be well below the limits, so that
/// a client that was paused does not stop and go with every reply.
#[inline]
pub(super) fn may_submit<P: Protocol>(activity: &Activity<P>, limits: &Limits, share: usize) -> bool {
    let in_flight = activity.replies.in_flight();
    let in_flight_max = if activity.replies.can_be_foreseen() {
        limits.in_flight_max
    } else {
        limits.in_flight_max.min(IN_FLIGHT_UNKNOWN_MAX)
    };
    let bytes_max = (limits.client_output_pause + activity.sent).min(limits.client_output_max / 2);
    in_flight < (in_flight_max / share).max(1)
        && (activity.replies.bytes_expected() < bytes_max / share || activity.replies.is_empty())
}

/// Whether a client that waits is read all the same: it waits for itself, and may take its replies only once it has written
/// all of its requests.
pub(super) fn reads_ahead<P: Protocol>(activity: &Activity<P>, limits: &Limits) -> bool {
    activity.paused == Some(Pause::Full)
        && activity.stalled.is_none()
        && activity.replies.in_flight() == 0
        && activity.bytes() < limits.client_output_max
}
