//! The metrics of a pool and of a shard that are a number each: their names, and where they are counted. `/metrics` and `/status`
//! are made of them.

use super::exposition::Kind;
use crate::metrics::{PoolCounters, ShardCounters};

/// A number of a pool.
pub type OfPool = fn(&PoolCounters) -> i64;

/// What each is called, its kind, what it means, and the number.
pub const NUMBERS: [(&str, Kind, &str, OfPool); 54] = [
    ("memstore_client_connections", Kind::Gauge, "Open client connections.", |pool| {
        pool.client_connections.get()
    }),
    ("memstore_client_connections_opened", Kind::Counter, "Client connections accepted.", |pool| {
        pool.client_connections_total.get() as i64
    }),
    ("memstore_requests", Kind::Counter, "Requests read from clients.", |pool| pool.requests.get() as i64),
    ("memstore_client_received_bytes", Kind::Counter, "Bytes read from clients.", |pool| {
        pool.client_received_bytes.get() as i64
    }),
    ("memstore_client_sent_bytes", Kind::Counter, "Bytes written to clients.", |pool| {
        pool.client_sent_bytes.get() as i64
    }),
    ("memstore_requests_refused", Kind::Counter, "Requests refused by the proxy itself.", |pool| {
        pool.refused.get() as i64
    }),
    (
        "memstore_requests_failed",
        Kind::Counter,
        "Requests answered with an error because a shard could not serve them.",
        |pool| pool.forward_error.get() as i64,
    ),
    (
        "memstore_transactions",
        Kind::Counter,
        "Transactions sent to shards, or answered by the proxy alone.",
        |pool| pool.transactions.get() as i64,
    ),
    ("memstore_transaction_requests", Kind::Counter, "Requests queued for a transaction.", |pool| {
        pool.transaction_requests.get() as i64
    }),
    (
        "memstore_transactions_too_large",
        Kind::Counter,
        "Transactions given up because of their size or number of requests.",
        |pool| pool.transactions_too_large.get() as i64,
    ),
    ("memstore_fragments", Kind::Counter, "Fragments of split requests sent to shards.", |pool| {
        pool.fragments.get() as i64
    }),
    ("memstore_tls_handshakes", Kind::Counter, "TLS handshakes completed with clients.", |pool| {
        pool.tls_handshakes.get() as i64
    }),
    (
        "memstore_queue_waits",
        Kind::Counter,
        "Requests that had to wait because the queue of their shard was full.",
        |pool| pool.queue_waits.get() as i64,
    ),
    (
        "memstore_queue_full",
        Kind::Counter,
        "Requests answered with an error because the queue of their shard stayed full.",
        |pool| pool.queue_full.get() as i64,
    ),
    (
        "memstore_blocked_refused",
        Kind::Counter,
        "Requests refused because blocked_max clients already waited for data or watched keys on their shard.",
        |pool| pool.blocked_refused.get() as i64,
    ),
    (
        "memstore_events_refused",
        Kind::Counter,
        "CONFIG SET notify-keyspace-events refused: a shard had just refused such flags, or too many clients waited.",
        |pool| pool.events_refused.get() as i64,
    ),
    (
        "memstore_learnt_commands",
        Kind::Gauge,
        "Commands beyond the built-in table, such as those of modules, that the shards have told of.",
        |pool| pool.learnt_commands.get(),
    ),
    (
        "memstore_learnt_commands_ignored",
        Kind::Gauge,
        "Commands that a shard has told of and that are not served: there are too many, or they have odd names.",
        |pool| pool.passed_over_commands.get(),
    ),
    (
        "memstore_slow_requests",
        Kind::Counter,
        "Requests that took at least slowlog_log_slower_than.",
        |pool| pool.slow.get() as i64,
    ),
    (
        "memstore_slow_requests_unlogged",
        Kind::Counter,
        "Slow requests without an entry in the slow log: they waited behind others at their shard, or many were slow at once.",
        |pool| pool.slow_passed_over.get() as i64,
    ),
    (
        "memstore_access_log_dropped",
        Kind::Counter,
        "Requests left out of the access log because there were more than 1,000 in a second on a worker.",
        |pool| pool.access_passed_over.get() as i64,
    ),
    ("memstore_watches", Kind::Counter, "WATCH commands that a shard has accepted.", |pool| {
        pool.watches.get() as i64
    }),
    (
        "memstore_watches_lost",
        Kind::Counter,
        "Watches that ended without the client: connection lost, keys moved, or idle for 60 s. The next EXEC is answered with nil.",
        |pool| pool.watches_lost.get() as i64,
    ),
    (
        "memstore_watch_conflicts",
        Kind::Counter,
        "Transactions that a shard has not executed because a watched key had changed.",
        |pool| pool.watch_conflicts.get() as i64,
    ),
    (
        "memstore_scripts_loaded",
        Kind::Counter,
        "Scripts sent to a shard (SCRIPT LOAD) ahead of an EVALSHA that needs them there.",
        |pool| pool.scripts_loaded.get() as i64,
    ),
    (
        "memstore_scripts_repaired",
        Kind::Counter,
        "EVALSHA commands sent again because a shard had forgotten a script (SCRIPT FLUSH not through this proxy).",
        |pool| pool.scripts_repaired.get() as i64,
    ),
    (
        "memstore_scripts_forgotten",
        Kind::Counter,
        "Scripts that the proxy forgot because it remembers 4,096 of them and 8 MiB at most.",
        |pool| pool.scripts_forgotten.get() as i64,
    ),
    (
        "memstore_blocked_repeated",
        Kind::Counter,
        "Blocking commands sent again because their shard had unblocked them, as after a failover.",
        |pool| pool.blocked_repeated.get() as i64,
    ),
    (
        "memstore_blocked_delayed",
        Kind::Counter,
        "Connections for blocking commands that were made later, because many were made shortly before.",
        |pool| pool.blocked_delayed.get() as i64,
    ),
    (
        "memstore_multi_shard_blocked_clients",
        Kind::Gauge,
        "Clients that wait for data on several shards, for example by BLPOP.",
        |pool| pool.blocked_wide.get(),
    ),
    (
        "memstore_replica_blocked_clients",
        Kind::Gauge,
        "Clients that wait until replicas have what was written (WAIT, WAITAOF).",
        |pool| pool.blocked_confirming.get(),
    ),
    (
        "memstore_blocked_lost",
        Kind::Counter,
        "Elements that were popped for a client blocked on several shards that disconnected at that moment, and that no other client could take.",
        |pool| pool.blocked_lost.get() as i64,
    ),
    (
        "memstore_cross_shard_renames",
        Kind::Counter,
        "Values brought to another shard by RENAME, RENAMENX or COPY (rename_across_shards).",
        |pool| pool.transfers.get() as i64,
    ),
    (
        "memstore_cross_shard_renames_failed",
        Kind::Counter,
        "RENAME, RENAMENX and COPY over two shards that failed at one of their steps.",
        |pool| pool.transfers_failed.get() as i64,
    ),
    (
        "memstore_function_differences",
        Kind::Gauge,
        "Shards that have another number of function libraries than most shards of the pool.",
        |pool| pool.function_differences.get(),
    ),
    (
        "memstore_function_libraries_restored",
        Kind::Counter,
        "Function libraries loaded on a shard that had come back without any, or had joined.",
        |pool| pool.libraries_brought.get() as i64,
    ),
    (
        "memstore_tracking_clients",
        Kind::Gauge,
        "Clients that have asked to be told of changed keys (CLIENT TRACKING).",
        |pool| pool.tracking_clients.get(),
    ),
    (
        "memstore_tracked_keys",
        Kind::Gauge,
        "Keys that such clients have read and are to be told of.",
        |pool| pool.tracked_keys.get(),
    ),
    (
        "memstore_tracked_prefixes",
        Kind::Gauge,
        "Prefixes of keys of which clients are told (CLIENT TRACKING with BCAST), in each worker.",
        |pool| pool.tracked_prefixes.get(),
    ),
    (
        "memstore_invalidations",
        Kind::Counter,
        "Invalidation messages for keys sent to clients, counted once for each client.",
        |pool| pool.invalidations.get() as i64,
    ),
    (
        "memstore_invalidations_of_all",
        Kind::Counter,
        "Invalidation messages for all keys sent to clients, because a shard was lost, flushed or owns other keys.",
        |pool| pool.invalidations_of_all.get() as i64,
    ),
    (
        "memstore_tracked_keys_evicted",
        Kind::Counter,
        "Tracked keys given up because of the limit of memory; their clients were told that they have changed.",
        |pool| pool.tracked_evicted.get() as i64,
    ),
    (
        "memstore_reads_untracked",
        Kind::Counter,
        "Keys that tracking clients have read where nothing would tell of changes; they were told at once that they have changed.",
        |pool| pool.reads_untracked.get() as i64,
    ),
    ("memstore_subscribers", Kind::Gauge, "Clients that are subscribed to a channel or pattern.", |pool| {
        pool.subscribers.get()
    }),
    (
        "memstore_messages_received",
        Kind::Counter,
        "Messages received from shards because a client is subscribed.",
        |pool| pool.messages.get() as i64,
    ),
    (
        "memstore_messages_delivered",
        Kind::Counter,
        "Messages delivered to clients, counted once for each client.",
        |pool| pool.messages_delivered.get() as i64,
    ),
    (
        "memstore_messages_dropped",
        Kind::Counter,
        "Messages dropped because they are larger than client_output_max or subscriber_output_max.",
        |pool| pool.messages_dropped.get() as i64,
    ),
    (
        "memstore_message_gaps",
        Kind::Counter,
        "Subscription connections lost: messages published on that shard until it was connected again are lost.",
        |pool| pool.message_gaps.get() as i64,
    ),
    (
        "memstore_client_pauses",
        Kind::Counter,
        "Times the requests of a client were paused because of the limits per client.",
        |pool| pool.client_pauses.get() as i64,
    ),
    (
        "memstore_requests_out_of_memory",
        Kind::Counter,
        "Requests refused because they would have exceeded memory_max.",
        |pool| pool.out_of_memory.get() as i64,
    ),
    (
        "memstore_client_wedged",
        Kind::Counter,
        "Times a client read none of its pending replies for 5 s.",
        |pool| pool.client_wedged.get() as i64,
    ),
    ("memstore_auth_failures", Kind::Counter, "Failed authentication attempts of clients.", |pool| {
        pool.wrong_passwords.get() as i64
    }),
    (
        "memstore_shard_lanes",
        Kind::Gauge,
        "Combinations of database, protocol version and large values in use, each with its own shard connections in each worker.",
        |pool| pool.lanes.get(),
    ),
    (
        "memstore_shard_lanes_refused",
        Kind::Counter,
        "Requests refused because they would have needed another combination of database and protocol version.",
        |pool| pool.lanes_refused.get() as i64,
    ),
];

/// A number of a shard.
pub type OfShard = fn(&ShardCounters) -> i64;

/// The same of a shard.
pub const SHARD_NUMBERS: [(&str, Kind, &str, OfShard); 17] = [
    ("memstore_shard_connections", Kind::Gauge, "Open connections to the shard.", |shard| {
        shard.server_connections.get()
    }),
    ("memstore_shard_connections_opened", Kind::Counter, "Connections opened to the shard.", |shard| {
        shard.server_connections_total.get() as i64
    }),
    (
        "memstore_shard_private_connections",
        Kind::Gauge,
        "Connections to the shard for the use of one client at a time, in addition to the shared ones.",
        |shard| shard.private_connections.get(),
    ),
    (
        "memstore_shard_private_connections_held",
        Kind::Gauge,
        "Of these, connections that are used by a client.",
        |shard| shard.private_held.get(),
    ),
    (
        "memstore_shard_blocked_clients",
        Kind::Gauge,
        "Clients that wait for data on the shard, for example by BLPOP.",
        |shard| shard.blocked_clients.get(),
    ),
    (
        "memstore_shard_multi_shard_blocked_clients",
        Kind::Gauge,
        "Clients that wait for data on the shard and on others, without a connection of their own.",
        |shard| shard.wide_clients.get(),
    ),
    (
        "memstore_shard_watching_clients",
        Kind::Gauge,
        "Clients that watch keys on the shard (WATCH).",
        |shard| shard.watching_clients.get(),
    ),
    (
        "memstore_shard_requests",
        Kind::Counter,
        "Requests sent to the shard, including fragments of split requests.",
        |shard| shard.requests.get() as i64,
    ),
    ("memstore_shard_request_bytes", Kind::Counter, "Bytes of requests sent to the shard.", |shard| {
        shard.request_bytes.get() as i64
    }),
    ("memstore_shard_responses", Kind::Counter, "Responses received from the shard.", |shard| {
        shard.responses.get() as i64
    }),
    (
        "memstore_shard_response_bytes",
        Kind::Counter,
        "Bytes of responses received from the shard.",
        |shard| shard.response_bytes.get() as i64,
    ),
    (
        "memstore_shard_queued_requests",
        Kind::Gauge,
        "Requests queued and not yet written to the shard.",
        |shard| shard.in_queue.get(),
    ),
    ("memstore_shard_queued_bytes", Kind::Gauge, "Bytes queued and not yet written to the shard.", |shard| {
        shard.in_queue_bytes.get()
    }),
    (
        "memstore_shard_in_flight_requests",
        Kind::Gauge,
        "Requests written to the shard and not yet answered.",
        |shard| shard.out_queue.get(),
    ),
    (
        "memstore_shard_in_flight_bytes",
        Kind::Gauge,
        "Bytes written to the shard and not yet answered.",
        |shard| shard.out_queue_bytes.get(),
    ),
    (
        "memstore_shard_late_responses",
        Kind::Counter,
        "Responses received after the request had timed out.",
        |shard| shard.late_responses.get() as i64,
    ),
    (
        "memstore_shard_streamed_pieces",
        Kind::Counter,
        "Pieces of large responses forwarded before the response was complete.",
        |shard| shard.streamed.get() as i64,
    ),
];
