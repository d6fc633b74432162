//! Connections on which shards tell of keys that have changed, one for each shard at most: see [`super::wide`].
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
use super::tracker::{ASKED_MAX, Asked, Tracker, TrackerRequest};
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
    /// The connection of the member, if it has one.
    pub fn tracker_id(&self, member: MemberIndex) -> Option<ConnectionId> {
        self.trackers.of_members.get(&member).copied()
    }

    /// What is known of that.
    pub fn tracker_of(&self, member: MemberIndex) -> Option<&Tracker> {
        self.connections[self.tracker_id(member)?].tracker.as_deref()
    }

    fn tracker_mut(&mut self, id: ConnectionId) -> &mut Tracker {
        self.connections[id].tracker.as_deref_mut().expect("it is a tracker")
    }

    /// The shard is to tell of the name.
    pub fn track(&mut self, member: MemberIndex, asked: Asked, limits: &Limits, now: Time) {
        if !self.members[member].is_present() {
            return;
        }
        let id = match self.tracker_id(member) {
            Some(id) => id,
            None => self.add_tracker(member, limits),
        };
        let is_begun = self.tracker_mut(id).begun.is_some();
        let is_due = self.tracker_mut(id).due.is_none();
        match self.connections[id].link {
            Link::Up if is_begun => self.ask_tracker(id, asked, now),
            // One that was lost is made again in its time, and then all names are asked.
            Link::Idle | Link::Down { .. } if is_due => self.connections.connect(id),
            _ => {}
        }
    }

    fn add_tracker(&mut self, member: MemberIndex, limits: &Limits) -> ConnectionId {
        let policy = Policy::feed(limits.timeout);
        let lane = P::tracking_lane(self.connections.usual_key());
        let id = self.connections.insert(member, lane, policy, false);
        self.connections[id].tracker = Some(Box::<Tracker>::default());
        self.connections[id].special = true;
        self.trackers.of_members.insert(member, id);
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
        let connection = &mut self.connections[id];
        let member = connection.member;
        let is_up = matches!(connection.link, Link::Up);
        let Some(tracker) = connection.tracker.as_deref_mut() else { return false };
        if tracker.begun.is_some() || !is_up || !self.members[member].is_present() {
            return false;
        }
        (tracker.begun, tracker.heard, tracker.failure) = (Some(now), now, None);
        tracker.asked.push_back(TrackerRequest::ToTell);
        let mut request = Vec::new();
        P::track(&mut request);
        self.submit(id, Ticket::prelude(now), Piece::Copied(&request), now);
        self.look_at_tracker_later(id, now.plus(SILENCE_MAX));
        names(member).into_iter().for_each(|asked| self.ask_tracker(id, asked, now));
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
        (tracker.asked, tracker.backlog, tracker.news) = Default::default();
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
        self.tracker_mut(id).due = Some(due);
        self.trackers.due = Some(self.trackers.due.map_or(due, |earliest| earliest.min(due)));
    }

    /// Those whose time has come are made again, asked for a sign of life, or closed. Somebody waits at those that are `needed`.
    pub fn look_at_trackers(&mut self, is_needed: impl Fn(MemberIndex) -> bool, now: Time) {
        if self.trackers.due.is_none_or(|due| due > now) {
            return;
        }
        self.trackers.due = None;
        for member in self.members.present().to_vec() {
            let Some(id) = self.tracker_id(member) else { continue };
            let tracker = self.tracker_mut(id);
            let Some(due) = tracker.due else { continue };
            if due > now {
                self.look_at_tracker_later(id, due);
                continue;
            }
            (tracker.due, tracker.refused) = (None, None);
            let connection = &self.connections[id];
            if !is_needed(member) {
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

    /// That of a member that has left is closed.
    pub fn leave_tracker(&mut self, member: MemberIndex) {
        let Some(id) = self.tracker_id(member) else { return };
        if self.connections[id].is_made() {
            self.connections.close(id, ShardFailure::Removed);
        } else if self.connections[id].is_closed() {
            self.remove_tracker(member);
        }
    }

    /// It is closed.
    pub fn remove_tracker(&mut self, member: MemberIndex) {
        if let Some(id) = self.trackers.of_members.remove(&member) {
            self.connections.remove([id]);
        }
    }
}
