//! A request begins to wait for data under keys of several shards: see [`crate::pool::wide`].

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{Next, Pause, Refusal, Service};
use crate::failure::ShardFailure;
use crate::pool::connection::Admission;
use crate::pool::members::{MemberIndex, ShardIndex};
use crate::pool::ticket::Sender;
use crate::pool::wide::Wanted;
use crate::protocol::{Alone, DecodeRequests, Protocol};

/// So many keys a request may have that waits at several shards: what becomes of one of them is looked for among all.
const KEYS_MAX: usize = 256;

impl<P: Protocol> Service<'_, P> {
    /// Nothing of the client is in flight, and it is there to hear what comes.
    pub(super) fn wait_wide(
        &mut self,
        patience: Option<Duration>,
        scratch: &BytesMut,
        length: usize,
    ) -> Result<Next, Refusal> {
        let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
        let alone = P::alone(canonical);
        let most = alone.is_some().then_some(KEYS_MAX);
        let Some(alone) = alone.filter(|alone| alone.len() <= KEYS_MAX) else {
            let keys = self.plan.keys.iter().map(|&(start, length)| &canonical[start..start + length]);
            return Err(Refusal::Reply(P::spread_wait(self.router.spread_of(keys), most)));
        };
        let mut members: Vec<MemberIndex> = Vec::new();
        let mut wanted = Vec::with_capacity(alone.len());
        for (&(start, length), Alone { rivals, is_early }) in self.plan.keys.iter().zip(alone) {
            let name = &canonical[start..start + length];
            let home = self.router.topology.home_of(name).ok_or(Refusal::Nobody)?;
            let member = self.router.members.of(ShardIndex(home.shard));
            if !members.contains(&member) {
                members.push(member);
            }
            wanted.push(Wanted { name: Bytes::copy_from_slice(name), member, rivals, is_early });
        }
        let request = Bytes::copy_from_slice(canonical);
        for &member in &members {
            self.admit_wide(member)?;
        }
        let number = self.activity.replies.submitted(self.plan.manner);
        let until = patience.map(|patience| self.now.plus(patience));
        let database = P::database(self.router.connections.lane_key(*self.lane));
        self.wide.join(self.id, number, request, database, until, wanted);
        if let Some(wait) = self.wide.get(self.id) {
            self.router.count_wide(&wait.members, self.wide);
        }
        if self.router.topology.redirects() {
            self.wide.check_from(self.now);
        }
        self.activity.is_wide = true;
        self.activity.paused = Some(Pause::UntilQuiet);
        Ok(Next::Stop)
    }

    /// Whether one more may wait at the shard.
    fn admit_wide(&mut self, member: MemberIndex) -> Result<(), Refusal> {
        let (limits, now) = (&self.context.limits, self.now);
        let sender = Sender { since: now, ..self.sender() };
        let shared = self.router.connection(sender, member);
        match self.router.connections[shared].admission(0, limits, now) {
            Admission::Open | Admission::Full | Admission::Crowded => {}
            Admission::Connect => self.router.connections.connect(shared),
            Admission::Probe(failure) => {
                self.router.connections.connect_after(shared, Some(failure.clone()));
                return Err(Refusal::Failed(shared, failure));
            }
            Admission::Down(failure) => return Err(Refusal::Failed(shared, failure)),
        }
        if let Some(tracker) = self.router.tracker_of(member) {
            if let Some(words) = &tracker.refused {
                return Err(Refusal::Reply(self.router.untracked(member, words)));
            }
            if let Some(failure) = &tracker.failure {
                return Err(Refusal::Failed(shared, failure.clone()));
            }
            if tracker.unanswered() >= limits.shard_queue_max {
                self.context.counters.queue_full.add(1);
                return Err(Refusal::Failed(shared, ShardFailure::QueueFull));
            }
        }
        let place = self.router.members.present().iter().position(|&present| present == member);
        let counters = &self.context.counters;
        let waiting =
            |shard| counters.sum_shard(shard, |shard| shard.private_held.get() + shard.wide_clients.get());
        if place.map_or(0, waiting) >= limits.blocked_max as i64 {
            return Err(Refusal::Occupied(member));
        }
        Ok(())
    }
}
