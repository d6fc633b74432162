//! What becomes of requests, clients and connections as time passes.

use std::time::Duration;

use super::Pool;
use super::client::State;
use super::clients::ClientId;
use super::connection::{Connection, Link};
use super::connections::ConnectionId;
use super::context::Context;
use super::denials::Denial;
use super::router::Router;
use super::wishes::{Notice, Wish};
use crate::buffer::Output;
use crate::failure::{ShardFailure, Stage};
use crate::protocol::Protocol;
use crate::time::Time;

/// A connection for a database or protocol version beside the usual one is given up after so long without use.
const EXTRA_CONNECTION_IDLE_MAX: Duration = Duration::from_secs(60);
/// A client that takes none of its replies for so long is told in the log.
const WEDGED_AFTER: Duration = Duration::from_secs(5);
/// One that is to go and takes none of its last replies is closed after so long.
const FINISH_MAX: Duration = Duration::from_secs(30);

impl<P: Protocol> Pool<P> {
    /// When [`Self::tick`] has to be called at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        let [parked, abandoned] = self.redirects.due();
        let router = &self.router;
        [parked, abandoned, self.denials.due()]
            .into_iter()
            .chain([router.wait_deadline, router.deadline, router.identity_deadline, router.feeds.due])
            .chain([router.pace.due(), self.channels.moving.due(), router.trackers_due(), self.wide.due()])
            .chain([router.transfers.due()])
            .flatten()
            .min()
    }

    /// A wrong password has waited long enough.
    fn deny(&mut self, Denial { client: id, number, reply, .. }: Denial) {
        if let Some(activity) = self.clients.activity_mut(id)
            && activity.replies.has(number)
        {
            let mut output = Output::default();
            output.copy(&reply);
            activity.replies.answer_whole(number, output);
            self.clients.touch(id);
            self.clients.resume(id);
        }
    }

    /// Deadlines may have passed.
    pub fn tick(&mut self, now: Time) {
        while let Some(denial) = self.denials.take_due(now) {
            self.deny(denial);
        }
        self.expire_waiting(now);
        self.expire_handshakes(now);
        self.router.look_at_feeds(&self.channels, now);
        self.try_moved(now);
        self.expire_wide(now);
        self.send_waiting_values(now);
        self.look_at_subscriptions(now);
        self.unpark(now, false);
        self.close_abandoned(now);
        for id in self.router.make_put_off(now) {
            self.shard_closed(id, &ShardFailure::Removed, now);
        }
        if self.router.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        for id in self.router.connections.find(|connection| !connection.in_flight().is_empty()) {
            self.expire_requests(id, now);
        }
        self.router.deadline = self.router.connections.deadline();
    }

    /// Requests on the connection have waited too long for their responses, or it was silent for too long.
    fn expire_requests(&mut self, id: ConnectionId, now: Time) {
        let default_lane = self.router.connections.usual_key();
        let connection = &mut self.router.connections[id];
        if connection.private.is_some()
            && connection.deadline().is_some_and(|deadline| deadline <= now)
            && self.ask_to_end(id, now)
        {
            return;
        }
        let connection = &mut self.router.connections[id];
        let member = connection.member;
        let notes = self.context.limits.notes_requests();
        let late = if notes { connection.trace_late(now) } else { Vec::new() };
        let mut expired = Vec::new();
        connection.expire(now, |ticket| expired.push(ticket));
        let is_feed = connection.is_ours();
        let mut is_given_up = connection.is_dead(now) || (is_feed && !expired.is_empty());
        // A write that its client has been told of as failed must not be executed after one that is made later on another
        // connection, and bytes that the kernel has are sent until the connection is reset. Where the shard is only busy the
        // kernel is asked, so that a large response goes on.
        if let Some(latest) = expired.last()
            && expired.iter().any(|ticket| !ticket.reads)
        {
            match connection.stage(connection.lane == default_lane, latest.since) {
                Stage::Serving { is_silent: false, .. } if connection.has_written_expired() => {
                    self.wishes.add(Wish::CloseUnlessDelivered(id));
                }
                Stage::Serving { .. } | Stage::Handshake { .. } => is_given_up = true,
                // Nothing of it is written, and who does not say who it is has a deadline of its own.
                Stage::Connecting | Stage::Identifying { .. } | Stage::Idle => {}
            }
        }
        let failure = ShardFailure::ResponseTimeout;
        let latest = expired
            .last()
            .map(|latest| (latest.since, connection.blame(&failure, default_lane, latest.since)));
        let is_private = connection.private.is_some();
        if is_given_up && !is_private {
            self.router.connections.close(id, failure.clone());
        }
        let Some((began, blame)) = latest else { return };
        self.router.members[member].counters.server_timedout.add(expired.len() as u64);
        self.router.members.failed(member, &failure, blame, began, now);
        self.note_failed(id, late, &failure, now);
        for ticket in expired {
            self.fail(ticket, member, &failure);
        }
        if is_private {
            self.lose_private(id);
        }
    }

    /// A shard that does not say who it is has failed after as long as a request may take, as where no connection is made; and
    /// in the end it is given up.
    fn expire_handshakes(&mut self, now: Time) {
        let router = &mut self.router;
        if router.identity_deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        let default_lane = router.connections.usual_key();
        let is_late = |connection: &Connection<P>| {
            connection.identity_deadline().is_some_and(|deadline| deadline <= now)
        };
        for id in router.connections.find(is_late) {
            let failure = ShardFailure::ResponseTimeout.unidentified();
            let connection = &mut router.connections[id];
            let blame = connection.blame(&failure, default_lane, now);
            match connection.go_on_identifying(&failure, now) {
                Some(began) => router.members.failed(connection.member, &failure, blame, began, now),
                None => router.connections.close(id, failure),
            }
        }
        let deadlines = router.connections.iter().filter_map(Connection::identity_deadline);
        router.identity_deadline = deadlines.filter(|&deadline| deadline > now).min();
    }

    /// Those that have waited for room long enough get an answer.
    fn expire_waiting(&mut self, now: Time) {
        if self.router.wait_deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        let mut next: Option<Time> = None;
        for connection in self.router.connections.iter_mut() {
            let policy = connection.policy;
            connection.waiting.retain(|waiter| {
                let deadline = waiter.deadline(policy, &self.context.limits);
                if deadline <= now {
                    self.clients.resume(waiter.client);
                    return false;
                }
                next = Some(next.map_or(deadline, |earliest| earliest.min(deadline)));
                true
            });
        }
        self.router.wait_deadline = next;
    }

    /// Not everything could be written to the client, or with `some` false nothing at all.
    pub fn client_blocked(&mut self, id: ClientId, some: bool, now: Time) {
        self.clients.block(id, some, now);
    }

    /// The client has taken a part of its replies, and it is not for want of room that the rest was not written.
    pub fn client_takes(&mut self, id: ClientId, now: Time) {
        self.clients.takes(id, now);
    }

    /// Whether [`Self::sweep_blocked`] may find something.
    pub fn has_blocked(&self) -> bool {
        self.clients.has_blocked()
    }

    /// Looks after clients that do not take their replies. To be called about once a second where
    /// [`Self::has_blocked`].
    pub fn sweep_blocked(&mut self, now: Time) {
        let Self { clients, wishes, context: Context { counters, limits, .. }, .. } = self;
        let mut blocked = clients.take_blocked();
        blocked.retain(|&id| {
            let Some(client) = clients.get_mut(id) else { return false };
            let Some(activity) = client.activity.as_mut() else { return false };
            let Some(since) = activity.blocked else { return false };
            let limit = match client.state {
                State::Open => limits.client_idle_timeout,
                State::Ended | State::Finishing => {
                    Some(limits.client_idle_timeout.map_or(FINISH_MAX, |limit| limit.min(FINISH_MAX)))
                }
                State::Broken => return false,
            };
            if activity.swamped.is_some() && activity.is_swamped(limits, now) {
                counters.subscriber_output_exceeded.add(1);
                client.state = State::Broken;
                clients.touch(id);
                return false;
            }
            if limit.is_some_and(|limit| now.since(since) >= limit) {
                counters.client_timedout.add(1);
                client.state = State::Broken;
                clients.touch(id);
                return false;
            }
            if now.since(since) >= WEDGED_AFTER && !std::mem::replace(&mut activity.told, true) {
                counters.client_wedged.add(1);
                wishes.log(Notice::Wedged(id, activity.bytes()));
            }
            true
        });
        self.clients.keep_blocked(blocked);
    }

    /// Whether [`Self::sweep_connections`] may find something.
    pub fn has_extra_connections(&self) -> bool {
        let Router { connections, spare, .. } = &self.router;
        connections.lane_count() > 1 || !spare.is_empty() || !connections.has_no_pins()
    }

    /// Gives up connections for databases or protocol versions beside the usual ones, and of single clients, that nobody has
    /// used for long, those on which keys are watched included.
    pub fn sweep_connections(&mut self, now: Time) {
        self.router.sweep_spare(now);
        self.sweep_watches(now);
        self.ask_for_life_where_kept(now);
        let connections = &mut self.router.connections;
        let is_unused = |id: &ConnectionId| {
            let connection = &connections[*id];
            matches!(connection.link, Link::Up)
                && connection.is_quiet()
                && !self.caches.holds(*id)
                && now.since(connection.heard) >= EXTRA_CONNECTION_IDLE_MAX
        };
        let unused: Vec<ConnectionId> = connections.extra().filter(is_unused).collect();
        unused.into_iter().for_each(|id| connections.close(id, ShardFailure::Closed));
        connections.end_spent_lanes();
        connections.shrink();
        self.context.counters.lanes.set(self.router.connections.lane_count() as i64);
    }
}

/// A number below 1024 that spreads what must not happen to all clients at once.
pub(super) fn spread(client: u64, seed: u64) -> u64 {
    (client ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54
}
