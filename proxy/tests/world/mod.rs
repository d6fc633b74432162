//! The core in a world of its own: what the worker does for a [`Pool`], without sockets and in virtual time.
//!
//! Whoever tests the core drives it through this, so that it is driven as the worker drives it. What peers say and when is
//! the test's business.
#![allow(dead_code, reason = "every test uses some of it")]

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use memstore_proxy::buffer::Output;
use memstore_proxy::failure::ShardFailure;
use memstore_proxy::metrics::Counters;
use memstore_proxy::monitor;
use memstore_proxy::pool::{
    self, ClientId, ConnectionId, Identity, Limits, Parting, Pool, ShardEvent, Shell, Verdict, Wish,
};
use memstore_proxy::protocol::{Found, Protocol, Rows, ShardIdentity};
use memstore_proxy::time::Time;
use shard_discovery::Topology;

pub mod random;
pub mod shards;
pub mod words;

/// A pool and the time.
pub struct World<P: Protocol> {
    pub pool: Pool<P>,
    pub counters: Counters,
    pub now: Time,
    /// The address that clients have connected to; there is none in most tests.
    pub local: String,
    /// Connections that the pool wants.
    pub wanted: Vec<ConnectionId>,
    /// Connections that are made.
    pub up: BTreeSet<ConnectionId>,
    /// Clients that take every reply as soon as it is there, with what they took.
    pub eager: HashMap<ClientId, Vec<u8>>,
    scratch: BytesMut,
    /// Of the pass at hand.
    events: Vec<Event>,
}

/// What has come of a pass.
#[derive(Debug)]
pub enum Event {
    /// The pool has ended the connection.
    ClientLeft(ClientId, Verdict),
    /// The pool has given the connection up.
    ConnectionClosed(ConnectionId, ShardFailure),
    /// The pool has closed its writing side of the connection.
    ConnectionFinished(ConnectionId),
    /// For the ejector.
    Shard(ShardEvent),
}

impl<P: Protocol> World<P> {
    pub fn new(settings: P::Settings, limits: Limits, topology: Arc<Topology>, seed: u64) -> Self {
        let counters = Counters::of_workers(1, topology.shards().len()).remove(0);
        let identity =
            Identity { name: "pool".into(), unix_start: 0, client_id_first: 1, client_id_step: 1, seed };
        Self {
            pool: Pool::new(identity, settings, limits, topology, counters.clone()),
            counters,
            now: Time::from_micros(1_000),
            local: String::new(),
            wanted: Vec::new(),
            up: BTreeSet::new(),
            eager: HashMap::new(),
            scratch: BytesMut::new(),
            events: Vec::new(),
        }
    }

    /// Another configuration; `kept` says for each shard of its list which of the present one it is.
    pub fn reconfigure(
        &mut self,
        settings: P::Settings,
        limits: Limits,
        topology: Arc<Topology>,
        kept: &[Option<usize>],
    ) {
        self.counters = self.counters.with_shards(kept).remove(0);
        self.pool.reconfigure(settings, limits, topology, self.counters.clone(), self.now);
    }

    /// Bytes of a client reach the proxy. Only while [`Pool::wants_read`] says so.
    pub fn client_sends(&mut self, id: ClientId, bytes: &[u8]) {
        self.client_sends_late(id, bytes, self.now);
    }

    /// The same, where the bytes have been there since `arrived`.
    pub fn client_sends_late(&mut self, id: ClientId, bytes: &[u8], arrived: Time) {
        self.pool.before_client_read(id, &mut self.scratch);
        self.scratch.extend_from_slice(bytes);
        self.pool.client_received_late(id, &mut self.scratch, arrived, self.now);
        assert!(self.scratch.is_empty());
    }

    /// What waits for a client, as much of it as `most` says of the length; empty where nothing does.
    pub fn client_takes(&mut self, id: ClientId, most: impl FnOnce(usize) -> usize) -> Vec<u8> {
        self.pool.client_output(id).map_or_else(Vec::new, |output| taken(output, most))
    }

    /// Does what the pool says about a client that was written to; tells if it has left.
    pub fn judge(&mut self, id: ClientId) -> Option<Verdict> {
        match self.pool.settle_client(id) {
            Verdict::Read | Verdict::Wait => None,
            verdict => {
                self.pool.client_gone(id, false, self.now);
                Some(verdict)
            }
        }
    }

    /// The connection that is wanted is made.
    pub fn wanted_connects(&mut self) -> ConnectionId {
        let index = self.wanted.pop().expect("a connection is wanted");
        self.shard_connects(index);
        self.settle();
        index
    }

    /// The connection is made.
    pub fn shard_connects(&mut self, index: ConnectionId) {
        self.shard_connects_as(index, None);
    }

    /// The same, where the shard has to say who it is.
    pub fn shard_connects_as(&mut self, index: ConnectionId, identity: Option<ShardIdentity>) {
        self.up.insert(index);
        self.pool.shard_connected(index, identity, self.now);
    }

    /// Requests on their way to a shard, as much of them as `most` says of the length; empty where there are none.
    pub fn shard_takes(&mut self, index: ConnectionId, most: impl FnOnce(usize) -> usize) -> Vec<u8> {
        let bytes = self.pool.shard_output(index).map_or_else(Vec::new, |output| taken(output, most));
        if !bytes.is_empty() {
            self.pool.settle_shard(index);
        }
        bytes
    }

    /// Bytes of a shard reach the proxy. An error is why it gives the connection up; it is closed then.
    pub fn shard_sends(&mut self, index: ConnectionId, bytes: &[u8]) -> Result<(), ShardFailure> {
        self.pool.before_shard_read(index, &mut self.scratch);
        self.scratch.extend_from_slice(bytes);
        let received = self.pool.shard_received(index, &mut self.scratch, self.now);
        assert!(self.scratch.is_empty());
        if let Err(failure) = &received {
            self.shard_closes(index, failure);
        }
        received
    }

    /// The connection is lost, or could not be made. True if it was there.
    pub fn shard_closes(&mut self, index: ConnectionId, failure: &ShardFailure) -> bool {
        let was_up = self.up.remove(&index);
        self.pool.shard_closed(index, failure, self.now);
        was_up
    }

    /// Lets time pass as the worker does, that is from deadline to deadline.
    pub fn pass_time(&mut self, duration: Duration) -> Vec<Event> {
        let end = self.now.plus(duration);
        let mut events = Vec::new();
        while let Some(deadline) = self.pool.next_deadline()
            && deadline <= end
        {
            self.now = self.now.max(deadline);
            self.pool.tick(self.now);
            events.extend(self.settle());
            if self.pool.next_deadline() == Some(deadline) {
                break;
            }
        }
        self.now = end;
        self.pool.tick(self.now);
        let mut due = Vec::new();
        self.pool.sweep_clients(self.now, &mut due);
        for (id, why) in due {
            // All that has come is read.
            if why != Parting::Aged || self.pool.is_quiet(id, self.now) {
                self.pool.part_with(id, why, self.now);
            }
        }
        self.pool.sweep_blocked(self.now);
        self.pool.sweep_connections(self.now);
        events.extend(self.settle());
        events
    }

    /// Does what the worker does after every pass, but for the writing; only eager clients are written to.
    pub fn settle(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..10_000 {
            self.pass(&mut events);
            if !self.pool.has_work() {
                return events;
            }
        }
        panic!("the pool never comes to rest");
    }

    /// The same for one pass, in the worker's order: some clients may wait for the next one.
    pub fn pass(&mut self, events: &mut Vec<Event>) {
        pool::settle(self, self.now);
        events.append(&mut self.events);
        events.extend(self.pool.take_events().into_iter().map(Event::Shard));
    }
}

impl<P: Protocol> Shell<P> for World<P> {
    fn pool(&mut self) -> (&mut Pool<P>, &mut BytesMut) {
        (&mut self.pool, &mut self.scratch)
    }

    fn fulfil(&mut self, wish: Wish, _: Time) {
        match wish {
            Wish::Close(index, failure) => {
                if self.up.contains(&index) {
                    self.shard_closes(index, &failure);
                    self.events.push(Event::ConnectionClosed(index, failure));
                }
            }
            // What a shard takes has arrived.
            Wish::CloseUnlessDelivered(_) => {}
            Wish::Finish(index) => self.events.push(Event::ConnectionFinished(index)),
            Wish::Connect(index) => self.wanted.push(index),
            Wish::Ask(asked) => {
                let mut rows = Rows::default();
                let (question, asker) = (&asked.question, asked.asker);
                let ends = |_| Some(["", self.local.as_str()]);
                self.pool.list_clients(question, asker, 0..usize::MAX, self.now, ends, &mut rows);
                self.pool.answer_question(&asked, &Found::of(&[rows]));
            }
            Wish::Note(noted) => self.pool.tell_of(*noted, "127.0.0.1:1000".into()),
            Wish::Show(seen) => {
                let address = format!("client:{}", seen.number);
                let line = monitor::line(seen.micros, seen.database, &address, &seen.words);
                for monitor in seen.takers.iter().filter(|monitor| monitor.takes(seen.number, &address)) {
                    self.pool.monitors().tell(monitor, &line);
                }
            }
            Wish::Wake(_) | Wish::Weigh | Wish::Log(_) => {}
        }
    }

    /// Shards take what there is when a test says so.
    fn write_shards(&mut self, _: Time) {
        self.pool.take_dirty_shards(&mut Vec::new());
    }

    fn write_clients(&mut self, _: Time) {
        let mut clients = Vec::new();
        self.pool.take_dirty_clients(&mut clients);
        for id in clients {
            if let Some(inbox) = self.eager.get_mut(&id)
                && let Some(output) = self.pool.client_output(id)
            {
                inbox.extend(taken(output, |length| length));
            }
            let left = self.judge(id).map(|verdict| Event::ClientLeft(id, verdict));
            self.events.extend(left);
        }
    }
}

/// The first bytes of an output, as a short write takes them.
fn taken(output: &mut Output, most: impl FnOnce(usize) -> usize) -> Vec<u8> {
    if output.is_empty() {
        return Vec::new();
    }
    let count = most(output.len());
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        let mut vectors = [std::io::IoSlice::new(&[]); 8];
        let used = output.vectors(&mut vectors, usize::MAX);
        let room = count - bytes.len();
        let before = bytes.len();
        bytes.extend(vectors[..used].iter().flat_map(|vector| vector.iter().copied()).take(room));
        output.advance(bytes.len() - before);
    }
    bytes
}
