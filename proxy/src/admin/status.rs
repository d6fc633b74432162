//! `/status`: what the process, its pools and their shards are doing, as JSON for people's tools: a page, `memstore status`,
//! scripts. docs/admin.md says what each field means.
//!
//! It is made of the same counters and tables as `/metrics`, and asks no worker. Fields are added; what would be
//! misunderstood by whoever reads it today gets another [`VERSION`].

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use shard_discovery::{Address, Share};

use super::exposition::{Kind, seconds};
use super::listeners::Listener;
use super::metrics::{DISCONNECTS, REDIRECTS, usage};
use super::numbers::{NUMBERS, OfPool, SHARD_NUMBERS};
use super::rings::Rings;
use crate::failure::ShardFailure;
use crate::metrics::{Counters, Durations, Histogram};
use crate::peers::Book;
use crate::status::{Difference, End, PoolStatus, ReloadRecord, Standing, Status, unix_millis};
use crate::worker;

/// Of the document.
const VERSION: u32 = 1;
/// Addresses of clients that are told where nobody says how many.
const CLIENTS: usize = 20;
/// Addresses that are told at most.
const CLIENTS_MAX: usize = 1000;
/// Slots of a Redis Cluster.
const SLOTS: usize = 16_384;

/// What of it is asked for.
pub struct Asked<'a> {
    /// Only this pool.
    pub pool: Option<&'a str>,
    /// So many shards of each pool at most: those that do not serve first, then those with most requests.
    pub shards: usize,
    /// So many addresses of clients.
    pub clients: usize,
}

impl<'a> Asked<'a> {
    /// As the query of an URL says it.
    pub fn of(query: &HashMap<String, String>) -> Result<Asked<'_>, String> {
        let number = |name: &str, default| match query.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("{name} has to be a number, not {text:?}")),
        };
        Ok(Asked {
            pool: query.get("pool").map(String::as_str),
            shards: number("shards", usize::MAX)?,
            clients: number("clients", CLIENTS)?.min(CLIENTS_MAX),
        })
    }
}

#[derive(Serialize)]
struct Document<'s> {
    version: u32,
    /// Seconds since 1970, as all times here.
    time: f64,
    process: Process,
    latency_bounds_seconds: Vec<f64>,
    metric_names: MetricNames,
    pools: Vec<Pool<'s>>,
    reloads: Vec<Reload>,
}

#[derive(Serialize)]
struct Process {
    version: &'static str,
    started: f64,
    uptime_seconds: f64,
    draining: bool,
    config: Config,
    memory: Memory,
    cpu_seconds: Option<f64>,
    open_files: Option<usize>,
    open_files_max: u64,
    open_files_reserved: u64,
    lookups: Table<u64, 2>,
    log_lines_lost: Table<u64, 2>,
    workers: Vec<Worker>,
}

#[derive(Serialize)]
struct Config {
    generation: u64,
    digest: String,
    loaded: u64,
    reload_failures: u64,
    reload_error: Option<String>,
}

#[derive(Serialize)]
struct Memory {
    held_bytes: usize,
    max_bytes: usize,
    resident_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Worker {
    busy_seconds: f64,
    passes: Latency,
}

#[derive(Serialize)]
struct Pool<'s> {
    name: &'s str,
    protocol: &'static str,
    mode: &'static str,
    hash: Option<&'static str>,
    listen: String,
    listeners: Vec<Listener>,
    listening: bool,
    tls: bool,
    shard_tls: bool,
    auto_eject_hosts: bool,
    epoch: u64,
    worker_epochs: Vec<u64>,
    servers_error: Option<&'s str>,
    shards_awaited: &'s [String],
    shards_left_out: &'s [String],
    shards_total: usize,
    shards_up: usize,
    metrics: Numbers<'s>,
    disconnects: Table<i64, 16>,
    commands: Commands<'s>,
    errors: Errors,
    latency: Latency,
    queue: Queue,
    cluster: Option<Cluster>,
    clients: Clients,
    shards: Vec<Shard<'s>>,
}

#[derive(Serialize)]
struct Queue {
    requests: i64,
    bytes: i64,
    in_flight_requests: i64,
    in_flight_bytes: i64,
}

#[derive(Serialize)]
struct Cluster {
    slots_covered: usize,
    slots_total: usize,
    epoch: u64,
    refreshes: Table<u64, 2>,
    redirects: Table<i64, 4>,
}

#[derive(Serialize)]
struct Clients {
    total: u64,
    by_address: Vec<ByAddress>,
    others: Others,
}

#[derive(Serialize)]
struct ByAddress {
    /// Null for clients over Unix sockets.
    address: Option<std::net::IpAddr>,
    clients: u64,
}

#[derive(Serialize)]
struct Others {
    addresses: usize,
    clients: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Up,
    Down,
    Ejected,
}

#[derive(Serialize)]
struct Shard<'s> {
    name: &'s str,
    address: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resolved: Vec<std::net::IpAddr>,
    state: State,
    since: Option<f64>,
    reason: Option<String>,
    weight: u32,
    points: usize,
    share: f64,
    ejections: u64,
    ejections_withheld: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Node<'s>>,
    errors: Errors,
    latency: Latency,
    metrics: ShardNumbers<'s>,
}

/// What a node of a cluster owns.
#[derive(Serialize)]
struct Node<'s> {
    id: &'s str,
    epoch: u64,
    slots: &'s [(u16, u16)],
    replica_of: Option<&'s str>,
}

#[derive(Serialize)]
struct Reload {
    time: f64,
    trigger: String,
    times: u64,
    result: &'static str,
    generation: Option<u64>,
    error: Option<String>,
    changes: Vec<Changed>,
    more_changes: usize,
}

#[derive(Serialize)]
struct Changed {
    pool: Option<String>,
    what: String,
    before: Option<String>,
    after: Option<String>,
}

/// Names with their numbers, in the order of their table.
struct Table<N, const COUNT: usize>([(&'static str, N); COUNT]);

impl<N: Serialize, const COUNT: usize> Serialize for Table<N, COUNT> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(name, number)| (name, number)))
    }
}

/// What a metric is called here: without what all of its table begin with.
fn short(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

const OF_POOL: &str = "memstore_";
const OF_SHARD: &str = "memstore_shard_";

/// Those of a pool, each over all workers.
struct Numbers<'s>(&'s Counters);

impl Serialize for Numbers<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let of = |number: OfPool| self.0.sum(number);
        to.collect_map(NUMBERS.into_iter().map(|(name, _, _, number)| (short(name, OF_POOL), of(number))))
    }
}

/// Those of a shard.
struct ShardNumbers<'s>(&'s Counters, usize);

impl Serialize for ShardNumbers<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(counters, shard) = self;
        let numbers = SHARD_NUMBERS.into_iter();
        to.collect_map(
            numbers.map(|(name, _, _, number)| (short(name, OF_SHARD), counters.sum_shard(*shard, number))),
        )
    }
}

/// What the numbers are called at `/metrics`.
struct MetricNames;

impl Serialize for MetricNames {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let full = |name: &str, kind| match kind {
            Kind::Counter => format!("{name}_total"),
            Kind::Gauge | Kind::Histogram => name.to_owned(),
        };
        let pool: Vec<_> =
            NUMBERS.iter().map(|&(name, kind, ..)| (short(name, OF_POOL), full(name, kind))).collect();
        let shard: Vec<_> =
            SHARD_NUMBERS.iter().map(|&(name, kind, ..)| (short(name, OF_SHARD), full(name, kind))).collect();
        let mut map = to.serialize_map(Some(2))?;
        for (of, names) in [("pool", pool), ("shard", shard)] {
            map.serialize_entry(of, &names.into_iter().collect::<std::collections::BTreeMap<_, _>>())?;
        }
        map.end()
    }
}

/// Requests by family.
struct Commands<'s>(&'s PoolStatus);

impl Serialize for Commands<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let families = worker::about(self.0.config.protocol).families.iter().enumerate();
        let count = |family: usize| self.0.counters.sum(|pool| pool.families[family].get() as i64);
        to.collect_map(families.map(|(family, name)| (name, count(family))))
    }
}

/// Failures by reason; reasons that have not occurred are left out.
#[derive(Default)]
struct Errors([i64; ShardFailure::REASONS.len()]);

impl Errors {
    fn of(counters: &Counters, shard: usize) -> Self {
        let mut errors = Self::default();
        for counted in counters.of_shard(shard) {
            errors.0.iter_mut().zip(&counted.failures).for_each(|(sum, more)| *sum += more.get() as i64);
        }
        errors
    }

    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }
}

impl Serialize for Errors {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(ShardFailure::REASONS.into_iter().zip(self.0).filter(|(_, count)| *count > 0))
    }
}

/// How long something took, since the process started. The difference of the `buckets` of two documents tells of the time
/// between them; empty ones at the end are left out.
#[derive(Serialize)]
struct Latency {
    count: u64,
    sum_seconds: f64,
    p50_seconds: Option<f64>,
    p90_seconds: Option<f64>,
    p99_seconds: Option<f64>,
    p999_seconds: Option<f64>,
    buckets: Vec<u64>,
}

impl From<&Durations> for Latency {
    fn from(durations: &Durations) -> Self {
        let at = |share| durations.quantile(share).map(seconds);
        let used = durations.counts.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
        Self {
            count: durations.count(),
            sum_seconds: seconds(durations.sum),
            p50_seconds: at(0.5),
            p90_seconds: at(0.9),
            p99_seconds: at(0.99),
            p999_seconds: at(0.999),
            buckets: durations.counts[..used].to_vec(),
        }
    }
}

/// The document, or nothing if there is no such pool.
pub fn document(status: &Status, rings: &Rings, asked: &Asked<'_>) -> Option<String> {
    let pools = status.pools();
    rings.retain(&pools);
    let wanted = |pool: &&PoolStatus| asked.pool.is_none_or(|name| pool.config.name == name);
    let told: Vec<_> = pools.iter().filter(wanted).map(|pool| of_pool(pool, rings, asked)).collect();
    if told.is_empty() && asked.pool.is_some() {
        return None;
    }
    let document = Document {
        version: VERSION,
        time: in_seconds(unix_millis()),
        process: of_process(status),
        latency_bounds_seconds: (0..Histogram::BOUNDS).map(|at| seconds(Histogram::bound(at))).collect(),
        metric_names: MetricNames,
        pools: told,
        reloads: status.history.snapshot().iter().map(|record| of_reload(record)).collect(),
    };
    let mut text = serde_json::to_string(&document).expect("names are strings");
    text.push('\n');
    Some(text)
}

fn of_process(status: &Status) -> Process {
    let usage = usage();
    let [found, failed] = &status.lookups;
    Process {
        version: env!("CARGO_PKG_VERSION"),
        started: in_seconds(status.started),
        uptime_seconds: (status.start.elapsed().as_millis() as f64) / 1e3,
        draining: status.draining.load(Relaxed),
        config: Config {
            generation: status.generation.load(Relaxed),
            digest: status.digest(),
            loaded: status.last_success.load(Relaxed),
            reload_failures: status.reload_failures.load(Relaxed),
            reload_error: status.last_error(),
        },
        memory: Memory {
            held_bytes: status.account.held(),
            max_bytes: status.account.max(),
            resident_bytes: usage.as_ref().map(|usage| usage.resident_bytes),
        },
        cpu_seconds: usage.as_ref().map(|usage| usage.cpu_seconds),
        open_files: usage.as_ref().map(|usage| usage.open_files),
        open_files_max: status.open_files_max.load(Relaxed),
        open_files_reserved: status.open_files_reserved.load(Relaxed),
        lookups: Table([("success", found.load(Relaxed)), ("failure", failed.load(Relaxed))]),
        log_lines_lost: Table(crate::log::lost()),
        workers: status
            .workers
            .iter()
            .map(|worker| Worker {
                busy_seconds: seconds(worker.passes.sum()),
                passes: (&Durations::of([&worker.passes])).into(),
            })
            .collect(),
    }
}

fn of_pool<'s>(pool: &'s PoolStatus, rings: &Rings, asked: &Asked<'_>) -> Pool<'s> {
    let (config, counters) = (&pool.config, &pool.counters);
    let ring = rings.of(pool);
    let standings = pool.standings.snapshot();
    let (mut errors, mut durations) = (Errors::default(), Durations::default());
    let mut shards = Vec::with_capacity(pool.topology.shards().len());
    for index in 0..pool.topology.shards().len() {
        let own = (Errors::of(counters, index), latency_of(counters, index));
        errors.add(&own.0);
        durations.add(&own.1);
        let share = ring.shares.get(index).and_then(Option::as_ref);
        let standing = standings.get(&pool.topology.shards()[index].name);
        shards.push(of_shard(pool, index, standing, share, own));
    }
    let is_up = |shard: &Shard<'_>| shard.state == State::Up;
    let shards_up = shards.iter().filter(|shard| is_up(shard)).count();
    if shards.len() > asked.shards {
        let requests =
            |shard: &Shard<'_>| counters.sum_shard(shard.metrics.1, |shard| shard.requests.get() as i64);
        shards.sort_by_cached_key(|shard| (is_up(shard), Reverse(requests(shard))));
        shards.truncate(asked.shards);
    }
    let all = |number: fn(&crate::metrics::ShardCounters) -> i64| -> i64 {
        (0..pool.topology.shards().len()).map(|shard| counters.sum_shard(shard, number)).sum()
    };
    let is_cluster = config.cluster().is_some();
    Pool {
        name: &config.name,
        protocol: worker::about(config.protocol).name,
        mode: if is_cluster { "cluster" } else { config.distribution.name() },
        hash: (!is_cluster).then(|| config.key_hash.name()),
        listen: config.listens(),
        listeners: pool.listeners.iter().map(Listener::from).collect(),
        listening: pool.listening,
        tls: config.listeners.iter().all(|listener| listener.tls.is_some()),
        shard_tls: config.servers_tls.is_some(),
        auto_eject_hosts: config.auto_eject_hosts,
        epoch: pool.epoch,
        worker_epochs: counters.workers().iter().map(|worker| worker.epoch.get()).collect(),
        servers_error: pool.source_error.as_deref(),
        shards_awaited: &pool.ring.awaited,
        shards_left_out: &pool.ring.left_out,
        shards_total: pool.topology.shards().len(),
        shards_up,
        metrics: Numbers(counters),
        disconnects: Table(DISCONNECTS.map(|(reason, number)| (reason, counters.sum(number)))),
        commands: Commands(pool),
        errors,
        latency: (&durations).into(),
        queue: Queue {
            requests: all(|shard| shard.in_queue.get()),
            bytes: all(|shard| shard.in_queue_bytes.get()),
            in_flight_requests: all(|shard| shard.out_queue.get()),
            in_flight_bytes: all(|shard| shard.out_queue_bytes.get()),
        },
        cluster: is_cluster.then(|| Cluster {
            slots_covered: pool.map.covered(),
            slots_total: SLOTS,
            epoch: pool.map.members.iter().map(|member| member.epoch).max().unwrap_or(0),
            refreshes: Table([("success", pool.refreshes[0]), ("failure", pool.refreshes[1])]),
            redirects: Table(REDIRECTS.map(|(kind, number)| (kind, counters.sum(number)))),
        }),
        clients: of_clients(counters.workers().iter().map(|worker| worker.peers.snapshot()), asked.clients),
        shards,
    }
}

fn latency_of(counters: &Counters, shard: usize) -> Durations {
    Durations::of(counters.of_shard(shard).map(|shard| &shard.latency))
}

fn of_shard<'s>(
    pool: &'s PoolStatus,
    index: usize,
    standing: Option<&Standing>,
    share: Option<&Share>,
    (errors, latency): (Errors, Durations),
) -> Shard<'s> {
    let shard_discovery::Shard { name, address, weight, .. } = &pool.topology.shards()[index];
    let record = &pool.records[index];
    let state = match pool.is_healthy(index) {
        true => State::Up,
        false if pool.ejected.binary_search(&index).is_ok() => State::Ejected,
        false => State::Down,
    };
    // What the log was told may be a moment older than what the workers have seen.
    let (reason, since) = match standing {
        Some(Standing { reason, since, .. }) if reason.is_none() == (state == State::Up) => {
            (reason.as_deref().map(str::to_owned), Some(*since))
        }
        _ => (None, (state == State::Up).then_some(record.since)),
    };
    let since = if state == State::Ejected { Some(record.ejected_at / 1000) } else { since };
    let resolved = match address {
        Address::Tcp { host, .. } if host.parse::<std::net::IpAddr>().is_err() => pool.names.known(host),
        _ => Vec::new(),
    };
    let member = pool.config.cluster().and_then(|_| pool.map.members.get(index));
    Shard {
        name,
        address: address.to_string(),
        resolved,
        state,
        since: since.map(in_seconds),
        reason,
        weight: *weight,
        points: share.map_or(0, |share| share.points),
        share: share.map_or(0.0, |share| share.share),
        ejections: record.ejections,
        ejections_withheld: record.withheld,
        node: member.map(|member| Node {
            id: &member.id,
            epoch: member.epoch,
            slots: &member.slots,
            replica_of: member.replica_of.map(|primary| pool.map.members[primary].id.as_str()),
        }),
        errors,
        latency: (&latency).into(),
        metrics: ShardNumbers(&pool.counters, index),
    }
}

/// Where clients come from: the addresses with most of them, and how many others there are.
fn of_clients(books: impl Iterator<Item = Book>, most: usize) -> Clients {
    let (mut all, mut uncounted) = (HashMap::new(), 0);
    for Book { known, others } in books {
        uncounted += u64::from(others);
        for (address, count) in known {
            *all.entry(address).or_default() += u64::from(count);
        }
    }
    let total = all.values().sum::<u64>() + uncounted;
    let mut by_address: Vec<_> =
        all.into_iter().map(|(address, clients)| ByAddress { address, clients }).collect();
    by_address.sort_unstable_by_key(|row| (Reverse(row.clients), row.address));
    let others = by_address.split_off(most.min(by_address.len()));
    let clients = others.iter().map(|row| row.clients).sum::<u64>() + uncounted;
    Clients { total, by_address, others: Others { addresses: others.len(), clients } }
}

fn of_reload(record: &ReloadRecord) -> Reload {
    let ReloadRecord { time, trigger, end, times } = record;
    let mut told = Reload {
        time: in_seconds(*time),
        trigger: trigger.clone(),
        times: *times,
        result: "unchanged",
        generation: None,
        error: None,
        changes: Vec::new(),
        more_changes: 0,
    };
    match end {
        End::Unchanged => {}
        End::Failed(why) => (told.result, told.error) = ("failed", Some(why.clone())),
        End::Applied { generation, changes, more } => {
            (told.result, told.generation, told.more_changes) = ("applied", Some(*generation), *more);
            let of = |Difference { pool, what, before, after }: &Difference| Changed {
                pool: pool.clone(),
                what: what.clone(),
                before: before.clone(),
                after: after.clone(),
            };
            told.changes = changes.iter().map(of).collect();
        }
    }
    told
}

fn in_seconds(millis: u64) -> f64 {
    millis as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn books(counts: &[(u8, u32)], others: u32) -> Book {
        let known = counts.iter().map(|&(last, count)| (Some(IpAddr::from([10, 0, 0, last])), count));
        Book { known: known.collect(), others }
    }

    #[test]
    fn the_addresses_with_most_clients_are_told_and_how_many_others_there_are() {
        let [first, second] = [books(&[(1, 1), (2, 5), (3, 2)], 1), books(&[(1, 3), (4, 1)], 2)];
        let clients = of_clients([first, second].into_iter(), 2);
        let told: Vec<_> = clients.by_address.iter().map(|row| row.clients).collect();
        assert_eq!((clients.total, &told[..]), (15, &[5, 4][..]));
        assert_eq!((clients.others.addresses, clients.others.clients), (2, 6));
        let none = of_clients(std::iter::empty(), 2);
        assert_eq!((none.total, none.by_address.len(), none.others.clients), (0, 0, 0));
    }

    #[test]
    fn what_is_asked_for_stands_in_the_query() {
        let query = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let all = query(&[]);
        let asked = Asked::of(&all).expect("nothing is wrong");
        assert_eq!((asked.pool, asked.shards, asked.clients), (None, usize::MAX, CLIENTS));
        let some = query(&[("pool", "a"), ("shards", "3"), ("clients", "99999999")]);
        let asked = Asked::of(&some).expect("nothing is wrong");
        assert_eq!((asked.pool, asked.shards, asked.clients), (Some("a"), 3, CLIENTS_MAX));
        assert!(Asked::of(&query(&[("shards", "-1")])).is_err());
    }

    #[test]
    fn each_number_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = NUMBERS.iter().map(|row| short(row.0, OF_POOL)).collect();
        assert_eq!(names.len(), NUMBERS.len());
        assert!(SHARD_NUMBERS.iter().all(|row| row.0.starts_with(OF_SHARD)));
    }
}
