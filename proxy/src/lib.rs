//! The memstore proxy: one address in front of many Redis, Valkey or memcached servers.
//!
//! ARCHITECTURE.md is the map: [`protocol`] and [`pool`] are the core, [`worker`] and the control thread the shell.

pub mod account;
mod admin;
mod check;
pub mod cli;
/// Its parsers of what nodes say are fuzzed.
#[doc(hidden)]
pub mod cluster;
pub mod config;
mod control;
mod conversation;
mod json;
mod log;
pub mod metrics;
mod nutcracker;
mod plan;
pub mod pool;
pub mod protocol;
mod trial;
pub mod worker;

pub use control::{Hooks, serve};
