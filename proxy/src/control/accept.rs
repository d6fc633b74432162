//! Accepting clients of a pool and dealing them to workers.
//!
//! One thread accepts for all workers: clients of caches keep few connections for long, and the kernel's hashing
//! (SO_REUSEPORT) spreads few of them unevenly. Each goes to the worker with the fewest.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::descriptors::number_of;
use super::pool::PoolControl;
use crate::config;
use crate::log_limit::warn_limited;
use crate::metrics::PoolCounters;
use crate::net::brake::Brake;
use crate::net::listen::Listener;
use crate::net::socket::Socket;
use crate::worker::{self, Order};

/// Pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl PoolControl {
    /// Accepts clients from now on.
    pub fn accept(self: &Rc<Self>, listener: Rc<Listener>) {
        let config = self.config();
        tracing::info!(pool = %config.name, listen = %config.listen, shards = self.topology().shards().len(), "pool listening");
        let (close, closed) = watch::channel(false);
        let task = tokio::task::spawn_local(accept(listener.clone(), self.clone(), closed));
        self.accepts(listener, close, task);
    }
}

/// Accepts clients of a pool until told to close; then takes those that the kernel has already accepted, of which there are
/// no more than may wait.
async fn accept(listener: Rc<Listener>, pool: Rc<PoolControl>, mut closed: watch::Receiver<bool>) {
    let mut brake = Brake::new(Instant::now());
    let mut left = None;
    loop {
        if *closed.borrow() {
            match left.get_or_insert(pool.config().backlog) {
                0 => return,
                left => *left -= 1,
            }
        }
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = closed.wait_for(|closed| *closed) => return,
        };
        match accepted {
            Ok(accepted) => {
                let begin = Instant::now();
                if !deal(&pool, accepted).await {
                    // Others may refuse as well; nobody waits for a place here.
                    let now = Instant::now();
                    tokio::time::sleep(brake.spent(now - begin, now)).await;
                }
            }
            Err(error) => {
                warn_limited!(pool = %pool.config().name, reason = %error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Hands a client to the worker that has the fewest; false if it is refused.
async fn deal(pool: &PoolControl, accepted: Socket) -> bool {
    let (config, counters) = (pool.config(), pool.counters());
    let open = |worker: usize| pool.dealt[worker].get().saturating_sub(gone(&counters.workers()[worker]));
    let total: u64 = (0..pool.dealt.len()).map(open).sum();
    if config.client_connections.is_some_and(|most| total >= u64::from(most)) {
        counters.client_refused.add(1);
        warn_limited!(pool = %config.name, clients = total, "client refused: client_connections reached");
        refuse(accepted, config.protocol);
        return false;
    }
    if !pool.descriptors.admits(number_of(&accepted)) {
        counters.client_refused.add(1);
        let (limit, reserved) = (pool.descriptors.limit(), pool.descriptors.reserved());
        warn_limited!(
            pool = %config.name, clients = total, limit, reserved,
            "client refused: no file descriptors left; raise the limit (ulimit -n, LimitNOFILE)"
        );
        refuse(accepted, config.protocol);
        return false;
    }
    let worker = (0..pool.dealt.len()).min_by_key(|&worker| open(worker)).expect("there is a worker");
    pool.dealt[worker].set(pool.dealt[worker].get() + 1);
    pool.orders[worker].send(Order::Serve(accepted)).await;
    true
}

/// Clients of one worker that have come and gone.
fn gone(counters: &PoolCounters) -> u64 {
    let connected = u64::try_from(counters.client_connections.get()).unwrap_or(0);
    counters.client_connections_total.get().saturating_sub(connected)
}

/// Says why, in the words of the server, and closes. A client that does not read at once gets no reason.
fn refuse(mut accepted: Socket, protocol: config::Protocol) {
    let _ = accepted.send(worker::about(protocol).too_many_clients);
}
