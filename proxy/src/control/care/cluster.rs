//! Who owns what in a pool's Redis Cluster, asked of its nodes again and again.
//!
//! Asked are the seeds and the primaries that are known, until most of them have answered: one alone may be cut off from
//! the others. It is asked at once when a node sends requests elsewhere or fails, else every `refresh`.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis_protocol::resp2::types::BytesFrame;
use shard_discovery::Address;
use shard_discovery::resolver::Resolver;
use shard_discovery::source::Listing;
use shard_discovery::source::cluster::view::Endpoint;
use shard_discovery::source::cluster::{Map, ReadFrom, View, view};
use tokio::task::JoinSet;

use super::capabilities;
use crate::config;
use crate::control::pool::PoolControl;
use crate::control::probe;
use crate::log_limit::warn_limited;
use crate::net::conversation::ConversationError;
use crate::protocol::questions;

/// Least pause between two times that the nodes are asked.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Pause where nobody has answered yet, or slots have no owner.
const PAUSE_UNKNOWN: Duration = Duration::from_secs(1);
/// After so many times without an answer of the cluster, about a second apart, another one in its place is believed.
const LOST_MAX: u32 = 20;
/// Primaries asked at a time, another part of them each time.
const ASKED_MAX: usize = 15;

/// Keeps the pool's map as long as it is served.
pub async fn follow(pool: Rc<PoolControl>) {
    while !pool.removed.get() {
        let pause = match pool.config().cluster() {
            None => PAUSE_UNKNOWN,
            // It may just be forming, or being mended.
            Some(cluster) if pool.map.borrow().covered() < usize::from(view::SLOTS) => {
                PAUSE_UNKNOWN.min(cluster.refresh)
            }
            Some(cluster) => cluster.refresh,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = pool.stale.notified() => {}
        }
        let has_answer = pool.config().cluster().is_none() || refresh(&pool).await;
        // Where nobody answers everybody who fails says so: that is no reason to ask more often.
        tokio::time::sleep(if has_answer { PAUSE_MIN } else { PAUSE_UNKNOWN }).await;
    }
}

/// Asks now and tells the workers what has changed. Returns whether anybody has answered.
pub async fn refresh(pool: &Rc<PoolControl>) -> bool {
    let config = pool.config();
    let round = pool.refreshes.get()[0] + pool.refreshes.get()[1];
    let present = pool.map.borrow().clone();
    let found = discover(&config, &pool.names, &present, pool.lost.get() >= LOST_MAX, round as usize).await;
    let [succeeded, failed] = pool.refreshes.get();
    if !Arc::ptr_eq(&config, &pool.config()) {
        // It may be another cluster by now, which is asked next.
        return true;
    }
    match found {
        Err(reason) => {
            pool.refreshes.set([succeeded, failed + 1]);
            pool.lost.set(pool.lost.get() + 1);
            warn_limited!(pool = %config.name, reason = %reason, "cluster topology refresh failed; keeping the previous topology");
            pool.note_source(Some(reason));
            pool.tell_status();
            false
        }
        Ok(map) => {
            pool.refreshes.set([succeeded + 1, failed]);
            pool.lost.set(0);
            pool.note_source(None);
            let readers = readers(&config, &pool.names, &map).await;
            if !Arc::ptr_eq(&config, &pool.config()) {
                return true;
            }
            let first = pool.map.borrow().covered() == 0;
            adopt(pool, &config, map, readers).await;
            if first {
                tokio::task::spawn_local(capabilities::learn(pool.clone()));
            }
            true
        }
    }
}

/// Others own what in the cluster by now, or answer reads; or nothing has changed.
async fn adopt(pool: &PoolControl, config: &Arc<config::Pool>, map: Map, readers: Vec<Vec<usize>>) {
    let (nodes, slots) = (map.members.len(), map.covered());
    let listing = Listing { readers, ..map.listing() };
    let map = Arc::new(map);
    if pool.map.replace(map.clone()) != map {
        tracing::info!(pool = %config.name, nodes, slots, "cluster topology changed");
    }
    pool.adopt(config, &listing).await;
}

/// Asks the seeds and the known primaries; an error says why none of them answers.
pub async fn discover(
    config: &Arc<config::Pool>,
    names: &Arc<Resolver>,
    present: &Map,
    accepts_strangers: bool,
    round: usize,
) -> Result<Map, String> {
    let known: Vec<Address> = present
        .members
        .iter()
        .filter(|member| member.replica_of.is_none())
        .map(|member| member.address.clone())
        .collect();
    let Some(cluster) = config.cluster() else { return Err("it is not a cluster".into()) };
    let mut views = Vec::new();
    let mut problems = Vec::new();
    if known.is_empty() {
        ask_all(config, names, cluster.seeds.clone(), 1, &mut views, &mut problems).await;
    }
    let preliminary = Map::of(&views);
    let named = preliminary.members.iter().filter(|member| member.replica_of.is_none());
    let named: Vec<Address> = named.map(|member| member.address.clone()).collect();
    let mut primaries = if known.is_empty() { named } else { known.clone() };
    if primaries.len() > ASKED_MAX {
        let places = primaries.len();
        primaries.rotate_left(round * ASKED_MAX % places);
        primaries.truncate(ASKED_MAX);
    }
    let majority = primaries.len() / 2 + 1;
    if !primaries.is_empty() {
        ask_all(config, names, primaries, majority, &mut views, &mut problems).await;
    }
    // Where nodes have moved, others may have their addresses by now: nodes of another cluster share no id with ours.
    let is_ours =
        |view: &View| view.nodes.iter().any(|node| present.members.iter().any(|member| member.id == node.id));
    if !known.is_empty() {
        views.retain(is_ours);
        if Map::of(&views).covered() == 0 {
            // The seeds are names that lead to where they are now.
            for seed in &cluster.seeds {
                if let Address::Tcp { host, .. } = seed {
                    let _ = names.refresh(host).await;
                }
            }
            ask_all(config, names, cluster.seeds.clone(), usize::MAX, &mut views, &mut problems).await;
            if views.iter().any(is_ours) || !accepts_strangers {
                if !views.is_empty() && !views.iter().any(is_ours) {
                    return Err("the nodes that answer are of another cluster".into());
                }
                views.retain(is_ours);
            }
        }
    }
    let map = Map::of(&views);
    match map.covered() {
        0 if views.is_empty() => Err(problems.join("; ")),
        0 => Err("no node owns a slot".into()),
        _ => Ok(map),
    }
}

/// Asks all of them at once, until `enough` have said that they are well or all have answered.
async fn ask_all(
    config: &Arc<config::Pool>,
    names: &Arc<Resolver>,
    addresses: Vec<Address>,
    enough: usize,
    views: &mut Vec<View>,
    problems: &mut Vec<String>,
) {
    let mut asking = JoinSet::new();
    for address in addresses {
        let (config, names) = (config.clone(), names.clone());
        asking.spawn_local(
            async move { ask(&address, &config, &names).await.map_err(|error| (address, error)) },
        );
    }
    let mut well = 0;
    while well < enough
        && let Some(answer) = asking.join_next().await
    {
        match answer {
            Ok(Ok(view)) => {
                well += usize::from(view.is_well);
                views.push(view);
            }
            Ok(Err((address, error))) => problems.push(format!("{address}: {error}")),
            Err(_) => {}
        }
    }
}

/// What one node says.
async fn ask(address: &Address, config: &config::Pool, names: &Resolver) -> Result<View, ConversationError> {
    let mut node = probe::enter(address, names, config).await?;
    let refused = ConversationError::Refused;
    let info = node.text(&questions::CLUSTER_STATE).await?;
    let nodes = node.text(&questions::CLUSTER_NODES).await?;
    let slots = node.ask(&questions::CLUSTER_SLOTS).await?;
    Ok(View {
        asked: address.clone(),
        is_well: view::info(&info, "cluster_state") == Some("ok"),
        nodes: view::nodes(&nodes).map_err(refused)?,
        endpoints: view::endpoints(endpoints(slots), address),
    })
}

/// What `CLUSTER SLOTS` says of where the nodes are.
fn endpoints(slots: BytesFrame) -> Vec<Endpoint> {
    let text = |frame: &BytesFrame| match frame {
        BytesFrame::BulkString(bytes) | BytesFrame::SimpleString(bytes) => {
            String::from_utf8(bytes.to_vec()).ok()
        }
        _ => None,
    };
    let list = |frame: BytesFrame| match frame {
        BytesFrame::Array(list) => list,
        _ => Vec::new(),
    };
    let endpoint = |node: BytesFrame| {
        let [host, BytesFrame::Integer(port), id, ..] = &list(node)[..] else { return None };
        Some(Endpoint { host: text(host), port: *port, id: text(id)? })
    };
    list(slots).into_iter().flat_map(|range| list(range).into_iter().skip(2)).filter_map(endpoint).collect()
}

/// For each member who answers its reads, as `read_from` says.
async fn readers(config: &Arc<config::Pool>, names: &Arc<Resolver>, map: &Map) -> Vec<Vec<usize>> {
    let read_from = config.cluster().map_or(ReadFrom::Primary, |cluster| cluster.read_from);
    let nearness = match read_from {
        ReadFrom::Primary | ReadFrom::PreferReplica => HashMap::new(),
        ReadFrom::Nearest => measure(config, names, map).await,
    };
    map.readers(read_from, &nearness)
}

/// How long each member takes to answer: the best of three.
async fn measure(config: &Arc<config::Pool>, names: &Arc<Resolver>, map: &Map) -> HashMap<usize, Duration> {
    let mut asking = JoinSet::new();
    for (index, member) in map.members.iter().enumerate() {
        let (address, config, names) = (member.address.clone(), config.clone(), names.clone());
        asking.spawn_local(async move {
            let mut node = probe::enter(&address, &names, &config).await.ok()?;
            let mut best = None;
            for _ in 0..3 {
                let start = Instant::now();
                node.ask(&questions::PING).await.ok()?;
                best = best.into_iter().chain([start.elapsed()]).min();
            }
            Some((index, best?))
        });
    }
    asking.join_all().await.into_iter().flatten().collect()
}
