//! Commands about all keys, over three servers and over a Redis Cluster, beside what one server with all keys replies.

use servers::{Client, Server, shown};

mod servers;

/// The elements of an array of names, in order.
fn names(reply: &str) -> Vec<String> {
    let mut names: Vec<String> =
        reply.split("\r\n").skip(2).step_by(2).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    names.sort();
    names
}

fn fill(client: &mut Client, count: usize) {
    for key in 0..count {
        client.tell(&format!("SET key:{key} {key}"));
        client.tell(&format!("SET {{tag}}:{key} {key}"));
    }
}

#[test]
fn three_shards_answer_as_one_server() {
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let ours = Server::memstore_of(2, &["hash_tag: \"{}\""], &shards);
    let theirs = Server::redis(&[]);
    for version in ["2", "3"] {
        let [mut our, mut their] = [&ours, &theirs].map(Server::connect);
        for client in [&mut our, &mut their] {
            client.tell(&format!("HELLO {version}"));
            fill(client, 100);
        }
        for question in ["KEYS *", "KEYS key:1?", "KEYS {tag}:*", "KEYS nosuch*"] {
            let (our, their) = (our.tell(question), their.tell(question));
            assert_eq!(
                our.split_once('\r').map(|(head, _)| head),
                their.split_once('\r').map(|(head, _)| head)
            );
            assert_eq!(names(&our), names(&their), "{question}");
        }
        for question in [
            "DBSIZE",
            "FLUSHDB nosuch x",
            "SLOWLOG RESET",
            "LATENCY RESET",
            "MEMORY PURGE",
            "CONFIG RESETSTAT",
            "FLUSHALL SYNC",
            "DBSIZE",
            "RANDOMKEY",
            "KEYS *",
        ] {
            assert_eq!(our.tell(question), their.tell(question), "{question}");
        }
        assert!(our.tell("LASTSAVE").starts_with(':'));
        our.tell("SET one 1");
        assert_eq!(our.tell("RANDOMKEY"), "$3\r\none\r\n");
        // Each shard has its chance.
        fill(&mut our, 30);
        let found: std::collections::HashSet<String> = (0..200).map(|_| our.tell("RANDOMKEY")).collect();
        assert!(found.len() > 20, "{found:?}");
        assert_eq!(our.tell("FLUSHDB"), "+OK\r\n");
    }
}

#[test]
fn a_shard_that_is_gone_is_named() {
    let mut shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let lines: Vec<String> = shards.iter().enumerate().map(|(at, shard)| shard.line(at)).collect();
    let ours = Server::memstore_over(&[], &lines);
    let mut client = ours.connect();
    assert_eq!(client.tell("DBSIZE"), ":0\r\n");
    drop(shards.pop());
    for question in ["FLUSHALL", "DBSIZE", "KEYS *", "RANDOMKEY"] {
        let reply = client.tell(question);
        assert!(reply.starts_with("-ERR shard ") && reply.contains("shard"), "{question}: {reply}");
    }
}

/// What a million pipelined requests take is bounded, and others are served meanwhile.
#[test]
fn many_at_once_do_not_keep_others_waiting() {
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let ours = Server::memstore(&[], &shards);
    let (mut one, mut other) = (ours.connect(), ours.connect());
    let twin = std::thread::spawn({
        let mut twin = one.twin();
        move || {
            for _ in 0..200 {
                twin.send(&b"*1\r\n$6\r\nDBSIZE\r\n".repeat(1_000));
            }
        }
    });
    assert_eq!(one.bytes(4 * 1_000).len(), 4_000);
    assert_eq!(shown(other.tell("SET k v").as_bytes()), shown(b"+OK\r\n"));
    let before = ours.memory();
    for _ in 0..199 {
        one.bytes(4 * 1_000);
    }
    twin.join().expect("it has written all");
    assert!(ours.memory() < before.max(1) + (64 << 20), "{} of {before}", ours.memory());
}

#[test]
fn more_names_than_can_be_kept_are_refused() {
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let ours = Server::memstore(&[], &shards);
    let mut client = ours.connect();
    let long = "x".repeat(100_000);
    let count = 700;
    for key in 0..count {
        client.send(&servers::encoded(&[b"SET", format!("{key}:{long}").as_bytes(), b""]));
    }
    assert_eq!(client.bytes(count * 5), b"+OK\r\n".repeat(count));
    assert_eq!(
        client.tell("KEYS *"),
        "-ERR the replies of the shards have more than 64 MiB; ask with a pattern, or with SCAN\r\n"
    );
    assert_eq!(client.ask(&[b"KEYS", b"1?:*"]).len(), "*10\r\n".len() + 10 * (100_003 + 11));
    assert_eq!(client.tell("DBSIZE"), format!(":{count}\r\n"));
}
