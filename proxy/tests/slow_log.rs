//! What was slow, and what requests came to, as it is told by the proxy over real servers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;
use servers::{Client, Server};

mod servers;

/// A script that keeps its shard busy for some tens of milliseconds.
const BUSY: &str = "local i = 0 while i < 3000000 do i = i + 1 end return i";

fn get(admin: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).expect("the admin server listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// The log of the pool, as `/slow` tells it.
fn slow(admin: &str) -> Vec<Value> {
    let answer = get(admin, "/slow");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a reply");
    let document: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
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
    let metrics = get(&admin, "/metrics");
    assert!(metrics.contains("memstore_slow_requests_total{pool=\"pool\"} 1"), "{metrics}");
    assert_eq!(one.tell("SLOWLOG RESET"), "+OK\r\n");
    assert!(slow(&admin).is_empty());
    assert_eq!(
        one.tell("CONFIG GET slowlog-log-slower-than"),
        "*2\r\n$23\r\nslowlog-log-slower-than\r\n$5\r\n10000\r\n"
    );
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
    let metrics = get(&admin, "/metrics");
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
            assert!(!get(&admin, "/slow").contains("secret"));
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
    let entries = slow(&admin);
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
    let told = || -> Vec<String> {
        let lines = proxy.printed();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .filter(|line| line["target"] == "access")
            .map(|line| format!("{}: {}", line["command"], line["error"]))
            .collect()
    };
    let begin = Instant::now();
    while told().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", proxy.printed());
    }
    let error = "CLIENT_ERROR cannot increment or decrement non-numeric value";
    assert_eq!(told(), [format!("\"incr k 1\": \"{error}\"")]);
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
    let told = |error: bool| -> Vec<Value> {
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
    while told(false).len() < 10 || told(true).len() < 4 {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", proxy.printed());
    }
    let (sampled, errors) = (told(false), told(true));
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
    for told in
        [proxy.printed(), get(&admin, "/slow"), client.tell("SLOWLOG GET -1"), get(&admin, "/metrics")]
    {
        assert!(!told.contains(SECRET) && !told.contains("swordfisch"), "{told}");
    }
}

/// A collector: its address, and the spans that it is sent. It refuses the first request where that is wanted.
fn collector(refuses: bool) -> (String, mpsc::Receiver<Span>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (sender, spans) = mpsc::channel();
    std::thread::spawn(move || {
        let mut refuses = refuses;
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let (mut line, mut length) = (String::new(), 0);
            let mut first = None;
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
                first.get_or_insert(line.clone());
                line.clear();
            }
            assert_eq!(first.as_deref(), Some("POST /v1/traces HTTP/1.1\r\n"));
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("its body");
            let status = if std::mem::take(&mut refuses) { "400 Bad Request" } else { "200 OK" };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
            );
            reader.get_mut().write_all(answer.as_bytes()).expect("it reads");
            if status.starts_with("200") {
                let request = ExportTraceServiceRequest::decode(&body[..]).expect("spans");
                let all = request
                    .resource_spans
                    .into_iter()
                    .flat_map(|spans| spans.scope_spans)
                    .flat_map(|spans| spans.spans);
                all.for_each(|span| drop(sender.send(span)));
            }
        }
    });
    (address, spans)
}

fn attribute(span: &Span, name: &str) -> String {
    let value = span.attributes.iter().find(|one| one.key == name).and_then(|one| one.value.clone()?.value);
    match value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("{name}: {other:?} in {span:?}"),
    }
}

#[test]
fn spans_of_requests_are_sent_to_a_collector() {
    let shards = [Server::redis(&[])];
    let (address, spans) = collector(false);
    let settings = ["trace_sample: 1", "slowlog_log_slower_than: -1"];
    let (proxy, admin) = traced_proxy(&address, &shards, &settings);
    let mut client = proxy.connect();
    client.tell("SET secret-key secret-value");
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    client.tell(&format!("CLIENT SETINFO TRACEPARENT 00-{TRACE}-b7ad6b7169203331-01"));
    client.tell("INCR secret-key");
    let next = || spans.recv_timeout(Duration::from_secs(30)).expect("a span");
    let [set, queue, asked] = [next(), next(), next()];
    assert_eq!((&*set.name, &*queue.name, &*asked.name), ("SET", "queue", "SET"));
    assert!(
        set.parent_span_id.is_empty()
            && set.trace_id == asked.trace_id
            && set.trace_id.iter().any(|&byte| byte > 0)
    );
    assert_eq!([&queue.parent_span_id, &asked.parent_span_id], [&set.span_id, &set.span_id]);
    assert!(
        set.start_time_unix_nano <= asked.start_time_unix_nano
            && asked.end_time_unix_nano <= set.end_time_unix_nano
    );
    assert_eq!(attribute(&set, "db.system.name"), "redis");
    assert_eq!(attribute(&set, "db.operation.name"), "SET");
    assert_eq!(attribute(&asked, "server.port"), shards[0].port.to_string());
    assert_eq!(attribute(&set, "client.address"), client.local().to_string());
    let [incr, _, asked] = [next(), next(), next()];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!((&*hex(&incr.trace_id), &*hex(&incr.parent_span_id)), (TRACE, "b7ad6b7169203331"));
    assert_eq!(attribute(&asked, "error.type"), "ERR");
    assert!(!format!("{set:?}{incr:?}").contains("secret"), "{set:?}");
    let metrics = get(&admin, "/metrics");
    assert!(metrics.contains("memstore_trace_requests_dropped_total{pool=\"pool\"} 0"), "{metrics}");
}

#[test]
fn a_collector_that_refuses_or_is_away_costs_spans_only() {
    let shards = [Server::redis(&[])];
    let (address, spans) = collector(true);
    let (proxy, _) = traced_proxy(&address, &shards, &["trace_sample: 1"]);
    let mut client = proxy.connect();
    assert_eq!(client.tell("SET k v"), "+OK\r\n");
    let begin = Instant::now();
    while spans.recv_timeout(Duration::from_millis(100)).is_err() {
        assert_eq!(client.tell("SET k v"), "+OK\r\n");
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
    assert!(proxy.printed().contains("traces not sent"), "{}", proxy.printed());
    let (away, admin) = traced_proxy("127.0.0.1:1", &shards, &["trace_sample: 1"]);
    let mut client = away.connect();
    for _ in 0..200 {
        client.send(&request(&["GET", "k"]).repeat(100));
        assert_eq!(client.bytes(7 * 100), b"$1\r\nv\r\n".repeat(100));
    }
    let begin = Instant::now();
    while !get(&admin, "/metrics").lines().any(|line| {
        line.strip_prefix("memstore_trace_spans_total{result=\"failed\"} ").is_some_and(|count| count != "0")
    }) {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", away.printed());
    }
}

/// A proxy that sends traces to this collector, and its admin address.
fn traced_proxy(collector: &str, shards: &[Server], settings: &[&str]) -> (Server, String) {
    let flags = ["--otlp-endpoint", &format!("http://{collector}")];
    Server::memstore_with_admin(settings, &lines(shards), &flags)
}
