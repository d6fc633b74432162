//! Elements of queues arrive once, over real servers: while consumers hang up, connections to shards are reset, and proxies reload and drain.
//!
//! `ELEMENTS=1000000` takes more than some thousand of them: `make soak`.
//!
//! A race of some microseconds is met too seldom to be left to chance: where waits end for another reason than their clients, shards stand
//! still from before elements are sent until the proxy has asked for the end. And under each key somebody waits for ever, so that an
//! element that nobody is told of is not found with the next request.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use arriving::ledger::{Closing, Ledger, Sent, balance};
use servers::blocking::blocked;
use servers::dice::Dice;
use servers::{Client, Server, connect, encoded, eventually, reload};

mod servers;

mod arriving {
    pub mod ledger;
    pub(crate) use super::{Trade, servers};
}

/// They are on all of three shards.
const KEYS: usize = 9;
/// Of these, one for each key waits for ever, and the others for one key or another, and not long.
const CONSUMERS: usize = KEYS + 3;
/// Clients that come and go at once, where nothing else happens.
const GUESTS: usize = 4;
/// So many elements are sent at once: to those that wait, or to lists that are taken from afterwards.
const BURSTS: [usize; 4] = [3, KEYS, 60, 1000];
/// So many are sent while shards stand still: to all that wait, and more.
const FEW: usize = 2 * KEYS;
/// So many are on their way as shards come to stand still.
const MANY: usize = 200;
/// Connections on which a proxy is asked for nothing; it has some workers.
const WITNESSES: usize = 8;

/// How elements are taken.
#[derive(Clone, Copy, PartialEq)]
enum Taking {
    /// From lists, by BLPOP and BRPOP.
    Lists,
    /// From sorted sets, by BZPOPMIN.
    SortedSets,
    /// By BLMOVE into a list of the consumer's own, which removes them from there when it has them.
    Moves,
}

/// What happens meanwhile.
#[derive(Clone, Copy, PartialEq)]
enum Happening {
    /// Consumers hang up at any time, and connections to shards are reset; of a wide trade those on which they tell of changes.
    HangUpsAndResets,
    /// Only the latter.
    Resets,
    /// Guests wait, and hang up while nothing is there and nothing comes.
    Guests,
    /// Proxies end one after the other, and others take their place.
    Drains,
    /// A shard leaves the pool, and comes back.
    Reloads,
}

#[derive(Clone, Copy)]
struct Trade {
    taking: Taking,
    /// Each consumer waits under keys of several shards.
    is_wide: bool,
    happening: Happening,
}

impl Trade {
    fn hangs_up(self) -> bool {
        self.happening == Happening::HangUpsAndResets
    }

    fn resets(self) -> bool {
        matches!(self.happening, Happening::HangUpsAndResets | Happening::Resets)
    }

    /// What was on its way to one that hung up, or on a connection that was reset.
    fn may_lose(self) -> bool {
        self.resets() && self.taking != Taking::Moves
    }

    fn key(self, element: usize) -> usize {
        element % KEYS
    }

    fn put(self, element: usize) -> String {
        let key = key(self.key(element));
        match self.taking {
            Taking::SortedSets => format!("ZADD {key} {} e{element}", element % 7),
            Taking::Lists | Taking::Moves => format!("RPUSH {key} e{element}"),
        }
    }

    fn keys(self, first: usize) -> impl Iterator<Item = usize> {
        let keys = if self.is_wide { 4 } else { 1 };
        (first..first + keys).map(|number| number % KEYS)
    }

    fn take(self, first: usize, consumer: usize, timeout: &str) -> String {
        let keys: Vec<_> = self.keys(first).map(key).collect();
        let command = match self.taking {
            Taking::Lists => ["BLPOP", "BRPOP"][consumer % 2],
            Taking::SortedSets => "BZPOPMIN",
            Taking::Moves => {
                return format!("BLMOVE {} {} LEFT RIGHT {timeout}", keys[0], kept(first, consumer));
            }
        };
        format!("{command} {} {timeout}", keys.join(" "))
    }

    /// The element in a reply, if one has come.
    fn element(self, reply: &str) -> Option<usize> {
        let mut lines = reply.split("\r\n");
        let line = if self.taking == Taking::Moves { lines.nth(1) } else { lines.nth(4) };
        line?.strip_prefix('e')?.parse().ok()
    }

    /// A bit for each key of a request.
    fn mask(self, first: usize) -> u32 {
        self.keys(first).map(|key| 1 << key).sum()
    }

    fn lists_of_consumers(self) -> impl Iterator<Item = String> {
        let numbers = if self.taking == Taking::Moves { 0..KEYS } else { 0..0 };
        numbers.flat_map(|number| (0..CONSUMERS).map(move |consumer| kept(number, consumer)))
    }

    /// After so many elements something happens.
    fn pace(self, elements: usize) -> usize {
        let (least, most) = match self.happening {
            Happening::Drains => (200, 20_000),
            Happening::Reloads => (100, 10_000),
            // All look again for what they wait for.
            Happening::HangUpsAndResets | Happening::Resets if self.is_wide => (100, 10_000),
            _ => (100, 1_000),
        };
        (elements / 12).clamp(least, most)
    }
}

fn key(number: usize) -> String {
    format!("{{{number}list}}")
}

/// What a consumer has been given and not yet removed.
fn kept(number: usize, consumer: usize) -> String {
    format!("{{{number}list}}of{consumer}")
}

struct Consumer<'t> {
    trade: Trade,
    number: usize,
    ledger: &'t Ledger,
    shards: &'t [Server],
    dice: Dice,
}

impl Consumer<'_> {
    fn enter(&mut self) -> Client {
        // Nobody is told to end meanwhile.
        let doors = self.ledger.doors.lock().expect("unbroken");
        let client = connect(doors[self.dice.below(doors.len())]);
        self.ledger.line(self.number, &client);
        client
    }

    fn consume(mut self) {
        let Self { trade, number, ledger, .. } = self;
        let mut askers: Vec<_> = self.shards.iter().map(Server::connect).collect();
        let mut client = self.enter();
        while !ledger.is_over() {
            let (first, timeout) = match number < KEYS {
                true => (number, "0"),
                false => (self.dice.below(KEYS), self.dice.choose(&["1", "0.05"])),
            };
            client.begin(&trade.take(first, number, timeout));
            if trade.hangs_up() && self.dice.one_in(20) {
                self.hang_up(client, first, &mut askers);
                client = self.enter();
                continue;
            }
            let reply = String::from_utf8_lossy(&client.reply()).into_owned();
            if let Some(element) = trade.element(&reply) {
                ledger.receive(element);
                if trade.taking == Taking::Moves {
                    let removed = client.tell(&format!("LREM {} 1 e{element}", kept(first, number)));
                    ledger.unsure.fetch_add(usize::from(removed != ":1\r\n"), Relaxed);
                }
            } else if reply.is_empty() {
                assert!(trade.happening == Happening::Drains || ledger.is_over(), "a proxy has hung up");
                client = self.enter();
            } else if reply.starts_with('-') {
                assert!(trade.resets() && reply.starts_with("-ERR shard "), "{reply}");
                ledger.excuse(trade.mask(first), Some(Instant::now()), true);
            } else {
                assert!(["*-1\r\n", "$-1\r\n"].contains(&&*reply), "{reply}");
            }
        }
    }

    /// Its request may have been served, or not even read.
    fn hang_up(&mut self, mut client: Client, first: usize, askers: &mut [Client]) {
        let mask = self.trade.mask(first);
        if self.dice.one_in(4) {
            return self.ledger.excuse(mask, None, false);
        }
        client.finish_with(b"");
        let rest = String::from_utf8_lossy(&client.until_closed()).into_owned();
        let element = self.trade.element(&rest).filter(|_| self.trade.taking != Taking::Moves);
        if let Some(element) = element {
            return self.ledger.receive(element);
        }
        // The proxy has given up its request, and what it had asked before of the shards they have answered.
        heard(askers, self.shards);
        self.ledger.excuse(mask, Some(Instant::now()), false);
    }
}

/// Shards have dealt with all that had come to them.
fn heard(askers: &mut [Client], shards: &[Server]) {
    for (asker, shard) in askers.iter_mut().zip(shards) {
        while asker.tell("PING") != "+PONG\r\n" {
            *asker = shard.connect();
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

/// How many clients a server has, and how many of them wait.
fn clients(asker: &mut Client) -> [usize; 2] {
    let info = asker.tell("INFO clients");
    ["connected_clients:", "blocked_clients:"].map(|name| {
        let number = info.lines().find_map(|line| line.strip_prefix(name));
        number.and_then(|number| number.parse().ok()).expect("a number")
    })
}

/// Clients of each worker.
fn witnesses(proxy: &Server) -> Vec<Client> {
    let mut witnesses: Vec<_> = (0..WITNESSES).map(|_| proxy.connect()).collect();
    witnesses.iter_mut().for_each(|witness| assert_eq!(witness.tell("PING"), "+PONG\r\n"));
    witnesses
}

/// Who sends elements, and lets things happen between them.
struct Producer<'t> {
    trade: Trade,
    ledger: &'t Ledger,
    shards: &'t [Server],
    /// The oldest first; elements are sent to the youngest.
    proxies: VecDeque<Server>,
    client: Client,
    sent: Sent,
    elements: usize,
    dice: Dice,
    /// Two of three shards are in the pool.
    is_small: bool,
}

impl<'t> Producer<'t> {
    fn new(trade: Trade, ledger: &'t Ledger, shards: &'t [Server], elements: usize) -> Self {
        let count = if trade.happening == Happening::Drains { 2 } else { 1 };
        let proxies: VecDeque<_> = (0..count).map(|_| Self::start(shards)).collect();
        ledger.doors.lock().expect("unbroken").extend(proxies.iter().map(|proxy| proxy.port));
        let client = proxies.back().expect("one at least").connect();
        let (sent, dice) = (Sent::default(), Dice::new(1));
        Self { trade, ledger, shards, proxies, client, sent, elements, dice, is_small: false }
    }

    /// Who ends waits may have to be patient with shards on a busy machine: else it breaks the connection off.
    fn settings() -> [&'static str; 2] {
        ["hash_tag: \"{}\"", "timeout: 60000"]
    }

    fn start(shards: &[Server]) -> Server {
        Server::memstore_of(2, &Self::settings(), shards)
    }

    fn is_done(&self) -> bool {
        self.sent.is_put.len() == self.elements
    }

    fn send(&mut self, burst: usize) -> usize {
        let first = self.sent.is_put.len();
        let until = (first + burst).min(self.elements);
        let requests = (first..until).flat_map(|element| {
            encoded(&self.trade.put(element).split(' ').map(str::as_bytes).collect::<Vec<_>>())
        });
        let requests: Vec<u8> = requests.collect();
        self.sent.begin(first);
        self.client.send(&requests);
        until - first
    }

    fn hear(&mut self, count: usize) {
        for _ in 0..count {
            // One whose reply is an error may have been put there all the same.
            let reply = String::from_utf8_lossy(&self.client.reply()).into_owned();
            let is_put = reply.starts_with(':');
            assert!(is_put || self.trade.resets() && !self.trade.is_wide, "{reply}");
            self.sent.is_put.push(is_put);
        }
    }

    /// Waits until consumers have taken all that has come.
    fn taken(&mut self) {
        let count = if self.trade.taking == Taking::SortedSets { "ZCARD" } else { "LLEN" };
        let asked: Vec<u8> =
            (0..KEYS).flat_map(|number| encoded(&[count.as_bytes(), key(number).as_bytes()])).collect();
        let client = &mut self.client;
        let left = || {
            client.send(&asked);
            (0..KEYS).map(|_| String::from_utf8_lossy(&client.reply()).into_owned()).collect()
        };
        eventually(left, &":0\r\n".repeat(KEYS));
    }

    fn produce(&mut self) {
        let (pace, mut next) = (self.trade.pace(self.elements), 0);
        while !self.is_done() {
            let burst = BURSTS[self.dice.below(BURSTS.len())].min(pace);
            let begun = self.send(burst);
            let happens = self.sent.is_put.len() + begun > next;
            if happens && self.trade.resets() {
                reset(self.trade, &self.shards[self.dice.below(3)]);
            }
            self.hear(begun);
            if happens || self.dice.one_in(2) {
                self.taken();
            }
            if happens {
                next = self.sent.is_put.len() + pace;
                match self.trade.happening {
                    Happening::HangUpsAndResets | Happening::Resets => {}
                    Happening::Guests => self.guests(),
                    Happening::Drains => self.drain(),
                    Happening::Reloads => self.reload(),
                }
            }
        }
        self.taken();
        if self.trade.happening == Happening::Reloads {
            // What is left where nobody has looked since.
            for _ in 0..2 {
                self.reload();
                self.taken();
            }
        }
    }

    /// Something happens while these shards stand still. Elements are sent before they do, so that some have been taken and nobody knows
    /// it yet, or before it happens, or after it.
    fn standing_still(&mut self, still: Range<usize>, happens: impl FnOnce()) {
        let (all, when) = (self.shards, self.dice.below(3));
        let shards = &all[still];
        let mut begun = if when == 0 { self.send(MANY) } else { 0 };
        shards.iter().for_each(|shard| shard.signal("STOP"));
        if when == 1 {
            begun = self.send(FEW);
        }
        happens();
        if when == 2 {
            begun = self.send(FEW);
        }
        shards.iter().for_each(|shard| shard.signal("CONT"));
        self.hear(begun);
    }

    /// While nothing is there guests come, and go again; then there is enough for all who could wait.
    fn guests(&mut self) {
        let proxy = self.proxies.back().expect("one at least");
        let (mut askers, wide): (Vec<_>, _) =
            (self.shards.iter().map(Server::connect).collect(), self.trade.is_wide);
        let mut witnesses = witnesses(proxy);
        let mut guests: Vec<_> = (0..GUESTS).map(|_| proxy.connect()).collect();
        for guest in &mut guests {
            // It is among those that the proxy counts.
            assert_eq!(guest.tell("PING"), "+PONG\r\n");
            let (first, unread) = (self.dice.below(KEYS), self.dice.one_in(2));
            // A connection of which something is unread is reset as it is closed.
            if unread {
                guest.begin("PING");
            }
            guest.begin(&self.trade.take(first, 0, "0"));
        }
        let client = &mut self.client;
        if self.dice.one_in(2) {
            let all_wait = || (clients(client)[1] == CONSUMERS + GUESTS).to_string();
            eventually(all_wait, "true");
        }
        drop(guests);
        eventually(|| (clients(client)[0] == CONSUMERS + WITNESSES + 1).to_string(), "true");
        // Each worker has come to the end of the pass in which it has noticed.
        witnesses.iter_mut().for_each(|witness| assert_eq!(witness.tell("PING"), "+PONG\r\n"));
        if !wide {
            let wait =
                |askers: &mut Vec<Client>| askers.iter_mut().map(|asker| clients(asker)[1]).sum::<usize>();
            eventually(|| (wait(&mut askers) <= CONSUMERS).to_string(), "true");
        }
        heard(&mut askers, self.shards);
        let begun = self.send(2 * KEYS * (CONSUMERS + GUESTS));
        self.hear(begun);
    }

    /// The older proxy ends while all of its clients wait, and while elements are on their way to them.
    fn drain(&mut self) {
        let mut ends = self.proxies.pop_front().expect("two");
        self.ledger.doors.lock().expect("unbroken").retain(|door| *door != ends.port);
        self.client = self.proxies.back().expect("one stays").connect();
        let mut asker = ends.connect();
        let all_wait = || {
            let [all, wait] = clients(&mut asker);
            (wait + 1 == all).to_string()
        };
        eventually(all_wait, "true");
        let witnesses = witnesses(&ends);
        self.standing_still(0..3, || {
            ends.signal("TERM");
            // They go with the others, in the pass in which shards are asked to end the waits.
            for mut witness in witnesses {
                witness.until_closed();
            }
        });
        // It would be waited for.
        drop(asker);
        assert_eq!(ends.ended(), Some(0));
        self.taken();
        let young = Self::start(self.shards);
        self.ledger.doors.lock().expect("unbroken").push(young.port);
        self.proxies.push_back(young);
    }

    /// A shard goes or comes, while those wait whose keys it has or had and elements are on their way to them. What is left where its key is
    /// no more is found once that is there again.
    fn reload(&mut self) {
        self.is_small = !self.is_small;
        let proxy = self.proxies.pop_back().expect("one");
        let lines: Vec<_> = self.shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
        proxy.rewrite(&Self::settings(), &lines[..if self.is_small { 2 } else { 3 }]);
        // One that comes has to answer first.
        let still = if self.is_small { 2..3 } else { 0..2 };
        self.standing_still(still, || reload(&proxy));
        self.proxies.push_back(proxy);
    }
}

fn arrive(taking: Taking, is_wide: bool, happening: Happening) {
    let trade = Trade { taking, is_wide, happening };
    let elements: usize = std::env::var("ELEMENTS").map_or(2400, |text| text.parse().expect("a number"));
    let (begun, shards) = (Instant::now(), [(); 3].map(|()| Server::redis(&[])));
    let ledger = Ledger::default();
    let mut producer = Producer::new(trade, &ledger, &shards, elements);
    std::thread::scope(|scope| {
        let _closing = Closing(&ledger);
        for number in 0..CONSUMERS {
            let dice = Dice::new(number as u64 + 2);
            let consumer = Consumer { trade, number, ledger: &ledger, shards: &shards, dice };
            scope.spawn(move || consumer.consume());
        }
        producer.produce();
    });
    let Producer { proxies, sent, .. } = producer;
    proxies.iter().chain(&shards).for_each(|server| blocked(server, 0));
    println!("{:.1} s", begun.elapsed().as_secs_f64());
    balance(trade, ledger, &sent, &shards);
}

/// A test of each.
macro_rules! trades {
    ($($name:ident: $taking:ident, $is_wide:literal, $happening:ident;)*) => {
        $(#[test]
        fn $name() {
            arrive(Taking::$taking, $is_wide, Happening::$happening);
        })*
    };
}

trades! {
    elements_of_lists_arrive_once: Lists, false, HangUpsAndResets;
    elements_of_sorted_sets_arrive_once: SortedSets, false, HangUpsAndResets;
    elements_that_are_moved_are_never_lost: Moves, false, HangUpsAndResets;
    elements_of_lists_on_several_shards_arrive_once: Lists, true, Resets;
    elements_of_sorted_sets_on_several_shards_arrive_once: SortedSets, true, Resets;
    no_more_elements_of_lists_on_several_shards_are_lost_than_consumers_hang_up: Lists, true, HangUpsAndResets;
    nothing_is_taken_from_lists_for_clients_that_are_gone: Lists, false, Guests;
    nothing_is_taken_from_sorted_sets_for_clients_that_are_gone: SortedSets, false, Guests;
    nothing_is_taken_from_lists_on_several_shards_for_clients_that_are_gone: Lists, true, Guests;
    no_element_of_a_list_is_lost_where_a_proxy_drains: Lists, false, Drains;
    no_element_of_a_sorted_set_is_lost_where_a_proxy_drains: SortedSets, false, Drains;
    no_element_that_is_moved_is_lost_where_a_proxy_drains: Moves, false, Drains;
    no_element_of_lists_on_several_shards_is_lost_where_a_proxy_drains: Lists, true, Drains;
    no_element_of_sorted_sets_on_several_shards_is_lost_where_a_proxy_drains: SortedSets, true, Drains;
    no_element_of_a_list_is_lost_where_a_shard_leaves: Lists, false, Reloads;
    no_element_of_a_sorted_set_is_lost_where_a_shard_leaves: SortedSets, false, Reloads;
    no_element_that_is_moved_is_lost_where_a_shard_leaves: Moves, false, Reloads;
    no_element_of_lists_on_several_shards_is_lost_where_a_shard_leaves: Lists, true, Reloads;
    no_element_of_sorted_sets_on_several_shards_is_lost_where_a_shard_leaves: SortedSets, true, Reloads;
}
