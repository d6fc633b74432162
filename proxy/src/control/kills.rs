//! Who waits for scripts and functions of a pool to be stopped: [`super::kill`] does it.

use std::cell::{Cell, RefCell};

use tokio::sync::oneshot;

use crate::protocol::Running;

/// So many wait for the next round of a kind. Those that have gone meanwhile are among them, for as long as a round takes.
const KILLS_WAITING_MAX: usize = 4096;

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
    /// Where they are told.
    waiting: RefCell<Vec<oneshot::Sender<Answer>>>,
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
            waiting.push(told);
        }
        has_room
    }

    /// Who waits for the round that begins.
    pub fn take(&self) -> Vec<oneshot::Sender<Answer>> {
        std::mem::take(&mut self.waiting.borrow_mut())
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
    fn who_waits_is_limited() {
        let round = Round::default();
        let told = || oneshot::channel().0;
        assert!((0..KILLS_WAITING_MAX).all(|_| round.put(told())));
        assert!(!round.put(told()));
        assert_eq!(round.take().len(), KILLS_WAITING_MAX);
        assert!(round.put(told()));
    }
}
