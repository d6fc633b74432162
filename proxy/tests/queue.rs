//! Who waits for room in the queue of a shard: first come, first served, and never longer than a request may take.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use memstore_proxy::metrics::Counters;
use memstore_proxy::pool::buffer::Output;
use memstore_proxy::pool::time::Time;
use memstore_proxy::pool::{ClientId, Identity, Limits, Pool, Verdict};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
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
        self.pool.before_shard_read(0, &mut scratch);
        for key in self.asked.drain(..count) {
            scratch.extend_from_slice(format!("+{key}\r\n").as_bytes());
        }
        self.pool.shard_received(0, &mut scratch, self.now).expect("good responses");
    }

    /// The end of a pass.
    fn settle(&mut self) {
        let (mut connects, mut shards, mut clients) = (Vec::new(), Vec::new(), Vec::new());
        let mut closes = Vec::new();
        let mut scratch = BytesMut::new();
        for _ in 0..10_000 {
            self.pool.resume(&mut scratch, self.now);
            self.pool.take_connects(&mut connects);
            connects.drain(..).for_each(|index| self.pool.shard_connected(index, self.now));
            self.pool.take_dirty_shards(&mut shards);
            for index in shards.drain(..) {
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
            self.pool.take_closes(&mut closes);
            for (index, failure) in closes.drain(..) {
                self.asked.clear();
                self.rest.clear();
                self.pool.shard_closed(index, &failure, self.now);
            }
            self.pool.take_dirty_clients(&mut clients);
            for id in clients.drain(..) {
                let said = self.pool.client_output(id).map(taken).unwrap_or_default();
                let heard = self.heard.entry(id).or_default();
                heard.extend(said.lines().map(|line| (self.now, line.to_owned())));
                if self.pool.settle_client(id) == Verdict::Read {
                    self.read(id);
                }
            }
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
        let used = output.vectors(&mut vectors);
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
fn who_comes_later_does_not_take_the_room_of_those_that_wait() {
    let mut world = World::new(|limits| limits.shard_queue_max = 1);
    let clients: Vec<ClientId> = (0..4).map(|_| world.connect()).collect();
    for (client, key) in [(0, "first"), (1, "second"), (2, "third")] {
        world.get(clients[client], &[key, key]);
        world.settle();
        world.now = world.now.plus(Duration::from_millis(1));
    }
    let mut order = Vec::new();
    for round in 0..7 {
        order.extend(world.asked.clone());
        world.answer(1);
        if round == 0 {
            // In the same pass, before anybody else was looked at.
            world.get(clients[3], &["late"]);
        }
        world.settle();
    }
    // One request each in turn, the second ones behind the first of those that waited meanwhile.
    assert_eq!(order, ["first", "first", "second", "third", "late", "second", "third"]);
}

#[test]
fn waiting_for_room_counts_against_the_timeout() {
    let mut world = World::new(|limits| {
        limits.shard_queue_max = 1;
        limits.timeout = Some(Duration::from_secs(1));
    });
    let (first, second) = (world.connect(), world.connect());
    world.get(first, &["first"]);
    world.settle();
    world.wait_until(ms(100));
    world.get(second, &["second"]);
    world.settle();
    world.wait_until(ms(950));
    world.answer(1);
    world.settle();
    assert_eq!(world.asked, ["second"]);
    world.wait_until(ms(3000));
    assert_eq!(world.heard(second), [(ms(1100), "-ERR shard shard: timed out".to_owned())]);
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
fn a_client_that_takes_its_replies_late_has_its_time_still() {
    let mut world = World::new(|limits| {
        limits.timeout = Some(Duration::from_millis(300));
        limits.in_flight_max = 1;
    });
    let client = world.connect();
    world.get(client, &["one", "two"]);
    world.settle();
    world.answer(1);
    // The socket takes nothing: it is settled with its reply.
    let mut clients = Vec::new();
    world.pool.take_dirty_clients(&mut clients);
    world.pool.settle_client(client);
    world.now = ms(1000);
    world.settle();
    assert_eq!(world.asked, ["two"]);
    world.answer(1);
    world.settle();
    let heard: Vec<&str> = world.heard(client).iter().map(|(_, reply)| reply.as_str()).collect();
    assert_eq!(heard, ["+one", "+two"]);
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
fn who_leaves_does_not_wait_any_more() {
    let mut world = World::new(|limits| limits.shard_queue_max = 1);
    let clients: Vec<ClientId> = (0..3).map(|_| world.connect()).collect();
    for (&client, key) in clients.iter().zip(["a", "b", "c"]) {
        world.get(client, &[key]);
    }
    world.settle();
    assert_eq!(world.pool.next_deadline(), Some(ms(1000)));
    world.pool.client_gone(clients[1], true);
    world.answer(1);
    world.settle();
    assert_eq!(world.asked, ["c"]);
    world.wait_until(ms(2000));
    assert_eq!(world.pool.next_deadline(), None);
    assert_eq!(world.counters.queue_full.get(), 0);
}

#[test]
fn a_shorter_wait_holds_for_those_that_wait_already() {
    let mut world = World::new(|limits| {
        limits.shard_queue_max = 1;
        limits.queue_wait = Duration::from_secs(3600);
    });
    let (first, second) = (world.connect(), world.connect());
    world.get(first, &["a"]);
    world.get(second, &["b"]);
    world.settle();
    world.wait_until(ms(500));
    let limits = Limits { queue_wait: Duration::from_secs(1), ..world.limits.clone() };
    let counters = world.counters.with_shards(&[Some(0)]).remove(0);
    world.pool.reconfigure(Settings::default(), limits, topology(), counters, world.now);
    world.settle();
    world.wait_until(ms(3000));
    assert_eq!(world.heard(second), [(ms(1000), "-ERR shard shard: queue full".to_owned())]);
}

#[test]
fn more_room_is_for_those_that_wait_already() {
    let mut world = World::new(|limits| limits.shard_queue_max = 1);
    let (first, second) = (world.connect(), world.connect());
    world.get(first, &["a"]);
    world.get(second, &["b"]);
    world.settle();
    let limits = Limits { shard_queue_max: 2, ..world.limits.clone() };
    let counters = world.counters.with_shards(&[Some(0)]).remove(0);
    world.pool.reconfigure(Settings::default(), limits, topology(), counters, world.now);
    world.settle();
    assert_eq!(world.asked, ["a", "b"]);
}

/// A queue that is full of large values is no reason for a small request to wait behind those that have more of them.
#[test]
fn a_small_request_is_queued_where_large_ones_wait() {
    let mut world = World::new(|limits| {
        limits.shard_queue_bytes_max = 100_000;
        limits.shard_queue_max = 65_536;
    });
    let (large, next, small) = (world.connect(), world.connect(), world.connect());
    let value = format!("SET k {}\r\n", "v".repeat(60_000));
    world.unread.insert(large, (world.now, value.repeat(4)));
    world.read(large);
    world.unread.insert(next, (world.now, value));
    world.read(next);
    assert_eq!(world.counters.queue_waits.get(), 2, "both wait");
    world.unread.insert(small, (world.now, "GET k\r\n".into()));
    world.read(small);
    assert_eq!(world.counters.queue_waits.get(), 2, "it does not wait");
}

/// What the kernel has taken for a shard is in the way of the next request as well.
#[test]
fn what_is_written_and_not_answered_fills_the_queue_too() {
    let mut world = World::new(|limits| limits.shard_queue_bytes_max = 100_000);
    let client = world.connect();
    world.get(client, &["k".repeat(60_000).as_str(); 4]);
    world.settle();
    assert_eq!(world.asked.len(), 2);
    world.answer(1);
    world.settle();
    assert_eq!(world.asked.len(), 2, "one is answered, the next is written");
    world.answer(2);
    world.settle();
    world.answer(1);
    world.settle();
    assert_eq!(world.heard(client).len(), 4);
}

#[test]
fn who_goes_on_with_wrong_passwords_is_slowed_down() {
    let mut world = World::new(|_| {});
    let settings = Settings { password: Some(b"right".to_vec()), ..Settings::default() };
    let counters = world.counters.with_shards(&[Some(0)]).remove(0);
    world.pool.reconfigure(settings, world.limits.clone(), topology(), counters, world.now);
    let (guesser, owner) = (world.connect(), world.connect());
    let guesses = "AUTH wrong\r\n".repeat(15);
    world.unread.insert(guesser, (world.now, guesses));
    world.read(guesser);
    world.settle();
    assert_eq!(world.heard(guesser).len(), 10, "ten are free, the next waits for its reply");
    world.unread.insert(owner, (world.now, "AUTH right\r\n".into()));
    world.read(owner);
    world.settle();
    assert_eq!(world.heard(owner).len(), 1);
    world.wait_until(ms(10_000));
    let when: Vec<Time> = world.heard(guesser)[10..].iter().map(|(when, _)| *when).collect();
    assert_eq!(when, [ms(1000), ms(2000), ms(3000), ms(4000), ms(5000)]);
    assert_eq!(world.counters.wrong_passwords.get(), 15);
}

#[test]
fn who_connects_anew_for_each_wrong_password_is_slowed_down() {
    let mut world = World::new(|_| {});
    let settings = Settings { password: Some(b"right".to_vec()), ..Settings::default() };
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
