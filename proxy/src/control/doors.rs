//! Where clients of pools are accepted while configurations change: addresses are taken before anything else has changed, and
//! nobody can connect there until nothing can fail any more.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::bail;

use super::pool::PoolControl;
use crate::config;
use crate::net::listen::{Bound, Listener};

/// Where a pool's clients are to be accepted.
pub enum Door {
    /// An address that was free.
    Bound(Bound, Arc<config::Pool>),
    /// The listener of this pool, which gives it up.
    From(Rc<PoolControl>),
}

/// A door that clients can come to.
pub enum OpenDoor {
    /// At an address that was free.
    Listening(Listener),
    /// At the listener of this pool.
    From(Rc<PoolControl>),
}

/// Takes the address that the pool is to listen on, if nobody here has it to give.
pub fn find(config: &Arc<config::Pool>, given_up: &[Rc<PoolControl>]) -> anyhow::Result<Door> {
    if let Some(pool) = given_up.iter().find(|pool| pool.config().listen.is_at(&config.listen)) {
        return Ok(Door::From(pool.clone()));
    }
    // The same port on other addresses, which may be some of the same.
    let port = config.listen.port();
    let beside: Vec<_> = given_up
        .iter()
        .filter(|pool| port.is_some() && pool.config().listen.port() == port)
        .inspect(|pool| pool.tolerate(true))
        .collect();
    match Bound::new(config, !beside.is_empty()) {
        Ok(bound) => Ok(Door::Bound(bound, config.clone())),
        Err(error) => Err(taken(config, error)),
    }
}

/// Clients may connect there from now on.
pub fn open(doors: Vec<Option<Door>>) -> anyhow::Result<Vec<Option<OpenDoor>>> {
    let open = |door: Option<Door>| match door {
        None => Ok(None),
        Some(Door::From(pool)) => Ok(Some(OpenDoor::From(pool))),
        Some(Door::Bound(bound, config)) => {
            let listener = bound.listen().map_err(|error| taken(&config, error.into()))?;
            Ok(Some(OpenDoor::Listening(listener)))
        }
    };
    doors.into_iter().map(open).collect()
}

fn taken(config: &config::Pool, error: anyhow::Error) -> anyhow::Error {
    error.context(format!("pool {}: cannot listen on {}", config.name, config.listen))
}

/// Where one port is listened on twice the kernel may send clients to either.
pub fn refuse_overlaps(pools: &[config::Pool]) -> anyhow::Result<()> {
    for (index, pool) in pools.iter().enumerate() {
        let overlaps = |other: &&config::Pool| {
            pool.listen.overlaps(&other.listen) && !(pool.reuseport && other.reuseport)
        };
        if let Some(other) = pools[..index].iter().find(overlaps) {
            bail!(
                "pool {}: cannot listen on {}: pool {} listens on {}; give one of them another port",
                pool.name,
                pool.listen,
                other.name,
                other.listen
            );
        }
    }
    Ok(())
}
