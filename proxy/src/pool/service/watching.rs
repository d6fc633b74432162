//! Keys that a client asks to be watched, the transaction that they guard, and the end of both.
//!
//! The connection of a client that watches is its pin: all that it asks of that shard goes over it, in the order in which it asks.
//! Where that begins and where it ends nothing of the client is in flight, so that nothing is overtaken on another connection.

use bytes::BytesMut;
use shard_discovery::Home;

use super::{Next, Service};
use crate::pool::block::{Block, Unfit};
use crate::pool::client::Pause;
use crate::pool::connections::ClientPin;
use crate::pool::members::ShardIndex;
use crate::pool::router::{Refusal, Target};
use crate::pool::ticket::Sender;
use crate::pool::watch::Stage;
use crate::protocol::{DecodeRequests, Protocol, Watched};

impl<P: Protocol> Service<'_, P> {
    /// The shard is asked to watch keys.
    pub(super) fn watch(&mut self, scratch: &mut BytesMut, length: usize) -> Result<Next, Refusal> {
        if self.waits_until_quiet() {
            return Ok(Next::Same);
        }
        let sender = self.sender();
        let target = match self.admit_watch(sender, scratch, length) {
            Ok(target) => target,
            Err(refusal) => {
                let next = self.refuse_watch();
                debug_assert!(next == Next::Request, "nothing is in flight");
                return Err(refusal);
            }
        };
        let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
        if let Some(watch) = self.router.connections[target.connection].watch_mut() {
            watch.stage = Stage::Asked;
            self.plan.keys.iter().for_each(|&(start, length)| watch.add(&canonical[start..start + length]));
        }
        self.submit_whole(target, sender, scratch, length);
        self.activity.paused = Some(Pause::UntilQuiet);
        Ok(Next::Stop)
    }

    /// Where keys are watched: where others are already, or on a connection that the client has to itself from now on.
    fn admit_watch(&mut self, sender: Sender, scratch: &BytesMut, length: usize) -> Result<Target, Refusal> {
        let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
        let Home { shard, unit } = self.router.home_of_keys(canonical, self.plan)?;
        let member = self.router.members.of(ShardIndex(shard));
        if let Some(pin) = self.router.connections.pin_of(*self.lane) {
            if pin.member != member {
                return Err(Refusal::WatchesElsewhere);
            }
            self.router
                .admit(pin.connection, length, &self.context.limits, sender.since, sender.now)
                .map_err(|failure| Refusal::Failed(pin.connection, failure))?;
            return Ok(Target { connection: pin.connection, unit });
        }
        let connection = self.router.take_private(sender, member, self.context)?;
        self.router.begin_watch(connection);
        self.router.connections.pin(self.lane, member, connection);
        Ok(Target { connection, unit })
    }

    /// Keys are not watched though the client wanted it: what they were to guard is not executed, whatever else is watched.
    #[cold]
    pub(super) fn refuse_watch(&mut self) -> Next {
        P::watched(self.session, Watched::Refused);
        self.end_watch()
    }

    /// The client watches nothing any more, if it did. What it asks next of that shard goes another way, so it waits for what
    /// is in flight.
    pub(super) fn end_watch(&mut self) -> Next {
        let Some(connection) = self.router.connections.unpin(self.lane) else { return Next::Request };
        self.router.clear_private(connection, self.now);
        if self.activity.replies.in_flight() == 0 {
            return Next::Request;
        }
        self.activity.paused = Some(Pause::UntilQuiet);
        Next::Stop
    }

    /// Whether the request at hand has to wait until all others of the client are answered.
    fn waits_until_quiet(&mut self) -> bool {
        let waits = self.activity.replies.in_flight() > 0;
        if waits {
            self.activity.paused = Some(Pause::UntilQuiet);
        }
        waits
    }

    /// Whether all that is queued may be executed where keys are watched.
    pub(super) fn is_with_watched(&self, block: &Block, pin: ClientPin) -> bool {
        block.homes().all(|home| self.router.members.of(ShardIndex(home.shard)) == pin.member)
    }

    /// What is queued is executed, unless a watched key has changed: only the shard knows that, so it is asked also where there
    /// is nothing to execute.
    pub(super) fn execute_watched(
        &mut self,
        merge: P::Merge,
        pin: ClientPin,
        scratch: &BytesMut,
        length: usize,
    ) -> Next {
        if self.waits_until_quiet() {
            return Next::Same;
        }
        let topology = &self.router.topology;
        let mut block =
            self.activity.block.take().unwrap_or_else(|| Box::new(Block::new::<P>(topology, true)));
        let followed = block.follow(topology, &self.context.limits);
        if let Err(unfit) =
            followed.and(self.is_with_watched(&block, pin).then_some(()).ok_or(Unfit::Watched))
        {
            self.refuse_unfit(block, unfit);
            return self.end_watch();
        }
        let sender = self.sender();
        if let Err(refusal) = self.admit_watched(sender, pin, &block) {
            let next = self.refuse(refusal, scratch, length);
            if next == Next::Same {
                self.activity.block = Some(block);
                return next;
            }
            P::leave_block(self.session);
            return self.end_watch();
        }
        P::leave_block(self.session);
        self.context.counters.transactions.add(1);
        let unit = block.homes().next().map_or(0, |home| home.unit);
        let target = Target { connection: pin.connection, unit };
        if let Some(watch) = self.router.connections[pin.connection].watch_mut() {
            watch.stage = Stage::Spent;
        }
        if block.own_count() == 0 {
            self.submit_block(target, block, sender);
        } else {
            let own = self.answer_own(&block);
            self.plan.owners.clear();
            self.plan.owners.extend(block.places().map(|place| u32::from(place.is_here())));
            self.router.fragments.targets.clear();
            self.router.fragments.targets.push(target);
            self.submit_parts(merge, &block, own, sender);
        }
        self.activity.paused = Some(Pause::UntilQuiet);
        Next::Stop
    }

    fn admit_watched(&mut self, sender: Sender, pin: ClientPin, block: &Block) -> Result<(), Refusal> {
        if self.router.connections[pin.connection].refuses_blocks.is_some() {
            return Err(Refusal::NoBlocks(pin.connection));
        }
        let (bytes, limits) = (block.bytes(), &self.context.limits);
        self.router
            .admit(pin.connection, bytes, limits, sender.since, sender.now)
            .map_err(|failure| Refusal::Failed(pin.connection, failure))
    }
}
