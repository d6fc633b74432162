//! Taking failing shards out of a pool's ring, and putting them back once a probe succeeds.
//!
//! One per pool and process: workers report failures, and all of them get the same new topology.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shard_discovery::{Ejector, Shard, Topology};

use super::pools::PoolControl;
use super::probe;
use crate::config;
use crate::pool::ShardEvent;

/// How often it is looked whether a probe is due, where nothing says when that will be.
const PROBE_TICK: Duration = Duration::from_secs(1);

/// What became of one shard.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Times it was ejected.
    pub ejections: u64,
    /// Probes of it while it was out: those that succeeded, and the others.
    pub probes: [u64; 2],
    /// When it was last ejected, in microseconds since 1970; 0 if never.
    pub ejected_at: u64,
}

/// The fitness of a pool's shards.
pub struct Ejection {
    /// `None` without `auto_eject_hosts`: then the ring never changes.
    ejector: Option<Ejector>,
    all: Arc<Topology>,
    /// What became of each shard.
    pub records: Vec<Record>,
    pool: String,
}

impl Ejection {
    /// All shards fit.
    pub fn new(config: &config::Pool, all: Arc<Topology>) -> Self {
        let shards = all.shards().len();
        let ejector = config
            .auto_eject_hosts
            .then(|| Ejector::new(shards, config.server_failure_limit, config.server_retry_timeout));
        Self { ejector, records: vec![Record::default(); shards], pool: config.name.clone(), all }
    }

    /// Another list of shards: those that stay where they are stay ejected. Returns who owns what then.
    pub fn adopt(&mut self, config: &config::Pool, all: Arc<Topology>) -> Arc<Topology> {
        let kept: Vec<Option<usize>> = all
            .shards()
            .iter()
            .map(|shard| {
                let same = |known: &Shard| known.name == shard.name && known.address == shard.address;
                self.all.shards().iter().position(same)
            })
            .collect();
        let (limit, retry) = (config.server_failure_limit, config.server_retry_timeout);
        self.ejector = match &self.ejector {
            Some(ejector) if config.auto_eject_hosts => Some(ejector.with_shards(&kept, limit, retry)),
            _ => config.auto_eject_hosts.then(|| Ejector::new(kept.len(), limit, retry)),
        };
        let record =
            |kept: &Option<usize>| kept.map_or_else(Record::default, |kept| self.records[kept].clone());
        self.records = kept.iter().map(record).collect();
        self.all = all;
        self.live()
    }

    /// The shards that are out, by their place.
    pub fn ejected(&self) -> Vec<usize> {
        self.ejector.as_ref().map(Ejector::ejected).unwrap_or_default()
    }

    /// Who owns what, without the shards that are ejected.
    pub fn live(&self) -> Arc<Topology> {
        let ejected = self.ejected();
        if ejected.is_empty() { self.all.clone() } else { Arc::new(self.all.without(&ejected)) }
    }

    /// Who would own what if all shards were fit.
    pub fn all(&self) -> &Arc<Topology> {
        &self.all
    }

    /// All shards of the pool, fit or not.
    pub fn shards(&self) -> &[shard_discovery::Shard] {
        self.all.shards()
    }

    /// A worker reports; returns whether the ring changes.
    pub fn take(&mut self, event: &ShardEvent, now: Instant) -> bool {
        let Some(ejector) = self.ejector.as_mut() else { return false };
        // It may have left the pool meanwhile.
        let place = self.all.shards().iter().position(|shard| *shard.name == *event.shard);
        let Some(shard) = place else { return false };
        let Some(failure) = &event.failure else {
            ejector.succeeded(shard);
            return false;
        };
        if ejector.failed(shard, now).is_none() {
            return false;
        }
        tracing::warn!(pool = %self.pool, shard = %event.shard, reason = %failure, "shard ejected");
        self.records[shard].ejections += 1;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.records[shard].ejected_at = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        true
    }

    /// A probe has ended; returns whether the ring changes.
    fn probed(&mut self, shard: &Shard, answered: bool, now: Instant) -> bool {
        let Some(ejector) = self.ejector.as_mut() else { return false };
        // It may have left the pool, or moved, meanwhile.
        let Some(place) = self.all.shards().iter().position(|known| known == shard) else { return false };
        self.records[place].probes[usize::from(!answered)] += 1;
        if !answered {
            ejector.probe_failed(place, now);
            return false;
        }
        let restored = ejector.probe_succeeded(place).is_some();
        if restored {
            tracing::info!(pool = %self.pool, shard = %shard.name, "shard restored");
        }
        restored
    }
}

/// Probes the ejected shards of a pool as long as it is served.
pub async fn probe(pool: Rc<PoolControl>) {
    while !pool.removed.get() {
        let next = pool.ejection.borrow().ejector.as_ref().and_then(Ejector::next_probe);
        let wait = next.map_or(PROBE_TICK, |next| next.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = tokio::time::sleep(wait.min(PROBE_TICK)) => {}
            () = pool.ejected.notified() => continue,
        }
        let due = match pool.ejection.borrow_mut().ejector.as_mut() {
            Some(ejector) => ejector.due_probes(Instant::now()),
            None => continue,
        };
        for shard in due {
            let pool = pool.clone();
            let shard = pool.ejection.borrow().all.shards()[shard].clone();
            tokio::task::spawn_local(async move {
                let answered = probe::probe(&shard.address, &pool.names, &pool.config()).await;
                if let Err(reason) = &answered {
                    tracing::debug!(pool = %pool.config().name, shard = %shard.name, %reason, "probe failed");
                }
                let changed = pool.ejection.borrow_mut().probed(&shard, answered.is_ok(), Instant::now());
                if changed {
                    pool.publish().await;
                } else {
                    pool.tell_status();
                }
            });
        }
    }
}
