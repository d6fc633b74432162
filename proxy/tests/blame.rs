//! What counts against a shard, over the core: however a client goes about it, a healthy shard is never ejected, and one
//! that hangs is, after the same number of timeouts whatever the workers.
//!
//! Workers are pools of their own over the same shards; what the control thread does with their reports is done here: one
//! ejector for all, and a probe where a request may have provoked the failure. `SEED=7` replays one run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use memstore_proxy::failure::{Blame, ShardFailure};
use memstore_proxy::metrics::Counters;
use memstore_proxy::pool::{self, ClientId, ConnectionId, Identity, Limits, Pool, ShardEvent, Shell, Wish};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use memstore_proxy::protocol::{ClientFilter, Found, Question, Rows, ShardIdentity};
use memstore_proxy::secret::Secret;
use memstore_proxy::time::Time;
use random::Random;
use shard_discovery::{
    Address, DistributionKind, Ejector, EjectorOptions, FitnessChange, KeyHash, Shard, Topology,
};
use words::take_request;

#[path = "world/random.rs"]
#[allow(dead_code, reason = "every test uses some of it")]
mod random;
#[path = "world/words.rs"]
#[allow(dead_code, reason = "every test uses some of it")]
mod words;

const TIMEOUT: Duration = Duration::from_millis(400);
const SHARDS: usize = 3;
/// The one that hangs from some time on; the others are healthy.
const HANGS: usize = 2;
const LIMIT: u32 = 2;

fn topology() -> Arc<Topology> {
    let shard = |number: usize| {
        Shard::new(Address::Tcp { host: "h".into(), port: 1 }, 1, Some(format!("shard-{number}")))
    };
    let shards = (0..SHARDS).map(shard).collect();
    Arc::new(Topology::new(shards, DistributionKind::Ketama, KeyHash::Md5, None).expect("a topology"))
}

fn pool(worker: u64) -> Pool<Resp> {
    pool_of(worker, Settings { databases: 16, ..Settings::default() })
}

fn pool_of(worker: u64, settings: Settings) -> Pool<Resp> {
    let limits = Limits {
        timeout: Some(TIMEOUT),
        shard_queue_max: 1024,
        shard_queue_bytes_max: 1 << 20,
        eager_connects: LIMIT,
        ..Limits::default()
    };
    let identity = Identity {
        name: "p".into(),
        unix_start: 0,
        client_id_first: worker + 1,
        client_id_step: 16,
        seed: worker + 1,
    };
    Pool::new(identity, settings, limits, topology(), Counters::of_workers(1, SHARDS).remove(0))
}

/// A server, as one connection sees it.
#[derive(Default)]
struct Connection {
    inbox: Vec<u8>,
    /// Who it says it is.
    name: String,
    /// Bytes of a large response that are still to come.
    left: usize,
}

enum Said {
    Bytes(Vec<u8>),
    Lost(ShardFailure),
}

impl Connection {
    /// What a healthy server says to the requests that have come. Some keys make it do what servers do to requests beyond
    /// their limits.
    fn answer(&mut self) -> Said {
        let mut said = Vec::new();
        if self.left > 0 {
            // The rest is slow; it takes longer than requests may.
            let piece = self.left.min(200_000);
            self.left -= piece;
            said.extend(std::iter::repeat_n(b'x', piece));
            if self.left > 0 {
                return Said::Bytes(said);
            }
            said.extend(b"\r\n");
        }
        while let Some(words) = take_request(&mut self.inbox) {
            let key = words.get(1).map(|key| key.split(':').next().unwrap_or_default().to_owned());
            match (words[0].as_str(), key.as_deref()) {
                ("CONFIG", _) => said.extend(i_am(&self.name).bytes()),
                ("SELECT", _) => said.extend(b"-ERR DB index is out of range\r\n"),
                ("HELLO", _) => said.extend(b"-NOPROTO unsupported protocol version\r\n"),
                (_, Some("close")) => return Said::Lost(ShardFailure::Closed),
                (_, Some("reset")) => return Said::Lost(ShardFailure::Reset),
                (_, Some("garbage")) => said.extend(b"hello\r\n"),
                (_, Some("twice")) => said.extend(b"+OK\r\n+OK\r\n"),
                (_, Some("large")) => {
                    self.left = 3_000_000;
                    said.extend(b"$3000000\r\n");
                    return Said::Bytes(said);
                }
                _ => said.extend(b"+OK\r\n"),
            }
        }
        Said::Bytes(said)
    }
}

/// What a shard of this name answers to who asks for it.
fn i_am(name: &str) -> String {
    format!("*2\r\n$19\r\nreplica-announce-ip\r\n${}\r\n{name}\r\n", name.len())
}

/// One of the workers, at the end of a pass.
struct Worker<'w> {
    number: usize,
    pool: &'w mut Pool<Resp>,
    /// Shards are asked who they are.
    asks: bool,
    connections: &'w mut BTreeMap<(usize, ConnectionId), Connection>,
    scratch: BytesMut,
}

impl Shell<Resp> for Worker<'_> {
    fn pool(&mut self) -> (&mut Pool<Resp>, &mut BytesMut) {
        (self.pool, &mut self.scratch)
    }

    fn fulfil(&mut self, wish: Wish, now: Time) {
        match wish {
            Wish::Close(index, failure) if self.connections.remove(&(self.number, index)).is_some() => {
                self.pool.shard_closed(index, &failure, now);
            }
            Wish::Connect(index) => {
                // Also one that hangs: its kernel accepts.
                let name = self.pool.shard_of(index).expect("it is there").name.clone();
                let identity = self.asks.then(|| ShardIdentity::Host(name.as_str().into()));
                self.connections.insert((self.number, index), Connection { name, ..Connection::default() });
                self.pool.shard_connected(index, identity, now);
            }
            _ => {}
        }
    }

    fn write_shards(&mut self, _: Time) {
        let mut dirty = Vec::new();
        self.pool.take_dirty_shards(&mut dirty);
        for index in dirty {
            let Some(connection) = self.connections.get_mut(&(self.number, index)) else { continue };
            if let Some(output) = self.pool.shard_output(index) {
                connection.inbox.extend_from_slice(&output.first(output.len()));
                output.clear();
                self.pool.settle_shard(index);
            }
        }
    }

    fn write_clients(&mut self, _: Time) {
        let mut clients = Vec::new();
        self.pool.take_dirty_clients(&mut clients);
        for id in clients {
            if let Some(output) = self.pool.client_output(id) {
                output.clear();
            }
            self.pool.settle_client(id);
        }
    }
}

/// What the pool wishes for.
fn wishes(pool: &mut Pool<Resp>) -> Vec<Wish> {
    let mut wishes = Vec::new();
    pool.take_wishes(&mut wishes);
    wishes
}

struct World {
    random: Random,
    asks: bool,
    workers: Vec<Pool<Resp>>,
    clients: Vec<(usize, ClientId)>,
    connections: BTreeMap<(usize, ConnectionId), Connection>,
    ejector: Ejector,
    /// Responses of each shard when its last failure counted.
    responses: [u64; SHARDS],
    epoch: Instant,
    now: Time,
    hangs: bool,
    ejected: Option<Time>,
    /// Failures that were judged by a probe.
    suspected: usize,
    keys: Vec<Vec<String>>,
}

impl World {
    fn new(seed: u64, workers: usize, asks: bool) -> Self {
        let topology = topology();
        let mut keys = vec![Vec::new(); SHARDS];
        for kind in ["close", "reset", "garbage", "twice", "large", "plain"] {
            for number in 0..64 {
                let key = format!("{kind}:{number}");
                keys[topology.shard_for(key.as_bytes()).expect("an owner")].push(key);
            }
        }
        let options =
            EjectorOptions { failure_limit: LIMIT, retry_timeout: Duration::from_secs(30), max_share: 100 };
        Self {
            random: Random(seed),
            asks,
            workers: (0..workers as u64).map(pool).collect(),
            clients: Vec::new(),
            connections: BTreeMap::new(),
            ejector: Ejector::new(SHARDS, options),
            responses: [0; SHARDS],
            epoch: Instant::now(),
            now: Time::from_micros(1_000),
            hangs: false,
            ejected: None,
            suspected: 0,
            keys,
        }
    }

    fn say(&mut self, client: usize, line: &str) {
        let (worker, id) = self.clients[client];
        let pool = &mut self.workers[worker];
        if !pool.wants_read(id) {
            return;
        }
        let mut scratch = BytesMut::new();
        pool.before_client_read(id, &mut scratch);
        scratch.extend_from_slice(line.as_bytes());
        pool.client_received(id, &mut scratch, self.now);
        self.settle();
    }

    /// As the worker and the control thread do after every pass.
    fn settle(&mut self) {
        for worker in 0..self.workers.len() {
            loop {
                let (pool, connections) = (&mut self.workers[worker], &mut self.connections);
                let (scratch, asks) = (BytesMut::new(), self.asks);
                pool::settle(&mut Worker { number: worker, pool, asks, connections, scratch }, self.now);
                for event in self.workers[worker].take_events() {
                    self.judge(event);
                }
                if !self.workers[worker].has_work() {
                    break;
                }
            }
        }
    }

    fn judge(&mut self, ShardEvent { shard, failure }: ShardEvent) {
        let shard: usize = shard.strip_prefix("shard-").expect("its name").parse().expect("a number");
        let Some(failed) = failure else { return self.ejector.succeeded(shard) };
        let instant = |time: Time| self.epoch + Duration::from_micros(time.micros());
        match failed.blame {
            Blame::Nobody => panic!("{} is reported", failed.failure),
            Blame::Unknown => {
                // The probe is answered by all but the one that hangs, which is found out without.
                self.suspected += 1;
            }
            Blame::Shard => {
                let responses =
                    self.workers.iter().map(|pool| pool.counters().shards()[shard].responses.get());
                let responses = responses.sum();
                if std::mem::replace(&mut self.responses[shard], responses) < responses {
                    self.ejector.succeeded(shard);
                }
                let change = self.ejector.failed(shard, instant(failed.began), instant(failed.at));
                assert!(shard == HANGS && self.hangs, "shard-{shard} is healthy: {:?}", failed.failure);
                if change == Some(FitnessChange::Ejected(shard)) {
                    self.ejected = Some(self.now);
                }
            }
        }
    }

    /// Servers answer what has come.
    fn serve(&mut self) {
        let all: Vec<_> = self.connections.keys().copied().collect();
        for (worker, index) in all {
            let shard = self.workers[worker].shard_of(index).expect("it is there").name.clone();
            if self.hangs && shard == format!("shard-{HANGS}") {
                continue;
            }
            let pool = &mut self.workers[worker];
            let failure = match self.connections.get_mut(&(worker, index)).expect("just seen").answer() {
                Said::Lost(failure) => failure,
                Said::Bytes(bytes) if bytes.is_empty() => continue,
                Said::Bytes(bytes) => {
                    let mut scratch = BytesMut::new();
                    pool.before_shard_read(index, &mut scratch);
                    scratch.extend_from_slice(&bytes);
                    match pool.shard_received(index, &mut scratch, self.now) {
                        Ok(()) => continue,
                        Err(failure) => failure,
                    }
                }
            };
            self.connections.remove(&(worker, index));
            self.workers[worker].shard_closed(index, &failure, self.now);
        }
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        for pool in &mut self.workers {
            pool.tick(self.now);
        }
        self.settle();
    }

    fn unhealthy(&self) -> Vec<usize> {
        let is_failing = |shard: &usize| {
            self.workers.iter().any(|pool| pool.counters().shards()[*shard].failing.get() > 0)
        };
        (0..SHARDS).filter(is_failing).collect()
    }
}

#[test]
fn no_client_gets_a_healthy_shard_ejected() {
    let seeds = match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..40,
    };
    let (mut suspected, mut expired) = (0, 0);
    for seed in seeds {
        let mut world = World::new(seed, 1 + (seed % 3) as usize, seed % 2 == 1);
        for number in 0..6 {
            let worker = number % world.workers.len();
            let id = world.workers[worker].client_connected(world.now);
            world.clients.push((worker, id));
        }
        for _ in 0..200 {
            // The last client is the hostile one.
            let client = world.random.below(6) as usize;
            let shard = if client == 5 { world.random.below(2) } else { world.random.below(3) } as usize;
            let keys: Vec<String> = world.keys[shard]
                .iter()
                .filter(|key| key.starts_with("plain") || client == 5)
                .cloned()
                .collect();
            let key = keys[world.random.below(keys.len() as u64) as usize].clone();
            let line = match world.random.below(if client == 5 { 8 } else { 6 }) {
                0..=3 => format!("GET {key}\r\n"),
                4 | 5 => format!("SET {key} v\r\n"),
                6 => format!("SELECT {}\r\n", world.random.below(3)),
                _ => format!("HELLO {}\r\n", 2 + world.random.below(2)),
            };
            world.say(client, &line);
            let time = Duration::from_millis(world.random.below(80));
            world.serve();
            world.pass(time);
            assert_eq!(world.unhealthy(), [0; 0], "SEED={seed}");
        }
        suspected += world.suspected;
        let shards = world.workers.iter().flat_map(|pool| pool.counters().shards());
        expired += shards.map(|shard| shard.server_timedout.get()).sum::<u64>();
    }
    assert!(suspected > 0 && expired > 0, "{suspected} failures to be probed, {expired} requests timed out");
}

#[test]
fn a_shard_that_hangs_is_out_after_as_many_timeouts_whatever_the_workers() {
    let of_workers = [1, 2, 4].into_iter().flat_map(|workers| [(workers, false), (workers, true)]);
    let cases = of_workers.flat_map(|(workers, asks)| {
        [(false, false), (false, true), (true, false), (true, true)]
            .map(|(writes, at_first)| (workers, asks, writes, at_first))
    });
    for (workers, asks, writes, at_first) in cases {
        let mut world = World::new(1, workers, asks);
        world.hangs = at_first;
        for worker in (0..workers).cycle().take(8) {
            let id = world.workers[worker].client_connected(world.now);
            world.clients.push((worker, id));
        }
        let key = world.keys[HANGS].iter().find(|key| key.starts_with("plain")).expect("one").clone();
        let line = if writes { format!("SET {key} v\r\n") } else { format!("GET {key}\r\n") };
        for client in 0..8 {
            world.say(client, &line);
        }
        world.serve();
        (world.hangs, world.epoch) = (true, Instant::now());
        let begin = world.now;
        while world.ejected.is_none() && world.now.since(begin) < TIMEOUT * 10 {
            // Whoever got an error asks again.
            for client in 0..8 {
                let (worker, id) = world.clients[client];
                let question = Question {
                    filter: ClientFilter::default(),
                    deed: memstore_proxy::protocol::Deed::List,
                    form: 0,
                };
                let (mut rows, place, ends) = (Rows::default(), id.index as usize, |_| Some(["", ""]));
                let now = world.now;
                world.workers[worker].list_clients(&question, 0, place..place + 1, now, ends, &mut rows);
                if String::from_utf8_lossy(&Found::of(&[rows]).text).contains(" oll=0 ") {
                    world.say(client, &line);
                }
            }
            world.pass(Duration::from_millis(10));
        }
        let took = world.ejected.expect("it is ejected").since(begin);
        let wanted = TIMEOUT * LIMIT;
        assert!(
            took >= wanted && took < wanted + TIMEOUT / 4,
            "{took:?} with {workers} workers, identity {asks}, writes {writes}, from the beginning {at_first}"
        );
    }
}

/// The state in which a client is asked for the database that its shard does not have.
#[test]
fn a_database_that_the_shard_does_not_have_is_answered_and_counts_against_nobody() {
    let mut world = World::new(1, 1, false);
    let id = world.workers[0].client_connected(world.now);
    world.clients.push((0, id));
    let key = world.keys[0].iter().find(|key| key.starts_with("plain")).expect("one").clone();
    world.say(0, "SELECT 5\r\n");
    for _ in 0..10 {
        world.say(0, &format!("GET {key}\r\n"));
        world.serve();
        world.pass(Duration::from_millis(100));
    }
    let counters = world.workers[0].counters().clone();
    assert_eq!(counters.forward_error.get(), 10);
    assert_eq!((world.unhealthy(), world.ejector.ejected()), (vec![], vec![]));
}

#[test]
fn a_write_that_timed_out_is_not_left_on_its_way_but_a_slow_read_does_no_harm() {
    for (line, closes) in [("GET plain:1\r\n", 0), ("SET plain:1 v\r\n", 1), ("MSET plain:1 v\r\n", 1)] {
        let mut pool = pool(0);
        let begin = Time::from_micros(1_000);
        let id = pool.client_connected(begin);
        let mut scratch = BytesMut::from(line);
        pool.client_received(id, &mut scratch, begin);
        let [Wish::Connect(connection)] = wishes(&mut pool)[..] else { panic!("it is to be made") };
        pool.shard_connected(connection, None, begin);
        pool.tick(begin.plus(TIMEOUT));
        let given_up = Wish::Close(connection, ShardFailure::ResponseTimeout);
        assert_eq!(wishes(&mut pool), vec![given_up; closes], "{line}");
    }
}

/// Who reads a large value is not cut off because somebody's write behind it takes too long.
#[test]
fn a_write_behind_a_large_response_leaves_the_connection_to_it() {
    let mut pool = pool(0);
    let begin = Time::from_micros(1_000);
    let id = pool.client_connected(begin);
    pool.client_received(id, &mut BytesMut::from("GET plain:1\r\nSET plain:1 v\r\n"), begin);
    let [Wish::Connect(connection)] = wishes(&mut pool)[..] else { panic!("it is to be made") };
    pool.shard_connected(connection, None, begin);
    let output = pool.shard_output(connection).expect("it is up");
    output.advance(output.len());
    let mut scratch = BytesMut::new();
    pool.before_shard_read(connection, &mut scratch);
    scratch.extend_from_slice(b"$10000000\r\n");
    scratch.extend(std::iter::repeat_n(b'x', 2_000_000));
    pool.shard_received(connection, &mut scratch, begin.plus(TIMEOUT / 2)).expect("the beginning of a value");
    pool.tick(begin.plus(TIMEOUT));
    let asked = [Wish::CloseUnlessDelivered(connection)];
    assert_eq!(wishes(&mut pool), asked, "the kernel knows whether the write has arrived");
}

/// What is said, asked for and counted where the connection fails after these responses: `None` closes it in good order. A
/// client has chosen the version and the database where it says HELLO 3; the password is everybody's.
#[test]
fn until_a_shard_has_said_who_it_is_nothing_is_known_of_it() {
    const OK: &str = "+OK\r\n";
    const DEFAULT: &str = "";
    const CHOSEN: &str = "HELLO 3\r\n";
    let who = i_am("shard-1");
    let shard = Some(Blame::Shard);
    for (chooses, responses, reason, blame) in [
        (DEFAULT, vec!["-WRONGPASS no\r\n"], "connect_failed", shard),
        (DEFAULT, vec![OK, "-NOPERM no\r\n"], "connect_failed", shard),
        (DEFAULT, vec![OK], "connect_failed", shard),
        (DEFAULT, vec![OK, "hello\r\n"], "connect_failed", shard),
        (DEFAULT, vec![OK, &who, "-ERR DB index is out of range\r\n"], "handshake_refused", shard),
        (DEFAULT, vec![OK, &who], "closed", shard),
        (DEFAULT, vec![OK, &who, "hello\r\n"], "malformed", shard),
        (CHOSEN, vec!["-WRONGPASS no\r\n"], "connect_failed", shard),
        (CHOSEN, vec![OK, "-NOPERM no\r\n"], "connect_failed", shard),
        (CHOSEN, vec![OK], "closed", Some(Blame::Unknown)),
        (CHOSEN, vec![OK, "hello\r\n"], "malformed", Some(Blame::Unknown)),
        (CHOSEN, vec![OK, &who, "-NOPROTO no\r\n"], "handshake_refused", None),
        (CHOSEN, vec![OK, &who, "%0\r\n", "-ERR DB index is out of range\r\n"], "handshake_refused", None),
        (CHOSEN, vec![OK, &who], "closed", Some(Blame::Unknown)),
    ] {
        let password = Some(Secret::new("secret".into()));
        let mut pool = pool_of(0, Settings { databases: 16, password, db: 5, ..Settings::default() });
        let now = Time::from_micros(1_000);
        let id = pool.client_connected(now);
        let topology = topology();
        let mut keys = (0..).map(|number| number.to_string());
        let key = keys.find(|key| topology.shard_for(key.as_bytes()) == Some(1)).expect("one");
        pool.client_received(
            id,
            &mut BytesMut::from(&*format!("AUTH secret\r\n{chooses}GET {key}\r\n")),
            now,
        );
        let [Wish::Connect(connection)] = wishes(&mut pool)[..] else { panic!("it is to be made") };
        pool.shard_connected(connection, Some(ShardIdentity::Host("shard-1".into())), now);
        let mut scratch = BytesMut::from(&*responses.concat());
        let heard = pool.shard_received(connection, &mut scratch, now);
        pool.shard_closed(connection, &heard.err().unwrap_or(ShardFailure::Closed), now);
        let events: Vec<_> = pool.take_events().into_iter().filter_map(|event| event.failure).collect();
        let counters = pool.counters().shards()[1].clone();
        let counted = ShardFailure::REASONS.iter().zip(&counters.failures);
        let counted: Vec<_> =
            counted.filter(|(_, counter)| counter.get() > 0).map(|(name, _)| *name).collect();
        let case = format!("{chooses:?} {responses:?}: {events:?}");
        assert_eq!(counted, [reason], "{case}");
        assert_eq!(
            events.iter().map(|failed| failed.blame).collect::<Vec<_>>(),
            Vec::from_iter(blame),
            "{case}"
        );
        let words =
            events.first().map_or("connect_failed", |failed| ShardFailure::REASONS[failed.failure.reason()]);
        assert!(blame.is_none() || words == reason, "{case}");
    }
}
