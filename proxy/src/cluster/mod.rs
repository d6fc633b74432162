//! What the nodes of a Redis Cluster say of it.

pub mod map;
pub mod view;
