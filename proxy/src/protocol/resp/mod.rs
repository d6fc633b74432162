//! RESP, the protocol of Redis and Valkey.

mod command_index;
mod command_keys;
pub mod command_reply;
mod command_table;
pub mod commands;
pub mod encode;
pub mod glob;
