//! Accepting clients of a pool and dealing them to workers.
//!
//! One thread accepts for all workers: clients of caches keep few connections for long, and the kernel's hashing
//! (SO_REUSEPORT) spreads few of them unevenly. Each goes to the worker with the fewest.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::descriptors::number_of;
use super::pool::PoolControl;
use crate::config;
use crate::log_limit::warn_limited;
use crate::metrics::PoolCounters;
use crate::net::brake::Brake;
use crate::net::handshakes::{Peer, shake_hands, words};
use crate::net::listen::Listener;
use crate::net::socket::Socket;
use crate::worker::{self, Order};

/// Pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// TLS handshakes of one pool that may be under way at a time; each may hold up to 64 KB.
const HANDSHAKES_MAX: usize = 1024;

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
    let mut handshakes = Handshakes::default();
    loop {
        if *closed.borrow() {
            match left.get_or_insert(pool.config().backlog) {
                0 => return,
                left => *left -= 1,
            }
        }
        if pool.config().tls.is_some() && !*closed.borrow() {
            handshakes.place(&pool).await;
        }
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = closed.wait_for(|closed| *closed) => return,
        };
        match accepted {
            Ok(accepted) => {
                let begin = Instant::now();
                let is_in = match &pool.config().tls {
                    None => deal(&pool, accepted).await,
                    // Nobody is told why before the handshake, which costs more than who is refused is worth.
                    Some(_) if refuses(&pool, &accepted) || lacks_memory(&pool) => false,
                    Some(tls) => {
                        handshakes.begin(&pool, accepted, tls);
                        true
                    }
                };
                if !is_in {
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

/// So long each handshake has its chance, whoever else comes; the kernel keeps them meanwhile.
const CHANCE: Duration = Duration::from_secs(1);
/// Pause between two looks for a place.
const GLANCE: Duration = Duration::from_millis(20);

/// Handshakes with clients that are under way, and since when, the oldest first.
#[derive(Default)]
struct Handshakes(VecDeque<(Instant, AbortHandle)>);

impl Handshakes {
    /// Waits for a place. Where there is none that of the oldest is given away, once that has had its chance.
    async fn place(&mut self, pool: &PoolControl) {
        while self.0.len() >= HANDSHAKES_MAX {
            self.0.retain(|(_, other)| !other.is_finished());
            if self.0.len() < HANDSHAKES_MAX {
                return;
            }
            let left =
                self.0.front().map_or(Duration::ZERO, |(begun, _)| CHANCE.saturating_sub(begun.elapsed()));
            if !left.is_zero() {
                tokio::time::sleep(left.min(GLANCE)).await;
                continue;
            }
            if let Some((_, oldest)) = self.0.pop_front() {
                oldest.abort();
                pool.counters().tls_failed.add(1);
                warn_limited!(pool = %pool.config().name, most = HANDSHAKES_MAX, "too many TLS handshakes under way; the oldest is ended");
            }
        }
    }

    /// Takes a client in once it has shaken hands.
    fn begin(&mut self, pool: &Rc<PoolControl>, accepted: Socket, tls: &config::ClientTls) {
        let session = match rustls::ServerConnection::new(tls.config.clone()) {
            Ok(session) => session.into(),
            Err(error) => return failed(pool, accepted.peer(), &io::Error::other(error)),
        };
        let (pool, limit) = (pool.clone(), tls.handshake_timeout);
        let peer = accepted.peer();
        let task = tokio::task::spawn_local(async move {
            match shake_hands(accepted, session, limit, Peer::Client, Some(pool.account.clone())).await {
                Ok(socket) => {
                    pool.counters().tls_handshakes.add(1);
                    deal(&pool, socket).await;
                }
                Err(error) => failed(&pool, peer, &error),
            }
        });
        self.0.push_back((Instant::now(), task.abort_handle()));
    }
}

/// A client and we could not agree.
fn failed(pool: &PoolControl, peer: Option<SocketAddr>, error: &io::Error) {
    pool.counters().tls_failed.add(1);
    let peer = peer.map_or_else(String::new, |peer| peer.to_string());
    if error.kind() == ErrorKind::UnexpectedEof {
        // As those do who only look whether somebody listens.
        tracing::debug!(pool = %pool.config().name, client = %peer, "client closed the connection during the TLS handshake");
    } else {
        warn_limited!(pool = %pool.config().name, client = %peer, reason = %words(error), "TLS handshake with client failed");
    }
}

/// Hands a client to the worker that has the fewest; false if it is refused.
async fn deal(pool: &PoolControl, accepted: Socket) -> bool {
    if refuses(pool, &accepted) {
        refuse(accepted, pool.config().protocol);
        return false;
    }
    let worker = (0..pool.dealt.len()).min_by_key(|&worker| open(pool, worker)).expect("there is a worker");
    pool.orders[worker].send(Order::Serve(accepted)).await;
    // A handshake may be ended while it waits here.
    pool.dealt[worker].set(pool.dealt[worker].get() + 1);
    true
}

/// Whether there is no memory for one more TLS session: those that are there are to have some for what they do, of which sessions that do
/// nothing would leave them none.
fn lacks_memory(pool: &PoolControl) -> bool {
    let (held, max) = (pool.account.held(), pool.account.max());
    let lacks = held / 3 > max / 4;
    if lacks {
        pool.counters().client_refused.add(1);
        warn_limited!(pool = %pool.config().name, held, memory_max = max, "TLS client refused: three quarters of memory_max are in use");
    }
    lacks
}

/// Clients that a worker has.
fn open(pool: &PoolControl, worker: usize) -> u64 {
    pool.dealt[worker].get().saturating_sub(gone(&pool.counters().workers()[worker]))
}

/// Whether there is no place for one more client, which is told.
fn refuses(pool: &PoolControl, accepted: &Socket) -> bool {
    let (config, counters) = (pool.config(), pool.counters());
    let total: u64 = (0..pool.dealt.len()).map(|worker| open(pool, worker)).sum();
    if config.client_connections.is_some_and(|most| total >= u64::from(most)) {
        counters.client_refused.add(1);
        warn_limited!(pool = %config.name, clients = total, "client refused: client_connections reached");
        return true;
    }
    if !pool.descriptors.admits(number_of(accepted)) {
        counters.client_refused.add(1);
        let (limit, reserved) = (pool.descriptors.limit(), pool.descriptors.reserved());
        warn_limited!(
            pool = %config.name, clients = total, limit, reserved,
            "client refused: no file descriptors left; raise the limit (ulimit -n, LimitNOFILE)"
        );
        return true;
    }
    false
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
