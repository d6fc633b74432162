//! The one table of all settings: what may be written where, what it means, what holds if it is absent.
//!
//! Validation, suggestions and the tables in docs/settings.md come from here; a default is read by the same code as a value in
//! a file.

use super::kind;
use super::kind::Kind::{
    self, Auto, Duration, Flag, Limit, Node, Off, Percent, Positive, Secret, Size, Text, Whole, Word,
};

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in the file.
    pub name: &'static str,
    /// What holds if it is absent; `None`: nothing does, or it is required.
    pub default: Option<&'static str>,
    /// What may be written.
    pub kind: Kind,
    /// What it means.
    pub meaning: &'static str,
}

impl Setting {
    /// What this text means as its value; an error says what is allowed.
    ///
    /// # Panics
    /// Its kind has other values.
    pub fn read<T: kind::Value>(&self, text: &str) -> Result<T, String> {
        let written = self.kind.read(text)?;
        Ok(T::of(written).unwrap_or_else(|| panic!("{} is of another kind in the table", self.name)))
    }
}

/// The row of a setting.
///
/// # Panics
/// Every setting has a row.
pub fn row(table: &'static [Setting], name: &str) -> &'static Setting {
    table.iter().find(|setting| setting.name == name).expect("every setting has a row")
}

const fn setting(
    name: &'static str,
    default: Option<&'static str>,
    kind: Kind,
    meaning: &'static str,
) -> Setting {
    Setting { name, default, kind, meaning }
}

/// Settings of a pool. The first group is nutcracker's.
#[rustfmt::skip]
pub const POOL: &[Setting] = &[
    setting("listen", None, Node("host:port, /path, /path 0660, or a list of them and of mappings"), "address that clients connect to, or a list of up to 64; see the listener settings below; required"),
    setting("servers", None, Node("a list of host:port:weight [name] or /path:weight [name]"), "the shards; required unless servers_dns, servers_file, servers_url or cluster is set"),
    setting("hash", Some("fnv1a_64"), Word(&["one_at_a_time", "md5", "crc16", "crc32", "crc32a", "fnv1_64", "fnv1a_64", "fnv1_32", "fnv1a_32", "hsieh", "murmur", "jenkins"]), "hash function for keys"),
    setting("hash_tag", None, Text("two characters in quotes"), "only the part of a key between these two characters is hashed"),
    setting("distribution", Some("ketama"), Word(&["ketama", "modula", "random", "slots", "single"]), "how hashes are mapped to shards"),
    setting("timeout", Some("0"), Limit, "request timeout, including connecting and queueing; the request is then answered with an error"),
    setting("backlog", Some("512"), Whole(0, 2147483647), "length of the listen backlog"),
    setting("client_connections", Some("0"), Whole(0, 4294967295), "maximum number of client connections; further clients are refused; 0 means no limit"),
    setting("redis", Some("false"), Flag, "true: RESP (Redis, Valkey); false: memcached text protocol"),
    setting("tcpkeepalive", Some("true"), Flag, "send TCP keepalive probes to clients that have been idle for a minute, so that dead connections are closed"),
    setting("reuseport", Some("false"), Flag, "set SO_REUSEPORT, so that several processes can listen on the same port"),
    setting("redis_auth", None, Secret("string"), "password that clients must send and that the proxy sends to the shards"),
    setting("redis_db", Some("0"), Whole(0, 4294967294), "the database on the shards that clients are fixed to; SELECT inside a script is not detected"),
    setting("preconnect", Some("false"), Flag, "connect to the shards at start-up"),
    setting("auto_eject_hosts", Some("false"), Flag, "remove failing shards from the ring until a probe succeeds; their keys move to the other shards"),
    setting("server_connections", Some("1"), Whole(1, 65536), "connections per worker to each shard; a client stays on one of them"),
    setting("server_retry_timeout", Some("30000"), Duration, "interval between probes of an ejected shard"),
    setting("server_failure_limit", Some("2"), Whole(0, 4294967295), "consecutive failures after which a shard is ejected; 0 is treated as 1"),

    setting("eject_max_share", Some("50%"), Percent, "maximum percentage of the shards of the pool that may be ejected at a time: at least one if there are two or more, never all; further shards stay in the ring"),
    setting("servers_srv", None, Text("name"), "name of the SRV records that contain the ports of servers_dns, which is then written without a port"),
    setting("servers_dns", None, Text("host:port with {} in the host"), "instead of servers: host name template of the shards; {} is replaced by their numbers, starting at 0"),
    setting("servers_count", None, Whole(1, 65535), "number of shards in servers_dns"),
    setting("servers_names", Some("shard-{}"), Text("string with {}"), "template of the shard names on the ring, independent of the host names"),
    setting("servers_file", None, Text("path, relative to this file"), "instead of servers: a separate file with the list of servers, in YAML"),
    setting("servers_url", None, Text("http://host:port/path"), "instead of servers: URL of a JSON document with the list of servers, or of a topology document with this pool; polled with If-None-Match; the previous list stays active while it cannot be read"),
    setting("servers_url_refresh", Some("5s"), Positive, "how often servers_url is polled"),
    setting("servers_within", None, Text("path, relative to this file"), "a YAML list with a subset of the servers; only these are used; all are used if the file does not exist or names other servers"),
    setting("servers_within_limit", Some("15m"), Limit, "how long servers_within may exclude servers; it is ignored after that if the list of servers still has them"),
    setting("servers_within_attempt", None, Text("path, relative to this file"), "a copy of servers_within that exists only while a rollout applies that list; when it appears, servers_within_limit starts anew, even if it had already expired"),
    setting("servers_peers", None, Text("host:port"), "host name behind which the admin addresses of the other proxies of this pool are found; at start-up the proxy uses the servers that they use, and adds the others once they answer"),
    setting("cluster", None, Node("a mapping"), "instead of servers: a Redis Cluster, which provides the slot ownership itself; see the cluster settings below"),
    setting("pin", None, Node("a mapping of prefixes to shard names or to hash tags in braces"), "keys that begin with one of these prefixes share a shard, whatever their hash and hash tag: the one with this name, or the one that owns this hash tag; the longest prefix counts; for applications that cannot be given a prefix or hash tag of their own"),
    setting("redis_user", None, Text("string"), "user name that the proxy sends to the shards with the password"),
    setting("redis_auth_file", None, Text("path, relative to this file"), "file that contains the password, instead of redis_auth"),
    setting("redis_auth_previous_file", None, Text("path, relative to this file"), "file that contains the previous password during a rotation: also accepted from clients, and sent to shards that reject the new one; not used while the file does not exist"),
    setting("users_file", None, Text("path, relative to this file"), "Redis pools: file with users and their rules in the syntax of Redis' ACL files, beside the password of redis_auth; read again when it changes"),
    setting("redis_auth_env", None, Text("name"), "environment variable that contains the password, instead of redis_auth"),
    setting("reauth", Some("close"), Word(&["close", "keep"]), "what happens to authenticated clients when a reload changes their password: close disconnects them, so that they authenticate again; keep leaves them connected"),
    setting("tls", None, Node("a mapping"), "TLS for clients at listen, or at those of its entries that say nothing else; see the TLS settings below"),
    setting("servers_tls", None, Node("a mapping"), "TLS for connections to the shards; see the settings of TLS to the shards below; {} verifies them by the authorities of the system"),
    setting("databases", Some("16"), Whole(1, 65536), "number of databases available to SELECT"),
    setting("shard_identity", Some("false"), Flag, "Redis pools: verify on connect that the server's replica-announce-ip equals the configured host name (protects against reused pod addresses)"),
    setting("resp3", Some("auto"), Auto(&Flag), "Redis pools: allow RESP3 for clients; auto: only if all shards support it, which is detected"),
    setting("transactions", Some("one-shard"), Word(&["one-shard", "per-shard"]), "Redis pools: which keys MULTI accepts. one-shard: all keys on one shard (in a Redis Cluster: in one slot), otherwise CROSSSLOT; per-shard: any keys; each shard executes its commands as a transaction of its own, so that EXEC is atomic per shard only"),
    setting("rename_across_shards", Some("false"), Flag, "Redis pools of several shards: RENAME, RENAMENX and COPY with keys on two shards copy the value with its time to live (DUMP, RESTORE) and then delete the source; not atomic. false: CROSSSLOT, as always in a Redis Cluster"),
    setting("keys_all_shards", Some("true"), Flag, "Redis pools of several shards, Redis Clusters included: KEYS asks all shards, each of which looks at all its keys at once and serves nobody meanwhile. false: refused; SCAN names the same keys page by page"),
    setting("save_all_shards", Some("false"), Flag, "Redis pools of several shards, Redis Clusters included: SAVE, BGSAVE and BGREWRITEAOF go to all shards, which then all write their data at once. false: refused. A pool of one shard always forwards them"),
    setting("keyless_scripts", Some("refuse"), Text("refuse, any or the name of a shard"), "Redis pools of several shards: where EVAL, EVALSHA and FCALL without keys run. refuse: nowhere, because they may write keys of any shard; any: on one shard, always the same; or on the shard with this name. Read-only ones (EVAL_RO, FCALL_RO) run on one shard with refuse as well"),
    setting("cluster_facade", Some("false"), Flag, "Redis pools: pose as a Redis Cluster whose only node is the proxy, so that clients with cluster support work; plain clients still do"),
    setting("cluster_facade_announce", None, Text("host:port"), "the address that such clients are told; default: the one that they have connected to"),
    setting("cluster_facade_nodes", None, Node("a list of host:port"), "the addresses of all proxies of the pool, at most 128, the same at each: they share the slots, so that each client uses all of them; its DBSIZE, KEYS and SCAN then count every key once for each proxy"),
    setting("miss_on_get_errors", Some("false"), Flag, "memcached pools: answer a get as a miss if its shard cannot serve it"),
    setting("connect_timeout", Some("1s"), Positive, "timeout for connecting to a shard, including name resolution"),
    setting("queue_wait", Some("1s"), Positive, "how long a request may wait for space in the queue of its shard"),
    setting("adopt_wait", Some("60s"), Limit, "how long a reload waits for new shards to answer; the previous configuration stays active until then; none: do not wait"),
    setting("info_refresh", Some("5s"), Limit, "Redis pools: how often the shards are polled for the values that INFO and CONFIG GET report; none: never"),
    setting("client_idle_timeout", Some("none"), Limit, "disconnect clients that send no request, or read none of their replies, for this long"),
    setting("client_request_timeout", Some("none"), Limit, "disconnect clients whose request stays incomplete for this long"),
    setting("client_age_max", Some("none"), Limit, "disconnect clients between two requests at about this connection age, so that clients are rebalanced to new proxies"),
    setting("in_flight_max", Some("1024"), Whole(1, 1048576), "maximum number of requests in flight per client; the proxy stops reading from the client at this limit"),
    setting("request_bytes_max", Some("1GiB"), Size, "maximum size of a request"),
    setting("arguments_max", Some("1048576"), Whole(1, 2147483647), "maximum number of arguments in a request"),
    setting("client_output_max", Some("1GiB"), Size, "maximum size of the replies buffered for one client; the client is disconnected beyond it"),
    setting("client_output_pause", Some("4MiB"), Size, "size of the replies buffered for one client, in excess of the bytes it has sent meanwhile, beyond which its further requests are read but not executed yet"),
    setting("shard_queue_max", Some("65536"), Whole(1, 4194304), "maximum number of requests queued and in flight on one shard connection"),
    setting("large_value_min", Some("64KiB"), Size, "requests and replies of at least this size count as large: clients that move them use shard connections of their own meanwhile, as many as server_connections, so that small requests of other clients are not held up behind large ones"),
    setting("blocked_max", Some("1000"), Whole(1, 1000000), "Redis pools: maximum number of clients that wait for data on one shard (BLPOP, XREAD with BLOCK), watch keys there (WATCH) or wait for replicas (WAIT); each of them has a connection to itself, except those that wait on several shards"),
    setting("pubsub", Some("all"), Word(&["all", "owner"]), "Redis pools: on which shards channels are subscribed to: all, so that messages published by scripts or directly on any shard arrive; owner: only on the shard that owns the name of the channel, where PUBLISH sends messages (patterns: all), which saves subscriptions where there are many channels and shards"),
    setting("subscriptions_max", Some("10000"), Whole(1, 16777216), "Redis pools: maximum number of channels and patterns that one client may subscribe to"),
    setting("subscriber_output_max", Some("32MiB"), Size, "Redis pools: maximum size of what is buffered for a client that is subscribed; the client is disconnected beyond it"),
    setting("subscriber_output_soft_max", Some("8MiB"), Size, "Redis pools: the same, if it is exceeded for subscriber_output_soft_time"),
    setting("subscriber_output_soft_time", Some("60s"), Positive, "Redis pools: how long a client that is subscribed may exceed subscriber_output_soft_max"),
    setting("on_gap", Some("keep"), Word(&["keep", "close"]), "Redis pools: what happens to subscribed clients when the subscription connection to a shard is lost, or when their channel gets another owner that was not subscribed to yet: keep subscribes again, and they miss what was published meanwhile without a notice; close disconnects them, so that they subscribe again and fetch what they missed"),
    setting("shard_queue_bytes_max", Some("2MiB"), Size, "maximum size of the requests queued and in flight on one shard connection"),
    setting("slowlog_log_slower_than", Some("10000"), Off(&Whole(0, 86400000000)), "requests that take so many microseconds are in the slow log, from being read to their reply being complete; 0: all that shards serve; -1: none"),
    setting("slowlog_max_len", Some("128"), Whole(0, 100000), "maximum number of entries in the slow log, of at most 4 MiB together"),
    setting("slowlog_source", Some("proxy"), Word(&["proxy", "shards"]), "Redis pools: what SLOWLOG GET, LEN and RESET are about: proxy: the slow log of the proxy; shards: the slow logs of all shards"),
    setting("access_log_sample", Some("0"), Whole(0, 1000000000), "log one in so many of the requests that shards have answered, at level info with target access; 0: none"),
    setting("access_log_errors", Some("false"), Flag, "log requests that are answered with an error, by a shard or by the proxy, in the same way"),
    setting("trace_sample", Some("0"), Whole(0, 1000000000), "send spans of one in so many of the requests that shards have answered to otlp_endpoint; 0: none"),
    setting("trace_slower_than", Some("-1"), Off(&Whole(0, 86400000000)), "send spans of requests that take so many microseconds to otlp_endpoint; -1: none"),
    setting("privacy", Some("none"), Word(&["none", "hash_keys"]), "what logs and pages show of the keys in requests: none: their names; hash_keys: a hash of the name that is the same as long as the proxy runs and that nobody can compute who knows the name, and of other arguments only the size"),
    setting("hot_keys", Some("true"), Flag, "find the keys that are used most, and the largest requests and replies, in a sample of the requests; memstore hot and /hot show them"),
    setting("hot_keys_sample", Some("100"), Whole(1, 1000000), "size of that sample: the requests of one in so many passes of the event loop, drawn at random"),
    setting("monitor", Some("false"), Flag, "Redis pools: let clients that have the password watch the requests of all clients of the pool (MONITOR), with their keys and values; memstore monitor does not need it"),
];

/// Settings of a listener of a pool, in a list below `listen:`.
#[rustfmt::skip]
pub const LISTENER: &[Setting] = &[
    setting("address", None, Text("host:port, /path, /path 0660"), "address that clients connect to; required"),
    setting("tls", None, Node("true false, or a mapping"), "whether clients speak TLS there, or TLS settings for this listener only; default: as the pool does, by its tls"),
];

/// Settings of a pool over a Redis Cluster, below `cluster:`.
#[rustfmt::skip]
pub const CLUSTER: &[Setting] = &[
    setting("seeds", None, Node("list of host:port"), "nodes that are queried for the topology; a name with several addresses is enough; required"),
    setting("read_from", Some("primary"), Word(&["primary", "prefer-replica", "nearest"]), "which nodes serve read-only commands; replicas may return stale data"),
    setting("refresh", Some("5s"), Positive, "how often the nodes are polled for the topology; also polled at once after a redirect or failure"),
];

/// Settings of a pool that clients speak TLS to, below `tls:`.
#[rustfmt::skip]
pub const TLS: &[Setting] = &[
    setting("certificate", None, Text("path, relative to this file"), "file with the certificate in PEM, followed by the intermediate ones; read again when it changes, without disconnecting anybody; required"),
    setting("key", None, Text("path, relative to this file"), "file with the private key of the certificate in PEM; required"),
    setting("certificates", None, Node("a list of mappings with certificate and key"), "further certificates; clients are shown the one for the host name that they ask for (SNI), by the DNS names in it, or else the first of all; without certificate and key the first of this list is the first of all; at most 64"),
    setting("client_ca", None, Text("path, relative to this file"), "file with the certificate authorities in PEM that sign the certificates of clients"),
    setting("client_auth", None, Word(&["none", "optional", "required"]), "whether clients have to present a certificate signed by client_ca; optional: only those that present one are verified; default: required if client_ca is set, otherwise none"),
    setting("version_min", Some("1.2"), Word(&["1.2", "1.3"]), "oldest TLS version"),
    setting("ciphers", None, Text("names of cipher suites, separated by commas"), "allowed cipher suites, in order of preference, as IANA names them, such as TLS_AES_128_GCM_SHA256; default: all that are considered secure"),
    setting("handshake_timeout", Some("10s"), Positive, "how long the TLS handshake of a client may take"),
    setting("ticket_keys_file", None, Text("path, relative to this file"), "file with the keys of the tickets by which clients resume sessions, shared by replicas: 96 hexadecimal digits in each line (openssl rand -hex 48), the first of which seals tickets while all open them; not where certificates of clients are verified; default: keys of this process, until the configuration is loaded again"),
];

/// Settings of a further certificate, in a list below `certificates:`.
#[rustfmt::skip]
pub const CERTIFICATE: &[Setting] = &[
    setting("certificate", None, Text("path, relative to this file"), "file with the certificate in PEM, followed by the intermediate ones; required"),
    setting("key", None, Text("path, relative to this file"), "file with the private key of the certificate in PEM; required"),
];

/// Settings of TLS to the shards of a pool, below `servers_tls:`, and to a collector, below `otlp_tls:`.
#[rustfmt::skip]
pub const SERVERS_TLS: &[Setting] = &[
    setting("ca", None, Text("path, relative to this file"), "file with the certificate authorities in PEM that sign the certificates of the shards; default: those of the system"),
    setting("certificate", None, Text("path, relative to this file"), "file with the certificate in PEM that the proxy presents to the shards, followed by the intermediate ones"),
    setting("key", None, Text("path, relative to this file"), "file with the private key of the certificate in PEM"),
    setting("server_name", None, Text("host name or address"), "name that the certificates of all shards have to be valid for; default: the host of the shard as the list of servers has it"),
    setting("verify", Some("full"), Word(&["full", "ca", "none"]), "how the certificate of a shard is verified: full: signed by an authority, and valid for its name; ca: signed by an authority, whatever its name; none: not at all, so that anybody between can read and change everything"),
    setting("version_min", Some("1.2"), Word(&["1.2", "1.3"]), "oldest TLS version"),
    setting("ciphers", None, Text("names of cipher suites, separated by commas"), "allowed cipher suites, in order of preference, as IANA names them, such as TLS_AES_128_GCM_SHA256; default: all that are considered secure"),
];

/// Settings of the process, beside `pools:`.
#[rustfmt::skip]
pub const PROCESS: &[Setting] = &[
    setting("pools", None, Node("a mapping of pools"), "the pools by name; required"),
    setting("workers", Some("auto"), Auto(&Whole(1, 256)), "number of worker threads; auto: the CPU quota, otherwise one per core up to 4"),
    setting("log_level", Some("info"), Word(&["error", "warn", "info", "debug", "trace"]), "minimum log level"),
    setting("log_format", Some("text"), Word(&["text", "json"]), "format of log lines"),
    setting("stats_address", Some("0.0.0.0"), Text("host or address"), "listen address for statistics in Twemproxy's format"),
    setting("stats_port", Some("22222"), Whole(0, 65535), "port for statistics; 0 disables them"),
    setting("admin_address", Some("127.0.0.1"), Text("host, address or /path"), "listen address of the admin server (HTTP): probes, metrics, topology, drain and reload; /path: a Unix socket that only the user of the proxy can access"),
    setting("admin_port", Some("9121"), Whole(0, 65535), "port of the admin server; 0 disables it"),
    setting("admin_token_file", None, Text("path, relative to this file"), "file that contains the bearer token required for changes over HTTP, including from localhost; not required on a Unix socket"),
    setting("otlp_endpoint", None, Text("http://host:port or https://host:port"), "collector of OpenTelemetry that spans of requests are sent to, over TLS if it begins with https; the path is /v1/traces unless there is another one"),
    setting("otlp_protocol", Some("http"), Word(&["http", "grpc"]), "how the collector is spoken to: OTLP over HTTP (protobuf), mostly port 4318, or over gRPC, mostly port 4317"),
    setting("otlp_headers_file", None, Text("path, relative to this file"), "file with headers that the collector is sent, one NAME: VALUE a line, such as a token (authorization: Bearer ...); read again when it changes"),
    setting("otlp_tls", None, Node("a mapping"), "TLS for the connection to the collector, with the settings of TLS to the shards; without it its certificate is verified by the authorities of the system"),
    setting("ready_min_healthy", Some("0%"), Percent, "minimum percentage of healthy shards per pool for /ready to return 200"),
    setting("dns_server", None, Text("address:port"), "DNS server for shard host names; default: the name servers of the system"),
    setting("dns_refresh", Some("5s"), Positive, "how often shard host names are resolved again; more often for shards that cannot be reached"),
    setting("drain_grace", Some("500ms"), Duration, "how long clients are still accepted after SIGTERM; existing clients are disconnected between two requests during that time"),
    setting("drain_limit", Some("30s"), Positive, "how long the drain waits for clients to read their last replies and close"),
    setting("memory_max", Some("auto"), Auto(&Size), "maximum memory for client and shard data of the process; beyond it the client that uses most is disconnected with an error; auto: half of the container's or machine's memory"),
    setting("watch_config", Some("true"), Flag, "reload when the configuration file or a file that it refers to for passwords changes; SIGHUP always reloads"),
];

/// The table of all settings, in Markdown.
pub fn markdown() -> String {
    let mut text = String::new();
    for (title, settings) in [
        ("Pool", POOL),
        ("Listener", LISTENER),
        ("Cluster", CLUSTER),
        ("TLS", TLS),
        ("TLS certificate", CERTIFICATE),
        ("TLS to the shards", SERVERS_TLS),
        ("Process", PROCESS),
    ] {
        text.push_str(&format!("| {title} setting | default | allowed | meaning |\n|---|---|---|---|\n"));
        for setting in settings {
            let default = setting.default.map(|default| format!("`{default}`")).unwrap_or_default();
            let Setting { name, kind, meaning, .. } = setting;
            text.push_str(&format!("| `{name}` | {default} | {kind} | {meaning} |\n"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use shard_discovery::{DistributionKind, KeyHash};

    use super::*;

    #[test]
    fn words_of_the_table_are_those_that_the_library_knows() {
        let words = |name| match row(POOL, name).kind {
            Word(words) => words.to_vec(),
            kind => panic!("{name} is {kind}"),
        };
        assert_eq!(words("hash"), KeyHash::ALL.map(|hash| hash.name()));
        assert_eq!(words("distribution"), DistributionKind::ALL.map(|kind| kind.name()));
    }
}
