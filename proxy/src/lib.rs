//! The memstore proxy: one address in front of many Redis, Valkey or memcached servers.

pub mod config;
pub mod metrics;
pub mod pool;
pub mod protocol;
