//! Requests that are about all keys, or all servers.

use bytes::BytesMut;

use super::Service;
use crate::pool::client::Activity;
use crate::pool::members::ShardIndex;
use crate::pool::router::Refusal;
use crate::protocol::scan::{STALE, Step, Walk, digest};
use crate::protocol::{DecodeRequests, Protocol, Request};

/// So many shards are named to who asks for one that there is not.
const NAMED_MAX: usize = 32;

/// What it costs to ask a node behind the last page, in requests.
const END_WORK: usize = 32;

impl<P: Protocol> Service<'_, P> {
    /// It goes to every server of the pool.
    pub(super) fn send_everywhere(&mut self, merge: P::Merge, input: &[u8]) -> Result<(), Refusal> {
        let sender = self.sender();
        let Self { context, router, plan, activity, .. } = self;
        let Activity { decoder, replies, .. } = &mut **activity;
        let canonical = decoder.canonical(input);
        router.admit_everywhere(sender, canonical, plan, &context.limits)?;
        let request = Request { decoder, canonical };
        router.submit_fragments(sender, request, merge, plan, replies, &context.counters);
        Ok(())
    }

    /// It goes to every shard that has keys, or to the one that has all keys that it is about.
    pub(super) fn send_to_all(
        &mut self,
        merge: P::Merge,
        scratch: &mut BytesMut,
        length: usize,
    ) -> Result<(), Refusal> {
        let sender = self.sender();
        let Self { context, router, plan, activity, .. } = self;
        let Activity { decoder, replies, .. } = &mut **activity;
        let canonical = decoder.canonical(&scratch[self.used..][..length]);
        let is_done_by_any = P::is_done_by_any(&merge);
        // A refusal takes its place.
        let own = std::mem::take(&mut plan.reply);
        let target = match router.admit_all(sender, canonical, plan, &context.limits, is_done_by_any) {
            Err(Refusal::Nobody) if !own.is_empty() => {
                replies.replied(&own, plan.manner);
                return Ok(());
            }
            target => target?,
        };
        plan.reply = own;
        if P::forgets_scripts(canonical) {
            context.scripts.forget();
        }
        if let Some(change) = P::library_change(canonical) {
            context.scripts.libraries().note(change);
        }
        match target {
            Some(target) if !P::is_rewritten(&merge) => self.submit_whole(target, sender, scratch, length),
            _ => {
                let request = Request { decoder, canonical };
                router.submit_fragments(sender, request, merge, plan, replies, &context.counters);
            }
        }
        Ok(())
    }

    /// It goes to the shard that it names.
    pub(super) fn send_to_named(&mut self, merge: P::Merge, input: &[u8]) -> Result<(), Refusal> {
        let sender = self.sender();
        let Self { context, router, plan, activity, .. } = self;
        let Activity { decoder, replies, .. } = &mut **activity;
        let canonical = decoder.canonical(input);
        let topology = router.topology.clone();
        let (start, length) = plan.keys.pop().unwrap_or_default();
        let name = &canonical[start..start + length];
        plan.reply.clear();
        match topology.shards().iter().position(|shard| shard.name.as_bytes() == name) {
            Some(shard) => {
                router.admit_named(sender, ShardIndex(shard), canonical.len(), plan, &context.limits)?;
                let request = Request { decoder, canonical };
                router.submit_fragments(sender, request, merge, plan, replies, &context.counters);
            }
            None => {
                context.counters.refused.add(1);
                let names: Vec<&str> =
                    topology.shards().iter().take(NAMED_MAX).map(|shard| &*shard.name).collect();
                let more = if topology.shards().len() > NAMED_MAX { ", ..." } else { "" };
                let words = format!("no shard has that name; the shards are {}{more}", names.join(", "));
                P::failure(plan.manner, &words, &mut plan.reply);
                replies.replied(&plan.reply, plan.manner);
            }
        }
        Ok(())
    }

    /// The shard whose turn it is at this number is asked for names of keys. What is left behind the last one is to ask the nodes of
    /// a cluster whether keys have moved meanwhile, from those that had not been scanned to those that had.
    pub(super) fn scan(&mut self, number: u64, input: &[u8]) -> Result<(), Refusal> {
        let sender = self.sender();
        let Self { context, router, plan, activity, .. } = self;
        let Activity { decoder, replies, .. } = &mut **activity;
        let (canonical, limits) = (decoder.canonical(input), &context.limits);
        let topology = router.topology.clone();
        let homes = topology.holders().ok_or(Refusal::Nobody)?;
        let walk = Walk::new(homes.len(), topology.fingerprint(), topology.redirects());
        let Some((walk, mut position)) = walk.and_then(|walk| Some((walk, walk.read(number)?))) else {
            context.counters.refused.add(1);
            P::failure(plan.manner, STALE, &mut plan.reply);
            replies.replied(&plan.reply, plan.manner);
            return Ok(());
        };
        let of_all = |(start, length): (usize, usize)| {
            let home = topology.home_of_beginning(&canonical[start..start + length])?;
            homes.iter().position(|holder| holder.shard == home.shard)
        };
        let only = plan.keys.pop().and_then(of_all);
        if let (0, Some(place)) = (number, only) {
            position.place = place as u16;
        }
        let place = usize::from(position.place);
        let step = match homes.get(place) {
            Some(&home) => {
                router.admit_page(sender, home, canonical.len(), plan, limits)?;
                Step::Page(walk.page(position, only == Some(place)))
            }
            None => {
                router.admit_all(sender, canonical, plan, limits, false)?;
                let owned = topology.slots_of_holders().iter().fold(0, |all, slots| all ^ digest(slots));
                Step::End { owned }
            }
        };
        if let Some(merge) = P::scan(step, plan) {
            let request = Request { decoder, canonical };
            router.submit_fragments(sender, request, merge, plan, replies, &context.counters);
            plan.expected = P::Expected::default();
        }
        // Each node says all of its slots, and is held against what is known of them.
        self.done += if place < homes.len() { 0 } else { END_WORK * homes.len() };
        Ok(())
    }
}
