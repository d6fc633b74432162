//! RESP, the protocol of Redis and Valkey.

pub mod encode;
