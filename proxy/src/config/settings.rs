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
    setting("listen", None, "host:port, /path, /path 0660", "where clients connect; required"),
    setting("servers", None, "a list of host:port:weight [name] or /path:weight [name]", "the shards; required"),
    setting("hash", Some("fnv1a_64"), "one_at_a_time md5 crc16 crc32 crc32a fnv1_64 fnv1a_64 fnv1_32 fnv1a_32 hsieh murmur jenkins", "how a key becomes a number"),
    setting("hash_tag", None, "two characters in quotes", "only the part of a key between these is hashed"),
    setting("distribution", Some("ketama"), "ketama modula random slots single", "how a number becomes a shard"),
    setting("timeout", Some("0"), "time or none", "how long a request may take, connecting and waiting included; then it is answered with an error"),
    setting("backlog", Some("512"), "0 to 2147483647", "connections that the kernel accepts for us ahead of time"),
    setting("client_connections", Some("0"), "0 to 4294967295", "clients at a time; further ones are refused; 0 is no limit"),
    setting("redis", Some("false"), "true false", "the pool speaks RESP; else memcached's text protocol"),
    setting("tcpkeepalive", Some("true"), "true false", "the kernel probes clients that are idle for a minute, so that those that vanished are disconnected"),
    setting("reuseport", Some("false"), "true false", "several processes may listen on the same port"),
    setting("redis_auth", None, "text", "password that clients have to say, and that is said to the shards"),
    setting("redis_db", Some("0"), "0 to 4294967294", "database of the shards that clients work in, and stay in; SELECT inside a script cannot be seen"),
    setting("preconnect", Some("false"), "true false", "connect to the shards at start"),
    setting("auto_eject_hosts", Some("false"), "true false", "take failing shards out of the ring until a probe succeeds; their keys move"),
    setting("server_connections", Some("1"), "1 to 65536", "connections of each worker to each shard; a client stays on one of them"),
    setting("server_retry_timeout", Some("30000"), "time", "how often an ejected shard is probed"),
    setting("server_failure_limit", Some("2"), "0 to 4294967295", "failures in a row that eject a shard; 0 acts as 1"),

    setting("eject_max_share", Some("50%"), "0% to 100%", "most of the pool's shards that may be ejected at a time, one at least of two or more and never all; further ones stay in the ring"),
    setting("servers_srv", None, "name", "the SRV records that name the ports of servers_dns, which has none then"),
    setting("servers_dns", None, "host:port with {} in the host", "instead of servers: the shards' host names, with {} for their numbers from 0"),
    setting("servers_count", None, "1 to 65535", "how many shards servers_dns stands for"),
    setting("servers_names", Some("shard-{}"), "text with {}", "the names of those shards on the ring, whatever their hosts are called"),
    setting("servers_file", None, "path, relative to this file", "instead of servers: a YAML list of them in a file of its own"),
    setting("servers_within", None, "path, relative to this file", "a YAML list of some of the servers: only those are used; all, while there is no such file or it names others"),
    setting("servers_within_limit", Some("15m"), "time or none", "how long servers_within may leave servers out: a list that the servers themselves do not come to agree with by then counts no more"),
    setting("servers_within_attempt", None, "path, relative to this file", "a copy of servers_within that is there only while somebody puts that list in force: when it appears the list counts anew, even one that servers_within_limit has ended"),
    setting("servers_peers", None, "host:port", "the admin addresses of other processes that serve this pool, behind one name: a process that starts begins with those of the servers that they use, and uses the others once they answer"),
    setting("cluster", None, "a mapping", "instead of servers: a Redis Cluster, which says itself who owns what; its settings are in the table below"),
    setting("redis_user", None, "text", "user that is named to the shards beside the password"),
    setting("redis_auth_file", None, "path, relative to this file", "file that holds the password, instead of redis_auth"),
    setting("redis_auth_previous_file", None, "path, relative to this file", "file with the password before a change: accepted of clients as well, and said to shards that do not take the new one; none, while there is no such file"),
    setting("redis_auth_env", None, "name", "environment variable that holds the password, instead of redis_auth"),
    setting("reauth", Some("close"), "close keep", "what becomes of clients that were let in with a password that a reload has changed: closed, so that they say the new one, or kept"),
    setting("databases", Some("16"), "1 to 65536", "databases that SELECT may choose from"),
    setting("shard_identity", Some("false"), "true false", "Redis pools: a shard is used only if its replica-announce-ip is its host name, so that an address which somebody else has now is not"),
    setting("resp3", Some("auto"), "auto true false", "whether clients of Redis pools may speak RESP3; auto: if all shards do, which are asked"),
    setting("miss_on_get_errors", Some("false"), "true false", "memcache pools: a get that its shard cannot serve is answered as a miss"),
    setting("connect_timeout", Some("1s"), "time above 0", "how long connecting to a shard may take, the lookup included"),
    setting("queue_wait", Some("1s"), "time above 0", "how long a request may wait for room in the queue of its shard"),
    setting("adopt_wait", Some("60s"), "time or none", "how long a reload waits for shards that are new to answer; the present configuration holds until they do; none: not at all"),
    setting("info_refresh", Some("5s"), "time or none", "Redis pools: how often the shards are asked for what INFO and CONFIG GET say of them; none: never"),
    setting("client_idle_timeout", Some("none"), "time or none", "a client that sends nothing, or takes none of its replies, for so long is disconnected"),
    setting("client_request_timeout", Some("none"), "time or none", "a client whose request stays unfinished for so long is disconnected"),
    setting("client_age_max", Some("none"), "time or none", "a client is disconnected between two requests at about this age, so that clients spread over new replicas"),
    setting("in_flight_max", Some("1024"), "1 to 1048576", "requests of one client in flight; beyond it the client is not read"),
    setting("request_bytes_max", Some("1GiB"), "size", "largest request"),
    setting("arguments_max", Some("1048576"), "1 to 2147483647", "arguments of a request"),
    setting("client_output_max", Some("1GiB"), "size", "replies waiting for one client; beyond it the client is disconnected"),
    setting("client_output_pause", Some("4MiB"), "size", "replies waiting for one client, beyond the bytes it has sent meanwhile; then its further requests are read but have to wait"),
    setting("shard_queue_max", Some("65536"), "1 to 4194304", "requests queued and in flight on one connection to a shard"),
    setting("shard_queue_bytes_max", Some("8MiB"), "size", "bytes of requests queued and in flight on one connection to a shard"),
];

/// Settings of a pool over a Redis Cluster, below `cluster:`.
#[rustfmt::skip]
pub const CLUSTER: &[Setting] = &[
    setting("seeds", None, "list of host:port", "nodes that are asked for the others; a name of several nodes will do; required"),
    setting("read_from", Some("primary"), "primary prefer-replica nearest", "who serves commands that only read; replicas may be behind"),
    setting("refresh", Some("5s"), "time above 0", "how often it is asked who owns what; at once where a node sends requests elsewhere or fails"),
];

/// Settings of the process, beside `pools:`.
#[rustfmt::skip]
pub const PROCESS: &[Setting] = &[
    setting("pools", None, "a mapping of pools", "each pool by its name; required"),
    setting("workers", Some("auto"), "1 to 256, auto", "worker threads; auto: the CPU quota, else one per core up to 4"),
    setting("log_level", Some("info"), "error warn info debug trace", "least important lines that are logged"),
    setting("log_format", Some("text"), "text json", "how log lines look"),
    setting("stats_address", Some("0.0.0.0"), "host or address", "where statistics are served in Twemproxy's format"),
    setting("stats_port", Some("22222"), "0 to 65535", "the port of the statistics; 0 serves none"),
    setting("admin_address", Some("127.0.0.1"), "host, address or /path", "where probes, metrics and the topology are served over HTTP, and where the process is told to drain or reload; /path is a Unix socket for the user of the proxy alone"),
    setting("admin_port", Some("9121"), "0 to 65535", "the port of that; 0 serves none"),
    setting("admin_token_file", None, "path, relative to this file", "file with the token that changes over HTTP need then, wherever they come from; not over a Unix socket"),
    setting("ready_min_healthy", Some("0%"), "0% to 100%", "least share of each pool's shards that have to be healthy for /ready"),
    setting("dns_server", None, "address:port", "who is asked for the addresses of shards; else the name servers of the system"),
    setting("dns_refresh", Some("5s"), "time above 0", "how often host names of shards are looked up again; those that are not reached more often"),
    setting("drain_grace", Some("500ms"), "time", "how long clients are still accepted after SIGTERM; they are let go meanwhile, each between two requests"),
    setting("drain_limit", Some("30s"), "time above 0", "how long clients may take to read their last replies and close"),
    setting("memory_max", Some("auto"), "size, auto", "bytes that may be held for all clients and shards together; beyond it the client that holds most is told so and disconnected; auto: half of the container's or machine's memory"),
    setting("watch_config", Some("true"), "true false", "reload when the file, or one that it takes a password from, changes; SIGHUP reloads in any case"),
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
