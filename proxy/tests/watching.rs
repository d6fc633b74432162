//! Clients that watch keys, in a simulated world: one seed is one run, in virtual time.
//!
//! Each client counts up: it watches a counter, reads it, and sets it to one more in a transaction. Others count up as well, with
//! INCR. Bytes are cut anywhere, clients vanish, reset and change their mind at every point, connections are reset and refused,
//! requests time out, shards are ejected, restored, found elsewhere, removed and added. `SEED=7` replays a run.
//!
//! A shard here does what a server does with WATCH, MULTI and EXEC, and knows what nobody else could: that a transaction sets a counter
//! to one more than it is (else one was executed though its key had changed), that none is executed twice, that a connection on which
//! somebody watches keys has nobody else's requests, and that the writes of a client come in the order in which it has sent them.
//! A client that hears nil or EXECABORT had nothing executed; after an error nobody knows.
//!
//! Planted once each to see this fail: a connection given back without UNWATCH, or with a request in flight, a transaction sent again,
//! one sent over the shared connection, nil though EXEC was written, a watch that is kept though its key has moved, a loss and a
//! refused WATCH that are forgotten, and what follows EXEC or UNWATCH and does not wait for what is in flight.

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

mod watching {
    mod shards;
}
mod world;

const SHARDS: usize = 3;
const COUNTERS: u64 = 3;
const CLIENTS: usize = 5;

/// What all runs together went through.
#[derive(Default, Debug)]
struct Coverage {
    executed: u64,
    conflicts: u64,
    /// Nil that no shard has said.
    lost: u64,
    aborted: u64,
    errors: u64,
    refused: u64,
    ended: u64,
    vanished: u64,
    reused: u64,
    moved: u64,
    reset: u64,
    idle: u64,
    timed_out: u64,
}

/// A connection as its shard sees it.
#[derive(Default)]
struct Connection {
    number: u64,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    watched: BTreeSet<String>,
    /// Who watches.
    holder: Option<usize>,
    is_changed: bool,
    queued: Option<Vec<Vec<String>>>,
    watches: u64,
}

/// What a client waits to hear.
#[derive(Debug)]
enum Expected {
    Watch,
    Read,
    Own,
    Queued,
    Exec(String),
    Over,
}

/// How far a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Watching,
    Reading,
    Queueing,
}

struct Client {
    id: ClientId,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    expected: VecDeque<Expected>,
    phase: Phase,
    counter: u64,
    value: Option<u64>,
    /// WATCH was answered with an error.
    is_refused: bool,
    /// The latest of its writes, and of its transactions.
    own: u64,
    tokens: u64,
}

struct Run {
    random: Random,
    world: World<Resp>,
    limits: Limits,
    /// Shards in the pool.
    present: Vec<usize>,
    ejected: BTreeSet<usize>,
    stores: BTreeMap<String, HashMap<String, u64>>,
    connections: BTreeMap<ConnectionId, Connection>,
    clients: BTreeMap<usize, Client>,
    other: ClientId,
    connected: usize,
    next_number: u64,
    executed: BTreeSet<String>,
    conflicts: BTreeSet<String>,
    never: BTreeSet<String>,
    faulty: bool,
    coverage: Coverage,
}

fn topology(present: &[usize]) -> Topology {
    ring(present.iter().copied(), Some(HashTag::REDIS_CLUSTER))
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let faulty = random.one_in(2);
        let timeout = (faulty && random.one_in(2)).then_some(Duration::from_millis(100));
        let limits = Limits {
            blocked_max: 1 + random.below(20) as usize,
            timeout,
            large_value_min: if random.one_in(3) { 20 + random.below(60) as usize } else { usize::MAX },
            ..Limits::default()
        };
        let present: Vec<usize> = (0..SHARDS).collect();
        let settings = Settings { databases: 16, ..Settings::default() };
        let mut world = World::new(settings, limits.clone(), Arc::new(topology(&present)), seed);
        let other = world.pool.client_connected(world.now);
        world.eager.insert(other, Vec::new());
        Self {
            faulty,
            random,
            world,
            limits,
            present,
            ejected: BTreeSet::new(),
            stores: BTreeMap::new(),
            connections: BTreeMap::new(),
            clients: BTreeMap::new(),
            other,
            connected: 1,
            next_number: 100,
            executed: BTreeSet::new(),
            conflicts: BTreeSet::new(),
            never: BTreeSet::new(),
            coverage: Coverage::default(),
        }
    }

    fn run(&mut self) {
        for _ in 0..1500 {
            self.step();
            self.settle();
        }
        self.heal();
    }

    fn step(&mut self) {
        match self.random.below(26) {
            0 if self.clients.len() < CLIENTS => self.join(),
            1..=5 => self.act(),
            6 if self.random.one_in(8) => self.count_up(),
            7..=8 => self.connect(),
            9..=11 => self.write(false),
            12..=16 => self.execute(false),
            17..=19 => self.read(false),
            20 => {
                let micros = if self.random.one_in(40) { 70_000_000 } else { 3_000 };
                let passed = self.random.below(micros);
                self.pass_time(Duration::from_micros(passed));
            }
            21 if self.random.one_in(8) => self.leave(),
            22 if self.random.one_in(6) => self.change(),
            23 if self.faulty && self.random.one_in(6) => self.fault(),
            _ => self.send(),
        }
    }

    fn join(&mut self) {
        let id = self.world.pool.client_connected(self.world.now);
        self.connected += 1;
        self.world.eager.insert(id, Vec::new());
        let client = Client {
            id,
            inbox: Vec::new(),
            outbox: Vec::new(),
            expected: VecDeque::new(),
            phase: Phase::Idle,
            counter: 0,
            value: None,
            is_refused: false,
            own: 0,
            tokens: 0,
        };
        self.clients.insert(self.connected, client);
    }

    fn any_client(&mut self) -> Option<usize> {
        let count = self.clients.len() as u64;
        (count > 0).then(|| *self.clients.keys().nth(self.random.below(count) as usize).expect("counted"))
    }

    /// Bytes of clients reach the proxy.
    fn send(&mut self) {
        let Some(number) = self.any_client() else { return };
        self.send_of(number, false);
    }

    fn send_of(&mut self, number: usize, all: bool) {
        let client = self.clients.get_mut(&number).expect("it is there");
        if client.outbox.is_empty() || !self.world.pool.wants_read(client.id) {
            return;
        }
        let length = client.outbox.len();
        let cut = self.random.part(length, all);
        let bytes: Vec<u8> = client.outbox.drain(..cut).collect();
        self.world.client_sends(client.id, &bytes);
    }

    /// A client goes on with what it is about.
    fn act(&mut self) {
        let Some(number) = self.any_client() else { return };
        self.act_of(number);
    }

    fn act_of(&mut self, number: usize) {
        let (random, client) = (&mut self.random, self.clients.get_mut(&number).expect("it is there"));
        let says = |client: &mut Client, line: String, expected: Expected| {
            client.outbox.extend(line.bytes().chain(*b"\r\n"));
            client.expected.push_back(expected);
        };
        let own = |client: &mut Client| {
            client.own += 1;
            format!("SET {{c{}}}own:{number} {}", client.counter, client.own)
        };
        let read = |client: &Client| format!("MGET {{c{0}}} {{c{0}}}own:{number}", client.counter);
        match client.phase {
            Phase::Idle if client.expected.len() < 12 => {
                // Replies to what it does with another counter may come still: those tell no value of this one.
                if client.expected.iter().any(|expected| matches!(expected, Expected::Read)) {
                    return;
                }
                client.counter = random.below(COUNTERS);
                client.value = None;
                if random.one_in(3) {
                    let line = own(client);
                    says(client, line, Expected::Own);
                }
                let line = format!("WATCH {{c{0}}} {{c{0}}}for:{number}", client.counter);
                says(client, line, Expected::Watch);
                client.phase = Phase::Watching;
                if random.one_in(2) {
                    let line = read(client);
                    says(client, line, Expected::Read);
                    client.phase = Phase::Reading;
                }
            }
            Phase::Watching => {
                let line = read(client);
                says(client, line, Expected::Read);
                client.phase = Phase::Reading;
            }
            Phase::Reading if client.expected.is_empty() => match random.below(12) {
                choice @ 0..2 => {
                    let line = own(client);
                    says(client, line, Expected::Own);
                    says(client, ["UNWATCH", "RESET"][choice as usize].into(), Expected::Over);
                    let line = own(client);
                    says(client, line, Expected::Own);
                    client.phase = Phase::Idle;
                }
                2 => {
                    let line = own(client);
                    says(client, line, Expected::Own);
                }
                3 => {
                    let line = format!("WATCH {{c{0}}}also {{c{0}}}for:{number}", client.counter);
                    says(client, line, Expected::Watch);
                }
                _ => {
                    client.tokens += 1;
                    says(client, "MULTI".into(), Expected::Own);
                    if let Some(value) = client.value {
                        says(client, format!("SET {{c{}}} {}", client.counter, value + 1), Expected::Queued);
                    }
                    let token = format!("{{c{}}}token:{number}:{}", client.counter, client.tokens);
                    says(client, format!("SET {token} 1"), Expected::Queued);
                    if random.one_in(4) {
                        says(client, "PING".into(), Expected::Queued);
                    }
                    if random.one_in(2) {
                        let line = own(client);
                        says(client, line, Expected::Queued);
                    }
                    client.phase = Phase::Queueing;
                }
            },
            Phase::Queueing => {
                let token = format!("{{c{}}}token:{number}:{}", client.counter, client.tokens);
                if random.one_in(10) {
                    self.never.insert(token);
                    says(client, "DISCARD".into(), Expected::Over);
                } else {
                    says(client, "EXEC".into(), Expected::Exec(token));
                }
                client.phase = Phase::Idle;
                if random.one_in(2) {
                    let line = own(client);
                    says(client, line, Expected::Own);
                }
            }
            Phase::Idle | Phase::Reading => {}
        }
    }

    /// Somebody else counts up.
    fn count_up(&mut self) {
        if self.world.pool.wants_read(self.other) {
            let counter = self.random.below(COUNTERS);
            self.world.client_sends(self.other, format!("INCR {{c{counter}}}\r\n").as_bytes());
        }
    }

    fn connect(&mut self) {
        for id in std::mem::take(&mut self.world.wanted) {
            if self.world.pool.shard_of(id).is_none() {
                continue;
            }
            if self.faulty && self.random.one_in(6) {
                self.world.shard_closes(id, &ShardFailure::ConnectRefused);
            } else {
                self.made(id);
            }
        }
    }

    fn made(&mut self, id: ConnectionId) {
        self.next_number += 1;
        let number = self.next_number;
        self.connections.insert(id, Connection { number, ..Connection::default() });
        self.world.shard_connects(id);
    }

    /// Requests reach the shards.
    fn write(&mut self, all: bool) {
        for (&id, connection) in &mut self.connections {
            let random = &mut self.random;
            if !all && random.one_in(3) {
                continue;
            }
            let most = |length: usize| random.part(length, all);
            connection.inbox.extend(self.world.shard_takes(id, most));
        }
    }

    /// Responses reach the proxy.
    fn read(&mut self, all: bool) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            if connection.outbox.is_empty() || (!all && self.random.one_in(3)) {
                continue;
            }
            let length = connection.outbox.len();
            let cut = self.random.part(length, all);
            let bytes: Vec<u8> = connection.outbox.drain(..cut).collect();
            self.world.shard_sends(id, &bytes).expect("shards are honest");
            self.settle();
        }
    }

    fn pass_time(&mut self, duration: Duration) {
        self.coverage.idle += u64::from(duration >= Duration::from_secs(60));
        self.world.now = self.world.now.plus(duration);
        let now: Time = self.world.now;
        self.world.pool.tick(now);
        if self.random.one_in(3) {
            self.world.pool.sweep_connections(now);
        }
    }

    /// A client goes, at any point.
    fn leave(&mut self) {
        let Some(number) = self.any_client() else { return };
        let client = self.clients.remove(&number).expect("just seen");
        if self.random.one_in(2) {
            self.coverage.vanished += u64::from(client.phase != Phase::Idle);
            self.world.eager.remove(&client.id);
            self.world.pool.client_gone(client.id, true, self.world.now);
        } else {
            self.coverage.ended += u64::from(client.phase != Phase::Idle);
            self.world.pool.client_ended(client.id);
        }
    }

    /// Keys move.
    fn change(&mut self) {
        let watching = self.connections.values().filter(|connection| connection.holder.is_some()).count();
        self.coverage.moved += watching as u64;
        let shard = self.random.below(SHARDS as u64) as usize;
        match self.random.below(3) {
            0 => self.world.pool.renew(&format!("shard-{shard}"), self.world.now),
            1 => {
                let Some(place) = self.present.iter().position(|&present| present == shard) else { return };
                if !self.ejected.remove(&place) && self.ejected.len() + 1 < self.present.len() {
                    self.ejected.insert(place);
                }
                self.eject();
            }
            _ => {
                let mut present = self.present.clone();
                match present.iter().position(|&present| present == shard) {
                    Some(place) if present.len() > 1 => {
                        present.remove(place);
                    }
                    Some(_) => {}
                    None => present.push(shard),
                }
                self.reload(present);
            }
        }
    }

    fn eject(&mut self) {
        let ejected: Vec<usize> = self.ejected.iter().copied().collect();
        let all = topology(&self.present);
        self.world.pool.set_topology(Arc::new(all.without(&ejected)), self.world.now);
    }

    fn reload(&mut self, present: Vec<usize>) {
        let kept: Vec<Option<usize>> =
            present.iter().map(|shard| self.present.iter().position(|known| known == shard)).collect();
        let settings = Settings { databases: 16, ..Settings::default() };
        self.world.reconfigure(settings, self.limits.clone(), Arc::new(topology(&present)), &kept);
        self.present = present;
        self.ejected.clear();
    }

    fn fault(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let at = self.random.below(self.connections.len() as u64) as usize;
        let id = *self.connections.keys().nth(at).expect("counted");
        self.coverage.reset += u64::from(self.connections[&id].holder.is_some());
        self.world.shard_closes(id, &ShardFailure::Reset);
        self.connections.remove(&id);
    }

    fn settle(&mut self) {
        let mut events = Vec::new();
        self.world.pass(&mut events);
        events.extend(self.world.settle());
        for event in events {
            match event {
                Event::ClientLeft(id, _) => {
                    self.world.eager.remove(&id);
                    let is_known = self.clients.values().any(|client| client.id == id);
                    assert!(!is_known && id != self.other, "a client was closed that is there");
                }
                Event::ConnectionClosed(id, _) => {
                    self.connections.remove(&id);
                }
                Event::ConnectionFinished(_) | Event::Shard(_) => {}
            }
        }
        self.hear();
    }

    fn hear(&mut self) {
        self.world.eager.get_mut(&self.other).expect("it is there").clear();
        for number in self.clients.keys().copied().collect::<Vec<_>>() {
            let client = self.clients.get_mut(&number).expect("just seen");
            let heard = std::mem::take(self.world.eager.get_mut(&client.id).expect("it is there"));
            client.inbox.extend(heard);
            while let Some((reply, length)) = reply(&self.clients[&number].inbox) {
                self.clients.get_mut(&number).expect("just seen").inbox.drain(..length);
                self.judge(number, &reply);
            }
        }
    }

    fn judge(&mut self, number: usize, reply: &str) {
        let client = self.clients.get_mut(&number).expect("just seen");
        let expected = client.expected.pop_front().expect("nobody asked for that");
        let is_error = reply.starts_with('-');
        if is_error && !reply.starts_with("-EXECABORT") {
            let is_limit = reply.contains("(blocked_max)") && matches!(expected, Expected::Watch);
            assert!(self.faulty || is_limit, "{reply} without a fault, to {expected:?}");
            self.coverage.errors += 1;
            self.coverage.timed_out += u64::from(reply.contains("timed out"));
        }
        match expected {
            Expected::Watch if is_error => {
                self.coverage.refused += 1;
                client.is_refused = true;
            }
            Expected::Read => {
                let value = reply.split(' ').next().expect("a word");
                client.value = if is_error { None } else { Some(value.parse().unwrap_or(0)) };
            }
            Expected::Own | Expected::Watch => assert!(is_error || reply == "+OK", "{reply}"),
            Expected::Queued => assert_eq!(reply, "+QUEUED"),
            Expected::Over => {
                assert!(["+OK", "+RESET"].contains(&reply), "{reply}");
                client.is_refused = false;
            }
            Expected::Exec(token) => {
                let is_refused = std::mem::take(&mut client.is_refused);
                let is_aborted = reply.starts_with("-EXECABORT");
                assert!(is_aborted || !is_refused, "{reply} though WATCH was refused");
                let is_executed = self.executed.contains(&token);
                if is_aborted || reply == "*-1" {
                    assert!(!is_executed, "{token} was executed, and its client told {reply}");
                    self.coverage.aborted += u64::from(is_aborted);
                    self.coverage.lost += u64::from(!is_aborted && !self.conflicts.contains(&token));
                    self.coverage.conflicts += u64::from(self.conflicts.contains(&token));
                    self.never.insert(token);
                } else if !is_error {
                    assert!(is_executed, "{token} was not executed, and its client told {reply}");
                    self.coverage.executed += 1;
                }
            }
        }
    }

    /// Everybody goes on as far as they can.
    fn turn(&mut self) {
        for number in self.clients.keys().copied().collect::<Vec<_>>() {
            self.send_of(number, true);
        }
        self.settle();
        for id in std::mem::take(&mut self.world.wanted) {
            if self.world.pool.shard_of(id).is_some() {
                self.made(id);
            }
        }
        self.write(true);
        self.execute(true);
        self.read(true);
        self.settle();
    }

    /// All is well again: everybody comes to an end, and nothing is left.
    fn heal(&mut self) {
        if self.ejected.is_empty() && self.present.len() < SHARDS {
            self.reload((0..SHARDS).collect());
        }
        self.ejected.clear();
        self.eject();
        let lost = self.coverage.lost;
        for round in 0.. {
            self.turn();
            self.pass_time(Duration::from_millis(20));
            if self.clients.values().all(|client| client.expected.is_empty()) {
                break;
            }
            assert!(round < 100, "somebody is not answered");
        }
        assert!(self.coverage.lost >= lost, "what was lost before stays lost");
        for (_, client) in std::mem::take(&mut self.clients) {
            self.world.pool.client_ended(client.id);
        }
        (0..8).for_each(|_| self.turn());
        let counters = self.world.counters.clone();
        let sum = |number: fn(&memstore_proxy::metrics::ShardCounters) -> i64| {
            counters.shards().iter().map(|shard| number(shard)).sum::<i64>()
        };
        let held = (sum(|shard| shard.watching_clients.get()), sum(|shard| shard.private_held.get()));
        assert_eq!(held, (0, 0), "nobody watches");
        let watched = self.connections.values().filter(|connection| connection.holder.is_some()).count();
        assert_eq!(watched, 0, "no shard watches for nobody");
        self.world.pass_time(Duration::from_secs(11));
        let left = sum(|shard| shard.private_connections.get());
        assert_eq!(left, 0, "connections are kept for nobody");
    }
}

impl Connection {
    fn forget(&mut self) {
        self.watched.clear();
        (self.holder, self.is_changed) = (None, false);
    }
}

fn bulk(value: u64) -> String {
    let text = value.to_string();
    format!("${}\r\n{text}\r\n", text.len())
}

#[test]
fn what_is_watched_guards_what_is_executed() {
    let seeds = random::seeds(400);
    let many = seeds.end - seeds.start >= 100;
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds {
        let mut run = Run::new(seed);
        random::run(seed, || run.run());
        let Coverage { executed, conflicts, lost, aborted, errors, refused, ended, .. } = run.coverage;
        let Coverage { vanished, reused, moved, reset, idle, timed_out, .. } = run.coverage;
        for (what, count) in [
            ("transactions executed", executed),
            ("transactions that found a change", conflicts),
            ("transactions whose watch was lost", lost),
            ("transactions given up", aborted),
            ("errors", errors),
            ("WATCH refused", refused),
            ("clients that ended", ended),
            ("clients that vanished", vanished),
            ("connections used again", reused),
            ("watches at another topology", moved),
            ("watches that broke", reset),
            ("long pauses", idle),
            ("requests that timed out", timed_out),
        ] {
            *all.entry(what).or_default() += count;
        }
    }
    println!("{all:?}");
    if many {
        all.into_iter().for_each(|(what, count)| assert!(count > 20, "only {count} {what}"));
    }
}
