//! What the log is told of clients, while it is known who they are.

use super::Driver;
use crate::log_limit::warn_limited;
use crate::net::socket::End;
use crate::pool::ClientId;
use crate::protocol::Protocol;

impl<P: Protocol> Driver<P> {
    /// Clients that go because too much is held are told of while it is known who they are.
    pub(super) fn relieve(&mut self) {
        self.pool.take_wakes(&mut self.wakes);
        for worker in self.wakes.drain(..) {
            self.setup.alarms[worker].ring();
        }
        for (id, bytes) in self.pool.take_evicted() {
            let (pool, client) = (self.pool.name(), self.address_of(id));
            warn_limited!(%pool, %client, bytes, "client disconnected: memory_max reached");
        }
        for (id, bytes) in self.pool.take_oversized() {
            let (pool, client) = (self.pool.name(), self.address_of(id));
            warn_limited!(%pool, %client, bytes, "request refused: memory_max reached");
        }
    }

    pub(super) fn log_wedged(&mut self) {
        for (id, bytes) in self.pool.take_wedged() {
            let pool = self.pool.name();
            let client = self.address_of(id);
            warn_limited!(%pool, %client, bytes, "client stopped reading its replies");
        }
    }

    pub(super) fn address_of(&self, id: ClientId) -> End<'_> {
        let socket = self.clients.get(id.index as usize).and_then(Option::as_ref);
        socket.map_or(End::Shown("?"), |client| client.ends.peer())
    }
}
