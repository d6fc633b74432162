//! The shell around one [`Pool`]: its sockets, its clock, its wishes.
//!
//! In a pass of the worker a driver takes what the control thread sent, reads every socket that is ready once, lets the
//! pool work, and then writes to every socket that something was queued for. Writing last is what lets requests of many
//! clients leave in one system call.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use shard_discovery::{Shard, Topology};
use tokio::sync::mpsc;

use super::linger::{self, Lingering};
use super::questions::{ClientListing, Questions};
use super::{Learnt, Order, Report};
use crate::buffer::COPY_ASIDE_MAX;
use crate::config;
use crate::failure::ShardFailure;
use crate::log_limit::warn_limited;
use crate::net::epoll::{Alarm, Ready, Sockets, Token};
use crate::net::socket::{self, Ends, READ_MAX, Read, Socket};
use crate::pool::{self, ClientId, ConnectionId, Pool, Shell as _};
use crate::protocol::{Protocol, ShardIdentity};
use crate::table::Table;
use crate::time::Time;
use report::Untold;
pub(super) use sockets::ClientSocket;
use sockets::{Left, More, ShardSocket, Turn};

mod asking;
mod leaving;
mod orders;
mod report;
mod rig;
mod shares;
mod shell;
mod sockets;
mod tell;
mod unsent;

/// How long a client may take to close after we have finished with it.
const LINGER: Duration = Duration::from_secs(2);
/// How often clients are looked after that may be idle too long.
const SWEEP: Duration = Duration::from_secs(1);
/// Once so much was read in a pass, clients and shards that have more wait for the next one, so that those with a small
/// request are not held up for longer than this takes: some tenths of a millisecond, as much again where it is written.
const PASS_BYTES_MAX: usize = 128 * 1024;
/// So much is read in any case of those that wait for their turn: others may use up each pass before.
const TURNS_BYTES_MIN: usize = 64 * 1024;
/// Beyond that a client is read so far: enough for all that those with small requests have said. Who has more waits for its
/// turn, with a rest that is small enough to be copied aside.
const READ_LATE: usize = COPY_ASIDE_MAX;
/// The same of a shard, whose replies are those of many clients.
const READ_LATE_OF_SHARD: usize = 64 * 1024;
/// Most that is written to a socket before others have their turn: the kernel takes megabytes at once, and everybody would
/// wait for the milliseconds that this takes.
const WRITE_MAX: usize = 128 * 1024;
/// The same of a shard: more than a pass reads of clients, or else requests would pile up in front of those that come later.
const WRITE_MAX_OF_SHARD: usize = 512 * 1024;
/// Once so much was written to clients in a pass, those that are owed more than [`READ_LATE`] have their turn in the next one.
const PASS_WRITTEN_MAX: usize = 256 * 1024;
/// Of what is owed at least one part of so many is written in a pass, to a client and to all: shards are read meanwhile, and
/// what is read faster than it is written would pile up for clients that take all they are given.
const OWED_PARTS: usize = 16;
/// So many times as much at most.
const WRITTEN_MORE: (usize, usize) = (8 * WRITE_MAX, 32 * PASS_WRITTEN_MAX);

/// Makes of all that is known of a pool what its protocol goes by.
pub type MakeSettings<S> = fn(&config::Pool, Learnt, &Topology) -> S;

/// What a driver is given.
pub struct Setup<P: Protocol> {
    /// The part of a pool's configuration that its protocol knows.
    pub settings: MakeSettings<P::Settings>,
    /// Clients' connections are probed by the kernel when idle.
    pub client_keepalive: bool,
    /// Where its orders come from.
    pub orders: mpsc::Receiver<Order>,
    /// Where it tells what the control thread has to know.
    pub reports: mpsc::Sender<Report>,
    /// Its worker's number.
    pub worker: usize,
    /// How many workers there are.
    pub workers: usize,
    /// Its pool's number.
    pub pool: usize,
    /// The worker's sockets.
    pub sockets: Rc<Sockets>,
    /// What the worker's time counts from.
    pub start: Instant,
    /// What wakes each worker.
    pub alarms: Rc<[Alarm]>,
    /// Clients have to be looked after from time to time.
    pub watches_clients: bool,
}

/// A driver of whatever protocol, as the worker sees it.
pub trait Drive {
    /// The control thread has sent something.
    fn ordered(&mut self);
    /// A socket is ready.
    fn ready(&mut self, ready: Ready, now: Time);
    /// All sockets that were ready have been read: does the rest. False once drained.
    fn finish_pass(&mut self, now: Time) -> bool;
    /// When the next pass has to be, whatever happens.
    fn next_pass(&self) -> Option<Time>;
    /// What the system's clock says.
    fn set_clock(&mut self, unix_start: u64);
}

/// The shell around one pool.
pub struct Driver<P: Protocol> {
    pub(super) pool: Pool<P>,
    pub(super) setup: Setup<P>,
    pub(super) clients: Table<ClientSocket>,
    shards: Vec<Option<ShardSocket>>,
    /// The number of the last one that a shard got.
    last_socket: u32,
    lingering: Lingering,
    scratch: BytesMut,
    /// Sockets that may have more to read, in their turn.
    again: VecDeque<Turn>,
    /// So many of them have waited since the last pass.
    turns: usize,
    /// Bytes read in this pass.
    passed: usize,
    /// Bytes written to clients in this pass.
    written: usize,
    /// So many may be, before those that are owed much are put off.
    written_max: usize,
    dirty_clients: Vec<ClientId>,
    dirty_shards: Vec<ConnectionId>,
    /// Those that have their turn to be written in the next pass, though the kernel may have room.
    paused_clients: Vec<ClientId>,
    paused_shards: Vec<ConnectionId>,
    connects: Vec<ConnectionId>,
    untold: Untold,
    pub(super) questions: Questions,
    /// What the process has asked for.
    pub(super) listing: Option<ClientListing>,
    next_sweep: Option<Time>,
    /// There may be orders.
    ordered: bool,
    /// Since when clients are let go, and until when all are to have gone that have asked for something.
    retiring: Option<(Time, Duration)>,
    /// Set while draining: connections that linger longer are closed.
    pub(super) drain_until: Option<Time>,
}

impl<P: Protocol> Driver<P> {
    /// A driver that waits for its first order.
    pub fn new(pool: Pool<P>, setup: Setup<P>) -> Self {
        Self {
            clients: Table::default(),
            shards: Vec::new(),
            last_socket: 0,
            lingering: Lingering::new(setup.pool, setup.sockets.clone()),
            scratch: BytesMut::new(),
            again: VecDeque::new(),
            turns: 0,
            passed: 0,
            written: 0,
            written_max: PASS_WRITTEN_MAX,
            dirty_clients: Vec::new(),
            dirty_shards: Vec::new(),
            paused_clients: Vec::new(),
            paused_shards: Vec::new(),
            connects: Vec::new(),
            untold: Untold::default(),
            questions: Questions::default(),
            listing: None,
            next_sweep: None,
            ordered: false,
            retiring: None,
            drain_until: None,
            pool,
            setup,
        }
    }

    fn client_connected(&mut self, socket: Socket, now: Time) {
        if self.setup.client_keepalive {
            socket.keep_alive(Duration::from_secs(60), None);
        }
        let id = self.pool.client_connected(now);
        let watched = self.setup.sockets.add(&socket, self.setup.pool, Token::Client(id.index));
        let ends = Ends::of(&socket);
        self.pool.counters().peers.came(ends.peer().ip());
        let mut client = ClientSocket::new(socket, ends, id);
        if client.socket.is_layered() {
            // Its first request may have come with the end of the handshake; the kernel does not tell of it again.
            client.more = More::Queued;
            self.again.push_back(Turn::Client(id));
            client.socket.join(self.pool.share());
        }
        self.clients.put(id.index as usize, client);
        if let Err(error) = watched {
            return self.close_client(id, Some(&error), now);
        }
        if self.setup.watches_clients && self.next_sweep.is_none() {
            self.next_sweep = Some(now.plus(SWEEP));
        }
    }

    // --- reading ------------------------------------------------------------------------------------------------

    fn client_ready(&mut self, index: usize, ready: Ready, now: Time) {
        let Some(client) = self.clients.get_mut(index) else { return };
        let (id, queued) = (client.id(index), client.more == More::Queued);
        client.ended |= ready.ended;
        if ready.broken {
            return self.close_client(id, Some(&ErrorKind::ConnectionReset.into()), now);
        }
        self.client_has_more(id, queued, now);
    }

    /// The client may be read or written; where it is `queued` it is read later in the pass.
    #[inline]
    fn client_has_more(&mut self, id: ClientId, queued: bool, now: Time) {
        if self.pool.client_output(id).is_some_and(|output| !output.is_sent()) {
            self.dirty_clients.push(id);
        }
        if !queued {
            self.read_client(id.index as usize, now);
        }
    }

    fn read_client(&mut self, index: usize, now: Time) {
        let Some(client) = self.clients.get_mut(index) else { return };
        let id = client.id(index);
        if client.ended && self.pool.is_waiting(id) {
            return self.pool.client_ended(id);
        }
        if !self.pool.wants_read(id) {
            client.more = More::Unwanted;
            let takes_replies = self.pool.client_output(id).is_none_or(|output| output.is_sent());
            let waiting = takes_replies.then(|| client.socket.waiting()).filter(|&bytes| bytes > 0);
            client.left = waiting.map(|bytes| Box::new(Left { since: now, bytes }));
            return;
        }
        self.pool.before_client_read(id, &mut self.scratch);
        let rest = self.scratch.len();
        let most = if self.passed < PASS_BYTES_MAX { READ_MAX } else { READ_LATE };
        match client.socket.read(&mut self.scratch, most) {
            Ok(Read::Nothing) => self.pool.keep_client_rest(id, &mut self.scratch),
            Ok(Read::Ended) => {
                self.pool.keep_client_rest(id, &mut self.scratch);
                self.pool.client_ended(id);
            }
            Ok(read) => {
                let count = self.scratch.len() - rest;
                let arrived = client.arrived(count).unwrap_or(now);
                // The end may have come together with the last bytes; there is no second notice of it.
                if read == Read::Full || client.ended {
                    client.more = More::Queued;
                    self.again.push_back(Turn::Client(id));
                }
                self.passed += count;
                self.pool.counters().client_received_bytes.add(count as u64);
                self.pool.client_received_late(id, &mut self.scratch, arrived, now);
            }
            Err(error) => {
                self.scratch.clear();
                self.close_client(id, Some(&error), now);
            }
        }
    }

    fn shard_ready(&mut self, index: usize, ready: Ready, now: Time) {
        let Some(Some(shard)) = self.shards.get_mut(index) else { return };
        let id = shard.id;
        shard.ended |= ready.ended;
        self.shard_has_more(id, now);
    }

    /// The shard's socket may be read or written.
    #[inline]
    fn shard_has_more(&mut self, id: ConnectionId, now: Time) {
        if self.pool.has_shard_output(id) {
            self.dirty_shards.push(id);
        }
        self.read_shard(id, now);
    }

    fn read_shard(&mut self, id: ConnectionId, now: Time) {
        let Some(shard) = find(&mut self.shards, id) else { return };
        if self.pool.is_behind(id) {
            // What has come of it is handed out first.
            if !std::mem::replace(&mut shard.queued, true) {
                self.again.push_back(Turn::Shard(id, shard.number));
            }
            return;
        }
        self.pool.before_shard_read(id, &mut self.scratch);
        let rest = self.scratch.len();
        let most = if self.passed < PASS_BYTES_MAX { READ_MAX } else { READ_LATE_OF_SHARD };
        let failure = match shard.socket.read(&mut self.scratch, most) {
            Ok(Read::Nothing) => return self.pool.keep_shard_rest(id, &mut self.scratch),
            Ok(Read::Ended) => ShardFailure::Closed,
            Ok(read) => {
                if (read == Read::Full || shard.ended) && !std::mem::replace(&mut shard.queued, true) {
                    self.again.push_back(Turn::Shard(id, shard.number));
                }
                self.passed += self.scratch.len() - rest;
                match self.pool.shard_received(id, &mut self.scratch, now) {
                    Ok(()) => {
                        // Large responses leave at once, while they are in the cache, and free the buffer.
                        if self.pool.take_large() {
                            self.write_clients(now);
                        }
                        return;
                    }
                    Err(failure) => failure,
                }
            }
            Err(error) => socket::lost(&error),
        };
        self.scratch.clear();
        self.close_shard(id, &failure, now);
    }

    /// Those that have more than fits into one read share what a pass may take, each in its turn; all others were read.
    fn take_turns(&mut self, now: Time) {
        let before = self.passed;
        for _ in 0..self.turns {
            if self.passed >= PASS_BYTES_MAX && self.passed - before >= TURNS_BYTES_MIN {
                break;
            }
            let Some(turn) = self.again.pop_front() else { break };
            match turn {
                Turn::Lingering(id) => {
                    self.passed += linger::READ_SIZE;
                    self.again.extend(self.lingering.read(id).map(Turn::Lingering));
                }
                Turn::Client(id) => {
                    if let Some(client) = find_client(&mut self.clients, id) {
                        client.more = More::None;
                        self.client_has_more(id, false, now);
                    }
                }
                Turn::Shard(id, number) => {
                    if let Some(shard) = find(&mut self.shards, id).filter(|shard| shard.number == number) {
                        shard.queued = false;
                        self.shard_has_more(id, now);
                    }
                }
            }
        }
        self.passed = 0;
    }

    /// Who was put off is written before those that the kernel has told of.
    fn end_pauses(&mut self) {
        let mut owed = 0;
        for id in &self.paused_clients {
            if let Some(client) = find_client(&mut self.clients, *id) {
                client.paused = false;
                owed += self.pool.client_output(*id).map_or(0, |output| output.len());
            }
        }
        self.paused_clients.append(&mut self.dirty_clients);
        std::mem::swap(&mut self.paused_clients, &mut self.dirty_clients);
        for id in self.paused_shards.drain(..) {
            if let Some(shard) = find(&mut self.shards, id) {
                shard.paused = false;
                self.dirty_shards.push(id);
            }
        }
        self.written = 0;
        self.written_max = (owed / OWED_PARTS).clamp(PASS_WRITTEN_MAX, WRITTEN_MORE.1);
    }

    // --- connections --------------------------------------------------------------------------------------------

    fn shard_connected(
        &mut self,
        id: ConnectionId,
        socket: Socket,
        identity: Option<ShardIdentity>,
        now: Time,
    ) {
        // What comes for one that is not there any more is closed.
        if self.pool.shard_of(id).is_none() {
            return;
        }
        let index = id.index as usize;
        if self.shards.len() <= index {
            self.shards.resize_with(index + 1, || None);
        }
        let watched = self.setup.sockets.add(&socket, self.setup.pool, Token::Shard(id.index));
        self.last_socket = self.last_socket.wrapping_add(1);
        let number = self.last_socket;
        self.shards[index] =
            Some(ShardSocket { socket, id, number, ended: false, queued: false, paused: false });
        self.pool.shard_connected(id, identity, now);
        if let Err(error) = watched {
            self.close_shard(id, &socket::failure(&error), now);
        }
    }

    fn shard_not_connected(&mut self, id: ConnectionId, failure: &ShardFailure, now: Time) {
        let Some(shard) = self.pool.shard_of(id) else { return };
        log_shard(self.pool.name(), shard, failure);
        self.pool.shard_closed(id, failure, now);
    }

    fn close_shard(&mut self, id: ConnectionId, failure: &ShardFailure, now: Time) {
        let Some(slot) = self.shards.get_mut(id.index as usize) else { return };
        if slot.take_if(|shard| shard.id == id).is_none() {
            return;
        }
        let Some(shard) = self.pool.shard_of(id) else { return };
        log_shard(self.pool.name(), shard, failure);
        self.pool.shard_closed(id, failure, now);
    }

    fn close_client(&mut self, id: ClientId, error: Option<&io::Error>, now: Time) {
        if self.take_client(id).is_none() {
            return;
        }
        self.pool.client_gone(id, error.is_some_and(|error| error.kind() != ErrorKind::BrokenPipe), now);
        if self.pool.client_count() == 0 {
            self.clients = Table::default();
        }
    }

    fn take_client(&mut self, id: ClientId) -> Option<ClientSocket> {
        find_client(&mut self.clients, id)?;
        let client = self.clients.take(id.index as usize)?;
        self.pool.counters().peers.went(client.ends.peer().ip());
        Some(client)
    }

    /// Our side is closed; theirs may take a little.
    fn finish_client(&mut self, id: ClientId, now: Time) {
        let Some(ClientSocket { socket, .. }) = self.take_client(id) else { return };
        self.pool.client_gone(id, false, now);
        if let Some(id) = self.lingering.add(socket, self.drain_until.unwrap_or(now.plus(LINGER))) {
            self.again.push_back(Turn::Lingering(id));
            self.next_sweep.get_or_insert(now.plus(SWEEP));
        }
    }

    // --- time ---------------------------------------------------------------------------------------------------

    fn keep_time(&mut self, now: Time) {
        if self.pool.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.pool.tick(now);
        }
        self.expire_questions(now);
        if self.drain_until.is_some_and(|until| until <= now) {
            self.close_remaining(now);
        }
        if self.next_sweep.is_some_and(|sweep| sweep <= now) {
            if self.setup.watches_clients {
                self.part_with_due(now);
            }
            if self.drain_until.is_some() {
                self.drain_others(now);
            }
            if self.retiring.is_some() {
                // They have no next reply to go with.
                self.pool.end_waits(self.share_to_go(now), now);
            }
            if self.pool.has_blocked() {
                self.pool.sweep_blocked(now);
            }
            self.lingering.sweep(now);
            if self.pool.has_extra_connections() {
                self.pool.sweep_connections(now);
            }
            let needed = self.setup.watches_clients
                || self.drain_until.is_some()
                || self.retiring.is_some()
                || !self.lingering.is_empty()
                || self.pool.has_blocked()
                || self.pool.has_extra_connections();
            self.next_sweep = needed.then(|| now.plus(SWEEP));
        }
    }
}

impl<P: Protocol> Drive for Driver<P> {
    fn ordered(&mut self) {
        self.ordered = true;
    }

    #[inline]
    fn ready(&mut self, ready: Ready, now: Time) {
        match ready.token {
            Token::Client(index) => self.client_ready(index as usize, ready, now),
            Token::Shard(index) => self.shard_ready(index as usize, ready, now),
            Token::Lingering(index) => {
                self.again.extend(self.lingering.wake(index as usize).map(Turn::Lingering));
            }
            Token::Alarm => {}
        }
    }

    fn finish_pass(&mut self, now: Time) -> bool {
        self.untold.rest();
        self.end_pauses();
        if self.ordered {
            self.take_orders(now);
        }
        self.take_turns(now);
        self.go_on_listing(now);
        self.keep_time(now);
        pool::settle(self, now);
        self.report(now);
        if self.pool.has_extra_connections() {
            self.next_sweep.get_or_insert(now.plus(SWEEP));
        }
        self.turns = self.again.len();
        self.drain_until.is_none() || self.pool.client_count() > 0 || !self.lingering.is_empty()
    }

    fn set_clock(&mut self, unix_start: u64) {
        self.pool.set_clock(unix_start);
    }

    fn next_pass(&self) -> Option<Time> {
        let is_paused = !self.paused_clients.is_empty() || !self.paused_shards.is_empty();
        let is_busy = self.pool.has_work() || !self.again.is_empty() || is_paused || self.listing.is_some();
        if is_busy || self.ordered {
            return Some(Time::default());
        }
        let deadlines = [self.pool.next_deadline(), self.questions.deadline(), self.untold.retry()];
        deadlines.into_iter().chain([self.next_sweep, self.drain_until]).flatten().min()
    }
}

/// A connection to the shard has ended, or could not be made.
fn log_shard(pool: &str, Shard { name, address, .. }: &Shard, failure: &ShardFailure) {
    use ShardFailure as F;
    match failure {
        F::Closed | F::Removed => {
            tracing::debug!(%pool, shard = %name, %address, reason = %failure, "connection to shard closed");
        }
        F::ConnectRefused
        | F::ConnectTimeout
        | F::ConnectFailed(_)
        | F::LocalResources(_)
        | F::TlsFailed(_)
        | F::Unresolved(_) => {
            warn_limited!(%pool, shard = %name, %address, reason = %failure, "connecting to shard failed");
        }
        F::HandshakeRefused(_) | F::ResponseTimeout | F::Reset | F::Malformed(_) | F::QueueFull => {
            warn_limited!(%pool, shard = %name, %address, reason = %failure, "connection to shard lost");
        }
    }
}

/// The socket of the client, if it is there.
fn find_client(clients: &mut Table<ClientSocket>, id: ClientId) -> Option<&mut ClientSocket> {
    clients.get_mut(id.index as usize).filter(|client| client.generation == id.generation)
}

/// The socket of the connection, if it has one.
fn find(shards: &mut [Option<ShardSocket>], id: ConnectionId) -> Option<&mut ShardSocket> {
    shards.get_mut(id.index as usize)?.as_mut().filter(|shard| shard.id == id)
}
