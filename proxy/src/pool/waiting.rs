//! Requests that wait for data, each on a private connection: how their wait ends.
//!
//! A client whose request waits has nothing else in flight: what it sent before is answered by then, and what it sends after
//! that is read and kept, because the client's end may come behind it. The shard keeps the time. What ends a wait sooner:
//!
//! - The client is gone, or has closed its writing side: the connection is closed at once, or an element would be taken for
//!   nobody.
//! - CLIENT UNBLOCK, a drain, another topology: the shard is asked, on a shared connection, to end the wait, and says on
//!   the private one whether it has, or has given an element already. Nothing is lost between the two. It is asked again where it
//!   does not end the wait, for it may have heard of the end before the beginning. The number that it knows the private
//!   connection by is worth nothing to one that has restarted, so it is said only on a shared connection that was there already when the
//!   private one was last heard of, and goes down with that.
//! - The same, where the shard has not told that number, must not be asked, or does not do it in half of the time: the writing side of the
//!   private connection is closed. A server gives up what waits there as it reads that, and closes its side; what it has sent before that
//!   counts. This may lose an element: one that is taken in the same turn of the server's loop in which it reads the end is not
//!   sent any more. To close both sides at once would lose also what is on its way. Of streams nothing is lost (nothing is taken, or it is
//!   pending), nor of BLMOVE, whose element is in the other list. A shard that does not close its side in time is taken for lost.
//! - The shard itself, where it is a primary no more. Where it does that again and again there is a pause.
//!
//! A request that a node of a cluster has sent elsewhere, or that is put off, waits all the same ([`super::parked`]): it can be ended,
//! and one that was to end does not begin anew.
//!
//! Where the client is to go on waiting its request is put back in front of what waits of it, with the time that is left, and goes
//! where its keys belong by then.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Pool;
use super::client::{Activity, Pause, State};
use super::clients::{ClientId, Clients, find};
use super::connection::Link;
use super::connections::ConnectionId;
use super::context::Context;
use super::deadlines::spread;
use super::members::{MemberIndex, ShardIndex};
use super::parked::{Parked, Redirected};
use super::private::{EndRequests, Ending, Wait};
use super::router::Refusal;
use super::ticket::{Sender, Ticket};
use super::watch::Stage;
use super::wishes::Wish;
use crate::buffer::{Ahead, Piece};
use crate::failure::ShardFailure;
use crate::protocol::{Interruption, Protocol};
use crate::time::Time;

/// The pause before a shard is asked once more to end a wait; it doubles each time.
const UNBLOCK_AGAIN: Duration = Duration::from_millis(20);
/// The pause before a request is asked again whose wait its shard has ended before; it doubles so often.
const REPEAT_MIN: Duration = Duration::from_millis(20);
const REPEAT_DOUBLINGS: u8 = 7;
/// Ended for so long no more, the next time is the first.
const SET_BACK_MAX: Duration = Duration::from_secs(10);
/// How long a shard may take to end a wait, where its responses may take as long as they like.
const UNBLOCK_MAX: Duration = Duration::from_secs(1);

impl<P: Protocol> Pool<P> {
    /// Whether the client's request waits for data.
    pub fn is_waiting(&self, id: ClientId) -> bool {
        let is_at_one = |activity: &Activity<P>| self.router.connections.wait_of(activity).is_some();
        self.wide.get(id).is_some()
            || self.confirmations.has(id)
            || self.clients.activity(id).is_some_and(is_at_one)
    }

    /// The client will say nothing more, and hears nothing of what it waits for: nothing is to be taken for it.
    pub(super) fn drop_wait(&mut self, id: ClientId) {
        self.take_parked(id);
        self.drop_wide(id);
        let Some(client) = self.clients.touch(id) else { return };
        client.state = State::Ended;
        let Some(activity) = client.activity.as_mut() else { return };
        if let Some(at) = activity.private.take() {
            self.router.abandon_private(at);
        }
        activity.replies.cut();
        activity.ahead = Ahead::default();
        activity.drop_requests();
    }

    /// The wait of the client's request ends before its time. False if it does not wait, or its wait ends already.
    pub(super) fn end_wait(&mut self, id: ClientId, ending: Ending, now: Time) -> bool {
        if self.wide.get(id).is_some() {
            return self.end_wide(id, ending);
        }
        if self.confirmations.has(id) {
            return self.end_confirming(id, ending);
        }
        let Some(activity) = self.clients.activity(id) else { return false };
        let (at, wait) = (activity.private, self.router.connections.wait_of(activity));
        let Some(wait) = wait.filter(Wait::goes_on) else { return false };
        let Some(at) = at else { return self.end_parked_wait(id, ending, now) };
        let connection = &mut self.router.connections[at];
        if connection.in_flight().is_empty() {
            return false;
        }
        let (is_unheard, from) = (connection.is_unheard(), connection.member);
        let private = connection.private.as_mut().expect("somebody waits on it");
        private.wait = Some(Wait { ending: Some(ending), ..wait });
        if is_unheard {
            // The request itself stands behind a prelude, if it has one.
            let ticket = connection.in_flight().iter().copied().find(|ticket| !ticket.is_prelude());
            let request = connection.newest_kept().unwrap_or_default();
            self.router.abandon_private(at);
            let Some(ticket) = ticket else { return false };
            let wait = Some(Wait { ending: Some(ending), ..wait });
            let reply = Bytes::new();
            self.interrupted(Redirected { from, deadline: None, ticket, request, reply, wait }, now);
            return true;
        }
        if wait.ending.is_some() {
            // It has been asked.
            return true;
        }
        let most = self.context.limits.timeout.unwrap_or(UNBLOCK_MAX);
        let asked = EndRequests { times: 0, again: now.plus(most / 2), until: now.plus(most) };
        private.wait = Some(Wait { ending: Some(ending), asked, ..wait });
        self.ask_to_end(at, now);
        true
    }

    /// The same, where its request waits for its next attempt.
    fn end_parked_wait(&mut self, id: ClientId, ending: Ending, now: Time) -> bool {
        if ending == Ending::Again {
            return false;
        }
        for Parked { mut redirected, .. } in self.take_parked(id) {
            redirected.wait = redirected.wait.map(|wait| Wait { ending: Some(ending), ..wait });
            self.interrupted(redirected, now);
        }
        true
    }

    /// The shard is asked to end the wait on the connection. It may hear of that before it has read what is to end: so it is asked
    /// again, until half of its time is over. Then, or where it cannot be asked, the writing side is closed. False once its time is
    /// over.
    pub(super) fn ask_to_end(&mut self, at: ConnectionId, now: Time) -> bool {
        let connections = &self.router.connections;
        let connection = &connections[at];
        let Some(since) = connection.in_flight().front().map(|ticket| ticket.since) else { return false };
        let Some(private) = &connection.private else { return false };
        let Some(wait @ Wait { ending: Some(ending), asked, .. }) = private.wait else { return false };
        if asked.until <= now {
            return false;
        }
        // What came to be there since may have other numbers.
        let is_fit = |id: &ConnectionId| connections[*id].is_older_than(connection);
        let shared = { connections.of_member(connection.member).find(is_fit) };
        let (peer, is_finished) = (private.peer.zip(shared), private.finished);
        let next = match peer.filter(|_| now < asked.again && !is_finished) {
            Some((peer, shared)) => {
                let mut request = Vec::new();
                P::unblock(peer, ending != Ending::TimeOver, &mut request);
                // There are few for each who waits, so it needs no room.
                self.router.submit(shared, Ticket::asker(at, now), Piece::Copied(&request), now);
                now.plus(UNBLOCK_AGAIN * (1 << asked.times.min(10))).min(asked.again)
            }
            None => {
                self.finish_private(at);
                asked.until
            }
        };
        let connection = &mut self.router.connections[at];
        connection.policy.timeout = Some(next.since(since));
        self.router.deadline = Some(self.router.deadline.map_or(next, |earliest| earliest.min(next)));
        if let Some(private) = connection.private.as_mut() {
            private.asked += u32::from(!private.finished);
            private.wait = Some(Wait { asked: EndRequests { times: asked.times + 1, ..asked }, ..wait });
        }
        true
    }

    /// Nothing more is said on the connection: a shard gives up what waits there, unless it has given something already.
    fn finish_private(&mut self, at: ConnectionId) {
        let Some(private) = self.router.connections[at].private.as_mut() else { return };
        private.is_tainted = true;
        if !std::mem::replace(&mut private.finished, true) {
            self.wishes.add(Wish::Finish(at));
        }
    }

    /// Shards have said something to requests to end a wait.
    pub(super) fn settle_askers(&mut self, now: Time) {
        for (at, is_refused) in std::mem::take(&mut self.redirects.heard) {
            self.router.heard_of_private(at, false);
            if !is_refused {
                continue;
            }
            // Asking again is of no use.
            let Some(connection) = self.router.connections.get_mut(at) else { continue };
            if let Some(wait) = connection.private.as_mut().and_then(|private| private.wait.as_mut())
                && wait.ending.is_some()
            {
                wait.asked.again = now;
                self.ask_to_end(at, now);
            }
        }
    }

    /// Waits end, as if their time were over, of those clients that are among the first `share` of 1024.
    pub fn end_waits(&mut self, share: u32, now: Time) {
        let seed = self.context.identity.seed;
        let waiting = self.router.connections.iter().filter_map(|connection| connection.private.as_ref());
        let holders = waiting.filter_map(|private| private.wait.and(private.holder));
        let is_meant = |id: &ClientId| {
            self.clients.get(*id).is_some_and(|client| spread(client.id, seed) < u64::from(share))
        };
        let holders = holders
            .chain(self.redirects.parked_clients())
            .chain(self.wide.clients())
            .chain(self.confirmations.clients());
        let meant: Vec<ClientId> = holders.filter(is_meant).collect();
        meant.into_iter().for_each(|id| {
            self.end_wait(id, Ending::TimeOver, now);
        });
    }

    /// Another topology: whose keys have another owner by it waits there, or watches them no more, and what nobody has of shards that
    /// are gone is closed.
    pub(super) fn move_waits(&mut self, now: Time) {
        for at in self.router.connections.find(|connection| connection.private.is_some()) {
            if let Some(watch) = self.router.connections[at].watch_mut() {
                watch.topology_changed();
            }
            let connection = &self.router.connections[at];
            let is_present = self.router.members[connection.member].is_present();
            let Some(private) = &connection.private else { continue };
            match private.holder {
                // What is in flight there is of clients that have it no more.
                None if !is_present && connection.in_flight().is_empty() => self.router.close_private(at),
                Some(client) if private.wait.is_some() && !(is_present && self.is_home(at)) => {
                    self.end_wait(client, Ending::Again, now);
                }
                Some(client) if self.stage_of_watch(at) == Some(Stage::Held) && !self.owns_watched(at) => {
                    self.lose_watch(at, Some(client), now);
                }
                _ => {}
            }
        }
    }

    /// Whether the shard owns all keys of the request that waits on the connection.
    fn is_home(&self, at: ConnectionId) -> bool {
        let connection = &self.router.connections[at];
        let topology = &self.router.topology;
        let is_own = |shard| self.router.members.of(ShardIndex(shard)) == connection.member;
        if topology.redirects() {
            // A node that is asked before its turn says so itself.
            let ticket = connection.in_flight().back();
            return ticket.and_then(|ticket| topology.owner_of_slot(ticket.slot)).is_some_and(is_own);
        }
        let (request, mut keys) = (connection.newest_kept().unwrap_or_default(), Vec::new());
        P::keys_of(&request, &mut keys);
        let mut homes =
            keys.into_iter().map(|(start, length)| topology.home_of(&request[start..start + length]));
        homes.all(|home| home.is_some_and(|home| is_own(home.shard)))
    }

    /// Something has come on a private connection, or its handshake is over.
    pub(super) fn settle_private(&mut self, at: ConnectionId, was_up: bool, now: Time) {
        let connection = &self.router.connections[at];
        if !was_up && matches!(connection.link, Link::Up) {
            self.router.private_is_up(at, now);
        }
        let connection = &self.router.connections[at];
        let Some(private) = &connection.private else { return };
        let holder = private.holder;
        if let Some(watch) = &private.watch {
            return self.settle_watch(at, holder, watch.stage, now);
        }
        if !connection.in_flight().is_empty()
            || !(private.wait.is_some() || private.confirms.is_some() || private.is_cleared)
        {
            return;
        }
        self.router.release_private(at);
        self.forget_private(holder, at);
    }

    /// The request has timed out on a private connection: nobody waits there any more.
    pub(super) fn lose_private(&mut self, at: ConnectionId) {
        let Some(private) =
            self.router.connections.get(at).and_then(|connection| connection.private.as_ref())
        else {
            return;
        };
        let (holder, stage) = (private.holder, self.stage_of_watch(at));
        self.router.abandon_private(at);
        self.forget_private(holder, at);
        if let Some(stage) = stage {
            self.watch_is_gone(holder, stage);
        }
    }

    /// The client waits on the connection no more.
    pub(super) fn forget_private(&mut self, holder: Option<ClientId>, at: ConnectionId) {
        if let Some(activity) = holder.and_then(|id| self.clients.activity_mut(id))
            && activity.private == Some(at)
        {
            // What it has sent meanwhile has waited for nobody but itself.
            (activity.private, activity.arrived) = (None, None);
        }
    }

    /// A node of a cluster has sent the request that would wait there elsewhere.
    pub(super) fn wait_elsewhere(
        &mut self,
        redirected: &Redirected<P>,
        wait: Wait,
        mut ticket: Ticket<P>,
        sender: Sender,
        member: MemberIndex,
        prelude: &[u8],
    ) {
        let now = sender.now;
        let left = wait.due.map(|due| due.since(now));
        let state = self.clients.get(sender.id).map_or(State::Broken, |client| client.state);
        if matches!(state, State::Ended | State::Broken) {
            return self.drop_wait(sender.id);
        }
        if left == Some(Duration::ZERO) || state == State::Finishing {
            let wait = Some(Wait { ending: Some(Ending::TimeOver), ..wait });
            let (from, request, reply) = (redirected.from, Bytes::new(), Bytes::new());
            return self.interrupted(Redirected { from, deadline: None, ticket, request, reply, wait }, now);
        }
        let mut request = Vec::new();
        if !P::wait_again(&redirected.request, left, &mut request) {
            request.extend_from_slice(&redirected.request);
        }
        let at = match self.router.take_private(sender, member, &self.context) {
            Ok(at) => at,
            Err(Refusal::Failed(_, failure)) => return self.fail(ticket, member, &failure),
            Err(Refusal::Occupied(member)) => {
                self.context.counters.refused.add(1);
                let words = occupied(&self.context, &self.router.members[member].name);
                return self.refuse_wait(&ticket, &words);
            }
            Err(_) => return self.fail(ticket, member, &ShardFailure::QueueFull),
        };
        self.router.begin_wait(at, left, self.context.limits.timeout, now);
        (ticket.since, ticket.asks) = (now, !prelude.is_empty());
        if ticket.asks {
            self.router.submit(at, Ticket::prelude(now), Piece::Copied(prelude), now);
        }
        self.router.submit(at, ticket, Piece::Copied(&request), now);
        if let Some(client) = self.clients.touch(sender.id)
            && let Some(activity) = client.activity.as_mut()
        {
            activity.private = Some(at);
            activity.paused = Some(Pause::UntilQuiet);
        }
    }

    /// Waits that have ended before their time.
    pub(super) fn settle_interrupted(&mut self, now: Time) {
        for interrupted in std::mem::take(&mut self.redirects.interrupted) {
            self.interrupted(interrupted, now);
        }
    }

    /// The wait has ended before its time. Its client is told so, or goes on waiting: at once, and after a pause where its shard
    /// ends it again and again.
    pub(super) fn interrupted(&mut self, redirected: Redirected<P>, now: Time) {
        let Some(id) = redirected.ticket.client() else { return };
        if P::interruption(&redirected.reply) == Some(Interruption::Changed)
            && redirected.wait.is_some_and(|wait| wait.goes_on())
            && let Some(client) = self.clients.get_mut(id)
            && client.state == State::Open
            && let Some(activity) = client.activity.as_mut()
        {
            let (times, last) = activity.set_back;
            let times = if now.since(last) < SET_BACK_MAX { times } else { 0 };
            activity.set_back = (times.saturating_add(1), now);
            if times > 0 {
                let pause = REPEAT_MIN * (1 << (times - 1).min(REPEAT_DOUBLINGS));
                return self.park_until(redirected, now.plus(pause), now);
            }
        }
        self.wait_on(redirected, now);
    }

    /// The client goes on waiting, where its keys belong by now, unless it is not to or its time is over.
    pub(super) fn wait_on(&mut self, redirected: Redirected<P>, now: Time) {
        let Redirected { ticket, request, wait: Some(wait), reply, .. } = redirected else { return };
        let Some(id) = ticket.client() else { return };
        let is_over = wait.due.is_some_and(|due| due <= now);
        let ending = match wait.ending {
            Some(Ending::Again) | None if is_over => Ending::TimeOver,
            ending => ending.unwrap_or(Ending::Again),
        };
        let left = wait.due.map(|due| due.since(now));
        let mut again = Vec::new();
        if ending == Ending::Again && P::wait_again(&request, left, &mut again) && self.take_again(id, &again)
        {
            let is_changed = P::interruption(&reply) == Some(Interruption::Changed);
            self.context.counters.blocked_repeated.add(u64::from(is_changed));
            return;
        }
        let Some(client) = self.clients.touch(id) else { return };
        let lane = self.router.connections.lane_key(client.lane);
        let mut words = Vec::new();
        match ending {
            Ending::TimeOver => P::nothing_came(lane, &mut words),
            Ending::Error => P::unblocked(&mut words),
            // It would mean something else by now: its client decides.
            Ending::Again if reply.is_empty() => P::nothing_came(lane, &mut words),
            Ending::Again => words.extend_from_slice(&reply),
        }
        let Some(activity) = client.activity.as_mut() else { return };
        (activity.private, activity.arrived) = (None, None);
        activity.replies.answer(ticket.number, ticket.fragment, Piece::Copied(&words), true);
    }

    /// The request is refused, in these words.
    fn refuse_wait(&mut self, ticket: &Ticket<P>, words: &str) {
        let Some(client) = ticket.client().and_then(|id| self.clients.touch(id)) else { return };
        let Some(activity) = client.activity.as_mut() else { return };
        let mut reply = Vec::new();
        P::failure(activity.replies.manner(ticket.number), words, &mut reply);
        activity.replies.answer(ticket.number, ticket.fragment, Piece::Copied(&reply), true);
    }

    /// The client's request is taken once more, before all that it has sent after it. False if it is to go.
    fn take_again(&mut self, id: ClientId, request: &[u8]) -> bool {
        let Clients { table, dirty, .. } = &mut self.clients;
        let Some(client) = find(table, id) else { return true };
        let is_open = client.state == State::Open;
        let Some(activity) = client.activity.as_mut() else { return true };
        if !is_open || !activity.replies.withdraw() {
            return false;
        }
        let mut rest = BytesMut::new();
        activity.rest.take(&mut rest);
        let mut scratch = BytesMut::with_capacity(request.len() + rest.len());
        scratch.extend_from_slice(request);
        scratch.extend_from_slice(&rest);
        activity.rest.keep(&mut scratch, 0);
        (activity.private, activity.arrived) = (None, None);
        activity.paused = Some(Pause::Turn);
        dirty.mark(client, id.index);
        self.clients.resume(id);
        true
    }
}

/// Why one more client may not wait at the shard; counted.
pub(super) fn occupied<P: Protocol>(context: &Context<P>, shard: &str) -> String {
    context.counters.blocked_refused.add(1);
    let max = context.limits.blocked_max;
    format!("shard {shard}: {max} clients wait for data or watch keys there already (blocked_max)")
}

/// Whether what a shard says of a wait that has ended is for its client, or the client goes on waiting elsewhere.
pub(super) fn is_for_us(interruption: Interruption, ending: Option<Ending>) -> bool {
    match (interruption, ending) {
        // Once it was to wait elsewhere, whatever it is to do now.
        (Interruption::Asked, Some(Ending::Again | Ending::TimeOver)) => true,
        // Somebody else's asking is as good as that of another client.
        (Interruption::Asked, Some(Ending::Error) | None) => false,
        (Interruption::Changed, _) => true,
    }
}
