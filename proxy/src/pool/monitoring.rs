//! Clients that watch the requests of all clients (MONITOR): what is shown, and how they are told. [`crate::monitor`] has the feeds.

use std::sync::Arc;

use super::Pool;
use super::client::State;
use super::clients::{ClientId, Clients, find};
use crate::buffer::Piece;
use crate::monitor::{Monitor, Reader, lost};
use crate::protocol::Protocol;
use crate::time::Time;

/// Bytes that may wait for a client that watches; further lines wait in its feed, or find no room there.
const OUTPUT_MAX: usize = 256 * 1024;

/// A request that somebody is to be shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Whose it is.
    pub client: ClientId,
    /// The client's number.
    pub number: u64,
    /// When it was served, in microseconds since 1970.
    pub micros: u64,
    /// In which database.
    pub database: u32,
    /// As it may be shown.
    pub words: Vec<Box<[u8]>>,
    /// Who wants it, unless its client is one that they do not want.
    pub takers: Vec<Arc<Monitor>>,
}

impl<P: Protocol> Pool<P> {
    /// Hands lines to the clients of this worker that watch.
    pub(super) fn tell_monitors(&mut self, now: Time) {
        if !self.context.monitors.is_active() {
            return;
        }
        for (id, monitor) in self.own_monitors() {
            let room = self.room_of_monitor(id);
            if room == 0 || !monitor.has_lines() {
                continue;
            }
            let Clients { table, spare_activities, dirty, .. } = &mut self.clients;
            let Some(client) = find(table, id) else { continue };
            client.active = now;
            let activity = spare_activities.give(client);
            let taken = self.context.monitors.take(&monitor, room);
            let unix = self.context.identity.unix_start + now.micros();
            let lost = (taken.dropped > 0).then(|| lost(unix, taken.dropped));
            let mut text = Vec::new();
            lost.iter().chain(&taken.lines).for_each(|line| P::monitored(line, &mut text));
            activity.replies.push(&text, Piece::Copied(b""));
            dirty.mark(client, id.index);
        }
    }

    /// Whether one of them has lines to come and takes what it is given.
    pub(super) fn has_lines_for_monitors(&self) -> bool {
        self.context.monitors.is_active()
            && self
                .own_monitors()
                .iter()
                .any(|(id, monitor)| self.room_of_monitor(*id) > 0 && monitor.has_lines())
    }

    /// Bytes that one of them can be handed.
    fn room_of_monitor(&self, id: ClientId) -> usize {
        let Some(client) = self.clients.get(id).filter(|client| client.state == State::Open) else {
            return 0;
        };
        let most = OUTPUT_MAX.min(self.context.limits.client_output_max / 2);
        most.saturating_sub(client.activity.as_ref().map_or(0, |activity| activity.replies.bytes()))
    }

    fn own_monitors(&self) -> Vec<(ClientId, Arc<Monitor>)> {
        let own = self.context.own_mailbox();
        let of_client = |monitor: Arc<Monitor>| match monitor.reader() {
            Reader::Client { place, worker, .. } if worker == own => Some((ClientId::at(place), monitor)),
            _ => None,
        };
        self.context.monitors.list().into_iter().filter_map(of_client).collect()
    }

    /// Nobody may say MONITOR any more: those who have are let go.
    pub(super) fn close_monitors(&mut self) {
        for (id, monitor) in self.own_monitors() {
            // One that does not read would stay for long, and all requests would be looked at for it.
            self.context.monitors.leave(&monitor);
            if let Some(client) = find(&mut self.clients.table, id) {
                client.state = State::Finishing;
                self.clients.dirty.mark(client, id.index);
            }
        }
    }
}
