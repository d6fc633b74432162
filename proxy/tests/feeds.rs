//! What one shard that is listened to can ask of the proxy, and the proxy of it, where there are many listeners or many names.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use memstore_proxy::failure::ShardFailure;
use memstore_proxy::pool::{ClientId, ConnectionId, Limits};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};
use world::World;

mod world;

/// As many names as are asked of a shard at once.
const ASKED_MAX: usize = 512;
/// As much as is handed out in a pass, and a message more.
const HANDED_MAX: usize = (512 << 10) + 100_000;

fn world(limits: Limits) -> World<Resp> {
    let address = Address::Tcp { host: "h".into(), port: 1 };
    let shards = vec![Shard::new(address, 1, Some("shard-0".into()))];
    let topology =
        Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, None).expect("a topology");
    World::new(Settings { databases: 16, ..Settings::default() }, limits, Arc::new(topology), 1)
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn subscribe(world: &mut World<Resp>, client: ClientId, names: impl Iterator<Item = String>) {
    let names: String = names.map(|name| bulk(&name)).collect();
    let request = format!("*{}\r\n{}{names}", names.matches('$').count() + 1, bulk("SUBSCRIBE"));
    world.client_sends(client, request.as_bytes());
    world.settle();
}

/// The names that the shard has been asked for by now.
fn asked(world: &mut World<Resp>, feed: ConnectionId) -> VecDeque<String> {
    let bytes = String::from_utf8(world.shard_takes(feed, |length| length)).expect("text");
    let requests = bytes.split("SUBSCRIBE\r\n").skip(1);
    requests.map(|rest| rest.split("\r\n").nth(1).expect("a name").to_owned()).collect()
}

fn acknowledge(world: &mut World<Resp>, feed: ConnectionId, name: &str) {
    let said = format!("*3\r\n{}{}:1\r\n", bulk("subscribe"), bulk(name));
    world.shard_sends(feed, said.as_bytes()).expect("it was asked");
    world.settle();
}

#[test]
fn a_shard_that_answers_slowly_is_asked_for_some_names_at_a_time() {
    const NAMES: usize = 3_000;
    let mut world = world(Limits { timeout: Some(Duration::from_secs(1)), ..Limits::default() });
    let client = world.pool.client_connected(world.now);
    world.eager.insert(client, Vec::new());
    for some in 0..NAMES / 100 {
        subscribe(&mut world, client, (0..100).map(|name| format!("{}", some * 100 + name)));
    }
    for round in 0..2 {
        // Each answer takes a millisecond: all of them together take three times as long as one may.
        let feed = world.wanted_connects();
        let (mut waiting, mut answered) = (VecDeque::new(), 0);
        loop {
            waiting.extend(asked(&mut world, feed));
            assert!(waiting.len() <= ASKED_MAX, "{} at once", waiting.len());
            let Some(name) = waiting.pop_front() else { break };
            let events = world.pass_time(Duration::from_millis(1));
            assert!(events.is_empty(), "{events:?} after {answered} answers");
            acknowledge(&mut world, feed, &name);
            answered += 1;
        }
        assert_eq!(answered, NAMES);
        let told = world.eager[&client].windows(9).filter(|bytes| bytes == b"subscribe").count();
        assert_eq!(told, NAMES, "each is acknowledged once");
        if round == 0 {
            world.shard_closes(feed, &ShardFailure::Closed);
            world.settle();
            world.pass_time(Duration::from_millis(100));
        }
    }
}

#[test]
fn one_message_for_many_is_handed_out_in_parts() {
    const LISTENERS: usize = 3_000;
    let mut world = world(Limits::default());
    let clients: Vec<_> = (0..LISTENERS).map(|_| world.pool.client_connected(world.now)).collect();
    for &client in &clients {
        subscribe(&mut world, client, std::iter::once("c".to_owned()));
    }
    let feed = world.wanted_connects();
    // The channel, and names that count its listeners.
    for name in asked(&mut world, feed) {
        acknowledge(&mut world, feed, &name);
    }
    for &client in &clients {
        world.client_takes(client, |length| length);
    }
    let message = |text: &str| format!("*3\r\n{}{}{}", bulk("message"), bulk("c"), bulk(text));
    let large = "x".repeat(15_000);
    world.shard_sends(feed, (message(&large) + &message("next")).as_bytes()).expect("it is subscribed to");
    // Those that listen from now on may hear it still, but nobody hears it twice.
    let late = world.pool.client_connected(world.now);
    world.client_sends(late, format!("*2\r\n{}{}", bulk("SUBSCRIBE"), bulk("c")).as_bytes());
    let mut heard = vec![Vec::new(); LISTENERS];
    let mut passes = 0;
    while world.pool.has_work() || passes == 0 {
        let mut handed = 0;
        for (client, heard) in clients.iter().zip(&mut heard) {
            let taken = world.client_takes(*client, |length| length);
            handed += taken.len();
            heard.extend(taken);
        }
        assert!(handed <= HANDED_MAX, "{handed} bytes in a pass");
        world.pass(&mut Vec::new());
        passes += 1;
    }
    assert!(passes >= LISTENERS * 15_000 / HANDED_MAX, "{passes} passes");
    let whole = (message(&large) + &message("next")).into_bytes();
    for (client, mut heard) in clients.into_iter().zip(heard) {
        heard.extend(world.client_takes(client, |length| length));
        assert!(heard == whole, "each hears both messages, once and in order");
    }
}

/// Messages because of one name that come one behind the other are handed out together; those of other names end that.
#[test]
fn messages_come_in_their_order_and_as_the_client_speaks() {
    const CLIENTS: usize = 600;
    let mut world = world(Limits { subscriber_output_max: 1 << 30, ..Limits::default() });
    let clients: Vec<_> = (0..CLIENTS).map(|_| world.pool.client_connected(world.now)).collect();
    for (number, &client) in clients.iter().enumerate() {
        if number % 2 == 0 {
            world.client_sends(client, b"HELLO 3\r\n");
            world.settle();
        }
        // Every third hears the one channel only.
        let names = if number % 3 == 0 { vec!["a"] } else { vec!["a", "b"] };
        subscribe(&mut world, client, names.into_iter().map(str::to_owned));
    }
    let feed = world.wanted_connects();
    loop {
        let names = asked(&mut world, feed);
        if names.is_empty() {
            break;
        }
        names.iter().for_each(|name| acknowledge(&mut world, feed, name));
    }
    clients.iter().for_each(|&client| drop(world.client_takes(client, |length| length)));
    // Runs of one, of some, of more than is copied, and a message that is large by itself.
    let mut said = Vec::new();
    for (name, count, size) in
        [("a", 1, 10), ("b", 3, 10), ("a", 400, 100), ("b", 1, 40_000), ("a", 2, 9_000), ("b", 5, 0)]
    {
        for number in 0..count {
            said.push((name, format!("{number}{}", "x".repeat(size))));
        }
    }
    let message = |kind: &str, (name, text): &(&str, String)| {
        format!("{kind}3\r\n{}{}{}", bulk("message"), bulk(name), bulk(text))
    };
    let all: String = said.iter().map(|one| message("*", one)).collect();
    let mut heard = vec![Vec::new(); CLIENTS];
    for part in all.as_bytes().chunks(20_011) {
        world.shard_sends(feed, part).expect("it is subscribed to");
        loop {
            for (client, heard) in clients.iter().zip(&mut heard) {
                heard.extend(world.client_takes(*client, |length| length));
            }
            if !world.pool.has_work() {
                break;
            }
            world.pass(&mut Vec::new());
        }
    }
    for (number, (client, mut heard)) in clients.into_iter().zip(heard).enumerate() {
        heard.extend(world.client_takes(client, |length| length));
        let kind = if number % 2 == 0 { ">" } else { "*" };
        let hears = |name: &str| name == "a" || number % 3 != 0;
        let whole: String =
            said.iter().filter(|(name, _)| hears(name)).map(|one| message(kind, one)).collect();
        assert!(heard == whole.into_bytes(), "client {number}");
    }
}

#[test]
fn a_feed_is_not_given_up_where_memory_is_short() {
    let mut world = world(Limits { memory_max: 1_000_000, ..Limits::default() });
    let listener = world.pool.client_connected(world.now);
    world.eager.insert(listener, Vec::new());
    for some in 0..8 {
        subscribe(&mut world, listener, (0..100).map(|name| format!("{}", some * 100 + name)));
    }
    let feed = world.wanted_connects();
    loop {
        let names = asked(&mut world, feed);
        if names.is_empty() {
            break;
        }
        names.iter().for_each(|name| acknowledge(&mut world, feed, name));
    }
    subscribe(&mut world, listener, std::iter::once("unanswered".to_owned()));
    assert_eq!(asked(&mut world, feed), ["unanswered"]);
    let large = world.pool.client_connected(world.now);
    let value = "v".repeat(700_000);
    for _ in 0..2 {
        let request = format!("*3\r\n{}{}{}", bulk("SET"), bulk("k"), bulk(&value));
        if world.pool.wants_read(large) {
            world.client_sends(large, request.as_bytes());
        }
        world.settle();
    }
    assert_eq!(world.counters.client_evicted.get(), 1, "memory was short");
    assert_eq!(world.counters.message_gaps.get(), 0, "nobody who listens misses anything for that");
}
