//! What the care of a cluster is told, sees, and does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use shard_discovery::source::cluster::View;
use shard_discovery::source::cluster::view::Node;

/// How the cluster is meant to be.
#[derive(Clone, Debug)]
pub struct Goal {
    /// `host:port` of each node, by its ordinal.
    pub nodes: Vec<String>,
    /// How many own slots.
    pub primaries: usize,
    /// How many replicas each of them is to have at least.
    pub replicas: usize,
    /// Nodes from this ordinal on are to be left with nothing, and then to leave.
    pub drain_from: Option<usize>,
    /// Slots stay with those who own them, however unevenly, while somebody else cares for growth.
    pub keep_slots: bool,
    /// Slots that nobody owns are given away although the keys in them are lost.
    pub assign_missing: bool,
    /// Two clusters that each own slots are joined although one of them loses keys.
    pub merge: bool,
}

/// What was seen of one node.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Where it was reached, as the bus needs it.
    pub ip: String,
    /// Port of clients.
    pub port: u16,
    /// What it says.
    pub view: View,
    /// Keys it holds.
    pub keys: u64,
    /// The latest epoch of its cluster: 0 as long as it was in none.
    pub epoch: u64,
    /// Where a replica that is not linked to its primary looks for it.
    pub looks_at: Option<(String, u16)>,
    /// Slots that are on their way somewhere in the cluster, with how many keys of them are here.
    pub open_slots: BTreeMap<u16, u64>,
}

impl NodeFacts {
    /// What it says of itself.
    pub fn own(&self) -> Option<&Node> {
        self.view.nodes.iter().find(|node| node.myself)
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.own().map_or("", |node| &node.id)
    }

    /// A node that it has met.
    pub fn knows(&self, id: &str) -> Option<&Node> {
        self.view.nodes.iter().find(|node| node.id == id && !node.handshake)
    }

    /// Whether it was in a cluster, and is alone and owns nothing now. What it has on disk may be from before.
    pub fn has_left(&self) -> bool {
        self.view.nodes.len() == 1 && self.epoch > 0 && self.own().is_some_and(|own| own.slots.is_empty())
    }

    /// Whether it has a link to the node and does not think that it failed.
    pub fn reaches(&self, id: &str) -> bool {
        self.knows(id).is_some_and(|node| node.linked && !node.failed && !node.suspected)
    }
}

/// One change. Nodes are named by their ordinals.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are in the sentence
pub enum Step {
    /// `node` starts with this epoch, before it knows others.
    SetEpoch { node: usize, epoch: u64 },
    /// `node` is told where `other` is.
    Meet { node: usize, other: usize },
    /// `node`, which has left a cluster, is emptied, and then told where `other` is.
    Rejoin { node: usize, other: usize },
    /// `node` forgets a node that is no more, or about to leave.
    Forget { node: usize, id: String },
    /// `node` owns these ranges of slots from now on.
    AddSlots { node: usize, slots: Vec<(u16, u16)> },
    /// `node` is a replica of `primary` from now on.
    Replicate { node: usize, primary: usize },
    /// `node`, a replica, takes the place of its primary, which is no more.
    TakeOver { node: usize },
    /// `node`, a replica, takes the place of its primary, which agrees.
    HandOver { node: usize },
    /// Slots go from one node to another with all their keys.
    Move { from: usize, to: usize, slots: Vec<u16> },
    /// A slot is not on its way at `node` any more.
    Settle { node: usize, slot: u16 },
    /// `node`, which owns nothing, leaves the cluster it is in, and is empty.
    Reset { node: usize },
    /// `node`, which is of another cluster, gives up its slots and keys.
    Discard { node: usize },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetEpoch { node, epoch } => write!(f, "node {node}: set config epoch {epoch}"),
            Self::Meet { node, other } => write!(f, "node {node}: meet node {other}"),
            Self::Rejoin { node, other } => write!(f, "node {node}: empty it, then meet node {other}"),
            Self::Forget { node, id } => write!(f, "node {node}: forget {id}"),
            Self::AddSlots { node, slots } => {
                let shown: Vec<String> =
                    slots.iter().map(|(first, last)| format!("{first}-{last}")).collect();
                write!(f, "node {node}: add slots {}", shown.join(" "))
            }
            Self::Replicate { node, primary } => write!(f, "node {node}: replicate node {primary}"),
            Self::TakeOver { node } => {
                write!(f, "node {node}: take over from the failed primary")
            }
            Self::HandOver { node } => write!(f, "node {node}: take over from the primary"),
            Self::Move { from, to, slots } => {
                write!(f, "move {} slots from node {from} to node {to}", slots.len())
            }
            Self::Settle { node, slot } => write!(f, "node {node}: clear the migration state of slot {slot}"),
            Self::Reset { node } => write!(f, "node {node}: leave the cluster"),
            Self::Discard { node } => write!(f, "node {node}: discard its slots and keys"),
        }
    }
}

/// What was found, and what follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// What is not as it is meant to be, in words.
    pub findings: Vec<String>,
    /// Why nothing is done about it, and the way out.
    pub blocked: Vec<String>,
    /// What to do now, in this order.
    pub steps: Vec<Step>,
    /// That is to wait until clients have had time to learn what was done before.
    pub is_for_later: bool,
    /// Nothing is to be done, and nothing awaited.
    pub is_healthy: bool,
}

/// Nodes that know each other, directly or by others, are of one cluster.
pub fn parts(nodes: &BTreeMap<usize, &NodeFacts>) -> Vec<BTreeSet<usize>> {
    let mut parts: Vec<BTreeSet<usize>> = Vec::new();
    for (&node, facts) in nodes {
        let knows = |other: &usize| {
            let other = nodes[other];
            facts.knows(other.id()).is_some() || other.knows(facts.id()).is_some()
        };
        let (known, others): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.iter().any(knows));
        let mut part: BTreeSet<usize> = known.into_iter().flatten().collect();
        part.insert(node);
        parts = others;
        parts.push(part);
    }
    parts
}
