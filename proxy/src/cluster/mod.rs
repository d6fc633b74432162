//! Redis Cluster beside the data path: what its nodes say of it.

pub mod map;
pub mod view;
