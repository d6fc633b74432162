//! A real nutcracker and this library place the same keys of random pools, and of pools picked for their
//! corners. Another seed: `AGAINST_NUTCRACKER_SEED=7 cargo test -p shard-discovery --test against_nutcracker`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use shard_discovery::{Address, DistributionKind, HashTag, KeyHash, Shard, Topology};
use tempfile::TempDir;

/// The most shards of a pool here: beyond 100, where ring names change their length.
const SHARDS_MAX: usize = 110;

#[test]
fn random_pools_place_keys_alike() {
    let mut random = Random::seeded();
    let servers = Servers::start(SHARDS_MAX);
    let pools: Vec<Pool> = (0..40).map(|_| Pool::random(&mut random, &servers)).collect();
    compare(&pools, 300, &mut random);
}

#[test]
fn pools_at_the_corners_place_keys_alike() {
    let mut random = Random::seeded();
    let servers = Servers::start(SHARDS_MAX);
    let cut = "n".repeat(272);
    let pools = [
        // 156 points instead of 160, and names of different lengths.
        Pool::named(&servers, (0..25).map(|index| (format!("shard-{index}"), 1))),
        Pool::named(&servers, (0..47).map(|index| (format!("shard-{index}"), 1))),
        Pool::named(&servers, (0..110).map(|index| (format!("shard-{index}"), 1))),
        Pool::named(&servers, (0..104).map(|index| (format!("{index}"), index as u32 % 7 + 1))),
        // Shards without a point.
        Pool::named(&servers, [("big".into(), 100_000), ("small".into(), 1)]),
        Pool::named(&servers, [("big".into(), 99), ("small".into(), 1)]),
        Pool::named(&servers, [("a".into(), u32::MAX / 4), ("b".into(), u32::MAX / 4 - 1), ("c".into(), 77)]),
        // Names longer than the buffer of 0.4, around the length of that of 0.5, and beyond it with equal
        // points.
        Pool::named(&servers, (80..92).map(|length| ("x".repeat(length), 1))),
        Pool::named(&servers, (262..278).map(|length| ("x".repeat(length), 1))),
        Pool::named(&servers, ["a", "b", "c"].map(|end| (format!("{cut}{end}"), 1))),
        Pool::named(&servers, [(format!("{cut}b"), 3), (format!("{cut}a"), 1), ("other".into(), 1)]),
        Pool::named(&servers, [("only".into(), 3)]),
    ];
    let modula = pools
        .iter()
        .filter(|pool| pool.shards.iter().all(|shard| shard.weight < 1_000_000))
        .map(|pool| Pool { kind: DistributionKind::Modula, key_hash: KeyHash::Murmur, ..pool.clone() });
    let pools: Vec<Pool> = pools.iter().cloned().chain(modula).collect();
    compare(&pools, 2_000, &mut random);
}

#[test]
fn pools_with_ejected_shards_place_keys_alike() {
    let mut random = Random::seeded();
    let servers = Servers::start(SHARDS_MAX);
    let mut pools = Vec::new();
    for count in [2, 3, 5, 8, 26, 48] {
        for kind in [DistributionKind::Ketama, DistributionKind::Modula] {
            let weight = if random.below(2) == 0 { 1 } else { 4 };
            let shards: Vec<_> =
                (0..count).map(|index| (format!("s{index}"), 1 + random.below(weight) as u32)).collect();
            let mut pool = Pool { kind, ..Pool::named(&servers, shards) };
            for _ in 0..1 + random.below(count - 1).min(3) {
                let dead = random.below(count);
                pool.shards[dead].address = Address::Unix(servers.folder.path().join("nobody-listens"));
            }
            pools.push(pool);
        }
    }
    compare(&pools, 500, &mut random);
}

/// Places `keys` random keys of each pool with nutcracker and with the library.
fn compare(pools: &[Pool], keys: usize, random: &mut Random) {
    let nutcracker = Nutcracker::start(pools);
    for (number, pool) in pools.iter().enumerate() {
        let topology = pool.topology();
        let mut client = nutcracker.connect(number);
        let topology = pool.eject(topology, &mut client);
        let keys: Vec<Vec<u8>> = (0..keys).map(|_| random.key()).collect();
        for batch in keys.chunks(100) {
            let mut requests = Vec::new();
            for key in batch {
                requests.extend(get(key));
            }
            client.get_mut().write_all(&requests).unwrap();
            for key in batch {
                let server = read_reply(&mut client).unwrap_or_else(|error| panic!("{pool:?}: {error}"));
                let owner = &topology.shards()[topology.shard_for(key).unwrap()];
                assert_eq!(pool.server_of(owner), server, "key \"{}\" of {pool:#?}", key.escape_ascii());
            }
        }
    }
}

/// The servers behind all pools: server n answers every request with n.
struct Servers {
    folder: TempDir,
    tcp: Vec<u16>,
    unix: Vec<PathBuf>,
}

impl Servers {
    /// The threads end with the test process; they hold nothing but sockets.
    fn start(count: usize) -> Servers {
        let folder = TempDir::new().unwrap();
        let (mut tcp, mut unix) = (Vec::new(), Vec::new());
        for number in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            tcp.push(listener.local_addr().unwrap().port());
            thread::spawn(move || {
                for connection in listener.incoming() {
                    let connection = connection.unwrap();
                    // Replies are small and many; waiting to join them would cost 40 ms per batch.
                    connection.set_nodelay(true).unwrap();
                    let requests = BufReader::new(connection.try_clone().unwrap());
                    thread::spawn(move || answer(requests, connection, number));
                }
            });
            let path = folder.path().join(number.to_string());
            let listener = UnixListener::bind(&path).unwrap();
            unix.push(path);
            thread::spawn(move || {
                for connection in listener.incoming() {
                    let connection = connection.unwrap();
                    let requests = BufReader::new(connection.try_clone().unwrap());
                    thread::spawn(move || answer(requests, connection, number));
                }
            });
        }
        Servers { folder, tcp, unix }
    }

    fn tcp(&self, number: usize) -> Address {
        Address::Tcp { host: "127.0.0.1".into(), port: self.tcp[number] }
    }
}

/// Answers each request, an array of bulk strings, with the number of the server.
fn answer(mut requests: impl BufRead, mut connection: impl Write, number: usize) -> io::Result<()> {
    let reply = format!("${}\r\n{number}\r\n", number.to_string().len());
    loop {
        for _ in 0..read_length(&mut requests, '*')? {
            let length = read_length(&mut requests, '$')?;
            io::copy(&mut (&mut requests).take(length as u64 + 2), &mut io::sink())?;
        }
        connection.write_all(reply.as_bytes())?;
    }
}

fn read_length(stream: &mut impl BufRead, mark: char) -> io::Result<usize> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let number = line.strip_prefix(mark).and_then(|number| number.trim_end().parse().ok());
    number.ok_or_else(|| io::Error::other(format!("{line:?} is not a length after {mark:?}")))
}

fn get(key: &[u8]) -> Vec<u8> {
    [format!("*2\r\n$3\r\nGET\r\n${}\r\n", key.len()).as_bytes(), key, b"\r\n"].concat()
}

/// The number of the server that answered.
fn read_reply(stream: &mut impl BufRead) -> io::Result<usize> {
    read_length(stream, '$')?;
    let mut number = String::new();
    stream.read_line(&mut number)?;
    number.trim_end().parse().map_err(io::Error::other)
}

#[derive(Debug, Clone)]
struct Pool {
    /// In the order of the configuration; number n is server n.
    shards: Vec<Shard>,
    /// Whether the configuration gives the ring name.
    named: Vec<bool>,
    kind: DistributionKind,
    key_hash: KeyHash,
    hash_tag: Option<HashTag>,
}

impl Pool {
    fn named(servers: &Servers, shards: impl IntoIterator<Item = (String, u32)>) -> Pool {
        let shards: Vec<Shard> = shards
            .into_iter()
            .enumerate()
            .map(|(number, (name, weight))| Shard::new(servers.tcp(number), weight, Some(name)))
            .collect();
        let named = vec![true; shards.len()];
        Pool { shards, named, kind: DistributionKind::Ketama, key_hash: KeyHash::Md5, hash_tag: None }
    }

    fn random(random: &mut Random, servers: &Servers) -> Pool {
        let count_max = [8, 8, 8, 30][random.below(4)];
        let count = 1 + random.below(count_max);
        let weight_max = [1, 1, 3, 10, 1_000][random.below(5)];
        let (mut shards, mut named) = (Vec::new(), Vec::new());
        for number in 0..count {
            let address = match random.below(4) {
                0 => Address::Unix(servers.unix[number].clone()),
                _ => servers.tcp(number),
            };
            // The number keeps names apart; what is around it makes their lengths differ.
            let name = (random.below(2) == 0).then(|| {
                format!("{}{number}{}", "n".repeat(random.below(20)), ["", "a", ":1", "-x"][random.below(4)])
            });
            named.push(name.is_some());
            shards.push(Shard::new(address, 1 + random.below(weight_max) as u32, name));
        }
        let mut names: Vec<&String> = shards.iter().map(|shard| &shard.name).collect();
        names.sort();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Pool::random(random, servers);
        }
        Pool {
            shards,
            named,
            kind: [DistributionKind::Ketama, DistributionKind::Modula][random.below(3) / 2],
            key_hash: KeyHash::ALL[random.below(KeyHash::ALL.len())],
            hash_tag: [None, Some("{}"), Some("$$")][random.below(3)].map(|tag| tag.parse().unwrap()),
        }
    }

    fn topology(&self) -> Topology {
        Topology::new(self.shards.clone(), self.kind, self.key_hash, self.hash_tag).unwrap()
    }

    fn server_of(&self, shard: &Shard) -> usize {
        self.shards.iter().position(|listed| listed.name == shard.name).unwrap()
    }

    /// Sends keys to the shards nobody listens for until nutcracker has ejected all of them.
    fn eject(&self, mut topology: Topology, client: &mut BufReader<UnixStream>) -> Topology {
        let dead = |shard: &Shard| shard.address.to_string().ends_with("nobody-listens");
        let mut number = 0;
        loop {
            let owner = (0..10_000).find_map(|_| {
                number += 1;
                let owner = topology.shard_for(format!("eject:{number}").as_bytes())?;
                dead(&topology.shards()[owner]).then_some(owner)
            });
            let Some(owner) = owner else { return topology };
            client.get_mut().write_all(&get(format!("eject:{number}").as_bytes())).unwrap();
            let mut error = String::new();
            client.read_line(&mut error).unwrap();
            assert!(error.starts_with('-'), "{error:?} from a shard nobody listens for");
            topology = topology.without(&[topology.ejected(), &[owner]].concat());
        }
    }

    fn configuration(&self, name: &str, listen: &Path) -> String {
        let mut text = format!("{name}:\n  listen: {}\n  redis: true\n", listen.display());
        writeln!(text, "  hash: {}\n  distribution: {}", self.key_hash, self.kind).unwrap();
        // An hour: nothing comes back while the test runs.
        text += "  auto_eject_hosts: true\n  server_failure_limit: 1\n  server_retry_timeout: 3600000\n";
        if let Some(tag) = self.hash_tag {
            writeln!(text, "  hash_tag: \"{tag}\"").unwrap();
        }
        text += "  servers:\n";
        for (shard, named) in self.shards.iter().zip(&self.named) {
            let name = if *named { format!(" {}", shard.name) } else { String::new() };
            writeln!(text, "   - {}:{}{name}", shard.address, shard.weight).unwrap();
        }
        text
    }
}

/// A running nutcracker with its own folder; ends with the value.
struct Nutcracker {
    process: Child,
    folder: TempDir,
}

impl Nutcracker {
    fn start(pools: &[Pool]) -> Nutcracker {
        let folder = TempDir::new().unwrap();
        let listen = |number: usize| folder.path().join(format!("pool-{number}"));
        let configuration: String = pools
            .iter()
            .enumerate()
            .map(|(number, pool)| pool.configuration(&format!("pool-{number}"), &listen(number)))
            .collect();
        fs::write(folder.path().join("nutcracker.yml"), &configuration).unwrap();
        // The port of its statistics cannot be left to the system, so another process may take the one that
        // was free a moment ago.
        for _ in 0..5 {
            let mut process = Nutcracker::spawn(folder.path());
            if Nutcracker::answers(&mut process, &listen(pools.len() - 1)) {
                return Nutcracker { process, folder };
            }
        }
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        panic!("nutcracker does not start: {log}\n{configuration}");
    }

    fn spawn(folder: &Path) -> Child {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = std::env::var("PATH").unwrap_or_default();
        Command::new("nutcracker")
            .args(["-c", "nutcracker.yml", "-o", "log", "-a", "127.0.0.1", "-s", &free.to_string()])
            .current_dir(folder)
            // Debian installs it where only root looks.
            .env("PATH", format!("{path}:/usr/sbin"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("nutcracker cannot be run ({error}): apt-get install nutcracker"))
    }

    /// Whether it listens on `socket`, the last that it opens, before it ends or a minute is over.
    fn answers(process: &mut Child, socket: &Path) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline && process.try_wait().unwrap().is_none() {
            if UnixStream::connect(socket).is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        false
    }

    fn connect(&self, pool: usize) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(self.folder.path().join(format!("pool-{pool}"))).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        BufReader::new(stream)
    }
}

impl Drop for Nutcracker {
    fn drop(&mut self) {
        // It may have ended by itself; the test has said so then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// SplitMix64: the same pools and keys at every run with the same seed.
struct Random(u64);

impl Random {
    fn seeded() -> Random {
        let seed = std::env::var("AGAINST_NUTCRACKER_SEED").unwrap_or("1".into());
        println!("AGAINST_NUTCRACKER_SEED={seed}");
        Random(seed.parse().expect("a number"))
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn key(&mut self) -> Vec<u8> {
        let length = if self.below(20) == 0 { self.below(5_000) } else { self.below(40) };
        match self.below(3) {
            0 => (0..length).map(|_| self.below(256) as u8).collect(),
            1 => (0..length).map(|_| b"ab{}$"[self.below(5)]).collect(),
            _ => format!("user:{}:name", self.below(1_000_000)).into_bytes(),
        }
    }
}
