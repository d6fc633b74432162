//! TLS towards clients and shards, with real servers and clients.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authority::{Authority, Pair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use servers::{Server, address};

#[path = "tls/authority.rs"]
mod authority;
mod servers;

const PATIENCE: Duration = Duration::from_secs(60);

/// A redis-server that speaks nothing but TLS.
fn shard(authority: &Authority, pair: &Pair, settings: &[&str]) -> Server {
    let shown = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let (certificate, key, ca) = (shown(&pair.certificate), shown(&pair.key), shown(&authority.file()));
    Server::start(&servers::redis_program(), "redis-server", |port| {
        let (address, port) = (address().to_string(), port.to_string());
        let mut all =
            vec!["--save", "", "--appendonly", "no", "--bind", &address, "--port", "0", "--tls-port", &port];
        all.extend(["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca]);
        all.extend(settings);
        all.into_iter().map(str::to_owned).collect()
    })
}

fn tls(pair: &Pair, more: &str) -> String {
    format!("tls: {{certificate: {}, key: {}{more}}}", pair.certificate.display(), pair.key.display())
}

fn servers_tls(authority: &Authority, more: &str) -> String {
    format!("servers_tls: {{ca: {}{more}}}", authority.file().display())
}

type Secured = StreamOwned<ClientConnection, TcpStream>;

fn connect(proxy: &Server, config: &Arc<ClientConfig>) -> io::Result<Secured> {
    let stream = TcpStream::connect((address(), proxy.port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(address().to_string()).expect("an address");
    let mut session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut below = stream.try_clone()?;
    while session.is_handshaking() {
        session.complete_io(&mut below)?;
    }
    Ok(StreamOwned::new(session, stream))
}

fn ask(client: &mut Secured, request: &str, answer: &str) -> io::Result<()> {
    client.write_all(request.as_bytes())?;
    let mut heard = vec![0; answer.len()];
    client.read_exact(&mut heard)?;
    assert_eq!(String::from_utf8_lossy(&heard), answer, "{request}");
    Ok(())
}

/// Why the proxy does not take this client.
fn refusal(proxy: &Server, config: &Arc<ClientConfig>) -> String {
    // With TLS 1.3 a client has shaken hands before its certificate is looked at.
    let asked = connect(proxy, config).and_then(|mut client| ask(&mut client, "PING\r\n", "+PONG\r\n"));
    asked.expect_err("it is refused").to_string()
}

#[test]
fn clients_and_shards_are_spoken_to_by_tls() {
    let authority = Authority::new("both");
    let name = address().to_string();
    let pair = authority.sign("server", &[&name]);
    let shards = [0; 2].map(|_| shard(&authority, &pair, &["--tls-auth-clients", "no"]));
    let proxy = Server::memstore(&[&tls(&pair, ""), &servers_tls(&authority, "")], &shards);
    let said = Command::new("redis-cli")
        .args(["-h", &name, "-p", &proxy.port.to_string(), "--tls", "--cacert"])
        .arg(authority.file())
        .args(["SET", "key", "value"])
        .output()
        .expect("redis-cli is not installed: apt-get install redis-tools");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "OK\n", "{}", String::from_utf8_lossy(&said.stderr));
    let config = authority.client(None);
    let mut client = connect(&proxy, &config).expect("it is let in");
    ask(&mut client, "GET key\r\n", "$5\r\nvalue\r\n").expect("it is served");
    // Records of all lengths, values of many records.
    for length in [0, 1, 100, 16_383, 16_384, 16_385, 70_000, 1_000_000] {
        let value: String = (0..length).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        ask(&mut client, &format!("*3\r\n$3\r\nSET\r\n$1\r\nv\r\n${length}\r\n{value}\r\n"), "+OK\r\n")
            .expect("served");
        ask(&mut client, "GET v\r\n", &format!("${length}\r\n{value}\r\n")).expect("served");
    }
    // A pipeline, of records of one byte each.
    let (request, answer) = ("SET a 1\r\nGET a\r\n".repeat(50), "+OK\r\n$1\r\n1\r\n".repeat(50));
    for byte in request.as_bytes() {
        client.write_all(&[*byte]).expect("it reads");
        client.flush().expect("it reads");
    }
    ask(&mut client, "", &answer).expect("served");
    // Its end is said in order.
    client.conn.send_close_notify();
    client.flush().expect("it reads");
    assert_eq!(client.read(&mut [0; 1]).expect("the end is said"), 0);
}

/// A request in the same packet as the end of the handshake: the kernel does not tell of it again.
#[test]
fn what_comes_with_the_end_of_the_handshake_is_answered() {
    let authority = Authority::new("early");
    let pair = authority.sign("server", &[&address().to_string()]);
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&[&tls(&pair, "")], &shards);
    let name = ServerName::try_from(address().to_string()).expect("an address");
    for _ in 0..50 {
        let mut stream = TcpStream::connect((address(), proxy.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut session = ClientConnection::new(authority.client(None), name.clone()).expect("a session");
        session.write_tls(&mut stream).expect("it reads");
        while session.is_handshaking() {
            session.read_tls(&mut stream).expect("it answers");
            session.process_new_packets().expect("it is who it says");
        }
        let mut last = Vec::new();
        session.writer().write_all(b"PING\r\n").expect("room");
        while session.wants_write() {
            session.write_tls(&mut last).expect("room");
        }
        stream.write_all(&last).expect("it reads");
        let mut client = StreamOwned::new(session, stream);
        ask(&mut client, "", "+PONG\r\n").expect("served");
    }
}

#[test]
fn clients_prove_who_they_are_where_that_is_required() {
    let (authority, stranger) = (Authority::new("mtls"), Authority::new("stranger"));
    let pair = authority.sign("server", &[&address().to_string()]);
    let shards = [Server::redis(&[])];
    let more = format!(", client_ca: {}", authority.file().display());
    let proxy = Server::memstore(&[&tls(&pair, &more)], &shards);
    let good = authority.client(Some(&authority.sign("good", &["client"])));
    let mut client = connect(&proxy, &good).expect("it is let in");
    ask(&mut client, "SET key value\r\n", "+OK\r\n").expect("it is served");
    refusal(&proxy, &authority.client(None));
    proxy.says("peer sent no certificates");
    refusal(&proxy, &authority.client(Some(&stranger.sign("other", &["client"]))));
    proxy.says("UnknownIssuer");
    refusal(&proxy, &authority.client(Some(&authority.sign_until("old", &["client"], 2020))));
    proxy.says("certificate expired");
    // Nobody is let in by a ticket, whatever has become of the certificate since.
    assert_eq!(client.conn.tls13_tickets_received(), 0);
    let optional = Server::memstore(&[&tls(&pair, &format!("{more}, client_auth: optional"))], &shards);
    let mut client = connect(&optional, &authority.client(None)).expect("it is let in");
    ask(&mut client, "GET key\r\n", "$5\r\nvalue\r\n").expect("it is served");
    refusal(&optional, &authority.client(Some(&stranger.sign("another", &["client"]))));
}

#[test]
fn a_new_certificate_disturbs_nobody_and_a_bad_one_is_not_taken() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let name = address().to_string();
    let pair = first.sign("server", &[&name]);
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&[&tls(&pair, "")], &shards);
    let mut client = connect(&proxy, &first.client(None)).expect("it is let in");
    ask(&mut client, "PING\r\n", "+PONG\r\n").expect("served");
    let other = second.sign("server", &[&name]);
    // The key of another certificate.
    std::fs::copy(&other.key, &pair.key).expect("a file");
    proxy.signal("HUP");
    proxy.says("it is not the key of this certificate");
    connect(&proxy, &first.client(None)).expect("the old one is active");
    std::fs::copy(&other.certificate, &pair.certificate).expect("a file");
    let begin = Instant::now();
    // The files are watched.
    while connect(&proxy, &second.client(None)).is_err() {
        assert!(begin.elapsed() < PATIENCE, "it does not take the new one: {}", proxy.printed());
    }
    ask(&mut client, "PING\r\n", "+PONG\r\n").expect("who is there stays");
}

#[test]
fn a_shard_that_cannot_prove_who_it_is_is_not_spoken_to() {
    let (authority, stranger) = (Authority::new("shards"), Authority::new("nobody"));
    let name = address().to_string();
    let open = ["--tls-auth-clients", "no"];
    let wrong_name = shard(&authority, &authority.sign("named", &["elsewhere"]), &open);
    let unknown = shard(&stranger, &stranger.sign("server", &[&name]), &open);
    let plain = Server::redis(&[]);
    let asked = |shard: &Server, setting: &str| {
        let proxy = Server::memstore_over(&[setting], &[shard.line(0)]);
        let mut client = proxy.connect();
        client.say("SET key value")
    };
    for (shard, words) in [
        (&wrong_name, "certificate not valid for name"),
        (&unknown, "UnknownIssuer"),
        (&plain, "the handshake timed out"),
    ] {
        let reply = asked(shard, &servers_tls(&authority, ""));
        assert!(reply.starts_with("-ERR shard shard-0: TLS failed: ") && reply.contains(words), "{reply}");
    }
    assert_eq!(asked(&wrong_name, &servers_tls(&authority, ", verify: ca")), "+OK\\r\\n");
    assert_eq!(asked(&wrong_name, &servers_tls(&authority, ", server_name: elsewhere")), "+OK\\r\\n");
    assert_eq!(asked(&unknown, "servers_tls: {verify: none}"), "+OK\\r\\n");
    assert!(asked(&unknown, &servers_tls(&authority, ", verify: ca")).contains("UnknownIssuer"));
    // One that wants to know who we are.
    let strict = shard(&authority, &authority.sign("strict", &[&name]), &["--tls-auth-clients", "yes"]);
    let own = authority.sign("proxy", &["proxy"]);
    let more = format!(", certificate: {}, key: {}", own.certificate.display(), own.key.display());
    assert_eq!(asked(&strict, &servers_tls(&authority, &more)), "+OK\\r\\n");
    let reply = asked(&strict, &servers_tls(&authority, ""));
    // With TLS 1.3 it says so once we have shaken hands, and closes the connection.
    assert!(reply.starts_with("-ERR shard shard-0: TLS failed: "), "{reply}");
    assert!(reply.contains("CertificateRequired"), "{reply}");
}

/// Handshakes that are begun and not ended, and what is no handshake.
#[test]
fn who_does_not_shake_hands_holds_up_nobody() {
    let authority = Authority::new("crowd");
    let pair = authority.sign("server", &[&address().to_string()]);
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&[&tls(&pair, ", handshake_timeout: 500ms")], &shards);
    let config = authority.client(None);
    let mut client = connect(&proxy, &config).expect("it is let in");
    let mut plain = proxy.connect();
    plain.send(b"PING\r\n");
    plain.rest();
    proxy.says("the peer does not speak TLS");
    let mut silent: Vec<_> = (0..1_500)
        .map(|number| {
            let mut stream = TcpStream::connect((address(), proxy.port)).expect("it listens");
            // A record that says it is longer than what comes of it.
            let begin: &[u8] = if number % 2 == 0 { b"" } else { b"\x16\x03\x01\x3f\xff\x01" };
            stream.write_all(begin).expect("room");
            stream
        })
        .collect();
    ask(&mut client, "PING\r\n", "+PONG\r\n").expect("served");
    let mut other = connect(&proxy, &config).expect("there is a place for who means it");
    ask(&mut other, "PING\r\n", "+PONG\r\n").expect("served");
    // All of them are closed.
    for stream in &mut silent {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }
    proxy.says("the handshake timed out");
    ask(&mut client, "PING\r\n", "+PONG\r\n").expect("served");
}

/// Questions beside the data path pass TLS too.
#[test]
fn shards_are_probed_by_tls() {
    let authority = Authority::new("probed");
    let pair = authority.sign("server", &[&address().to_string()]);
    let open = ["--tls-auth-clients", "no"];
    let shard = shard(&authority, &pair, &open);
    let proxy = Server::memstore(&[&servers_tls(&authority, "")], std::slice::from_ref(&shard));
    // Whether shards speak RESP3, and how many databases they have, is asked so.
    let mut client = proxy.connect();
    assert!(client.say("HELLO 3").starts_with("%7"), "it is known");
    assert_eq!(client.say("SET key value"), "+OK\\r\\n");
    assert!(!proxy.printed().contains("unhealthy"), "{}", proxy.printed());
}

/// The kernel tells once of the two.
#[test]
fn a_part_of_a_record_and_the_end_end_the_client() {
    let authority = Authority::new("ends");
    let pair = authority.sign("server", &[&address().to_string()]);
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&[&tls(&pair, "")], &shards);
    let config = authority.client(None);
    for rest in [&b"\x17\x03\x03\x00\x40abc"[..], b"\x17\x03"] {
        let mut client = connect(&proxy, &config).expect("it is let in");
        ask(&mut client, "PING\r\n", "+PONG\r\n").expect("served");
        let mut below = client.sock.try_clone().expect("a descriptor");
        below.write_all(rest).expect("it reads");
        below.shutdown(std::net::Shutdown::Write).expect("a socket");
        let mut end = Vec::new();
        below.read_to_end(&mut end).expect("it closes");
    }
}

/// One that may hold so much, with this certificate.
fn memstore_with(memory_max: &str, pair: &Pair, shard: &Server) -> Server {
    Server::start(env!("CARGO_BIN_EXE_memstore"), "", |port| {
        let path = pair.certificate.with_extension(format!("{port}.yml"));
        let (address, line, tls) = (address(), shard.line(0), tls(pair, ""));
        let pool = format!(
            "  p:\n    listen: {address}:{port}\n    redis: true\n    {tls}\n    servers:\n     - {line}\n"
        );
        std::fs::write(&path, format!("memory_max: {memory_max}\npools:\n{pool}")).expect("a file");
        let path = path.to_str().expect("UTF-8");
        let all = ["serve", "-c", path, "-s", "0", "--admin-port", "0", "--workers", "2"];
        all.map(str::to_owned).to_vec()
    })
}

/// Bytes that a client has said part of a record in are its own.
#[test]
fn who_has_said_parts_of_records_goes_before_others() {
    let authority = Authority::new("parts");
    let pair = authority.sign("server", &[&address().to_string()]);
    let shard = Server::redis(&[]);
    let proxy = memstore_with("8MiB", &pair, &shard);
    let config = authority.client(None);
    let client = || connect(&proxy, &config).expect("it is let in");
    let mut others: Vec<_> = (0..20).map(|_| client()).collect();
    let value = "v".repeat(5_000);
    for other in &mut others {
        other
            .write_all(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5001\r\n{value}").as_bytes())
            .expect("it reads");
        other.flush().expect("it reads");
    }
    let mut hoarders: Vec<_> = (0..400).map(|_| client()).collect();
    let part = [&b"\x17\x03\x03\x40\x00"[..], &[0; 16_000]].concat();
    for hoarder in &mut hoarders {
        // It may be gone by then.
        let _ = hoarder.sock.write_all(&part);
    }
    proxy.says("memory_max reached");
    for other in &mut others {
        ask(other, "v\r\n", "+OK\r\n").expect("it stays");
    }
    let told = hoarders.iter_mut().filter_map(|hoarder| {
        hoarder.sock.set_read_timeout(Some(Duration::from_millis(1))).expect("a socket");
        let mut heard = String::new();
        let _ = hoarder.read_to_string(&mut heard);
        (!heard.is_empty()).then_some(heard)
    });
    let told: Vec<String> = told.collect();
    assert!(!told.is_empty() && told.iter().all(|words| words.starts_with("-OOM ")), "{told:?}");
}

/// Sessions that do nothing leave half of the memory to those that do something; what else is held refuses nobody.
#[test]
fn newcomers_are_refused_where_sessions_hold_half_of_the_memory() {
    let authority = Authority::new("half");
    let pair = authority.sign("server", &[&address().to_string()]);
    let shard = Server::redis(&[]);
    let proxy = memstore_with("8MiB", &pair, &shard);
    let config = authority.client(None);
    let mut client = connect(&proxy, &config).expect("it is let in");
    // Three replies that nobody reads hold more than three quarters of it at times, and are bounded by themselves.
    let value = "v".repeat(3_000_000);
    ask(&mut client, &format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3000000\r\n{value}\r\n"), "+OK\r\n")
        .expect("served");
    let mut readers: Vec<_> = (0..4).map(|_| connect(&proxy, &config).expect("it is let in")).collect();
    for reader in &mut readers {
        reader.write_all(b"GET k\r\n").expect("it reads");
        reader.flush().expect("it reads");
        let mut other = connect(&proxy, &config).expect("nobody is refused for that");
        ask(&mut other, "PING\r\n", "+PONG\r\n").expect("served");
    }
    drop(readers);
    let mut crowd = Vec::new();
    let begin = Instant::now();
    while let Ok(session) = connect(&proxy, &config) {
        crowd.push(session);
        assert!(begin.elapsed() < PATIENCE && crowd.len() < 1_000, "all of {} were let in", crowd.len());
    }
    assert!(crowd.len() > 400, "{} were let in", crowd.len());
    proxy.says("TLS client refused: TLS sessions hold half of memory_max");
    ask(&mut client, "GET k\r\n", &format!("$3000000\r\n{value}\r\n")).expect("who is there is served");
    // As some go, others come.
    crowd.truncate(100);
    while connect(&proxy, &config).is_err() {
        assert!(begin.elapsed() < PATIENCE, "it lets nobody in");
    }
}

/// memcached takes no session that is resumed where it verifies clients.
#[test]
fn every_connection_to_memcached_that_verifies_clients_is_let_in() {
    let authority = Authority::new("memcached-verifies");
    let (pair, ours) =
        (authority.sign("server", &[&address().to_string()]), authority.sign("ours", &["proxy"]));
    let files = format!(
        "ssl_chain_cert={},ssl_key={},ssl_ca_cert={},ssl_verify_mode=2",
        pair.certificate.display(),
        pair.key.display(),
        authority.file().display()
    );
    let shard = Server::memcached(&["-Z", "-o", &files]);
    let presented = format!(", certificate: {}, key: {}", ours.certificate.display(), ours.key.display());
    let settings =
        ["redis: false", "timeout: 10000", "server_connections: 8", &servers_tls(&authority, &presented)];
    let proxy = Server::memstore_over(&settings, &[shard.line(0)]);
    for number in 0..32 {
        let answer = proxy.connect().text(format!("set key:{number} 0 0 1\r\nv\r\n").as_bytes());
        assert_eq!(answer, r"STORED\r\n", "client {number}");
    }
}

/// memcached reads values without what is behind them in the same record of TLS, and waits for more to come.
#[test]
fn memcached_is_not_left_waiting() {
    let authority = Authority::new("memcached");
    let pair = authority.sign("server", &[&address().to_string()]);
    let files = format!("ssl_chain_cert={},ssl_key={}", pair.certificate.display(), pair.key.display());
    let shard = Server::memcached(&["-Z", "-o", &files]);
    let settings = ["redis: false", "timeout: 10000", &servers_tls(&authority, "")];
    let proxy = Server::memstore_over(&settings, &[shard.line(0)]);
    let mut client = proxy.connect();
    for length in [10, 300, 1_000, 3_000, 8_000, 15_000, 17_000, 40_000, 400_000] {
        let request = format!("set key 0 0 {length}\r\n{}\r\nget none\r\n", "v".repeat(length));
        let count = (200_000 / length).clamp(3, 2_000);
        client.send(request.repeat(count).as_bytes());
        let expected = "STORED\r\nEND\r\n".repeat(count);
        assert_eq!(
            String::from_utf8_lossy(&client.bytes(expected.len())),
            expected,
            "values of {length} bytes"
        );
    }
}

#[test]
fn it_is_told_when_certificates_end() {
    let authority = Authority::new("expiry");
    let name = address().to_string();
    let (server, old) = (authority.sign("server", &[&name]), authority.sign_until("old", &["proxy"], 2020));
    let own = format!(", certificate: {}, key: {}", old.certificate.display(), old.key.display());
    let shard = shard(&authority, &server, &["--tls-auth-clients", "no"]);
    let settings = [&*tls(&server, ""), &servers_tls(&authority, &own)];
    let (proxy, admin) = Server::memstore_with_admin(&settings, &[shard.line(0)], &[]);
    proxy.says("the TLS certificate has ended; replace the file");
    assert!(!proxy.printed().contains("side=clients"), "{}", proxy.printed());
    let ends = || {
        let metrics = servers::metrics(&admin);
        let lines =
            metrics.lines().filter(|line| line.starts_with("memstore_tls_certificate_not_after_seconds{"));
        lines.map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    // The first days of 2100 and 2020.
    assert_eq!(ends(), ["4102444800", "1577836800"]);
    // A new one is in force, and told no more.
    let new = authority.sign_until("new", &["proxy"], 2090);
    std::fs::copy(&new.key, &old.key).expect("a file");
    std::fs::copy(&new.certificate, &old.certificate).expect("a file");
    servers::eventually(|| ends().join(" "), "4102444800 3786912000");
}

/// What the program says, and whether it succeeded.
fn said(words: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_memstore")).args(words).output().expect("it is built");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_store_is_tried_by_tls() {
    let (authority, stranger) = (Authority::new("tried"), Authority::new("unknown"));
    let pair = authority.sign("server", &[&address().to_string()]);
    let shard = shard(&authority, &pair, &["--tls-auth-clients", "yes"]);
    let own = authority.sign("proxy", &["proxy"]);
    let shown = |path: &std::path::Path| path.display().to_string();
    let (ca, other, certificate, key) =
        (shown(&authority.file()), shown(&stranger.file()), shown(&own.certificate), shown(&own.key));
    let more = format!(", certificate: {certificate}, key: {key}");
    let settings = [&*tls(&pair, ""), &servers_tls(&authority, &more)];
    let proxy = Server::memstore_over(&settings, &[shard.line(0)]);
    let [through, at] = [&proxy, &shard].map(|server| format!("{}:{}", address(), server.port));
    let known = ["--tls", "--tls-ca", &ca];
    let presented = ["--tls-certificate", &certificate, "--tls-key", &key];
    let (worked, text) = said(&[&["try", &through, &at][..], &known, &presented].concat());
    assert!(worked && text.matches("written and read").count() == 2, "{text}");
    let (worked, text) = said(&["try", &through, "--limit", "0", "--tls", "--tls-ca", &other]);
    assert!(!worked && text.contains("TLS failed: ") && text.contains("UnknownIssuer"), "{text}");
    let (worked, text) = said(&[&["try", &at, "--limit", "0"][..], &known].concat());
    assert!(!worked && text.contains("CertificateRequired"), "{text}");
    let (worked, text) = said(&["try", &through, "--limit", "0", "--tls", "--tls-ca", "/nowhere"]);
    assert!(!worked && text.contains("ca: ") && text.contains("/nowhere"), "{text}");
    // Who says something about TLS and forgets to ask for it is not to send a password that anybody can read.
    let plain = Server::redis(&[]);
    let plain = format!("{}:{}", address(), plain.port);
    let name = ["--tls-server-name", "proxy"];
    for half in [&["--tls-ca", &*ca][..], &presented, &["--tls-verify", "ca"], &name] {
        let (worked, text) = said(&[&["try", &plain, "--limit", "0"][..], half].concat());
        assert!(!worked && text.contains("required") && text.contains("--tls"), "{text}");
    }
    let (worked, text) = said(&[&["try", &through][..], &known, &presented[..2]].concat());
    assert!(!worked && text.contains("certificate needs key as well"), "{text}");
    let unverified = ["try", &through, "--tls", "--tls-verify", "none"];
    assert!(said(&unverified).0);

    let files = format!("ssl_chain_cert={},ssl_key={}", shown(&pair.certificate), shown(&pair.key));
    let shard = Server::memcached(&["-Z", "-o", &files]);
    let at = format!("{}:{}", address(), shard.port);
    let (worked, text) = said(&[&["try", &at, "--memcached"][..], &known].concat());
    assert!(worked, "{text}");
}

#[test]
fn a_cluster_of_nodes_that_speak_tls_is_formed() {
    let authority = Authority::new("nodes");
    let pair = authority.sign("node", &["node"]);
    let shown = |path: &std::path::Path| path.display().to_string();
    let (ca, certificate, key) = (shown(&authority.file()), shown(&pair.certificate), shown(&pair.key));
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let settings = [&["--tls-cluster", "yes", "--tls-replication", "yes"][..], &files].concat();
    let nodes = servers::cluster::Nodes::start(3, &settings);
    let places: Vec<String> = (0..3).map(|number| nodes.place(number)).collect();
    let mut words = vec!["cluster", "reconcile", "--once", "--limit", "2m", "--primaries", "3"];
    words.extend(places.iter().flat_map(|place| ["--nodes", place]));
    words.extend(["--tls", "--tls-ca", &ca, "--tls-server-name", "node"]);
    let (worked, text) =
        said(&[&words[..], &["--tls-certificate", &certificate, "--tls-key", &key]].concat());
    assert!(worked, "{text}");
    // It is one that clients are served of.
    let more = format!(", server_name: node, certificate: {certificate}, key: {key}");
    let cluster = format!("cluster: {{seeds: [{}]}}", places[1]);
    let proxy = Server::memstore_over(&[&servers_tls(&authority, &more), &cluster], &[]);
    let mut client = proxy.connect();
    for number in 0..50 {
        assert_eq!(client.say(&format!("SET key:{number} value")), "+OK\\r\\n");
    }
}
