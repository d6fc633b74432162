//! The members of a pool: its shards and their connections while the list of shards changes.
//!
//! A shard has a place of its own here, its member, that stays what it is while the list changes around it: only the way
//! from the topology to the members is made anew.

use std::sync::Arc;

use shard_discovery::Shard;

use super::ConnectionIndex;
use crate::metrics::ShardCounters;
use crate::protocol::Protocol;
use crate::time::Time;

/// One shard, and what stays the same as long as it is one.
pub(super) struct Member {
    pub shard: Shard,
    pub name: Arc<str>,
    pub counters: Arc<ShardCounters>,
    /// Connections to it in each lane.
    pub per_shard: usize,
    /// They keep requests until they are answered.
    pub keeps: bool,
    /// It is a replica of a cluster that is only read from.
    pub is_replica: bool,
    /// Its last event was a failure.
    pub failing: bool,
    /// When the last failure was noticed that was reported as the shard's own.
    pub failed_at: Option<Time>,
    /// It is not in the pool any more: what is in flight is finished, then its connections are closed.
    pub leaving: bool,
}

/// Connections shared by clients of the same database and protocol version.
pub(super) struct Lane<P: Protocol> {
    pub key: P::Lane,
    /// Clients that use it.
    pub clients: usize,
    /// Nothing remains of it: its place is for the next.
    pub ended: bool,
    /// For each member the place of its first connection; its others stand behind.
    pub first: Vec<ConnectionIndex>,
}
