//! Subscribers in a simulated world: one seed is one run, in virtual time.
//!
//! Clients of both versions subscribe, leave, ask for values that are passed on in pieces, stop reading, vanish at any point and come
//! anew; messages are published through the proxy and on any shard directly, as scripts do; connections are cut anywhere,
//! refused and lost; shards are ejected and come back, and the list of shards changes. What each client hears is held against
//! what it has been told: no message before the acknowledgement of its channel or after it was left, none twice, none inside a
//! reply, and acknowledgements in order, with the client's own numbers. At the end everything heals: then each
//! subscriber hears each message once, and once all have gone no shard is subscribed to. `SEED=7` replays one run,
//! `SIMULATION_SEEDS=20000` runs more.
//!
//! Channels, patterns and sharded channels have the same names here, so that none is taken for another. Some runs are over a cluster, whose
//! slots move: a node that loses one ends its subscriptions unasked, and one that does not have it refuses.
//!
//! Planted once each to see this fail: a client that is among the listeners before its acknowledgement, one that stays there after it has
//! left, a message that goes out as if no reply were out in part.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use memstore_proxy::failure::ShardFailure;
use memstore_proxy::pool::{ClientId, ConnectionId, Limits};
use memstore_proxy::protocol::channels::{Channels, Kind};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};
use subscribers::text::{bulk, bytes_of, request, said, text_of, value};
use world::random::{self, Random};
use world::{Event, World};

mod subscribers {
    pub mod client;
    pub mod text;
}
mod world;

const CHANNELS: [&str; 5] = ["news", "k1", "k2", "nobody", "c"];
const PATTERNS: [&str; 3] = ["*", "k*", "news"];
/// Larger than what is passed on in pieces.
const LARGE: usize = 1_100_000;
const SHARDS: usize = 5;
/// Words of each kind.
const MESSAGE: [&str; Kind::COUNT] = ["message", "pmessage", "smessage"];
const LISTEN: [&str; Kind::COUNT] = ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"];
const LISTEN_NO_MORE: [&str; Kind::COUNT] = ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"];

/// The node that has the name's slot, where that is another one.
fn moved_to(owners: Option<[usize; CHANNELS.len()]>, shard: &str, name: &str) -> Option<usize> {
    let channel = CHANNELS.iter().position(|channel| slot(channel) == slot(name))?;
    let owner = owners?[channel];
    (shard != format!("shard-{owner}")).then_some(owner)
}

/// The kind that the word is of.
fn kind_of(words: [&str; Kind::COUNT], word: &str) -> Option<Kind> {
    Some(Kind::ALL[words.iter().position(|known| *known == word)?])
}

fn kind_published(word: &str) -> Kind {
    if word == "SPUBLISH" { Kind::Sharded } else { Kind::Channel }
}

/// What a client waits to be told.
#[derive(Debug)]
enum Expected {
    Hello,
    Pong,
    Number,
    Value,
    Reset,
    /// Of so many names, all of them if none; some may be acknowledged already.
    Change {
        on: bool,
        kind: Kind,
        names: VecDeque<String>,
        all: bool,
        begun: bool,
    },
}

struct Client {
    id: ClientId,
    number: usize,
    resp3: bool,
    outbox: Vec<u8>,
    inbox: Vec<u8>,
    reads: bool,
    expected: VecDeque<Expected>,
    names: [BTreeSet<String>; Kind::COUNT],
    /// Names of each kind, and messages heard for them.
    heard: HashSet<(Kind, String, String)>,
    /// It is a cluster: one that goes back and forth may hand on a message by two nodes.
    hears_twice: bool,
}

/// A connection as its shard sees it.
#[derive(Default)]
struct Peer {
    shard: String,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    names: [BTreeSet<String>; Kind::COUNT],
}

impl Peer {
    fn listens(&self) -> bool {
        self.names.iter().any(|names| !names.is_empty())
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

struct Run {
    random: Random,
    world: World<Resp>,
    clients: Vec<Client>,
    peers: BTreeMap<ConnectionId, Peer>,
    topology: Arc<Topology>,
    /// In a cluster: which node has the slot of each of the channels.
    owners: Option<[usize; CHANNELS.len()]>,
    /// The proxy has asked for those.
    is_stale: bool,
    limits: Limits,
    is_faulty: bool,
    ejected: BTreeSet<usize>,
    numbers: usize,
    messages: usize,
    coverage: Coverage,
}

/// What all runs together went through. A simulation that does not get there proves nothing.
#[derive(Default, Debug)]
struct Coverage {
    acknowledged: usize,
    heard: usize,
    reloads: usize,
    ejections: usize,
    gaps: u64,
    moves: usize,
    moved: u64,
}

/// The slot of a channel, or of a name that counts its listeners.
fn slot(name: &str) -> usize {
    let name: Vec<u8> = bytes_of(name).collect();
    let channel = Resp::tallied(Kind::Sharded, &name).unwrap_or(&name);
    KeyHash::Crc16.hash(channel) as usize % 16_384
}

/// Where the nodes of a cluster say that these have the channels.
fn cluster(count: usize, owners: [usize; CHANNELS.len()]) -> Arc<Topology> {
    let mut slots: Vec<Option<usize>> = (0..16_384).map(|slot| Some(slot % count)).collect();
    CHANNELS.iter().zip(owners).for_each(|(channel, owner)| slots[slot(channel)] = Some(owner));
    let nodes = topology(count).shards().to_vec();
    Arc::new(Topology::of_cluster(nodes, &slots, vec![Vec::new(); count]).expect("a topology"))
}

fn topology(count: usize) -> Arc<Topology> {
    let shards = (0..count).map(|shard| {
        Shard::new(
            Address::Tcp { host: "h".into(), port: shard as u16 + 1 },
            1,
            Some(format!("shard-{shard}")),
        )
    });
    let shards = shards.collect();
    Arc::new(Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, None).expect("a topology"))
}

fn settings() -> Settings {
    Settings { databases: 16, ..Settings::default() }
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let count = 1 + random.place(SHARDS - 1);
        let owners = random.one_in(3).then(|| std::array::from_fn(|_| random.place(count)));
        let topology = owners.map_or_else(|| topology(count), |owners| cluster(count, owners));
        let is_faulty = !random.one_in(3);
        let limits = Limits {
            // Without faults a step that takes long is none.
            timeout: is_faulty.then_some(Duration::from_millis(400)),
            listens_everywhere: !random.one_in(3),
            ..Limits::default()
        };
        let world = World::new(settings(), limits.clone(), topology.clone(), seed);
        Self {
            random,
            world,
            clients: Vec::new(),
            peers: BTreeMap::new(),
            topology,
            owners,
            is_stale: false,
            limits,
            is_faulty,
            ejected: BTreeSet::new(),
            numbers: 0,
            messages: 0,
            coverage: Coverage::default(),
        }
    }

    fn run(&mut self) {
        for _ in 0..300 {
            self.step();
            self.settle();
        }
        self.heal();
    }

    fn step(&mut self) {
        match self.random.place(20) {
            0 | 1 if self.clients.len() < 8 => self.connect(),
            0..=5 => {
                if let Some(at) = self.any_client() {
                    self.ask(at);
                }
            }
            6..=8 => {
                if let Some(at) = self.any_client() {
                    self.send(at, 1 << 20);
                }
            }
            9 if self.owners.is_some() && self.random.one_in(3) => self.move_slot(),
            9..=11 => self.shards_read(),
            12..=14 => self.shards_write(300_000),
            15 => self.publish_directly(),
            16 => {
                self.make_connections();
                if let Some(at) = self.any_client() {
                    self.clients[at].reads ^= true;
                    self.take(at);
                }
            }
            17 if self.random.one_in(4) => {
                if let Some(at) = self.any_client() {
                    let gone = self.clients.remove(at);
                    self.world.pool.client_gone(gone.id, self.random.one_in(2), self.world.now);
                }
            }
            18 if self.is_faulty && self.random.one_in(3) => self.fail(),
            19 if self.owners.is_none() && self.random.one_in(3) => self.change(),
            19 if self.random.one_in(3) => self.move_slot(),
            19 if self.is_stale || self.random.one_in(4) => self.refresh(),
            _ => {
                let pause = Duration::from_millis(self.random.place(30) as u64);
                let events = self.world.pass_time(pause);
                self.take_events(events);
            }
        }
    }

    fn connect(&mut self) {
        let id = self.world.pool.client_connected(self.world.now);
        let resp3 = self.random.one_in(2);
        let mut client = Client {
            id,
            number: self.numbers,
            resp3,
            outbox: Vec::new(),
            inbox: Vec::new(),
            reads: true,
            expected: VecDeque::new(),
            names: Default::default(),
            heard: HashSet::new(),
            hears_twice: self.owners.is_some(),
        };
        if resp3 {
            client.outbox.extend(request(&["HELLO", "3"]));
            client.expected.push_back(Expected::Hello);
        }
        self.numbers += 1;
        self.clients.push(client);
    }

    fn any_client(&mut self) -> Option<usize> {
        (!self.clients.is_empty()).then(|| self.random.place(self.clients.len()))
    }

    /// The client wants one thing more.
    fn ask(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let has_reset = client.expected.iter().any(|expected| matches!(expected, Expected::Reset));
        let is_bound = has_reset || (!client.resp3 && client.listens());
        let random = &mut self.random;
        let (words, expected): (Vec<String>, _) = match random.place(if is_bound { 9 } else { 13 }) {
            0..=4 => {
                let (on, kind) = (!random.one_in(3), Kind::ALL[random.place(Kind::COUNT)]);
                let from: &[&str] = if kind == Kind::Pattern { &PATTERNS } else { &CHANNELS };
                let all = !on && random.one_in(3);
                let count = if all { 0 } else { 1 + random.place(3) };
                let names: VecDeque<String> = (0..count).map(|_| random.pick(from).to_owned()).collect();
                let word = if on { LISTEN[kind.place()] } else { LISTEN_NO_MORE[kind.place()] };
                let words = std::iter::once(word.to_owned()).chain(names.iter().cloned()).collect();
                (words, Expected::Change { on, kind, names, all, begun: false })
            }
            5 if !has_reset && random.one_in(3) => (vec!["RESET".into()], Expected::Reset),
            5..=8 => (vec!["PING".into()], Expected::Pong),
            9 | 10 => {
                let key = if random.one_in(3) { "large" } else { "small" };
                (vec!["GET".into(), format!("{key}{}", random.place(5))], Expected::Value)
            }
            _ => {
                self.messages += 1;
                let message = format!("m{}", self.messages);
                let word = if random.one_in(3) { "SPUBLISH" } else { "PUBLISH" };
                (vec![word.into(), random.pick(&CHANNELS).into(), message], Expected::Number)
            }
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        client.outbox.extend(request(&words));
        client.expected.push_back(expected);
    }

    fn send(&mut self, at: usize, most: usize) {
        let client = &mut self.clients[at];
        if client.outbox.is_empty() || !self.world.pool.wants_read(client.id) {
            return;
        }
        let cut = 1 + self.random.place(client.outbox.len().min(most));
        let bytes: Vec<u8> = client.outbox.drain(..cut).collect();
        self.world.client_sends(client.id, &bytes);
    }

    fn take(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if !client.reads {
            return;
        }
        let taken = self.world.client_takes(client.id, |length| length);
        client.inbox.extend(taken);
        let (heard, waiting) = (client.heard.len(), client.expected.len());
        client.read(self.is_faulty);
        self.coverage.heard += client.heard.len() - heard;
        self.coverage.acknowledged += waiting - client.expected.len();
        let id = client.id;
        assert!(self.world.judge(id).is_none(), "a client is closed without a reason");
    }

    fn make_connections(&mut self) {
        for id in std::mem::take(&mut self.world.wanted) {
            let Some(shard) = self.world.pool.shard_of(id) else { continue };
            let shard = shard.name.clone();
            if self.is_faulty && self.random.one_in(8) {
                self.world.shard_closes(id, &ShardFailure::ConnectRefused);
                continue;
            }
            self.world.shard_connects(id);
            self.peers.insert(id, Peer { shard, ..Peer::default() });
        }
    }

    fn shards_read(&mut self) {
        for id in self.world.up.clone() {
            let cut = self.random.place(400);
            let bytes = self.world.shard_takes(id, |length| length.min(cut.max(1)));
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.inbox.extend(bytes);
            while let Some((said, length)) = self.peers.get(&id).and_then(|peer| value(&peer.inbox)) {
                self.peers.get_mut(&id).expect("just seen").inbox.drain(..length);
                let words: Vec<String> = said.elements.into_iter().map(|word| word.text).collect();
                self.execute(id, &words);
            }
        }
    }

    fn execute(&mut self, id: ConnectionId, words: &[String]) {
        let peer = self.peers.get_mut(&id).expect("a connection");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let answer = match words[..] {
            ["HELLO", _] => "%1\r\n$5\r\nproto\r\n:3\r\n".to_owned(),
            ["PING"] if !peer.listens() => "+PONG\r\n".to_owned(),
            ["PING"] => "*2\r\n$4\r\npong\r\n$0\r\n\r\n".to_owned(),
            ["GET", key] if key.starts_with("large") => format!("${LARGE}\r\n{}\r\n", "x".repeat(LARGE)),
            ["GET", _] => "$5\r\nsmall\r\n".to_owned(),
            ["SPUBLISH" | "SSUBSCRIBE" | "SUNSUBSCRIBE", name, ..]
                if let Some(owner) = moved_to(self.owners, &peer.shard, name) =>
            {
                format!("-MOVED {} h:{}\r\n", slot(name), owner + 1)
            }
            ["SSUBSCRIBE", _] if self.owners.is_some() && self.is_faulty && self.random.one_in(10) => {
                "-CLUSTERDOWN Hash slot not served\r\n".to_owned()
            }
            [word @ ("PUBLISH" | "SPUBLISH"), channel, message] => {
                let (shard, kind) = (peer.shard.clone(), kind_published(word));
                format!(":{}\r\n", self.publish(&shard, kind, channel, message))
            }
            [word, name] => {
                let (on, kind) = match (kind_of(LISTEN, word), kind_of(LISTEN_NO_MORE, word)) {
                    (Some(kind), _) => (true, kind),
                    (_, Some(kind)) => (false, kind),
                    _ => panic!("a shard is sent {words:?}"),
                };
                let set = &mut peer.names[kind.place()];
                if on {
                    set.insert(name.to_owned())
                } else {
                    set.remove(name)
                };
                said(word, name, peer.names.iter().map(BTreeSet::len).sum())
            }
            _ => panic!("a shard is sent {words:?}"),
        };
        self.peers.get_mut(&id).expect("a connection").outbox.extend(bytes_of(&answer));
    }

    fn publish(&mut self, shard: &str, kind: Kind, channel: &str, message: &str) -> usize {
        let mut count = 0;
        // Nodes hand on what is published, but for what is of their slots.
        let is_everywhere = self.owners.is_some() && kind == Kind::Channel;
        for peer in self.peers.values_mut().filter(|peer| peer.shard == shard || is_everywhere) {
            if peer.names[kind.place()].contains(channel) {
                count += 1;
                let word = MESSAGE[kind.place()];
                let said = format!("*3\r\n{}{}{}", bulk(word), bulk(channel), bulk(message));
                peer.outbox.extend(said.bytes());
            }
            if kind == Kind::Sharded {
                continue;
            }
            for pattern in
                peer.names[Kind::Pattern.place()].iter().filter(|pattern| matches(pattern, channel))
            {
                count += 1;
                let head = bulk(MESSAGE[Kind::Pattern.place()]) + &bulk(pattern);
                peer.outbox.extend(format!("*4\r\n{head}{}{}", bulk(channel), bulk(message)).bytes());
            }
        }
        count
    }

    fn publish_directly(&mut self) {
        let shard = format!("shard-{}", self.random.place(self.topology.shards().len()));
        self.messages += 1;
        let (channel, message) = (self.random.pick(&CHANNELS), format!("m{}", self.messages));
        let kind = if self.random.one_in(3) { Kind::Sharded } else { Kind::Channel };
        self.publish(&shard, kind, channel, &message);
    }

    fn shards_write(&mut self, most: usize) {
        for id in self.world.up.clone() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if peer.outbox.is_empty() {
                continue;
            }
            let cut = 1 + self.random.place(peer.outbox.len().min(most));
            let bytes: Vec<u8> = peer.outbox.drain(..cut).collect();
            if let Err(failure) = self.world.shard_sends(id, &bytes) {
                panic!("the connection is given up: {failure}");
            }
        }
    }

    fn fail(&mut self) {
        let up: Vec<ConnectionId> = self.world.up.iter().copied().collect();
        // A reply that breaks off closes its client; that is for others to show.
        let is_begun = |out: &[u8]| out.starts_with(b"x") || out.starts_with(b"\r") || out.starts_with(b"\n");
        let is_whole =
            |peer: &Peer| !is_begun(&peer.outbox) && !peer.outbox.windows(4).any(|part| part == b"xxxx");
        let whole: Vec<ConnectionId> =
            up.into_iter().filter(|id| self.peers.get(id).is_some_and(is_whole)).collect();
        if !whole.is_empty() {
            let id = whole[self.random.place(whole.len())];
            self.peers.remove(&id);
            self.world.shard_closes(id, &ShardFailure::Reset);
        }
    }

    /// Owners change.
    fn change(&mut self) {
        let count = self.topology.shards().len();
        if self.random.one_in(2) && count > 1 {
            let shard = self.random.place(count);
            if !self.ejected.remove(&shard) && self.ejected.len() + 1 < count {
                self.ejected.insert(shard);
            }
            self.adopt_ejected();
            return;
        }
        let next = 1 + self.random.place(SHARDS);
        self.ejected.clear();
        self.coverage.reloads += 1;
        let kept: Vec<_> = (0..next).map(|shard| (shard < count).then_some(shard)).collect();
        self.topology = topology(next);
        if self.random.one_in(3) {
            self.limits.listens_everywhere ^= true;
        }
        self.world.reconfigure(settings(), self.limits.clone(), self.topology.clone(), &kept);
    }

    /// A slot is another node's, which the former one tells its clients, and the proxy learns later.
    fn move_slot(&mut self) {
        let (count, channel) = (self.topology.shards().len(), self.random.place(CHANNELS.len()));
        let Some(owners) = &mut self.owners else { return };
        let before = std::mem::replace(&mut owners[channel], self.random.place(count));
        if before == owners[channel] {
            return;
        }
        self.coverage.moves += 1;
        let is_extra = self.is_faulty && self.random.one_in(3);
        let of_shard = |peer: &&mut Peer| peer.shard == format!("shard-{before}");
        for peer in self.peers.values_mut().filter(of_shard) {
            let names = &mut peer.names[Kind::Sharded.place()];
            let gone: Vec<String> =
                names.iter().filter(|name| slot(name) == slot(CHANNELS[channel])).cloned().collect();
            for name in &gone {
                names.remove(name);
                peer.outbox.extend(bytes_of(&said("sunsubscribe", name, 0)));
            }
            if is_extra && !gone.is_empty() {
                // As Valkey did: valkey-io/valkey#1066.
                peer.outbox.extend_from_slice(b"-CLUSTERDOWN The cluster is down\r\n");
            }
        }
    }

    /// The proxy learns who owns what.
    fn refresh(&mut self) {
        let Some(owners) = self.owners else { return };
        self.is_stale = false;
        self.topology = cluster(self.topology.shards().len(), owners);
        self.world.pool.set_topology(self.topology.clone(), self.world.now);
    }

    fn adopt_ejected(&mut self) {
        if self.owners.is_some() {
            return self.refresh();
        }
        let ejected: Vec<usize> = self.ejected.iter().copied().collect();
        self.coverage.ejections += ejected.len();
        let topology = Arc::new(self.topology.without(&ejected));
        self.world.pool.set_topology(topology, self.world.now);
    }

    fn settle(&mut self) {
        let events = self.world.settle();
        self.take_events(events);
        self.is_stale |= self.world.pool.take_stale();
        for at in 0..self.clients.len() {
            self.take(at);
        }
    }

    fn take_events(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::ConnectionClosed(id, _) => {
                    self.peers.remove(&id);
                }
                Event::ClientLeft(id, verdict) => panic!("{id:?} is closed: {verdict:?}"),
                Event::ConnectionFinished(_) | Event::Shard(_) => {}
            }
        }
    }

    /// All goes on until nothing does.
    fn rest(&mut self) {
        for _ in 0..400 {
            for at in 0..self.clients.len() {
                self.clients[at].reads = true;
                self.send(at, usize::MAX);
            }
            self.make_connections();
            self.shards_read();
            self.shards_write(usize::MAX);
            if self.is_stale {
                self.refresh();
            }
            let events = self.world.pass_time(Duration::from_millis(20));
            self.take_events(events);
            self.settle();
        }
    }

    fn heal(&mut self) {
        self.rest();
        let was_faulty = std::mem::take(&mut self.is_faulty);
        self.ejected.clear();
        self.adopt_ejected();
        self.rest();
        for client in &self.clients {
            assert!(
                client.outbox.is_empty() && client.expected.is_empty() && client.inbox.is_empty(),
                "client {} is stuck: {:?}",
                client.number,
                client.expected
            );
        }
        self.coverage.gaps = self.world.counters.message_gaps.get();
        // Other owners have not been listened to yet.
        let has_changed = self.coverage.reloads + self.coverage.ejections + self.coverage.moves > 0;
        self.coverage.moved = self.world.counters.redirects_moved.get();
        assert_eq!(self.world.counters.redirects_given_up.get(), 0);
        assert!(was_faulty || self.coverage.gaps == 0 || has_changed);
        for (channel, kind) in CHANNELS
            .into_iter()
            .flat_map(|channel| [Kind::Channel, Kind::Sharded].map(|kind| (channel, kind)))
        {
            let owner = self.topology.shard_for(channel.as_bytes()).expect("an owner");
            let subscribed = |peer: &Peer, name: &str| {
                usize::from(peer.shard == format!("shard-{owner}") && peer.names[kind.place()].contains(name))
            };
            let count = |name: &str| self.peers.values().map(|peer| subscribed(peer, name)).sum::<usize>();
            let beside =
                (0..20).map(|bit| count(&text_of(&Resp::tally(kind, channel.as_bytes(), bit))) << bit);
            let listeners =
                self.clients.iter().filter(|client| client.names[kind.place()].contains(channel)).count();
            assert_eq!(count(channel) + beside.sum::<usize>(), listeners, "{kind:?} {channel}");
            let elsewhere = |peer: &&Peer| {
                peer.shard != format!("shard-{owner}") && peer.names[Kind::Sharded.place()].contains(channel)
            };
            assert_eq!(self.peers.values().filter(elsewhere).count(), 0, "{channel} has another owner");
        }
        // One message for each channel, from where the proxy would publish it, and with all shards listened to, from any.
        for channel in CHANNELS {
            let owner = self.topology.shard_for(channel.as_bytes()).expect("an owner");
            let count = self.topology.shards().len();
            let shard = match self.limits.listens_everywhere {
                true => format!("shard-{}", self.random.place(count)),
                false => format!("shard-{owner}"),
            };
            self.publish(&shard, Kind::Channel, channel, &format!("last of {channel}"));
            self.publish(&format!("shard-{owner}"), Kind::Sharded, channel, &format!("last of {channel}"));
        }
        self.rest();
        for client in &self.clients {
            for channel in CHANNELS {
                let last = format!("last of {channel}");
                let hears = |kind, name: &str| client.heard.contains(&(kind, name.to_owned(), last.clone()));
                let has = |kind: Kind, name| client.names[kind.place()].contains(name);
                for kind in [Kind::Channel, Kind::Sharded] {
                    assert_eq!(hears(kind, channel), has(kind, channel), "{kind:?} {channel}");
                }
                for pattern in PATTERNS {
                    let wanted = has(Kind::Pattern, pattern) && matches(pattern, channel);
                    assert_eq!(hears(Kind::Pattern, pattern), wanted, "{pattern} {channel}");
                }
            }
        }
        for client in std::mem::take(&mut self.clients) {
            self.world.pool.client_gone(client.id, false, self.world.now);
        }
        self.rest();
        for peer in self.peers.values() {
            assert!(!peer.listens(), "{}: left behind", peer.shard);
        }
        assert_eq!(self.world.counters.subscribers.get(), 0);
    }
}

#[test]
fn subscribers_hear_what_they_listen_to() {
    let seeds = random::seeds(60);
    let is_whole = seeds.end - seeds.start > 50;
    let mut all = Coverage::default();
    for seed in seeds {
        let mut run = Run::new(seed);
        random::run(seed, || run.run());
        let Coverage { acknowledged, heard, reloads, ejections, gaps, moves, moved } = run.coverage;
        all.acknowledged += acknowledged;
        all.heard += heard;
        all.reloads += reloads;
        all.ejections += ejections;
        all.gaps += gaps;
        all.moves += moves;
        all.moved += moved;
    }
    if is_whole {
        assert!(
            all.acknowledged > 300
                && all.heard > 300
                && all.reloads > 40
                && all.gaps > 4
                && all.moves > 40
                && all.moved > 20,
            "{all:?}"
        );
    }
}
