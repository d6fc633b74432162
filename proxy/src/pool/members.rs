//! The members of a pool: its shards while the list of shards changes, and how they fare.
//!
//! A shard has a place of its own here, its member, that stays what it is while the list changes around it: only the way
//! from the topology to the members is made anew.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use shard_discovery::Shard;

use super::{Failed, ShardEvent};
use crate::failure::{Blame, ShardFailure};
use crate::metrics::ShardCounters;
use crate::time::Time;

/// Place of a shard among the members.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct MemberIndex(u32);

impl MemberIndex {
    /// As a place in a list that has an entry for each member.
    #[inline]
    pub fn place(self) -> usize {
        self.0 as usize
    }
}

/// Place of a shard in the topology's list, which is another one after each change of the list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct ShardIndex(pub usize);

/// Whether a member is in the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Presence {
    /// It is.
    Present,
    /// Not any more: what is in flight is finished, then its connections are closed.
    Leaving,
    /// Nothing remains of it: its place is for the next.
    Gone,
}

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
    /// Connections to it that a client has to itself or may have, or that are made for that.
    pub privates: usize,
    /// Of these, those that are being cleared for the next client.
    pub privates_cleared: usize,
    /// And those that are about to be closed.
    pub privates_closing: usize,
    /// None of those could be made, for this reason: until then no other is tried.
    pub private_down: Option<(Time, ShardFailure)>,
    /// Until then those that were made have taken their share of the time: see [`super::pace`].
    pub pace: Time,
    /// Whether it is in the pool.
    pub presence: Presence,
    /// Its host name has got another address since: its connections are to the former one.
    pub is_outdated: bool,
}

impl Member {
    /// It is in the pool.
    pub fn is_present(&self) -> bool {
        self.presence == Presence::Present
    }
}

/// All shards that a pool has, and had as long as something of them is under way.
#[derive(Default)]
pub(super) struct Members {
    all: Vec<Member>,
    /// The places of those that are gone.
    vacant: Vec<MemberIndex>,
    /// For each shard of the topology, its member.
    of_shards: Vec<MemberIndex>,
    /// What has become of them, for the worker.
    pub events: Vec<ShardEvent>,
}

impl Members {
    /// The member that the shard of the topology is.
    #[inline]
    pub fn of(&self, ShardIndex(shard): ShardIndex) -> MemberIndex {
        self.of_shards[shard]
    }

    /// The members that the topology has, in its order.
    pub fn present(&self) -> &[MemberIndex] {
        &self.of_shards
    }

    /// The topology has these from now on, in its order.
    pub fn set_present(&mut self, present: Vec<MemberIndex>) {
        self.of_shards = present;
    }

    /// All of them, also those that are leaving.
    pub fn indexes(&self) -> Vec<MemberIndex> {
        let indexes = (0..self.all.len() as u32).map(MemberIndex);
        indexes.filter(|&index| self[index].presence != Presence::Gone).collect()
    }

    /// One more, in the place of one that is gone if there is such a place.
    pub fn add(&mut self, member: Member) -> MemberIndex {
        match self.vacant.pop() {
            Some(index) => {
                self[index] = member;
                index
            }
            None => {
                self.all.push(member);
                MemberIndex(self.all.len() as u32 - 1)
            }
        }
    }

    /// Nothing remains of the member.
    pub fn remove(&mut self, index: MemberIndex) {
        self[index].presence = Presence::Gone;
        self.vacant.push(index);
    }

    /// The shard with this name has answered somebody.
    pub fn recovered(&mut self, name: &str) {
        for index in self.indexes() {
            if *self[index].name == *name {
                self.answered(index);
            }
        }
    }

    /// The shard has answered somebody.
    #[inline]
    pub fn answered(&mut self, index: MemberIndex) {
        let member = &mut self[index];
        if std::mem::take(&mut member.failing) {
            member.counters.failing.add(-1);
            let shard = member.name.clone();
            self.events.push(ShardEvent { shard, failure: None });
        }
    }

    /// The shard does not serve: it counts as unhealthy until it answers somebody.
    pub fn failing(&mut self, index: MemberIndex) {
        let member = &mut self[index];
        if member.is_present() && !std::mem::replace(&mut member.failing, true) {
            member.counters.failing.add(1);
        }
    }

    /// Something that was begun at `began` has failed. What was under way at a failure fails with it: one stall is
    /// reported once for each timeout, however many requests and connections wait. One that has left may have a successor
    /// elsewhere, which is known by the same name.
    pub fn failed(
        &mut self,
        index: MemberIndex,
        failure: &ShardFailure,
        blame: Blame,
        began: Time,
        now: Time,
    ) {
        match blame {
            _ if !self[index].is_present() => return,
            Blame::Nobody => return,
            Blame::Unknown => {}
            Blame::Shard => {
                self.failing(index);
                let member = &mut self[index];
                if member.failed_at.is_some_and(|last| began < last) {
                    return;
                }
                member.failed_at = Some(now);
            }
        }
        let failed = Failed { failure: failure.clone(), blame, began, at: now };
        let shard = self[index].name.clone();
        self.events.push(ShardEvent { shard, failure: Some(failed) });
    }
}

impl Index<MemberIndex> for Members {
    type Output = Member;

    #[inline]
    fn index(&self, index: MemberIndex) -> &Member {
        &self.all[index.place()]
    }
}

impl IndexMut<MemberIndex> for Members {
    #[inline]
    fn index_mut(&mut self, index: MemberIndex) -> &mut Member {
        &mut self.all[index.place()]
    }
}

#[cfg(test)]
impl MemberIndex {
    /// That at a place of the list.
    pub fn at(place: u32) -> Self {
        Self(place)
    }
}
