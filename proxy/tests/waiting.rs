//! Clients that wait for data, in a simulated world: one seed is one run, in virtual time.
//!
//! Consumers wait for elements of lists with BLPOP, a producer pushes elements of which no two are alike. Bytes are cut anywhere,
//! consumers vanish or close their writing side at every point, others unblock them, connections are reset and refused,
//! primaries become replicas, shards are ejected, restored and found elsewhere. `SEED=7` replays a run.
//!
//! Each request names its consumer in a second key, so that a shard knows for whom it takes an element: never for one that is
//! gone or does not wait. Each element is delivered once, or is still there, or was lost with a consumer or a connection that broke. At
//! the end everything heals, and nobody may wait for what is there.
//!
//! Planted once each to see this fail: a request that is sent though its client is gone, a connection that is not closed with
//! its client, one that is given back though its wait was to be ended, a wait that is not moved with its keys.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use memstore_proxy::failure::ShardFailure;
use memstore_proxy::pool::{ClientId, ConnectionId, Limits};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use memstore_proxy::time::Time;
use shard_discovery::{HashTag, Topology};
use world::random::{self, Random};
use world::shards::ring;
use world::words::{reply, request};
use world::{Event, World};

mod waiting {
    mod flood;
}
mod world;

const SHARDS: usize = 3;
const LISTS: u64 = 5;
const CONSUMERS: usize = 6;

/// What all runs together went through.
#[derive(Default, Debug)]
struct Coverage {
    delivered: u64,
    timed_out: u64,
    unblocked: u64,
    errors: u64,
    vanished_waiting: u64,
    ended_waiting: u64,
    lost: u64,
    reused: u64,
    moved: u64,
    demoted: u64,
    reset_waiting: u64,
    finished: u64,
}

/// A consumer's request that waits at a shard.
#[derive(Clone)]
struct Blocked {
    key: String,
    consumer: usize,
    until: Option<Time>,
}

/// A connection as its shard sees it.
#[derive(Default)]
struct Connection {
    number: u64,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    blocked: Option<Blocked>,
    /// Who gets what is on its way.
    given: Option<usize>,
    waits: u64,
    /// The proxy has closed its side.
    finished: bool,
}

#[derive(Default)]
struct Store {
    lists: HashMap<String, VecDeque<String>>,
    /// Connections that wait, in their order.
    queue: Vec<ConnectionId>,
}

/// What a consumer waits for.
struct Asked {
    since: Time,
    patience: Option<Duration>,
    /// Somebody has unblocked it.
    unblocked: bool,
}

struct Consumer {
    id: ClientId,
    inbox: Vec<u8>,
    asked: Option<Asked>,
    /// So many replies to other requests come before and behind.
    others: [u64; 2],
}

struct Run {
    random: Random,
    world: World<Resp>,
    all: Arc<Topology>,
    ejected: BTreeSet<usize>,
    stores: BTreeMap<String, Store>,
    connections: BTreeMap<ConnectionId, Connection>,
    consumers: BTreeMap<usize, Consumer>,
    producer: ClientId,
    /// Unblocks others, and has nothing else to do, so that it does so at once.
    other: ClientId,
    /// Clients that ever connected.
    clients: usize,
    next_element: u64,
    next_number: u64,
    /// Elements that a shard has taken for a consumer, which has not had them yet.
    taken: BTreeMap<String, usize>,
    delivered: BTreeSet<String>,
    pushed: BTreeSet<String>,
    /// Consumers that may have lost what was taken for them.
    broken: BTreeSet<usize>,
    faulty: bool,
    /// Shards tell nobody the number of a connection in this run.
    is_strict: bool,
    /// Connections are refused in this run.
    refuses: bool,
    coverage: Coverage,
}

fn topology() -> Arc<Topology> {
    Arc::new(ring(0..SHARDS, Some(HashTag::REDIS_CLUSTER)))
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let limits = Limits { blocked_max: 2 + random.below(30) as usize, ..Limits::default() };
        let all = topology();
        let mut world =
            World::new(Settings { databases: 16, ..Settings::default() }, limits, all.clone(), seed);
        let producer = world.pool.client_connected(world.now);
        let other = world.pool.client_connected(world.now);
        world.eager.extend([(producer, Vec::new()), (other, Vec::new())]);
        let faulty = random.one_in(2);
        Self {
            faulty,
            is_strict: random.one_in(4),
            refuses: faulty,
            random,
            world,
            all,
            ejected: BTreeSet::new(),
            stores: BTreeMap::new(),
            connections: BTreeMap::new(),
            consumers: BTreeMap::new(),
            producer,
            other,
            clients: 2,
            next_element: 0,
            next_number: 100,
            taken: BTreeMap::new(),
            delivered: BTreeSet::new(),
            pushed: BTreeSet::new(),
            broken: BTreeSet::new(),
            coverage: Coverage::default(),
        }
    }

    fn run(&mut self) {
        for _ in 0..600 {
            self.step();
            self.settle();
        }
        self.heal();
    }

    fn step(&mut self) {
        match self.random.below(24) {
            0 if self.consumers.len() < CONSUMERS => {
                let id = self.world.pool.client_connected(self.world.now);
                self.clients += 1;
                self.world.eager.insert(id, Vec::new());
                let number = self.clients;
                let (inbox, asked, others) = (Vec::new(), None, [0; 2]);
                self.consumers.insert(number, Consumer { id, inbox, asked, others });
            }
            1..=4 => self.ask(),
            5..=6 => self.push(),
            7 => self.unblock(),
            8..=9 => self.connect(),
            10..=12 => self.write(false),
            13..=17 => self.execute(),
            18..=19 => self.read(false),
            20 => {
                let micros = if self.random.one_in(4) { 80_000 } else { 3_000 };
                let passed = self.random.below(micros);
                self.pass_time(Duration::from_micros(passed));
            }
            21 => self.leave(),
            22 => self.change(),
            _ if self.faulty && self.random.one_in(2) => self.fault(),
            _ => {}
        }
    }

    fn any_consumer(&mut self) -> Option<usize> {
        let count = self.consumers.len() as u64;
        (count > 0).then(|| *self.consumers.keys().nth(self.random.below(count) as usize).expect("counted"))
    }

    /// A consumer begins to wait.
    fn ask(&mut self) {
        let Some(number) = self.any_consumer() else { return };
        let consumer = self.consumers.get_mut(&number).expect("just seen");
        if consumer.asked.is_some() || consumer.others != [0; 2] || !self.world.pool.wants_read(consumer.id) {
            return;
        }
        let list = self.random.below(LISTS);
        let patience = [None, Some(10 + self.random.below(300))][self.random.below(2) as usize];
        let seconds = patience.map_or("0".into(), |millis| format!("0.{millis:03}"));
        let mut said = String::new();
        if self.random.one_in(4) {
            said += &format!("GET {{l{list}}}other\r\n");
            consumer.others[0] = 1;
        }
        said += &format!("BLPOP {{l{list}}} {{l{list}}}for:{number} {seconds}\r\n");
        if self.random.one_in(4) {
            said += &format!("GET {{l{list}}}other\r\n");
            consumer.others[1] = 1;
        }
        let patience = patience.map(Duration::from_millis);
        consumer.asked = Some(Asked { since: self.world.now, patience, unblocked: false });
        let id = consumer.id;
        self.world.client_sends(id, said.as_bytes());
    }

    fn push(&mut self) {
        let list = self.random.below(LISTS);
        self.push_to(list);
    }

    fn push_to(&mut self, list: u64) {
        if !self.world.pool.wants_read(self.producer) {
            return;
        }
        self.next_element += 1;
        let said = format!("RPUSH {{l{list}}} e{}\r\n", self.next_element);
        self.world.client_sends(self.producer, said.as_bytes());
    }

    fn unblock(&mut self) {
        let Some(number) = self.any_consumer() else { return };
        let how = ["TIMEOUT", "ERROR"][self.random.below(2) as usize];
        if let Some(asked) = &mut self.consumers.get_mut(&number).expect("just seen").asked {
            asked.unblocked = true;
        }
        self.world.client_sends(self.other, format!("CLIENT UNBLOCK {number} {how}\r\n").as_bytes());
    }

    fn connect(&mut self) {
        for id in std::mem::take(&mut self.world.wanted) {
            if self.world.pool.shard_of(id).is_none() {
                continue;
            }
            if self.faulty && self.random.one_in(6) {
                self.world.shard_closes(id, &ShardFailure::ConnectRefused);
            } else {
                self.next_number += 1;
                let number = self.next_number;
                self.connections.insert(id, Connection { number, ..Connection::default() });
                self.world.shard_connects(id);
            }
        }
    }

    /// Requests reach the shards.
    fn write(&mut self, all: bool) {
        for (&id, connection) in &mut self.connections {
            let random = &mut self.random;
            let most = |length: usize| if all { length } else { 1 + random.below(length as u64) as usize };
            connection.inbox.extend(self.world.shard_takes(id, most));
        }
    }

    fn execute(&mut self) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            // What it waits for comes first.
            while let Some(connection) = self.connections.get_mut(&id)
                && connection.blocked.is_none()
                && let Some((words, length)) = request(&connection.inbox)
            {
                connection.inbox.drain(..length);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                self.answer(id, &words);
            }
        }
        self.close_finished();
    }

    fn store(&mut self, id: ConnectionId) -> &mut Store {
        let name = self.world.pool.shard_of(id).expect("it is there").name.clone();
        self.stores.entry(name).or_default()
    }

    fn answer(&mut self, id: ConnectionId, words: &[&str]) {
        let now = self.world.now;
        let reply = match words {
            ["CLIENT", "ID"] if self.is_strict => "-NOPERM it is not permitted\r\n".into(),
            ["CLIENT", "ID"] => format!(":{}\r\n", self.connections[&id].number),
            ["CLIENT", "UNBLOCK", number, how] => {
                let number: u64 = number.parse().expect("a number");
                let found = self.connections.iter().find(|(_, connection)| connection.number == number);
                let found = found.filter(|(_, connection)| connection.blocked.is_some()).map(|(&id, _)| id);
                if let Some(found) = found {
                    let reply = match *how {
                        "ERROR" => "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n",
                        _ => "*-1\r\n",
                    };
                    self.end(found, reply);
                }
                format!(":{}\r\n", u8::from(found.is_some()))
            }
            ["GET", _] => "$-1\r\n".into(),
            ["RPUSH", key, element] => {
                assert!(self.pushed.insert((*element).to_owned()), "{element} is pushed twice");
                let list = self.store(id).lists.entry((*key).to_owned()).or_default();
                list.push_back((*element).to_owned());
                let reply = format!(":{}\r\n", list.len());
                self.serve(id, key);
                reply
            }
            ["BLPOP", key, named, seconds] => {
                let consumer = named.rsplit(':').next().expect("a name").parse().expect("a number");
                self.is_there(consumer);
                let micros = (seconds.parse::<f64>().expect("seconds") * 1e6) as u64;
                let until = (micros > 0).then(|| now.plus(Duration::from_micros(micros)));
                let connection = self.connections.get_mut(&id).expect("just seen");
                self.coverage.reused += u64::from(connection.waits > 0);
                connection.waits += 1;
                connection.blocked = Some(Blocked { key: (*key).to_owned(), consumer, until });
                self.store(id).queue.push(id);
                return self.serve(id, key);
            }
            other => panic!("a shard was sent {other:?}"),
        };
        self.connections.get_mut(&id).expect("just seen").outbox.extend(reply.bytes());
    }

    /// The consumer waits; else nothing is to be done for it.
    fn is_there(&self, consumer: usize) {
        let waits = self.consumers.get(&consumer).is_some_and(|consumer| consumer.asked.is_some());
        assert!(waits, "a shard is asked to wait for consumer {consumer}, which does not");
    }

    /// Those that wait for the list get what is there.
    fn serve(&mut self, at: ConnectionId, key: &str) {
        loop {
            let queue = self.store(at).queue.clone();
            let is_meant = |id: &ConnectionId| {
                self.connections[id].blocked.as_ref().is_some_and(|blocked| blocked.key == key)
            };
            let Some(first) = queue.into_iter().find(is_meant) else { return };
            let list = self.store(at).lists.entry(key.to_owned()).or_default();
            let Some(element) = list.pop_front() else { return };
            let consumer = self.connections[&first].blocked.as_ref().expect("just seen").consumer;
            self.is_there(consumer);
            self.taken.insert(element.clone(), consumer);
            let reply = format!("*2\r\n${}\r\n{key}\r\n${}\r\n{element}\r\n", key.len(), element.len());
            self.end(first, &reply);
            self.connections.get_mut(&first).expect("just seen").given = Some(consumer);
        }
    }

    /// A wait ends at the shard.
    fn end(&mut self, id: ConnectionId, reply: &str) {
        self.store(id).queue.retain(|&other| other != id);
        let connection = self.connections.get_mut(&id).expect("it is there");
        (connection.blocked, connection.given) = (None, None);
        connection.outbox.extend(reply.bytes());
    }

    /// Responses reach the proxy.
    fn read(&mut self, all: bool) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            if connection.outbox.is_empty() {
                continue;
            }
            let length = connection.outbox.len();
            let cut = if all { length } else { 1 + self.random.below(length as u64) as usize };
            let bytes: Vec<u8> = connection.outbox.drain(..cut).collect();
            self.world.shard_sends(id, &bytes).expect("shards are honest");
            self.settle();
        }
    }

    fn pass_time(&mut self, duration: Duration) {
        self.world.now = self.world.now.plus(duration);
        let now = self.world.now;
        let is_over = |blocked: &Blocked| blocked.until.is_some_and(|until| until <= now);
        let over = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.blocked.as_ref().is_some_and(is_over));
        for id in over.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.end(id, "*-1\r\n");
        }
        self.world.pool.tick(now);
        if self.random.one_in(3) {
            self.world.pool.sweep_connections(now);
        }
    }

    /// A consumer goes, at any point.
    fn leave(&mut self) {
        let Some(number) = self.any_consumer() else { return };
        let id = self.consumers[&number].id;
        if self.random.one_in(2) {
            let consumer = self.consumers.remove(&number).expect("just seen");
            self.coverage.vanished_waiting += u64::from(consumer.asked.is_some());
            self.world.eager.remove(&id);
            self.world.pool.client_gone(id, true, self.world.now);
        } else if self.world.pool.is_waiting(id) {
            self.coverage.ended_waiting += 1;
            self.world.pool.client_ended(id);
            self.consumers.remove(&number);
        }
    }

    /// Keys move.
    fn change(&mut self) {
        if self.random.one_in(2) {
            let shard = self.random.below(SHARDS as u64);
            self.world.pool.renew(&format!("shard-{shard}"), self.world.now);
            return;
        }
        let shard = self.random.below(SHARDS as u64) as usize;
        if !self.ejected.remove(&shard) && self.ejected.len() + 1 < SHARDS {
            self.ejected.insert(shard);
        }
        self.adopt();
    }

    fn adopt(&mut self) {
        let ejected: Vec<usize> = self.ejected.iter().copied().collect();
        let waiting = self.connections.values().filter(|connection| connection.blocked.is_some()).count();
        self.coverage.moved += waiting as u64;
        self.world.pool.set_topology(Arc::new(self.all.without(&ejected)), self.world.now);
    }

    fn fault(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let at = self.random.below(self.connections.len() as u64) as usize;
        let id = *self.connections.keys().nth(at).expect("counted");
        if !self.random.one_in(3) {
            // A primary becomes a replica, and ends all waits.
            for id in self.store(id).queue.clone() {
                self.coverage.demoted += 1;
                self.end(id, "-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)\r\n");
            }
            return;
        }
        self.world.shard_closes(id, &ShardFailure::Reset);
        self.gone(id);
    }

    /// The proxy has closed its side of the connection: its shard reads that once it has answered what came before, and gives up what waits
    /// there.
    fn finished(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.finished = true;
        }
    }

    fn close_finished(&mut self) {
        let is_read = |connection: &Connection| connection.finished && connection.inbox.is_empty();
        let all = self.connections.iter().filter(|(_, connection)| is_read(connection));
        for id in all.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.store(id).queue.retain(|&other| other != id);
            let connection = self.connections.get_mut(&id).expect("just seen");
            connection.blocked = None;
            if connection.outbox.is_empty() {
                self.coverage.finished += 1;
                self.gone(id);
                self.world.shard_closes(id, &ShardFailure::Closed);
            }
        }
    }

    /// The connection is not there any more. What was taken for a consumer and is on its way is lost.
    fn gone(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.coverage.reset_waiting += u64::from(connection.blocked.is_some());
        for store in self.stores.values_mut() {
            store.queue.retain(|&other| other != id);
        }
        self.broken.extend(connection.given.filter(|_| !connection.outbox.is_empty()));
    }

    fn settle(&mut self) {
        let mut events = Vec::new();
        self.world.pass(&mut events);
        events.extend(self.world.settle());
        for event in events {
            match event {
                Event::ClientLeft(id, _) => {
                    self.world.eager.remove(&id);
                    assert_ne!(id, self.producer, "the producer is there");
                    let known = self.consumers.values().find(|consumer| consumer.id == id);
                    assert!(known.is_none(), "a consumer was closed that is there");
                }
                Event::ConnectionClosed(id, _) => {
                    // Never while somebody waits there, who is there, unless the shard could not be asked to end it.
                    if let Some(connection) = self.connections.get(&id) {
                        let on_its_way = connection.given.filter(|_| !connection.outbox.is_empty());
                        let consumer =
                            connection.blocked.as_ref().map(|blocked| blocked.consumer).or(on_its_way);
                        let is_there =
                            consumer.is_some_and(|consumer| self.consumers.contains_key(&consumer));
                        assert!(
                            !is_there || self.refuses,
                            "{consumer:?} waits on a connection that is given up"
                        );
                    }
                    self.gone(id);
                }
                Event::ConnectionFinished(id) => self.finished(id),
                Event::Shard(_) => {}
            }
        }
        self.hear();
        // Nobody waits at a shard, or is about to, for whom nothing is to be done.
        for connection in self.connections.values() {
            if let Some(blocked) = &connection.blocked {
                self.is_there(blocked.consumer);
            }
        }
    }

    fn hear(&mut self) {
        for id in [self.producer, self.other] {
            self.world.eager.get_mut(&id).expect("it is there").clear();
        }
        for number in self.consumers.keys().copied().collect::<Vec<_>>() {
            let consumer = self.consumers.get_mut(&number).expect("just seen");
            let heard = std::mem::take(self.world.eager.get_mut(&consumer.id).expect("it is there"));
            consumer.inbox.extend(heard);
            while let Some((reply, length)) = reply(&self.consumers[&number].inbox) {
                self.consumers.get_mut(&number).expect("just seen").inbox.drain(..length);
                self.judge(number, &reply);
            }
        }
    }

    fn judge(&mut self, number: usize, reply: &str) {
        let now = self.world.now;
        let consumer = self.consumers.get_mut(&number).expect("just seen");
        if consumer.others[0] > 0 {
            consumer.others[0] -= 1;
            assert!(reply == "$-1" || self.faulty, "{reply} to GET");
            return;
        }
        let Some(asked) = consumer.asked.take() else {
            assert!(consumer.others[1] > 0, "nobody asked for {reply}");
            consumer.others[1] -= 1;
            assert!(reply == "$-1" || self.faulty, "{reply} to GET");
            return;
        };
        let waited = now.since(asked.since);
        match reply {
            "*-1" if asked.unblocked => self.coverage.unblocked += 1,
            "*-1" => {
                // The rest of a wait is told in whole milliseconds.
                let least = asked
                    .patience
                    .expect("one that waits for ever")
                    .saturating_sub(Duration::from_millis(20));
                assert!(waited >= least, "nothing came after {waited:?}, not {:?}", asked.patience);
                self.coverage.timed_out += 1;
            }
            "-UNBLOCKED client unblocked via CLIENT UNBLOCK" => {
                assert!(asked.unblocked, "{number} was unblocked by nobody");
                self.coverage.unblocked += 1;
            }
            error if error.starts_with('-') => {
                let is_limit = error.contains("(blocked_max)");
                assert!(self.faulty || is_limit, "{error} without a fault");
                self.coverage.errors += 1;
            }
            element => {
                let element = element.rsplit(' ').next().expect("the last word").to_owned();
                assert_eq!(self.taken.remove(&element), Some(number), "{element} was taken for another one");
                assert!(self.delivered.insert(element), "delivered twice");
                self.coverage.delivered += 1;
            }
        }
    }

    /// All is well again, and nobody waits for what is there.
    fn heal(&mut self) {
        self.faulty = true;
        self.ejected.clear();
        self.adopt();
        for round in 0.. {
            for _ in 0..8 {
                self.settle();
                self.next_number += 1;
                for id in std::mem::take(&mut self.world.wanted) {
                    if self.world.pool.shard_of(id).is_some() {
                        self.next_number += 1;
                        let number = self.next_number;
                        self.connections.insert(id, Connection { number, ..Connection::default() });
                        self.world.shard_connects(id);
                    }
                }
                self.write(true);
                self.execute();
                self.read(true);
            }
            if self.consumers.values().all(|consumer| consumer.asked.is_none()) {
                break;
            }
            assert!(round < 40, "somebody waits for what is there");
            (0..LISTS).for_each(|list| self.push_to(list));
            self.pass_time(Duration::from_millis(50));
        }
        let there: BTreeSet<&String> =
            self.stores.values().flat_map(|store| store.lists.values().flatten()).collect();
        for element in &self.pushed {
            let places =
                [there.contains(element), self.delivered.contains(element), self.taken.contains_key(element)];
            assert_eq!(places.iter().filter(|&&is_there| is_there).count(), 1, "{element}: {places:?}");
        }
        for (element, consumer) in &self.taken {
            // It went while that was on its way to it, or its connection broke.
            let is_lost = !self.consumers.contains_key(consumer) || self.broken.contains(consumer);
            assert!(is_lost, "{element} was taken for {consumer}, which never had it");
            self.coverage.lost += 1;
        }
        let counters = self.world.counters.clone();
        let counters = counters.shards();
        let blocked: i64 = counters.iter().map(|shard| shard.blocked_clients.get()).sum();
        let held: i64 = counters.iter().map(|shard| shard.private_held.get()).sum();
        assert_eq!((blocked, held), (0, 0), "nobody waits");
        let spare: i64 = counters.iter().map(|shard| shard.private_connections.get()).sum();
        for _ in 0..2 {
            self.world.pass_time(Duration::from_secs(11));
            // Those that were put off are made late.
            std::mem::take(&mut self.world.wanted).into_iter().for_each(|id| {
                self.world.shard_connects(id);
                self.world.settle();
                self.world.shard_takes(id, |length| length);
                let _ = self.world.shard_sends(id, b":1\r\n");
            });
        }
        self.world.pass_time(Duration::from_secs(11));
        let left: i64 = counters.iter().map(|shard| shard.private_connections.get()).sum();
        assert!(left == 0 && spare >= 0, "{left} of {spare} connections are kept for nobody");
    }
}

#[test]
fn elements_are_taken_for_those_who_wait() {
    let seeds = random::seeds(300);
    let many = seeds.end - seeds.start >= 100;
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds {
        let mut run = Run::new(seed);
        random::run(seed, || run.run());
        let of_run = run.coverage;
        for (what, count) in [
            ("elements delivered", of_run.delivered),
            ("waits that timed out", of_run.timed_out),
            ("clients unblocked", of_run.unblocked),
            ("errors", of_run.errors),
            ("clients that vanished", of_run.vanished_waiting),
            ("clients that ended", of_run.ended_waiting),
            ("elements lost on their way", of_run.lost),
            ("connections used again", of_run.reused),
            ("waits at another topology", of_run.moved),
            ("waits that shards ended", of_run.demoted),
            ("waits that broke", of_run.reset_waiting),
            ("waits that ended with their connection", of_run.finished),
        ] {
            *all.entry(what).or_default() += count;
        }
    }
    println!("{all:?}");
    for (what, count) in all {
        assert!(!many || count > 20, "only {count} {what}");
    }
}
