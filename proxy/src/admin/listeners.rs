//! The listeners of pools, as `/status` and `/metrics` show them.

use serde::Serialize;

use super::exposition::{Kind, Page};
use crate::metrics::ListenerCounters;
use crate::status::{ListenerStatus, PoolStatus};

/// A listener, as `/status` has it.
#[derive(Serialize)]
pub struct Listener {
    listen: String,
    tls: bool,
    connections: u64,
    tls_handshakes: u64,
    tls_failures: u64,
}

impl From<&ListenerStatus> for Listener {
    fn from(status: &ListenerStatus) -> Self {
        let ListenerStatus { listen, tls, counters } = status;
        Self {
            listen: listen.clone(),
            tls: *tls,
            connections: counters.accepted.get(),
            tls_handshakes: counters.tls_handshakes.get(),
            tls_failures: counters.tls_failed.get(),
        }
    }
}

/// A number of a listener.
type OfListener = fn(&ListenerCounters) -> u64;

const LISTENER_NUMBERS: [(&str, &str, OfListener); 3] = [
    ("memstore_listener_connections", "Connections accepted at this listener.", |one| one.accepted.get()),
    ("memstore_listener_tls_handshakes", "TLS handshakes completed with clients at this listener.", |one| {
        one.tls_handshakes.get()
    }),
    (
        "memstore_listener_tls_failures",
        "TLS handshakes with clients at this listener that have failed.",
        |one| one.tls_failed.get(),
    ),
];

/// What is counted at each, as `/metrics` has it.
pub fn metrics(pools: &[PoolStatus], page: &mut Page) {
    for (name, help, number) in LISTENER_NUMBERS {
        let mut family = page.begin(name, Kind::Counter, help);
        for pool in pools {
            for one in &pool.listeners {
                family.sample(&[("pool", &pool.config.name), ("listen", &one.listen)], number(&one.counters));
            }
        }
    }
}
