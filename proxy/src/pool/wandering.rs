//! Keys of a cluster that are waited for at several nodes, where one of these does not have them: see `moves.rs` of [`super::wide`].

use bytes::Bytes;

use super::Pool;
use super::members::MemberIndex;
use super::router::Router;
use super::wide::{Attempt, Course};
use crate::protocol::{Protocol, Redirect};
use crate::time::Time;

impl<P: Protocol> Pool<P> {
    /// A node has sent a try elsewhere, and done nothing.
    pub(super) fn attempt_elsewhere(&mut self, attempt: &Attempt, response: &Bytes, now: Time) {
        let name = self.wide.name_of(attempt);
        if self.wide.is_current(attempt) {
            self.finish_last(attempt.client);
        }
        if let Some(name) = name {
            self.name_elsewhere(attempt.member, &name, response, now);
        }
    }

    /// A node has said so to what it was asked for the name.
    pub(super) fn name_elsewhere(&mut self, from: MemberIndex, name: &[u8], response: &Bytes, now: Time) {
        let Some(redirect) = P::redirect(response) else { return };
        let member_at = |host, port| self.router.member_at(self.host(host, from), port);
        // One that is not known is soon, or it is not the owner.
        let course = match redirect {
            Redirect::Moved { host, port, .. } => member_at(host, port).map(Course::Moved),
            Redirect::Ask { host, port, .. } => member_at(host, port).map(Course::Coming),
            Redirect::Later { .. } => None,
        };
        let is_stale = match redirect {
            Redirect::Moved { .. } => true,
            Redirect::Ask { .. } => course.is_none(),
            Redirect::Later { stale } => stale,
        };
        self.redirects.stale |= is_stale;
        let Some(given_up) = self.wide.sent_on(from, name, course.unwrap_or(Course::Later), now) else {
            return;
        };
        let counters = &self.context.counters;
        match redirect {
            Redirect::Moved { .. } => counters.redirects_moved.add(1),
            Redirect::Ask { .. } => counters.redirects_ask.add(1),
            Redirect::Later { .. } => counters.redirects_later.add(1),
        }
        for client in given_up {
            self.context.counters.redirects_given_up.add(1);
            self.answer_wide(client, response);
        }
    }

    /// Nodes are asked whether they have the slots still in which somebody waits for keys, if it is time.
    pub(super) fn check_slots(&mut self, now: Time) {
        self.wide.end_pauses(now);
        for (member, name) in self.wide.take_checks(now) {
            self.router.check(member, name, &self.context.limits, now);
        }
    }

    /// How many wait at each shard is counted anew, if keys have gone to others.
    pub(super) fn recount_wide(&mut self) {
        if self.wide.recount() {
            self.router.count_wide(self.router.members.present(), &self.wide);
        }
    }
}

impl<P: Protocol> Router<P> {
    /// The reply to a request that waits at several shards, because this one refuses to tell of changes, in these words.
    pub fn untracked(&self, member: MemberIndex, words: &str) -> String {
        P::untracked(self.spread_of(std::iter::empty()), &self.members[member].name, words)
    }
}
