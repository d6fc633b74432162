//! Which shards of a pool are taken out for failing, and when they are tried again.
//!
//! Twemproxy puts a shard back after a while unasked and lets clients' requests find out; here a shard comes
//! back only after a probe succeeded. Who counts as failing and what a probe is, the caller decides.

use std::time::{Duration, Instant};

/// With less, probes of a shard that refuses at once would follow each other without a pause.
const RETRY_MIN: Duration = Duration::from_millis(1);

/// A shard changed between live and ejected: time to build a topology from [`Ejector::ejected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FitnessChange {
    /// The shard with this index failed too often.
    Ejected(usize),
    /// The shard with this index answered a probe.
    Restored(usize),
}

#[derive(Debug, Clone, Copy)]
enum Fitness {
    /// Failures since the last success, below the limit.
    Live { failures: u32 },
    /// Out until a probe succeeds; the next one is due then.
    Ejected { probe_at: Instant },
}

/// Counts failures of the shards of one pool, by their index in the topology.
///
/// ```
/// use shard_discovery::{Ejector, FitnessChange};
/// use std::time::{Duration, Instant};
///
/// let (start, retry) = (Instant::now(), Duration::from_secs(30));
/// let mut ejector = Ejector::new(3, 2, retry);
/// assert_eq!(ejector.failed(1, start), None);
/// assert_eq!(ejector.failed(1, start), Some(FitnessChange::Ejected(1)));
/// assert_eq!(ejector.due_probes(start + retry), [1]);
/// assert_eq!(ejector.probe_succeeded(1), Some(FitnessChange::Restored(1)));
/// ```
#[derive(Debug, Clone)]
pub struct Ejector {
    shards: Box<[Fitness]>,
    failure_limit: u32,
    retry_timeout: Duration,
}

impl Ejector {
    /// An ejector for `shards` live shards that ejects at `failure_limit` failures in a row
    /// (`server_failure_limit`; 0 acts as 1, as in Twemproxy) and probes an ejected shard every
    /// `retry_timeout` (`server_retry_timeout`; at least a millisecond).
    pub fn new(shards: usize, failure_limit: u32, retry_timeout: Duration) -> Ejector {
        Ejector {
            shards: vec![Fitness::Live { failures: 0 }; shards].into(),
            failure_limit,
            retry_timeout: retry_timeout.max(RETRY_MIN),
        }
    }

    /// The same for another list of shards. `kept` says for each shard of the new list which of the present one it is:
    /// an ejected shard stays ejected; the others start anew.
    #[must_use]
    pub fn with_shards(
        &self,
        kept: &[Option<usize>],
        failure_limit: u32,
        retry_timeout: Duration,
    ) -> Ejector {
        let fitness =
            |kept: &Option<usize>| kept.map_or(Fitness::Live { failures: 0 }, |kept| self.shards[kept]);
        let mut ejector = Ejector::new(kept.len(), failure_limit, retry_timeout);
        ejector.shards = kept.iter().map(fitness).collect();
        ejector
    }

    /// `shard` failed at `now`. Failures of a shard that is already out are those of requests sent before
    /// and count no more.
    ///
    /// # Panics
    /// This and all methods that take a shard: when it is not below the number given to [`Ejector::new`].
    #[must_use]
    pub fn failed(&mut self, shard: usize, now: Instant) -> Option<FitnessChange> {
        let Fitness::Live { failures } = &mut self.shards[shard] else { return None };
        *failures += 1;
        if *failures < self.failure_limit {
            return None;
        }
        self.shards[shard] = Fitness::Ejected { probe_at: now + self.retry_timeout };
        Some(FitnessChange::Ejected(shard))
    }

    /// `shard` answered a request: its failures were not in a row. A late response does not restore an
    /// ejected shard; only a probe does.
    pub fn succeeded(&mut self, shard: usize) {
        if let Fitness::Live { failures } = &mut self.shards[shard] {
            *failures = 0;
        }
    }

    /// The ejected shards to probe at `now`, ascending. Each is handed out once per retry timeout, also when
    /// the caller never tells how the probe went.
    #[must_use]
    pub fn due_probes(&mut self, now: Instant) -> Vec<usize> {
        let mut due = Vec::new();
        for (shard, fitness) in self.shards.iter_mut().enumerate() {
            match fitness {
                Fitness::Ejected { probe_at } if *probe_at <= now => {
                    *probe_at = now + self.retry_timeout;
                    due.push(shard);
                }
                Fitness::Ejected { .. } | Fitness::Live { .. } => {}
            }
        }
        due
    }

    /// When [`Ejector::due_probes`] has something next; `None` while every shard is live.
    pub fn next_probe(&self) -> Option<Instant> {
        self.shards
            .iter()
            .filter_map(|fitness| match fitness {
                Fitness::Ejected { probe_at } => Some(*probe_at),
                Fitness::Live { .. } => None,
            })
            .min()
    }

    /// The probe of `shard` succeeded: it is live again and its count starts at 0.
    #[must_use]
    pub fn probe_succeeded(&mut self, shard: usize) -> Option<FitnessChange> {
        let Fitness::Ejected { .. } = self.shards[shard] else { return None };
        self.shards[shard] = Fitness::Live { failures: 0 };
        Some(FitnessChange::Restored(shard))
    }

    /// The probe of `shard` failed at `now`: the next one is due a retry timeout later.
    pub fn probe_failed(&mut self, shard: usize, now: Instant) {
        if let Fitness::Ejected { probe_at } = &mut self.shards[shard] {
            *probe_at = now + self.retry_timeout;
        }
    }

    /// Indexes of the ejected shards, ascending, as [`Topology::without`](crate::Topology::without) takes
    /// them.
    pub fn ejected(&self) -> Vec<usize> {
        let out = |fitness: &Fitness| matches!(fitness, Fitness::Ejected { .. });
        (0..self.shards.len()).filter(|&shard| out(&self.shards[shard])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn failures_in_a_row_eject() {
        let now = Instant::now();
        let mut ejector = Ejector::new(2, 3, RETRY);
        for _ in 0..5 {
            assert_eq!(ejector.failed(0, now), None);
            assert_eq!(ejector.failed(0, now), None);
            ejector.succeeded(0);
        }
        assert_eq!(ejector.failed(0, now), None);
        assert_eq!(ejector.failed(0, now), None);
        assert_eq!(ejector.failed(1, now), None);
        assert_eq!(ejector.failed(0, now), Some(FitnessChange::Ejected(0)));
        assert_eq!(ejector.ejected(), [0]);
    }

    #[test]
    fn a_limit_of_zero_acts_as_one() {
        let mut ejector = Ejector::new(1, 0, RETRY);
        assert_eq!(ejector.failed(0, Instant::now()), Some(FitnessChange::Ejected(0)));
    }

    #[test]
    fn an_ejected_shard_is_ejected_once_and_late_responses_do_not_restore_it() {
        let now = Instant::now();
        let mut ejector = Ejector::new(1, 1, RETRY);
        assert_eq!(ejector.failed(0, now), Some(FitnessChange::Ejected(0)));
        assert_eq!(ejector.failed(0, now + SECOND), None);
        ejector.succeeded(0);
        assert_eq!(ejector.ejected(), [0]);
        assert_eq!(ejector.next_probe(), Some(now + RETRY));
    }

    #[test]
    fn a_shard_is_probed_every_retry_timeout_until_it_answers() {
        let now = Instant::now();
        let mut ejector = Ejector::new(3, 1, RETRY);
        assert_eq!(ejector.next_probe(), None);
        assert_eq!(ejector.failed(2, now), Some(FitnessChange::Ejected(2)));
        assert_eq!(ejector.failed(1, now + SECOND), Some(FitnessChange::Ejected(1)));
        assert_eq!(ejector.ejected(), [1, 2]);
        assert_eq!(ejector.next_probe(), Some(now + RETRY));

        assert_eq!(ejector.due_probes(now + RETRY - SECOND), [0; 0]);
        assert_eq!(ejector.due_probes(now + RETRY), [2]);
        assert_eq!(ejector.due_probes(now + RETRY), [0; 0], "handed out already");
        ejector.probe_failed(2, now + RETRY + SECOND);
        assert_eq!(ejector.due_probes(now + RETRY + SECOND), [1]);
        assert_eq!(ejector.probe_succeeded(1), Some(FitnessChange::Restored(1)));
        assert_eq!(ejector.due_probes(now + 2 * RETRY), [0; 0]);
        assert_eq!(ejector.due_probes(now + 2 * RETRY + SECOND), [2]);
        assert_eq!(ejector.due_probes(now + 3 * RETRY + SECOND), [2], "the outcome was never told");
        assert_eq!(ejector.probe_succeeded(2), Some(FitnessChange::Restored(2)));
        assert_eq!(ejector.ejected(), [0; 0]);
    }

    #[test]
    fn a_restored_shard_starts_with_a_clean_count() {
        let now = Instant::now();
        let mut ejector = Ejector::new(1, 2, RETRY);
        assert_eq!(ejector.failed(0, now), None);
        assert_eq!(ejector.failed(0, now), Some(FitnessChange::Ejected(0)));
        assert_eq!(ejector.probe_succeeded(0), Some(FitnessChange::Restored(0)));
        assert_eq!(ejector.probe_succeeded(0), None, "an answer that comes twice changes nothing");
        assert_eq!(ejector.failed(0, now), None);
        assert_eq!(ejector.failed(0, now), Some(FitnessChange::Ejected(0)));
    }
}
