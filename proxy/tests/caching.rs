//! Clients that keep what they read: whatever comes in whatever order (writes of others, lost connections, shards that forget, move, come
//! and go, replies that wait for each other), none is left with an old value once everything under way has arrived.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use memstore_proxy::failure::ShardFailure;
use memstore_proxy::pool::{ClientId, ConnectionId, Limits};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use shard_discovery::Topology;
use world::World;
use world::random::{Random, run, seeds};
use world::shards::ring;
use world::words::take_request;

mod world;

const KEYS: [&str; 20] =
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];

/// In place of a key: the request says how its client is told.
const TRACKING: &str = "tracking";

/// What a peer says.
#[derive(Clone, PartialEq, Debug)]
enum Said {
    Text(String),
    Nil,
    Array(Vec<Said>),
    Push(Vec<Said>),
}

fn said(bytes: &[u8]) -> Option<(Said, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let line = std::str::from_utf8(&bytes[1..end - 2]).expect("text");
    let (mut values, mut length) = (Vec::new(), end);
    Some(match bytes[0] {
        b'$' | b'*' if line == "-1" => (Said::Nil, end),
        b'$' => {
            let size: usize = line.parse().expect("a size");
            let text = bytes.get(end..end + size)?;
            bytes.get(end + size + 1)?;
            (Said::Text(String::from_utf8(text.to_vec()).expect("text")), end + size + 2)
        }
        kind @ (b'*' | b'>' | b'%' | b'~') => {
            let count: usize = line.parse().expect("a count");
            for _ in 0..if kind == b'%' { 2 * count } else { count } {
                let (value, used) = said(&bytes[length..])?;
                values.push(value);
                length += used;
            }
            (if kind == b'>' { Said::Push(values) } else { Said::Array(values) }, length)
        }
        b'_' => (Said::Nil, end),
        _ => (Said::Text(line.to_owned()), end),
    })
}

/// A connection as its shard has it.
struct Connection {
    shard: String,
    /// Which of those that were found under this name.
    incarnation: u32,
    tracks: bool,
    tracked: BTreeSet<String>,
    /// It is told of all keys that begin so.
    prefixes: Vec<String>,
    queued: Option<Vec<Vec<String>>>,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// A client with its cache.
struct Client {
    id: ClientId,
    /// It is told of all keys that begin with one of these, and keeps nothing else.
    prefixes: Option<Vec<&'static str>>,
    /// Who is told in its stead, with what it has not read to its end.
    receiver: Option<(ClientId, Vec<u8>)>,
    input: Vec<u8>,
    /// Keys that the replies to come are of; none where nothing is kept of one.
    expected: VecDeque<Vec<String>>,
    kept: BTreeMap<String, String>,
}

struct Scene {
    world: World<Resp>,
    seed: u64,
    random: Random,
    topology: Arc<Topology>,
    /// Which shards there are.
    numbers: Vec<usize>,
    /// Some clients have others told.
    has_receivers: bool,
    values: HashMap<String, u64>,
    incarnations: HashMap<String, u32>,
    connections: BTreeMap<ConnectionId, Connection>,
    clients: Vec<Client>,
    written: u64,
    hits: usize,
}

impl Scene {
    fn new(seed: u64, has_receivers: bool) -> Self {
        let topology = Arc::new(ring(0..3, None));
        let settings = Settings { databases: 16, ..Settings::default() };
        let limits = limits(seed);
        let world = World::new(settings, limits, topology.clone(), seed);
        let mut scene = Self {
            world,
            seed,
            random: Random(seed),
            topology,
            numbers: vec![0, 1, 2],
            has_receivers,
            values: HashMap::new(),
            incarnations: HashMap::new(),
            connections: BTreeMap::new(),
            clients: Vec::new(),
            written: 0,
            hits: 0,
        };
        for _ in 0..4 {
            scene.arrives();
        }
        scene
    }

    fn arrives(&mut self) {
        let id = self.world.pool.client_connected(self.world.now);
        let receiver = (self.has_receivers && self.random.one_in(3)).then(|| {
            let receiver = self.world.pool.client_connected(self.world.now);
            self.world.client_sends(receiver, b"HELLO 3\r\n");
            (receiver, Vec::new())
        });
        let is_resp2 = receiver.is_some() && self.random.one_in(2);
        let (input, expected, kept) = Default::default();
        self.clients.push(Client { id, prefixes: None, receiver, input, expected, kept });
        if !is_resp2 {
            self.says(self.clients.len() - 1, "HELLO 3", &[]);
        }
        self.tracks(self.clients.len() - 1);
    }

    /// The client asks to be told of what it reads, or of all keys of some kind.
    fn tracks(&mut self, client: usize) {
        let prefixes = match self.random.below(4) {
            0 => Some(vec![""]),
            1 => Some((0..3).map(|_| self.random.pick(&KEYS)).collect::<BTreeSet<_>>().into_iter().collect()),
            _ => None,
        };
        let mut line = "CLIENT TRACKING ON".to_owned();
        if let Some(prefixes) = &prefixes {
            line.push_str(" BCAST");
            prefixes.iter().filter(|prefix| !prefix.is_empty()).for_each(|prefix| {
                line.push_str(" PREFIX ");
                line.push_str(prefix);
            });
        }
        if let Some((receiver, _)) = &self.clients[client].receiver {
            // Clients are numbered as they come.
            line.push_str(&format!(" REDIRECT {}", receiver.generation));
        }
        if self.world.pool.wants_read(self.clients[client].id) {
            self.says(client, &line, &[TRACKING]);
            self.clients[client].prefixes = prefixes;
        } else {
            self.clients[client].prefixes = Some(Vec::new());
        }
    }

    fn says(&mut self, client: usize, line: &str, keys: &[&str]) {
        self.says_all(client, &[(line, keys)]);
    }

    /// All of it, or nothing where the client is not read.
    fn says_all(&mut self, client: usize, lines: &[(&str, &[&str])]) {
        let known = &mut self.clients[client];
        if !self.world.pool.wants_read(known.id) {
            return;
        }
        let mut said = String::new();
        for (line, keys) in lines {
            known.expected.push_back(keys.iter().map(|&key| key.to_owned()).collect());
            said.push_str(line);
            said.push_str("\r\n");
        }
        self.world.client_sends(known.id, said.as_bytes());
    }

    fn owner(&self, key: &str) -> String {
        let home = self.topology.home_of(key.as_bytes()).expect("an owner");
        self.topology.shards()[home.shard].name.clone()
    }

    fn is_owner(&self, at: &Connection, key: &str) -> bool {
        let incarnation = self.incarnations.get(&at.shard).copied().unwrap_or(0);
        self.owner(key) == at.shard && incarnation == at.incarnation
    }

    /// A write at the shard that owns the key.
    fn write(&mut self, key: &str) {
        self.written += 1;
        self.values.insert(key.to_owned(), self.written);
        self.tell_at_owner(key);
    }

    /// The shard that owns the key tells those that have read it there.
    fn tell_at_owner(&mut self, key: &str) {
        let owner = self.owner(key);
        let incarnation = self.incarnations.get(&owner).copied().unwrap_or(0);
        for connection in self.connections.values_mut() {
            if connection.shard == owner
                && connection.incarnation == incarnation
                && connection.tracked.remove(key)
            {
                tell(connection, Some(key));
            }
            if connection.shard == owner
                && connection.incarnation == incarnation
                && connection.prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
            {
                tell(connection, Some(key));
            }
        }
    }

    /// Executes a request at a shard.
    fn execute(&mut self, at: ConnectionId, words: &[String]) {
        let mut connection = self.connections.remove(&at).expect("it is there");
        let word = |at: usize| words.get(at).map_or("", |word| word.as_str());
        let reply = match (word(0), connection.queued.take()) {
            ("EXEC", Some(queued)) => {
                connection.output.extend(format!("*{}\r\n", queued.len()).as_bytes());
                self.connections.insert(at, connection);
                // What it tells comes behind the whole of it.
                let mut told = Vec::new();
                for words in queued {
                    let known = self.connections.get_mut(&at).expect("it is there");
                    let before = known.output.len();
                    self.execute(at, &words);
                    let known = self.connections.get_mut(&at).expect("it is there");
                    let mut said_now = known.output.split_off(before);
                    let (_, length) = said(&said_now).expect("a reply");
                    told.extend(said_now.split_off(length));
                    known.output.extend(said_now);
                }
                return self.connections.get_mut(&at).expect("it is there").output.extend(told);
            }
            (_, Some(mut queued)) => {
                queued.push(words.to_vec());
                connection.queued = Some(queued);
                "+QUEUED\r\n".to_owned()
            }
            ("MULTI", None) => {
                connection.queued = Some(Vec::new());
                "+OK\r\n".to_owned()
            }
            ("HELLO", _) => "%0\r\n".to_owned(),
            ("CLIENT", _) if word(1) == "ID" => ":1\r\n".to_owned(),
            ("CLIENT", _) if word(2) == "OFF" => {
                (connection.tracks, connection.prefixes) = (false, Vec::new());
                "+OK\r\n".to_owned()
            }
            ("CLIENT", _) if word(3) == "BCAST" => {
                let known = connection.prefixes.clone();
                let is_apart = |prefix: &&String| {
                    !known
                        .iter()
                        .any(|known| known.starts_with(prefix.as_str()) || prefix.starts_with(known.as_str()))
                };
                let prefixes = words[4..].iter().skip(1).step_by(2);
                connection
                    .prefixes
                    .extend(prefixes.inspect(|prefix| assert!(is_apart(prefix), "it is refused")).cloned());
                "+OK\r\n".to_owned()
            }
            ("CLIENT", _) => {
                connection.tracks = true;
                "+OK\r\n".to_owned()
            }
            ("GET", _) => {
                if connection.tracks {
                    connection.tracked.insert(word(1).to_owned());
                }
                self.value(word(1))
            }
            ("MGET", _) => {
                let mut reply = format!("*{}\r\n", words.len() - 1);
                for key in &words[1..] {
                    if connection.tracks {
                        connection.tracked.insert(key.clone());
                    }
                    reply.push_str(&self.value(key));
                }
                reply
            }
            ("SET", _) => {
                let key = word(1).to_owned();
                // What a former owner still writes is nothing that the present one has.
                let is_owner = self.is_owner(&connection, &key);
                connection.output.extend(b"+OK\r\n");
                self.connections.insert(at, connection);
                if is_owner {
                    self.write(&key);
                }
                return;
            }
            _ => "+OK\r\n".to_owned(),
        };
        connection.output.extend(reply.as_bytes());
        self.connections.insert(at, connection);
    }

    fn value(&self, key: &str) -> String {
        self.values.get(key).map_or("_\r\n".to_owned(), |value| {
            let text = value.to_string();
            format!("${}\r\n{text}\r\n", text.len())
        })
    }

    fn connects(&mut self) {
        for id in std::mem::take(&mut self.world.wanted) {
            let Some(shard) = self.world.pool.shard_of(id).map(|shard| shard.name.clone()) else { continue };
            let incarnation = self.incarnations.get(&shard).copied().unwrap_or(0);
            let connection = Connection {
                shard,
                incarnation,
                tracks: false,
                tracked: BTreeSet::new(),
                prefixes: Vec::new(),
                queued: None,
                input: Vec::new(),
                output: Vec::new(),
            };
            self.connections.insert(id, connection);
            self.world.shard_connects(id);
        }
    }

    /// A shard takes what there is for it, and executes it.
    fn shard_takes(&mut self, at: ConnectionId) -> bool {
        if !self.world.up.contains(&at) {
            return false;
        }
        let taken = self.world.shard_takes(at, |length| length);
        let Some(connection) = self.connections.get_mut(&at) else { return false };
        connection.input.extend(&taken);
        while let Some(words) = self.connections.get_mut(&at).and_then(|at| take_request(&mut at.input)) {
            self.execute(at, &words);
        }
        !taken.is_empty()
    }

    /// What a shard has said reaches the proxy, all of it or a part.
    fn shard_says(&mut self, at: ConnectionId, all: bool) -> bool {
        if !self.world.up.contains(&at) {
            return false;
        }
        let Some(connection) = self.connections.get_mut(&at) else { return false };
        if connection.output.is_empty() {
            return false;
        }
        let part = self.random.part(connection.output.len(), all);
        let bytes: Vec<u8> = connection.output.drain(..part).collect();
        self.world.shard_sends(at, &bytes).expect("it is well-formed");
        true
    }

    fn settle(&mut self) {
        self.world.settle();
        self.connects();
        self.connections.retain(|id, _| self.world.up.contains(id));
    }

    /// Who is told in the client's stead reads. What is on its way to the client it is not to keep then either.
    fn receives(&mut self, client: usize) -> bool {
        let Client { receiver: Some((receiver, input)), expected, kept, .. } = &mut self.clients[client]
        else {
            return false;
        };
        let taken = self.world.client_takes(*receiver, |length| length);
        input.extend(&taken);
        while let Some((value, length)) = said(input) {
            input.drain(..length);
            let Said::Push(words) = &value else { continue };
            let is_told = |key: &str| match &words[1] {
                Said::Array(keys) => keys.contains(&Said::Text(key.to_owned())),
                _ => true,
            };
            kept.retain(|key, _| !is_told(key));
            expected.iter_mut().flatten().filter(|key| is_told(key)).for_each(|key| key.clear());
        }
        self.world.judge(*receiver);
        !taken.is_empty()
    }

    /// The client reads, and keeps what it may.
    fn reads(&mut self, client: usize) -> bool {
        let taken = self.world.client_takes(self.clients[client].id, |length| length);
        let client = &mut self.clients[client];
        client.input.extend(&taken);
        while let Some((value, length)) = said(&client.input) {
            client.input.drain(..length);
            if let Said::Push(words) = &value {
                assert!(client.receiver.is_none(), "another one is told: {words:?}");
                match &words[1] {
                    Said::Array(keys) => {
                        for key in keys {
                            let Said::Text(key) = key else { panic!("{key:?}") };
                            client.kept.remove(key);
                        }
                    }
                    _ => client.kept.clear(),
                }
                continue;
            }
            let keys = client.expected.pop_front().expect("it has asked");
            if keys == [TRACKING] {
                if value != Said::Text("OK".into()) {
                    // It watches keys, or is in a transaction: it is told as before, and keeps nothing.
                    client.prefixes = Some(Vec::new());
                    client.kept.clear();
                }
                continue;
            }
            let values = match value {
                Said::Array(values) => values,
                value if keys.len() == 1 => vec![value],
                // An error, or a transaction that was not executed.
                _ => Vec::new(),
            };
            for (key, value) in keys.into_iter().zip(values) {
                let is_told = client
                    .prefixes
                    .as_ref()
                    .is_none_or(|prefixes| prefixes.iter().any(|prefix| key.starts_with(prefix)));
                let is_told = is_told && !key.is_empty();
                match value {
                    Said::Text(text) if text.starts_with(|first: char| first.is_ascii_digit()) && is_told => {
                        client.kept.insert(key, text);
                    }
                    Said::Nil if is_told => {
                        client.kept.insert(key, String::new());
                    }
                    _ => {}
                }
            }
        }
        self.world.judge(client.id);
        !taken.is_empty()
    }

    /// Everything under way arrives; then nobody has anything old.
    fn check(&mut self) {
        loop {
            self.settle();
            let mut goes_on = false;
            for at in self.connections.keys().copied().collect::<Vec<_>>() {
                goes_on |= self.shard_takes(at);
                goes_on |= self.shard_says(at, true);
            }
            self.settle();
            for client in 0..self.clients.len() {
                goes_on |= self.receives(client);
                goes_on |= self.reads(client);
            }
            if !goes_on && !self.world.pool.has_work() && self.world.wanted.is_empty() {
                break;
            }
        }
        for client in &self.clients {
            assert!(client.expected.is_empty(), "a reply is missing");
            for (key, value) in &client.kept {
                let present = self.values.get(key).map_or_else(String::new, u64::to_string);
                let way = (&client.prefixes, client.receiver.as_ref().map(|(id, _)| *id));
                assert_eq!(*value, present, "{:?} has an old value of {key}: {way:?}", client.id);
                self.hits += 1;
            }
        }
    }

    fn step(&mut self) {
        let client = self.random.place(self.clients.len());
        // Some are in use much more than others.
        let most = if self.random.one_in(3) { KEYS.len() } else { 5 };
        let (key, other) = (self.random.pick(&KEYS[..most]), self.random.pick(&KEYS[..most]));
        let connections: Vec<ConnectionId> = self.connections.keys().copied().collect();
        match self.random.below(100) {
            0..20 => self.says(client, &format!("GET {key}"), &[key]),
            20..30 => self.says(client, &format!("MGET {key} {other}"), &[key, other]),
            30..35 => self.says(client, &format!("SET {key} x"), &[]),
            35..38 => {
                let [get, set] = [format!("GET {key}"), format!("SET {key} x")];
                let lines: [(&str, &[&str]); 5] =
                    [("MULTI", &[]), (&get, &[]), (&set, &[]), (&get, &[]), ("EXEC", &[key, "", key])];
                self.says_all(client, &lines);
            }
            38..40 => {
                let [watch, get] = [format!("WATCH {key}"), format!("GET {key}")];
                self.says_all(client, &[(&watch, &[]), (&get, &[key]), ("UNWATCH", &[])]);
            }
            40..52 => self.write(key),
            52..66 if !connections.is_empty() => {
                let at = connections[self.random.place(connections.len())];
                self.shard_takes(at);
            }
            66..82 if !connections.is_empty() => {
                let at = connections[self.random.place(connections.len())];
                self.shard_says(at, false);
            }
            82..91 => {
                self.settle();
                if self.random.one_in(2) {
                    self.receives(client);
                }
                self.reads(client);
            }
            91 if !connections.is_empty() => {
                // A shard may forget what it was to tell of, and says so.
                let at = connections[self.random.place(connections.len())];
                let known = self.connections.get_mut(&at).expect("it is there");
                if known.tracks && self.random.one_in(3) {
                    known.tracked.clear();
                    tell(known, None);
                } else if let Some(key) = known.tracked.pop_first() {
                    tell(known, Some(&key));
                }
            }
            92 if !connections.is_empty() => {
                let at = connections[self.random.place(connections.len())];
                self.connections.remove(&at);
                if self.world.up.contains(&at) {
                    self.world.shard_closes(at, &ShardFailure::Reset);
                }
            }
            93 => self.reload(),
            94 => {
                let name = format!("shard-{}", self.numbers[self.random.place(self.numbers.len())]);
                *self.incarnations.entry(name.clone()).or_default() += 1;
                self.world.pool.renew(&name, self.world.now);
            }
            95 if self.random.one_in(3) => {
                let gone = self.clients.swap_remove(client);
                self.world.pool.client_gone(gone.id, true, self.world.now);
                if let Some((receiver, _)) = gone.receiver {
                    self.world.pool.client_gone(receiver, true, self.world.now);
                }
                self.arrives();
            }
            96 => {
                if self.clients[client].expected.is_empty() {
                    self.clients[client].kept.clear();
                    self.says(client, "CLIENT TRACKING OFF", &[TRACKING]);
                    self.tracks(client);
                }
            }
            _ => {
                self.world.pass_time(Duration::from_millis(1));
            }
        }
    }

    /// Another list of shards: one goes, or comes back.
    fn reload(&mut self) {
        let before = self.numbers.clone();
        let number = self.random.place(3);
        match self.numbers.iter().position(|&known| known == number) {
            Some(place) if self.numbers.len() > 1 => drop(self.numbers.remove(place)),
            Some(_) => return,
            None => self.numbers.push(number),
        }
        self.numbers.sort_unstable();
        let topology = Arc::new(ring(self.numbers.iter().copied(), None));
        let kept: Vec<Option<usize>> =
            self.numbers.iter().map(|number| before.iter().position(|known| known == number)).collect();
        let owners = |scene: &Self| KEYS.map(|key| scene.owner(key));
        let former = owners(self);
        self.topology = topology.clone();
        for ((key, former), present) in KEYS.into_iter().zip(former).zip(owners(self)) {
            if former != present {
                // Whoever has moved the key has written it there.
                self.tell_at_owner(key);
            }
        }
        let settings = Settings { databases: 16, ..Settings::default() };
        self.world.reconfigure(settings, limits(self.seed), topology, &kept);
    }
}

/// In every fourth run there is no room for all that is read.
fn limits(seed: u64) -> Limits {
    let memory_max = if seed % 4 == 3 { 110_000 } else { usize::MAX };
    Limits { timeout: None, memory_max, ..Limits::default() }
}

/// The shard tells of the key, or of all.
fn tell(connection: &mut Connection, key: Option<&str>) {
    let told = match key {
        Some(key) => format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len()),
        None => ">2\r\n$10\r\ninvalidate\r\n_\r\n".to_owned(),
    };
    connection.output.extend(told.as_bytes());
}

#[test]
fn no_client_is_left_with_an_old_value() {
    play(false);
}

/// The same with clients that have others told.
#[test]
fn no_client_that_has_another_one_told_is_left_with_an_old_value() {
    play(true);
}

fn play(has_receivers: bool) {
    let mut hits = 0;
    let seeds = seeds(300);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        hits += run(seed, || {
            let mut scene = Scene::new(seed, has_receivers);
            for round in 0..400 {
                scene.step();
                if round % 40 == 39 {
                    scene.check();
                }
            }
            scene.hits
        });
    }
    // There is something to be old.
    assert!(hits as u64 > 20 * count, "{hits} values kept");
}
