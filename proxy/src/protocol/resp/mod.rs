//! RESP, the protocol of Redis and Valkey.

mod command_index;
mod command_keys;
mod command_table;
pub mod commands;
pub mod encode;
