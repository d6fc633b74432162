//! `stats`: what the proxy counts itself, by memcached's names where it has one. What servers count comes behind it: `totals.rs`.

use super::{Memcache, encode};
use crate::metrics::PoolCounters;
use crate::protocol::Facts;

/// The statistics of the pool, over all workers, without an end.
pub fn stats(facts: &Facts<'_, Memcache>, out: &mut Vec<u8>) {
    let sum = |number: fn(&PoolCounters) -> i64| facts.counters.sum(number);
    encode::stat(out, "pid", std::process::id());
    encode::stat(out, "uptime", facts.uptime());
    encode::stat(out, "time", facts.unix_micros() / 1_000_000);
    encode::stat(out, "version", VERSION);
    encode::stat(out, "pointer_size", usize::BITS);
    encode::stat(out, "curr_connections", sum(|counters| counters.client_connections.get()));
    encode::stat(out, "total_connections", sum(|counters| counters.client_connections_total.get() as i64));
    encode::stat(out, "rejected_connections", sum(|counters| counters.client_refused.get() as i64));
    encode::stat(out, "threads", facts.counters.workers().len());
    encode::stat(out, "pool", facts.pool);
    encode::stat(out, "shards", facts.counters.shards().len());
    encode::stat(out, "requests", sum(|counters| counters.requests.get() as i64));
    encode::stat(out, "fragments", sum(|counters| counters.fragments.get() as i64));
    encode::stat(out, "refused", sum(|counters| counters.refused.get() as i64));
    encode::stat(out, "malformed", sum(|counters| counters.client_malformed.get() as i64));
    encode::stat(out, "forward_error", sum(|counters| counters.forward_error.get() as i64));
}

const VERSION: &str = concat!("memstore-", env!("CARGO_PKG_VERSION"));
