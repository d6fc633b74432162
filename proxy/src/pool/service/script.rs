//! Scripts: those that a client shows are remembered, and a shard that lacks one is sent it before what names it.

use bytes::BytesMut;
use shard_discovery::Home;

use super::{Next, Service};
use crate::pool::block::Block;
use crate::pool::connections::ConnectionId;
use crate::pool::members::ShardIndex;
use crate::pool::pass::answer_work;
use crate::pool::rerun::Named;
use crate::pool::router::{Refusal, Target};
use crate::protocol::{DecodeRequests, Protocol, Run, Scripted};
use crate::scripts::Digest;

impl<P: Protocol> Service<'_, P> {
    /// The request runs a script on the shard that owns its keys.
    pub(super) fn run(&mut self, run: Run, scratch: &mut BytesMut, length: usize) -> Result<(), Refusal> {
        let sender = self.sender();
        let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
        let Home { shard, unit } = self.router.home_of_keys(canonical, self.plan)?;
        let connection = self.router.connection_for(sender, ShardIndex(shard), self.plan.reads);
        self.run_there(Target { connection, unit }, run, scratch, length)
    }

    /// The same on this shard of the topology.
    pub(super) fn run_on(
        &mut self,
        run: Run,
        shard: usize,
        scratch: &mut BytesMut,
        length: usize,
    ) -> Result<(), Refusal> {
        let sender = self.sender();
        if shard >= self.router.topology.shards().len() {
            return Err(Refusal::Nobody);
        }
        let connection = self.router.connection_for(sender, ShardIndex(shard), self.plan.reads);
        self.run_there(Target { connection, unit: shard }, run, scratch, length)
    }

    /// It runs on this connection, if it is admitted there with what is sent ahead of it.
    fn run_there(
        &mut self,
        target: Target,
        run: Run,
        scratch: &mut BytesMut,
        length: usize,
    ) -> Result<(), Refusal> {
        let sender = self.sender();
        let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
        let context = self.context;
        let ahead = match &run {
            Run::Named(script) => self.router.script_bytes(target.connection, script, &context.scripts),
            Run::Text { .. } | Run::Unknown => 0,
        };
        self.router
            .admit(target.connection, canonical.len() + ahead, &context.limits, sender.since, sender.now)
            .map_err(|failure| Refusal::Failed(target.connection, failure))?;
        match run {
            Run::Text { start, length: text } => self.remember(&canonical[start..start + text]),
            Run::Named(script) => {
                if self.load_script(target.connection, &script) {
                    let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
                    let replies = &self.activity.replies;
                    let (number, is_first) = (replies.next_number(), replies.in_flight() == 0);
                    Named::keep(&mut self.activity.named, number, &[script], canonical, is_first);
                    self.plan.scripted = Scripted::Loaded;
                }
            }
            Run::Unknown => {}
        }
        self.submit_whole(target, sender, scratch, length);
        Ok(())
    }

    /// The request is executed with others later, and runs a script then.
    pub(super) fn queue_run(&mut self, run: Run, scratch: &BytesMut, length: usize) -> Next {
        if let Run::Text { start, length: text } = run {
            let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
            self.remember(&canonical[start..start + text]);
        }
        let next = self.queue(false, scratch, length);
        if let (Run::Named(script), Some(block)) = (run, &mut self.activity.block) {
            block.names(script);
        }
        next
    }

    /// A client has shown a script.
    fn remember(&self, text: &[u8]) {
        let forgotten = self.context.scripts.remember(text, P::load_script);
        self.context.counters.scripts_forgotten.add(forgotten);
    }

    /// The shard is sent the script, where it is known here and not there. Whether the shard should know it then.
    pub(super) fn load_script(&mut self, at: ConnectionId, script: &Digest) -> bool {
        let scripts = &self.context.scripts;
        let (is_known, sent) = self.router.load_script(at, script, scripts, self.arrived, self.now);
        self.context.counters.scripts_loaded.add(u64::from(sent > 0));
        // A few bytes of the client make many for the shard.
        self.done += answer_work(0, 0, sent, 0);
        is_known
    }

    /// The same of all that a block names, and those are forgotten that shards forget as they execute it.
    pub(super) fn load_scripts(&mut self, at: ConnectionId, block: &Block) {
        block.scripts().iter().for_each(|script| {
            self.load_script(at, script);
        });
        let scripts = block.scripts();
        if !scripts.is_empty() {
            let replies = &self.activity.replies;
            let (number, is_first) = (replies.next_number(), replies.in_flight() == 0);
            Named::keep(&mut self.activity.named, number, scripts, &[], is_first);
        }
        if block.forgets_scripts() {
            self.context.scripts.forget();
        }
    }
}
