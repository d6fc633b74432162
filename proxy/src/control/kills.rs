//! Who waits for scripts and functions of a pool to be stopped: [`super::kill`] does it.

use std::cell::{Cell, RefCell};

use tokio::sync::oneshot;

use crate::protocol::Running;

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
    pub waiting: RefCell<Vec<oneshot::Sender<Answer>>>,
    /// One is under way.
    pub busy: Cell<bool>,
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
