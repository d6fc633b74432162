//! A request begins to wait for replicas: see [`crate::pool::confirming`].

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{Next, Pause, Refusal, Service, State};
use crate::protocol::{DecodeRequests, Protocol};

impl<P: Protocol> Service<'_, P> {
    /// Shards are asked once all that the client has sent before is answered, so executed.
    pub(super) fn confirm(
        &mut self,
        patience: Option<Duration>,
        marks: bool,
        scratch: &BytesMut,
        length: usize,
    ) -> Result<Next, Refusal> {
        if self.activity.replies.in_flight() > 0 {
            self.activity.paused = Some(Pause::UntilQuiet);
            return Ok(Next::Same);
        }
        let request = self.activity.decoder.canonical(&scratch[self.used..][..length]);
        match self.state {
            State::Open => {}
            State::Ended | State::Broken => return Ok(Next::Drop),
            State::Finishing => {
                P::least(request, std::iter::empty(), &mut self.plan.reply);
                return Ok(self.answer());
            }
        }
        let counters = &self.context.counters;
        let max = self.context.limits.blocked_max;
        if counters.sum(|pool| pool.blocked_confirming.get()) >= max as i64 {
            counters.blocked_refused.add(1);
            P::failure(
                self.plan.manner,
                &format!("{max} clients wait for replicas already (blocked_max)"),
                &mut self.plan.reply,
            );
            return Err(Refusal::Reply(String::from_utf8_lossy(&self.plan.reply).into_owned()));
        }
        let number = self.activity.replies.submitted(self.plan.manner);
        self.confirmations.join(self.id, number, Bytes::copy_from_slice(request), patience, marks);
        counters.blocked_confirming.set(self.confirmations.len() as i64);
        self.activity.is_wide = true;
        self.activity.paused = Some(Pause::UntilQuiet);
        Ok(Next::Stop)
    }
}
