//! Which events of keys clients of a pool have asked for, and which shards are held because of that: [`super::care::events`] does it.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use shard_discovery::Shard;
use tokio::sync::{Mutex, Notify};

use crate::protocol::events::Flags;

/// What clients of a pool have asked for.
#[derive(Default)]
pub struct Events {
    /// All flags that any has asked for.
    pub wanted: Cell<Flags>,
    /// Held by who tells all shards.
    pub telling: Mutex<()>,
    /// There is more.
    pub changed: Notify,
    /// Shards that are held: those of the pool at most, and some that have just left it.
    pub held: RefCell<HashSet<Shard>>,
}
