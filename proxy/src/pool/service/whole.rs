//! Requests that are about all keys, or all servers.

use bytes::BytesMut;

use super::Service;
use crate::pool::client::Activity;
use crate::pool::router::Refusal;
use crate::protocol::{Protocol, Request};

impl<P: Protocol> Service<'_, P> {
    /// It goes to every server of the pool.
    pub(super) fn send_everywhere(&mut self, merge: P::Merge, input: &[u8]) -> Result<(), Refusal> {
        let sender = self.sender();
        let Self { context, router, plan, activity, .. } = self;
        let Activity { decoder, replies, .. } = &mut **activity;
        let canonical = P::canonical(decoder, input);
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
        let canonical = P::canonical(decoder, &scratch[self.used..][..length]);
        let is_done_by_any = P::is_done_by_any(&merge);
        let target = router.admit_all(sender, canonical, plan, &context.limits, is_done_by_any)?;
        match target {
            Some(target) => self.submit_whole(target, sender, scratch, length),
            None => {
                let request = Request { decoder, canonical };
                router.submit_fragments(sender, request, merge, plan, replies, &context.counters);
            }
        }
        Ok(())
    }
}
