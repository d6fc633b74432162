//! What is to be done next to a Redis Cluster, from what its nodes say and how it is meant to be.
//!
//! Nothing is remembered between two rounds: whatever was half done when the last one ended is seen and finished, so every
//! step may be the last. Steps of a later kind come only when those before have been done and all nodes agree. What could
//! lose data is not done but told.
//!
//! A node that leaves still has what it had as a replica, in its append-only file or in the dump that its primary sent: started
//! with that, it would claim the slots of its keys. So it is emptied on disk as well, and what may be interrupted there decides the order:
//!
//! 1. The others forget it. Whatever it claims later, they do not listen: its epoch may be higher than that of who owns the slots.
//! 2. It is reset, which a node refuses that owns keys, then told FLUSHALL and SAVE ([`orders`](super::orders)).
//! 3. Nothing of a node that is alone shows whether that was the end, so a run that drains repeats it before it says that all is
//!    well, and whoever takes it back into the cluster repeats it before they meet.
//! 4. One that was started again in between owns what it has, and is a cluster of its own. It could be somebody's only store, so
//!    only `--merge` empties it, and only while each of its slots has an owner here that answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::step::{Advice, Goal, NodeFacts, Step, parts};
use shard_discovery::source::cluster::map::{View, claims, ranges};
use shard_discovery::source::cluster::view::{Node, SLOTS};

/// Slots that one step moves, so that what is planned keeps up with what happens.
const MOVED_MAX: usize = 1024;
/// Nodes that are told where another one is in one round.
const MEETINGS_MAX: usize = 50;
/// Nodes may own so many slots more or less than their share, one part of so many.
const UNEVEN_PART: usize = 50;

/// What is to be done next. `seen` has every node of the goal, or why it could not be asked.
pub fn next(goal: &Goal, seen: &[Result<NodeFacts, String>]) -> Advice {
    let mut advice = Advice::default();
    for (node, reason) in
        seen.iter().enumerate().filter_map(|(node, seen)| Some((node, seen.as_ref().err()?)))
    {
        advice.findings.push(format!("node {node} ({}) is unreachable: {reason}", goal.nodes[node]));
    }
    let Some(cluster) = Observed::new(goal, seen, &mut advice) else { return advice };
    let phases: [fn(&Observed<'_>, &mut Advice); 11] = [
        |cluster, advice| cluster.merge(advice),
        |cluster, advice| cluster.form(advice),
        |cluster, advice| cluster.forget(advice),
        |cluster, advice| cluster.meet(advice),
        |cluster, advice| cluster.finish_moves(advice),
        |cluster, advice| cluster.agree(advice),
        |cluster, advice| cluster.assign(advice),
        |cluster, advice| cluster.assign_roles(advice),
        |cluster, advice| cluster.balance(advice),
        |cluster, advice| cluster.leave(advice),
        |cluster, advice| cluster.serve(advice),
    ];
    for phase in phases {
        phase(&cluster, &mut advice);
        if cluster.waits.get() {
            // What is on its way may make them wrong.
            advice.steps.clear();
        }
        if !advice.steps.is_empty() || !advice.blocked.is_empty() || cluster.waits.get() {
            return advice;
        }
    }
    advice.is_healthy = advice.findings.is_empty();
    advice
}

/// What all phases look at.
pub(super) struct Observed<'s> {
    pub(super) goal: &'s Goal,
    /// Those that could be asked, by ordinal.
    pub(super) nodes: BTreeMap<usize, &'s NodeFacts>,
    pub(super) ordinals: HashMap<&'s str, usize>,
    /// The part of them that is the cluster; others are alone.
    pub(super) main: BTreeSet<usize>,
    /// Other parts that own slots.
    rivals: Vec<BTreeSet<usize>>,
    /// For each slot the id of its owner.
    pub(super) owners: Vec<Option<&'s str>>,
    /// Nodes need time to tell each other.
    pub(super) waits: std::cell::Cell<bool>,
}

impl<'s> Observed<'s> {
    fn new(goal: &'s Goal, seen: &'s [Result<NodeFacts, String>], advice: &mut Advice) -> Option<Self> {
        let nodes: BTreeMap<usize, &NodeFacts> =
            seen.iter().enumerate().filter_map(|(node, seen)| Some((node, seen.as_ref().ok()?))).collect();
        if nodes.is_empty() {
            advice.blocked.push("no node is reachable".into());
            return None;
        }
        let mut ordinals = HashMap::new();
        for (&node, facts) in &nodes {
            if let Some(other) = ordinals.insert(facts.id(), node) {
                advice.blocked.push(format!(
                    "{} and {} resolve to the same server; give each node its own name",
                    goal.nodes[other], goal.nodes[node]
                ));
                return None;
            }
        }
        let parts = parts(&nodes);
        let slots = |part: &BTreeSet<usize>| {
            let of_node = |node: &usize| nodes[node].own().map_or(0, |own| own.each_slot().count());
            part.iter().map(of_node).sum::<usize>()
        };
        let main = parts
            .iter()
            .max_by_key(|part| (slots(part), part.len(), std::cmp::Reverse(part.first().copied())))?
            .clone();
        let rivals = parts.into_iter().filter(|part| *part != main && slots(part) > 0).collect();
        let views: Vec<&View> = main.iter().map(|node| &nodes[node].view).collect();
        let well: Vec<&View> = views.iter().copied().filter(|view| view.is_well).collect();
        let owners = claims(if well.is_empty() { &views } else { &well });
        let owners = owners.into_iter().map(|claim| claim.map(|(id, _)| id)).collect();
        Some(Self { goal, nodes, ordinals, main, rivals, owners, waits: std::cell::Cell::new(false) })
    }

    pub(super) fn all_seen(&self) -> bool {
        self.nodes.len() == self.goal.nodes.len()
    }

    pub(super) fn stays(&self, node: usize) -> bool {
        self.goal.drain_from.is_none_or(|first| node < first)
    }

    /// Whether it is to leave and has nothing any more: others may have forgotten it already.
    fn is_done_with(&self, node: usize) -> bool {
        !self.stays(node) && !self.owning().contains(&node)
    }

    /// Whether it has left this cluster, or another one.
    fn has_left(&self, facts: &NodeFacts) -> bool {
        facts.has_left() && self.owners.iter().any(Option::is_some)
    }

    fn slots_of(&self, node: usize) -> Vec<u16> {
        let id = self.nodes[&node].id();
        (0..SLOTS).filter(|&slot| self.owners[usize::from(slot)] == Some(id)).collect()
    }

    /// Nodes of the cluster that own slots.
    pub(super) fn owning(&self) -> Vec<usize> {
        let ids: BTreeSet<&str> = self.owners.iter().flatten().copied().collect();
        self.main.iter().copied().filter(|node| ids.contains(self.nodes[node].id())).collect()
    }

    /// Nodes of the cluster that stay, own nothing and replicate nobody.
    pub(super) fn empty(&self) -> Vec<usize> {
        let owning = self.owning();
        let is_empty = |node: &usize| {
            self.stays(*node)
                && !owning.contains(node)
                && self.nodes[node].own().is_some_and(|own| own.primary)
        };
        self.main.iter().copied().filter(is_empty).collect()
    }

    /// How many own slots and are to stay, those included that cannot be asked.
    pub(super) fn staying_owners(&self) -> usize {
        let ids: BTreeSet<&str> = self.owners.iter().flatten().copied().collect();
        ids.into_iter().filter(|id| !self.is_leaving(id)).count()
    }

    /// The primary that a node is by now, or follows.
    fn primary_of(&self, id: &str) -> Option<usize> {
        let node = *self.ordinals.get(id)?;
        let own = self.nodes[&node].own()?;
        match &own.replica_of {
            None => Some(node),
            Some(primary) => self.ordinals.get(&**primary).copied(),
        }
    }

    fn missing(&self) -> Vec<u16> {
        (0..SLOTS).filter(|&slot| self.owners[usize::from(slot)].is_none()).collect()
    }

    fn keys(&self) -> u64 {
        self.nodes.values().map(|facts| facts.keys).sum()
    }

    /// Two clusters that own slots are joined only if somebody wants that. Slots that both own stay with this one.
    fn merge(&self, advice: &mut Advice) {
        for rival in &self.rivals {
            let main = &self.main;
            // By somebody who answers: a node that lost its configuration may have the only keys there are.
            let is_owned = |slot: u16| {
                let owner = self.owners[usize::from(slot)].and_then(|id| self.ordinals.get(id));
                owner.is_some_and(|owner| main.contains(owner))
            };
            let mut own = rival.iter().filter_map(|node| self.nodes[node].own());
            let is_superfluous = own.all(|own| own.each_slot().all(is_owned));
            if !self.goal.merge {
                advice.blocked.push(if is_superfluous {
                    format!(
                        "nodes {main:?} and nodes {rival:?} are two clusters that both own slots, and all slots of nodes {rival:?} \
                         are owned by nodes {main:?} too; if nodes {rival:?} have left that cluster, and were started again with \
                         keys from before, or if their keys are not needed: to empty nodes {rival:?}, use --merge"
                    )
                } else {
                    format!(
                        "nodes {main:?} and nodes {rival:?} are two clusters that both own slots; to join them, which loses the \
                         keys of one of them, use --merge"
                    )
                });
            } else if is_superfluous {
                advice.findings.push(format!("nodes {rival:?} own slots that nodes {main:?} own too"));
                if self.all_seen() {
                    advice.steps.extend(rival.iter().map(|&node| Step::Discard { node }));
                } else {
                    self.waits.set(true);
                }
            }
        }
    }

    /// Nodes that know nobody and nothing get epochs of their own, and wait for each other.
    fn form(&self, advice: &mut Advice) {
        if self.owners.iter().any(Option::is_some) {
            return;
        }
        if !self.all_seen() {
            advice.blocked.push("a new cluster is created once all of its nodes are reachable".into());
            return;
        }
        for (&node, facts) in &self.nodes {
            let is_new = facts.view.nodes.len() == 1 && facts.own().is_some_and(|own| own.epoch == 0);
            if is_new && self.main.len() == 1 {
                advice.steps.push(Step::SetEpoch { node, epoch: node as u64 + 1 });
            }
        }
    }

    /// Nodes that are no more: those whose place another one has taken, and where all are there whoever else has failed.
    fn forget(&self, advice: &mut Advice) {
        let mut gone: BTreeMap<&str, &Node> = BTreeMap::new();
        for &node in &self.main {
            for other in &self.nodes[&node].view.nodes {
                let is_lost = other.failed || other.no_address || !other.linked;
                let is_replaced = self
                    .nodes
                    .values()
                    .any(|facts| facts.id() != other.id && facts.ip == other.ip && facts.port == other.port);
                let is_unknown = !self.ordinals.contains_key(&*other.id) && !other.handshake;
                if is_unknown && is_lost && (is_replaced || self.all_seen()) {
                    gone.insert(&other.id, other);
                }
            }
        }
        for (id, other) in gone {
            let slots = self.owners.iter().filter(|owner| **owner == Some(id)).count();
            let is_certain = other.failed || other.no_address;
            if slots > 0 && !(self.goal.assign_missing && is_certain) {
                advice.findings.push(format!("{id} ({}:{}) is gone", other.ip, other.port));
                let follows = |node: &&usize| {
                    self.nodes[*node].own().is_some_and(|own| own.replica_of.as_deref() == Some(id))
                };
                if let Some(&node) = self.main.iter().find(follows) {
                    if other.no_address && !other.failed {
                        // Nodes do not judge who has no address, so nobody would ever take its place.
                        advice.steps.push(Step::TakeOver { node });
                    } else {
                        self.waits.set(true);
                    }
                } else {
                    advice.blocked.push(format!(
                        "{slots} slots belonged to it and no replica has them; to assign them without their keys, use \
                         --fix-missing-slots"
                    ));
                }
                continue;
            }
            advice.findings.push(format!("{id} ({}:{}) is gone", other.ip, other.port));
            for &node in &self.main {
                let facts = self.nodes[&node];
                let follows = facts.own().is_some_and(|own| own.replica_of.as_deref() == Some(id));
                if facts.knows(id).is_some() && !follows {
                    advice.steps.push(Step::Forget { node, id: id.to_owned() });
                }
            }
        }
    }

    /// Who is not linked is told where the others are.
    fn meet(&self, advice: &mut Advice) {
        let owning = self.owning();
        let Some(&hub) = owning.first().or(self.main.first()) else { return };
        let hub_facts = self.nodes[&hub];
        for (&node, facts) in &self.nodes {
            // Another run has made it leave, which is not for one that only heals to undo.
            let was_sent_away = self.goal.keep_slots && self.has_left(facts);
            if node == hub || self.is_done_with(node) || was_sent_away {
                continue;
            }
            if !hub_facts.reaches(facts.id()) || !facts.reaches(hub_facts.id()) {
                advice.findings.push(format!("node {node} and node {hub} are not linked"));
                advice.steps.push(if self.has_left(facts) {
                    Step::Rejoin { node, other: hub }
                } else {
                    Step::Meet { node: hub, other: node }
                });
            }
        }
    }

    /// Slots that were on their way when somebody was interrupted. Keys of such a slot may be on both nodes, so it is not
    /// settled before that is known.
    fn finish_moves(&self, advice: &mut Advice) {
        let mut moves: BTreeMap<u16, (usize, usize)> = BTreeMap::new();
        let mut settled = Vec::new();
        for &node in &self.main {
            let Some(own) = self.nodes[&node].own() else { continue };
            if !own.primary {
                continue;
            }
            let open = own.migrating.iter().map(|(slot, to)| (*slot, &**to));
            for (slot, peer) in open.chain(own.importing.iter().map(|(slot, from)| (*slot, &**from))) {
                let Some(owner) = self.owners[usize::from(slot)] else { continue };
                let Some(&from) = self.ordinals.get(owner) else {
                    advice.findings.push(format!("slot {slot} is migrating, and its owner is unreachable"));
                    self.waits.set(true);
                    continue;
                };
                let is_source = own.migrating.contains_key(&slot);
                let to = if from != node {
                    (!is_source).then_some(node)
                } else if is_source {
                    self.primary_of(peer)
                } else {
                    None
                };
                match to.or_else(|| self.holder(slot, from)).filter(|&to| to != from) {
                    Some(to) => {
                        moves.entry(slot).or_insert((from, to));
                    }
                    None if self.all_seen() => settled.push(Step::Settle { node, slot }),
                    None => {
                        advice
                            .findings
                            .push(format!("slot {slot} is migrating to a node that is unreachable"));
                        self.waits.set(true);
                    }
                }
            }
        }
        for (slot, (from, to)) in moves {
            advice.findings.push(format!("slot {slot} is migrating from node {from} to node {to}"));
            advice.steps.push(Step::Move { from, to, slots: vec![slot] });
            settled.retain(|step| !matches!(step, Step::Settle { slot: other, .. } if *other == slot));
        }
        advice.steps.extend(settled);
    }

    /// The primary that has keys of a slot and does not own it.
    fn holder(&self, slot: u16, owner: usize) -> Option<usize> {
        let holds = |node: &usize| {
            *node != owner
                && self.nodes[node].own().is_some_and(|own| own.primary)
                && self.nodes[node].open_slots.get(&slot).is_some_and(|keys| *keys > 0)
        };
        self.main.iter().copied().find(holds)
    }

    /// Everybody has to know everybody, and the same owners.
    fn agree(&self, advice: &mut Advice) {
        let mut strangers = Vec::new();
        for &node in &self.main {
            let facts = self.nodes[&node];
            if self.is_done_with(node) {
                continue;
            }
            let is_unknown = |other: &&usize| {
                **other != node && !self.is_done_with(**other) && !facts.reaches(self.nodes[*other].id())
            };
            strangers.extend(self.main.iter().filter(is_unknown).map(|&other| Step::Meet { node, other }));
            let importing = facts.own().map(|own| &own.importing);
            let own = claims(&[&facts.view]);
            let differs = |slot: &usize| {
                // A node does not believe others about a slot that is on its way to it.
                let is_coming = importing.is_some_and(|importing| importing.contains_key(&(*slot as u16)));
                own[*slot].map(|(id, _)| id) != self.owners[*slot] && !is_coming
            };
            let different = (0..usize::from(SLOTS)).filter(differs).count();
            if different > 0 {
                advice.findings.push(format!("node {node} has other owners for {different} slots"));
                self.waits.set(true);
            }
        }
        if !strangers.is_empty() {
            advice.findings.push(format!("{} pairs of nodes are not linked", strangers.len()));
            advice.steps.extend(strangers.into_iter().take(MEETINGS_MAX));
        }
    }

    /// Slots that nobody owns.
    fn assign(&self, advice: &mut Advice) {
        let missing = self.missing();
        if missing.is_empty() {
            return;
        }
        advice.findings.push(format!("{} slots have no owner", missing.len()));
        let is_new = self.all_seen() && self.keys() == 0;
        if !is_new && !self.goal.assign_missing {
            advice.blocked.push(
                "they are not assigned while there are keys, or while a node is missing that may own them; to assign them \
                 anyway, use --fix-missing-slots"
                    .into(),
            );
            return;
        }
        let mut primaries: Vec<usize> = self.owning().into_iter().filter(|&node| self.stays(node)).collect();
        primaries.extend(self.empty());
        primaries.sort_unstable();
        primaries.truncate(self.goal.primaries.max(self.owning().len()));
        let count = primaries.len();
        if count == 0 {
            advice.blocked.push("no node can own slots: all of them are replicas".into());
            return;
        }
        for (place, &node) in primaries.iter().enumerate() {
            let share = |slot: u16| usize::from(slot) * count / usize::from(SLOTS) == place;
            let mine: BTreeSet<u16> = missing.iter().copied().filter(|&slot| share(slot)).collect();
            if !mine.is_empty() {
                let slots = ranges((0..SLOTS).map(|slot| mine.contains(&slot)));
                advice.steps.push(Step::AddSlots { node, slots });
            }
        }
    }

    /// Slots from those that have too many, or leave, to those that have too few.
    fn balance(&self, advice: &mut Advice) {
        if self.goal.keep_slots {
            return;
        }
        if self.owners.iter().flatten().any(|id| !self.ordinals.contains_key(id)) {
            // Who cannot be asked can be given nothing, and may be about to be replaced.
            self.waits.set(true);
            return;
        }
        let mut targets: Vec<usize> = self.owning().into_iter().filter(|&node| self.stays(node)).collect();
        let lacking = self.goal.primaries.saturating_sub(targets.len());
        targets.extend(self.new_owners(lacking));
        targets.sort_unstable();
        let mut leaving: Vec<usize> = self.owning().into_iter().filter(|&node| !self.stays(node)).collect();
        // More own slots than are meant to: those with the highest ordinals become replicas.
        leaving.extend(targets.drain(self.goal.primaries.min(targets.len())..));
        if targets.is_empty() {
            if !leaving.is_empty() {
                advice.blocked.push("no node is left to take the slots of the nodes to be removed".into());
            }
            return;
        }
        let share = |place: usize| {
            let all = usize::from(SLOTS);
            all * (place + 1) / targets.len() - all * place / targets.len()
        };
        let mut slots: BTreeMap<usize, Vec<u16>> =
            targets.iter().chain(&leaving).map(|&node| (node, self.slots_of(node))).collect();
        let allowed = usize::from(SLOTS) / targets.len() / UNEVEN_PART;
        let is_uneven = targets.iter().enumerate().any(|(place, node)| {
            slots[node].is_empty() || slots[node].len().abs_diff(share(place)) > allowed
        });
        if leaving.is_empty() && !is_uneven {
            return;
        }
        let mut wanting: Vec<(usize, usize)> = targets
            .iter()
            .enumerate()
            .map(|(place, node)| (*node, share(place).saturating_sub(slots[node].len())))
            .filter(|(_, wanted)| *wanted > 0)
            .collect();
        for (place, &node) in targets.iter().enumerate() {
            let surplus = slots[&node].len().saturating_sub(share(place));
            let keep = slots[&node].len() - surplus;
            slots.entry(node).and_modify(|all| drop(all.drain(..keep)));
        }
        advice.findings.push(if leaving.is_empty() {
            "slots are not distributed evenly".to_owned()
        } else {
            format!("nodes {leaving:?} own slots and should not")
        });
        let mut room = MOVED_MAX;
        for (&from, surplus) in &mut slots {
            while room > 0
                && !surplus.is_empty()
                && let Some((to, wanted)) = wanting.iter_mut().find(|(_, wanted)| *wanted > 0)
            {
                let count = surplus.len().min(*wanted).min(room);
                *wanted -= count;
                room -= count;
                let moved = surplus.drain(..count).collect();
                advice.steps.push(Step::Move { from, to: *to, slots: moved });
            }
        }
    }

    /// Nodes may need a moment until they serve what they own.
    fn serve(&self, advice: &mut Advice) {
        for &node in self.main.iter().filter(|node| !self.nodes[node].view.is_well) {
            advice.findings.push(format!("node {node} reports that the cluster is down"));
            self.waits.set(true);
        }
    }

    /// Nodes that are to leave and own nothing any more. As long as they are in the cluster they tell clients who owns what.
    fn leave(&self, advice: &mut Advice) {
        let mut has_begun = false;
        for &node in self.main.iter().filter(|&&node| !self.stays(node)) {
            advice.findings.push(format!("node {node} is to be removed"));
            has_begun |= self.send_away(node, advice);
        }
        advice.is_for_later = !advice.steps.is_empty() && !has_begun;
        let strangers: BTreeMap<&str, &Node> = self
            .main
            .iter()
            .flat_map(|node| &self.nodes[node].view.nodes)
            .filter(|node| !self.ordinals.contains_key(&*node.id) && node.linked && self.all_seen())
            .map(|node| (&*node.id, node))
            .collect();
        for (id, node) in strangers {
            advice.findings.push(format!(
                "{id} ({}:{}) is in the cluster but not among the expected nodes",
                node.ip, node.port
            ));
        }
    }

    /// Those that stay forget a node, then it leaves. Returns whether some have forgotten it before.
    pub(super) fn send_away(&self, node: usize, advice: &mut Advice) -> bool {
        let id = self.nodes[&node].id();
        let others = self.main.iter().copied().filter(|&other| other != node && self.stays(other));
        let (knowing, others): (Vec<usize>, Vec<usize>) =
            others.partition(|other| self.nodes[other].knows(id).is_some());
        advice.steps.extend(knowing.into_iter().map(|node| Step::Forget { node, id: id.to_owned() }));
        advice.steps.push(Step::Reset { node });
        !others.is_empty()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use shard_discovery::Address;

    use super::*;
    use shard_discovery::source::cluster::view::nodes;

    pub fn goal(count: usize, primaries: usize) -> Goal {
        Goal {
            nodes: (0..count).map(|node| format!("n{node}:6379")).collect(),
            primaries,
            replicas: 0,
            drain_from: None,
            keep_slots: false,
            assign_missing: false,
            merge: false,
        }
    }

    /// A node that says these lines.
    pub fn facts(node: usize, keys: u64, lines: &str) -> Result<NodeFacts, String> {
        let ip = format!("10.0.0.{node}");
        let asked = Address::Tcp { host: ip.clone(), port: 6379 };
        let nodes = nodes(lines).unwrap();
        let view = View { asked, is_well: true, nodes, endpoints: HashMap::new() };
        let epoch = view.nodes.iter().map(|node| node.epoch).max().unwrap_or(0);
        Ok(NodeFacts { ip, port: 6379, view, keys, epoch, looks_at: None, open_slots: BTreeMap::new() })
    }

    /// A cluster of primaries with these slots, as each of them says it.
    fn cluster(slots: &[&str], keys: u64) -> Vec<Result<NodeFacts, String>> {
        let line = |node: usize, me: bool| {
            let myself = if me { "myself," } else { "" };
            let epoch = node + 1;
            format!("id{node} 10.0.0.{node}:6379@1 {myself}master - 0 0 {epoch} connected {}\n", slots[node])
        };
        let lines = |own: usize| (0..slots.len()).map(|node| line(node, node == own)).collect::<String>();
        (0..slots.len()).map(|node| facts(node, keys, &lines(node))).collect()
    }

    fn alone(node: usize) -> Result<NodeFacts, String> {
        facts(node, 0, &format!("id{node} :6379@1 myself,master - 0 0 0 connected\n"))
    }

    #[test]
    fn new_nodes_get_epochs_and_then_meet() {
        let advice = next(&goal(3, 3), &[alone(0), alone(1), alone(2)]);
        assert_eq!(advice.steps[2], Step::SetEpoch { node: 2, epoch: 3 });
        let waiting = next(&goal(3, 3), &[alone(0), alone(1), Err("refused".into())]);
        assert!(waiting.steps.is_empty() && waiting.blocked[0].contains("all of its nodes"), "{waiting:?}");
    }

    #[test]
    fn what_is_as_it_is_meant_to_be_is_left_alone() {
        let seen = cluster(&["0-5460", "5461-10921", "10922-16383"], 7);
        assert_eq!(next(&goal(3, 3), &seen), Advice { is_healthy: true, ..Advice::default() });
    }

    #[test]
    fn slots_without_an_owner_are_given_away_only_where_that_loses_nothing() {
        let slots = ["0-5460", "", "10922-16383"];
        let empty = next(&goal(3, 3), &cluster(&slots, 0));
        assert!(matches!(&empty.steps[..], [Step::AddSlots { .. }, ..]), "{empty:?}");
        let used = next(&goal(3, 3), &cluster(&slots, 1));
        assert!(used.steps.is_empty() && used.blocked[0].contains("--fix-missing-slots"), "{used:?}");
        let told = next(&Goal { assign_missing: true, ..goal(3, 3) }, &cluster(&slots, 1));
        assert!(!told.steps.is_empty());
    }

    #[test]
    fn a_node_that_leaves_gives_its_slots_to_the_others_first() {
        let goal = Goal { drain_from: Some(2), ..goal(3, 2) };
        let advice = next(&goal, &cluster(&["0-5460", "5461-10921", "10922-16383"], 7));
        let from: BTreeSet<usize> = advice
            .steps
            .iter()
            .map(|step| match step {
                Step::Move { from, to, .. } if *to < 2 => *from,
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(from, BTreeSet::from([2]));
        let advice = next(&goal, &cluster(&["0-8191", "8192-16383", ""], 7));
        let forget = |node| Step::Forget { node, id: "id2".into() };
        assert_eq!(advice.steps, [forget(0), forget(1), Step::Reset { node: 2 }]);
        assert!(advice.is_for_later, "clients may believe that it owns slots");
        // What was begun is finished.
        let mut begun = cluster(&["0-8191", "8192-16383", ""], 7);
        begun[0].as_mut().expect("it is there").view.nodes.truncate(2);
        let advice = next(&goal, &begun);
        assert_eq!(
            (&advice.steps[..], advice.is_for_later),
            (&[forget(1), Step::Reset { node: 2 }][..], false)
        );
    }

    /// Three primaries with a replica each; the first primary cannot be asked.
    fn without_the_first(extra: &str) -> Vec<Result<NodeFacts, String>> {
        let slots = ["0-5460", "5461-10921", "10922-16383"];
        let line = |node: usize, own: usize| {
            let (myself, epoch) = (if node == own { "myself," } else { "" }, node % 3 + 1);
            let (kind, primary) =
                if node < 3 { ("master", "-".to_owned()) } else { ("slave", format!("id{}", node - 3)) };
            let slots = slots.get(node).copied().unwrap_or_default();
            let extra = if node == own && node == 1 { extra } else { "" };
            format!(
                "id{node} 10.0.0.{node}:6379@1 {myself}{kind} {primary} 0 0 {epoch} connected {slots}{extra}\n"
            )
        };
        let lines = |own: usize| (0..6).map(|node| line(node, own)).collect::<String>();
        let mut seen: Vec<_> = (0..6).map(|node| facts(node, 7, &lines(node))).collect();
        seen[0] = Err("connection refused".into());
        seen
    }

    #[test]
    fn nobody_is_emptied_for_a_primary_that_cannot_be_asked() {
        let advice = next(&Goal { replicas: 1, ..goal(6, 3) }, &without_the_first(""));
        assert!(advice.steps.is_empty() && !advice.is_healthy, "{advice:?}");
    }

    #[test]
    fn a_slot_on_its_way_to_a_node_that_cannot_be_asked_is_left_alone() {
        let advice = next(&goal(6, 3), &without_the_first(" [6000->-id0]"));
        assert!(advice.steps.is_empty() && advice.findings[1].contains("is unreachable"), "{advice:?}");
        // Nor is it where who it goes to is a replica by now: then its primary gets it.
        let advice = next(&goal(6, 3), &without_the_first(" [6000->-id5]"));
        assert_eq!(advice.steps, [Step::Move { from: 1, to: 2, slots: vec![6000] }]);
    }

    #[test]
    fn more_owners_than_wanted_become_fewer() {
        let advice = next(&goal(3, 2), &cluster(&["0-5460", "5461-10921", "10922-16383"], 7));
        assert!(advice.steps.iter().all(|step| matches!(step, Step::Move { from: 2, .. })), "{advice:?}");
        assert!(!advice.steps.is_empty());
    }

    #[test]
    fn two_clusters_are_not_joined() {
        let mut seen = cluster(&["0-8191", "8192-16383"], 7);
        seen.push(facts(2, 7, "id2 10.0.0.2:6379@1 myself,master - 0 0 1 connected 0-16383\n"));
        let advice = next(&goal(3, 3), &seen);
        assert!(advice.steps.is_empty() && advice.blocked[0].contains("--merge"), "{advice:?}");
        let merge = Goal { merge: true, ..goal(3, 3) };
        assert_eq!(next(&merge, &seen).steps, [Step::Discard { node: 2 }]);
        // Nobody is emptied for an owner that does not answer, nor where slots would be left to nobody.
        let silent = [&[Err("refused".into())], &seen[1..]].concat();
        assert_eq!(next(&merge, &silent).steps, []);
        let mut seen = cluster(&["0-8191", "8192-16000"], 7);
        seen.push(facts(2, 7, "id2 10.0.0.2:6379@1 myself,master - 0 0 1 connected 16000-16383\n"));
        assert_eq!(next(&merge, &seen).steps, [Step::Meet { node: 0, other: 2 }]);
    }

    #[test]
    fn a_node_that_has_left_is_emptied_before_it_is_met_again() {
        let mut seen = cluster(&["0-8191", "8192-16383"], 7);
        seen.push(alone(2));
        assert_eq!(next(&goal(3, 3), &seen).steps, [Step::Meet { node: 0, other: 2 }]);
        // It may have left without an epoch of its own.
        seen[2].as_mut().expect("it is there").epoch = 3;
        assert_eq!(next(&goal(3, 3), &seen).steps, [Step::Rejoin { node: 2, other: 0 }]);
        let heals = Goal { keep_slots: true, ..goal(3, 2) };
        assert_eq!(next(&heals, &seen), Advice { is_healthy: true, ..Advice::default() });
    }
}
