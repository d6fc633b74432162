//! Clients that wait in a loop.

use std::collections::BTreeMap;

use memstore_proxy::pool::{ConnectionId, Limits};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;

use crate::world::World;
use crate::world::words::request;
use crate::{Connection, LISTS, topology};

/// What a client asks of shards that waits in a loop, and goes in between.
#[test]
fn clients_that_wait_again_and_again_leave_nothing_and_ask_little() {
    let settings = Settings { databases: 16, ..Settings::default() };
    let mut world = World::<Resp>::new(settings, Limits::default(), topology(), 1);
    let mut connections: BTreeMap<ConnectionId, Connection> = BTreeMap::new();
    let mut asked: BTreeMap<String, u64> = BTreeMap::new();
    let rounds: u64 = std::env::var("ROUNDS").map_or(10_000, |text| text.parse().expect("a number"));
    let mut held = 0;
    for round in 0..rounds {
        let id = world.pool.client_connected(world.now);
        world.client_sends(id, b"BLPOP 0list 1list 2list 3list 4list 5list 6list 0\r\n");
        for _ in 0..16 {
            world.settle();
            for id in std::mem::take(&mut world.wanted) {
                connections.insert(id, Connection::default());
                world.shard_connects(id);
            }
            let mut is_quiet = true;
            for (&id, connection) in &mut connections {
                connection.inbox.extend(world.shard_takes(id, |length| length));
                while let Some((words, length)) = request(&connection.inbox) {
                    is_quiet = false;
                    connection.inbox.drain(..length);
                    *asked.entry(words[0].clone()).or_default() += 1;
                    connection.say(match words[0].as_str() {
                        "HELLO" => "%1\r\n$5\r\nproto\r\n:3\r\n",
                        "EXISTS" => ":0\r\n",
                        "LPOP" => "$-1\r\n",
                        _ => "+OK\r\n",
                    });
                }
                let bytes = std::mem::take(&mut connection.outbox);
                if !bytes.is_empty() {
                    world.shard_sends(id, &bytes).expect("shards are honest");
                }
            }
            if is_quiet {
                break;
            }
        }
        world.pool.client_gone(id, true, world.now);
        world.settle();
        if round == 100 {
            held = world.pool.connection_count();
        }
    }
    println!("{asked:?}");
    assert_eq!(world.pool.connection_count(), held, "connections in the book");
    // Each key is looked at once, and tried once for each wait.
    assert_eq!(asked["EXISTS"], LISTS);
    assert_eq!(asked["LPOP"], rounds * LISTS);
}
