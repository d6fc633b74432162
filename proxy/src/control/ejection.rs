//! Taking failing shards out of a pool's ring, and putting them back once a probe succeeds.
//!
//! One per pool and process: workers report failures, and all of them get the same new topology. Whose fault a failure is
//! was decided in [`crate::failure`]; where a request of a client may have provoked it, a probe decides here.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use shard_discovery::{Ejector, EjectorOptions, FitnessChange, Shard, Topology};

use crate::config;
use crate::failure::ShardFailure;
use crate::status::Record;

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
        let ejector = config.auto_eject_hosts.then(|| Ejector::new(shards, options(config)));
        Self { ejector, records: vec![Record::new(); shards], pool: config.name.clone(), all }
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
        let options = options(config);
        self.ejector = match &self.ejector {
            Some(ejector) if config.auto_eject_hosts => Some(ejector.with_shards(&kept, options)),
            _ => config.auto_eject_hosts.then(|| Ejector::new(kept.len(), options)),
        };
        let record = |kept: &Option<usize>| kept.map_or_else(Record::new, |kept| self.records[kept].clone());
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

    /// A shard has failed; it has answered so many `responses` to all workers since the process started.
    pub fn failed(
        &mut self,
        name: &str,
        failure: &ShardFailure,
        responses: u64,
        time: Range<Instant>,
    ) -> Option<FitnessChange> {
        let ejector = self.ejector.as_mut()?;
        // It may have left the pool meanwhile.
        let shard = self.all.shards().iter().position(|shard| *shard.name == *name)?;
        // Workers tell of a success only after a failure of their own.
        if std::mem::replace(&mut self.records[shard].responses, responses) < responses {
            ejector.succeeded(shard);
        }
        let change = ejector.failed(shard, time.start, time.end);
        let pool = &self.pool;
        match change {
            None | Some(FitnessChange::Restored(_)) => {}
            Some(FitnessChange::Withheld(_)) => {
                tracing::warn!(
                    %pool, shard = %name, reason = %failure,
                    "shard ejection withheld: eject_max_share reached"
                );
                self.records[shard].withheld += 1;
            }
            Some(FitnessChange::Ejected(_)) => {
                tracing::warn!(%pool, shard = %name, reason = %failure, "shard ejected");
                self.records[shard].ejections += 1;
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.records[shard].ejected_at = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
            }
        }
        change
    }

    /// A shard has answered a request after it had failed.
    pub fn succeeded(&mut self, name: &str) {
        let place = self.all.shards().iter().position(|shard| *shard.name == *name);
        if let (Some(ejector), Some(shard)) = (self.ejector.as_mut(), place) {
            ejector.succeeded(shard);
        }
    }

    /// When the next shard that is out is to be probed.
    pub fn next_probe(&self) -> Option<Instant> {
        self.ejector.as_ref().and_then(Ejector::next_probe)
    }

    /// The shards that are to be probed now, each of which is told by [`Self::probed`].
    pub fn due_probes(&mut self, now: Instant) -> Vec<Shard> {
        let due = self.ejector.as_mut().map(|ejector| ejector.due_probes(now)).unwrap_or_default();
        due.into_iter().map(|shard| self.all.shards()[shard].clone()).collect()
    }

    /// A probe has ended; returns whether the ring changes.
    pub fn probed(&mut self, shard: &Shard, answered: bool, now: Instant) -> bool {
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

fn options(config: &config::Pool) -> EjectorOptions {
    EjectorOptions {
        failure_limit: config.server_failure_limit,
        retry_timeout: config.server_retry_timeout,
        max_share: config.eject_max_share,
    }
}
