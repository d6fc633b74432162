//! What `/status` of a running proxy says, as `memstore status` and `memstore top` read and show it. What an older proxy does not say
//! is 0 or nothing.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::ask::Whom;
use crate::metrics::Durations;

/// How long a proxy may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The version of the document that is understood here.
const VERSION: u32 = 1;

/// What is read of one count of a histogram.
const COUNT_MAX: u64 = 1 << 48;

/// The document. docs/admin.md says what each field means.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Report {
    pub version: u32,
    pub time: f64,
    pub process: Process,
    pub pools: Vec<Pool>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Process {
    pub version: String,
    pub uptime_seconds: f64,
    pub draining: bool,
    pub cpu_seconds: Option<f64>,
    pub config: Config,
    pub memory: Memory,
    pub workers: Vec<Worker>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    pub generation: u64,
    pub reload_error: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Memory {
    pub held_bytes: u64,
    pub max_bytes: u64,
    pub resident_bytes: Option<u64>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Worker {
    pub busy_seconds: f64,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pool {
    pub name: String,
    pub protocol: String,
    pub mode: String,
    pub listen: String,
    pub listening: bool,
    pub servers_error: Option<String>,
    pub shards_total: usize,
    pub shards_up: usize,
    pub metrics: PoolMetrics,
    pub latency: Latency,
    pub queue: Queue,
    pub cluster: Option<Cluster>,
    pub clients: Clients,
    pub shards: Vec<Shard>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct PoolMetrics {
    pub requests: u64,
    pub requests_failed: u64,
    pub requests_refused: u64,
    pub client_received_bytes: u64,
    pub client_sent_bytes: u64,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Queue {
    pub requests: i64,
    pub in_flight_requests: i64,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Cluster {
    pub slots_covered: usize,
    pub slots_total: usize,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Clients {
    pub total: u64,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Shard {
    pub name: String,
    pub address: String,
    pub state: String,
    pub since: Option<f64>,
    pub reason: Option<String>,
    pub share: f64,
    pub errors: std::collections::BTreeMap<String, u64>,
    pub latency: Latency,
    pub metrics: ShardMetrics,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct ShardMetrics {
    pub connections: i64,
    pub requests: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub queued_requests: i64,
    pub in_flight_requests: i64,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Latency {
    pub buckets: Vec<u64>,
}

impl Default for Report {
    fn default() -> Self {
        Self { version: 0, time: 0.0, process: Process::default(), pools: Vec::new() }
    }
}

impl Latency {
    /// What was counted, or of that what was not counted `before`.
    pub fn since(&self, before: Option<&Self>) -> Durations {
        let mut durations = Durations::default();
        for (place, count) in durations.counts.iter_mut().enumerate() {
            let at = |latency: &Self| latency.buckets.get(place).copied().unwrap_or(0);
            // No proxy has served so many: all of them together are a number still, whoever answers.
            *count = at(self).saturating_sub(before.map_or(0, at)).min(COUNT_MAX);
        }
        durations
    }
}

impl Shard {
    /// Failures of all kinds.
    pub fn failures(&self) -> u64 {
        self.errors.values().fold(0, |sum, more| sum.saturating_add(*more))
    }

    /// Whether it serves.
    pub fn is_up(&self) -> bool {
        self.state == "up"
    }
}

/// Asks a proxy; the document as it came, and as it is read.
pub fn ask(whom: &Whom, query: &str) -> anyhow::Result<(String, Report)> {
    let (status, body) = whom.ask("GET", &format!("/status{query}"), ANSWER_LIMIT)?;
    match status {
        200 => {}
        // An older proxy lists its paths.
        404 if body.starts_with("unknown path") => {
            bail!("the proxy is older than this command and has no /status")
        }
        _ => bail!("{status}: {}", body.trim_end()),
    }
    let report = understood(&body)?;
    Ok((body, report))
}

/// The document, if it is one: what is not said is 0, so anything might pass for a proxy without pools, which has no shard that is down.
fn understood(body: &str) -> anyhow::Result<Report> {
    let report: Report = serde_json::from_str(body).context("the response is not a status document")?;
    match report.version {
        VERSION => Ok(report),
        0 => bail!("the response is not a status document"),
        other => {
            bail!("the proxy's status document has version {other}, and this command knows version {VERSION}")
        }
    }
}

/// A duration in words of at most two units.
pub fn lasting(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, _) => format!("{hours}h{}m", minutes % 60),
        (days, ..) => format!("{days}d{}h", hours % 24),
    }
}

/// Bytes in a unit of three or four digits.
pub fn sized(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// A number in a unit of three or four digits.
pub fn counted(number: f64) -> String {
    scaled(number, 1000.0, &["", "k", "M", "G", "T"])
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while number >= step * 0.9995 && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && number < 100.0);
    format!("{number:.digits$}{}", units[unit])
}

/// A time out of a histogram, in microseconds.
pub fn timed(micros: Option<u64>) -> String {
    match micros {
        None => "-".into(),
        Some(micros @ 0..1000) => format!("{micros}us"),
        Some(micros @ 1000..1_000_000) => format!("{:.1}ms", micros as f64 / 1e3),
        Some(micros) => format!("{:.1}s", micros as f64 / 1e6),
    }
}

/// A name as it stands in a query.
pub fn in_query(name: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    name.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let seconds = [0.4, 59.0, 61.0, 3600.0 * 5.0 + 60.0, 86_400.0 * 3.0 + 7200.0];
        assert_eq!(seconds.map(lasting), ["0s", "59s", "1m1s", "5h1m", "3d2h"]);
        assert_eq!(
            [0.0, 999.0, 1000.0, 12_345.0, 999_999.0, 5e9].map(counted),
            ["0", "999", "1.0k", "12.3k", "1.0M", "5.0G"]
        );
        assert_eq!([0.0, 1023.9, 1536.0, 200.0 * 1048576.0].map(sized), ["0B", "1.0KiB", "1.5KiB", "200MiB"]);
        assert_eq!([None, Some(7), Some(1500), Some(2_500_000)].map(timed), ["-", "7us", "1.5ms", "2.5s"]);
        assert_eq!(in_query("a b&\u{e4}-1"), "a%20b%26%C3%A4-1");
    }

    #[test]
    fn what_is_not_said_is_nothing_and_what_is_new_is_passed_over() {
        let text = r#"{"version":1,"new":{},"pools":[{"name":"p","shards":[{"name":"s","state":"down","errors":{"reset":2,"new":1}}]}]}"#;
        let report: Report = serde_json::from_str(text).expect("a document");
        let shard = &report.pools[0].shards[0];
        assert_eq!((shard.failures(), shard.is_up(), shard.reason.as_deref()), (3, false, None));
    }

    #[test]
    fn what_is_no_status_document_is_not_taken_for_one() {
        assert!(understood(r#"{"version":1,"pools":[]}"#).is_ok());
        for other in ["{}", "[]", "null", "ok", r#"{"version":2,"pools":[]}"#, r#"{"status":"ok"}"#] {
            assert!(understood(other).is_err(), "{other}");
        }
    }

    #[test]
    fn the_time_between_two_documents_has_percentiles_of_its_own() {
        let [before, after] = [vec![100, 5], vec![100, 5, 0, 10]].map(|buckets| Latency { buckets });
        assert_eq!(after.since(Some(&before)).quantile(0.0), Some(256));
        assert_eq!(after.since(None).count(), 115);
        // After a restart there is less than before.
        assert_eq!(before.since(Some(&after)).count(), 0);
    }
}
