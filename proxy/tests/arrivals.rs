//! Elements of queues arrive once, over real servers: while consumers hang up, connections to shards are reset and proxies drain.
//!
//! `ELEMENTS=1000000` takes more than some thousand of them: `make soak`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use servers::blocking::blocked;
use servers::dice::Dice;
use servers::{Client, Server, connect, eventually};

mod servers;

const CONSUMERS: usize = 12;
/// They are on all of three shards.
const KEYS: usize = 9;
/// So many elements have arrived before more are sent: consumers wait again and again.
const ROUND: usize = 500;

/// How elements are taken.
#[derive(Clone, Copy, PartialEq)]
enum Taking {
    /// From lists, by BLPOP.
    Lists,
    /// From sorted sets, by BZPOPMIN.
    SortedSets,
    /// By BLMOVE into a list of the consumer's own, which removes them from there when it has them.
    Moves,
}

#[derive(Clone, Copy)]
struct Trade {
    taking: Taking,
    /// Each consumer waits under keys of several shards.
    is_wide: bool,
    /// Consumers hang up while they wait, or while an element is on its way to them.
    hangs_up: bool,
    /// Connections to shards are reset; of a wide trade those on which they tell of changes.
    resets: bool,
    /// Proxies end one after the other, while elements go on arriving, and others take their place.
    drains: bool,
}

impl Trade {
    fn of(taking: Taking) -> Self {
        Self { taking, is_wide: false, hangs_up: false, resets: false, drains: false }
    }

    fn put(self, element: usize) -> String {
        let key = key(element % KEYS);
        match self.taking {
            Taking::SortedSets => format!("ZADD {key} {} e{element}", element % 7),
            Taking::Lists | Taking::Moves => format!("RPUSH {key} e{element}"),
        }
    }

    fn take(self, first: usize, consumer: usize, timeout: &str) -> String {
        let keys = if self.is_wide { 4 } else { 1 };
        let keys: Vec<_> = (first..first + keys).map(|number| key(number % KEYS)).collect();
        match self.taking {
            Taking::Lists => format!("BLPOP {} {timeout}", keys.join(" ")),
            Taking::SortedSets => format!("BZPOPMIN {} {timeout}", keys.join(" ")),
            Taking::Moves => format!("BLMOVE {} {} LEFT RIGHT {timeout}", keys[0], kept(first, consumer)),
        }
    }

    /// The element in a reply, if one has come.
    fn element(self, reply: &str) -> Option<usize> {
        let mut lines = reply.split("\r\n");
        let line = if self.taking == Taking::Moves { lines.nth(1) } else { lines.nth(4) };
        line?.strip_prefix('e')?.parse().ok()
    }
}

fn key(number: usize) -> String {
    format!("{{{number}list}}")
}

/// What a consumer has been given and not yet removed.
fn kept(number: usize, consumer: usize) -> String {
    format!("{{{number}list}}of{consumer}")
}

/// What has become of all.
#[derive(Default)]
struct Ledger {
    /// Ports of proxies that do not end yet.
    doors: Mutex<Vec<u16>>,
    received: Mutex<Vec<usize>>,
    hung_up: AtomicUsize,
    /// Requests that were answered with an error.
    failed: AtomicUsize,
    /// Elements that arrived, and of which it is not known whether they were removed.
    unsure: AtomicUsize,
    is_over: AtomicBool,
}

fn consume(trade: Trade, consumer: usize, ledger: &Ledger) {
    let mut dice = Dice::new(consumer as u64);
    // Nobody is told to end meanwhile.
    let enter = |dice: &mut Dice| {
        let doors = ledger.doors.lock().expect("unbroken");
        connect(doors[dice.below(doors.len())])
    };
    let mut client = enter(&mut dice);
    while !ledger.is_over.load(Relaxed) {
        let first = dice.below(KEYS);
        client.begin(&trade.take(first, consumer, dice.choose(&["1", "0.05"])));
        if trade.hangs_up && dice.one_in(20) {
            ledger.hung_up.fetch_add(1, Relaxed);
            client = enter(&mut dice);
            continue;
        }
        let reply = String::from_utf8_lossy(&client.reply()).into_owned();
        if let Some(element) = trade.element(&reply) {
            ledger.received.lock().expect("unbroken").push(element);
            if trade.taking == Taking::Moves {
                let removed = client.tell(&format!("LREM {} 1 e{element}", kept(first, consumer)));
                ledger.unsure.fetch_add(usize::from(removed != ":1\r\n"), Relaxed);
            }
        } else if reply.is_empty() {
            assert!(trade.drains, "a proxy has hung up");
            client = enter(&mut dice);
        } else if reply.starts_with('-') {
            assert!(trade.resets && reply.starts_with("-ERR shard "), "{reply}");
            ledger.failed.fetch_add(1, Relaxed);
        } else {
            assert!(["*-1\r\n", "$-1\r\n"].contains(&&*reply), "{reply}");
        }
    }
}

/// Connections on which a server tells of changes.
fn trackers(client: &mut Client) -> Vec<String> {
    let list = client.tell("CLIENT LIST");
    let word =
        |line: &str, name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned);
    let tracks = |line: &&str| word(line, "flags=").is_some_and(|flags| flags.contains('t'));
    list.lines().filter(tracks).filter_map(|line| word(line, "id=")).collect()
}

fn reset(trade: Trade, shard: &Server) {
    let mut client = shard.connect();
    if !trade.is_wide {
        client.tell("CLIENT KILL TYPE normal SKIPME yes");
        return;
    }
    for id in trackers(&mut client) {
        client.tell(&format!("CLIENT KILL ID {id}"));
    }
}

/// Waits until consumers have taken all that has come.
fn taken(trade: Trade, client: &mut Client) {
    let count = if trade.taking == Taking::SortedSets { "ZCARD" } else { "LLEN" };
    let left = |client: &mut Client| {
        (0..KEYS).map(|number| client.tell(&format!("{count} {}", key(number)))).collect()
    };
    eventually(|| left(client), &":0\r\n".repeat(KEYS));
}

fn arrive(trade: Trade) {
    let elements: usize = std::env::var("ELEMENTS").map_or(1200, |text| text.parse().expect("a number"));
    let shards = [(); 3].map(|()| Server::redis(&[]));
    let start = || Server::memstore_of(2, &["hash_tag: \"{}\""], &shards);
    let stays = start();
    let mut goes = trade.drains.then(start);
    let ledger = Ledger::default();
    let doors = || ledger.doors.lock().expect("unbroken");
    doors().extend([Some(&stays), goes.as_ref()].into_iter().flatten().map(|proxy| proxy.port));
    let mut producer = stays.connect();
    let mut is_put = vec![false; elements];
    std::thread::scope(|scope| {
        for consumer in 0..CONSUMERS {
            let ledger = &ledger;
            scope.spawn(move || consume(trade, consumer, ledger));
        }
        let tenth = elements / 10;
        // Elements go on arriving meanwhile.
        let mut ending = None;
        for element in 0..elements {
            let drains = trade.drains && element % tenth == tenth / 2;
            if drains && let Some(mut ends) = goes.take() {
                doors().retain(|door| *door != ends.port);
                ending = Some(scope.spawn(move || {
                    ends.signal("TERM");
                    ends.ended()
                }));
            }
            producer.begin(&trade.put(element));
            // One whose reply is an error may have been put there all the same.
            let reply = String::from_utf8_lossy(&producer.reply()).into_owned();
            is_put[element] = reply.starts_with(':');
            assert!(is_put[element] || trade.resets && !trade.is_wide, "{reply}");
            if trade.resets && element % tenth == tenth / 2 {
                reset(trade, &shards[element % 3]);
            }
            if trade.drains
                && element % tenth == tenth - 1
                && let Some(ending) = ending.take()
            {
                assert_eq!(ending.join().expect("it ends"), Some(0));
                let young = start();
                doors().push(young.port);
                goes = Some(young);
            }
            if element % ROUND == 0 {
                taken(trade, &mut producer);
            }
        }
        taken(trade, &mut producer);
        ledger.is_over.store(true, Relaxed);
    });

    let received = ledger.received.into_inner().expect("unbroken");
    let mut arrived = vec![0; elements];
    received.iter().for_each(|&element| arrived[element] += 1);
    assert!(arrived.iter().all(|&times| times <= 1), "an element came twice");
    let mut is_kept = vec![false; elements];
    if trade.taking == Taking::Moves {
        for (number, consumer) in
            (0..KEYS).flat_map(|number| (0..CONSUMERS).map(move |consumer| (number, consumer)))
        {
            let list = producer.tell(&format!("LRANGE {} 0 -1", kept(number, consumer)));
            for element in list.lines().filter_map(|line| line.strip_prefix('e')) {
                let element: usize = element.parse().expect("a number");
                assert!(!is_kept[element], "e{element} was moved twice");
                is_kept[element] = true;
            }
        }
    }
    let count = |is: &dyn Fn(usize) -> bool| (0..elements).filter(|&element| is(element)).count();
    let lost = count(&|element| is_put[element] && arrived[element] == 0 && !is_kept[element]);
    let both = count(&|element| arrived[element] == 1 && is_kept[element]);
    let [hung_up, failed, unsure] =
        [&ledger.hung_up, &ledger.failed, &ledger.unsure].map(|number| number.load(Relaxed));
    println!(
        "{} received, {lost} lost, {} kept, {hung_up} hung up, {failed} failed, {unsure} unsure",
        received.len(),
        count(&|element| is_kept[element])
    );
    // What was on its way to one that hung up, or on a connection that was reset.
    let most = if trade.taking == Taking::Moves { 0 } else { hung_up + failed };
    assert!(lost <= most, "{lost} lost, {hung_up} hung up, {failed} failed");
    assert!(both <= unsure, "{both} are still there, {unsure} were not removed for certain");
    blocked(&stays, 0);
    shards.iter().for_each(|shard| blocked(shard, 0));
}

#[test]
fn elements_of_lists_arrive_once() {
    arrive(Trade { hangs_up: true, resets: true, ..Trade::of(Taking::Lists) });
}

#[test]
fn elements_of_sorted_sets_arrive_once() {
    arrive(Trade { hangs_up: true, resets: true, ..Trade::of(Taking::SortedSets) });
}

#[test]
fn elements_that_are_moved_are_never_lost() {
    arrive(Trade { hangs_up: true, resets: true, ..Trade::of(Taking::Moves) });
}

#[test]
fn elements_of_lists_on_several_shards_arrive_once() {
    arrive(Trade { is_wide: true, resets: true, ..Trade::of(Taking::Lists) });
}

#[test]
fn no_more_elements_of_lists_on_several_shards_are_lost_than_consumers_hang_up() {
    arrive(Trade { is_wide: true, resets: true, hangs_up: true, ..Trade::of(Taking::Lists) });
}

#[test]
fn elements_of_sorted_sets_on_several_shards_arrive_once() {
    arrive(Trade { is_wide: true, resets: true, ..Trade::of(Taking::SortedSets) });
}

#[test]
fn no_element_of_a_list_is_lost_where_a_proxy_drains() {
    arrive(Trade { drains: true, ..Trade::of(Taking::Lists) });
}

#[test]
fn no_element_of_a_sorted_set_is_lost_where_a_proxy_drains() {
    arrive(Trade { drains: true, ..Trade::of(Taking::SortedSets) });
}

#[test]
fn no_element_that_is_moved_is_lost_where_a_proxy_drains() {
    arrive(Trade { drains: true, ..Trade::of(Taking::Moves) });
}

#[test]
fn no_element_of_lists_on_several_shards_is_lost_where_a_proxy_drains() {
    arrive(Trade { is_wide: true, drains: true, ..Trade::of(Taking::Lists) });
}

#[test]
fn no_element_of_sorted_sets_on_several_shards_is_lost_where_a_proxy_drains() {
    arrive(Trade { is_wide: true, drains: true, ..Trade::of(Taking::SortedSets) });
}
