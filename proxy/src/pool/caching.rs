//! Clients that keep what they have read, and are told when it changes (client-side caching).
//!
//! What such clients ask goes over lanes of their own, on which shards tell of changes: reads and writes, so that their order stays. Other
//! clients stay where they are. A key is noted in the book ([`super::caches`]) with its client as the response is handed to that, and its
//! shard tells of the next change behind that response on the same connection: so none is missed. Where a client has a response that
//! waits for others before it, it is told at once and again behind that (`Replies::tell_changed`).
//!
//! More may be told than has changed, never less:
//!
//! - A connection that is lost: its clients are told that anything they have read there may have changed, before they are answered from
//!   elsewhere.
//! - Keys that have another owner by a new topology: the same. What is still answered by the former owner, or by a node of a cluster that was
//!   named in passing, its client is not to keep: it is told so behind the response.
//! - The same for what is read on private connections (WATCH, requests that wait), and for the keys of requests that wait on several shards.
//! - There is no room for more keys: the oldest goes.
//! - A client changes what it has written itself (NOLOOP): the shard cannot tell it from others.
//! - More is to be told to many clients than there is time and room for.

use bytes::Bytes;

use super::Pool;
use super::caches::Caches;
use super::client::State;
use super::clients::{ClientId, Clients, find};
use super::connection::Link;
use super::connections::ConnectionId;
use super::members::ShardIndex;
use super::ticket::Ticket;
use crate::buffer::Piece;
use crate::metrics::PoolCounters;
use crate::protocol::Protocol;
use crate::protocol::caching::{KeysRead, Receiver};
use crate::time::Time;
use std::time::Duration;

/// A shard that has said nothing for so long is asked for a sign of life where clients have kept what it said: nobody else would
/// notice that it cannot tell of changes any more.
const SILENCE_MAX: Duration = Duration::from_secs(10);

impl<P: Protocol> Clients<P> {
    /// The client is told what has changed, in these words, if it is there to hear it.
    pub fn tell_changed(&mut self, id: ClientId, told: &[u8]) -> bool {
        let Self { table, spare_activities, dirty, forwarded, .. } = self;
        let hears = |client: &&mut super::client::Client<P>| {
            client.state == State::Open && P::hears_changes(&client.session)
        };
        let Some(client) = find(table, id).filter(hears) else { return false };
        match P::receiver(&client.session) {
            None => {
                spare_activities.give(client).replies.tell_changed(told);
                dirty.mark(client, id.index);
            }
            // The replies that it waits for come before it, as at a server.
            Some(Receiver::There(number)) if number == client.id => {
                let mut words = Vec::new();
                P::tell_for_another(&client.session, told, &mut words);
                if !words.is_empty() {
                    spare_activities.give(client).replies.tell_changed(&words);
                    dirty.mark(client, id.index);
                }
            }
            Some(Receiver::There(number)) => {
                forwarded.push((number, client.id, Bytes::copy_from_slice(told)))
            }
            Some(Receiver::Lost(number)) => {
                let mut words = Vec::new();
                P::receiver_is_lost(&mut client.session, number, &mut words);
                if !words.is_empty() {
                    self.push(id, &words);
                }
            }
        }
        true
    }

    /// The client is told this between its replies.
    pub fn push(&mut self, id: ClientId, words: &[u8]) {
        let Self { table, spare_activities, dirty, .. } = self;
        let Some(client) = find(table, id).filter(|client| client.state == State::Open) else { return };
        spare_activities.give(client).replies.push(words, Piece::Copied(b""));
        dirty.mark(client, id.index);
    }

    /// The clients are told that they have nothing any more that is worth keeping.
    pub fn tell_all_changed(&mut self, ids: &[ClientId], counters: &PoolCounters) {
        let mut told = Vec::new();
        P::tell_changed(&[], &mut told);
        let heard = ids.iter().filter(|&&id| self.tell_changed(id, &told)).count();
        counters.invalidations_of_all.add(heard as u64);
    }

    /// The client is not to keep what it has just heard of these keys, of which it would not be told.
    pub fn keep_nothing(&mut self, id: ClientId, keys: &[&[u8]], counters: &PoolCounters) {
        let mut told = Vec::new();
        P::tell_changed(keys, &mut told);
        if self.tell_changed(id, &told) {
            counters.invalidations.add(1);
            counters.reads_untracked.add(keys.len().max(1) as u64);
        }
    }
}

impl<P: Protocol> Clients<P> {
    /// The clients are told: at once, or where there is too much of that in the next passes.
    pub fn tell_in_turn(
        &mut self,
        told: Bytes,
        ids: Vec<ClientId>,
        caches: &mut Caches,
        counters: &PoolCounters,
    ) {
        if ids.is_empty() {
            return;
        }
        if !caches.has_turn(ids.len(), told.len()) {
            return caches.tell_later(told, ids);
        }
        let heard = ids.into_iter().filter(|&id| self.tell_changed(id, &told)).count();
        counters.invalidations.add(heard as u64);
    }
}

impl<P: Protocol> Pool<P> {
    /// The clients are told, as there is time for it.
    pub(super) fn tell(&mut self, told: Bytes, ids: Vec<ClientId>) {
        self.clients.tell_in_turn(told, ids, &mut self.caches, &self.context.counters);
    }

    /// They are told that they have nothing any more that is worth keeping, as there is time for it.
    pub(super) fn empty(&mut self, ids: Vec<ClientId>) {
        match self.caches.has_turn(ids.len(), 0) {
            true => self.clients.tell_all_changed(&ids, &self.context.counters),
            false => self.caches.empty_later(ids),
        }
    }

    /// The shard tells nothing more of what was read on the connection.
    pub(super) fn lose_caches(&mut self, at: ConnectionId) {
        let clients = self.caches.take_all(at, |_| true);
        self.clients.tell_all_changed(&clients, &self.context.counters);
    }

    /// Other shards may own keys from now on. Of those that do the former owner tells nothing more.
    pub(super) fn rehome_caches(&mut self) {
        let connections: Vec<ConnectionId> = self.caches.connections().collect();
        for at in connections {
            let Some(connection) = self.router.connections.get(at) else { continue };
            let (member, router) = (connection.member, &self.router);
            let is_elsewhere = |key: &[u8]| {
                let home = router.topology.home_of(key);
                home.is_none_or(|home| router.members.of(ShardIndex(home.shard)) != member)
            };
            let clients = self.caches.take_all(at, is_elsewhere);
            self.clients.tell_all_changed(&clients, &self.context.counters);
        }
    }

    /// The client was answered, on no connection where its shard would tell of changes.
    pub(super) fn keep_nothing(&mut self, id: ClientId, manner: P::Manner, requests: &[u8]) {
        let may_keep = self.clients.get(id).is_some_and(|client| P::may_keep(&client.session, manner));
        let mut read = KeysRead::default();
        let places = |read: &KeysRead| [&read.keys[..], &read.unsure].concat();
        if may_keep && (!P::keys_read(requests, &self.context.store, &mut read) || !places(&read).is_empty())
        {
            let places = places(&read);
            let keys: Vec<&[u8]> =
                places.iter().map(|&(start, length)| &requests[start..start + length]).collect();
            self.clients.keep_nothing(id, &keys, &self.context.counters);
        }
    }

    /// The client is gone.
    pub(super) fn forget_caching(&mut self, id: ClientId) {
        if self.caches.forget(id) {
            self.context.counters.tracking_clients.set(self.caches.tracking() as i64);
        }
    }

    /// A pass begins: some are told what there was no time for before.
    pub(super) fn tell_late(&mut self) {
        let emptied = self.caches.take_emptied();
        self.clients.tell_all_changed(&emptied, &self.context.counters);
        for (told, clients) in self.caches.take_late() {
            let heard = clients.into_iter().filter(|&id| self.clients.tell_changed(id, &told)).count();
            self.context.counters.invalidations.add(heard as u64);
        }
    }

    /// What is remembered counts in the account.
    pub(super) fn count_caches(&mut self) {
        let (before, after) = self.caches.count();
        if before != after {
            self.share.change(before, after);
            self.context.counters.tracked_keys.set(self.caches.keys() as i64);
        }
    }

    /// Shards that have been silent for long are asked for a sign of life where clients have kept what they said. Of one that does not give it,
    /// nor answers anything else, its clients are to keep nothing: where nothing times out nobody else would give it up.
    pub(super) fn ask_for_life_where_kept(&mut self, now: Time) {
        let connections: Vec<ConnectionId> = self.caches.connections().collect();
        for at in connections {
            let Some(connection) = self.router.connections.get(at) else { continue };
            if !matches!(connection.link, Link::Up) || now.since(connection.heard) < SILENCE_MAX {
                continue;
            }
            if !connection.is_quiet() {
                self.lose_caches(at);
                continue;
            }
            let mut request = Vec::new();
            P::ask_for_life(&mut request);
            // One that does not answer is given up at once, as where a write is not answered.
            let ticket = Ticket { reads: false, ..Ticket::prelude(now) };
            self.router.submit(at, ticket, Piece::Copied(&request), now);
        }
    }
}

/// What tells of this key.
pub(super) fn told_of<P: Protocol>(key: &[u8]) -> Bytes {
    let mut told = Vec::new();
    P::tell_changed(&[key], &mut told);
    told.into()
}
