//! Several listeners of one pool, plain and TLS beside each other; certificates by name, and tickets that replicas share.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use authority::{Authority, Pair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use servers::{Server, address, eventually, metrics, reload, unused_port};

#[path = "tls/authority.rs"]
mod authority;
mod servers;

const PATIENCE: Duration = Duration::from_secs(60);

type Secured = StreamOwned<ClientConnection, TcpStream>;

/// A client that asks for this name, once it was answered.
fn secured(port: u16, config: &Arc<ClientConfig>, name: &str) -> io::Result<Secured> {
    let stream = TcpStream::connect((address(), port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut client = StreamOwned::new(session, stream);
    ping(&mut client)?;
    Ok(client)
}

fn ping(client: &mut Secured) -> io::Result<()> {
    client.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    client.read_exact(&mut answer)?;
    assert_eq!(&answer, b"+PONG\r\n");
    Ok(())
}

fn files(pair: &Pair) -> String {
    format!("certificate: {}, key: {}", pair.certificate.display(), pair.key.display())
}

fn pool(listen: &[String], shard: &Server) -> String {
    let mut text = "pool:\n  redis: true\n  listen:\n".to_owned();
    for entry in listen {
        let _ = writeln!(text, "   - {entry}");
    }
    let _ = writeln!(text, "  servers:\n   - {}", shard.line(0));
    text
}

/// One that has begun with a single plain listener at its port.
fn proxy(shard: &Server) -> (Server, String) {
    Server::memstore_with_admin(&[], &[shard.line(0)], &[])
}

#[test]
fn single_listeners_come_and_go_and_clients_of_the_others_stay() {
    let authority = Authority::new("listeners");
    let name = address().to_string();
    let config = authority.client(None);
    let pair = authority.sign("server", &[&name]);
    let shard = Server::redis(&[]);
    let (proxy, admin) = proxy(&shard);
    let mut first = proxy.connect();
    assert_eq!(first.tell("SET a 1"), "+OK\r\n");
    let plain = first.peer().to_string();
    let port = unused_port();
    let socket = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("l{port}.sock"));
    let tls = |pair: &Pair| format!("{{address: \"{name}:{port}\", tls: {{{}}}}}", files(pair));
    // Beside the plain one, which is not touched.
    proxy.overwrite(&pool(&[plain.clone(), tls(&pair), format!("{} 0600", socket.display())], &shard));
    reload(&proxy);
    assert_eq!(first.tell("GET a"), "$1\r\n1\r\n");
    let mut second = secured(port, &config, &name).expect("it is let in");
    let mut local = std::os::unix::net::UnixStream::connect(&socket).expect("it listens");
    let ask = |local: &mut std::os::unix::net::UnixStream| {
        let mut answer = [0; 7];
        local
            .write_all(b"PING\r\n")
            .and_then(|()| local.read_exact(&mut answer))
            .map(|()| answer == *b"+PONG\r\n")
    };
    assert!(ask(&mut local).expect("served"));
    let page = metrics(&admin);
    for line in [
        format!("memstore_listener_connections_total{{pool=\"pool\",listen=\"{name}:{port}\"}} 1"),
        format!("memstore_listener_tls_handshakes_total{{pool=\"pool\",listen=\"{name}:{port}\"}} 1"),
        format!("memstore_listener_tls_handshakes_total{{pool=\"pool\",listen=\"{plain}\"}} 0"),
    ] {
        assert!(page.contains(&line), "{line}: {page}");
    }
    assert!(first.tell("CLIENT LIST").contains(&format!("laddr={name}:{port}")), "who came where is told");
    // Another certificate is for newcomers; who is there stays.
    let stranger = Authority::new("other");
    proxy.overwrite(&pool(
        &[plain.clone(), tls(&stranger.sign("server", &[&name])), format!("{} 0600", socket.display())],
        &shard,
    ));
    reload(&proxy);
    secured(port, &config, &name).expect_err("that authority is not known");
    secured(port, &stranger.client(None), &name).expect("it is let in");
    ping(&mut second).expect("it stays");
    // The plain listener goes, and so does the Unix socket; its file too. Their clients stay, as those of one that moves do.
    proxy.overwrite(&pool(&[tls(&pair)], &shard));
    reload(&proxy);
    eventually(|| TcpStream::connect(&plain).is_err().to_string(), "true");
    assert!(!socket.exists());
    assert!(ask(&mut local).expect("served"));
    assert_eq!(first.tell("GET a"), "$1\r\n1\r\n");
    ping(&mut second).expect("it stays");
    // One listener changes to plain at its place.
    proxy.overwrite(&pool(&[format!("{{address: \"{name}:{port}\", tls: false}}"), plain.clone()], &shard));
    reload(&proxy);
    assert_eq!(servers::connect(port).tell("GET a"), "$1\r\n1\r\n");
    assert_eq!(proxy.connect().tell("GET a"), "$1\r\n1\r\n");
    ping(&mut second).expect("it stays");
}

#[test]
fn a_reload_whose_address_is_taken_changes_no_listener() {
    let shard = Server::redis(&[]);
    let (proxy, _) = proxy(&shard);
    let plain = proxy.connect().peer().to_string();
    let taken = std::net::TcpListener::bind((address(), 0)).expect("a free port");
    let [free, taken_at] = [unused_port(), taken.local_addr().expect("bound").port()];
    let name = address();
    proxy.overwrite(&pool(&[format!("{name}:{free}"), format!("{name}:{taken_at}")], &shard));
    proxy.signal("HUP");
    servers::logged(&proxy, &format!("cannot listen on {name}:{taken_at}"), 1);
    assert!(TcpStream::connect((name, free)).is_err());
    assert_eq!(proxy.connect().tell("PING"), "+PONG\r\n");
    assert_eq!(proxy.connect().peer().to_string(), plain);
}

/// Handshakes that do not go on are a matter of their listener.
#[test]
fn a_storm_at_one_listener_holds_up_no_client_of_another() {
    let authority = Authority::new("storm");
    let name = address().to_string();
    let pair = authority.sign("server", &[&name]);
    let shard = Server::redis(&[]);
    let (proxy, _) = proxy(&shard);
    let plain = proxy.connect().peer().to_string();
    let [stormy, calm] = [unused_port(), unused_port()];
    let tls = |port: u16| {
        format!("{{address: \"{name}:{port}\", tls: {{{}, handshake_timeout: 60s}}}}", files(&pair))
    };
    proxy.overwrite(&pool(&[plain, tls(stormy), tls(calm)], &shard));
    reload(&proxy);
    // More than may be under way, of which none says a word.
    let storm: Vec<_> = (0..1_100).map_while(|_| TcpStream::connect((address(), stormy)).ok()).collect();
    assert!(storm.len() > 1_024, "{}", storm.len());
    // A listener with all places taken gives one away each second: these would take a minute.
    let begin = std::time::Instant::now();
    for _ in 0..30 {
        assert_eq!(proxy.connect().tell("PING"), "+PONG\r\n");
        secured(calm, &authority.client(None), &name).expect("it is let in");
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

/// Who has presented this certificate.
fn shown(port: u16, config: &Arc<ClientConfig>, name: &str) -> Vec<u8> {
    let client = secured(port, config, name).expect("it is let in");
    client.conn.peer_certificates().expect("it has one")[0].to_vec()
}

#[test]
fn each_client_is_shown_the_certificate_for_the_name_it_asks_for() {
    let authority = Authority::new("names");
    let name = address().to_string();
    let all = [&["a.example", &*name][..], &["b.example"], &["*.c.example"]];
    let pairs: Vec<Pair> =
        all.iter().enumerate().map(|(number, names)| authority.sign(&format!("n{number}"), names)).collect();
    let list: Vec<String> = pairs.iter().map(|pair| format!("{{{}}}", files(pair))).collect();
    let shard = Server::redis(&[]);
    let proxy = Server::memstore(&[&format!("tls: {{certificates: [{}]}}", list.join(", "))], &[shard]);
    let config = authority.client(None);
    let first = shown(proxy.port, &config, "a.example");
    let second = shown(proxy.port, &config, "b.example");
    let third = shown(proxy.port, &config, "x.c.example");
    assert!(first != second && second != third && first != third);
    // An address is no name; who asks for an unknown one is shown the first, which is not for it.
    assert_eq!(shown(proxy.port, &config, &name), first);
    let unknown = secured(proxy.port, &config, "d.example").expect_err("it is for others");
    assert!(unknown.to_string().contains("not valid for name"), "{unknown}");
    // Each is replaced where its files are.
    let new = authority.sign("new", &["b.example"]);
    std::fs::copy(&new.key, &pairs[1].key).expect("a file");
    std::fs::copy(&new.certificate, &pairs[1].certificate).expect("a file");
    reload(&proxy);
    assert_ne!(shown(proxy.port, &config, "b.example"), second);
    assert_eq!(shown(proxy.port, &config, "a.example"), first);
}

#[test]
fn sessions_are_resumed_at_replicas_that_share_keys() {
    let authority = Authority::new("tickets");
    let name = address().to_string();
    let pair = authority.sign("server", &[&name]);
    let key = |digit: char| format!("{}\n", digit.to_string().repeat(96));
    let file = |number: u16| pair.key.with_file_name(format!("tickets{number}"));
    let shard = Server::redis(&[]);
    let replica = |number: u16, keys: &str| {
        std::fs::write(file(number), keys).expect("a file");
        let tls = format!("tls: {{{}, ticket_keys_file: {}}}", files(&pair), file(number).display());
        Server::memstore_over(&[&tls], &[shard.line(0)])
    };
    let (one, other, stranger) =
        (replica(1, &key('1')), replica(2, &(key('2') + &key('1'))), replica(3, &key('3')));
    let kind = |proxy: &Server, config: &Arc<ClientConfig>| {
        let client = secured(proxy.port, config, &name).expect("it is let in");
        client.conn.handshake_kind()
    };
    let config = authority.client(None);
    assert_eq!(kind(&one, &config), Some(HandshakeKind::Full));
    assert_eq!(kind(&other, &config), Some(HandshakeKind::Resumed));
    // That one has given a ticket by its own first key, which the former does not know yet.
    assert_eq!(kind(&one, &config), Some(HandshakeKind::Full));
    std::fs::write(file(1), key('1') + &key('2')).expect("a file");
    reload(&one);
    assert_eq!(kind(&other, &config), Some(HandshakeKind::Resumed));
    assert_eq!(kind(&one, &config), Some(HandshakeKind::Resumed));
    // Another configuration, or another process with them, goes on with these keys; one with others does not.
    assert_eq!(kind(&stranger, &config), Some(HandshakeKind::Full));
    // A file with mistakes is refused, and the keys that were there stay.
    std::fs::write(file(1), "secret").expect("a file");
    one.signal("HUP");
    servers::logged(&one, "ticket_keys_file", 1);
    assert!(!one.printed().contains("secret"), "{}", one.printed());
}
