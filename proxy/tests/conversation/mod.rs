//! Conversations between clients, the proxy and shards, as text.

pub mod script;
pub mod settings;
pub mod speech;
pub mod stage;
mod topology;
