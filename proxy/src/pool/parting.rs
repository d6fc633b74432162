//! Clients that go because we wish it: they are old or idle, take too long, or the process is shutting down.
//!
//! None of them is to lose a request. What was read is answered before the connection ends, and what has come and was not
//! read is for the worker to look for: it alone knows of that, so it has the last word ([`Pool::part_with`]).

use std::time::Duration;

use super::client::State;
use super::clients::ClientId;
use super::private::Ending;
use super::{Pool, deadlines};
use crate::protocol::Protocol;
use crate::time::Time;

/// A client that has asked for nothing for so long may be about to ask for something, but hardly at this moment. One that
/// asks more often goes with a reply.
const QUIET: Duration = Duration::from_secs(1);

/// Why a client goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parting {
    /// The pool is about to end.
    Drained,
    /// It asks for nothing.
    Idle,
    /// The request at hand does not come to its end.
    Unfinished,
    /// It is old.
    Aged,
}

impl<P: Protocol> Pool<P> {
    /// The client has closed its writing side. What was read is still answered.
    ///
    /// One whose request waits for data is gone, as to a server.
    pub fn client_ended(&mut self, client: ClientId) {
        if self.is_waiting(client) {
            return self.drop_wait(client);
        }
        self.end_client(client, State::Ended);
    }

    /// We want to end the connection once everything read is answered. A request that waits for data has waited long enough.
    pub fn part_with(&mut self, id: ClientId, why: Parting, now: Time) {
        if self.clients.get(id).is_some_and(|client| client.state == State::Open) {
            let counter = match why {
                Parting::Drained => &self.context.counters.client_drained,
                Parting::Idle | Parting::Unfinished => &self.context.counters.client_timedout,
                Parting::Aged => &self.context.counters.client_aged,
            };
            counter.add(1);
        }
        self.end_client(id, State::Finishing);
        self.end_wait(id, Ending::TimeOver, now);
    }

    /// Whether the client may go once its output is written, because nothing else is owed to it. Where clients go one
    /// after the other, it is among the first `share` of 1024.
    pub fn may_leave(&self, id: ClientId, share: u32) -> bool {
        let Some(client) = self.clients.get(id) else { return false };
        let Some(activity) = &client.activity else { return false };
        matches!(client.state, State::Open | State::Finishing)
            && deadlines::spread(client.id, self.context.identity.seed) < u64::from(share)
            && activity.replies.in_flight() == 0
            && !activity.replies.output.is_sent()
            && activity.rest.is_empty()
            && activity.block.is_none()
            && !activity.waits()
    }

    /// Whether nothing is owed to the client and it has asked for nothing for a while.
    pub fn is_quiet(&self, id: ClientId, now: Time) -> bool {
        self.clients
            .get(id)
            .is_some_and(|client| client.activity.is_none() && now.since(client.active) >= QUIET)
    }

    /// Adds those that do nothing, take too long or are old to `due`, with the reason. To be called about once a second
    /// where [`super::Limits::watches_clients`].
    pub fn sweep_clients(&self, now: Time, due: &mut Vec<(ClientId, Parting)>) {
        let limits = &self.context.limits;
        let passed =
            |limit: Option<Duration>, since: Time| limit.is_some_and(|limit| now.since(since) >= limit);
        for (id, client) in self.clients.iter() {
            if client.state != State::Open {
                continue;
            }
            let begun = client.activity.as_ref().and_then(|activity| activity.begun);
            // Those that do not take their replies are found by `sweep_blocked`.
            let idle = client
                .activity
                .as_ref()
                .is_none_or(|activity| activity.replies.is_empty() && !activity.waits());
            let age = limits.client_age_max.map(|age| aged(age, client.id, self.context.identity.seed));
            let why = if begun.is_some_and(|begun| passed(limits.client_request_timeout, begun)) {
                Parting::Unfinished
            } else if idle
                && passed(limits.client_idle_timeout, client.active)
                // It is there to listen.
                && !self.channels.listens(id)
            {
                Parting::Idle
            } else if passed(age, client.connected) {
                Parting::Aged
            } else {
                continue;
            };
            due.push((id, why));
        }
    }

    fn end_client(&mut self, id: ClientId, state: State) {
        let Some(client) = self.clients.touch(id) else { return };
        if client.state == State::Open {
            client.state = state;
        }
    }
}

/// Ages are spread over a tenth, so that clients that came together do not leave together.
fn aged(age: Duration, client: u64, seed: u64) -> Duration {
    age - age * deadlines::spread(client, seed) as u32 / 10_240
}
