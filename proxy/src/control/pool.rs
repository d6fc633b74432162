//! One pool, as the control thread sees it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use shard_discovery::resolver::Resolver;
use shard_discovery::source::Listing;
use shard_discovery::source::cluster::Map;
use shard_discovery::{Address, Shard, Topology};
use tokio::sync::{Mutex, Notify, oneshot};

use super::descriptors::Descriptors;
use super::ejection::Ejection;
use super::entrances::Entrances;
use super::events::Events;
use super::kills::Kills;
use crate::account::Account;
use crate::config;
use crate::denied::DeniedLog;
use crate::hot::HotKeys;
use crate::mailboxes::Mailboxes;
use crate::metrics::Counters;
use crate::monitor::Monitors;
use crate::protocol::NodeIds;
use crate::protocol::store::Store;
use crate::scripts::Scripts;
use crate::slow::SlowLog;
use crate::status::{PoolStatus, Record, Ring, Standings};
use crate::worker::{Learnt, Order, Orders, PoolSender, PoolSetup, Reconfiguration};

/// One pool, as the control thread sees it.
pub struct PoolControl {
    /// Its number in this process, never used for another one.
    pub number: usize,
    /// As it was written.
    config: RefCell<Arc<config::Pool>>,
    /// What was learnt of each of its shards, which holds as long as that is one.
    learnt: RefCell<HashMap<Shard, Learnt>>,
    /// What its source listed last.
    listing: RefCell<Listing>,
    /// Why its source could not be read the last time, if so.
    source_error: RefCell<Option<String>>,
    counters: RefCell<Counters>,
    /// Each worker's orders.
    pub orders: Vec<Orders>,
    /// Clients that each worker was ever given, whichever listener they came to: the workers' counters tell how many of
    /// them are gone.
    pub dealt: Vec<Cell<u64>>,
    /// What the process holds.
    pub account: Arc<Account>,
    /// Bytes that the process may hold.
    memory_max: Cell<usize>,
    /// Names of shards that answered no probe.
    pub unreachable: RefCell<HashSet<String>>,
    /// How the shards are, as the log knows it.
    pub(super) standings: Arc<Standings>,
    /// Names of shards that are being asked whether a failure was theirs.
    pub(super) suspects: RefCell<HashSet<String>>,
    /// What is known of its servers beside the list of those that are used.
    pub ring: RefCell<Ring>,
    /// The shards are being asked what they can do.
    pub learning: Cell<bool>,
    /// The shards have been asked what they say of themselves.
    pub inquired: Notify,
    /// What they have said, as workers were told last, and before what clients want was added.
    store: RefCell<(Store, Store)>,
    /// Which events of keys clients want.
    pub events: Events,
    /// Who asks for scripts to be stopped.
    pub kills: Kills,
    /// The scripts that clients of any worker have shown.
    pub scripts: Arc<Scripts>,
    /// What its workers see of requests.
    hot: Arc<HotKeys>,
    /// Who watches them.
    monitors: Arc<Monitors>,
    /// What was slow on any worker.
    slow: Arc<SlowLog>,
    /// Who owns what, if it is a cluster.
    pub map: RefCell<Arc<Map>>,
    /// The IDs of the nodes in a map, which was the present one when they were asked for last.
    pub(super) ids: RefCell<(Arc<Map>, NodeIds)>,
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
    /// The epoch of the topology that workers were told last: each that changes owners has the next number.
    epoch: Cell<u64>,
    /// Held while workers are told who owns what, so that all are told the same in the same order.
    telling: Mutex<()>,
    /// Where clients come in.
    pub entrances: Entrances,
    /// The same for other threads.
    pub status: Arc<std::sync::Mutex<PoolStatus>>,
    /// Where host names lead.
    pub names: Arc<Resolver>,
    /// What of the descriptors is not for clients.
    pub descriptors: Rc<Descriptors>,
    /// For each shard that was looked for, by its address in the configuration, where it was found.
    pub(super) found: RefCell<HashMap<Address, Found>>,
}

/// Where a shard was found.
pub(super) struct Found {
    /// Where connections of any worker were made to since workers were last told that it moved.
    pub(super) at: BTreeSet<SocketAddr>,
    /// The last attempt found nobody.
    pub(super) is_missing: bool,
    /// Who was there is not, or does not say that it is, the shard; and the shard has answered nobody since.
    pub(super) is_stranger: bool,
    /// Its name was looked up then, or is being looked up since.
    pub(super) looked: Instant,
}

impl PoolControl {
    /// A pool that all workers serve from now on. It accepts nobody yet, and nobody cares for it: see [`super::care`].
    pub fn open(
        number: usize,
        config: Arc<config::Pool>,
        topology: Arc<Topology>,
        workers: &[PoolSender],
        names: Arc<Resolver>,
        scripts: Arc<Scripts>,
        descriptors: Rc<Descriptors>,
    ) -> Rc<Self> {
        let all = Counters::of_workers(workers.len(), topology.shards().len());
        let counters = RefCell::new(all[0].clone());
        let account = scripts.account().clone();
        let slow = Arc::new(SlowLog::new(&account));
        let denied = Arc::<DeniedLog>::default();
        let mailboxes = Arc::new(Mailboxes::new(workers.len(), &account));
        let hot = Arc::new(HotKeys::new(workers.len(), &account));
        let monitors = Arc::new(Monitors::new(&account));
        let mut orders = Vec::new();
        for (worker, counters) in workers.iter().zip(all) {
            let (sender, receiver) = worker.orders();
            let (config, topology) = (config.clone(), topology.clone());
            let learnt = Learnt::default();
            worker.open(PoolSetup {
                number,
                config,
                learnt,
                topology,
                counters,
                scripts: scripts.clone(),
                slow: slow.clone(),
                denied: denied.clone(),
                mailboxes: mailboxes.clone(),
                hot: hot.clone(),
                monitors: monitors.clone(),
                orders: receiver,
                memory_max: account.max(),
            });
            orders.push(sender);
        }
        let standings = Arc::<Standings>::default();
        let status = PoolStatus {
            config: config.clone(),
            topology: topology.clone(),
            counters: counters.borrow().clone(),
            ejected: Vec::new(),
            records: vec![Record::new(); topology.shards().len()],
            unreachable: HashSet::new(),
            standings: standings.clone(),
            ring: Ring::default(),
            source_error: None,
            listening: false,
            listeners: Vec::new(),
            map: Arc::default(),
            epoch: 0,
            refreshes: [0, 0],
            names: names.clone(),
            hot: hot.clone(),
            monitors: monitors.clone(),
            slow: slow.clone(),
        };
        Rc::new(Self {
            number,
            status: Arc::new(std::sync::Mutex::new(status)),
            counters,
            dealt: vec![Cell::default(); orders.len()],
            orders,
            memory_max: Cell::new(account.max()),
            account,
            unreachable: RefCell::default(),
            standings,
            suspects: RefCell::default(),
            ring: RefCell::default(),
            learning: Cell::new(false),
            inquired: Notify::new(),
            store: RefCell::default(),
            events: Events::default(),
            kills: Kills::default(),
            scripts,
            hot,
            monitors,
            slow,
            map: RefCell::default(),
            ids: RefCell::default(),
            stale: Notify::new(),
            refreshes: Cell::default(),
            lost: Cell::default(),
            ejection: RefCell::new(Ejection::new(&config, topology)),
            learnt: RefCell::default(),
            listing: RefCell::new(config.listing()),
            source_error: RefCell::default(),
            config: RefCell::new(config),
            ejected: Notify::new(),
            removed: Cell::new(false),
            epoch: Cell::new(0),
            telling: Mutex::new(()),
            entrances: Entrances::default(),
            descriptors,
            names,
            found: RefCell::default(),
        })
    }

    /// Its configuration.
    pub fn config(&self) -> Arc<config::Pool> {
        self.config.borrow().clone()
    }

    /// What was learnt of its shards.
    pub fn learnt(&self) -> Learnt {
        self.learnt.borrow().values().cloned().fold(Learnt::default(), Learnt::and)
    }

    /// Its shards, with who would own what if all were fit.
    pub fn topology(&self) -> Arc<Topology> {
        self.ejection.borrow().all().clone()
    }

    /// Whether it has one of these shards.
    pub fn shares(&self, topology: &Topology) -> bool {
        let own = self.topology();
        let is_own = |shard: &Shard| own.shards().iter().any(|own| own.address == shard.address);
        topology.shards().iter().any(is_own)
    }

    /// Workers are told what the shards have said of themselves, if that or what clients want is new.
    pub async fn tell_store(&self, said: Option<Store>) {
        let _in_order = self.telling.lock().await;
        let told = {
            let mut store = self.store.borrow_mut();
            if let Some(said) = said {
                store.1 = said;
            }
            let mut now = store.1.clone();
            now.tells_of(self.events.wanted.get());
            if store.0 == now {
                return;
            }
            store.0 = now.clone();
            Arc::new(now)
        };
        for orders in &self.orders {
            orders.send(Order::Store(told.clone())).await;
        }
    }

    /// Bytes that the process may hold.
    pub fn memory_max(&self) -> usize {
        self.memory_max.get()
    }

    /// They hold from the next change of the configuration on.
    pub fn set_memory_max(&self, bytes: usize) {
        self.memory_max.set(bytes);
    }

    /// What its workers count.
    pub fn counters(&self) -> Counters {
        self.counters.borrow().clone()
    }

    /// The source was read, or it could not be, for this reason.
    pub fn note_source(&self, error: Option<String>) {
        if self.source_error.replace(error.clone()) != error {
            self.tell_status();
        }
    }

    /// Tells other threads what has changed.
    pub fn tell_status(&self) {
        let ejection = self.ejection.borrow();
        let listeners = self.entrances.status();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        *status = PoolStatus {
            config: self.config(),
            topology: ejection.all().clone(),
            counters: self.counters(),
            ejected: ejection.ejected(),
            records: ejection.records.clone(),
            unreachable: self.unreachable.borrow().clone(),
            standings: self.standings.clone(),
            ring: self.ring.borrow().clone(),
            source_error: self.source_error.borrow().clone(),
            listening: !listeners.is_empty(),
            listeners,
            epoch: self.epoch.get(),
            map: self.map.borrow().clone(),
            refreshes: self.refreshes.get(),
            names: self.names.clone(),
            hot: self.hot.clone(),
            monitors: self.monitors.clone(),
            slow: self.slow.clone(),
        };
    }

    /// Connections to the shard are made anew, where it is found now.
    pub(super) async fn renew(&self, shard: &Shard) {
        self.found.borrow_mut().remove(&shard.address);
        let name: Arc<str> = shard.name.as_str().into();
        for orders in &self.orders {
            orders.send(Order::Renew(name.clone())).await;
        }
    }

    /// Tells all workers which shards are out now.
    pub async fn publish(&self) {
        let _telling = self.telling.lock().await;
        self.tell_topology().await;
    }

    /// Tells all workers who owns what; the shards are the same.
    async fn tell_topology(&self) {
        let epoch = self.next_epoch();
        self.tell_status();
        let topology = self.ejection.borrow().live();
        for orders in &self.orders {
            orders.send(Order::Topology { topology: topology.clone(), epoch }).await;
        }
    }

    fn next_epoch(&self) -> u64 {
        self.epoch.set(self.epoch.get() + 1);
        self.epoch.get()
    }

    /// What is listed for the pool once this configuration holds: of a cluster what its nodes have said just now, or have
    /// said before.
    pub fn listing_of(&self, config: &config::Pool, map: Option<Map>) -> Listing {
        let before = self.config().cluster().is_some().then(|| self.map.borrow().clone());
        let map = map.map(Arc::new).or(before).filter(|_| config.cluster().is_some()).unwrap_or_default();
        self.map.replace(map.clone());
        match config.cluster() {
            Some(_) => map.listing(),
            None => config.listing(),
        }
    }

    /// Another configuration holds, under which this is listed. Returns how long workers disagreed.
    pub async fn reconfigure(&self, config: Arc<config::Pool>, listing: &Listing) -> Duration {
        let _telling = self.telling.lock().await;
        if self.config().source != config.source {
            self.source_error.replace(None);
        }
        let window = self.take(config, listing).await;
        self.stale.notify_one();
        window
    }

    /// The source lists something else by now. It was asked under this configuration; where another one holds by now, so does
    /// what is listed under that.
    pub async fn adopt(&self, under: &Arc<config::Pool>, listing: &Listing) {
        let _telling = self.telling.lock().await;
        if Arc::ptr_eq(under, &self.config()) {
            self.take(under.clone(), listing).await;
        }
    }

    /// The one way in which the shards of a pool, and who owns what, change, whatever its source.
    async fn take(&self, config: Arc<config::Pool>, listing: &Listing) -> Duration {
        let topology = match config.topology_of(listing) {
            Ok(topology) => Arc::new(topology),
            Err(error) => {
                tracing::error!(pool = %config.name, reason = %error, "server list rejected; keeping the previous list");
                return Duration::ZERO;
            }
        };
        let has_changed = self.listing.replace(listing.clone()) != *listing;
        if !Arc::ptr_eq(&config, &self.config()) || self.topology().shards() != topology.shards() {
            return self.apply(config, topology).await;
        }
        if has_changed {
            self.ejection.borrow_mut().adopt(&config, topology);
            self.tell_topology().await;
        } else {
            self.tell_status();
        }
        Duration::ZERO
    }

    /// Something was learnt of the shard that the configuration leaves open.
    pub async fn learn(&self, shard: &Shard, learnt: Learnt) {
        let _telling = self.telling.lock().await;
        let before = self.learnt();
        if self.topology().shards().contains(shard) {
            self.learnt.borrow_mut().insert(shard.clone(), learnt);
        }
        if self.learnt() != before {
            self.apply(self.config(), self.topology()).await;
        }
    }

    /// Tells all workers of another configuration, or of other shards. Returns how long they disagreed.
    async fn apply(&self, config: Arc<config::Pool>, topology: Arc<Topology>) -> Duration {
        let before = self.config();
        self.learnt.borrow_mut().retain(|shard, _| topology.shards().contains(shard));
        let (memory_max, learnt) = (self.memory_max.get(), self.learnt());
        let kept: Vec<Option<usize>> = {
            let present = self.ejection.borrow();
            let place = |name: &str| present.shards().iter().position(|known| known.name == name);
            topology.shards().iter().map(|shard| place(&shard.name)).collect()
        };
        let all = self.counters().with_shards(&kept);
        let topology = self.ejection.borrow_mut().adopt(&config, topology);
        *self.counters.borrow_mut() = all[0].clone();
        *self.config.borrow_mut() = config.clone();
        let epoch = self.next_epoch();
        self.tell_status();
        let is_wanted = |address: &Address| topology.shards().iter().any(|shard| shard.address == *address);
        self.found.borrow_mut().retain(|address, _| is_wanted(address));
        let mut heard = Vec::new();
        for (orders, counters) in self.orders.iter().zip(all) {
            let (applied, told) = oneshot::channel();
            let (config, topology, learnt) = (config.clone(), topology.clone(), learnt.clone());
            let reconfiguration =
                Reconfiguration { config, learnt, topology, epoch, counters, memory_max, applied };
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
            for shard in topology.shards() {
                self.renew(shard).await;
            }
        }
        self.entrances.renew(&config);
        if config.preconnect && !before.preconnect {
            self.preconnect().await;
        }
        match (when.iter().min(), when.iter().max()) {
            (Some(first), Some(last)) => last.duration_since(*first),
            _ => Duration::ZERO,
        }
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

    /// Whoever watches it at the admin address is not to wait for what does not come any more.
    pub fn end_watching(&self) {
        self.monitors.close();
    }

    /// Whether all workers have ended with it.
    pub fn is_drained(&self) -> bool {
        self.orders.iter().all(Orders::is_closed)
    }
}
