//! memtier_benchmark as the load generator: its command line for a workload, and what its JSON says.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::measurement::Outcome;
use crate::process::{Nursery, find_program};
use crate::protocol::{KEY_PREFIX, Protocol};
use crate::workload::{Mix, Workload};

/// Where memtier_benchmark is: what MEMTIER names, else on PATH.
pub fn find() -> Option<PathBuf> {
    match std::env::var_os("MEMTIER") {
        Some(file) => Some(PathBuf::from(file)),
        None => find_program("memtier_benchmark"),
    }
}

/// What to tell who has none.
pub const INSTALL: &str = "memtier_benchmark is not on PATH: build it from \
    https://github.com/RedisLabs/memtier_benchmark and put it on PATH or its file name into MEMTIER";

/// Drives a port of loopback with it.
pub fn run(
    nursery: &Nursery,
    program: &Path,
    port: u16,
    workload: &Workload,
    seconds: u64,
    threads: usize,
) -> Result<Outcome> {
    let report = nursery.scratch().join("memtier.json");
    let mut command = Command::new(program);
    command.args(arguments(port, workload, seconds, threads)).arg("--json-out-file").arg(&report);
    let process = nursery.start("memtier", &mut command)?;
    // A client whose connection breaks leaves it waiting for ever, and so does an error reply of memcached's.
    let status = process
        .wait(Duration::from_secs(seconds + 30))
        .context("memtier_benchmark hangs: a client lost its connection or could not read a reply")?;
    if !status.success() {
        bail!("memtier_benchmark ended with {status}:\n{}", process.last_words());
    }
    let text = std::fs::read_to_string(&report).context("memtier_benchmark left no report")?;
    parse(&text)
}

fn arguments(port: u16, workload: &Workload, seconds: u64, threads: usize) -> Vec<String> {
    let protocol = match workload.protocol {
        Protocol::Resp => "redis",
        Protocol::Memcache => "memcache_text",
    };
    let threads = threads_for(workload.clients, threads);
    let mut arguments: Vec<String> = ["--server=127.0.0.1", "--hide-histogram"].map(str::to_owned).into();
    arguments.extend([
        format!("--port={port}"),
        format!("--protocol={protocol}"),
        format!("--threads={threads}"),
        format!("--clients={}", workload.clients / threads),
        format!("--pipeline={}", workload.pipeline),
        format!("--data-size={}", workload.value_bytes),
        format!("--test-time={seconds}"),
        format!("--key-prefix={KEY_PREFIX}"),
        "--key-minimum=1".to_owned(),
        format!("--key-maximum={}", workload.keys),
        "--distinct-client-seed".to_owned(),
    ]);
    match (workload.mix, workload.protocol) {
        (Mix::MultiGet(keys), Protocol::Resp) => {
            arguments.push(format!("--command=MGET{}", " __key__".repeat(keys)));
            arguments.push("--command-key-pattern=R".to_owned());
        }
        (Mix::MultiGet(keys), Protocol::Memcache) => {
            // A request takes no more keys than the ratio has GETs left.
            arguments.extend([format!("--ratio=0:{keys}"), format!("--multi-key-get={keys}")]);
            arguments.push("--key-pattern=R:R".to_owned());
        }
        (Mix::SetGet | Mix::Churn(_) | Mix::FixedRate | Mix::Idle, _) => {
            arguments.extend(["--ratio=1:10", "--key-pattern=R:R"].map(str::to_owned));
        }
    }
    arguments
}

/// memtier has as many clients on every thread, so the threads must divide them.
fn threads_for(clients: usize, at_most: usize) -> usize {
    (1..=at_most.max(1)).rev().find(|threads| clients.is_multiple_of(*threads)).unwrap_or(1)
}

fn parse(text: &str) -> Result<Outcome> {
    let report: Value = serde_json::from_str(text).context("memtier's report is no JSON")?;
    let all = &report["ALL STATS"];
    let number =
        |value: &Value, what: &str| value.as_f64().with_context(|| format!("memtier told no {what}"));
    let totals = &all["Totals"];
    let percentiles = &totals["Percentile Latencies"];
    let percentile = |name: &str| number(&percentiles[name], name).map(|milliseconds| milliseconds * 1e3);
    let elapsed = Duration::from_secs_f64(number(&all["Runtime"]["Total duration"], "duration")? / 1e3);
    // Releases before 2.0 give the rate alone.
    let requests = match totals["Count"].as_f64() {
        Some(count) => count,
        None => number(&totals["Ops/sec"], "rate")? * elapsed.as_secs_f64(),
    };
    Ok(Outcome {
        requests: requests as u64,
        elapsed,
        p50_us: percentile("p50.00")?,
        p99_us: percentile("p99.00")?,
        p999_us: percentile("p99.90")?,
        // It prints error replies, but does not count them.
        errors: totals["Connection Errors"].as_u64().unwrap_or(0),
        misses: (totals["Misses/sec"].as_f64().unwrap_or(0.0) * elapsed.as_secs_f64()).round() as u64,
        unanswered: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_report_becomes_an_outcome() {
        let text = r#"{"ALL STATS": {
            "Runtime": {"Start time": 1, "Finish time": 2001, "Total duration": 2000, "Time unit": "MILLISECONDS"},
            "Totals": {"Count": 9000, "Ops/sec": 4500.1, "Misses/sec": 2.5, "Connection Errors": 0,
                "Percentile Latencies": {"p50.00": 0.287, "p99.00": 0.5, "p99.90": 1.887}}}}"#;
        let outcome = parse(text).unwrap();
        assert_eq!(outcome.throughput(), 4500.0);
        assert_eq!((outcome.p50_us, outcome.p99_us, outcome.p999_us), (287.0, 500.0, 1887.0));
        assert_eq!((outcome.misses, outcome.errors), (5, 0));
    }

    #[test]
    fn a_report_without_figures_is_told_apart() {
        assert!(parse("{}").unwrap_err().to_string().contains("duration"));
        assert!(parse("Connection refused").is_err());
    }

    #[test]
    fn threads_divide_the_clients() {
        assert_eq!(threads_for(50, 4), 2);
        assert_eq!(threads_for(1000, 4), 4);
        assert_eq!(threads_for(50, 0), 1);
    }

    #[test]
    fn an_mget_names_a_key_for_each() {
        let workload = Workload::select("mget-20").unwrap().remove(0);
        let line = arguments(1, &workload, 1, 1).join(" ");
        assert_eq!(line.matches("__key__").count(), 20);
        assert!(!line.contains("--ratio"));
    }

    #[test]
    fn a_memcached_multi_get_fills_every_request() {
        let workload = Workload::select("mc-get-20").unwrap().remove(0);
        let line = arguments(1, &workload, 1, 1).join(" ");
        assert!(line.contains("--protocol=memcache_text"), "{line}");
        assert!(line.contains("--ratio=0:20 --multi-key-get=20"), "{line}");
    }
}
