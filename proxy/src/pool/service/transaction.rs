//! Transactions: requests that are queued, and what becomes of them where they are executed.

use std::sync::Arc;

use bytes::BytesMut;

use super::{Next, Pause, REFUSED_WORK, Service};
use crate::buffer::{Piece, SHARE_MIN};
use crate::pool::block::{Block, Unfit};
use crate::pool::connections::ClientPin;
use crate::pool::members::ShardIndex;
use crate::pool::merging::Merging;
use crate::pool::pass::{PASS_WORK_MAX, answer_work};
use crate::pool::router::{Router, Target};
use crate::pool::ticket::{Sender, Ticket};
use crate::protocol::{DecodeRequests, Owners, Part, Protocol, Request, RequestBounds, Route};

/// Bytes that the proxy itself replies to a transaction, beyond those that it was sent for that.
const OWN_REPLIES_MAX: usize = 4 << 20;
/// The same for the work of it: some hundred KiB for ECHO and the like.
const READ_WORK_MAX: usize = 8 * PASS_WORK_MAX;

impl<P: Protocol> Service<'_, P> {
    /// The request is executed with others later.
    pub(super) fn queue(&mut self, here: bool, scratch: &BytesMut, length: usize) -> Next {
        let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
        let topology = &self.router.topology;
        let pin = self.router.connections.pin_of(*self.lane);
        let spare = &mut self.router.spare_block;
        let block = self.activity.block.get_or_insert_with(|| match spare.take() {
            Some(spare) => spare.renewed::<P>(topology, pin.is_some()),
            None => Box::new(Block::new::<P>(topology, pin.is_some())),
        });
        let added = block.add(here, canonical, self.plan, topology, &self.context.limits);
        let home = block.newest_home();
        let is_elsewhere = |pin: &ClientPin| {
            home.is_some_and(|home| self.router.members.of(ShardIndex(home.shard)) != pin.member)
        };
        let added = match added {
            Ok(()) if pin.as_ref().is_some_and(is_elsewhere) => Err(Unfit::Watched),
            Err(Unfit::Block) if pin.is_some() => Err(Unfit::Watched),
            added => added,
        };
        match added {
            Ok(()) => self.context.counters.transaction_requests.add(1),
            Err(unfit) => {
                self.plan.reply.clear();
                self.explain(unfit);
                self.spoil_block();
            }
        }
        self.activity.replies.replied(&self.plan.reply, self.plan.manner);
        Next::Request
    }

    /// Nothing that the client has queued is executed.
    #[cold]
    pub(super) fn spoil_block(&mut self) {
        P::spoil_block(self.session);
        self.activity.block = None;
    }

    /// Why a request is not queued, as its reply.
    #[cold]
    fn explain(&mut self, unfit: Unfit) {
        let Self { context, router, plan, activity, .. } = self;
        context.counters.refused.add(1);
        let reply = &mut plan.reply;
        match unfit {
            Unfit::Request | Unfit::Block => {
                let keys = activity.block.iter().flat_map(|block| block.keys());
                let words = P::spread_block(router.spread_of(keys), unfit == Unfit::Request);
                reply.extend_from_slice(words.as_bytes());
            }
            Unfit::Watched => {
                let keys = activity.block.iter().flat_map(|block| block.keys());
                let words = P::spread_from_watch(router.spread_of(keys));
                reply.extend_from_slice(words.as_bytes());
            }
            Unfit::Nobody => P::failure(plan.manner, router.nobody(), reply),
            Unfit::TooLarge(limit) => {
                context.counters.transactions_too_large.add(1);
                P::failure(plan.manner, &format!("the transaction is too large ({limit})"), reply);
            }
        }
    }

    /// What is queued is executed, unless it has to wait for room.
    pub(super) fn execute(&mut self, merge: P::Merge, scratch: &BytesMut, length: usize) -> Next {
        if let Some(pin) = self.router.connections.pin_of(*self.lane) {
            return self.execute_watched(merge, pin, scratch, length);
        }
        if self.activity.block.as_ref().is_some_and(|block| block.is_large(&self.context.limits)) {
            let quiet = self.activity.replies.in_flight() == 0;
            let Router { connections, members, .. } = &mut *self.router;
            if !connections.make_heavy(self.lane, self.weight, quiet, members) {
                self.activity.paused = Some(Pause::UntilQuiet);
                return Next::Same;
            }
        }
        let Some(mut block) = self.activity.block.take() else {
            P::leave_block(self.session);
            P::head_of_block(0, &mut self.plan.reply);
            self.activity.replies.replied(&self.plan.reply, self.plan.manner);
            return Next::Request;
        };
        if let Err(unfit) = block.follow(&self.router.topology, &self.context.limits) {
            self.refuse_unfit(block, unfit);
            return Next::Request;
        }
        let sender = self.sender();
        if let Err(refusal) = self.router.admit_block(sender, &block, self.plan, self.context) {
            self.done += REFUSED_WORK;
            let next = self.refuse(refusal, scratch, length);
            if next == Next::Same {
                self.activity.block = Some(block);
            } else {
                P::leave_block(self.session);
            }
            return next;
        }
        P::leave_block(self.session);
        self.context.counters.transactions.add(1);
        let own = self.answer_own(&block);
        match self.router.fragments.targets[..] {
            [target] if block.own_count() == 0 => self.submit_block(target, block, sender),
            _ => self.submit_parts(merge, &block, own, sender),
        }
        Next::Request
    }

    /// What is queued cannot be executed as it is.
    pub(super) fn refuse_unfit(&mut self, block: Box<Block>, unfit: Unfit) {
        self.activity.block = Some(block);
        self.explain(unfit);
        self.activity.block = None;
        P::leave_block(self.session);
        let mut reply = Vec::new();
        P::refuse_block(&self.plan.reply, &mut reply);
        self.activity.replies.replied(&reply, self.plan.manner);
    }

    /// All of it goes to one shard, whose response is the reply.
    pub(super) fn submit_block(
        &mut self,
        Target { connection, unit }: Target,
        mut block: Box<Block>,
        sender: Sender,
    ) {
        self.load_scripts(connection, &block);
        let number = self.activity.replies.submitted(self.plan.manner);
        let expected = block.end::<P>();
        let ticket = Ticket { expected, ..Ticket::new(sender, number, 0, unit, self.plan) };
        let requests = block.requests();
        if requests.len() < SHARE_MIN {
            self.router.submit(connection, ticket, Piece::Copied(requests), self.now);
        } else {
            self.router.submit_owned(connection, ticket, std::mem::take(requests), self.now);
        }
        self.router.spare_block = block.spare();
    }

    /// Each shard gets its part, and the proxy has answered its own.
    pub(super) fn submit_parts(&mut self, merge: P::Merge, block: &Block, own: Vec<u8>, sender: Sender) {
        for at in 0..self.router.fragments.targets.len() {
            let connection = self.router.fragments.targets[at].connection;
            self.load_scripts(connection, block);
        }
        let Self { context, router, plan, activity, .. } = self;
        let targets = std::mem::take(&mut router.fragments.targets);
        let mut parts: Vec<Part> =
            targets.iter().map(|target| Part::new(router.name_of(target.connection).clone())).collect();
        let missing = parts.len();
        if block.own_count() > 0 {
            let mut part = Part::new(Arc::from(""));
            part.bytes.extend_from_slice(&own);
            parts.push(part);
        }
        if missing == 0 {
            return activity.replies.replied_with(Piece::Shared(own.into()), plan.manner);
        }
        let owners = Owners::new(&plan.owners, parts.len());
        let merging = Merging::new(merge, owners, parts, missing);
        let number = activity.replies.submitted_split(plan.manner, merging);
        for (part, &Target { connection, unit }) in targets.iter().enumerate() {
            let mut requests = Vec::new();
            let expected = block.part::<P>(&plan.owners, part as u32, &mut requests);
            let ticket = Ticket { expected, ..Ticket::new(sender, number, part as u32, unit, plan) };
            router.submit_owned(connection, ticket, requests, self.now);
        }
        context.counters.fragments.add(missing as u64);
        router.fragments.targets = targets;
    }

    /// The replies to what the proxy itself answers, with what stands before them. What is asked of it at once is bounded.
    pub(super) fn answer_own(&mut self, block: &Block) -> Vec<u8> {
        let mut replies = Vec::new();
        if block.own_count() == 0 {
            return replies;
        }
        P::head_of_block(block.own_count(), &mut replies);
        let (manner, family) = (self.plan.manner, self.plan.family);
        let bytes_max = OWN_REPLIES_MAX.min(self.share.room()) + block.own().len();
        // What the client has sent may be read once, as long as that does not take long.
        let work_max = PASS_WORK_MAX + answer_work(0, block.own().len(), 0, 0).min(READ_WORK_MAX);
        let bounds = RequestBounds { bytes: u64::MAX, arguments: usize::MAX };
        let (mut rest, mut work) = (block.own(), 0);
        while !rest.is_empty() {
            let mut decoder = P::RequestDecoder::default();
            let length = decoder.next(self.session, rest, bounds).ok().flatten();
            let (input, behind) = rest.split_at(length.expect("a complete request was decoded before"));
            rest = behind;
            self.plan.begin();
            let route = if replies.len() > bytes_max || work > work_max {
                Route::NoRoom
            } else {
                let request = Request { decoder: &decoder, canonical: decoder.canonical(input) };
                self.facts.quiet = true;
                P::plan(request, self.session, &self.facts, self.plan)
            };
            // Within a transaction no shard is asked for what the proxy adds to.
            let is_own =
                matches!(route, Route::AllShards(_) | Route::OnShard(_)) && !self.plan.reply.is_empty();
            if !is_own && !matches!(route, Route::Answer) {
                self.plan.reply.clear();
                self.context.counters.out_of_memory.add(1);
                P::out_of_memory(&mut self.plan.reply);
            }
            let (searched, arguments) = (self.plan.searched, decoder.argument_count());
            let reply = self.plan.take_reply();
            let made = reply.as_slice().len();
            replies.extend_from_slice(reply.as_slice());
            work += 1 + answer_work(arguments, input.len(), made, searched);
        }
        self.plan.begin();
        (self.plan.manner, self.plan.family) = (manner, family);
        self.done += work;
        replies
    }
}
