//! INFO and CONFIG GET: what clients and tools probe before they work.

use super::session::REDIS_VERSION;
use super::{Resp, encode, glob};
use crate::metrics::PoolCounters;
use crate::protocol::Facts;

/// Sections of INFO, in their order.
const SECTIONS: [&str; 6] = ["server", "clients", "stats", "replication", "cluster", "keyspace"];

/// `INFO [section ...]`: the proxy's own sections, with the fields that clients parse.
pub fn info(wanted: &[&[u8]], facts: &Facts<'_, Resp>, resp3: bool, out: &mut Vec<u8>) {
    let everything = wanted.is_empty()
        || wanted.iter().any(|word| {
            ["all", "default", "everything"].iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
        });
    let mut text = String::new();
    for name in SECTIONS {
        if everything || wanted.iter().any(|word| word.eq_ignore_ascii_case(name.as_bytes())) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            section(name, facts, &mut text);
        }
    }
    if resp3 { encode::verbatim(out, text.as_bytes()) } else { encode::bulk(out, text.as_bytes()) }
}

fn section(name: &str, facts: &Facts<'_, Resp>, text: &mut String) {
    let counters = facts.counters;
    let total = |number: fn(&PoolCounters) -> i64| counters.sum(number).to_string();
    let lines: Vec<(&str, String)> = match name {
        "server" => vec![
            ("redis_version", REDIS_VERSION.into()),
            ("redis_mode", "standalone".into()),
            ("os", std::env::consts::OS.into()),
            ("arch_bits", usize::BITS.to_string()),
            ("tcp_port", facts.settings.port.to_string()),
            ("uptime_in_seconds", facts.uptime.to_string()),
            ("uptime_in_days", (facts.uptime / 86400).to_string()),
            ("memstore_version", env!("CARGO_PKG_VERSION").into()),
            ("memstore_pool", facts.pool.into()),
        ],
        "clients" => vec![("connected_clients", total(|counters| counters.client_connections.get()))],
        "stats" => vec![
            ("total_connections_received", total(|counters| counters.client_connections_total.get() as i64)),
            ("total_commands_processed", total(|counters| counters.requests.get() as i64)),
            ("total_error_replies", total(|counters| counters.forward_error.get() as i64)),
        ],
        "replication" => vec![("role", "master".into()), ("connected_slaves", "0".into())],
        "cluster" => vec![("cluster_enabled", "0".into())],
        _ => Vec::new(),
    };
    let mut title = name.to_owned();
    title[..1].make_ascii_uppercase();
    text.push_str(&format!("# {title}\r\n"));
    for (key, value) in lines {
        text.push_str(&format!("{key}:{value}\r\n"));
    }
}

/// `CONFIG GET pattern ...`: the parameters that clients and tools ask for.
pub fn config(all: &[&[u8]], resp3: bool, facts: &Facts<'_, Resp>, out: &mut Vec<u8>) {
    let parameters = [
        ("appendonly", "no".to_owned()),
        ("cluster-enabled", "no".to_owned()),
        ("databases", facts.settings.databases.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("notify-keyspace-events", String::new()),
        ("port", facts.settings.port.to_string()),
        ("proto-max-bulk-len", super::decode::BULK_MAX.to_string()),
        ("save", String::new()),
        ("tcp-keepalive", "0".to_owned()),
        ("timeout", "0".to_owned()),
    ];
    let patterns = all.get(2..).unwrap_or_default();
    let found: Vec<_> = parameters
        .iter()
        .filter_map(|(name, value)| {
            let name = name.as_bytes();
            let pattern = patterns.iter().find(|pattern| glob::matches_ignore_case(pattern, name))?;
            // A name comes back as it was asked for, because clients look for it in the reply.
            Some((if pattern.eq_ignore_ascii_case(name) { pattern } else { name }, value))
        })
        .collect();
    encode::map(out, resp3, found.len());
    for (name, value) in found {
        encode::bulk(out, name);
        encode::bulk(out, value.as_bytes());
    }
}
