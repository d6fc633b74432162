//! Private connections that nobody has: warm, for the next who needs one.

use std::collections::{HashMap, VecDeque};

use super::connection::Link;
use super::connections::{ConnectionId, Connections};
use super::members::MemberIndex;
use crate::protocol::Protocol;

/// The private connections that nobody has.
pub(super) struct Spare<P: Protocol> {
    /// By shard and what is spoken on them, last used last.
    pub lists: HashMap<(MemberIndex, P::Lane), VecDeque<ConnectionId>>,
}

impl<P: Protocol> Default for Spare<P> {
    fn default() -> Self {
        Self { lists: HashMap::new() }
    }
}

impl<P: Protocol> Spare<P> {
    /// One of the shard and lane that nothing is asked about any more: one that is made, or else one that will be.
    pub fn take(
        &mut self,
        member: MemberIndex,
        lane: P::Lane,
        connections: &Connections<P>,
    ) -> Option<ConnectionId> {
        let list = self.lists.get(&(member, lane))?;
        let is_free =
            |&&id: &&ConnectionId| connections[id].private.as_ref().is_some_and(|private| private.asked == 0);
        let is_up = |&&id: &&ConnectionId| matches!(connections[id].link, Link::Up);
        let mut free = list.iter().rev().filter(is_free);
        let id = free.clone().find(is_up).or_else(|| free.next()).copied()?;
        self.remove(member, lane, id);
        Some(id)
    }

    /// One of the shard that is not made yet: what will be spoken on it is open.
    pub fn take_unmade(&mut self, member: MemberIndex, connections: &Connections<P>) -> Option<ConnectionId> {
        let is_unmade = |id: &&ConnectionId| matches!(connections[**id].link, Link::Connecting { .. });
        let mut of_member = self.lists.iter().filter(|((of, _), _)| *of == member);
        let (lane, id) =
            of_member.find_map(|(&(_, lane), list)| list.iter().find(is_unmade).map(|&id| (lane, id)))?;
        self.remove(member, lane, id);
        Some(id)
    }

    /// It is not spare any more.
    pub fn remove(&mut self, member: MemberIndex, lane: P::Lane, id: ConnectionId) {
        if let Some(list) = self.lists.get_mut(&(member, lane)) {
            // Those that have been here for long, and go first, stand first.
            if let Some(place) = list.iter().position(|&other| other == id) {
                list.remove(place);
            }
            if list.is_empty() {
                self.lists.remove(&(member, lane));
            }
        }
    }

    /// One of the shard, whatever is spoken on it.
    pub fn any_of(&self, member: MemberIndex) -> Option<ConnectionId> {
        let mut of_member = self.lists.iter().filter(|((of, _), _)| *of == member);
        of_member.find_map(|(_, list)| list.front().copied())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }
}
