//! Requests of many keys in many parts: the work grows with the keys, and not with the keys times the parts. And many requests
//! of many clients: the work of one pass does not grow with the clients.

mod world;

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::{Display, Formatter};
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use memstore_proxy::failure::ShardFailure;
use memstore_proxy::pool::{ClientId, ConnectionId, Limits};
use memstore_proxy::protocol::memcache::{self, Memcache};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use memstore_proxy::protocol::{ClientFilter, ClientRow, Protocol, Question, Rows};
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};
use world::World;

const SLOTS: usize = 16_384;
/// Many times what the work takes in proportion, and a fraction of what it takes otherwise.
const LONGEST: Duration = Duration::from_secs(15);

fn shard(number: usize) -> Shard {
    let name = format!("shard-{number}");
    Shard::new(Address::Tcp { host: name.clone(), port: 1 }, 1, Some(name))
}

/// Sends the request, answers every part with what `respond` says to its first line, and returns the reply.
fn reply<P: Protocol>(
    settings: P::Settings,
    topology: Arc<Topology>,
    request: &[u8],
    respond: impl Fn(&str) -> Vec<u8>,
    next: impl Fn(&[u8]) -> usize,
) -> Vec<u8> {
    let limits = Limits { request_bytes_max: 1 << 30, shard_queue_bytes_max: 1 << 30, ..Limits::default() };
    let mut world = World::<P>::new(settings, limits, topology, 1);
    let id = world.pool.client_connected(world.now);
    world.eager.insert(id, Vec::new());
    let began = Instant::now();
    world.client_sends(id, request);
    world.settle();
    for index in std::mem::take(&mut world.wanted) {
        world.shard_connects(index);
    }
    world.settle();
    for index in world.up.clone() {
        let requests = world.shard_takes(index, |length| length);
        let (mut rest, mut responses) = (&requests[..], Vec::new());
        while !rest.is_empty() {
            let line = rest.split(|&byte| byte == b'\n').next().expect("a line");
            responses.extend(respond(&String::from_utf8_lossy(line)));
            rest = &rest[next(rest)..];
        }
        world.shard_sends(index, &responses).expect("good responses");
        world.settle();
    }
    let took = began.elapsed();
    assert!(took < LONGEST, "{took:?}");
    world.eager.remove(&id).expect("a client")
}

/// The length of the request that comes first, which is an array of bulk strings of one line.
fn array_length(bytes: &[u8]) -> usize {
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n');
    let head = lines.next().expect("a head");
    let count: usize = String::from_utf8_lossy(&head[1..head.len() - 2]).parse().expect("a number");
    head.len() + lines.take(2 * count).map(<[u8]>::len).sum::<usize>()
}

#[test]
fn an_mget_over_all_slots_of_a_cluster_takes_no_longer_than_its_keys() {
    const KEYS: usize = 200_000;
    let owners = vec![Some(0); SLOTS];
    let topology = Topology::of_cluster(vec![shard(0)], &owners, vec![Vec::new()]).expect("one node");
    let mut request = format!("*{}\r\n$4\r\nMGET\r\n", KEYS + 1);
    for key in 0..KEYS {
        request.push_str(&format!("$8\r\n{key:08}\r\n"));
    }
    let respond = |head: &str| {
        let count: usize = head[1..].trim_end().parse().expect("a number");
        format!("*{}\r\n{}", count - 1, "$-1\r\n".repeat(count - 1)).into_bytes()
    };
    let heard =
        reply::<Resp>(Settings::default(), Arc::new(topology), request.as_bytes(), respond, array_length);
    let expected = format!("*{KEYS}\r\n{}", "$-1\r\n".repeat(KEYS));
    assert!(heard == expected.as_bytes(), "{}", String::from_utf8_lossy(&heard[..heard.len().min(200)]));
}

#[test]
fn a_get_over_many_servers_takes_no_longer_than_its_keys() {
    const KEYS: usize = 200_000;
    let shards = (0..1_000).map(shard).collect();
    let topology = Topology::new(shards, DistributionKind::Modula, KeyHash::Fnv1a64, None).expect("shards");
    let mut request = "get".to_owned();
    for key in 0..KEYS {
        request.push_str(&format!(" {key:08}"));
    }
    request.push_str("\r\n");
    let respond = |line: &str| {
        let values = line.split_whitespace().skip(1).map(|key| format!("VALUE {key} 0 1\r\nx\r\n"));
        let mut response: String = values.collect();
        response.push_str("END\r\n");
        response.into_bytes()
    };
    let next = |bytes: &[u8]| 1 + bytes.iter().position(|&byte| byte == b'\n').expect("a line");
    let heard = reply::<Memcache>(
        memcache::Settings::default(),
        Arc::new(topology),
        request.as_bytes(),
        respond,
        next,
    );
    let values = (0..KEYS).map(|key| format!("VALUE {key:08} 0 1\r\nx\r\n"));
    let expected: String = values.chain(["END\r\n".to_owned()]).collect();
    assert!(heard == expected.as_bytes(), "{}", String::from_utf8_lossy(&heard[..heard.len().min(200)]));
}

#[test]
fn many_clients_that_are_refused_all_they_ask_do_not_make_a_pass_longer() {
    const CLIENTS: usize = 64;
    const REQUESTS: usize = 1000;
    let topology = Topology::new(vec![shard(0)], DistributionKind::Ketama, KeyHash::Fnv1a64, None);
    let mut world =
        World::<Resp>::new(Settings::default(), Limits::default(), Arc::new(topology.expect("a shard")), 1);
    let clients: Vec<_> = (0..CLIENTS).map(|_| world.pool.client_connected(world.now)).collect();
    world.client_sends(clients[0], b"GET k\r\n");
    world.settle();
    let index = world.wanted.pop().expect("a connection is wanted");
    world.shard_closes(index, &ShardFailure::ConnectTimeout);
    world.settle();
    world.client_takes(clients[0], |length| length);
    world.judge(clients[0]);
    let before = world.counters.requests.get();
    for &id in &clients {
        world.client_sends(id, "GET k\r\n".repeat(REQUESTS).as_bytes());
    }
    let served = world.counters.requests.get() - before;
    assert!(served < 5000, "{served} requests in one pass");
    assert!(!world.pool.wants_read(clients[CLIENTS - 1]), "it has sent more than it was served");
    world.settle();
    for &id in &clients {
        let replies = world.client_takes(id, |length| length);
        assert_eq!(replies.iter().filter(|&&byte| byte == b'\n').count(), REQUESTS);
    }
}

/// Clients that all ask at once for what takes long.
struct Crowd {
    world: World<Resp>,
    clients: Vec<ClientId>,
}

impl Crowd {
    fn new(count: usize) -> Self {
        let topology =
            Topology::new((0..4).map(shard).collect(), DistributionKind::Ketama, KeyHash::Fnv1a64, None);
        let topology = Arc::new(topology.expect("shards"));
        let mut world = World::<Resp>::new(Settings::default(), Limits::default(), topology, 1);
        let clients = (0..count).map(|_| world.pool.client_connected(world.now)).collect();
        Self { world, clients }
    }

    /// All send this in one pass; returns how many requests were served in it.
    fn send(&mut self, bytes: &[u8]) -> u64 {
        let before = self.world.counters.requests.get();
        for &id in &self.clients {
            self.world.client_sends(id, bytes);
        }
        self.world.counters.requests.get() - before
    }
}

#[test]
fn many_clients_that_ask_for_large_replies_made_here_do_not_make_a_pass_longer() {
    const CLIENTS: usize = 64;
    let mut crowd = Crowd::new(CLIENTS);
    let served = crowd.send("COMMAND\r\n".repeat(5).as_bytes());
    assert!((1..20).contains(&served), "{served} of {} in one pass", 5 * CLIENTS);
    crowd.world.settle();
    assert_eq!(crowd.world.counters.requests.get(), 5 * CLIENTS as u64);
}

/// What costs time need not be a large reply: patterns that are held against all names and match none, names and words that
/// are looked at.
#[test]
fn many_clients_that_ask_for_what_takes_long_to_find_do_not_make_a_pass_longer() {
    let names = format!("CONFIG GET{}\r\n", " timeout".repeat(60));
    let sections = format!("INFO{}\r\n", " server".repeat(1000));
    let name = format!("CLIENT SETNAME {}\r\n", "n".repeat(2000));
    for (request, most) in [
        ("COMMAND LIST FILTERBY PATTERN *a*a*a*a*b\r\n", 100),
        ("COMMAND DOCS get\r\n", 200),
        (&*names, 100),
        (&*sections, 20),
        (&*name, 100),
    ] {
        let mut crowd = Crowd::new(64);
        let served = crowd.send(request.repeat(20).as_bytes());
        assert!((1..most).contains(&served), "{served} in one pass: {request:.60}");
        crowd.world.settle();
        assert_eq!(crowd.world.counters.requests.get(), 20 * 64);
    }
}

/// Nor does it have to be answered at once.
#[test]
fn many_clients_that_ask_long_questions_do_not_make_a_pass_longer() {
    let numbers = format!("CLIENT LIST ID{}\r\n", " 1".repeat(1000));
    let kinds = format!("CLIENT KILL{}\r\n", " TYPE pubsub".repeat(500));
    for request in [numbers, kinds] {
        let mut crowd = Crowd::new(64);
        let served = crowd.send(request.as_bytes());
        assert!((1..32).contains(&served), "{served} in one pass: {request:.60}");
    }
}

/// A database that nobody uses yet takes a place for connections to each shard.
#[test]
fn many_clients_that_walk_through_databases_do_not_make_a_pass_longer() {
    const SHARDS: usize = 100;
    let topology =
        Topology::new((0..SHARDS).map(shard).collect(), DistributionKind::Ketama, KeyHash::Fnv1a64, None);
    let settings = Settings { databases: 1000, ..Settings::default() };
    let topology = Arc::new(topology.expect("shards"));
    let mut world = World::<Resp>::new(settings, Limits::default(), topology, 1);
    let clients = (0..64).map(|_| world.pool.client_connected(world.now)).collect();
    let mut crowd = Crowd { world, clients };
    let walk: String = (1..1000).map(|db| format!("SELECT {db}\r\n")).collect();
    let served = crowd.send(walk.as_bytes());
    assert!((64..1000).contains(&served), "{served} in one pass");
}

#[test]
fn many_clients_that_ask_for_many_keys_do_not_make_a_pass_longer() {
    const CLIENTS: usize = 64;
    const KEYS: usize = 1000;
    let mut crowd = Crowd::new(CLIENTS);
    let mut request = "MGET".to_owned();
    (0..KEYS).for_each(|key| request.push_str(&format!(" key:{key}")));
    request.push_str("\r\n");
    let served = crowd.send(request.repeat(3).as_bytes());
    assert!((1..20).contains(&served), "{served} requests of {KEYS} keys in one pass");
    crowd.world.settle();
    assert_eq!(crowd.world.counters.requests.get(), 3 * CLIENTS as u64);
}

#[test]
fn who_waits_for_a_turn_has_it_before_those_that_come_later() {
    let ask = format!("*2\r\n$4\r\nPING\r\n$60000\r\n{}\r\n", "x".repeat(60_000));
    let mut crowd = Crowd::new(64);
    assert!(crowd.send(ask.as_bytes()) < 20);
    let Crowd { mut world, clients } = crowd;
    let mut passes = 0;
    loop {
        world.pass(&mut Vec::new());
        let is_served = |world: &mut World<Resp>, &id: &ClientId| {
            !world.client_takes(id, |length| length.min(1)).is_empty()
        };
        let served: Vec<bool> = clients.iter().map(|id| is_served(&mut world, id)).collect();
        assert!(served.is_sorted_by(|before, after| before >= after), "{served:?}");
        if served.iter().all(|&served| served) {
            break;
        }
        passes += 1;
        assert!(passes < 100, "{served:?}");
        // Others come all the time, and take what is left of each pass.
        world.now = world.now.plus(Duration::from_micros(1));
        for _ in 0..16 {
            let id = world.pool.client_connected(world.now);
            world.client_sends(id, ask.as_bytes());
        }
    }
}

#[test]
fn a_list_of_many_clients_by_many_numbers_takes_no_longer_than_both() {
    const CLIENTS: u64 = 200_000;
    let numbers = (0..CLIENTS).map(|number| 2 * number).collect();
    let filter = ClientFilter { ids: Some(numbers), ..ClientFilter::default() };
    let row = |id| ClientRow {
        queued: 0,
        id,
        user: "",
        address: &"",
        local_address: &"",
        age: 0,
        idle: 0,
        in_flight: 0,
        input_bytes: 0,
        output_bytes: 0,
        is_blocked: false,
        waits: None,
        watched: 0,
        asks: None,
        listens: [0; 3],
    };
    let began = Instant::now();
    let count = (0..CLIENTS).filter(|&id| filter.matches(&row(id))).count();
    assert_eq!(count as u64, CLIENTS / 2);
    assert!(began.elapsed() < LONGEST, "{:?}", began.elapsed());
}

/// Counts how often it is written.
struct Counted<'c>(&'c Cell<usize>);

impl Display for Counted<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        self.0.set(self.0.get() + 1);
        formatter.write_str("a:1")
    }
}

#[test]
fn nothing_is_written_of_clients_that_are_not_meant() {
    let mut crowd = Crowd::new(64);
    let filter = ClientFilter { ids: Some([3, 60].into_iter().collect()), ..ClientFilter::default() };
    let question = Question { filter, deed: memstore_proxy::protocol::Deed::List, form: 0 };
    let (written, mut rows) = (Cell::new(0), Rows::default());
    let ends = |_| Some([Counted(&written), Counted(&written)]);
    crowd.world.pool.list_clients(&question, 1, 0..usize::MAX, crowd.world.now, ends, &mut rows);
    assert_eq!(written.get(), 4, "two addresses of each of two");
}

#[test]
fn a_large_request_for_one_shard_is_not_copied() {
    let topology = Topology::new(vec![shard(0)], DistributionKind::Ketama, KeyHash::Fnv1a64, None);
    let limits = Limits { large_value_min: usize::MAX, ..Limits::default() };
    let mut world = World::<Resp>::new(Settings::default(), limits, Arc::new(topology.expect("a shard")), 1);
    let id = world.pool.client_connected(world.now);
    // A connection that is being made keeps what it has to send later in memory of its own.
    world.client_sends(id, b"GET k\r\n");
    world.settle();
    let index = world.wanted_connects();
    world.shard_takes(index, |length| length);
    world.shard_sends(index, b"$-1\r\n").expect("a good response");
    world.settle();
    let value = "v".repeat(100_000);
    for request in [
        format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000\r\n{value}\r\n"),
        format!("*5\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$100000\r\n{value}\r\n"),
    ] {
        let mut input = BytesMut::from(request.as_str());
        let came = input.as_ptr();
        world.pool.client_received_late(id, &mut input, world.now, world.now);
        let output = world.pool.shard_output(index).expect("a request");
        let mut vectors = [IoSlice::new(&[]); 8];
        output.vectors(&mut vectors, usize::MAX);
        assert_eq!(vectors[0].as_ptr(), came, "{}", &request[..20]);
        world.shard_takes(index, |length| length);
        world.shard_sends(index, b"+OK\r\n").expect("a good response");
        world.settle();
    }
}

#[test]
fn what_waits_for_a_cluster_costs_nothing_before_its_time() {
    const CLIENTS: usize = 6_000;
    const REQUESTS: usize = 4;
    let topology =
        Topology::of_cluster(vec![shard(0)], &vec![Some(0); SLOTS], vec![Vec::new()]).expect("one node");
    let limits = Limits { shard_queue_max: CLIENTS * REQUESTS, ..Limits::default() };
    let mut world = World::<Resp>::new(Settings::default(), limits, Arc::new(topology), 1);
    let clients: Vec<_> = (0..CLIENTS).map(|_| world.pool.client_connected(world.now)).collect();
    for &id in &clients {
        world.client_sends(id, b"GET k\r\n".repeat(REQUESTS).as_slice());
        world.settle();
        for index in std::mem::take(&mut world.wanted) {
            world.shard_connects(index);
            world.settle();
        }
        let index = *world.up.first().expect("one connection");
        world.shard_takes(index, |length| length);
        world.shard_sends(index, b"-CLUSTERDOWN x\r\n".repeat(REQUESTS).as_slice()).expect("good responses");
        world.settle();
        world.now = world.now.plus(Duration::from_micros(1));
    }
    assert_eq!(world.pool.parked_count(), CLIENTS * REQUESTS);
    let began = Instant::now();
    for sent in 1..=CLIENTS {
        world.now = world.pool.next_deadline().expect("some wait");
        world.pool.tick(world.now);
        assert_eq!(world.pool.parked_count(), (CLIENTS - sent) * REQUESTS);
    }
    let took = began.elapsed();
    assert!(took < LONGEST, "{took:?}");
}

/// Clients that all wait for the same keys, and what they cost in parts of their stay.
struct Waits {
    world: World<Resp>,
    clients: Vec<ClientId>,
    keys: usize,
    /// Keys that each shard will tell of.
    told: HashMap<ConnectionId, Vec<String>>,
}

impl Waits {
    /// So many keys, on four shards.
    fn new(clients: usize, keys: usize) -> Self {
        let topology =
            Topology::new((0..4).map(shard).collect(), DistributionKind::Ketama, KeyHash::Fnv1a64, None);
        let limits = Limits { blocked_max: 100_000, ..Limits::default() };
        let topology = Arc::new(topology.expect("shards"));
        let mut world = World::<Resp>::new(Settings::default(), limits, topology, 1);
        let clients = (0..clients).map(|_| world.pool.client_connected(world.now)).collect();
        Self { world, clients, keys, told: HashMap::new() }
    }

    fn key(number: usize) -> String {
        format!("{:08x}", (number as u32).wrapping_mul(2_654_435_761))
    }

    /// Shards are connected, and have nothing, until they are asked for nothing more. How often they were asked to look, and to give.
    fn answer(&mut self) -> [usize; 2] {
        let mut asked = [0; 2];
        loop {
            self.world.settle();
            let made = std::mem::take(&mut self.world.wanted);
            made.iter().for_each(|&id| self.world.shard_connects(id));
            let mut is_quiet = made.is_empty();
            for id in self.world.up.clone() {
                let requests = self.world.shard_takes(id, |length| length);
                let requests = String::from_utf8_lossy(&requests);
                let mut responses = String::new();
                let mut words = requests.split("\r\n");
                while let Some(word) = words.next() {
                    responses.push_str(match word {
                        "HELLO" => "%0\r\n",
                        "TRACKING" => "+OK\r\n",
                        "EXISTS" => ":0\r\n",
                        "LPOP" => "$-1\r\n",
                        _ => continue,
                    });
                    if word == "EXISTS" {
                        self.told.entry(id).or_default().push(words.nth(1).expect("a key").into());
                    }
                    asked[0] += usize::from(word == "EXISTS");
                    asked[1] += usize::from(word == "LPOP");
                }
                is_quiet &= responses.is_empty();
                self.world.shard_sends(id, responses.as_bytes()).expect("good responses");
            }
            if is_quiet {
                return asked;
            }
        }
    }

    fn begin(&mut self) {
        let keys: String = (0..self.keys).map(|number| format!(" {}", Self::key(number))).collect();
        let request = format!("BLPOP{keys} 0\r\n");
        for &id in &self.clients {
            self.world.client_sends(id, request.as_bytes());
            self.world.settle();
        }
    }

    /// All keys change, and there is nothing.
    fn change(&mut self) {
        for (&id, keys) in &mut self.told {
            for key in std::mem::take(keys) {
                let told = format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len());
                self.world.shard_sends(id, told.as_bytes()).expect("what trackers tell");
                self.world.settle();
            }
        }
    }

    fn go(&mut self) {
        for &id in &self.clients {
            self.world.pool.client_gone(id, true, self.world.now);
            self.world.settle();
        }
    }
}

/// How long it takes for so many clients by so many keys: to come, to find nothing, twice, and to go; with `is_away` while a shard is not there.
fn waits_take(keys: usize, is_away: bool) -> Duration {
    let mut waits = Waits::new(300, keys);
    let began = Instant::now();
    waits.begin();
    assert_eq!(waits.answer(), [keys; 2], "each key is looked at and tried once, for all who wait");
    waits.change();
    if is_away {
        let tracker = *waits.told.keys().next().expect("a shard that tells");
        waits.world.shard_closes(tracker, &ShardFailure::Reset);
    } else {
        assert_eq!(waits.answer(), [keys; 2]);
    }
    waits.go();
    began.elapsed()
}

#[test]
fn clients_that_wait_for_many_keys_at_several_shards_take_no_longer_than_their_keys() {
    for is_away in [false, true] {
        let took = |keys| (0..3).map(|_| waits_take(keys, is_away)).min().expect("three times");
        let (few, many) = (took(32), took(256));
        // Eight times as many keys.
        assert!(many < few * 20, "{few:?} for 32 keys, {many:?} for 256");
    }
}
