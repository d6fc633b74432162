//! Taking failing shards out of a pool's ring, and putting them back once a probe succeeds.
//!
//! One per pool and process: workers report failures, and all of them get the same new topology. Whose fault a failure is
//! was decided in [`crate::pool::failure`]; where a request of a client may have provoked it, a probe decides here.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shard_discovery::{Ejector, EjectorOptions, FitnessChange, Shard, Topology};

use super::pools::PoolControl;
use super::probe;
use crate::config;
use crate::pool::failure::{Blame, ShardFailure, Stage};

/// How often it is looked whether a probe is due, where nothing says when that will be.
const PROBE_TICK: Duration = Duration::from_secs(1);

/// What became of one shard.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Times it was ejected.
    pub ejections: u64,
    /// Times it was to be ejected, but too many others were out.
    pub withheld: u64,
    /// Responses there were of it when its last failure counted.
    responses: u64,
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
        let ejector = config.auto_eject_hosts.then(|| Ejector::new(shards, options(config)));
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
        let options = options(config);
        self.ejector = match &self.ejector {
            Some(ejector) if config.auto_eject_hosts => Some(ejector.with_shards(&kept, options)),
            _ => config.auto_eject_hosts.then(|| Ejector::new(kept.len(), options)),
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

    /// A shard has failed; it has answered so many `responses` to all workers since the process started.
    fn failed(
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
                    "ejection withheld: as many shards as eject_max_share allows are out"
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

fn options(config: &config::Pool) -> EjectorOptions {
    EjectorOptions {
        failure_limit: config.server_failure_limit,
        retry_timeout: config.server_retry_timeout,
        max_share: config.eject_max_share,
    }
}

impl PoolControl {
    /// A shard has failed; `time` is when what has failed was begun, and when that was noticed.
    pub async fn judge(
        self: &Rc<Self>,
        shard: &str,
        failure: &ShardFailure,
        blame: Blame,
        time: Range<Instant>,
    ) {
        match blame {
            Blame::Nobody => {}
            Blame::Unknown => self.suspect(shard),
            Blame::Shard => {
                self.note_unhealthy(shard, failure);
                let change = {
                    let mut ejection = self.ejection.borrow_mut();
                    let place = ejection.shards().iter().position(|known| known.name == *shard);
                    let responses = place.map_or(0, |place| {
                        self.counters().sum_shard(place, |shard| shard.responses.get() as i64)
                    });
                    ejection.failed(shard, failure, responses as u64, time)
                };
                match change {
                    None => {}
                    Some(FitnessChange::Withheld(_)) => self.tell_status(),
                    Some(FitnessChange::Ejected(_) | FitnessChange::Restored(_)) => {
                        self.ejected.notify_one();
                        self.publish().await;
                    }
                }
            }
        }
    }

    /// A connection was lost over a request that may have provoked it. A probe, which provokes nothing, tells whether the
    /// shard serves; one at a time for each shard.
    fn suspect(self: &Rc<Self>, name: &str) {
        let shard = self.ejection.borrow().shards().iter().find(|shard| shard.name == name).cloned();
        let Some(shard) = shard else { return };
        if !self.suspects.borrow_mut().insert(shard.name.clone()) {
            return;
        }
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            let began = Instant::now();
            let answered = probe::probe(&shard.address, &pool.names, &pool.config()).await;
            pool.suspects.borrow_mut().remove(&shard.name);
            let Err(error) = answered else { return };
            if !pool.is_present(&shard) {
                return;
            }
            let failure = error.failure();
            // What is said in a probe no client has chosen.
            let blame = failure.blame(Stage::Handshake { is_default: true });
            if blame == Blame::Shard {
                pool.unreachable.borrow_mut().insert(shard.name.clone());
                pool.tell_status();
            }
            pool.judge(&shard.name, &failure, blame, began..Instant::now()).await;
        });
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
