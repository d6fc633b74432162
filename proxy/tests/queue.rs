//! Who waits for room in the queue of a shard: first come, first served, and never longer than a request may take.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use memstore_proxy::buffer::Output;
use memstore_proxy::metrics::Counters;
use memstore_proxy::pool::{self, ClientId, ConnectionId, Identity, Limits, Pool, Shell, Verdict, Wish};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use memstore_proxy::secret::Secret;
use memstore_proxy::time::Time;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};

/// A pool over one shard, and what a worker does with it.
struct World {
    pool: Pool<Resp>,
    counters: Counters,
    limits: Limits,
    now: Time,
    /// Keys of the requests that the shard was sent and has not answered.
    asked: Vec<String>,
    /// What each client has heard and when, a line for every reply.
    heard: HashMap<ClientId, Vec<(Time, String)>>,
    /// What clients have sent and was not read yet, and since when that is so.
    unread: HashMap<ClientId, (Time, String)>,
    rest: String,
    /// The last one that was made.
    connection: Option<ConnectionId>,
    scratch: BytesMut,
}

impl Shell<Resp> for World {
    fn pool(&mut self) -> (&mut Pool<Resp>, &mut BytesMut) {
        (&mut self.pool, &mut self.scratch)
    }

    fn fulfil(&mut self, wish: Wish, now: Time) {
        match wish {
            Wish::Connect(connection) => {
                self.connection = Some(connection);
                self.pool.shard_connected(connection, None, now);
            }
            Wish::Close(connection, failure) => {
                self.asked.clear();
                self.rest.clear();
                self.pool.shard_closed(connection, &failure, now);
            }
            _ => {}
        }
    }

    fn write_shards(&mut self, _: Time) {
        let mut shards = Vec::new();
        self.pool.take_dirty_shards(&mut shards);
        for index in shards {
            self.rest.push_str(&taken(self.pool.shard_output(index).expect("connected")));
            self.pool.settle_shard(index);
        }
        while let Some(end) = self.rest.find("GET\r\n").and_then(|at| {
            let key = at + 5 + self.rest[at + 5..].find("\r\n")? + 2;
            Some(key + self.rest[key..].find("\r\n")? + 2)
        }) {
            let key = self.rest[..end].trim_end().rsplit("\r\n").next().expect("a key").to_owned();
            self.asked.push(key);
            self.rest.drain(..end);
        }
    }

    fn write_clients(&mut self, _: Time) {
        let mut clients = Vec::new();
        self.pool.take_dirty_clients(&mut clients);
        for id in clients {
            let said = self.pool.client_output(id).map(taken).unwrap_or_default();
            let heard = self.heard.entry(id).or_default();
            heard.extend(said.lines().map(|line| (self.now, line.to_owned())));
            if self.pool.settle_client(id) == Verdict::Read {
                self.read(id);
            }
        }
    }
}

fn ms(millis: u64) -> Time {
    Time::from_micros(1_000 * millis)
}

fn topology() -> Arc<Topology> {
    let shards = vec![Shard::new(Address::Tcp { host: "h".into(), port: 1 }, 1, Some("shard".into()))];
    Arc::new(Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, None).expect("one shard"))
}

impl World {
    fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        let identity =
            Identity { name: "p".into(), unix_start: 0, client_id_first: 1, client_id_step: 1, seed: 1 };
        let counters = Counters::of_workers(1, 1).remove(0);
        let pool = Pool::new(identity, Settings::default(), limits.clone(), topology(), counters.clone());
        Self {
            pool,
            counters,
            limits,
            now: Time::default(),
            asked: Vec::new(),
            heard: HashMap::new(),
            unread: HashMap::new(),
            rest: String::new(),
            connection: None,
            scratch: BytesMut::new(),
        }
    }

    fn connect(&mut self) -> ClientId {
        self.pool.client_connected(self.now)
    }

    /// A client sends a GET for each of these keys; they are read as far as the pool wants.
    fn get(&mut self, client: ClientId, keys: &[&str]) {
        let now = self.now;
        let (_, unread) = self.unread.entry(client).or_insert_with(|| (now, String::new()));
        keys.iter().for_each(|key| unread.push_str(&format!("GET {key}\r\n")));
        self.read(client);
    }

    fn read(&mut self, client: ClientId) {
        if !self.pool.wants_read(client) {
            return;
        }
        if let Some((arrived, unread)) = self.unread.remove(&client) {
            let mut scratch = BytesMut::new();
            self.pool.before_client_read(client, &mut scratch);
            scratch.extend_from_slice(unread.as_bytes());
            self.pool.client_received_late(client, &mut scratch, arrived, self.now);
        }
    }

    /// The shard answers the oldest requests.
    fn answer(&mut self, count: usize) {
        let mut scratch = BytesMut::new();
        let connection = self.connection.expect("it is connected");
        self.pool.before_shard_read(connection, &mut scratch);
        for key in self.asked.drain(..count) {
            scratch.extend_from_slice(format!("+{key}\r\n").as_bytes());
        }
        self.pool.shard_received(connection, &mut scratch, self.now).expect("good responses");
    }

    /// The end of a pass.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            pool::settle(self, self.now);
            if !self.pool.has_work() {
                return;
            }
        }
        panic!("the pool never comes to rest");
    }

    /// Time passes; deadlines are kept when they are due.
    fn wait_until(&mut self, then: Time) {
        while let Some(due) = self.pool.next_deadline()
            && due <= then
        {
            self.now = self.now.max(due);
            self.pool.tick(self.now);
            self.settle();
        }
        self.now = then;
    }

    fn heard(&self, client: ClientId) -> &[(Time, String)] {
        self.heard.get(&client).map(Vec::as_slice).unwrap_or_default()
    }
}

fn taken(output: &mut Output) -> String {
    let mut text = String::new();
    while !output.is_empty() {
        let mut vectors = [std::io::IoSlice::new(&[]); 8];
        let used = output.vectors(&mut vectors, usize::MAX);
        let part: Vec<u8> = vectors[..used].iter().flat_map(|vector| vector.iter().copied()).collect();
        text.push_str(&String::from_utf8_lossy(&part));
        output.advance(part.len());
    }
    text
}

#[test]
fn twelve_equal_clients_get_equally_much_of_a_full_queue() {
    for (most, batch) in [(1, 1), (8, 3), (64, 64), (1024, 100)] {
        let mut world = World::new(|limits| {
            limits.shard_queue_max = most;
            limits.queue_wait = Duration::from_secs(3600);
        });
        let clients: Vec<ClientId> = (0..12).map(|_| world.connect()).collect();
        let mut replies = 0;
        while replies < 12 * 400 {
            for &client in &clients {
                if !world.unread.contains_key(&client) {
                    world.get(client, &["k"; 150]);
                }
            }
            world.settle();
            assert!(world.asked.len() <= most, "{} in a queue of {most}", world.asked.len());
            let count = world.asked.len().min(batch);
            world.answer(count);
            replies += count;
            world.now = world.now.plus(Duration::from_millis(1));
        }
        world.settle();
        let counts: Vec<usize> = clients.iter().map(|&client| world.heard(client).len()).collect();
        let (least, greatest) = (counts.iter().min().expect("12"), counts.iter().max().expect("12"));
        assert!(*greatest <= 2 * least, "queue of {most}: {counts:?}");
    }
}

#[test]
fn a_pipeline_to_a_shard_that_is_silent_is_answered_when_it_is_due() {
    let mut world = World::new(|limits| limits.timeout = Some(Duration::from_millis(300)));
    let client = world.connect();
    // As the worker reads it: a part at first, the rest when the pool wants it.
    for _ in 0..5 {
        world.get(client, &["k"; 1000]);
    }
    world.settle();
    world.wait_until(ms(400));
    let heard = world.heard(client);
    assert_eq!(heard.len(), 5000);
    assert!(heard.iter().all(|(when, reply)| *when == ms(300) && reply.ends_with("timed out")));
    // What was never sent is not sent later.
    assert_eq!(world.asked.len(), 16);
}

#[test]
fn a_request_that_waited_is_due_before_others_that_were_queued_ahead_of_it() {
    let mut world = World::new(|limits| {
        limits.in_flight_max = 1;
        limits.timeout = Some(Duration::from_secs(1));
    });
    let (patient, other) = (world.connect(), world.connect());
    world.get(patient, &["one", "two"]);
    world.settle();
    world.wait_until(ms(500));
    world.get(other, &["three"]);
    world.settle();
    world.wait_until(ms(800));
    world.answer(1);
    world.settle();
    assert_eq!(world.asked, ["three", "two"]);
    world.wait_until(ms(3000));
    assert_eq!(world.heard(patient)[1].0, ms(1000));
    assert_eq!(world.heard(other)[0].0, ms(1500));
    assert_eq!(world.counters.shards()[0].server_timedout.get(), 2);
}

#[test]
fn who_connects_anew_for_each_wrong_password_is_slowed_down() {
    let mut world = World::new(|_| {});
    let settings = Settings { password: Some(Secret::new("right".into())), ..Settings::default() };
    let counters = world.counters.with_shards(&[Some(0)]).remove(0);
    world.pool.reconfigure(settings, world.limits.clone(), topology(), counters, world.now);
    let guessers: Vec<_> = (0..150).map(|_| world.connect()).collect();
    for &guesser in &guessers {
        world.unread.insert(guesser, (world.now, "AUTH wrong\r\n".into()));
        world.read(guesser);
    }
    world.settle();
    let answered = guessers.iter().filter(|&&guesser| world.heard(guesser).len() == 1).count();
    assert_eq!(answered, 100);
    let owner = world.connect();
    world.unread.insert(owner, (world.now, "AUTH right\r\n".into()));
    world.read(owner);
    world.settle();
    assert_eq!(world.heard(owner).len(), 1, "who knows it does not wait");
    world.wait_until(ms(2_000));
    assert!(guessers[100..].iter().all(|&guesser| world.heard(guesser)[0].0 == ms(1000)));
}

/// One client that sends small requests without end has its turn, and then others have theirs.
#[test]
fn a_client_has_so_many_requests_in_a_turn() {
    let mut world = World::new(|_| {});
    let client = world.connect();
    world.unread.insert(client, (world.now, "PING\r\n".repeat(3000)));
    world.read(client);
    let output = world.pool.client_output(client).expect("replies");
    assert_eq!(output.len(), 1024 * "+PONG\r\n".len());
    world.settle();
    assert_eq!(world.heard(client).len(), 3000);
}
