//! Clients that wait and go again and again: how many connections that costs a shard.

use std::time::Duration;

use memstore_proxy::pool::Limits;
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;

use crate::topology;
use crate::world::World;

/// Clients that come, wait and go, in a loop and many at once: connections made to the shard in that time.
fn connections_made(rounds: u32, clients: u32, pause: Duration) -> (u64, u64) {
    let limits = Limits { blocked_max: 50, ..Limits::default() };
    let settings = Settings { databases: 16, ..Settings::default() };
    let mut world = World::<Resp>::new(settings, limits, topology(), 1);
    let mut made = 0;
    for _ in 0..rounds {
        let waiting: Vec<_> = (0..clients)
            .map(|_| {
                let id = world.pool.client_connected(world.now);
                world.client_sends(id, b"BLPOP k 0\r\n");
                id
            })
            .collect();
        world.settle();
        for id in std::mem::take(&mut world.wanted) {
            made += u64::from(world.pool.is_private(id));
            world.shard_connects(id);
            world.settle();
            world.shard_takes(id, |length| length);
            if world.pool.is_private(id) {
                world.shard_sends(id, b":77\r\n").expect("a number");
            }
        }
        world.settle();
        for id in world.up.clone() {
            world.shard_takes(id, |length| length);
        }
        waiting.into_iter().for_each(|id| world.pool.client_gone(id, true, world.now));
        world.pass_time(pause);
    }
    (made, world.counters.blocked_delayed.get())
}

/// Each of them takes its connection along as it goes.
#[test]
fn clients_that_come_and_go_do_not_flood_a_shard_with_connections() {
    // 10 seconds.
    for (rounds, clients) in [(1000, 1), (1000, 40)] {
        let (made, delayed) = connections_made(rounds, clients, Duration::from_millis(10));
        assert!((95..=110).contains(&made) && delayed > 0, "{made} made, {delayed} delayed, of {clients}");
    }
    // Those that come now and then do not wait.
    assert_eq!(connections_made(100, 4, Duration::from_secs(1)), (400, 0));
}

/// One that is not made yet is for whoever comes next, whatever that speaks: where it was closed instead, and one more put off each time,
/// nobody had one any more.
#[test]
fn clients_of_two_databases_that_come_and_go_do_not_keep_others_out() {
    let limits = Limits { blocked_max: 1, ..Limits::default() };
    let settings = Settings { databases: 16, ..Settings::default() };
    let mut world = World::<Resp>::new(settings, limits, topology(), 1);
    let mut made = 0;
    // 10 seconds.
    for round in 0..1000 {
        let id = world.pool.client_connected(world.now);
        let words = [&b"BLPOP k 0\r\n"[..], b"SELECT 1\r\nBLPOP k 0\r\n"][round % 2];
        world.client_sends(id, words);
        world.settle();
        for id in std::mem::take(&mut world.wanted) {
            made += u64::from(world.pool.is_private(id));
            world.shard_connects(id);
            world.settle();
            let greeting = world.shard_takes(id, |length| length);
            if greeting.windows(6).any(|word| word == b"SELECT") {
                world.shard_sends(id, b"+OK\r\n").expect("it is selected");
            }
            if world.pool.is_private(id) {
                world.shard_sends(id, b":77\r\n").expect("a number");
            }
        }
        world.settle();
        for id in world.up.clone() {
            world.shard_takes(id, |length| length);
        }
        world.pool.client_gone(id, true, world.now);
        world.pass_time(Duration::from_millis(10));
    }
    let delayed = world.counters.blocked_delayed.get();
    assert!((55..=70).contains(&made) && delayed < 70, "{made} made, {delayed} delayed");
    let known = world.pool.connection_count();
    assert!(known < 10, "{known} connections in the book");
}
