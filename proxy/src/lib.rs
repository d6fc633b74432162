//! The memstore proxy: one address in front of many Redis, Valkey or memcached servers.

pub mod protocol;
