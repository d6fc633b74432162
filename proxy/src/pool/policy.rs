//! What holds for a connection: how long its responses may take, and what its silence and its end mean.
//!
//! Connections that clients share are all alike. One that serves a single client may be silent for as long as that client
//! likes, which says nothing of its shard, and what it was sent belongs to it alone.

use std::time::Duration;

use crate::time::Time;

/// Where no `timeout` is set: how long a shard may take to say that a name is listened to.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What holds for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// How long a response may take, from when its request was read. `None`: as long as it likes, and then silence is no
    /// reason to give the connection up either.
    pub timeout: Option<Duration>,
    /// What fails on it, once it is made, is its shard's failure or may be. An attempt to connect says the same of the shard
    /// whatever it was for.
    pub counts: bool,
    /// Requests of which no byte was written go on with the next connection where it is lost.
    pub carries_over: bool,
}

impl Policy {
    /// That of connections which clients share.
    pub fn shared(timeout: Option<Duration>) -> Self {
        Self { timeout, counts: true, carries_over: true }
    }

    /// That of connections which one client has to itself. Until it is made, and unless the request says otherwise, its
    /// responses may take as long as any.
    pub fn private(timeout: Option<Duration>) -> Self {
        Self { timeout, counts: false, carries_over: false }
    }

    /// That of a connection on which a shard is listened to. What is asked on it has its time as anything has.
    pub fn feed(timeout: Option<Duration>) -> Self {
        Self { timeout: timeout.or(Some(ANSWER_MAX)), counts: false, carries_over: false }
    }

    /// By when a request has to be answered that was read then.
    #[inline]
    pub fn deadline(&self, since: Time) -> Option<Time> {
        self.timeout.map(|timeout| since.plus(timeout))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::BytesMut;
    use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};

    use super::*;
    use crate::failure::{Blame, ShardFailure};
    use crate::metrics::Counters;
    use crate::pool::{ClientId, ConnectionId, Identity, Limits, Pool, Wish};
    use crate::protocol::resp::Resp;
    use crate::protocol::resp::session::Settings;

    const SECOND: Duration = Duration::from_secs(1);
    const SHARED: Policy = Policy { timeout: Some(SECOND), counts: true, carries_over: true };

    /// How a connection fails.
    type Way = fn(&mut Bench);

    /// A client and the connection that it uses, which is made.
    struct Bench {
        pool: Pool<Resp>,
        topology: Arc<Topology>,
        client: ClientId,
        connection: ConnectionId,
        now: Time,
    }

    impl Bench {
        fn new(policy: Policy) -> Self {
            let shards =
                vec![Shard::new(Address::Tcp { host: "h".into(), port: 1 }, 1, Some("shard".into()))];
            let topology = Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, None);
            let topology = Arc::new(topology.expect("one shard"));
            let identity =
                Identity { name: "p".into(), unix_start: 0, client_id_first: 1, client_id_step: 1, seed: 1 };
            let counters = Counters::of_workers(1, 1).remove(0);
            let mut pool =
                Pool::new(identity, Settings::default(), limits(Some(SECOND)), topology.clone(), counters);
            let now = Time::from_micros(10_000_000);
            pool.preconnect();
            let [Wish::Connect(connection)] = wishes(&mut pool)[..] else { panic!("it is wanted") };
            assert_eq!(pool.router.connections[connection].policy, SHARED);
            pool.router.connections[connection].policy = policy;
            pool.shard_connected(connection, None, now);
            let client = pool.client_connected(now);
            Self { pool, topology, client, connection, now }
        }

        fn say(&mut self, line: &str, arrived: Time) {
            let mut scratch = BytesMut::new();
            self.pool.before_client_read(self.client, &mut scratch);
            scratch.extend_from_slice(line.as_bytes());
            self.pool.client_received_late(self.client, &mut scratch, arrived, self.now);
        }

        /// The client asks, and the shard gets to hear of it.
        fn ask(&mut self, line: &str) {
            self.say(line, self.now);
            self.pool.shard_output(self.connection).expect("it is made").clear();
            self.pool.settle_shard(self.connection);
        }

        fn answer(&mut self, response: &str) -> Result<(), ShardFailure> {
            let mut scratch = BytesMut::new();
            self.pool.before_shard_read(self.connection, &mut scratch);
            scratch.extend_from_slice(response.as_bytes());
            self.pool.shard_received(self.connection, &mut scratch, self.now)
        }

        fn later(&mut self, duration: Duration) {
            self.now = self.now.plus(duration);
            self.pool.tick(self.now);
            self.pool.resume(&mut BytesMut::new(), self.now);
        }

        /// What the client is told.
        fn heard(&mut self) -> String {
            let Some(output) = self.pool.client_output(self.client) else { return String::new() };
            let text = String::from_utf8_lossy(&output.first(output.len())).into_owned();
            output.clear();
            self.pool.settle_client(self.client);
            text
        }

        /// Whom the failures since the last call are blamed on.
        fn blamed(&mut self) -> Vec<Blame> {
            let events = self.pool.take_events();
            events.into_iter().filter_map(|event| Some(event.failure?.blame)).collect()
        }
    }

    fn wishes(pool: &mut Pool<Resp>) -> Vec<Wish> {
        let mut wishes = Vec::new();
        pool.take_wishes(&mut wishes);
        wishes
    }

    fn limits(timeout: Option<Duration>) -> Limits {
        Limits { timeout, queue_wait: 60 * SECOND, shard_queue_max: 1, ..Limits::default() }
    }

    #[test]
    fn a_response_without_a_deadline_may_take_as_long_as_it_likes() {
        for line in ["GET a\r\n", "SET a 1\r\n"] {
            let mut shared = Bench::new(SHARED);
            shared.ask(line);
            shared.later(SECOND);
            assert_eq!(shared.heard(), "-ERR shard shard: timed out\r\n", "{line}");
            assert_eq!(shared.blamed(), [Blame::Shard], "{line}");

            let mut patient = Bench::new(Policy { timeout: None, ..SHARED });
            patient.ask(line);
            assert_eq!(patient.pool.next_deadline(), None, "{line}");
            for _ in 0..100 {
                patient.later(60 * SECOND);
            }
            assert_eq!((patient.heard().as_str(), patient.blamed()), ("", vec![]), "{line}");
            assert_eq!(wishes(&mut patient.pool), [], "{line}");
            patient.answer("+late\r\n").expect("it is expected");
            assert_eq!(patient.heard(), "+late\r\n", "{line}");
        }
    }

    /// Neither before it is queued nor while it waits for room.
    #[test]
    fn a_request_is_late_where_its_connection_says_so() {
        for (timeout, told) in [(Some(SECOND), "-ERR shard shard: timed out\r\n"), (None, "")] {
            let mut bench = Bench::new(Policy { timeout, ..SHARED });
            let before = bench.now;
            bench.now = bench.now.plus(2 * SECOND);
            bench.say("GET a\r\n", before);
            assert_eq!(bench.heard(), told, "{timeout:?}");
        }
        for (timeout, told) in [(Some(SECOND / 2), true), (Some(2 * SECOND), false), (None, false)] {
            let mut bench = Bench::new(Policy { timeout, ..SHARED });
            bench.ask("GET a\r\n");
            bench.say("GET b\r\n", bench.now);
            bench.later(SECOND);
            assert_eq!(bench.heard().contains("timed out"), told, "{timeout:?}");
            let connection = &bench.pool.router.connections[bench.connection];
            assert_eq!(connection.waiting.is_empty(), told, "{timeout:?}");
        }
    }

    #[test]
    fn a_reload_changes_the_deadlines_of_what_is_in_flight() {
        let mut bench = Bench::new(SHARED);
        bench.ask("GET a\r\n");
        for (timeout, pause) in [(None, 2 * SECOND), (Some(3 * SECOND), SECOND / 2)] {
            let (topology, counters) = (bench.topology.clone(), bench.pool.counters().clone());
            bench.pool.reconfigure(Settings::default(), limits(timeout), topology, counters, bench.now);
            bench.later(pause);
            assert_eq!(bench.heard(), "", "{timeout:?}");
        }
        bench.later(SECOND / 2);
        assert_eq!(bench.heard(), "-ERR shard shard: timed out\r\n");
    }

    #[test]
    fn what_fails_on_a_connection_that_does_not_count_is_nobodys_fault() {
        let silent = |bench: &mut Bench| bench.later(2 * SECOND);
        let malformed = |bench: &mut Bench| {
            let failure = bench.answer("garbage\r\n").expect_err("it is no response");
            bench.pool.shard_closed(bench.connection, &failure, bench.now);
        };
        let lost = |bench: &mut Bench| {
            bench.pool.shard_closed(bench.connection, &ShardFailure::Reset, bench.now);
        };
        let ways: [(Way, Blame); 3] =
            [(silent, Blame::Shard), (malformed, Blame::Unknown), (lost, Blame::Unknown)];
        for (fails, blame) in ways {
            for (counts, blamed) in [(true, vec![blame]), (false, vec![])] {
                let mut bench = Bench::new(Policy { counts, ..SHARED });
                bench.ask("GET a\r\n");
                fails(&mut bench);
                assert!(bench.heard().starts_with("-ERR shard shard: "), "its client is told");
                assert_eq!(bench.blamed(), blamed);
            }
        }
    }

    #[test]
    fn what_was_not_written_goes_on_where_that_is_wanted() {
        for carries_over in [true, false] {
            let mut bench = Bench::new(Policy { carries_over, ..SHARED });
            bench.say("GET a\r\n", bench.now);
            bench.pool.shard_closed(bench.connection, &ShardFailure::Closed, bench.now);
            let told = if carries_over { "" } else { "-ERR shard shard: connection closed\r\n" };
            assert_eq!(bench.heard(), told);
            assert_eq!(wishes(&mut bench.pool).is_empty(), !carries_over);
        }
    }
}
