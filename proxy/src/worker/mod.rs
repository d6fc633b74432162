//! One thread and all it owns: an epoll instance and a [`Pool`] for each configured pool.
//!
//! There is no async runtime here: what would need one (lookups, connects, timers of the process) is done by the control
//! thread, and what remains is a loop over ready sockets.
//!
//! Workers share nothing they write. What crosses threads is listed in `messages.rs`: [`Order`]s in, [`Report`]s out; counters, and
//! the topology, which nobody changes.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::account::Account;
use crate::freed::{InSlices, give_back_slice};
use crate::metrics::WorkerCounters;
use crate::net::epoll::{Alarm, Ready, Sockets, Token};
use crate::pool::{Identity, Limits, Pool};
use crate::protocol::ClientFilter;
use crate::time::Time;
use driver::{Drive, Driver, Setup};
use settings::{Configured, speaker};

pub use messages::{Learnt, List, Order, Orders, PoolSender, PoolSetup, Reconfiguration, Report};
pub use settings::about;

mod driver;
mod linger;
mod messages;
mod questions;
mod settings;

/// How often a pass looks at the system's clock, which may be set: each time would cost as much as a small request.
const CLOCK_PAUSE: Duration = Duration::from_millis(100);

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
        let PoolSetup {
            number,
            config,
            learnt,
            topology,
            counters,
            scripts,
            slow,
            denied,
            mailboxes,
            hot,
            monitors,
            orders,
            memory_max,
        } = setup;
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
        pool.share_slow_log(slow);
        pool.share_denied_log(denied);
        pool.share_mailboxes(mailboxes);
        hot.set_start(self.number, self.start);
        pool.share_hot_keys(hot);
        pool.share_monitors(monitors);
        Driver::new(pool, shell)
    }
}

#[cfg(test)]
mod tests;
