//! Requests that are sent in fragments: each shard gets the keys it owns, or the same as all others.
//!
//! A request is split in two steps: where its fragments go is found, and whether they may, and only then anything is queued.

use std::sync::Arc;

use bytes::Bytes;
use shard_discovery::Home;

use super::Limits;
use super::block::{Block, Place};
use super::context::Context;
use super::members::ShardIndex;
use super::merging::Merging;
use super::replies::Replies;
use super::router::{Refusal, Router, Target};
use super::ticket::{Sender, Ticket};
use crate::buffer::{Piece, SHARE_MIN};
use crate::failure::ShardFailure;
use crate::metrics::PoolCounters;
use crate::protocol::{Owners, Part, Plan, Protocol, Request};

impl<P: Protocol> Router<P> {
    /// A fragment for every shard that owns a key of the request may be submitted; where one shard owns all of them, the
    /// request goes there as it is. Where one shard is known to be down nothing is half done, unless the client wants it
    /// so.
    pub fn admit_split(
        &mut self,
        sender: Sender,
        canonical: &[u8],
        plan: &mut Plan<P>,
        limits: &Limits,
    ) -> Result<Option<Target>, Refusal> {
        self.find_owners(sender, canonical, plan)?;
        self.admit_targets(sender, canonical.len(), limits, P::is_served_partly(plan.manner))?;
        Ok(match self.fragments.targets[..] {
            [target] if self.fragments.down.is_empty() => Some(target),
            _ => None,
        })
    }

    /// A fragment for every server may be submitted. One that is down fails its fragment only: what is meant for all is done
    /// by those that can.
    pub fn admit_everywhere(
        &mut self,
        sender: Sender,
        canonical: &[u8],
        plan: &mut Plan<P>,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        plan.owners.clear();
        self.fragments.targets.clear();
        for place in 0..self.members.present().len() {
            let connection = self.connection(sender, self.members.of(ShardIndex(place)));
            self.fragments.targets.push(Target { connection, unit: 0 });
        }
        self.admit_targets(sender, canonical.len(), limits, true)
    }

    /// A fragment for every shard that has keys may be submitted, or for the one that has all keys the request is about. Where one
    /// is known to be down nothing is half done, unless any of them will do.
    pub fn admit_all(
        &mut self,
        sender: Sender,
        canonical: &[u8],
        plan: &mut Plan<P>,
        limits: &Limits,
        is_done_by_any: bool,
    ) -> Result<Option<Target>, Refusal> {
        plan.owners.clear();
        self.fragments.targets.clear();
        let topology = self.topology.clone();
        let of_all =
            |&(start, length): &(usize, usize)| topology.home_of_beginning(&canonical[start..start + length]);
        let one = plan.keys.first().and_then(of_all);
        let homes = match &one {
            Some(home) => std::slice::from_ref(home),
            None => topology.holders().ok_or(Refusal::Nobody)?,
        };
        for &Home { shard, unit } in homes {
            let connection = self.connection(sender, self.members.of(ShardIndex(shard)));
            self.fragments.targets.push(Target { connection, unit });
        }
        self.admit_targets(sender, canonical.len(), limits, is_done_by_any)?;
        Ok(match self.fragments.targets[..] {
            [target] if self.fragments.down.is_empty() => Some(target),
            _ => None,
        })
    }

    /// This shard may be sent a request.
    pub fn admit_named(
        &mut self,
        sender: Sender,
        shard: ShardIndex,
        length: usize,
        plan: &mut Plan<P>,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        plan.owners.clear();
        self.fragments.targets.clear();
        let connection = self.connection(sender, self.members.of(shard));
        self.fragments.targets.push(Target { connection, unit: 0 });
        self.admit_targets(sender, length, limits, false)
    }

    /// The shard at this home, which has to execute transactions, may be sent a request of its own.
    pub fn admit_page(
        &mut self,
        sender: Sender,
        home: Home,
        length: usize,
        plan: &mut Plan<P>,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        plan.owners.clear();
        self.fragments.targets.clear();
        let connection = self.connection(sender, self.members.of(ShardIndex(home.shard)));
        if self.connections[connection].refuses_blocks.is_some() {
            return Err(Refusal::NoBlocks(connection));
        }
        self.fragments.targets.push(Target { connection, unit: home.unit });
        self.admit_targets(sender, length, limits, false)
    }

    /// Each shard that executes a part of the transaction may be sent it: `targets` are those, and `plan.owners` says for each
    /// request which of them executes it. What the proxy answers itself belongs to the one behind the last.
    pub fn admit_block(
        &mut self,
        sender: Sender,
        block: &Block,
        plan: &mut Plan<P>,
        context: &Context<P>,
    ) -> Result<(), Refusal> {
        plan.owners.clear();
        self.fragments.targets.clear();
        let is_anywhere = |place: &Place| *place == Place::Anywhere;
        let of_no_key = || self.topology.home_of(b"").ok_or(Refusal::Nobody);
        let first = match block.places().find_map(Place::home) {
            Some(home) => Some(home),
            None if block.places().any(|place| is_anywhere(&place)) => Some(of_no_key()?),
            None => None,
        };
        for place in block.places() {
            let home = match place {
                Place::At(home) => home,
                Place::Anywhere => first.expect("it was looked for"),
                Place::Here => {
                    plan.owners.push(u32::MAX);
                    continue;
                }
            };
            plan.owners.push(self.fragment_at(sender, home, false));
        }
        self.forget_units();
        let own = self.fragments.targets.len() as u32;
        plan.owners.iter_mut().filter(|owner| **owner == u32::MAX).for_each(|owner| *owner = own);
        let refuses = |target: &&Target| self.connections[target.connection].refuses_blocks.is_some();
        if let Some(target) = self.fragments.targets.iter().find(refuses) {
            return Err(Refusal::NoBlocks(target.connection));
        }
        // With what is sent ahead of it, where most is.
        let ahead = |target: &Target| -> usize {
            let bytes = |script| self.script_bytes(target.connection, script, &context.scripts);
            block.scripts().iter().map(bytes).sum()
        };
        let ahead = self.fragments.targets.iter().map(ahead).max().unwrap_or_default();
        self.admit_targets(sender, block.bytes() + ahead, &context.limits, false)
    }

    /// The fragment of what is at this home; it is added if it is the first there.
    fn fragment_at(&mut self, sender: Sender, Home { shard, unit }: Home, reads: bool) -> u32 {
        if self.fragments.of_units[unit] == u32::MAX {
            self.fragments.of_units[unit] = self.fragments.targets.len() as u32;
            let connection = self.connection_for(sender, ShardIndex(shard), reads);
            self.fragments.targets.push(Target { connection, unit });
        }
        self.fragments.of_units[unit]
    }

    /// All homes have been looked for.
    fn forget_units(&mut self) {
        for &Target { unit, .. } in &self.fragments.targets {
            self.fragments.of_units[unit] = u32::MAX;
        }
    }

    /// Whether `targets` take a fragment each. If the request is to be served partly, `down` has those that do not.
    fn admit_targets(
        &mut self,
        sender: Sender,
        length: usize,
        limits: &Limits,
        partly: bool,
    ) -> Result<(), Refusal> {
        self.fragments.down.clear();
        for place in 0..self.fragments.targets.len() {
            let Target { connection, .. } = self.fragments.targets[place];
            match self.admit(connection, length, limits, sender.since, sender.now) {
                Ok(()) => {}
                Err(failure) if partly && failure != ShardFailure::QueueFull => {
                    self.fragments.down.push((place, failure))
                }
                Err(failure) => return Err(Refusal::Failed(connection, failure)),
            }
        }
        Ok(())
    }

    /// Queues the fragments of the request that was admitted last; answers those of shards that are down at once.
    pub fn submit_fragments(
        &mut self,
        sender: Sender,
        request: Request<'_, P>,
        merge: P::Merge,
        plan: &mut Plan<P>,
        replies: &mut Replies<P>,
        counters: &PoolCounters,
    ) {
        // What goes by no key is nobody else's, and what all are sent is made once.
        let is_same = plan.owners.is_empty();
        let tries = if is_same { u8::MAX } else { 0 };
        let number = self.begin_merging(replies, request, merge, plan, counters);
        let mut shared = Bytes::new();
        let mut down = std::mem::take(&mut self.fragments.down).into_iter().peekable();
        for place in 0..self.fragments.targets.len() {
            let Target { connection, unit } = self.fragments.targets[place];
            if let Some((_, failure)) = down.next_if(|(failed, _)| *failed == place) {
                counters.forward_error.add(1);
                self.counters_of(connection).failures[failure.reason()].add(1);
                let words = failure.of_shard(self.name_of(connection));
                plan.reply.clear();
                P::failure(plan.manner, &words, &mut plan.reply);
                replies.answer(number, place as u32, Piece::Copied(&plan.reply), true);
                continue;
            }
            let ticket = Ticket { tries, ..Ticket::new(sender, number, place as u32, unit, plan) };
            let fragment = &mut plan.fragments[if is_same { 0 } else { place }];
            if fragment.len() >= SHARE_MIN {
                shared = Bytes::from(std::mem::take(fragment));
            }
            if fragment.is_empty() {
                self.submit(connection, ticket, Piece::Shared(shared.clone()), sender.now);
            } else {
                self.submit(connection, ticket, Piece::Copied(fragment), sender.now);
            }
        }
    }

    /// One more request is in flight, in a fragment for each of `targets`; returns its number.
    fn begin_merging(
        &mut self,
        replies: &mut Replies<P>,
        request: Request<'_, P>,
        merge: P::Merge,
        plan: &mut Plan<P>,
        counters: &PoolCounters,
    ) -> u32 {
        let targets = &self.fragments.targets;
        let count = targets.len();
        let different = if plan.owners.is_empty() { 1 } else { count };
        if plan.fragments.len() < different {
            plan.fragments.resize_with(different, Vec::new);
        }
        P::split(&merge, request, &plan.owners, &mut plan.fragments[..different]);
        counters.fragments.add(count as u64);
        let part = |target: &Target| Part::new(self.name_of(target.connection).clone());
        let mut parts: Vec<Part> = targets.iter().map(part).collect();
        if plan.owners.is_empty() && !plan.reply.is_empty() {
            // What the proxy says itself.
            let mut own = Part::new(Arc::from(""));
            own.bytes.extend_from_slice(&plan.reply);
            parts.push(own);
        }
        let owners = Owners::new(&plan.owners, count);
        replies.submitted_split(plan.manner, Merging::new(merge, owners, parts, count))
    }

    /// Sets `plan.owners` (a fragment for each key) and `targets` (where each fragment goes).
    fn find_owners(&mut self, sender: Sender, canonical: &[u8], plan: &mut Plan<P>) -> Result<(), Refusal> {
        plan.owners.clear();
        self.fragments.targets.clear();
        let mut complete = true;
        for &(start, length) in &plan.keys {
            let Some(home) = self.topology.home_of(&canonical[start..start + length]) else {
                complete = false;
                break;
            };
            plan.owners.push(self.fragment_at(sender, home, plan.reads));
        }
        self.forget_units();
        if complete { Ok(()) } else { Err(Refusal::Nobody) }
    }
}
