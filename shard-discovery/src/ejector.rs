//! Which shards of a pool are taken out for failing, and when they are tried again.
//!
//! Twemproxy puts a shard back after a while unasked and lets clients' requests find out; here a shard comes
//! back only after a probe succeeded. Who counts as failing and what a probe is, the caller decides.

use std::time::{Duration, Instant};

/// With less, probes of a shard that refuses at once would follow each other without a pause.
const RETRY_MIN: Duration = Duration::from_millis(1);

/// What became of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FitnessChange {
    /// The shard with this index failed too often: time to build a topology from [`Ejector::ejected`].
    Ejected(usize),
    /// The shard with this index answered a probe: time to build a topology from [`Ejector::ejected`].
    Restored(usize),
    /// The shard with this index failed too often, but as many as may be are out already. It stays in, and is told once
    /// until it answers a request.
    Withheld(usize),
}

/// When a shard is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectorOptions {
    /// Failures in a row that eject a shard (`server_failure_limit`; 0 acts as 1, as in Twemproxy).
    pub failure_limit: u32,
    /// How often an ejected shard is probed (`server_retry_timeout`; at least a millisecond).
    pub retry_timeout: Duration,
    /// At most so many percent of the shards are out at a time (`eject_max_share`), rounded down; but one may always be
    /// out of two or more unless this is 0, and never all of them.
    pub max_share: u8,
}

impl EjectorOptions {
    /// How many of so many shards may be out at a time.
    pub fn out_max(&self, shards: usize) -> usize {
        match self.max_share {
            0 => 0,
            share => (shards * usize::from(share) / 100).max(1).min(shards.saturating_sub(1)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Fitness {
    Live {
        /// Since the last success.
        failures: u32,
        /// When the last one that counted was noticed.
        failed_at: Option<Instant>,
        /// The limit is reached, but too many are out.
        withheld: bool,
    },
    /// Out until a probe succeeds; the next one is due then.
    Ejected { probe_at: Instant },
}

const FIT: Fitness = Fitness::Live { failures: 0, failed_at: None, withheld: false };

/// Counts failures of the shards of one pool, by their index in the topology.
///
/// However many connections and threads notice it, a stall is one failure: what fails counts only if it began after the
/// last failure that counted. So a shard that hangs has a failure for each time that requests wait in vain, and one that
/// refuses connections has one for each attempt made after the last.
///
/// ```
/// use shard_discovery::{Ejector, EjectorOptions, FitnessChange};
/// use std::time::{Duration, Instant};
///
/// let (start, wait, retry) = (Instant::now(), Duration::from_secs(1), Duration::from_secs(30));
/// let options = EjectorOptions { failure_limit: 2, retry_timeout: retry, max_share: 50 };
/// let mut ejector = Ejector::new(3, options);
/// assert_eq!(ejector.failed(1, start, start + wait), None);
/// assert_eq!(ejector.failed(1, start, start + wait), None, "sent beside the first");
/// let ejected = ejector.failed(1, start + wait, start + 2 * wait);
/// assert_eq!(ejected, Some(FitnessChange::Ejected(1)));
/// assert_eq!(ejector.due_probes(start + 2 * wait + retry), [1]);
/// assert_eq!(ejector.probe_succeeded(1), Some(FitnessChange::Restored(1)));
/// ```
#[derive(Debug, Clone)]
pub struct Ejector {
    shards: Box<[Fitness]>,
    options: EjectorOptions,
}

impl Ejector {
    /// An ejector for so many live shards.
    pub fn new(shards: usize, options: EjectorOptions) -> Ejector {
        let options = EjectorOptions { retry_timeout: options.retry_timeout.max(RETRY_MIN), ..options };
        Ejector { shards: vec![FIT; shards].into(), options }
    }

    /// The same for another list of shards. `kept` says for each shard of the new list which of the present one it is:
    /// an ejected shard stays ejected, the first ones if they are more than may be; the others start anew.
    #[must_use]
    pub fn with_shards(&self, kept: &[Option<usize>], options: EjectorOptions) -> Ejector {
        let mut ejector = Ejector::new(kept.len(), options);
        let mut room = options.out_max(kept.len());
        for (fitness, kept) in ejector.shards.iter_mut().zip(kept) {
            *fitness = match kept.map_or(FIT, |kept| self.shards[kept]) {
                Fitness::Ejected { .. } if room == 0 => FIT,
                present => present,
            };
            room -= usize::from(matches!(fitness, Fitness::Ejected { .. }));
        }
        ejector
    }

    /// Something that was asked of `shard` at `began` had failed at `now`. Failures of a shard that is already out are
    /// those of requests sent before and count no more.
    ///
    /// # Panics
    /// This and all methods that take a shard: when it is not below the number given to [`Ejector::new`].
    #[must_use]
    pub fn failed(&mut self, shard: usize, began: Instant, now: Instant) -> Option<FitnessChange> {
        let is_full = self.ejected().len() >= self.options.out_max(self.shards.len());
        let Fitness::Live { failures, failed_at, withheld } = &mut self.shards[shard] else { return None };
        if failed_at.is_some_and(|last| began < last) {
            return None;
        }
        *failed_at = Some(now);
        *failures = failures.saturating_add(1);
        if *failures < self.options.failure_limit {
            return None;
        }
        if is_full {
            return (!std::mem::replace(withheld, true)).then_some(FitnessChange::Withheld(shard));
        }
        self.shards[shard] = Fitness::Ejected { probe_at: now + self.options.retry_timeout };
        Some(FitnessChange::Ejected(shard))
    }

    /// `shard` answered a request: its failures were not in a row. A late response does not restore an
    /// ejected shard; only a probe does.
    pub fn succeeded(&mut self, shard: usize) {
        if let Fitness::Live { failures, withheld, .. } = &mut self.shards[shard] {
            (*failures, *withheld) = (0, false);
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
                    *probe_at = now + self.options.retry_timeout;
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
        self.shards[shard] = FIT;
        Some(FitnessChange::Restored(shard))
    }

    /// The probe of `shard` failed at `now`: the next one is due a retry timeout later.
    pub fn probe_failed(&mut self, shard: usize, now: Instant) {
        if let Fitness::Ejected { probe_at } = &mut self.shards[shard] {
            *probe_at = now + self.options.retry_timeout;
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

    fn ejector(shards: usize, failure_limit: u32) -> Ejector {
        Ejector::new(shards, EjectorOptions { failure_limit, retry_timeout: RETRY, max_share: 100 })
    }

    #[test]
    fn failures_in_a_row_eject() {
        let now = Instant::now();
        let mut ejector = ejector(2, 3);
        for _ in 0..5 {
            assert_eq!(ejector.failed(0, now, now), None);
            assert_eq!(ejector.failed(0, now, now), None);
            ejector.succeeded(0);
        }
        assert_eq!(ejector.failed(0, now, now), None);
        assert_eq!(ejector.failed(0, now, now), None);
        assert_eq!(ejector.failed(1, now, now), None);
        assert_eq!(ejector.failed(0, now, now), Some(FitnessChange::Ejected(0)));
        assert_eq!(ejector.ejected(), [0]);
    }

    #[test]
    fn a_limit_of_zero_acts_as_one() {
        let now = Instant::now();
        assert_eq!(ejector(2, 0).failed(0, now, now), Some(FitnessChange::Ejected(0)));
    }

    /// One that hangs from the start is out after `limit` timeouts, whoever waits for it.
    #[test]
    fn a_stall_is_one_failure_for_each_timeout_however_many_notice_it() {
        let start = Instant::now();
        for (timeout, limit) in [(400, 2), (1000, 3), (50, 1), (200, 10)] {
            for waiting in [1, 2, 4, 64, 1000] {
                let timeout = Duration::from_millis(timeout);
                let mut ejector = ejector(3, limit);
                // Each asks again as soon as its request has timed out; they are not in step.
                let mut began: Vec<Instant> =
                    (0..waiting).map(|number| start + timeout * number / waiting).collect();
                let ejected = 'hang: loop {
                    for began in &mut began {
                        let now = *began + timeout;
                        if ejector.failed(1, *began, now).is_some() {
                            break 'hang now;
                        }
                        *began = now;
                    }
                };
                assert_eq!(ejected, start + timeout * limit, "{timeout:?} x {limit}, {waiting} wait");
            }
        }
    }

    #[test]
    fn a_success_in_between_starts_the_count_anew() {
        let start = Instant::now();
        let mut ejector = ejector(2, 2);
        for round in 0..100 {
            assert_eq!(ejector.failed(0, start + SECOND * round, start + SECOND * (round + 1)), None);
            ejector.succeeded(0);
        }
    }

    #[test]
    fn never_more_than_the_share_is_out_and_never_all() {
        let now = Instant::now();
        for (shards, max_share, out) in [
            (1, 50, 0),
            (1, 100, 0),
            (2, 0, 0),
            (2, 1, 1),
            (2, 50, 1),
            (2, 100, 1),
            (3, 50, 1),
            (4, 50, 2),
            (5, 50, 2),
            (5, 10, 1),
            (5, 100, 4),
            (64, 25, 16),
        ] {
            let options = EjectorOptions { failure_limit: 1, retry_timeout: RETRY, max_share };
            let mut ejector = Ejector::new(shards, options);
            let changes: Vec<_> =
                (0..shards).map(|shard| ejector.failed(shard, now, now).expect("it is told")).collect();
            let withheld: Vec<_> = (out..shards).map(FitnessChange::Withheld).collect();
            assert_eq!(ejector.ejected(), (0..out).collect::<Vec<_>>(), "{shards} shards, {max_share} %");
            assert_eq!(changes[out..], withheld);
        }
    }

    #[test]
    fn what_was_withheld_is_told_once_and_done_when_there_is_room() {
        let now = Instant::now();
        let mut ejector = ejector(2, 1);
        assert_eq!(ejector.failed(0, now, now), Some(FitnessChange::Ejected(0)));
        assert_eq!(ejector.failed(1, now, now), Some(FitnessChange::Withheld(1)));
        assert_eq!(ejector.failed(1, now, now), None, "told already");
        ejector.succeeded(1);
        assert_eq!(ejector.failed(1, now, now), Some(FitnessChange::Withheld(1)));
        assert_eq!(ejector.probe_succeeded(0), Some(FitnessChange::Restored(0)));
        assert_eq!(ejector.failed(1, now, now), Some(FitnessChange::Ejected(1)));
    }

    #[test]
    fn another_list_of_shards_has_the_share_as_well() {
        let now = Instant::now();
        let mut ejector = ejector(4, 1);
        for shard in 0..3 {
            assert_eq!(ejector.failed(shard, now, now), Some(FitnessChange::Ejected(shard)));
        }
        let options = EjectorOptions { failure_limit: 1, retry_timeout: RETRY, max_share: 50 };
        let kept = [Some(0), None, Some(1), Some(2), Some(3)];
        assert_eq!(ejector.with_shards(&kept, options).ejected(), [0, 2]);
        assert_eq!(ejector.with_shards(&[Some(2)], options).ejected(), [0; 0]);
    }

    #[test]
    fn an_ejected_shard_is_ejected_once_and_late_responses_do_not_restore_it() {
        let now = Instant::now();
        let mut ejector = ejector(2, 1);
        assert_eq!(ejector.failed(0, now, now), Some(FitnessChange::Ejected(0)));
        assert_eq!(ejector.failed(0, now, now + SECOND), None);
        ejector.succeeded(0);
        assert_eq!(ejector.ejected(), [0]);
        assert_eq!(ejector.next_probe(), Some(now + RETRY));
    }

    #[test]
    fn a_shard_is_probed_every_retry_timeout_until_it_answers() {
        let now = Instant::now();
        let mut ejector = ejector(3, 1);
        assert_eq!(ejector.next_probe(), None);
        assert_eq!(ejector.failed(2, now, now), Some(FitnessChange::Ejected(2)));
        let later = now + SECOND;
        assert_eq!(ejector.failed(1, later, later), Some(FitnessChange::Ejected(1)));
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
        let mut ejector = ejector(2, 2);
        assert_eq!(ejector.failed(0, now, now), None);
        assert_eq!(ejector.failed(0, now, now), Some(FitnessChange::Ejected(0)));
        assert_eq!(ejector.probe_succeeded(0), Some(FitnessChange::Restored(0)));
        assert_eq!(ejector.probe_succeeded(0), None, "an answer that comes twice changes nothing");
        assert_eq!(ejector.failed(0, now, now), None);
        assert_eq!(ejector.failed(0, now, now), Some(FitnessChange::Ejected(0)));
    }
}
