//! What the process is doing, for whoever asks from another thread.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use shard_discovery::Topology;
use shard_discovery::resolver::Resolver;

pub use history::{Difference, End, History, ReloadRecord};
pub use standing::{Standing, Standings};

use crate::account::Account;
use crate::config;
use crate::hot::HotKeys;
use crate::metrics::{Counters, ListenerCounters, WorkerCounters};
use crate::monitor::Monitors;
use crate::slow::SlowLog;
use shard_discovery::source::cluster::Map;

mod history;
mod standing;

/// What the process is doing.
pub struct Status {
    /// When it started.
    pub start: Instant,
    /// The same in milliseconds since 1970.
    pub started: u64,
    /// What each worker counts of itself.
    pub workers: Vec<Arc<WorkerCounters>>,
    /// What may be held and is held.
    pub account: Arc<Account>,
    /// It accepts clients no more, or soon no more.
    pub draining: AtomicBool,
    /// Which configuration holds, counted from 1; 0 before the first.
    pub generation: AtomicU64,
    /// When it came to hold, in seconds since 1970.
    pub last_success: AtomicU64,
    /// Reloads that failed.
    pub reload_failures: AtomicU64,
    /// How long workers disagreed at the last reload, in microseconds.
    pub window: AtomicU64,
    /// Descriptors that the process may have, and those of them that are kept from clients.
    pub open_files_max: AtomicU64,
    /// See above.
    pub open_files_reserved: AtomicU64,
    /// Lookups of host names that found something, and those that did not.
    pub lookups: [AtomicU64; 2],
    /// The last reloads.
    pub history: History,
    /// Spans that a collector has taken, and those that it has not.
    pub spans_sent: AtomicU64,
    /// See above.
    pub spans_failed: AtomicU64,
    process: Mutex<Arc<config::Process>>,
    shown: Mutex<Arc<config::Shown>>,
    last_error: Mutex<Option<String>>,
    /// See [`config::digest`].
    digest: AtomicU64,
    pools: Mutex<Vec<Arc<Mutex<PoolStatus>>>>,
}

/// What a pool is and how its shards are.
#[derive(Clone)]
pub struct PoolStatus {
    /// Its configuration.
    pub config: Arc<config::Pool>,
    /// Its shards, with who would own what if all were fit.
    pub topology: Arc<Topology>,
    /// What is counted of it.
    pub counters: Counters,
    /// Shards that are out for failing, by their place in the topology, ascending.
    pub ejected: Vec<usize>,
    /// What became of each shard.
    pub records: Vec<Record>,
    /// Names of shards that answered no probe.
    pub unreachable: HashSet<String>,
    /// Since when they are as they are, and why.
    pub standings: Arc<Standings>,
    /// What is known of its servers beside the list of those that are used.
    pub ring: Ring,
    /// Why its source could not be read the last time, if so: what it listed before is still used.
    pub source_error: Option<String>,
    /// Clients are accepted.
    pub listening: bool,
    /// Where it accepts clients.
    pub listeners: Vec<ListenerStatus>,
    /// The epoch of the topology that workers were told last; [`PoolCounters::epoch`](crate::metrics::PoolCounters::epoch) is
    /// the one that each has acknowledged.
    pub epoch: u64,
    /// Who owns what, if it is a cluster.
    pub map: Arc<Map>,
    /// Times the nodes of the cluster were asked who owns what: with an answer, and without.
    pub refreshes: [u64; 2],
    /// Where host names lead.
    pub names: Arc<Resolver>,
    /// What its workers have seen of requests.
    pub hot: Arc<HotKeys>,
    /// Who watches them.
    pub monitors: Arc<Monitors>,
    /// What was slow.
    pub slow: Arc<SlowLog>,
}

/// What became of one shard.
#[derive(Clone, Debug)]
pub struct Record {
    /// Since when it is in the pool, in milliseconds since 1970.
    pub since: u64,
    /// Times it was ejected.
    pub ejections: u64,
    /// Times it was to be ejected, but too many others were out.
    pub withheld: u64,
    /// Responses there were of it when its last failure counted.
    pub(crate) responses: u64,
    /// Probes of it while it was out: those that succeeded, and the others.
    pub probes: [u64; 2],
    /// When it was last ejected, in microseconds since 1970; 0 if never.
    pub ejected_at: u64,
}

/// What is known of the servers of a pool beside the list of those that are used.
#[derive(Clone, Default, Debug)]
pub struct Ring {
    /// Those that `servers_within` leaves out.
    pub left_out: Vec<String>,
    /// That has gone on for too long, so that they are used all the same.
    pub has_expired: bool,
    /// New ones, which are used once they have answered.
    pub awaited: Vec<String>,
    /// The list that leaves them out.
    pub(crate) text: u64,
    /// When it was read last somebody was putting it in force.
    pub(crate) is_attempted: bool,
    /// When it ends by itself, if it does.
    pub(crate) until: Option<Instant>,
}

impl Record {
    /// Of a shard that has just come into the pool.
    pub fn new() -> Self {
        Self { since: unix_millis(), ejections: 0, withheld: 0, responses: 0, probes: [0, 0], ejected_at: 0 }
    }
}

impl Ring {
    /// How long servers are left out yet.
    fn left(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// What `/topology` says of it, and another process that starts asks for; null where nothing is left out.
    pub fn within(&self) -> Value {
        if self.left_out.is_empty() {
            return Value::Null;
        }
        serde_json::json!({
            "leaves_out": self.left_out,
            "expired": self.has_expired,
            "seconds_left": self.left().map(|left| left.as_secs()),
            "list": format!("{:016x}", self.text),
            "attempted": self.is_attempted,
        })
    }

    pub(crate) fn is_due(&self) -> bool {
        !self.has_expired && self.until.is_some_and(|until| until <= Instant::now())
    }
}

impl Status {
    /// Before the first configuration holds.
    pub fn new(start: Instant, workers: usize, account: Arc<Account>, process: config::Process) -> Self {
        Self {
            start,
            started: unix_millis(),
            account,
            workers: (0..workers).map(|_| Arc::default()).collect(),
            draining: AtomicBool::default(),
            generation: AtomicU64::default(),
            last_success: AtomicU64::default(),
            reload_failures: AtomicU64::default(),
            window: AtomicU64::default(),
            open_files_max: AtomicU64::default(),
            open_files_reserved: AtomicU64::default(),
            lookups: Default::default(),
            history: History::default(),
            spans_sent: AtomicU64::default(),
            spans_failed: AtomicU64::default(),
            process: Mutex::new(Arc::new(process)),
            shown: Mutex::default(),
            last_error: Mutex::default(),
            digest: AtomicU64::default(),
            pools: Mutex::default(),
        }
    }

    /// The pools that are served.
    pub fn pools(&self) -> Vec<PoolStatus> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.iter().map(|pool| pool.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// These pools are served.
    pub fn set_pools(&self, pools: Vec<Arc<Mutex<PoolStatus>>>) {
        *self.pools.lock().unwrap_or_else(PoisonError::into_inner) = pools;
    }

    /// A configuration holds, after workers disagreed for so long. The first one has changed nothing.
    pub fn reloaded(&self, window: Duration, trigger: &str, changes: Vec<Difference>) {
        let generation = self.generation.fetch_add(1, Relaxed) + 1;
        if generation > 1 {
            self.history.note(trigger, End::Applied { generation, changes, more: 0 });
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_success.store(since.as_secs(), Relaxed);
        self.window.store(window.as_micros() as u64, Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A configuration was refused.
    pub fn reload_failed(&self, trigger: &str, why: String) {
        self.history.note(trigger, End::Failed(why.clone()));
        self.reload_failures.fetch_add(1, Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// The configuration that was read is the present one.
    pub fn reload_needless(&self, trigger: &str) {
        self.history.note(trigger, End::Unchanged);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Settings of the process.
    pub fn process(&self) -> Arc<config::Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These hold from now on.
    pub fn set_process(&self, process: config::Process) {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(process);
    }

    /// The settings in force, as operators are shown them.
    pub fn shown(&self) -> Arc<config::Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These are in force from now on.
    pub fn set_shown(&self, shown: config::Shown) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(shown);
    }

    /// Tells configurations apart, in hexadecimal digits.
    pub fn digest(&self) -> String {
        format!("{:016x}", self.digest.load(Relaxed))
    }

    /// Another configuration has come to hold.
    pub fn set_digest(&self, digest: u64) {
        self.digest.store(digest, Relaxed);
    }

    /// Why the last reload failed, if it did.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where a pool accepts clients.
#[derive(Clone, Debug)]
pub struct ListenerStatus {
    /// The address, as it is shown.
    pub listen: String,
    /// Clients speak TLS there.
    pub tls: bool,
    /// What is counted there.
    pub counters: Arc<ListenerCounters>,
}

impl PoolStatus {
    /// Whether the shard can serve as far as is known: it is in the ring, and the last word of no worker, nor of a
    /// probe, was a failure.
    pub fn is_healthy(&self, shard: usize) -> bool {
        self.ejected.binary_search(&shard).is_err()
            && !self.unreachable.contains(&self.topology.shards()[shard].name)
            && self.counters.sum_shard(shard, |shard| shard.failing.get()) == 0
    }

    /// Shards that can serve.
    pub fn healthy(&self) -> usize {
        (0..self.topology.shards().len()).filter(|&shard| self.is_healthy(shard)).count()
    }
}

/// The time, in milliseconds since 1970.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
