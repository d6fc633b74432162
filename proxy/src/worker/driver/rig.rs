//! A driver that a test leads by the hand, over sockets whose other ends the test has: it says when a pass begins, and what
//! time it is.
#![cfg(test)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};
use tokio::sync::mpsc;

use super::{Drive as _, Driver, Setup};
use crate::account::{Account, Aside};
use crate::metrics::Counters;
use crate::net::epoll::{Alarm, Ready, Sockets};
use crate::net::late::Late;
use crate::net::socket::Socket;
use crate::pool::{Identity, Limits, Pool};
use crate::protocol::ShardIdentity;
use crate::protocol::resp::Resp;
use crate::protocol::resp::session::Settings;
use crate::time::Time;
use crate::worker::{Order, Report};

pub struct Rig {
    pub driver: Driver<Resp>,
    pub reports: mpsc::Receiver<Report>,
    pub now: Time,
    /// Its shards.
    pub topology: Arc<Topology>,
    orders: mpsc::Sender<Order>,
    sockets: Rc<Sockets>,
}

impl Rig {
    /// One shard; `reports` of them may wait for the control thread.
    pub fn new(reports: usize, change: impl FnOnce(&mut Limits)) -> Self {
        let shards = vec![Shard::new(Address::Tcp { host: "h".into(), port: 1 }, 1, Some("shard".into()))];
        let topology = Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, None);
        let mut limits = Limits::default();
        change(&mut limits);
        let identity =
            Identity { name: "p".into(), unix_start: 0, client_id_first: 1, client_id_step: 1, seed: 1 };
        let counters = Counters::of_workers(1, 1).remove(0);
        let alarm = Alarm::new().expect("a descriptor");
        let sockets = Rc::new(Sockets::new(&alarm).expect("a descriptor"));
        let (orders, obeyed) = mpsc::channel(64);
        let (told, reports) = mpsc::channel(reports);
        let setup = Setup {
            settings: |_, _, _| Settings::default(),
            client_keepalive: false,
            orders: obeyed,
            reports: told,
            worker: 0,
            workers: 1,
            pool: 0,
            sockets: sockets.clone(),
            start: Instant::now(),
            alarms: Rc::new([alarm]),
            watches_clients: limits.watches_clients(),
        };
        let topology = Arc::new(topology.expect("one shard"));
        let pool = Pool::new(identity, Settings::default(), limits, topology.clone(), counters);
        Self {
            driver: Driver::new(pool, setup),
            reports,
            now: Time::from_micros(1),
            topology,
            orders,
            sockets,
        }
    }

    /// An order, that is obeyed at once.
    pub fn order(&mut self, order: Order) {
        self.send(order);
        self.driver.take_orders(self.now);
    }

    /// An order for the next pass.
    pub fn send(&mut self, order: Order) {
        assert!(self.orders.try_send(order).is_ok(), "there is room");
        self.driver.ordered();
    }

    /// So many orders were not taken yet.
    pub fn sent(&self) -> usize {
        self.orders.max_capacity() - self.orders.capacity()
    }

    /// A client, that is the other end of it.
    pub fn client(&mut self) -> UnixStream {
        let (theirs, ours) = pair();
        self.order(Order::Serve(ours.into()));
        theirs
    }

    /// A client whose transport takes what it is given at once and writes it later.
    pub fn late_client(&mut self) -> UnixStream {
        let (theirs, ours) = pair();
        self.order(Order::Serve(Late::over(ours)));
        theirs
    }

    /// A client whose transport holds so much.
    pub fn hoarder(&mut self, account: &Arc<Account>, bytes: usize) -> UnixStream {
        let (theirs, ours) = pair();
        let mut hoard = Aside::new(account);
        hoard.hold(bytes);
        self.order(Order::Serve(Late::hoarding(ours, hoard)));
        theirs
    }

    /// The shard that the driver wants to be connected to.
    pub fn shard(&mut self) -> UnixStream {
        self.shard_over(Socket::from, None)
    }

    /// The same, where it has to be this one.
    pub fn shard_that_is(&mut self, identity: ShardIdentity) -> UnixStream {
        self.shard_over(Socket::from, Some(identity))
    }

    /// The same, with a transport that writes later.
    pub fn late_shard(&mut self) -> UnixStream {
        self.shard_over(Late::over, None)
    }

    fn shard_over(
        &mut self,
        over: impl FnOnce(UnixStream) -> Socket,
        identity: Option<ShardIdentity>,
    ) -> UnixStream {
        let Ok(Report::Connect { connection, .. }) = self.reports.try_recv() else {
            panic!("no connection is wanted");
        };
        let (theirs, ours) = pair();
        self.order(Order::Connected { connection, result: Ok(over(ours)), identity });
        theirs
    }

    /// A pass in which the kernel tells of all that there is.
    pub fn pass(&mut self) {
        self.pass_while(|| {});
    }

    /// The same, where something happens that the kernel has not told of yet.
    pub fn pass_while(&mut self, happens: impl FnOnce()) {
        let mut events = Vec::new();
        self.sockets.wait(&mut events, Some(Duration::ZERO)).expect("it waits");
        happens();
        for event in &events {
            self.driver.ready(Ready::of(event).1, self.now);
        }
        self.driver.finish_pass(self.now);
    }

    /// Passes for as long as the driver wants them at once.
    pub fn passes(&mut self) {
        self.pass();
        while self.driver.next_pass().is_some_and(|next| next <= self.now) {
            self.pass();
        }
    }

    /// So much later a pass begins; what comes from now on comes too late for the kernel to tell of it.
    pub fn blind_pass(&mut self, later: Duration) {
        self.now = self.now.plus(later);
        self.driver.finish_pass(self.now);
    }
}

fn pair() -> (UnixStream, UnixStream) {
    let (theirs, ours) = UnixStream::pair().expect("descriptors");
    theirs.set_nonblocking(true).expect("a socket");
    ours.set_nonblocking(true).expect("a socket");
    (theirs, ours)
}

pub fn say(peer: &mut UnixStream, bytes: &str) {
    peer.write_all(bytes.as_bytes()).expect("there is room");
}

/// What has come for the peer, and `|` where the connection has ended.
pub fn heard(peer: &mut UnixStream) -> String {
    let mut all = String::new();
    let mut room = [0; 65536];
    loop {
        match peer.read(&mut room) {
            Ok(0) => return all + "|",
            Ok(count) => all.push_str(&String::from_utf8_lossy(&room[..count])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
            Err(error) => return format!("{all}{error}"),
        }
    }
}
