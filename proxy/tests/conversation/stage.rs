//! Plays a conversation: a [`World`] with clients, shards and what is between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use memstore_proxy::metrics::PoolCounters;
use memstore_proxy::pool::failure::{Blame, ShardFailure};
use memstore_proxy::pool::{ClientId, ConnectionIndex, Limits};
use memstore_proxy::protocol::Protocol;
use shard_discovery::{Address, DistributionKind, HashTag, KeyHash, Shard, Topology};

use super::script::{Deed, Peer, Said, Script, Step, What, duration};
use super::speech::{self, Speech};
use crate::world::{Event, World};

const SLOTS: usize = 16_384;

/// A protocol that conversations can be held in.
pub trait Dialect: Protocol {
    type Speech: Speech;

    /// Sets what a line of the header says; false if the protocol has no such setting.
    fn set(settings: &mut Self::Settings, name: &str, value: &str) -> bool;

    fn settings() -> Self::Settings;
}

struct Client {
    id: ClientId,
    reads: bool,
    /// Heard and not yet told of by the script.
    inbox: Vec<u8>,
    /// Said and not yet read by the proxy.
    outbox: Vec<u8>,
    closed: bool,
}

#[derive(Default)]
struct Connection {
    index: Option<ConnectionIndex>,
    stopped: bool,
    inbox: Vec<u8>,
    closed: Option<ShardFailure>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Accepts,
    Refuses,
    Hangs,
}

pub struct Stage<D: Dialect> {
    world: World<D>,
    clients: BTreeMap<String, Client>,
    /// By shard and number, both from 1.
    connections: BTreeMap<(usize, usize), Connection>,
    manners: Vec<Manner>,
    failures: Vec<u64>,
    ejected: BTreeSet<usize>,
    /// Owners of slots, in a cluster.
    owners: Option<Vec<Option<usize>>>,
}

/// What did not go as written.
pub type Mismatch = String;

impl<D: Dialect> Stage<D> {
    /// A stage as the header says.
    pub fn set(script: &Script) -> Result<Self, (usize, Mismatch)> {
        let mut limits = Limits::default();
        let mut settings = D::settings();
        let (mut shards, mut is_cluster) = (1, false);
        for (line, name, value) in &script.header {
            let wrong = |what: &str| (*line, format!("{name}: {what}"));
            let number = || value.parse::<usize>().map_err(|_| wrong("not a number"));
            let time = || duration(value).ok_or_else(|| wrong("not a duration such as 400ms or 3s"));
            match name.as_str() {
                "protocol" => {}
                "shards" => shards = number()?,
                "cluster" => is_cluster = value == "yes",
                "timeout" => limits.timeout = Some(time()?),
                "queue_wait" => limits.queue_wait = time()?,
                "in_flight_max" => limits.in_flight_max = number()?,
                "request_bytes_max" => limits.request_bytes_max = number()? as u64,
                "client_output_max" => limits.client_output_max = number()?,
                "shard_queue_max" => limits.shard_queue_max = number()?,
                "shard_queue_bytes_max" => limits.shard_queue_bytes_max = number()? as u64,
                "memory_max" => limits.memory_max = number()?,
                "server_connections" => limits.server_connections = number()?,
                "server_failure_limit" => limits.eager_connects = number()? as u32,
                "client_idle_timeout" => limits.client_idle_timeout = Some(time()?),
                "client_request_timeout" => limits.client_request_timeout = Some(time()?),
                "client_age_max" => limits.client_age_max = Some(time()?),
                _ if D::set(&mut settings, name, value) => {}
                _ => return Err(wrong("no such setting")),
            }
        }
        let owners = is_cluster.then(|| slot_owners(shards));
        let topology = match &owners {
            Some(owners) => of_cluster(shards, owners),
            None => of_shards(shards),
        };
        Ok(Self {
            world: World::new(settings, limits, topology, 1),
            clients: BTreeMap::new(),
            connections: BTreeMap::new(),
            manners: vec![Manner::Accepts; shards],
            failures: vec![0; shards],
            ejected: BTreeSet::new(),
            owners,
        })
    }

    /// One line of the script.
    pub fn play(&mut self, step: &Step) -> Result<(), Mismatch> {
        match &step.what {
            What::Says(Peer::Client(name), said) => {
                let bytes = bytes_of(said, D::Speech::requests)?;
                let client = self.client(name);
                if client.closed {
                    return Err(format!("client {name} is closed"));
                }
                client.outbox.extend(bytes);
                self.flow();
            }
            What::Says(Peer::Shard(shard, number), said) => {
                let bytes = bytes_of(said, D::Speech::responses)?;
                let index = self.connected(*shard, *number)?;
                if let Err(failure) = self.world.shard_sends(index, &bytes) {
                    self.connection_of(index).closed = Some(failure);
                }
                self.flow();
            }
            What::Hears(Peer::Client(name), said) => {
                let wanted = bytes_of(said, D::Speech::responses)?;
                let heard = std::mem::take(&mut self.client(name).inbox);
                compare(&wanted, &heard, D::Speech::show_responses)?;
            }
            What::Hears(Peer::Shard(shard, number), said) => {
                let wanted = bytes_of(said, D::Speech::requests)?;
                let connection = self.connections.entry((*shard, *number)).or_default();
                let heard = std::mem::take(&mut connection.inbox);
                compare(&wanted, &heard, D::Speech::show_requests)?;
            }
            What::Closed(Peer::Client(name), _) => {
                if !self.client(name).closed {
                    return Err(format!("client {name} is not closed"));
                }
                self.clients.get_mut(name).expect("just seen").closed = false;
                let left = self.clients.remove(name).expect("just seen");
                compare(b"", &left.inbox, D::Speech::show_responses)?;
            }
            What::Closed(Peer::Shard(shard, number), reason) => {
                let connection = self.connections.entry((*shard, *number)).or_default();
                let Some(failure) = connection.closed.take() else {
                    return Err("the connection is not closed".into());
                };
                if let Some(reason) = reason
                    && failure.to_string() != *reason
                {
                    return Err(format!("it is closed for another reason: {failure}"));
                }
            }
            What::Does(Peer::Client(name), deed) => self.client_does(name, *deed),
            What::Does(Peer::Shard(shard, number), deed) => self.shard_does(*shard, *number, *deed)?,
            What::After(duration) => self.pass_time(*duration),
            What::Count(name, wanted) => {
                let counted = count(&self.world.counters, name)
                    .ok_or_else(|| format!("no counter of conversation/stage.rs is called {name}"))?;
                if counted != *wanted {
                    return Err(format!("expected {wanted}\n         got {counted}"));
                }
            }
            What::Failures(shard, wanted) => {
                let counted = std::mem::take(&mut self.failures[*shard - 1]);
                if counted != *wanted {
                    return Err(format!("expected {wanted}\n         got {counted}"));
                }
            }
            What::Ejected(shard, is_ejected) => {
                if *is_ejected {
                    self.ejected.insert(*shard - 1);
                } else {
                    self.ejected.remove(&(*shard - 1));
                }
                let ejected: Vec<usize> = self.ejected.iter().copied().collect();
                let topology = of_shards(self.manners.len()).without(&ejected);
                self.world.pool.set_topology(Arc::new(topology), self.world.now);
                self.flow();
            }
            What::Slot(key, shard) => {
                let Some(owners) = &mut self.owners else {
                    return Err("only a cluster is told of slots".into());
                };
                owners[slot(key.as_bytes())] = Some(*shard - 1);
                let topology = of_cluster(self.manners.len(), owners);
                self.world.pool.set_topology(topology, self.world.now);
                self.flow();
            }
        }
        Ok(())
    }

    /// Whether all that was heard was told of.
    pub fn end(&mut self) -> Result<(), Mismatch> {
        let mut left = String::new();
        for (name, client) in &self.clients {
            if !client.inbox.is_empty() {
                left += &format!("\n    client {name}< {}", D::Speech::show_responses(&client.inbox));
            }
            if client.closed {
                left += &format!("\n    client {name} closed");
            }
        }
        for ((shard, number), connection) in &self.connections {
            let name = if *number == 1 { shard.to_string() } else { format!("{shard}.{number}") };
            if !connection.inbox.is_empty() {
                left += &format!("\n    shard {name}< {}", D::Speech::show_requests(&connection.inbox));
            }
            if let Some(failure) = &connection.closed {
                left += &format!("\n    shard {name} closed: {failure}");
            }
        }
        if left.is_empty() { Ok(()) } else { Err(format!("the conversation ends without:{left}")) }
    }

    /// The client, which connects when it is first spoken of.
    fn client(&mut self, name: &str) -> &mut Client {
        if !self.clients.contains_key(name) {
            let id = self.world.pool.client_connected(self.world.now);
            self.world.eager.insert(id, Vec::new());
            let client = Client { id, reads: true, inbox: Vec::new(), outbox: Vec::new(), closed: false };
            self.clients.insert(name.to_owned(), client);
        }
        self.clients.get_mut(name).expect("just inserted")
    }

    fn client_does(&mut self, name: &str, deed: Deed) {
        let id = self.client(name).id;
        match deed {
            Deed::Closes | Deed::Resets => {
                self.clients.remove(name);
                self.world.pool.client_gone(id, deed == Deed::Resets);
            }
            Deed::Ends => self.world.pool.client_ended(id),
            Deed::StopsReading => {
                self.client(name).reads = false;
                let taken = self.world.eager.remove(&id).unwrap_or_default();
                self.client(name).inbox.extend(taken);
            }
            _ => {
                self.client(name).reads = true;
                let taken = self.world.client_takes(id, |length| length);
                self.world.eager.insert(id, taken);
                self.world.judge(id);
            }
        }
        self.flow();
    }

    fn shard_does(&mut self, shard: usize, number: usize, deed: Deed) -> Result<(), Mismatch> {
        match deed {
            Deed::Closes | Deed::Resets => {
                let index = self.connected(shard, number)?;
                let failure = if deed == Deed::Closes { ShardFailure::Closed } else { ShardFailure::Reset };
                self.world.shard_closes(index, &failure);
            }
            Deed::StopsReading => self.connections.entry((shard, number)).or_default().stopped = true,
            Deed::ReadsOn => self.connections.entry((shard, number)).or_default().stopped = false,
            Deed::Accepts => self.manners[shard - 1] = Manner::Accepts,
            Deed::Refuses => self.manners[shard - 1] = Manner::Refuses,
            Deed::Hangs => self.manners[shard - 1] = Manner::Hangs,
            Deed::Ends => {}
        }
        self.flow();
        Ok(())
    }

    fn pass_time(&mut self, duration: Duration) {
        // In steps, so that what comes of one deadline reaches its peer before the next.
        const STEPS: u32 = 100;
        for _ in 0..STEPS {
            let events = self.world.pass_time(duration / STEPS);
            self.take(events);
            self.flow();
        }
    }

    /// Bytes move until nobody has anything to say.
    fn flow(&mut self) {
        loop {
            let mut moved = false;
            for client in self.clients.values_mut() {
                if !client.outbox.is_empty() && !client.closed && self.world.pool.wants_read(client.id) {
                    self.world.client_sends(client.id, &std::mem::take(&mut client.outbox));
                    moved = true;
                }
            }
            let events = self.world.settle();
            self.take(events);
            for index in std::mem::take(&mut self.world.wanted) {
                let shard = self.shard_of(index);
                match self.manners[shard - 1] {
                    Manner::Accepts => {
                        self.world.shard_connects(index);
                        moved = true;
                    }
                    Manner::Refuses => {
                        self.world.shard_closes(index, &ShardFailure::ConnectRefused);
                        moved = true;
                    }
                    Manner::Hangs => self.world.wanted.push(index),
                }
            }
            for index in self.world.up.clone() {
                let bytes = match self.connection_of(index).stopped {
                    true => Vec::new(),
                    false => self.world.shard_takes(index, |length| length),
                };
                moved |= !bytes.is_empty();
                self.connection_of(index).inbox.extend(bytes);
            }
            for client in self.clients.values_mut().filter(|client| client.reads) {
                if let Some(taken) = self.world.eager.get_mut(&client.id) {
                    moved |= !taken.is_empty();
                    client.inbox.append(taken);
                }
                if !client.closed && self.world.judge(client.id).is_some() {
                    client.closed = true;
                }
            }
            if !moved && !self.world.pool.has_work() {
                return;
            }
        }
    }

    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::ClientLeft(id, _) => {
                    let client = self.clients.values_mut().find(|client| client.id == id);
                    let client = client.expect("a client that was there");
                    client.inbox.extend(self.world.eager.remove(&id).unwrap_or_default());
                    client.closed = true;
                }
                Event::ConnectionClosed(index, failure) => {
                    self.connection_of(index).closed = Some(failure);
                }
                Event::Shard(event) => {
                    let shard: usize = event.shard["shard-".len()..].parse().expect("a shard's number");
                    let counts = event.failure.is_some_and(|failed| failed.blame == Blame::Shard);
                    self.failures[shard - 1] += u64::from(counts);
                }
            }
        }
    }

    /// The number of the shard that the connection leads to.
    fn shard_of(&self, index: ConnectionIndex) -> usize {
        self.world.pool.shard_of(index).name["shard-".len()..].parse().expect("a shard's number")
    }

    fn connection_of(&mut self, index: ConnectionIndex) -> &mut Connection {
        let shard = self.shard_of(index);
        let known = self.connections.iter().find(|((of, _), connection)| {
            *of == shard && connection.index.is_none_or(|known| known == index)
        });
        let key = match known {
            Some((&key, _)) => key,
            None => (shard, self.connections.range((shard, 0)..(shard + 1, 0)).count() + 1),
        };
        let connection = self.connections.entry(key).or_default();
        connection.index = Some(index);
        connection
    }

    fn connected(&self, shard: usize, number: usize) -> Result<ConnectionIndex, Mismatch> {
        let connection = self.connections.get(&(shard, number));
        let index = connection.and_then(|connection| connection.index);
        index.filter(|index| self.world.up.contains(index)).ok_or_else(|| "it is not connected".into())
    }
}

fn bytes_of(said: &Said, speech: impl Fn(&str) -> Result<Vec<u8>, String>) -> Result<Vec<u8>, Mismatch> {
    match said {
        Said::Nothing => Ok(Vec::new()),
        Said::Messages(text) => speech(text),
        Said::Bytes(text) => speech::bytes(text),
    }
}

fn compare(wanted: &[u8], heard: &[u8], show: impl Fn(&[u8]) -> String) -> Result<(), Mismatch> {
    if wanted == heard {
        return Ok(());
    }
    let shown = |bytes: &[u8]| if bytes.is_empty() { "nothing".into() } else { show(bytes) };
    let (mut expected, mut got) = (shown(wanted), shown(heard));
    if expected == got {
        (expected, got) = (speech::quoted(wanted), speech::quoted(heard));
    }
    Err(format!("expected {expected}\n         got {got}"))
}

fn shard(number: usize) -> Shard {
    let name = format!("shard-{number}");
    Shard::new(Address::Tcp { host: name.clone(), port: 6379 }, 1, Some(name))
}

fn key(number: usize) -> String {
    format!("k{number}")
}

/// Key `k1` is on shard 1, `k2` on shard 2, and so on, and so is every key with one of them in braces.
fn of_shards(count: usize) -> Arc<Topology> {
    let tag = HashTag::REDIS_CLUSTER;
    // Modula counts a shard as often as it weighs, so weights move the keys about until they are right.
    for seed in 0..1_000_000_u32 {
        let hash = KeyHash::ALL[seed as usize % KeyHash::ALL.len()];
        let mut random = seed / KeyHash::ALL.len() as u32;
        let mut weights = Vec::new();
        for _ in 0..count {
            weights.push(1 + random % 7);
            random /= 7;
        }
        let total: u32 = weights.iter().sum();
        let is_right = (1..=count).all(|number| {
            let place = hash.hash(key(number).as_bytes()) % total;
            let before: u32 = weights[..number - 1].iter().sum();
            count == 1 || (before..before + weights[number - 1]).contains(&place)
        });
        if !is_right {
            continue;
        }
        let shards =
            (1..=count).map(|number| Shard { weight: weights[number - 1], ..shard(number) }).collect();
        let topology = Topology::new(shards, DistributionKind::Modula, hash, Some(tag)).expect("good shards");
        for number in 1..=count {
            assert_eq!(topology.shard_for(key(number).as_bytes()), Some(number - 1), "of {count} shards");
        }
        return Arc::new(topology);
    }
    panic!("no hash spreads the keys over {count} shards");
}

/// In a cluster the slots of `k1`, `k2`, … belong to shards 1, 2, …, all others to shard 1.
fn slot_owners(count: usize) -> Vec<Option<usize>> {
    let mut owners = vec![Some(0); SLOTS];
    (1..=count).for_each(|number| owners[slot(key(number).as_bytes())] = Some(number - 1));
    owners
}

fn of_cluster(count: usize, owners: &[Option<usize>]) -> Arc<Topology> {
    let nodes = (1..=count).map(shard).collect();
    Arc::new(Topology::of_cluster(nodes, owners, vec![Vec::new(); count]).expect("good nodes"))
}

fn slot(key: &[u8]) -> usize {
    KeyHash::Crc16.hash(HashTag::REDIS_CLUSTER.hashed_part(key)) as usize % SLOTS
}

/// A counter of the pool by its name.
fn count(counters: &PoolCounters, name: &str) -> Option<u64> {
    macro_rules! counters {
        ($($name:ident),* $(,)?) => {
            match name {
                $(stringify!($name) => Some(counters.$name.get()),)*
                _ => None,
            }
        };
    }
    counters!(
        client_eof,
        client_err,
        forward_error,
        fragments,
        requests,
        refused,
        client_malformed,
        client_output_exceeded,
        client_evicted,
        client_timedout,
        client_aged,
        queue_waits,
        queue_full,
        client_pauses,
        redirects_moved,
        redirects_ask,
        redirects_later,
        redirects_given_up,
    )
}
