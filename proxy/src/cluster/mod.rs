//! Redis Cluster beside the data path: what its nodes say of it, and `memstore cluster reconcile`, which makes it what it is
//! meant to be.

pub mod arguments;
pub mod map;
pub mod plan;
pub mod reconcile;
mod roles;
pub mod step;
pub mod view;
