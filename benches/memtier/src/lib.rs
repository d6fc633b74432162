//! Drives memstore and its peers with the same load and compares them.
//! What is measured and how to read it is in the README beside this package.

pub mod client;
mod connection;
pub mod flags;
pub mod generator;
mod idle;
pub mod machine;
pub mod measurement;
pub mod memtier;
pub mod picture;
pub mod process;
pub mod protocol;
pub mod proxy;
mod random;
pub mod report;
pub mod shard;
pub mod table;
pub mod tournament;
pub mod usage;
pub mod workload;
