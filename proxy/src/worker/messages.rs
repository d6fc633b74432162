//! What crosses threads: [`Order`]s to a driver, [`Report`]s of it, and what further pools are made of.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shard_discovery::{Shard, Topology};
use tokio::sync::{mpsc, oneshot};

use crate::config;
use crate::denied::DeniedLog;
use crate::failure::{Blame, ShardFailure};
use crate::hot::HotKeys;
use crate::mailboxes::Mailboxes;
use crate::metrics::Counters;
use crate::monitor::Monitors;
use crate::net::epoll::Alarm;
use crate::net::socket::Socket;
use crate::pool::ConnectionId;
use crate::protocol::store::Store;
use crate::protocol::{Found, Question, Rows, ShardIdentity};
use crate::scripts::Scripts;
use crate::slow::SlowLog;

/// Orders that may wait for one driver; the control thread waits when there are more.
const ORDERS_MAX: usize = 1024;

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
    pub(super) fn answer_bytes(&self) -> usize {
        match self {
            Self::Answer { found: Some(found), .. } => found.text.len(),
            _ => 0,
        }
    }
}

/// What was learnt of a pool's shards. It holds where the configuration leaves it open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// One of them does not speak RESP3.
    pub lacks_resp3: bool,
    /// How many databases the one with the fewest has, where it has fewer than the pool.
    pub databases: Option<u32>,
    /// Why one of them does not tell of changed keys, where that is so.
    pub untracked: Option<Arc<str>>,
}

impl Learnt {
    /// And this, of another shard.
    pub fn and(self, other: Self) -> Self {
        Self {
            lacks_resp3: self.lacks_resp3 || other.lacks_resp3,
            databases: self.databases.into_iter().chain(other.databases).min(),
            untracked: self.untracked.into_iter().chain(other.untracked).min(),
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
    /// What was slow on any worker.
    pub slow: Arc<SlowLog>,
    /// What was denied on any worker.
    pub denied: Arc<DeniedLog>,
    /// Where its workers tell each other of what their clients are to be told.
    pub mailboxes: Arc<Mailboxes>,
    /// What its workers see of requests.
    pub hot: Arc<HotKeys>,
    /// Who watches them.
    pub monitors: Arc<Monitors>,
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
