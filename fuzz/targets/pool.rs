//! The core under any order of events, with any bytes from clients and shards: it never panics and comes to rest.

use std::sync::Arc;
use std::time::Duration;

use memstore_proxy::failure::ShardFailure;
use memstore_proxy::pool::{ClientId, Limits, Parting};
use memstore_proxy::protocol::Protocol;
use memstore_proxy::protocol::memcache::Memcache;
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::time::Time;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};
use world::{Event, World};

#[path = "../../proxy/tests/world/mod.rs"]
mod world;

fn world<P: Protocol<Settings: Default>>() -> World<P> {
    let shards = (0..3)
        .map(|number| Shard::new(Address::Tcp { host: "h".into(), port: 1 }, 1, Some(number.to_string())))
        .collect();
    let topology =
        Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, None).expect("three shards");
    let limits = Limits {
        timeout: Some(Duration::from_millis(50)),
        queue_wait: Duration::from_millis(20),
        in_flight_max: 8,
        request_bytes_max: 1 << 16,
        client_output_max: 1 << 16,
        client_output_pause: 4 << 20,
        arguments_max: 1 << 20,
        large_value_min: 1 << 8,
        shard_queue_max: 6,
        shard_queue_bytes_max: 1 << 12,
        parked_bytes_max: 1 << 12,
        memory_max: 1 << 17,
        pass_work_max: 16,
        hot_keys_sample: 2,
        eager_connects: 1,
        slow_min: 0,
        access_errors: true,
        access_sample: 3,
        trace_sample: 2,
        ..Limits::default()
    };
    World::new(P::Settings::default(), limits, Arc::new(topology), 1)
}

fn run<P: Protocol<Settings: Default>>(input: &[u8]) {
    let mut world = world::<P>();
    let mut clients: Vec<ClientId> = Vec::new();
    let mut rest = input;
    while let [kind, which, length, tail @ ..] = rest {
        let length = usize::from(*length).min(tail.len());
        let (bytes, after) = tail.split_at(length);
        rest = after;
        let which = usize::from(*which);
        let client = (!clients.is_empty()).then(|| clients[which % clients.len()]);
        let shard = world.up.iter().nth(which % world.up.len().max(1)).copied();
        match (kind % 12, client, shard) {
            (0, ..) if clients.len() < 4 => clients.push(world.pool.client_connected(world.now)),
            (1..=4, Some(id), _) if world.pool.wants_read(id) => world.client_sends(id, bytes),
            (5, Some(id), _) => {
                world.client_takes(id, |length| which.min(length));
                world.pool.part_with(id, Parting::Drained, world.now);
            }
            (6, ..) => {
                for index in std::mem::take(&mut world.wanted) {
                    if which % 3 == 0 {
                        world.shard_closes(index, &ShardFailure::ConnectRefused);
                    } else {
                        world.shard_connects(index);
                    }
                }
            }
            (7, _, Some(index)) => {
                world.shard_takes(index, |length| which.min(length));
            }
            (8 | 9, _, Some(index)) => {
                // One that is of no use any more is closed.
                let _ = world.shard_sends(index, bytes);
            }
            (10, _, Some(index)) => {
                world.shard_closes(index, &ShardFailure::Closed);
            }
            _ => {
                world.now = Time::from_micros(world.now.micros() + 400 * which as u64);
                world.pool.tick(world.now);
            }
        }
        for event in world.settle() {
            if let Event::ClientLeft(id, _) = event {
                clients.retain(|known| *known != id);
            }
        }
    }
}

/// One input.
pub fn run_input(input: &[u8]) {
    run::<Resp>(input);
    run::<Memcache>(input);
}
