//! How fast connections are made that one client has to itself.
//!
//! A client that goes while it waits takes its connection along, so one that comes and goes in a loop has one made each time, and
//! a thousand of them a thousand. As many are made at once of a shard as there may be, or [`ONCE_MIN`], and then a tenth of that in a
//! second: those beyond are put off. One that is put off for a client that has gone meanwhile is for the next, whatever that speaks where no more may be there, so a
//! loop brings about no more than that.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ConnectionId;
use crate::time::Time;

/// In this time as many are made as may be made at once.
const ALL_IN: Duration = Duration::from_secs(10);
/// So many are made at once however few there may be.
pub(super) const ONCE_MIN: usize = 32;

/// Connections that are to be made later.
#[derive(Default)]
pub(super) struct Pace {
    put_off: BTreeSet<(Time, ConnectionId)>,
}

impl Pace {
    /// Whether one more connection of a shard, of which `max` may be there, is put off. `next` is what is kept for the shard: until
    /// then all that were made have taken their share of the time.
    pub fn put_off(&mut self, id: ConnectionId, next: &mut Time, max: usize, now: Time) -> bool {
        let share = ALL_IN / u32::try_from(max.max(ONCE_MIN)).unwrap_or(u32::MAX);
        let due = (*next).max(now);
        *next = due.plus(share);
        // They may be ahead of it by all but one share.
        let early = now.plus(ALL_IN - share);
        if due <= early {
            return false;
        }
        self.put_off.insert((now.plus(due.since(early)), id));
        true
    }

    /// When the next one is to be made.
    pub fn due(&self) -> Option<Time> {
        self.put_off.first().map(|&(due, _)| due)
    }

    /// One that is to be made by now.
    pub fn take_due(&mut self, now: Time) -> Option<ConnectionId> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        self.put_off.pop_first().map(|(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    fn id(index: u32) -> ConnectionId {
        ConnectionId { index, generation: 1 }
    }

    #[test]
    fn as_many_are_made_at_once_as_there_may_be_and_then_a_tenth_in_a_second() {
        let (mut pace, mut next) = (Pace::default(), Time::default());
        let put_off = (0..150).map(|index| pace.put_off(id(index), &mut next, 100, at(1_000_000)));
        assert_eq!(put_off.filter(|&is| is).count(), 50);
        let mut made = Vec::new();
        for second in 0..=5 {
            let now = at(1_000_000 + second * 1000);
            made.push(std::iter::from_fn(|| pace.take_due(now)).count());
        }
        assert_eq!((made, pace.due()), (vec![0, 10, 10, 10, 10, 10], None));
        // After a pause it is as in the beginning.
        let put_off = (0..150).map(|index| pace.put_off(id(index), &mut next, 100, at(2_000_000)));
        assert_eq!(put_off.filter(|&is| is).count(), 50);
        // Few may be there, and are not made to wait for long.
        let mut next = Time::default();
        let put_off = (0..40).map(|index| pace.put_off(id(index), &mut next, 1, at(1)));
        assert_eq!(put_off.filter(|&is| is).count(), 40 - ONCE_MIN);
    }
}
