//! The control thread: everything that happens once per process.
//!
//! It listens and deals clients to workers, takes signals, keeps the one ejector of each pool, answers what concerns
//! all workers. It never touches a request.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use shard_discovery::Topology;
use shard_discovery::resolver::{Resolver, ResolverOptions};
use tokio::sync::{Mutex, Notify, mpsc};

use crate::account::Account;
use crate::admin::{self, Admin, Reload};
use crate::config::{self, Config};
use crate::failure::ShardFailure;
use crate::log::SetLogLevel;
use crate::net::epoll::Alarm;
use crate::net::listen::Bound;
use crate::protocol::{Deed, Found};
use crate::scripts::Scripts;
use crate::status::Status;
use crate::worker::{self, Order, PoolSender, Report, WorkerSetup};
use descriptors::{Descriptors, Sockets, number_of};
use doors::OpenDoor;
use pool::PoolControl;
use questions::{Asking, Questions};
use signals::{Signals, Told};

mod accept;
mod adoption;
mod care;
mod change;
mod clients;
mod descriptors;
mod doors;
mod ejection;
mod entrances;
mod events;
mod files;
mod kill;
mod kills;
mod lists;
pub mod look;
mod machine;
mod memory;
pub mod pool;
mod probe;
mod questions;
mod reload;
mod ring;
mod signals;

/// Reports that may wait for the control thread; workers keep what does not fit, and tell it later.
const REPORTS_MAX: usize = 4096;

/// Wishes of operators that may wait.
const WISHES_MAX: usize = 16;
/// How often it is looked whether a name is to be looked up again.
const FOLLOW_TICK: Duration = Duration::from_millis(250);
/// Share of the grace of a drain after which clients are let go: by then new ones are sent elsewhere.
const LINGER_SHARE: f64 = 0.5;
/// Share of it in which all are let go that ask for something.
const LEAVE_SHARE: f64 = 0.4;
/// How long the first clients wait until it is known what the shards can do.
const LEARN_WAIT: Duration = Duration::from_millis(500);

/// What the control thread has.
pub(crate) struct Control {
    /// Reads the configuration.
    load: Box<dyn Fn() -> anyhow::Result<Config>>,
    /// The files it was read from, as they were then.
    files: RefCell<files::Files>,
    set_log_level: SetLogLevel,
    /// Settings that need a restart, as they were last told.
    told_fixed: RefCell<Vec<&'static str>>,
    workers: Vec<PoolSender>,
    /// Where host names lead.
    names: Arc<Resolver>,
    /// By their numbers; also those that are removed and not yet drained.
    pools: RefCell<BTreeMap<usize, Rc<PoolControl>>>,
    next_pool: Cell<usize>,
    /// What of the descriptors is not for clients.
    descriptors: Rc<Descriptors>,
    /// What is known of the servers of each pool beside the files.
    rings: ring::Rings,
    /// One reload at a time.
    reloading: Mutex<()>,
    /// Whoever changes pools, for as long as that takes; nobody waits for shards with it.
    changing: Mutex<()>,
    /// What all this is, for other threads.
    status: Arc<Status>,
}

impl Control {
    /// The pools that are served, in the order they were opened in.
    fn served(&self) -> Vec<Rc<PoolControl>> {
        self.pools.borrow().values().filter(|pool| !pool.removed.get()).cloned().collect()
    }

    /// Tells other threads which pools are served, and under which configuration.
    fn tell_status(&self) {
        let served = self.served();
        self.status.set_pools(served.iter().map(|pool| pool.status.clone()).collect());
        let configs: Vec<_> = served.iter().map(|pool| pool.config()).collect();
        let process = self.status.process();
        self.status.set_digest(config::digest(&process, configs.iter().map(|config| &**config)));
        self.reserve_files();
    }

    /// Keeps from clients the descriptors that the present shards need.
    fn reserve_files(&self) {
        let served = self.served();
        let sockets = served.iter().map(|pool| Sockets {
            shards: pool.topology().shards().len(),
            per_shard: pool.config().server_connections,
        });
        let missing = self.descriptors.reserve(sockets, self.workers.len());
        let (limit, reserved) = (self.descriptors.limit(), self.descriptors.reserved());
        if let Some(needed) = missing {
            tracing::warn!(
                limit,
                needed,
                reserved,
                "open file limit too low for clients and shards; raise it (ulimit -n, LimitNOFILE)"
            );
        }
        self.status.open_files_max.store(limit, Relaxed);
        self.status.open_files_reserved.store(reserved, Relaxed);
    }

    /// Tells what is known of the servers of each pool beside the list of those that are used.
    fn tell_rings(&self) {
        for pool in self.served() {
            pool.ring.replace(self.rings.of(&pool.config().name));
            pool.tell_status();
        }
    }

    fn pool(&self, number: usize) -> Option<Rc<PoolControl>> {
        self.pools.borrow().get(&number).cloned()
    }

    /// One more pool is served.
    fn open(&self, config: Arc<config::Pool>, topology: Arc<Topology>, memory_max: usize) -> Rc<PoolControl> {
        let number = self.next_pool.replace(self.next_pool.get() + 1);
        self.status.account.set_max(memory_max);
        let neighbour = self.served().into_iter().find(|other| other.shares(&topology));
        let libraries = neighbour.map(|other| other.scripts.libraries().clone()).unwrap_or_default();
        let scripts = Scripts::beside(&self.status.account, libraries);
        let pool = PoolControl::open(
            number,
            config,
            topology,
            &self.workers,
            self.names.clone(),
            Arc::new(scripts),
            self.descriptors.clone(),
        );
        care::begin(&pool);
        let mut pools = self.pools.borrow_mut();
        pools.retain(|_, pool| !(pool.removed.get() && pool.is_drained()));
        pools.insert(number, pool.clone());
        pool
    }
}

/// Bytes that the process may hold for clients and shards.
fn memory_max(process: &config::Process) -> usize {
    usize::try_from(process.memory_max.unwrap_or_else(machine::default_memory_max)).unwrap_or(usize::MAX)
}

/// What else is done for whoever runs the proxy.
pub struct Hooks {
    /// Once all addresses are taken.
    pub bound: Box<dyn FnOnce() -> anyhow::Result<()>>,
    /// At every SIGHUP, also while another reload is under way.
    pub hangup: Box<dyn Fn()>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { bound: Box::new(|| Ok(())), hangup: Box::new(|| ()) }
    }
}

/// Runs the proxy until a signal ends it. `config` is what `load` read, which reads it again.
pub fn serve(
    config: Config,
    load: impl Fn() -> anyhow::Result<Config> + 'static,
    set_log_level: SetLogLevel,
    hooks: Hooks,
) -> anyhow::Result<()> {
    memory::set_up();
    let descriptors = Rc::new(Descriptors::new(machine::raise_file_limit()));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    let local = tokio::task::LocalSet::new();
    let ended = local.block_on(&runtime, run(config, Box::new(load), set_log_level, descriptors, hooks));
    // The files of sockets go with what its tasks have; workers that have not ended are not waited for.
    drop(local);
    runtime.shutdown_background();
    ended
}

async fn run(
    config: Config,
    load: Box<dyn Fn() -> anyhow::Result<Config>>,
    set_log_level: SetLogLevel,
    descriptors: Rc<Descriptors>,
    hooks: Hooks,
) -> anyhow::Result<()> {
    let start = Instant::now();
    // Signals first, so that none is missed while the rest starts.
    let mut signals = Signals::new(hooks.hangup)?;
    let Config { process, mut pools, files, shown } = config;
    // Before clients can come: a change from now on is one.
    let files = files::Files::look(files, &files::Files::default());
    let count = process.workers.unwrap_or_else(machine::default_workers).max(1);

    let mut admin_listener = process.admin.as_ref().map(admin::bind).transpose()?.flatten();
    let _file = admin_listener.as_mut().and_then(admin::Endpoint::take_file);
    let options = ResolverOptions { server: process.dns_server };
    let names = Arc::new(Resolver::new(&options).context("cannot start the DNS resolver")?);
    let rings = ring::Rings::default();
    rings.settle(&mut pools);
    lists::settle(&mut pools, &[], &names).await?;
    let is_behind = rings.ask_peers(&mut pools, &names).await;
    let openings = pools.into_iter().map(Opening::of).collect::<anyhow::Result<Vec<_>>>()?;
    let stats = match &process.stats {
        None => None,
        Some(listen) => admin::stats::bind(listen)?,
    };
    (hooks.bound)()?;
    let none = || "none".to_owned();
    let served = (
        admin_listener.as_ref().map_or_else(none, admin::Endpoint::address),
        stats.as_ref().and_then(|stats| stats.local_addr().ok()).map_or_else(none, |at| at.to_string()),
    );
    let account = Account::new(memory_max(&process));
    let status = Arc::new(Status::new(start, count, account.clone(), process.clone()));
    status.set_shown(shown);
    let (reports, inbox) = mpsc::channel(REPORTS_MAX);
    let alarms = (0..count).map(|_| worker::alarm()).collect::<Result<Vec<_>, _>>()?;
    let (threads, workers) = start_workers(&status, &account, &alarms, reports)?;
    let (wish, mut wishes) = mpsc::channel::<Reload>(WISHES_MAX);
    let (about_clients, client_wishes) = mpsc::channel(WISHES_MAX);
    let asked_to_drain = Arc::new(Notify::new());
    let admin = Admin {
        status: status.clone(),
        alarms,
        drain: asked_to_drain.clone(),
        reloads: wish.clone(),
        clients: about_clients,
        listing: Mutex::default(),
        history: Default::default(),
        set_log_level: set_log_level.clone(),
        shares: admin::Shares::default(),
        rings: admin::Rings::default(),
        connections_max: descriptors.side_connections() as usize,
    };
    admin::spawn(admin_listener, stats, admin)?;
    let control = Rc::new(Control {
        load,
        names,
        files: RefCell::new(files),
        workers,
        set_log_level,
        told_fixed: RefCell::default(),
        pools: RefCell::default(),
        next_pool: Cell::new(0),
        descriptors,
        rings,
        reloading: Mutex::default(),
        changing: Mutex::default(),
        status,
    });
    open_pools(&control, openings, account.max()).await;
    tokio::task::spawn_local(memory::give_back(account));
    tokio::task::spawn_local(follow_names(control.clone()));
    tokio::task::spawn_local(clients::answer(client_wishes, control.clone()));
    tokio::task::spawn_local(lists::follow(control.clone()));
    tokio::task::spawn_local(take_reports(inbox, control.clone()));
    if is_behind {
        let control = control.clone();
        tokio::task::spawn_local(async move {
            let _ = reload::reload(&control, "shards not used by peers").await;
        });
    }
    tokio::task::spawn_local(reload::watch(control.clone()));
    let (admin, stats) = served;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), workers = count, admin, stats, "memstore is serving");

    let mut workers = tokio::task::spawn_blocking(move || join(threads));
    let ends = tokio::select! {
        ends = until_drained(&control, &mut signals, &asked_to_drain, &mut wishes) => ends,
        ended = &mut workers => return ended.context("worker threads cannot be joined")?,
    };
    // Whoever asks for a reload from now on hears why there is none.
    let _wish = wish;
    tokio::task::spawn_local(async move {
        while let Some(answer) = wishes.recv().await {
            let _ = answer.send(Err("the process is draining".into()));
        }
    });
    drain(&control, &mut signals, ends, workers).await
}

/// A pool that is to be opened, whose address is taken.
struct Opening {
    config: Arc<config::Pool>,
    topology: Arc<Topology>,
    doors: Vec<OpenDoor>,
}

impl Opening {
    fn of(pool: config::Pool) -> anyhow::Result<Self> {
        // One after the other, so that two of them cannot have one address.
        let open = |listener: &config::Listener| {
            let bound = Bound::new(&listener.at, pool.reuseport, pool.backlog);
            let listening = bound.and_then(|bound| Ok(bound.listen()?));
            match listening {
                Ok(listening) => Ok(OpenDoor { at: listener.at.clone(), from: doors::From::Free(listening) }),
                Err(error) => Err(doors::taken(&pool.name, &listener.at, error)),
            }
        };
        let doors = pool.listeners.iter().map(open).collect::<anyhow::Result<_>>()?;
        let topology = pool.topology().with_context(|| format!("pool {}", pool.name))?;
        Ok(Self { config: Arc::new(pool), topology: Arc::new(topology), doors })
    }
}

/// Starts a worker for each alarm; where each of them is given its pools.
fn start_workers(
    status: &Status,
    account: &Arc<Account>,
    alarms: &[Alarm],
    reports: mpsc::Sender<Report>,
) -> anyhow::Result<(Vec<JoinHandle<()>>, Vec<PoolSender>)> {
    let seed = machine::seed();
    let (mut threads, mut workers) = (Vec::new(), Vec::new());
    for (number, alarm) in alarms.iter().enumerate() {
        let (door, pools) = PoolSender::new(alarm);
        let setup = WorkerSetup {
            number,
            count: alarms.len(),
            seed,
            pools,
            alarm: alarm.clone(),
            alarms: alarms.to_vec(),
            account: account.clone(),
            counters: status.workers[number].clone(),
            reports: reports.clone(),
            system_clock: SystemTime::now,
        };
        threads.push(worker::spawn(setup).context("cannot start a worker thread")?);
        workers.push(door);
    }
    Ok((threads, workers))
}

/// Opens all pools, learns of their shards what can be learnt quickly, and accepts clients.
async fn open_pools(control: &Rc<Control>, openings: Vec<Opening>, memory_max: usize) {
    let mut opened = Vec::new();
    let mut learning = tokio::task::JoinSet::new();
    for Opening { config, topology, doors } in openings {
        let pool = control.open(config, topology, memory_max);
        if pool.config().preconnect {
            pool.preconnect().await;
        }
        let learner = pool.clone();
        learning.spawn_local(async move {
            if learner.config().cluster().is_some() {
                care::cluster::refresh(&learner).await;
            }
            tokio::join!(learner.inquired.notified(), care::capabilities::learn(learner.clone()));
        });
        opened.push((pool, doors));
    }
    // The first client is to be told the truth where that takes no time.
    let learned = async { while learning.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LEARN_WAIT, learned).await;
    learning.detach_all();
    control.tell_status();
    control.tell_rings();
    for (pool, doors) in opened {
        doors.into_iter().for_each(|door| pool.accept(door, &[]));
    }
    control.status.reloaded(Duration::ZERO, "start", Vec::new());
}

/// Reloads whenever that is asked for, until the process is to end; by which signal from then on it ends at once.
async fn until_drained(
    control: &Rc<Control>,
    signals: &mut Signals,
    asked_to_drain: &Notify,
    wishes: &mut mpsc::Receiver<Reload>,
) -> usize {
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::End(name) => {
                    tracing::info!(signal = name, "drain started");
                    // A second one ends at once.
                    return 1;
                }
                Told::Reload => {
                    let control = control.clone();
                    tokio::task::spawn_local(async move {
                        // What went wrong is in the log.
                        let _ = reload::reload(&control, "SIGHUP").await;
                    });
                }
            },
            () = asked_to_drain.notified() => {
                tracing::info!(request = "POST /drain", "drain started");
                // The signal that follows as a container is stopped goes on with the drain.
                return 2;
            }
            Some(answer) = wishes.recv() => {
                let control = control.clone();
                tokio::task::spawn_local(async move {
                    let result = reload::reload(&control, "HTTP").await;
                    let _ = answer.send(result.map_err(|error| format!("{error:#}")));
                });
            }
        }
    }
}

/// Stops accepting, lets workers answer what was read, and waits for them; the signal with the number `ends` ends at
/// once.
async fn drain(
    control: &Control,
    signals: &mut Signals,
    ends: usize,
    workers: tokio::task::JoinHandle<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    control.status.draining.store(true, Relaxed);
    let process = control.status.process();
    let finish = async {
        let (first, last) = (process.drain_grace.mul_f64(LINGER_SHARE), process.drain_grace);
        tokio::time::sleep(first).await;
        for pool in control.served().iter().filter(|_| !last.is_zero()) {
            pool.retire(last.mul_f64(LEAVE_SHARE)).await;
        }
        tokio::time::sleep(last - first).await;
        // A change that had begun has come to its end; whoever waits for shards still notices that it is too late.
        let _changing = control.changing.lock().await;
        let pools: Vec<_> = control.pools.borrow().values().cloned().collect();
        for pool in &pools {
            drop(pool.close(|_| true).await);
        }
        for pool in &pools {
            pool.drain(process.drain_limit).await;
        }
        workers.await.context("worker threads cannot be joined")?
    };
    let ended_at_once = async {
        for _ in 1..ends {
            tracing::info!(signal = signals.end().await, "signal ignored: drain already started");
        }
        signals.end().await
    };
    tokio::select! {
        ended = finish => {
            tracing::info!("drain completed");
            ended
        }
        name = ended_at_once => {
            // No exit here: what was left in the file system is removed by whoever has put it there.
            tracing::warn!(signal = name, "second signal received; exiting immediately");
            Err(anyhow::anyhow!("ended by {name} before the drain completed"))
        }
    }
}

/// Follows the shards' host names as long as the process lives.
async fn follow_names(control: Rc<Control>) {
    // Spread, so that many proxies do not ask in step.
    let spread = 0.75 + (machine::seed() % 512) as f64 / 1024.0;
    loop {
        tokio::time::sleep(FOLLOW_TICK).await;
        let refresh = control.status.process().dns_refresh.mul_f64(spread);
        for pool in control.served() {
            pool.follow_names(refresh);
        }
        // A cluster may have got more nodes.
        control.reserve_files();
        control
            .status
            .lookups
            .iter()
            .zip(control.names.lookups())
            .for_each(|(told, now)| told.store(now, Relaxed));
    }
}

fn join(threads: Vec<JoinHandle<()>>) -> anyhow::Result<()> {
    for thread in threads {
        let name = thread.thread().name().unwrap_or("worker").to_owned();
        thread.join().map_err(|_| anyhow::anyhow!("{name} panicked"))?;
    }
    Ok(())
}

async fn take_reports(mut inbox: mpsc::Receiver<Report>, control: Rc<Control>) {
    let questions = Rc::new(Questions::default());
    while let Some(report) = inbox.recv().await {
        match report {
            Report::Stale { pool } => {
                if let Some(pool) = control.pool(pool) {
                    pool.stale.notify_one();
                }
            }
            Report::Failed { pool, shard, failure, blame, time } => {
                if let Some(pool) = control.pool(pool) {
                    pool.stale.notify_one();
                    if matches!(failure, ShardFailure::ConnectFailed(_)) {
                        pool.note_stranger(&shard, true);
                    }
                    pool.judge(&shard, &failure, blame, time).await;
                }
            }
            Report::Recovered { pool, shard } => {
                if let Some(pool) = control.pool(pool) {
                    pool.ejection.borrow_mut().succeeded(&shard);
                    pool.note_healthy(&shard);
                    pool.note_stranger(&shard, false);
                }
            }
            Report::Connect { worker, pool, shard, connection, is_private } => {
                let Some(pool) = control.pool(pool) else { continue };
                tokio::task::spawn_local(async move {
                    let mut result = pool.connect(&shard).await;
                    // What is for one client takes nothing of what all of them need.
                    if is_private
                        && let Ok(socket) = &result
                        && !pool.descriptors.admits(number_of(socket))
                    {
                        let words =
                            "no file descriptors left for clients that wait; raise the limit (ulimit -n)";
                        result = Err(ShardFailure::LocalResources(words.into()));
                    }
                    let identity = pool.identity_of(&shard.address);
                    pool.orders[worker].send(Order::Connected { connection, result, identity }).await;
                });
            }
            Report::Asked { worker, pool, ask, asker, question } => {
                let Some(pool) = control.pool(pool) else { continue };
                let deed = question.deed;
                if deed.is_about_clients() {
                    questions.put(Asking { pool, worker, ask, asker, question });
                    continue;
                }
                tokio::task::spawn_local(async move {
                    let done = match deed {
                        Deed::Notify(flags) => care::events::want(&pool, flags).await,
                        Deed::Stop(what) => kill::kill(&pool, what).await,
                        Deed::List | Deed::Kill | Deed::Unblock { .. } | Deed::Receive => Ok(()),
                    };
                    let refusal = done.err();
                    let found = Some(Found { refusal, ..Found::default() });
                    pool.orders[worker].send(Order::Answer { ask, found }).await;
                });
            }
        }
    }
}
