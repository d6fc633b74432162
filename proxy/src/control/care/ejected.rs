//! Which shards of a pool are out for failing: the failures that count against them, and the probes that let them in again.

use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use shard_discovery::FitnessChange;

use crate::control::pool::PoolControl;
use crate::control::probe;
use crate::failure::{Blame, ShardFailure, Stage};

/// How often it is looked whether a probe is due, where nothing says when that will be.
const PROBE_TICK: Duration = Duration::from_secs(1);

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
pub async fn follow(pool: Rc<PoolControl>) {
    while !pool.removed.get() {
        let next = pool.ejection.borrow().next_probe();
        let wait = next.map_or(PROBE_TICK, |next| next.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = tokio::time::sleep(wait.min(PROBE_TICK)) => {}
            () = pool.ejected.notified() => continue,
        }
        let due = pool.ejection.borrow_mut().due_probes(Instant::now());
        for shard in due {
            let pool = pool.clone();
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
