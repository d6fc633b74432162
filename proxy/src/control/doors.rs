//! Where clients of pools are accepted while configurations change: addresses are taken before anything else has changed, and
//! nobody can connect there until nothing can fail any more.

use std::rc::Rc;

use anyhow::bail;

use super::pool::PoolControl;
use crate::config::{self, Listen};
use crate::net::listen::{Bound, Listener};

/// Where clients of a pool are to be accepted.
pub struct Door {
    at: Listen,
    from: From<Bound>,
}

/// A door that clients can come to.
pub struct OpenDoor {
    /// Which address of the pool's.
    pub at: Listen,
    /// Where the listener comes from.
    pub from: From<Listener>,
}

/// Where a listener comes from.
pub enum From<T> {
    /// The address was free.
    Free(T),
    /// It is that of a pool, which gives it up.
    GivenUp(Listen),
}

/// A listener that a pool gives up.
pub struct GivenUp {
    /// The pool.
    pub pool: Rc<PoolControl>,
    /// The address of its listener.
    pub at: Listen,
}

impl GivenUp {
    /// Those listeners of a pool that a configuration has no more; without one all of them.
    pub fn of(pool: &Rc<PoolControl>, wanted: Option<&config::Pool>) -> Vec<Self> {
        let is_kept = |at: &Listen| wanted.is_some_and(|wanted| wanted.listener(at).is_some());
        let config = pool.config();
        let gone = config.listeners.iter().filter(|listener| !is_kept(&listener.at));
        gone.map(|listener| Self { pool: pool.clone(), at: listener.at.clone() }).collect()
    }
}

/// Takes the addresses that a pool is to listen on beside those that it listens on already, if nobody here has them to give.
pub fn find(
    config: &config::Pool,
    before: Option<&config::Pool>,
    given_up: &[GivenUp],
) -> anyhow::Result<Vec<Door>> {
    let is_there = |at: &Listen| before.is_some_and(|before| before.listener(at).is_some());
    let new = config.listeners.iter().filter(|listener| !is_there(&listener.at));
    new.map(|listener| find_one(config, &listener.at, given_up)).collect()
}

fn find_one(config: &config::Pool, at: &Listen, given_up: &[GivenUp]) -> anyhow::Result<Door> {
    if let Some(given) = given_up.iter().find(|given| given.at.is_at(at)) {
        return Ok(Door { at: at.clone(), from: From::GivenUp(given.at.clone()) });
    }
    // The same port on other addresses, which may be some of the same.
    let port = at.port();
    let beside = given_up.iter().filter(|given| port.is_some() && given.at.port() == port);
    let beside = beside.inspect(|given| given.pool.entrances.tolerate(&given.at)).count() > 0;
    match Bound::new(at, config.reuseport || beside, config.backlog) {
        Ok(bound) => Ok(Door { at: at.clone(), from: From::Free(bound) }),
        Err(error) => Err(taken(&config.name, at, error)),
    }
}

/// Clients may connect there from now on.
pub fn open(pool: &str, doors: Vec<Door>) -> anyhow::Result<Vec<OpenDoor>> {
    let open = |Door { at, from }| match from {
        From::GivenUp(given) => Ok(OpenDoor { at, from: From::GivenUp(given) }),
        From::Free(bound) => match bound.listen() {
            Ok(listener) => Ok(OpenDoor { at, from: From::Free(listener) }),
            Err(error) => Err(taken(pool, &at, error.into())),
        },
    };
    doors.into_iter().map(open).collect()
}

/// Why a pool cannot listen there.
pub fn taken(pool: &str, at: &Listen, error: anyhow::Error) -> anyhow::Error {
    error.context(format!("pool {pool}: cannot listen on {at}"))
}

/// Where one port is listened on twice the kernel may send clients to either.
pub fn refuse_overlaps(pools: &[config::Pool]) -> anyhow::Result<()> {
    let all: Vec<_> =
        pools.iter().flat_map(|pool| pool.listeners.iter().map(move |one| (pool, &one.at))).collect();
    for (index, (pool, at)) in all.iter().enumerate() {
        let overlaps = |(other, earlier): &&(&config::Pool, &Listen)| {
            at.overlaps(earlier) && !(pool.reuseport && other.reuseport)
        };
        if let Some((other, earlier)) = all[..index].iter().find(overlaps) {
            bail!(
                "pool {}: cannot listen on {at}: pool {} listens on {earlier}; give one of them another port",
                pool.name,
                other.name,
            );
        }
    }
    Ok(())
}
