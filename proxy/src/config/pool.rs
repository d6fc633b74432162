//! One pool of the configuration.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use shard_discovery::{Address, DistributionKind, HashTag, KeyHash, Shard, Topology};

use super::cluster::{Cluster, address};
use super::listen::{Listen, server};
use super::mistake::{Mistake, Place, did_you_mean};
use super::process::percent;
use super::section::Section;
use super::settings;
use super::value::{boolean, duration, limit, number, size, text};
use super::yaml::{self, Entry, Node, Value};
use super::{Surroundings, fnv};

/// What a pool speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// RESP.
    Redis,
    /// memcached's text protocol.
    Memcache,
}

/// A password; it does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a secret.
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// What a file holds, without the line end that editors leave.
    ///
    /// # Errors
    /// With the file's name, when it cannot be read or is empty.
    pub fn of_file(file: &Path) -> anyhow::Result<Self> {
        let named = || file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(named)?;
        let secret = without_line_ends(&text);
        anyhow::ensure!(!secret.is_empty(), "{}: the file is empty", named());
        Ok(Self(secret.to_owned()))
    }

    /// The password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// What is said to the shards, and asked of clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Auth {
    /// A user beside the password.
    pub user: Option<String>,
    /// The password.
    pub password: Secret,
    /// The one before it, while it is being changed.
    pub previous: Option<Secret>,
}

/// What a list of `servers_within` does to the servers, where it leaves some of them out.
#[derive(Clone, PartialEq, Debug)]
pub struct Within {
    /// All servers.
    pub all: Vec<Shard>,
    /// Tells lists apart: one that is written anew counts anew, whatever it names.
    pub text: u64,
    /// It is being put in force just now, as the copy of it in `servers_within_attempt` says.
    pub is_attempted: bool,
}

/// What becomes of clients once their password has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reauth {
    /// They are closed between two requests.
    Close,
    /// They stay.
    Keep,
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
    /// Of a cluster: as far as they are known.
    pub shards: Vec<Shard>,
    /// What `servers_within` leaves out of the list, if anything.
    pub within: Option<Within>,
    pub servers_within_limit: Option<Duration>,
    /// Admin addresses of other processes that serve this pool.
    pub servers_peers: Option<Address>,
    /// It is a cluster, which says itself who owns what.
    pub cluster: Option<Cluster>,
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
    /// Who owns what in this pool.
    pub fn topology(&self) -> Result<Topology, shard_discovery::TopologyError> {
        if self.cluster.is_some() {
            // Nothing is known yet.
            return Topology::of_cluster(Vec::new(), &[None; 16_384], Vec::new());
        }
        Topology::new(self.shards.clone(), self.distribution, self.key_hash, self.hash_tag)
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
        let cluster = match section.node("cluster") {
            Some(node) => read_cluster(&mut section, node, redis),
            None => None,
        };
        let mut shards = if section.has("cluster") { Vec::new() } else { read_servers(&mut section, around) };
        let within = keep_within(&mut section, around, &mut shards);
        let databases = if cluster.is_some() && !section.has("databases") {
            1
        } else {
            section.setting("databases", counted(1, 65536))
        };
        let hash_tag = section.optional("hash_tag", |text| match HashTag::from_str(text) {
            Ok(tag) if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => Ok(tag),
            _ => Err("allowed are two characters of ASCII, such as \"{}\"".into()),
        });
        let client_connections = section.setting("client_connections", counted(0, u64::from(u32::MAX)));
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
            shard_identity: section.setting("shard_identity", boolean),
            resp3: section.setting("resp3", |text| match text {
                "auto" => Ok(None),
                _ => boolean(text).map(Some).map_err(|_| "allowed are auto, true and false".into()),
            }),
            preconnect: section.setting("preconnect", boolean),
            auto_eject_hosts: section.setting("auto_eject_hosts", boolean),
            server_connections: section.setting("server_connections", counted(1, 65536)),
            server_retry_timeout: section.setting("server_retry_timeout", duration),
            server_failure_limit: section.setting("server_failure_limit", counted(0, u64::from(u32::MAX))),
            eject_max_share: section.setting("eject_max_share", percent),
            shards,
            within,
            servers_within_limit: section.setting("servers_within_limit", limit),
            servers_peers: section
                .optional("servers_peers", |text| address(text).ok_or_else(|| "allowed is host:port".into())),
            cluster,
            servers_srv,
            connect_timeout: section.setting("connect_timeout", positive),
            queue_wait: section.setting("queue_wait", positive),
            adopt_wait: section.setting("adopt_wait", limit),
            info_refresh: section.setting("info_refresh", limit),
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

/// A cluster decides for itself what other pools are told.
fn read_cluster(section: &mut Section<'_, '_>, node: &Node, redis: bool) -> Option<Cluster> {
    const OTHERS: [(&str, &str); 18] = [
        ("servers", "its nodes say who they are"),
        ("servers_file", "its nodes say who they are"),
        ("servers_within", "its nodes say who they are"),
        ("servers_within_limit", "its nodes say who they are"),
        ("servers_within_attempt", "its nodes say who they are"),
        ("servers_peers", "its nodes say who they are"),
        ("servers_dns", "its nodes say who they are; name them as seeds"),
        ("servers_srv", "its nodes say where they are"),
        ("servers_count", "its nodes say who they are"),
        ("servers_names", "its nodes say who they are"),
        ("hash", "keys are hashed as Redis Cluster does"),
        ("distribution", "its nodes say who owns what"),
        ("hash_tag", "it is always {}"),
        ("redis_db", "it has database 0 only"),
        ("databases", "it has database 0 only"),
        ("auto_eject_hosts", "it replaces failed nodes itself"),
        ("shard_identity", "its nodes are known by their numbers"),
        ("preconnect", "its nodes are connected to when they are needed"),
    ];
    if !redis {
        section.wrong(node.place, "cluster is for Redis pools; this one is a memcache pool (redis: false)");
    }
    for (name, why) in OTHERS {
        if section.has(name) {
            let place = section.place(name);
            section.wrong(place, format!("{name} is not for a cluster: {why}"));
        }
    }
    Cluster::read(section, node)
}

/// One of a fixed set of names.
fn named<T: FromStr + Copy, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        text.parse().map_err(|_| {
            let names = all.map(name);
            format!("allowed are {}{}", names.join(", "), did_you_mean(text, names))
        })
    }
}

pub(super) fn positive(text: &str) -> Result<Duration, String> {
    duration(text)
        .and_then(|time| if time.is_zero() { Err("it has to be more than 0".into()) } else { Ok(time) })
}

/// The password comes from the file itself, from another file, or from the environment.
fn read_auth(section: &mut Section<'_, '_>, redis: bool, around: &Surroundings<'_>) -> Option<Auth> {
    const SOURCES: [&str; 3] = ["redis_auth", "redis_auth_file", "redis_auth_env"];
    let given: Vec<_> = SOURCES.into_iter().filter(|name| section.has(name)).collect();
    let user = section.optional("redis_user", text);
    let beside = ["redis_user", "redis_auth_previous_file"].into_iter().find(|name| section.has(name));
    if let Some(name) = given.first().copied().or(beside) {
        let place = section.place(name);
        if !redis {
            section.wrong(
                place,
                format!("{name} is for Redis pools; this one is a memcache pool (redis: false)"),
            );
            return None;
        }
        if given.is_empty() {
            section.wrong(
                place,
                format!("{name} needs a password as well: redis_auth, redis_auth_file or redis_auth_env"),
            );
        }
    }
    if let [first, second, ..] = given[..] {
        let place = section.place(second);
        section.wrong(place, format!("{first} and {second} are both set; keep one of them"));
    }
    let password = match *given.first()? {
        "redis_auth" => section.optional("redis_auth", text),
        "redis_auth_file" => section.optional("redis_auth_file", |path| secret_file(path, around)),
        _ => section.optional("redis_auth_env", |name| {
            let secret = (around.environment)(name).ok_or("there is no such environment variable")?;
            if secret.is_empty() { Err("the environment variable is empty".into()) } else { Ok(secret) }
        }),
    };
    let previous = section.optional("redis_auth_previous_file", |path| {
        match (around.read_file)(Path::new(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
            // Empty is as good as not there.
            Ok(text) => Ok(Some(without_line_ends(&text).to_owned()).filter(|text| !text.is_empty())),
        }
    });
    Some(Auth { user, password: Secret(password?), previous: previous.flatten().map(Secret) })
}

fn without_line_ends(text: &str) -> &str {
    text.trim_end_matches(['\r', '\n'])
}

/// The secret in a file, without the line end that editors leave.
pub(super) fn secret_file(path: &str, around: &Surroundings<'_>) -> Result<String, String> {
    let secret = (around.read_file)(Path::new(path)).map_err(|error| error.to_string())?;
    let secret = without_line_ends(&secret);
    if secret.is_empty() { Err("the file is empty".into()) } else { Ok(secret.to_owned()) }
}

/// The shards come from the list itself, from a list in another file, or from a template of host names.
fn read_servers(section: &mut Section<'_, '_>, around: &Surroundings<'_>) -> Vec<Shard> {
    const SOURCES: [&str; 3] = ["servers", "servers_file", "servers_dns"];
    let given: Vec<_> = SOURCES.into_iter().filter(|name| section.has(name)).collect();
    if let [first, second, ..] = given[..] {
        let place = section.place(second);
        section.wrong(place, format!("{first} and {second} are both set; keep one of them"));
    }
    let names = section.setting("servers_names", |text| {
        if text.contains("{}") { Ok(text.to_owned()) } else { Err("it needs {} for the number".into()) }
    });
    let count = section.optional("servers_count", |text| number(text, 1, u64::from(u16::MAX)));
    if count.is_some() && !section.has("servers_dns") {
        let place = section.place("servers_count");
        section.wrong(place, "servers_count is how many shards servers_dns stands for, which is missing");
    }
    if section.has("servers_srv") && !section.has("servers_dns") {
        let place = section.place("servers_srv");
        section.wrong(place, "servers_srv is for the ports of servers_dns, which is missing");
    }
    match given.first() {
        Some(&"servers_dns") => {
            let has_srv = section.has("servers_srv");
            let read = |text: &str| host_template(text, has_srv);
            let Some(template) = section.optional("servers_dns", read) else { return Vec::new() };
            let Some(count) = count else {
                let place = section.place("servers_dns");
                section.wrong(
                    place,
                    "servers_dns needs servers_count as well: the ring is built from what is declared",
                );
                return Vec::new();
            };
            let shard = |number: u64| {
                let (host, port) = &template;
                let number = number.to_string();
                let address = Address::Tcp { host: host.replace("{}", &number), port: *port };
                Shard::new(address, 1, Some(names.replace("{}", &number)))
            };
            (0..count).map(shard).collect()
        }
        Some(&"servers_file") => {
            let place = section.place("servers_file");
            let read = |path: &str| {
                let text = (around.read_file)(Path::new(path)).map_err(|error| error.to_string())?;
                yaml::parse(&text).map_err(|mistake| format!("line {}: {}", mistake.place.line, mistake.text))
            };
            match section.optional("servers_file", read) {
                Some(list) => read_list(section, &list, |_| place),
                None => Vec::new(),
            }
        }
        _ => match section.node("servers") {
            Some(node) => read_list(section, node, |place| place),
            None => {
                section.missing("servers");
                Vec::new()
            }
        },
    }
}

/// Leaves only shards that the list in another file names too, if there is one: those that are about to go are left before
/// the list itself changes. A list that names others instead is that of another ring, and leaves all.
fn keep_within(
    section: &mut Section<'_, '_>,
    around: &Surroundings<'_>,
    shards: &mut Vec<Shard>,
) -> Option<Within> {
    let place = section.place("servers_within");
    let read_file = |path: &str| match (around.read_file)(Path::new(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(|error| error.to_string()),
    };
    if section.has("servers_within_attempt") && !section.has("servers_within") {
        let place = section.place("servers_within_attempt");
        section
            .wrong(place, "servers_within_attempt is a copy of the list in servers_within, which is missing");
    }
    let attempt = section.optional("servers_within_attempt", read_file).flatten();
    let read = |path: &str| {
        let Some(text) = read_file(path)? else { return Ok(None) };
        let list = yaml::parse(&text);
        list.map(|list| Some((list, text)))
            .map_err(|mistake| format!("line {}: {}", mistake.place.line, mistake.text))
    };
    let (list, text) = section.optional("servers_within", read)??;
    let named = read_list(section, &list, |_| place);
    let is_shard = |other: &Shard| shards.iter().any(|shard| shard.name == other.name);
    if named.is_empty() || named.len() == shards.len() || !named.iter().all(is_shard) {
        return None;
    }
    let all = shards.clone();
    shards.retain(|shard| named.iter().any(|other| other.name == shard.name));
    Some(Within { all, text: fnv(text.as_bytes()), is_attempted: attempt.is_some_and(|copy| copy == text) })
}

/// `host-{}.domain:port`, or without a port if that comes from SRV records.
fn host_template(text: &str, has_srv: bool) -> Result<(String, u16), String> {
    const ALLOWED: &str =
        "allowed is host:port with {} in the host, such as cache-{}.cache.default.svc.cluster.local.:6379";
    if has_srv {
        return match (text.contains(':'), text.contains("{}")) {
            (false, true) => Ok((text.to_owned(), 0)),
            _ => Err("with servers_srv it is a host with {} and no port".into()),
        };
    }
    let (host, port) = text.rsplit_once(':').ok_or(ALLOWED)?;
    let port = port.parse().ok().filter(|&port| port > 0).ok_or(ALLOWED)?;
    if host.contains("{}") { Ok((host.to_owned(), port)) } else { Err(ALLOWED.into()) }
}

/// A list of servers; `at` says where a mistake in it is told.
fn read_list(section: &mut Section<'_, '_>, list: &Node, at: impl Fn(Place) -> Place) -> Vec<Shard> {
    let Value::List(lines) = &list.value else {
        section.wrong(at(list.place), format!("servers has to be a list, not {}", list.value.kind()));
        return Vec::new();
    };
    if lines.is_empty() {
        section.wrong(at(list.place), "servers is empty; a pool needs at least one");
    }
    let mut shards: Vec<(Shard, Place)> = Vec::new();
    for Node { place, value } in lines {
        let told = at(*place);
        let Value::Text(line) = value else {
            section.wrong(told, format!("a server has to be a text, not {}", value.kind()));
            continue;
        };
        match server(line) {
            Ok(shard) => {
                if let Some((_, first)) = shards.iter().find(|(earlier, _)| earlier.name == shard.name) {
                    let text = format!(
                        "server {line:?} has the name {:?}, as the one in line {}; give one of them another name",
                        shard.name, first.line
                    );
                    section.wrong(told, text);
                } else {
                    shards.push((shard, *place));
                }
            }
            Err(allowed) => section.wrong(told, format!("server {line:?} cannot be used: {allowed}")),
        }
    }
    shards.into_iter().map(|(shard, _)| shard).collect()
}
