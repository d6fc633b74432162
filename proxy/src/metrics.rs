//! Counters. Each has one writer, the worker that owns it, and is added up by whoever asks.
//!
//! A relaxed load and store is all an increment costs: no locked instruction, no shared cache line.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::failure::ShardFailure;
use crate::peers::Peers;

/// A number that only grows. One thread writes, any may read.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it. Only the owner may.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Overwrites it. Only the owner may.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Its value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down. One thread writes, any may read.
#[derive(Default, Debug)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Overwrites it. Only the owner may, or whoever makes it a number that holds for all.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Adds to it, or takes away. Only the owner may.
    #[inline]
    pub fn add(&self, amount: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Its value now.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// How often something took how long, by powers of two. One thread writes, any may read.
#[derive(Default, Debug)]
pub struct Histogram {
    buckets: [Counter; Self::BOUNDS + 1],
    sum: Counter,
}

impl Histogram {
    /// How many bounds there are; what took longer than the last has a bucket of its own.
    pub const BOUNDS: usize = 18;
    /// The first bound is so many binary digits long: 64 us. The last is 8.4 s.
    const FIRST: u32 = 6;

    /// One more that took so many microseconds. Only the owner may.
    #[inline]
    pub fn record(&self, micros: u64) {
        let digits = u64::BITS - (micros.saturating_sub(1) | ((1 << Self::FIRST) - 1)).leading_zeros();
        self.buckets[((digits - Self::FIRST) as usize).min(Self::BOUNDS)].add(1);
        self.sum.add(micros);
    }

    /// The longest time, in microseconds, that is counted in the bucket.
    pub const fn bound(bucket: usize) -> u64 {
        1 << (bucket as u32 + Self::FIRST)
    }

    /// How many are counted in each bucket; the last has no bound.
    pub fn counts(&self) -> [u64; Self::BOUNDS + 1] {
        std::array::from_fn(|bucket| self.buckets[bucket].get())
    }

    /// The sum of all, in microseconds.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }
}

/// What several histograms have counted together.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Durations {
    /// As [`Histogram::counts`].
    pub counts: [u64; Histogram::BOUNDS + 1],
    /// The sum of all, in microseconds.
    pub sum: u64,
}

impl Durations {
    /// What these have counted.
    pub fn of<'h>(parts: impl IntoIterator<Item = &'h Histogram>) -> Self {
        parts.into_iter().fold(Self::default(), |mut all, part| {
            all.add(&Self { counts: part.counts(), sum: part.sum() });
            all
        })
    }

    /// And these.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time, in microseconds, that this share of them did not exceed; none if there are none. Within a bucket times are
    /// taken to be spread evenly, as Prometheus' `histogram_quantile` does; beyond the last bound it is that.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let rank = share * self.count() as f64;
        let mut below = 0;
        for (bucket, &count) in self.counts.iter().enumerate() {
            if count > 0 && (below + count) as f64 >= rank {
                let least = if bucket == 0 { 0 } else { Histogram::bound(bucket - 1) };
                if bucket == Histogram::BOUNDS {
                    return Some(least);
                }
                let part = (rank - below as f64) / count as f64;
                return Some(least + ((Histogram::bound(bucket) - least) as f64 * part.max(0.0)) as u64);
            }
            below += count;
        }
        None
    }
}

/// What a worker counts of itself.
#[derive(Default, Debug)]
pub struct WorkerCounters {
    /// How long its passes took: from being woken to sleeping again. Their sum is the time it was busy.
    pub passes: Histogram,
    /// Passes ended.
    pub passed: Counter,
}

/// Kinds of commands that requests are counted by.
pub const FAMILIES_MAX: usize = 16;

/// What one worker counts of one pool. Those of clients up to `fragments` are Twemproxy's, by its names.
#[derive(Default, Debug)]
pub struct PoolCounters {
    /// The epoch of the topology by which this worker chooses shards.
    pub epoch: Counter,
    /// Clients that closed their connection.
    pub client_eof: Counter,
    /// Clients whose connection broke.
    pub client_err: Counter,
    /// Clients connected now.
    pub client_connections: Gauge,
    /// Clients that ever connected.
    pub client_connections_total: Counter,
    /// Clients connected now, by address.
    pub peers: Peers,
    /// Error replies that the proxy made because a shard could not serve the request.
    pub forward_error: Counter,
    /// Fragments of split requests sent to shards.
    pub fragments: Counter,
    /// Requests read from clients.
    pub requests: Counter,
    /// Bytes read from clients.
    pub client_received_bytes: Counter,
    /// Bytes written to clients.
    pub client_sent_bytes: Counter,
    /// The same by the kind of command, as the protocol numbers them.
    pub families: [Counter; FAMILIES_MAX],
    /// Requests refused: unknown or unsupported command, bad arguments, keys on several shards.
    pub refused: Counter,
    /// Transactions sent to shards, or answered by the proxy alone.
    pub transactions: Counter,
    /// Requests queued for one.
    pub transaction_requests: Counter,
    /// Transactions given up because they were too large.
    pub transactions_too_large: Counter,
    /// Clients closed because they sent bytes that are no request.
    pub client_malformed: Counter,
    /// Clients closed because their replies exceeded `client_output_max`.
    pub client_output_exceeded: Counter,
    /// Clients closed because messages exceeded `subscriber_output_max`, or `subscriber_output_soft_max` for too long.
    pub subscriber_output_exceeded: Counter,
    /// Clients closed because they may have missed messages.
    pub subscriber_gap: Counter,
    /// Requests refused because serving them would have taken more than `memory_max` allows.
    pub out_of_memory: Counter,
    /// Clients closed because they held most when more than `memory_max` was held.
    pub client_evicted: Counter,
    /// Clients closed because they sent nothing or took no reply for `client_idle_timeout`, or an unfinished request for
    /// `client_request_timeout`.
    pub client_timedout: Counter,
    /// Clients closed because they reached `client_age_max`.
    pub client_aged: Counter,
    /// Clients that said QUIT.
    pub client_quit: Counter,
    /// Clients closed because another client asked for it.
    pub client_killed: Counter,
    /// Clients closed because the process, or the pool, was drained.
    pub client_drained: Counter,
    /// Clients closed because their shard was lost in the middle of a reply.
    pub client_cut: Counter,
    /// Clients closed because the password they were let in with is another one now.
    pub client_revoked: Counter,
    /// Wrong passwords that clients have said.
    pub wrong_passwords: Counter,
    /// Kinds of shard connections in use: one for each database and protocol version.
    pub lanes: Gauge,
    /// Requests refused because they would have needed one more.
    pub lanes_refused: Counter,
    /// Clients refused because `client_connections` was reached.
    pub client_refused: Counter,
    /// Clients that have shaken hands by TLS.
    pub tls_handshakes: Counter,
    /// Clients that did not, in time or at all.
    pub tls_failed: Counter,
    /// Requests that found their shard's queue full and had to wait.
    pub queue_waits: Counter,
    /// Requests answered with an error because the queue stayed full.
    pub queue_full: Counter,
    /// Times the requests of a client had to wait because it had too much in flight, or too many replies waited for it.
    pub client_pauses: Counter,
    /// Times a client took none of the replies that waited for it for 5 s.
    pub client_wedged: Counter,
    /// Clients that listen to channels.
    pub subscribers: Gauge,
    /// Messages that shards have sent because somebody listens.
    pub messages: Counter,
    /// The same, once for each client that they were handed to.
    pub messages_delivered: Counter,
    /// Messages passed over because they are larger than what may wait for a client.
    pub messages_dropped: Counter,
    /// Times a shard was lost that was listened to: what was published until it was there again is lost.
    pub message_gaps: Counter,
    /// Requests that a node of a cluster sent to who owns their slot now.
    pub redirects_moved: Counter,
    /// Requests that a node of a cluster sent to who is about to own their slot.
    pub redirects_ask: Counter,
    /// Requests that a node of a cluster could not serve for the moment.
    pub redirects_later: Counter,
    /// Of all these, those whose client got the node's error after all.
    pub redirects_given_up: Counter,
    /// Requests that were sent again because their shard had ended their wait for data.
    pub blocked_repeated: Counter,
    /// Clients that wait for data on several shards.
    pub blocked_wide: Gauge,
    /// Clients that wait for replicas.
    pub blocked_confirming: Gauge,
    /// Elements that were taken for such a client and that nobody has got, because it was gone by then.
    pub blocked_lost: Counter,
    /// Times clients began to watch keys.
    pub watches: Counter,
    /// Values that were brought to a key of another shard.
    pub transfers: Counter,
    /// Requests for that which have failed, at whatever step.
    pub transfers_failed: Counter,
    /// Times keys were watched no more though their client had not said so: their shard was lost, they have another owner, or
    /// nothing was asked for too long.
    pub watches_lost: Counter,
    /// Clients that have asked to be told of changes of keys (CLIENT TRACKING).
    pub tracking_clients: Gauge,
    /// Keys of which such clients are to be told.
    pub tracked_keys: Gauge,
    /// Beginnings of keys of which clients are to be told whatever they have read.
    pub tracked_prefixes: Gauge,
    /// Times a client was told that it is not to use what it has of some keys.
    pub invalidations: Counter,
    /// The same of all keys, because their shard was lost, flushed or is not their owner any more.
    pub invalidations_of_all: Counter,
    /// Keys that clients were told of though nothing has changed, because there was no room for all of them.
    pub tracked_evicted: Counter,
    /// Keys that clients were told of as they read them, because nobody would tell them of changes.
    pub reads_untracked: Counter,
    /// Transactions that shards have not executed because a watched key had changed.
    pub watch_conflicts: Counter,
    /// Scripts that shards were sent before a request that names them.
    pub scripts_loaded: Counter,
    /// Requests that were sent again because their shard did not know a script any more that it was sent.
    pub scripts_repaired: Counter,
    /// Scripts that were forgotten because there was no room for all of them.
    pub scripts_forgotten: Counter,
    /// Requests that took as long as slow ones do.
    pub slow: Counter,
    /// Of these, those that the slow log has no entry of: others were slow in the same moment, or they have only waited behind others at
    /// their shard.
    pub slow_passed_over: Counter,
    /// Requests that the access log does not have because too many were to be in it.
    pub access_passed_over: Counter,
    /// Connections for requests that wait for data which were made later, because many were made shortly before.
    pub blocked_delayed: Counter,
    /// Requests refused because `blocked_max` clients had connections of their shard to themselves.
    pub blocked_refused: Counter,
    /// Requests for events of keys that the control thread, which alone counts them, has refused: shards had just refused such flags, or
    /// too many waited.
    pub events_refused: Counter,
    /// Commands that the shards have told of and that no row of ours has; the control thread sets it.
    pub learnt_commands: Gauge,
    /// Shards that have another number of libraries of functions than most; the control thread sets it.
    pub function_differences: Gauge,
    /// Libraries of functions that the control thread has brought to shards that had none.
    pub libraries_brought: Counter,
    /// Commands that a shard has told of and that were not learnt; the control thread sets it.
    pub passed_over_commands: Gauge,
}

/// What all workers count of one pool, in the hands of one of them: it reads as that one's own.
#[derive(Clone, Debug)]
pub struct Counters {
    own: Arc<PoolCounters>,
    worker: usize,
    all: Arc<[Arc<PoolCounters>]>,
    /// For each worker and shard, in the order of the topology.
    shards: Arc<[Vec<Arc<ShardCounters>>]>,
    /// What there was of those that clients may reset when one did so last.
    before: Arc<[Gauge; RESETTABLE]>,
}

/// What is counted at one listener of a pool. The control thread writes.
#[derive(Default, Debug)]
pub struct ListenerCounters {
    /// Connections that were accepted, those too that were refused then.
    pub accepted: Counter,
    /// Of these, those that have shaken hands by TLS.
    pub tls_handshakes: Counter,
    /// And those that did not, in time or at all.
    pub tls_failed: Counter,
}

/// What is counted from when a client has reset it, for who asks as a client. (Metrics go on.)
#[derive(Clone, Copy, Debug)]
pub enum Resettable {
    /// Requests read from clients.
    Requests,
    /// Clients that ever connected.
    Connections,
    /// Errors that the proxy made.
    Errors,
}

const RESETTABLE: usize = Resettable::Errors as usize + 1;

impl Resettable {
    const ALL: [Self; RESETTABLE] = [Self::Requests, Self::Connections, Self::Errors];

    fn of(self, counters: &PoolCounters) -> i64 {
        let counter = match self {
            Self::Requests => &counters.requests,
            Self::Connections => &counters.client_connections_total,
            Self::Errors => &counters.forward_error,
        };
        counter.get() as i64
    }
}

impl Counters {
    /// For each worker its own, of a pool of so many shards; all zero.
    pub fn of_workers(workers: usize, shards: usize) -> Vec<Self> {
        let all = (0..workers).map(|_| Arc::default()).collect();
        let shards = (0..workers).map(|_| (0..shards).map(|_| Arc::default()).collect()).collect();
        Self::deal(&all, &shards, &Arc::default())
    }

    /// For each worker its own, of the same pool with another list of shards. `kept` says for each shard of the new
    /// list which of the present one it is; what was counted of that goes on.
    pub fn with_shards(&self, kept: &[Option<usize>]) -> Vec<Self> {
        let of_worker = |present: &Vec<Arc<ShardCounters>>| {
            kept.iter().map(|kept| kept.map_or_else(Arc::default, |kept| present[kept].clone())).collect()
        };
        Self::deal(&self.all, &self.shards.iter().map(of_worker).collect(), &self.before)
    }

    fn deal(
        all: &Arc<[Arc<PoolCounters>]>,
        shards: &Arc<[Vec<Arc<ShardCounters>>]>,
        before: &Arc<[Gauge; RESETTABLE]>,
    ) -> Vec<Self> {
        let own = |(worker, own): (usize, &Arc<PoolCounters>)| Self {
            own: own.clone(),
            worker,
            all: all.clone(),
            shards: shards.clone(),
            before: before.clone(),
        };
        all.iter().enumerate().map(own).collect()
    }

    /// What this worker counts of each shard, in the order of the topology.
    pub fn shards(&self) -> &[Arc<ShardCounters>] {
        &self.shards[self.worker]
    }

    /// Those of each worker.
    pub fn workers(&self) -> &[Arc<PoolCounters>] {
        &self.all
    }

    /// A number over all workers.
    pub fn sum(&self, number: impl Fn(&PoolCounters) -> i64) -> i64 {
        self.all.iter().map(|counters| number(counters)).sum()
    }

    /// A number over all workers since a client has reset it.
    pub fn since_reset(&self, what: Resettable) -> i64 {
        // Another worker may have counted on since, or reset it.
        (self.sum(|counters| what.of(counters)) - self.before[what as usize].get()).max(0)
    }

    /// These begin at zero again, for who asks as a client.
    pub fn reset(&self) {
        for what in Resettable::ALL {
            self.before[what as usize].set(self.sum(|counters| what.of(counters)));
        }
    }

    /// What each worker counts of one shard.
    pub fn of_shard(&self, shard: usize) -> impl Iterator<Item = &ShardCounters> {
        self.shards.iter().map(move |shards| &*shards[shard])
    }

    /// A number of one shard over all workers.
    pub fn sum_shard(&self, shard: usize, number: impl Fn(&ShardCounters) -> i64) -> i64 {
        self.of_shard(shard).map(number).sum()
    }
}

impl Deref for Counters {
    type Target = PoolCounters;

    #[inline]
    fn deref(&self) -> &PoolCounters {
        &self.own
    }
}

/// What one worker counts of one shard, by Twemproxy's names.
#[derive(Default, Debug)]
pub struct ShardCounters {
    /// Connections the shard closed.
    pub server_eof: Counter,
    /// Connections that broke or could not be made.
    pub server_err: Counter,
    /// Requests that got no response in time.
    pub server_timedout: Counter,
    /// Requests that the shard could not serve, by [`ShardFailure::reason`].
    pub failures: [Counter; ShardFailure::REASONS.len()],
    /// 1 while its last event was a failure.
    pub failing: Gauge,
    /// From queueing a request to its response.
    pub latency: Histogram,
    /// Connections open now.
    pub server_connections: Gauge,
    /// Connections that were ever opened.
    pub server_connections_total: Counter,
    /// Connections that one client has to itself, or may have, and those that are being made for that.
    pub private_connections: Gauge,
    /// Of these, those that a client has now.
    pub private_held: Gauge,
    /// Of these, those on which a request waits for data.
    pub blocked_clients: Gauge,
    /// Of these, those on which keys are watched.
    pub watching_clients: Gauge,
    /// Clients that wait for data on it and on other shards, without a connection of their own.
    pub wide_clients: Gauge,
    /// Requests sent to the shard, fragments included.
    pub requests: Counter,
    /// Their bytes.
    pub request_bytes: Counter,
    /// Responses received.
    pub responses: Counter,
    /// Their bytes.
    pub response_bytes: Counter,
    /// Requests that wait to be written.
    pub in_queue: Gauge,
    /// Their bytes.
    pub in_queue_bytes: Gauge,
    /// Requests written and not yet answered.
    pub out_queue: Gauge,
    /// Their bytes.
    pub out_queue_bytes: Gauge,
    /// Pieces of large responses that went to their client before the rest had come.
    pub streamed: Counter,
    /// Responses that came after their request had been answered with a timeout.
    pub late_responses: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_at_its_bound() {
        for bucket in 0..Histogram::BOUNDS {
            for (micros, expected) in
                [(Histogram::bound(bucket), bucket), (Histogram::bound(bucket) + 1, bucket + 1)]
            {
                let histogram = Histogram::default();
                histogram.record(micros);
                assert_eq!(histogram.counts()[expected], 1, "{micros} us");
            }
        }
        let histogram = Histogram::default();
        histogram.record(0);
        histogram.record(u64::MAX / 2);
        assert_eq!((histogram.counts()[0], histogram.counts()[Histogram::BOUNDS]), (1, 1));
    }

    #[test]
    fn quantiles_are_between_the_bounds_of_their_bucket() {
        let [fast, slow] = [(); 2].map(|()| Histogram::default());
        assert_eq!(Durations::of([&fast, &slow]).quantile(0.5), None);
        (0..90).for_each(|_| fast.record(10));
        (0..10).for_each(|_| slow.record(1000));
        let both = Durations::of([&fast, &slow]);
        assert_eq!((both.count(), both.sum), (100, 10_900));
        let at = |share| both.quantile(share).expect("there are some");
        assert_eq!([0.0, 0.45, 0.9, 0.95, 1.0].map(at), [0, 32, 64, 768, 1024]);
        slow.record(u64::MAX / 2);
        assert_eq!(Durations::of([&slow]).quantile(1.0), Some(Histogram::bound(Histogram::BOUNDS - 1)));
    }
}
