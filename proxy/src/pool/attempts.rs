//! Keys that are tried for clients that wait at several shards: see [`super::wide`].
//!
//! An attempt is a request like any other, on the connections that clients share, and its response goes to the client as a reply only
//! where that ends its wait. None is sent for a client that is gone or is to go. One that is on its way when its client goes is
//! dropped if nothing of it was written; what an attempt takes that was written is given to the next in line who would have
//! sent the same, and is lost where there is none, as what a shard gives to a client that goes at that moment always is. One whose wait
//! is ended otherwise (its time is over, CLIENT UNBLOCK, a drain, its shard is lost) gets what its attempt has taken.

use std::time::Duration;

use bytes::Bytes;

use super::Pool;
use super::client::State;
use super::clients::ClientId;
use super::connections::ConnectionId;
use super::members::{MemberIndex, ShardIndex};
use super::private::Ending;
use super::router::Turn;
use super::ticket::{Sender, Ticket};
use super::tracker::{News, Tells};
use super::wide::{Attempt, Step};
use crate::buffer::Piece;
use crate::failure::ShardFailure;
use crate::protocol::{Protocol, Tried};
use crate::time::Time;

/// The pause where the queue of a shard is full.
const AGAIN: Duration = Duration::from_millis(5);
/// How long it may take to find out whether there is something for one whose time is over, where requests have no time of their own.
const LATE_MAX: Duration = Duration::from_secs(1);

impl<P: Protocol> Pool<P> {
    /// Does what is to be done for those that wait at several shards.
    pub(super) fn tidy_wide(&mut self, now: Time) {
        self.recount_wide();
        for (member, asked) in self.wide.take_unasked() {
            self.router.track(member, asked, &self.context.limits, now);
        }
        while let Some(id) = self.wide.take_look() {
            match self.wide.step(id) {
                Step::Nothing => {}
                Step::Try(place) => self.try_key(id, place, now),
                Step::Join => self.join_parts(id),
                Step::TimeOver => {
                    self.end_wide(id, Ending::TimeOver);
                }
            }
        }
        let (before, after) = self.wide.count();
        self.share.change(before, after);
        self.context.counters.blocked_wide.set(self.wide.count_all() as i64);
    }

    fn try_key(&mut self, id: ClientId, place: usize, now: Time) {
        let Some(client) = self.clients.get(id) else { return self.drop_wide(id) };
        match client.state {
            State::Open => {}
            State::Finishing => {
                self.end_wide(id, Ending::TimeOver);
                return;
            }
            State::Ended | State::Broken => return self.drop_wide(id),
        }
        let (number, lane) = (client.id, client.lane);
        let (Some(wait), Some((member, is_coming))) = (self.wide.get(id), self.wide.member_at(id, place))
        else {
            return;
        };
        let mut tried = Vec::new();
        P::try_key(&wait.request, place, &mut tried);
        let reply_number = wait.number;
        let sender = Sender { id, number, lane, since: now, now };
        let at = self.router.connection(sender, member);
        // It has waited longer than all that wait for room.
        self.router.turn.queue = Some((at, 1));
        let admitted = self.router.admit(at, tried.len(), &self.context.limits, now, now);
        self.router.turn = Turn::default();
        match admitted {
            Ok(()) => {
                let serial = self.wide.begin(id, place, at, tried.clone());
                let mut ticket = Ticket::attempt(id, reply_number, serial, now);
                if is_coming {
                    ticket.asks = true;
                    let mut prelude = Vec::new();
                    P::asking(&mut prelude);
                    self.router.submit(at, Ticket::prelude(now), Piece::Copied(&prelude), now);
                }
                self.router.submit_owned(at, ticket, tried, now);
            }
            Err(ShardFailure::QueueFull) => self.wide.look_later(id, now.plus(AGAIN)),
            Err(failure) => self.fail_wide(id, member, &failure),
        }
    }

    /// Responses to attempts have come.
    pub(super) fn settle_attempts(&mut self, now: Time) {
        let follows = self.router.topology.redirects();
        for (serial, response) in std::mem::take(&mut self.redirects.attempted) {
            match self.wide.end_attempt(serial) {
                Some(attempt) if follows && P::redirect(&response).is_some() => {
                    self.attempt_elsewhere(&attempt, &response, now);
                }
                Some(attempt) => self.judge_attempt(&attempt, &response),
                None => {
                    self.heard_of_replicas(serial, &response);
                    self.heard_of_transfer(serial, &response, now);
                }
            }
        }
    }

    fn judge_attempt(&mut self, attempt: &Attempt, response: &Bytes) {
        let mut reply = Vec::new();
        let tried = P::tried(&attempt.request, attempt.place, response, &mut reply);
        let id = attempt.client;
        if !self.wide.is_current(attempt) {
            match tried {
                Tried::Nothing => self.wide.nothing(attempt, false),
                Tried::Reply | Tried::Part => self.hand_on(attempt, response),
                Tried::WrongKind | Tried::Refused | Tried::Rewritten => {}
            }
            return;
        }
        match tried {
            Tried::WrongKind if self.wide.was_first(attempt) => return self.finish_wide(id, &reply),
            Tried::Nothing | Tried::WrongKind => self.wide.nothing(attempt, tried == Tried::WrongKind),
            Tried::Reply => return self.finish_wide(id, &reply),
            Tried::Part => self.wide.add_part(attempt, reply.into()),
            // What was read is not read again.
            Tried::Refused if self.has_parts(id) => return self.join_parts(id),
            Tried::Refused => return self.finish_wide(id, &reply),
            Tried::Rewritten => self.wide.rewrite(attempt, reply.into()),
        }
        self.finish_last(id);
    }

    /// The client has waited for no more than what is known now, and is answered, if so.
    pub(super) fn finish_last(&mut self, id: ClientId) {
        if let Some(last) = self.wide.last(id) {
            if self.has_parts(id) { self.join_parts(id) } else { self.finish_wide(id, &last) }
        }
    }

    /// What was taken for a client that is gone is the next one's.
    fn hand_on(&mut self, attempt: &Attempt, response: &Bytes) {
        let lane = |id: ClientId| Some(self.router.connections.lane_key(self.clients.get(id)?.lane));
        let at = self.router.connections.get(attempt.at).map(|connection| connection.lane);
        let is_heir = |&(id, place): &(ClientId, usize)| {
            let (Some(client), Some(wait)) = (self.clients.get(id), self.wide.get(id)) else { return false };
            let mut tried = Vec::new();
            P::try_key(&wait.request, place, &mut tried);
            client.state == State::Open && lane(id) == at && tried == attempt.tried
        };
        let heir = self.wide.heirs(attempt).into_iter().find(is_heir);
        let Some((id, place)) = heir else {
            return self.context.counters.blocked_lost.add(1);
        };
        // What it has under way itself is the next one's then.
        self.drop_attempt(id);
        let (mut reply, mut joined) = (Vec::new(), Vec::new());
        let request = self.wide.get(id).expect("just seen").request.clone();
        if P::tried(&request, place, response, &mut reply) == Tried::Part {
            P::join_parts(&[reply.into()], &mut joined);
            return self.finish_wide(id, &joined);
        }
        self.finish_wide(id, &reply);
    }

    /// An attempt has no response: its shard is lost, or has taken too long.
    pub(super) fn attempt_failed(&mut self, serial: u32, member: MemberIndex, failure: &ShardFailure) {
        let Some(attempt) = self.wide.end_attempt(serial) else {
            if self.transfer_is_lost(serial, failure) {
                return self.router.members[member].counters.failures[failure.reason()].add(1);
            }
            return self.replicas_unknown(serial, member, failure);
        };
        if self.wide.is_current(&attempt) {
            self.fail_wide(attempt.client, member, failure);
        }
    }

    fn fail_wide(&mut self, id: ClientId, member: MemberIndex, failure: &ShardFailure) {
        self.context.counters.forward_error.add(1);
        self.router.members[member].counters.failures[failure.reason()].add(1);
        let mut reply = Vec::new();
        P::failure(P::Manner::default(), &failure.of_shard(&self.router.members[member].name), &mut reply);
        self.answer_wide(id, &reply);
    }

    fn has_parts(&self, id: ClientId) -> bool {
        self.wide.get(id).is_some_and(|wait| !wait.parts().is_empty())
    }

    fn join_parts(&mut self, id: ClientId) {
        let Some(wait) = self.wide.get(id) else { return };
        let mut reply = Vec::new();
        P::join_parts(wait.parts(), &mut reply);
        self.finish_wide(id, &reply);
    }

    /// The client is answered so, unless something is on its way to it.
    pub(super) fn answer_wide(&mut self, id: ClientId, reply: &[u8]) {
        if !self.wide.end(id, reply) {
            return;
        }
        if self.has_parts(id) { self.join_parts(id) } else { self.finish_wide(id, reply) }
    }

    /// The wait of the client ends before its time. False if it does not wait so, or its wait ends already.
    pub(super) fn end_wide(&mut self, id: ClientId, ending: Ending) -> bool {
        if !self.wide.goes_on(id) {
            return false;
        }
        let Some(client) = self.clients.get(id) else { return false };
        let mut reply = Vec::new();
        match ending {
            Ending::TimeOver => P::nothing_came(self.router.connections.lane_key(client.lane), &mut reply),
            Ending::Error => P::unblocked(&mut reply),
            // Its keys are tried where they are.
            Ending::Again => return false,
        }
        self.answer_wide(id, &reply);
        true
    }

    /// The wait is over, with this reply.
    fn finish_wide(&mut self, id: ClientId, reply: &[u8]) {
        let request = self.wide.get(id).map(|wait| wait.request.clone()).unwrap_or_default();
        let Some(number) = self.forget_wide(id) else { return };
        let Some(client) = self.clients.touch(id) else { return };
        let Some(activity) = client.activity.as_mut() else { return };
        (activity.is_wide, activity.arrived) = (false, None);
        let manner = activity.replies.manner(number);
        activity.replies.answer(number, 0, Piece::Copied(reply), true);
        self.keep_nothing(id, manner, &request);
    }

    /// It is in the book no more. Returns the number of its request.
    fn forget_wide(&mut self, id: ClientId) -> Option<u32> {
        let wait = self.wide.leave(id)?;
        self.router.count_wide(&wait.members, &self.wide);
        Some(wait.number)
    }

    /// The client is gone, or hears nothing any more: nothing is to be taken for it.
    pub(super) fn drop_wide(&mut self, id: ClientId) {
        self.drop_attempt(id);
        self.forget_wide(id);
        self.drop_confirming(id);
        self.drop_transfer(id);
        if let Some(activity) = self.clients.activity_mut(id) {
            activity.is_wide = false;
        }
    }

    /// What is under way for the client is not sent, unless it was.
    fn drop_attempt(&mut self, id: ClientId) {
        let Some((serial, at)) = self.wide.attempt_of(id) else { return };
        let Some(connection) = self.router.connections.get_mut(at) else { return };
        connection.forsake(|ticket| ticket.attempts() == Some(serial));
        if !connection.in_flight().iter().any(|ticket| ticket.attempts() == Some(serial)) {
            self.wide.end_attempt(serial);
        }
        self.count_shard(at);
        self.router.close_if_left(at);
    }

    /// The time of some is over.
    pub(super) fn expire_wide(&mut self, now: Time) {
        while let Some(id) = self.wide.take_due(now) {
            if !self.wide.is_over(id, now) {
                self.wide.look(id);
                continue;
            }
            let most = now.plus(self.context.limits.timeout.unwrap_or(LATE_MAX));
            if !self.wide.be_late(id, most) {
                self.end_wide(id, Ending::TimeOver);
            }
        }
        self.check_slots(now);
        let wide = &self.wide;
        self.router.look_at_trackers(Tells::Named, |_, member| wide.waits_at(member), now);
    }

    /// Something has come on a tracker, or it is there now.
    pub(super) fn follow_tracker(&mut self, id: ConnectionId, now: Time) {
        let connection = &mut self.router.connections[id];
        let member = connection.member;
        let Some(tracker) = connection.tracker.as_deref_mut() else { return };
        if tracker.tells() == Tells::Prefixed {
            return self.follow_subscription(id, now);
        }
        for news in std::mem::take(&mut tracker.news) {
            match news {
                News::Tracked(name) => self.wide.tracked(member, &name),
                News::Changed(name) => self.wide.changed(&name),
                News::AllChanged => self.wide.all_changed(member),
                News::NameRefused(name, response) => {
                    for client in self.wide.clients_of(member, &name) {
                        self.context.counters.refused.add(1);
                        self.answer_wide(client, &response);
                    }
                }
                News::Elsewhere(name, response) => self.name_elsewhere(member, &name, &response, now),
                News::Refused(words) => self.tracker_refused(id, &words, now),
                News::Prefixes { .. } => {}
            }
        }
        self.router.ask_tracker_next(id, now);
        let wide = &self.wide;
        if self.router.begin_tracker(id, |member| wide.names_at(member), now) {
            self.wide.is_up(member, true);
        }
    }

    fn tracker_refused(&mut self, id: ConnectionId, words: &str, now: Time) {
        let member = self.router.connections[id].member;
        self.router.tracker_is_refused(id, words, now);
        let reply = self.router.untracked(member, words);
        for client in self.wide.clients_at(member) {
            self.context.counters.refused.add(1);
            self.answer_wide(client, reply.as_bytes());
        }
    }

    /// A tracker is lost, or could not be made.
    pub(super) fn lose_tracker(&mut self, id: ConnectionId, failure: &ShardFailure, now: Time) {
        let connection = &self.router.connections[id];
        let member = connection.member;
        if connection.tracker.as_ref().is_some_and(|tracker| tracker.tells() == Tells::Prefixed) {
            return self.lose_subscription(id, failure, now);
        }
        self.recount_wide();
        self.wide.is_up(member, false);
        let is_present = self.router.members[member].is_present();
        if let ShardFailure::HandshakeRefused(words) = failure {
            self.tracker_refused(id, words, now);
        }
        let wanted = is_present && self.wide.waits_at(member);
        if let Some(failure) = self.router.tracker_is_lost(id, failure, wanted, now) {
            for client in self.wide.clients_at(member) {
                self.fail_wide(client, member, &failure);
            }
        }
        self.count_shard(id);
        if !is_present {
            self.router.remove_tracker(member, Tells::Named);
        }
    }

    /// Other shards have the keys from now on.
    pub(super) fn rehome_wide(&mut self, now: Time) {
        self.confirmations.forget_keepers();
        let router = &self.router;
        let home = |name: &[u8]| Some(router.members.of(ShardIndex(router.topology.home_of(name)?.shard)));
        let is_there = |member| router.topology.redirects() && router.members[member].is_present();
        let homeless = self.wide.rehome(home, is_there, now);
        self.router.count_wide(self.router.members.present(), &self.wide);
        for id in homeless {
            self.context.counters.forward_error.add(1);
            let mut reply = Vec::new();
            P::failure(P::Manner::default(), self.router.nobody(), &mut reply);
            self.answer_wide(id, &reply);
        }
    }
}
