//! What the control thread has sent, taken as a pass has time for it.

use std::time::Instant;

use tokio::sync::mpsc::error::TryRecvError;

use super::{Driver, SWEEP};
use crate::pool::Limits;
use crate::protocol::Protocol;
use crate::time::Time;
use crate::worker::questions::ClientListing;
use crate::worker::{Order, Reconfiguration};

/// Orders taken in one pass, so that a flood of new clients does not hold up the others.
const ORDERS_MAX: usize = 64;
/// Once answers to questions have so many bytes, further ones wait for the next pass: each is written in full to whoever asked.
const ANSWERS_BYTES_MAX: usize = 256 * 1024;

impl<P: Protocol> Driver<P> {
    /// Takes what the control thread has sent, as much as a pass has time for.
    pub(super) fn take_orders(&mut self, now: Time) {
        let mut answers = 0;
        for _ in 0..ORDERS_MAX {
            match self.setup.orders.try_recv() {
                Ok(order) => {
                    answers += order.answer_bytes();
                    self.obey(order, now);
                    if answers >= ANSWERS_BYTES_MAX {
                        return;
                    }
                }
                Err(error) => {
                    self.ordered = false;
                    if error == TryRecvError::Disconnected {
                        self.drain(now, now);
                    }
                    return;
                }
            }
        }
    }

    fn obey(&mut self, order: Order, now: Time) {
        match order {
            Order::Serve(socket) => self.client_connected(socket, now),
            Order::Connected { connection, result: Ok(socket), identity } => {
                self.shard_connected(connection, socket, identity, now);
            }
            Order::Connected { connection, result: Err(failure), .. } => {
                self.shard_not_connected(connection, &failure, now);
            }
            Order::Topology { topology, epoch } => {
                self.pool.set_topology(topology, now);
                self.pool.counters().epoch.set(epoch);
            }
            Order::Recovered(shard) => self.pool.recovered(&shard),
            Order::Renew(shard) => self.pool.renew(&shard, now),
            Order::Reconfigure(reconfiguration) => self.reconfigure(*reconfiguration, now),
            Order::Store(store) => self.pool.set_store(store),
            Order::Preconnect => self.pool.preconnect(),
            Order::List(list) => self.listing = Some(ClientListing::new(list)),
            Order::Answer { ask, found } => self.answer_question(ask, found),
            Order::Retire { within } => {
                self.retiring = Some((now, within));
                self.next_sweep.get_or_insert(now.plus(SWEEP));
            }
            Order::Drain { limit } => self.drain(now, now.plus(limit)),
        }
    }

    fn reconfigure(&mut self, reconfiguration: Reconfiguration, now: Time) {
        let Reconfiguration { config, learnt, topology, epoch, counters, memory_max, applied } =
            reconfiguration;
        let limits = Limits::of(&config, memory_max);
        self.setup.client_keepalive = config.tcpkeepalive;
        self.setup.watches_clients = limits.watches_clients();
        if self.setup.watches_clients {
            self.next_sweep.get_or_insert(now.plus(SWEEP));
        }
        let settings = (self.setup.settings)(&config, learnt, &topology);
        self.pool.reconfigure(settings, limits, topology, counters, now);
        self.pool.counters().epoch.set(epoch);
        // Nobody waits for it if the process is shutting down.
        let _ = applied.send(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::ANSWERS_BYTES_MAX;
    use crate::protocol::{Found, ShardIdentity};
    use crate::worker::Order;
    use crate::worker::driver::rig::{Rig, heard, say};

    /// The question that its answer leads to is written without anything else to write.
    #[test]
    fn a_node_with_another_id_is_asked_whom_it_knows() {
        let mut rig = Rig::new(16, |_| {});
        let mut client = rig.client();
        say(&mut client, "GET a\r\n");
        rig.passes();
        let known = ["one".into(), "two".into()].into();
        let mut shard = rig.shard_that_is(ShardIdentity::Node { id: "one".into(), known, found: None });
        rig.passes();
        assert_eq!(heard(&mut shard), "*2\r\n$7\r\nCLUSTER\r\n$4\r\nMYID\r\n");
        say(&mut shard, "$3\r\nten\r\n");
        rig.passes();
        assert_eq!(heard(&mut shard), "*2\r\n$7\r\nCLUSTER\r\n$5\r\nNODES\r\n");
        say(&mut shard, "$7\r\nten two\r\n");
        rig.passes();
        assert_eq!(heard(&mut shard), "*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
    }

    #[test]
    fn an_epoch_is_acknowledged_once_its_topology_is_in_use() {
        let mut rig = Rig::new(16, |_| {});
        rig.passes();
        rig.send(Order::Topology { topology: rig.topology.clone(), epoch: 7 });
        assert_eq!(rig.driver.pool.counters().epoch.get(), 0);
        rig.pass();
        assert_eq!(rig.driver.pool.counters().epoch.get(), 7);
    }

    /// Whoever asked gets each of them written in full, and a hundred clients may have asked.
    #[test]
    fn answers_beyond_what_a_pass_has_time_for_wait_for_the_next() {
        let mut rig = Rig::new(16, |_| {});
        rig.passes();
        let found = Found { refusal: None, count: 1, text: vec![b'x'; ANSWERS_BYTES_MAX * 3 / 4].into() };
        for ask in 0..6 {
            rig.send(Order::Answer { ask, found: Some(found.clone()) });
        }
        assert_eq!(rig.sent(), 6);
        rig.pass();
        assert_eq!(rig.sent(), 4);
        rig.passes();
        assert_eq!(rig.sent(), 0);
    }
}
