//! Who waits for scripts and functions of a pool to be stopped: [`super::kill`] does it.

use std::cell::{Cell, RefCell};

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::protocol::Running;

/// So many wait for the next round of a kind. Those that have gone meanwhile are among them, for as long as a round takes.
const KILLS_WAITING_MAX: usize = 4096;

/// Who has waited for so long is told by its worker that there is no answer. What is stopped later may be something else.
pub const WAITED_MAX: Duration = Duration::from_secs(5);

/// Who asks.
pub struct Asked {
    /// Since when.
    pub since: Instant,
    /// Where it is told.
    pub told: oneshot::Sender<Answer>,
}

/// What a client is told: an error in the words of a shard, or about it.
pub type Answer = Result<(), String>;

/// Who waits for the next round of a pool, by what is to be stopped.
#[derive(Default)]
pub struct Kills {
    scripts: Round,
    functions: Round,
}

/// One kind of them. Workers put one question at a time of each client.
#[derive(Default)]
pub struct Round {
    waiting: RefCell<Vec<Asked>>,
    /// One is under way.
    pub busy: Cell<bool>,
}

impl Round {
    /// One more waits, unless there are too many.
    #[must_use]
    pub fn put(&self, told: oneshot::Sender<Answer>) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let has_room = waiting.len() < KILLS_WAITING_MAX;
        if has_room {
            waiting.push(Asked { since: Instant::now(), told });
        }
        has_room
    }

    /// Who waits for the round that begins.
    pub fn take(&self) -> Vec<Asked> {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Vec<Asked> {
        let mut waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.retain(|asked| now.duration_since(asked.since) < WAITED_MAX);
        waiting
    }
}

impl Kills {
    /// Those who wait for this.
    pub fn of(&self, what: Running) -> &Round {
        match what {
            Running::Script => &self.scripts,
            Running::Function => &self.functions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_stopped_for_who_was_told_that_it_takes_too_long() {
        let round = Round::default();
        let ages = [WAITED_MAX, WAITED_MAX / 2, WAITED_MAX * 2];
        let now = Instant::now() + WAITED_MAX * 2;
        for age in ages {
            assert!(round.put(oneshot::channel().0));
            round.waiting.borrow_mut().last_mut().expect("just put").since = now - age;
        }
        assert_eq!(round.take_at(now).len(), 1);
        assert!(round.take_at(now).is_empty());
    }

    #[test]
    fn who_waits_is_limited() {
        let round = Round::default();
        let told = || oneshot::channel().0;
        assert!((0..KILLS_WAITING_MAX).all(|_| round.put(told())));
        assert!(!round.put(told()));
        assert_eq!(round.take().len(), KILLS_WAITING_MAX);
        assert!(round.put(told()));
    }
}
