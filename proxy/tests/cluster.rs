//! A pool over Redis Clusters of real servers, which fail over, move slots and move themselves.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use servers::cluster::{Bus, Nodes};
use servers::conversation::CONVERSATION;
use servers::{Client, Server, eventually, shown};

mod servers;

/// What the admin server answers.
fn get(admin: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).expect("it listens");
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer.split_once("\r\n\r\n").expect("a header").1.to_owned()
}

/// The value of a metric, all its labels added up that contain the text.
fn metric(admin: &str, name: &str, labels: &str) -> f64 {
    let page = get(admin, "/metrics");
    let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(labels));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// What several clients did, and what became of it.
#[derive(Default)]
struct Load {
    done: AtomicBool,
    requests: AtomicU64,
    errors: AtomicU64,
    /// The longest that a request took, in microseconds.
    slowest: AtomicU64,
}

impl Load {
    /// The first errors, for the person who reads why a test failed.
    fn tell(&self, reply: &str) {
        if self.errors.load(Relaxed) < 20 {
            println!("{}", shown(reply.as_bytes()));
        }
    }

    /// A client that writes numbers that only grow and checks that no acknowledged one is lost. With `lossy` an older one
    /// is no fault: the cluster itself may lose what it has acknowledged when a primary dies.
    fn work(&self, mut client: Client, number: usize, lossy: bool) {
        let mut written: HashMap<String, (u64, u64)> = HashMap::new();
        let mut round = 0u64;
        while !self.done.load(Relaxed) {
            round += 1;
            let key = format!("key:{number}:{}", round % 97);
            let (acknowledged, tried) = written.entry(key.clone()).or_default();
            let begin = Instant::now();
            let mut reply = client.tell(&format!("SET {key} {round}"));
            *tried = round;
            if reply == "+OK\r\n" {
                *acknowledged = round;
            } else {
                self.tell(&reply);
                assert!(!reply.is_empty(), "the connection was closed");
                self.errors.fetch_add(1, Relaxed);
            }
            reply = client.tell(&format!("GET {key}"));
            self.slowest.fetch_max(begin.elapsed().as_micros() as u64, Relaxed);
            if reply.starts_with('-') {
                self.tell(&reply);
                self.errors.fetch_add(1, Relaxed);
            } else {
                let value =
                    reply.split("\r\n").nth(1).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
                let good = value <= *tried && (value >= *acknowledged || lossy);
                assert!(good, "{key}: {value}, acknowledged {acknowledged}, tried {tried}");
                *acknowledged = value;
            }
            self.requests.fetch_add(2, Relaxed);
            if round.is_multiple_of(7) {
                let (a, b) = (format!("{key}:a"), format!("{key}:b"));
                let reply = client.tell(&format!("MSET {a} {round} {b} {round}"));
                if reply == "+OK\r\n" {
                    let reply = client.tell(&format!("MGET {a} {b}"));
                    let expected = format!("${0}\r\n{round}\r\n${0}\r\n{round}\r\n", round.to_string().len());
                    let good = reply == format!("*2\r\n{expected}") || reply.starts_with('-') || lossy;
                    assert!(good, "{}", shown(reply.as_bytes()));
                } else {
                    self.errors.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// Runs clients while something happens.
    fn during(proxy: &Server, lossy: bool, happens: impl FnOnce(&Load)) -> Self {
        /// Ends the clients also where a check fails.
        struct Ends<'l>(&'l Load);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.done.store(true, Relaxed);
            }
        }
        let load = Self::default();
        std::thread::scope(|scope| {
            let ends = Ends(&load);
            let workers: Vec<_> = (0..6)
                .map(|number| {
                    let (client, load) = (proxy.connect(), &load);
                    scope.spawn(move || load.work(client, number, lossy))
                })
                .collect();
            load.goes_on();
            happens(&load);
            load.goes_on();
            drop(ends);
            for worker in workers {
                worker.join().expect("a client saw nothing odd");
            }
        });
        load
    }

    /// Waits until a good many requests have been served without an error.
    fn goes_on(&self) {
        let mut before = (0, u64::MAX);
        eventually(
            || {
                let now = (self.requests.load(Relaxed), self.errors.load(Relaxed));
                if now.1 != before.1 {
                    before = now;
                }
                (now.0 > before.0 + 500).to_string()
            },
            "true",
        );
    }
}

/// Waits until a node has become one.
fn is_primary(nodes: &Nodes, number: usize) {
    eventually(|| nodes.ask(number, "CLUSTER NODES").contains("myself,master").to_string(), "true");
}

#[test]
fn one_address_for_a_whole_cluster() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    let (proxy, admin) = nodes.proxy(&[], &[0]);
    let mut client = proxy.connect();
    for number in 0..100 {
        assert_eq!(client.tell(&format!("SET key:{number} {number}")), "+OK\r\n");
    }
    let keys: Vec<String> = (0..100).map(|number| format!("key:{number}")).collect();
    let values: String =
        (0..100).map(|number: u32| format!("${}\r\n{number}\r\n", number.to_string().len())).collect();
    assert_eq!(client.tell(&format!("MGET {}", keys.join(" "))), format!("*100\r\n{values}"));
    assert_eq!(client.tell(&format!("DEL {} none", keys.join(" "))), ":100\r\n");
    assert_eq!(client.tell("MSET {t}a 1 {t}b 2"), "+OK\r\n");
    assert_eq!(client.tell("RENAME {t}a {t}b"), "+OK\r\n");
    let spread = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
    assert_eq!(client.tell("RENAME a b"), spread);
    assert_eq!(client.tell("EVAL return(1) 2 a b"), spread);
    assert_eq!(client.tell("EVAL return(1) 2 {t}a {t}b"), ":1\r\n");
    assert!(client.tell("SELECT 1").starts_with("-ERR DB index is out of range"));
    // There are no other databases that these could harm.
    for whole in
        ["SCRIPT FLUSH", "FUNCTION FLUSH", "CONFIG RESETSTAT", "MEMORY PURGE", "SLOWLOG RESET", "FLUSHALL"]
    {
        assert_eq!(client.tell(whole), "+OK\r\n", "{whole}");
    }
    assert_eq!(client.tell("DBSIZE"), ":0\r\n");
    assert!(client.tell("SLOWLOG GET").starts_with('*'));
    assert!(client.tell("SCRIPT KILL").starts_with("-NOTBUSY"));
    let topology = get(&admin, "/topology");
    assert!(topology.contains("\"slots_covered\": 16384") && topology.contains(&nodes.id(2)), "{topology}");
    assert_eq!(metric(&admin, "memstore_cluster_slots{", ""), 16384.0);
    assert_eq!(metric(&admin, "memstore_cluster_redirects_total{", ""), 0.0);
}

#[test]
fn the_commands_of_plain_shards_are_answered_as_by_one_server() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    let (proxy, _) = nodes.proxy(&[], &[0]);
    let single = Server::redis(&[]);
    let (mut ours, mut theirs) = (proxy.connect(), single.connect());
    let mut alike = 0;
    for line in CONVERSATION.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<String> = line.split(' ').map(|word| word.replace('@', "{@}")).collect();
        let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        let (our, their) = (shown(&ours.ask(&words)), shown(&theirs.ask(&words)));
        if our.starts_with("-CROSSSLOT") {
            // The next lines see what it would have done.
            continue;
        }
        assert_eq!(our, their, "{line}");
        alike += 1;
    }
    assert!(alike > 150, "{alike}");
}

#[test]
fn slots_that_move_under_load_lose_nothing() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    let (proxy, admin) = nodes.proxy(&[], &[1]);
    let load = Load::during(&proxy, false, |_| {
        // Slots that the clients' keys are in, there and back.
        for slot in (0..5461).step_by(40) {
            nodes.move_slot(slot, 0, 1);
        }
        for slot in (0..5461).step_by(80) {
            nodes.move_slot(slot, 1, 2);
        }
    });
    assert_eq!(load.errors.load(Relaxed), 0, "{}", proxy.printed());
    assert!(metric(&admin, "memstore_cluster_redirects_total{", "moved") > 0.0);
}

#[test]
fn a_request_in_the_middle_of_a_move_is_asked_of_both() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    let (proxy, admin) = nodes.proxy(&[], &[0]);
    let mut client = proxy.connect();
    // Slot 12182, which the third node owns.
    assert_eq!(client.tell("MSET foo 1 {foo}2 2"), "+OK\r\n");
    let (source, target) = (nodes.id(2), nodes.id(0));
    nodes.tell(0, &format!("CLUSTER SETSLOT 12182 IMPORTING {source}"));
    nodes.tell(2, &format!("CLUSTER SETSLOT 12182 MIGRATING {target}"));
    // It is not there, so it belongs to who is about to own it.
    assert_eq!(client.tell("SET {foo}new 3"), "+OK\r\n");
    assert_eq!(client.tell("GET {foo}new"), "$1\r\n3\r\n");
    assert_eq!(client.tell("GET foo"), "$1\r\n1\r\n");
    assert!(metric(&admin, "memstore_cluster_redirects_total{", "ask") >= 2.0);
    // One here and one there: neither can serve it now, and soon one can.
    let mut other = proxy.connect();
    other.send(b"MGET foo {foo}new\r\n");
    eventually(|| (metric(&admin, "memstore_cluster_redirects_total{", "later") > 0.0).to_string(), "true");
    nodes.move_slot(12182, 2, 0);
    assert_eq!(shown(&other.reply()), shown(b"*2\r\n$1\r\n1\r\n$1\r\n3\r\n"));
    assert_eq!(client.tell("GET {foo}2"), "$1\r\n2\r\n");
}

#[test]
fn a_primary_that_hands_over_under_load_loses_nothing() {
    let nodes = Nodes::start(6, &[]);
    nodes.form(3);
    let (proxy, _) = nodes.proxy(&[], &[0]);
    let load = Load::during(&proxy, false, |load| {
        for number in [3, 4, 0] {
            nodes.hand_over(number);
            load.goes_on();
        }
    });
    assert_eq!(load.errors.load(Relaxed), 0, "{}", proxy.printed());
    let slowest = Duration::from_micros(load.slowest.load(Relaxed));
    println!("three hand-overs: {} requests, slowest {slowest:?}", load.requests.load(Relaxed));
}

#[test]
fn a_primary_that_dies_is_replaced() {
    let mut nodes = Nodes::start(6, &[]);
    nodes.form(3);
    // Who owns what is asked when a node fails, long before it is due.
    let (proxy, _) = nodes.proxy(&["refresh: 1h"], &[0]);
    let load = Load::during(&proxy, true, |load| {
        let begin = Instant::now();
        nodes.kill(0);
        is_primary(&nodes, 3);
        let replaced = begin.elapsed();
        load.goes_on();
        println!("replaced after {replaced:?}, served again after {:?}", begin.elapsed());
    });
    println!("{} requests, {} errors", load.requests.load(Relaxed), load.errors.load(Relaxed));
    // The seed is gone; the others know.
    nodes.is_well();
}

#[test]
fn a_seed_that_slept_through_a_failover_changes_nothing() {
    let nodes = Nodes::start(6, &[]);
    nodes.form(3);
    let (proxy, _) = nodes.proxy(&["refresh: 200ms"], &[0]);
    let mut client = proxy.connect();
    assert_eq!(client.tell("SET bar 1"), "+OK\r\n");
    // A primary streams writes to a new replica once that has acknowledged something; what stops before takes them along.
    eventually(|| nodes.ask(3, "DBSIZE"), ":1");
    // One that waits for ever, if nobody tells it not to.
    let (patient, _) = nodes.patient_proxy(&["refresh: 200ms"], &[1], 3600);
    let mut waiting = patient.connect();
    assert_eq!(waiting.tell("GET bar"), "$1\r\n1\r\n");
    nodes.signal(0, "STOP");
    waiting.send(b"GET bar\r\n");
    is_primary(&nodes, 3);
    let told = String::from_utf8_lossy(&waiting.reply()).into_owned();
    assert!(told.ends_with(": removed from the pool\r\n"), "{told}");
    eventually(|| waiting.tell("GET bar"), "$1\r\n1\r\n");
    eventually(|| proxy.connect().tell("SET bar 2"), "+OK\r\n");
    // Its worker may hear of the new primary later than the other one.
    eventually(|| client.tell("GET bar"), "$1\r\n2\r\n");
    nodes.signal(0, "CONT");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(1) {
        assert_eq!(client.tell("GET bar"), "$1\r\n2\r\n");
    }
}

#[test]
fn a_seed_that_is_cut_off_from_the_others_is_not_believed() {
    let bus = Bus::default();
    let nodes = Nodes::start_over(Some(bus.clone()), 6, &[]);
    nodes.form(3);
    let (proxy, _) = nodes.proxy(&["refresh: 200ms"], &[0]);
    let mut client = proxy.connect();
    assert_eq!(client.tell("SET bar 1"), "+OK\r\n");
    bus.cut_off(Some((nodes.nodes[0].address, nodes.id(0))));
    is_primary(&nodes, 3);
    eventually(|| nodes.ask(0, "CLUSTER INFO").contains("cluster_state:fail").to_string(), "true");
    eventually(|| client.tell("SET bar 2"), "+OK\r\n");
    // Also not by one that knows nothing else yet, or is told of it first.
    let (other, _) = nodes.proxy(&["refresh: 200ms"], &[0, 1]);
    let mut another = other.connect();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        assert_eq!(client.tell("GET bar"), "$1\r\n2\r\n");
        assert_eq!(another.tell("GET bar"), "$1\r\n2\r\n");
    }
    bus.cut_off(None);
    nodes.is_well();
    assert_eq!(client.tell("GET bar"), "$1\r\n2\r\n");
    eventually(|| nodes.ask(0, "CLUSTER NODES").contains("myself,slave").to_string(), "true");
}

#[test]
fn replicas_answer_reads_where_that_is_asked_for() {
    let mut nodes = Nodes::start(6, &[]);
    nodes.form(3);
    let (proxy, _) = nodes.proxy(&["read_from: prefer-replica"], &[0]);
    let mut client = proxy.connect();
    let reads = |number: usize| {
        let stats = nodes.ask(number, "INFO commandstats");
        let calls = stats.split("cmdstat_get:calls=").nth(1).and_then(|rest| rest.split(',').next());
        calls.and_then(|calls| calls.parse::<u64>().ok()).unwrap_or(0)
    };
    // "bar" is the first primary's, whose replica is the fourth node.
    assert_eq!(client.tell("SET bar 1"), "+OK\r\n");
    eventually(
        || {
            assert_eq!(client.tell("SET bar 1"), "+OK\r\n");
            for _ in 0..10 {
                let reply = client.tell("GET bar");
                assert!(reply == "$1\r\n1\r\n" || reply == "$-1\r\n", "{reply}");
            }
            (reads(3) > 100).to_string()
        },
        "true",
    );
    let before = reads(0);
    assert_eq!(client.tell("GETSET bar 2"), "$1\r\n1\r\n");
    eventually(|| client.tell("GET bar"), "$1\r\n2\r\n");
    assert_eq!(reads(0), before);
    // Without the replica the primary has to do.
    nodes.kill(3);
    eventually(|| client.tell("GET bar"), "$1\r\n2\r\n");
}

#[test]
fn the_nearest_node_answers_reads_where_that_is_asked_for() {
    let nodes = Nodes::start(6, &[]);
    nodes.form(3);
    let (proxy, _) = nodes.proxy(&["read_from: nearest", "refresh: 200ms"], &[0]);
    let mut client = proxy.connect();
    assert_eq!(client.tell("SET bar 1"), "+OK\r\n");
    eventually(|| nodes.ask(3, "DBSIZE"), ":1");
    let reads = |number: usize| {
        let stats = nodes.ask(number, "INFO commandstats");
        let calls = stats.split("cmdstat_get:calls=").nth(1).and_then(|rest| rest.split(',').next());
        calls.and_then(|calls| calls.parse::<u64>().ok()).unwrap_or(0)
    };
    // "bar" is the first primary's, whose replica is the fourth node; the one that is busy is far away.
    for (busy, near) in [(0, 3), (3, 0), (0, 3)] {
        let (ended, busy_node) = (AtomicBool::new(false), nodes.connect(busy));
        std::thread::scope(|scope| {
            let _ended = Ending(&ended);
            let ended = &ended;
            scope.spawn(move || {
                let mut client = busy_node;
                let sleeps = servers::encoded(&[b"DEBUG", b"SLEEP", b"0.01"]).repeat(10);
                while !ended.load(Relaxed) {
                    client.send(&sleeps);
                    (0..10).for_each(|_| assert_eq!(client.reply(), b"+OK\r\n"));
                }
            });
            let only_the_near_one = || {
                let before = (reads(busy), reads(near));
                (0..20).for_each(|_| assert_eq!(client.tell("GET bar"), "$1\r\n1\r\n"));
                (reads(busy) == before.0 && reads(near) == before.1 + 20).to_string()
            };
            eventually(only_the_near_one, "true");
        });
    }
}

/// Says that it is over, also when a test fails.
struct Ending<'e>(&'e AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_cluster_that_is_being_formed_is_known_as_soon_as_it_is_whole() {
    let nodes = Nodes::start(1, &[]);
    nodes.tell(0, "CLUSTER ADDSLOTSRANGE 0 100");
    // A minute until it is asked again.
    let (proxy, _) = nodes.proxy(&["refresh: 60s"], &[0]);
    let mut client = proxy.connect();
    let reply = client.tell("SET foo 1");
    assert!(reply.contains("no node of the cluster"), "{reply}");
    nodes.tell(0, "CLUSTER ADDSLOTSRANGE 101 16383");
    eventually(|| client.tell("SET foo 1"), "+OK\r\n");
}

#[test]
fn a_cluster_that_comes_late_or_moves_is_found() {
    let mut nodes = Nodes::start(3, &[]);
    let (proxy, admin) = nodes.proxy(&[], &[0, 1, 2]);
    let mut client = proxy.connect();
    assert_eq!(client.tell("GET a"), "-ERR no node of the cluster is known to serve the slot\r\n");
    assert_eq!(get(&admin, "/ready"), "pool pool: the topology of the cluster is not known yet\n");
    nodes.form(3);
    eventually(|| client.tell("SET foo 1"), "+OK\r\n");
    eventually(|| get(&admin, "/ready"), "ready\n");
    assert_eq!(client.tell("SET bar 1"), "+OK\r\n");
    // The owner of "foo" comes back elsewhere; the others tell where.
    nodes.restart(2, true, false);
    eventually(|| client.tell("SET foo 2"), "+OK\r\n");
    assert_eq!(client.tell("GET bar"), "$1\r\n1\r\n");
}

#[test]
fn a_plain_pool_can_become_a_cluster_while_it_is_served() {
    let shard = Server::redis(&[]);
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    let lines = [shard.line(0)];
    let proxy = Server::memstore_over(&[], &lines);
    let mut client = proxy.connect();
    assert_eq!(client.tell("SET foo plain"), "+OK\r\n");
    let cluster = format!("cluster: {{seeds: [{}]}}", nodes.place(1));
    for (settings, lines, reply) in [(&[&*cluster][..], &[][..], "$-1\r\n"), (&[], &lines, "$5\r\nplain\r\n")]
    {
        let before = proxy.printed().matches(" reloaded ").count();
        proxy.rewrite(settings, lines);
        proxy.signal("HUP");
        eventually(|| (proxy.printed().matches(" reloaded ").count() > before).to_string(), "true");
        assert_eq!(client.tell("GET foo"), reply);
    }
}

#[test]
fn nodes_with_a_password_and_a_user() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    for number in 0..3 {
        nodes.tell(number, "ACL SETUSER app on >secret ~* +@all");
        nodes.tell(number, "ACL SETUSER default resetpass >closed");
    }
    let seeds = format!("cluster: {{seeds: [{}]}}", nodes.place(0));
    let settings = [&*seeds, "redis_auth: secret", "redis_user: app"];
    let (proxy, _) = Server::memstore_with_admin(&settings, &[], &[]);
    let mut client = proxy.connect();
    assert_eq!(client.tell("AUTH app secret"), "+OK\r\n");
    eventually(|| client.tell("SET foo 1"), "+OK\r\n");
    assert_eq!(client.tell("MSET a 1 b 2 c 3"), "+OK\r\n");
}

/// The metrics of a page as rows of a table: name, kind, labels and meaning, in the order of the page.
fn described(page: &str) -> String {
    let mut rows: Vec<(String, String, Vec<String>, String)> = Vec::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            rows.push((name.to_owned(), String::new(), Vec::new(), help.to_owned()));
        } else if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            rows.last_mut().expect("HELP stands first").1 = kind.to_owned();
        } else if let Some((_, labels)) = line.rsplit_once("} ").and_then(|(name, _)| name.split_once('{')) {
            let known = &mut rows.last_mut().expect("HELP stands first").2;
            for label in labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0)) {
                if label != "le" && !known.iter().any(|known| known == label) {
                    known.push(label.to_owned());
                }
            }
        }
    }
    // Of those nothing is there where no shard fails, and without TLS.
    let seldom = [
        ("memstore_shard_failures_total", "pool, shard, reason"),
        ("memstore_tls_certificate_not_after_seconds", "pool, side, file"),
    ];
    let mut table = String::from("| Metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for (name, kind, mut labels, help) in rows {
        if let Some((_, known)) = seldom.iter().find(|(seldom, _)| *seldom == name && labels.is_empty()) {
            labels.push((*known).to_owned());
        }
        table.push_str(&format!(
            "| `{name}` | {kind} | {} | {} |\n",
            labels.join(", "),
            help.replace('|', "\\|")
        ));
    }
    table
}

#[test]
fn the_table_of_metrics_in_the_docs_is_the_codes() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    // A pool over a cluster has all metrics that there are.
    let (proxy, admin) = nodes.proxy(&[], &[0]);
    assert_eq!(proxy.connect().tell("SET a 1"), "+OK\r\n");
    let table = described(&get(&admin, "/metrics"));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = std::fs::read_to_string(&path).expect("docs/metrics.md");
    let start = page.find("| Metric |").expect("the table");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{}{table}", &page[..start])).expect("docs/metrics.md can be written");
        return;
    }
    for (kept, told) in page[start..].lines().zip(table.lines()) {
        assert_eq!(kept, told, "`make metrics` writes the table of docs/metrics.md");
    }
    assert_eq!(page[start..], table, "`make metrics` writes the table of docs/metrics.md");
}
