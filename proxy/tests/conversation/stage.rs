//! Plays a conversation: a [`World`] with clients, shards and what is between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use memstore_proxy::failure::{Blame, ShardFailure};
use memstore_proxy::pool::{ClientId, ConnectionId, Parting};
use memstore_proxy::protocol::ShardIdentity;
use memstore_proxy::time::Time;
use shard_discovery::Topology;

use super::script::{Deed, Peer, Said, Script, Setting, Step, What};
use super::settings::{self, COUNTERS, Dialect, Scene};
use super::speech::{self, Speech};
use super::topology::{Cluster, of_shards};
use crate::world::{Event, World};

struct Client {
    id: ClientId,
    reads: bool,
    /// Heard and not yet told of by the script.
    inbox: Vec<u8>,
    /// Said and not yet read by the proxy.
    outbox: Vec<u8>,
    /// Since when that waits, though the client takes its replies.
    since: Option<Time>,
    closed: bool,
}

#[derive(Default)]
struct Connection {
    index: Option<ConnectionId>,
    stopped: bool,
    inbox: Vec<u8>,
    /// The proxy has closed its writing side.
    finished: bool,
    /// Why it was closed by the proxy, each time.
    closed: VecDeque<ShardFailure>,
}

/// How a shard takes connections.
#[derive(Clone)]
enum Manner {
    Accepts,
    Fails(ShardFailure),
    Hangs,
}

/// Failures of a shard that the script has not told of yet.
#[derive(Clone, Copy, Default)]
struct Failures {
    counted: u64,
    probed: u64,
}

pub struct Stage<D: Dialect> {
    world: World<D>,
    clients: BTreeMap<String, Client>,
    /// By shard and number, both from 1.
    connections: BTreeMap<(usize, usize), Connection>,
    manners: Vec<Manner>,
    failures: Vec<Failures>,
    ejected: BTreeSet<usize>,
    scene: Scene,
    cluster: Option<Cluster>,
    /// The configuration.
    settings: Vec<Setting>,
    drains: bool,
}

/// What did not go as written.
pub type Mismatch = String;

impl<D: Dialect> Stage<D> {
    /// A stage as the header says.
    pub fn set(script: &Script) -> Result<Self, (usize, Mismatch)> {
        let (scene, limits, settings) = settings::read::<D>(&script.header)?;
        let cluster = scene.is_cluster.then(|| Cluster::of(scene.shards));
        let topology = topology(&scene, cluster.as_ref(), &BTreeSet::new());
        let (preconnects, store) = (scene.preconnects, Arc::new(scene.store.clone()));
        let mut stage = Self {
            world: World::new(settings, limits, topology, 1),
            clients: BTreeMap::new(),
            connections: BTreeMap::new(),
            manners: vec![Manner::Accepts; scene.shards],
            failures: vec![Failures::default(); scene.shards],
            ejected: BTreeSet::new(),
            scene,
            cluster,
            settings: script.header.clone(),
            drains: false,
        };
        stage.world.pool.set_store(store);
        stage.world.local = stage.scene.local.clone();
        if preconnects {
            stage.world.pool.preconnect();
            stage.flow();
        }
        Ok(stage)
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
                    self.connection_of(index).closed.push_back(failure);
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
                let Some(failure) = connection.closed.pop_front() else {
                    return Err("the connection is not closed".into());
                };
                if let Some(reason) = reason
                    && failure.to_string() != *reason
                {
                    return Err(format!("it is closed for another reason: {failure}"));
                }
            }
            What::Finished(shard, number) => {
                let connection = self.connections.entry((*shard, *number)).or_default();
                if !std::mem::take(&mut connection.finished) {
                    return Err("its writing side is open".into());
                }
            }
            What::Does(Peer::Client(name), deed) => self.client_does(name, *deed),
            What::Does(Peer::Shard(shard, number), deed) => self.shard_does(*shard, *number, *deed)?,
            What::After(duration) => self.pass_time(*duration),
            What::Count(name, wanted) => {
                let (_, counter) = COUNTERS
                    .iter()
                    .find(|(known, _)| known == name)
                    .ok_or_else(|| format!("no counter of conversation/settings.rs is called {name}"))?;
                equal(*wanted, counter(&self.world.counters))?;
            }
            What::Failures(shard, wanted) => {
                let failures = self.failures.get_mut(*shard - 1).ok_or("no such shard")?;
                equal(*wanted, std::mem::take(&mut failures.counted))?;
            }
            What::Probes(shard, wanted) => {
                let failures = self.failures.get_mut(*shard - 1).ok_or("no such shard")?;
                equal(*wanted, std::mem::take(&mut failures.probed))?;
            }
            What::Slot(key, owner) => {
                self.learn(|cluster| cluster.give(key, owner.map(|shard| shard - 1)))?;
            }
            What::ReadsFor(replica, primary) => {
                self.learn(|cluster| cluster.read_from(replica - 1, primary - 1))?;
            }
            What::Replaces(now, before) => self.learn(|cluster| cluster.replace(before - 1, now - 1))?,
            What::OwnersAskedFor => {
                if !self.world.pool.take_stale() {
                    return Err("nobody wants to know them".into());
                }
            }
            What::Reload(changed) => self.reload(changed)?,
            What::Drain => {
                self.drains = true;
                for client in self.clients.values().filter(|client| client.outbox.is_empty()) {
                    self.world.pool.part_with(client.id, Parting::Drained, self.world.now);
                }
                self.flow();
            }
        }
        Ok(())
    }

    /// Another configuration: settings that are not named stay as they are.
    fn reload(&mut self, changed: &[Setting]) -> Result<(), Mismatch> {
        self.settings.retain(|known| changed.iter().all(|setting| setting.name != known.name));
        self.settings.extend(changed.iter().filter(|setting| setting.value != "none").cloned());
        let (scene, limits, settings) =
            settings::read::<D>(&self.settings).map_err(|(_, mismatch)| mismatch)?;
        let before = self.scene.shards;
        let kept: Vec<_> = (0..scene.shards).map(|shard| (shard < before).then_some(shard)).collect();
        self.manners.resize(self.manners.len().max(scene.shards), Manner::Accepts);
        self.failures.resize(self.manners.len(), Failures::default());
        self.world.pool.set_store(Arc::new(scene.store.clone()));
        self.scene = scene;
        let topology = topology(&self.scene, self.cluster.as_ref(), &self.ejected);
        self.world.reconfigure(settings, limits, topology, &kept);
        self.flow();
        Ok(())
    }

    /// The nodes of a cluster say something else.
    fn learn(&mut self, change: impl FnOnce(&mut Cluster)) -> Result<(), Mismatch> {
        change(self.cluster.as_mut().ok_or("the shards are no cluster")?);
        self.adopt();
        Ok(())
    }

    /// The same shards, but other owners.
    fn adopt(&mut self) {
        let topology = topology(&self.scene, self.cluster.as_ref(), &self.ejected);
        self.world.pool.set_topology(topology, self.world.now);
        self.flow();
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
            if connection.finished {
                left += &format!("\n    shard {name} finished");
            }
            for failure in &connection.closed {
                left += &format!("\n    shard {name} closed: {failure}");
            }
        }
        if self.world.pool.take_stale() {
            left += "\n    owners asked for";
        }
        if left.is_empty() { Ok(()) } else { Err(format!("the conversation ends without:{left}")) }
    }

    /// The client, which connects when it is first spoken of.
    fn client(&mut self, name: &str) -> &mut Client {
        if !self.clients.contains_key(name) {
            let id = self.world.pool.client_connected(self.world.now);
            self.world.eager.insert(id, Vec::new());
            let client =
                Client { id, reads: true, inbox: Vec::new(), outbox: Vec::new(), since: None, closed: false };
            self.clients.insert(name.to_owned(), client);
        }
        self.clients.get_mut(name).expect("just inserted")
    }

    fn client_does(&mut self, name: &str, deed: Deed) {
        let id = self.client(name).id;
        match deed {
            Deed::Closes | Deed::Resets => {
                self.clients.remove(name);
                self.world.pool.client_gone(id, deed == Deed::Resets, self.world.now);
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
                let is_gone = self.world.judge(id).is_some();
                self.client(name).closed |= is_gone;
            }
        }
        self.flow();
    }

    fn shard_does(&mut self, shard: usize, number: usize, deed: Deed) -> Result<(), Mismatch> {
        let place = shard - 1;
        let manner = self.manners.get_mut(place).ok_or("no such shard")?;
        match deed {
            Deed::Closes | Deed::Resets => {
                let index = self.connected(shard, number)?;
                let failure = if deed == Deed::Closes { ShardFailure::Closed } else { ShardFailure::Reset };
                self.world.shard_closes(index, &failure);
            }
            Deed::StopsReading => self.connections.entry((shard, number)).or_default().stopped = true,
            Deed::ReadsOn => self.connections.entry((shard, number)).or_default().stopped = false,
            Deed::Accepts => *manner = Manner::Accepts,
            Deed::Refuses => *manner = Manner::Fails(ShardFailure::ConnectRefused),
            Deed::Unreachable => *manner = Manner::Fails(ShardFailure::ConnectTimeout),
            Deed::LacksDescriptors => {
                *manner = Manner::Fails(ShardFailure::LocalResources("Too many open files".into()));
            }
            Deed::Hangs => *manner = Manner::Hangs,
            Deed::Moves => self.world.pool.renew(&format!("shard-{shard}"), self.world.now),
            Deed::Ejected | Deed::Restored => {
                if self.cluster.is_some() {
                    return Err("nodes of a cluster are not ejected".into());
                }
                match deed {
                    Deed::Ejected => self.ejected.insert(place),
                    _ => self.ejected.remove(&place),
                };
                self.adopt();
            }
            Deed::Ends | Deed::Connects => return Err("no shard does that".into()),
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
                if client.outbox.is_empty() || client.closed {
                    continue;
                }
                let now = self.world.now;
                if self.world.pool.wants_read(client.id) {
                    let arrived = client.since.take().unwrap_or(now);
                    self.world.client_sends_late(client.id, &std::mem::take(&mut client.outbox), arrived);
                    moved = true;
                    if self.drains {
                        self.world.pool.part_with(client.id, Parting::Drained, self.world.now);
                    }
                } else if client.reads && !self.world.pool.is_waiting(client.id) {
                    client.since.get_or_insert(now);
                } else {
                    client.since = None;
                }
            }
            let events = self.world.settle();
            self.take(events);
            let mut hanging = Vec::new();
            for index in std::mem::take(&mut self.world.wanted) {
                let shard = self.shard_of(index);
                match self.manners[shard - 1].clone() {
                    Manner::Accepts => {
                        let identity = self.scene.asks_identity.then(|| self.identity_of(shard));
                        self.world.shard_connects_as(index, identity);
                    }
                    Manner::Fails(failure) => {
                        self.world.shard_closes(index, &failure);
                    }
                    Manner::Hangs => {
                        hanging.push(index);
                        continue;
                    }
                }
                moved = true;
            }
            self.world.wanted.extend(hanging);
            for index in self.world.up.clone() {
                let bytes = match self.connection_of(index).stopped {
                    true => Vec::new(),
                    false => self.world.shard_takes(index, |length| length),
                };
                moved |= !bytes.is_empty();
                self.connection_of(index).inbox.extend(bytes);
            }
            for client in self.clients.values_mut().filter(|client| !client.reads) {
                if self.world.pool.client_output(client.id).is_some_and(|output| !output.is_empty()) {
                    self.world.pool.client_blocked(client.id, false, self.world.now);
                }
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
                    self.connection_of(index).closed.push_back(failure);
                }
                Event::ConnectionFinished(index) => self.connection_of(index).finished = true,
                Event::Shard(event) => {
                    let shard: usize = event.shard["shard-".len()..].parse().expect("a shard's number");
                    let blame = event.failure.map(|failed| failed.blame);
                    self.failures[shard - 1].counted += u64::from(blame == Some(Blame::Shard));
                    self.failures[shard - 1].probed += u64::from(blame == Some(Blame::Unknown));
                }
            }
        }
    }

    /// Who the shard has to be: as its address says, or by its ID as a node of a cluster.
    fn identity_of(&self, shard: usize) -> ShardIdentity {
        let node = |number: usize| format!("node-{number}").into_boxed_str();
        match &self.cluster {
            None => ShardIdentity::Host(format!("shard-{shard}").into()),
            Some(_) => {
                let known = (1..=self.scene.shards).map(node).collect();
                ShardIdentity::Node { id: node(shard), known, found: None }
            }
        }
    }

    /// The number of the shard that the connection leads to.
    fn shard_of(&self, index: ConnectionId) -> usize {
        self.world.pool.shard_of(index).expect("it is there").name["shard-".len()..]
            .parse()
            .expect("a shard's number")
    }

    fn connection_of(&mut self, index: ConnectionId) -> &mut Connection {
        // It may be known still where the pool has nothing left of it.
        let known = self.connections.iter().find(|(_, connection)| connection.index == Some(index));
        if let Some((&key, _)) = known {
            return self.connections.get_mut(&key).expect("just seen");
        }
        let shard = self.shard_of(index);
        let of_shard = || self.connections.range((shard, 0)..(shard + 1, 0));
        let is_free = |connection: &Connection| {
            connection.index.is_none_or(|id| self.world.pool.shard_of(id).is_none())
        };
        // One that is not there any more leaves its number to the next.
        let key = match of_shard().find(|(_, connection)| is_free(connection)) {
            Some((&key, _)) => key,
            None => (shard, of_shard().count() + 1),
        };
        let connection = self.connections.entry(key).or_default();
        connection.index = Some(index);
        connection
    }

    fn connected(&self, shard: usize, number: usize) -> Result<ConnectionId, Mismatch> {
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

fn equal(wanted: u64, counted: u64) -> Result<(), Mismatch> {
    if wanted == counted { Ok(()) } else { Err(format!("expected {wanted}\n         got {counted}")) }
}

fn topology(scene: &Scene, cluster: Option<&Cluster>, ejected: &BTreeSet<usize>) -> Arc<Topology> {
    if let Some(cluster) = cluster {
        return cluster.topology(scene.shards);
    }
    let ejected: Vec<usize> = ejected.iter().copied().filter(|&shard| shard < scene.shards).collect();
    let all = of_shards(scene.shards, scene.tag).with_pins(scene.pins.clone()).expect("good pins");
    Arc::new(all.without(&ejected))
}
