//! How clients take connections to themselves, and how they are given back: see [`super::private`].

use std::time::Duration;

use super::ClientId;
use super::client::Activity;
use super::connection::{Admission, Link};
use super::connections::{ConnectionId, Connections};
use super::context::Context;
use super::members::MemberIndex;
use super::policy::Policy;
use super::private::{Private, Wait, Was};
use super::router::{Refusal, Router};
use super::ticket::Sender;
use crate::failure::ShardFailure;
use crate::metrics::ShardCounters;
use crate::protocol::Protocol;
use crate::time::Time;

/// How long a connection is kept that nobody has.
pub const SPARE_MAX: Duration = Duration::from_secs(10);
/// The pause after a connection could not be made, before one is tried again. A request is refused at once meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

impl<P: Protocol> Connections<P> {
    /// One more that no lane has, for the client.
    fn add_private(
        &mut self,
        member: MemberIndex,
        lane: P::Lane,
        holder: ClientId,
        policy: Policy,
        follows: bool,
    ) -> ConnectionId {
        let private = Private {
            holder: Some(holder),
            peer: None,
            is_tainted: false,
            follows,
            wait: None,
            is_spare: false,
        };
        // What is asked on it may have to be asked again.
        let id = self.insert(member, lane, policy, true);
        self[id].private = Some(Box::new(private));
        self.connect(id);
        id
    }
}

impl<P: Protocol> Connections<P> {
    /// For how long the client's request waits for data, if it does: at a shard, or for its next attempt.
    pub fn wait_of(&self, activity: &Activity<P>) -> Option<Wait> {
        match activity.private {
            Some(at) => self.get(at)?.private.as_ref()?.wait,
            None => activity.parked.as_ref()?.wait(),
        }
    }
}

impl<P: Protocol> Router<P> {
    /// A connection to the shard that the client has to itself from now on: a warm one, or one that is to be made.
    pub fn take_private(
        &mut self,
        sender: Sender,
        member: MemberIndex,
        context: &Context<P>,
    ) -> Result<ConnectionId, Refusal> {
        let (limits, now) = (&context.limits, sender.now);
        let lane = self.connections.lane_key(sender.lane);
        // Whether the shard is there the shared connection knows; what is done beside it needs that one, too.
        let shared = self.connection(sender, member);
        match self.connections[shared].admission(0, limits, now) {
            Admission::Open | Admission::Full | Admission::Crowded => {}
            Admission::Connect => self.connections.connect(shared),
            Admission::Probe(failure) => {
                self.connections.connect_after(shared, Some(failure.clone()));
                return Err(Refusal::Failed(shared, failure));
            }
            Admission::Down(failure) => return Err(Refusal::Failed(shared, failure)),
        }
        let place = self.members.present().iter().position(|&present| present == member);
        let held =
            place.map_or(0, |shard| context.counters.sum_shard(shard, |shard| shard.private_held.get()));
        if held >= limits.blocked_max as i64 {
            return Err(Refusal::Occupied(member));
        }
        let id = match self.spare.take(member, lane) {
            Some(id) => {
                let connection = &mut self.connections[id];
                connection.policy = Policy::private(limits.timeout);
                let private = connection.private.as_mut().expect("it is spare");
                (private.is_spare, private.holder) = (false, Some(sender.id));
                id
            }
            None => {
                let known = &self.members[member];
                if let Some((until, failure)) = &known.private_down
                    && now < *until
                {
                    return Err(Refusal::Failed(shared, failure.clone()));
                }
                let keeps = known.keeps;
                if known.privates - known.privates_closing >= limits.blocked_max {
                    // One for another database makes room. Those that are being made for clients that have gone do not.
                    match self.spare.any_of(member) {
                        Some(spare) => self.close_private(spare),
                        None => return Err(Refusal::Occupied(member)),
                    }
                }
                self.members[member].privates += 1;
                self.members[member].counters.private_connections.add(1);
                let policy = Policy::private(limits.timeout);
                self.connections.add_private(member, lane, sender.id, policy, keeps)
            }
        };
        self.members[member].counters.private_held.add(1);
        Ok(id)
    }

    /// The request on the connection waits for data, for so long as its client says.
    pub fn begin_wait(
        &mut self,
        id: ConnectionId,
        patience: Option<Duration>,
        slack: Option<Duration>,
        now: Time,
    ) {
        let connection = &mut self.connections[id];
        let is_up = matches!(connection.link, Link::Up);
        let due = patience.map(|patience| now.plus(patience));
        let private = connection.private.as_mut().expect("it is a client's own");
        private.wait = Some(Wait { patience, due, ending: None, asked: (0, now) });
        connection.policy.timeout = if is_up { guard(patience, slack) } else { slack };
        self.members[connection.member].counters.blocked_clients.add(1);
    }

    /// The client has done with the connection: the next one may have it if it is clean.
    pub fn release_private(&mut self, id: ConnectionId) {
        self.unhold(id);
        let connection = &mut self.connections[id];
        let is_present = self.members[connection.member].is_present();
        if is_present && connection.is_clean() {
            let (member, lane) = (connection.member, connection.lane);
            let private = connection.private.as_mut().expect("it was held");
            if !std::mem::replace(&mut private.is_spare, true) {
                self.spare.lists.entry((member, lane)).or_default().push_back(id);
            }
        } else {
            self.close_private(id);
        }
    }

    /// The client is gone. What it asked and the shard has not heard yet is dropped; if it has heard of it, the connection is
    /// closed at once, so that nothing more is done for nobody.
    pub fn abandon_private(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let is_unheard = connection.is_unheard();
        connection.forsake(|_| true);
        if is_unheard {
            if matches!(connection.link, Link::Up) {
                return self.release_private(id);
            }
            // Once it is made it is spare.
            self.unhold(id);
        } else {
            self.unhold(id);
            self.close_private(id);
        }
    }

    /// Nobody has it any more.
    fn unhold(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id];
        let Some(private) = connection.private.as_mut() else { return };
        let counters = &self.members[connection.member].counters;
        if private.holder.take().is_some() {
            counters.private_held.add(-1);
        }
        if private.wait.take().is_some() {
            counters.blocked_clients.add(-1);
        }
    }

    /// It is closed as soon as that can be, and nothing more is begun on it.
    pub fn close_private(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id];
        let (member, lane) = (connection.member, connection.lane);
        let is_first = !std::mem::replace(&mut connection.closing, true);
        // One that is being made is closed once it is there.
        let is_made = connection.is_made();
        let private = connection.private.as_mut().expect("it is a client's own");
        if std::mem::take(&mut private.is_spare) {
            self.spare.remove(member, lane, id);
        }
        if is_first {
            self.members[member].privates_closing += 1;
            if is_made {
                self.connections.close(id, ShardFailure::Removed);
            }
        }
    }

    /// Its handshake is over: what is asked on it is sent from now on.
    pub fn private_is_up(&mut self, id: ConnectionId, now: Time) {
        let connection = &mut self.connections[id];
        let slack = connection.policy.timeout;
        let since = connection.in_flight().front().map(|ticket| ticket.since);
        let Some(private) = connection.private.as_mut() else { return };
        if let Some(wait) = &mut private.wait {
            // Its time begins as the shard hears of it.
            wait.due = wait.patience.map(|patience| now.plus(patience));
            let waited = since.map_or(Duration::ZERO, |since| now.since(since));
            connection.policy.timeout = guard(wait.patience, slack).map(|guard| guard + waited);
        }
        let is_nobodys = private.holder.is_none() && !private.is_spare;
        if is_nobodys {
            self.release_private(id);
        }
    }

    /// The connection is lost or was not made: it leaves the book. Returns the client that had it.
    pub fn private_is_closed(
        &mut self,
        id: ConnectionId,
        failure: &ShardFailure,
        was: Was,
        now: Time,
    ) -> Option<ClientId> {
        let connection = &mut self.connections[id];
        let (member, lane) = (connection.member, connection.lane);
        let private = connection.private.as_mut().expect("it is a client's own");
        let holder = private.holder;
        if std::mem::take(&mut private.is_spare) {
            self.spare.remove(member, lane, id);
        }
        self.unhold(id);
        self.connections.remove([id]);
        let member = &mut self.members[member];
        member.privates -= 1;
        member.privates_closing -= usize::from(was.closing);
        member.counters.private_connections.add(-1);
        if !was.up && *failure != ShardFailure::Removed {
            member.private_down = Some((now.plus(PAUSE), failure.clone()));
        }
        holder
    }

    /// Those that nobody has had for long are closed.
    pub fn sweep_spare(&mut self, now: Time) {
        let is_old = |id: &ConnectionId| now.since(self.connections[*id].heard) >= SPARE_MAX;
        let all = self.spare.lists.values().flatten();
        let old: Vec<ConnectionId> = all.copied().filter(is_old).collect();
        old.into_iter().for_each(|id| self.close_private(id));
    }

    /// What is counted of the member's private connections is counted elsewhere from now on.
    pub fn count_privates_in(
        &mut self,
        member: MemberIndex,
        before: &ShardCounters,
        counters: &ShardCounters,
    ) {
        let of_member =
            self.connections.find(|connection| connection.private.is_some() && connection.member == member);
        for id in of_member {
            let private = self.connections[id].private.as_ref().expect("just seen");
            for (counters, sign) in [(before, -1), (counters, 1)] {
                counters.private_connections.add(sign);
                counters.private_held.add(sign * i64::from(private.holder.is_some()));
                counters.blocked_clients.add(sign * i64::from(private.wait.is_some()));
            }
        }
    }
}

/// By when a shard has to have answered that was told to wait for so long: what it says itself may take as long as any response.
fn guard(patience: Option<Duration>, slack: Option<Duration>) -> Option<Duration> {
    Some(patience?.saturating_add(slack?))
}
