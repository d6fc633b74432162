//! The figures of the last 15 minutes, for the page's charts: a sample every few seconds, kept in the process, so that they
//! are there before anybody looks, and without a Prometheus.
//!
//! It is taken on this thread from the counters of the metrics. Each pool has its series. Of the shards only so many have them
//! as [`SHARDS_MAX`]: where there are more, those that fail, and those on which requests spent most time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shard_discovery::Topology;

use crate::account::Account;
use crate::failure::ShardFailure;
use crate::metrics::{Counter, Counters, Histogram, PoolCounters, ShardCounters, WorkerCounters};
use crate::status::{PoolStatus, Status};
use series::{Rows, quantile};

mod series;
mod write;

/// Time between two samples.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Samples that are kept: those of 15 minutes.
pub const SAMPLES_MAX: usize = 180;
/// Pools that have series; the first ones.
const POOLS_MAX: usize = 64;
/// Shards of all pools that have series.
const SHARDS_MAX: usize = 256;
/// At most this part of `memory_max` is for series of shards.
const MEMORY_PART: usize = 64;
/// Samples for which a shard that is not among the foremost keeps its place: its chart is to be read before it goes.
const KEPT_FOR: u64 = 36;

/// Series of the process.
const OF_PROCESS: [&str; 3] = ["worker_busy_max", "worker_busy_mean", "memory_held_bytes"];
/// A number of a pool that only grows.
type Total = fn(&PoolCounters) -> u64;
/// Growth in a second.
const RATES: [(&str, Total); 7] = [
    ("requests", |pool| pool.requests.get()),
    ("refused", |pool| pool.refused.get()),
    ("failed", |pool| pool.forward_error.get()),
    ("received_bytes", |pool| pool.client_received_bytes.get()),
    ("sent_bytes", |pool| pool.client_sent_bytes.get()),
    ("queue_full", |pool| pool.queue_full.get()),
    ("clients_opened", |pool| pool.client_connections_total.get()),
];
/// What is so at the moment: of the clients, and of all shards together.
const GAUGES: [&str; 5] = ["clients", "queued", "in_flight", "shard_connections", "unhealthy"];
/// Latencies in seconds, from queueing a request to its response.
const LATENCIES: [(&str, f64); 3] = [("latency_p50", 0.5), ("latency_p90", 0.9), ("latency_p99", 0.99)];
/// Series of a pool: the above, then failures of shards in a second, by reason.
const OF_POOL: usize = RATES.len() + GAUGES.len() + LATENCIES.len() + ShardFailure::REASONS.len();
/// Series of a shard.
const OF_SHARD: [&str; 7] =
    ["requests", "failures", "latency_p50", "latency_p99", "queued", "in_flight", "healthy"];

/// How many took how long, by the buckets of a [`Histogram`].
type Counts = [u64; Histogram::BOUNDS + 1];

/// Everything that was sampled.
#[derive(Default)]
pub struct History {
    /// Samples ever taken.
    taken: u64,
    /// When the last one was, in milliseconds since 1970.
    time: u64,
    last: Option<Instant>,
    /// How long each worker had been busy by then.
    busy: Vec<u64>,
    process: Rows<{ OF_PROCESS.len() }>,
    pools: Vec<OfPool>,
    /// Bytes that the account has been told of.
    told: usize,
}

/// What is kept of a pool.
struct OfPool {
    name: String,
    topology: Arc<Topology>,
    /// What was counted at the last sample.
    rates: [u64; RATES.len()],
    failures: [u64; ShardFailure::REASONS.len()],
    latency: Counts,
    /// The same of each shard, in the order of the topology.
    shards: Vec<ShardTotals>,
    rows: Rows<OF_POOL>,
    /// Shards that have series.
    followed: Vec<OfShard>,
}

#[derive(Clone, Copy, Default)]
struct ShardTotals {
    requests: u64,
    failures: u64,
    /// Microseconds that requests spent on it.
    spent: u64,
}

/// What is kept of a shard.
struct OfShard {
    /// Its place in the topology.
    index: usize,
    latency: Counts,
    rows: Rows<{ OF_SHARD.len() }>,
    /// The last sample in which it was among the foremost.
    foremost: u64,
}

/// How a shard did since the last sample. The more of it, the more it is worth looking at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Interest {
    fails: bool,
    spent: u64,
}

/// A pool as it is now.
struct Look<'s> {
    name: &'s str,
    topology: &'s Arc<Topology>,
    counters: &'s Counters,
    healthy: Vec<bool>,
}

impl<'s> Look<'s> {
    fn at(pool: &'s PoolStatus) -> Self {
        let healthy = (0..pool.topology.shards().len()).map(|shard| pool.is_healthy(shard)).collect();
        Self { name: &pool.config.name, topology: &pool.topology, counters: &pool.counters, healthy }
    }
}

impl History {
    /// One more sample.
    pub fn sample(&mut self, status: &Status, now: Instant) {
        let pools = status.pools();
        let looks: Vec<Look<'_>> = pools.iter().take(POOLS_MAX).map(Look::at).collect();
        self.take(&looks, &status.workers, &status.account, now);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.time = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    }

    fn take(&mut self, pools: &[Look<'_>], workers: &[Arc<WorkerCounters>], account: &Account, now: Instant) {
        let number = self.taken;
        self.taken += 1;
        let elapsed = self.last.replace(now).map(|last| now.saturating_duration_since(last).as_secs_f64());
        let busy: Vec<u64> = workers.iter().map(|worker| worker.passes.sum()).collect();
        let shares = busy.iter().zip(&self.busy).map(|(now, then)| {
            elapsed.map_or(f64::NAN, |elapsed| now.saturating_sub(*then) as f64 / 1e6 / elapsed)
        });
        let (mut max, mut sum) = (f64::NAN, 0.0);
        for share in shares {
            max = share.max(max);
            sum += share;
        }
        let mean = if self.busy.is_empty() { f64::NAN } else { sum / busy.len() as f64 };
        self.busy = busy;
        self.process.push(number, [max, mean, account.held() as f64].map(|value| value as f32));

        let mut before: HashMap<String, OfPool> =
            self.pools.drain(..).map(|pool| (pool.name.clone(), pool)).collect();
        let room = account.max() / MEMORY_PART / (SAMPLES_MAX * size_of::<[f32; OF_SHARD.len()]>());
        let places = SHARDS_MAX.min(room) / pools.len().max(1);
        for look in pools {
            let mut pool = before.remove(look.name).unwrap_or_else(|| OfPool::new(look));
            pool.take(look, number, elapsed, places.max(1));
            self.pools.push(pool);
        }
        self.tell(account);
    }

    /// Tells the account what is held now.
    fn tell(&mut self, account: &Account) {
        let held = self.pools.iter().map(OfPool::bytes).sum::<usize>() + self.process.bytes();
        account.change(self.told, held);
        self.told = held;
    }
}

impl OfPool {
    fn new(look: &Look<'_>) -> Self {
        Self {
            name: look.name.to_owned(),
            topology: look.topology.clone(),
            rates: RATES.map(|(_, number)| total(look.counters, number)),
            failures: [0; ShardFailure::REASONS.len()],
            latency: Counts::default(),
            shards: vec![ShardTotals::default(); look.topology.shards().len()],
            rows: Rows::default(),
            followed: Vec::new(),
        }
    }

    fn bytes(&self) -> usize {
        let shards = self.followed.iter().map(|shard| size_of::<OfShard>() + shard.rows.bytes());
        self.name.len()
            + self.shards.capacity() * size_of::<ShardTotals>()
            + self.rows.bytes()
            + shards.sum::<usize>()
    }

    /// The shards are those of another list now.
    fn adopt(&mut self, topology: &Arc<Topology>) {
        let places: HashMap<&str, usize> =
            self.topology.shards().iter().enumerate().map(|(index, shard)| (&*shard.name, index)).collect();
        let now: HashMap<usize, usize> = topology
            .shards()
            .iter()
            .enumerate()
            .filter_map(|(index, shard)| Some((*places.get(&*shard.name)?, index)))
            .collect();
        let mut shards = vec![ShardTotals::default(); topology.shards().len()];
        now.iter().for_each(|(&then, &now)| shards[now] = self.shards[then]);
        self.shards = shards;
        self.followed.retain_mut(|shard| {
            let place = now.get(&shard.index).copied();
            shard.index = place.unwrap_or_default();
            place.is_some()
        });
        self.topology = topology.clone();
    }

    /// One more sample; `elapsed` seconds after the last one.
    fn take(&mut self, look: &Look<'_>, number: u64, elapsed: Option<f64>, places: usize) {
        // What is summed over shards says nothing where they are others than before.
        let mut is_comparable = elapsed.is_some() && !self.rows.is_empty();
        if !Arc::ptr_eq(&self.topology, look.topology) {
            let names = |topology: &Topology| -> Vec<Arc<str>> {
                topology.shards().iter().map(|shard| shard.name.as_str().into()).collect()
            };
            is_comparable &= names(&self.topology) == names(look.topology);
            self.adopt(look.topology);
        }
        let per_second = |grown: u64| elapsed.map_or(f64::NAN, |elapsed| grown as f64 / elapsed);

        let mut row = [f32::NAN; OF_POOL];
        let mut columns = row.iter_mut();
        let mut put = |value: f64| {
            if let Some(column) = columns.next() {
                *column = value as f32;
            }
        };
        for ((_, counter), last) in RATES.into_iter().zip(&mut self.rates) {
            let now = total(look.counters, counter);
            put(if self.rows.is_empty() { f64::NAN } else { per_second(now.saturating_sub(*last)) });
            *last = now;
        }
        let (sums, latency, failures, interests) = self.look_at_shards(look, is_comparable);
        put(look.counters.sum(|pool| pool.client_connections.get()) as f64);
        sums.into_iter().for_each(|sum| put(sum as f64));
        let grown: Counts =
            std::array::from_fn(|bucket| latency[bucket].saturating_sub(self.latency[bucket]));
        for (_, share) in LATENCIES {
            put(if is_comparable { quantile(&grown, share) } else { f64::NAN });
        }
        for (now, last) in failures.iter().zip(&self.failures) {
            put(if is_comparable { per_second(now.saturating_sub(*last)) } else { f64::NAN });
        }
        (self.latency, self.failures) = (latency, failures);
        self.rows.push(number, row);
        self.follow(&interests, look, number, places);
        for shard in &mut self.followed {
            let grown = interests[shard.index].1;
            shard.take(look, number, elapsed.filter(|_| is_comparable), grown);
        }
    }

    /// Goes over all shards once: sums of what is so now, of latencies and failures, and how each did since the last sample.
    #[allow(clippy::type_complexity, reason = "used once, right above")]
    fn look_at_shards(
        &mut self,
        look: &Look<'_>,
        is_comparable: bool,
    ) -> ([i64; GAUGES.len() - 1], Counts, [u64; ShardFailure::REASONS.len()], Vec<(Interest, ShardTotals)>)
    {
        let mut sums = [0; GAUGES.len() - 1];
        let (mut latency, mut failures) = (Counts::default(), [0; ShardFailure::REASONS.len()]);
        let mut interests = Vec::with_capacity(self.shards.len());
        for (index, last) in self.shards.iter_mut().enumerate() {
            let mut now = ShardTotals::default();
            for shard in look.counters.of_shard(index) {
                sums[0] += shard.in_queue.get();
                sums[1] += shard.out_queue.get();
                sums[2] += shard.server_connections.get();
                latency.iter_mut().zip(shard.latency.counts()).for_each(|(sum, more)| *sum += more);
                failures.iter_mut().zip(shard.failures.iter().map(Counter::get)).for_each(|(sum, more)| {
                    *sum += more;
                    now.failures += more;
                });
                now.requests += shard.requests.get();
                now.spent += shard.latency.sum();
            }
            sums[3] += i64::from(!look.healthy[index]);
            let grown = ShardTotals {
                requests: now.requests.saturating_sub(last.requests),
                failures: now.failures.saturating_sub(last.failures),
                spent: now.spent.saturating_sub(last.spent),
            };
            let fails = !look.healthy[index] || (is_comparable && grown.failures > 0);
            interests.push((Interest { fails, spent: grown.spent }, grown));
            *last = now;
        }
        (sums, latency, failures, interests)
    }

    /// Decides which shards have series: all, or as many as there are places.
    fn follow(&mut self, interests: &[(Interest, ShardTotals)], look: &Look<'_>, number: u64, places: usize) {
        let mut foremost: Vec<usize> = (0..interests.len()).collect();
        if foremost.len() > places {
            let by_interest = |shard: &usize| std::cmp::Reverse(interests[*shard].0);
            foremost.select_nth_unstable_by_key(places - 1, by_interest);
            foremost.truncate(places);
            foremost.retain(|&shard| interests[shard].0 > Interest { fails: false, spent: 0 });
        }
        self.followed.truncate(places);
        let known: HashMap<usize, usize> =
            self.followed.iter().enumerate().map(|(place, shard)| (shard.index, place)).collect();
        let mut others = Vec::new();
        for shard in foremost {
            match known.get(&shard) {
                Some(&place) => self.followed[place].foremost = number,
                None => others.push(shard),
            }
        }
        others.sort_by_key(|&shard| std::cmp::Reverse(interests[shard].0));
        for shard in others {
            let new = OfShard::new(shard, look, number);
            if self.followed.len() < places {
                self.followed.push(new);
                continue;
            }
            let least = self
                .followed
                .iter_mut()
                .min_by_key(|followed| (followed.foremost, interests[followed.index].0));
            if let Some(least) = least
                && (least.foremost + KEPT_FOR < number
                    || (interests[shard].0.fails
                        && !interests[least.index].0.fails
                        && least.foremost < number))
            {
                *least = new;
            }
        }
    }
}

impl OfShard {
    fn new(index: usize, look: &Look<'_>, number: u64) -> Self {
        Self { index, latency: latency_of(look, index), rows: Rows::default(), foremost: number }
    }

    fn take(&mut self, look: &Look<'_>, number: u64, elapsed: Option<f64>, grown: ShardTotals) {
        let latency = latency_of(look, self.index);
        let more: Counts = std::array::from_fn(|bucket| latency[bucket].saturating_sub(self.latency[bucket]));
        self.latency = latency;
        let elapsed = elapsed.unwrap_or(f64::NAN);
        let sum = |number: fn(&ShardCounters) -> i64| look.counters.sum_shard(self.index, number) as f64;
        let row = [
            grown.requests as f64 / elapsed,
            grown.failures as f64 / elapsed,
            quantile(&more, 0.5),
            quantile(&more, 0.99),
            sum(|shard| shard.in_queue.get()),
            sum(|shard| shard.out_queue.get()),
            f64::from(u8::from(look.healthy[self.index])),
        ];
        self.rows.push(number, row.map(|value| value as f32));
    }
}

fn total(counters: &Counters, number: Total) -> u64 {
    counters.workers().iter().map(|worker| number(worker)).sum()
}

fn latency_of(look: &Look<'_>, shard: usize) -> Counts {
    let mut counts = Counts::default();
    for shard in look.counters.of_shard(shard) {
        counts.iter_mut().zip(shard.latency.counts()).for_each(|(sum, more)| *sum += more);
    }
    counts
}

#[cfg(test)]
mod tests;
