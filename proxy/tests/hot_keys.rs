//! Which keys are said to be hot, against what was counted exactly: the core under load, seen by lot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use memstore_proxy::account::Account;
use memstore_proxy::hot::{Found, HotKeys, LARGE_MIN, Report};
use memstore_proxy::pool::{ClientId, Limits};
use memstore_proxy::protocol::Protocol;
use memstore_proxy::protocol::memcache::Memcache;
use memstore_proxy::protocol::resp::Resp;
use world::World;
use world::random::{self, Random};

mod world;

/// A pool of one shard that answers at once.
struct Bench<P: Protocol> {
    world: World<P>,
    hot: Arc<HotKeys>,
    account: Arc<Account>,
    reply: &'static str,
}

impl<P: Protocol<Settings: Default>> Bench<P> {
    fn new(sample: u32, seed: u64, reply: &'static str) -> Self {
        let limits = Limits { hot_keys_sample: sample, request_bytes_max: 1 << 30, ..Limits::default() };
        let topology = Arc::new(world::shards::ring(0..1, None));
        let mut world = World::new(P::Settings::default(), limits, topology, seed);
        let account = Account::new(usize::MAX);
        let hot = Arc::new(HotKeys::new(1, &account));
        world.pool.share_hot_keys(hot.clone());
        world.pool.preconnect();
        world.settle();
        world.wanted_connects();
        Self { world, hot, account, reply }
    }

    /// One pass: each says so much, and hears what the shard has to say.
    fn pass(&mut self, said: &[(ClientId, String)]) {
        self.world.now = self.world.now.plus(Duration::from_micros(50));
        for (client, text) in said {
            self.world.client_sends(*client, text.as_bytes());
        }
        // One that is written as an array comes alone.
        let count = |text: &str| if text.starts_with('*') { 1 } else { text.lines().count() };
        let mut requests: usize = said.iter().map(|(_, text)| count(text)).sum();
        while requests > 0 {
            self.world.settle();
            // Large values have connections of their own.
            while !self.world.wanted.is_empty() {
                self.world.wanted_connects();
            }
            let connections: Vec<_> = self.world.up.iter().copied().collect();
            for at in connections {
                let taken = self.world.shard_takes(at, |length| length);
                // As the proxy writes them: RESP has an array for each, memcached a line.
                let text = String::from_utf8_lossy(&taken).into_owned();
                let count =
                    if text.starts_with('*') { text.matches('*').count() } else { text.lines().count() };
                if count > 0 {
                    self.world.shard_sends(at, self.reply.repeat(count).as_bytes()).expect("responses");
                    requests -= count;
                }
            }
        }
        self.world.settle();
        for (client, _) in said {
            self.world.client_takes(*client, |length| length);
            self.world.judge(*client);
        }
    }

    fn report(&self) -> Report {
        // The world's time begins when the program does.
        self.hot.report_at(usize::MAX, self.world.now)
    }
}

fn name(found: &Found) -> String {
    String::from_utf8_lossy(&found.key.shown).into_owned()
}

/// Ranks with the frequencies of Zipf's law, exponent 1.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(ranks: usize) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=ranks)
                .map(|rank| {
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect(),
        )
    }

    fn next(&self, random: &mut Random) -> usize {
        let at = random.below(1 << 52) as f64 / (1u64 << 52) as f64 * self.0[self.0.len() - 1];
        self.0.partition_point(|&sum| sum < at)
    }
}

/// Clients that come together and apart, with one request and with a hundred, all with keys by Zipf's law: the share of each of the
/// first keys is what was counted exactly, but for what chance explains.
#[test]
fn shares_under_a_zipf_load_are_those_that_were_counted() {
    const SAMPLE: u32 = 10;
    const PASSES: usize = 12_000;
    for seed in random::seeds(2) {
        random::run(seed, || {
            let mut random = Random(seed);
            let zipf = Zipf::new(20_000);
            let mut bench = Bench::<Resp>::new(SAMPLE, seed + 1, "$-1\r\n");
            let clients: Vec<_> =
                (0..8).map(|_| bench.world.pool.client_connected(bench.world.now)).collect();
            let mut exact: HashMap<String, u64> = HashMap::new();
            let mut all = 0u64;
            for _ in 0..PASSES {
                let mut said = Vec::new();
                for &client in clients.iter().filter(|_| random.one_in(3)).collect::<Vec<_>>() {
                    let pipeline = if random.one_in(40) { 100 } else { 1 + random.below(4) };
                    let mut text = String::new();
                    for _ in 0..pipeline {
                        let key = format!("key:{}", zipf.next(&mut random));
                        text.push_str(&format!("GET {key}\r\n"));
                        *exact.entry(key).or_default() += 1;
                        all += 1;
                    }
                    said.push((client, text));
                }
                bench.pass(&said);
            }
            let report = bench.report();
            let rate = report.accesses as f64 / all as f64 * f64::from(SAMPLE);
            assert!((0.8..1.2).contains(&rate), "{rate} of what was to be expected were looked at");
            assert_eq!(report.requests, report.accesses);
            for rank in 0..10 {
                let key = format!("key:{rank}");
                let truth = exact[&key] as f64 / all as f64;
                let found = report.keys.iter().find(|found| name(found) == key).expect("it has a counter");
                // Five times what a sample of whole passes may be off by, where a pass is as good as four requests.
                let chance = 5.0 * (truth / (report.accesses as f64 / 4.0)).sqrt();
                let [least, most] =
                    [found.least, found.most].map(|count| count as f64 / report.accesses as f64);
                assert!(
                    least - chance <= truth && truth <= most + chance,
                    "{key}: {least}..{most}, truly {truth}"
                );
                assert_eq!(found.reads, found.least);
            }
            let first = report.hottest_share();
            let truth = exact["key:0"] as f64 / all as f64;
            assert!((first / truth - 1.0).abs() < 0.2, "{first}, truly {truth}");
        });
    }
}

/// A client that asks for one key after the other, and round again: every so-manieth pass would see the same one always.
#[test]
fn clients_that_keep_step_with_the_sample_are_seen_as_they_are() {
    const KEYS: usize = 20;
    let mut bench = Bench::<Resp>::new(KEYS as u32, 7, "$-1\r\n");
    let client = bench.world.pool.client_connected(bench.world.now);
    for at in 0..40_000 {
        bench.pass(&[(client, format!("GET key:{}\r\n", at % KEYS))]);
    }
    let report = bench.report();
    assert_eq!(report.keys.len(), KEYS);
    for found in &report.keys {
        let share = found.least as f64 / report.accesses as f64;
        assert!((0.02..0.09).contains(&share), "{}: {share} of {}", name(found), report.accesses);
    }
}

/// No key is hot where all are used alike, whatever shares counters.
#[test]
fn where_all_keys_are_used_alike_none_is_hot() {
    let mut bench = Bench::<Resp>::new(1, 7, "$-1\r\n");
    let client = bench.world.pool.client_connected(bench.world.now);
    for at in 0..300 {
        let text: String = (0..50).map(|key| format!("GET key:{}\r\n", at * 50 + key)).collect();
        bench.pass(&[(client, text)]);
    }
    let report = bench.report();
    assert!(report.hottest_share() < 0.001, "{}", report.hottest_share());
    let held = bench.account.held();
    assert!((10_000..400_000).contains(&held), "{held} bytes are counted");
    drop((bench.hot, bench.world));
    assert_eq!(bench.account.held(), 0, "what is gone holds nothing");
}

#[test]
fn requests_with_thousands_of_keys_count_for_each_of_them() {
    let mut bench = Bench::<Memcache>::new(1, 7, "END\r\n");
    let client = bench.world.pool.client_connected(bench.world.now);
    let mut text = String::from("get");
    (0..1000).for_each(|key| text.push_str(&format!(" key:{}", if key % 4 == 0 { 0 } else { key })));
    // Of each a few keys are drawn: of so many requests that the share is sure to six times its deviation.
    for _ in 0..4000 {
        bench.pass(&[(client, format!("{text}\r\n"))]);
    }
    let report = bench.report();
    assert!((3_900_000..4_100_000).contains(&report.accesses), "{}", report.accesses);
    let share = report.hottest_share();
    assert_eq!(name(&report.keys[0]), "key:0");
    assert!((0.2..0.3).contains(&share), "{share}");
}

/// What is looked at is taken, and only once, however often it has to wait; and what is off is off.
#[test]
fn what_waits_counts_once_and_what_is_off_counts_nothing() {
    let mut bench = Bench::<Resp>::new(1, 7, "$-1\r\n");
    let client = bench.world.pool.client_connected(bench.world.now);
    // BLPOP has a connection of its own once all before it is answered, and what follows waits for it.
    bench.world.client_sends(client, b"GET a\r\nBLPOP list 0\r\nGET b\r\nPING\r\nGET b\r\n");
    for _ in 0..10 {
        bench.world.settle();
        while !bench.world.wanted.is_empty() {
            bench.world.wanted_connects();
        }
        let connections: Vec<_> = bench.world.up.iter().copied().collect();
        for at in connections {
            let taken = String::from_utf8_lossy(&bench.world.shard_takes(at, |length| length)).into_owned();
            let reply = |request: &str| match request {
                request if request.contains("BLPOP") => "*2\r\n$4\r\nlist\r\n$1\r\nx\r\n",
                request if request.contains("CLIENT") => ":7\r\n",
                _ => "$-1\r\n",
            };
            let replies: String = taken.split('*').skip(1).map(reply).collect();
            bench.world.shard_sends(at, replies.as_bytes()).expect("responses");
        }
        bench.world.client_takes(client, |length| length);
        bench.world.now = bench.world.now.plus(Duration::from_millis(1));
    }
    let report = bench.report();
    let counts: Vec<_> = report.keys.iter().map(|found| (name(found), found.least)).collect();
    assert_eq!(counts, [("b".to_owned(), 2), ("a".to_owned(), 1), ("list".to_owned(), 1)]);
    assert_eq!(report.requests, 5);
    bench.hot.set_sample(0, 0);
    bench.pass(&[(client, "GET a\r\n".into())]);
    let report = bench.report();
    assert!(report.keys.is_empty() && report.requests == 0 && report.sample == 0);
}

/// The sample of one in a thousand would hardly see them.
#[test]
fn large_requests_and_replies_are_found_with_their_keys() {
    let mut bench = Bench::<Resp>::new(1_000_000, 7, "+OK\r\n");
    let client = bench.world.pool.client_connected(bench.world.now);
    let value = "x".repeat(4 * LARGE_MIN);
    bench.pass(&[(client, format!("*3\r\n$3\r\nSET\r\n$4\r\nmuch\r\n${}\r\n{value}\r\n", value.len()))]);
    let report = bench.report();
    assert_eq!(report.requests, 0);
    let found: Vec<_> = report.large_requests.iter().map(|large| (&*large.command, large.keys)).collect();
    assert_eq!(found, [(&b"SET"[..], 1)]);
    let (_, key) = report.large_requests[0].key.as_ref().expect("it has one");
    assert_eq!(&*key.shown, b"much");
    assert!((value.len() as u64..value.len() as u64 + 100).contains(&report.large_requests[0].bytes));
    assert!(report.large_replies.is_empty());
    // From the first large reply on the client is one that moves large values, and all of its requests are looked at.
    let reply: &'static str = format!("${}\r\n{value}\r\n", value.len()).leak();
    bench.reply = reply;
    for key in ["first", "second", "third", "second"] {
        bench.pass(&[(client, format!("GET {key}\r\n"))]);
    }
    let report = bench.report();
    let mut found: Vec<_> = report
        .large_replies
        .iter()
        .map(|large| {
            let (_, key) = large.key.as_ref().expect("it has one");
            (String::from_utf8_lossy(&key.shown).into_owned(), large.bytes)
        })
        .collect();
    found.sort();
    let bytes = reply.len() as u64;
    assert_eq!(found[found.len() - 2..], [("second".to_owned(), bytes), ("third".to_owned(), bytes)]);
}
