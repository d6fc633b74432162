//! INFO and CONFIG GET: what clients and tools probe before they work. What is not known is left out, so that nobody takes
//! a guess for an answer. What is asked for seldom is not kept, but asked of the shards then.

use crate::metrics::{PoolCounters, Resettable};
use crate::protocol::events::Flags;
use crate::protocol::glob;
use crate::protocol::questions::EVENTS;
use crate::protocol::resp::command::Merge;
use crate::protocol::resp::sections::Sections;
use crate::protocol::resp::{Resp, encode};
use crate::protocol::{Facts, Plan, Route};

/// The version of Redis whose commands and replies the proxy speaks.
pub const REDIS_VERSION: &str = "7.0.15";

/// Sections of INFO, in their order.
const SECTIONS: [&str; 11] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "modules",
    "errorstats",
    "cluster",
    "keyspace",
];

/// `INFO [section ...]`: the sections that the proxy knows, with the fields that clients parse, and among them those that shards are asked for.
/// `INFO shard name [section ...]`: what that shard says.
pub fn info(
    canonical: &[u8],
    all: &[&[u8]],
    facts: &Facts<'_, Resp>,
    resp3: bool,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    let databases =
        if facts.settings.db > 0 { (facts.settings.db, 1) } else { (0, facts.settings.databases) };
    if let [_, word, name, ..] = all
        && word.eq_ignore_ascii_case(b"shard")
    {
        plan.keys.push((name.as_ptr() as usize - canonical.as_ptr() as usize, name.len()));
        let words = "ERR 'info shard' is refused inside a transaction: a shard has to be asked; send it before MULTI or after EXEC";
        encode::error(&mut plan.reply, words);
        return Route::OnShard(Merge::Own(databases.0, databases.1));
    }
    write(&all[1..], facts, resp3, &mut plan.reply);
    let wanted = Sections::wanted(&all[1..], databases);
    // Whoever looks after the shards is answered also while one hangs.
    let wanted = match facts.settings.waits_without_limit {
        true => wanted.and_then(Sections::without_figures),
        false => wanted,
    };
    match wanted {
        None => Route::Answer,
        Some(wanted) => Route::AllShards(Merge::Sections(wanted)),
    }
}

fn write(wanted: &[&[u8]], facts: &Facts<'_, Resp>, resp3: bool, out: &mut Vec<u8>) {
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

/// Clients whose request waits for data or replicas, whichever worker serves them.
fn blocked(facts: &Facts<'_, Resp>) -> i64 {
    let shards = 0..facts.counters.shards().len();
    let at_one: i64 =
        shards.map(|shard| facts.counters.sum_shard(shard, |shard| shard.blocked_clients.get())).sum();
    at_one + facts.counters.sum(|pool| pool.blocked_wide.get() + pool.blocked_confirming.get())
}

fn section(name: &str, facts: &Facts<'_, Resp>, text: &mut String) {
    let counters = facts.counters;
    let total = |number: fn(&PoolCounters) -> i64| counters.sum(number).to_string();
    let since_reset = |what| counters.since_reset(what).to_string();
    let mut lines: Vec<(&str, String)> = match name {
        "server" => vec![
            ("redis_version", facts.store.version.as_deref().unwrap_or(REDIS_VERSION).into()),
            ("redis_mode", mode(facts).into()),
            ("os", std::env::consts::OS.into()),
            ("arch_bits", usize::BITS.to_string()),
            ("tcp_port", facts.settings.port.to_string()),
            ("uptime_in_seconds", facts.uptime().to_string()),
            ("uptime_in_days", (facts.uptime() / 86400).to_string()),
            ("memstore_version", env!("CARGO_PKG_VERSION").into()),
            ("memstore_pool", facts.pool.into()),
        ],
        "clients" => vec![
            ("connected_clients", total(|counters| counters.client_connections.get())),
            ("blocked_clients", blocked(facts).to_string()),
            ("tracking_clients", total(|counters| counters.tracking_clients.get())),
        ],
        "stats" => vec![
            ("total_connections_received", since_reset(Resettable::Connections)),
            ("total_commands_processed", since_reset(Resettable::Requests)),
            ("total_error_replies", since_reset(Resettable::Errors)),
            ("tracking_total_keys", total(|counters| counters.tracked_keys.get())),
            ("tracking_total_prefixes", total(|counters| counters.tracked_prefixes.get())),
        ],
        // The shards have replicas of their own; to its clients the proxy is a primary without any.
        "replication" => vec![("role", "master".into()), ("connected_slaves", "0".into())],
        "cluster" => vec![("cluster_enabled", u8::from(facts.settings.facade.is_some()).to_string())],
        _ => Vec::new(),
    };
    if let (Some(valkey), "server") = (&facts.store.valkey, name) {
        // As a Valkey has them, behind the version of the Redis that it came from.
        let lines_of_valkey = [
            ("server_name", "valkey".to_owned()),
            ("valkey_version", valkey.clone()),
            ("server_mode", mode(facts).to_owned()),
        ];
        lines.splice(1..1, lines_of_valkey);
    }
    let mut title = name.to_owned();
    let capitals = if name == "cpu" { name.len() } else { 1 };
    title[..capitals].make_ascii_uppercase();
    text.push_str(&format!("# {title}\r\n"));
    for (key, value) in lines {
        text.push_str(&format!("{key}:{value}\r\n"));
    }
    facts.store.write(name, |db| facts.settings.has_database(db), text);
}

/// What kind of server the shards are and their version, which clients go by; where that is not known, the Redis whose commands
/// the proxy speaks.
pub fn kind<'f>(facts: &Facts<'f, Resp>) -> (&'static str, &'f str) {
    match (&facts.store.valkey, &facts.store.version) {
        (Some(valkey), _) => ("valkey", valkey),
        (None, Some(redis)) => ("redis", redis),
        (None, None) => ("redis", REDIS_VERSION),
    }
}

/// What the proxy is to its clients: one server, or a cluster.
pub fn mode(facts: &Facts<'_, Resp>) -> &'static str {
    if facts.settings.facade.is_some() { "cluster" } else { "standalone" }
}

/// `CONFIG SET parameter value ...`: the events of keys that a client wants to hear of, or why it cannot have its way.
pub fn config_set(pairs: &[&[u8]]) -> Result<Flags, String> {
    let (pairs, []) = pairs.as_chunks::<2>() else {
        return Err("ERR wrong number of arguments for 'config|set' command".into());
    };
    let failed = |reason: &str| {
        Err(format!("ERR CONFIG SET failed (possibly related to argument '{EVENTS}') - {reason}"))
    };
    match pairs {
        [[name, flags]] if name.eq_ignore_ascii_case(EVENTS.as_bytes()) => Flags::of(flags)
            .map_or_else(|| failed("Invalid event class character. Use 'Ag$lshzxeKEtmdn'."), Ok),
        pairs if pairs.iter().all(|[name, _]| name.eq_ignore_ascii_case(EVENTS.as_bytes())) => {
            failed("duplicate parameter")
        }
        _ => Err(format!(
            "ERR CONFIG SET is refused: it would change the shards for all clients of the proxy; ask the shards directly. Only {EVENTS} can be set"
        )),
    }
}

/// Parameters that CONFIG GET knows: those below, and two of the shards.
pub const PARAMETERS_MAX: usize = 11;
/// Patterns that shards are asked for at once: they hold each against each of their parameters, and serve nobody meanwhile.
const PATTERNS_MAX: usize = 64;
const PATTERN_BYTES_MAX: usize = 4096;

/// `CONFIG GET pattern ...`: the parameters that clients and tools ask for. Those of the proxy, and further ones of the shards.
pub fn config(all: &[&[u8]], resp3: bool, facts: &Facts<'_, Resp>, out: &mut Vec<u8>) -> Route<Merge> {
    let parameters = [
        ("cluster-enabled", if facts.settings.facade.is_some() { "yes" } else { "no" }.to_owned()),
        ("databases", facts.settings.databases.to_string()),
        (EVENTS, facts.store.events.clone().unwrap_or_default()),
        ("port", facts.settings.port.to_string()),
        ("proto-max-bulk-len", crate::protocol::resp::decode::BULK_MAX.to_string()),
        ("tcp-keepalive", "0".to_owned()),
        ("timeout", "0".to_owned()),
    ];
    let limit = facts.store.number("maxmemory").map(|limit| ("maxmemory", limit.to_string()));
    let policy = facts.store.policy.clone().map(|policy| ("maxmemory-policy", policy));
    let (slower_than, entries) = facts.settings.slow_log;
    let slow_log =
        [("slowlog-log-slower-than", slower_than.to_string()), ("slowlog-max-len", entries.to_string())];
    // Where the shards' logs are shown theirs are the parameters as well.
    let slow_log = slow_log.into_iter().filter(|_| !facts.settings.slow_log_of_shards);
    let parameters: Vec<_> = parameters.into_iter().chain(limit).chain(policy).chain(slow_log).collect();
    let mut found: Vec<(&[u8], &str)> = Vec::new();
    let patterns = all.get(2..).unwrap_or_default();
    let is_known =
        |pattern: &&[u8]| parameters.iter().any(|(name, _)| pattern.eq_ignore_ascii_case(name.as_bytes()));
    let is_known = patterns.iter().all(is_known);
    if !is_known
        && (patterns.len() > PATTERNS_MAX
            || patterns.iter().map(|pattern| pattern.len()).sum::<usize>() > PATTERN_BYTES_MAX)
    {
        let words = format!(
            "ERR 'config|get' is limited to {PATTERNS_MAX} patterns and {PATTERN_BYTES_MAX} bytes; send several"
        );
        encode::error(out, &words);
        return Route::Answer;
    }
    let mut parameters = parameters.iter().map(Some).collect::<Vec<_>>();
    // In the order they are asked for, each once; the server has an order of its own in each process.
    for pattern in patterns {
        let read = glob::Pattern::new(pattern);
        for parameter in &mut parameters {
            let Some((name, value)) = *parameter else { continue };
            if read.matches(name.as_bytes()) {
                // A name comes back as it was asked for, because clients look for it in the reply.
                let is_name = pattern.eq_ignore_ascii_case(name.as_bytes());
                found.push((if is_name { pattern } else { name.as_bytes() }, value));
                *parameter = None;
            }
        }
    }
    encode::map(out, resp3, found.len());
    for (name, value) in found {
        encode::bulk(out, name);
        encode::bulk(out, value.as_bytes());
    }
    if is_known { Route::Answer } else { Route::AllShards(Merge::Parameters) }
}
