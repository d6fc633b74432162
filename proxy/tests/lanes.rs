//! Databases have shard connections of their own: made when needed, given up when unused, and never ahead of replies.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use memstore_proxy::metrics::Counters;
use memstore_proxy::pool::time::Time;
use memstore_proxy::pool::{ClientId, ConnectionIndex, Identity, Limits, Pool};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};

fn pool() -> Pool<Resp> {
    let shards = vec![Shard::new(Address::Tcp { host: "h".into(), port: 1 }, 1, Some("shard".into()))];
    let topology =
        Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, None).expect("one shard");
    let limits = Limits {
        timeout: None,
        queue_wait: Duration::from_secs(1),
        in_flight_max: 1024,
        request_bytes_max: 1 << 20,
        client_output_max: 1 << 20,
        shard_queue_max: 1024,
        shard_queue_bytes_max: 1 << 20,
        memory_max: usize::MAX,
        server_connections: 1,
        eager_connects: 0,
        client_idle_timeout: None,
        client_request_timeout: None,
        client_age_max: None,
    };
    let identity =
        Identity { name: "p".into(), unix_start: 0, client_id_first: 1, client_id_step: 1, seed: 1 };
    let settings = Settings { databases: 16, ..Settings::default() };
    Pool::new(identity, settings, limits, Arc::new(topology), Counters::of_workers(1, 1).remove(0))
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
    let used = output.vectors(&mut vectors);
    let text = vectors[..used].iter().map(|vector| String::from_utf8_lossy(vector).into_owned()).collect();
    output.advance(output.len());
    pool.settle_client(client);
    text
}

fn sent(pool: &mut Pool<Resp>, connection: ConnectionIndex) -> String {
    let output = pool.shard_output(connection).expect("connected");
    let mut vectors = [std::io::IoSlice::new(&[]); 8];
    let used = output.vectors(&mut vectors);
    let text = vectors[..used].iter().map(|vector| String::from_utf8_lossy(vector).into_owned()).collect();
    output.advance(output.len());
    text
}

fn answer(pool: &mut Pool<Resp>, connection: ConnectionIndex, response: &str, now: Time) {
    let mut scratch = BytesMut::new();
    pool.before_shard_read(connection, &mut scratch);
    scratch.extend_from_slice(response.as_bytes());
    pool.shard_received(connection, &mut scratch, now).expect("a good response");
    pool.resume(&mut BytesMut::new(), now);
}

#[test]
fn select_waits_for_earlier_replies_and_its_connection_is_given_up_when_unused() {
    let now = Time::from_micros(1);
    let mut pool = pool();
    let client = pool.client_connected(now);
    say(&mut pool, client, "GET a\r\nSELECT 5\r\nGET a\r\n", now);
    let mut connects = Vec::new();
    pool.take_connects(&mut connects);
    assert_eq!(connects, [0], "only the connection of database 0 is needed yet");
    pool.shard_connected(0, now);
    assert_eq!(sent(&mut pool, 0), "*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
    answer(&mut pool, 0, "$1\r\n0\r\n", now);
    pool.settle_client(client);
    pool.resume(&mut BytesMut::new(), now);
    assert_eq!(heard(&mut pool, client), "$1\r\n0\r\n+OK\r\n");
    connects.clear();
    pool.take_connects(&mut connects);
    assert_eq!(connects, [1]);
    pool.shard_connected(1, now);
    assert_eq!(
        sent(&mut pool, 1),
        "*2\r\n$6\r\nSELECT\r\n$1\r\n5\r\n",
        "requests wait until SELECT is answered"
    );
    answer(&mut pool, 1, "+OK\r\n", now);
    assert_eq!(sent(&mut pool, 1), "*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
    answer(&mut pool, 1, "$1\r\n5\r\n", now);
    assert_eq!(heard(&mut pool, client), "$1\r\n5\r\n");

    let mut closes = Vec::new();
    pool.sweep_connections(now.plus(Duration::from_secs(59)));
    pool.take_closes(&mut closes);
    assert!(closes.is_empty());
    pool.sweep_connections(now.plus(Duration::from_secs(61)));
    pool.take_closes(&mut closes);
    assert_eq!(closes.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1], "that of database 0 stays");
}
