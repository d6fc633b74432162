//! Connections on which shards tell of keys that have changed, two for each shard at most: one for keys that shards are asked to look at
//! ([`super::wide`]), and one for all that begin in some way ([`super::subscriptions`]), because a shard does not do both on one.
//!
//! They are in the book of connections like all others, but in no lane, and nothing is asked on them but to tell, and to look at names.
//! They are unlike feeds in that they speak the version that has something for what nobody has asked for; and a shard that is listened to in
//! the other one answers nothing else.
//!
//! What fails on one counts against nobody. One that is lost is made again as long as somebody waits, and all names are looked at anew
//! there; a shard that cannot be reached fails those that wait at it. One that does not tell is asked again after a while.
//!
//! A shard forgets what it was to tell of with the next change of that key, or where it has too many
//! (`tracking-table-max-keys`), which it tells of as well; it does not forget it with the connection, nor where it is told to stop.

use std::time::Duration;

use bytes::Bytes;

use super::connection::Link;
use super::connections::ConnectionId;
use super::limits::Limits;
use super::members::MemberIndex;
use super::policy::Policy;
use super::router::Router;
use super::ticket::Ticket;
use super::tracker::{ASKED_MAX, Asked, Tells, Tracker, TrackerRequest};
use super::wide::WideWaits;
use crate::buffer::Piece;
use crate::failure::ShardFailure;
use crate::protocol::Protocol;
use crate::time::Time;

/// One that has said nothing for so long is asked for a sign of life; where nobody waits it is closed.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// So long a shard that does not tell is not asked again.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// The pauses before a lost one is made again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// One that was there for so long was no failed attempt.
const STEADY: Duration = Duration::from_secs(10);

impl<P: Protocol> Router<P> {
    /// The connection of the member that is for this, if it has one.
    pub fn tracker_id(&self, member: MemberIndex, tells: Tells) -> Option<ConnectionId> {
        self.trackers[tells.place()].of_members.get(&member).copied()
    }

    /// Those of the member.
    pub fn trackers_of(&self, member: MemberIndex) -> impl Iterator<Item = ConnectionId> {
        Tells::ALL.into_iter().filter_map(move |tells| self.tracker_id(member, tells))
    }

    /// What is known of the one that tells of keys that were looked at.
    pub fn tracker_of(&self, member: MemberIndex) -> Option<&Tracker> {
        self.connections[self.tracker_id(member, Tells::Named)?].tracker.as_deref()
    }

    /// No tracker has to be looked at before.
    pub fn trackers_due(&self) -> Option<Time> {
        self.trackers.iter().filter_map(|trackers| trackers.due).min()
    }

    pub(super) fn tracker_mut(&mut self, id: ConnectionId) -> &mut Tracker {
        self.connections[id].tracker.as_deref_mut().expect("it is a tracker")
    }

    /// The shard is to tell of the name.
    pub fn track(&mut self, member: MemberIndex, asked: Asked, limits: &Limits, now: Time) {
        if !self.members[member].is_present() {
            return;
        }
        let id = match self.tracker_id(member, Tells::Named) {
            Some(id) => id,
            None => self.add_tracker(member, Tells::Named, limits),
        };
        if self.is_tracker_begun(id) {
            self.ask_tracker(id, asked, now);
        }
    }

    /// Whether the shard was asked to tell on the connection. One that is not there is made; one that was lost in its time.
    pub fn is_tracker_begun(&mut self, id: ConnectionId) -> bool {
        let is_due = self.tracker_mut(id).due.is_none();
        match self.connections[id].link {
            Link::Up => return self.tracker_mut(id).begun.is_some(),
            Link::Idle | Link::Down { .. } if is_due => self.connections.connect(id),
            _ => {}
        }
        false
    }

    pub(super) fn add_tracker(&mut self, member: MemberIndex, tells: Tells, limits: &Limits) -> ConnectionId {
        let policy = Policy::feed(limits.timeout);
        let lane = P::tracking_lane(self.connections.usual_key());
        let id = self.connections.insert(member, lane, policy, false);
        let prefixes = (tells == Tells::Prefixed).then_some(0);
        self.connections[id].tracker = Some(Box::new(Tracker { prefixes, ..Tracker::default() }));
        self.connections[id].special = true;
        self.trackers[tells.place()].of_members.insert(member, id);
        id
    }

    /// The shard is to say whether it has the name still, if it has little else to say.
    pub fn check(&mut self, member: MemberIndex, name: Bytes, limits: &Limits, now: Time) {
        let is_busy = |tracker: &Tracker| tracker.unanswered() >= ASKED_MAX;
        if !self.tracker_of(member).is_some_and(is_busy) {
            self.track(member, Asked { name, is_coming: false }, limits, now);
        }
    }

    fn ask_tracker(&mut self, id: ConnectionId, asked: Asked, now: Time) {
        let tracker = self.tracker_mut(id);
        if tracker.is_busy() {
            return tracker.backlog.push_back(asked);
        }
        let mut request = Vec::new();
        if asked.is_coming {
            P::asking(&mut request);
            tracker.asked.push_back(TrackerRequest::Way);
            self.submit(id, Ticket::prelude(now), Piece::Copied(&request), now);
            request.clear();
        }
        P::look_at(&asked.name, &mut request);
        self.tracker_mut(id).asked.push_back(TrackerRequest::Name(asked.name));
        self.submit(id, Ticket::prelude(now), Piece::Copied(&request), now);
    }

    /// Names are asked that have waited for others to be answered.
    pub fn ask_tracker_next(&mut self, id: ConnectionId, now: Time) {
        while !self.tracker_mut(id).is_busy()
            && let Some(asked) = self.tracker_mut(id).backlog.pop_front()
        {
            self.ask_tracker(id, asked, now);
        }
    }

    /// It is there: its shard is asked to tell, and of these names. False if that is not so, or was done.
    pub fn begin_tracker(
        &mut self,
        id: ConnectionId,
        names: impl FnOnce(MemberIndex) -> Vec<Asked>,
        now: Time,
    ) -> bool {
        let member = self.connections[id].member;
        if !self.is_to_begin(id, now) {
            return false;
        }
        self.tracker_mut(id).asked.push_back(TrackerRequest::ToTell);
        let mut request = Vec::new();
        P::track(&mut request);
        self.submit(id, Ticket::prelude(now), Piece::Copied(&request), now);
        names(member).into_iter().for_each(|name| self.ask_tracker(id, name, now));
        true
    }

    /// It is there, and its shard is to be asked to tell. False if that was done.
    pub(super) fn is_to_begin(&mut self, id: ConnectionId, now: Time) -> bool {
        let connection = &mut self.connections[id];
        let member = connection.member;
        let is_up = matches!(connection.link, Link::Up);
        let Some(tracker) = connection.tracker.as_deref_mut() else { return false };
        if tracker.begun.is_some() || !is_up || !self.members[member].is_present() {
            return false;
        }
        (tracker.begun, tracker.heard, tracker.failure) = (Some(now), now, None);
        self.look_at_tracker_later(id, now.plus(SILENCE_MAX));
        true
    }

    /// The shard does not tell.
    pub fn tracker_is_refused(&mut self, id: ConnectionId, words: &str, now: Time) {
        self.tracker_mut(id).refused = Some(words.into());
        self.look_at_tracker_later(id, now.plus(REFUSED_FOR));
        if self.connections[id].is_made() {
            self.connections.close(id, ShardFailure::Removed);
        }
    }

    /// It is lost, or could not be made. Why nobody is to wait for the next one, if so.
    pub fn tracker_is_lost(
        &mut self,
        id: ConnectionId,
        failure: &ShardFailure,
        wanted: bool,
        now: Time,
    ) -> Option<ShardFailure> {
        let jitter = self.random();
        let tracker = self.tracker_mut(id);
        (tracker.asked, tracker.backlog, tracker.news, tracker.overlong) = Default::default();
        let begun = tracker.begun.take();
        if tracker.refused.is_some() {
            return None;
        }
        tracker.due = None;
        if begun.is_some_and(|begun| now.since(begun) >= STEADY) {
            tracker.attempts = 0;
        }
        if begun.is_some() && !wanted {
            tracker.failure = None;
            return None;
        }
        // One that was there is worth an attempt that is waited for.
        tracker.failure = begun.is_none().then(|| failure.clone());
        let pause = PAUSE_MIN.saturating_mul(1 << tracker.attempts.min(10)).min(PAUSE_MAX);
        tracker.attempts += 1;
        let failed = tracker.failure.clone();
        // Workers and replicas do not knock in step.
        let half = pause / 2;
        let pause = half + Duration::from_micros(jitter % (half.as_micros() as u64 + 1));
        self.look_at_tracker_later(id, now.plus(pause));
        failed
    }

    fn look_at_tracker_later(&mut self, id: ConnectionId, due: Time) {
        let tracker = self.tracker_mut(id);
        tracker.due = Some(due);
        let trackers =
            &mut self.trackers[self.connections[id].tracker.as_deref().expect("it is one").tells().place()];
        trackers.due = Some(trackers.due.map_or(due, |earliest| earliest.min(due)));
    }

    /// Those whose time has come are made again, asked for a sign of life, or closed. Somebody needs those of some members.
    pub fn look_at_trackers(
        &mut self,
        tells: Tells,
        is_needed: impl Fn(&Self, MemberIndex) -> bool,
        now: Time,
    ) {
        let trackers = &mut self.trackers[tells.place()];
        if trackers.due.is_none_or(|due| due > now) {
            return;
        }
        trackers.due = None;
        for member in self.members.present().to_vec() {
            let Some(id) = self.tracker_id(member, tells) else { continue };
            let tracker = self.tracker_mut(id);
            let Some(due) = tracker.due else { continue };
            if due > now {
                self.look_at_tracker_later(id, due);
                continue;
            }
            (tracker.due, tracker.refused) = (None, None);
            let is_needed = is_needed(self, member);
            let connection = &self.connections[id];
            if !is_needed {
                self.tracker_mut(id).failure = None;
                if self.connections[id].is_made() {
                    self.connections.close(id, ShardFailure::Removed);
                }
            } else if connection.is_closed() {
                self.connections.connect(id);
            } else if matches!(connection.link, Link::Up) {
                self.ask_tracker_for_life(id, now);
            }
        }
    }

    fn ask_tracker_for_life(&mut self, id: ConnectionId, now: Time) {
        let tracker = self.tracker_mut(id);
        let silent_from = tracker.heard.plus(SILENCE_MAX);
        // What is asked of it anyway is as good.
        if tracker.asked.is_empty() && silent_from <= now {
            tracker.asked.push_back(TrackerRequest::Life);
            let mut request = Vec::new();
            P::ask_for_life(&mut request);
            self.submit(id, Ticket::prelude(now), Piece::Copied(&request), now);
        }
        self.look_at_tracker_later(id, if silent_from > now { silent_from } else { now.plus(SILENCE_MAX) });
    }

    /// So many clients wait at these shards, and at others.
    pub fn count_wide(&self, members: &[MemberIndex], wide: &WideWaits) {
        for &member in members {
            self.members[member].counters.wide_clients.set(wide.count_at(member) as i64);
        }
    }

    /// Those of a member that has left are closed.
    pub fn leave_trackers(&mut self, member: MemberIndex) {
        for tells in Tells::ALL {
            let Some(id) = self.tracker_id(member, tells) else { continue };
            if self.connections[id].is_made() {
                self.connections.close(id, ShardFailure::Removed);
            } else if self.connections[id].is_closed() {
                self.remove_tracker(member, tells);
            }
        }
    }

    /// It is closed.
    pub fn remove_tracker(&mut self, member: MemberIndex, tells: Tells) {
        if let Some(id) = self.trackers[tells.place()].of_members.remove(&member) {
            self.connections.remove([id]);
        }
    }
}
