//! One thread and all it owns: a current-thread tokio runtime and a [`Pool`] for each configured pool.
//!
//! Workers share nothing they write. What crosses threads is listed here: [`Order`]s in, [`Report`]s out, counters, and
//! the topology, which nobody changes.

use std::io;
use std::sync::Arc;

use shard_discovery::Topology;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config;
use crate::metrics::PoolCounters;
use crate::pool::{Asked, Identity, Limits, Pool, ShardEvent};
use crate::protocol::resp::{Resp, session};
use crate::protocol::{ClientRow, Question};
use driver::{Driver, Setup};
use socket::Socket;

pub(crate) mod connect;
mod driver;
pub(crate) mod log_limit;
mod ready;
pub(crate) mod socket;

/// Orders that may wait for one driver; the control thread waits when there are more.
const ORDERS_MAX: usize = 1024;

/// What the control thread tells a pool's driver.
pub enum Order {
    /// A client has connected.
    Serve(Socket),
    /// Other owners.
    Topology(Arc<Topology>),
    /// Connect to all shards.
    Preconnect,
    /// List the clients that the question means, and disconnect them if it says so.
    List {
        /// Which.
        question: Question,
        /// To be repeated in the report.
        ask: u64,
        /// Unique number of the client that asks; it is never cut off before its reply.
        asker: u64,
    },
    /// The answer to a question.
    Answer(Answer),
    /// Answer what was read, then end; cut off what remains after `limit`.
    Drain {
        /// Time for clients to take their replies and close.
        limit: std::time::Duration,
    },
}

/// The answer to a client's question.
pub struct Answer {
    /// Who asked what.
    pub asked: Asked,
    /// The clients meant.
    pub rows: Vec<ClientRow>,
}

/// What drivers tell the control thread.
pub enum Report {
    /// A shard has failed, or works again.
    Shard {
        /// The pool's number.
        pool: usize,
        /// What happened.
        event: ShardEvent,
    },
    /// A client asks something that only the whole process knows.
    Asked {
        /// The worker's number.
        worker: usize,
        /// The pool's number.
        pool: usize,
        /// Who asks what.
        asked: Asked,
    },
    /// The clients a driver was asked to list.
    Listed {
        /// As in [`Order::List`].
        ask: u64,
        /// The clients meant.
        rows: Vec<ClientRow>,
    },
}

/// What a worker is made of.
pub struct WorkerSetup {
    /// Its number, from 0.
    pub number: usize,
    /// How many workers there are.
    pub count: usize,
    /// Differs between processes.
    pub seed: u64,
    /// For each pool: its configuration, topology and counters, and where its orders come from.
    pub pools: Vec<PoolSetup>,
    /// Where drivers report.
    pub reports: mpsc::Sender<Report>,
    /// Bytes that all clients of this worker may hold.
    pub memory_max: usize,
}

/// One pool of a worker.
pub struct PoolSetup {
    /// Its configuration.
    pub config: Arc<config::Pool>,
    /// Its shards.
    pub topology: Arc<Topology>,
    /// What this worker counts of it.
    pub counters: Arc<PoolCounters>,
    /// Its orders.
    pub orders: mpsc::Receiver<Order>,
}

/// The channel of one driver's orders.
pub fn orders() -> (mpsc::Sender<Order>, mpsc::Receiver<Order>) {
    mpsc::channel(ORDERS_MAX)
}

/// Starts the worker's thread. It ends when all of its pools are drained.
pub fn spawn(setup: WorkerSetup) -> io::Result<std::thread::JoinHandle<()>> {
    // An event interval of 1 asks the kernel after every pass: a socket that always has more must not hold up others.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(1)
        .max_blocking_threads(4)
        .build()?;
    std::thread::Builder::new().name(format!("worker-{}", setup.number)).spawn(move || {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, run(setup));
    })
}

async fn run(setup: WorkerSetup) {
    let start = Instant::now();
    let unix_start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let memory_max = setup.memory_max / setup.pools.len().max(1);
    let mut drivers = Vec::new();
    for (number, pool) in setup.pools.into_iter().enumerate() {
        let config = &pool.config;
        let identity = Identity {
            name: config.name.clone(),
            unix_start: u64::try_from(unix_start.as_micros()).unwrap_or(u64::MAX),
            client_id_first: setup.number as u64 + 1,
            client_id_step: setup.count as u64,
            seed: setup.seed
                ^ ((setup.number as u64 + 1) << 32 | number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        let limits = Limits::of(config, memory_max);
        let watches_clients = limits.watches_clients();
        let shell = Setup {
            connect_timeout: config.connect_timeout,
            client_keepalive: config.tcpkeepalive,
            orders: pool.orders,
            reports: setup.reports.clone(),
            worker: setup.number,
            pool: number,
            start,
        };
        let driver = match config.protocol {
            config::Protocol::Redis => {
                let pool = Pool::<Resp>::new(
                    identity,
                    session::Settings::of(config),
                    limits,
                    pool.topology,
                    pool.counters,
                );
                Driver::new(pool, shell, watches_clients)
            }
            config::Protocol::Memcache => {
                tracing::error!(pool = %config.name, "memcache pools are not supported yet; this pool is not served");
                continue;
            }
        };
        let driver = match driver {
            Ok(driver) => driver,
            Err(error) => panic!("cannot watch sockets: {error}"),
        };
        // The budget that tokio gives a task is meant for one socket, not for all of them.
        drivers.push(tokio::task::spawn_local(tokio::task::coop::unconstrained(driver)));
    }
    for driver in drivers {
        if let Err(error) = driver.await {
            // A pool that panicked must not look alive.
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

impl Limits {
    fn of(config: &config::Pool, memory_max: usize) -> Self {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            timeout: config.timeout,
            queue_wait: config.timeout.map_or(config.queue_wait, |timeout| timeout.min(config.queue_wait)),
            in_flight_max: config.in_flight_max as usize,
            request_bytes_max: config.request_bytes_max,
            client_output_max: size(config.client_output_max),
            shard_queue_max: config.shard_queue_max as usize,
            shard_queue_bytes_max: size(config.shard_queue_bytes_max),
            memory_max,
            server_connections: config.server_connections as usize,
            client_idle_timeout: config.client_idle_timeout,
            client_request_timeout: config.client_request_timeout,
            client_age_max: config.client_age_max,
        }
    }
}

impl session::Settings {
    fn of(config: &config::Pool) -> Self {
        Self {
            password: config.auth.as_ref().map(|auth| auth.password.expose().as_bytes().to_vec()),
            user: config.auth.as_ref().and_then(|auth| auth.user.clone()),
            db: config.db,
            databases: config.databases,
            port: config.listen.port().unwrap_or(0),
        }
    }
}
