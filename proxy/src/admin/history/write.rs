//! The samples as JSON, column by column: what a chart draws.

use std::fmt::Write as _;

use serde_json::Value;

use super::{GAUGES, History, INTERVAL, LATENCIES, OF_PROCESS, OF_SHARD, OfPool, RATES, SAMPLES_MAX};
use crate::failure::ShardFailure;

impl History {
    /// What `/history` says. `since` leaves out the samples before that number; of the shards those of this pool are told.
    pub fn json(&self, pool: Option<&str>, since: Option<u64>) -> String {
        let to = self.taken;
        let kept = to.saturating_sub(SAMPLES_MAX as u64);
        // A number that has not come yet is one of another process.
        let from = since.filter(|since| *since <= to).map_or(kept, |since| since.max(kept));
        let (interval, time) = (INTERVAL.as_millis(), self.time);
        let mut text = format!(
            "{{\"interval_ms\":{interval},\"samples_max\":{SAMPLES_MAX},\"from\":{from},\"to\":{to},\"time_ms\":{time},\"process\":{{"
        );
        for (column, name) in OF_PROCESS.iter().enumerate() {
            begin(&mut text, name);
            self.process.column(column, from, to, &mut text);
        }
        text.push_str("},\"pools\":{");
        for history in &self.pools {
            begin(&mut text, &history.name);
            history.write(pool == Some(&history.name), from, to, &mut text);
        }
        text.push_str("}}\n");
        text
    }
}

impl OfPool {
    fn write(&self, with_shards: bool, from: u64, to: u64, text: &mut String) {
        let rates = RATES.iter().map(|(name, _)| *name);
        let latencies = LATENCIES.iter().map(|(name, _)| *name);
        let names = rates.chain(GAUGES).chain(latencies);
        let _ = write!(text, "{{\"shards\":{},\"series\":{{", self.topology.shards().len());
        let mut columns = 0..;
        for (name, column) in names.zip(&mut columns) {
            begin(text, name);
            self.rows.column(column, from, to, text);
        }
        text.push_str("},\"failures\":{");
        let first = RATES.len() + GAUGES.len() + LATENCIES.len();
        for (reason, column) in ShardFailure::REASONS.iter().zip(first..) {
            begin(text, reason);
            self.rows.column(column, from, to, text);
        }
        text.push('}');
        if with_shards {
            text.push_str(",\"of_shards\":{");
            for shard in &self.followed {
                begin(text, &self.topology.shards()[shard.index].name);
                text.push('{');
                for (column, name) in OF_SHARD.iter().enumerate() {
                    begin(text, name);
                    shard.rows.column(column, from, to, text);
                }
                text.push('}');
            }
            text.push('}');
        }
        text.push('}');
    }
}

/// The name of one more field.
fn begin(text: &mut String, name: &str) {
    if !text.ends_with('{') {
        text.push(',');
    }
    let _ = write!(text, "{}:", Value::from(name));
}
