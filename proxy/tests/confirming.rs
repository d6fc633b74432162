//! Clients that wait for replicas, in a simulated world: one seed is one run, in virtual time.
//!
//! Clients write and then WAIT, over shards whose replicas acknowledge what they are sent when they like, some of them never. A shard counts replicas
//! as servers from 7.2 on do: by what was written last on the connection that asks. Bytes are cut anywhere, clients vanish, are unblocked or
//! close their writing side, connections are reset and refused, shards are ejected. `SEED=7` replays a run.
//!
//! No client is told of more replicas than have all that it has written, on any shard; nobody is told of fewer than it asked for
//! before its time is over; and at the end, when replicas have all, nobody waits.
//!
//! Planted once each to see this fail: no mark, a request that does not wait for those before it, a part of a round that is lost without
//! a word, a round that ends with its first client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use memstore_proxy::failure::ShardFailure;
use memstore_proxy::pool::{ClientId, ConnectionId, Limits};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use memstore_proxy::time::Time;
use shard_discovery::Topology;
use world::random::{self, Random};
use world::shards::ring;
use world::words::{reply, request};
use world::{Event, World};

mod world;

const SHARDS: usize = 3;
const REPLICAS: usize = 2;
const CLIENTS: usize = 6;

/// What all runs together went through.
#[derive(Default, Debug)]
struct Coverage {
    confirmed: u64,
    timed_out: u64,
    unblocked: u64,
    errors: u64,
    vanished: u64,
    ended: u64,
    reused: u64,
    shared: u64,
    files: u64,
}

/// A connection as its shard sees it.
#[derive(Default)]
struct Connection {
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// What was written last on it.
    written: u64,
    waiting: Option<Waiting>,
    waits: u64,
}

struct Waiting {
    wanted: usize,
    files: bool,
    until: Option<Time>,
}

/// A shard with its replicas.
#[derive(Default)]
struct Store {
    written: u64,
    acknowledged: [u64; REPLICAS],
    /// By the clients' numbers: what of that is theirs.
    of_clients: BTreeMap<usize, u64>,
}

impl Store {
    fn count(&self, written: u64) -> usize {
        self.acknowledged.iter().filter(|&&acknowledged| acknowledged >= written).count()
    }
}

struct Asked {
    since: Time,
    wanted: usize,
    files: bool,
    patience: Option<Duration>,
    unblocked: bool,
    /// So many replies come before, and behind.
    before: usize,
    behind: usize,
}

struct Writer {
    id: ClientId,
    inbox: Vec<u8>,
    asked: Option<Asked>,
}

struct Run {
    random: Random,
    world: World<Resp>,
    all: Arc<Topology>,
    ejected: Option<usize>,
    stores: BTreeMap<String, Store>,
    connections: BTreeMap<ConnectionId, Connection>,
    writers: BTreeMap<usize, Writer>,
    other: ClientId,
    clients: usize,
    /// This replica of each shard never acknowledges anything in this run.
    is_stuck: bool,
    faulty: bool,
    coverage: Coverage,
}

fn topology() -> Arc<Topology> {
    Arc::new(ring(0..SHARDS, None))
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let limits = Limits { blocked_max: 4 + random.place(20), ..Limits::default() };
        let all = topology();
        let mut world = World::new(Settings::default(), limits, all.clone(), seed);
        let other = world.pool.client_connected(world.now);
        world.eager.insert(other, Vec::new());
        Self {
            is_stuck: random.one_in(3),
            faulty: random.one_in(2),
            random,
            world,
            all,
            ejected: None,
            stores: BTreeMap::new(),
            connections: BTreeMap::new(),
            writers: BTreeMap::new(),
            other,
            clients: 1,
            coverage: Coverage::default(),
        }
    }

    fn run(&mut self) {
        for _ in 0..1000 {
            self.step();
            self.settle();
        }
        self.heal();
    }

    fn step(&mut self) {
        match self.random.place(24) {
            0 if self.writers.len() < CLIENTS => {
                let id = self.world.pool.client_connected(self.world.now);
                self.clients += 1;
                self.world.eager.insert(id, Vec::new());
                self.writers.insert(self.clients, Writer { id, inbox: Vec::new(), asked: None });
            }
            1..=5 => self.ask(),
            6 if self.random.one_in(4) => self.unblock(),
            7..=8 => self.connect(self.faulty),
            9..=11 => self.write(false),
            12..=15 => self.execute(),
            16..=17 => self.read(false),
            18..=20 => self.acknowledge(),
            21 => {
                let most = if self.random.one_in(4) { 80_000 } else { 3_000 };
                let passed = self.random.place(most);
                self.pass_time(Duration::from_micros(passed as u64));
            }
            22 if self.random.one_in(4) => self.leave(),
            23 if self.faulty && self.random.one_in(8) => self.fault(),
            _ => {}
        }
    }

    fn any_writer(&mut self) -> Option<usize> {
        let count = self.writers.len();
        (count > 0).then(|| *self.writers.keys().nth(self.random.place(count)).expect("counted"))
    }

    /// A client writes, and waits for replicas.
    fn ask(&mut self) {
        let Some(number) = self.any_writer() else { return };
        let random = &mut self.random;
        let writer = self.writers.get_mut(&number).expect("just seen");
        if writer.asked.is_some() || !self.world.pool.wants_read(writer.id) {
            return;
        }
        let (before, behind) = (random.place(3), random.place(2));
        // Few kinds, so that several ask for the same.
        let (wanted, files) = (random.place(REPLICAS + 1), random.one_in(3));
        let patience = [None, Some(20)][random.place(2)];
        let mut said = String::new();
        for _ in 0..before {
            said += &format!("SET {number}:{} x\r\n", random.place(50));
        }
        let waits = if files { format!("WAITAOF 0 {wanted}") } else { format!("WAIT {wanted}") };
        said += &format!("{waits} {}\r\n", patience.unwrap_or(0));
        for _ in 0..behind {
            said += &format!("GET {number}:{}\r\n", random.place(50));
        }
        let patience = patience.map(Duration::from_millis);
        let since = self.world.now;
        writer.asked = Some(Asked { since, wanted, files, patience, unblocked: false, before, behind });
        let id = writer.id;
        self.world.client_sends(id, said.as_bytes());
    }

    fn unblock(&mut self) {
        let Some(number) = self.any_writer() else { return };
        let how = ["TIMEOUT", "ERROR"][self.random.place(2)];
        if let Some(asked) = &mut self.writers.get_mut(&number).expect("just seen").asked {
            asked.unblocked = true;
        }
        self.world.client_sends(self.other, format!("CLIENT UNBLOCK {number} {how}\r\n").as_bytes());
    }

    fn connect(&mut self, may_fail: bool) {
        for id in std::mem::take(&mut self.world.wanted) {
            if self.world.pool.shard_of(id).is_none() {
                continue;
            }
            if may_fail && self.random.one_in(20) {
                self.world.shard_closes(id, &ShardFailure::ConnectRefused);
            } else {
                self.connections.insert(id, Connection::default());
                self.world.shard_connects(id);
            }
        }
    }

    /// Requests reach the shards.
    fn write(&mut self, all: bool) {
        for (&id, connection) in &mut self.connections {
            let random = &mut self.random;
            let most = |length: usize| if all { length } else { 1 + random.place(length) };
            connection.inbox.extend(self.world.shard_takes(id, most));
        }
    }

    fn execute(&mut self) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            // What it waits for comes first.
            while let Some(connection) = self.connections.get_mut(&id)
                && connection.waiting.is_none()
                && let Some((words, length)) = request(&connection.inbox)
            {
                connection.inbox.drain(..length);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                self.answer(id, &words);
            }
        }
    }

    fn name(&self, id: ConnectionId) -> String {
        self.world.pool.shard_of(id).expect("it is there").name.clone()
    }

    fn answer(&mut self, id: ConnectionId, words: &[&str]) {
        let store =
            self.stores.entry(self.world.pool.shard_of(id).expect("it is there").name.clone()).or_default();
        let connection = self.connections.get_mut(&id).expect("just seen");
        let mut write = || {
            store.written += 1;
            connection.written = store.written;
            store.written
        };
        let reply = match words {
            ["CLIENT", "ID"] => ":77\r\n",
            ["GET", _] => "$-1\r\n",
            ["SET", key, _] => {
                let number = key.split(':').next().expect("a name").parse().expect("a number");
                let written = write();
                store.of_clients.insert(number, written);
                "+OK\r\n"
            }
            ["PUBLISH", ..] => {
                write();
                ":0\r\n"
            }
            ["WAIT", wanted, patience] | ["WAITAOF", "0", wanted, patience] => {
                let wanted = wanted.parse().expect("a number");
                let millis: u64 = patience.parse().expect("a number");
                let until = (millis > 0).then(|| self.world.now.plus(Duration::from_millis(millis)));
                self.coverage.reused += u64::from(connection.waits > 0);
                connection.waits += 1;
                connection.waiting = Some(Waiting { wanted, files: words[0] == "WAITAOF", until });
                return self.serve(id);
            }
            other => panic!("a shard was sent {other:?}"),
        };
        connection.outbox.extend(reply.bytes());
    }

    /// A wait ends where as many replicas as are wanted have what was written, or its time is over.
    fn serve(&mut self, id: ConnectionId) {
        let name = self.name(id);
        let store = self.stores.entry(name).or_default();
        let connection = self.connections.get_mut(&id).expect("just seen");
        let Some(waiting) = &connection.waiting else { return };
        let count = store.count(connection.written);
        if count < waiting.wanted && waiting.until.is_none_or(|until| until > self.world.now) {
            return;
        }
        let reply = if waiting.files { format!("*2\r\n:0\r\n:{count}\r\n") } else { format!(":{count}\r\n") };
        connection.waiting = None;
        connection.outbox.extend(reply.bytes());
    }

    /// Replicas acknowledge some of what they were sent.
    fn acknowledge(&mut self) {
        let first = usize::from(self.is_stuck);
        for store in self.stores.values_mut() {
            for acknowledged in &mut store.acknowledged[first..] {
                let behind = (store.written - *acknowledged) as usize;
                *acknowledged += self.random.place(behind + 1) as u64;
            }
        }
        self.serve_all();
    }

    fn serve_all(&mut self) {
        self.connections.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| self.serve(id));
    }

    /// Responses reach the proxy.
    fn read(&mut self, all: bool) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            if connection.outbox.is_empty() {
                continue;
            }
            let length = connection.outbox.len();
            let cut = if all { length } else { 1 + self.random.place(length) };
            let bytes: Vec<u8> = connection.outbox.drain(..cut).collect();
            self.world.shard_sends(id, &bytes).expect("shards are honest");
            self.settle();
        }
    }

    fn pass_time(&mut self, duration: Duration) {
        self.world.now = self.world.now.plus(duration);
        self.serve_all();
        let now = self.world.now;
        self.world.pool.tick(now);
        if self.random.one_in(3) {
            self.world.pool.sweep_connections(now);
        }
    }

    /// A client goes, at any point.
    fn leave(&mut self) {
        let Some(number) = self.any_writer() else { return };
        let id = self.writers[&number].id;
        if self.random.one_in(2) {
            let writer = self.writers.remove(&number).expect("just seen");
            self.coverage.vanished += u64::from(writer.asked.is_some());
            self.world.eager.remove(&id);
            self.world.pool.client_gone(id, true, self.world.now);
        } else if self.world.pool.is_waiting(id) {
            self.coverage.ended += 1;
            self.world.pool.client_ended(id);
            self.writers.remove(&number);
        }
    }

    fn fault(&mut self) {
        if self.random.one_in(3) {
            let shard = self.random.place(SHARDS);
            self.ejected = self.ejected.is_none().then_some(shard);
            return self.adopt();
        }
        if self.connections.is_empty() {
            return;
        }
        let at = self.random.place(self.connections.len());
        let id = *self.connections.keys().nth(at).expect("counted");
        self.connections.remove(&id);
        self.world.shard_closes(id, &ShardFailure::Reset);
    }

    fn adopt(&mut self) {
        let ejected: Vec<usize> = self.ejected.into_iter().collect();
        self.world.pool.set_topology(Arc::new(self.all.without(&ejected)), self.world.now);
    }

    fn settle(&mut self) {
        let before = self.connections.len() + self.world.wanted.len();
        let mut events = Vec::new();
        self.world.pass(&mut events);
        events.extend(self.world.settle());
        let waiting = self.writers.values().filter(|writer| self.world.pool.is_waiting(writer.id)).count();
        self.coverage.shared += u64::from(before > 0 && waiting > 1 && self.held() < waiting as i64);
        for event in events {
            match event {
                Event::ClientLeft(id, _) => {
                    self.world.eager.remove(&id);
                    let known = self.writers.values().find(|writer| writer.id == id);
                    assert!(known.is_none(), "a client was closed that is there");
                }
                Event::ConnectionClosed(id, _) => {
                    self.connections.remove(&id);
                }
                Event::ConnectionFinished(_) | Event::Shard(_) => {}
            }
        }
        self.hear();
    }

    /// Private connections that are held of the first shard.
    fn held(&self) -> i64 {
        self.world.counters.clone().shards()[0].private_held.get()
    }

    fn hear(&mut self) {
        self.world.eager.get_mut(&self.other).expect("it is there").clear();
        for number in self.writers.keys().copied().collect::<Vec<_>>() {
            let writer = self.writers.get_mut(&number).expect("just seen");
            let heard = std::mem::take(self.world.eager.get_mut(&writer.id).expect("it is there"));
            writer.inbox.extend(heard);
            while let Some((reply, length)) = reply(&self.writers[&number].inbox) {
                self.writers.get_mut(&number).expect("just seen").inbox.drain(..length);
                self.judge(number, &reply);
            }
        }
    }

    fn judge(&mut self, number: usize, reply: &str) {
        let writer = self.writers.get_mut(&number).expect("just seen");
        let asked = writer.asked.as_mut().expect("it has asked for something");
        if asked.before > 0 {
            asked.before -= 1;
            assert!(reply == "+OK" || (self.faulty && reply.starts_with('-')), "{reply} to SET");
            return;
        }
        if asked.wanted == usize::MAX {
            asked.behind -= 1;
            assert!(reply == "$-1" || (self.faulty && reply.starts_with('-')), "{reply} to GET");
        } else {
            let waited = self.world.now.since(asked.since);
            let is_over = asked.unblocked || asked.patience.is_some_and(|patience| waited >= patience);
            let number_in = |reply: &str| reply.rsplit([':', ' ']).next().and_then(|last| last.parse().ok());
            match reply {
                "-UNBLOCKED client unblocked via CLIENT UNBLOCK" => {
                    assert!(asked.unblocked, "{number} was unblocked by nobody");
                    self.coverage.unblocked += 1;
                }
                error if error.starts_with('-') => {
                    assert!(self.faulty || error.contains("(blocked_max)"), "{error} without a fault");
                    self.coverage.errors += 1;
                }
                count => {
                    let count: usize = number_in(count).expect("a number");
                    assert!(count >= asked.wanted || is_over, "{count} of {} too early", asked.wanted);
                    self.coverage.files += u64::from(asked.files);
                    if asked.wanted > 0 {
                        for (shard, store) in &self.stores {
                            let written = store.of_clients.get(&number).copied().unwrap_or(0);
                            let have = store.count(written);
                            assert!(count <= have, "{have} replicas of {shard} have it, not {count}");
                        }
                        let is_confirmed = count >= asked.wanted;
                        self.coverage.confirmed += u64::from(is_confirmed);
                        self.coverage.timed_out += u64::from(!is_confirmed && !asked.unblocked);
                    }
                }
            }
            asked.wanted = usize::MAX;
        }
        if asked.behind == 0 {
            writer.asked = None;
        }
    }

    /// All is well again, replicas have all, and nobody waits.
    fn heal(&mut self) {
        (self.ejected, self.is_stuck) = (None, false);
        self.adopt();
        for round in 0.. {
            for _ in 0..8 {
                self.settle();
                self.connect(false);
                self.write(true);
                self.execute();
                for store in self.stores.values_mut() {
                    store.acknowledged = [store.written; REPLICAS];
                }
                self.serve_all();
                self.read(true);
            }
            if self.writers.values().all(|writer| writer.asked.is_none()) {
                break;
            }
            assert!(round < 40, "somebody waits for replicas that have all");
            self.faulty = true;
            self.pass_time(Duration::from_millis(50));
        }
        self.settle();
        assert_eq!(self.world.counters.blocked_confirming.get(), 0, "nobody waits");
        let counters = self.world.counters.clone();
        let held: i64 = counters.shards().iter().map(|shard| shard.private_held.get()).sum();
        assert_eq!(held, 0, "nobody has a connection");
        assert_eq!(self.world.pool.waiting_for_replicas(), (0, 0), "nothing is left of it");
    }
}

#[test]
fn no_client_is_told_of_replicas_that_lack_what_it_has_written() {
    let seeds = random::seeds(300);
    let many = seeds.end - seeds.start >= 100;
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds {
        let mut run = Run::new(seed);
        random::run(seed, || run.run());
        let of_run = run.coverage;
        for (what, count) in [
            ("waits confirmed", of_run.confirmed),
            ("waits that timed out", of_run.timed_out),
            ("clients unblocked", of_run.unblocked),
            ("errors", of_run.errors),
            ("clients that vanished", of_run.vanished),
            ("clients that ended", of_run.ended),
            ("connections used again", of_run.reused),
            ("connections shared", of_run.shared),
            ("waits for files", of_run.files),
        ] {
            *all.entry(what).or_default() += count;
        }
    }
    println!("{all:?}");
    for (what, count) in all {
        assert!(!many || count > 20, "only {count} {what}");
    }
}
