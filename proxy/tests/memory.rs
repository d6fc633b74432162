//! Clients that hold much, in front of real servers.

mod servers;

use std::time::{Duration, Instant};

use servers::{Server, encoded};

/// `SET key value` and `GET key`, so many times, and the bytes that come back.
fn pairs(count: usize, value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut requests, mut replies) = (Vec::new(), Vec::new());
    for number in 0..count {
        let key = format!("key:{number}");
        requests.extend(encoded(&[b"SET", key.as_bytes(), value]));
        requests.extend(encoded(&[b"GET", key.as_bytes()]));
        replies.extend_from_slice(b"+OK\r\n");
        replies.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
        replies.extend_from_slice(value);
        replies.extend_from_slice(b"\r\n");
    }
    (requests, replies)
}

/// Writes everything, then reads everything, as most client libraries do with a pipeline; how long that took.
fn write_then_read(server: &Server, requests: &[u8], replies: &[u8]) -> Duration {
    let mut client = server.connect();
    let begin = Instant::now();
    client.send(requests);
    assert!(client.bytes(replies.len()) == replies, "a reply is wrong");
    begin.elapsed()
}

#[test]
fn a_pipeline_is_written_before_a_reply_is_read() {
    let shard = Server::redis(&[]);
    let (requests, replies) = pairs(20_000, &[b'v'; 1000]);
    assert!(requests.len() > 20_000_000);
    let plain = (0..3).map(|_| write_then_read(&shard, &requests, &replies)).min().expect("three");
    let shards = [shard];
    let proxy = Server::memstore(&[], &shards);
    let ours = (0..3).map(|_| write_then_read(&proxy, &requests, &replies)).min().expect("three");
    println!("plain {plain:?}, through the proxy {ours:?}");
    // Where neither side reads it never ends. A build without optimisation, on a machine that is busy, is forgiven much.
    assert!(ours < 2 * plain + Duration::from_secs(30), "{ours:?}, and {plain:?} without a proxy");
}

#[test]
fn replies_that_nobody_reads_are_few() {
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&[], &shards);
    let mut client = proxy.connect();
    assert_eq!(client.ask(&[b"SET", b"k", &[b'v'; 100_000]]), b"+OK\r\n");
    let before = proxy.memory();
    let get = encoded(&[b"GET", b"k"]);
    client.send(&get.repeat(2_000));
    // The proxy has stopped once a request of somebody else has found its way behind all of that.
    let mut other = proxy.connect();
    for _ in 0..200 {
        assert_eq!(other.ask(&[b"PING"]), b"+PONG\r\n");
        assert_eq!(other.ask(&[b"STRLEN", b"k"]), b":100000\r\n");
    }
    let held = proxy.memory().saturating_sub(before);
    assert!(held < 64 << 20, "{held} bytes more for 200 MB of replies");
    assert_eq!(client.bytes(2_000 * 100_011).len(), 2_000 * 100_011);
}
