//! What was slow, and what requests came to, as it is told by the proxy over real servers.

use std::time::{Duration, Instant};

use serde_json::Value;
use servers::{Client, Server, told};

mod servers;

/// A script that keeps its shard busy for some tens of milliseconds.
const BUSY: &str = "local i = 0 while i < 3000000 do i = i + 1 end return i";

/// The log of the pool, as `/slow` tells it.
fn slow(admin: &str) -> Vec<Value> {
    let body = told(admin, "/slow");
    let document: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    document["pools"]["pool"]["entries"].as_array().expect("its entries").clone()
}

fn lines(shards: &[Server]) -> Vec<String> {
    shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect()
}

fn busy(client: &mut Client, key: &str) {
    let reply = client.text(&request(&["EVAL", BUSY, "1", key]));
    assert_eq!(reply, ":3000000\\r\\n");
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    out.into_bytes()
}

#[test]
fn what_was_slow_is_told_to_clients_of_any_worker_and_to_operators() {
    let shards: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let (mut one, mut other) = (proxy.connect(), proxy.connect());
    one.tell("CLIENT SETNAME reporter");
    let address = one.local().to_string();
    busy(&mut one, "k");
    for client in [&mut one, &mut other] {
        assert_eq!(client.tell("SLOWLOG LEN"), ":1\r\n");
        let log = client.tell("SLOWLOG GET");
        assert!(log.starts_with("*1\r\n*6\r\n:0\r\n:"), "{log}");
        assert!(log.contains("$4\r\nEVAL\r\n") && log.contains("# at=shard-"), "{log}");
        assert!(log.contains(&address) && log.ends_with("$8\r\nreporter\r\n"), "{log}");
    }
    let entries = slow(&admin);
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(entry["client"]["address"], address);
    assert_eq!(entry["command"][0], "EVAL");
    let time = |part: &str| entry["microseconds"][part].as_u64().expect("a time");
    assert_eq!(time("total"), time("queued") + time("shard") + time("merged"));
    assert!(time("shard") >= 10_000, "{entry}");
    let metrics = told(&admin, "/metrics");
    assert!(metrics.contains("memstore_slow_requests_total{pool=\"pool\"} 1"), "{metrics}");
    assert_eq!(one.tell("SLOWLOG RESET"), "+OK\r\n");
    assert!(slow(&admin).is_empty());
    assert_eq!(
        one.tell("CONFIG GET slowlog-log-slower-than"),
        "*2\r\n$23\r\nslowlog-log-slower-than\r\n$5\r\n10000\r\n"
    );
}

/// A transaction is one request, also where keys are watched, which are on a connection of their own. To wait for data is not to be slow.
#[test]
fn transactions_are_told_of_and_waits_are_not() {
    let shards = [Server::redis(&[])];
    let (proxy, _) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let (mut client, mut other) = (proxy.connect(), proxy.connect());
    // An entry is made once the reply is out, perhaps by another worker.
    let mut told = || {
        let begin = Instant::now();
        loop {
            let log = other.tell("SLOWLOG GET");
            if log != "*0\r\n" {
                assert_eq!(other.tell("SLOWLOG RESET"), "+OK\r\n");
                return log;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "it is not told of");
        }
    };
    for watches in [false, true] {
        if watches {
            assert_eq!(client.tell("WATCH k"), "+OK\r\n");
            busy(&mut client, "k");
            let log = told();
            assert!(log.starts_with("*1\r\n") && log.contains("$4\r\nEVAL\r\n"), "{log}");
        }
        assert_eq!(client.tell("MULTI"), "+OK\r\n");
        assert_eq!(client.text(&request(&["EVAL", BUSY, "1", "k"])), "+QUEUED\\r\\n");
        assert_eq!(client.tell("EXEC"), "*1\r\n:3000000\r\n");
        let log = told();
        assert!(log.starts_with("*1\r\n") && log.contains("$5\r\nMULTI\r\n"), "{watches}: {log}");
    }
    assert_eq!(client.tell("BLPOP queue 0.1"), "*-1\r\n");
    busy(&mut client, "k");
    let log = told();
    assert!(log.starts_with("*1\r\n") && log.contains("$4\r\nEVAL\r\n"), "{log}");
}

#[test]
fn the_log_is_bounded_however_much_is_slow() {
    let shards = [Server::redis(&[])];
    let settings = ["slowlog_log_slower_than: 0", "slowlog_max_len: 50"];
    let (proxy, admin) = Server::memstore_with_admin(&settings, &lines(&shards), &[]);
    let mut client = proxy.connect();
    let value = "x".repeat(1000);
    let many = request(&["SET", "secret-key", &value]).repeat(1000);
    for _ in 0..20 {
        client.send(&many);
        assert_eq!(client.bytes(5 * 1000), b"+OK\r\n".repeat(1000));
    }
    assert_eq!(client.tell("SLOWLOG LEN"), ":50\r\n");
    let metrics = told(&admin, "/metrics");
    let count = |name: &str| -> u64 {
        let name = format!("{name}{{pool=\"pool\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).expect("the metric")
    };
    assert!(count("memstore_slow_requests_total") >= 20_000);
    // How many have an entry depends on how fast they come.
    assert!(count("memstore_slow_requests_unlogged_total") > 0);
    // Keys and values are not shown where they are private, wherever that is turned on.
    proxy.rewrite(&["slowlog_log_slower_than: 0", "privacy: hash_keys"], &lines(&shards));
    proxy.signal("HUP");
    let begin = Instant::now();
    loop {
        client.tell("SLOWLOG RESET");
        client.tell("SET secret-key secret-value");
        let log = client.tell("SLOWLOG GET 1");
        if log.contains("(12 bytes)") {
            assert!(log.contains("$3\r\nSET\r\n$17\r\n#") && !log.contains("secret"), "{log}");
            assert!(!told(&admin, "/slow").contains("secret"));
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{log}");
    }
}

#[test]
fn slow_requests_to_memcached_are_told_to_operators() {
    let shards = [Server::memcached(&[])];
    let settings = ["redis: false", "slowlog_log_slower_than: 0"];
    let (proxy, admin) = Server::memstore_with_admin(&settings, &lines(&shards), &[]);
    let mut client = proxy.connect();
    client.send(b"set k 0 0 5\r\nvalue\r\n");
    assert_eq!(client.bytes(8), b"STORED\r\n");
    // An entry is made once the reply is out.
    let begin = Instant::now();
    let entries = loop {
        let entries = slow(&admin);
        if !entries.is_empty() {
            break entries;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "it is not told of");
    };
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(entry["command"], serde_json::json!(["set", "k", "0", "0", "5"]));
    assert_eq!((&entry["shard"], &entry["timed_out"]), (&"shard-0".into(), &false.into()));
}

/// A miss and a conflict begin with the letter that ERROR begins with, and are none.
#[test]
fn errors_of_memcached_are_in_the_access_log_and_misses_are_not() {
    let shards = [Server::memcached(&[])];
    let settings = ["redis: false", "access_log_errors: true"];
    let flags = ["--log-format", "json"];
    let (proxy, _) = Server::memstore_with_admin(&settings, &lines(&shards), &flags);
    let mut client = proxy.connect();
    for (request, reply) in [
        ("get miss", "END\r\n"),
        ("mg miss v", "EN\r\n"),
        ("set k 0 0 1\r\nx", "STORED\r\n"),
        ("cas k 0 0 1 999\r\ny", "EXISTS\r\n"),
        ("incr k 1", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
    ] {
        client.send(format!("{request}\r\n").as_bytes());
        assert_eq!(client.bytes(reply.len()), reply.as_bytes(), "{request}");
    }
    let logged = || -> Vec<String> {
        let lines = proxy.printed();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .filter(|line| line["target"] == "access")
            .map(|line| format!("{}: {}", line["command"], line["error"]))
            .collect()
    };
    let begin = Instant::now();
    while logged().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", proxy.printed());
    }
    let error = "CLIENT_ERROR cannot increment or decrement non-numeric value";
    assert_eq!(logged(), [format!("\"incr k 1\": \"{error}\"")]);
}

#[test]
fn the_access_log_has_samples_and_errors_and_no_secrets() {
    const SECRET: &str = "swordfish";
    let shards = [Server::redis(&["--requirepass", SECRET])];
    let settings = [
        "redis_auth: swordfish",
        "access_log_sample: 10",
        "access_log_errors: true",
        "slowlog_log_slower_than: 0",
    ];
    let flags = ["--log-format", "json"];
    let (proxy, admin) = Server::memstore_with_admin(&settings, &lines(&shards), &flags);
    let mut client = proxy.connect();
    for denied in ["AUHT swordfish", "AUTH swordfisch", "HELLO 3 swordfish", "SET swordfish swordfish"] {
        assert!(client.tell(denied).starts_with('-'), "{denied}");
    }
    assert_eq!(client.tell("AUTH swordfish"), "+OK\r\n");
    assert!(client.tell("HELLO 3 AUTH default swordfish SETNAME tester").starts_with('%'));
    client.tell("SET k v");
    assert!(client.tell("INCR k").starts_with("-ERR value"));
    for number in 0..98 {
        client.tell(&format!("GET k{number}"));
    }
    let lines_of = |error: bool| -> Vec<Value> {
        let lines = proxy.printed();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .filter(|line| {
                line["target"] == "access"
                    && line["error"].as_str().is_some_and(|text| text.is_empty() != error)
            })
            .collect()
    };
    let begin = Instant::now();
    while lines_of(false).len() < 10 || lines_of(true).len() < 4 {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", proxy.printed());
    }
    let (sampled, errors) = (lines_of(false), lines_of(true));
    assert!((10..=11).contains(&sampled.len()), "{sampled:?}");
    assert!(sampled.iter().all(|line| line["shard"] == "shard-0"
        && line["command"].as_str().is_some_and(|words| words.starts_with("GET k") || words == "SET k v")));
    let of = |command: &str| {
        errors
            .iter()
            .find(|line| line["command"] == command)
            .unwrap_or_else(|| panic!("{command}: {errors:?}"))
    };
    assert_eq!((&of("AUHT")["error"], &of("AUHT")["shard"]), (&"ERR unknown command".into(), &"".into()));
    assert_eq!(of("SET")["error"], "NOAUTH Authentication required.");
    let failed = of("INCR k");
    assert_eq!(
        (&failed["error"], &failed["name"]),
        (&"ERR value is not an integer or out of range".into(), &"tester".into())
    );
    let requests: std::collections::HashSet<_> =
        sampled.iter().chain(&errors).map(|line| line["request"].to_string()).collect();
    assert_eq!(requests.len(), sampled.len() + errors.len(), "each has a name of its own");
    for text in
        [proxy.printed(), told(&admin, "/slow"), client.tell("SLOWLOG GET -1"), told(&admin, "/metrics")]
    {
        assert!(!text.contains(SECRET) && !text.contains("swordfisch"), "{text}");
    }
}
