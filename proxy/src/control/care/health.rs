//! Whether shards can serve, also those that nobody asks for anything.
//!
//! A readiness that only requests could restore would never be: no requests come to what is not ready. Shards that failed
//! last, and those that no worker is connected to, are probed from here.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shard_discovery::Address;
use tokio::time::timeout;

use crate::control::pool::PoolControl;
use crate::control::probe;
use crate::failure::ShardFailure;
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
                let failure = match asked {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error.failure()),
                    Err(_) => Some(ShardFailure::ResponseTimeout),
                };
                (shard.name, failure, is_failing)
            });
        }
        let mut has_changed = false;
        for (name, failure, was_failing) in asking.join_all().await {
            if matches!(failure, Some(ShardFailure::LocalResources(_))) {
                // Nothing is known of it then.
                continue;
            }
            let answered = failure.is_none();
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
            if let Some(failure) = failure {
                pool.note_unhealthy(&name, &failure);
            }
        }
        probed.retain(|name, _| shards.iter().any(|shard| shard.name == *name));
        let is_known = |name: &String| shards.iter().any(|shard| shard.name == *name);
        pool.unreachable.borrow_mut().retain(is_known);
        pool.standings.retain(is_known);
        // Also those that were never asked for anything since.
        pool.standings.down().iter().for_each(|name| pool.note_healthy(name));
        if has_changed {
            pool.tell_status();
        }
        tokio::time::sleep(TICK).await;
    }
}

impl PoolControl {
    /// The shard does not serve: the log says so once, until it serves again; and once more when it is the shard's own
    /// words that say why, which tell more than its silence before.
    pub fn note_unhealthy(&self, name: &str, failure: &ShardFailure) {
        let Some(address) = self.address_of(name) else { return };
        if self.standings.fell(name, failure) {
            tracing::warn!(pool = %self.config().name, shard = %name, %address, reason = %failure, "shard became unhealthy");
        }
    }

    /// The shard has answered, or nothing speaks against it any more: it serves again unless somebody still finds that it
    /// does not.
    pub fn note_healthy(&self, name: &str) {
        let (place, is_ejected) = {
            let ejection = self.ejection.borrow();
            let place = ejection.shards().iter().position(|shard| shard.name == name);
            (place, place.is_some_and(|place| ejection.ejected().contains(&place)))
        };
        let failing = place.map_or(0, |place| self.counters().sum_shard(place, |shard| shard.failing.get()));
        if is_ejected || failing > 0 || self.unreachable.borrow().contains(name) {
            return;
        }
        if self.standings.rose(name)
            && let Some(address) = self.address_of(name)
        {
            tracing::info!(pool = %self.config().name, shard = %name, %address, "shard became healthy");
        }
    }

    fn address_of(&self, name: &str) -> Option<Address> {
        let ejection = self.ejection.borrow();
        ejection.shards().iter().find(|shard| shard.name == name).map(|shard| shard.address.clone())
    }
}
