//! Conversations between clients, the proxy and shards, as text.

pub mod script;
pub mod speech;
pub mod stage;
