//! Clients that keep what they have read, over real servers: whatever happens to shards and to the proxy, none of them reads a value from its own
//! cache that is older than a write which was acknowledged a while ago; and a client that is told of prefixes hears of what it would hear of at
//! a server.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use servers::cluster::Nodes;
use servers::dice::Dice;
use servers::{Server, encoded, end, eventually, reload};

mod servers;

/// How late a client may be told. What is measured is some milliseconds; a machine may have better things to do than this test.
const LATE_MAX: Duration = Duration::from_secs(3);

/// A client of RESP3 with a cache.
struct Keeper {
    stream: TcpStream,
    input: Vec<u8>,
    kept: HashMap<String, u64>,
    /// It has to say which reads it is told of.
    names_reads: bool,
    /// Keys that it was told of; an empty one stands for all.
    told: BTreeSet<String>,
}

/// What has come.
enum Heard {
    Reply(Vec<u8>),
    Told,
}

impl Keeper {
    fn new(server: &Server, tracking: &str) -> Self {
        let stream = TcpStream::connect(server.connect().peer()).expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let names_reads = tracking.contains("OPTIN");
        let (input, kept, told) = Default::default();
        let mut keeper = Self { stream, input, kept, names_reads, told };
        assert!(keeper.ask("HELLO 3").starts_with(b"%"));
        assert_eq!(keeper.ask(&format!("CLIENT TRACKING ON {tracking}")), b"+OK\r\n");
        keeper
    }

    fn send(&mut self, line: &str) {
        let words: Vec<&[u8]> = line.split(' ').filter(|word| !word.is_empty()).map(str::as_bytes).collect();
        self.stream.write_all(&encoded(&words)).expect("it reads");
    }

    /// The reply; what the client is told before it is done.
    fn ask(&mut self, line: &str) -> Vec<u8> {
        self.send(line);
        loop {
            if let Heard::Reply(reply) = self.hear() {
                return reply;
            }
        }
    }

    fn hear(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.next() {
                return heard;
            }
            let mut room = [0; 65536];
            let count = self.stream.read(&mut room).expect("it says something");
            assert!(count > 0, "the connection was closed");
            self.input.extend_from_slice(&room[..count]);
        }
    }

    /// All that has come by now is done.
    fn catch_up(&mut self) {
        self.stream.set_nonblocking(true).expect("a socket");
        let mut room = [0; 65536];
        loop {
            match self.stream.read(&mut room) {
                Ok(0) => panic!("the connection was closed"),
                Ok(count) => self.input.extend_from_slice(&room[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.stream.set_nonblocking(false).expect("a socket");
        while let Some(heard) = self.next() {
            assert!(matches!(heard, Heard::Told), "nothing was asked");
        }
    }

    fn next(&mut self) -> Option<Heard> {
        let length = end(&self.input, 0)?;
        let message: Vec<u8> = self.input.drain(..length).collect();
        if message[0] != b'>' {
            return Some(Heard::Reply(message));
        }
        let text = String::from_utf8(message).expect("text");
        let words: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(words[2], "invalidate", "{text}");
        if words[3] == "_" {
            self.kept.clear();
            self.told.insert(String::new());
        } else {
            for key in words[4..].chunks_exact(2).map(|pair| pair[1]) {
                self.kept.remove(key);
                self.told.insert(key.to_owned());
            }
        }
        Some(Heard::Told)
    }

    /// The value of the key, from the cache if it is there. None: there was an error.
    fn read(&mut self, key: &str) -> Option<u64> {
        if self.names_reads {
            assert_eq!(self.ask("CLIENT CACHING YES"), b"+OK\r\n");
        }
        let reply = self.ask(&format!("GET {key}"));
        let value = number(&reply)?;
        self.kept.insert(key.to_owned(), value);
        Some(value)
    }
}

/// What a reply to GET says; nothing is 0.
fn number(reply: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(reply).expect("text");
    match text.as_bytes()[0] {
        b'$' => Some(text.split("\r\n").nth(1).and_then(|value| value.parse().ok()).unwrap_or(0)),
        b'_' => Some(0),
        _ => None,
    }
}

const KEYS: usize = 40;

fn key(number: usize) -> String {
    format!("key:{number}")
}

/// What was written, and what clients made of it.
#[derive(Default)]
struct Truth {
    done: AtomicBool,
    /// Of each key the values that were acknowledged last, and when.
    written: Mutex<BTreeMap<String, Vec<(u64, Instant)>>>,
    hits: AtomicU64,
    misses: AtomicU64,
    /// The oldest value that was read from a cache had been replaced so many microseconds before.
    oldest: AtomicU64,
}

impl Truth {
    fn write(&self, server: &Server, first: usize) {
        let mut client = server.connect();
        let mut value = 0;
        while !self.done.load(Relaxed) {
            value += 1;
            for number in (first..KEYS).step_by(2) {
                let key = key(number);
                if client.tell(&format!("SET {key} {value}")) == "+OK\r\n" {
                    let mut written = self.written.lock().expect("nobody panics with it");
                    let values = written.entry(key).or_default();
                    values.push((value, Instant::now()));
                    if values.len() > 4096 {
                        values.drain(..2048);
                    }
                }
                std::thread::sleep(Duration::from_micros(500));
            }
        }
    }

    fn read(&self, server: &Server, tracking: &str, seed: u64) {
        let (mut keeper, mut asker) = (Keeper::new(server, tracking), server.connect());
        let mut dice = Dice::new(seed);
        while !self.done.load(Relaxed) {
            let key = key(dice.below(KEYS));
            // What was acknowledged by then.
            let now = Instant::now();
            keeper.catch_up();
            let Some(&value) = keeper.kept.get(&key) else {
                self.misses.fetch_add(1, Relaxed);
                keeper.read(&key);
                continue;
            };
            self.hits.fetch_add(1, Relaxed);
            let newer = {
                let written = self.written.lock().expect("nobody panics with it");
                let values = written.get(&key).map_or(&[][..], |values| values);
                values.iter().find(|(written, at)| *written > value && *at < now).copied()
            };
            let Some((newer, at)) = newer else { continue };
            let age = now - at;
            if age > LATE_MAX {
                // A primary that dies takes with it what it has acknowledged: then there is nothing newer.
                let present = number(&asker.ask(&[b"GET", key.as_bytes()]));
                keeper.catch_up();
                let is_old =
                    present.is_some_and(|present| present >= newer) && keeper.kept.get(&key) == Some(&value);
                assert!(!is_old, "{tracking:?}: {value} of {key} is {age:?} old, {present:?} is there");
            } else {
                self.oldest.fetch_max(age.as_micros() as u64, Relaxed);
            }
        }
    }

    /// Clients read and write while something happens; once that is over and all is quiet none has anything old.
    fn during(server: &Server, happens: impl FnOnce(&Self)) -> Self {
        /// Ends the clients also where a check fails.
        struct Ends<'t>(&'t Truth);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.done.store(true, Relaxed);
            }
        }
        let truth = Self::default();
        std::thread::scope(|scope| {
            let ends = Ends(&truth);
            for first in 0..2 {
                let truth = &truth;
                scope.spawn(move || truth.write(server, first));
            }
            for (seed, tracking) in
                ["", "BCAST", "BCAST PREFIX key:", "OPTIN", "NOLOOP"].into_iter().enumerate()
            {
                let truth = &truth;
                scope.spawn(move || truth.read(server, tracking, seed as u64));
            }
            truth.goes_on();
            happens(&truth);
            truth.goes_on();
            drop(ends);
        });
        truth
    }

    /// Waits until a good many values were read from caches.
    fn goes_on(&self) {
        let before = self.hits.load(Relaxed);
        eventually(|| (self.hits.load(Relaxed) > before + 2000).to_string(), "true");
    }

    fn tell(&self, what: &str) {
        let [hits, misses, oldest] =
            [&self.hits, &self.misses, &self.oldest].map(|count| count.load(Relaxed));
        println!("{what}: {hits} from caches, {misses} not; the oldest had been replaced {oldest} us before");
    }
}

#[test]
fn nobody_keeps_old_values_while_slots_move_and_nodes_die() {
    let mut nodes = Nodes::start(5, &[]);
    nodes.form(3);
    let (proxy, _) = nodes.proxy(&[], &[1]);
    let truth = Truth::during(&proxy, |_| {
        for slot in (0..5461).step_by(60) {
            nodes.move_slot(slot, 0, 1);
        }
        for slot in (0..5461).step_by(120) {
            nodes.move_slot(slot, 1, 2);
        }
    });
    truth.tell("slots that move");
    let truth = Truth::during(&proxy, |truth| {
        let seeds = format!("cluster: {{seeds: [{}]}}", nodes.place(1));
        proxy.rewrite(&[&seeds, "timeout: 20s"], &[]);
        reload(&proxy);
        truth.goes_on();
        nodes.kill(0);
        eventually(|| nodes.ask(3, "CLUSTER NODES").contains("myself,master").to_string(), "true");
    });
    truth.tell("a primary that dies");
}

#[test]
fn nobody_keeps_old_values_while_shards_are_killed_and_the_list_changes() {
    let mut shards = vec![Server::redis(&[]), Server::redis(&[]), Server::redis(&[])];
    let proxy = Server::memstore(&["timeout: 10s"], &shards);
    let truth = Truth::during(&proxy, |truth| {
        for _ in 0..3 {
            let port = shards[0].port;
            drop(shards.remove(0));
            shards.push(Server::redis_at(port));
            truth.goes_on();
        }
        let lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
        proxy.rewrite(&["timeout: 10s"], &lines[..2]);
        reload(&proxy);
        truth.goes_on();
        proxy.rewrite(&["timeout: 10s"], &lines);
        reload(&proxy);
    });
    truth.tell("shards that are killed");
}

/// How long after a write was acknowledged another client has heard of it, beside a plain server; negative where it is told before. To be run alone:
/// `cargo test --release -p memstore-proxy --test kept_values -- --ignored --nocapture`.
#[test]
#[ignore = "it measures, and asserts nothing"]
fn how_late_clients_are_told() {
    let server = Server::redis(&[]);
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&[], &shards);
    let mut late: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for _ in 0..5 {
        let pairs = [
            ("server, default", &server, ""),
            ("server, BCAST", &server, "BCAST"),
            ("proxy, default", &proxy, ""),
            ("proxy, BCAST", &proxy, "BCAST"),
        ];
        for (name, at, tracking) in pairs {
            let (mut keeper, mut writer) = (Keeper::new(at, tracking), at.connect());
            for round in 0..1000 {
                while !keeper.kept.contains_key("k") {
                    keeper.read("k");
                    // What it is told of because of its own haste.
                    std::thread::sleep(Duration::from_micros(200));
                    keeper.catch_up();
                }
                let acknowledged = std::thread::scope(|scope| {
                    let written = scope.spawn(|| {
                        assert_eq!(writer.tell(&format!("SET k {round}")), "+OK\r\n");
                        Instant::now()
                    });
                    while !matches!(keeper.hear(), Heard::Told) {}
                    let told = Instant::now();
                    let written = written.join().expect("it is written");
                    told.checked_duration_since(written).map_or_else(
                        || -((written - told).as_micros() as i64),
                        |late| late.as_micros() as i64,
                    )
                });
                late.entry(name).or_default().push(acknowledged);
            }
        }
    }
    for (name, mut times) in late {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 1000];
        println!(
            "{name}: median {} us, 99% {} us, 99.9% {} us, most {} us",
            at(500),
            at(990),
            at(999),
            at(1000)
        );
    }
}

/// What a client may do that changes keys, whose names it is given.
const WRITES: [&str; 16] = [
    "SET a 1",
    "SETEX a 100 1",
    "MSET a 1 b 2",
    "DEL a b",
    "EXPIRE a 100",
    "PERSIST a",
    "LPUSH {t}a x",
    "RPOP {t}a",
    "RENAME {t}a {t}b",
    "COPY {t}b {t}a REPLACE",
    "INCR {u}a",
    "APPEND {u}b x",
    "GETDEL a",
    "UNLINK {t}a {t}b",
    "GET a",
    "EVAL return(redis.call('set',KEYS[1],'x')) 1 a",
];

/// Clients with the same prefixes, one of a server and one of the proxy, hear of the same keys.
#[test]
fn clients_are_told_of_prefixes_as_by_a_server() {
    let server = Server::redis(&[]);
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let proxy = Server::memstore(&[], &shards);
    let prefixes =
        ["", "PREFIX a", "PREFIX {", "PREFIX {t}a PREFIX {u}", "PREFIX x PREFIX b", "PREFIX nothing"];
    let mut pairs: Vec<[Keeper; 2]> = prefixes
        .iter()
        .map(|prefix| [&server, &proxy].map(|at| Keeper::new(at, &format!("BCAST {prefix}"))))
        .collect();
    // All shards tell of all prefixes once some keys of each were heard of.
    let (mut here, mut there) = (server.connect(), proxy.connect());
    let many =
        |prefix: &str| (0..64).map(|number| prefix.replace('@', &number.to_string())).collect::<Vec<_>>();
    let known = [
        many("z@"),
        many("az@"),
        many("{z@}"),
        ["{t}az", "{u}z"].map(str::to_owned).to_vec(),
        many("xz@"),
        many("nothing@"),
    ];
    for (pair, known) in pairs.iter_mut().zip(known) {
        eventually(
            || {
                known.iter().for_each(|key| assert_eq!(there.tell(&format!("SET {key} 1")), "+OK\r\n"));
                pair[1].catch_up();
                known.iter().all(|key| pair[1].told.contains(key)).to_string()
            },
            "true",
        );
    }
    // What was told of before comes before that.
    for key in many("z@") {
        assert_eq!(there.tell(&format!("DEL {key}")), ":1\r\n");
    }
    for ours in pairs.iter_mut().map(|pair| &mut pair[1]) {
        ours.catch_up();
        ours.told.clear();
    }
    let mut dice = Dice::new(7);
    for round in 0..600 {
        let line = dice.choose(&WRITES);
        let (one, other) = (here.say(line), there.say(line));
        assert_eq!(one, other, "{line}");
        for (pair, prefix) in pairs.iter_mut().zip(prefixes) {
            let [theirs, ours] = pair;
            theirs.told.clear();
            // What it is told of comes before that.
            theirs.ask("PING");
            let wanted = std::mem::take(&mut theirs.told);
            eventually(
                || {
                    ours.catch_up();
                    wanted.is_subset(&ours.told).to_string()
                },
                "true",
            );
            let more: Vec<String> = ours.told.difference(&wanted).cloned().collect();
            // Of what came before it may hear late.
            let is_of_now = |key: &&String| !key.contains('z') && !key.starts_with("nothing");
            let more: Vec<&String> = more.iter().filter(is_of_now).collect();
            assert!(more.is_empty(), "{round}: {prefix}: {line}: {more:?} beside {wanted:?}");
            ours.told.clear();
        }
    }
}

/// Clients of all workers, in all pairs of protocol versions.
#[test]
fn clients_are_told_in_the_stead_of_others() {
    let shards: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let proxy = Server::memstore(&[], &shards);
    let mut writer = proxy.connect();
    for number in 0..8 {
        let key = format!("k{number}");
        let (mut receiver, mut reader) = (proxy.connect(), proxy.connect());
        let is_new = [number % 2 == 0, number % 4 < 2];
        for (client, is_new) in [&mut receiver, &mut reader].into_iter().zip(is_new) {
            if is_new {
                assert!(client.tell("HELLO 3").starts_with('%'));
            }
        }
        let id: u64 = receiver.tell("CLIENT ID")[1..].trim_end().parse().expect("a number");
        if !is_new[0] {
            assert!(receiver.tell("SUBSCRIBE __redis__:invalidate").starts_with("*3"));
        }
        assert_eq!(reader.tell(&format!("CLIENT TRACKING ON REDIRECT {id}")), "+OK\r\n");
        assert_eq!(reader.tell("CLIENT GETREDIR"), format!(":{id}\r\n"));
        let said = |rest: &str| match is_new[0] {
            true => format!(">2\r\n$10\r\ninvalidate\r\n{rest}"),
            false => format!("*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n{rest}"),
        };
        for round in 0..20 {
            assert!(!reader.tell(&format!("GET {key}")).starts_with('-'));
            assert_eq!(writer.tell(&format!("SET {key} {round}")), "+OK\r\n");
            let told = String::from_utf8(receiver.reply()).expect("text");
            assert_eq!(told, said(&format!("*1\r\n$2\r\n{key}\r\n")), "{number} {round}");
        }
        drop(receiver);
        let mut tries = 0;
        eventually(
            || {
                tries += 1;
                let mut said = reader.tell(&format!("GET {key}"));
                while said.starts_with('>') {
                    assert_eq!(said, format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{id}\r\n"));
                    said = String::from_utf8(reader.reply()).expect("text");
                }
                assert_eq!(writer.tell(&format!("SET {key} {tries}")), "+OK\r\n");
                let mut said = reader.tell("CLIENT TRACKINGINFO");
                while said.starts_with('>') {
                    said = String::from_utf8(reader.reply()).expect("text");
                }
                said.contains("broken_redirect").to_string()
            },
            "true",
        );
    }
}
