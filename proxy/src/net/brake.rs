//! How much of a thread's time goes into connections that are taken for nothing: anybody can make them without end, and what
//! the thread has to do beside, or the workers' cores, is worth more.

use std::time::{Duration, Instant};

/// One part in so many of the thread's time.
const SHARE: u32 = 4;
/// Time that may be spent at once where little was spent before.
const BURST: Duration = Duration::from_millis(100);
/// What a connection costs beside what is measured, mostly in the kernel.
const BESIDE: Duration = Duration::from_micros(20);
/// Whatever takes longer was something else that the thread did meanwhile.
const COST_MAX: Duration = Duration::from_millis(1);

/// What was spent on connections, and when the next may be taken.
pub struct Brake(Instant);

impl Brake {
    /// Nothing is spent.
    pub fn new(now: Instant) -> Self {
        Self(now)
    }

    /// A connection has cost so much; how long the next one has to wait.
    pub fn spent(&mut self, cost: Duration, now: Instant) -> Duration {
        self.0 = self.0.max(now) + (cost + BESIDE).min(COST_MAX) * SHARE;
        (self.0 - now).saturating_sub(BURST * SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_takes_its_share_and_no_more() {
        let begin = Instant::now();
        let (cost, minute) = (Duration::from_micros(50), Duration::from_secs(60));
        let (mut brake, mut now, mut spent) = (Brake::new(begin), begin, Duration::ZERO);
        while now < begin + minute {
            now += cost;
            spent += cost;
            now += brake.spent(cost, now);
        }
        assert!(spent <= minute / SHARE + BURST, "{spent:?}");
        assert!(spent >= minute / (2 * SHARE), "{spent:?}: others are to get in beside it");
    }

    #[test]
    fn who_comes_now_and_then_does_not_wait() {
        let begin = Instant::now();
        let mut brake = Brake::new(begin);
        for number in 0..100 {
            assert_eq!(brake.spent(BURST, begin), Duration::ZERO, "{number} at once");
        }
        for second in 1..100 {
            let now = begin + Duration::from_secs(second);
            assert_eq!(brake.spent(COST_MAX, now), Duration::ZERO, "after {second} s");
        }
    }
}
