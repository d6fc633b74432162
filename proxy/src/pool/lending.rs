//! How clients take connections to themselves, and how they are given back: see [`super::private`].

use std::time::Duration;

use super::ClientId;
use super::client::Activity;
use super::connection::{Admission, Link};
use super::connections::{ConnectionId, Connections};
use super::context::Context;
use super::members::MemberIndex;
use super::policy::Policy;
use super::private::{Confirms, EndRequests, Private, Wait, Was};
use super::router::{Refusal, Router};
use super::ticket::{Sender, Ticket};
use super::watch::Watch;
use crate::buffer::Piece;
use crate::failure::ShardFailure;
use crate::metrics::ShardCounters;
use crate::protocol::Protocol;
use crate::time::Time;

/// How long a connection is kept that nobody has.
pub const SPARE_MAX: Duration = Duration::from_secs(10);
/// The pause after a connection could not be made, before one is tried again. A request is refused at once meanwhile.
const PAUSE: Duration = Duration::from_millis(50);
/// So many connections to a shard that are being cleared are there beside those that clients may have: who ends with one and begins
/// with the next at once does not stand in its own way.
pub const CLEARED_MAX: usize = 16;

impl<P: Protocol> Connections<P> {
    /// One more that no lane has, for the client: it is about to be made.
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
            asked: 0,
            finished: false,
            follows,
            wait: None,
            confirms: None,
            watch: None,
            is_spare: false,
            is_cleared: false,
        };
        // What is asked on it may have to be asked again.
        let id = self.insert(member, lane, policy, true);
        let connection = &mut self[id];
        connection.private = Some(Box::new(private));
        connection.link = Link::Connecting { after: None };
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
        // What is read there its client is not told of: it is not to keep it.
        let (is_told, lane) = (P::is_told(lane), P::untold_lane(lane));
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
        let held = place.map_or(0, |shard| {
            context.counters.sum_shard(shard, |shard| shard.private_held.get() + shard.wide_clients.get())
        });
        if held >= limits.blocked_max as i64 {
            return Err(Refusal::Occupied(member));
        }
        let known = &self.members[member];
        let passing = known.privates_closing + known.privates_cleared.min(CLEARED_MAX);
        let is_full = known.privates - passing >= limits.blocked_max;
        let mut spare = self.spare.take(member, lane, &self.connections);
        if spare.is_none() && is_full {
            // If it were closed, it would be there until its turn to be made had come, and one more would be put off.
            spare = self.spare.take_unmade(member, &self.connections);
        }
        let id = match spare {
            Some(id) => {
                let connection = &mut self.connections[id];
                connection.lane = lane;
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
                if is_full {
                    // One for another database makes room.
                    match self.spare.any_of(member) {
                        Some(spare) => self.close_private(spare),
                        None => return Err(Refusal::Occupied(member)),
                    }
                }
                self.members[member].privates += 1;
                self.members[member].counters.private_connections.add(1);
                let policy = Policy::private(limits.timeout);
                let id = self.connections.add_private(member, lane, sender.id, policy, keeps);
                match self.pace.put_off(id, &mut self.members[member].pace, limits.blocked_max, now) {
                    true => context.counters.blocked_delayed.add(1),
                    false => self.connections.connect(id),
                }
                id
            }
        };
        self.connections[id].keep_nothing(is_told);
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
        private.wait = Some(Wait { patience, due, ending: None, asked: EndRequests::default() });
        connection.policy.timeout = if is_up { guard(patience, slack) } else { slack };
        self.members[connection.member].counters.blocked_clients.add(1);
    }

    /// The shard is asked there what replicas have, and waits for them for so long.
    pub fn begin_confirming(
        &mut self,
        id: ConnectionId,
        patience: Option<Duration>,
        slack: Option<Duration>,
    ) {
        let connection = &mut self.connections[id];
        let is_up = matches!(connection.link, Link::Up);
        connection.private.as_mut().expect("it is a client's own").confirms = Some(Confirms { patience });
        connection.policy.timeout = if is_up { guard(patience, slack) } else { slack };
    }

    /// Keys are watched on the connection from now on.
    pub fn begin_watch(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id];
        let private = connection.private.as_mut().expect("it is a client's own");
        private.watch = Some(Watch::new());
        self.members[connection.member].counters.watching_clients.add(1);
    }

    /// The client has done with the connection, on which keys are watched still: the shard is told that they are watched no more,
    /// behind what is in flight there, and once it has said so the next one may have the connection.
    pub fn clear_private(&mut self, id: ConnectionId, now: Time) {
        self.unhold(id);
        let connection = &mut self.connections[id];
        let member = connection.member;
        if !matches!(connection.link, Link::Up) || connection.closing {
            return self.close_private(id);
        }
        if !self.members[member].is_present() && connection.in_flight().is_empty() {
            return self.close_private(id);
        }
        connection.private.as_mut().expect("it was held").is_cleared = true;
        self.members[member].privates_cleared += 1;
        let mut request = Vec::new();
        P::unwatch(&mut request);
        self.submit(id, Ticket::prelude(now), Piece::Copied(&request), now);
    }

    /// The client has done with the connection: the next one may have it if it is clean.
    pub fn release_private(&mut self, id: ConnectionId) {
        self.unhold(id);
        self.is_cleared(id);
        let connection = &mut self.connections[id];
        let is_present = self.members[connection.member].is_present();
        if is_present && connection.is_clean() { self.keep_private(id) } else { self.close_private(id) }
    }

    /// The next client may have it.
    fn keep_private(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id];
        let (member, lane) = (connection.member, connection.lane);
        let private = connection.private.as_mut().expect("it is a client's own");
        if !std::mem::replace(&mut private.is_spare, true) {
            self.spare.lists.entry((member, lane)).or_default().push_back(id);
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
                let watches = connection.watch_mut().is_some();
                if watches {
                    self.unhold(id);
                    return self.close_private(id);
                }
                return self.release_private(id);
            }
            let is_wanted = !connection.closing && self.members[connection.member].is_present();
            self.unhold(id);
            // It is for whoever comes next, or for nobody.
            if is_wanted { self.keep_private(id) } else { self.close_private(id) }
        } else {
            self.unhold(id);
            self.close_private(id);
        }
    }

    /// The same, where keys may be watched on it. If the shard owes nothing it is cleared for the next client.
    pub fn abandon_watch(&mut self, id: ConnectionId, now: Time) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if matches!(connection.link, Link::Up) && connection.is_unheard() {
            connection.forsake(|_| true);
            self.clear_private(id, now);
        } else {
            self.abandon_private(id);
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
        private.confirms = None;
        if private.wait.take().is_some() {
            counters.blocked_clients.add(-1);
        }
        if private.watch.take().is_some() {
            counters.watching_clients.add(-1);
        }
    }

    /// It is not cleared any more, if it was: that is over.
    fn is_cleared(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id];
        if let Some(private) = &mut connection.private
            && std::mem::take(&mut private.is_cleared)
        {
            self.members[connection.member].privates_cleared -= 1;
        }
    }

    /// It is closed as soon as that can be, and nothing more is begun on it.
    pub fn close_private(&mut self, id: ConnectionId) {
        self.is_cleared(id);
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

    /// What is made is closed, whoever has it, and nothing that somebody waits for is begun on it. A client's own is counted as it goes:
    /// another one may be there in its place.
    pub fn give_up(&mut self, id: ConnectionId) {
        if self.connections[id].private.is_some() {
            return self.close_private(id);
        }
        self.connections[id].closing = true;
        self.connections.close(id, ShardFailure::Removed);
    }

    /// Its handshake is over: what is asked on it is sent from now on.
    pub fn private_is_up(&mut self, id: ConnectionId, now: Time) {
        let connection = &mut self.connections[id];
        let slack = connection.policy.timeout;
        let since = connection.in_flight().front().map(|ticket| ticket.since);
        let Some(private) = connection.private.as_mut() else { return };
        let patience = match (&mut private.wait, private.confirms) {
            // Its time begins as the shard hears of it.
            (Some(wait), _) => {
                wait.due = wait.patience.map(|patience| now.plus(patience));
                Some(wait.patience)
            }
            (None, confirms) => confirms.map(|confirms| confirms.patience),
        };
        if let Some(patience) = patience {
            let waited = since.map_or(Duration::ZERO, |since| now.since(since));
            connection.policy.timeout = guard(patience, slack).map(|guard| guard + waited);
        }
        let is_nobodys = private.holder.is_none() && !private.is_spare && !private.is_cleared;
        if is_nobodys {
            self.release_private(id);
        }
    }

    /// A shard has said something to a request to end a wait on the connection, or will not any more, which `is_lost` says.
    pub fn heard_of_private(&mut self, id: ConnectionId, is_lost: bool) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(private) = connection.private.as_mut() else { return };
        private.asked -= 1;
        private.is_tainted |= is_lost;
        if is_lost && private.is_spare {
            self.close_private(id);
        }
    }

    /// Connections whose time has come are made. Returns those that nobody wants any more.
    pub fn make_put_off(&mut self, now: Time) -> Vec<ConnectionId> {
        let mut unwanted = Vec::new();
        while let Some(id) = self.pace.take_due(now) {
            match self.connections.get(id).map(|connection| connection.closing) {
                Some(true) => unwanted.push(id),
                Some(false) => self.connections.connect(id),
                None => {}
            }
        }
        unwanted
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
        self.is_cleared(id);
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
        let is_old = |id: &ConnectionId| {
            let connection = &self.connections[*id];
            // One that is being made is wanted soon, or will be old then.
            matches!(connection.link, Link::Up) && now.since(connection.heard) >= SPARE_MAX
        };
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
                counters.watching_clients.add(sign * i64::from(private.watch.is_some()));
            }
        }
    }
}

/// By when a shard has to have answered that was told to wait for so long: what it says itself may take as long as any response.
fn guard(patience: Option<Duration>, slack: Option<Duration>) -> Option<Duration> {
    Some(patience?.saturating_add(slack?))
}
