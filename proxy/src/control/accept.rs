//! Accepting clients of a pool and dealing them to workers.
//!
//! One thread accepts for all workers: clients of caches keep few connections for long, and the kernel's hashing
//! (SO_REUSEPORT) spreads few of them unevenly. Each goes to the worker with the fewest.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;

use super::descriptors::number_of;
use super::doors::{From, OpenDoor};
use super::entrances::{self, Entrance};
use super::pool::PoolControl;
use crate::config::{self, Listen};
use crate::log_limit::warn_limited;
use crate::metrics::PoolCounters;
use crate::net::brake::Brake;
use crate::net::handshakes::{Peer, shake_hands, words};
use crate::net::listen::Listener;
use crate::net::socket::Socket;
use crate::net::tls::{CROWDED, Tls};
use crate::worker::{self, Order};

/// Pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// TLS handshakes at one listener that may be under way at a time; each may hold up to 64 KB.
const HANDSHAKES_MAX: usize = 1024;

impl PoolControl {
    /// Accepts clients at a door from now on; it may be one that was given up.
    pub fn accept(self: &Rc<Self>, door: OpenDoor, given_up: &[(Listen, Rc<Listener>)]) {
        let listener = match door.from {
            From::Free(listener) => Rc::new(listener),
            From::GivenUp(at) => match given_up.iter().find(|(given, _)| *given == at) {
                Some((_, listener)) => listener.clone(),
                None => return,
            },
        };
        let config = self.config();
        let Some(wanted) = config.listener(&door.at) else { return };
        tracing::info!(pool = %config.name, listen = %door.at, tls = wanted.tls.is_some(), shards = self.topology().shards().len(), "pool listening");
        let entrance = Rc::new(Entrance::new(wanted.clone()));
        let (close, closed) = watch::channel(false);
        let task = tokio::task::spawn_local(accept(listener.clone(), self.clone(), entrance.clone(), closed));
        self.entrances.add(entrance, listener, close, task);
        self.tell_status();
    }

    /// Accepts no more clients than the kernel already has where `is_closed` says so; the listeners are of use for others.
    pub async fn close(&self, is_closed: impl Fn(&Listen) -> bool) -> Vec<(Listen, Rc<Listener>)> {
        let gone = self.entrances.take(is_closed);
        self.tell_status();
        entrances::close(gone).await
    }
}

/// Accepts clients of a pool until told to close; then takes those that the kernel has already accepted, of which there are
/// no more than may wait.
async fn accept(
    listener: Rc<Listener>,
    pool: Rc<PoolControl>,
    entrance: Rc<Entrance>,
    mut closed: watch::Receiver<bool>,
) {
    let mut brake = Brake::new(Instant::now());
    let mut left = None;
    let mut handshakes = Handshakes::new(HANDSHAKES_MAX, CHANCE);
    loop {
        if *closed.borrow() {
            match left.get_or_insert(pool.config().backlog) {
                0 => return,
                left => *left -= 1,
            }
        }
        let mut place = None;
        if entrance.config().tls.is_some() && !*closed.borrow() {
            place = tokio::select! {
                biased;
                // Those that are left are no more than may wait: they need no place.
                _ = closed.wait_for(|closed| *closed) => continue,
                place = handshakes.place() => Some(place),
            };
        }
        if handshakes.take_ended() {
            count_failed(&pool, &entrance);
            warn_limited!(pool = %pool.config().name, listen = %entrance.config().at, most = HANDSHAKES_MAX, "too many TLS handshakes under way; the oldest is ended");
        }
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = closed.wait_for(|closed| *closed) => return,
        };
        match accepted {
            Ok(accepted) => {
                let begin = Instant::now();
                entrance.counters.accepted.add(1);
                let is_in = match &entrance.config().tls {
                    None => deal(&pool, accepted).await,
                    // Nobody is told why before the handshake, which costs more than who is refused is worth.
                    Some(_) if refuses(&pool, &accepted) || lacks_memory(&pool) => false,
                    Some(tls) => {
                        handshakes.add(take_in(&pool, &entrance, accepted, tls, place));
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

/// Handshakes with clients that are under way, and since when, the oldest first.
struct Handshakes {
    places: Arc<Semaphore>,
    under_way: VecDeque<(Instant, AbortHandle)>,
    most: usize,
    chance: Duration,
    /// One was ended for another.
    has_ended: bool,
}

impl Handshakes {
    fn new(most: usize, chance: Duration) -> Self {
        let places = Arc::new(Semaphore::new(most));
        Self { places, under_way: VecDeque::new(), most, chance, has_ended: false }
    }

    /// Waits for a place. Where there is none that of the oldest is given away, once that has had its chance.
    async fn place(&mut self) -> OwnedSemaphorePermit {
        while self.under_way.front().is_some_and(|(_, oldest)| oldest.is_finished()) {
            self.under_way.pop_front();
        }
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return place;
        }
        let place = self.places.clone().acquire_owned();
        tokio::pin!(place);
        if let Some((begun, oldest)) = self.under_way.front() {
            let left = self.chance.saturating_sub(begun.elapsed());
            // A timer takes a millisecond at least, and there may be hundreds of them.
            if !left.is_zero() {
                tokio::select! {
                    biased;
                    place = &mut place => return place.expect("nobody closes it"),
                    () = tokio::time::sleep(left) => {}
                }
            }
            oldest.abort();
            self.under_way.pop_front();
            self.has_ended = true;
        }
        place.await.expect("nobody closes it")
    }

    /// Whether one was ended for another since the last call.
    fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.has_ended)
    }

    /// One more, which has its place.
    fn add(&mut self, handshake: Option<AbortHandle>) {
        if self.under_way.len() >= 2 * self.most {
            self.under_way.retain(|(_, other)| !other.is_finished());
        }
        self.under_way.extend(handshake.map(|handshake| (Instant::now(), handshake)));
    }
}

/// Takes a client in once it has shaken hands. It has its place for as long.
fn take_in(
    pool: &Rc<PoolControl>,
    entrance: &Rc<Entrance>,
    accepted: Socket,
    tls: &config::ClientTls,
    place: Option<OwnedSemaphorePermit>,
) -> Option<AbortHandle> {
    let session = match rustls::ServerConnection::new(tls.config.clone()) {
        Ok(session) => Tls::new(session.into(), Some(&pool.account)),
        Err(error) => {
            failed(pool, entrance, accepted.peer(), &io::Error::other(error));
            return None;
        }
    };
    let (pool, entrance, limit) = (pool.clone(), entrance.clone(), tls.handshake_timeout);
    let peer = accepted.peer();
    let task = tokio::task::spawn_local(async move {
        let _place = place;
        match shake_hands(accepted, session, limit, Peer::Client).await {
            Ok(socket) => {
                pool.counters().tls_handshakes.add(1);
                entrance.counters.tls_handshakes.add(1);
                deal(&pool, socket).await;
            }
            Err(error) => failed(&pool, &entrance, peer, &error),
        }
    });
    Some(task.abort_handle())
}

/// A client and we could not agree.
fn failed(pool: &PoolControl, entrance: &Entrance, peer: Option<SocketAddr>, error: &io::Error) {
    count_failed(pool, entrance);
    let peer = peer.map_or_else(String::new, |peer| peer.to_string());
    if error.kind() == ErrorKind::UnexpectedEof {
        // As those do who only look whether somebody listens.
        tracing::debug!(pool = %pool.config().name, client = %peer, "client closed the connection during the TLS handshake");
    } else {
        warn_limited!(pool = %pool.config().name, client = %peer, reason = %words(error), "TLS handshake with client failed");
    }
}

fn count_failed(pool: &PoolControl, entrance: &Entrance) {
    pool.counters().tls_failed.add(1);
    entrance.counters.tls_failed.add(1);
}

/// Hands a client to the worker that has the fewest; false if it is refused.
async fn deal(pool: &PoolControl, accepted: Socket) -> bool {
    if refuses(pool, &accepted) {
        refuse(accepted, pool.config().protocol);
        return false;
    }
    let worker = (0..pool.dealt.len()).min_by_key(|&worker| open(pool, worker)).expect("there is a worker");
    let counted = Counted::on(&pool.dealt[worker]);
    pool.orders[worker].send(Order::Serve(accepted)).await;
    std::mem::forget(counted);
    true
}

/// One client more that a worker was dealt, unless it is dropped: a handshake may be ended while its client waits to be dealt.
struct Counted<'d>(&'d Cell<u64>);

impl<'d> Counted<'d> {
    fn on(dealt: &'d Cell<u64>) -> Self {
        dealt.set(dealt.get() + 1);
        Self(dealt)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Whether there is no memory for one more TLS session: those that are there are to have some for what they do, of which sessions that do
/// nothing would leave them none. What else is held refuses nobody: of that the client that holds most answers for it.
fn lacks_memory(pool: &PoolControl) -> bool {
    let lacks = pool.account.is_crowded();
    if lacks {
        pool.counters().client_refused.add(1);
        let (held, max) = (pool.account.aside(), pool.account.max());
        warn_limited!(pool = %pool.config().name, held, memory_max = max, "TLS client refused: {CROWDED}");
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A handshake that is over once it is told.
    fn handshake(place: OwnedSemaphorePermit) -> (AbortHandle, tokio::sync::oneshot::Sender<()>) {
        let (end, ended) = tokio::sync::oneshot::channel();
        let task = tokio::task::spawn_local(async move {
            let _place = place;
            let _ = ended.await;
        });
        (task.abort_handle(), end)
    }

    #[test]
    fn a_handshake_has_its_chance_whoever_comes() {
        const CHANCE: Duration = Duration::from_millis(300);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let test = async {
            let mut handshakes = Handshakes::new(3, CHANCE);
            let begin = Instant::now();
            let mut ends = Vec::new();
            for _ in 0..3 {
                let (task, end) = handshake(handshakes.place().await);
                handshakes.add(Some(task));
                ends.push(end);
            }
            assert!(begin.elapsed() < CHANCE && !handshakes.take_ended());
            // Whoever gives up waiting takes nobody's place.
            assert!(tokio::time::timeout(Duration::ZERO, handshakes.place()).await.is_err());
            // One that is over makes room at once.
            ends.remove(1).send(()).expect("it waits");
            let (task, end) = handshake(handshakes.place().await);
            handshakes.add(Some(task));
            ends.push(end);
            assert!(begin.elapsed() < CHANCE && !handshakes.take_ended());
            // The oldest has had its chance, and no other one has to go for that.
            let place = handshakes.place().await;
            assert!(begin.elapsed() >= CHANCE && handshakes.take_ended());
            assert!(ends[0].is_closed() && !ends[1].is_closed() && !ends[2].is_closed());
            drop(place);
            drop(handshakes.place().await);
            assert!(!handshakes.take_ended());
        };
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }
}
