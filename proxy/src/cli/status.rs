//! `memstore status`: how a running proxy, its pools and their shards are.

use std::process::ExitCode;

use clap::Args;

use super::ask::Whom;
use super::common::{Format, print};
use super::plain::clean;
use super::report::{self, Pool, Report, Shard, counted, lasting, sized, timed};
use super::terminal::{Style, colours, cut};
use crate::log;

/// It is told how the proxy ended that could not be asked.
const UNKNOWN: u8 = 5;

/// Whom it asks, and how it shows that.
#[derive(Args)]
pub struct StatusOf {
    #[command(flatten)]
    whom: Whom,
    /// Only this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Only shards that do not serve
    #[arg(long)]
    down: bool,
    /// Output format: text, or the JSON document of the admin server
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Shows it; 1 if a shard does not serve or a pool does not listen, 5 if the proxy cannot be asked.
pub fn status(asked: &StatusOf) -> anyhow::Result<ExitCode> {
    let query = asked.pool.as_ref().map(|name| format!("?pool={}", report::in_query(name)));
    let (text, report) = match report::ask(&asked.whom, query.as_deref().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(error) => {
            log::say(&format!("{error:#}"));
            return Ok(ExitCode::from(UNKNOWN));
        }
    };
    match asked.format {
        Format::Json => print(&text)?,
        Format::Text => print(&shown(&report, asked.down, colours()))?,
    }
    let is_well = |pool: &Pool| pool.listening && pool.shards_up == pool.shards_total;
    Ok(if report.pools.iter().all(is_well) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The document for people.
fn shown(report: &Report, only_down: bool, colours: bool) -> String {
    let process = &report.process;
    let mut text = format!(
        "memstore {}: up {}, {} workers, memory {} of {}, configuration {}{}\n",
        clean(&process.version),
        lasting(process.uptime_seconds),
        process.workers.len(),
        sized(process.memory.held_bytes as f64),
        sized(process.memory.max_bytes as f64),
        process.config.generation,
        if process.draining { ", draining" } else { "" },
    );
    if let Some(error) = &process.config.reload_error {
        let words = format!("last reload failed: {}", clean(error));
        text.push_str(&format!("{}\n", Style::Bad.of(&words, colours)));
    }
    for pool in &report.pools {
        text.push('\n');
        text.push_str(&of_pool(pool, report.time, only_down, colours));
    }
    text
}

fn of_pool(pool: &Pool, now: f64, only_down: bool, colours: bool) -> String {
    let is_whole = pool.shards_up == pool.shards_total;
    let shards = format!("{} of {} shards up", pool.shards_up, pool.shards_total);
    let latency = pool.latency.since(None);
    let mut text = format!(
        "{}: {}, {} on {}, {}\n  {} clients, {} requests, {} failed, {} queued, {} in flight, p50 {}, p99 {}\n",
        Style::Bold.of(&clean(&pool.name), colours),
        clean(&pool.protocol),
        clean(&pool.mode),
        clean(&pool.listen),
        if is_whole { Style::Good } else { Style::Bad }.of(&shards, colours),
        pool.clients.total,
        counted(pool.metrics.requests as f64),
        counted(pool.metrics.requests_failed as f64),
        pool.queue.requests,
        pool.queue.in_flight_requests,
        timed(latency.quantile(0.5)),
        timed(latency.quantile(0.99)),
    );
    if !pool.listening {
        text.push_str(&format!("  {}\n", Style::Bad.of("not listening", colours)));
    }
    if let Some(error) = &pool.servers_error {
        let words = format!("the list of servers could not be refreshed: {}", clean(error));
        text.push_str(&format!("  {}\n", Style::Bad.of(&words, colours)));
    }
    if let Some(cluster) = &pool.cluster {
        text.push_str(&format!("  {} of {} slots covered\n", cluster.slots_covered, cluster.slots_total));
    }
    let shown: Vec<&Shard> = pool.shards.iter().filter(|shard| !only_down || !shard.is_up()).collect();
    if shown.is_empty() {
        return text;
    }
    let width = shown.iter().map(|shard| clean(&shard.name).chars().count()).max().unwrap_or(0).clamp(5, 40);
    let head = format!(
        "  {:<width$}  {:<7}  {:>7}  {:>7}  {:>8}  {:>8}  {:>5}  {:>6}  {:>7}  {:>7}  ADDRESS",
        "SHARD", "STATE", "FOR", "SHARE", "REQUESTS", "ERRORS", "CONNS", "QUEUED", "P50", "P99"
    );
    text.push_str(&format!("{}\n", Style::Dim.of(&head, colours)));
    for shard in shown {
        text.push_str(&of_shard(shard, now, width, colours));
    }
    text
}

/// How a state is shown.
pub fn style_of(state: &str) -> Style {
    match state {
        "up" => Style::Good,
        "ejected" => Style::Warn,
        _ => Style::Bad,
    }
}

fn of_shard(shard: &Shard, now: f64, width: usize, colours: bool) -> String {
    let latency = shard.latency.since(None);
    let mut text = format!(
        "  {:<width$}  {}  {:>7}  {:>6.2}%  {:>8}  {:>8}  {:>5}  {:>6}  {:>7}  {:>7}  {}\n",
        cut(&clean(&shard.name), width),
        style_of(&shard.state).of(&format!("{:<7}", clean(&shard.state)), colours),
        shard.since.map_or("-".into(), |since| lasting(now - since)),
        shard.share * 100.0,
        counted(shard.metrics.requests as f64),
        counted(shard.failures() as f64),
        shard.metrics.connections,
        shard.metrics.queued_requests,
        timed(latency.quantile(0.5)),
        timed(latency.quantile(0.99)),
        clean(&shard.address),
    );
    if let Some(reason) = &shard.reason {
        text.push_str(&format!("  {:<width$}  {}\n", "", style_of(&shard.state).of(&clean(reason), colours)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_is_down_has_its_reason_and_no_orders_for_the_terminal() {
        let text = r#"{"version":1,"time":1000.0,"process":{"version":"1.2.3","uptime_seconds":61.0,"workers":[{}]},
            "pools":[{"name":"p","protocol":"redis","mode":"ketama","listen":"127.0.0.1:1","listening":true,"shards_total":2,
            "shards_up":1,"shards":[{"name":"a","state":"up","since":990.0,"share":0.5},
            {"name":"b","state":"down","since":995.0,"reason":"\u001b[2Jrefused","share":0.5}]}]}"#;
        let report: Report = serde_json::from_str(text).expect("a document");
        let plain = shown(&report, false, false);
        assert!(plain.starts_with("memstore 1.2.3: up 1m1s, 1 workers"), "{plain}");
        assert!(plain.contains("p: redis, ketama on 127.0.0.1:1, 1 of 2 shards up"), "{plain}");
        assert!(plain.contains("?[2Jrefused") && !plain.contains('\x1b'), "{plain}");
        assert!(plain.contains("  a") && !shown(&report, true, false).contains("  a  "));
        assert!(shown(&report, false, true).contains("\x1b[31mdown   \x1b[0m"));
    }
}
