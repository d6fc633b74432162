//! Taking failing shards out of a pool's ring, and putting them back once a probe succeeds.
//!
//! One per pool and process: workers report failures, and all of them get the same new topology.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shard_discovery::{Ejector, FitnessChange, Topology};

use super::{PoolControl, probe, publish};
use crate::config;
use crate::pool::ShardEvent;

/// How often it is looked whether a probe is due.
const PROBE_TICK: Duration = Duration::from_millis(20);

/// The fitness of a pool's shards.
pub struct Ejection {
    /// `None` without `auto_eject_hosts`: then the ring never changes.
    ejector: Option<Ejector>,
    all: Arc<Topology>,
    /// Times a shard was ejected.
    pub ejections: u64,
    /// For each shard, when it was last ejected, in microseconds since 1970; 0 if never.
    pub ejected_at: Vec<u64>,
    pool: String,
}

impl Ejection {
    /// All shards fit.
    pub fn new(config: &config::Pool, all: Arc<Topology>) -> Self {
        let shards = all.shards().len();
        let ejector = config
            .auto_eject_hosts
            .then(|| Ejector::new(shards, config.server_failure_limit, config.server_retry_timeout));
        Self { ejector, ejections: 0, ejected_at: vec![0; shards], pool: config.name.clone(), all }
    }

    /// All shards of the pool, fit or not.
    pub fn shards(&self) -> &[shard_discovery::Shard] {
        self.all.shards()
    }

    /// A worker reports; returns the new topology if the ring changes.
    pub fn take(&mut self, event: &ShardEvent, now: Instant) -> Option<Arc<Topology>> {
        let ejector = self.ejector.as_mut()?;
        // None if it has left the pool meanwhile.
        let shard = self.all.shards().iter().position(|shard| *shard.name == *event.shard)?;
        let Some(failure) = &event.failure else {
            ejector.succeeded(shard);
            return None;
        };
        let change = ejector.failed(shard, now)?;
        tracing::warn!(pool = %self.pool, shard = %event.shard, reason = %failure, "shard ejected");
        self.ejections += 1;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.ejected_at[shard] = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.changed(change)
    }

    fn probed(&mut self, shard: usize, answered: bool, now: Instant) -> Option<Arc<Topology>> {
        let ejector = self.ejector.as_mut()?;
        if !answered {
            ejector.probe_failed(shard, now);
            return None;
        }
        let change = ejector.probe_succeeded(shard)?;
        tracing::info!(pool = %self.pool, shard = %self.all.shards()[shard].name, "shard restored");
        self.changed(change)
    }

    fn changed(&self, change: FitnessChange) -> Option<Arc<Topology>> {
        match change {
            FitnessChange::Ejected(_) | FitnessChange::Restored(_) => {
                let ejected = self.ejector.as_ref()?.ejected();
                Some(if ejected.is_empty() { self.all.clone() } else { Arc::new(self.all.without(&ejected)) })
            }
        }
    }
}

/// Probes the ejected shards of a pool for ever.
pub async fn probe(pools: Rc<[PoolControl]>, number: usize) {
    let control = &pools[number];
    if control.ejection.borrow().ejector.is_none() {
        return;
    }
    loop {
        tokio::time::sleep(PROBE_TICK).await;
        let due = match control.ejection.borrow_mut().ejector.as_mut() {
            Some(ejector) => ejector.due_probes(Instant::now()),
            None => return,
        };
        for shard in due {
            let pools = pools.clone();
            tokio::task::spawn_local(async move {
                let control = &pools[number];
                let address = control.ejection.borrow().all.shards()[shard].address.clone();
                let answered = probe::probe(address, &control.config).await;
                if let Err(reason) = &answered {
                    tracing::debug!(pool = %control.config.name, shard, %reason, "probe failed");
                }
                let changed = control.ejection.borrow_mut().probed(shard, answered.is_ok(), Instant::now());
                if let Some(topology) = changed {
                    publish(control, topology).await;
                }
            });
        }
    }
}
