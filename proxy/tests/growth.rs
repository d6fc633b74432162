//! No queue without a limit, no limit without a counter: each field of the data path that can grow has a row here that says
//! what it is bounded by. A field without a row fails, and so does a limit or a metric that is not there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use memstore_proxy::account::Account;
use memstore_proxy::pool::Limits;
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};
use world::World;

mod allocated;
mod world;

/// What a field cannot outgrow.
#[derive(Clone, Copy)]
enum Bound {
    /// A setting, and the metric that shows it.
    Setting(&'static str, &'static str),
    /// A constant of the code, and the metric that shows it.
    Constant(&'static str, &'static str),
    /// An entry for each client at most (`client_connections`).
    Clients,
    /// An entry for each shard connection at most: as many as there are shards, `server_connections` and lanes.
    Connections,
    /// What is in the account of `memory_max`.
    Account,
    /// Emptied in each pass of the worker; what is read in one is limited.
    Pass,
    /// As large as the configuration and the topology.
    Configured,
    /// As large as a list in the code.
    Written,
}

use Bound::*;

impl Bound {
    /// The limit and its metric.
    fn limit(self) -> Option<(Limit, &'static str)> {
        Some(match self {
            Setting(name, metric) => (Limit::Setting(name), metric),
            Constant(name, metric) => (Limit::Constant(name), metric),
            Clients => (Limit::Setting("client_connections"), "memstore_client_connections"),
            Connections => (Limit::Setting("server_connections"), "memstore_shard_connections"),
            Account => (Limit::Setting("memory_max"), "memstore_memory_held_bytes"),
            Pass => (Limit::Constant("PASS_BYTES_MAX"), "memstore_worker_pass_duration_seconds"),
            Configured | Written => return None,
        })
    }
}

enum Limit {
    Setting(&'static str),
    Constant(&'static str),
}

const QUEUE: Bound = Setting("shard_queue_max", "memstore_queue_full");
const IN_FLIGHT: Bound = Setting("in_flight_max", "memstore_client_pauses");
const REQUEST: Bound = Setting("request_bytes_max", "memstore_client_disconnects");
const ARGUMENTS: Bound = Setting("arguments_max", "memstore_client_disconnects");
const PARKED: Bound = Constant("PARKED_BYTES_MAX", "memstore_cluster_redirects");
const BLOCKED: Bound = Setting("blocked_max", "memstore_shard_private_connections");
const WIDE: Bound = Setting("blocked_max", "memstore_shard_multi_shard_blocked_clients");
const CONFIRMING: Bound = Setting("blocked_max", "memstore_replica_blocked_clients");
const LANES: Bound = Constant("LANES_MAX", "memstore_shard_lanes");
const LINGERING: Bound = Constant("LINGERING_MAX", "memstore_client_connections");
const KEPT: Bound = Constant("KEPT_MAX", "memstore_tracked_keys_evicted");
const PREFIXES: Bound = Constant("PREFIXES_MAX", "memstore_tracked_prefixes");
const SUBSCRIPTIONS: Bound = Setting("subscriptions_max", "memstore_subscribers");
const SCRIPTS: Bound = Constant("SCRIPTS_MAX", "memstore_scripts_forgotten");
const SLOW: Bound = Setting("slowlog_max_len", "memstore_slow_requests_unlogged");
const TRANSACTION: &str = "memstore_transactions_too_large";
const HOTTEST: &str = "memstore_hottest_key_share";
const REFUSED: &str = "memstore_requests_refused";

/// Each field that can grow, by file and place.
const ROWS: &[(&str, Bound)] = &[
    ("admin/history/mod.rs History.busy", Configured),
    ("admin/history/mod.rs History.pools", Constant("POOLS_MAX", "memstore_memory_held_bytes")),
    ("admin/history/mod.rs Look.healthy", Configured),
    ("admin/history/mod.rs OfPool.followed", Constant("SHARDS_MAX", "memstore_memory_held_bytes")),
    ("admin/history/mod.rs OfPool.name", Configured),
    ("admin/history/mod.rs OfPool.shards", Configured),
    ("admin/history/series.rs Rows.rows", Constant("SAMPLES_MAX", "memstore_memory_held_bytes")),
    ("buffer.rs Ahead.blocks", Account),
    ("buffer.rs Output.copied", Account),
    ("buffer.rs Output.shared", Account),
    ("buffer.rs Rest.0", Account),
    ("control/care/commands.rs Kept.run", Constant("TOLD_MAX", "memstore_learnt_commands")),
    ("control/care/commands.rs Learning.differences", Configured),
    ("control/care/commands.rs Learning.shards", Configured),
    ("control/care/functions.rs Functions.differences", Configured),
    ("control/care/functions.rs Functions.shards", Configured),
    ("control/care/functions.rs Said.run", Configured),
    ("control/events.rs Events.held", Configured),
    ("control/events.rs Events.waiting", Constant("FLAGS_WAITING_MAX", "memstore_events_refused")),
    ("net/stream.rs LayeredStream.come", Constant("READ_SIZE", "memstore_shard_connections")),
    ("net/stream.rs LayeredStream.output", Constant("TAKEN_MAX", "memstore_shard_connections")),
    ("net/tls.rs Tls.come", Account),
    ("pool/broadcasts.rs Broadcasts.by_prefix", PREFIXES),
    ("pool/broadcasts.rs Broadcasts.lengths", PREFIXES),
    ("pool/broadcasts.rs Broadcasts.listeners", Clients),
    ("pool/broadcasts.rs Broadcasts.subscribed", Constant("SUBSCRIBED_MAX", "memstore_tracked_prefixes")),
    ("pool/broadcasts.rs Broadcasts.tellers", Configured),
    ("pool/broadcasts.rs Recent.order", Constant("RECENT_MAX", "memstore_tracked_prefixes")),
    ("pool/broadcasts.rs Recent.told", Constant("RECENT_MAX", "memstore_tracked_prefixes")),
    ("monitor.rs Feed.lines", Constant("FEED_MAX", "memstore_monitor_lines_dropped")),
    ("monitor.rs Filter.shard", Configured),
    ("monitor.rs Monitors.all", Constant("MONITORS_MAX", "memstore_monitors")),
    ("monitor.rs Taken.lines", Constant("FEED_MAX", "memstore_monitor_lines_dropped")),
    ("pool/monitoring.rs Seen.takers", Constant("MONITORS_MAX", "memstore_monitors")),
    ("pool/monitoring.rs Seen.words", Pass),
    ("pool/service/look.rs Books.monitors", Constant("MONITORS_MAX", "memstore_monitors")),
    ("mailboxes.rs Letter.senders", Clients),
    ("mailboxes.rs Letter.told", Constant("MAIL_MAX", "memstore_tracking_clients")),
    ("mailboxes.rs Mail.letters", Clients),
    ("mailboxes.rs Mail.lost", Clients),
    ("pool/caches.rs Caches.emptied", Clients),
    ("pool/clients.rs Clients.forwarded", Pass),
    ("pool/forwarding.rs Forwarding.receivers", Clients),
    ("pool/forwarding.rs Forwarding.senders", Clients),
    ("pool/caches.rs Caches.known", Clients),
    ("pool/caches.rs Caches.late", Constant("LATE_MAX", "memstore_invalidations_of_all")),
    ("pool/caches.rs Caches.order", KEPT),
    ("pool/caches.rs Caches.tables", KEPT),
    ("pool/caches.rs Caches.tracking", Clients),
    ("pool/caches.rs Kept.clients", KEPT),
    ("pool/caches.rs Late.clients", Clients),
    ("pool/channels.rs Channels.answered", Pass),
    ("pool/channels.rs Channels.awaited", SUBSCRIPTIONS),
    ("pool/channels.rs Channels.dropped", Pass),
    ("pool/channels.rs Channels.names", SUBSCRIPTIONS),
    ("pool/channels.rs Channels.handing", Connections),
    ("pool/channels.rs Handing.starts", Pass),
    ("pool/channels.rs Channels.recounted", Pass),
    ("pool/channels.rs Channels.put_off", Connections),
    ("pool/channels.rs Channels.ready", Pass),
    ("pool/channels.rs Channels.subscribers", Clients),
    ("pool/channels.rs Name.claimants", SUBSCRIPTIONS),
    ("pool/channels.rs Name.listeners", Clients),
    ("pool/channels.rs Name.waiting", SUBSCRIPTIONS),
    ("pool/channels.rs Request.failed", Account),
    ("pool/channels.rs Request.names", SUBSCRIPTIONS),
    ("pool/channels.rs Subscriber.line", IN_FLIGHT),
    ("pool/channels.rs Subscriber.names", SUBSCRIPTIONS),
    ("pool/block.rs Block.keys", Account),
    ("pool/block.rs Block.own", Setting("request_bytes_max", TRANSACTION)),
    ("pool/block.rs Block.queued", Setting("arguments_max", TRANSACTION)),
    ("pool/block.rs Block.scripts", Constant("NAMED_MAX", "memstore_scripts_loaded")),
    ("pool/block.rs Block.requests", Setting("request_bytes_max", TRANSACTION)),
    ("pool/client.rs Activity.ahead", Account),
    ("pool/client.rs Activity.rest", Account),
    ("pool/clients.rs Clients.blocked", Clients),
    ("pool/clients.rs Clients.resumable", Clients),
    ("pool/clients.rs Clients.table", Clients),
    ("pool/clients.rs Clients.vacant", Clients),
    ("pool/clients.rs Dirty.0", Clients),
    ("pool/clients.rs Line.0", Clients),
    ("pool/clients.rs SpareActivities.0", Constant("SPARE_ACTIVITIES_MAX", "memstore_client_connections")),
    ("pool/connection.rs Connection.in_flight", QUEUE),
    ("pool/connection.rs Connection.kept", Account),
    ("pool/connection.rs Connection.output", Account),
    ("pool/connection.rs Connection.rest", Account),
    ("pool/connection.rs Connection.waiting", Clients),
    ("pool/connection/forsake.rs Parts.dropped", QUEUE),
    ("pool/connection/loaded.rs Loaded.sent", SCRIPTS),
    ("pool/connection/loaded.rs Loaded.refused", SCRIPTS),
    ("pool/connection/loaded.rs Loaded.coming", SCRIPTS),
    ("pool/connection/loaded.rs Loaded.asked", Clients),
    ("pool/connections.rs Connections.dirty", Connections),
    ("pool/connections.rs Connections.lane_of", LANES),
    ("pool/connections.rs Connections.lanes", LANES),
    ("pool/connections.rs Connections.pins", BLOCKED),
    ("pool/connections.rs Connections.roomy", Pass),
    ("pool/connections.rs Connections.slab", Connections),
    ("pool/connections.rs Connections.to_close", Connections),
    ("pool/connections.rs Connections.to_connect", Connections),
    ("pool/connections.rs Connections.unneeded", Connections),
    ("pool/connections.rs Lane.of_members", Connections),
    ("pool/context.rs Identity.name", Configured),
    ("pool/denials.rs Denials.delayed", Clients),
    ("pool/feed.rs Feed.asked", Constant("ASKED_MAX", "memstore_shard_in_flight_requests")),
    ("pool/feed.rs Feed.backlog", SUBSCRIPTIONS),
    ("pool/feed.rs Feed.names", SUBSCRIPTIONS),
    ("pool/intake/feed.rs Run.starts", Pass),
    ("pool/handshake.rs Handshake.output", Configured),
    ("pool/moving.rs Moving.channels", SUBSCRIPTIONS),
    ("pool/moving.rs Moving.due", SUBSCRIPTIONS),
    ("pool/moving.rs Moving.said", Pass),
    ("pool/mod.rs Pool.transports", Clients),
    ("pool/members.rs Members.all", Configured),
    ("pool/members.rs Members.events", Pass),
    ("pool/members.rs Members.of_shards", Configured),
    ("pool/members.rs Members.vacant", Configured),
    ("pool/pace.rs Pace.put_off", BLOCKED),
    ("pool/spare.rs Spare.lists", BLOCKED),
    ("pool/tracker.rs Tracker.asked", Constant("ASKED_MAX", "memstore_shard_in_flight_requests")),
    ("pool/tracker.rs Tracker.backlog", QUEUE),
    ("pool/tracker.rs Tracker.news", Pass),
    ("pool/confirming.rs Confirmations.fresh", Pass),
    ("pool/confirming.rs Confirmations.keepers", Configured),
    ("pool/confirming.rs Confirmations.of_clients", CONFIRMING),
    ("pool/confirming.rs Confirmations.of_parts", Account),
    ("pool/confirming.rs Confirmations.rounds", CONFIRMING),
    ("pool/confirming.rs Round.clients", CONFIRMING),
    ("pool/confirming.rs Round.parts", Configured),
    ("pool/transfers.rs Transfers.of_clients", QUEUE),
    ("pool/transfers.rs Transfers.under_way", QUEUE),
    ("pool/transfers.rs Transfers.waiting", QUEUE),
    ("pool/wide.rs Attempt.tried", Account),
    ("pool/wide.rs Line.rivals", REQUEST),
    ("pool/wide.rs Line.waiting", Account),
    ("pool/wide.rs Name.lines", Account),
    ("pool/wide.rs Wanted.rivals", REQUEST),
    ("pool/wide.rs WideWait.keys", Account),
    ("pool/wide.rs WideWait.last", Account),
    ("pool/wide.rs WideWait.members", Configured),
    ("pool/wide.rs WideWait.parts", Account),
    ("pool/wide.rs WideWaits.at", Configured),
    ("pool/wide.rs WideWaits.away", Configured),
    ("pool/wide.rs WideWaits.attempts", Account),
    ("pool/wide.rs WideWaits.by_name", Account),
    ("pool/wide.rs WideWaits.due", WIDE),
    ("pool/wide.rs WideWaits.apart", Account),
    ("pool/wide.rs WideWaits.hot", Account),
    ("pool/wide.rs WideWaits.idle", Constant("IDLE_MAX", "memstore_multi_shard_blocked_clients")),
    ("pool/wide.rs WideWaits.lines", Account),
    ("pool/wide.rs WideWaits.names", Account),
    ("pool/wide.rs WideWaits.paused", Account),
    ("pool/wide.rs WideWaits.unasked", Pass),
    ("pool/wide.rs WideWaits.up", Configured),
    ("pool/wide.rs WideWaits.waits", WIDE),
    ("pool/wide/looks.rs Looks.lines", Pass),
    ("pool/wide/looks.rs Looks.queue", Pass),
    ("pool/wide/looks.rs Looks.queued", Pass),
    ("pool/watch.rs Watch.keys", Constant("KEYS_BYTES_MAX", "memstore_shard_watching_clients")),
    ("pool/redirect.rs Latest.0", QUEUE),
    ("pool/redirect.rs Redirects.abandoned", Connections),
    ("pool/redirect.rs Redirects.attempted", Pass),
    ("pool/redirect.rs Redirects.executed", QUEUE),
    ("pool/redirect.rs Redirects.fresh", QUEUE),
    ("pool/redirect.rs Redirects.heard", Pass),
    ("pool/redirect.rs Redirects.interrupted", BLOCKED),
    ("pool/parked.rs Waiting.requests", PARKED),
    ("pool/redirect.rs Redirects.parked_due", PARKED),
    ("pool/merging.rs Merging.parts", Account),
    ("pool/redirect.rs Redirects.unscripted", Pass),
    ("pool/redirect.rs Redirects.inquiries", Pass),
    ("pool/rerun.rs Inquiry.request", Pass),
    ("pool/rerun.rs Named.scripts", Constant("NAMED_MAX", "memstore_scripts_loaded")),
    ("pool/rerun.rs Named.request", Constant("KEPT_MAX", "memstore_scripts_repaired")),
    ("pool/replies.rs Replies.held", Account),
    ("pool/replies.rs Replies.output", Account),
    ("pool/replies.rs Replies.queue", IN_FLIGHT),
    ("pool/router.rs Fragments.down", Configured),
    ("pool/router.rs Fragments.of_units", Configured),
    ("pool/router.rs Fragments.targets", Configured),
    ("pool/router.rs Feeds.of_members", Connections),
    ("pool/wishes.rs Wishes.queue", Pass),
    ("protocol/caching.rs KeysRead.keys", ARGUMENTS),
    ("protocol/caching.rs KeysRead.unsure", ARGUMENTS),
    ("protocol/clients.rs ClientFilter.address", REQUEST),
    ("protocol/clients.rs ClientFilter.local_address", REQUEST),
    ("protocol/clients.rs ClientFilter.user", REQUEST),
    ("protocol/clients.rs Found.refusal", Pass),
    ("protocol/clients.rs Ids.0", REQUEST),
    ("protocol/clients.rs Rows.ends", Clients),
    ("protocol/clients.rs Rows.text", Clients),
    ("protocol/memcache/decode.rs RequestDecoder.rewritten", REQUEST),
    ("protocol/mod.rs Malformed.0", Pass),
    ("protocol/request.rs Plan.decoded", REQUEST),
    ("protocol/request.rs Plan.fragments", REQUEST),
    ("protocol/request.rs Plan.keys", ARGUMENTS),
    ("protocol/request.rs Plan.owners", ARGUMENTS),
    ("protocol/request.rs Plan.reply", Pass),
    ("protocol/owners.rs Part.bytes", Account),
    ("protocol/resp/decode.rs RequestDecoder.rewritten", Constant("LINE_MAX", "memstore_client_disconnects")),
    ("protocol/glob.rs Pattern.elements", Constant("TEXT_MAX", REFUSED)),
    ("protocol/resp/caching.rs Sought.is_there", Written),
    ("protocol/resp/command/learnt.rs Commands.lacks", Written),
    ("protocol/resp/command/learnt.rs Commands.learnt", Constant("LEARNT_MAX", "memstore_learnt_commands")),
    ("protocol/resp/command/reading.rs Told.keys", Constant("GROUPS_MAX", "memstore_learnt_commands")),
    ("protocol/resp/local/caching.rs Options.prefixes", ARGUMENTS),
    ("protocol/resp/local/encoded.rs Encoded.places", Written),
    ("protocol/wide.rs Alone.rivals", REQUEST),
    ("protocol/resp/wide.rs Sought.positions", ARGUMENTS),
    ("protocol/resp/wide.rs Sought.words", ARGUMENTS),
    ("protocol/resp/facade.rs Facade.nodes", Configured),
    ("protocol/resp/facade.rs Node.host", Configured),
    ("protocol/resp/acl/file.rs Mistake.shown", Configured),
    ("protocol/resp/acl/file.rs Users.users", Configured),
    ("protocol/resp/acl/file.rs Mistake.text", Configured),
    ("protocol/resp/acl/file.rs Line.words", Configured),
    ("protocol/resp/acl/patterns.rs Keys.patterns", Configured),
    ("protocol/resp/acl/patterns.rs ChannelNames.patterns", Configured),
    ("protocol/resp/acl/rules.rs CommandRules.rules", Configured),
    ("protocol/resp/acl/rules.rs CommandRules.first", Configured),
    ("protocol/resp/acl/user.rs User.passwords", Configured),
    ("protocol/resp/acl/user.rs User.selectors", Configured),
    ("protocol/resp/session.rs Names.library", Constant("NAME_MAX", REFUSED)),
    ("protocol/resp/session.rs Names.library_version", Constant("NAME_MAX", REFUSED)),
    ("protocol/resp/session.rs Names.name", Constant("NAME_MAX", REFUSED)),
    ("protocol/resp/session.rs Names.trace", Constant("NAME_MAX", REFUSED)),
    ("protocol/resp/session.rs Settings.user", Configured),
    ("protocol/resp/usage.rs Calls.shards", Account),
    // 128 kinds and modules, whatever shards say.
    ("protocol/store.rs Store.allocator", Configured),
    ("protocol/store.rs Store.errors", Configured),
    ("protocol/store.rs Store.events", Configured),
    ("protocol/store.rs Store.keyspace", Configured),
    ("protocol/store.rs Store.modules", Configured),
    ("protocol/store.rs Store.numbers", Configured),
    ("protocol/store.rs Store.policy", Configured),
    ("protocol/store.rs Store.valkey", Configured),
    ("protocol/store.rs Store.version", Configured),
    ("scripts/libraries.rs Changes.known", Constant("NAMES_MAX", "memstore_function_differences")),
    ("scripts/libraries.rs Library.codes", Constant("CODES_MAX", "memstore_function_differences")),
    ("slow.rs Book.entries", SLOW),
    ("slow.rs Traced.entries", Constant("TRACED_MAX", "memstore_trace_requests_dropped")),
    ("slow.rs Entry.words", Constant("WORDS_MAX", "memstore_slow_requests_unlogged")),
    ("slow.rs Sender.address", Constant("WORD_BYTES_MAX", "memstore_slow_requests_unlogged")),
    ("slow.rs Sender.name", Constant("WORD_BYTES_MAX", "memstore_slow_requests_unlogged")),
    ("slow.rs Sender.user", Constant("WORD_BYTES_MAX", "memstore_slow_requests_unlogged")),
    ("pool/noted.rs NotedRequests.open", Constant("OPEN_MAX", "memstore_slow_requests_unlogged")),
    ("pool/noted.rs Noted.words", Constant("WORDS_MAX", "memstore_slow_requests_unlogged")),
    ("pool/connection/trail.rs Trail.pieces", Constant("WRITES_MAX", "memstore_slow_requests_unlogged")),
    ("pool/connection/trail.rs Trail.bytes", Account),
    ("pool/connection/trail.rs Traced.head", Constant("HEAD_MAX", "memstore_slow_requests_unlogged")),
    ("scripts.rs Book.by_digest", SCRIPTS),
    ("scripts.rs Book.entries", SCRIPTS),
    ("scripts.rs Book.order", SCRIPTS),
    ("scripts.rs Book.vacant", SCRIPTS),
    ("worker/driver.rs Driver.again", Clients),
    ("worker/driver.rs Driver.clients", Clients),
    ("worker/driver.rs Driver.connects", Connections),
    ("worker/driver.rs Driver.dirty_clients", Clients),
    ("worker/driver.rs Driver.dirty_shards", Connections),
    ("worker/driver.rs Driver.paused_clients", Clients),
    ("worker/driver.rs Driver.paused_shards", Connections),
    ("worker/driver.rs Driver.scratch", Pass),
    ("worker/driver.rs Driver.shards", Connections),
    ("worker/driver/report.rs Untold.shards", Configured),
    ("worker/linger.rs Lingering.connections", LINGERING),
    ("hot.rs Book.asked", Constant("ASKED_MAX", HOTTEST)),
    ("hot.rs Pending.keys", Constant("COUNTED_MAX", HOTTEST)),
    ("hot.rs Pending.text", Constant("COUNTED_MAX", HOTTEST)),
    ("hot.rs Report.keys", Constant("KEYS_MAX", HOTTEST)),
    ("hot.rs Report.large_replies", Constant("LARGEST_MAX", HOTTEST)),
    ("hot.rs Report.large_requests", Constant("LARGEST_MAX", HOTTEST)),
    ("hot.rs Span.largest", Constant("LARGEST_MAX", HOTTEST)),
    ("hot/sketch.rs Sketch.counters", Constant("KEYS_MAX", HOTTEST)),
    ("hot/sketch.rs Sketch.counts", Constant("KEYS_MAX", HOTTEST)),
    ("hot/sketch.rs Sketch.hashes", Constant("KEYS_MAX", HOTTEST)),
    ("log_limit.rs ShardLines.0", Configured),
    ("log_limit.rs Told.reason", Configured),
    ("worker/messages.rs List.listed", Clients),
    ("worker/messages.rs PoolSender.sender", Configured),
    ("worker/mod.rs WorkerSetup.alarms", Configured),
    ("worker/mod.rs WorkerSetup.pools", Configured),
    ("worker/questions.rs ClientListing.rows", Clients),
    ("worker/questions.rs Questions.open", Clients),
];

/// Types that grow.
const GROWING: &[&str] = &[
    "Ahead",
    "BTreeMap",
    "BTreeSet",
    "BinaryHeap",
    "BytesMut",
    "HashMap",
    "HashSet",
    "Output",
    "Rest",
    "Slab",
    "Table",
    "String",
    "UnboundedReceiver",
    "UnboundedSender",
    "Vec",
    "VecDeque",
];

fn sources(folder: &Path, into: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of this package") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
            let name = path.strip_prefix(root).expect("below src").display().to_string();
            // A file may have nothing else: `#![cfg(test)]`.
            into.insert(name, text.split("[cfg(test)]").next().unwrap_or_default().to_owned());
        }
    }
}

fn grows(kind: &str) -> bool {
    kind.split(|character: char| !character.is_alphanumeric()).any(|word| GROWING.contains(&word))
}

/// Fields of structs in `code` that can grow.
fn fields(file: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut within: Option<&str> = None;
    for line in code.lines() {
        let plain = line.trim_start_matches("pub ").trim_start_matches("pub(super) ");
        if let Some(head) = plain.strip_prefix("struct ") {
            let name = head.split(|character: char| !character.is_alphanumeric()).next().unwrap_or_default();
            if line.ends_with('{') {
                within = Some(name);
            } else if head.contains('(') && grows(head.split_once('(').map_or("", |(_, fields)| fields)) {
                found.push(format!("{file} {name}.0"));
            }
        } else if line.starts_with('}') {
            within = None;
        } else if let Some(name) = within
            && let Some((field, kind)) = line.trim().split_once(": ")
            && !field.starts_with("//")
            && grows(kind)
        {
            let field = field.rsplit(' ').next().unwrap_or_default();
            found.push(format!("{file} {name}.{field}"));
        }
    }
    found
}

#[test]
fn every_field_that_can_grow_has_a_limit_and_every_limit_a_metric() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut code = BTreeMap::new();
    sources(&root, &mut code);
    let everything: String = code.values().map(String::as_str).collect();
    let rows: BTreeMap<_, _> = ROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for (file, code) in &code {
        if [
            "admin/history/",
            "buffer.rs",
            "control/care/commands.rs",
            "control/care/functions.rs",
            "control/events.rs",
            "hot.rs",
            "hot/",
            "log_limit.rs",
            "mailboxes.rs",
            "monitor.rs",
            "net/",
            "pool/",
            "scripts.rs",
            "slow.rs",
            "scripts/",
            "worker/",
            "protocol/",
        ]
        .iter()
        .any(|folder| file.starts_with(folder))
        {
            seen.extend(fields(file, code));
        }
    }
    assert!(seen.len() > 80, "the fields are not found any more: {seen:?}");
    for field in &seen {
        match rows.get(field.as_str()) {
            None => wrong.push(format!("{field} has no row: what keeps it from growing?")),
            Some(bound) => {
                let Some((limit, metric)) = bound.limit() else { continue };
                let there = match limit {
                    Limit::Setting(name) => code["config/settings.rs"].contains(&format!("(\"{name}\"")),
                    Limit::Constant(name) => everything.contains(&format!("const {name}: ")),
                };
                if !there {
                    wrong.push(format!("{field}: its limit is not there"));
                }
                if !everything.contains(&format!("\"{metric}\"")) {
                    wrong.push(format!("{field}: there is no metric {metric}"));
                }
            }
        }
    }
    wrong.extend(
        rows.keys()
            .filter(|row| !seen.iter().any(|field| field == *row))
            .map(|row| format!("{row}: no such field")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The operator's page of limits speaks of what there is.
#[test]
fn the_page_of_limits_names_settings_and_metrics_that_exist() {
    let mut code = BTreeMap::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
    let everything: String = code.values().map(String::as_str).collect();
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/limits.md")).expect("the page");
    let mut wrong = Vec::new();
    for quoted in page.split('`').skip(1).step_by(2) {
        let name = quoted.split('{').next().unwrap_or_default();
        if name.starts_with("memstore_") && !everything.contains(&format!("\"{name}\"")) {
            wrong.push(format!("no metric {name}"));
        }
    }
    let settings = &code["config/settings.rs"];
    for line in settings.lines() {
        let Some(name) = line.trim().strip_prefix("setting(\"").and_then(|rest| rest.split('"').next())
        else {
            continue;
        };
        if name.ends_with("_max") && !page.contains(&format!("`{name}`")) {
            wrong.push(format!("{name} is a limit and not on the page"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What so many clients bring about, each of which has a request in flight that its node answers with this: bytes more that
/// are allocated, bytes more that are counted, and bytes that are allocated still once all have gone.
fn all_are_answered(reply: &str) -> [isize; 3] {
    const CLIENTS: usize = 8000;
    let node = Shard::new(Address::Tcp { host: "node".into(), port: 1 }, 1, None);
    let topology = Topology::of_cluster(vec![node], &vec![Some(0); 16_384], vec![Vec::new()]);
    let topology = Arc::new(topology.expect("one node"));
    let mut world = World::<Resp>::new(Settings::default(), Default::default(), topology, 1);
    let account = Account::new(usize::MAX);
    world.pool.share_account(&account, 0);
    world.pool.preconnect();
    world.settle();
    let shard = world.wanted_connects();
    let (said, counted) = (reply.repeat(CLIENTS), || account.held() as isize);
    let at_first = allocated::bytes();
    let clients: Vec<_> = (0..CLIENTS).map(|_| world.pool.client_connected(world.now)).collect();
    clients.iter().for_each(|&client| world.client_sends(client, b"GET k\r\n"));
    world.settle();
    while !world.shard_takes(shard, |length| length).is_empty() {
        world.settle();
    }
    let before = (allocated::bytes(), counted());
    world.shard_sends(shard, said.as_bytes()).expect("responses");
    world.settle();
    let (allocated, counted) = (allocated::bytes() - before.0, counted() - before.1);
    clients.iter().for_each(|&client| world.pool.client_gone(client, true, world.now));
    drop(clients);
    world.pass_time(Duration::from_secs(10));
    [allocated, counted, allocated::bytes() - at_first]
}

/// A failover makes many clients wait at once, and then it is over.
#[test]
fn what_waits_for_a_cluster_is_counted_as_it_is_and_leaves_nothing() {
    let waits = all_are_answered("-CLUSTERDOWN The cluster is down\r\n");
    let plain = all_are_answered("-ERR is what this node says to it\r\n");
    let [allocated, counted, left] = [0, 1, 2].map(|at| waits[at] - plain[at]);
    println!("{waits:?} and {plain:?}: {allocated} allocated, {counted} counted, {left} left");
    assert!(allocated <= counted && counted <= allocated * 4 / 3, "{allocated} allocated, {counted} counted");
    assert!(left < 64 << 10, "{left} bytes");
}

/// What clients take that wait at several shards, each for other keys, and what is left of them.
#[test]
fn what_waits_at_several_shards_is_counted_and_leaves_little() {
    const CLIENTS: usize = 4000;
    let shards = (0..3).map(|shard| {
        let address = Address::Tcp { host: format!("shard-{shard}"), port: 1 };
        Shard::new(address, 1, Some(format!("shard-{shard}")))
    });
    let topology = Topology::new(shards.collect(), DistributionKind::Ketama, KeyHash::Fnv1a64, None);
    let topology = Arc::new(topology.expect("three shards"));
    let limits = Limits { blocked_max: 100_000, ..Limits::default() };
    let mut world = World::<Resp>::new(Settings::default(), limits, topology, 1);
    let account = Account::new(usize::MAX);
    world.pool.share_account(&account, 0);
    let counted = || account.held() as isize;
    let warm = world.pool.client_connected(world.now);
    world.client_sends(warm, b"BLPOP a b c d e f g 0\r\n");
    world.settle();
    let made = std::mem::take(&mut world.wanted);
    for &id in &made {
        world.shard_connects(id);
        world.settle();
    }
    let answer = |world: &mut World<Resp>| {
        for _ in 0..60 {
            world.settle();
            for &id in &made {
                let asked = world.shard_takes(id, |length| length);
                let asked = String::from_utf8_lossy(&asked).into_owned();
                for word in asked.split("\r\n") {
                    let reply = match word {
                        "HELLO" => "%0\r\n",
                        "TRACKING" => "+OK\r\n",
                        "EXISTS" => ":0\r\n",
                        "LPOP" => "$-1\r\n",
                        _ => continue,
                    };
                    world.shard_sends(id, reply.as_bytes()).expect("a response");
                }
            }
        }
    };
    answer(&mut world);
    let before = (allocated::bytes(), counted());
    let clients: Vec<_> = (0..CLIENTS).map(|_| world.pool.client_connected(world.now)).collect();
    // What a client takes that has begun to say something is counted elsewhere.
    clients.iter().for_each(|&client| world.client_sends(client, b"B"));
    world.settle();
    let idle = allocated::bytes();
    for (number, &client) in clients.iter().enumerate() {
        let said = format!("LPOP first{number} second{number} third{number} 0\r\n");
        world.client_sends(client, said.as_bytes());
    }
    answer(&mut world);
    let (taken, told) = (allocated::bytes() - idle, counted() - before.1);
    clients.iter().for_each(|&client| world.pool.client_gone(client, true, world.now));
    drop(clients);
    world.settle();
    world.pass_time(Duration::from_secs(1));
    let left = allocated::bytes() - before.0;
    println!("{taken} allocated, {told} counted, {left} left of {CLIENTS} clients");
    assert!(taken <= told * 4 / 3, "{taken} allocated, {told} counted");
    // Tables that have grown, and names that shards will tell of.
    assert!(left < 4 << 20, "{left} bytes");
    world.pool.client_gone(warm, true, world.now);
    world.pass_time(Duration::from_secs(30));
    // The account is told in steps.
    assert!(counted() < 2 * 65_536, "{} bytes", counted());
}
