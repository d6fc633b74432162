//! WAIT over real primaries with real replicas: never more replicas than have what the client has written, and nobody is held up.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use servers::blocking::blocked;
use servers::cluster::Nodes;
use servers::{Client, Server, eventually};

mod servers;

/// A primary and a replica of it that has all.
struct Pair {
    primary: Server,
    replica: Server,
}

fn pair(name: &str) -> Pair {
    // The first copy is a file.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("replicas-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the folder for temporary files is writable");
    let files = ["--dir", folder.to_str().expect("UTF-8")];
    let primary = Server::redis(&files);
    let [host, port] = [servers::address().to_string(), primary.port.to_string()];
    let replica = Server::redis(&[&files[..], &["--replicaof", &host, &port]].concat());
    replicates(&mut primary.connect());
    Pair { primary, replica }
}

/// The primary has a replica that acknowledges what it is sent.
fn replicates(primary: &mut Client) {
    eventually(
        || {
            primary.tell("SET before x");
            primary.tell("WAIT 1 100")
        },
        ":1\r\n",
    );
}

fn knows_files(primary: &Server) -> bool {
    primary.connect().tell("WAITAOF 0 0 0").starts_with('*')
}

#[test]
fn writes_are_confirmed_by_the_replicas_of_all_shards() {
    let (one, other) = (pair("one"), pair("other"));
    let lines = [one.primary.line(0), other.primary.line(1)];
    let proxy = Server::memstore_over(&["timeout: 2s"], &lines);
    let (mut writer, mut reader) = (proxy.connect(), proxy.connect());
    let write = |writer: &mut Client| {
        for number in 0..20 {
            assert_eq!(writer.tell(&format!("SET k{number} x")), "+OK\r\n");
        }
    };
    write(&mut writer);
    assert_eq!(writer.tell("WAIT 1 10000"), ":1\r\n");
    assert_eq!(writer.tell("WAIT 0 0"), ":1\r\n");
    let says_less = writer.tell("WAIT 2 10");
    assert!(matches!(&says_less[..], ":0\r\n" | ":1\r\n"), "{says_less}");
    if knows_files(&one.primary) {
        // Replicas without files acknowledge none.
        let said = writer.tell("WAITAOF 0 0 10");
        assert!(said.starts_with("*2\r\n:0\r\n:"), "{said}");
        let refused = writer.tell("WAITAOF 1 0 10");
        assert!(refused.starts_with("-ERR WAITAOF cannot be used when numlocal is set"), "{refused}");
    } else {
        assert!(writer.tell("WAITAOF 0 0 10").contains("unknown command"));
    }

    // A replica of one shard stands still: what is written is confirmed by none of them, whatever the other shard says.
    other.replica.signal("STOP");
    write(&mut writer);
    assert_eq!(writer.tell("WAIT 1 50"), ":0\r\n");
    writer.begin("WAIT 1 0");
    blocked(&proxy, 1);
    let begin = Instant::now();
    for number in 0..20 {
        assert_eq!(reader.tell(&format!("GET k{number}")), "$1\r\nx\r\n");
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "others do not wait for that");
    other.replica.signal("CONT");
    assert_eq!(String::from_utf8_lossy(&writer.reply()), ":1\r\n");

    // Many at once, and each of them gets its answer.
    let mut clients: Vec<Client> = (0..50).map(|_| proxy.connect()).collect();
    for _ in 0..20 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.begin(&format!("SET k{number} y"));
            client.begin("WAIT 1 10000");
        }
        for client in &mut clients {
            assert_eq!(String::from_utf8_lossy(&client.reply()), "+OK\r\n");
            assert_eq!(String::from_utf8_lossy(&client.reply()), ":1\r\n");
        }
    }

    // As the process ends nobody goes without an answer.
    other.replica.signal("STOP");
    write(&mut writer);
    writer.begin("WAIT 1 0");
    blocked(&proxy, 1);
    proxy.signal("TERM");
    assert_eq!(String::from_utf8_lossy(&writer.reply()), ":0\r\n");
    other.replica.signal("CONT");
}

/// Nodes of a cluster tell each other of channels in a way that replicas do not acknowledge.
#[test]
fn writes_are_confirmed_by_the_replicas_of_a_cluster() {
    let nodes = Nodes::start(4, &["--cluster-node-timeout", "60000"]);
    nodes.form(2);
    let (proxy, _) = nodes.proxy(&[], &[0]);
    let mut writer = proxy.connect();
    let write = |writer: &mut Client| {
        for number in 0..20 {
            assert_eq!(writer.tell(&format!("SET k{number} x")), "+OK\r\n");
        }
    };
    eventually(
        || {
            write(&mut writer);
            writer.tell("WAIT 1 1000")
        },
        ":1\r\n",
    );
    nodes.signal(3, "STOP");
    write(&mut writer);
    assert_eq!(writer.tell("WAIT 1 100"), ":0\r\n");
    nodes.signal(3, "CONT");
    assert_eq!(writer.tell("WAIT 1 10000"), ":1\r\n");
    // The mark leaves nothing.
    let keys = |number: usize| {
        let said = nodes.ask(number, "DBSIZE");
        said.trim_start_matches(':').parse::<usize>().expect("a number")
    };
    assert_eq!(keys(0) + keys(1), 20);
}
