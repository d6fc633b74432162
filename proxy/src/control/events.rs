//! Which events of keys clients of a pool have asked for, and which shards are held because of that: [`super::care::events`] does it.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::Duration;

use shard_discovery::Shard;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use crate::protocol::events::Flags;

/// So often in so much time shards may refuse what clients ask for: each time all of them are connected to.
const FAILURES_MAX: u32 = 10;
const FAILURES_TIME: Duration = Duration::from_secs(1);

/// What clients of a pool have asked for.
#[derive(Default)]
pub struct Events {
    /// All flags that any has asked for.
    pub wanted: Cell<Flags>,
    /// Held by who tells all shards.
    pub telling: Mutex<()>,
    /// There is more.
    pub changed: Notify,
    /// Since when it is counted how often that failed, and how often it has.
    failures: Cell<Option<(Instant, u32)>>,
    /// Shards that are held: those of the pool at most, and some that have just left it.
    pub held: RefCell<HashSet<Shard>>,
}

impl Events {
    /// Whether shards are not to be asked for the moment.
    pub fn has_failed_often(&self) -> bool {
        self.failures
            .get()
            .is_some_and(|(since, count)| count >= FAILURES_MAX && since.elapsed() < FAILURES_TIME)
    }

    /// They were asked in vain.
    pub fn failed(&self) {
        let now = Instant::now();
        let recent = self.failures.get().filter(|(since, _)| now - *since < FAILURES_TIME);
        self.failures.set(Some(recent.map_or((now, 1), |(since, count)| (since, count + 1))));
    }
}
