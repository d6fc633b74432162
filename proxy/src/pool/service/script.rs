//! Scripts: those that a client shows are remembered, and a shard that lacks one is sent it before what names it.

use bytes::BytesMut;

use super::{Next, Service};
use crate::pool::connections::ConnectionId;
use crate::pool::members::ShardIndex;
use crate::pool::rerun::Named;
use crate::pool::router::{Refusal, Target};
use crate::protocol::{DecodeRequests, Protocol, Run, Scripted};
use crate::scripts::Digest;

impl<P: Protocol> Service<'_, P> {
    /// The request runs a script on the shard that owns its keys.
    pub(super) fn run(&mut self, run: Run, scratch: &mut BytesMut, length: usize) -> Result<(), Refusal> {
        let sender = self.sender();
        let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
        let target = self.router.admit_whole(sender, canonical, self.plan, &self.context.limits)?;
        self.run_there(target, run, scratch, length);
        Ok(())
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
        let limits = &self.context.limits;
        self.router
            .admit(connection, length, limits, sender.since, sender.now)
            .map_err(|failure| Refusal::Failed(connection, failure))?;
        self.run_there(Target { connection, unit: shard }, run, scratch, length);
        Ok(())
    }

    /// It runs on a connection that it is admitted to.
    fn run_there(&mut self, target: Target, run: Run, scratch: &mut BytesMut, length: usize) {
        let sender = self.sender();
        let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
        match run {
            Run::Text { start, length: text } => self.remember(&canonical[start..start + text]),
            Run::Named(script) => {
                if self.load_script(target.connection, &script) {
                    let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
                    let number = self.activity.replies.next_number();
                    Named::keep(&mut self.activity.named, number, script, canonical);
                    self.plan.scripted = Scripted::Loaded;
                }
            }
            Run::Unknown => {}
        }
        self.submit_whole(target, sender, scratch, length);
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
        let (is_known, is_sent) = self.router.load_script(at, script, scripts, self.arrived, self.now);
        self.context.counters.scripts_loaded.add(u64::from(is_sent));
        is_known
    }
}
