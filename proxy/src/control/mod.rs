//! The control thread: everything that happens once per process.
//!
//! It listens and deals clients to workers, takes signals, keeps the one ejector of each pool, answers what concerns
//! all workers, and serves statistics. It never touches a request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use shard_discovery::{Address, Topology};
use tokio::sync::{mpsc, watch};

use crate::config::{self, Config};
use crate::metrics::Counters;
use crate::pool::failure::ShardFailure;
use crate::worker::socket::Socket;
use crate::worker::{self, Order, Orders, PoolSetup, Report, WorkerSetup};
use ejection::Ejection;
use listener::Listener;
use questions::Questions;

mod connect;
mod ejection;
mod listener;
mod machine;
mod memory;
mod probe;
mod questions;
mod stats;

/// Reports that may wait for the control thread; workers drop further ones.
const REPORTS_MAX: usize = 4096;

/// One pool, as the control thread sees it.
pub(crate) struct PoolControl {
    config: Arc<config::Pool>,
    /// What each worker counts of it.
    counters: Counters,
    /// Each worker's orders.
    orders: Vec<Orders>,
    ejection: RefCell<Ejection>,
    /// For each shard, the addresses its host name last stood for.
    resolved: RefCell<HashMap<Address, Vec<SocketAddr>>>,
}

/// Runs the proxy until a signal ends it.
pub fn serve(config: Config) -> anyhow::Result<()> {
    machine::raise_file_limit();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    let start = Instant::now();
    // Signals first, so that none is missed while the rest starts.
    let mut signals = Signals::new()?;
    let process = config.process;
    let worker_count = process.workers.unwrap_or_else(machine::default_workers).max(1);
    let memory_max = process.memory_max.unwrap_or_else(machine::default_memory_max);

    let mut listeners = Vec::new();
    let mut pools = Vec::new();
    let mut setups: Vec<Vec<PoolSetup>> = (0..worker_count).map(|_| Vec::new()).collect();
    let alarms = (0..worker_count).map(|_| worker::alarm()).collect::<Result<Vec<_>, _>>()?;
    for pool in config.pools {
        let listener = Listener::bind(&pool)
            .with_context(|| format!("pool {}: cannot listen on {}", pool.name, pool.listen))?;
        listeners.push(listener);
        let topology = Topology::new(pool.shards.clone(), pool.distribution, pool.key_hash, pool.hash_tag)
            .with_context(|| format!("pool {}", pool.name))?;
        let topology = Arc::new(topology);
        let config = Arc::new(pool);
        let counters = Counters::of_workers(worker_count, topology.shards().len());
        let mut control = PoolControl {
            ejection: RefCell::new(Ejection::new(&config, topology.clone())),
            resolved: RefCell::default(),
            config: config.clone(),
            counters: counters[0].clone(),
            orders: Vec::new(),
        };
        for ((setup, alarm), counters) in setups.iter_mut().zip(&alarms).zip(counters) {
            let (sender, orders) = worker::orders(alarm);
            control.orders.push(sender);
            setup.push(PoolSetup { config: config.clone(), topology: topology.clone(), counters, orders });
        }
        pools.push(control);
    }
    let stats = match &process.stats {
        None => None,
        Some(listen) => stats::bind(listen).await?,
    };

    let (reports, inbox) = mpsc::channel(REPORTS_MAX);
    let seed = machine::seed();
    let mut threads = Vec::new();
    for (number, (pools, alarm)) in setups.into_iter().zip(alarms).enumerate() {
        let memory_max = usize::try_from(memory_max / worker_count as u64).unwrap_or(usize::MAX);
        let setup = WorkerSetup {
            number,
            count: worker_count,
            seed,
            pools,
            alarm,
            reports: reports.clone(),
            memory_max,
        };
        threads.push(worker::spawn(setup).context("cannot start a worker thread")?);
    }
    drop(reports);

    let pools: Rc<[PoolControl]> = pools.into();
    for pool in pools.iter().filter(|pool| pool.config.preconnect) {
        for orders in &pool.orders {
            orders.send(Order::Preconnect).await;
        }
    }
    let (close, closed) = watch::channel(false);
    let mut accepting = Vec::new();
    for (number, listener) in listeners.into_iter().enumerate() {
        let pool = &pools[number].config;
        tracing::info!(pool = %pool.name, listen = %pool.listen, shards = pool.shards.len(), "listening");
        accepting.push(tokio::task::spawn_local(listener::accept(
            listener,
            pools.clone(),
            number,
            closed.clone(),
        )));
    }
    if let Some(stats) = stats {
        tokio::task::spawn_local(stats::serve(stats, pools.clone(), start));
    }
    tokio::task::spawn_local(memory::give_back());
    tokio::task::spawn_local(take_reports(inbox, pools.clone()));
    for number in 0..pools.len() {
        tokio::task::spawn_local(ejection::probe(pools.clone(), number));
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), workers = worker_count, "memstore is serving");

    let mut workers = tokio::task::spawn_blocking(move || join(threads));
    tokio::select! {
        name = signals.end() => tracing::info!(signal = name, "draining"),
        ended = &mut workers => return ended.context("worker threads cannot be joined")?,
    }
    drain(&pools, process.drain_grace, process.drain_limit, close, accepting, &mut signals, workers).await
}

/// Stops accepting, lets workers answer what was read, and waits for them; a second signal ends at once.
async fn drain(
    pools: &Rc<[PoolControl]>,
    grace: Duration,
    limit: Duration,
    close: watch::Sender<bool>,
    accepting: Vec<tokio::task::JoinHandle<()>>,
    signals: &mut Signals,
    workers: tokio::task::JoinHandle<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let finish = async {
        tokio::time::sleep(grace).await;
        let _ = close.send(true);
        for task in accepting {
            let _ = task.await;
        }
        for pool in pools.iter() {
            for orders in &pool.orders {
                orders.send(Order::Drain { limit }).await;
            }
        }
        workers.await.context("worker threads cannot be joined")?
    };
    tokio::select! {
        ended = finish => {
            tracing::info!("drained");
            ended
        }
        name = signals.terminate() => {
            tracing::warn!(signal = name, "second signal: ending at once");
            std::process::exit(1)
        }
    }
}

fn join(threads: Vec<std::thread::JoinHandle<()>>) -> anyhow::Result<()> {
    for thread in threads {
        let name = thread.thread().name().unwrap_or("worker").to_owned();
        thread.join().map_err(|_| anyhow::anyhow!("{name} panicked"))?;
    }
    Ok(())
}

async fn take_reports(mut inbox: mpsc::Receiver<Report>, pools: Rc<[PoolControl]>) {
    let mut questions = Questions::default();
    while let Some(report) = inbox.recv().await {
        match report {
            Report::Shard { pool, event } => {
                let control = &pools[pool];
                let changed = control.ejection.borrow_mut().take(&event, Instant::now());
                if let Some(topology) = changed {
                    publish(control, topology).await;
                }
            }
            Report::Connect { worker, pool, shard, connection } => {
                let pools = pools.clone();
                tokio::task::spawn_local(async move {
                    let control = &pools[pool];
                    let result = control.connect(shard.address).await;
                    control.orders[worker].send(Order::Connected { connection, result }).await;
                });
            }
            Report::Asked { worker, pool, asked } => questions.ask(&pools, worker, pool, asked).await,
            Report::Listed { ask, rows } => questions.listed(&pools, ask, rows).await,
        }
    }
}

impl PoolControl {
    /// Connects to a shard and remembers where it was found.
    async fn connect(&self, address: Address) -> Result<Socket, ShardFailure> {
        let known = self.resolved.borrow().get(&address).cloned().unwrap_or_default();
        let connected = connect::connect(&address, known, self.config.connect_timeout).await?;
        self.resolved.borrow_mut().insert(address, connected.resolved);
        Ok(connected.socket)
    }
}

/// Tells all workers who owns what now.
pub(crate) async fn publish(control: &PoolControl, topology: Arc<Topology>) {
    for orders in &control.orders {
        orders.send(Order::Topology(topology.clone())).await;
    }
}

/// The signals the proxy knows.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// Kept, so that these do not end the process: operators of Twemproxy send them.
    _harmless: Vec<tokio::signal::unix::Signal>,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let harmless =
            [SignalKind::hangup(), SignalKind::user_defined1(), SignalKind::user_defined2()].map(signal);
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _harmless: harmless.into_iter().collect::<Result<_, _>>()?,
        })
    }

    async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    async fn terminate(&mut self) -> &'static str {
        self.end().await
    }
}
