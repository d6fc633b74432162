//! From the configuration to what a pool goes by, and the one place where the name of a protocol becomes the type that speaks it.

use std::marker::PhantomData;
use std::sync::Arc;

use shard_discovery::Topology;

use super::driver::Drive;
use super::{Learnt, PoolSetup, Worker};
use crate::config::{self, KeylessScripts, Reauth};
use crate::pool::{Limits, NEVER_SLOW, PARKED_BYTES_MAX, PASS_WORK_MAX};
use crate::protocol::memcache::{self, Memcache};
use crate::protocol::resp::facade::Facade;
use crate::protocol::resp::session::Keyless;
use crate::protocol::resp::{Resp, session};
use crate::protocol::{About, Protocol};

/// A protocol that pools are configured for.
pub trait Configured: Protocol {
    /// What it goes by, of all that is known of a pool.
    fn settings(config: &config::Pool, learnt: Learnt, topology: &Topology) -> Self::Settings;
}

/// A protocol whose type the caller does not know.
pub trait Speaker {
    /// What is to be known of it.
    fn about(&self) -> About;

    /// Makes the driver of a pool.
    fn open(&self, worker: &Worker, setup: PoolSetup) -> Box<dyn Drive>;
}

struct Speaks<P>(PhantomData<P>);

impl<P: Configured> Speaker for Speaks<P> {
    fn about(&self) -> About {
        About::of::<P>()
    }

    fn open(&self, worker: &Worker, setup: PoolSetup) -> Box<dyn Drive> {
        Box::new(worker.driver::<P>(setup))
    }
}

/// Who speaks this protocol.
pub fn speaker(protocol: config::Protocol) -> &'static dyn Speaker {
    match protocol {
        config::Protocol::Redis => &Speaks::<Resp>(PhantomData),
        config::Protocol::Memcache => &Speaks::<Memcache>(PhantomData),
    }
}

/// What is to be known of this protocol.
pub fn about(protocol: config::Protocol) -> About {
    speaker(protocol).about()
}

impl Configured for Memcache {
    fn settings(config: &config::Pool, _: Learnt, _: &Topology) -> memcache::Settings {
        memcache::Settings { miss_on_get_errors: config.miss_on_get_errors }
    }
}

impl Configured for Resp {
    fn settings(config: &config::Pool, learnt: Learnt, topology: &Topology) -> session::Settings {
        session::Settings {
            password: config.auth.as_ref().map(|auth| auth.password.clone()),
            previous: config.auth.as_ref().and_then(|auth| auth.previous.clone()),
            user: config.auth.as_ref().and_then(|auth| auth.user.clone()),
            users: config.users.clone(),
            keeps_revoked: config.reauth == Reauth::Keep,
            db: config.db,
            databases: learnt.databases.map_or(config.databases, |learnt| learnt.min(config.databases)),
            // Those that the shards lack are nobody else's.
            confined: session::is_confined(config.db, config.databases, config.cluster().is_some()),
            waits_without_limit: config.timeout.is_none(),
            port: config.port(),
            resp2_only: config.resp3.map_or(learnt.lacks_resp3, |resp3| !resp3),
            untracked: learnt.untracked,
            slow_log_of_shards: config.slow_log_of_shards,
            slow_log: (
                config.slowlog_log_slower_than.map_or(-1, |micros| i64::try_from(micros).unwrap_or(i64::MAX)),
                config.slowlog_max_len as usize,
            ),
            refuses_keys: !config.keys_all_shards,
            saves_all_shards: config.save_all_shards,
            keyless: keyless(&config.keyless_scripts, topology),
            facade: config
                .facade
                .as_ref()
                .map(|facade| Arc::new(facade_of(facade, config.cluster().is_some()))),
            monitor: config.monitor,
            one_shard: config.cluster().is_none() && topology.shards().len() == 1,
        }
    }
}

/// What clients with cluster support are told.
fn facade_of(config: &config::Facade, is_cluster: bool) -> Facade {
    let nodes: Vec<(&str, u16)> = config.nodes.iter().map(|(host, port)| (host.as_str(), *port)).collect();
    let own = config.announce.as_ref().map(|(host, port)| (host.as_str(), *port));
    Facade::new(own, &nodes, is_cluster)
}

/// Where scripts without keys run, by the shards that there are.
fn keyless(config: &KeylessScripts, topology: &Topology) -> Keyless {
    match config {
        KeylessScripts::Refuse => Keyless::Refuse,
        KeylessScripts::Any => Keyless::Any,
        KeylessScripts::On(name) => {
            let place = topology.shards().iter().position(|shard| *shard.name == **name);
            place.map_or_else(|| Keyless::Missing(name.clone()), Keyless::On)
        }
    }
}

impl Limits {
    /// Those of a pool, in a process that may hold so many bytes.
    pub fn of(config: &config::Pool, memory_max: usize) -> Self {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            timeout: config.timeout,
            queue_wait: config.timeout.map_or(config.queue_wait, |timeout| timeout.min(config.queue_wait)),
            in_flight_max: config.in_flight_max as usize,
            request_bytes_max: config.request_bytes_max,
            blocked_max: config.blocked_max as usize,
            arguments_max: config.arguments_max as usize,
            client_output_max: size(config.client_output_max),
            client_output_pause: size(config.client_output_pause),
            shard_queue_max: config.shard_queue_max as usize,
            large_value_min: size(config.large_value_min),
            shard_queue_bytes_max: config.shard_queue_bytes_max,
            subscriptions_max: config.subscriptions_max as usize,
            subscriber_output_max: size(config.subscriber_output_max),
            subscriber_output_soft_max: size(config.subscriber_output_soft_max),
            subscriber_output_soft_time: config.subscriber_output_soft_time,
            closes_on_gap: config.closes_on_gap,
            listens_everywhere: config.pubsub_everywhere,
            parked_bytes_max: PARKED_BYTES_MAX,
            per_shard_transactions: config.per_shard_transactions,
            renames_across_shards: config.renames_across_shards,
            memory_max,
            pass_work_max: PASS_WORK_MAX,
            eager_connects: if config.auto_eject_hosts { config.server_failure_limit.min(100) } else { 0 },
            server_connections: config.server_connections as usize,
            client_idle_timeout: config.client_idle_timeout,
            client_request_timeout: config.client_request_timeout,
            client_age_max: config.client_age_max,
            privacy: config.privacy,
            hot_keys_sample: if config.hot_keys { config.hot_keys_sample } else { 0 },
            slow_min: config.slowlog_log_slower_than.unwrap_or(NEVER_SLOW),
            access_sample: config.access_log_sample.into(),
            access_errors: config.access_log_errors,
            trace_sample: config.trace_sample.into(),
            trace_min: config.trace_slower_than.unwrap_or(NEVER_SLOW),
            slow_log_max: config.slowlog_max_len as usize,
        }
    }
}
