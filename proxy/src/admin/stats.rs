//! Twemproxy's statistics: one line of JSON for whoever connects, with its field names, and values of this moment.
//!
//! Shape and spacing are Twemproxy's, because collectors take it apart by hand. Unlike there, names are escaped.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::Admin;
use super::connections::{Connections, Work};
use crate::config::SideListen;
use crate::metrics::ShardCounters;
use crate::status::{PoolStatus, Status};
use serde_json::Value;

/// How long a collector may take to read a few kilobytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two answers where many are wanted: one that asks in a loop is to take no core from the workers.
const PAUSE: Duration = Duration::from_millis(5);
/// So many may come at once.
const BURST: u32 = 40;

/// Binds the port; `None` if it is taken and nobody has asked for it.
pub fn bind(listen: &SideListen) -> anyhow::Result<Option<std::net::TcpListener>> {
    let SideListen { host, port, implied } = listen;
    match std::net::TcpListener::bind((host.as_str(), *port)) {
        Ok(listener) => {
            listener.set_nonblocking(true)?;
            Ok(Some(listener))
        }
        Err(error) if *implied => {
            tracing::warn!(
                host, port, reason = %error,
                "statistics server not started; set stats_port to another port, or to 0 to disable it"
            );
            Ok(None)
        }
        Err(error) => {
            let text = format!(
                "cannot start the statistics server on {host}:{port}; set stats_port to another port, or to 0 to disable it"
            );
            Err(anyhow::Error::new(error).context(text))
        }
    }
}

/// Answers everybody who connects, for ever.
pub async fn serve(listener: std::net::TcpListener, admin: Arc<Admin>) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener).context("the statistics cannot be served")?;
    let mut connections = Connections::new(admin.connections_max);
    let mut due = Instant::now();
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(super::ACCEPT_PAUSE).await;
            continue;
        };
        let now = Instant::now();
        due = due.max(now.checked_sub(PAUSE * BURST).unwrap_or(now)) + PAUSE;
        tokio::time::sleep_until(due).await;
        let text = json(&admin.status);
        connections.spawn(Some(peer.ip()), Work::default(), async move {
            let _ = tokio::time::timeout(WRITE_TIMEOUT, answer(stream, text)).await;
        });
    }
}

/// What the collector has asked is read and not heeded: closing with it unread would reset the connection.
async fn answer(mut stream: TcpStream, text: String) -> std::io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut unheeded = [0; 1024];
    while stream.read(&mut unheeded).await? > 0 {}
    Ok(())
}

/// What they are told.
pub fn json(status: &Status) -> String {
    let pools = status.pools();
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let source = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let (mut total, mut current) = (pools.len() as i64, pools.len() as i64);
    for pool in &pools {
        let counters = &pool.counters;
        total += counters.sum(|counters| counters.client_connections_total.get() as i64);
        current += counters.sum(|counters| counters.client_connections.get());
        for shard in 0..counters.shards().len() {
            total += counters.sum_shard(shard, |shard| shard.server_connections_total.get() as i64);
            current += counters.sum_shard(shard, |shard| shard.server_connections.get());
        }
    }
    let mut text = String::from("{");
    field(&mut text, "service", format_args!("\"memstore\""));
    field(&mut text, "source", format_args!("{}", Value::from(source.trim_end())));
    field(&mut text, "version", format_args!("\"{}\"", env!("CARGO_PKG_VERSION")));
    field(&mut text, "uptime", format_args!("{}", status.start.elapsed().as_secs()));
    field(&mut text, "timestamp", format_args!("{timestamp}"));
    field(&mut text, "total_connections", format_args!("{total}"));
    field(&mut text, "curr_connections", format_args!("{current}"));
    for pool in &pools {
        let _ = write!(text, "{}: {{", Value::from(pool.config.name.as_str()));
        pool_fields(&mut text, pool);
        close(&mut text);
    }
    close(&mut text);
    text.truncate(text.trim_end_matches([',', ' ']).len());
    text.push('\n');
    text
}

/// One statistic: its name in Twemproxy, what it is, and where its value comes from.
struct Statistic<V>(&'static str, &'static str, V);

/// A number of a pool, and of one of its shards.
type OfPool = fn(&PoolStatus) -> i64;
type OfShard = fn(&PoolStatus, usize) -> i64;

/// What is told of a pool.
const POOL: &[Statistic<OfPool>] = &[
    Statistic("client_eof", "clients that closed their connection", |pool| {
        pool.counters.sum(|counters| counters.client_eof.get() as i64)
    }),
    Statistic("client_err", "errors on connections of clients", |pool| {
        pool.counters.sum(|counters| counters.client_err.get() as i64)
    }),
    Statistic("client_connections", "open client connections", |pool| {
        pool.counters.sum(|counters| counters.client_connections.get())
    }),
    Statistic("server_ejects", "times a shard was ejected", |pool| {
        pool.records.iter().map(|record| record.ejections).sum::<u64>() as i64
    }),
    Statistic("forward_error", "requests answered with an error because of a shard failure", |pool| {
        pool.counters.sum(|counters| counters.forward_error.get() as i64)
    }),
    Statistic("fragments", "fragments of split requests", |pool| {
        pool.counters.sum(|counters| counters.fragments.get() as i64)
    }),
];

/// What is told of a shard.
const SHARD: &[Statistic<OfShard>] = &[
    Statistic("server_eof", "connections that the shard closed", |pool, shard| {
        of_shard(pool, shard, |counters| counters.server_eof.get() as i64)
    }),
    Statistic("server_err", "errors on connections to the shard", |pool, shard| {
        of_shard(pool, shard, |counters| counters.server_err.get() as i64)
    }),
    Statistic("server_timedout", "requests that timed out", |pool, shard| {
        of_shard(pool, shard, |counters| counters.server_timedout.get() as i64)
    }),
    Statistic("server_connections", "open connections to the shard", |pool, shard| {
        of_shard(pool, shard, |counters| counters.server_connections.get())
    }),
    Statistic(
        "server_ejected_at",
        "when the shard was last ejected, in microseconds since 1970",
        |pool, shard| pool.records[shard].ejected_at as i64,
    ),
    Statistic("requests", "requests to the shard", |pool, shard| {
        of_shard(pool, shard, |counters| counters.requests.get() as i64)
    }),
    Statistic("request_bytes", "bytes of those", |pool, shard| {
        of_shard(pool, shard, |counters| counters.request_bytes.get() as i64)
    }),
    Statistic("responses", "responses from the shard", |pool, shard| {
        of_shard(pool, shard, |counters| counters.responses.get() as i64)
    }),
    Statistic("response_bytes", "bytes of those", |pool, shard| {
        of_shard(pool, shard, |counters| counters.response_bytes.get() as i64)
    }),
    Statistic("in_queue", "requests queued and not yet written to the shard", |pool, shard| {
        of_shard(pool, shard, |counters| counters.in_queue.get())
    }),
    Statistic("in_queue_bytes", "bytes of those", |pool, shard| {
        of_shard(pool, shard, |counters| counters.in_queue_bytes.get())
    }),
    Statistic("out_queue", "requests written and not yet answered", |pool, shard| {
        of_shard(pool, shard, |counters| counters.out_queue.get())
    }),
    Statistic("out_queue_bytes", "bytes of those", |pool, shard| {
        of_shard(pool, shard, |counters| counters.out_queue_bytes.get())
    }),
];

fn of_shard(pool: &PoolStatus, shard: usize, counter: fn(&ShardCounters) -> i64) -> i64 {
    pool.counters.sum_shard(shard, counter)
}

/// What the statistics are, as `nutcracker --describe-stats` tells it.
pub fn descriptions() -> String {
    let mut text = String::from("pool stats:\n");
    for Statistic(name, meaning, _) in POOL {
        let _ = writeln!(text, "  {name:<20}\"{meaning}\"");
    }
    text.push_str("\nserver stats:\n");
    for Statistic(name, meaning, _) in SHARD {
        let _ = writeln!(text, "  {name:<20}\"{meaning}\"");
    }
    text
}

fn pool_fields(text: &mut String, pool: &PoolStatus) {
    for Statistic(name, _, value) in POOL {
        field(text, name, format_args!("{}", value(pool)));
    }
    for (index, shard) in pool.topology.shards().iter().enumerate() {
        let _ = write!(text, "{}: {{", Value::from(shard.name.as_str()));
        for Statistic(name, _, value) in SHARD {
            field(text, name, format_args!("{}", value(pool, index)));
        }
        close(text);
    }
}

fn field(text: &mut String, name: &str, value: std::fmt::Arguments<'_>) {
    let _ = write!(text, "\"{name}\":{value}, ");
}

/// Ends an object: the separator after its last field goes before the brace's own.
fn close(text: &mut String) {
    text.truncate(text.trim_end_matches([',', ' ']).len());
    text.push_str("},");
}
