//! Which requests are told of, in the slow log and in the access log, and what is known of each: `telling` says when that is.
//!
//! One that is slow for thousands is no use in a log of a hundred, so there are so many in a pass and in a second at most. All are counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::clients::ClientId;
use super::limits::Limits;
use crate::slow::{Sender, Trace};
use crate::time::Time;

/// Entries in a pass, and in a second, of one worker. To make one takes about a microsecond.
const PASS_MAX: usize = 32;
const SECOND_MAX: usize = 1000;
/// Requests that are looked at in a second for that.
const LOOKS_MAX: usize = 10_000;
/// Entries that wait until their reply is out, each of which is looked at in each pass; the oldest goes where there are more.
pub const OPEN_MAX: usize = 64;
/// How long one waits for its client.
pub const OPEN_TIME_MAX: Duration = Duration::from_secs(1);

/// A request that is told of, as far as it is known when its response has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Noted {
    /// Who has sent it.
    pub client: ClientId,
    /// Its number among those of its client.
    pub(super) number: u32,
    pub(super) shard: Arc<str>,
    pub(super) since: Time,
    pub(super) written: Time,
    pub(super) answered: Time,
    pub(super) words: Vec<Box<[u8]>>,
    /// It had no response in time.
    pub(super) failed: bool,
    pub(super) error: Option<Box<str>>,
    pub(super) told: Told,
}

/// Where it is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Told {
    pub slow: bool,
    pub access: bool,
    pub trace: bool,
}

/// Those whose reply is not out.
#[derive(Default)]
pub(super) struct NotedRequests {
    pub open: VecDeque<Open>,
}

pub(super) struct Open {
    pub noted: Noted,
    pub sender: Sender,
    /// The trace that its client has named.
    pub trace: Option<Trace>,
    /// When its turn had come.
    pub merged: Option<Time>,
}

/// Which requests are looked at, and how many may be told of now.
#[derive(Default)]
pub(super) struct Samples {
    pub slow: Budget,
    pub access: Budget,
    pub trace: Budget,
    /// Responses until the next one is for the access log, and for a trace.
    left: [u64; 2],
}

/// How many may be told of now.
#[derive(Default)]
pub(super) struct Budget {
    /// Since when it counts.
    since: Time,
    told: usize,
    looked: usize,
    pass: Option<Time>,
    in_pass: usize,
}

impl Budget {
    /// Whether one more may be looked at.
    pub fn looks(&mut self, now: Time) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            (self.since, self.told, self.looked) = (now, 0, 0);
        }
        if self.pass != Some(now) {
            (self.pass, self.in_pass) = (Some(now), 0);
        }
        let looks = self.told < SECOND_MAX && self.looked < LOOKS_MAX && self.in_pass < PASS_MAX;
        self.looked += usize::from(looks);
        self.in_pass += usize::from(looks);
        looks
    }

    /// It is told of.
    pub fn tells(&mut self) {
        self.told += 1;
    }

    /// Whether one more may be told of.
    pub fn admits(&mut self, now: Time) -> bool {
        let admits = self.looks(now);
        self.told += usize::from(admits);
        admits
    }
}

impl Samples {
    /// Of the responses to so many requests in flight, from how many microseconds on one is looked at; and an error. All are where one
    /// of them may be for the access log.
    #[inline]
    pub fn least(&self, limits: &Limits, in_flight: usize) -> (u64, u64) {
        let wanted = [limits.access_sample, limits.trace_sample];
        if wanted.iter().zip(self.left).any(|(&every, left)| every > 0 && left <= in_flight as u64) {
            return (0, 0);
        }
        let least = limits.slow_min.min(limits.trace_min);
        (least, if limits.access_errors { 0 } else { least })
    }

    /// So many have come, of which those were looked at that took so many microseconds.
    #[inline]
    pub fn passed(&mut self, responses: u64, note_min: u64) {
        if note_min > 0 {
            self.left = self.left.map(|left| left.saturating_sub(responses));
        }
    }

    /// Another one in so many may be wanted from now on: a rarer one is not waited for.
    pub fn renew(&mut self, before: &Limits, limits: &Limits) {
        let wanted = |limits: &Limits| [limits.access_sample, limits.trace_sample];
        for (left, (before, now)) in self.left.iter_mut().zip(wanted(before).into_iter().zip(wanted(limits)))
        {
            if before != now {
                *left = 0;
            }
        }
    }

    /// Whether the one at hand is for the access log, and for a trace.
    pub fn are_sampled(&mut self, limits: &Limits) -> [bool; 2] {
        let mut sampled = [false; 2];
        let wanted = [limits.access_sample, limits.trace_sample];
        for ((left, every), sampled) in self.left.iter_mut().zip(wanted).zip(&mut sampled) {
            *left = left.saturating_sub(1);
            if every > 0 && *left == 0 {
                (*left, *sampled) = (every, true);
            }
        }
        sampled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::NEVER_SLOW;

    #[test]
    fn one_in_so_many_is_sampled_whatever_comes_together() {
        let limits = Limits { access_sample: 100, ..Limits::default() };
        let mut samples = Samples { left: [100, 0], ..Samples::default() };
        let mut sampled = 0;
        for reads in [1, 7, 30, 200].iter().cycle().take(4000) {
            let (note_min, _) = samples.least(&limits, *reads);
            if note_min == 0 {
                sampled += (0..*reads).filter(|_| samples.are_sampled(&limits)[0]).count();
            }
            samples.passed(*reads as u64, note_min);
        }
        assert_eq!(sampled, 1000 * (1 + 7 + 30 + 200) / 100);
        assert_eq!(samples.least(&Limits::default(), 1000).0, NEVER_SLOW);
        let rarer = Limits { access_sample: 1_000_000, ..Limits::default() };
        samples.renew(&limits, &rarer);
        assert!(samples.least(&rarer, 1).0 == 0 && samples.are_sampled(&rarer)[0]);
        samples.passed(1, 0);
        assert_ne!(samples.least(&rarer, 1).0, 0);
        samples.renew(&rarer, &limits);
        assert_eq!(samples.least(&limits, 1).0, 0);
    }

    #[test]
    fn so_many_are_told_of_in_a_pass_and_in_a_second() {
        let mut budget = Budget::default();
        let told =
            |budget: &mut Budget, at: u64| (0..1000).filter(|_| budget.admits(Time::from_micros(at))).count();
        assert_eq!(told(&mut budget, 1_000_000), PASS_MAX);
        let second: usize = (1..1000).map(|pass| told(&mut budget, 1_000_000 + pass)).sum();
        assert_eq!(second + PASS_MAX, SECOND_MAX);
        assert_eq!(told(&mut budget, 2_000_000), PASS_MAX);
    }
}
