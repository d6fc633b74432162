//! Requests that nodes of a simulated cluster send elsewhere: one seed is one run, in virtual time.
//!
//! Slots move while requests are under way, the proxy's map is stale for a while or names a node that is wrong, nodes are
//! not ready for a moment. Nodes answer as Redis Cluster does: MOVED, ASK, TRYAGAIN, CLUSTERDOWN. Clients count with INCR,
//! so a request that ran twice, or not at all, shows in the counts. In every other run no slot moves twice: then no request
//! overtakes another one of its client either. (A slot that moves on while a request is on its way to where it went is more
//! than the order of one client's pipeline survives.) `SEED=7` replays a run.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use memstore_proxy::pool::{ClientId, ConnectionId, Limits, PARKED_BYTES_MAX, PASS_WORK_MAX};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};
use world::World;
use world::random::{self, Random};
use world::words::request;

mod world;

const NODES: usize = 4;
/// Slots of the keys that clients use, by the key.
const KEYS: [(&str, u16); 4] = [("foo", 12182), ("bar", 5061), ("hello", 866), ("123456789", 12739)];

/// Who owns a slot, and who is about to.
#[derive(Clone, Copy)]
struct Slot {
    owner: usize,
    target: Option<usize>,
}

/// What the cluster is in truth.
struct Truth {
    slots: BTreeMap<u16, Slot>,
    /// For each node what it stores.
    data: Vec<HashMap<String, i64>>,
    /// Nodes that answer CLUSTERDOWN.
    down: [bool; NODES],
}

impl Truth {
    fn answer(&mut self, node: usize, words: &[String], asking: bool) -> String {
        let keys = &words[1..];
        let number = |key: &str| {
            KEYS.iter().find(|(name, _)| key.starts_with(&format!("{{{name}}}"))).expect("a known key").1
        };
        let slot = number(&keys[0]);
        let Slot { owner, target } = self.slots[&slot];
        if self.down[node] {
            return "-CLUSTERDOWN The cluster is down\r\n".into();
        }
        let present = keys.iter().filter(|key| self.data[node].contains_key(*key)).count();
        let missing = keys.len() - present;
        if owner == node {
            if let Some(target) = target
                && missing > 0
            {
                return match present {
                    0 => format!("-ASK {slot} node:{target}\r\n"),
                    _ => "-TRYAGAIN Multiple keys request during rehashing of slot\r\n".into(),
                };
            }
        } else if target == Some(node) && asking {
            if keys.len() > 1 && missing > 0 {
                return "-TRYAGAIN Multiple keys request during rehashing of slot\r\n".into();
            }
        } else {
            return format!("-MOVED {slot} node:{owner}\r\n");
        }
        if words[0] == "INCR" {
            let value = self.data[node].entry(keys[0].clone()).or_default();
            *value += 1;
            return format!(":{value}\r\n");
        }
        let value = |key: &String| match self.data[node].get(key) {
            Some(value) => format!("${}\r\n{value}\r\n", value.to_string().len()),
            None => "$-1\r\n".into(),
        };
        format!("*{}\r\n{}", keys.len(), keys.iter().map(value).collect::<String>())
    }
}

/// Takes a request as the proxy encodes or passes it: an array of bulk strings.
fn parse(bytes: &mut VecDeque<u8>) -> Option<Vec<String>> {
    let (words, length) = request(bytes.make_contiguous())?;
    bytes.drain(..length);
    Some(words)
}

#[derive(Default)]
struct Connection {
    inbox: VecDeque<u8>,
    outbox: VecDeque<u8>,
    asking: bool,
}

/// A client that counts, and what it knows.
struct Counting {
    id: ClientId,
    number: usize,
    outbox: VecDeque<u8>,
    inbox: Vec<u8>,
    /// Its key of each request that is not answered yet; none for a read of two keys.
    asked: VecDeque<Option<usize>>,
    /// What each key stands at.
    counts: [i64; KEYS.len()],
    /// The counts that were ever heard of each key.
    heard: [BTreeSet<i64>; KEYS.len()],
}

struct Run {
    random: Random,
    world: World<Resp>,
    truth: Truth,
    clients: Vec<Counting>,
    connections: BTreeMap<ConnectionId, Connection>,
    given_up: u64,
    answered: u64,
    /// No slot moves twice.
    moves_once: bool,
    /// Slots that have moved, or have begun to.
    moved: BTreeSet<u16>,
}

fn map(truth: &Truth) -> Arc<Topology> {
    let nodes = (0..NODES)
        .map(|node| {
            let address = Address::Tcp { host: "node".into(), port: node as u16 };
            Shard::new(address, 1, Some(format!("node-{node}")))
        })
        .collect();
    let mut owners = vec![Some(0); 16_384];
    for (&slot, at) in &truth.slots {
        owners[usize::from(slot)] = Some(at.owner);
    }
    Arc::new(Topology::of_cluster(nodes, &owners, vec![Vec::new(); NODES]).expect("a topology"))
}

impl Run {
    fn new(seed: u64) -> Self {
        Self::with_limits(seed, |_| {})
    }

    fn with_limits(seed: u64, change: impl FnOnce(&mut Limits)) -> Self {
        let mut random = Random(seed);
        let slots = KEYS
            .iter()
            .map(|&(_, slot)| (slot, Slot { owner: random.below(NODES as u64) as usize, target: None }));
        let truth = Truth { slots: slots.collect(), data: vec![HashMap::new(); NODES], down: [false; NODES] };
        let mut limits = Limits {
            queue_wait: Duration::from_secs(3600),
            server_connections: 1 + random.below(2) as usize,
            large_value_min: if random.one_in(3) { 20 + random.below(60) as usize } else { usize::MAX },
            pass_work_max: if seed.is_multiple_of(3) { 1 + seed as usize % 7 } else { PASS_WORK_MAX },
            ..Limits::default()
        };
        change(&mut limits);
        let settings = Settings { databases: 1, ..Settings::default() };
        let mut world = World::new(settings, limits, map(&truth), seed);
        let clients = (0..3)
            .map(|number| Counting {
                id: world.pool.client_connected(world.now),
                number,
                outbox: VecDeque::new(),
                inbox: Vec::new(),
                asked: VecDeque::new(),
                counts: [0; KEYS.len()],
                heard: Default::default(),
            })
            .collect();
        Self {
            random,
            world,
            truth,
            clients,
            connections: BTreeMap::new(),
            given_up: 0,
            answered: 0,
            moves_once: seed.is_multiple_of(2),
            moved: BTreeSet::new(),
        }
    }

    fn run(&mut self) {
        for _ in 0..600 {
            self.step();
            self.settle();
        }
        // At the end all is well, and nobody may be stuck.
        for slot in self.truth.slots.keys().copied().collect::<Vec<_>>() {
            self.finish_move(slot);
        }
        self.truth.down = [false; NODES];
        for round in 0..400 {
            self.advance(Duration::from_millis(50));
            if round % 8 == 0 {
                self.learn();
            }
            (0..self.clients.len()).for_each(|at| self.send(at));
            self.serve();
            self.settle();
        }
        for client in &self.clients {
            assert!(client.asked.is_empty() && client.outbox.is_empty(), "a client waits for ever");
            for (key, heard) in KEYS.iter().zip(&client.heard) {
                let name = format!("{{{}}}{}", key.0, client.number);
                let stored: Vec<i64> =
                    self.truth.data.iter().filter_map(|data| data.get(&name).copied()).collect();
                let counted = heard.len() as i64;
                assert!(
                    stored == [counted] || (counted == 0 && stored.is_empty()),
                    "{name}: {stored:?}, {counted}"
                );
            }
        }
        assert_eq!(self.world.pool.parked_count(), 0);
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0..=3 => self.ask(),
            4..=6 => {
                let at = self.random.below(self.clients.len() as u64) as usize;
                self.send(at);
            }
            7..=10 => self.serve(),
            11 => {
                let (_, slot) = KEYS[self.random.below(KEYS.len() as u64) as usize];
                self.move_on(slot);
            }
            12 => {
                let node = self.random.below(NODES as u64) as usize;
                self.truth.down[node] = self.random.one_in(4) && !self.truth.down[node];
            }
            13 => {
                let duration = Duration::from_micros(self.random.below(60_000));
                self.advance(duration);
            }
            _ if self.random.one_in(3) => self.learn(),
            _ => {}
        }
    }

    fn advance(&mut self, duration: Duration) {
        self.world.now = self.world.now.plus(duration);
        self.world.pool.tick(self.world.now);
    }

    /// The proxy is told who owns what.
    fn learn(&mut self) {
        self.world.pool.take_stale();
        self.world.pool.set_topology(map(&self.truth), self.world.now);
    }

    /// A move begins, goes on by one key, or ends.
    fn move_on(&mut self, slot: u16) {
        let Slot { owner, target } = self.truth.slots[&slot];
        match target {
            None => {
                if self.moves_once && self.moved.contains(&slot) {
                    return;
                }
                let to = (owner + 1 + self.random.below(NODES as u64 - 1) as usize) % NODES;
                if self.is_asked_late(to) {
                    // It is put off.
                    return;
                }
                self.moved.insert(slot);
                self.truth.slots.insert(slot, Slot { owner, target: Some(to) });
            }
            Some(to) => {
                let prefix = format!("{{{}}}", KEYS.iter().find(|key| key.1 == slot).expect("known").0);
                let mut keys: Vec<String> =
                    self.truth.data[owner].keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
                keys.sort();
                match keys.first() {
                    Some(key) => {
                        let value = self.truth.data[owner].remove(key).expect("just seen");
                        self.truth.data[to].insert(key.clone(), value);
                    }
                    None => {
                        self.truth.slots.insert(slot, Slot { owner: to, target: None });
                    }
                }
            }
        }
    }

    /// Whether the node has still to read, or to answer, requests behind ASKING: of the time when a slot was on its way there
    /// before, for all that it knows. No client can say so.
    fn is_asked_late(&mut self, node: usize) -> bool {
        let Self { connections, world, .. } = self;
        connections.iter_mut().any(|(&index, connection)| {
            let shard = world.pool.shard_of(index).expect("it is there");
            let is_there = matches!(shard.address, Address::Tcp { port, .. } if usize::from(port) == node);
            let inbox = connection.inbox.make_contiguous();
            let is_unread = world.pool.shard_output(index).is_some_and(|output| !output.is_empty());
            is_there && (is_unread || connection.asking || inbox.windows(6).any(|word| word == b"ASKING"))
        })
    }

    fn finish_move(&mut self, slot: u16) {
        while self.truth.slots[&slot].target.is_some() {
            self.move_on(slot);
        }
    }

    fn ask(&mut self) {
        let at = self.random.below(self.clients.len() as u64) as usize;
        let key = self.random.below(KEYS.len() as u64) as usize;
        let client = &mut self.clients[at];
        let name = |key: usize| format!("{{{}}}{}", KEYS[key].0, client.number);
        let request = if self.random.one_in(10) {
            // In fragments, unless it is the same slot.
            let other = self.random.below(KEYS.len() as u64) as usize;
            client.asked.push_back(None);
            format!("MGET {} {}\r\n", name(key), name(other))
        } else if self.random.one_in(5) {
            client.asked.push_back(None);
            format!("MGET {} {}other\r\n", name(key), name(key))
        } else {
            client.asked.push_back(Some(key));
            format!("INCR {}\r\n", name(key))
        };
        client.outbox.extend(request.bytes());
    }

    fn send(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.outbox.is_empty() || !self.world.pool.wants_read(client.id) {
            return;
        }
        let cut = 1 + self.random.below(client.outbox.len() as u64) as usize;
        let bytes: Vec<u8> = client.outbox.drain(..cut).collect();
        self.world.client_sends(client.id, &bytes);
    }

    /// Requests reach the nodes, which answer some of them.
    fn serve(&mut self) {
        for index in std::mem::take(&mut self.world.wanted) {
            self.connections.insert(index, Connection::default());
            self.world.shard_connects(index);
        }
        for index in self.connections.keys().copied().collect::<Vec<_>>() {
            let Address::Tcp { port, .. } = self.world.pool.shard_of(index).expect("it is there").address
            else {
                panic!("no port")
            };
            let connection = self.connections.get_mut(&index).expect("just seen");
            connection.inbox.extend(self.world.shard_takes(index, |length| length));
            for _ in 0..self.random.below(4) {
                let Some(words) = parse_any(&mut connection.inbox) else { break };
                let answer = if words[0] == "ASKING" {
                    connection.asking = true;
                    "+OK\r\n".to_owned()
                } else {
                    let asking = std::mem::take(&mut connection.asking);
                    self.truth.answer(usize::from(port), &words, asking)
                };
                connection.outbox.extend(answer.bytes());
            }
            if connection.outbox.is_empty() {
                continue;
            }
            let cut = 1 + self.random.below(connection.outbox.len() as u64) as usize;
            let bytes: Vec<u8> = connection.outbox.drain(..cut).collect();
            self.world.shard_sends(index, &bytes).expect("nodes are honest");
        }
    }

    fn settle(&mut self) {
        self.world.pass(&mut Vec::new());
        // Clients that wait for their turn meet whatever comes next.
        if !self.random.one_in(4) {
            self.world.settle();
        }
        for at in 0..self.clients.len() {
            let id = self.clients[at].id;
            let bytes = self.world.client_takes(id, |length| length);
            self.clients[at].inbox.extend(bytes);
            assert_eq!(self.world.judge(id), None, "a client was closed");
            self.hear(at);
        }
        self.given_up = self.world.counters.redirects_given_up.get();
    }

    /// Every reply is checked against what the client knows.
    fn hear(&mut self, at: usize) {
        let client = &mut self.clients[at];
        while let Some((reply, length)) = whole_reply(&client.inbox) {
            client.inbox.drain(..length);
            let asked = client.asked.pop_front().expect("a reply that nobody asked for");
            self.answered += 1;
            let Some(key) = asked else { continue };
            match reply.strip_prefix(':') {
                Some(value) => {
                    let value: i64 = value.trim_end().parse().expect("a number");
                    assert!(client.heard[key].insert(value), "{value} twice");
                    if self.moves_once {
                        assert_eq!(
                            value,
                            client.counts[key] + 1,
                            "{} of client {}",
                            KEYS[key].0,
                            client.number
                        );
                    }
                    client.counts[key] = value;
                }
                // It was not executed, which the next reply shows.
                None => assert!(reply.starts_with('-'), "{reply}"),
            }
        }
    }
}

/// A request in either form.
fn parse_any(bytes: &mut VecDeque<u8>) -> Option<Vec<String>> {
    if bytes.front() == Some(&b'*') {
        return parse(bytes);
    }
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line: Vec<u8> = bytes.drain(..=end).collect();
    Some(String::from_utf8_lossy(&line).split_whitespace().map(str::to_owned).collect())
}

/// A reply of one line, or an array of bulk strings.
fn whole_reply(bytes: &[u8]) -> Option<(String, usize)> {
    let text = std::str::from_utf8(bytes).expect("text");
    let line = text.find("\r\n")? + 2;
    if !text.starts_with('*') {
        return Some((text[..line].to_owned(), line));
    }
    let count: usize = text[1..line - 2].parse().expect("a count");
    let mut at = line;
    for _ in 0..count {
        let end = at + text[at..].find("\r\n")? + 2;
        let length: i64 = text[at + 1..end - 2].parse().expect("a length");
        at = if length < 0 { end } else { end + length as usize + 2 };
        if at > text.len() {
            return None;
        }
    }
    Some((text[..at].to_owned(), at))
}

/// So many runs are quick; `make soak` has many more.
const SEEDS: u64 = 12;

#[test]
fn no_request_runs_twice_or_out_of_order_while_slots_move() {
    let seeds = random::seeds(SEEDS);
    let runs = seeds.end - seeds.start;
    let (mut moved, mut asked, mut later, mut given_up, mut answered, mut stayed) = (0, 0, 0, 0, 0, 0);
    for seed in seeds {
        let (counts, up, all, still) = random::run(seed, || {
            let mut run = Run::new(seed);
            run.run();
            let counters = &run.world.counters;
            let counts = [&counters.redirects_moved, &counters.redirects_ask, &counters.redirects_later];
            (counts.map(|counter| counter.get()), run.given_up, run.answered, KEYS.len() - run.moved.len())
        });
        moved += counts[0];
        asked += counts[1];
        later += counts[2];
        given_up += up;
        answered += all;
        stayed += still;
    }
    println!("{answered} answered: {moved} moved, {asked} ask, {later} later, {given_up} given up");
    println!("{stayed} slots stayed where they were");
    if runs >= SEEDS {
        let many = 2 * runs;
        assert!(moved > many && asked > many && later > many && given_up > many / 10);
        // That there is no time for it is rare.
        assert!(stayed <= runs as usize / 100);
        // Few come behind one that was executed.
        assert!(given_up < later / 5);
    }
}

/// One INCR, where every node answers whatever it gets with what `answer` says to its number; a round takes 10 ms. The rounds
/// until the client has its reply, and that.
fn rounds(limits: impl FnOnce(&mut Limits), answer: impl Fn(u16) -> String) -> (u32, String) {
    let mut world = Run::with_limits(1, limits).world;
    let id = world.pool.client_connected(world.now);
    world.client_sends(id, b"INCR {foo}0\r\n");
    for round in 0..1000 {
        world.settle();
        for index in std::mem::take(&mut world.wanted) {
            world.shard_connects(index);
        }
        for index in world.up.clone() {
            let Address::Tcp { port, .. } = world.pool.shard_of(index).expect("it is there").address else {
                panic!("no port")
            };
            if !world.shard_takes(index, |length| length).is_empty() {
                world.shard_sends(index, answer(port).as_bytes()).expect("it is a response");
            }
        }
        let reply = world.client_takes(id, |length| length);
        if !reply.is_empty() {
            assert_eq!(world.pool.parked_count(), 0);
            return (round, String::from_utf8(reply).expect("text"));
        }
        world.now = world.now.plus(Duration::from_millis(10));
        world.pool.tick(world.now);
    }
    panic!("it is never answered");
}

#[test]
fn nodes_that_send_a_request_in_circles_are_left() {
    // Each says that the other owns the slot.
    let (rounds, reply) = rounds(|_| {}, |port| format!("-MOVED 12182 node:{}\r\n", (port + 1) % 2));
    assert!(rounds <= 10 && reply.starts_with("-MOVED 12182"), "{rounds} rounds: {reply}");
}

#[test]
fn what_a_node_cannot_serve_now_is_asked_for_again_within_the_limits() {
    let down = |_| "-CLUSTERDOWN The cluster is down\r\n".to_owned();
    let (patient, reply) = rounds(|_| {}, down);
    assert!((400..=600).contains(&patient) && reply.starts_with("-CLUSTERDOWN"), "{patient} rounds: {reply}");
    // No pause ends after the deadline: the client is told in time.
    let (hurried, reply) = rounds(|limits| limits.timeout = Some(Duration::from_millis(300)), down);
    assert!((5..=30).contains(&hurried) && reply.starts_with('-'), "{hurried} rounds: {reply}");
    // Those that wait have room of their own, whatever that of a shard's queue is.
    let (patient, reply) = rounds(|limits| limits.shard_queue_bytes_max = 8, down);
    assert!((400..=600).contains(&patient) && reply.starts_with("-CLUSTERDOWN"), "{patient} rounds: {reply}");
    let (full, reply) = rounds(|limits| limits.parked_bytes_max = 8, down);
    assert!(full <= 1 && reply.starts_with("-CLUSTERDOWN"), "{full} rounds: {reply}");
}

fn two_nodes() -> Arc<Topology> {
    let node = |port| Shard::new(Address::Tcp { host: "node".into(), port }, 1, Some(format!("node-{port}")));
    let mut owners = vec![Some(0); 16_384];
    owners[usize::from(KEYS[1].1)] = Some(1);
    Arc::new(Topology::of_cluster(vec![node(0), node(1)], &owners, vec![Vec::new(); 2]).expect("a topology"))
}

/// A world of two nodes, with a connection to both: `foo` is on the first, `bar` on the second.
fn world(change: impl FnOnce(&mut Limits)) -> (World<Resp>, [ConnectionId; 2]) {
    // What is said here of one connection to a node goes for large values as for others.
    let mut limits =
        Limits { queue_wait: Duration::from_secs(3600), large_value_min: usize::MAX, ..Limits::default() };
    change(&mut limits);
    let settings = Settings { databases: 1, ..Settings::default() };
    let mut world = World::new(settings, limits, two_nodes(), 1);
    world.pool.preconnect();
    world.settle();
    let mut wanted = std::mem::take(&mut world.wanted);
    wanted.sort_by_key(|&index| world.pool.shard_of(index).expect("it is there").name.clone());
    wanted.iter().for_each(|&index| world.shard_connects(index));
    world.settle();
    (world, [wanted[0], wanted[1]])
}

/// A node that answers nothing keeps what clients had asked of it. They are gone: nobody else is to go for that.
#[test]
fn what_is_left_at_a_node_that_hangs_costs_no_client_its_connection() {
    let (mut world, [frozen, lively]) = world(|limits| limits.memory_max = 8 << 20);
    let set = format!("*3\r\n$3\r\nSET\r\n$5\r\n{{foo}}\r\n$900000\r\n{}\r\n", "v".repeat(900_000));
    let begun = "$900000\r\n".to_owned() + &"v".repeat(500_000);
    for number in 0..30 {
        let client = world.pool.client_connected(world.now);
        world.client_sends(client, set.as_bytes());
        world.settle();
        world.shard_takes(frozen, |length| length);
        if number == 5 {
            // Half a response is held as well.
            world.shard_sends(frozen, begun.as_bytes()).expect("it may be the response");
        }
        world.settle();
        world.pool.client_gone(client, true, world.now);
        // Others work meanwhile.
        let other = world.pool.client_connected(world.now);
        world.eager.insert(other, Vec::new());
        world.client_sends(other, b"GET {bar}\r\n");
        world.settle();
        world.shard_takes(lively, |length| length);
        world.shard_sends(lively, b"$1\r\nx\r\n").expect("a response");
        world.settle();
        assert_eq!(world.eager[&other], b"$1\r\nx\r\n", "after {number}");
    }
    assert_eq!(world.counters.client_evicted.get(), 0);
}

/// One that waits behind another is due with it: looking for it before would be a loop.
#[test]
fn what_waits_behind_another_request_is_not_looked_for_before() {
    let (mut world, [first, _]) = world(|_| {});
    let client = world.pool.client_connected(world.now);
    world.eager.insert(client, Vec::new());
    world.client_sends(client, b"GET {foo}\r\nGET {foo}\r\n");
    world.settle();
    world.shard_takes(first, |length| length);
    // A node that nobody knows.
    let moved = b"-MOVED 12182 node:9\r\n".repeat(2);
    world.shard_sends(first, &moved).expect("responses");
    world.settle();
    let mut looks = 0;
    while world.pool.parked_count() > 0 {
        let next = world.pool.next_deadline().expect("they wait");
        assert!(next > world.now, "after {looks}");
        world.now = next;
        world.pool.tick(world.now);
        world.settle();
        looks += 1;
    }
    assert!(looks < 50, "{looks}");
    assert_eq!(world.eager[&client], moved, "they have tried long enough");
}

/// Another request of its client is at a node that hangs, and no `timeout` is set.
#[test]
fn what_waits_for_other_requests_of_its_client_does_not_wait_for_ever() {
    let (mut world, [first, hung]) = world(|_| {});
    let client = world.pool.client_connected(world.now);
    world.eager.insert(client, Vec::new());
    world.client_sends(client, b"GET {foo}\r\nGET {bar}\r\nGET {foo}\r\n");
    world.settle();
    world.shard_takes(first, |length| length);
    world.shard_takes(hung, |length| length);
    let down = b"-CLUSTERDOWN The cluster is down\r\n";
    world.shard_sends(first, &down.repeat(2)).expect("responses");
    world.pass_time(Duration::from_secs(4));
    assert_eq!((world.pool.parked_count(), world.eager[&client].len()), (2, 0));
    world.pass_time(Duration::from_secs(2));
    assert_eq!((world.pool.parked_count(), &world.eager[&client][..]), (0, &down[..]));
    world.shard_sends(hung, b"$1\r\nx\r\n").expect("a response");
    world.settle();
    assert_eq!(world.eager[&client], [&down[..], b"$1\r\nx\r\n", down].concat());
}

/// More than a shard's queue takes, and no more than 8 MiB.
#[test]
fn requests_that_wait_for_a_cluster_have_room_of_their_own() {
    let (mut world, [first, _]) = world(|_| {});
    assert_eq!((Limits::default().shard_queue_bytes_max, PARKED_BYTES_MAX), (2 << 20, 8 << 20));
    // With what is kept of each besides.
    let value = "v".repeat((1 << 20) - 1000);
    let set = format!("*3\r\n$3\r\nSET\r\n$5\r\n{{foo}}\r\n${}\r\n{value}\r\n", value.len());
    let mut given_up = Vec::new();
    for number in 0..10 {
        let client = world.pool.client_connected(world.now);
        world.eager.insert(client, Vec::new());
        world.client_sends(client, set.as_bytes());
        world.settle();
        while !world.shard_takes(first, |length| length).is_empty() {
            world.settle();
        }
        world.shard_sends(first, b"-CLUSTERDOWN The cluster is down\r\n").expect("a response");
        world.settle();
        if !world.eager[&client].is_empty() {
            given_up.push(number);
        }
    }
    assert_eq!((world.pool.parked_count(), given_up), (8, vec![8, 9]));
}

/// A slot says nothing of who has its keys there: it would be the shard that the number of the slot hashes to.
#[test]
fn what_waits_for_a_cluster_goes_to_no_shard_of_a_list_that_takes_its_place() {
    let (mut world, [first, _]) = world(|_| {});
    let client = world.pool.client_connected(world.now);
    world.eager.insert(client, Vec::new());
    world.client_sends(client, b"INCR {foo}\r\nINCR {foo}\r\n");
    world.settle();
    world.shard_takes(first, |length| length);
    let down = b"-CLUSTERDOWN The cluster is down\r\n".repeat(2);
    world.shard_sends(first, &down).expect("responses");
    world.settle();
    assert_eq!(world.pool.parked_count(), 2);
    let shards = two_nodes().shards().to_vec();
    let list = Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, None).expect("a topology");
    let settings = Settings { databases: 1, ..Settings::default() };
    world.reconfigure(settings, Limits::default(), Arc::new(list), &[Some(0), Some(1)]);
    while world.pool.parked_count() > 0 {
        world.settle();
        for index in std::mem::take(&mut world.wanted) {
            world.shard_connects(index);
        }
        for index in world.up.clone() {
            let sent = world.shard_takes(index, |length| length);
            assert!(sent.is_empty(), "{}", String::from_utf8_lossy(&sent));
        }
        world.pass_time(Duration::from_millis(20));
    }
    assert_eq!(world.eager[&client], down);
}
