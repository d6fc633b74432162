//! SCAN over real servers: keys that are there all the time are named, whatever others write meanwhile and whichever proxy goes on.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use servers::cluster::Nodes;
use servers::{Client, Server, encoded, eventually};

mod servers;

/// The next cursor and the keys of a page, or its error.
fn page(client: &mut Client, request: &str) -> Result<(String, Vec<String>), String> {
    let reply = client.tell(request);
    if reply.starts_with('-') {
        return Err(reply);
    }
    let mut lines = reply.split("\r\n").skip(2).step_by(2);
    let cursor = reply.split("\r\n").nth(2).expect("a cursor").to_owned();
    lines.next();
    let keys = reply.split("\r\n").skip(5).step_by(2).filter(|key| !key.is_empty()).map(str::to_owned);
    Ok((cursor, keys.collect()))
}

/// All keys that a scan names, page by page of another client, and how many pages there were.
fn scan(clients: &mut [Client], options: &str) -> Result<(HashSet<String>, usize), String> {
    let (mut cursor, mut seen, mut pages) = ("0".to_owned(), HashSet::new(), 0);
    loop {
        let client = &mut clients[pages % clients.len().max(1)];
        let (next, keys) = page(client, &format!("SCAN {cursor}{options}"))?;
        seen.extend(keys);
        pages += 1;
        cursor = next;
        if cursor == "0" {
            return Ok((seen, pages));
        }
        assert!(cursor.parse::<u64>().expect("a number") < 1 << 53);
    }
}

fn fill(client: &mut Client, names: impl Iterator<Item = String>) -> HashSet<String> {
    let names: Vec<String> = names.collect();
    for some in names.chunks(1_000) {
        let bytes: Vec<u8> = some.iter().flat_map(|name| encoded(&[b"SET", name.as_bytes(), b"v"])).collect();
        client.send(&bytes);
        assert_eq!(client.bytes(5 * some.len()), b"+OK\r\n".repeat(some.len()));
    }
    names.into_iter().collect()
}

/// Those that write stop, also where the test fails.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// So many keys over three shards, through two proxies in turn, with clients that write others meanwhile.
fn scan_while_others_write(count: usize, page: usize) {
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let settings = ["hash_tag: \"{}\""];
    let proxies = [Server::memstore_of(2, &settings, &shards), Server::memstore(&settings, &shards)];
    let lasting = fill(&mut proxies[0].connect(), (0..count).map(|number| format!("lasting:{number}")));
    let tagged = fill(&mut proxies[1].connect(), (0..500).map(|number| format!("{{tag}}:{number}")));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        for (writer, proxy) in proxies.iter().enumerate() {
            let mut client = proxy.connect();
            let is_over = &is_over;
            scope.spawn(move || {
                // So that tables grow and shrink.
                for round in 0.. {
                    fill(&mut client, (0..2_000).map(|number| format!("brief:{writer}:{round}:{number}")));
                    let brief: Vec<String> =
                        (0..2_000).map(|number| format!("brief:{writer}:{round}:{number}")).collect();
                    let mut words: Vec<&[u8]> = vec![b"DEL"];
                    words.extend(brief.iter().map(String::as_bytes));
                    assert_eq!(client.ask(&words), b":2000\r\n");
                    if is_over.load(Relaxed) {
                        return;
                    }
                }
            });
        }
        let mut clients: Vec<Client> = (0..5).map(|number| proxies[number % 2].connect()).collect();
        clients[4].tell("HELLO 3");
        let (seen, pages) = scan(&mut clients, &format!(" COUNT {page}")).expect("nothing has changed");
        assert!(lasting.is_subset(&seen), "{} of {count}", lasting.intersection(&seen).count());
        assert!(tagged.is_subset(&seen), "{} of 500", tagged.intersection(&seen).count());
        // A page may have some more than it was asked for.
        assert!(pages >= count / page / 2, "{pages} pages");
        let (seen, _) = scan(&mut clients, " MATCH lasting:1* COUNT 1000 TYPE string").expect("the same");
        let matching = lasting.iter().filter(|key| key.starts_with("lasting:1")).count();
        assert_eq!(seen.len(), matching);
        assert_eq!(scan(&mut clients, " TYPE hash COUNT 1000").expect("the same").0.len(), 0);
        let (seen, _) = scan(&mut clients, " COUNT 1000 MATCH {tag}:*").expect("the same");
        assert_eq!(seen, tagged);
        drop(over);
    });
}

#[test]
fn keys_are_named_while_others_write() {
    scan_while_others_write(20_000, 100);
}

#[test]
#[ignore = "a million keys take some minutes"]
fn a_million_keys_are_named_while_others_write() {
    scan_while_others_write(1_000_000, 10);
}

#[test]
fn the_tools_of_redis_cli_see_all_keys() {
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let ours = Server::memstore(&[], &shards);
    let mut client = ours.connect();
    let names = fill(&mut client, (0..2_000).map(|number| format!("key:{number}")));
    client.tell("RPUSH list a b c");
    let peer = client.peer();
    let cli = |option: &[&str]| {
        let (host, port) = (peer.ip().to_string(), peer.port().to_string());
        let output = Command::new("redis-cli").args(["-h", &host, "-p", &port]).args(option).output();
        String::from_utf8(output.expect("redis-cli (apt-get install redis-tools)").stdout).expect("UTF-8")
    };
    let scanned = cli(&["--scan"]);
    let found: HashSet<String> = scanned.lines().map(str::to_owned).collect();
    assert!(names.is_subset(&found) && found.len() == 2_001);
    assert_eq!(cli(&["--scan", "--pattern", "key:1?"]).lines().count(), 10);
    for option in ["--bigkeys", "--memkeys"] {
        let summary = cli(&[option]);
        assert!(summary.contains("Sampled 2001 keys in the keyspace!"), "{summary}");
    }
}

#[test]
fn a_shard_that_restarts_ends_a_scan_within_it() {
    let mut shards: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let ours = Server::memstore(&["timeout: 1000"], &shards);
    let mut client = ours.connect();
    fill(&mut client, (0..1_000).map(|number| format!("key:{number}")));
    let (within, _) = page(&mut client, "SCAN 0").expect("a page");
    let port = shards[0].connect().peer().port();
    drop(shards.remove(0));
    let again = Server::redis_at(port);
    eventually(|| client.tell("DBSIZE").starts_with(':').to_string(), "true");
    let error = page(&mut client, &format!("SCAN {within}")).expect_err("another process");
    assert_eq!(error, "-ERR the SCAN cursor is from before a change of the shards; start again with 0\r\n");
    drop(again);
}

#[test]
fn nothing_is_left_out_while_slots_move() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    let (ours, _) = nodes.proxy(&[], &[0, 1, 2]);
    let mut clients: Vec<Client> = (0..3).map(|_| ours.connect()).collect();
    let lasting = fill(&mut clients[0], (0..3_000).map(|number| format!("key:{number}")));
    let (seen, _) = scan(&mut clients, "").expect("nothing moves");
    assert_eq!(seen, lasting);
    assert_eq!(clients[1].tell("DBSIZE"), ":3000\r\n");
    let (mut complete, mut refused) = (0, 0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (nodes, is_over) = (&nodes, &is_over);
        scope.spawn(move || {
            // From a node that is scanned last to one that was scanned before.
            (16_000..16_100).for_each(|slot| nodes.move_slot(slot, 2, 0));
            is_over.store(true, Relaxed);
        });
        while !is_over.load(Relaxed) {
            match scan(&mut clients, " COUNT 50") {
                Ok((seen, _)) => {
                    assert!(lasting.is_subset(&seen), "{} named", lasting.intersection(&seen).count());
                    complete += 1;
                }
                Err(error) => {
                    assert!(error.contains("start again with 0"), "{error}");
                    refused += 1;
                }
            }
        }
    });
    assert!(refused > 0, "{complete} scans were complete while slots moved");
    let again = |clients: &mut [Client]| match scan(clients, "") {
        Ok((seen, _)) => format!("{} of {}", lasting.intersection(&seen).count(), seen.len()),
        Err(error) => error,
    };
    eventually(|| again(&mut clients), "3000 of 3000");
}

/// Writes and deletes others than those that are scanned, so that tables grow and shrink. What it is answered does not matter: nodes
/// hand over meanwhile.
fn write_others(mut client: Client, is_over: &AtomicBool) {
    for round in 0_u64.. {
        if is_over.load(Relaxed) {
            return;
        }
        for number in 0..100 {
            client.tell(&format!("SET brief:{}:{number} v", round % 20));
        }
        (0..100).for_each(|number| _ = client.tell(&format!("DEL brief:{}:{number}", (round + 10) % 20)));
    }
}

/// What a scan may be told that cannot go on, beside that it has to begin again: a node is not there, or has not its data yet.
fn is_clear(error: &str) -> bool {
    ["start again with 0", "shard ", "LOADING", "CLUSTERDOWN", "no node of the cluster"]
        .iter()
        .any(|words| error.contains(words))
}

/// What the nodes at these places say of themselves.
fn what_they_have(places: &[String]) -> String {
    let ask = |place: &String| {
        let mut socket = TcpStream::connect(place).map_err(|error| error.to_string())?;
        let said = |error: std::io::Error| error.to_string();
        socket.write_all(b"DBSIZE\r\nINFO replication\r\nCLUSTER NODES\r\nQUIT\r\n").map_err(said)?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).map_err(said)?;
        Ok::<_, String>(answer)
    };
    places.iter().map(|place| format!("{place}: {:?}\n", ask(place))).collect()
}

/// Slots move, primaries hand over and die, and the proxies reload, while two proxies in turn scan and others write: a scan that ends
/// without an error has named every key that was there all the time.
fn scan_while_a_cluster_changes(count: usize, slots: usize, page: usize) {
    let mut nodes = Nodes::start(6, &[]);
    nodes.form(3);
    let cluster = format!("cluster: {{seeds: [{}, {}]}}", nodes.place(0), nodes.place(2));
    let settings = |seconds: u32| [cluster.clone(), format!("timeout: {seconds}s")];
    let proxies = [0; 2].map(|_| {
        let (proxy, _) = nodes.proxy(&[], &[0, 1, 2]);
        proxy
    });
    let mut clients: Vec<Client> = (0..4).map(|number| proxies[number % 2].connect()).collect();
    let lasting = fill(&mut clients[0], (0..count).map(|number| format!("lasting:{number}")));
    for number in 0..3 {
        // What a primary has acknowledged its replica has as well, before it may take over.
        assert_eq!(nodes.ask(number, "WAIT 1 10000"), ":1");
    }
    let options = format!(" COUNT {page}");
    let (seen, _) = scan(&mut clients, &options).expect("nothing changes");
    assert_eq!(seen, lasting);
    let places: Vec<String> = (0..6).map(|number| nodes.place(number)).collect();
    let (is_over, is_changed) = (AtomicBool::new(false), AtomicBool::new(false));
    let (mut complete, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        for proxy in &proxies {
            let client = proxy.connect();
            let is_over = &is_over;
            scope.spawn(move || write_others(client, is_over));
        }
        let changes = scope.spawn({
            let (nodes, proxies, is_changed) = (&mut nodes, &proxies, &is_changed);
            move || {
                // To a node that is scanned before, and to one that is scanned later.
                (16_000..16_000 + slots).for_each(|slot| nodes.move_slot(slot, 2, 0));
                for (proxy, seconds) in proxies.iter().zip([31, 32]) {
                    let lines: Vec<String> = settings(seconds).into();
                    proxy.rewrite(&lines.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
                    servers::reload(proxy);
                }
                nodes.hand_over(4);
                (0..slots).for_each(|slot| nodes.move_slot(slot, 0, 2));
                // One that dies has its replica in its place.
                nodes.kill(0);
                eventually(|| nodes.ask(3, "CLUSTER NODES").contains("myself,master").to_string(), "true");
                nodes.is_well();
                is_changed.store(true, Relaxed);
            }
        });
        let mut since = 0;
        // Some more once all is done.
        while since < 3 {
            let is_calm = is_changed.load(Relaxed);
            match scan(&mut clients, &options) {
                Ok((seen, _)) => {
                    let named = lasting.intersection(&seen).count();
                    // Or nodes have lost some themselves, as replicas do that take over before they have it all.
                    assert_eq!(
                        named,
                        count,
                        "after {complete} complete scans and {refused} others; {}",
                        what_they_have(&places)
                    );
                    complete += 1;
                    since += usize::from(is_calm);
                }
                Err(error) => {
                    assert!(is_clear(&error), "{error}");
                    refused += 1;
                }
            }
            assert!(!changes.is_finished() || is_changed.load(Relaxed), "what was to change has failed");
        }
    });
    println!("{complete} scans were complete, {refused} ended with an error");
    assert!(refused > 0, "{complete} scans were complete, as if nothing had changed");
}

#[test]
fn nothing_is_left_out_while_a_cluster_changes() {
    scan_while_a_cluster_changes(3_000, 40, 100);
}

#[test]
#[ignore = "takes some minutes"]
fn nothing_is_left_out_while_a_large_cluster_changes() {
    scan_while_a_cluster_changes(200_000, 2_000, 1_000);
}

/// A scan goes on over a reload that leaves the shards as they are, and ends with an error where another shard has joined meanwhile.
#[test]
fn a_reload_within_a_scan_is_no_gap() {
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let lines: Vec<String> = shards.iter().enumerate().map(|(at, shard)| shard.line(at)).collect();
    let ours = Server::memstore_over(&[], &lines[..2]);
    let mut client = ours.connect();
    let lasting = fill(&mut client, (0..2_000).map(|number| format!("lasting:{number}")));
    let (mut cursor, first) = page(&mut client, "SCAN 0 COUNT 50").expect("a page");
    let mut seen: HashSet<String> = first.into_iter().collect();
    for timeout in [20, 21, 22] {
        ours.rewrite(&[&format!("timeout: {timeout}s")], &lines[..2]);
        servers::reload(&ours);
        let (next, keys) = page(&mut client, &format!("SCAN {cursor} COUNT 50")).expect("the same shards");
        seen.extend(keys);
        cursor = next;
    }
    let before = cursor.clone();
    while cursor != "0" {
        let (next, keys) = page(&mut client, &format!("SCAN {cursor} COUNT 50")).expect("the same shards");
        seen.extend(keys);
        cursor = next;
    }
    assert_eq!(seen, lasting);
    ours.rewrite(&[], &lines);
    servers::reload(&ours);
    let stale = "-ERR the SCAN cursor is from before a change of the shards; start again with 0\r\n";
    let is_stale = || match page(&mut client, &format!("SCAN {before} COUNT 50")) {
        Err(error) => error,
        Ok(_) => "a page".into(),
    };
    eventually(is_stale, stale);
}
