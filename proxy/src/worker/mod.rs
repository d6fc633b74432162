//! One thread and all it owns: an epoll instance and a [`Pool`] for each configured pool.
//!
//! There is no async runtime here: what would need one (lookups, connects, timers of the process) is done by the control
//! thread, and what remains is a loop over ready sockets.
//!
//! Workers share nothing they write. What crosses threads is listed here: [`Order`]s in, [`Report`]s out, counters, and
//! the topology, which nobody changes.

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use shard_discovery::{Shard, Topology};
use tokio::sync::{mpsc, oneshot};

use crate::account::Account;
use crate::config;
use crate::failure::{Blame, ShardFailure};
use crate::freed::{InSlices, give_back_slice};
use crate::metrics::{Counters, WorkerCounters};
use crate::net::epoll::{Alarm, Ready, Sockets, Token};
use crate::net::socket::Socket;
use crate::pool::{ConnectionId, Identity, Limits, Pool};
use crate::protocol::store::Store;
use crate::protocol::{ClientFilter, Found, Question, Rows, ShardIdentity};
use crate::scripts::Scripts;
use crate::time::Time;
use driver::{Drive, Driver, Setup};
use settings::{Configured, speaker};

pub use settings::about;

mod driver;
mod linger;
mod questions;
mod settings;

/// Orders that may wait for one driver; the control thread waits when there are more.
const ORDERS_MAX: usize = 1024;

/// How often a pass looks at the system's clock, which may be set: each time would cost as much as a small request.
const CLOCK_PAUSE: Duration = Duration::from_millis(100);

/// What the control thread tells a pool's driver.
pub enum Order {
    /// A client has connected.
    Serve(Socket),
    /// A shard connection is made, or cannot be made.
    Connected {
        /// Which, as in [`Report::Connect`].
        connection: ConnectionId,
        /// The connection, or why there is none.
        result: Result<Socket, ShardFailure>,
        /// Who has to be at its other end, where that can be asked.
        identity: Option<ShardIdentity>,
    },
    /// Other owners.
    Topology {
        /// Who owns what.
        topology: Arc<Topology>,
        /// Its epoch, which the worker acknowledges in [`PoolCounters::epoch`](crate::metrics::PoolCounters::epoch).
        epoch: u64,
    },
    /// The shard with this name is found elsewhere.
    Renew(Arc<str>),
    /// The shard with this name, whose last event was a failure, has answered a probe.
    Recovered(Arc<str>),
    /// Another configuration of the same pool.
    Reconfigure(Box<Reconfiguration>),
    /// What the shards say of themselves, taken together.
    Store(Arc<Store>),
    /// Connect to all shards.
    Preconnect,
    /// List the clients that each question means, and disconnect them if it says so.
    List(List),
    /// The answer to a question, by its number; `None` if there is none in time.
    Answer {
        /// As in [`Report::Asked`].
        ask: u64,
        /// Shared by all who asked the same.
        found: Option<Found>,
    },
    /// The process is about to end: let clients go one after the other, each right after a reply.
    Retire {
        /// Until when all that are busy are to have gone.
        within: Duration,
    },
    /// Answer what was read, then end; cut off what remains after `limit`.
    Drain {
        /// Time for clients to take their replies and close.
        limit: Duration,
    },
}

impl Order {
    /// Bytes that a client is sent for it.
    fn answer_bytes(&self) -> usize {
        match self {
            Self::Answer { found: Some(found), .. } => found.text.len(),
            _ => 0,
        }
    }
}

/// What was learnt of a pool's shards. It holds where the configuration leaves it open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// One of them does not speak RESP3.
    pub lacks_resp3: bool,
    /// How many databases the one with the fewest has, where it has fewer than the pool.
    pub databases: Option<u32>,
}

impl Learnt {
    /// And this, of another shard.
    pub fn and(self, other: Self) -> Self {
        Self {
            lacks_resp3: self.lacks_resp3 || other.lacks_resp3,
            databases: self.databases.into_iter().chain(other.databases).min(),
        }
    }
}

/// Another configuration of a pool that is served.
pub struct Reconfiguration {
    /// What holds from now on.
    pub config: Arc<config::Pool>,
    /// What was learnt of its shards.
    pub learnt: Learnt,
    /// Who owns what.
    pub topology: Arc<Topology>,
    /// Its epoch; see [`Order::Topology`].
    pub epoch: u64,
    /// What this worker counts of it.
    pub counters: Counters,
    /// Bytes that the process may hold.
    pub memory_max: usize,
    /// Told when it holds.
    pub applied: oneshot::Sender<Instant>,
}

/// Questions that are looked for together.
pub struct List {
    /// Each with the number of the client that asks; that one is never cut off before its reply.
    pub questions: Arc<[(Question, u64)]>,
    /// Where the clients meant are told, for each question.
    pub listed: oneshot::Sender<Vec<Rows>>,
}

/// What drivers tell the control thread.
pub enum Report {
    /// A connection to a shard is needed.
    Connect {
        /// The worker's number.
        worker: usize,
        /// The pool's number.
        pool: usize,
        /// To which shard.
        shard: Shard,
        /// To be repeated in the order.
        connection: ConnectionId,
        /// One client is to have it to itself.
        is_private: bool,
    },
    /// A shard has failed.
    Failed {
        /// The pool's number.
        pool: usize,
        /// Its name.
        shard: Arc<str>,
        /// What happened.
        failure: ShardFailure,
        /// Whose fault it is.
        blame: Blame,
        /// When what has failed was begun, and when that was noticed.
        time: Range<Instant>,
    },
    /// A shard that had failed has answered a request.
    Recovered {
        /// The pool's number.
        pool: usize,
        /// Its name.
        shard: Arc<str>,
    },
    /// A node of a cluster says that others own what it is thought to own.
    Stale {
        /// The pool's number.
        pool: usize,
    },
    /// A client asks something that only the whole process knows.
    Asked {
        /// The worker's number.
        worker: usize,
        /// The pool's number.
        pool: usize,
        /// To be repeated in the answer.
        ask: u64,
        /// Unique number of the client.
        asker: u64,
        /// What it asks.
        question: Question,
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
    /// Where its pools come from.
    pub pools: mpsc::UnboundedReceiver<PoolSetup>,
    /// What wakes it.
    pub alarm: Alarm,
    /// What wakes each worker.
    pub alarms: Vec<Alarm>,
    /// What the process holds and may hold.
    pub account: Arc<Account>,
    /// What it counts of itself.
    pub counters: Arc<WorkerCounters>,
    /// Where drivers report.
    pub reports: mpsc::Sender<Report>,
    /// The system's clock, which may be set while the process runs.
    pub system_clock: fn() -> SystemTime,
}

/// One pool of a worker.
pub struct PoolSetup {
    /// Its number in this process, never used for another one.
    pub number: usize,
    /// Its configuration.
    pub config: Arc<config::Pool>,
    /// What was learnt of its shards.
    pub learnt: Learnt,
    /// Its shards.
    pub topology: Arc<Topology>,
    /// What this worker counts of it.
    pub counters: Counters,
    /// The scripts that clients of any worker have shown.
    pub scripts: Arc<Scripts>,
    /// Its orders.
    pub orders: mpsc::Receiver<Order>,
    /// Bytes that the process may hold.
    pub memory_max: usize,
}

/// Where one driver's orders are sent.
#[derive(Clone)]
pub struct Orders {
    sender: mpsc::Sender<Order>,
    alarm: Alarm,
}

/// Where a worker is given further pools.
pub struct PoolSender {
    sender: mpsc::UnboundedSender<PoolSetup>,
    alarm: Alarm,
}

impl PoolSender {
    /// One to the worker that `alarm` wakes, and its other side.
    pub fn new(alarm: &Alarm) -> (Self, mpsc::UnboundedReceiver<PoolSetup>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, alarm: alarm.clone() }, receiver)
    }

    /// One more pool is to be served.
    pub fn open(&self, pool: PoolSetup) {
        if self.sender.send(pool).is_ok() {
            self.alarm.ring();
        }
    }

    /// The channel of one driver's orders.
    pub fn orders(&self) -> (Orders, mpsc::Receiver<Order>) {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        (Orders { sender, alarm: self.alarm.clone() }, receiver)
    }
}

impl Orders {
    /// Whether the driver has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends an order, waiting while the driver has too many. A driver that has ended needs none.
    pub async fn send(&self, order: Order) {
        if self.sender.send(order).await.is_ok() {
            self.alarm.ring();
        }
    }
}

/// Whether a client that the filter means can be one of this worker's. Clients are numbered so that each worker has its
/// own remainder: see [`Identity`].
pub fn may_have(filter: &ClientFilter, worker: usize, workers: usize) -> bool {
    let is_of_worker = |id: u64| id > 0 && (id - 1) % workers as u64 == worker as u64;
    !filter.none && filter.ids.as_ref().is_none_or(|ids| ids.iter().any(is_of_worker))
}

/// What wakes one worker.
pub fn alarm() -> io::Result<Alarm> {
    Alarm::new()
}

/// Starts the worker's thread. It ends when all of its pools are drained.
pub fn spawn(setup: WorkerSetup) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(format!("worker-{}", setup.number)).spawn(move || {
        if let Err(error) = run(setup) {
            // A worker that cannot serve must not look alive.
            panic!("cannot wait for sockets: {error}");
        }
    })
}

fn run(setup: WorkerSetup) -> io::Result<()> {
    let _in_slices = InSlices::begin();
    let start = Instant::now();
    let clock = || Time::from_micros(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
    let sockets = Rc::new(Sockets::new(&setup.alarm)?);
    let WorkerSetup {
        number, count, seed, mut pools, reports, counters, alarms, account, system_clock, ..
    } = setup;
    let worker =
        Worker { number, count, seed, reports, sockets, start, system_clock, alarms: alarms.into(), account };
    // By the number of the pool; `None` where it has ended.
    let mut drivers: Vec<Option<Box<dyn Drive>>> = Vec::new();
    let mut events = Vec::new();
    let mut woken = clock();
    // Orders may have come before anybody listened.
    let mut ordered = true;
    // Memory that was freed is given back a little in each pass.
    let mut gives_back = false;
    let mut next_look = clock();
    while drivers.is_empty() || drivers.iter().any(Option::is_some) {
        let now = clock();
        counters.passes.record(now.since(woken).as_micros() as u64);
        counters.passed.add(1);
        let next = drivers.iter().flatten().filter_map(|driver| driver.next_pass()).min();
        let timeout =
            if ordered || gives_back { Some(Duration::ZERO) } else { next.map(|next| next.since(now)) };
        worker.sockets.wait(&mut events, timeout)?;
        woken = clock();
        let now = woken;
        if now >= next_look {
            next_look = now.plus(CLOCK_PAUSE);
            let unix_start = worker.unix_start();
            drivers.iter_mut().flatten().for_each(|driver| driver.set_clock(unix_start));
        }
        for event in &events {
            let (pool, ready) = Ready::of(event);
            if ready.token == Token::Alarm {
                ordered = true;
            } else if let Some(Some(driver)) = drivers.get_mut(pool) {
                driver.ready(ready, now);
            }
        }
        if ordered {
            while let Ok(pool) = pools.try_recv() {
                worker.open(pool, &mut drivers);
            }
        }
        for slot in &mut drivers {
            let Some(driver) = slot else { continue };
            if ordered {
                driver.ordered();
            }
            if !driver.finish_pass(now) {
                *slot = None;
            }
        }
        ordered = false;
        gives_back = give_back_slice();
    }
    Ok(())
}

/// What all drivers of a worker share.
struct Worker {
    number: usize,
    count: usize,
    seed: u64,
    reports: mpsc::Sender<Report>,
    sockets: Rc<Sockets>,
    /// What its time counts from.
    start: Instant,
    system_clock: fn() -> SystemTime,
    alarms: Rc<[Alarm]>,
    account: Arc<Account>,
}

impl Worker {
    /// Microseconds from 1970 to the worker's start, going by what the system's clock says now.
    fn unix_start(&self) -> u64 {
        let now = (self.system_clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.saturating_sub(self.start.elapsed()).as_micros()).unwrap_or(u64::MAX)
    }

    /// Makes the driver of a pool.
    fn open(&self, setup: PoolSetup, drivers: &mut Vec<Option<Box<dyn Drive>>>) {
        let number = setup.number;
        let driver = speaker(setup.config.protocol).open(self, setup);
        if drivers.len() <= number {
            drivers.resize_with(number + 1, || None);
        }
        drivers[number] = Some(driver);
    }

    fn driver<P: Configured>(&self, setup: PoolSetup) -> Driver<P> {
        let PoolSetup { number, config, learnt, topology, counters, scripts, orders, memory_max } = setup;
        let place = (self.number as u64 + 1) << 32 | (number as u64 + 1);
        let identity = Identity {
            name: config.name.clone(),
            unix_start: self.unix_start(),
            client_id_first: self.number as u64 + 1,
            client_id_step: self.count as u64,
            seed: self.seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        let limits = Limits::of(&config, memory_max);
        let shell = Setup {
            client_keepalive: config.tcpkeepalive,
            watches_clients: limits.watches_clients(),
            settings: P::settings,
            orders,
            reports: self.reports.clone(),
            worker: self.number,
            workers: self.count,
            pool: number,
            sockets: self.sockets.clone(),
            start: self.start,
            alarms: self.alarms.clone(),
        };
        let mut pool =
            Pool::new(identity, P::settings(&config, learnt, &topology), limits, topology, counters);
        pool.share_account(&self.account, self.number);
        pool.share_scripts(scripts);
        Driver::new(pool, shell)
    }
}

#[cfg(test)]
mod tests;
