#![cfg(test)]

use shard_discovery::{Address, DistributionKind, KeyHash, Shard};

use super::*;

fn topology(names: impl IntoIterator<Item = String>) -> Arc<Topology> {
    let shard = |name: String| Shard::new(Address::Tcp { host: name.clone(), port: 1 }, 1, Some(name));
    let shards = names.into_iter().map(shard).collect();
    Arc::new(Topology::new(shards, DistributionKind::Modula, KeyHash::Md5, None).expect("it is one"))
}

/// A pool of so many shards, served by two workers.
struct World {
    account: Arc<Account>,
    workers: Vec<Arc<WorkerCounters>>,
    history: History,
    now: Instant,
    topology: Arc<Topology>,
    counters: Vec<Counters>,
    down: Vec<usize>,
}

impl World {
    fn new(shards: usize) -> Self {
        Self {
            account: Account::new(1 << 30),
            workers: vec![Arc::default(), Arc::default()],
            history: History::default(),
            now: Instant::now(),
            topology: topology((0..shards).map(|shard| format!("s{shard}"))),
            counters: Counters::of_workers(2, shards),
            down: Vec::new(),
        }
    }

    fn sample(&mut self) {
        let healthy = (0..self.topology.shards().len()).map(|shard| !self.down.contains(&shard)).collect();
        let look = Look { name: "p", topology: &self.topology, counters: &self.counters[0], healthy };
        self.history.take(&[look], &self.workers, &self.account, self.now);
        self.now += INTERVAL;
    }

    /// So many requests to the shard, each of which took so long.
    fn serve(&self, shard: usize, count: u64, micros: u64) {
        let counters = &self.counters[(count % 2) as usize];
        counters.requests.add(count);
        counters.shards()[shard].requests.add(count);
        (0..count).for_each(|_| counters.shards()[shard].latency.record(micros));
    }

    fn json(&self, since: Option<u64>) -> serde_json::Value {
        serde_json::from_str(&self.history.json(Some("p"), since)).expect("it is JSON")
    }

    /// The last figure of a series of the pool.
    fn last(&self, kind: &str, name: &str) -> Option<f64> {
        self.json(None)["pools"]["p"][kind][name]
            .as_array()
            .expect("a series")
            .last()
            .expect("a sample")
            .as_f64()
    }

    fn followed(&self) -> Vec<usize> {
        let mut followed: Vec<usize> =
            self.history.pools[0].followed.iter().map(|shard| shard.index).collect();
        followed.sort_unstable();
        followed
    }
}

#[test]
fn rates_and_latencies_are_those_since_the_last_sample() {
    let mut world = World::new(2);
    world.serve(0, 1000, 100);
    world.sample();
    // Nobody knows in which time those came.
    assert_eq!((world.last("series", "requests"), world.last("series", "latency_p50")), (None, None));
    world.serve(0, 90, 100);
    world.serve(1, 10, 5000);
    world.counters[1].shards()[1].failures[5].add(10);
    world.counters[0].shards()[1].in_queue.set(3);
    world.workers[1].passes.record(2_500_000);
    world.down = vec![1];
    world.sample();
    assert_eq!(world.last("series", "requests"), Some(20.0));
    assert_eq!(world.last("failures", "response_timeout"), Some(2.0));
    assert_eq!(world.last("failures", "closed"), Some(0.0));
    assert_eq!((world.last("series", "queued"), world.last("series", "unhealthy")), (Some(3.0), Some(1.0)));
    let p50 = world.last("series", "latency_p50").expect("there were some");
    let p99 = world.last("series", "latency_p99").expect("there were some");
    assert!((64e-6..=128e-6).contains(&p50) && (4096e-6..=8192e-6).contains(&p99), "{p50} {p99}");
    let json = world.json(None);
    let shard = &json["pools"]["p"]["of_shards"]["s1"];
    assert_eq!(
        (shard["failures"][1].as_f64(), shard["healthy"][1].as_f64(), shard["queued"][1].as_f64()),
        (Some(2.0), Some(0.0), Some(3.0))
    );
    assert_eq!(json["process"]["worker_busy_max"][1], 0.5);
    // Nothing more: no latency, and rates of 0.
    world.sample();
    assert_eq!((world.last("series", "requests"), world.last("series", "latency_p99")), (Some(0.0), None));
}

#[test]
fn the_oldest_samples_go_and_who_knows_some_asks_for_the_rest() {
    let mut world = World::new(1);
    for _ in 0..SAMPLES_MAX + 20 {
        world.sample();
    }
    let all = world.json(None);
    assert_eq!((all["from"].as_u64(), all["to"].as_u64()), (Some(20), Some(SAMPLES_MAX as u64 + 20)));
    assert_eq!(all["pools"]["p"]["series"]["clients"].as_array().map(Vec::len), Some(SAMPLES_MAX));
    let rest = world.json(Some(SAMPLES_MAX as u64 + 18));
    assert_eq!(rest["pools"]["p"]["series"]["clients"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        world.json(Some(SAMPLES_MAX as u64 + 20))["pools"]["p"]["series"]["clients"],
        serde_json::json!([])
    );
    // Numbers of a process that has ended since.
    assert_eq!(world.json(Some(u64::MAX))["from"], 20);
    assert_eq!(world.json(Some(3))["from"], 20);
}

#[test]
fn a_removed_shard_takes_its_series_along_and_what_stays_goes_on() {
    let mut world = World::new(3);
    world.sample();
    world.serve(2, 50, 100);
    world.sample();
    assert_eq!(world.followed(), [0, 1, 2]);
    // Topologies of this kind are in the order of the names.
    world.topology = topology(["a", "s0", "s2"].map(Into::into));
    world.counters = world.counters[0].with_shards(&[None, Some(0), Some(2)]);
    world.serve(2, 5, 100);
    world.sample();
    let json = world.json(None);
    let shards = json["pools"]["p"]["of_shards"].as_object().expect("shards");
    assert_eq!(shards.keys().collect::<Vec<_>>(), ["a", "s0", "s2"]);
    // Sums over other shards than before are not compared, what is the pool's own is.
    assert_eq!((world.last("series", "latency_p50"), world.last("series", "requests")), (None, Some(1.0)));
    world.serve(2, 10, 100);
    world.sample();
    let json = world.json(None);
    assert_eq!(json["pools"]["p"]["of_shards"]["s2"]["requests"], serde_json::json!([null, 10, null, 2]));
}

#[test]
fn of_many_shards_those_that_fail_or_take_most_time_are_followed() {
    const SHARDS: usize = 10_000;
    let mut world = World::new(SHARDS);
    world.sample();
    // All places are taken by those that are busy.
    for shard in 0..SHARDS_MAX {
        world.serve(shard, 2, 1000);
    }
    for _ in 0..KEPT_FOR + 2 {
        world.sample();
        for shard in 0..SHARDS_MAX {
            world.serve(shard, 2, 1000);
        }
    }
    assert_eq!(world.followed(), (0..SHARDS_MAX).collect::<Vec<_>>());
    // One that is down comes at once, in the place of one that is not foremost any more.
    world.down = vec![9000];
    world.sample();
    assert!(world.followed().contains(&9000), "{:?}", world.followed());
    assert_eq!(world.followed().len(), SHARDS_MAX);
    // One that is busy for a moment takes nobody's place.
    world.serve(5000, 1000, 1000);
    world.sample();
    assert!(!world.followed().contains(&5000));
    let begun = Instant::now();
    let text = world.history.json(Some("p"), None);
    println!(
        "{SHARDS} shards: {} bytes in {:?}, {} bytes held",
        text.len(),
        begun.elapsed(),
        world.account.held()
    );
    assert!(world.account.held() < 4 << 20, "{}", world.account.held());
}

#[test]
fn where_little_memory_may_be_used_fewer_shards_are_followed() {
    let mut world = World::new(100);
    world.account = Account::new(8 << 20);
    for _ in 0..SAMPLES_MAX + 1 {
        world.sample();
        (0..100).for_each(|shard| world.serve(shard, 1, 100));
    }
    assert!((10..40).contains(&world.followed().len()), "{}", world.followed().len());
    assert!(world.account.held() < (8 << 20) / 25, "{}", world.account.held());
}

#[test]
fn what_is_held_is_in_the_account_and_goes_with_the_pool() {
    let mut world = World::new(100);
    for _ in 0..SAMPLES_MAX * 2 {
        world.sample();
    }
    let held = world.account.held();
    let rows = SAMPLES_MAX * 4 * (OF_POOL + 100 * OF_SHARD.len());
    assert!((rows..rows * 3).contains(&held), "{held} bytes, {rows} in rows");
    world.history.take(&[], &world.workers, &world.account, world.now);
    let rest = world.account.held();
    assert!(rest < 8192, "{rest}");
}

#[test]
fn a_quantile_is_between_the_bounds_of_its_bucket() {
    let mut counts = Counts::default();
    assert!(quantile(&counts, 0.5).is_nan());
    counts[3] = 10;
    assert_eq!(quantile(&counts, 1.0), 512e-6);
    assert_eq!(quantile(&counts, 0.5), 384e-6);
    counts[Histogram::BOUNDS] = 1000;
    assert_eq!(quantile(&counts, 0.99), 8.388608);
}
