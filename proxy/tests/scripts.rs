//! Scripts in a simulated world: one seed is one run, in virtual time.
//!
//! Clients run scripts by their text and by their digest, in pipelines and transactions, over connections that they share; shards
//! keep the scripts they were sent, restart, and are made to forget them behind the proxy's back. Every script counts, so one that
//! ran twice, not at all, or behind a request that came later shows in the counts. A client that asks for one thing at a time never
//! hears that a script is not known which it has shown; one that writes pipelines does so only where somebody has made shards forget
//! it. `SEED=7` replays a run, `SIMULATION_SEEDS=20000` runs more.
//!
//! Some scripts say themselves that they are not known, after they have counted.
//!
//! Planted once to see this fail: what was not executed sent again behind what came later; a script's own word taken for the shard's.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use memstore_proxy::failure::ShardFailure;
use memstore_proxy::pool::{ClientId, ConnectionId, Limits};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use sha1::{Digest as _, Sha1};
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};
use world::World;

mod world;

const SHARDS: u16 = 3;
const KEYS: u64 = 6;
const TEXTS: [&str; 5] = ["count", "count too", "count as well", OWN, SAME];
/// They count, and say that they are not known: in words of their own, and in those of a shard. That they may is in their text; the
/// others cannot by theirs.
const OWN: &str = "count and error_reply(so)";
const SAME: &str = "count and error_reply(lie)";
const UNKNOWN: &str = "-NOSCRIPT No matching script. Please use EVAL.\r\n";

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }
}

fn digest(text: &str) -> String {
    Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a shard has; a restart leaves the data.
#[derive(Default)]
struct Server {
    data: HashMap<String, i64>,
    scripts: HashSet<String>,
}

impl Server {
    fn answer(&mut self, words: &[String]) -> String {
        let count = |server: &mut Self, script: &str, key: &str| {
            let value = server.data.entry(key.to_owned()).or_default();
            *value += 1;
            match script {
                _ if script == digest(OWN) => "-NOSCRIPT of my own\r\n".to_owned(),
                _ if script == digest(SAME) => UNKNOWN.to_owned(),
                _ => format!(":{value}\r\n"),
            }
        };
        match words[0].as_str() {
            "SCRIPT" if words[1] == "EXISTS" => {
                let known = words[2..].iter().map(|script| i32::from(self.scripts.contains(script)));
                known.fold(format!("*{}\r\n", words.len() - 2), |all, known| format!("{all}:{known}\r\n"))
            }
            "SCRIPT" => {
                assert_eq!(words[1], "LOAD");
                let digest = digest(&words[2]);
                self.scripts.insert(digest.clone());
                format!("$40\r\n{digest}\r\n")
            }
            "EVAL" => {
                self.scripts.insert(digest(&words[1]));
                count(self, &digest(&words[1]), &words[3])
            }
            "EVALSHA" if !self.scripts.contains(&words[1]) => UNKNOWN.into(),
            "EVALSHA" => count(self, &words[1], &words[3]),
            "GET" => format!(":{}\r\n", self.data.get(&words[1]).copied().unwrap_or_default()),
            other => panic!("{other} was not asked for"),
        }
    }
}

#[derive(Default)]
struct Connection {
    inbox: VecDeque<u8>,
    outbox: VecDeque<u8>,
    queued: Option<Vec<Vec<String>>>,
    /// A script was sent, and requests that came behind it are not executed.
    is_loading: bool,
}

/// One of a client's requests.
#[derive(Clone, Debug)]
enum Asked {
    Run { key: u64, text: usize, shown: bool },
    Get { key: u64 },
    Transaction { key: u64, text: usize, shown: bool },
    Queued,
}

struct Client {
    id: ClientId,
    number: usize,
    /// It asks for one thing at a time.
    is_patient: bool,
    outbox: VecDeque<u8>,
    inbox: Vec<u8>,
    asked: VecDeque<Asked>,
    shown: BTreeSet<usize>,
    /// For each key what it stands at, at least and at most.
    counts: [(i64, i64); KEYS as usize],
}

#[derive(Default, Debug)]
struct Coverage {
    counted: u64,
    unknown: u64,
    loaded: u64,
    repaired: u64,
    lost: u64,
    forgotten: u64,
    told_by_scripts: u64,
    raced: u64,
}

struct Run {
    random: Random,
    world: World<Resp>,
    servers: BTreeMap<u16, Server>,
    connections: BTreeMap<ConnectionId, Connection>,
    clients: Vec<Client>,
    /// Connections are lost.
    loses: bool,
    /// Shards are made to forget scripts.
    forgets: bool,
    coverage: Coverage,
}

/// The whole request at the beginning.
fn request(bytes: &mut VecDeque<u8>) -> Option<Vec<String>> {
    let text = String::from_utf8(bytes.make_contiguous().to_vec()).expect("text");
    let mut lines = text.split("\r\n");
    let count: usize = lines.next()?.strip_prefix('*')?.parse().ok()?;
    let (mut used, mut words) = (text.find("\r\n")? + 2, Vec::new());
    for _ in 0..count {
        let (head, word) = (lines.next()?, lines.next()?);
        if format!("${}", word.len()) != head {
            return None;
        }
        used += head.len() + word.len() + 4;
        words.push(word.to_owned());
    }
    if used > text.len() {
        return None;
    }
    bytes.drain(..used);
    Some(words)
}

/// The reply that `bytes` begins with, in lines, and its length.
fn reply(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let line = String::from_utf8(bytes[..end].to_vec()).expect("text");
    let (mut lines, mut used) = (vec![line], end + 2);
    let count = lines[0].strip_prefix('*').map_or(0, |count| count.parse().expect("a count"));
    for _ in 0..count {
        let (element, length) = reply(&bytes[used..])?;
        used += length;
        lines.extend(element);
    }
    Some((lines, used))
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let shards = (0..SHARDS).map(|port| {
            let address = Address::Tcp { host: "shard".into(), port };
            Shard::new(address, 1, Some(format!("shard-{port}")))
        });
        let topology = Topology::new(shards.collect(), DistributionKind::Ketama, KeyHash::Fnv1a64, None);
        let limits = Limits {
            queue_wait: Duration::from_secs(3600),
            server_connections: 1 + random.below(2) as usize,
            shard_queue_max: if random.one_in(3) { 3 } else { 1024 },
            ..Limits::default()
        };
        let topology = Arc::new(topology.expect("shards"));
        let mut world = World::new(Settings { databases: 1, ..Settings::default() }, limits, topology, seed);
        let clients = (0..4).map(|number| Client {
            id: world.pool.client_connected(world.now),
            number,
            is_patient: number % 2 == 0,
            outbox: VecDeque::new(),
            inbox: Vec::new(),
            asked: VecDeque::new(),
            shown: BTreeSet::new(),
            counts: [(0, 0); KEYS as usize],
        });
        let clients = clients.collect();
        let (loses, forgets) = (random.one_in(3), random.one_in(2));
        let servers = (0..SHARDS).map(|port| (port, Server::default())).collect();
        let coverage = Coverage::default();
        Self { random, world, servers, connections: BTreeMap::new(), clients, loses, forgets, coverage }
    }

    fn run(&mut self) {
        for _ in 0..500 {
            self.step();
            self.settle();
        }
        for _ in 0..200 {
            self.world.now = self.world.now.plus(Duration::from_millis(50));
            self.world.pool.tick(self.world.now);
            (0..self.clients.len()).for_each(|at| self.send(at));
            self.serve();
            self.settle();
        }
        let waiting = self.clients.iter().filter(|client| !client.asked.is_empty()).count();
        assert_eq!(waiting, 0, "clients wait for ever");
        let counters = &self.world.counters;
        self.coverage.loaded = counters.scripts_loaded.get();
        self.coverage.repaired = counters.scripts_repaired.get();
    }

    fn step(&mut self) {
        let at = self.random.below(self.clients.len() as u64) as usize;
        match self.random.below(12) {
            0..=3 => self.ask(at),
            4..=6 => self.send(at),
            7..=9 => self.serve(),
            10 if self.loses && self.random.one_in(4) => self.lose(),
            11 if self.forgets && self.random.one_in(3) => self.forget(),
            _ => {}
        }
    }

    fn ask(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.is_patient && !client.asked.is_empty() {
            return;
        }
        let key = self.random.below(KEYS);
        let text = self.random.below(TEXTS.len() as u64) as usize;
        let name = format!("key:{}:{key}", client.number);
        let (digest, shown) = (digest(TEXTS[text]), client.shown.contains(&text));
        let words = match self.random.below(8) {
            0 | 1 => {
                client.asked.push_back(Asked::Get { key });
                format!("GET {name}\r\n")
            }
            2 => {
                client.shown.insert(text);
                client.asked.push_back(Asked::Run { key, text, shown: true });
                let length = TEXTS[text].len();
                format!(
                    "*4\r\n$4\r\nEVAL\r\n${length}\r\n{}\r\n$1\r\n1\r\n${}\r\n{name}\r\n",
                    TEXTS[text],
                    name.len()
                )
            }
            3 => {
                client.asked.extend([Asked::Queued, Asked::Queued, Asked::Queued]);
                client.asked.push_back(Asked::Transaction { key, text, shown });
                format!("MULTI\r\nEVALSHA {digest} 1 {name}\r\nGET {name}\r\nEXEC\r\n")
            }
            _ => {
                client.asked.push_back(Asked::Run { key, text, shown });
                format!("EVALSHA {digest} 1 {name}\r\n")
            }
        };
        client.outbox.extend(words.bytes());
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

    fn server_of(&self, index: ConnectionId) -> u16 {
        match self.world.pool.shard_of(index).expect("it is there").address {
            Address::Tcp { port, .. } => port,
            Address::Unix(_) => panic!("no port"),
        }
    }

    /// Requests reach the shards, which answer some of them.
    fn serve(&mut self) {
        for index in std::mem::take(&mut self.world.wanted) {
            self.connections.insert(index, Connection::default());
            self.world.shard_connects(index);
        }
        for index in self.connections.keys().copied().collect::<Vec<_>>() {
            let port = self.server_of(index);
            let server = self.servers.get_mut(&port).expect("it is there");
            let connection = self.connections.get_mut(&index).expect("just seen");
            let random = &mut self.random;
            let mut is_all = true;
            let taken = self.world.shard_takes(index, |length| {
                let cut = 1 + random.below(length as u64) as usize;
                is_all &= cut == length;
                cut
            });
            connection.inbox.extend(taken);
            for _ in 0..self.random.below(4) {
                let Some(words) = request(&mut connection.inbox) else { break };
                let is_load = words[0] == "SCRIPT" && words[1] == "LOAD";
                connection.is_loading =
                    is_load || (connection.is_loading && !(is_all && connection.inbox.is_empty()));
                let answer = match (words[0].as_str(), &mut connection.queued) {
                    ("MULTI", queued) => {
                        *queued = Some(Vec::new());
                        "+OK\r\n".to_owned()
                    }
                    ("EXEC", queued) => {
                        let queued = queued.take().expect("MULTI");
                        let mut answer = format!("*{}\r\n", queued.len());
                        queued.iter().for_each(|words| answer.push_str(&server.answer(words)));
                        answer
                    }
                    (_, Some(queued)) => {
                        queued.push(words);
                        "+QUEUED\r\n".to_owned()
                    }
                    _ => server.answer(&words),
                };
                connection.outbox.extend(answer.bytes());
            }
            if !connection.outbox.is_empty() {
                let cut = 1 + self.random.below(connection.outbox.len() as u64) as usize;
                let bytes: Vec<u8> = connection.outbox.drain(..cut).collect();
                self.world.shard_sends(index, &bytes).expect("shards are honest");
            }
        }
    }

    /// A connection is lost, perhaps because its shard was restarted.
    fn lose(&mut self) {
        let all: Vec<_> = self.connections.keys().copied().collect();
        let Some(&index) = all.get(self.random.below(all.len().max(1) as u64) as usize) else { return };
        let port = self.server_of(index);
        self.coverage.lost += 1;
        let lost = if self.random.one_in(2) {
            self.servers.get_mut(&port).expect("it is there").scripts.clear();
            all.into_iter().filter(|&index| self.server_of(index) == port).collect()
        } else {
            vec![index]
        };
        for index in lost {
            self.connections.remove(&index);
            self.world.shard_closes(index, &ShardFailure::Reset);
            self.settle();
        }
    }

    /// Somebody else flushes the scripts of a shard, but not between one that was sent and what names it: nobody could be
    /// quick enough against that.
    fn forget(&mut self) {
        let port = self.random.below(u64::from(SHARDS)) as u16;
        let is_there = |index: &ConnectionId| self.server_of(*index) == port;
        if self.connections.iter().any(|(index, connection)| connection.is_loading && is_there(index)) {
            return;
        }
        self.coverage.forgotten += 1;
        self.servers.get_mut(&port).expect("it is there").scripts.clear();
    }

    fn settle(&mut self) {
        self.world.settle();
        for at in 0..self.clients.len() {
            let id = self.clients[at].id;
            let bytes = self.world.client_takes(id, |length| length);
            self.clients[at].inbox.extend(bytes);
            assert_eq!(self.world.judge(id), None, "a client was closed");
            self.hear(at);
        }
    }

    fn hear(&mut self, at: usize) {
        let rough = Rough { loses: self.loses, forgets: self.forgets };
        let client = &mut self.clients[at];
        while let Some((lines, length)) = reply(&client.inbox) {
            client.inbox.drain(..length);
            let asked = client.asked.pop_front().expect("a reply that nobody asked for");
            let mut lines = lines.into_iter();
            let line = lines.next().expect("a line");
            match asked {
                Asked::Queued => assert!(line == "+OK" || line == "+QUEUED", "{line}"),
                Asked::Run { key, text, shown } => {
                    hear_run(client, key, text, shown, &line, rough, &mut self.coverage);
                }
                Asked::Get { key } => hear_get(client, key, &line, self.loses),
                Asked::Transaction { key, .. } if line.starts_with('-') => {
                    assert!(self.loses, "{line}");
                    client.counts[key as usize].1 += 1;
                }
                Asked::Transaction { key, text, shown } => {
                    // Nothing comes between the two, but it is too late to send a script where one is missing.
                    let (run, get) = (lines.next().expect("two"), lines.next().expect("two"));
                    let is_patient = std::mem::take(&mut client.is_patient);
                    hear_run(client, key, text, shown, &run, rough, &mut self.coverage);
                    hear_get(client, key, &get, false);
                    client.is_patient = is_patient;
                }
            }
        }
    }
}

/// What happens in a run.
#[derive(Clone, Copy)]
struct Rough {
    loses: bool,
    forgets: bool,
}

fn hear_run(
    client: &mut Client,
    key: u64,
    text: usize,
    shown: bool,
    line: &str,
    Rough { loses, forgets }: Rough,
    coverage: &mut Coverage,
) {
    let (least, most) = &mut client.counts[key as usize];
    if line == "-NOSCRIPT of my own" {
        assert_eq!(TEXTS[text], OWN);
        (*least, *most) = (*least + 1, *most + 1);
        coverage.told_by_scripts += 1;
    } else if line.starts_with("-NOSCRIPT") && TEXTS[text] == SAME {
        // Where a shard is made to forget it just then, it looks as if the shard had not executed it.
        *most += if forgets { 2 } else { 1 };
        *least += i64::from(shown && client.is_patient && !forgets && !loses);
        coverage.told_by_scripts += 1;
    } else if line.starts_with("-NOSCRIPT") {
        coverage.unknown += u64::from(shown);
        // A shard that is lost says nothing of what it knows.
        let is_excused = !shown || (loses && forgets) || ((loses || forgets) && !client.is_patient);
        coverage.raced += u64::from(shown && client.is_patient);
        assert!(is_excused, "a script is not known that was shown");
    } else if line.starts_with('-') {
        assert!(loses, "{line}");
        *most += if forgets && TEXTS[text] == SAME { 2 } else { 1 };
    } else {
        let value: i64 = line[1..].parse().expect("a number");
        assert!(*least < value && value <= *most + 1, "{value} is not next to {least} to {most}");
        (*least, *most) = (value, value);
        coverage.counted += 1;
    }
}

fn hear_get(client: &mut Client, key: u64, line: &str, loses: bool) {
    if line.starts_with('-') {
        assert!(loses, "{line}");
        return;
    }
    let (least, most) = &mut client.counts[key as usize];
    let value: i64 = line[1..].parse().expect("a number");
    assert!(*least <= value && value <= *most, "{value} is not {least} to {most}");
    (*least, *most) = (value, value);
}

#[test]
fn scripts_run_once_and_in_order_wherever_they_are_known() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(300),
    };
    let mut all = Coverage::default();
    let is_one = seeds.end - seeds.start == 1;
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            run.run();
            run.coverage
        });
        let coverage = run.unwrap_or_else(|_| panic!("SEED={seed}"));
        all.counted += coverage.counted;
        all.unknown += coverage.unknown;
        all.loaded += coverage.loaded;
        all.repaired += coverage.repaired;
        all.lost += coverage.lost;
        all.forgotten += coverage.forgotten;
        all.told_by_scripts += coverage.told_by_scripts;
        all.raced += coverage.raced;
    }
    println!("{all:?}");
    let reached = [all.counted, all.unknown, all.loaded, all.repaired, all.lost, all.forgotten];
    assert!(is_one || reached.iter().all(|&count| count > 0), "{all:?}");
}
