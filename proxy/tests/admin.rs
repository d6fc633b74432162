//! The admin address: probes, metrics, the topology, and what changes the process.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use servers::{Server, eventually};
use shard_discovery::document::Document;

mod servers;

/// One request with these header lines; status, headers in small letters, and body.
fn ask(admin: &str, line: &str, headers: &str, body: &str) -> (u16, String, String) {
    let (status, head, body) = servers::ask(admin, line, headers, body);
    (status, head.to_ascii_lowercase(), body)
}

fn get(admin: &str, path: &str) -> (u16, String) {
    let (status, _, body) = ask(admin, &format!("GET {path}"), "", "");
    (status, body)
}

/// The value of a sample, by its name and labels as they are written.
fn sample(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{page}"));
    line.parse().unwrap_or_else(|_| panic!("{name} {line}"))
}

fn lines(shards: &[Server]) -> Vec<String> {
    shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect()
}

#[test]
fn every_client_that_goes_is_counted_under_one_reason() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    // How many for this reason, and whether all that went have one.
    let count = |reason: &str| {
        let (_, page) = get(&admin, "/metrics");
        let of = |reason: &str| {
            sample(&page, &format!("memstore_client_disconnects_total{{pool=\"pool\",reason=\"{reason}\"}}"))
        };
        let all = ["closed", "broken", "malformed", "quit", "killed", "drained", "timed_out", "aged"];
        let opened = sample(&page, "memstore_client_connections_opened_total{pool=\"pool\"}");
        let gone = opened - sample(&page, "memstore_client_connections{pool=\"pool\"}");
        format!("{} {}", of(reason), all.map(of).iter().sum::<f64>() == gone)
    };
    proxy.connect().tell("QUIT");
    eventually(|| count("quit"), "1 true");
    let mut client = proxy.connect();
    client.send(b"*x\r\n");
    client.until_closed();
    eventually(|| count("malformed"), "1 true");
    let mut victim = proxy.connect();
    let id = victim.tell("CLIENT ID");
    let mut killer = proxy.connect();
    killer.tell(&format!("CLIENT KILL ID {}", id.trim_start_matches(':').trim_end()));
    assert_eq!(victim.until_closed(), b"");
    eventually(|| count("killed"), "1 true");
    killer.tell("QUIT");
    eventually(|| count("quit"), "2 true");
}

#[test]
fn probes_say_whether_clients_can_be_served() {
    let mut shards = vec![Server::redis(&[]), Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    assert_eq!(get(&admin, "/ready"), (200, "ready\n".into()));
    assert_eq!(get(&admin, "/alive"), (200, "alive\n".into()));
    let (status, body) = get(&admin, "/nothing");
    assert!(status == 404 && body.contains("/metrics"), "{body}");
    let (status, head, _) = ask(&admin, "GET /drain", "", "");
    assert!(status == 405 && head.contains("allow: post"), "{head}");
    // A shard that is away makes the proxy neither dead nor, unless that is wished, unready.
    drop(shards.remove(0));
    let mut client = proxy.connect();
    for key in 0..20 {
        client.tell(&format!("GET k{key}"));
    }
    assert_eq!(get(&admin, "/ready").0, 200);
    assert_eq!(get(&admin, "/alive").0, 200);
}

#[test]
fn readiness_can_ask_for_a_share_of_healthy_shards() {
    let mut shards = vec![Server::redis(&[]), Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let mut client = proxy.connect();
    drop(shards.remove(0));
    for key in 0..20 {
        client.tell(&format!("GET k{key}"));
    }
    let page = get(&admin, "/metrics").1;
    assert_eq!(sample(&page, "memstore_shard_healthy{pool=\"pool\",shard=\"shard-0\"}"), 0.0);
    assert_eq!(sample(&page, "memstore_shard_healthy{pool=\"pool\",shard=\"shard-1\"}"), 1.0);
    assert_eq!(sample(&page, "memstore_safe_to_scale"), 0.0);
    let refused = "memstore_shard_failures_total{pool=\"pool\",shard=\"shard-0\",reason=\"connect_refused\"}";
    assert!(sample(&page, refused) > 0.0);
}

#[test]
fn metrics_count_what_happens() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let mut client = proxy.connect();
    for key in 0..100 {
        client.tell(&format!("SET k{key} value"));
    }
    client.tell("HSET h f v");
    client.tell("NONSENSE");
    client.tell("MGET k0 k1 k2 k3");
    let page = get(&admin, "/metrics").1;
    let of_pool = |name: &str| sample(&page, &format!("{name}{{pool=\"pool\"}}"));
    assert_eq!(of_pool("memstore_client_connections"), 1.0);
    assert_eq!(of_pool("memstore_requests_total"), 103.0);
    assert_eq!(of_pool("memstore_requests_refused_total"), 1.0);
    let family =
        |name: &str| sample(&page, &format!("memstore_commands_total{{pool=\"pool\",family=\"{name}\"}}"));
    assert_eq!((family("string"), family("hash"), family("other")), (101.0, 1.0, 1.0));
    let of_shards = |name: &str| -> f64 {
        (0..2).map(|shard| sample(&page, &format!("{name}{{pool=\"pool\",shard=\"shard-{shard}\"}}"))).sum()
    };
    assert!(of_shards("memstore_shard_responses_total") >= 102.0);
    let measured = of_shards("memstore_shard_response_duration_seconds_count");
    assert_eq!(measured, of_shards("memstore_shard_responses_total"));
    let mean = of_shards("memstore_shard_response_duration_seconds_sum") / measured;
    assert!(mean > 0.0 && mean < 1.0, "{mean} s");
    assert_eq!(sample(&page, "memstore_config_generation"), 1.0);
    assert_eq!(sample(&page, "memstore_safe_to_scale"), 1.0);
    assert!(sample(&page, "process_resident_memory_bytes") > 1e6);
}

#[test]
fn prometheus_accepts_the_metrics_in_both_formats() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    proxy.connect().tell("SET a 1");
    let (_, head, page) = ask(&admin, "GET /metrics", "", "");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; apt-get install prometheus"));
    promtool.stdin.take().expect("piped").write_all(page.as_bytes()).expect("it reads");
    let judged = promtool.wait_with_output().expect("it ends");
    let words =
        String::from_utf8_lossy(&judged.stderr).into_owned() + &String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success() && words.trim().is_empty(), "{words}");

    let (_, head, page) =
        ask(&admin, "GET /metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n", "");
    assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
    assert!(page.ends_with("\n# EOF\n"));
    assert!(
        page.contains("# TYPE memstore_requests counter\nmemstore_requests_total{pool=\"pool\"} 1\n"),
        "{page}"
    );
}

#[test]
fn the_topology_is_the_document_that_applications_read() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let settings = ["hash: murmur", "hash_tag: \"{}\""];
    let (_proxy, admin) = Server::memstore_with_admin(&settings, &lines(&shards), &[]);
    let (status, body) = get(&admin, "/topology");
    assert_eq!(status, 200);
    let document = Document::parse(&body).expect("a document");
    let topology = document.topology("pool").expect("a topology");
    assert_eq!(topology.key_hash().name(), "murmur");
    assert_eq!(topology.shards().len(), 2);
    for beside in ["\"generation\": 1", "\"healthy\": true", "\"points\": 160", "\"listening\": true"] {
        assert!(body.contains(beside), "{beside} is not in\n{body}");
    }
    let (_, stats) = get(&admin, "/stats");
    assert!(stats.starts_with("{\"service\":\"memstore\""), "{stats}");
}

#[test]
fn a_drain_over_http_ends_like_one_by_signal() {
    let shards = [Server::redis(&[])];
    const GRACE: Duration = Duration::from_secs(4);
    let grace = format!("{}ms", GRACE.as_millis());
    let (mut proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &["--drain-grace", &grace]);
    let mut client = proxy.connect();
    assert_eq!(client.tell("SET a 1"), "+OK\r\n");
    let begin = Instant::now();
    for _ in 0..2 {
        assert_eq!(ask(&admin, "POST /drain", "", "").0, 202);
    }

    assert!(get(&admin, "/ready").1.starts_with("draining\n"));
    // New clients are still served for the grace, so that nobody meets a closed door meanwhile.
    assert_eq!(proxy.connect().tell("GET a"), "$1\r\n1\r\n");
    // The signal that follows goes on with the drain.
    proxy.signal("TERM");
    assert_eq!(client.tell("GET a"), "$1\r\n1\r\n");
    assert_eq!(client.until_closed(), b"");
    // Nobody is let go in the first half of the grace.
    assert!(begin.elapsed() >= GRACE / 2, "{:?}", begin.elapsed());
    drop(client);
    assert_eq!(proxy.ended(), Some(0));
}

#[test]
fn changes_need_the_token_or_this_machine() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    assert_eq!(ask(&admin, "POST /reload", "", "").0, 200);
    assert_eq!(ask(&admin, "POST /reload", "Origin: http://evil\r\n", "").0, 403);
    assert!(sample(&get(&admin, "/metrics").1, "memstore_config_reload_failed") < 1.0);
    proxy.overwrite("broken");
    let (status, _, body) = ask(&admin, "POST /reload", "", "");
    assert!(status == 409 && body.contains("mapping"), "{body}");
    assert!(get(&admin, "/topology").1.contains("mapping of pools"));
    let page = get(&admin, "/metrics").1;
    assert!(sample(&page, "memstore_config_reload_failures_total") >= 1.0);
    assert!(sample(&page, "memstore_config_reload_failed") >= 1.0);

    let config = format!(
        "admin_token_file: {}.token\npools:\n  p:\n    listen: {}:{}\n    redis: true\n    servers:\n     - {}\n",
        servers::unused_port(),
        servers::address(),
        servers::unused_port(),
        shards[0].line(0)
    );
    let name = config.split([' ', '\n']).nth(1).expect("a file").to_owned();
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(folder.join(&name), "s3cret\n").expect("a file");
    let file = folder.join(format!("{name}.yml"));
    std::fs::write(&file, config).expect("a file");
    let admin = format!("{}:{}", servers::address(), servers::unused_port());
    let (host, port) = admin.split_once(':').expect("two parts");
    let mut guarded = Command::new(env!("CARGO_BIN_EXE_memstore"))
        .args(["serve", "-s", "0", "--admin-address", host, "--admin-port", port, "-c"])
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    eventually(|| TcpStream::connect(&admin).is_ok().to_string(), "true");
    for (headers, status) in
        [("", 403), ("Authorization: Bearer wrong\r\n", 403), ("Authorization: Bearer s3cret\r\n", 200)]
    {
        assert_eq!(ask(&admin, "POST /reload", headers, "").0, status, "{headers}");
    }
    let said = Command::new(env!("CARGO_BIN_EXE_memstore")).args(["reload", "--admin", &admin]).output();
    assert!(!said.expect("it runs").status.success());
    let said = Command::new(env!("CARGO_BIN_EXE_memstore"))
        .args(["reload", "--admin", &admin, "--token-file"])
        .arg(folder.join(&name))
        .output();
    assert!(said.expect("it runs").status.success());
    // What comes from this machine may come from a sidecar's other side.
    let said = Command::new(env!("CARGO_BIN_EXE_memstore")).args(["drain", "--admin", &admin]).output();
    assert!(!said.expect("it runs").status.success());
    let said = Command::new(env!("CARGO_BIN_EXE_memstore"))
        .args(["drain", "--admin", &admin, "--token-file"])
        .arg(folder.join(&name))
        .output();
    assert!(said.expect("it runs").status.success());
    assert!(guarded.wait().expect("it ends").success());
    for name in [folder.join(&name), file] {
        let _ = std::fs::remove_file(name);
    }
}

#[test]
fn the_log_level_can_be_changed() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    assert_eq!(ask(&admin, "PUT /log-level", "", "loud").0, 400);
    assert_eq!(ask(&admin, "PUT /log-level", "", "debug").0, 200);
    eventually(|| proxy.printed().contains("log level changed").to_string(), "true");
    assert_eq!(ask(&admin, "PUT /log-level", "", "error").0, 200);
    ask(&admin, "POST /reload", "", "");
    assert!(!proxy.printed().contains("configuration unchanged"), "{}", proxy.printed());
}

#[test]
fn a_worker_that_hangs_is_not_alive_and_what_hangs_is_not_the_admin() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let mut client = proxy.connect();
    // Half a request, and requests that wait for a shard, are no reason to be restarted.
    client.send(b"*2\r\n$3\r\nGET\r\n");
    shards[0].signal("STOP");
    let mut waiting = proxy.connect();
    waiting.send(b"GET a\r\n");
    assert_eq!(get(&admin, "/alive").0, 200);
    shards[0].signal("CONT");
}

#[test]
fn a_drain_waits_for_no_reload_and_lets_none_begin() {
    let shards = [Server::redis(&[])];
    let flags = ["--drain-grace", "300ms", "--drain-limit", "60s"];
    let (mut proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &flags);
    // It waits for this one, so that it is there to be asked.
    let mut stays = proxy.connect();
    assert_eq!(stays.tell("PING"), "+PONG\r\n");
    // A shard that is new and does not answer.
    let silent = servers::Fake::answering(b"", false);
    proxy.rewrite(&["adopt_wait: 60s"], &[shards[0].line(0), silent.line.replace("shard-0", "shard-1")]);
    let waiting = std::thread::spawn({
        let admin = admin.clone();
        move || ask(&admin, "POST /reload", "", "")
    });
    eventually(|| silent.connections.load(std::sync::atomic::Ordering::Relaxed).min(1).to_string(), "1");
    assert_eq!(ask(&admin, "POST /drain", "", "").0, 202);
    let (status, _, body) = ask(&admin, "POST /reload", "", "");
    assert!(status == 409 && body.contains("draining"), "{status} {body}");
    drop(stays);
    assert_eq!(proxy.ended(), Some(0));
    let (status, _, body) = waiting.join().expect("it is answered");
    assert!(status == 409 && body.contains("draining"), "{status} {body}");
}

#[test]
fn a_reload_that_waits_is_not_cut_off_by_who_comes_later() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let silent = servers::Fake::answering(b"", false);
    proxy.rewrite(&["adopt_wait: 60s"], &[shards[0].line(0), silent.line.replace("shard-0", "shard-1")]);
    let waiting = std::thread::spawn({
        let admin = admin.clone();
        move || ask(&admin, "POST /reload", "", "")
    });
    eventually(|| silent.connections.load(std::sync::atomic::Ordering::Relaxed).min(1).to_string(), "1");
    let pipeline = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let _flood: Vec<TcpStream> = (0..300)
        .map(|number| {
            let mut stream = TcpStream::connect(&admin).expect("the admin server listens");
            if number % 3 == 0 {
                stream.write_all(pipeline.as_bytes()).expect("there is room for it");
            }
            stream
        })
        .collect();
    assert_eq!(get(&admin, "/alive").0, 200);
    assert_eq!(ask(&admin, "POST /drain", "", "").0, 202);
    let (status, _, body) = waiting.join().expect("it is answered");
    assert!(status == 409 && body.contains("draining"), "{status} {body}");
}

#[test]
fn probes_get_in_whoever_else_holds_connections() {
    let shards = [Server::redis(&[])];
    let (_proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let _idle: Vec<TcpStream> =
        (0..150).map(|_| TcpStream::connect(&admin).expect("the admin server listens")).collect();
    let begin = Instant::now();
    assert_eq!(get(&admin, "/alive").0, 200);
    // Those that say nothing are closed after ten seconds.
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[test]
fn a_shard_that_nobody_has_asked_for_anything_is_missed() {
    let shards = [Server::redis(&[])];
    let nobody = format!("{}:{}:1 shard-1", servers::address(), servers::unused_port());
    let (_proxy, admin) = Server::memstore_with_admin(&[], &[shards[0].line(0), nobody], &[]);
    eventually(|| sample(&get(&admin, "/metrics").1, "memstore_safe_to_scale").to_string(), "0");
    let page = get(&admin, "/metrics").1;
    let healthy =
        |shard: &str| sample(&page, &format!("memstore_shard_healthy{{pool=\"pool\",shard=\"{shard}\"}}"));
    assert_eq!((healthy("shard-0"), healthy("shard-1")), (1.0, 0.0));
}

#[test]
fn a_failure_is_past_when_a_probe_is_answered() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&["timeout: 100"], &lines(&shards), &[]);
    let mut client = proxy.connect();
    client.tell("GET a");
    let healthy = || {
        sample(&get(&admin, "/metrics").1, "memstore_shard_healthy{pool=\"pool\",shard=\"shard-0\"}")
            .to_string()
    };
    shards[0].signal("STOP");
    assert!(client.tell("GET a").starts_with("-ERR"));
    eventually(healthy, "0");
    shards[0].signal("CONT");
    // No request comes any more.
    eventually(healthy, "1");
}

/// One request with this Host; the status.
fn ask_as(admin: &str, line: &str, host: &str) -> u16 {
    let mut stream = TcpStream::connect(admin).expect("the admin server listens");
    let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

#[test]
fn a_name_that_leads_here_from_elsewhere_changes_nothing() {
    let shards = [Server::redis(&[])];
    let (_proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    for host in ["evil.example", "evil.example:9121", "127.0.0.1.evil.example", ""] {
        assert_eq!(ask_as(&admin, "POST /reload", host), 403, "{host}");
        // What changes nothing may be asked by any name: that of a Service, for example.
        assert_eq!(ask_as(&admin, "GET /ready", host), 200, "{host}");
    }
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1:9121", "[::1]:9121", "[::1]"] {
        assert_eq!(ask_as(&admin, "POST /reload", host), 200, "{host}");
    }
}

#[test]
fn a_unix_socket_needs_no_token() {
    let shards = [Server::redis(&[])];
    let path = std::env::temp_dir().join(format!("memstore-admin-{}", std::process::id()));
    let socket = path.to_str().expect("a path in UTF-8").to_owned();
    let token = path.with_extension("token");
    std::fs::write(&token, "s3cret").expect("a file");
    let mut proxy = Server::memstore_with_flags(
        &lines(&shards),
        &[
            "-s",
            "0",
            "--admin-address",
            &socket,
            "--admin-token-file",
            token.to_str().expect("a path in UTF-8"),
        ],
    );
    let say = |verb: &str| {
        let said = Command::new(env!("CARGO_BIN_EXE_memstore")).args([verb, "--admin", &socket]).output();
        said.expect("it runs").status.success()
    };
    eventually(|| say("ready").to_string(), "true");
    assert!(say("reload"));
    let mode =
        std::fs::metadata(&path).map(|found| std::os::unix::fs::PermissionsExt::mode(&found.permissions()));
    assert_eq!(mode.expect("the socket") & 0o777, 0o600);
    assert!(say("drain"));
    assert_eq!(proxy.ended(), Some(0));
    assert!(!path.exists());
    let _ = std::fs::remove_file(token);
}

#[test]
fn statistics_are_for_everybody_whoever_holds_connections_or_reads_in_a_loop() {
    let shards = [Server::redis(&[])];
    let address = servers::address().to_string();
    let (port, admin_port) = (servers::unused_port().to_string(), servers::unused_port().to_string());
    let proxy = Server::memstore_with_flags(
        &lines(&shards),
        &["--stats-address", &address, "-s", &port, "--admin-address", &address, "--admin-port", &admin_port],
    );
    let (stats, admin) = (format!("{address}:{port}"), format!("{address}:{admin_port}"));
    let read = |address: &str| {
        let mut text = String::new();
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.read_to_string(&mut text).map(|_| text)
    };
    // The pool listens before the statistics do.
    eventually(|| TcpStream::connect(&stats).is_ok().to_string(), "true");
    let held: Vec<TcpStream> = (0..150).map(|_| TcpStream::connect(&stats).expect("it listens")).collect();
    let begin = Instant::now();
    assert!(read(&stats).expect("it answers").contains("\"service\":\"memstore\""));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    drop(held);
    // Whoever reads in a loop is slowed down, others are not.
    let begin = Instant::now();
    for _ in 0..140 {
        let _ = read(&stats);
    }
    assert!(begin.elapsed() >= Duration::from_millis(400), "{:?}", begin.elapsed());
    assert_eq!(get(&admin, "/alive").0, 200);
    assert_eq!(proxy.connect().say("PING"), "+PONG\\r\\n");
}

/// Lines of the log with these words.
fn told(proxy: &Server, words: &str) -> usize {
    proxy.printed().lines().filter(|line| line.contains(words)).count()
}

#[test]
fn who_is_refused_again_and_again_does_not_fill_the_log() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&["redis_auth: secret"], &lines(&shards), &[]);
    let (refused, wrong) = ("admin request refused", "client sent a wrong password");
    let begin = Instant::now();
    for _ in 0..6 {
        let mut client = proxy.connect();
        for _ in 0..10 {
            assert!(ask(&admin, "POST /reload", "Origin: http://evil\r\n", "").0 == 403);
            assert!(client.tell("AUTH guess").starts_with("-WRONGPASS"));
        }
    }
    // Five in each second, and those of a worker are its own.
    let most = 5 * (begin.elapsed().as_secs() as usize + 2);
    proxy.says(refused);
    proxy.says(wrong);
    ask(&admin, "PUT /log-level", "", "debug");
    proxy.says("log level changed");
    assert!(told(&proxy, refused) <= most, "{} lines", told(&proxy, refused));
    assert!(told(&proxy, wrong) <= most, "{} lines", told(&proxy, wrong));
}

/// Asks so often over one connection that stays open; the statuses.
fn ask_on(admin: &str, path: &str, count: usize) -> Vec<u16> {
    let mut stream = std::io::BufReader::new(TcpStream::connect(admin).expect("the admin server listens"));
    stream.get_ref().set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = |_| {
        stream.get_mut().write_all(request.as_bytes()).expect("it reads");
        let (mut head, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            assert!(stream.read_line(&mut line).expect("a line") > 0, "it closes");
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(bytes) = line.strip_prefix("content-length: ") {
                length = bytes.parse().expect("a number");
            }
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        stream.read_exact(&mut vec![0; length]).expect("a body");
        head[0].split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    };
    (0..count).map(answer).collect()
}

#[test]
fn who_asks_in_a_loop_is_slowed_down() {
    let shards = [Server::redis(&[])];
    let (_proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let begin = Instant::now();
    assert_eq!(ask_on(&admin, "/ready", 32), [200; 32]);
    // Twenty at once, and then one every 50 ms.
    assert!(begin.elapsed() >= Duration::from_millis(500), "{:?}", begin.elapsed());
    assert_eq!(get(&admin, "/alive").0, 200, "others are not");
}
