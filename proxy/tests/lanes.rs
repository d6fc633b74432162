//! Databases have shard connections of their own: as many as are in use, and as many as there may be.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::BytesMut;
use memstore_proxy::failure::ShardFailure;
use memstore_proxy::metrics::Counters;
use memstore_proxy::pool::{self, ClientId, ConnectionId, Identity, Limits, Pool, Shell, Wish};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use memstore_proxy::protocol::{Found, Rows};
use memstore_proxy::time::Time;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};

fn topology() -> Arc<Topology> {
    topology_of(1)
}

fn topology_of(shards: u16) -> Arc<Topology> {
    let shard = |port| Shard::new(Address::Tcp { host: "h".into(), port }, 1, Some(format!("shard-{port}")));
    let shards = (1..=shards).map(shard).collect();
    Arc::new(Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, None).expect("shards"))
}

fn pool() -> Pool<Resp> {
    let identity =
        Identity { name: "p".into(), unix_start: 0, client_id_first: 1, client_id_step: 1, seed: 1 };
    let settings = Settings { databases: 16, ..Settings::default() };
    Pool::new(identity, settings, Limits::default(), topology(), Counters::of_workers(1, 1).remove(0))
}

fn say(pool: &mut Pool<Resp>, client: ClientId, line: &str, now: Time) {
    let mut scratch = BytesMut::new();
    pool.before_client_read(client, &mut scratch);
    scratch.extend_from_slice(line.as_bytes());
    pool.client_received(client, &mut scratch, now);
    pool.settle_client(client);
}

fn heard(pool: &mut Pool<Resp>, client: ClientId) -> String {
    let Some(output) = pool.client_output(client) else { return String::new() };
    let mut vectors = [std::io::IoSlice::new(&[]); 8];
    let used = output.vectors(&mut vectors, usize::MAX);
    let text = vectors[..used].iter().map(|vector| String::from_utf8_lossy(vector).into_owned()).collect();
    output.advance(output.len());
    pool.settle_client(client);
    text
}

fn sent(pool: &mut Pool<Resp>, connection: ConnectionId) -> String {
    let output = pool.shard_output(connection).expect("connected");
    let mut vectors = [std::io::IoSlice::new(&[]); 8];
    let used = output.vectors(&mut vectors, usize::MAX);
    let text = vectors[..used].iter().map(|vector| String::from_utf8_lossy(vector).into_owned()).collect();
    output.advance(output.len());
    text
}

fn answer(pool: &mut Pool<Resp>, connection: ConnectionId, response: &str, now: Time) {
    let mut scratch = BytesMut::new();
    pool.before_shard_read(connection, &mut scratch);
    scratch.extend_from_slice(response.as_bytes());
    pool.shard_received(connection, &mut scratch, now).expect("a good response");
    pool.resume(&mut BytesMut::new(), now);
}

/// A worker at the end of a pass; every shard answers everything with OK.
struct Worker<'w> {
    pool: &'w mut Pool<Resp>,
    /// Its replies are left to the test.
    client: ClientId,
    open: &'w mut BTreeSet<ConnectionId>,
    scratch: BytesMut,
}

impl Shell<Resp> for Worker<'_> {
    fn pool(&mut self) -> (&mut Pool<Resp>, &mut BytesMut) {
        (self.pool, &mut self.scratch)
    }

    fn fulfil(&mut self, wish: Wish, now: Time) {
        match wish {
            Wish::Close(index, failure) if self.open.remove(&index) => {
                self.pool.shard_closed(index, &failure, now);
            }
            Wish::Connect(index) => {
                self.pool.shard_connected(index, None, now);
                self.open.insert(index);
            }
            _ => {}
        }
    }

    fn write_shards(&mut self, now: Time) {
        let mut dirty = Vec::new();
        self.pool.take_dirty_shards(&mut dirty);
        for index in dirty {
            let requests = sent(self.pool, index).matches('*').count();
            self.pool.settle_shard(index);
            if requests > 0 {
                answer(self.pool, index, &"+OK\r\n".repeat(requests), now);
            }
        }
    }

    fn write_clients(&mut self, _: Time) {
        let mut clients = Vec::new();
        self.pool.take_dirty_clients(&mut clients);
        for id in clients.into_iter().filter(|id| *id != self.client) {
            heard(self.pool, id);
            self.pool.settle_client(id);
        }
        self.pool.settle_client(self.client);
    }
}

fn settle(pool: &mut Pool<Resp>, client: ClientId, open: &mut BTreeSet<ConnectionId>, now: Time) {
    loop {
        pool::settle(&mut Worker { pool, client, open, scratch: BytesMut::new() }, now);
        if !pool.has_work() {
            return;
        }
    }
}

/// What the pool wishes for.
fn wishes(pool: &mut Pool<Resp>) -> Vec<Wish> {
    let mut wishes = Vec::new();
    pool.take_wishes(&mut wishes);
    wishes
}

/// The connections that are to be made.
fn wanted(pool: &mut Pool<Resp>) -> Vec<ConnectionId> {
    let wanted = |wish| if let Wish::Connect(connection) = wish { Some(connection) } else { None };
    wishes(pool).into_iter().filter_map(wanted).collect()
}

fn wide_pool() -> (Pool<Resp>, Counters) {
    let counters = Counters::of_workers(1, 1).remove(0);
    let mut pool = pool();
    let settings = Settings { databases: 65536, ..Settings::default() };
    pool.reconfigure(settings, Limits::default(), topology(), counters.clone(), Time::default());
    (pool, counters)
}

#[test]
fn a_client_that_walks_through_databases_leaves_nothing_behind() {
    let now = Time::from_micros(1);
    for request in ["", "GET a\r\n"] {
        let (mut pool, counters) = wide_pool();
        let client = pool.client_connected(now);
        let mut open = BTreeSet::new();
        for db in 0..2000 {
            say(&mut pool, client, &format!("SELECT {db}\r\n{request}"), now);
            settle(&mut pool, client, &mut open, now);
            let said = heard(&mut pool, client);
            assert!(said.starts_with("+OK\r\n") && !said.contains('-'), "SELECT {db}: {said}");
        }
        assert!(pool.connection_count() <= 64, "{}", pool.connection_count());
        assert!(open.len() <= 64, "{}", open.len());
        assert!(counters.lanes.get() <= 64, "{}", counters.lanes.get());
    }
}

#[test]
fn a_database_that_is_used_again_before_its_connections_are_closed_keeps_them() {
    let now = Time::from_micros(1);
    let (mut pool, counters) = wide_pool();
    let mut open = BTreeSet::new();
    for db in 1..32 {
        let client = pool.client_connected(now);
        say(&mut pool, client, &format!("SELECT {db}\r\nGET a\r\n"), now);
        settle(&mut pool, client, &mut open, now);
        assert_eq!(heard(&mut pool, client), "+OK\r\n+OK\r\n");
        pool.client_gone(client, false, now);
    }
    let (one, other) = (pool.client_connected(now), pool.client_connected(now));
    // One more than are kept: those that nobody uses are to be closed.
    say(&mut pool, one, "SELECT 100\r\n", now);
    say(&mut pool, other, "SELECT 31\r\nGET a\r\n", now);
    settle(&mut pool, other, &mut open, now);
    assert_eq!(heard(&mut pool, other), "+OK\r\n+OK\r\n");
    assert_eq!(counters.forward_error.get(), 0);
}

#[test]
fn databases_in_use_at_a_time_are_limited() {
    let now = Time::from_micros(1);
    let (mut pool, counters) = wide_pool();
    let mut refused = Vec::new();
    let clients: Vec<ClientId> = (0..300).map(|_| pool.client_connected(now)).collect();
    for (db, &client) in clients.iter().enumerate() {
        say(&mut pool, client, &format!("SELECT {db}\r\n"), now);
        let said = heard(&mut pool, client);
        if said != "+OK\r\n" {
            assert!(said.starts_with("-ERR too many databases are in use"), "{said}");
            refused.push(client);
        }
    }
    assert_eq!((refused.len(), counters.lanes.get(), counters.lanes_refused.get()), (44, 256, 44));
    // Such a client is served where it was.
    say(&mut pool, refused[0], "CLIENT LIST\r\n", now);
    let Some(Wish::Ask(asked)) = wishes(&mut pool).pop() else { panic!("a question is asked") };
    let mut rows = Rows::default();
    let places = 0..pool.client_count();
    pool.list_clients(&asked.question, asked.asker, places, now, |_| Some(["a", "b"]), &mut rows);
    pool.answer_question(&asked, &Found::of(&[rows]));
    let said = heard(&mut pool, refused[0]);
    assert!(said.contains("id=257 addr=a laddr=b name= db=0 "), "{said}");
    // It may use one that others use, and one whose clients are gone.
    say(&mut pool, refused[0], "SELECT 7\r\n", now);
    assert_eq!(heard(&mut pool, refused[0]), "+OK\r\n");
    pool.client_gone(clients[100], false, now);
    say(&mut pool, refused[1], "SELECT 40000\r\n", now);
    assert_eq!(heard(&mut pool, refused[1]), "+OK\r\n");
}

#[test]
fn reloads_leave_no_connections_behind() {
    let now = Time::from_micros(1);
    let counters = Counters::of_workers(1, 1).remove(0);
    let mut pool = pool();
    let client = pool.client_connected(now);
    let mut open = BTreeSet::new();
    for round in 0..60 {
        let limits = Limits { server_connections: 1 + round * 7 % 5, ..Limits::default() };
        let per_shard = limits.server_connections;
        pool.reconfigure(Settings::default(), limits, topology(), counters.clone(), now);
        pool.preconnect();
        settle(&mut pool, client, &mut open, now);
        assert_eq!((open.len(), pool.connection_count()), (per_shard, per_shard), "after {round} reloads");
    }
}

/// Neither those that were made nor those that nobody needed, in whatever lane.
#[test]
fn a_shard_that_has_left_takes_its_connections_along() {
    let now = Time::from_micros(1);
    let counters = Counters::of_workers(1, 2).remove(0);
    let one = counters.with_shards(&[Some(0)]).remove(0);
    let settings = Settings { databases: 16, ..Settings::default() };
    for asks in [false, true] {
        let mut pool = pool();
        let client = pool.client_connected(now);
        pool.reconfigure(settings.clone(), Limits::default(), topology_of(2), counters.clone(), now);
        say(&mut pool, client, "SELECT 1\r\n", now);
        assert_eq!((heard(&mut pool, client).as_str(), pool.connection_count()), ("+OK\r\n", 4));
        let topology = topology_of(2);
        let key =
            (0..).map(|number| number.to_string()).find(|key| topology.shard_for(key.as_bytes()) == Some(1));
        let mut connects = Vec::new();
        if asks {
            say(&mut pool, client, &format!("GET {}\r\n", key.expect("a key of the second")), now);
            connects = wanted(&mut pool);
            pool.shard_connected(connects[0], None, now);
            // What is said first, and the request.
            sent(&mut pool, connects[0]);
            answer(&mut pool, connects[0], "+OK\r\n", now);
            sent(&mut pool, connects[0]);
        }
        pool.reconfigure(settings.clone(), Limits::default(), topology_of(1), one.clone(), now);
        if let Some(&connection) = connects.first() {
            assert_eq!(pool.connection_count(), 4, "it has something in flight");
            answer(&mut pool, connection, "+a\r\n", now);
            assert_eq!(heard(&mut pool, client), "+a\r\n");
            assert_eq!(wishes(&mut pool), [Wish::Close(connection, ShardFailure::Removed)]);
            pool.shard_closed(connection, &ShardFailure::Removed, now);
            pool.shard_closed(connection, &ShardFailure::Reset, now);
        }
        assert_eq!(pool.connection_count(), 2, "one in each lane");
        pool.reconfigure(settings.clone(), Limits::default(), topology_of(2), counters.clone(), now);
        assert_eq!(pool.connection_count(), 4);
    }
}

/// A connection that is not there any more may have had its place taken by another.
#[test]
fn what_comes_late_for_a_connection_that_has_ended_meets_nobody() {
    let now = Time::from_micros(1);
    let counters = Counters::of_workers(1, 1).remove(0);
    let mut pool = pool();
    pool.preconnect();
    let former = wanted(&mut pool).pop().expect("a connection is wanted");
    pool.shard_closed(former, &ShardFailure::ConnectRefused, now);
    let limits = Limits { server_connections: 2, ..Limits::default() };
    pool.reconfigure(Settings::default(), limits, topology(), counters.clone(), now);
    pool.preconnect();
    let connects = wanted(&mut pool);
    let in_place = connects.iter().find(|id| id.index == former.index);
    let present = *in_place.expect("one of the new connections has the place");
    assert!(present != former && pool.shard_of(former).is_none());
    pool.shard_connected(former, None, now);
    assert_eq!(counters.shards()[0].server_connections.get(), 0);
    pool.shard_connected(present, None, now);
    // The first of two uses the other connection.
    let [_, client] = [(); 2].map(|()| pool.client_connected(now));
    say(&mut pool, client, "GET a\r\n", now);
    assert!(pool.shard_output(former).is_none());
    sent(&mut pool, present);
    let mut scratch = BytesMut::new();
    pool.before_shard_read(former, &mut scratch);
    scratch.extend_from_slice(b"+late\r\n");
    pool.shard_received(former, &mut scratch, now).expect("nobody is told");
    pool.shard_closed(former, &ShardFailure::Reset, now);
    assert_eq!(heard(&mut pool, client), "");
    answer(&mut pool, present, "+a\r\n", now);
    assert_eq!(heard(&mut pool, client), "+a\r\n");
}
