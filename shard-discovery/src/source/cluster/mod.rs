//! A Redis Cluster says itself who owns what. Asking its nodes is up to whoever has sockets; what they say is read
//! ([`view`]) and judged ([`Map`]) here.

pub mod map;
pub mod view;

use std::time::Duration;

use crate::Address;

pub use map::{Map, Member, View};

/// Where a cluster is, and how it is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// Nodes that are asked first.
    pub seeds: Vec<Address>,
    /// Who answers commands that only read.
    pub read_from: ReadFrom,
    /// How often the nodes are asked.
    pub refresh: Duration,
}

/// Who answers commands that only read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadFrom {
    /// Who owns the slot.
    Primary,
    /// A replica, else the primary.
    PreferReplica,
    /// Whoever of them answers fastest.
    Nearest,
}
