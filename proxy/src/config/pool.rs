//! One pool of the configuration.

use std::str::FromStr as _;
use std::time::Duration;

use shard_discovery::source::cluster::{Cluster, Map};
use shard_discovery::source::fixed::address;
use shard_discovery::source::{Listing, Source};
use shard_discovery::yaml::{Entry, Value};
use shard_discovery::{
    Address, DistributionKind, HashTag, KeyHash, Placement, Shard, Topology, TopologyError,
};

use super::Surroundings;
use super::auth::{Auth, Reauth, read_auth};
use super::cluster::read_cluster;
use super::listen::Listen;
use super::mistake::Mistake;
use super::section::Section;
use super::servers::{Within, keep_within, read_source};
use super::settings;
use super::value::{boolean, duration, limit, named, number, percent, positive, size, text};

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
    pub listen: Listen,
    pub protocol: Protocol,
    pub key_hash: KeyHash,
    pub distribution: DistributionKind,
    pub hash_tag: Option<HashTag>,
    pub timeout: Option<Duration>,
    pub backlog: u32,
    pub client_connections: Option<u32>,
    pub reuseport: bool,
    pub tcpkeepalive: bool,
    pub auth: Option<Auth>,
    pub reauth: Reauth,
    pub db: u32,
    pub databases: u32,
    /// `None`: as the shards do, which are asked.
    pub resp3: Option<bool>,
    pub miss_on_get_errors: bool,
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
    pub shard_queue_bytes_max: u64,
}

impl Pool {
    /// Who owns what in this pool, as far as it was known when this was read.
    pub fn topology(&self) -> Result<Topology, TopologyError> {
        self.topology_of(&self.listing())
    }

    /// What was listed when this was read.
    pub fn listing(&self) -> Listing {
        match self.source {
            // Nothing is known yet.
            Source::Cluster(_) => Map::default().listing(),
            _ => Listing { placement: self.placement, ..Listing::of(self.shards.clone()) },
        }
    }

    /// Who owns what if this is listed.
    pub fn topology_of(&self, listing: &Listing) -> Result<Topology, TopologyError> {
        listing.topology(self.distribution, self.key_hash, self.hash_tag)
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
        let counted =
            |least: u64, most: u64| move |text: &str| number(text, least, most).map(|number| number as u32);
        let redis = section.setting("redis", boolean);
        let key_hash = section.setting("hash", named::<KeyHash, _>(KeyHash::ALL, |hash| hash.name()));
        let distribution = section
            .setting("distribution", named::<DistributionKind, _>(DistributionKind::ALL, |kind| kind.name()));
        let listen = section.required("listen", Listen::parse);
        let auth = read_auth(&mut section, redis, around);
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
        let databases = match section.setting("databases", counted(1, 65536)) {
            _ if !redis || source.cluster().is_some() && !section.has("databases") => 1,
            databases => databases,
        };
        let hash_tag = section.optional("hash_tag", |text| match HashTag::from_str(text) {
            Ok(tag) if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => Ok(tag),
            _ => Err("allowed are two characters of ASCII, such as \"{}\"".into()),
        });
        let client_connections = section.setting("client_connections", counted(0, u64::from(u32::MAX)));
        let resp3 = section.setting("resp3", |text| match text {
            "auto" => Ok(None),
            _ => boolean(text).map(Some).map_err(|_| "allowed are auto, true and false".into()),
        });
        let miss_on_get_errors = section.setting("miss_on_get_errors", boolean);
        if miss_on_get_errors && redis {
            let place = section.place("miss_on_get_errors");
            section.wrong(
                place,
                "miss_on_get_errors is for memcache pools; this one is a Redis pool (redis: true)",
            );
        }
        let pool = Self {
            name: entry.key.clone(),
            listen: listen.unwrap_or(Listen::Tcp { host: String::new(), port: 0 }),
            protocol: if redis { Protocol::Redis } else { Protocol::Memcache },
            key_hash,
            distribution,
            hash_tag,
            timeout: section.setting("timeout", limit),
            backlog: section.setting("backlog", counted(0, i32::MAX as u64)),
            client_connections: Some(client_connections).filter(|&most| most > 0),
            reuseport: section.setting("reuseport", boolean),
            tcpkeepalive: section.setting("tcpkeepalive", boolean),
            auth,
            reauth: section.setting("reauth", |text| match text {
                "close" => Ok(Reauth::Close),
                "keep" => Ok(Reauth::Keep),
                _ => Err("allowed are close and keep".into()),
            }),
            db: section.setting("redis_db", counted(0, u64::from(u32::MAX) - 1)),
            databases,
            miss_on_get_errors,
            shard_identity: section.setting("shard_identity", boolean) && redis,
            resp3: if redis { resp3 } else { Some(false) },
            preconnect: section.setting("preconnect", boolean),
            auto_eject_hosts: section.setting("auto_eject_hosts", boolean),
            server_connections: section.setting("server_connections", counted(1, 65536)),
            server_retry_timeout: section.setting("server_retry_timeout", duration),
            server_failure_limit: section.setting("server_failure_limit", counted(0, u64::from(u32::MAX))),
            eject_max_share: section.setting("eject_max_share", percent),
            source,
            shards,
            placement: None,
            within,
            servers_within_limit: section.setting("servers_within_limit", limit),
            servers_peers: section
                .optional("servers_peers", |text| address(text).ok_or_else(|| "allowed is host:port".into())),
            servers_srv,
            connect_timeout: section.setting("connect_timeout", positive),
            queue_wait: section.setting("queue_wait", positive),
            adopt_wait: section.setting("adopt_wait", limit),
            info_refresh: section.setting("info_refresh", limit).filter(|_| redis),
            client_idle_timeout: section.setting("client_idle_timeout", limit),
            client_request_timeout: section.setting("client_request_timeout", limit),
            client_age_max: section.setting("client_age_max", limit),
            in_flight_max: section.setting("in_flight_max", counted(1, 1 << 20)),
            request_bytes_max: section.setting("request_bytes_max", size),
            arguments_max: section.setting("arguments_max", counted(1, i32::MAX as u64)),
            client_output_max: section.setting("client_output_max", size),
            client_output_pause: section.setting("client_output_pause", size),
            shard_queue_max: section.setting("shard_queue_max", counted(1, 1 << 22)),
            shard_queue_bytes_max: section.setting("shard_queue_bytes_max", size),
        };
        if !pool.shards.is_empty()
            && let Err(error) = pool.topology()
        {
            let place = section.place("servers");
            section.wrong(place, error);
        }
        (mistakes.len() == before).then_some(pool)
    }
}
