//! What is done for a pool beside its requests, as long as it is served: each concern is a task of its own.

use std::rc::Rc;

use super::pool::PoolControl;

pub mod capabilities;
mod certificates;
pub mod cluster;
mod commands;
mod ejected;
pub mod events;
mod functions;
mod health;
mod names;
mod store;

/// Begins all of it.
pub fn begin(pool: &Rc<PoolControl>) {
    tokio::task::spawn_local(ejected::follow(pool.clone()));
    tokio::task::spawn_local(health::watch(pool.clone()));
    tokio::task::spawn_local(store::follow(pool.clone()));
    tokio::task::spawn_local(events::follow(pool.clone()));
    tokio::task::spawn_local(cluster::follow(pool.clone()));
    tokio::task::spawn_local(certificates::watch(pool.clone()));
}
