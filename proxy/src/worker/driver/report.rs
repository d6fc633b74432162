//! What a driver tells the control thread: what has happened to shards, and which connections it needs.
//!
//! The control thread hears everything, if late where too much waits for it: a shard of which it has missed a failure or a
//! success would be in the ring or out of it for no reason. What is kept until then is bounded: of each shard what came last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::Driver;
use crate::failure::Blame;
use crate::pool::{Failed, ShardEvent};
use crate::protocol::Protocol;
use crate::time::Time;
use crate::worker::Report;

/// The pause before the control thread is told again what there was no room for.
const RETRY: Duration = Duration::from_millis(10);

/// What the control thread has still to hear.
#[derive(Default)]
pub(super) struct Untold {
    /// The owners of slots have changed.
    stale: bool,
    shards: BTreeMap<Arc<str>, News>,
    /// When it is told again.
    retry: Option<Time>,
}

/// What has become of one shard, in this order. A failure that was told late is as good as several.
#[derive(Default)]
struct News {
    recovered: bool,
    failed: Option<Failed>,
    /// A failure that may be somebody else's.
    suspected: Option<Failed>,
}

impl Untold {
    /// When there has to be a pass.
    pub fn retry(&self) -> Option<Time> {
        self.retry
    }

    /// A pass has begun.
    pub fn rest(&mut self) {
        self.retry = None;
    }

    fn is_empty(&self) -> bool {
        !self.stale && self.shards.is_empty()
    }

    fn add(&mut self, ShardEvent { shard, failure }: ShardEvent) {
        let news = self.shards.entry(shard).or_default();
        match failure {
            None => *news = News { recovered: true, ..News::default() },
            Some(failed) if failed.blame == Blame::Unknown => news.suspected = Some(failed),
            Some(failed) => news.failed = Some(failed),
        }
    }
}

impl News {
    /// The next thing to tell.
    fn next(&mut self) -> Option<Option<Failed>> {
        if std::mem::take(&mut self.recovered) {
            return Some(None);
        }
        self.failed.take().or_else(|| self.suspected.take()).map(Some)
    }
}

impl<P: Protocol> Driver<P> {
    /// The control thread connects; a lookup may take its time.
    pub(super) fn connect_shards(&mut self, now: Time) {
        let (worker, pool) = (self.setup.worker, self.setup.pool);
        while let Some(&connection) = self.connects.last() {
            let is_private = self.pool.is_private(connection);
            if let Some(shard) = self.pool.shard_of(connection).cloned()
                && !tell(&self.setup.reports, Report::Connect { worker, pool, shard, connection, is_private })
            {
                self.untold.retry = Some(now.plus(RETRY));
                return;
            }
            self.connects.pop();
        }
    }

    pub(super) fn report(&mut self, now: Time) {
        if !self.pool.has_events() && self.untold.is_empty() {
            return;
        }
        self.untold.stale |= self.pool.take_stale();
        for event in self.pool.take_events() {
            // In the order in which it came, as long as there is room.
            if !self.untold.shards.is_empty() || !self.tell_event(&event) {
                self.untold.add(event);
            }
        }
        if !self.tell_untold() {
            self.untold.retry = Some(now.plus(RETRY));
        }
    }

    /// Tells what is left; false if something is left still.
    fn tell_untold(&mut self) -> bool {
        let stale = Report::Stale { pool: self.setup.pool };
        if self.untold.stale && !tell(&self.setup.reports, stale) {
            return false;
        }
        self.untold.stale = false;
        while let Some((shard, mut news)) = self.untold.shards.pop_first() {
            while let Some(failure) = news.next() {
                let event = ShardEvent { shard: shard.clone(), failure };
                if !self.tell_event(&event) {
                    let left = [event].into_iter().chain(std::iter::from_fn(|| {
                        news.next().map(|failure| ShardEvent { shard: shard.clone(), failure })
                    }));
                    left.for_each(|event| self.untold.add(event));
                    return false;
                }
            }
        }
        true
    }

    fn tell_event(&self, ShardEvent { shard, failure }: &ShardEvent) -> bool {
        let instant = |time: Time| self.setup.start + Duration::from_micros(time.micros());
        let (pool, shard) = (self.setup.pool, shard.clone());
        let report = match failure.clone() {
            None => Report::Recovered { pool, shard },
            Some(Failed { failure, blame, began, at }) => {
                Report::Failed { pool, shard, failure, blame, time: instant(began)..instant(at) }
            }
        };
        tell(&self.setup.reports, report)
    }
}

/// False if there is no room now. Who has ended need not be told any more.
fn tell(reports: &mpsc::Sender<Report>, report: Report) -> bool {
    !matches!(reports.try_send(report), Err(TrySendError::Full(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::ShardFailure;
    use crate::worker::driver::Drive as _;
    use crate::worker::driver::rig::{Rig, heard, say};

    const SECOND: Duration = Duration::from_secs(1);

    /// What the control thread hears of shards, in short.
    fn told(rig: &mut Rig) -> Vec<&'static str> {
        let mut all = Vec::new();
        while let Ok(report) = rig.reports.try_recv() {
            all.push(match report {
                Report::Connect { .. } => "connect",
                Report::Failed { blame: Blame::Shard, .. } => "failed",
                Report::Failed { .. } => "suspected",
                Report::Recovered { .. } => "recovered",
                Report::Stale { .. } => "stale",
                Report::Asked { .. } => "asked",
            });
        }
        all
    }

    fn fill(rig: &Rig) {
        while tell(&rig.driver.setup.reports, Report::Stale { pool: 9 }) {}
    }

    /// The next pass comes soon, but not at once: that would be a loop as long as the channel is full.
    fn assert_rests(rig: &Rig) {
        let next = rig.driver.next_pass().expect("it tries again");
        assert!(next > rig.now && next <= rig.now.plus(SECOND / 10), "{next:?}, now {:?}", rig.now);
    }

    #[test]
    fn what_becomes_of_a_shard_is_told_however_late() {
        let mut rig = Rig::new(1, |limits| limits.timeout = Some(SECOND));
        let mut client = rig.client();
        say(&mut client, "GET a\r\n");
        rig.passes();
        let mut shard = rig.shard();
        rig.passes();
        fill(&rig);
        rig.blind_pass(SECOND);
        assert!(heard(&mut client).contains("timed out"));
        assert_rests(&rig);
        assert_eq!(told(&mut rig), ["stale"]);
        rig.blind_pass(SECOND / 10);
        assert_eq!(told(&mut rig), ["failed"]);

        fill(&rig);
        say(&mut shard, "+late\r\n");
        rig.pass();
        assert_rests(&rig);
        rig.blind_pass(SECOND / 10);
        assert_eq!(told(&mut rig), ["stale"], "it is full still");
        rig.blind_pass(SECOND / 10);
        assert_eq!(told(&mut rig), ["recovered"]);
        rig.blind_pass(SECOND / 10);
        assert_eq!(told(&mut rig), [""; 0], "once");
    }

    #[test]
    fn a_connection_that_is_wanted_is_asked_for_however_late() {
        let mut rig = Rig::new(1, |_| {});
        let mut client = rig.client();
        fill(&rig);
        say(&mut client, "GET a\r\n");
        rig.pass();
        rig.pass();
        assert_rests(&rig);
        assert_eq!(told(&mut rig), ["stale"]);
        rig.blind_pass(SECOND / 10);
        let mut shard = rig.shard();
        rig.passes();
        say(&mut shard, "+a\r\n");
        rig.passes();
        assert_eq!(heard(&mut client), "+a\r\n");
    }

    /// However often it fails and recovers, of each shard the last of each kind is kept.
    #[test]
    fn what_is_to_be_told_is_bounded_and_ends_with_the_truth() {
        let failure = |blame| {
            let (failure, time) = (ShardFailure::Closed, Time::default());
            Some(Failed { failure, blame, began: time, at: time })
        };
        let mut untold = Untold::default();
        let event = |failure| ShardEvent { shard: "s".into(), failure };
        for _ in 0..1000 {
            untold.add(event(failure(Blame::Unknown)));
            untold.add(event(failure(Blame::Shard)));
            untold.add(event(None));
            untold.add(event(failure(Blame::Shard)));
        }
        let mut news = untold.shards.pop_first().expect("there is news").1;
        let mut next = || news.next().map(|failed| failed.map(|failed| failed.blame));
        assert_eq!([next(), next(), next()], [Some(None), Some(Some(Blame::Shard)), None]);
        untold.add(event(failure(Blame::Shard)));
        untold.add(event(None));
        let mut news = untold.shards.pop_first().expect("there is news").1;
        assert_eq!((news.next(), news.next()), (Some(None), None), "it answers");
    }
}
