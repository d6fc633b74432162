//! One pool, as the control thread sees it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use shard_discovery::resolver::Resolver;
use shard_discovery::{Address, Shard, Topology};
use tokio::sync::{Mutex, Notify, oneshot, watch};
use tokio::task::JoinHandle;

use super::descriptors::Descriptors;
use super::ejection::{Ejection, Record};
use super::listener::{self, Listener};
use super::ring::Ring;
use super::status::PoolStatus;
use super::{cluster, connect, ejection, health, inquiry, probe};
use crate::cluster::map::Map;
use crate::config;
use crate::conversation::ConversationError;
use crate::metrics::Counters;
use crate::pool::failure::{ShardFailure, Stage};
use crate::worker::socket::Socket;
use crate::worker::{Door, Order, Orders, PoolSetup, Reconfiguration};

/// How often a shard is looked for that was not found the last time.
const MISSING_REFRESH: Duration = Duration::from_millis(250);

/// One pool, as the control thread sees it.
pub struct PoolControl {
    /// As it was written.
    written: RefCell<Arc<config::Pool>>,
    /// With what was learnt since.
    config: RefCell<Arc<config::Pool>>,
    counters: RefCell<Counters>,
    /// Each worker's orders.
    pub orders: Vec<Orders>,
    /// Clients that each worker was ever given, whichever listener they came to: the workers' counters tell how many of
    /// them are gone.
    pub dealt: Vec<Cell<u64>>,
    /// Bytes that the process may hold.
    memory_max: Cell<usize>,
    /// Names of shards that answered no probe.
    pub unreachable: RefCell<HashSet<String>>,
    /// Names of shards that the log knows as unhealthy, and whether it knows that in a shard's own words.
    pub(super) unhealthy: RefCell<HashMap<String, bool>>,
    /// Names of shards that are being asked whether a failure was theirs.
    pub(super) suspects: RefCell<HashSet<String>>,
    /// What is known of its servers beside the list of those that are used.
    pub ring: RefCell<Ring>,
    /// The shards are being asked what they can do.
    pub learning: Cell<bool>,
    /// The shards have been asked what they say of themselves.
    pub inquired: Notify,
    /// Who owns what, if it is a cluster.
    pub map: RefCell<Arc<Map>>,
    /// Something says that others own what by now.
    pub stale: Notify,
    /// Times the nodes of the cluster were asked who owns what: with an answer, and without.
    pub refreshes: Cell<[u64; 2]>,
    /// How often in a row nobody of the cluster has answered.
    pub lost: Cell<u32>,
    /// Which shards are out for failing.
    pub ejection: RefCell<Ejection>,
    /// A shard has been ejected.
    pub ejected: Notify,
    /// It is not in the configuration any more: its clients are being drained.
    pub removed: Cell<bool>,
    /// Held while workers are told who owns what, so that all are told the same in the same order.
    telling: Mutex<()>,
    accepting: RefCell<Option<Accepting>>,
    /// The same for other threads.
    pub status: Arc<std::sync::Mutex<PoolStatus>>,
    /// Where host names lead.
    pub names: Arc<Resolver>,
    /// What of the descriptors is not for clients.
    pub descriptors: Rc<Descriptors>,
    /// For each shard that was looked for, by its address in the configuration, where it was found.
    found: RefCell<HashMap<Address, Found>>,
}

/// Where a shard was found.
struct Found {
    /// Where connections of any worker were made to since workers were last told that it moved.
    at: BTreeSet<IpAddr>,
    /// The last attempt found nobody.
    is_missing: bool,
    /// Its name was looked up then, or is being looked up since.
    looked: Instant,
}

/// A connection that is made leads to somebody else.
fn unfit(reason: ConversationError) -> ShardFailure {
    if reason.is_local() { reason.failure() } else { ShardFailure::ConnectFailed(reason.to_string()) }
}

fn ids(map: &Map) -> Vec<&str> {
    map.members.iter().map(|member| &*member.id).collect()
}

struct Accepting {
    listener: Rc<Listener>,
    close: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl PoolControl {
    /// A pool that all workers serve from now on. It accepts nobody yet.
    pub fn open(
        number: usize,
        config: Arc<config::Pool>,
        topology: Arc<Topology>,
        workers: &[Door],
        names: Arc<Resolver>,
        memory_max: usize,
        descriptors: Rc<Descriptors>,
    ) -> Rc<Self> {
        let all = Counters::of_workers(workers.len(), topology.shards().len());
        let counters = RefCell::new(all[0].clone());
        let mut orders = Vec::new();
        for (worker, counters) in workers.iter().zip(all) {
            let (sender, receiver) = worker.orders();
            let (config, topology) = (config.clone(), topology.clone());
            worker.open(PoolSetup { number, config, topology, counters, orders: receiver, memory_max });
            orders.push(sender);
        }
        let status = PoolStatus {
            config: config.clone(),
            topology: topology.clone(),
            counters: counters.borrow().clone(),
            ejected: Vec::new(),
            records: vec![Record::default(); topology.shards().len()],
            unreachable: HashSet::new(),
            ring: Ring::default(),
            listening: false,
            map: Arc::default(),
            refreshes: [0, 0],
            names: names.clone(),
        };
        let pool = Rc::new(Self {
            status: Arc::new(std::sync::Mutex::new(status)),
            counters,
            dealt: vec![Cell::default(); orders.len()],
            orders,
            memory_max: Cell::new(memory_max),
            unreachable: RefCell::default(),
            unhealthy: RefCell::default(),
            suspects: RefCell::default(),
            ring: RefCell::default(),
            learning: Cell::new(false),
            inquired: Notify::new(),
            map: RefCell::default(),
            stale: Notify::new(),
            refreshes: Cell::default(),
            lost: Cell::default(),
            ejection: RefCell::new(Ejection::new(&config, topology)),
            written: RefCell::new(config.clone()),
            config: RefCell::new(config),
            ejected: Notify::new(),
            removed: Cell::new(false),
            telling: Mutex::new(()),
            accepting: RefCell::new(None),
            descriptors,
            names,
            found: RefCell::default(),
        });
        tokio::task::spawn_local(ejection::probe(pool.clone()));
        tokio::task::spawn_local(health::watch(pool.clone()));
        tokio::task::spawn_local(inquiry::follow(pool.clone()));
        tokio::task::spawn_local(cluster::follow(pool.clone()));
        pool
    }

    /// Its configuration as it was written.
    pub fn written(&self) -> Arc<config::Pool> {
        self.written.borrow().clone()
    }

    /// Its configuration, with what was learnt since it was read.
    pub fn config(&self) -> Arc<config::Pool> {
        self.config.borrow().clone()
    }

    /// Bytes that the process may hold.
    pub fn memory_max(&self) -> usize {
        self.memory_max.get()
    }

    /// What its workers count.
    pub fn counters(&self) -> Counters {
        self.counters.borrow().clone()
    }

    /// Tells other threads what has changed.
    pub fn tell_status(&self) {
        let ejection = self.ejection.borrow();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        *status = PoolStatus {
            config: self.config(),
            topology: ejection.all().clone(),
            counters: self.counters(),
            ejected: ejection.ejected(),
            records: ejection.records.clone(),
            unreachable: self.unreachable.borrow().clone(),
            ring: self.ring.borrow().clone(),
            listening: self.accepting.borrow().is_some(),
            map: self.map.borrow().clone(),
            refreshes: self.refreshes.get(),
            names: self.names.clone(),
        };
    }

    /// Accepts clients from now on.
    pub fn accept(self: &Rc<Self>, listener: Rc<Listener>) {
        let config = self.config();
        tracing::info!(pool = %config.name, listen = %config.listen, shards = config.shards.len(), "listening");
        let (close, closed) = watch::channel(false);
        let task = tokio::task::spawn_local(listener::accept(listener.clone(), self.clone(), closed));
        *self.accepting.borrow_mut() = Some(Accepting { listener, close, task });
        self.tell_status();
    }

    /// Accepts no more clients than the kernel already has; the listener is of use for another pool.
    pub async fn close(&self) -> Option<Rc<Listener>> {
        let Accepting { listener, close, task } = self.accepting.borrow_mut().take()?;
        self.tell_status();
        let _ = close.send(true);
        task.await.ok()?;
        Some(listener)
    }

    /// Whether its address, or one that overlaps, may be taken by another listener of this process.
    pub fn tolerate(&self, others: bool) {
        if let Some(accepting) = &*self.accepting.borrow() {
            accepting.listener.tolerate(others || self.config().reuseport);
        }
    }

    /// Connects to a shard, remembers where it was found, and judges the shard by it.
    pub async fn connect(self: &Rc<Self>, shard: &Shard) -> Result<Socket, ShardFailure> {
        let config = self.config();
        let mut began = Instant::now();
        let mut attempt = std::pin::pin!(self.find(shard.address.clone()));
        // To requests an attempt that takes longer than they may is a failure, though it may succeed yet.
        let patience = config.timeout.unwrap_or(Duration::MAX);
        let result = match tokio::time::timeout(patience, &mut attempt).await {
            Ok(result) => result,
            Err(_) => {
                let (failure, now) = (ShardFailure::ConnectTimeout, Instant::now());
                self.judge_attempt(shard, &failure, began..now).await;
                began = now;
                attempt.await
            }
        };
        if let Err(failure) = &result {
            self.judge_attempt(shard, failure, began..Instant::now()).await;
        }
        result
    }

    /// An attempt to connect has failed. Where the shard is elsewhere by now it says nothing.
    async fn judge_attempt(self: &Rc<Self>, shard: &Shard, failure: &ShardFailure, time: Range<Instant>) {
        if self.is_present(shard) {
            self.judge(&shard.name, failure, failure.blame(Stage::Connecting), time).await;
        }
    }

    /// Whether the shard is in the pool, at this address.
    pub(super) fn is_present(&self, shard: &Shard) -> bool {
        let is_same = |known: &Shard| known.name == shard.name && known.address == shard.address;
        self.ejection.borrow().shards().iter().any(is_same)
    }

    async fn find(&self, address: Address) -> Result<Socket, ShardFailure> {
        let config = self.config();
        let mut connected = connect::connect(&address, &self.names, &config).await;
        if config.shard_identity
            && config.protocol == config::Protocol::Redis
            && let Ok(socket) = &connected
            && let Err(reason) = probe::identify(socket, &address, &config).await
        {
            connected = Err(unfit(reason));
        }
        let map = self.map.borrow().clone();
        if let Some(member) = map.members.iter().find(|member| member.address == address)
            && let Ok(socket) = &connected
            && let Err(reason) = probe::is_node(socket, &member.id, &ids(&map), &config).await
        {
            connected = Err(unfit(reason));
        }
        let mut found = self.found.borrow_mut();
        let found = found.entry(address).or_insert_with(|| Found {
            at: BTreeSet::new(),
            is_missing: false,
            looked: Instant::now(),
        });
        // Nothing is known of a shard that we had no means to connect to.
        if !matches!(connected, Err(ShardFailure::LocalResources(_))) {
            found.is_missing = connected.is_err();
            if connected.is_err() {
                self.stale.notify_one();
            }
        }
        found.at.extend(connected.as_ref().ok().and_then(Socket::peer));
        connected
    }

    /// Looks up where shards are, those that were not found the last time more often. No name waits for another.
    pub fn follow_names(self: &Rc<Self>, refresh: Duration) {
        for shard in &self.config().shards {
            let Address::Tcp { host, .. } = &shard.address else { continue };
            if host.parse::<IpAddr>().is_ok() {
                continue;
            }
            let mut found = self.found.borrow_mut();
            let Some(found) = found.get_mut(&shard.address) else { continue };
            let pause = if found.is_missing { MISSING_REFRESH } else { refresh };
            if found.looked.elapsed() >= pause {
                found.looked = Instant::now();
                let (pool, shard, host) = (self.clone(), shard.clone(), host.clone());
                tokio::task::spawn_local(async move { pool.follow(&shard, &host).await });
            }
        }
    }

    /// Looks up where one shard is. If it has moved workers are told.
    async fn follow(&self, shard: &Shard, host: &str) {
        let before = self.names.known(host);
        let service = self.config().servers_srv.clone();
        let port_before = service.as_ref().and_then(|service| self.names.known_port(service, host));
        let port = match &service {
            Some(service) => self.names.refresh_port(service, host).await.ok(),
            None => None,
        };
        let Ok(now) = self.names.refresh(host).await else { return };
        let has_moved = match self.found.borrow().get(&shard.address) {
            Some(found) if found.is_missing && found.at.is_empty() => now != before,
            Some(found) => found.at.iter().any(|at| !now.contains(at)),
            None => false,
        };
        if has_moved || (port_before.is_some() && port != port_before) {
            tracing::info!(
                pool = %self.config().name, shard = %shard.name, addresses = ?now, port, "shard is found elsewhere"
            );
            self.renew(shard).await;
        }
    }

    /// Connections to the shard are made anew, where it is found now.
    async fn renew(&self, shard: &Shard) {
        self.found.borrow_mut().remove(&shard.address);
        let name: Arc<str> = shard.name.as_str().into();
        for orders in &self.orders {
            orders.send(Order::Renew(name.clone())).await;
        }
    }

    /// Tells all workers which shards are out now.
    pub async fn publish(&self) {
        let _telling = self.telling.lock().await;
        self.tell_status();
        let topology = self.ejection.borrow().live();
        for orders in &self.orders {
            orders.send(Order::Topology(topology.clone())).await;
        }
    }

    /// Another configuration of the same pool; of a cluster the map that is known goes on, if there is no other. Returns
    /// how long workers disagreed.
    pub async fn reconfigure(
        &self,
        config: Arc<config::Pool>,
        topology: Arc<Topology>,
        map: Option<Map>,
        memory_max: usize,
    ) -> Duration {
        self.memory_max.set(memory_max);
        self.written.replace(config.clone());
        let present = self.config().cluster.is_some().then(|| self.map.borrow().clone());
        let map = map.map(Arc::new).or(present).filter(|_| config.cluster.is_some()).unwrap_or_default();
        let window = if config.cluster.is_some() {
            let readers = vec![Vec::new(); map.members.len()];
            match map.topology(readers) {
                Ok(topology) => {
                    let config = config::Pool { shards: map.shards(), ..(*config).clone() };
                    self.apply(Arc::new(config), Arc::new(topology)).await
                }
                Err(_) => self.apply(config, topology).await,
            }
        } else {
            self.apply(config, topology).await
        };
        self.map.replace(map);
        self.stale.notify_one();
        window
    }

    /// Others own what in the cluster by now, or answer reads.
    pub async fn adopt_map(&self, map: Map, readers: Vec<Vec<usize>>) {
        let (name, members, covered) = (self.config().name.clone(), map.members.len(), map.covered());
        let topology = match map.topology(readers) {
            Ok(topology) => Arc::new(topology),
            Err(error) => return tracing::error!(pool = %name, %error, "the cluster cannot be used"),
        };
        let before = self.map.replace(Arc::new(map));
        let map = self.map.borrow().clone();
        if *before != *map {
            tracing::info!(pool = %name, nodes = members, slots = covered, "the cluster has changed");
        }
        let shards = map.shards();
        let present = self.ejection.borrow().all().clone();
        if *before == *map && present.has_readers_of(&topology) {
            self.tell_status();
        } else if present.shards() == shards {
            let config = self.config();
            self.ejection.borrow_mut().adopt(&config, topology);
            self.publish().await;
        } else {
            let config = config::Pool { shards, ..(*self.config()).clone() };
            self.apply(Arc::new(config), topology).await;
        }
    }

    /// Tells all workers of another configuration. Returns how long they disagreed.
    async fn apply(&self, config: Arc<config::Pool>, topology: Arc<Topology>) -> Duration {
        let _telling = self.telling.lock().await;
        let before = self.config();
        let memory_max = self.memory_max.get();
        let kept: Vec<Option<usize>> = {
            let present = self.ejection.borrow();
            let place = |name: &str| present.shards().iter().position(|known| known.name == name);
            topology.shards().iter().map(|shard| place(&shard.name)).collect()
        };
        let all = self.counters().with_shards(&kept);
        let topology = self.ejection.borrow_mut().adopt(&config, topology);
        *self.counters.borrow_mut() = all[0].clone();
        *self.config.borrow_mut() = config.clone();
        self.tell_status();
        let is_wanted = |address: &Address| config.shards.iter().any(|shard| shard.address == *address);
        self.found.borrow_mut().retain(|address, _| is_wanted(address));
        let mut heard = Vec::new();
        for (orders, counters) in self.orders.iter().zip(all) {
            let (applied, told) = oneshot::channel();
            let (config, topology) = (config.clone(), topology.clone());
            let reconfiguration = Reconfiguration { config, topology, counters, memory_max, applied };
            orders.send(Order::Reconfigure(Box::new(reconfiguration))).await;
            heard.push(told);
        }
        let mut when: Vec<Instant> = Vec::new();
        for told in heard {
            when.extend(told.await);
        }
        let is_judged_anew =
            config.servers_srv != before.servers_srv || (config.shard_identity && !before.shard_identity);
        if is_judged_anew {
            for shard in &config.shards {
                self.renew(shard).await;
            }
        }
        if let Some(accepting) = &*self.accepting.borrow() {
            accepting.listener.set_backlog(config.backlog);
        }
        if config.preconnect && !before.preconnect {
            self.preconnect().await;
        }
        match (when.iter().min(), when.iter().max()) {
            (Some(first), Some(last)) => last.duration_since(*first),
            _ => Duration::ZERO,
        }
    }

    /// Something was learnt of the shards that the configuration leaves open.
    pub async fn know(&self, learnt: impl FnOnce(&mut config::Pool)) {
        let mut config = (*self.config()).clone();
        learnt(&mut config);
        let topology = self.ejection.borrow().all().clone();
        self.apply(Arc::new(config), topology).await;
    }

    /// Connects to all shards ahead of the first request.
    pub async fn preconnect(&self) {
        for orders in &self.orders {
            orders.send(Order::Preconnect).await;
        }
    }

    /// Lets clients go one after the other, each right after a reply.
    pub async fn retire(&self, within: Duration) {
        for orders in &self.orders {
            orders.send(Order::Retire { within }).await;
        }
    }

    /// Lets workers answer what was read and end with the pool.
    pub async fn drain(&self, limit: Duration) {
        for orders in &self.orders {
            orders.send(Order::Drain { limit }).await;
        }
    }

    /// Whether all workers have ended with it.
    pub fn is_drained(&self) -> bool {
        self.orders.iter().all(Orders::is_closed)
    }
}
