//! What a pool cannot do itself: it wishes for it, and whoever drives the pool does it, at the end of each pass.

use bytes::BytesMut;

use super::Pool;
use super::clients::ClientId;
use super::connections::ConnectionId;
use super::listing::AskedQuestion;
use super::monitoring::Seen;
use super::noted::{Noted, Samples};
use crate::failure::ShardFailure;
use crate::protocol::{Malformed, Protocol};
use crate::slow::Entry;
use crate::time::Time;

/// Clients and requests remembered for the log between two passes.
const TOLD_MAX: usize = 64;
/// Complaints of shards that are kept for the log, and bytes that are shown of one.
const COMPLAINTS_MAX: usize = 8;
const COMPLAINT_SHOWN_MAX: usize = 200;

/// What a pool wants to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Close the connection, if it is made, and say so with [`Pool::shard_closed`].
    Close(ConnectionId, ShardFailure),
    /// A write has timed out on the connection, though the shard answers others: close it as after a timeout, unless the shard
    /// has acknowledged all that was sent.
    CloseUnlessDelivered(ConnectionId),
    /// Close the writing side of the connection; what comes on it is still read.
    Finish(ConnectionId),
    /// Make the connection.
    Connect(ConnectionId),
    /// Ask the whole process.
    Ask(AskedQuestion),
    /// Wake the worker with this number: it has to look at what its clients hold.
    Wake(usize),
    /// Say what the transports of clients hold, with [`Pool::transports_hold`].
    Weigh,
    /// Say it in the log.
    Log(Notice),
    /// Show the request to those who watch.
    Show(Box<Seen>),
    /// A request is to be told of: say who has sent it, with [`Pool::tell_of`].
    Note(Box<Noted>),
}

/// What the log is to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A client has sent what is no request.
    Malformed(ClientId, Malformed),
    /// A client has sent a wrong password.
    WrongPassword(ClientId),
    /// A client has taken none of its replies for long, for which so many bytes are held.
    Wedged(ClientId, usize),
    /// A client had to go because too much was held, and it held so many bytes.
    Evicted(ClientId, usize),
    /// A request of so many bytes was refused because too much would be held.
    Oversized(ClientId, usize),
    /// A shard has said in these words that it does not want the proxy.
    Complaint(ConnectionId, String),
    /// The access log is to have this.
    Access(Box<Entry>),
}

/// Who does for a pool what it cannot do itself: the worker, and tests in its place.
pub trait Shell<P: Protocol> {
    /// The pool, and the buffer that requests are served from, which is empty before and after.
    fn pool(&mut self) -> (&mut Pool<P>, &mut BytesMut);
    /// Does what the pool wishes.
    fn fulfil(&mut self, wish: Wish, now: Time);
    /// Writes to the connections that [`Pool::take_dirty_shards`] names.
    fn write_shards(&mut self, now: Time);
    /// Writes to the clients that [`Pool::take_dirty_clients`] names, and does what [`Pool::settle_client`] says of each.
    fn write_clients(&mut self, now: Time);
}

/// The end of a pass: does all that the pool wishes, until it wishes nothing more in this pass.
pub fn settle<P: Protocol>(shell: &mut impl Shell<P>, now: Time) {
    let mut wishes = Vec::new();
    let mut is_first = true;
    loop {
        // What is given up must be gone before a client hears of it and writes again.
        fulfil(shell, &mut wishes, now);
        let (pool, scratch) = shell.pool();
        if std::mem::take(&mut is_first) {
            pool.resume(scratch, now);
        } else {
            pool.resume_others(scratch, now);
        }
        // Before clients are closed: the log is to say who they were.
        fulfil(shell, &mut wishes, now);
        shell.write_shards(now);
        shell.write_clients(now);
        if !shell.pool().0.has_more() {
            if shell.pool().0.finish_noted(now) {
                // Who was told of is told to the log.
                fulfil(shell, &mut wishes, now);
            }
            return;
        }
    }
}

fn fulfil<P: Protocol>(shell: &mut impl Shell<P>, wishes: &mut Vec<Wish>, now: Time) {
    shell.pool().0.take_wishes(wishes);
    for wish in wishes.drain(..) {
        shell.fulfil(wish, now);
    }
}

/// What is wished for beside what the book of connections wants.
#[derive(Default)]
pub(super) struct Wishes {
    /// As it came.
    queue: Vec<Wish>,
    /// A large response was handed on.
    pub large: bool,
    /// How many of `queue` are of this kind, where that is limited.
    evicted: usize,
    oversized: usize,
    complaints: usize,
    /// Which requests are told of.
    pub samples: Samples,
}

impl Wishes {
    /// One more.
    pub fn add(&mut self, wish: Wish) {
        self.queue.push(wish);
    }

    /// The log is to say this.
    pub fn log(&mut self, notice: Notice) {
        self.add(Wish::Log(notice));
    }

    /// A client has to go because too much is held.
    pub fn log_evicted(&mut self, client: ClientId, bytes: usize) {
        self.evicted += 1;
        if self.evicted <= TOLD_MAX {
            self.log(Notice::Evicted(client, bytes));
        }
    }

    /// A request is refused because too much would be held.
    pub fn log_oversized(&mut self, client: ClientId, bytes: usize) {
        self.oversized += 1;
        if self.oversized <= TOLD_MAX {
            self.log(Notice::Oversized(client, bytes));
        }
    }

    /// A shard has said that it does not want us.
    pub fn log_complaint(&mut self, connection: ConnectionId, response: &[u8]) {
        self.complaints += 1;
        if self.complaints <= COMPLAINTS_MAX {
            let words = response.trim_ascii_end();
            let words = String::from_utf8_lossy(&words[..words.len().min(COMPLAINT_SHOWN_MAX)]);
            self.log(Notice::Complaint(connection, words.escape_debug().to_string()));
        }
    }
}

impl<P: Protocol> Pool<P> {
    /// What is wished for since the last call, in the order in which it is to be done.
    #[inline]
    pub fn take_wishes(&mut self, into: &mut Vec<Wish>) {
        if self.has_wishes() {
            let connections = &mut self.router.connections;
            connections.take_closes(|id, failure| into.push(Wish::Close(id, failure)));
            into.append(&mut self.wishes.queue);
            (self.wishes.evicted, self.wishes.oversized, self.wishes.complaints) = (0, 0, 0);
            into.extend(connections.take_connects().map(Wish::Connect));
        }
    }

    /// Whether something is wished for.
    #[inline]
    pub(super) fn has_wishes(&self) -> bool {
        !self.wishes.queue.is_empty() || self.router.connections.has_wishes()
    }

    /// Whether a large response was handed on since the last call: it is worth writing at once.
    pub fn take_large(&mut self) -> bool {
        std::mem::take(&mut self.wishes.large)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};

    use super::*;
    use crate::metrics::Counters;
    use crate::pool::{Identity, Limits};
    use crate::protocol::resp::Resp;
    use crate::protocol::resp::session::Settings;

    /// A worker that does nothing but to note what it is to do.
    struct Notes {
        pool: Pool<Resp>,
        scratch: BytesMut,
        notes: Vec<&'static str>,
    }

    impl Shell<Resp> for Notes {
        fn pool(&mut self) -> (&mut Pool<Resp>, &mut BytesMut) {
            (&mut self.pool, &mut self.scratch)
        }

        fn fulfil(&mut self, wish: Wish, now: Time) {
            self.notes.push(match wish {
                Wish::Close(id, failure) => {
                    self.pool.shard_closed(id, &failure, now);
                    "close"
                }
                Wish::Connect(id) => {
                    self.pool.shard_connected(id, None, now);
                    "connect"
                }
                Wish::Log(Notice::Malformed(..)) => "malformed",
                other => panic!("{other:?}"),
            });
        }

        fn write_shards(&mut self, _: Time) {
            self.pool.take_dirty_shards(&mut Vec::new());
            self.notes.push("shards");
        }

        fn write_clients(&mut self, _: Time) {
            self.pool.take_dirty_clients(&mut Vec::new());
            self.notes.push("clients");
        }
    }

    /// What is given up is gone before somebody goes on, and the log is told of clients while they are there.
    #[test]
    fn wishes_come_in_their_order() {
        let shards = vec![Shard::new(Address::Tcp { host: "h".into(), port: 1 }, 1, None)];
        let topology = Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, None);
        let limits =
            Limits { timeout: Some(Duration::from_secs(1)), shard_queue_max: 1, ..Limits::default() };
        let identity =
            Identity { name: "p".into(), unix_start: 0, client_id_first: 1, client_id_step: 1, seed: 1 };
        let topology = Arc::new(topology.expect("one shard"));
        let counters = Counters::of_workers(1, 1).remove(0);
        let pool = Pool::new(identity, Settings::default(), limits, topology, counters);
        let mut worker = Notes { pool, scratch: BytesMut::new(), notes: Vec::new() };
        let now = Time::from_micros(1);
        let say = |worker: &mut Notes, line: &str, now| {
            let client = worker.pool.client_connected(now);
            worker.pool.client_received(client, &mut BytesMut::from(line), now);
        };
        say(&mut worker, "SET a 1\r\n", now);
        settle(&mut worker, now);
        assert_eq!(worker.notes, ["connect", "shards", "clients"]);
        worker.notes.clear();
        let now = now.plus(Duration::from_millis(500));
        say(&mut worker, "SET a 2\r\n", now);
        say(&mut worker, "*x\r\n", now);
        // The first is told that it has waited for too long; the second has waited for room behind it.
        let now = now.plus(Duration::from_millis(500));
        worker.pool.tick(now);
        settle(&mut worker, now);
        assert_eq!(worker.notes, ["close", "malformed", "connect", "shards", "clients"]);
    }
}
