//! Keys that shards watch for clients: how that ends.
//!
//! A client that has said WATCH has a pin to a private connection: what it asks of that shard goes over it, so the shard knows what
//! it has seen, and EXEC there is executed only if no key has changed. It ends with EXEC, DISCARD, UNWATCH or RESET: then the
//! connection is given back, once the shard has said that it watches nothing on it any more.
//!
//! Where it ends otherwise nobody knows what happens to the keys from then on, so the client's next transaction is not executed,
//! as if one had changed:
//!
//! - The connection is lost, or a request on it has timed out.
//! - Keys have another owner, or may have, as there are too many to be remembered; or the shard is elsewhere.
//! - A node of a cluster names another one.
//! - Nothing was asked on it for [`WATCH_IDLE_MAX`].
//!
//! A transaction that was sent is the shard's business: it is never sent again, and where its reply is lost its client is told an
//! error, unless its last byte was never written.

use std::time::Duration;

use super::Pool;
use super::client::Pause;
use super::clients::ClientId;
use super::connections::ConnectionId;
use super::members::ShardIndex;
use super::ticket::Ticket;
use super::watch::Stage;
use crate::buffer::Piece;
use crate::protocol::{Protocol, Watched};
use crate::time::Time;

/// A client that watches keys and asks nothing of their shard for so long does so no more.
pub const WATCH_IDLE_MAX: Duration = Duration::from_secs(60);

impl<P: Protocol> Pool<P> {
    /// How far the watch on the connection is, if there is one.
    pub(super) fn stage_of_watch(&self, at: ConnectionId) -> Option<Stage> {
        Some(self.router.connections.get(at)?.private.as_ref()?.watch.as_ref()?.stage)
    }

    /// Something has come on a connection on which keys are watched: what was asked may be answered.
    pub(super) fn settle_watch(
        &mut self,
        at: ConnectionId,
        holder: Option<ClientId>,
        stage: Stage,
        now: Time,
    ) {
        // What the proxy itself asks behind that is nothing that the client waits for.
        let is_answered = self.router.connections[at].in_flight().iter().all(|ticket| ticket.is_prelude());
        match stage {
            Stage::Unsure => self.lose_watch(at, holder, now),
            _ if !is_answered => {}
            Stage::Held => {}
            Stage::Asked if self.owns_watched(at) => {
                if let Some(watch) = self.router.connections[at].watch_mut() {
                    watch.stage = Stage::Held;
                }
                self.context.counters.watches.add(1);
                self.tell_watch(holder, Watched::Begun);
            }
            Stage::Asked => self.lose_watch(at, holder, now),
            Stage::Refused => {
                self.unpin(holder);
                self.router.clear_private(at, now);
                self.tell_watch(holder, Watched::Refused);
            }
            Stage::Spent => {
                self.unpin(holder);
                self.router.release_private(at);
            }
            Stage::SpentInVain => {
                self.unpin(holder);
                self.router.clear_private(at, now);
            }
        }
    }

    /// Whether the shard of the connection is in the pool and owns all keys that are watched there.
    pub(super) fn owns_watched(&self, at: ConnectionId) -> bool {
        let connection = &self.router.connections[at];
        let watch = connection.private.as_ref().and_then(|private| private.watch.as_ref());
        let members = &self.router.members;
        let is_own = |key: &[u8]| {
            let home = self.router.topology.home_of(key);
            home.is_some_and(|home| members.of(ShardIndex(home.shard)) == connection.member)
        };
        members[connection.member].is_present() && watch.is_some_and(|watch| watch.is_owned(is_own))
    }

    /// Nobody knows what happens to the keys from now on. What is in flight on the connection is answered before the client
    /// goes on elsewhere.
    pub(super) fn lose_watch(&mut self, at: ConnectionId, holder: Option<ClientId>, now: Time) {
        self.unpin(holder);
        self.router.clear_private(at, now);
        self.context.counters.watches_lost.add(1);
        self.tell_watch(holder, Watched::Lost);
        if let Some(activity) = holder.and_then(|id| self.clients.activity_mut(id))
            && activity.replies.in_flight() > 0
        {
            activity.paused = Some(Pause::UntilQuiet);
        }
    }

    /// The connection is gone on which the watch was so far.
    pub(super) fn watch_is_gone(&mut self, holder: Option<ClientId>, stage: Stage) {
        self.unpin(holder);
        match stage {
            // The client was told an error.
            Stage::Asked | Stage::Refused => self.tell_watch(holder, Watched::Refused),
            Stage::Held | Stage::Unsure => {
                self.context.counters.watches_lost.add(1);
                self.tell_watch(holder, Watched::Lost);
            }
            // It watched nothing any more.
            Stage::Spent | Stage::SpentInVain => {}
        }
    }

    fn tell_watch(&mut self, holder: Option<ClientId>, news: Watched) {
        if let Some(client) = holder.and_then(|id| self.clients.get_mut(id)) {
            P::watched(&mut client.session, news);
        }
    }

    fn unpin(&mut self, holder: Option<ClientId>) {
        if let Some(client) = holder.and_then(|id| self.clients.get_mut(id)) {
            self.router.connections.unpin(&mut client.lane);
        }
    }

    /// The transaction of the ticket was not executed, as if a watched key had changed.
    pub(super) fn answer_unexecuted(&mut self, ticket: Ticket<P>, lane: P::Lane) {
        let Some(client) = ticket.client().and_then(|id| self.clients.touch(id)) else { return };
        let mut reply = Vec::new();
        P::nothing_came(lane, &mut reply);
        let activity = client.activity.as_mut().expect("a client with a request in flight has an activity");
        activity.replies.answer(ticket.number, ticket.fragment, Piece::Copied(&reply), true);
    }

    /// Those that have asked nothing of the shard for long watch no more.
    pub(super) fn sweep_watches(&mut self, now: Time) {
        let idle = self.router.connections.find(|connection| {
            let watch = connection.private.as_ref().and_then(|private| private.watch.as_ref());
            watch.is_some_and(|watch| watch.stage == Stage::Held)
                && connection.in_flight().is_empty()
                && now.since(connection.heard) >= WATCH_IDLE_MAX
        });
        for at in idle {
            let holder = self.router.connections[at].private.as_ref().and_then(|private| private.holder);
            self.lose_watch(at, holder, now);
        }
    }
}
