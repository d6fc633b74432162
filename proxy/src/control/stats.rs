//! Twemproxy's statistics: one line of JSON for whoever connects, with its field names, and values of this moment.
//!
//! Shape and spacing are Twemproxy's, because collectors take it apart by hand. Unlike there, names are escaped.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::status::{PoolStatus, Status};
use crate::config::SideListen;
use crate::json::quoted;
use crate::metrics::{PoolCounters, ShardCounters};

/// How long a collector may take to read a few kilobytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Collectors served at the same time.
const COLLECTORS_MAX: usize = 64;

/// Binds the port; `None` if it is taken and nobody has asked for it.
pub async fn bind(listen: &SideListen) -> anyhow::Result<Option<TcpListener>> {
    let SideListen { host, port, implied } = listen;
    match TcpListener::bind((host.as_str(), *port)).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if *implied => {
            tracing::warn!(%host, port, %error, "statistics are not served; set stats_port to another port, or to 0");
            Ok(None)
        }
        Err(error) => {
            let text = format!("cannot serve statistics on {host}:{port}; choose another port");
            Err(anyhow::Error::new(error).context(text))
        }
    }
}

/// Answers everybody who connects.
pub async fn serve(listener: TcpListener, status: Arc<Status>) {
    let collectors = Arc::new(tokio::sync::Semaphore::new(COLLECTORS_MAX));
    loop {
        let Ok(permit) = collectors.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let text = json(&status);
        tokio::task::spawn_local(async move {
            let _ = tokio::time::timeout(WRITE_TIMEOUT, answer(stream, text)).await;
            drop(permit);
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
    field(&mut text, "source", format_args!("{}", quoted(source.trim_end())));
    field(&mut text, "version", format_args!("\"{}\"", env!("CARGO_PKG_VERSION")));
    field(&mut text, "uptime", format_args!("{}", status.start.elapsed().as_secs()));
    field(&mut text, "timestamp", format_args!("{timestamp}"));
    field(&mut text, "total_connections", format_args!("{total}"));
    field(&mut text, "curr_connections", format_args!("{current}"));
    for pool in &pools {
        let _ = write!(text, "{}: {{", quoted(&pool.config.name));
        pool_fields(&mut text, pool);
        close(&mut text);
    }
    close(&mut text);
    text.truncate(text.trim_end_matches([',', ' ']).len());
    text.push('\n');
    text
}

fn pool_fields(text: &mut String, pool: &PoolStatus) {
    let counters = &pool.counters;
    let sum = |counter: fn(&PoolCounters) -> i64| counters.sum(counter);
    let values = [
        ("client_eof", sum(|counters| counters.client_eof.get() as i64)),
        ("client_err", sum(|counters| counters.client_err.get() as i64)),
        ("client_connections", sum(|counters| counters.client_connections.get())),
        ("server_ejects", pool.records.iter().map(|record| record.ejections).sum::<u64>() as i64),
        ("forward_error", sum(|counters| counters.forward_error.get() as i64)),
        ("fragments", sum(|counters| counters.fragments.get() as i64)),
    ];
    for (name, value) in values {
        field(text, name, format_args!("{value}"));
    }
    for (index, shard) in pool.topology.shards().iter().enumerate() {
        let _ = write!(text, "{}: {{", quoted(&shard.name));
        let sum = |counter: fn(&ShardCounters) -> i64| counters.sum_shard(index, counter);
        let values = [
            ("server_eof", sum(|shard| shard.server_eof.get() as i64)),
            ("server_err", sum(|shard| shard.server_err.get() as i64)),
            ("server_timedout", sum(|shard| shard.server_timedout.get() as i64)),
            ("server_connections", sum(|shard| shard.server_connections.get())),
            ("server_ejected_at", pool.records[index].ejected_at as i64),
            ("requests", sum(|shard| shard.requests.get() as i64)),
            ("request_bytes", sum(|shard| shard.request_bytes.get() as i64)),
            ("responses", sum(|shard| shard.responses.get() as i64)),
            ("response_bytes", sum(|shard| shard.response_bytes.get() as i64)),
            ("in_queue", sum(|shard| shard.in_queue.get())),
            ("in_queue_bytes", sum(|shard| shard.in_queue_bytes.get())),
            ("out_queue", sum(|shard| shard.out_queue.get())),
            ("out_queue_bytes", sum(|shard| shard.out_queue_bytes.get())),
        ];
        for (name, value) in values {
            field(text, name, format_args!("{value}"));
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
