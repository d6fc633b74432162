//! Who owns what in a Redis Cluster, from what several of its nodes say.
//!
//! Nodes disagree while one fails over or is cut off. A node that has lost the majority of the primaries says so itself
//! (`cluster_state:fail`) after its node timeout: while others are well, what it says counts for nothing. Of several claims
//! to a slot that with the highest configuration epoch holds, as it does in the cluster.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::ReadFrom;
use super::view::{Node, SLOTS};
use crate::source::Listing;
use crate::{Address, Shard};

/// Nodes that answer in at most this much more than the nearest are as near.
const NEAR: Duration = Duration::from_micros(200);

/// What one node says.
#[derive(Clone, Debug)]
pub struct View {
    /// Where it was asked.
    pub asked: Address,
    /// It reaches the majority of the primaries.
    pub is_well: bool,
    /// All nodes it knows.
    pub nodes: Vec<Node>,
    /// Where it says that clients reach each node, by the node's id: `CLUSTER SLOTS`.
    pub endpoints: HashMap<String, Address>,
}

/// One node that clients can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// 40 hexadecimal digits.
    pub id: String,
    /// Where it is.
    pub address: Address,
    /// Of its claim to slots.
    pub epoch: u64,
    /// Index of the primary whose slots it has as well, if it is a replica.
    pub replica_of: Option<usize>,
    /// Ranges of slots it owns, both ends included.
    pub slots: Vec<(u16, u16)>,
}

/// Who owns what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// Those that own slots in the order of these, then their replicas in the order of their addresses.
    pub members: Vec<Member>,
    /// For each slot the member that owns it.
    pub owners: Vec<Option<usize>>,
}

impl Member {
    /// How many slots it owns.
    pub fn slot_count(&self) -> usize {
        self.slots.iter().map(|(first, last)| usize::from(last - first) + 1).sum()
    }
}

impl Map {
    /// From all that is said; nothing if nobody knows of an owner.
    pub fn of(views: &[View]) -> Self {
        let well: Vec<&View> = views.iter().filter(|view| view.is_well).collect();
        let views = if well.is_empty() { views.iter().collect() } else { well };
        let claims = claims(&views);
        let mut first_slot: BTreeMap<&str, u16> = BTreeMap::new();
        let mut epochs: HashMap<&str, u64> = HashMap::new();
        for (slot, &claim) in claims.iter().enumerate() {
            if let Some((id, epoch)) = claim {
                first_slot.entry(id).or_insert(slot as u16);
                epochs.insert(id, epoch);
            }
        }
        let mut primaries: Vec<(&str, Address)> =
            first_slot.keys().filter_map(|&id| Some((id, endpoint(&views, id)?))).collect();
        primaries.sort_by_key(|(id, _)| first_slot[id]);
        // An address is one node's.
        let mut seen = Vec::new();
        primaries.retain(|(_, address)| {
            !seen.contains(address) && {
                seen.push(address.clone());
                true
            }
        });
        let index_of = |id: &str| primaries.iter().position(|(known, _)| *known == id);
        let owners: Vec<Option<usize>> =
            claims.iter().map(|claim| claim.and_then(|(id, _)| index_of(id))).collect();
        let mut members: Vec<Member> = primaries
            .iter()
            .enumerate()
            .map(|(index, (id, address))| Member {
                id: (*id).to_owned(),
                address: address.clone(),
                epoch: epochs[id],
                replica_of: None,
                slots: ranges(owners.iter().map(|owner| *owner == Some(index))),
            })
            .collect();
        let mut replicas: BTreeMap<String, Member> = BTreeMap::new();
        for node in views.iter().flat_map(|view| &view.nodes) {
            let usable = !node.primary && !node.failed && !node.no_address && !node.handshake;
            let Some(primary) = node.replica_of.as_deref().and_then(index_of).filter(|_| usable) else {
                continue;
            };
            let Some(address) = endpoint(&views, &node.id).filter(|address| !seen.contains(address)) else {
                continue;
            };
            let replica = Member {
                id: node.id.clone(),
                epoch: node.epoch,
                replica_of: Some(primary),
                slots: Vec::new(),
                address,
            };
            match replicas.get(&replica.address.to_string()) {
                Some(known) if known.epoch >= replica.epoch => {}
                _ => {
                    replicas.insert(replica.address.to_string(), replica);
                }
            }
        }
        members.extend(replicas.into_values());
        Self { members, owners }
    }

    /// The nodes as shards of a pool, called by their addresses. Nobody but owners answers reads.
    pub fn listing(&self) -> Listing {
        let shard = |member: &Member| Shard::new(member.address.clone(), 1, Some(member.address.to_string()));
        let nobody = || vec![None; usize::from(SLOTS)];
        Listing {
            servers: self.members.iter().map(shard).collect(),
            owners: Some(if self.owners.is_empty() { nobody() } else { self.owners.clone() }),
            ..Listing::default()
        }
    }

    /// For each member who answers its reads. `nearness` says of members how long they take to answer, where that counts.
    pub fn readers(&self, read_from: ReadFrom, nearness: &HashMap<usize, Duration>) -> Vec<Vec<usize>> {
        let of_member = |index: usize| match read_from {
            ReadFrom::Primary => Vec::new(),
            ReadFrom::PreferReplica => self.replicas(index),
            ReadFrom::Nearest => {
                let mut candidates = self.replicas(index);
                candidates.push(index);
                let best = candidates.iter().filter_map(|candidate| nearness.get(candidate)).min().copied();
                let is_near = |candidate: &usize| match (nearness.get(candidate), best) {
                    (Some(time), Some(best)) => *time <= best + NEAR,
                    _ => false,
                };
                candidates.retain(is_near);
                candidates
            }
        };
        (0..self.members.len()).map(of_member).collect()
    }

    /// The replicas of a primary.
    pub fn replicas(&self, primary: usize) -> Vec<usize> {
        (0..self.members.len()).filter(|&index| self.members[index].replica_of == Some(primary)).collect()
    }

    /// Slots that somebody owns.
    pub fn covered(&self) -> usize {
        self.owners.iter().flatten().count()
    }
}

/// For each slot the id of its owner and the epoch of the claim.
pub fn claims<'v>(views: &[&'v View]) -> Vec<Option<(&'v str, u64)>> {
    let mut claims: Vec<Option<(&str, u64)>> = vec![None; usize::from(SLOTS)];
    for node in views.iter().flat_map(|view| &view.nodes) {
        for slot in node.each_slot() {
            let claim = &mut claims[usize::from(slot)];
            if claim.is_none_or(|(_, epoch)| epoch < node.epoch) {
                *claim = Some((&node.id, node.epoch));
            }
        }
    }
    claims
}

/// Where clients reach a node: as it says itself, as others say, or as the bus reaches it.
fn endpoint(views: &[&View], id: &str) -> Option<Address> {
    let is_own = |view: &&&View| view.nodes.iter().any(|node| node.myself && node.id == id);
    if let Some(own) = views.iter().find(is_own) {
        // It may not know where it is; it was reached there.
        return Some(own.endpoints.get(id).unwrap_or(&own.asked).clone());
    }
    if let Some(told) = views.iter().find_map(|view| view.endpoints.get(id)) {
        return Some(told.clone());
    }
    let nodes = views.iter().flat_map(|view| &view.nodes);
    let node = nodes
        .filter(|node| node.id == id && !node.no_address && !node.ip.is_empty() && node.port > 0)
        .max_by_key(|node| node.linked)?;
    Some(Address::Tcp { host: node.ip.clone(), port: node.port })
}

/// Ranges of what is set, both ends included.
pub fn ranges(set: impl Iterator<Item = bool>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for slot in (0u16..).zip(set).filter(|(_, set)| *set).map(|(slot, _)| slot) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == slot => *last = slot,
            _ => ranges.push((slot, slot)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::super::view::nodes;
    use super::*;

    fn view(asked: &str, is_well: bool, lines: &str) -> View {
        let (host, port) = asked.rsplit_once(':').unwrap();
        let asked = Address::Tcp { host: host.into(), port: port.parse().unwrap() };
        View { asked, is_well, nodes: nodes(lines).unwrap(), endpoints: HashMap::new() }
    }

    fn owner(map: &Map, slot: usize) -> Option<String> {
        map.owners[slot].map(|owner| map.members[owner].address.to_string())
    }

    const BEFORE: &str = "\
        aaa 10.0.0.1:6379@1 myself,master - 0 0 1 connected 0-8191\n\
        bbb 10.0.0.2:6379@1 master - 0 0 2 connected 8192-16383\n\
        ccc 10.0.0.3:6379@1 slave aaa 0 0 1 connected\n";
    const AFTER: &str = "\
        aaa 10.0.0.1:6379@1 master,fail - 0 0 1 disconnected\n\
        bbb 10.0.0.2:6379@1 myself,master - 0 0 2 connected 8192-16383\n\
        ccc 10.0.0.3:6379@1 master - 0 0 3 connected 0-8191\n";

    #[test]
    fn owners_come_first_and_then_replicas() {
        let map = Map::of(&[view("10.0.0.1:6379", true, BEFORE)]);
        let shown: Vec<_> =
            map.members.iter().map(|member| (member.id.as_str(), member.replica_of)).collect();
        assert_eq!(shown, [("aaa", None), ("bbb", None), ("ccc", Some(0))]);
        assert_eq!(map.members[1].slots, [(8192, 16383)]);
        assert_eq!((map.covered(), map.replicas(0), map.replicas(1)), (16384, vec![2], vec![]));
    }

    #[test]
    fn reads_go_where_they_are_to_go() {
        let map = Map::of(&[view("10.0.0.1:6379", true, BEFORE)]);
        let nearness = |times: &[(usize, u64)]| {
            times.iter().map(|&(member, micros)| (member, Duration::from_micros(micros))).collect()
        };
        let none = HashMap::new();
        assert_eq!(map.readers(ReadFrom::Primary, &none), vec![vec![0; 0]; 3]);
        assert_eq!(map.readers(ReadFrom::PreferReplica, &none), [vec![2], vec![], vec![]]);
        let nearest = |times| map.readers(ReadFrom::Nearest, &nearness(times));
        assert_eq!(nearest(&[(0, 900), (1, 900), (2, 800)])[0], [2, 0]);
        assert_eq!(nearest(&[(0, 100), (1, 900), (2, 800)])[..2], [vec![0], vec![1]]);
        // Of those that did not answer nothing is known.
        assert_eq!(nearest(&[(2, 800)])[..2], [vec![2], vec![]]);
    }

    #[test]
    fn a_map_is_a_listing_of_nodes_and_slots() {
        let map = Map::of(&[view("10.0.0.1:6379", true, BEFORE)]);
        let listing = map.listing();
        assert_eq!(listing.servers[2].name, "10.0.0.3:6379");
        assert_eq!(listing.owners.unwrap()[8192], Some(1));
        let unknown = Map::default().listing();
        assert!(unknown.servers.is_empty());
        assert_eq!(unknown.owners, Some(vec![None; 16_384]));
    }

    #[test]
    fn the_highest_epoch_holds() {
        let views = [view("10.0.0.1:6379", true, BEFORE), view("10.0.0.2:6379", true, AFTER)];
        for views in [views.clone(), [views[1].clone(), views[0].clone()]] {
            assert_eq!(owner(&Map::of(&views), 0).as_deref(), Some("10.0.0.3:6379"));
        }
    }

    #[test]
    fn a_node_that_is_cut_off_counts_for_nothing_while_others_are_well() {
        // It was made the owner of everything behind the others' backs.
        let cut_off = "aaa 10.0.0.1:6379@1 myself,master - 0 0 9 connected 0-16383\n";
        let views = [view("10.0.0.1:6379", false, cut_off), view("10.0.0.2:6379", true, AFTER)];
        let map = Map::of(&views);
        assert_eq!(owner(&map, 0).as_deref(), Some("10.0.0.3:6379"));
        assert_eq!(owner(&map, 9000).as_deref(), Some("10.0.0.2:6379"));
        // Better than nothing.
        assert_eq!(owner(&Map::of(&views[..1]), 0).as_deref(), Some("10.0.0.1:6379"));
        assert_eq!(Map::of(&[]).covered(), 0);
    }

    #[test]
    fn a_node_that_does_not_know_its_address_is_where_it_was_asked() {
        let map =
            Map::of(&[view("10.0.0.7:7000", true, "aaa :6379@1 myself,master - 0 0 1 connected 0-16383\n")]);
        assert_eq!(owner(&map, 5).as_deref(), Some("10.0.0.7:7000"));
    }
}
