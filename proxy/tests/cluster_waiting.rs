//! Clients that wait under keys in several slots of a Redis Cluster of real servers, while slots move and primaries are replaced.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use servers::blocking::{blocked, like_one_server};
use servers::cluster::Nodes;
use servers::dice::Dice;
use servers::{Client, Server, eventually};
use shard_discovery::{HashTag, KeyHash};

mod servers;

const LISTS: usize = 9;
const CONSUMERS: usize = 8;
const PRODUCERS: usize = 2;

fn list(number: usize) -> String {
    format!("{number}list")
}

fn slot(key: &str) -> usize {
    KeyHash::Crc16.hash(HashTag::REDIS_CLUSTER.hashed_part(key.as_bytes())) as usize % 16_384
}

/// The node that owns it, of so many that had all as they were formed.
fn first_owner(key: &str, primaries: usize) -> usize {
    (0..primaries).rfind(|number| slot(key) >= 16_384 * number / primaries).expect("all have owners")
}

/// Moves its slot, and waits until all nodes know: one that moves on before may be given back to its former owner.
fn move_list(nodes: &Nodes, key: &str, from: usize, to: usize) {
    nodes.move_slot(slot(key), from, to);
    for number in (0..nodes.nodes.len()).filter(|&number| number != to) {
        let names_it = || nodes.ask(number, &format!("EXISTS {key}")).contains(&nodes.place(to));
        eventually(|| names_it().to_string(), "true");
    }
}

/// What has become of all elements.
#[derive(Default)]
struct Ledger {
    received: Mutex<Vec<usize>>,
    /// Numbers of those that were put there.
    put: Mutex<Vec<usize>>,
    next: AtomicUsize,
    errors: AtomicUsize,
    is_over: AtomicBool,
    producers: AtomicUsize,
}

impl Ledger {
    /// Takes elements as they come, from lists and from sorted sets.
    fn consume(&self, mut client: Client, consumer: usize) {
        let mut dice = Dice::new(consumer as u64);
        while !self.is_over.load(Relaxed) {
            let first = dice.below(LISTS);
            let lists: Vec<String> = (first..first + 4).map(|number| list(number % LISTS)).collect();
            let command = dice.choose(&["BLPOP", "BRPOP"]);
            let reply =
                client.tell(&format!("{command} {} {}", lists.join(" "), dice.choose(&["1", "0.05"])));
            let element = reply.split("\r\n").nth(4).and_then(|line| line.strip_prefix('e'));
            if let Some(element) = element {
                self.received.lock().expect("unbroken").push(element.parse().expect("a number"));
            } else if reply != "*-1\r\n" {
                assert!(reply.starts_with('-'), "{reply}");
                println!("consumer {consumer}: {}", reply.trim_end());
                self.errors.fetch_add(1, Relaxed);
            }
        }
    }

    fn produce(&self, mut client: Client, producer: usize) {
        let mut dice = Dice::new(100 + producer as u64);
        while !self.is_over.load(Relaxed) && self.producers.load(Relaxed) > 0 {
            let element = self.next.fetch_add(1, Relaxed);
            let reply = client.tell(&format!("RPUSH {} e{element}", list(dice.below(LISTS))));
            assert!(reply.starts_with(':'), "{reply}");
            self.put.lock().expect("unbroken").push(element);
            // Consumers wait more often than they find something.
            if dice.one_in(3) {
                std::thread::sleep(Duration::from_millis(dice.below(8) as u64));
            }
        }
    }

    /// Clients take and put elements while something happens, and until nothing is left.
    fn during(proxy: &Server, happens: impl FnOnce(&Self)) -> Self {
        /// Ends the clients also where a check fails.
        struct Ends<'l>(&'l Ledger);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.is_over.store(true, Relaxed);
            }
        }
        let ledger = Self { producers: AtomicUsize::new(PRODUCERS), ..Self::default() };
        std::thread::scope(|scope| {
            let ends = Ends(&ledger);
            for consumer in 0..CONSUMERS {
                let (client, ledger) = (proxy.connect(), &ledger);
                scope.spawn(move || ledger.consume(client, consumer));
            }
            let producers: Vec<_> = (0..PRODUCERS)
                .map(|producer| {
                    let (client, ledger) = (proxy.connect(), &ledger);
                    scope.spawn(move || ledger.produce(client, producer))
                })
                .collect();
            ledger.goes_on();
            happens(&ledger);
            ledger.goes_on();
            ledger.producers.store(0, Relaxed);
            producers.into_iter().for_each(|producer| producer.join().expect("all was put there"));
            let put = ledger.put.lock().expect("unbroken").len();
            eventually(|| (ledger.received.lock().expect("unbroken").len() >= put).to_string(), "true");
            drop(ends);
        });
        ledger
    }

    /// Waits until a good many elements have come.
    fn goes_on(&self) {
        let received = || self.received.lock().expect("unbroken").len();
        let before = received();
        eventually(|| (received() >= before + 200).to_string(), "true");
    }

    /// Each element has come once.
    fn is_exact(&self) {
        let mut received = self.received.lock().expect("unbroken").clone();
        let mut put = self.put.lock().expect("unbroken").clone();
        received.sort_unstable();
        put.sort_unstable();
        assert!(received.windows(2).all(|pair| pair[0] != pair[1]), "an element came twice");
        assert!(received == put, "{} of {} elements have come", received.len(), put.len());
        println!("{} elements, {} errors", put.len(), self.errors.load(Relaxed));
    }
}

#[test]
fn what_waits_on_several_slots_is_answered_as_one_server_answers() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    let (ours, _) = nodes.proxy(&[], &[0]);
    let seeds = format!("cluster: {{seeds: [{}]}}", nodes.place(1));
    let in_order = Server::memstore_of(1, &[&seeds, "timeout: 30s"], &[]);
    eventually(|| in_order.connect().tell("EXISTS a"), ":0\r\n");
    // A cluster has one database.
    like_one_server(&ours, &in_order, |line| !line.contains("SELECT"));
}

#[test]
fn elements_arrive_once_while_slots_move() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    let (proxy, _) = nodes.proxy(&[], &[0]);
    let ledger = Ledger::during(&proxy, |ledger| {
        for round in 0..3 {
            for number in 0..LISTS {
                let owner = (first_owner(&list(number), 3) + round) % 3;
                move_list(&nodes, &list(number), owner, (owner + 1) % 3);
            }
            ledger.goes_on();
        }
    });
    ledger.is_exact();
    assert_eq!(ledger.errors.load(Relaxed), 0, "{}", proxy.printed());
    blocked(&proxy, 0);
}

/// Asked to, so that nothing is lost that it has acknowledged.
fn hand_over(nodes: &Nodes, number: usize) {
    eventually(
        || {
            if !nodes.ask(number, "CLUSTER NODES").contains("myself,master") {
                nodes.ask(number, "CLUSTER FAILOVER");
                std::thread::sleep(Duration::from_millis(200));
            }
            nodes.ask(number, "CLUSTER NODES").contains("myself,master").to_string()
        },
        "true",
    );
}

#[test]
fn elements_arrive_once_while_primaries_are_replaced_and_slots_move() {
    let nodes = Nodes::start(6, &[]);
    nodes.form(3);
    let (proxy, _) = nodes.proxy(&[], &[0, 1]);
    let ledger = Ledger::during(&proxy, |ledger| {
        hand_over(&nodes, 3);
        ledger.goes_on();
        for number in (0..LISTS).filter(|&number| first_owner(&list(number), 3) == 1) {
            move_list(&nodes, &list(number), 1, 3);
        }
        ledger.goes_on();
        hand_over(&nodes, 0);
    });
    ledger.is_exact();
    assert_eq!(ledger.errors.load(Relaxed), 0, "{}", proxy.printed());
}

/// How often nodes have executed the command.
fn calls(nodes: &Nodes, command: &str) -> u64 {
    let of_node = |number| {
        let stats = nodes.ask(number, "INFO commandstats");
        let rest = stats.split(&format!("cmdstat_{command}:calls=")).nth(1)?.to_owned();
        rest.split(',').next()?.parse::<u64>().ok()
    };
    (0..nodes.nodes.len()).filter_map(of_node).sum()
}

/// The client begins to wait, and each of its three keys is tried once, by this command.
fn begin(nodes: &Nodes, client: &mut Client, line: &str, tried_by: &str) {
    let before = calls(nodes, tried_by);
    client.begin(line);
    eventually(|| (calls(nodes, tried_by) >= before + 3).to_string(), "true");
}

/// Nobody is told by anything but the key itself: the nodes are asked who owns what once an hour.
#[test]
fn a_key_that_has_moved_while_it_is_waited_for_is_found() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    let (proxy, _) = nodes.proxy(&["refresh: 1h"], &[0]);
    let (mut waiting, key) = (proxy.connect(), list(0));
    let others = format!("{} {}", list(1), list(2));
    let (owner, slot) = (first_owner(&key, 3), slot(&key));
    let (next, last) = ((owner + 1) % 3, (owner + 2) % 3);
    let came = |waiting: &mut Client, element: &str| {
        let reply = String::from_utf8_lossy(&waiting.reply()).into_owned();
        assert!(reply.contains(&format!("{key}\r\n")) && reply.contains(element), "{reply}");
    };
    // The slot has gone.
    begin(&nodes, &mut waiting, &format!("BLPOP {others} {key} 0"), "lpop");
    nodes.move_slot(slot, owner, next);
    assert_eq!(nodes.ask(next, &format!("RPUSH {key} first")), ":1");
    came(&mut waiting, "first");

    // It is on its way.
    begin(&nodes, &mut waiting, &format!("BRPOP {others} {key} 0"), "rpop");
    let [source, target] = [next, last].map(|number| nodes.id(number));
    nodes.tell(last, &format!("CLUSTER SETSLOT {slot} IMPORTING {source}"));
    nodes.tell(next, &format!("CLUSTER SETSLOT {slot} MIGRATING {target}"));
    let mut asking = nodes.connect(last);
    assert_eq!(asking.tell("ASKING"), "+OK\r\n");
    assert_eq!(asking.tell(&format!("RPUSH {key} second")), ":1\r\n");
    came(&mut waiting, "second");

    // It stays after all.
    begin(&nodes, &mut waiting, &format!("BLMPOP 0 3 {others} {key} LEFT COUNT 5"), "lmpop");
    nodes.tell(last, &format!("CLUSTER SETSLOT {slot} STABLE"));
    nodes.tell(next, &format!("CLUSTER SETSLOT {slot} STABLE"));
    assert_eq!(nodes.ask(next, &format!("RPUSH {key} third")), ":1");
    came(&mut waiting, "third");

    // With what is in it.
    assert_eq!(proxy.connect().tell(&format!("XADD {key} 5-1 f v")), "$3\r\n5-1\r\n");
    let mut reading = proxy.connect();
    begin(&nodes, &mut reading, &format!("XREAD BLOCK 0 STREAMS {others} {key} $ $ $"), "xread");
    nodes.move_slot(slot, next, owner);
    assert_eq!(nodes.ask(owner, &format!("XADD {key} 5-2 f fourth")), "5-2");
    let reply = String::from_utf8_lossy(&reading.reply()).into_owned();
    assert!(reply.contains("fourth") && !reply.contains("5-1"), "{reply}");
    blocked(&proxy, 0);
}

#[test]
fn a_primary_that_dies_is_an_error_to_those_that_wait_there() {
    let mut nodes = Nodes::start(6, &[]);
    nodes.form(3);
    let (proxy, _) = nodes.proxy(&[], &[0, 1]);
    let lists: Vec<String> = (0..LISTS).map(list).collect();
    let dies = first_owner(&lists[0], 3);
    let elsewhere = lists.iter().filter(|key| first_owner(key, 3) != dies);
    let elsewhere: Vec<&str> = elsewhere.map(String::as_str).collect();
    let (mut there, mut not_there) = (proxy.connect(), proxy.connect());
    there.begin(&format!("BLPOP {} 0", lists.join(" ")));
    not_there.begin(&format!("BLPOP {} 0", elsewhere.join(" ")));
    blocked(&proxy, 2);
    nodes.kill(dies);
    let reply = String::from_utf8_lossy(&there.reply()).into_owned();
    assert!(reply.starts_with("-ERR shard "), "{reply}");
    // The replica takes its place, and can be waited for.
    let mut other = proxy.connect();
    eventually(|| other.tell(&format!("EXISTS {}", lists[0])), ":0\r\n");
    eventually(
        || {
            there.begin(&format!("BLPOP {} 0.01", lists.join(" ")));
            String::from_utf8_lossy(&there.reply()).into_owned()
        },
        "*-1\r\n",
    );
    there.begin(&format!("BLPOP {} 0", lists.join(" ")));
    blocked(&proxy, 2);
    assert_eq!(other.tell(&format!("RPUSH {} x", lists[0])), ":1\r\n");
    assert!(String::from_utf8_lossy(&there.reply()).contains(&lists[0]));
    assert_eq!(other.tell(&format!("RPUSH {} y", elsewhere[0])), ":1\r\n");
    assert!(String::from_utf8_lossy(&not_there.reply()).contains(elsewhere[0]));
}

#[test]
fn a_node_that_does_not_tell_of_changes_is_named() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    for number in 0..3 {
        nodes.tell(number, "ACL SETUSER default -client|tracking");
    }
    let (proxy, _) = nodes.proxy(&[], &[0]);
    let mut client = proxy.connect();
    let reply = client.tell(&format!("BLPOP {} {} 0", list(0), list(1)));
    let is_named = reply.starts_with("-CROSSSLOT Keys in request don't hash to the same slot, and shard ");
    assert!(is_named && reply.contains("refuses CLIENT TRACKING: NOPERM"), "{reply}");
}
