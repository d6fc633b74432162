//! What a reload is to change.

use std::rc::Rc;
use std::sync::Arc;

use shard_discovery::Topology;

use super::pool::PoolControl;
use crate::config;

/// What is to change of one pool.
pub struct Change {
    /// The pool as it is.
    pub pool: Rc<PoolControl>,
    /// Its configuration when that was compared.
    pub before: Arc<config::Pool>,
    /// What it is to be.
    pub config: Arc<config::Pool>,
}

impl Change {
    /// Whether the pool has gone or has taken another configuration since then.
    pub fn is_overtaken(&self) -> bool {
        self.pool.removed.get() || !Arc::ptr_eq(&self.before, &self.pool.config())
    }
}

/// A pool that is to be served, with who owns what as far as it is known.
pub type Opening = (Arc<config::Pool>, Arc<Topology>);

/// Something has changed since it was compared: what is there now counts.
#[derive(Debug, thiserror::Error)]
#[error("the files or a server list changed meanwhile")]
pub struct Superseded;
