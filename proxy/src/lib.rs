//! The memstore proxy: one address in front of many Redis, Valkey or memcached servers.
//!
//! ARCHITECTURE.md is the map: [`protocol`] and [`pool`] are the core, [`worker`] and the control thread the shell.

pub mod account;
mod admin;
pub mod buffer;
pub mod cli;
pub mod config;
mod control;
pub mod denied;
pub mod failure;
pub mod freed;
pub mod hot;
mod log;
mod log_limit;
pub mod mailboxes;
pub mod metrics;
pub mod monitor;
mod net;
mod peers;
pub mod pool;
pub mod privacy;
pub mod protocol;
mod reconcile;
pub mod scripts;
pub mod secret;
pub mod slow;
mod status;
mod table;
pub mod time;
pub mod worker;

pub use control::{Hooks, serve};
