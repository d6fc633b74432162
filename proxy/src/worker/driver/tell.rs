//! What the log is told of clients and shards, while it is known who they are.

use shard_discovery::Shard;

use super::Driver;
use crate::log_limit::warn_limited;
use crate::monitor;
use crate::net::socket::End;
use crate::pool::{ClientId, Notice, Seen};
use crate::protocol::{Malformed, Protocol};
use crate::slow::Entry;

/// A line of the access log: what is bounded is how many requests are told of, not how many lines there are a second.
fn log_access(pool: &str, entry: &Entry) {
    let Entry { sender, shard, spent, error, .. } = entry;
    let command =
        entry.words.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join(" ");
    let (error, request) = (error.as_deref().unwrap_or_default(), entry.request());
    let trace = entry.trace.map_or_else(String::new, |trace| format!("{:032x}", trace.id));
    tracing::info!(
        target: "access",
        %pool, %request, client = %sender.address, name = %sender.name, user = %sender.user,
        %command, %shard, %error, %trace, at = entry.at,
        queued_us = spent.queued, shard_us = spent.shard, merged_us = spent.merged, client_us = spent.client,
        "request"
    );
}

impl<P: Protocol> Driver<P> {
    pub(super) fn log(&self, notice: Notice) {
        let pool = self.pool.name();
        match notice {
            Notice::Malformed(id, Malformed(reason)) => {
                let client = self.address_of(id);
                warn_limited!(%pool, %client, %reason, "protocol error from client");
            }
            Notice::WrongPassword(id) => {
                let client = self.address_of(id);
                warn_limited!(%pool, %client, "client sent a wrong password");
            }
            Notice::Wedged(id, bytes) => {
                let client = self.address_of(id);
                warn_limited!(%pool, %client, bytes, "client stopped reading its replies");
            }
            Notice::Evicted(id, bytes) => {
                let client = self.address_of(id);
                warn_limited!(%pool, %client, bytes, "client disconnected: memory_max reached");
            }
            Notice::Oversized(id, bytes) => {
                let client = self.address_of(id);
                warn_limited!(%pool, %client, bytes, "request refused: memory_max reached");
            }
            Notice::Access(entry) => log_access(pool, &entry),
            Notice::Complaint(id, words) => {
                let Some(Shard { name, address, .. }) = self.pool.shard_of(id) else { return };
                warn_limited!(%pool, shard = %name, %address, reason = %words, "shard refused the proxy's requests");
            }
        }
    }

    /// Those who watch are shown the request, as far as they want those of its client.
    pub(super) fn show(&self, seen: &Seen) {
        let address = self.address_of(seen.client).to_string();
        let mut line = None;
        for monitor in seen.takers.iter().filter(|monitor| monitor.takes(seen.number, &address)) {
            let line =
                line.get_or_insert_with(|| monitor::line(seen.micros, seen.database, &address, &seen.words));
            if let Some(worker) = self.pool.monitors().tell(monitor, line) {
                self.setup.alarms[worker].ring();
            }
        }
    }

    pub(super) fn address_of(&self, id: ClientId) -> End<'_> {
        let socket = self.clients.get(id.index as usize);
        socket.map_or(End::Shown("?"), |client| client.ends.peer())
    }
}
