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
    /// What it is to be.
    pub config: Arc<config::Pool>,
}

/// A pool that is to be served, with who owns what as far as it is known.
pub type Opening = (Arc<config::Pool>, Arc<Topology>);

/// The files have changed since they were read: what they say now counts.
#[derive(Debug, thiserror::Error)]
#[error("the files have changed again since they were read")]
pub struct Superseded;
