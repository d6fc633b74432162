//! Who owns slots in a cluster, and who replicates whom: a phase of [`plan`](super::plan).

use std::collections::BTreeMap;

use super::plan::Observed;
use super::step::{Advice, Step};

impl Observed<'_> {
    /// Who owns slots, and who replicates whom.
    pub(super) fn assign_roles(&self, advice: &mut Advice) {
        self.hand_over(advice);
        if !advice.steps.is_empty() || self.waits.get() {
            return;
        }
        let owning: Vec<usize> = self.owning().into_iter().filter(|&node| self.stays(node)).collect();
        let lacking = self.goal.primaries.saturating_sub(self.staying_owners());
        let new = self.new_owners(lacking);
        // Followed before they own anything, so that there is nothing to copy, and what they are given is there twice at once.
        let primaries = [&owning[..], &new].concat();
        let mut replicas: BTreeMap<usize, Vec<usize>> =
            primaries.iter().map(|&node| (node, Vec::new())).collect();
        let mut homeless = self.empty();
        homeless.retain(|node| !new.contains(node));
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
                primaries.iter().copied().min_by_key(|primary| (replicas[primary].len(), turn(primary)))
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
        replicas.retain(|node, _| !new.contains(node));
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

    /// So many nodes that are to own slots as well. Those first that are followed: their replicas would have to copy another node.
    pub(super) fn new_owners(&self, count: usize) -> Vec<usize> {
        let followers = |node: &usize| {
            let id = self.nodes[node].id();
            let follows = |other: &&usize| {
                self.nodes[other].own().is_some_and(|own| own.replica_of.as_deref() == Some(id))
            };
            self.main.iter().filter(|&&other| self.stays(other)).filter(follows).count()
        };
        let mut spare = self.empty();
        spare.sort_by_key(|node| std::cmp::Reverse(followers(node)));
        spare.truncate(count);
        spare
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
        let all_seen = self.all_seen();
        let surplus: Vec<usize> = replicas
            .values()
            .filter(|all| all.len() > wanted && all_seen)
            .filter_map(|all| all.last().copied())
            .take(count)
            .collect();
        if surplus.is_empty() {
            advice.blocked.push(format!(
                "{} primaries are configured, but there are not enough nodes; add nodes",
                self.goal.primaries
            ));
        }
        for node in surplus {
            advice.findings.push(format!("node {node} should own slots but is a replica"));
            // Who only heals would not call it back.
            if !self.goal.keep_slots {
                self.send_away(node, advice);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::next;
    use super::super::plan::tests::{facts, goal};
    use super::super::step::{Goal, NodeFacts};
    use super::*;

    /// Three primaries with a replica each, all there, where the replicas of before own the slots by now.
    fn after_failovers() -> Vec<Result<NodeFacts, String>> {
        let slots = ["0-5460", "5461-10921", "10922-16383"];
        let line = |node: usize, own: usize| {
            let (myself, epoch) = (if node == own { "myself," } else { "" }, node % 3 + 1);
            let (kind, primary, slots) = match node.checked_sub(3) {
                Some(slot) => ("master", "-".to_owned(), slots[slot]),
                None => ("slave", format!("id{}", node + 3), ""),
            };
            format!("id{node} 10.0.0.{node}:6379@1 {myself}{kind} {primary} 0 0 {epoch} connected {slots}\n")
        };
        let lines = |own: usize| (0..6).map(|node| line(node, own)).collect::<String>();
        (0..6).map(|node| facts(node, 7, &lines(node))).collect()
    }

    #[test]
    fn a_replica_that_stays_takes_the_place_of_a_primary_that_leaves() {
        let goal = Goal { drain_from: Some(3), ..goal(6, 3) };
        let advice = next(&goal, &after_failovers());
        assert_eq!(advice.steps, [Step::HandOver { node: 0 }]);
        // Not before it has everything.
        let mut seen = after_failovers();
        for facts in seen.iter_mut().flatten().take(3) {
            facts.looks_at = Some(("10.0.0.9".into(), 6379));
        }
        let advice = next(&goal, &seen);
        assert!(advice.steps.is_empty() && advice.blocked.is_empty() && !advice.is_healthy, "{advice:?}");
    }

    #[test]
    fn replicas_that_are_not_wanted_any_more_become_primaries() {
        let advice = next(&goal(6, 5), &after_failovers());
        let (forget, reset): (Vec<_>, Vec<_>) =
            advice.steps.iter().partition(|step| matches!(step, Step::Forget { .. }));
        // The others first: it could claim slots when it is started again before it is empty.
        assert!(matches!(advice.steps[5], Step::Reset { .. }), "{advice:?}");
        assert!(matches!(&reset[..], [Step::Reset { .. }, Step::Reset { .. }]) && forget.len() == 10);
        let heals = next(&Goal { keep_slots: true, ..goal(6, 5) }, &after_failovers());
        assert!(heals.steps.is_empty() && heals.blocked.is_empty(), "{heals:?}");
        let wanted = next(&Goal { replicas: 1, ..goal(6, 5) }, &after_failovers());
        assert!(wanted.steps.is_empty() && wanted.blocked[0].contains("add nodes"), "{wanted:?}");
    }

    /// Where a pair was emptied that is to leave, whoever heals does not know it yet: the replica would copy all keys of another node.
    #[test]
    fn the_replica_of_a_primary_without_slots_stays_with_it() {
        let line = |node: usize, own: usize| {
            let myself = if node == own { "myself," } else { "" };
            let (kind, primary) = if node < 3 { ("master", "-") } else { ("slave", "id2") };
            let slots = ["0-8191", "8192-16383", "", ""][node];
            let epoch = node % 3 + 1;
            format!("id{node} 10.0.0.{node}:6379@1 {myself}{kind} {primary} 0 0 {epoch} connected {slots}\n")
        };
        let lines = |own: usize| (0..4).map(|node| line(node, own)).collect::<String>();
        let seen: Vec<_> = (0..4).map(|node| facts(node, 7, &lines(node))).collect();
        let heals = |primaries| Goal { keep_slots: true, ..goal(4, primaries) };
        assert_eq!(next(&heals(3), &seen).steps, []);
        // Nobody is to own slots there: both become replicas.
        let replicate = |node, primary| Step::Replicate { node, primary };
        assert_eq!(next(&heals(2), &seen).steps, [replicate(2, 0), replicate(3, 1)]);
    }

    /// Nodes by who they follow; those that own slots are the first two.
    fn following(primaries: &[Option<usize>]) -> Vec<Result<NodeFacts, String>> {
        let line = |node: usize, own: usize| {
            let myself = if node == own { "myself," } else { "" };
            let (kind, primary) = match primaries[node] {
                None => ("master", "-".to_owned()),
                Some(primary) => ("slave", format!("id{primary}")),
            };
            let slots = ["0-8191", "8192-16383"].get(node).unwrap_or(&"");
            format!("id{node} 10.0.0.{node}:6379@1 {myself}{kind} {primary} 0 0 {node} connected {slots}\n")
        };
        let lines = |own: usize| (0..primaries.len()).map(|node| line(node, own)).collect::<String>();
        (0..primaries.len()).map(|node| facts(node, 7, &lines(node))).collect()
    }

    #[test]
    fn new_nodes_form_pairs_before_they_have_keys() {
        let seen = following(&[None, None, Some(0), Some(1), None, None, None, None]);
        let replicate = |node, primary| Step::Replicate { node, primary };
        for keep_slots in [false, true] {
            let goal = Goal { replicas: 1, keep_slots, ..goal(8, 4) };
            assert_eq!(next(&goal, &seen).steps, [replicate(6, 4), replicate(7, 5)]);
        }
    }

    #[test]
    fn those_that_are_followed_are_the_first_to_own_slots() {
        // The third has lost what it had, and another pair has yet to be given something.
        let seen = following(&[None, None, None, None, Some(3), Some(0)]);
        let goal = Goal { replicas: 1, ..goal(6, 3) };
        assert_eq!(next(&goal, &seen).steps, [Step::Replicate { node: 2, primary: 1 }]);
        let seen = following(&[None, None, Some(1), None, Some(3), Some(0)]);
        let to = |step: &Step| matches!(step, Step::Move { to: 3, .. });
        assert!(next(&goal, &seen).steps.iter().all(to));
    }
}
