//! `memstore cluster reconcile` over real nodes: it forms a cluster, heals it, makes it larger and smaller.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use servers::cluster::Nodes;
use servers::eventually;
use servers::names::Names;

mod servers;

impl Reconcile<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memstore"));
        command.args(["cluster", "reconcile", "--once"]);
        if !self.flags.contains(&"--limit") {
            command.args(["--limit", "5m"]);
        }
        command.args(["--primaries", &self.primaries.to_string()]);
        if !self.flags.contains(&"--nodes") {
            for number in 0..self.nodes.nodes.len() {
                command.args(["--nodes", &self.nodes.place(number)]);
            }
        }
        command.args(self.flags).stdin(Stdio::null());
        command
    }

    fn output(&self) -> Output {
        self.command().output().expect("the program is built")
    }

    /// What it says; it has to come to its end.
    fn succeeds(&self) -> String {
        let output = self.output();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// What it says; it has to leave things as they are.
    fn refuses(&self) -> String {
        let output = self.output();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success() && !said.contains("do: "), "{said}");
        said
    }
}

/// How a cluster is meant to be.
struct Reconcile<'n> {
    nodes: &'n Nodes,
    primaries: usize,
    flags: &'n [&'n str],
}

/// Nodes that own slots, by number, with how many.
fn owners(nodes: &Nodes) -> Vec<(usize, usize)> {
    let mut owners = Vec::new();
    for number in 0..nodes.nodes.len() {
        let lines = nodes.ask(number, "CLUSTER NODES");
        let own = lines.lines().find(|line| line.contains("myself")).expect("every node knows itself");
        let slots: usize = own
            .split(' ')
            .skip(8)
            .filter(|word| !word.starts_with('['))
            .map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                last.parse::<usize>().expect("a slot") - first.parse::<usize>().expect("a slot") + 1
            })
            .sum();
        if slots > 0 {
            owners.push((number, slots));
        }
    }
    owners
}

/// A thousand keys over the whole cluster.
fn fill(client: &mut servers::Client) {
    for number in 0..1000 {
        assert_eq!(client.tell(&format!("SET key:{number} {number}")), "+OK\r\n");
    }
}

fn is_right(number: usize, reply: &[u8]) -> bool {
    reply == format!("${}\r\n{number}\r\n", number.to_string().len()).as_bytes()
}

/// All together.
fn check(client: &mut servers::Client) {
    let keys: Vec<String> = (0..1000).map(|number| format!("key:{number}")).collect();
    let all: Vec<u8> = keys.iter().flat_map(|key| servers::encoded(&[b"GET", key.as_bytes()])).collect();
    client.send(&all);
    let replies: Vec<Vec<u8>> = keys.iter().map(|_| client.reply()).collect();
    let wrong: Vec<(usize, String)> = replies
        .iter()
        .enumerate()
        .filter(|(number, reply)| !is_right(*number, reply))
        .map(|(number, reply)| (number, servers::shown(reply)))
        .collect();
    assert!(wrong.is_empty(), "{} values are wrong, such as {:?}", wrong.len(), wrong[0]);
}

/// Again and again, at a pace that leaves the processors to the nodes.
fn check_while(client: &mut servers::Client, mut is_under_way: impl FnMut() -> bool) {
    while is_under_way() {
        check(client);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How many primaries a cluster of three grows to: each more is some thousand slots that move twice.
fn grown_primaries() -> usize {
    std::env::var("GROWN_PRIMARIES").map_or(4, |count| count.parse().expect("a number"))
}

#[test]
fn a_cluster_forms_grows_and_shrinks_while_it_is_used() {
    let primaries = grown_primaries();
    let mut nodes = Nodes::start(6, &[]);
    let begin = Instant::now();
    Reconcile { nodes: &nodes, primaries: 3, flags: &[] }.succeeds();
    println!("formed in {:?}", begin.elapsed());
    nodes.is_well();
    assert_eq!(owners(&nodes).len(), 3);
    let said = Reconcile { nodes: &nodes, primaries: 3, flags: &[] }.succeeds();
    assert_eq!(said, "the cluster is in the desired state\n");
    let (proxy, _) = nodes.proxy(&[], &[0]);
    let mut client = proxy.connect();
    fill(&mut client);
    // One value that takes long to move.
    let large = "x".repeat(50 << 20);
    client.send(&servers::encoded(&[b"SET", b"large", large.as_bytes()]));
    assert_eq!(client.reply(), b"+OK\r\n");
    for _ in 0..2 * (primaries - 3) {
        nodes.add();
    }
    let begin = Instant::now();
    let said = std::thread::scope(|scope| {
        let grows = scope.spawn(|| Reconcile { nodes: &nodes, primaries, flags: &[] }.succeeds());
        check_while(&mut client, || !grows.is_finished());
        grows.join().expect("it grows")
    });
    // No node has copied the keys of another one than that which it follows in the end.
    for number in 6..nodes.nodes.len() {
        assert!(said.matches(&format!("do: node {number}: replicate node ")).count() < 2, "{said}");
    }
    println!("grown from 3 to {primaries} in {:?}", begin.elapsed());
    let (grown, share) = (owners(&nodes), 16384 / primaries);
    assert_eq!(grown.len(), primaries, "{grown:?}");
    assert!(grown.iter().all(|(_, slots)| slots.abs_diff(share) <= 75), "{grown:?}");
    check(&mut client);
    let (begin, nodes) = (Instant::now(), &nodes);
    std::thread::scope(|scope| {
        let flags = ["--drain-from", "6"];
        let shrinks = scope.spawn(move || Reconcile { nodes, primaries: 3, flags: &flags }.succeeds());
        check_while(&mut client, || !shrinks.is_finished());
        shrinks.join().expect("it shrinks");
    });
    println!("shrunk from {primaries} to 3 in {:?}", begin.elapsed());
    check(&mut client);
    assert_eq!(client.tell("STRLEN large"), format!(":{}\r\n", 50 << 20));
}

#[test]
fn ended_after_every_step_and_begun_again_it_comes_to_the_same_end() {
    let mut nodes = Nodes::start(4, &[]);
    let finish = |nodes: &Nodes, primaries: usize, flags: &[&str]| {
        let (mut rounds, begin) = (0, Instant::now());
        let flags = [flags, &["--steps", "1"]].concat();
        while !(Reconcile { nodes, primaries, flags: &flags }).output().status.success() {
            rounds += 1;
            assert!(begin.elapsed() < Duration::from_secs(300), "it gets nowhere");
        }
        rounds
    };
    println!("formed in {} rounds", finish(&nodes, 2, &[]));
    nodes.is_well();
    assert_eq!(owners(&nodes), [(0, 8192), (1, 8192)]);
    let (proxy, _) = nodes.proxy(&[], &[0]);
    let mut client = proxy.connect();
    fill(&mut client);
    nodes.add();
    println!("grown in {} rounds", finish(&nodes, 3, &[]));
    assert_eq!(owners(&nodes).len(), 3);
    check(&mut client);
    println!("shrunk in {} rounds", finish(&nodes, 2, &["--drain-from", "4"]));
    check(&mut client);
}

/// A node that was drained and is alone refuses the requests of whoever still believes that it owns slots.
#[test]
fn pipelines_of_a_proxy_that_has_heard_of_nothing_find_the_new_owners() {
    let nodes = Nodes::start(4, &[]);
    Reconcile { nodes: &nodes, primaries: 4, flags: &[] }.succeeds();
    let (proxy, _) = nodes.proxy(&["refresh: 1h"], &[0]);
    let mut client = proxy.connect();
    fill(&mut client);
    let said = Reconcile { nodes: &nodes, primaries: 3, flags: &["--drain-from", "3"] }.succeeds();
    assert!(said.contains("waiting 6s for clients to discover the new slot owners\n"), "{said}");
    assert_eq!(nodes.ask(3, "GET key:1"), "-CLUSTERDOWN Hash slot not served");
    check(&mut client);
}

#[test]
fn killed_in_the_middle_of_moves_it_finishes_them() {
    let mut nodes = Nodes::start(2, &[]);
    Reconcile { nodes: &nodes, primaries: 2, flags: &[] }.succeeds();
    let (proxy, _) = nodes.proxy(&[], &[0]);
    let mut client = proxy.connect();
    fill(&mut client);
    nodes.add();
    for millis in [900, 1300, 700, 1700, 1000, 1500] {
        let mut process = Reconcile { nodes: &nodes, primaries: 3, flags: &[] }
            .command()
            .stdout(Stdio::null())
            .spawn()
            .expect("the program is built");
        let begin = Instant::now();
        check_while(&mut client, || {
            begin.elapsed() < Duration::from_millis(millis)
                && process.try_wait().expect("our child").is_none()
        });
        let _ = process.kill();
        let _ = process.wait();
    }
    Reconcile { nodes: &nodes, primaries: 3, flags: &[] }.succeeds();
    assert_eq!(owners(&nodes).len(), 3);
    check(&mut client);
    let states: String = (0..3).map(|number| nodes.ask(number, "CLUSTER NODES")).collect();
    assert!(!states.contains('['), "{states}");
}

#[test]
fn nodes_that_all_come_back_elsewhere_find_each_other() {
    let mut nodes = Nodes::start(6, &[]);
    Reconcile { nodes: &nodes, primaries: 3, flags: &[] }.succeeds();
    let before = owners(&nodes);
    let ids: Vec<String> = (0..6).map(|number| nodes.id(number)).collect();
    for number in 0..6 {
        nodes.kill(number);
    }
    for number in 0..6 {
        nodes.restart(number, true, false);
    }
    let begin = Instant::now();
    Reconcile { nodes: &nodes, primaries: 3, flags: &[] }.succeeds();
    println!("healed in {:?}", begin.elapsed());
    nodes.is_well();
    let now: Vec<String> = (0..6).map(|number| nodes.id(number)).collect();
    assert_eq!(ids, now);
    // A replica may have taken over while they were apart.
    assert_eq!(owners(&nodes).len(), before.len());
}

#[test]
fn a_node_that_lost_its_disk_is_replaced() {
    let mut nodes = Nodes::start(6, &[]);
    Reconcile { nodes: &nodes, primaries: 3, flags: &[] }.succeeds();
    let (proxy, _) = nodes.proxy(&[], &[1]);
    let mut client = proxy.connect();
    fill(&mut client);
    // A primary streams writes to a new replica only once that has acknowledged its first copy, up to a second after the
    // link is up: src/replication.c, repl_start_cmd_stream_on_ack.
    eventually(|| nodes.ask(3, "DBSIZE"), &nodes.ask(0, "DBSIZE"));
    let lost = nodes.id(0);
    nodes.kill(0);
    // Before that it would take the empty node for its primary, and be empty too.
    eventually(|| nodes.ask(3, "CLUSTER NODES").contains("myself,master").to_string(), "true");
    nodes.restart(0, false, true);
    Reconcile { nodes: &nodes, primaries: 3, flags: &[] }.succeeds();
    for number in 0..6 {
        assert!(!nodes.ask(number, "CLUSTER NODES").contains(&lost), "node {number}");
    }
    eventually(|| client.tell("GET key:1"), "$1\r\n1\r\n");
    check(&mut client);
}

#[test]
fn what_could_lose_keys_is_refused() {
    let mut nodes = Nodes::start(3, &[]);
    let said = Reconcile { nodes: &nodes, primaries: 3, flags: &["--dry-run"] }.output();
    assert!(!said.status.success());
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("do: node 0: set config epoch 1"), "{said}");
    assert!(nodes.ask(0, "CLUSTER NODES").contains("myself,master - 0 0 0"));
    Reconcile { nodes: &nodes, primaries: 3, flags: &[] }.succeeds();
    let (proxy, _) = nodes.proxy(&[], &[0]);
    fill(&mut proxy.connect());
    // Nobody has its keys.
    nodes.restart(2, false, true);
    let mut refused = Reconcile { nodes: &nodes, primaries: 3, flags: &[] }
        .command()
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program is built");
    let told = BufReader::new(refused.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let is_told = told.into_iter().any(|line| line.contains("no replica has them; to assign them"));
    let _ = (refused.kill(), refused.wait());
    assert!(is_told, "it ends without a word about the slots");
    Reconcile { nodes: &nodes, primaries: 3, flags: &["--fix-missing-slots"] }.succeeds();
    assert_eq!(owners(&nodes).len(), 3);
    // Two that know nothing of each other.
    let other = Nodes::start(1, &[]);
    other.tell(0, "CLUSTER ADDSLOTSRANGE 0 16383");
    let places = [nodes.place(0), nodes.place(1), nodes.place(2), other.place(0)];
    let mut flags = vec!["--limit", "1s"];
    flags.extend(places.iter().flat_map(|place| ["--nodes", place]));
    let both = Reconcile { nodes: &nodes, primaries: 3, flags: &flags };
    assert!(both.refuses().contains("two clusters that both own slots"));
}

#[test]
fn nodes_that_are_to_leave_are_found_by_their_names() {
    let mut nodes = Nodes::start(5, &[]);
    Reconcile { nodes: &nodes, primaries: 5, flags: &[] }.succeeds();
    let (proxy, _) = nodes.proxy(&[], &[0]);
    let mut client = proxy.connect();
    fill(&mut client);
    let names = Names::start();
    for number in [0, 1, 2, 4] {
        names.set(&format!("node-{number}"), &[nodes.nodes[number].address]);
    }
    let (template, server) =
        (format!("node-{{}}.cache.test.:{}", nodes.port), format!("127.0.0.1:{}", names.port));
    let drain = ["--nodes", &template, "--dns-server", &server, "--drain-from", "3", "--limit", "10s"];
    // One that has no name for the moment is not overlooked.
    let said = Reconcile { nodes: &nodes, primaries: 3, flags: &drain }.output();
    assert!(!said.status.success());
    assert_eq!(owners(&nodes).len(), 5);
    names.set("node-3", &[nodes.nodes[3].address]);
    // Who only heals moves no slots.
    let heal =
        ["--nodes", &template, "--dns-server", &server, "--keep-slots", "--count", "5", "--limit", "5m"];
    Reconcile { nodes: &nodes, primaries: 3, flags: &heal }.succeeds();
    assert_eq!(owners(&nodes).len(), 5);
    let drain = [&drain[..6], &["--limit", "5m"]].concat();
    Reconcile { nodes: &nodes, primaries: 3, flags: &drain }.succeeds();
    assert_eq!(owners(&nodes).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2]);
    check(&mut client);
    for number in [3, 4] {
        names.set(&format!("node-{number}"), &[]);
        nodes.kill(number);
    }
    let said = Reconcile { nodes: &nodes, primaries: 3, flags: &drain }.succeeds();
    assert_eq!(said, "no node from ordinal 3 on exists: nothing to drain\n");
    // Nor is one overlooked that owns slots and has no name for the moment.
    let others = ["--nodes", &template, "--dns-server", &server, "--drain-from", "2", "--limit", "4s"];
    names.set("node-2", &[]);
    let said = Reconcile { nodes: &nodes, primaries: 2, flags: &others }.output();
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(!said.status.success() && words.contains("start it first"), "{words}");
    names.set("node-2", &[nodes.nodes[2].address]);
    // A name server that says nothing does not say that there is nobody.
    let silent = format!("127.0.0.1:{}", servers::unused_port());
    let flags = ["--nodes", &template, "--dns-server", &silent, "--drain-from", "3", "--limit", "2s"];
    let said = Reconcile { nodes: &nodes, primaries: 3, flags: &flags }.output();
    assert!(!said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
}

#[test]
fn replicas_that_stay_take_over_from_primaries_that_leave() {
    let nodes = Nodes::start(6, &[]);
    Reconcile { nodes: &nodes, primaries: 3, flags: &["--replicas", "1"] }.succeeds();
    let (proxy, _) = nodes.proxy(&[], &[0]);
    let mut client = proxy.connect();
    fill(&mut client);
    for number in 3..6 {
        let takes_over = || {
            // A failover may fail; it is asked for until it does not.
            let _ = nodes.ask(number, "CLUSTER FAILOVER");
            nodes.ask(number, "CLUSTER NODES").contains("myself,master").to_string()
        };
        eventually(takes_over, "true");
    }
    let numbers = || format!("{:?}", owners(&nodes).iter().map(|(number, _)| *number).collect::<Vec<_>>());
    eventually(numbers, "[3, 4, 5]");
    Reconcile { nodes: &nodes, primaries: 3, flags: &["--drain-from", "3"] }.succeeds();
    eventually(numbers, "[0, 1, 2]");
    check(&mut client);
}

/// Two primaries with a thousand keys, and a replica each that came later: it got them as a dump.
fn pairs(settings: &[&str]) -> Nodes {
    let mut nodes = Nodes::start(2, settings);
    Reconcile { nodes: &nodes, primaries: 2, flags: &[] }.succeeds();
    fill(&mut nodes.proxy(&[], &[0]).0.connect());
    nodes.add();
    nodes.add();
    Reconcile { nodes: &nodes, primaries: 2, flags: &["--replicas", "1"] }.succeeds();
    nodes
}

/// Another run was ended when the node was alone, and had yet to be emptied.
fn leave_unfinished(nodes: &Nodes, leaving: &[usize]) {
    for &number in leaving {
        let id = nodes.id(number);
        for other in (0..nodes.nodes.len()).filter(|&other| other != number) {
            let said = nodes.ask(other, &format!("CLUSTER FORGET {id}"));
            assert!(said == "+OK" || said.contains("Unknown node"), "{said}");
        }
        nodes.tell(number, "CLUSTER RESET SOFT");
    }
}

/// Starts it again with what it has on disk.
fn start_again(nodes: &mut Nodes, number: usize) {
    nodes.restart(number, false, false);
    eventually(|| nodes.ask(number, "DBSIZE").contains("LOADING").to_string(), "false");
}

fn is_empty_also_when_started_again(nodes: &mut Nodes, number: usize) {
    start_again(nodes, number);
    assert_eq!(nodes.ask(number, "DBSIZE"), ":0", "node {number}");
    assert!(nodes.ask(number, "CLUSTER INFO").contains("cluster_slots_assigned:0\r"), "node {number}");
}

const SHRINK: [&str; 2] = ["--drain-from", "2"];

/// It has a copy of its primary on disk: as an append-only file, or only as the dump that came when it began to follow.
#[test]
fn a_replica_that_has_left_is_empty_also_when_it_is_started_again() {
    for settings in [&["--appendonly", "yes"][..], &[]] {
        let mut nodes = pairs(settings);
        // Meanwhile the server saves by itself.
        for number in [2, 3] {
            nodes.tell(number, "CONFIG SET rdb-key-save-delay 1000000");
            nodes.ask(number, "BGSAVE");
        }
        Reconcile { nodes: &nodes, primaries: 2, flags: &SHRINK }.succeeds();
        for number in [2, 3] {
            is_empty_also_when_started_again(&mut nodes, number);
        }
    }
}

#[test]
fn a_node_that_was_left_with_its_keys_is_emptied_by_the_next_run() {
    let mut nodes = pairs(&[]);
    leave_unfinished(&nodes, &[2, 3]);
    Reconcile { nodes: &nodes, primaries: 2, flags: &SHRINK }.succeeds();
    for number in [2, 3] {
        is_empty_also_when_started_again(&mut nodes, number);
    }
    // Nor does it come back with them where it is wanted again.
    let mut nodes = pairs(&[]);
    leave_unfinished(&nodes, &[2]);
    Reconcile { nodes: &nodes, primaries: 3, flags: &[] }.succeeds();
    start_again(&mut nodes, 2);
    assert_eq!(nodes.ask(2, "DBSIZE"), ":0");
}

#[test]
fn a_disk_that_cannot_be_emptied_is_told() {
    let nodes = pairs(&[]);
    let dump = nodes.nodes[3].folder.join("dump.rdb");
    std::fs::remove_file(&dump).expect("its primary has sent it");
    // Nothing can be written there, whoever tries.
    std::fs::create_dir_all(dump.join("in-the-way")).expect("it is ours");
    let shrink = [&SHRINK[..], &["--limit", "12s"]].concat();
    for _ in 0..2 {
        let ended = Reconcile { nodes: &nodes, primaries: 2, flags: &shrink }.output();
        let words = String::from_utf8_lossy(&ended.stderr).into_owned();
        let told = "node 3 has left the cluster, and may have its keys on disk: SAVE";
        assert!(!ended.status.success() && words.contains(told), "{words}");
    }
    std::fs::remove_dir_all(&dump).expect("it is ours");
    Reconcile { nodes: &nodes, primaries: 2, flags: &shrink }.succeeds();
    assert!(dump.is_file());
}

/// It was started again before it was emptied: it owns what it has, and nobody but people can tell that from another store.
#[test]
fn keys_that_came_back_with_a_node_that_had_left_replace_nothing() {
    let mut nodes = pairs(&[]);
    leave_unfinished(&nodes, &[2, 3]);
    for number in [2, 3] {
        start_again(&mut nodes, number);
        assert_ne!(nodes.ask(number, "DBSIZE"), ":0");
        // Where nodes disagree about a slot, the higher epoch wins.
        let said = nodes.ask(number, "CLUSTER BUMPEPOCH");
        assert!(said.starts_with("+BUMPED") || said.starts_with("+STILL"), "{said}");
    }
    let (proxy, _) = nodes.proxy(&[], &[0]);
    let mut client = proxy.connect();
    assert_eq!(client.tell("SET key:1 newer"), "+OK\r\n");
    let limit = ["--limit", "1s"];
    for flags in [&limit[..], &[&SHRINK[..], &limit].concat()] {
        let said = Reconcile { nodes: &nodes, primaries: 2, flags }.refuses();
        assert!(said.contains("to empty nodes {2}") && said.contains("--merge"), "{said}");
    }
    Reconcile { nodes: &nodes, primaries: 2, flags: &["--replicas", "1", "--merge"] }.succeeds();
    assert_eq!(owners(&nodes), [(0, 8192), (1, 8192)]);
    assert_eq!(client.tell("GET key:1"), "$5\r\nnewer\r\n");
    assert_eq!(client.tell("SET key:1 1"), "+OK\r\n");
    check(&mut client);
}

#[test]
fn replicas_that_become_primaries_have_nothing_of_before() {
    let mut nodes = pairs(&[]);
    let (proxy, _) = nodes.proxy(&[], &[0]);
    let mut client = proxy.connect();
    Reconcile { nodes: &nodes, primaries: 4, flags: &[] }.succeeds();
    assert_eq!(owners(&nodes).len(), 4);
    check(&mut client);
    for number in [2, 3] {
        start_again(&mut nodes, number);
        assert_eq!(nodes.ask(number, "DBSIZE"), ":0");
    }
}

/// As the reconciler of a release sees it between the shrink and the end of the pods. Replicas that were added later have
/// no epoch of their own.
#[test]
fn a_node_that_was_sent_away_is_not_called_back_by_whoever_only_heals() {
    let nodes = pairs(&[]);
    Reconcile { nodes: &nodes, primaries: 2, flags: &SHRINK }.succeeds();
    Reconcile { nodes: &nodes, primaries: 2, flags: &["--keep-slots", "--limit", "20s"] }.succeeds();
    for number in [2, 3] {
        assert_eq!(nodes.ask(number, "CLUSTER NODES").lines().count(), 1, "node {number}");
    }
}

#[test]
fn a_newer_run_takes_the_place_of_an_older_one() {
    let nodes = Nodes::start(4, &[]);
    Reconcile { nodes: &nodes, primaries: 4, flags: &[] }.succeeds();
    // It cannot come to its end: there are no replicas.
    let older = Reconcile { nodes: &nodes, primaries: 4, flags: &["--replicas", "1"] };
    let mut older = older.command().stdout(Stdio::piped()).spawn().expect("the program is built");
    eventually(|| nodes.ask(0, "PUBSUB NUMSUB memstore:reconcile").ends_with(":1").to_string(), "true");
    Reconcile { nodes: &nodes, primaries: 3, flags: &["--drain-from", "3"] }.succeeds();
    let ended = older.wait().expect("it ends");
    let mut said = String::new();
    let _ = older.stdout.take().expect("piped").read_to_string(&mut said);
    assert!(ended.success() && said.contains("superseded by a newer run"), "{said}");
    assert_eq!(owners(&nodes).len(), 3);
}
