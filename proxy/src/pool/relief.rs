//! What happens where the process holds more than it may: what is kept only for the slow log goes first, then what nobody
//! waits for any more, then the client that holds most, with all that it has going on.
//!
//! What a client holds is what came of it and is not sent on, its requests in the queues of shards, its replies, and what its
//! transport holds, which whoever has the sockets is asked for. It is told why where that can be said: after complete replies that it is about to read.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::Pool;
use super::client::{Stall, State};
use super::clients::{ClientId, Clients, find};
use super::connections::ConnectionId;
use super::ticket::Ticket;
use super::wishes::Wish;
use crate::account::Share;
use crate::buffer::{Ahead, Rest};
use crate::protocol::{DecodeRequests, Protocol};

/// A client that has so many bytes of replies to read before would hardly come to hear why it goes.
const LAST_WORDS_MAX: usize = 64 * 1024;

impl<P: Protocol> Pool<P> {
    /// Whether more is held than may be, or another pool wants to know who holds most.
    #[inline]
    pub(super) fn is_asked_for_relief(&self) -> bool {
        self.share.is_asked()
    }

    /// The transports of clients hold so much, as it was wished to know.
    pub fn transports_hold(&mut self, transports: HashMap<ClientId, usize>) {
        self.transports = Some(transports);
    }

    /// The share that counts what its clients hold.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// As many clients go as are needed, those that hold most first.
    pub(super) fn relieve(&mut self) {
        if !self.share.is_asked() {
            return;
        }
        let transports = self.transports.take();
        if self.drop_trails() && !self.share.is_asked() {
            return;
        }
        if self.drop_orphans() {
            // Once those connections are closed it shows what is held still.
            return;
        }
        if transports.is_none() && self.share.has_aside() && self.share.is_asked() {
            // It goes on with that in this pass.
            self.wishes.add(Wish::Weigh);
            return;
        }
        let transports = transports.unwrap_or_default();
        while self.share.is_asked() {
            let mut holders = self.holders(&transports);
            let largest = holders.first().map_or(0, |&(_, bytes)| bytes);
            let mut wakes = Vec::new();
            let is_largest = self.share.bid(largest, &mut wakes);
            wakes.into_iter().for_each(|worker| self.wishes.add(Wish::Wake(worker)));
            if !is_largest || holders.is_empty() {
                return;
            }
            // Many that hold about the same go at once: looking for each of them anew would take longer than they need to
            // send as much again.
            let mut left = self.share.excess();
            let mut needed = 0;
            while needed < holders.len() && left > 0 && holders[needed].1 >= largest / 2 {
                left = left.saturating_sub(holders[needed].1);
                needed += 1;
            }
            holders.truncate(needed.max(1));
            let is_later = holders.iter().any(|(id, _)| transports.contains_key(id));
            if self.evict(&holders) || is_later {
                // What a transport holds is free once its connection is closed.
                return;
            }
        }
    }

    /// Counts what the connection holds.
    pub(super) fn count_shard(&mut self, id: ConnectionId) {
        let connection = &mut self.router.connections[id];
        let bytes = connection.bytes();
        self.share.change(std::mem::replace(&mut connection.counted, bytes), bytes);
    }

    /// What is kept of requests only to tell of them is nobody's, and goes before anybody does. True if there was some.
    fn drop_trails(&mut self) -> bool {
        let ids = self.router.connections.find(|connection| connection.trail_bytes() > 0);
        for &id in &ids {
            self.router.connections[id].stage_trail(false);
            self.count_shard(id);
        }
        if ids.is_empty() {
            return false;
        }
        self.share.tell();
        true
    }

    /// Requests that have timed out, or whose client has gone, are not worth keeping now. True if connections are closed.
    fn drop_orphans(&mut self) -> bool {
        let tickets = self.router.connections.iter().flat_map(|connection| connection.in_flight());
        let clients = tickets.filter_map(|ticket| ticket.client());
        let gone: HashSet<ClientId> = clients.filter(|&id| self.clients.get(id).is_none()).collect();
        // What ends waits is small, and waited for.
        self.forsake(|ticket| {
            ticket.ends_wait().is_none() && ticket.client().is_none_or(|id| gone.contains(&id))
        })
    }

    /// Nobody wants these requests any more. What a connection holds for nobody but cannot let go goes with it: no client
    /// is to go for that. True if connections are closed.
    fn forsake(&mut self, is_unwanted: impl Fn(&Ticket<P>) -> bool) -> bool {
        let mut closes = false;
        for id in self.router.connections.find(|_| true) {
            let connection = &mut self.router.connections[id];
            // Its ticket has the first client of a round, and others wait in it.
            // A value on its way is let go with its client, as far as it may be.
            let is_awaited = |ticket: &Ticket<P>| {
                self.confirmations.awaits(ticket) || self.router.transfers.awaits(ticket)
            };
            connection.forsake(|ticket| is_unwanted(ticket) && !is_awaited(ticket));
            if connection.is_forsaken() {
                self.router.give_up(id);
                closes = true;
            }
            self.count_shard(id);
            self.wake_waiting(id);
            self.router.close_if_left(id);
        }
        self.share.tell();
        closes
    }

    /// The clients that hold something, and how much, those that hold most first. Where it is transports that hold too much, only
    /// what theirs do counts: of many that hold little each, nobody else is the largest.
    fn holders(&self, transports: &HashMap<ClientId, usize>) -> Vec<(ClientId, usize)> {
        let mut holders = if self.share.account().is_swamped() {
            let is_there = |id| self.clients.get(id).is_some_and(|client| client.state != State::Broken);
            transports.iter().map(|(&id, &bytes)| (id, bytes)).filter(|&(id, _)| is_there(id)).collect()
        } else {
            self.holders_of_all(transports)
        };
        holders.sort_unstable_by_key(|&(id, bytes)| (Reverse(bytes), id));
        holders
    }

    fn holders_of_all(&self, transports: &HashMap<ClientId, usize>) -> Vec<(ClientId, usize)> {
        let mut queued = transports.clone();
        for connection in self.router.connections.iter() {
            for (ticket, bytes) in connection.held_requests() {
                if let Some(id) = ticket.client() {
                    *queued.entry(id).or_default() += bytes;
                }
            }
            if let Some(private) = &connection.private
                && let Some((id, watch)) = private.holder.zip(private.watch.as_ref())
            {
                *queued.entry(id).or_default() += watch.bytes();
            }
            // A response that is not complete is for the oldest request.
            if let Some(id) = connection.in_flight().front().and_then(|ticket| ticket.client()) {
                *queued.entry(id).or_default() += connection.rest.memory();
            }
        }
        for id in self.redirects.parked_clients() {
            let parked = self.clients.activity(id).and_then(|activity| activity.parked.as_ref());
            *queued.entry(id).or_default() += parked.map_or(0, |waiting| waiting.bytes());
        }
        let clients = self.clients.iter().filter(|(_, client)| client.state != State::Broken);
        let held = clients.map(|(id, client)| {
            let own = client.activity.as_ref().map_or(0, |activity| activity.bytes());
            (
                id,
                own + self.channels.bytes_of(id)
                    + self.wide.bytes_of(id)
                    + self.router.transfers.bytes_of(id)
                    + P::session_bytes(&client.session)
                    + queued.get(&id).copied().unwrap_or(0),
            )
        });
        held.filter(|&(_, bytes)| bytes > 0).collect()
    }

    /// The clients go, and what they held is free at once, but for what goes with connections that are closed: true if
    /// there are such.
    fn evict(&mut self, holders: &[(ClientId, usize)]) -> bool {
        let gone: HashSet<ClientId> = holders.iter().map(|&(id, _)| id).collect();
        for &(id, bytes) in holders {
            self.evict_client(id, bytes);
        }
        self.forsake(|ticket| ticket.client().is_some_and(|id| gone.contains(&id)))
    }

    fn evict_client(&mut self, id: ClientId, bytes: usize) {
        self.context.counters.client_evicted.add(1);
        self.wishes.log_evicted(id, bytes);
        self.channels.forget(id);
        self.drop_wide(id);
        self.count_transfers();
        self.take_parked(id);
        let Clients { table, dirty, spare_activities, .. } = &mut self.clients;
        let Some(client) = find(table, id) else { return };
        dirty.mark(client, id.index);
        // One that has nothing going on but in its transport is told too.
        spare_activities.give(client);
        let was_told = client.state == State::Finishing;
        client.state = State::Broken;
        if let Some(activity) = client.activity.as_mut() {
            if let Some(Stall { since, at }) = activity.stalled {
                self.router.stop_waiting(at, id, since);
            }
            activity.rest = Rest::default();
            activity.ahead = Ahead::default();
            if let Some(at) = activity.private.take() {
                self.router.abandon_private(at);
            }
            (activity.paused, activity.stalled, activity.begun) = (None, None, None);
            activity.block = None;
            activity.decoder.reset();
            let is_whole = activity.replies.cut();
            if is_whole && !was_told && activity.replies.output.unsent() <= LAST_WORDS_MAX {
                let mut words = Vec::new();
                P::out_of_memory(&mut words);
                activity.replies.output.copy(&words);
                client.state = State::Finishing;
            } else {
                activity.replies.output.clear();
            }
            let bytes = activity.bytes();
            self.share.change(std::mem::replace(&mut activity.counted, bytes), bytes);
        }
    }
}
