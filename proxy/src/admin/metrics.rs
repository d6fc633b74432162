//! The metrics of the process, in the units and names that Prometheus asks for.

use std::sync::atomic::Ordering::Relaxed;

use super::exposition::{Kind, Page, seconds};
use super::listeners;
use super::numbers::{NUMBERS, OfPool, SHARD_NUMBERS};
use crate::failure::ShardFailure;
use crate::status::{PoolStatus, Ring, Status};
use crate::worker;

/// All metrics, as text.
pub fn page(status: &Status, open_metrics: bool) -> String {
    let mut page = Page::new(open_metrics);
    let pools = status.pools();
    of_process(status, &pools, &mut page);
    of_workers(status, &mut page);
    of_pools(&pools, &mut page);
    of_shards(&pools, &mut page);
    of_clusters(&pools, &mut page);
    page.finish()
}

fn of_process(status: &Status, pools: &[PoolStatus], page: &mut Page) {
    page.begin("memstore_build_info", Kind::Gauge, "Version of the proxy.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.begin("memstore_uptime_seconds", Kind::Gauge, "Time since the process started.")
        .sample(&[], status.start.elapsed().as_secs_f64());
    let generation = status.generation.load(Relaxed);
    page.begin(
        "memstore_config_info",
        Kind::Gauge,
        "Digest of the active configuration, for comparing replicas.",
    )
    .sample(&[("digest", &status.digest())], 1);
    page.begin(
        "memstore_config_generation",
        Kind::Gauge,
        "Generation of the active configuration, counted from 1.",
    )
    .sample(&[], generation);
    page.begin(
        "memstore_config_last_success_timestamp_seconds",
        Kind::Gauge,
        "Time at which the active configuration was loaded.",
    )
    .sample(&[], status.last_success.load(Relaxed));
    page.begin("memstore_config_reload_failures", Kind::Counter, "Failed configuration reloads.")
        .sample(&[], status.reload_failures.load(Relaxed));
    let has_failed = status.last_error().is_some();
    page.begin(
        "memstore_config_reload_failed",
        Kind::Gauge,
        "1 if the configuration on disk could not be loaded and the previous one is still active.",
    )
    .sample(&[], u8::from(has_failed));
    page.begin(
        "memstore_config_disagreement_seconds",
        Kind::Gauge,
        "Time during which workers had different topologies in the last reload.",
    )
    .sample(&[], seconds(status.window.load(Relaxed)));
    let draining = status.draining.load(Relaxed);
    page.begin("memstore_draining", Kind::Gauge, "1 while the process is draining.")
        .sample(&[], u8::from(draining));
    let all_up = pools.iter().all(|pool| pool.healthy() == pool.topology.shards().len());
    let safe = all_up && !draining && !has_failed;
    page.begin(
        "memstore_safe_to_scale",
        Kind::Gauge,
        "1 if all shards are healthy, the process is not draining, and the last reload succeeded.",
    )
    .sample(&[], u8::from(safe));
    let mut lookups = page.begin("memstore_lookups", Kind::Counter, "Host name lookups, by result.");
    for (result, count) in ["success", "failure"].into_iter().zip(&status.lookups) {
        lookups.sample(&[("result", result)], count.load(Relaxed));
    }
    page.begin("memstore_memory_held_bytes", Kind::Gauge, "Memory in use for client and shard data.")
        .sample(&[], status.account.held());
    page.begin(
        "memstore_memory_max_bytes",
        Kind::Gauge,
        "Limit of the memory for client and shard data (memory_max).",
    )
    .sample(&[], status.account.max());
    let mut lost = page.begin(
        "memstore_log_lines_lost",
        Kind::Counter,
        "Log lines that were dropped, by reason: the queue was full, or the write failed.",
    );
    for (reason, count) in crate::log::lost() {
        lost.sample(&[("reason", reason)], count);
    }
    let mut spans = page.begin(
        "memstore_trace_spans",
        Kind::Counter,
        "Spans that the collector has accepted, and those that it was not sent or has refused.",
    );
    for (result, count) in [("sent", &status.spans_sent), ("failed", &status.spans_failed)] {
        spans.sample(&[("result", result)], count.load(Relaxed));
    }
    if let Some(usage) = usage() {
        page.begin("process_cpu_seconds", Kind::Counter, "Total user and system CPU time spent in seconds.")
            .sample(&[], usage.cpu_seconds);
        page.begin("process_resident_memory_bytes", Kind::Gauge, "Resident memory size in bytes.")
            .sample(&[], usage.resident_bytes);
        page.begin("process_open_fds", Kind::Gauge, "Number of open file descriptors.")
            .sample(&[], usage.open_files);
        page.begin("process_max_fds", Kind::Gauge, "Maximum number of open file descriptors.")
            .sample(&[], status.open_files_max.load(Relaxed));
        page.begin(
            "memstore_open_files_reserved",
            Kind::Gauge,
            "File descriptors reserved for shards, probes and files; clients are refused before these are used.",
        )
        .sample(&[], status.open_files_reserved.load(Relaxed));
    }
}

fn of_workers(status: &Status, page: &mut Page) {
    let names: Vec<String> = (0..status.workers.len()).map(|worker| worker.to_string()).collect();
    let workers = || names.iter().zip(&status.workers);
    let mut busy = page.begin("memstore_worker_busy_seconds", Kind::Counter, "Time the worker was busy.");
    for (name, counters) in workers() {
        busy.sample(&[("worker", name)], seconds(counters.passes.sum()));
    }
    let mut passes = page.begin(
        "memstore_worker_pass_duration_seconds",
        Kind::Histogram,
        "Duration of one iteration of the event loop: an upper bound of the latency that the proxy adds.",
    );
    for (name, counters) in workers() {
        passes.histogram(&[("worker", name)], std::iter::once(&counters.passes));
    }
}

/// A number of its list of servers.
type OfRing = fn(&Ring) -> usize;

fn of_pools(pools: &[PoolStatus], page: &mut Page) {
    for (name, kind, help, number) in NUMBERS {
        let mut family = page.begin(name, kind, help);
        for pool in pools {
            family.sample(&[("pool", &pool.config.name)], pool.counters.sum(number));
        }
    }
    let mut hottest = page.begin(
        "memstore_hottest_key_share",
        Kind::Gauge,
        "Share of the key that is used most in all uses of keys in the last one to two minutes, from a sample; 0 to 1.",
    );
    for pool in pools.iter().filter(|pool| pool.config.hot_keys) {
        hottest.sample(&[("pool", &pool.config.name)], pool.hot.report(1).hottest_share());
    }
    let mut monitors = page.begin(
        "memstore_monitors",
        Kind::Gauge,
        "Clients and others that watch requests (MONITOR, /monitor).",
    );
    for pool in pools {
        monitors.sample(&[("pool", &pool.config.name)], pool.monitors.count());
    }
    let mut dropped = page.begin(
        "memstore_monitor_lines_dropped",
        Kind::Counter,
        "Requests that were not shown to one who watches and reads too slowly.",
    );
    for pool in pools {
        dropped.sample(&[("pool", &pool.config.name)], pool.monitors.dropped());
    }
    let mut dropped = page.begin(
        "memstore_trace_requests_dropped",
        Kind::Counter,
        "Requests without spans because too many waited to be sent.",
    );
    for pool in pools {
        dropped.sample(&[("pool", &pool.config.name)], pool.slow.traced_dropped());
    }
    let mut given =
        page.begin("memstore_topology_epoch", Kind::Gauge, "Epoch of the topology last sent to the workers.");
    for pool in pools {
        given.sample(&[("pool", &pool.config.name)], pool.epoch);
    }
    let mut ends = page.begin(
        "memstore_tls_certificate_not_after_seconds",
        Kind::Gauge,
        "When the TLS certificate of the proxy towards this side ends, in seconds since 1970.",
    );
    for pool in pools {
        for certificate in pool.config.certificates() {
            let labels = [
                ("pool", pool.config.name.as_str()),
                ("side", certificate.side),
                ("file", &certificate.path),
            ];
            ends.sample(&labels, certificate.not_after);
        }
    }
    listeners::metrics(pools, page);
    let mut acknowledged = page.begin(
        "memstore_worker_topology_epoch",
        Kind::Gauge,
        "Epoch of the topology in use by the worker.",
    );
    for pool in pools {
        for (number, worker) in pool.counters.workers().iter().enumerate() {
            let labels = [("pool", pool.config.name.as_str()), ("worker", &number.to_string())];
            acknowledged.sample(&labels, worker.epoch.get());
        }
    }
    let mut family = page.begin(
        "memstore_servers_refresh_failed",
        Kind::Gauge,
        "1 if the list of servers (servers_url, cluster) could not be refreshed and the previous one is still active.",
    );
    for pool in pools {
        family.sample(&[("pool", &pool.config.name)], usize::from(pool.source_error.is_some()));
    }
    const RINGS: [(&str, Kind, &str, OfRing); 3] = [
        (
            "memstore_shards_awaited",
            Kind::Gauge,
            "New shards that are not used yet because they have not answered.",
            |ring| ring.awaited.len(),
        ),
        (
            "memstore_shards_left_out",
            Kind::Gauge,
            "Shards of the list that servers_within excludes.",
            |ring| if ring.has_expired { 0 } else { ring.left_out.len() },
        ),
        (
            "memstore_servers_within_expired",
            Kind::Gauge,
            "1 if servers_within is ignored because it excluded shards for longer than servers_within_limit.",
            |ring| usize::from(ring.has_expired),
        ),
    ];
    for (name, kind, help, number) in RINGS {
        let mut family = page.begin(name, kind, help);
        for pool in pools {
            family.sample(&[("pool", &pool.config.name)], number(&pool.ring));
        }
    }
    let mut family =
        page.begin("memstore_client_disconnects", Kind::Counter, "Client connections closed, by reason.");
    for pool in pools {
        for (reason, number) in DISCONNECTS {
            family.sample(&[("pool", &pool.config.name), ("reason", reason)], pool.counters.sum(number));
        }
    }
    let mut family = page.begin("memstore_commands", Kind::Counter, "Requests by command family.");
    for pool in pools {
        for (index, name) in worker::about(pool.config.protocol).families.iter().enumerate() {
            let count = pool.counters.sum(|counters| counters.families[index].get() as i64);
            family.sample(&[("pool", &pool.config.name), ("family", name)], count);
        }
    }
}

/// Clients that went, by reason.
pub const DISCONNECTS: [(&str, OfPool); 16] = [
    ("closed", |pool| pool.client_eof.get() as i64),
    ("broken", |pool| pool.client_err.get() as i64),
    ("malformed", |pool| pool.client_malformed.get() as i64),
    ("output_exceeded", |pool| pool.client_output_exceeded.get() as i64),
    ("subscriber_output_exceeded", |pool| pool.subscriber_output_exceeded.get() as i64),
    ("subscriber_gap", |pool| pool.subscriber_gap.get() as i64),
    ("memory_exceeded", |pool| pool.client_evicted.get() as i64),
    ("timed_out", |pool| pool.client_timedout.get() as i64),
    ("password_changed", |pool| pool.client_revoked.get() as i64),
    ("aged", |pool| pool.client_aged.get() as i64),
    ("quit", |pool| pool.client_quit.get() as i64),
    ("killed", |pool| pool.client_killed.get() as i64),
    ("drained", |pool| pool.client_drained.get() as i64),
    ("reply_cut_off", |pool| pool.client_cut.get() as i64),
    ("too_many", |pool| pool.client_refused.get() as i64),
    ("tls_failed", |pool| pool.tls_failed.get() as i64),
];

/// Redirects, by kind.
pub const REDIRECTS: [(&str, OfPool); 4] = [
    ("moved", |pool| pool.redirects_moved.get() as i64),
    ("ask", |pool| pool.redirects_ask.get() as i64),
    ("later", |pool| pool.redirects_later.get() as i64),
    ("given_up", |pool| pool.redirects_given_up.get() as i64),
];

/// Pools over a Redis Cluster.
fn of_clusters(pools: &[PoolStatus], page: &mut Page) {
    let clusters: Vec<&PoolStatus> = pools.iter().filter(|pool| pool.config.cluster().is_some()).collect();
    if clusters.is_empty() {
        return;
    }
    let mut family = page.begin(
        "memstore_cluster_redirects",
        Kind::Counter,
        "Redirects from cluster nodes, by kind; given_up: the error was returned to the client.",
    );
    for pool in &clusters {
        for (kind, number) in REDIRECTS {
            family.sample(&[("pool", &pool.config.name), ("kind", kind)], pool.counters.sum(number));
        }
    }
    let mut family =
        page.begin("memstore_cluster_refreshes", Kind::Counter, "Cluster topology refreshes, by result.");
    for pool in &clusters {
        for (result, count) in ["success", "failure"].into_iter().zip(pool.refreshes) {
            family.sample(&[("pool", &pool.config.name), ("result", result)], count);
        }
    }
    let mut family = page.begin("memstore_cluster_slots_covered", Kind::Gauge, "Slots with a known owner.");
    for pool in &clusters {
        family.sample(&[("pool", &pool.config.name)], pool.map.covered());
    }
    let members = || {
        clusters.iter().flat_map(|pool| {
            pool.map.members.iter().map(|member| (&*pool.config.name, member.address.to_string(), member))
        })
    };
    let mut family = page.begin("memstore_cluster_slots", Kind::Gauge, "Slots owned by the node.");
    for (pool, shard, member) in members() {
        family.sample(&[("pool", pool), ("shard", &shard)], member.slot_count());
    }
    let mut family = page.begin(
        "memstore_cluster_epoch",
        Kind::Gauge,
        "Configuration epoch of the node; the highest one wins conflicting claims to a slot.",
    );
    for (pool, shard, member) in members() {
        family.sample(&[("pool", pool), ("shard", &shard)], member.epoch);
    }
}

fn of_shards(pools: &[PoolStatus], page: &mut Page) {
    let each = || {
        pools.iter().flat_map(|pool| {
            let shards = pool.topology.shards().iter().enumerate();
            shards.map(move |(index, shard)| {
                (pool, index, [("pool", &*pool.config.name), ("shard", &*shard.name)])
            })
        })
    };
    for (name, kind, help, number) in SHARD_NUMBERS {
        let mut family = page.begin(name, kind, help);
        for (pool, index, labels) in each() {
            family.sample(&labels, pool.counters.sum_shard(index, number));
        }
    }
    let mut family = page.begin("memstore_shard_healthy", Kind::Gauge, "1 if the shard is healthy.");
    for (pool, index, labels) in each() {
        family.sample(&labels, u8::from(pool.is_healthy(index)));
    }
    let mut family =
        page.begin("memstore_shard_ejected", Kind::Gauge, "1 while the shard is ejected from the ring.");
    for (pool, index, labels) in each() {
        family.sample(&labels, u8::from(pool.ejected.binary_search(&index).is_ok()));
    }
    let mut family =
        page.begin("memstore_shard_ejections", Kind::Counter, "Times the shard was ejected from the ring.");
    for (pool, index, labels) in each() {
        family.sample(&labels, pool.records[index].ejections);
    }
    let mut family = page.begin(
        "memstore_shard_ejections_withheld",
        Kind::Counter,
        "Ejections of the shard withheld because eject_max_share was reached.",
    );
    for (pool, index, labels) in each() {
        family.sample(&labels, pool.records[index].withheld);
    }
    let mut family = page.begin(
        "memstore_shard_probes",
        Kind::Counter,
        "Probes of the shard while it was ejected, by result.",
    );
    for (pool, index, [of_pool, of_shard]) in each() {
        for (result, count) in ["success", "failure"].into_iter().zip(pool.records[index].probes) {
            family.sample(&[of_pool, of_shard, ("result", result)], count);
        }
    }
    let mut family = page.begin(
        "memstore_shard_failures",
        Kind::Counter,
        "Failures of the shard, by reason; reasons that have not occurred are omitted.",
    );
    for (pool, index, [of_pool, of_shard]) in each() {
        for (place, reason) in ShardFailure::REASONS.into_iter().enumerate() {
            let count = pool.counters.sum_shard(index, |shard| shard.failures[place].get() as i64);
            if count > 0 {
                family.sample(&[of_pool, of_shard, ("reason", reason)], count);
            }
        }
    }
    let mut family = page.begin(
        "memstore_shard_response_duration_seconds",
        Kind::Histogram,
        "Time from queueing a request to its response.",
    );
    for (pool, index, labels) in each() {
        family.histogram(&labels, pool.counters.of_shard(index).map(|shard| &shard.latency));
    }
}

/// What the system says about the process.
pub struct Usage {
    /// Processor time, of the system too.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Descriptors in use.
    pub open_files: usize,
}

/// What the system says about the process.
pub fn usage() -> Option<Usage> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name in brackets, which may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let ticks = rustix::param::clock_ticks_per_second();
    Some(Usage {
        cpu_seconds: (number(11)? + number(12)?) as f64 / ticks as f64,
        resident_bytes: number(21)? * rustix::param::page_size() as u64,
        open_files: std::fs::read_dir("/proc/self/fd").ok()?.count(),
    })
}
