//! Events of keys over real servers: what clients set is set on every shard and again where it is lost, and each event reaches each
//! subscriber once.

use std::collections::BTreeMap;

use servers::cluster::Nodes;
use servers::{Client, Server, eventually};

mod servers;

const FLAGS: &str = "CONFIG GET notify-keyspace-events";

fn flags(text: &str) -> String {
    format!("*2\r\n$22\r\nnotify-keyspace-events\r\n${}\r\n{text}\r\n", text.len())
}

/// What the client hears until this text comes, each with how often.
fn heard(client: &mut Client, last: &str) -> BTreeMap<String, usize> {
    let mut heard = BTreeMap::new();
    loop {
        let reply = String::from_utf8_lossy(&client.reply()).into_owned();
        let words: Vec<&str> = reply.split("\r\n").skip(2).step_by(2).collect();
        let said = words.join(" ");
        if said.contains(last) {
            return heard;
        }
        *heard.entry(said.trim_end().to_owned()).or_default() += 1;
    }
}

#[test]
fn flags_are_added_on_all_shards_and_set_again() {
    let mut shards: Vec<Server> =
        ["", "h", ""].iter().map(|own| Server::redis(&["--notify-keyspace-events", own])).collect();
    let proxy = Server::memstore_of(2, &["pubsub: owner"], &shards);
    let (mut one, mut other) = (proxy.connect(), proxy.connect());
    let mut direct: Vec<Client> = shards.iter().map(Server::connect).collect();
    assert!(one.tell("CONFIG SET notify-keyspace-events EQ").contains("Invalid event class character"));
    assert_eq!(direct[0].tell(FLAGS), flags(""), "nothing was changed");
    assert_eq!(one.tell("CONFIG SET notify-keyspace-events Ex"), "+OK\r\n");
    let told: Vec<String> = direct.iter_mut().map(|client| client.tell(FLAGS)).collect();
    assert_eq!(told, [flags("xE"), flags("hxE"), flags("xE")]);
    // Whoever takes some away takes nothing from others.
    assert_eq!(other.tell("CONFIG SET notify-keyspace-events K$"), "+OK\r\n");
    assert_eq!(
        other.tell("CONFIG SET notify-keyspace-events"),
        "-ERR wrong number of arguments for 'config|set' command\r\n"
    );
    let told: Vec<String> = direct.iter_mut().map(|client| client.tell(FLAGS)).collect();
    assert_eq!(told, [flags("$xKE"), flags("$hxKE"), flags("$xKE")]);
    eventually(|| one.tell(FLAGS), &flags("$hxKE"));
    eventually(|| other.tell(FLAGS), &flags("$hxKE"));

    let mut subscriber = proxy.connect();
    assert!(subscriber.tell("PSUBSCRIBE __keyevent@*__:*").contains("psubscribe"));
    assert!(subscriber.tell("SUBSCRIBE __keyevent@0__:set").contains("subscribe"));
    for key in 0..30 {
        assert_eq!(one.tell(&format!("SET key-{key} 1")), "+OK\r\n");
    }
    assert!(one.tell("SET gone 1 PX 1").starts_with("+OK"));
    let mut events = heard(&mut subscriber, "__keyevent@0__:expired gone");
    assert_eq!(events.remove("pmessage __keyevent@*__:* __keyevent@0__:set gone"), Some(1));
    assert_eq!(events.remove("message __keyevent@0__:set gone"), Some(1));
    assert_eq!(events.len(), 60, "{events:?}");
    assert!(events.values().all(|&times| times == 1));

    // One that comes back without them.
    let line = shards[0].line(0);
    let port = line.split(':').nth(1).and_then(|port| port.parse().ok()).expect("a port");
    drop((direct, shards.remove(0)));
    let back = Server::redis_at(port);
    let mut direct = back.connect();
    eventually(|| direct.tell(FLAGS), &flags("$xKE"));
    // A key of it is heard of once the proxy is subscribed again.
    eventually(
        || (direct.tell("PUBSUB NUMPAT") == ":2\r\n" || direct.tell("PUBSUB NUMPAT") == ":1\r\n").to_string(),
        "true",
    );
    assert!(direct.tell("SET back 1").starts_with("+OK"));
    let events = heard(&mut subscriber, "__keyevent@0__:set back");
    assert!(events.is_empty(), "{events:?}");
}

/// What the nodes of a cluster tell of their keys, beside what is published.
#[test]
fn events_of_all_nodes_are_heard() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    let (proxy, _admin) = nodes.proxy(&[], &[0, 1, 2]);
    let mut client = proxy.connect();
    assert_eq!(client.tell("CONFIG SET notify-keyspace-events KE$"), "+OK\r\n");
    for number in 0..3 {
        assert!(nodes.connect(number).tell(FLAGS).contains("$KE"));
    }
    let mut subscriber = proxy.connect();
    assert!(subscriber.tell("PSUBSCRIBE *").contains("psubscribe"));
    for key in 0..30 {
        assert_eq!(client.tell(&format!("SET key-{key} 1")), "+OK\r\n");
        assert!(client.tell(&format!("PUBLISH news-{key} {key}")).starts_with(':'));
    }
    // What comes of other nodes has no order beside it.
    let mut all = BTreeMap::new();
    for _ in 0..90 {
        let reply = String::from_utf8_lossy(&subscriber.reply()).into_owned();
        *all.entry(reply).or_insert(0) += 1;
    }
    assert_eq!(all.len(), 90);
    assert_eq!(subscriber.tell("PING"), "*2\r\n$4\r\npong\r\n$0\r\n\r\n", "and nothing more");
}

/// Each time all shards are connected to.
#[test]
fn flags_that_are_refused_over_and_over_reach_the_shards_now_and_then() {
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&[], &shards);
    let received = || {
        let info = shards[0].connect().tell("INFO stats");
        let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.expect("it is said").trim().parse::<u32>().expect("a number")
    };
    let mut client = proxy.connect();
    let before = received();
    let replies: Vec<String> = (0..300).map(|_| client.tell("CONFIG SET notify-keyspace-events Q")).collect();
    assert!(replies[0].contains("Invalid event class character"), "{}", replies[0]);
    let refused = replies.iter().filter(|reply| reply.contains("try again in a second")).count();
    assert!(refused > 200, "{refused} were not passed on");
    assert!(received() - before < 100, "{} connections", received() - before);
    // They are in the way of nobody who asks for others.
    for letter in ["K", "E", "x", "KExn"] {
        assert!(client.tell("CONFIG SET notify-keyspace-events KEgQ").starts_with('-'));
        let mut other = proxy.connect();
        assert_eq!(other.tell(&format!("CONFIG SET notify-keyspace-events {letter}")), "+OK\r\n");
    }
}

/// While the shard does not answer few wait for it, whoever asks and goes, and the others are told at once.
#[test]
fn few_wait_for_a_shard_that_hangs() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &[shards[0].line(0)], &[]);
    let mut before = proxy.connect();
    assert_eq!(before.tell("SET key 1"), "+OK\r\n");
    shards[0].signal("STOP");
    let mut clients: Vec<Client> = (0..200).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.begin("CONFIG SET notify-keyspace-events K");
    }
    let replies: Vec<String> =
        clients.iter_mut().map(|client| String::from_utf8_lossy(&client.reply()).into_owned()).collect();
    let refused = replies.iter().filter(|reply| reply.contains("too many clients wait")).count();
    // One or more have the round that is under way, 64 the next one.
    assert!((70..=135).contains(&refused), "{refused}: {replies:?}");
    let silent = |reply: &&String| reply.contains("timed out") || reply.contains("in time");
    assert_eq!(replies.iter().filter(silent).count(), 200 - refused, "{replies:?}");
    let line = format!("memstore_events_refused_total{{pool=\"pool\"}} {refused}");
    assert!(servers::metrics(&admin).contains(&line), "{line}");
    shards[0].signal("CONT");
    let told = || proxy.connect().tell("CONFIG SET notify-keyspace-events K");
    eventually(told, "+OK\r\n");
}
