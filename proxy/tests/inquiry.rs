//! What clients and tools ask the proxy about the store as if it were the server, against real servers.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use servers::{Client, Server, eventually};

mod servers;

/// The value of a field of INFO.
fn field(client: &mut Client, section: &str, name: &str) -> String {
    let info = String::from_utf8_lossy(&client.ask(&[b"INFO", section.as_bytes()])).into_owned();
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
    value.unwrap_or_else(|| "none".into())
}

fn two_shards() -> [Server; 2] {
    [
        Server::redis(&["--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"]),
        Server::redis(&["--maxmemory", "50mb", "--maxmemory-policy", "noeviction"]),
    ]
}

#[test]
fn clients_are_told_what_the_shards_say_taken_together() {
    let shards = two_shards();
    let installed = field(&mut shards[0].connect(), "server", "redis_version");
    let proxy = Server::memstore(&[], &shards);
    let mut client = proxy.connect();
    // It need not wait for that where the shards answer at once, but they may be slow.
    eventually(|| field(&mut client, "memory", "maxmemory_policy"), "volatile-lru");
    assert_eq!(field(&mut client, "memory", "maxmemory"), (150 << 20).to_string());
    assert_eq!(field(&mut client, "memory", "maxmemory_human"), "150.00M");
    assert_eq!(field(&mut client, "server", "redis_version"), installed);
    assert!(field(&mut client, "memory", "used_memory").parse::<u64>().is_ok_and(|used| used > 1 << 20));
    for name in ["rdb_bgsave_in_progress", "aof_rewrite_in_progress", "loading"] {
        assert_eq!(field(&mut client, "persistence", name), "0", "{name}");
    }
    let policy =
        "*4\r\n$9\r\nmaxmemory\r\n$9\r\n157286400\r\n$16\r\nmaxmemory-policy\r\n$12\r\nvolatile-lru\r\n";
    assert_eq!(client.tell("CONFIG GET maxmemory maxmemory-policy"), policy);
    // Valkey has another version there than in INFO's redis_version.
    let version = |hello: String| {
        let (_, rest) = hello.split_once("\r\nversion\r\n").expect("a version");
        rest.split("\r\n").nth(1).expect("a text").to_owned()
    };
    assert_eq!(version(client.tell("HELLO")), version(shards[0].connect().tell("HELLO")));
}

#[test]
fn what_changes_is_asked_again_and_what_is_not_known_is_left_out() {
    let [one, other] = two_shards();
    let lines = [one.line(0), other.line(1)];
    let proxy = Server::memstore_over(&["info_refresh: 50ms", "databases: 4"], &lines);
    let mut client = proxy.connect();
    for key in 0..100 {
        client.tell(&format!("SET k{key} 1"));
    }
    client.tell("SELECT 2");
    client.tell("SET k 1");
    eventually(|| field(&mut client, "keyspace", "db0"), "keys=100,expires=0,avg_ttl=0");
    eventually(|| field(&mut client, "keyspace", "db2"), "keys=1,expires=0,avg_ttl=0");
    one.connect().tell("CONFIG SET maxmemory-policy allkeys-lfu");
    eventually(|| field(&mut client, "memory", "maxmemory_policy"), "allkeys-lfu");
    one.connect().tell("CONFIG SET maxmemory 0");
    eventually(|| field(&mut client, "memory", "maxmemory"), "0");
    drop(other);
    eventually(|| field(&mut client, "memory", "used_memory"), "none");
    assert_eq!(client.tell("CONFIG GET maxmemory-policy"), "*0\r\n");
    assert_eq!(field(&mut client, "keyspace", "db0"), "none");
    assert_ne!(field(&mut client, "server", "redis_version"), "none", "clients cannot do without");
}

#[test]
fn nothing_is_asked_where_nobody_wants_it() {
    let shard = Server::redis(&[]);
    let proxy = Server::memstore_over(&["info_refresh: none", "resp3: true"], &[shard.line(0)]);
    let mut client = proxy.connect();
    // Who asks is answered by the shard.
    assert_eq!(client.tell("CONFIG GET maxmemory"), "*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n");
    let stats = String::from_utf8_lossy(&shard.connect().ask(&[b"INFO", b"commandstats"])).into_owned();
    assert!(!stats.contains("cmdstat_info"), "{stats}");
}

/// It prints a number that is missing as the lowest there is.
#[test]
fn redis_cli_shows_numbers() {
    let shards = two_shards();
    let proxy = Server::memstore(&["info_refresh: 50ms"], &shards);
    let mut client = proxy.connect();
    client.tell("MSET a 1 b 2 c 3");
    eventually(|| field(&mut client, "keyspace", "db0"), "keys=3,expires=0,avg_ttl=0");
    let peer = client.peer();
    let mut tool = Command::new("redis-cli")
        .args(["-h", &peer.ip().to_string(), "-p", &peer.port().to_string(), "--stat", "-i", "0.05"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("redis-cli: {error}; apt-get install redis-tools"));
    let lines = BufReader::new(tool.stdout.take().expect("piped")).lines();
    let shown: Vec<String> = lines.take(4).map(|line| line.expect("text")).collect();
    let _ = tool.kill();
    let _ = tool.wait();
    let numbers: Vec<&str> = shown[3].split_whitespace().collect();
    assert_eq!(numbers[0], "3", "{shown:?}");
    assert!(numbers[1].ends_with('M'), "{shown:?}");
    assert!(numbers[2..5].iter().all(|number| !number.starts_with('-')), "{shown:?}");
}

/// What a shard does not want to say is no reason to ask it every few seconds: it would note each time who may not ask.
#[test]
fn a_shard_that_does_not_say_which_events_it_tells_of_is_asked_once() {
    let shards = [Server::redis(&["--rename-command", "CONFIG", ""])];
    let proxy = Server::memstore(&["info_refresh: 20ms"], &shards);
    let mut direct = shards[0].connect();
    let mut number = |section: &str, name: &str| -> u64 {
        let info = String::from_utf8_lossy(&direct.ask(&[b"INFO", section.as_bytes()])).into_owned();
        let line =
            info.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned)).unwrap_or_default();
        line.split(',').next().and_then(|count| count.parse().ok()).unwrap_or(0)
    };
    let mut own = 0;
    let mut is_asked_often = || {
        let calls = number("commandstats", "cmdstat_info:calls=");
        own += 1;
        (calls + 1 >= own + 10).to_string()
    };
    eventually(&mut is_asked_often, "true");
    assert_eq!(number("errorstats", "errorstat_ERR:count="), 1);
    assert_eq!(field(&mut proxy.connect(), "memory", "maxmemory_policy"), "noeviction");
}
