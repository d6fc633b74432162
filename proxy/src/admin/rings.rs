//! Who owns what for now, and how much, of each pool. With thousands of shards that takes longer to find than all that is
//! counted, and it changes seldom: it is kept for as long as it holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use shard_discovery::{Share, Topology};

use crate::status::PoolStatus;

/// By the name of the pool.
#[derive(Default)]
pub struct Rings(Mutex<HashMap<String, Arc<Ring>>>);

/// What one pool's workers go by.
pub struct Ring {
    /// It is made of this one, and of who was ejected.
    all: Arc<Topology>,
    /// Without the shards that are ejected.
    pub live: Arc<Topology>,
    /// What each shard owns, by its place in the topology; nothing of those that are out.
    pub shares: Vec<Option<Share>>,
}

impl Ring {
    fn of(pool: &PoolStatus) -> Self {
        let all = pool.topology.clone();
        let live = if pool.ejected.is_empty() { all.clone() } else { Arc::new(all.without(&pool.ejected)) };
        let mut shares = vec![None; all.shards().len()];
        for share in live.shares() {
            let place = share.shard;
            shares[place] = Some(share);
        }
        Self { all, live, shares }
    }

    fn holds(&self, pool: &PoolStatus) -> bool {
        Arc::ptr_eq(&self.all, &pool.topology) && self.live.ejected() == pool.ejected
    }
}

impl Rings {
    /// That of a pool.
    pub fn of(&self, pool: &PoolStatus) -> Arc<Ring> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ring) = known.get(&pool.config.name).filter(|ring| ring.holds(pool)) {
            return ring.clone();
        }
        let ring = Arc::new(Ring::of(pool));
        known.insert(pool.config.name.clone(), ring.clone());
        ring
    }

    /// Pools that are not served any more are forgotten.
    pub fn retain(&self, pools: &[PoolStatus]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, _| pools.iter().any(|pool| pool.config.name == *name));
    }
}
