//! Databases have shard connections of their own: as many as are in use, and as many as there may be.

use std::sync::Arc;

use memstore_proxy::failure::ShardFailure;
use memstore_proxy::pool::{ClientId, ConnectionId, Limits};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use shard_discovery::Topology;
use world::shards::ring;
use world::{Event, World};

mod world;

fn topology(shards: usize) -> Arc<Topology> {
    Arc::new(ring(1..=shards, None))
}

fn settings(databases: u32) -> Settings {
    Settings { databases, ..Settings::default() }
}

fn world(databases: u32) -> World<Resp> {
    World::new(settings(databases), Limits::default(), topology(1), 1)
}

fn say(world: &mut World<Resp>, client: ClientId, line: &str) {
    world.client_sends(client, line.as_bytes());
    world.judge(client);
}

fn heard(world: &mut World<Resp>, client: ClientId) -> String {
    let bytes = world.client_takes(client, |length| length);
    world.judge(client);
    String::from_utf8(bytes).expect("text")
}

fn sent(world: &mut World<Resp>, connection: ConnectionId) -> String {
    String::from_utf8(world.shard_takes(connection, |length| length)).expect("text")
}

fn answer(world: &mut World<Resp>, connection: ConnectionId, response: &str) {
    world.shard_sends(connection, response.as_bytes()).expect("a good response");
    world.settle();
}

/// The connections that are to be made.
fn wanted(world: &mut World<Resp>) -> Vec<ConnectionId> {
    world.settle();
    std::mem::take(&mut world.wanted)
}

/// Every shard is there, and answers everything with OK.
fn serve(world: &mut World<Resp>) {
    loop {
        wanted(world).into_iter().for_each(|id| world.shard_connects(id));
        let mut is_quiet = true;
        for id in world.up.clone() {
            let requests = sent(world, id).matches('*').count();
            if requests > 0 {
                is_quiet = false;
                answer(world, id, &"+OK\r\n".repeat(requests));
            }
        }
        if is_quiet && world.wanted.is_empty() {
            return;
        }
    }
}

#[test]
fn a_client_that_walks_through_databases_leaves_nothing_behind() {
    for request in ["", "GET a\r\n"] {
        let mut world = world(65536);
        let client = world.pool.client_connected(world.now);
        for db in 0..2000 {
            say(&mut world, client, &format!("SELECT {db}\r\n{request}"));
            serve(&mut world);
            let said = heard(&mut world, client);
            assert!(said.starts_with("+OK\r\n") && !said.contains('-'), "SELECT {db}: {said}");
        }
        assert!(world.pool.connection_count() <= 64, "{}", world.pool.connection_count());
        assert!(world.up.len() <= 64, "{}", world.up.len());
        assert!(world.counters.lanes.get() <= 64, "{}", world.counters.lanes.get());
    }
}

#[test]
fn a_database_that_is_used_again_before_its_connections_are_closed_keeps_them() {
    let mut world = world(65536);
    for db in 1..32 {
        let client = world.pool.client_connected(world.now);
        say(&mut world, client, &format!("SELECT {db}\r\nGET a\r\n"));
        serve(&mut world);
        assert_eq!(heard(&mut world, client), "+OK\r\n+OK\r\n");
        world.pool.client_gone(client, false, world.now);
    }
    let [one, other] = [(); 2].map(|()| world.pool.client_connected(world.now));
    // One more than are kept: those that nobody uses are to be closed.
    say(&mut world, one, "SELECT 100\r\n");
    say(&mut world, other, "SELECT 31\r\nGET a\r\n");
    serve(&mut world);
    assert_eq!(heard(&mut world, other), "+OK\r\n+OK\r\n");
    assert_eq!(world.counters.forward_error.get(), 0);
}

#[test]
fn databases_in_use_at_a_time_are_limited() {
    let mut world = world(65536);
    let mut refused = Vec::new();
    let clients: Vec<ClientId> = (0..300).map(|_| world.pool.client_connected(world.now)).collect();
    for (db, &client) in clients.iter().enumerate() {
        say(&mut world, client, &format!("SELECT {db}\r\n"));
        let said = heard(&mut world, client);
        if said != "+OK\r\n" {
            assert!(said.starts_with("-ERR too many databases are in use"), "{said}");
            refused.push(client);
        }
    }
    let counters = world.counters.clone();
    assert_eq!((refused.len(), counters.lanes.get(), counters.lanes_refused.get()), (44, 256, 44));
    // Such a client is served where it was.
    say(&mut world, refused[0], "CLIENT LIST\r\n");
    world.settle();
    let said = heard(&mut world, refused[0]);
    let line = said.lines().find(|line| line.starts_with("id=257 "));
    assert!(line.is_some_and(|line| line.contains(" db=0 ")), "{said}");
    // It may use one that others use, and one whose clients are gone.
    say(&mut world, refused[0], "SELECT 7\r\n");
    assert_eq!(heard(&mut world, refused[0]), "+OK\r\n");
    world.pool.client_gone(clients[100], false, world.now);
    say(&mut world, refused[1], "SELECT 40000\r\n");
    assert_eq!(heard(&mut world, refused[1]), "+OK\r\n");
}

/// Connections for large values are made as long as there is room for those of all databases that are in use.
#[test]
fn databases_come_before_large_values() {
    let limits = Limits { large_value_min: 1000, ..Limits::default() };
    let mut world: World<Resp> = World::new(settings(65536), limits, topology(1), 1);
    let large = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\n{}\r\n", "v".repeat(1000));
    for db in 1..256 {
        let client = world.pool.client_connected(world.now);
        say(&mut world, client, &format!("SELECT {db}\r\n{large}"));
        assert_eq!(heard(&mut world, client), "+OK\r\n", "SELECT {db}");
    }
    let client = world.pool.client_connected(world.now);
    for db in 1..256 {
        say(&mut world, client, &format!("SELECT {db}\r\n"));
        assert_eq!(heard(&mut world, client), "+OK\r\n", "SELECT {db}");
    }
    assert_eq!(world.counters.lanes_refused.get(), 0);
}

#[test]
fn reloads_leave_no_connections_behind() {
    let mut world = world(16);
    world.pool.client_connected(world.now);
    for round in 0..60 {
        let limits = Limits { server_connections: 1 + round * 7 % 5, ..Limits::default() };
        let per_shard = limits.server_connections;
        world.reconfigure(Settings::default(), limits, topology(1), &[Some(0)]);
        world.pool.preconnect();
        serve(&mut world);
        let there = (world.up.len(), world.pool.connection_count());
        assert_eq!(there, (per_shard, per_shard), "after {round} reloads");
    }
}

/// Neither those that were made nor those that nobody needed, in whatever lane.
#[test]
fn a_shard_that_has_left_takes_its_connections_along() {
    for asks in [false, true] {
        let mut world = world(16);
        let client = world.pool.client_connected(world.now);
        world.reconfigure(settings(16), Limits::default(), topology(2), &[Some(0), None]);
        say(&mut world, client, "SELECT 1\r\n");
        assert_eq!((heard(&mut world, client).as_str(), world.pool.connection_count()), ("+OK\r\n", 4));
        let two = topology(2);
        let key = (0..).map(|number| number.to_string()).find(|key| two.shard_for(key.as_bytes()) == Some(1));
        let mut connects = Vec::new();
        if asks {
            say(&mut world, client, &format!("GET {}\r\n", key.expect("a key of the second")));
            connects = wanted(&mut world);
            world.shard_connects(connects[0]);
            // What is said first, and the request.
            sent(&mut world, connects[0]);
            answer(&mut world, connects[0], "+OK\r\n");
            sent(&mut world, connects[0]);
        }
        world.reconfigure(settings(16), Limits::default(), topology(1), &[Some(0)]);
        if let Some(&connection) = connects.first() {
            assert_eq!(world.pool.connection_count(), 4, "it has something in flight");
            world.shard_sends(connection, b"+a\r\n").expect("a good response");
            assert_eq!(heard(&mut world, client), "+a\r\n");
            let closed = |event: &Event| matches!(event, Event::ConnectionClosed(id, ShardFailure::Removed) if *id == connection);
            assert!(world.settle().iter().any(closed));
            world.shard_closes(connection, &ShardFailure::Reset);
        }
        assert_eq!(world.pool.connection_count(), 2, "one in each lane");
        world.reconfigure(settings(16), Limits::default(), topology(2), &[Some(0), None]);
        assert_eq!(world.pool.connection_count(), 4);
    }
}

/// A connection that is not there any more may have had its place taken by another.
#[test]
fn what_comes_late_for_a_connection_that_has_ended_meets_nobody() {
    let mut world = world(16);
    world.pool.preconnect();
    let former = wanted(&mut world).pop().expect("a connection is wanted");
    world.shard_closes(former, &ShardFailure::ConnectRefused);
    let limits = Limits { server_connections: 2, ..Limits::default() };
    world.reconfigure(Settings::default(), limits, topology(1), &[Some(0)]);
    world.pool.preconnect();
    let connects = wanted(&mut world);
    let in_place = connects.iter().find(|id| id.index == former.index);
    let present = *in_place.expect("one of the new connections has the place");
    assert!(present != former && world.pool.shard_of(former).is_none());
    world.shard_connects(former);
    assert_eq!(world.counters.shards()[0].server_connections.get(), 0);
    world.shard_connects(present);
    // The first of two uses the other connection.
    let [_, client] = [(); 2].map(|()| world.pool.client_connected(world.now));
    say(&mut world, client, "GET a\r\n");
    assert!(world.pool.shard_output(former).is_none());
    sent(&mut world, present);
    world.shard_sends(former, b"+late\r\n").expect("nobody is told");
    world.shard_closes(former, &ShardFailure::Reset);
    assert_eq!(heard(&mut world, client), "");
    world.shard_sends(present, b"+a\r\n").expect("a good response");
    assert_eq!(heard(&mut world, client), "+a\r\n");
}
