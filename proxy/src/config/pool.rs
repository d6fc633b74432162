//! One pool of the configuration.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use shard_discovery::source::cluster::{Cluster, Map};
use shard_discovery::source::fixed::address;
use shard_discovery::source::{Listing, Source};
use shard_discovery::yaml::{Entry, Value};
use shard_discovery::{
    Address, DistributionKind, HashTag, KeyHash, Pins, Placement, Shard, Topology, TopologyError,
};

use super::Surroundings;
use super::auth::{Auth, Reauth, read_auth};
use super::cluster::read_cluster;
use super::facade::{Facade, read_facade};
use super::listen::Listen;
use super::listeners::{Listener, read_listeners};
use super::mistake::Mistake;
use super::section::Section;
use super::servers::{Within, keep_within, read_source};
use super::settings;
use super::tls::{Certificate, ShardTls, read_servers_tls};
use super::users::read_users;
use super::value::text;
use crate::privacy::Privacy;
use crate::protocol::acl::file::Users;

/// What a pool speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// RESP.
    Redis,
    /// memcached's text protocol.
    Memcache,
}

/// One pool. [`settings::POOL`] says what each setting means.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)] // the table has it
pub struct Pool {
    pub name: String,
    /// At least one.
    pub listeners: Vec<Listener>,
    pub protocol: Protocol,
    pub key_hash: KeyHash,
    pub distribution: DistributionKind,
    pub hash_tag: Option<HashTag>,
    pub pins: Pins,
    pub timeout: Option<Duration>,
    pub backlog: u32,
    pub client_connections: Option<u32>,
    pub reuseport: bool,
    pub tcpkeepalive: bool,
    pub auth: Option<Auth>,
    pub users: Option<Arc<Users>>,
    pub servers_tls: Option<ShardTls>,
    pub reauth: Reauth,
    pub db: u32,
    pub databases: u32,
    /// `None`: as the shards do, which are asked.
    pub resp3: Option<bool>,
    pub miss_on_get_errors: bool,
    pub per_shard_transactions: bool,
    /// RENAME, RENAMENX and COPY may have keys of several shards.
    pub renames_across_shards: bool,
    /// KEYS is answered in pools of several shards.
    pub keys_all_shards: bool,
    /// SAVE, BGSAVE and BGREWRITEAOF go to all shards of such pools.
    pub save_all_shards: bool,
    /// Where scripts without keys run.
    pub keyless_scripts: KeylessScripts,
    /// What clients with cluster support are told, if the pool poses as a cluster.
    pub facade: Option<Facade>,
    pub preconnect: bool,
    pub shard_identity: bool,
    pub auto_eject_hosts: bool,
    pub server_connections: u32,
    pub server_retry_timeout: Duration,
    pub server_failure_limit: u32,
    /// In percent.
    pub eject_max_share: u8,
    /// Where the shards are listed.
    pub source: Source,
    /// Those that are to be used of what it listed when this was read; none where it has to be asked over the network.
    pub shards: Vec<Shard>,
    /// How keys are dealt to them, where their source says so.
    pub placement: Option<Placement>,
    /// What `servers_within` leaves out of the list, if anything.
    pub within: Option<Within>,
    pub servers_within_limit: Option<Duration>,
    /// Admin addresses of other processes that serve this pool.
    pub servers_peers: Option<Address>,
    /// Whose SRV records say the ports of the shards.
    pub servers_srv: Option<String>,
    pub connect_timeout: Duration,
    pub queue_wait: Duration,
    pub adopt_wait: Option<Duration>,
    pub info_refresh: Option<Duration>,
    pub client_idle_timeout: Option<Duration>,
    pub client_request_timeout: Option<Duration>,
    pub client_age_max: Option<Duration>,
    pub in_flight_max: u32,
    pub request_bytes_max: u64,
    pub arguments_max: u32,
    pub client_output_max: u64,
    pub client_output_pause: u64,
    pub shard_queue_max: u32,
    pub large_value_min: u64,
    pub blocked_max: u32,
    pub subscriptions_max: u32,
    pub subscriber_output_max: u64,
    pub subscriber_output_soft_max: u64,
    pub subscriber_output_soft_time: Duration,
    /// Clients are closed that may have missed messages.
    pub closes_on_gap: bool,
    /// Channels are listened to on all shards.
    pub pubsub_everywhere: bool,
    pub shard_queue_bytes_max: u64,
    pub privacy: Privacy,
    pub hot_keys: bool,
    pub hot_keys_sample: u32,
    /// Clients may say MONITOR.
    pub monitor: bool,
    pub slowlog_log_slower_than: Option<u64>,
    pub slowlog_max_len: u32,
    pub trace_sample: u32,
    pub trace_slower_than: Option<u64>,
    pub access_log_sample: u32,
    pub access_log_errors: bool,
    /// SLOWLOG is about the logs of the shards.
    pub slow_log_of_shards: bool,
}

impl Pool {
    /// Its own certificates.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        let of_shards = self.servers_tls.as_ref().and_then(|tls| tls.certificate.as_ref());
        let of_clients = self
            .listeners
            .iter()
            .filter_map(|listener| listener.tls.as_ref())
            .flat_map(|tls| &tls.certificates);
        let mut all: Vec<&Certificate> = Vec::new();
        for certificate in of_clients {
            if !all.contains(&certificate) {
                all.push(certificate);
            }
        }
        all.into_iter().chain(of_shards)
    }

    /// The addresses of its listeners, as they are shown.
    pub fn listens(&self) -> String {
        self.listeners.iter().map(|listener| listener.at.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// The listener at this address, if there is one.
    pub fn listener(&self, at: &Listen) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.at.is_at(at))
    }

    /// The port of the first listener that has one; 0 is none.
    pub fn port(&self) -> u16 {
        self.listeners.iter().find_map(|listener| listener.at.port()).unwrap_or(0)
    }

    /// Who owns what in this pool, as far as it was known when this was read.
    pub fn topology(&self) -> Result<Topology, TopologyError> {
        self.topology_of(&self.listing())
    }

    /// What was listed when this was read.
    pub fn listing(&self) -> Listing {
        match self.source {
            // Nothing is known yet.
            Source::Cluster(_) => Map::default().listing(),
            _ => Listing { placement: self.placement.clone(), ..Listing::of(self.shards.clone()) },
        }
    }

    /// Who owns what if this is listed.
    pub fn topology_of(&self, listing: &Listing) -> Result<Topology, TopologyError> {
        listing.topology(&Placement {
            kind: self.distribution,
            key_hash: self.key_hash,
            hash_tag: self.hash_tag,
            // Who is left out for now owns nothing, also not what is to be pinned to it later.
            pins: self.pins.without_shards(&self.left_out()),
        })
    }

    /// The cluster that it is over, if it is one.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.source.cluster()
    }

    /// Servers that `servers_within` leaves out.
    pub fn left_out(&self) -> Vec<String> {
        let all = self.within.iter().flat_map(|within| &within.all);
        all.filter(|one| !self.shards.iter().any(|shard| shard.name == one.name))
            .map(|shard| shard.name.clone())
            .collect()
    }

    /// Reads a pool; `None` if something that cannot be guessed is wrong. All mistakes are noted.
    pub fn read(entry: &Entry, around: &Surroundings<'_>, mistakes: &mut Vec<Mistake>) -> Option<Self> {
        let title = format!("pool {}", entry.key);
        let Value::Map(entries) = &entry.node.value else {
            let text = format!("{title} has to be a mapping of settings, not {}", entry.node.value.kind());
            mistakes.push(Mistake { place: entry.place, text });
            return None;
        };
        let before = mistakes.len();
        let mut section = Section::new(title, entry.place, entries, settings::POOL, mistakes);
        let redis = section.value("redis");
        let key_hash = section.named("hash");
        let distribution = section.named("distribution");
        let listeners = read_listeners(&mut section, around);
        let auth = read_auth(&mut section, redis, around);
        let users = read_users(&mut section, redis, auth.as_ref(), around);
        let servers_tls = read_servers_tls(&mut section, redis, around);
        let servers_srv = section.optional("servers_srv", text);
        let listed = match section.node("cluster") {
            Some(node) => {
                read_cluster(&mut section, node, redis).map(|cluster| (Source::Cluster(cluster), Vec::new()))
            }
            None => read_source(&mut section, &entry.key, around),
        };
        // Where it is wrong the rest is read all the same, for its mistakes.
        let (source, mut shards) = listed.unwrap_or((Source::Fixed(Vec::new()), Vec::new()));
        let within = keep_within(&mut section, around, &mut shards);
        let databases = match section.value("databases") {
            _ if !redis || source.cluster().is_some() && !section.has("databases") => 1,
            databases => databases,
        };
        let hash_tag = section.optional("hash_tag", |text| match HashTag::from_str(text) {
            Ok(tag) if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => Ok(tag),
            _ => Err("allowed are two characters of ASCII, such as \"{}\"".into()),
        });
        let pins = read_pins(&mut section);
        let keyless_scripts = read_keyless(&mut section);
        let facade = read_facade(&mut section, redis, &listeners);
        let client_connections = section.value("client_connections");
        let resp3 = section.value("resp3");
        let miss_on_get_errors = section.value("miss_on_get_errors");
        if miss_on_get_errors && redis {
            let place = section.place("miss_on_get_errors");
            section.wrong(
                place,
                "miss_on_get_errors is for memcache pools; this one is a Redis pool (redis: true)",
            );
        }
        let pool = Self {
            name: entry.key.clone(),
            listeners,
            protocol: if redis { Protocol::Redis } else { Protocol::Memcache },
            key_hash,
            distribution,
            hash_tag,
            pins,
            timeout: section.value("timeout"),
            backlog: section.value("backlog"),
            client_connections: Some(client_connections).filter(|&most| most > 0),
            reuseport: section.value("reuseport"),
            tcpkeepalive: section.value("tcpkeepalive"),
            auth,
            users,
            servers_tls,
            reauth: match section.value("reauth") {
                "keep" => Reauth::Keep,
                _ => Reauth::Close,
            },
            db: section.value("redis_db"),
            databases,
            miss_on_get_errors,
            shard_identity: section.value("shard_identity") && redis,
            resp3: if redis { resp3 } else { Some(false) },
            renames_across_shards: section.value("rename_across_shards") && redis,
            keys_all_shards: section.value("keys_all_shards"),
            save_all_shards: section.value("save_all_shards"),
            per_shard_transactions: section.value::<&str>("transactions") == "per-shard" && redis,
            keyless_scripts,
            facade,
            preconnect: section.value("preconnect"),
            auto_eject_hosts: section.value("auto_eject_hosts"),
            server_connections: section.value("server_connections"),
            server_retry_timeout: section.value("server_retry_timeout"),
            server_failure_limit: section.value("server_failure_limit"),
            eject_max_share: section.value("eject_max_share"),
            source,
            shards,
            placement: None,
            within,
            servers_within_limit: section.value("servers_within_limit"),
            servers_peers: section
                .optional("servers_peers", |text| address(text).ok_or_else(|| "allowed is host:port".into())),
            servers_srv,
            connect_timeout: section.value("connect_timeout"),
            queue_wait: section.value("queue_wait"),
            adopt_wait: section.value("adopt_wait"),
            info_refresh: section.value::<Option<Duration>>("info_refresh").filter(|_| redis),
            client_idle_timeout: section.value("client_idle_timeout"),
            client_request_timeout: section.value("client_request_timeout"),
            client_age_max: section.value("client_age_max"),
            in_flight_max: section.value("in_flight_max"),
            request_bytes_max: section.value("request_bytes_max"),
            arguments_max: section.value("arguments_max"),
            client_output_max: section.value("client_output_max"),
            client_output_pause: section.value("client_output_pause"),
            shard_queue_max: section.value("shard_queue_max"),
            large_value_min: section.value("large_value_min"),
            blocked_max: section.value("blocked_max"),
            subscriptions_max: section.value("subscriptions_max"),
            subscriber_output_max: section.value("subscriber_output_max"),
            subscriber_output_soft_max: section.value("subscriber_output_soft_max"),
            subscriber_output_soft_time: section.value("subscriber_output_soft_time"),
            closes_on_gap: section.value::<&str>("on_gap") == "close",
            pubsub_everywhere: section.value::<&str>("pubsub") == "all",
            shard_queue_bytes_max: section.value("shard_queue_bytes_max"),
            privacy: Privacy::of(section.value("privacy")),
            hot_keys: section.value("hot_keys"),
            hot_keys_sample: section.value("hot_keys_sample"),
            monitor: section.value("monitor"),
            slowlog_log_slower_than: section.value("slowlog_log_slower_than"),
            access_log_sample: section.value("access_log_sample"),
            access_log_errors: section.value("access_log_errors"),
            trace_sample: section.value("trace_sample"),
            trace_slower_than: section.value("trace_slower_than"),
            slowlog_max_len: section.value("slowlog_max_len"),
            slow_log_of_shards: section.value::<&str>("slowlog_source") == "shards",
        };
        if let KeylessScripts::On(name) = &pool.keyless_scripts
            && !pool.shards.is_empty()
            && !pool.shards.iter().any(|shard| *shard.name == **name)
        {
            let text =
                format!("keyless_scripts: {name:?} is neither refuse nor any, nor the name of a shard");
            section.wrong(section.place("keyless_scripts"), text);
        }
        if !pool.shards.is_empty()
            && let Err(error) = pool.topology()
        {
            let is_of_pins = matches!(error, TopologyError::UnknownPin { .. } | TopologyError::UnownedPin(_));
            let place = section.place(if is_of_pins { "pin" } else { "servers" });
            section.wrong(place, error);
        }
        (mistakes.len() == before).then_some(pool)
    }
}

/// Where scripts without keys run in a pool of several shards.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub enum KeylessScripts {
    /// Nowhere.
    #[default]
    Refuse,
    /// On one shard, always the same.
    Any,
    /// On the shard with this name.
    On(String),
}

/// Where scripts without keys run. The nodes of a cluster have names of their own.
fn read_keyless(section: &mut Section<'_, '_>) -> KeylessScripts {
    let is_cluster = section.has("cluster");
    section.setting("keyless_scripts", |text| match text {
        "refuse" => Ok(KeylessScripts::Refuse),
        "any" => Ok(KeylessScripts::Any),
        "" => Err("allowed is refuse, any or the name of a shard".into()),
        _ if is_cluster => Err("with a Redis Cluster allowed is refuse or any".into()),
        name => Ok(KeylessScripts::On(name.into())),
    })
}

/// Which keys are kept together; of a mapping with mistakes none.
fn read_pins(section: &mut Section<'_, '_>) -> Pins {
    let Some(node) = section.node("pin") else { return Pins::default() };
    let Value::Map(entries) = &node.value else {
        let text = format!("pin has to be a mapping of prefixes, not {}", node.value.kind());
        section.wrong(node.place, text);
        return Pins::default();
    };
    let mut written = Vec::new();
    for entry in entries {
        let Value::Text(target) = &entry.node.value else {
            let hint =
                "; allowed is the name of a shard, or a hash tag in braces and quotes such as \"{user}\"";
            let text = format!("pin: {:?} is {}{hint}", entry.key, entry.node.value.kind());
            section.wrong(entry.node.place, text);
            return Pins::default();
        };
        // One by one, so that a mistake has its place.
        written.push((entry.key.as_str(), target.as_str()));
        if let Err(error) = Pins::new(written.last().copied()) {
            section.wrong(entry.place, format!("pin: {error}"));
            return Pins::default();
        }
    }
    Pins::new(written).unwrap_or_else(|error| {
        section.wrong(node.place, format!("pin: {error}"));
        Pins::default()
    })
}
