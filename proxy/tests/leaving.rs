//! A shard that has left the pool: what is in flight is finished, then nothing of it is left open.

mod world;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use memstore_proxy::pool::{ClientId, ConnectionId, Limits};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use memstore_proxy::secret::Secret;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};
use world::{Event, World};

const TIMEOUT: Duration = Duration::from_millis(400);

fn topology(name: &str) -> Arc<Topology> {
    let shard = Shard::new(Address::Tcp { host: name.into(), port: 1 }, 1, Some(name.into()));
    Arc::new(Topology::new(vec![shard], DistributionKind::Ketama, KeyHash::Fnv1a64, None).expect("one shard"))
}

fn settings(password: Option<&str>) -> Settings {
    Settings { password: password.map(|password| Secret::new(password.into())), ..Settings::default() }
}

fn limits() -> Limits {
    Limits { timeout: Some(TIMEOUT), ..Limits::default() }
}

/// What the shard says before and after the timeout of the request, once it has read what was sent until then.
struct End {
    password: Option<&'static str>,
    client: &'static str,
    before: Vec<&'static str>,
    after: Vec<&'static str>,
}

#[test]
fn nothing_of_a_shard_that_has_left_stays_open() {
    let (auth, value) = ("AUTH secret\r\nGET k\r\n", "$1\r\nv\r\n");
    for End { password, client, before, after } in [
        End { password: None, client: "GET k\r\n", before: vec![value], after: vec![] },
        End { password: None, client: "GET k\r\n", before: vec![], after: vec![value] },
        End { password: Some("secret"), client: auth, before: vec!["+OK\r\n", value], after: vec![] },
        // The only request has timed out by the time that it may flow: it is never written.
        End { password: Some("secret"), client: auth, before: vec![], after: vec!["+OK\r\n"] },
    ] {
        let mut world = World::<Resp>::new(settings(password), limits(), topology("old"), 1);
        let id = world.pool.client_connected(world.now);
        world.eager.insert(id, Vec::new());
        world.client_sends(id, client.as_bytes());
        world.settle();
        let index = world.wanted_connects();
        world.reconfigure(settings(password), limits(), topology("new"), &[None]);
        world.settle();
        assert!(world.up.contains(&index), "something is in flight");
        let says = |world: &mut World<Resp>, responses: &[&str]| {
            for response in responses {
                world.shard_takes(index, |length| length);
                world.shard_sends(index, response.as_bytes()).expect("a good response");
                world.settle();
                world.shard_takes(index, |length| length);
            }
        };
        says(&mut world, &before);
        world.pass_time(TIMEOUT + Duration::from_millis(1));
        says(&mut world, &after);
        assert!(!world.up.contains(&index), "still open after {before:?} and {after:?}");
    }
}

#[test]
fn nothing_stays_open_where_the_last_that_was_in_flight_is_dropped() {
    let value = "v".repeat(64 * 1024);
    let limits = || Limits { memory_max: 48 * 1024, ..Limits::default() };
    let mut world = World::<Resp>::new(settings(Some("secret")), limits(), topology("old"), 1);
    let id = world.pool.client_connected(world.now);
    world.eager.insert(id, Vec::new());
    world.client_sends(id, b"AUTH secret\r\nGET k\r\n");
    world.settle();
    let index = world.wanted_connects();
    world.shard_takes(index, |length| length);
    world.reconfigure(settings(Some("secret")), limits(), topology("new"), &[None]);
    world.settle();
    assert!(world.up.contains(&index), "something is in flight");
    // Nobody waits for it any more, and memory is needed.
    world.pool.client_gone(id, false, world.now);
    let other = world.pool.client_connected(world.now);
    world.client_sends(
        other,
        format!("AUTH secret\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}", value.len()).as_bytes(),
    );
    world.settle();
    if world.up.contains(&index) {
        world.shard_sends(index, b"+OK\r\n").expect("a good response");
        world.settle();
    }
    assert!(!world.up.contains(&index), "still open");
}

#[test]
fn a_shard_that_returns_before_it_was_gone_is_counted_as_it_is() {
    let mut world = World::<Resp>::new(settings(None), limits(), topology("shard"), 1);
    let id = world.pool.client_connected(world.now);
    world.eager.insert(id, Vec::new());
    world.client_sends(id, b"GET k\r\n");
    world.settle();
    let index = world.wanted_connects();
    world.shard_takes(index, |length| length);
    world.reconfigure(settings(None), limits(), topology("other"), &[None]);
    world.settle();
    world.reconfigure(settings(None), limits(), topology("shard"), &[None]);
    world.settle();
    let counted = |world: &World<Resp>| {
        let counters = &world.counters.shards()[0];
        [counters.server_connections.get(), counters.out_queue.get(), counters.out_queue_bytes.get()]
    };
    assert!(world.up.contains(&index), "its connection stays");
    assert_eq!(counted(&world), [1, 1, 20]);
    world.shard_sends(index, b"$1\r\nv\r\n").expect("a good response");
    world.settle();
    assert_eq!(world.eager[&id], b"$1\r\nv\r\n");
    assert_eq!(counted(&world), [1, 0, 0]);
    world.shard_closes(index, &memstore_proxy::failure::ShardFailure::Closed);
    assert_eq!(counted(&world), [0, 0, 0]);
}

/// Where a shard was found elsewhere its name is that of the one that serves now: what becomes of requests to the former
/// place says nothing about it.
#[test]
fn what_is_left_at_a_shards_former_place_counts_against_nobody() {
    let at = |host: &str| {
        let shard = Shard::new(Address::Tcp { host: host.into(), port: 1 }, 1, Some("shard".into()));
        Topology::new(vec![shard], DistributionKind::Ketama, KeyHash::Fnv1a64, None).expect("one shard")
    };
    for is_renewed in [false, true] {
        let mut world = World::<Resp>::new(settings(None), limits(), Arc::new(at("hangs")), 1);
        let id = world.pool.client_connected(world.now);
        world.eager.insert(id, Vec::new());
        world.client_sends(id, b"GET k\r\n");
        world.settle();
        let index = world.wanted_connects();
        world.shard_takes(index, |length| length);
        if is_renewed {
            world.pool.renew("shard", world.now);
        } else {
            world.reconfigure(settings(None), limits(), Arc::new(at("serves")), &[Some(0)]);
        }
        let mut events = world.settle();
        events.extend(world.pass_time(4 * TIMEOUT));
        let words = String::from_utf8_lossy(&world.eager[&id]).into_owned();
        assert_eq!(words, "-ERR shard shard: timed out\r\n");
        let of_shard: Vec<&Event> = events.iter().filter(|event| matches!(event, Event::Shard(_))).collect();
        assert!(of_shard.is_empty(), "{of_shard:?}");
        assert_eq!(world.counters.shards()[0].failing.get(), 0);
        assert!(!world.up.contains(&index), "it is given up");
    }
}

fn set(size: usize) -> String {
    format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${size}\r\n{}\r\n", "x".repeat(size))
}

/// A client has gone whose large request is half written to a shard that hangs; the first of the two others waits behind it.
fn half_written() -> (World<Resp>, ConnectionId, [ClientId; 2]) {
    let limits = Limits {
        memory_max: 1 << 20,
        shard_queue_bytes_max: 4 << 20,
        request_bytes_max: 4 << 20,
        large_value_min: usize::MAX,
        ..Limits::default()
    };
    let mut world = World::<Resp>::new(settings(None), limits, topology("hangs"), 1);
    let [gone, behind, other] = [(); 3].map(|()| world.pool.client_connected(world.now));
    world.eager.extend([behind, other].map(|id| (id, Vec::new())));
    world.client_sends(gone, set(800_000).as_bytes());
    world.settle();
    let index = world.wanted_connects();
    assert_eq!(world.shard_takes(index, |_| 100_000).len(), 100_000);
    world.client_sends(behind, b"GET behind\r\n");
    world.settle();
    world.pool.client_gone(gone, false, world.now);
    (world, index, [behind, other])
}

fn is_served_by_the_next_connection(world: &mut World<Resp>, index: ConnectionId, behind: ClientId) {
    assert_eq!(world.wanted, [index], "the next connection");
    world.shard_connects(index);
    world.settle();
    assert_eq!(world.shard_takes(index, |length| length), b"*2\r\n$3\r\nGET\r\n$6\r\nbehind\r\n");
    world.shard_sends(index, b"$1\r\nv\r\n").expect("a good response");
    world.settle();
    assert_eq!(world.eager[&behind], b"$1\r\nv\r\n");
}

/// A client has sent half of a large request to a shard that hangs, and has gone. Memory is needed: what is left of the
/// request goes with its connection, and not who asks other shards, nor who waits behind it.
#[test]
fn what_a_client_leaves_half_written_costs_nobody_else() {
    let (mut world, index, [behind, other]) = half_written();
    // The rest of it does not come.
    world.client_sends(other, &set(500_000).as_bytes()[..400_000]);
    let events = world.settle();
    assert!(!events.iter().any(|event| matches!(event, Event::ClientLeft(..))), "{events:?}");
    assert_eq!(world.counters.client_evicted.get(), 0);
    is_served_by_the_next_connection(&mut world, index, behind);
}

/// Between the decision that a connection is given up and its end the worker writes: what waits behind is not begun on it.
#[test]
fn nothing_is_begun_on_a_connection_that_is_given_up() {
    let (mut world, index, [behind, other]) = half_written();
    world.client_sends(other, &set(500_000).as_bytes()[..400_000]);
    world.judge(other);
    world.pool.resume(&mut BytesMut::new(), world.now);
    // The shard reads again at this moment.
    world.shard_takes(index, |length| length);
    world.settle();
    assert_eq!(world.eager[&behind], b"", "its request is not lost");
    is_served_by_the_next_connection(&mut world, index, behind);
}
