//! The core in a simulated world: one seed is one run, in virtual time.
//!
//! Clients write pipelines, honest shards answer from their data, bytes are cut anywhere in both directions, connections
//! are refused, reset, closed in the middle of a reply or silent, clients leave, close their writing side or do not read.
//! Each client checks every reply against the values that its keys can have. At the end everything heals, and nobody
//! may be stuck. `SEED=7` replays one run, `SIMULATION_SEEDS=20000` runs more.
//!
//! Planted once each to see this fail: a reply sent out of turn, fragments merged in the order of arrival, tickets of a
//! lost connection forgotten, bytes after a response dropped, a paused client never resumed, clients waiting for a full
//! queue never woken, a request that was written sent again.

mod simulation {
    pub mod client;
    pub mod dialect;
    pub mod memcache;
    pub mod resp;
    pub mod shard;
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use memstore_proxy::failure::ShardFailure;
use memstore_proxy::pool::{ClientId, ConnectionId, Limits, NEVER_SLOW, PASS_WORK_MAX, Verdict};
use memstore_proxy::protocol::ShardIdentity;
use memstore_proxy::protocol::memcache::Memcache;
use memstore_proxy::protocol::resp::Resp;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard as ShardAddress, Topology};
use simulation::client::Client;
use simulation::dialect::Dialect;
use simulation::shard::{Connection, Shard};
use world::random::{self, Random};
use world::{Event, World};

mod world;

/// What a run, or all runs together, went through. A simulation that does not get there proves nothing.
#[derive(Default, Debug)]
struct Coverage {
    values: u64,
    errors: u64,
    fragments: u64,
    late_responses: u64,
    pauses: u64,
    queue_waits: u64,
    queue_full: u64,
    expired: u64,
    carried: u64,
    streamed: u64,
    output_exceeded: u64,
    evicted: u64,
    untold: u64,
    reloads: u64,
    reloads_in_flight: u64,
    lanes: u64,
    strangers: u64,
    transactions: u64,
    refused_transactions: u64,
    renames: u64,
    failed_renames: u64,
}

struct Run<D: Dialect> {
    random: Random,
    world: World<D>,
    clients: Vec<Client>,
    /// What each shard stores, by its name.
    shards: BTreeMap<String, Shard>,
    connections: BTreeMap<ConnectionId, Connection>,
    next_client: usize,
    /// Whether shards fail in this run.
    faulty: bool,
    /// Whether shards have to say who they are; then somebody else is there sometimes.
    asks: bool,
    /// Whether the list of shards changes in this run, so that keys move.
    moving: bool,
    limits: Limits,
    topology: Arc<Topology>,
    coverage: Coverage,
}

const TIMEOUT: Duration = Duration::from_millis(400);
/// What all shards say they are called.
const WHO: &str = "shard";
/// Shards that there may be.
const SHARDS: usize = 6;

/// Shards by their numbers and ports.
fn topology(shards: impl Iterator<Item = (usize, u16)>) -> Arc<Topology> {
    let shards = shards
        .map(|(shard, port)| {
            let address = Address::Tcp { host: "shard".into(), port };
            ShardAddress::new(address, 1, Some(format!("shard-{shard}")))
        })
        .collect();
    Arc::new(Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, None).expect("a topology"))
}

impl<D: Dialect> Run<D> {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let count = 1 + random.below(4) as usize;
        let topology = topology((0..count).map(|shard| (shard, 1)));
        let faulty = !random.one_in(3);
        let small = random.one_in(2);
        let mut limits = Limits {
            timeout: faulty.then_some(TIMEOUT),
            // A client that waits for ever has to be woken by room in the queue, not by the clock.
            queue_wait: if random.one_in(2) { Duration::from_millis(100) } else { Duration::from_secs(3600) },
            in_flight_max: if small { 1 + random.below(8) as usize } else { 1024 },
            request_bytes_max: D::REQUEST_BYTES_MAX,
            arguments_max: 1 << 20,
            client_output_max: if faulty && random.one_in(4) { 100_000 } else { 1 << 30 },
            client_output_pause: 4 << 20,
            large_value_min: if random.one_in(2) { 1 + random.below(300) as usize } else { 64 << 10 },
            shard_queue_max: if small && faulty { 1 + random.below(6) as usize } else { 65536 },
            shard_queue_bytes_max: if small && faulty { 2_000 } else { 64 << 20 },
            memory_max: if faulty && random.one_in(6) { 150_000 } else { usize::MAX },
            per_shard_transactions: random.one_in(2),
            renames_across_shards: true,
            server_connections: 1 + random.below(2) as usize,
            eager_connects: random.below(3) as u32,
            pass_work_max: if random.one_in(3) { 1 + random.below(30) as usize } else { PASS_WORK_MAX },
            slow_min: if random.one_in(2) { 0 } else { NEVER_SLOW },
            access_errors: random.one_in(2),
            access_sample: random.below(5),
            ..Limits::default()
        };
        // What is looked at takes memory of its own.
        limits.hot_keys_sample = if limits.memory_max == usize::MAX { (seed % 3) as u32 } else { 0 };
        let moving = random.one_in(4);
        let world = World::new(D::settings(), limits.clone(), topology.clone(), seed);
        Self {
            random,
            world,
            clients: Vec::new(),
            shards: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_client: 0,
            faulty,
            // A shard that says nothing for a second has failed, which none does in the others.
            asks: faulty && seed % 2 == 1,
            moving,
            limits,
            topology,
            coverage: Coverage::default(),
        }
    }

    fn run(&mut self) {
        for _ in 0..400 {
            self.step();
            self.settle();
        }
        self.heal();
    }

    fn step(&mut self) {
        match self.random.below(22) {
            0 if self.clients.len() < 6 => {
                let id = self.world.pool.client_connected(self.world.now);
                self.clients.push(Client::new(
                    id,
                    self.next_client,
                    self.moving,
                    self.limits.per_shard_transactions,
                ));
                self.next_client += 1;
            }
            0..=2 => {
                if let Some(at) = self.any_client() {
                    self.clients[at].ask::<D>(&mut self.random);
                }
            }
            3..=7 => {
                if let Some(at) = self.any_client() {
                    self.send(at);
                }
            }
            8..=10 => {
                if let Some(at) = self.any_client() {
                    self.take_replies(at);
                }
            }
            11..=12 => self.finish_connects(),
            13..=14 => self.write_to_shards(),
            15..=18 => self.read_from_shards(),
            19 => self.pass_time(),
            20 if self.faulty => self.fault(),
            21 if self.moving && self.random.one_in(3) => {
                if self.random.one_in(3) {
                    let shards = self.topology.shards();
                    let name = shards[self.random.below(shards.len() as u64) as usize].name.clone();
                    self.world.pool.renew(&name, self.world.now);
                } else {
                    self.reload();
                }
            }
            _ => self.client_mood(),
        }
    }

    fn any_client(&mut self) -> Option<usize> {
        let count = self.clients.len() as u64;
        (count > 0).then(|| self.random.below(count) as usize)
    }

    /// Some bytes of a client reach the proxy.
    fn send(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.outbox.is_empty() || !self.world.pool.wants_read(client.id) {
            return;
        }
        let cut = self.random.cut(client.outbox.len());
        let bytes: Vec<u8> = client.outbox.drain(..cut).collect();
        self.world.client_sends(client.id, &bytes);
    }

    /// A client takes some of its replies.
    fn take_replies(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.lazy {
            return;
        }
        let id = client.id;
        let bytes = self.world.client_takes(id, |length| self.random.cut(length));
        if !bytes.is_empty() {
            client.hear::<D>(&bytes, self.faulty, &mut self.coverage);
        }
        if let Some(verdict) = self.world.judge(id) {
            self.leave(id, verdict);
        }
    }

    fn finish_connects(&mut self) {
        for index in std::mem::take(&mut self.world.wanted) {
            if self.faulty && self.random.one_in(5) {
                let failure = if self.random.one_in(2) {
                    ShardFailure::ConnectRefused
                } else {
                    ShardFailure::ConnectTimeout
                };
                self.world.shard_closes(index, &failure);
            } else {
                self.connections.insert(index, Connection::default());
                let wanted = if self.asks && self.random.one_in(8) { "somebody" } else { WHO };
                let identity = self.asks.then(|| ShardIdentity::Host(wanted.into()));
                self.world.shard_connects_as(index, identity);
            }
        }
    }

    /// Requests reach the shards, cut anywhere.
    fn write_to_shards(&mut self) {
        for (&index, connection) in &mut self.connections {
            let bytes = self.world.shard_takes(index, |length| self.random.cut(length));
            connection.receive(&bytes);
        }
    }

    /// Shards execute some requests, and some of their responses reach the proxy, cut anywhere.
    fn read_from_shards(&mut self) {
        let indexes: Vec<_> = self.connections.keys().copied().collect();
        for index in indexes {
            let shard = self.world.pool.shard_of(index).expect("it is there");
            let shard = format!("{} {}", shard.name, shard.address);
            let connection = self.connections.get_mut(&index).expect("just seen");
            for _ in 0..self.random.below(6) {
                connection.execute::<D>(self.shards.entry(shard.clone()).or_default());
            }
            if connection.outbox.is_empty() || self.random.one_in(3) {
                continue;
            }
            let cut = self.random.cut(connection.outbox.len());
            let bytes: Vec<u8> = connection.outbox.drain(..cut).collect();
            if let Err(failure) = self.world.shard_sends(index, &bytes) {
                assert!(
                    self.asks && matches!(failure, ShardFailure::ConnectFailed(_)),
                    "shards are honest: {failure}"
                );
                self.coverage.strangers += 1;
                self.connections.remove(&index);
            }
        }
    }

    fn pass_time(&mut self) {
        let micros = match self.random.below(4) {
            0 => 300_000,
            1 => 60_000,
            _ => 900,
        };
        let duration = Duration::from_micros(self.random.below(micros));
        self.advance(duration);
        if self.random.one_in(4) {
            self.world.pool.sweep_connections(self.world.now);
        }
        self.coverage.expired =
            self.world.counters.shards().iter().map(|shard| shard.server_timedout.get()).sum();
    }

    fn fault(&mut self) {
        let count = self.connections.len() as u64;
        if count == 0 {
            return;
        }
        let at = self.random.below(count) as usize;
        let index = *self.connections.keys().nth(at).expect("counted");
        match self.random.below(4) {
            0 => self.lose(index, &ShardFailure::Reset),
            1 => self.lose(index, &ShardFailure::Closed),
            2 => {
                let connection = self.connections.get_mut(&index).expect("just seen");
                connection.silent = !connection.silent;
            }
            _ => self.world.now = self.world.now.plus(TIMEOUT),
        }
    }

    fn lose(&mut self, index: ConnectionId, failure: &ShardFailure) {
        if self.connections.remove(&index).is_some() {
            let unwritten = self.world.pool.shard_output(index).map_or(0, |output| output.len());
            let wanted = self.world.wanted.len();
            self.world.shard_closes(index, failure);
            self.settle();
            // Nobody has asked for anything meanwhile: what is connected is for what was carried over.
            if unwritten > 0 && self.world.wanted.len() > wanted {
                self.coverage.carried += 1;
            }
        }
    }

    /// Another list of shards: some come, some go, some are found elsewhere.
    fn reload(&mut self) {
        let mut shards: Vec<(usize, u16)> = Vec::new();
        for shard in 0..SHARDS {
            if self.random.one_in(2) {
                shards.push((shard, 1 + u16::from(self.random.one_in(4))));
            }
        }
        if shards.is_empty() {
            shards.push((self.random.below(SHARDS as u64) as usize, 1));
        }
        let topology = topology(shards.into_iter());
        let present = self.topology.shards();
        let kept: Vec<_> = topology
            .shards()
            .iter()
            .map(|shard| present.iter().position(|known| known.name == shard.name))
            .collect();
        self.limits.server_connections = 1 + self.random.below(2) as usize;
        self.count();
        self.coverage.reloads += 1;
        self.coverage.reloads_in_flight += u64::from(self.clients.iter().any(Client::waits));
        self.topology = topology;
        self.world.reconfigure(D::settings(), self.limits.clone(), self.topology.clone(), &kept);
    }

    fn client_mood(&mut self) {
        let Some(at) = self.any_client() else { return };
        match self.random.below(12) {
            0 => {
                let client = self.clients.remove(at);
                self.world.pool.client_gone(client.id, true, self.world.now);
            }
            1 => {
                let client = &mut self.clients[at];
                if client.outbox.is_empty() {
                    client.finished = true;
                    self.world.pool.client_ended(client.id);
                }
            }
            2..=4 => self.clients[at].lazy = true,
            _ => self.clients[at].lazy = false,
        }
    }

    fn advance(&mut self, duration: Duration) {
        self.world.now = self.world.now.plus(duration);
        self.world.pool.tick(self.world.now);
    }

    fn settle(&mut self) {
        let mut events = Vec::new();
        self.world.pass(&mut events);
        // Clients that wait for their turn meet whatever comes next.
        if !self.random.one_in(4) {
            events.extend(self.world.settle());
        }
        for event in events {
            match event {
                Event::ClientLeft(id, verdict) => self.leave(id, verdict),
                Event::ConnectionClosed(index, _) => {
                    self.connections.remove(&index);
                }
                Event::ConnectionFinished(_) | Event::Shard(_) => {}
            }
        }
    }

    /// The pool has ended a client's connection.
    fn leave(&mut self, id: ClientId, verdict: Verdict) {
        let Some(at) = self.clients.iter().position(|client| client.id == id) else { return };
        let client = self.clients.remove(at);
        if verdict == Verdict::Finish {
            let is_done = client.finished && !client.waits();
            assert!(is_done || client.may_have_to_go, "a client was finished before its last reply");
        } else if !client.finished {
            let excess = &self.world.counters;
            // A write that timed out takes its connection with it, and a response that is half told.
            let timed_out: u64 = excess.shards().iter().map(|shard| shard.server_timedout.get()).sum();
            let broken = excess.client_output_exceeded.get() + excess.client_evicted.get() + timed_out;
            assert!(broken > 0 || self.faulty, "a client was closed for no reason");
        }
    }

    /// No more faults: every client gets all of its replies.
    fn heal(&mut self) {
        for connection in self.connections.values_mut() {
            connection.silent = false;
        }
        for client in &mut self.clients {
            client.lazy = false;
        }
        let could_fail = std::mem::replace(&mut self.faulty, false);
        for round in 0.. {
            assert!(
                round < 20_000,
                "stuck: {} clients wait",
                self.clients.iter().filter(|client| client.waits()).count()
            );
            // Faults from before may still show.
            self.faulty = could_fail;
            for at in (0..self.clients.len()).rev() {
                if at < self.clients.len() {
                    self.send(at);
                }
                if at < self.clients.len() {
                    self.take_replies(at);
                }
            }
            self.faulty = false;
            self.finish_connects();
            self.write_to_shards();
            self.read_from_shards();
            self.settle();
            if round % 16 == 15 {
                self.advance(Duration::from_millis(20));
                self.settle();
            }
            if self.clients.iter().all(|client| client.outbox.is_empty() && !client.waits()) {
                break;
            }
        }
        for shard in self.shards.values() {
            for (value, times) in &shard.executed {
                assert_eq!(*times, 1, "{} was set {times} times", String::from_utf8_lossy(value));
            }
        }
        self.count();
    }

    fn count(&mut self) {
        let counters = &self.world.counters;
        self.coverage.fragments = counters.fragments.get();
        self.coverage.late_responses = counters.shards().iter().map(|shard| shard.late_responses.get()).sum();
        self.coverage.pauses = counters.client_pauses.get();
        self.coverage.queue_waits = counters.queue_waits.get();
        self.coverage.queue_full = counters.queue_full.get();
        self.coverage.output_exceeded = counters.client_output_exceeded.get();
        self.coverage.evicted = counters.client_evicted.get();
        self.coverage.lanes = counters.lanes.get() as u64;
        self.coverage.streamed = counters.shards().iter().map(|shard| shard.streamed.get()).sum();
    }
}

/// So many runs are quick and see what is usual; `make soak` has many more.
const SEEDS: u64 = 200;
/// So many see what is rare as well.
const MANY_SEEDS: u64 = 1000;

#[test]
fn every_reply_of_redis_is_right_and_nobody_is_stuck() {
    let Some(coverage) = simulate::<Resp>() else { return };
    assert!(coverage.lanes > SEEDS, "the simulation saw few databases");
    assert!(coverage.strangers > SEEDS / 10, "the simulation saw few strangers");
    assert!(coverage.transactions > SEEDS, "the simulation saw few transactions");
    assert!(coverage.refused_transactions > SEEDS / 10, "the simulation saw few transactions refused");
    assert!(coverage.renames > SEEDS, "the simulation saw few keys renamed");
    assert!(coverage.failed_renames > SEEDS / 10, "the simulation saw few that failed");
}

#[test]
fn every_reply_of_memcached_is_right_and_nobody_is_stuck() {
    let coverage = simulate::<Memcache>();
    assert!(coverage.is_none_or(|coverage| coverage.untold > 0), "the simulation never saw silence");
}

/// What was covered, if it was a whole simulation.
fn simulate<D: Dialect>() -> Option<Coverage> {
    let seeds = random::seeds(SEEDS);
    let runs = seeds.end - seeds.start;
    let mut all = Coverage::default();
    for seed in seeds {
        let run = random::run(seed, || {
            let mut run = Run::<D>::new(seed);
            run.run();
            run.coverage
        });
        all.values += run.values;
        all.errors += run.errors;
        all.fragments += run.fragments;
        all.late_responses += run.late_responses;
        all.pauses += run.pauses;
        all.queue_waits += run.queue_waits;
        all.queue_full += run.queue_full;
        all.expired += run.expired;
        all.carried += run.carried;
        all.streamed += run.streamed;
        all.output_exceeded += run.output_exceeded;
        all.evicted += run.evicted;
        all.untold += run.untold;
        all.reloads += run.reloads;
        all.reloads_in_flight += run.reloads_in_flight;
        all.lanes += run.lanes - 1;
        all.strangers += run.strangers;
        all.transactions += run.transactions;
        all.refused_transactions += run.refused_transactions;
        all.renames += run.renames;
        all.failed_renames += run.failed_renames;
    }
    println!("{all:?}");
    if runs < SEEDS {
        return None;
    }
    let Coverage { values, errors, fragments, late_responses, pauses, .. } = &all;
    let Coverage {
        queue_waits,
        queue_full,
        expired,
        carried,
        streamed,
        output_exceeded,
        evicted,
        reloads_in_flight,
        ..
    } = &all;
    for (name, count) in [
        ("values checked", values),
        ("errors of shards", errors),
        ("fragments", fragments),
        ("late responses", late_responses),
        ("paused clients", pauses),
        ("waits for a full queue", queue_waits),
        ("queues that stayed full", queue_full),
        ("expired requests", expired),
        ("requests carried over", carried),
        ("reloads under load", reloads_in_flight),
    ] {
        assert!(*count > 0, "the simulation never saw {name}");
    }
    for (name, count) in [
        ("responses passed on in pieces", streamed),
        ("clients over their output limit", output_exceeded),
        ("clients evicted", evicted),
    ] {
        assert!(*count > 0 || runs < MANY_SEEDS, "the simulation never saw {name}");
    }
    Some(all)
}
