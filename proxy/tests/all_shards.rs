//! Commands about all keys, over three servers and over a Redis Cluster, beside what one server with all keys replies.

use servers::cluster::Nodes;
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
fn what_shards_report_is_that_of_one_server() {
    let flags = ["--slowlog-log-slower-than", "0", "--latency-monitor-threshold", "1"];
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&flags)).collect();
    let ours = Server::memstore_of(2, &["slowlog_source: shards"], &shards);
    for version in ["2", "3"] {
        let mut client = ours.connect();
        client.tell(&format!("HELLO {version}"));
        assert_eq!(client.tell("SLOWLOG RESET"), "+OK\r\n");
        fill(&mut client, 100);
        let log = client.tell("SLOWLOG GET 50");
        assert!(log.starts_with("*50\r\n*6\r\n:"), "{log}");
        // An entry is an ID, a time, and what else there is.
        let entries = log.split("*6\r\n").skip(1);
        let times: Vec<u64> = entries
            .map(|entry| {
                entry
                    .split("\r\n:")
                    .nth(1)
                    .and_then(|rest| rest.split('\r').next()?.parse().ok())
                    .expect("a time")
            })
            .collect();
        assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
        assert!(client.tell("SLOWLOG GET").starts_with("*10\r\n"));
        assert!(client.tell("SLOWLOG GET -1").split("*6\r\n").count() > 100);
        for shard in &shards {
            shard.connect().ask(&[b"EVAL", b"for i = 1, 2e6 do end", b"0"]);
        }
        // A loop that takes some milliseconds is seen as a slow command.
        let latest = client.tell("LATENCY LATEST");
        // Valkey 9.1 tells of their sum and number as well.
        let has_parts = |count: u32| latest.starts_with(&format!("*1\r\n*{count}\r\n$7\r\ncommand\r\n:"));
        assert!(has_parts(4) || has_parts(6), "{latest}");
        let points: usize = client.tell("LATENCY HISTORY command").matches("*2\r\n").count();
        assert!(points >= 3, "{points}");
        let advice = client.tell("MEMORY DOCTOR");
        assert!(advice.starts_with(if version == "2" { "$" } else { "=" }), "{advice}");
        for number in 0..3 {
            assert!(advice.contains(&format!("# shard-{number}\n")), "{advice}");
        }
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

/// A cluster has one database, so nothing that its clients can do reaches beyond it.
#[test]
fn a_cluster_does_for_all_nodes_what_one_server_does() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    let (ours, _) = nodes.proxy(&[], &[0, 1, 2]);
    let theirs = Server::redis(&[]);
    let [mut our, mut their] = [ours.connect(), theirs.connect()];
    for client in [&mut our, &mut their] {
        fill(client, 50);
    }
    for question in [
        "DBSIZE",
        "SLOWLOG RESET",
        "SLOWLOG LEN",
        "SLOWLOG GET",
        "SLOWLOG GET -2",
        "LATENCY RESET",
        "MEMORY PURGE",
        "CONFIG RESETSTAT",
        "SCRIPT FLUSH",
        "FUNCTION FLUSH",
        "FLUSHALL nosuch",
        "FLUSHALL",
        "DBSIZE",
        "KEYS *",
    ] {
        assert_eq!(our.tell(question), their.tell(question), "{question}");
    }
    for number in 0..3 {
        assert_eq!(nodes.ask(number, "DBSIZE"), ":0", "node {number}");
    }
}

/// Shards that have few databases have no others than clients can reach; a pool that is kept to some of them is.
#[test]
fn only_the_configuration_keeps_clients_from_databases() {
    let shards: Vec<Server> = (0..2).map(|_| Server::redis(&["--databases", "2"])).collect();
    let ours = Server::memstore(&[], &shards);
    let mut client = ours.connect();
    servers::eventually(|| client.tell("SELECT 2"), "-ERR DB index is out of range\r\n");
    assert_eq!(client.tell("FLUSHALL"), "+OK\r\n");
    let kept = Server::memstore(&["databases: 2"], &shards);
    let refused =
        "-ERR 'flushall' is refused: it affects databases outside of this pool (redis_db, databases)\r\n";
    assert_eq!(kept.connect().tell("FLUSHALL"), refused);
}

/// Files appear where the configuration lets clients save.
#[test]
fn all_shards_save_where_that_is_allowed() {
    let name = |number: u32| format!("saved-{}-{number}.rdb", std::process::id());
    let folder = env!("CARGO_TARGET_TMPDIR");
    let shard = |number| Server::redis(&["--dir", folder, "--dbfilename", &name(number)]);
    let shards: Vec<Server> = (0..2).map(shard).collect();
    let before: Vec<String> = shards.iter().map(|shard| shard.connect().tell("LASTSAVE")).collect();
    let ours = Server::memstore(&[], &shards);
    for question in ["SAVE", "BGSAVE", "BGREWRITEAOF"] {
        let reply = ours.connect().tell(question);
        assert!(
            reply.ends_with("set save_all_shards, or ask the shards directly\r\n"),
            "{question}: {reply}"
        );
    }
    let file = |number| std::path::Path::new(folder).join(name(number));
    assert!((0..2).all(|number| !file(number).exists()));
    let allowed = Server::memstore(&["save_all_shards: true"], &shards);
    assert_eq!(allowed.connect().tell("SAVE"), "+OK\r\n");
    (0..2).for_each(|number| std::fs::remove_file(file(number)).expect("it has been written"));
    let after: Vec<String> = shards.iter().map(|shard| shard.connect().tell("LASTSAVE")).collect();
    assert!(before.iter().zip(&after).all(|(before, after)| before <= after), "{before:?} {after:?}");
}

/// Those that ask for all names and do not read them cost no more than the process may hold, and others are served.
#[test]
fn names_that_nobody_reads_are_bounded() {
    const MEMORY_MAX: u64 = 64 << 20;
    let shards: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let lines: Vec<String> = shards.iter().enumerate().map(|(at, shard)| shard.line(at)).collect();
    let limit = MEMORY_MAX.to_string();
    let ours = Server::memstore_with_flags(&lines, &["-s", "0", "--admin-port", "0", "--memory-max", &limit]);
    let mut client = ours.connect();
    let long = "x".repeat(10_000);
    for key in 0..1_000 {
        client.send(&servers::encoded(&[b"SET", format!("{key}:{long}").as_bytes(), b""]));
    }
    assert_eq!(client.bytes(1_000 * 5), b"+OK\r\n".repeat(1_000));
    // 10 MB for each request.
    let idle: Vec<Client> = (0..30)
        .map(|_| {
            let mut client = ours.connect();
            client.send(&servers::encoded(&[b"KEYS", b"*"]).repeat(4));
            client
        })
        .collect();
    let mut most = 0;
    for _ in 0..200 {
        assert_eq!(client.tell("EXISTS nosuch"), ":0\r\n");
        most = most.max(ours.memory());
    }
    assert!(most < MEMORY_MAX + (64 << 20), "{} MiB", most >> 20);
    // One that reads has all of them.
    drop(idle);
    let whole = |client: &mut Client| client.ask(&[b"KEYS", b"*"]).starts_with(b"*1000\r\n").to_string();
    servers::eventually(|| whole(&mut ours.connect()), "true");
}
