//! Connections on which shards tell of all keys that begin in some way, one for each shard that owns keys, and what is made of that: see
//! [`super::broadcasts`]. They are made, watched and made again as those for keys that are waited for ([`super::trackers`]).
//!
//! One that is lost tells nothing any more, so all that are told by it are told that anything may have changed, at once; and until it is there
//! again they are not to keep what its shard answers. The same where a shard is asked for less and then for more, because there is no
//! way to ask for a prefix beside longer ones that begin with it.

use super::Pool;
use super::caches::READ_OF_ALL;
use super::caching::told_of;
use super::connections::ConnectionId;
use super::members::MemberIndex;
use super::router::Router;
use super::ticket::Ticket;
use super::tracker::{News, Tells, TrackerRequest};
use crate::buffer::Piece;
use crate::failure::ShardFailure;
use crate::protocol::Protocol;
use crate::time::Time;

impl<P: Protocol> Router<P> {
    /// Whether the member may own keys.
    fn may_own(&self, member: MemberIndex) -> bool {
        self.members[member].is_present() && !self.members[member].is_replica
    }
}

impl<P: Protocol> Pool<P> {
    /// Shards are asked for what clients want to be told of by now.
    pub(super) fn tidy_broadcasts(&mut self, now: Time) {
        if self.caches.broadcasts.take_changed() && !self.caches.broadcasts.is_empty() {
            // Of a cluster's nodes those that own slots.
            let (owners, _) = self.router.owners_and_readers();
            let is_cluster = self.router.topology.redirects();
            let mut is_anew = false;
            for member in self.router.members.present().to_vec() {
                if self.router.may_own(member) && (!is_cluster || owners.contains(&member)) {
                    is_anew |= self.subscribe(member, now);
                }
            }
            // Once for all shards.
            if is_anew {
                let broadcasts = &self.caches.broadcasts;
                let clients = broadcasts.clients_before(broadcasts.wanted().0);
                self.empty(clients);
            }
        }
        let (before, after) = self.caches.broadcasts.count();
        if before != after {
            self.share.change(before, after);
            self.context.counters.tracked_prefixes.set(self.caches.broadcasts.prefixes() as i64);
        }
    }

    /// The shard is asked for what it is not asked for yet. True if it is to cease before that, and to begin anew: what changes meanwhile it
    /// does not tell of.
    fn subscribe(&mut self, member: MemberIndex, now: Time) -> bool {
        let router = &mut self.router;
        let id = match router.tracker_id(member, Tells::Prefixed) {
            Some(id) => id,
            None => router.add_tracker(member, Tells::Prefixed, &self.context.limits),
        };
        if !router.is_tracker_begun(id) {
            self.begin_subscription(id, now);
            return false;
        }
        let broadcasts = &mut self.caches.broadcasts;
        let asked = router.tracker_mut(id).prefixes.unwrap_or_default();
        let (version, all) = broadcasts.wanted();
        if asked == version {
            return false;
        }
        router.tracker_mut(id).prefixes = Some(version);
        let mut requests = Vec::new();
        match broadcasts.wanted_since(asked) {
            Some(more) => {
                P::subscribe(more, &mut requests);
                router.ask_subscription(id, TrackerRequest::Prefixes { version }, &requests, now);
                false
            }
            None => {
                P::unsubscribe(&mut requests);
                router.ask_subscription(id, TrackerRequest::ToCease, &requests, now);
                requests.clear();
                P::subscribe(all, &mut requests);
                router.ask_subscription(id, TrackerRequest::Prefixes { version }, &requests, now);
                // Until it tells again its keys are not to be kept, whether this connection lasts or not.
                broadcasts.is_silent(member);
                true
            }
        }
    }

    /// Something has come on such a connection, or it is there now.
    pub(super) fn follow_subscription(&mut self, id: ConnectionId, now: Time) {
        let member = self.router.connections[id].member;
        let mut changed = Vec::new();
        for news in std::mem::take(&mut self.router.tracker_mut(id).news) {
            match news {
                News::Changed(key) => changed.push(key),
                News::AllChanged => {
                    self.caches.broadcasts.all_told(now);
                    self.empty_broadcast();
                }
                // It may have been asked to cease since.
                News::Prefixes { version } if self.router.tracker_mut(id).prefixes == Some(version) => {
                    self.caches.broadcasts.tells(member, version, now);
                }
                News::Prefixes { .. } => {}
                News::Refused(words) => self.router.tracker_is_refused(id, &words, now),
                News::Tracked(_) | News::NameRefused(..) | News::Elsewhere(..) => {}
            }
        }
        for key in &changed {
            let clients = self.caches.take(READ_OF_ALL, key);
            if !clients.is_empty() {
                self.tell(told_of::<P>(key), clients);
            }
        }
        for (prefix, keys) in self.caches.broadcasts.told(&changed, now) {
            let mut told = Vec::new();
            P::tell_changed(&keys, &mut told);
            let clients = self.caches.broadcasts.clients_of(&prefix).to_vec();
            self.tell(told.into(), clients);
        }
        self.begin_subscription(id, now);
    }

    /// If it is there, and somebody wants to be told, its shard is asked.
    fn begin_subscription(&mut self, id: ConnectionId, now: Time) {
        let member = self.router.connections[id].member;
        let (version, all) = self.caches.broadcasts.wanted();
        if !all.is_empty() && self.router.may_own(member) && self.router.is_to_begin(id, now) {
            let mut request = Vec::new();
            P::subscribe(all, &mut request);
            self.router.tracker_mut(id).prefixes = Some(version);
            let asks = TrackerRequest::Prefixes { version };
            self.router.ask_subscription(id, asks, &request, now);
        }
    }

    /// Anything that they have may have changed.
    fn empty_broadcast(&mut self) {
        let mut clients = self.caches.take_all(READ_OF_ALL, |_| true);
        clients.extend(self.caches.broadcasts.clients());
        clients.sort_unstable();
        clients.dedup();
        self.empty(clients);
    }

    /// It is lost, or could not be made.
    pub(super) fn lose_subscription(&mut self, id: ConnectionId, failure: &ShardFailure, now: Time) {
        let member = self.router.connections[id].member;
        if self.caches.broadcasts.is_silent(member) {
            self.empty_broadcast();
        }
        if let ShardFailure::HandshakeRefused(words) = failure {
            self.router.tracker_is_refused(id, words, now);
        }
        let wanted = !self.caches.broadcasts.is_empty() && self.router.may_own(member);
        self.router.tracker_is_lost(id, failure, wanted, now);
        self.count_shard(id);
        if !self.router.members[member].is_present() {
            self.router.remove_tracker(member, Tells::Prefixed);
        }
    }

    /// Their time may have come.
    pub(super) fn look_at_subscriptions(&mut self, now: Time) {
        let is_wanted = !self.caches.broadcasts.is_empty();
        let is_needed = |router: &Router<P>, member| is_wanted && router.may_own(member);
        self.router.look_at_trackers(Tells::Prefixed, is_needed, now);
    }

    /// Other shards may own keys from now on. Between nodes of a cluster keys move with what is in them, and whoever has one tells of it;
    /// elsewhere another value stands where it was.
    pub(super) fn rehome_broadcasts(&mut self) {
        if !self.router.topology.redirects() {
            self.empty_broadcast();
        }
        self.caches.broadcasts.look();
    }
}

impl<P: Protocol> Router<P> {
    fn ask_subscription(&mut self, id: ConnectionId, asks: TrackerRequest, request: &[u8], now: Time) {
        self.tracker_mut(id).asked.push_back(asks);
        self.submit(id, Ticket::prelude(now), Piece::Copied(request), now);
    }
}
