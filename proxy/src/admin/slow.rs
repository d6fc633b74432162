//! `/slow`: the slow logs of all pools.

use serde_json::{Value, json};

use crate::slow::Entry;
use crate::status::Status;

/// The log of each pool, the newest entry first.
pub fn document(status: &Status) -> Value {
    let pools = status.pools();
    let pools = pools.iter().map(|pool| {
        let config = &pool.config;
        let log = json!({
            "slower_than_microseconds": config.slowlog_log_slower_than,
            "entries_max": config.slowlog_max_len,
            "entries": pool.slow.latest(usize::MAX).iter().map(|entry| told(entry)).collect::<Vec<_>>(),
        });
        (config.name.clone(), log)
    });
    json!({ "pools": pools.collect::<serde_json::Map<_, _>>() })
}

fn told(entry: &Entry) -> Value {
    let Entry { id, at, words, sender, shard, spent, failed, error, .. } = entry;
    json!({
        "id": id,
        "request": entry.request(),
        "unix_microseconds": at,
        "command": words.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>(),
        "client": { "address": sender.address, "name": sender.name, "user": sender.user },
        "shard": &**shard,
        "microseconds": {
            "total": spent.micros(),
            "queued": spent.queued,
            "shard": spent.shard,
            "merged": spent.merged,
            "client": spent.client,
        },
        "timed_out": failed,
        "error": error,
    })
}
