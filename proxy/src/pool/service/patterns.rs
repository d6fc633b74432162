//! A request names further keys by patterns, from which its shard makes names as it executes it (SORT with BY and GET).

use bytes::BytesMut;
use shard_discovery::Group;

use super::{Refusal, Service};
use crate::protocol::{DecodeRequests, Protocol};

impl<P: Protocol> Service<'_, P> {
    /// It goes to the shard that owns its keys, if that owns all keys that the patterns may mean: those are the last so many of the
    /// plan's keys. A node of a cluster judges for itself.
    #[cold]
    pub(super) fn forward_with(
        &mut self,
        patterns: usize,
        scratch: &mut BytesMut,
        length: usize,
    ) -> Result<(), Refusal> {
        let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
        let keys = self.plan.keys.len() - patterns;
        let patterns = self.plan.keys.split_off(keys);
        let topology = &self.router.topology;
        if topology.group() == Group::Shard {
            let home = self.router.home_of_keys(canonical, self.plan)?;
            for (start, length) in patterns {
                let pattern = &canonical[start..start + length];
                let of_all = topology.home_of_beginning(P::pattern_beginning(pattern));
                if of_all.is_none_or(|of_all| of_all.unit != home.unit) {
                    let reply = P::foreign_pattern(canonical, pattern, topology.hash_tag().is_some());
                    return Err(Refusal::Reply(reply));
                }
            }
        }
        self.forward(scratch, length)
    }
}
