//! Whether shards can serve, also those that nobody asks for anything.
//!
//! A readiness that only requests could restore would never be: no requests come to what is not ready. Shards that failed
//! last, and those that no worker is connected to, are probed from here.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::pools::PoolControl;
use super::probe;
use crate::worker::Order;

/// How often it is looked whether a shard is to be probed, and how often one is that failed.
const TICK: Duration = Duration::from_secs(1);
/// How often a shard is probed that nobody is connected to.
const IDLE_PAUSE: Duration = Duration::from_secs(30);
/// Longest probe, the connect included.
const PROBE_MAX: Duration = Duration::from_secs(2);
/// Probes begun at a time.
const PROBES_MAX: usize = 64;

/// Keeps [`PoolControl::unreachable`] as long as the pool is served.
pub async fn watch(pool: Rc<PoolControl>) {
    let mut probed: HashMap<String, Instant> = HashMap::new();
    while !pool.removed.get() {
        let (config, counters) = (pool.config(), pool.counters());
        let shards = pool.ejection.borrow().shards().to_vec();
        let ejected = pool.ejection.borrow().ejected();
        let mut asking = tokio::task::JoinSet::new();
        for (index, shard) in shards.iter().enumerate() {
            let is_failing = counters.sum_shard(index, |shard| shard.failing.get()) > 0
                || pool.unreachable.borrow().contains(&shard.name);
            let is_connected = counters.sum_shard(index, |shard| shard.server_connections.get()) > 0;
            let due = match probed.get(&shard.name) {
                None => is_failing || !is_connected,
                Some(at) => is_failing || (!is_connected && at.elapsed() >= IDLE_PAUSE),
            };
            // Those that are out of the ring are probed by the ejection.
            if !due || ejected.contains(&index) || asking.len() >= PROBES_MAX {
                continue;
            }
            probed.insert(shard.name.clone(), Instant::now());
            let (shard, config, names) = (shard.clone(), config.clone(), pool.names.clone());
            asking.spawn_local(async move {
                // One that hangs is not to hold up what is known of the others.
                let asked = timeout(PROBE_MAX, probe::probe(&shard.address, &names, &config)).await;
                let answered = asked.is_ok_and(|answer| answer.is_ok());
                (shard.name, answered, is_failing)
            });
        }
        let mut has_changed = false;
        for (name, answered, was_failing) in asking.join_all().await {
            has_changed |= if answered {
                pool.unreachable.borrow_mut().remove(&name)
            } else {
                pool.unreachable.borrow_mut().insert(name.clone())
            };
            if answered && was_failing {
                let name: Arc<str> = name.as_str().into();
                for orders in &pool.orders {
                    orders.send(Order::Recovered(name.clone())).await;
                }
            }
        }
        probed.retain(|name, _| shards.iter().any(|shard| shard.name == *name));
        pool.unreachable.borrow_mut().retain(|name| shards.iter().any(|shard| shard.name == *name));
        if has_changed {
            pool.tell_status();
        }
        tokio::time::sleep(TICK).await;
    }
}
