//! Shards whose addresses change, behind a real name server: names own keys, addresses do not.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use servers::names::Names;
use servers::{Server, address, eventually, redis_program, unused_port};

mod servers;

/// A redis-server on an address of its own and the port that all of them have.
struct Shard {
    process: Child,
}

impl Shard {
    fn start(address: Ipv4Addr, port: u16) -> Self {
        Self::called("", address, port)
    }

    /// One that says who it is.
    fn called(name: &str, address: Ipv4Addr, port: u16) -> Self {
        let process = Command::new(redis_program())
            .args([
                "--save",
                "",
                "--appendonly",
                "no",
                "--bind",
                &address.to_string(),
                "--port",
                &port.to_string(),
            ])
            .args(["--replica-announce-ip", name])
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server: {error}; apt-get install redis-server"));
        eventually(|| TcpStream::connect((address, port)).is_ok().to_string(), "true");
        Self { process }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address of this process's own, as the others are.
fn nth_address(nth: u8) -> Ipv4Addr {
    let [_, high, middle, low] = address().octets();
    Ipv4Addr::new(127, high + 32 * nth, middle, low)
}

/// Much longer than a name takes to be looked up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

fn proxy(names: &Names, port: u16, settings: &str) -> Server {
    proxy_that_looks(names, "300ms", &format!("servers_dns: shard-{{}}.cache.test.:{port}"), settings)
}

/// The same with another pause between two looks at names of shards that are reached.
fn proxy_that_looks(names: &Names, refresh: &str, servers: &str, settings: &str) -> Server {
    let file = names.folder.join("memstore.yml");
    let connect_timeout = CONNECT_TIMEOUT.as_secs();
    Server::start(env!("CARGO_BIN_EXE_memstore"), "", |listen| {
        let text = format!(
            "dns_server: 127.0.0.1:{server}\ndns_refresh: {refresh}\npools:\n  pool:\n    listen: {host}:{listen}\n    \
             redis: true\n    {servers}\n    servers_count: 2\n    \
             resp3: true\n    connect_timeout: {connect_timeout}s\n{settings}",
            host = address(),
            server = names.port
        );
        fs::write(&file, text).expect("a file");
        let file = file.display().to_string();
        ["serve", "-c", &file, "-s", "0", "--admin-port", "0", "--workers", "2"].map(str::to_owned).into()
    })
}

/// What takes a name server that is silent takes long each time; a machine that is busy is not so five times in a row.
fn assert_not_waited_for(mut act: impl FnMut()) {
    let timed = |()| {
        let begin = Instant::now();
        act();
        begin.elapsed()
    };
    let took = [(); 5].map(timed);
    assert!(took.iter().any(|took| *took < Duration::from_millis(800)), "{took:?}");
}

/// A key of each shard.
fn keys() -> [String; 2] {
    let shards = (0..2)
        .map(|shard| {
            let address = shard_discovery::Address::Tcp { host: "h".into(), port: 1 };
            shard_discovery::Shard::new(address, 1, Some(format!("shard-{shard}")))
        })
        .collect();
    let topology = shard_discovery::Topology::new(
        shards,
        shard_discovery::DistributionKind::Ketama,
        shard_discovery::KeyHash::Fnv1a64,
        None,
    )
    .expect("a topology");
    [0, 1].map(|shard| {
        let key = (0..).map(|number| format!("key{number}"));
        let mut owned = key.filter(|key| topology.shard_for(key.as_bytes()) == Some(shard));
        owned.next().expect("both shards own keys")
    })
}

#[test]
fn a_shard_that_moves_is_found_before_names_are_due_and_no_key_moves() {
    let names = Names::start();
    let port = unused_port();
    let [steady, moving] = keys();
    let _first = Shard::start(nth_address(1), port);
    let second = Shard::start(nth_address(2), port);
    names.set("shard-0", &[nth_address(1)]);
    names.set("shard-1", &[nth_address(2)]);
    let servers = format!("servers_dns: shard-{{}}.cache.test.:{port}");
    let proxy = proxy_that_looks(&names, "1h", &servers, "");
    let mut client = proxy.connect();
    assert_eq!(client.tell(&format!("SET {steady} 1")), "+OK\r\n");
    assert_eq!(client.tell(&format!("SET {moving} 1")), "+OK\r\n");
    // Its keys fail at once while it is away, and only its keys.
    drop(second);
    names.set("shard-1", &[]);
    eventually(
        || client.tell(&format!("GET {moving}")).starts_with("-ERR shard shard-1: ").to_string(),
        "true",
    );
    let begin = Instant::now();
    let mut slowest = Duration::ZERO;
    while begin.elapsed() < Duration::from_millis(1500) {
        let asked = Instant::now();
        assert_eq!(client.tell(&format!("GET {steady}")), "$1\r\n1\r\n");
        slowest = slowest.max(asked.elapsed());
        assert!(client.tell(&format!("GET {moving}")).starts_with("-ERR shard shard-1: "));
    }
    assert!(slowest < CONNECT_TIMEOUT / 4, "the other shard's key took {slowest:?}");
    let _third = Shard::start(nth_address(3), port);
    names.set("shard-1", &[nth_address(3)]);
    eventually(|| client.tell(&format!("SET {moving} 2")), "+OK\r\n");
    assert_eq!(client.tell(&format!("GET {steady}")), "$1\r\n1\r\n");
    let mut direct = TcpStream::connect((nth_address(3), port)).expect("it listens");
    direct.write_all(format!("EXISTS {moving}\r\n").as_bytes()).expect("it reads");
    let mut reply = [0; 4];
    std::io::Read::read_exact(&mut direct, &mut reply).expect("it answers");
    assert_eq!(&reply, b":1\r\n");
}

#[test]
fn a_moved_shard_that_still_answers_where_it_was_is_followed() {
    let names = Names::start();
    let port = unused_port();
    let [steady, moving] = keys();
    let _shards = [1, 2, 3].map(|nth| Shard::start(nth_address(nth), port));
    names.set("shard-0", &[nth_address(1)]);
    names.set("shard-1", &[nth_address(2)]);
    let proxy = proxy(&names, port, "");
    let mut client = proxy.connect();
    assert_eq!(client.tell(&format!("SET {steady} 1")), "+OK\r\n");
    assert_eq!(client.tell(&format!("SET {moving} old")), "+OK\r\n");
    // The address may be another shard's by now: who is there is not asked any more.
    names.set("shard-1", &[nth_address(3)]);
    eventually(|| client.tell(&format!("GET {moving}")), "$-1\r\n");
    proxy.says("shard address changed");
    assert_eq!(client.tell(&format!("GET {steady}")), "$1\r\n1\r\n");
}

/// Takes no connection and refuses none, as the address of a pod that is gone.
struct Silent {
    _listener: socket2::Socket,
    _waiting: Vec<socket2::Socket>,
}

impl Silent {
    fn start(address: Ipv4Addr, port: u16) -> Self {
        let at = std::net::SocketAddr::from((address, port)).into();
        let socket =
            || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let listener = socket();
        listener.set_reuse_address(true).and_then(|()| listener.bind(&at)).expect("nobody else is there");
        listener.listen(0).expect("a listener");
        // What waits to be accepted fills its queue; the kernel drops what comes after that.
        let fill = |_| {
            let client = socket();
            client.set_nonblocking(true).expect("a socket");
            let _ = client.connect(&at);
            client
        };
        Self { _waiting: (0..4).map(fill).collect(), _listener: listener }
    }
}

#[test]
fn an_address_that_has_become_silent_is_not_waited_for() {
    let names = Names::start();
    let port = unused_port();
    let [steady, moving] = keys();
    let _steady = Shard::start(nth_address(1), port);
    let before = Shard::start(nth_address(2), port);
    names.set("shard-0", &[nth_address(1)]);
    names.set("shard-1", &[nth_address(2)]);
    let proxy = proxy(&names, port, "");
    let mut client = proxy.connect();
    assert_eq!(client.tell(&format!("SET {moving} 1")), "+OK\r\n");
    assert_eq!(client.tell(&format!("SET {steady} 1")), "+OK\r\n");
    drop(before);
    let _silent = Silent::start(nth_address(2), port);
    let _after = Shard::start(nth_address(3), port);
    names.set("shard-1", &[nth_address(3)]);
    let moved = Instant::now();
    eventually(|| client.tell(&format!("GET {moving}")), "$-1\r\n");
    assert!(moved.elapsed() < CONNECT_TIMEOUT / 2, "{:?}", moved.elapsed());
    // Nor where the name leads there as well.
    names.set("shard-1", &[nth_address(2), nth_address(3)]);
    let another = self::proxy(&names, port, "");
    let asked = Instant::now();
    assert_eq!(another.connect().tell(&format!("SET {moving} 2")), "+OK\r\n");
    assert!(asked.elapsed() < CONNECT_TIMEOUT / 2, "{:?}", asked.elapsed());
}

/// A reload has found the shard another place while a connection to the former one was being made.
#[test]
fn an_attempt_at_a_shards_former_place_counts_against_nobody() {
    let port = unused_port();
    let [steady, moving] = keys();
    let _steady = Shard::start(nth_address(1), port);
    let _silent = Silent::start(nth_address(2), port);
    let _after = Shard::start(nth_address(3), port);
    let lines = |moving| {
        [(0, 1), (1, moving)].map(|(shard, nth)| format!("{}:{port}:1 shard-{shard}", nth_address(nth)))
    };
    let settings = [
        "auto_eject_hosts: true",
        "server_failure_limit: 1",
        "server_retry_timeout: 600000",
        "connect_timeout: 3s",
        "resp3: true",
    ];
    let proxy = Server::memstore_over(&settings, &lines(2));
    let mut early = proxy.connect();
    early.send(&servers::encoded(&[b"GET", moving.as_bytes()]));
    assert_eq!(proxy.connect().tell(&format!("SET {steady} 1")), "+OK\r\n");
    proxy.rewrite(&settings, &lines(3));
    proxy.signal("HUP");
    let mut client = proxy.connect();
    eventually(|| client.tell(&format!("SET {moving} 1")), "+OK\r\n");
    assert!(early.text_reply().contains("connect timed out"));
    assert_eq!(client.tell(&format!("GET {moving}")), "$1\r\n1\r\n");
    assert!(!proxy.printed().contains("shard ejected"), "{}", proxy.printed());
}

#[test]
fn a_name_server_that_is_away_changes_nothing() {
    let names = Names::start();
    let port = unused_port();
    let [steady, other] = keys();
    let _first = Shard::start(nth_address(1), port);
    let second = Shard::start(nth_address(2), port);
    names.set("shard-0", &[nth_address(1)]);
    names.set("shard-1", &[nth_address(2)]);
    let proxy = proxy(&names, port, "");
    let mut client = proxy.connect();
    assert_eq!(client.tell(&format!("SET {steady} 1")), "+OK\r\n");
    assert_eq!(client.tell(&format!("SET {other} 1")), "+OK\r\n");
    // Names that are gone, and a server that says nothing: the last addresses hold, also for new connections.
    names.set("shard-0", &[]);
    names.set("shard-1", &[]);
    names.signal("STOP");
    drop(second);
    let _again = Shard::start(nth_address(2), port);
    eventually(|| client.tell(&format!("SET {other} 2")), "+OK\r\n");
    // A question that is not answered takes seconds.
    assert_not_waited_for(|| assert_eq!(client.tell(&format!("GET {steady}")), "$1\r\n1\r\n"));
    names.signal("CONT");
}

#[test]
fn a_name_server_that_fails_changes_nothing() {
    let mut names = Names::start();
    let port = unused_port();
    let [steady, other] = keys();
    let _first = Shard::start(nth_address(1), port);
    let second = Shard::start(nth_address(2), port);
    names.set("shard-0", &[nth_address(1)]);
    names.set("shard-1", &[nth_address(2)]);
    let proxy = proxy(&names, port, "");
    let mut client = proxy.connect();
    assert_eq!(client.tell(&format!("SET {steady} 1")), "+OK\r\n");
    assert_eq!(client.tell(&format!("SET {other} 1")), "+OK\r\n");
    names.fail();
    drop(second);
    let _again = Shard::start(nth_address(2), port);
    eventually(|| client.tell(&format!("SET {other} 2")), "+OK\r\n");
    assert_eq!(client.tell(&format!("GET {steady}")), "$1\r\n1\r\n");
}

#[test]
fn an_answer_too_long_for_a_datagram_is_asked_for_again() {
    let names = Names::start();
    let port = unused_port();
    let _shards = [1, 2].map(|nth| Shard::start(nth_address(nth), port));
    // Hosts that nobody has, and the one that is there.
    let [_, high, middle, _] = nth_address(1).octets();
    let mut many: Vec<Ipv4Addr> = (0..95).map(|low| Ipv4Addr::new(127, high, middle, low)).collect();
    many.push(nth_address(1));
    names.set("shard-0", &many);
    names.set("shard-1", &[nth_address(2)]);
    let proxy = proxy(&names, port, "");
    let [key, _] = keys();
    eventually(|| proxy.connect().tell(&format!("SET {key} 1")), "+OK\r\n");
}

#[test]
fn an_address_that_somebody_else_has_now_is_not_used() {
    let names = Names::start();
    let port = unused_port();
    let [first, second] = keys();
    let _right = Shard::called("shard-0.cache.test", nth_address(1), port);
    let _wrong = Shard::called("shard-7.other.test", nth_address(2), port);
    let _at_last = Shard::called("shard-1.cache.test", nth_address(3), port);
    names.set("shard-0", &[nth_address(1)]);
    names.set("shard-1", &[nth_address(2)]);
    let servers = format!("servers_dns: shard-{{}}.cache.test.:{port}");
    // Long before the names are due.
    let proxy = proxy_that_looks(&names, "1h", &servers, "    shard_identity: true\n    adopt_wait: 300ms\n");
    let mut client = proxy.connect();
    assert_eq!(client.tell(&format!("SET {first} 1")), "+OK\r\n");
    assert_eq!(
        client.tell(&format!("SET {second} 1")),
        "-ERR shard shard-1: cannot connect: it is \"shard-7.other.test\", not \"shard-1.cache.test.\"\r\n"
    );
    names.set("shard-1", &[nth_address(3)]);
    eventually(|| client.tell(&format!("SET {second} 1")), "+OK\r\n");
}

#[test]
fn ports_can_come_from_srv_records() {
    let names = Names::start();
    let ports = [unused_port(), unused_port(), unused_port()];
    let [first, second] = keys();
    let _shards = [0, 1, 2].map(|at| Shard::start(nth_address(1), ports[at]));
    for host in ["shard-0", "shard-1"] {
        names.set(host, &[nth_address(1)]);
    }
    names.set_ports(&[("shard-1", ports[1]), ("shard-0", ports[0])]);
    let servers = "servers_dns: shard-{}.cache.test.\n    servers_srv: _redis._tcp.cache.test.";
    let proxy = proxy_that_looks(&names, "300ms", servers, "");
    let mut client = proxy.connect();
    assert_eq!(client.tell(&format!("SET {first} 1")), "+OK\r\n");
    assert_eq!(client.tell(&format!("SET {second} 1")), "+OK\r\n");
    let exists = |port: u16, key: &str| {
        let mut direct = TcpStream::connect((nth_address(1), port)).expect("it listens");
        direct.write_all(format!("EXISTS {key}\r\n").as_bytes()).expect("it reads");
        let mut reply = [0; 4];
        std::io::Read::read_exact(&mut direct, &mut reply).expect("it answers");
        reply == *b":1\r\n"
    };
    assert!(exists(ports[0], &first) && exists(ports[1], &second));
    assert!(!exists(ports[2], &first));
    // One that moves to another port is followed, by all workers.
    names.set_ports(&[("shard-0", ports[0]), ("shard-1", ports[2])]);
    eventually(
        || (0..8).all(|_| proxy.connect().tell(&format!("GET {second}")) == "$-1\r\n").to_string(),
        "true",
    );
    names.set_ports(&[("shard-0", ports[0]), ("shard-1", ports[1])]);
    eventually(
        || (0..8).all(|_| proxy.connect().tell(&format!("GET {second}")) == "$1\r\n1\r\n").to_string(),
        "true",
    );
    // A host that is away is missing from the records; its keys stay its own.
    names.set_ports(&[("shard-0", ports[0])]);
    assert_eq!(client.tell(&format!("GET {second}")), "$1\r\n1\r\n");
    // So it is where nobody can be asked any more, for new connections too.
    names.signal("STOP");
    let mut direct = TcpStream::connect((nth_address(1), ports[1])).expect("it listens");
    assert_not_waited_for(|| {
        direct.write_all(b"CLIENT KILL TYPE normal SKIPME yes\r\n").expect("it reads");
        let mut reply = [0; 64];
        assert!(
            direct.read(&mut reply).is_ok_and(|count| reply[..count].starts_with(b":")),
            "it is told how many"
        );
        eventually(|| client.tell(&format!("GET {second}")), "$1\r\n1\r\n");
    });
    names.signal("CONT");
}
