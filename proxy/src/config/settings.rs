//! The one table of all settings: what may be written where, what it means, what holds if it is absent.
//!
//! Validation, suggestions and the table in the README come from here; a default is read by the same code as a value in
//! a file.

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in the file.
    pub name: &'static str,
    /// What holds if it is absent; `None`: nothing does, or it is required.
    pub default: Option<&'static str>,
    /// What may be written.
    pub allowed: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn setting(
    name: &'static str,
    default: Option<&'static str>,
    allowed: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting { name, default, allowed, meaning }
}

/// Settings of a pool. The first group is nutcracker's.
#[rustfmt::skip]
pub const POOL: &[Setting] = &[
    setting("listen", None, "host:port, /path, /path 0660", "address that clients connect to; required"),
    setting("servers", None, "a list of host:port:weight [name] or /path:weight [name]", "the shards; required unless servers_dns, servers_file, servers_url or cluster is set"),
    setting("hash", Some("fnv1a_64"), "one_at_a_time md5 crc16 crc32 crc32a fnv1_64 fnv1a_64 fnv1_32 fnv1a_32 hsieh murmur jenkins", "hash function for keys"),
    setting("hash_tag", None, "two characters in quotes", "only the part of a key between these two characters is hashed"),
    setting("distribution", Some("ketama"), "ketama modula random slots single", "how hashes are mapped to shards"),
    setting("timeout", Some("0"), "duration or none", "request timeout, including connecting and queueing; the request is then answered with an error"),
    setting("backlog", Some("512"), "0 to 2147483647", "length of the listen backlog"),
    setting("client_connections", Some("0"), "0 to 4294967295", "maximum number of client connections; further clients are refused; 0 means no limit"),
    setting("redis", Some("false"), "true false", "true: RESP (Redis, Valkey); false: memcached text protocol"),
    setting("tcpkeepalive", Some("true"), "true false", "send TCP keepalive probes to clients that have been idle for a minute, so that dead connections are closed"),
    setting("reuseport", Some("false"), "true false", "set SO_REUSEPORT, so that several processes can listen on the same port"),
    setting("redis_auth", None, "string", "password that clients must send and that the proxy sends to the shards"),
    setting("redis_db", Some("0"), "0 to 4294967294", "the database on the shards that clients are fixed to; SELECT inside a script is not detected"),
    setting("preconnect", Some("false"), "true false", "connect to the shards at start-up"),
    setting("auto_eject_hosts", Some("false"), "true false", "remove failing shards from the ring until a probe succeeds; their keys move to the other shards"),
    setting("server_connections", Some("1"), "1 to 65536", "connections per worker to each shard; a client stays on one of them"),
    setting("server_retry_timeout", Some("30000"), "duration", "interval between probes of an ejected shard"),
    setting("server_failure_limit", Some("2"), "0 to 4294967295", "consecutive failures after which a shard is ejected; 0 is treated as 1"),

    setting("eject_max_share", Some("50%"), "0% to 100%", "maximum percentage of the shards of the pool that may be ejected at a time: at least one if there are two or more, never all; further shards stay in the ring"),
    setting("servers_srv", None, "name", "name of the SRV records that contain the ports of servers_dns, which is then written without a port"),
    setting("servers_dns", None, "host:port with {} in the host", "instead of servers: host name template of the shards; {} is replaced by their numbers, starting at 0"),
    setting("servers_count", None, "1 to 65535", "number of shards in servers_dns"),
    setting("servers_names", Some("shard-{}"), "string with {}", "template of the shard names on the ring, independent of the host names"),
    setting("servers_file", None, "path, relative to this file", "instead of servers: a separate file with the list of servers, in YAML"),
    setting("servers_url", None, "http://host:port/path", "instead of servers: URL of a JSON document with the list of servers, or of a topology document with this pool; polled with If-None-Match; the previous list stays active while it cannot be read"),
    setting("servers_url_refresh", Some("5s"), "duration above 0", "how often servers_url is polled"),
    setting("servers_within", None, "path, relative to this file", "a YAML list with a subset of the servers; only these are used; all are used if the file does not exist or names other servers"),
    setting("servers_within_limit", Some("15m"), "duration or none", "how long servers_within may exclude servers; it is ignored after that if the list of servers still has them"),
    setting("servers_within_attempt", None, "path, relative to this file", "a copy of servers_within that exists only while a rollout applies that list; when it appears, servers_within_limit starts anew, even if it had already expired"),
    setting("servers_peers", None, "host:port", "host name behind which the admin addresses of the other proxies of this pool are found; at start-up the proxy uses the servers that they use, and adds the others once they answer"),
    setting("cluster", None, "a mapping", "instead of servers: a Redis Cluster, which provides the slot ownership itself; see the cluster settings below"),
    setting("redis_user", None, "string", "user name that the proxy sends to the shards with the password"),
    setting("redis_auth_file", None, "path, relative to this file", "file that contains the password, instead of redis_auth"),
    setting("redis_auth_previous_file", None, "path, relative to this file", "file that contains the previous password during a rotation: also accepted from clients, and sent to shards that reject the new one; not used while the file does not exist"),
    setting("redis_auth_env", None, "name", "environment variable that contains the password, instead of redis_auth"),
    setting("reauth", Some("close"), "close keep", "what happens to authenticated clients when a reload changes their password: close disconnects them, so that they authenticate again; keep leaves them connected"),
    setting("databases", Some("16"), "1 to 65536", "number of databases available to SELECT"),
    setting("shard_identity", Some("false"), "true false", "Redis pools: verify on connect that the server's replica-announce-ip equals the configured host name (protects against reused pod addresses)"),
    setting("resp3", Some("auto"), "auto true false", "Redis pools: allow RESP3 for clients; auto: only if all shards support it, which is detected"),
    setting("miss_on_get_errors", Some("false"), "true false", "memcached pools: answer a get as a miss if its shard cannot serve it"),
    setting("connect_timeout", Some("1s"), "duration above 0", "timeout for connecting to a shard, including name resolution"),
    setting("queue_wait", Some("1s"), "duration above 0", "how long a request may wait for space in the queue of its shard"),
    setting("adopt_wait", Some("60s"), "duration or none", "how long a reload waits for new shards to answer; the previous configuration stays active until then; none: do not wait"),
    setting("info_refresh", Some("5s"), "duration or none", "Redis pools: how often the shards are polled for the values that INFO and CONFIG GET report; none: never"),
    setting("client_idle_timeout", Some("none"), "duration or none", "disconnect clients that send no request, or read none of their replies, for this long"),
    setting("client_request_timeout", Some("none"), "duration or none", "disconnect clients whose request stays incomplete for this long"),
    setting("client_age_max", Some("none"), "duration or none", "disconnect clients between two requests at about this connection age, so that clients are rebalanced to new proxies"),
    setting("in_flight_max", Some("1024"), "1 to 1048576", "maximum number of requests in flight per client; the proxy stops reading from the client at this limit"),
    setting("request_bytes_max", Some("1GiB"), "size", "maximum size of a request"),
    setting("arguments_max", Some("1048576"), "1 to 2147483647", "maximum number of arguments in a request"),
    setting("client_output_max", Some("1GiB"), "size", "maximum size of the replies buffered for one client; the client is disconnected beyond it"),
    setting("client_output_pause", Some("4MiB"), "size", "size of the replies buffered for one client, in excess of the bytes it has sent meanwhile, beyond which its further requests are read but not executed yet"),
    setting("shard_queue_max", Some("65536"), "1 to 4194304", "maximum number of requests queued and in flight on one shard connection"),
    setting("shard_queue_bytes_max", Some("8MiB"), "size", "maximum size of the requests queued and in flight on one shard connection"),
];

/// Settings of a pool over a Redis Cluster, below `cluster:`.
#[rustfmt::skip]
pub const CLUSTER: &[Setting] = &[
    setting("seeds", None, "list of host:port", "nodes that are queried for the topology; a name with several addresses is enough; required"),
    setting("read_from", Some("primary"), "primary prefer-replica nearest", "which nodes serve read-only commands; replicas may return stale data"),
    setting("refresh", Some("5s"), "duration above 0", "how often the nodes are polled for the topology; also polled at once after a redirect or failure"),
];

/// Settings of the process, beside `pools:`.
#[rustfmt::skip]
pub const PROCESS: &[Setting] = &[
    setting("pools", None, "a mapping of pools", "the pools by name; required"),
    setting("workers", Some("auto"), "1 to 256, auto", "number of worker threads; auto: the CPU quota, otherwise one per core up to 4"),
    setting("log_level", Some("info"), "error warn info debug trace", "minimum log level"),
    setting("log_format", Some("text"), "text json", "format of log lines"),
    setting("stats_address", Some("0.0.0.0"), "host or address", "listen address for statistics in Twemproxy's format"),
    setting("stats_port", Some("22222"), "0 to 65535", "port for statistics; 0 disables them"),
    setting("admin_address", Some("127.0.0.1"), "host, address or /path", "listen address of the admin server (HTTP): probes, metrics, topology, drain and reload; /path: a Unix socket that only the user of the proxy can access"),
    setting("admin_port", Some("9121"), "0 to 65535", "port of the admin server; 0 disables it"),
    setting("admin_token_file", None, "path, relative to this file", "file that contains the bearer token required for changes over HTTP, including from localhost; not required on a Unix socket"),
    setting("ready_min_healthy", Some("0%"), "0% to 100%", "minimum percentage of healthy shards per pool for /ready to return 200"),
    setting("dns_server", None, "address:port", "DNS server for shard host names; default: the name servers of the system"),
    setting("dns_refresh", Some("5s"), "duration above 0", "how often shard host names are resolved again; more often for shards that cannot be reached"),
    setting("drain_grace", Some("500ms"), "duration", "how long clients are still accepted after SIGTERM; existing clients are disconnected between two requests during that time"),
    setting("drain_limit", Some("30s"), "duration above 0", "how long the drain waits for clients to read their last replies and close"),
    setting("memory_max", Some("auto"), "size, auto", "maximum memory for client and shard data of the process; beyond it the client that uses most is disconnected with an error; auto: half of the container's or machine's memory"),
    setting("watch_config", Some("true"), "true false", "reload when the configuration file or a file that it refers to for passwords changes; SIGHUP always reloads"),
];

/// The table of all settings, in Markdown.
pub fn markdown() -> String {
    let mut text = String::new();
    for (title, settings) in [("Pool", POOL), ("Cluster", CLUSTER), ("Process", PROCESS)] {
        text.push_str(&format!("| {title} setting | default | allowed | meaning |\n|---|---|---|---|\n"));
        for setting in settings {
            let default = setting.default.map(|default| format!("`{default}`")).unwrap_or_default();
            let Setting { name, allowed, meaning, .. } = setting;
            text.push_str(&format!("| `{name}` | {default} | {allowed} | {meaning} |\n"));
        }
        text.push('\n');
    }
    text
}
