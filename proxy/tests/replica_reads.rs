//! READONLY is said where a replica is only read from, and nowhere else: a primary that has become a replica would run what
//! it is sent there, instead of naming the new primary.

use std::sync::Arc;

use bytes::BytesMut;
use memstore_proxy::metrics::Counters;
use memstore_proxy::pool::time::Time;
use memstore_proxy::pool::{ClientId, ConnectionIndex, Identity, Limits, Pool};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use shard_discovery::{Address, Shard, Topology};

/// Two nodes, of which one owns all slots and the other answers its reads.
fn topology(primary: usize) -> Arc<Topology> {
    let node = |number: u16| {
        let address = Address::Tcp { host: "node".into(), port: number };
        Shard::new(address, 1, Some(format!("node-{number}")))
    };
    let mut readers = vec![Vec::new(), Vec::new()];
    readers[primary] = vec![1 - primary];
    let owners = [Some(primary); 16_384];
    Arc::new(Topology::of_cluster(vec![node(0), node(1)], &owners, readers).expect("a cluster"))
}

fn say(pool: &mut Pool<Resp>, client: ClientId, line: &str, now: Time) {
    let mut scratch = BytesMut::new();
    pool.before_client_read(client, &mut scratch);
    scratch.extend_from_slice(line.as_bytes());
    pool.client_received(client, &mut scratch, now);
    pool.settle_client(client);
}

/// The names of the commands that are sent next.
fn sent(pool: &mut Pool<Resp>, connection: ConnectionIndex) -> Vec<String> {
    let Some(output) = pool.shard_output(connection) else { return Vec::new() };
    let mut vectors = [std::io::IoSlice::new(&[]); 8];
    let used = output.vectors(&mut vectors);
    let text: String =
        vectors[..used].iter().map(|vector| String::from_utf8_lossy(vector).into_owned()).collect();
    output.advance(output.len());
    text.split('*')
        .skip(1)
        .map(|request| request.split("\r\n").nth(2).unwrap_or_default().to_owned())
        .collect()
}

fn answer(pool: &mut Pool<Resp>, connection: ConnectionIndex, response: &str, now: Time) {
    let mut scratch = BytesMut::new();
    pool.before_shard_read(connection, &mut scratch);
    scratch.extend_from_slice(response.as_bytes());
    pool.shard_received(connection, &mut scratch, now).expect("a good response");
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

#[test]
fn readonly_is_said_to_replicas_that_are_read_from_and_taken_back_when_they_become_primaries() {
    let limits = Limits { client_output_max: 1 << 20, ..Limits::default() };
    let identity =
        Identity { name: "p".into(), unix_start: 0, client_id_first: 1, client_id_step: 1, seed: 1 };
    let settings = Settings { databases: 1, ..Settings::default() };
    let counters = Counters::of_workers(1, 2).remove(0);
    let mut pool = Pool::<Resp>::new(identity, settings, limits, topology(0), counters);
    let now = Time::from_micros(1);
    let client = pool.client_connected(now);
    say(&mut pool, client, "SET a 1\r\nGET a\r\n", now);
    pool.shard_connected(0, now);
    pool.shard_connected(1, now);
    assert_eq!(sent(&mut pool, 0), ["SET"], "to a primary nothing else is said");
    assert_eq!(sent(&mut pool, 1), ["READONLY"]);
    answer(&mut pool, 1, "+OK\r\n", now);
    assert_eq!(sent(&mut pool, 1), ["GET"]);
    answer(&mut pool, 0, "+OK\r\n", now);
    answer(&mut pool, 1, "$1\r\n1\r\n", now);
    assert_eq!(heard(&mut pool, client), "+OK\r\n$1\r\n1\r\n");

    // A failover.
    pool.set_topology(topology(1), now);
    say(&mut pool, client, "SET a 2\r\nGET a\r\n", now);
    assert_eq!(sent(&mut pool, 1), ["READWRITE", "SET"]);
    assert_eq!(sent(&mut pool, 0), ["READONLY", "GET"]);
    answer(&mut pool, 0, "+OK\r\n$1\r\n2\r\n", now);
    answer(&mut pool, 1, "+OK\r\n+OK\r\n", now);
    assert_eq!(heard(&mut pool, client), "+OK\r\n$1\r\n2\r\n", "the nodes' consent is nobody's reply");
}
