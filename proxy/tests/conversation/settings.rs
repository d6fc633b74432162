//! The settings of a stage, by the names that they have in the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use memstore_proxy::metrics::PoolCounters;
use memstore_proxy::pool::{Limits, NEVER_SLOW};
use memstore_proxy::privacy::Privacy;
use memstore_proxy::protocol::Protocol;
use memstore_proxy::protocol::acl::file::Users;
use memstore_proxy::protocol::memcache::{self, Memcache};
use memstore_proxy::protocol::resp::command::table::COMMANDS;
use memstore_proxy::protocol::resp::facade::Facade;
use memstore_proxy::protocol::resp::session::Keyless;
use memstore_proxy::protocol::resp::{Resp, session};
use memstore_proxy::protocol::store::{Commands, Store};
use memstore_proxy::secret::Secret;
use shard_discovery::{HashTag, Pins};

use super::script::{Setting, duration};
use super::speech::{self, Speech};

/// A setting's name, and what its value does; none if the value is not one.
pub type Row<S> = (&'static str, fn(&mut S, &str) -> Option<()>);

/// A protocol that conversations can be held in.
pub trait Dialect: Protocol {
    type Speech: Speech;

    const SETTINGS: &'static [Row<Self::Settings>];

    fn settings(shards: usize, is_cluster: bool) -> Self::Settings;

    /// What follows from what the header says.
    fn settle(_settings: &mut Self::Settings, _is_cluster: bool) {}
}

impl Dialect for Resp {
    type Speech = speech::Redis;

    const SETTINGS: &'static [Row<session::Settings>] = &[
        ("databases", |settings, value| put(&mut settings.databases, number(value))),
        ("redis_db", |settings, value| put(&mut settings.db, number(value))),
        ("redis_user", |settings, value| put(&mut settings.user, Some(Some(value.to_owned())))),
        ("redis_auth", |settings, value| put(&mut settings.password, secret(value))),
        ("redis_auth_previous_file", |settings, value| put(&mut settings.previous, secret(value))),
        ("users_file", |settings, value| put(&mut settings.users, users(value))),
        ("reauth", |settings, value| put(&mut settings.keeps_revoked, either(value, "keep", "close"))),
        ("keys_all_shards", |settings, value| {
            put(&mut settings.refuses_keys, either(value, "false", "true"))
        }),
        ("save_all_shards", |settings, value| {
            put(&mut settings.saves_all_shards, either(value, "true", "false"))
        }),
        ("keyless_scripts", |settings, value| put(&mut settings.keyless, keyless(value))),
        ("cluster_facade", |settings, value| {
            let has_slots = either(value, "over a cluster", "true");
            put(&mut settings.facade, has_slots.map(|has_slots| facade(None, &[], has_slots)))
        }),
        ("cluster_facade_announce", |settings, value| {
            put(&mut settings.facade, host_and_port(value).map(|own| facade(Some(own), &[], false)))
        }),
        ("cluster_facade_nodes", |settings, value| {
            let nodes = value.split(", ").map(host_and_port).collect::<Option<Vec<_>>>();
            put(&mut settings.facade, nodes.map(|nodes| facade(None, &nodes, false)))
        }),
        ("untracked", |settings, value| put(&mut settings.untracked, Some(Some(value.into())))),
        ("slowlog_source", |settings, value| {
            put(&mut settings.slow_log_of_shards, either(value, "shards", "proxy"))
        }),
        ("monitor", |settings, value| put(&mut settings.monitor, either(value, "true", "false"))),
        ("resp3", |settings, value| put(&mut settings.resp2_only, either(value, "false", "true"))),
    ];

    fn settings(shards: usize, is_cluster: bool) -> session::Settings {
        let databases = if is_cluster { 1 } else { 16 };
        let one_shard = shards == 1 && !is_cluster;
        session::Settings { databases, one_shard, ..session::Settings::default() }
    }

    fn settle(settings: &mut session::Settings, is_cluster: bool) {
        settings.confined = session::is_confined(settings.db, settings.databases, is_cluster);
    }
}

impl Dialect for Memcache {
    type Speech = speech::Memcache;

    const SETTINGS: &'static [Row<memcache::Settings>] = &[("miss_on_get_errors", |settings, value| {
        put(&mut settings.miss_on_get_errors, either(value, "true", "false"))
    })];

    fn settings(_shards: usize, _is_cluster: bool) -> memcache::Settings {
        memcache::Settings::default()
    }
}

/// The lines of a file, with a bar between two.
fn users(value: &str) -> Option<Option<Arc<Users>>> {
    let lines: Vec<&str> = value.split(" | ").collect();
    if value == "none" {
        return Some(None);
    }
    Some(Some(Arc::new(Users::read(&lines.join("\n")).ok()?)))
}

fn facade(own: Option<(&str, u16)>, nodes: &[(&str, u16)], has_slots: bool) -> Option<Arc<Facade>> {
    Some(Arc::new(Facade::new(own, nodes, has_slots)))
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// Where scripts without keys run: shards are known by their numbers here.
fn keyless(value: &str) -> Option<Keyless> {
    Some(match (value, value.strip_prefix("shard-").map(str::parse)) {
        ("refuse", _) => Keyless::Refuse,
        ("any", _) => Keyless::Any,
        (_, Some(Ok::<usize, _>(shard))) if (1..=9).contains(&shard) => Keyless::On(shard - 1),
        _ => Keyless::Missing(value.to_owned()),
    })
}

/// What shards say to COMMAND that have all commands of the table but those behind a minus, and those that are described:
/// `json.get -1 module+readonly 1 1 1`, with the first and the last key and the step between two.
fn commands(value: &str) -> Option<Commands> {
    let mut rows: BTreeMap<&str, [String; 5]> = COMMANDS
        .iter()
        .map(|row| (row.name, [row.arity.to_string(), String::new(), "0".into(), "0".into(), "0".into()]))
        .collect();
    for entry in value.split(", ") {
        match entry.strip_prefix('-') {
            Some(name) => drop(rows.remove(name)?),
            None => {
                let words: Vec<String> = entry.split(' ').map(str::to_owned).collect();
                rows.insert(entry.split(' ').next()?, words.get(1..)?.to_vec().try_into().ok()?);
            }
        }
    }
    let mut answer = format!("*{}\r\n", rows.len());
    for (name, [arity, flags, range @ ..]) in rows {
        let flags: Vec<&str> = flags.split('+').filter(|flag| !flag.is_empty()).collect();
        answer += &format!("*6\r\n+{name}\r\n:{arity}\r\n*{}\r\n", flags.len());
        answer.extend(flags.iter().map(|flag| format!("+{flag}\r\n")));
        answer.extend(range.iter().map(|number| format!(":{number}\r\n")));
    }
    Commands::read(answer.as_bytes())
}

/// Those of every protocol.
pub const LIMITS: &[Row<Limits>] = &[
    ("timeout", |limits, value| put(&mut limits.timeout, duration(value).map(Some))),
    ("queue_wait", |limits, value| put(&mut limits.queue_wait, duration(value))),
    ("in_flight_max", |limits, value| put(&mut limits.in_flight_max, number(value))),
    ("request_bytes_max", |limits, value| put(&mut limits.request_bytes_max, number(value))),
    ("blocked_max", |limits, value| put(&mut limits.blocked_max, number(value))),
    ("arguments_max", |limits, value| put(&mut limits.arguments_max, number(value))),
    ("client_output_max", |limits, value| put(&mut limits.client_output_max, number(value))),
    ("client_output_pause", |limits, value| put(&mut limits.client_output_pause, number(value))),
    ("large_value_min", |limits, value| put(&mut limits.large_value_min, number(value))),
    ("shard_queue_max", |limits, value| put(&mut limits.shard_queue_max, number(value))),
    ("shard_queue_bytes_max", |limits, value| put(&mut limits.shard_queue_bytes_max, number(value))),
    ("subscriber_output_max", |limits, value| put(&mut limits.subscriber_output_max, number(value))),
    ("subscriber_output_soft_max", |limits, value| {
        put(&mut limits.subscriber_output_soft_max, number(value))
    }),
    ("subscriber_output_soft_time", |limits, value| {
        put(&mut limits.subscriber_output_soft_time, duration(value))
    }),
    ("on_gap", |limits, value| put(&mut limits.closes_on_gap, either(value, "close", "keep"))),
    ("subscriptions_max", |limits, value| put(&mut limits.subscriptions_max, number(value))),
    ("pubsub", |limits, value| put(&mut limits.listens_everywhere, either(value, "all", "owner"))),
    ("memory_max", |limits, value| put(&mut limits.memory_max, number(value))),
    ("server_connections", |limits, value| put(&mut limits.server_connections, number(value))),
    ("server_failure_limit", |limits, value| put(&mut limits.eager_connects, number(value))),
    ("client_idle_timeout", |limits, value| put(&mut limits.client_idle_timeout, duration(value).map(Some))),
    ("client_request_timeout", |limits, value| {
        put(&mut limits.client_request_timeout, duration(value).map(Some))
    }),
    ("transactions", |limits, value| {
        put(&mut limits.per_shard_transactions, either(value, "per-shard", "one-shard"))
    }),
    ("rename_across_shards", |limits, value| {
        put(&mut limits.renames_across_shards, either(value, "true", "false"))
    }),
    ("slowlog_log_slower_than", |limits, value| {
        put(&mut limits.slow_min, if value == "-1" { Some(NEVER_SLOW) } else { number(value) })
    }),
    ("access_log_errors", |limits, value| put(&mut limits.access_errors, either(value, "true", "false"))),
    ("access_log_sample", |limits, value| put(&mut limits.access_sample, number(value))),
    ("slowlog_max_len", |limits, value| put(&mut limits.slow_log_max, number(value))),
    ("privacy", |limits, value| put(&mut limits.privacy, Some(Privacy::of(value)))),
    ("client_age_max", |limits, value| put(&mut limits.client_age_max, duration(value).map(Some))),
];

/// Those of the stage itself.
pub struct Scene {
    pub shards: usize,
    pub is_cluster: bool,
    pub tag: Option<HashTag>,
    pub pins: Pins,
    pub preconnects: bool,
    /// Shards are asked who they are.
    pub asks_identity: bool,
    /// The address that clients have connected to.
    pub local: String,
    /// What the shards have said of themselves.
    pub store: Store,
}

pub const SCENE: &[Row<Scene>] = &[
    ("protocol", |_, _| Some(())),
    ("shards", |scene, value| put(&mut scene.shards, number(value).filter(|&number| number > 0))),
    ("cluster", |scene, value| put(&mut scene.is_cluster, either(value, "true", "false"))),
    ("hash_tag", |scene, value| match value {
        "none" => put(&mut scene.tag, Some(None)),
        value => put(&mut scene.tag, Some(Some(value.parse().ok()?))),
    }),
    ("pin", |scene, value| {
        let pins = value.split(", ").map(|pin| pin.split_once(' ')).collect::<Option<Vec<_>>>();
        put(&mut scene.pins, Pins::new(pins?).ok())
    }),
    ("local_address", |scene, value| put(&mut scene.local, Some(value.to_owned()))),
    ("preconnect", |scene, value| put(&mut scene.preconnects, either(value, "true", "false"))),
    ("shard_commands", |scene, value| put(&mut scene.store.commands, commands(value).map(Arc::new))),
    ("shard_version", |scene, value| {
        let (kind, version) = value.split_once(' ')?;
        let info = match kind {
            "redis" => format!("redis_version:{version}"),
            "valkey" => format!("redis_version:7.2.4\nvalkey_version:{version}"),
            _ => return None,
        };
        let said = Store::of_info(&info);
        (scene.store.version, scene.store.valkey) = (said.version, said.valkey);
        Some(())
    }),
    ("shard_identity", |scene, value| put(&mut scene.asks_identity, either(value, "true", "false"))),
];

/// All that a header says, or the line that says what is not known.
pub fn read<D: Dialect>(header: &[Setting]) -> Result<(Scene, Limits, D::Settings), (usize, String)> {
    let tag = Some(HashTag::REDIS_CLUSTER);
    let pins = Pins::default();
    let store = Store::default();
    let mut scene = Scene {
        shards: 1,
        is_cluster: false,
        tag,
        pins,
        preconnects: false,
        asks_identity: false,
        local: String::new(),
        store,
    };
    // What is large in size has a conversation of its own.
    let mut limits = Limits { large_value_min: usize::MAX, ..Limits::default() };
    for setting in header {
        if !set(SCENE, &mut scene, setting)? && !set(LIMITS, &mut limits, setting)? {
            let known = D::SETTINGS.iter().any(|(name, _)| *name == setting.name);
            let unknown = || (setting.line, format!("{}: no such setting", setting.name));
            known.then_some(()).ok_or_else(unknown)?;
        }
    }
    let mut settings = D::settings(scene.shards, scene.is_cluster);
    for setting in header {
        set(D::SETTINGS, &mut settings, setting)?;
    }
    D::settle(&mut settings, scene.is_cluster);
    Ok((scene, limits, settings))
}

/// Whether there is such a setting here.
fn set<S>(rows: &[Row<S>], into: &mut S, setting: &Setting) -> Result<bool, (usize, String)> {
    let Some((_, row)) = rows.iter().find(|(name, _)| *name == setting.name) else { return Ok(false) };
    let wrong = || (setting.line, format!("{}: {:?} is no value of it", setting.name, setting.value));
    row(into, &setting.value).map(|()| true).ok_or_else(wrong)
}

fn put<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

fn secret(value: &str) -> Option<Option<Secret>> {
    Some(Some(Secret::new(value.to_owned())))
}

fn number<T: std::str::FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}

fn either(value: &str, yes: &str, no: &str) -> Option<bool> {
    [(yes, true), (no, false)].into_iter().find(|(word, _)| *word == value).map(|(_, is)| is)
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// Counters of the pool by their names.
        pub const COUNTERS: &[(&str, fn(&PoolCounters) -> u64)] =
            &[$((stringify!($name), |counters| counters.$name.get())),*];
    };
}

counters!(
    requests,
    refused,
    fragments,
    transactions,
    transaction_requests,
    transactions_too_large,
    forward_error,
    out_of_memory,
    client_eof,
    client_err,
    client_malformed,
    client_output_exceeded,
    client_evicted,
    client_timedout,
    client_aged,
    client_quit,
    client_killed,
    client_drained,
    client_cut,
    client_revoked,
    client_pauses,
    client_wedged,
    wrong_passwords,
    lanes_refused,
    queue_waits,
    slow,
    slow_passed_over,
    queue_full,
    subscriber_output_exceeded,
    subscriber_gap,
    messages,
    messages_delivered,
    messages_dropped,
    message_gaps,
    redirects_moved,
    redirects_ask,
    redirects_later,
    redirects_given_up,
    blocked_refused,
    blocked_repeated,
    transfers,
    transfers_failed,
    watches,
    watches_lost,
    invalidations,
    invalidations_of_all,
    tracked_evicted,
    reads_untracked,
    watch_conflicts,
    scripts_loaded,
    scripts_repaired,
    scripts_forgotten,
    blocked_delayed,
    blocked_lost,
);
