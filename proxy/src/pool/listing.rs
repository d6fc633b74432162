//! All clients looked at together: this pool's part of a listing, the answers, and who is not to stay.

use std::fmt::Display;
use std::ops::Range;

use super::Pool;
use super::client::State;
use super::clients::{ClientId, Clients};
use super::private::Ending;
use super::watch::Watch;
use crate::buffer::Output;
use crate::protocol::{ClientRow, Deed, Found, Protocol, Question, Rows};
use crate::time::Time;

/// A question of a client to the whole process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskedQuestion {
    /// Who asks.
    pub client: ClientId,
    /// Its unique number.
    pub asker: u64,
    /// Number of the request.
    pub number: u32,
    /// What.
    pub question: Question,
}

impl<P: Protocol> Pool<P> {
    /// Looks at the clients at these places and adds those that the question means to `rows`; they are disconnected if it
    /// says so, the one that `asked` after its reply. `ends` tells a client's addresses: the peer's, then our own. False
    /// once there are no more places.
    pub fn list_clients<A: Display>(
        &mut self,
        question: &Question,
        asker: u64,
        places: Range<usize>,
        now: Time,
        ends: impl Fn(ClientId) -> Option<[A; 2]>,
        rows: &mut Rows,
    ) -> bool {
        let Clients { table, dirty, .. } = &mut self.clients;
        let connections = &self.router.connections;
        let watched_by = |lane: u32| {
            let pinned = connections.pin_of(lane).and_then(|pin| connections.get(pin.connection));
            let watch = pinned.and_then(|connection| connection.private.as_ref()?.watch.as_ref());
            watch.map_or(0, Watch::count)
        };
        let mut unblocked = Vec::new();
        let (channels, wide, confirmations) = (&self.channels, &self.wide, &self.confirmations);
        let all = table.places();
        for index in places.start..places.end.min(all) {
            let Some(client) = table.get_mut(index) else { continue };
            let id = ClientId { index: index as u32, generation: client.generation };
            let Some([address, local_address]) = ends(id) else { continue };
            let activity = client.activity.as_ref();
            let is_blocked = wide.goes_on(id)
                || confirmations.has(id)
                || activity
                    .and_then(|activity| connections.wait_of(activity))
                    .is_some_and(|wait| wait.goes_on());
            let at_one = || connections.get(activity?.private?)?.newest_kept();
            let waits = || wide.get(id).map(|wait| wait.request.clone()).or_else(at_one);
            let row = ClientRow {
                id: client.id,
                user: P::user(&client.session),
                address: &address,
                local_address: &local_address,
                age: now.since(client.connected).as_secs(),
                idle: now.since(client.active).as_secs(),
                in_flight: activity.map_or(0, |activity| activity.replies.in_flight()),
                queued: activity.and_then(|activity| activity.block.as_ref()).map_or(0, |block| block.len()),
                watched: watched_by(client.lane),
                input_bytes: activity.map_or(0, |activity| activity.rest.len()),
                output_bytes: activity.map_or(0, |activity| activity.replies.bytes()),
                is_blocked,
                waits: is_blocked.then(waits).flatten(),
                asks: (client.id == asker).then_some(question.form),
                listens: channels.count_of(id),
            };
            let is_unblocked = matches!(question.deed, Deed::Unblock { .. });
            if !question.filter.matches(&row) || (is_unblocked && !row.is_blocked) {
                continue;
            }
            let session = &client.session;
            rows.push(row.id, |line| {
                if question.deed == Deed::List {
                    P::list(&row, session, line)
                }
            });
            if is_unblocked {
                unblocked.push(id);
            }
            if question.deed == Deed::Receive {
                self.caches.forwarding.receives(client.id, id);
            }
            if question.deed == Deed::Kill {
                if matches!(client.state, State::Open | State::Ended) {
                    self.context.counters.client_killed.add(1);
                }
                client.state = if client.id == asker { State::Finishing } else { State::Broken };
                dirty.mark(client, id.index);
            }
        }
        if let Deed::Unblock { with_error } = question.deed {
            let ending = if with_error { Ending::Error } else { Ending::TimeOver };
            unblocked.into_iter().for_each(|id| {
                self.end_wait(id, ending, now);
            });
        }
        places.end < all
    }

    /// The process has answered a client's question.
    pub fn answer_question(&mut self, asked: &AskedQuestion, found: &Found) {
        let Some(client) = self.clients.touch(asked.client) else { return };
        if asked.question.deed == Deed::Receive {
            P::found(&mut client.session, &asked.question, Ok(found));
            return self.clients.resume(asked.client);
        }
        let mut reply = Output::default();
        P::answer(&asked.question, &client.session, &self.context.settings, found, &mut reply);
        // One that had to go has nothing in flight any more.
        if let Some(activity) = client.activity.as_mut()
            && activity.replies.has(asked.number)
        {
            activity.replies.answer_whole(asked.number, reply);
        }
    }

    /// The process has no answer to a client's question, for this reason.
    pub fn refuse_question(&mut self, asked: &AskedQuestion, reason: &str) {
        let Some(client) = self.clients.touch(asked.client) else { return };
        if asked.question.deed == Deed::Receive {
            P::found(&mut client.session, &asked.question, Err(reason));
            return self.clients.resume(asked.client);
        }
        if let Some(activity) = client.activity.as_mut()
            && activity.replies.has(asked.number)
        {
            let mut reply = Output::default();
            P::failure(activity.replies.manner(asked.number), reason, reply.tail());
            activity.replies.answer_whole(asked.number, reply);
        }
    }
}
