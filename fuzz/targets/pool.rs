//! The core under any order of events, with any bytes from clients and shards: it never panics and comes to rest.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use memstore_proxy::failure::ShardFailure;
use memstore_proxy::metrics::Counters;
use memstore_proxy::pool::{
    self, ClientId, ConnectionId, Identity, Limits, Parting, Pool, Shell, Verdict, Wish,
};
use memstore_proxy::protocol::memcache::Memcache;
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::{Found, Protocol};
use memstore_proxy::time::Time;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};

fn pool<P: Protocol<Settings: Default>>() -> Pool<P> {
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
        eager_connects: 1,
        ..Limits::default()
    };
    let identity =
        Identity { name: "p".into(), unix_start: 0, client_id_first: 1, client_id_step: 1, seed: 1 };
    Pool::new(
        identity,
        P::Settings::default(),
        limits,
        Arc::new(topology),
        Counters::of_workers(1, 3).remove(0),
    )
}

/// The worker at the end of a pass.
struct Worker<'w, P: Protocol> {
    pool: &'w mut Pool<P>,
    clients: &'w mut Vec<ClientId>,
    connecting: &'w mut Vec<ConnectionId>,
    up: &'w mut Vec<ConnectionId>,
    scratch: BytesMut,
}

impl<P: Protocol> Shell<P> for Worker<'_, P> {
    fn pool(&mut self) -> (&mut Pool<P>, &mut BytesMut) {
        (self.pool, &mut self.scratch)
    }

    fn fulfil(&mut self, wish: Wish, now: Time) {
        match wish {
            Wish::Close(index, failure) => {
                if let Some(at) = self.up.iter().position(|known| *known == index) {
                    self.up.remove(at);
                    self.pool.shard_closed(index, &failure, now);
                }
            }
            Wish::Connect(index) => self.connecting.push(index),
            Wish::Ask(asked) => self.pool.answer_question(&asked, &Found::default()),
            Wish::CloseUnlessDelivered(_) | Wish::Finish(_) | Wish::Wake(_) | Wish::Log(_) => {}
        }
    }

    fn write_shards(&mut self, _: Time) {
        self.pool.take_dirty_shards(&mut Vec::new());
    }

    fn write_clients(&mut self, now: Time) {
        let mut dirty = Vec::new();
        self.pool.take_dirty_clients(&mut dirty);
        for id in dirty {
            if matches!(self.pool.settle_client(id), Verdict::Finish | Verdict::Close) {
                self.clients.retain(|known| *known != id);
                self.pool.client_gone(id, false, now);
            }
        }
    }
}

/// Does what the worker does after a pass.
fn settle<P: Protocol>(
    pool: &mut Pool<P>,
    clients: &mut Vec<ClientId>,
    connecting: &mut Vec<ConnectionId>,
    up: &mut Vec<ConnectionId>,
    now: Time,
) {
    for _ in 0..10_000 {
        pool::settle(&mut Worker { pool, clients, connecting, up, scratch: BytesMut::new() }, now);
        pool.take_events();
        if !pool.has_work() {
            return;
        }
    }
    panic!("the pool never comes to rest");
}

fn run<P: Protocol<Settings: Default>>(input: &[u8]) {
    let (mut pool, mut now) = (pool::<P>(), Time::from_micros(1));
    let (mut clients, mut connecting, mut up) = (Vec::new(), Vec::new(), Vec::new());
    let mut scratch = BytesMut::new();
    let mut rest = input;
    while let [kind, which, length, tail @ ..] = rest {
        let length = usize::from(*length).min(tail.len());
        let (bytes, after) = tail.split_at(length);
        rest = after;
        let which = usize::from(*which);
        let client = (!clients.is_empty()).then(|| clients[which % clients.len()]);
        let shard = (!up.is_empty()).then(|| up[which % up.len()]);
        match (kind % 12, client, shard) {
            (0, ..) if clients.len() < 4 => clients.push(pool.client_connected(now)),
            (1..=4, Some(id), _) if pool.wants_read(id) => {
                pool.before_client_read(id, &mut scratch);
                scratch.extend_from_slice(bytes);
                pool.client_received(id, &mut scratch, now);
                assert!(scratch.is_empty());
            }
            (5, Some(id), _) => {
                if let Some(output) = pool.client_output(id) {
                    output.advance(which.min(output.len()));
                }
                pool.part_with(id, Parting::Drained, now);
            }
            (6, ..) => {
                for index in std::mem::take(&mut connecting) {
                    if which % 3 == 0 {
                        pool.shard_closed(index, &ShardFailure::ConnectRefused, now);
                    } else {
                        pool.shard_connected(index, None, now);
                        up.push(index);
                    }
                }
            }
            (7, _, Some(index)) => {
                if let Some(output) = pool.shard_output(index) {
                    output.advance(which.min(output.len()));
                }
                pool.settle_shard(index);
            }
            (8 | 9, _, Some(index)) => {
                pool.before_shard_read(index, &mut scratch);
                scratch.extend_from_slice(bytes);
                if let Err(failure) = pool.shard_received(index, &mut scratch, now) {
                    up.retain(|known| *known != index);
                    pool.shard_closed(index, &failure, now);
                }
                assert!(scratch.is_empty());
            }
            (10, _, Some(index)) => {
                up.retain(|known| *known != index);
                pool.shard_closed(index, &ShardFailure::Closed, now);
            }
            _ => {
                now = Time::from_micros(now.micros() + 400 * which as u64);
                pool.tick(now);
            }
        }
        settle(&mut pool, &mut clients, &mut connecting, &mut up, now);
    }
}

/// One input.
pub fn run_input(input: &[u8]) {
    run::<Resp>(input);
    run::<Memcache>(input);
}
