//! Who owns slots in a cluster, and who replicates whom: a phase of [`plan`](super::plan).

use std::collections::BTreeMap;

use super::plan::Cluster;
use super::step::{Advice, Step};

impl Cluster<'_> {
    /// Who owns slots, and who replicates whom.
    pub(super) fn assign_roles(&self, advice: &mut Advice) {
        self.hand_over(advice);
        if !advice.steps.is_empty() || self.waits.get() {
            return;
        }
        let owning: Vec<usize> = self.owning().into_iter().filter(|&node| self.stays(node)).collect();
        let mut spare = self.empty();
        let lacking = self.goal.primaries.saturating_sub(self.staying_owners());
        let new: Vec<usize> = spare.drain(..lacking.min(spare.len())).collect();
        let mut replicas: BTreeMap<usize, Vec<usize>> =
            owning.iter().map(|&node| (node, Vec::new())).collect();
        let mut homeless = spare;
        for &node in self.main.iter().filter(|&&node| self.stays(node)) {
            let facts = self.nodes[&node];
            let Some(primary) = facts.own().and_then(|own| own.replica_of.as_deref()) else { continue };
            match self.ordinals.get(primary).filter(|primary| replicas.contains_key(primary)) {
                Some(&primary) => {
                    if let Some(all) = replicas.get_mut(&primary) {
                        all.push(node);
                    }
                    let Some((host, port)) = &facts.looks_at else { continue };
                    let place = self.nodes[&primary];
                    if *host == place.ip && *port == place.port {
                        advice.findings.push(format!("node {node} is not in sync with node {primary} yet"));
                        self.waits.set(true);
                    } else {
                        // The bus knows the new address, and replication still has the one before.
                        advice.findings.push(format!("node {node} expects node {primary} at {host}:{port}"));
                        advice.steps.push(Step::Replicate { node, primary });
                    }
                }
                // It may be about to take the place of one that has just failed.
                None if self.owners.iter().flatten().any(|owner| *owner == primary)
                    && !self.is_leaving(primary) =>
                {
                    advice.findings.push(format!("node {node} replicates {primary}, which is unreachable"));
                    self.waits.set(true);
                }
                None => homeless.push(node),
            }
        }
        if self.waits.get() {
            return;
        }
        if lacking > new.len() {
            self.promote(lacking - new.len(), &replicas, advice);
            return;
        }
        for node in homeless {
            // With the fewest replicas, and of those the one whose turn it is.
            let turn =
                |primary: &usize| (primary % self.goal.primaries.max(1)) != node % self.goal.primaries.max(1);
            let Some(primary) =
                owning.iter().copied().min_by_key(|primary| (replicas[primary].len(), turn(primary)))
            else {
                continue;
            };
            if let Some(all) = replicas.get_mut(&primary) {
                all.push(node);
            }
            advice.findings.push(format!("node {node} owns no slots and replicates no node"));
            advice.steps.push(Step::Replicate { node, primary });
        }
        if !advice.steps.is_empty() {
            return;
        }
        for (primary, all) in replicas.iter().filter(|(_, all)| all.len() < self.goal.replicas) {
            let (has, wanted) = (all.len(), self.goal.replicas);
            advice.findings.push(format!("node {primary} has {has} replicas instead of {wanted}"));
        }
        let most = replicas.iter().max_by_key(|(_, all)| all.len());
        let fewest = replicas.iter().min_by_key(|(_, all)| all.len());
        if let (Some((from, many)), Some((&primary, few))) = (most, fewest)
            && many.len() > few.len() + 1
            && let Some(&node) = many.last()
        {
            advice.findings.push(format!(
                "node {primary} has {} replicas and node {from} has {}",
                few.len(),
                many.len()
            ));
            advice.steps.push(Step::Replicate { node, primary });
        }
    }

    /// Primaries that leave, whose replicas stay: one of those takes their place, with all keys and at once. One at a time, for
    /// elections at the same time hinder each other.
    fn hand_over(&self, advice: &mut Advice) {
        for leaving in self.owning().into_iter().filter(|&node| !self.stays(node)) {
            let id = self.nodes[&leaving].id();
            let follows = |node: &usize| {
                let own = self.nodes[node].own();
                self.stays(*node) && own.is_some_and(|own| own.replica_of.as_deref() == Some(id))
            };
            let staying: Vec<usize> = self.main.iter().copied().filter(follows).collect();
            let has_all = |node: &&usize| self.nodes[*node].looks_at.is_none();
            if let Some(&node) = staying.iter().find(has_all) {
                advice.findings.push(format!(
                    "node {leaving} owns slots and is to be removed; node {node} is its replica"
                ));
                advice.steps.push(Step::HandOver { node });
                return;
            }
            if let Some(node) = staying.first() {
                advice.findings.push(format!("node {node} is not in sync with node {leaving} yet"));
                self.waits.set(true);
            }
        }
    }

    pub(super) fn is_leaving(&self, id: &str) -> bool {
        self.ordinals.get(id).is_some_and(|&node| !self.stays(node))
    }

    /// More primaries are wanted than there are nodes without a task: replicas that are not needed become empty nodes.
    fn promote(&self, count: usize, replicas: &BTreeMap<usize, Vec<usize>>, advice: &mut Advice) {
        // Never one that is wanted as a replica, and none while a node cannot be asked: it may be needed.
        let wanted = self.goal.replicas;
        let surplus = replicas
            .values()
            .filter(|all| all.len() > wanted)
            .filter_map(|all| all.last().copied())
            .take(count);
        for node in surplus.filter(|_| self.all_seen()) {
            advice.findings.push(format!("node {node} should own slots but is a replica"));
            advice.steps.push(Step::Reset { node });
        }
        if advice.steps.is_empty() {
            advice.blocked.push(format!(
                "{} primaries are configured, but there are not enough nodes; add nodes",
                self.goal.primaries
            ));
        }
    }
}
