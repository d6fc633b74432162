//! The topology document, with what only a running proxy knows beside it.

use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Map, Value, json};
use shard_discovery::Address;
use shard_discovery::document::{Document, Pool};

use super::metrics::REDIRECTS;
use super::rings::Rings;
use crate::status::{PoolStatus, Status};
use crate::worker;

/// The document as `/topology` serves it. Readers of the document take no notice of the additions.
pub fn document(status: &Status, rings: &Rings) -> Value {
    let pools = status.pools();
    let plain = Document::of(pools.iter().map(|pool| (pool.config.name.clone(), plain(pool))).collect());
    let mut document = json!(plain);
    document["generation"] = json!(status.generation.load(Relaxed));
    document["config_digest"] = json!(status.digest());
    document["reload_error"] = json!(status.last_error());
    document["draining"] = json!(status.draining.load(Relaxed));
    document["workers"] = json!(status.workers.len());
    for pool in &pools {
        add(pool, rings, &mut document["pools"][&pool.config.name]);
    }
    document
}

fn plain(pool: &PoolStatus) -> Pool {
    let protocol = worker::about(pool.config.protocol).name;
    let mut document = Pool::of(protocol, &pool.topology, &pool.ejected);
    if let Some(service) = &pool.config.servers_srv {
        // Their ports are in the records only.
        for (told, shard) in document.shards.iter_mut().zip(pool.topology.shards()) {
            if let Address::Tcp { host, .. } = &shard.address
                && let Some(port) = pool.names.known_port(service, host)
            {
                told.address = Address::Tcp { host: host.clone(), port }.to_string();
            }
        }
    }
    document
}

fn add(pool: &PoolStatus, rings: &Rings, document: &mut Value) {
    let counters = &pool.counters;
    document["listen"] = json!(pool.config.listens());
    document["epoch"] = json!(pool.epoch);
    let epochs: Vec<u64> = counters.workers().iter().map(|worker| worker.epoch.get()).collect();
    document["worker_epochs"] = json!(epochs);
    document["listening"] = json!(pool.listening);
    document["client_connections"] = json!(counters.sum(|pool| pool.client_connections.get()));
    // Sockets to each shard at most, without those for further databases and RESP3.
    document["shard_connections_max"] =
        json!(counters.workers().len() * pool.config.server_connections as usize);
    document["servers_error"] = json!(pool.source_error);
    document["servers_within"] = pool.ring.within();
    document["shards_awaited"] = json!(pool.ring.awaited);
    if pool.config.cluster().is_some() {
        let [succeeded, failed] = pool.refreshes;
        document["cluster"] = json!({
            "slots_covered": pool.map.covered(),
            "refreshes": { "success": succeeded, "failure": failed },
            "redirects": Map::from_iter(REDIRECTS.map(|(kind, number)| (kind.into(), json!(counters.sum(number))))),
        });
        for (index, member) in pool.map.members.iter().enumerate().take(pool.topology.shards().len()) {
            let shard = &mut document["shards"][index];
            shard["node"] = json!(member.id);
            shard["epoch"] = json!(member.epoch);
            shard["slots"] = json!(member.slots);
            shard["replica_of"] = json!(member.replica_of.map(|primary| &pool.map.members[primary].id));
        }
    }
    for share in rings.of(pool).shares.iter().flatten() {
        let index = share.shard;
        let shard = &mut document["shards"][index];
        if let Address::Tcp { host, .. } = &pool.topology.shards()[index].address {
            shard["resolved"] = json!(pool.names.known(host));
        }
        shard["healthy"] = json!(pool.is_healthy(index));
        shard["connections"] = json!(counters.sum_shard(index, |shard| shard.server_connections.get()));
        shard["points"] = json!(share.points);
        shard["share"] = json!(share.share);
    }
}
