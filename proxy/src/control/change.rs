//! What a reload is to change.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use shard_discovery::{Shard, Topology};

use super::pool::PoolControl;
use crate::config;
use crate::status::Difference;

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

    /// What of the pool is other than it was.
    pub fn differences(&self) -> Vec<Difference> {
        shards(&self.config.name, &self.before.shards, &self.config.shards)
    }
}

impl Difference {
    /// A pool that is served now, or no more.
    pub fn of_pool(name: String, is_new: bool) -> Self {
        let [before, after] = [!is_new, is_new].map(|is_there| is_there.then(|| name.clone()));
        Self { pool: Some(name), what: "pool".into(), before, after }
    }
}

/// Shards that have come, gone or changed.
fn shards(pool: &str, before: &[Shard], after: &[Shard]) -> Vec<Difference> {
    let mut known: HashMap<&str, &Shard> = before.iter().map(|shard| (shard.name.as_str(), shard)).collect();
    let difference = |before: Option<&Shard>, after: Option<&Shard>| Difference {
        pool: Some(pool.to_owned()),
        what: "shard".into(),
        before: before.map(shown),
        after: after.map(shown),
    };
    let mut found = Vec::new();
    for shard in after {
        let was = known.remove(shard.name.as_str());
        if was != Some(shard) {
            found.push(difference(was, Some(shard)));
        }
    }
    let gone = before.iter().filter(|shard| known.contains_key(shard.name.as_str()));
    found.extend(gone.map(|shard| difference(Some(shard), None)));
    found
}

fn shown(Shard { name, address, weight, .. }: &Shard) -> String {
    format!("{name} at {address}, weight {weight}")
}

/// A pool that is to be served, with who owns what as far as it is known.
pub type Opening = (Arc<config::Pool>, Arc<Topology>);

/// Something has changed since it was compared: what is there now counts.
#[derive(Debug, thiserror::Error)]
#[error("the files or a server list changed meanwhile")]
pub struct Superseded;
