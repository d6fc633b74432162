//! Who may have a file descriptor when there are few.
//!
//! Clients come in any number; without the connections to the shards they are served nothing, and without those of probes
//! the process is taken for dead. So what these need is kept from clients. Nothing is counted: the kernel gives the lowest
//! number that is free, so the number of a new client's descriptor tells how many are in use.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd as _};

/// For the process itself, files, lookups, connections that are being made, and those that are accepted to be refused.
const OWN: u64 = 64;
/// Listeners beside those of pools: the admin address and the statistics.
const SIDE_LISTENERS: u64 = 2;
/// Connections that each of those may have, and how many it may have however few descriptors there are.
const SIDE_CONNECTIONS: std::ops::RangeInclusive<u64> = 8..=64;
/// A listener beside those of pools may have one of so many descriptors.
const SIDE_SHARE: u64 = 16;
/// Lanes to each shard that there is room for: clients of RESP2 and of RESP3, each with those that move large values apart.
const LANES: u64 = 4;

/// What decides how many connections to shards a pool may need.
pub struct Sockets {
    /// Its shards.
    pub shards: usize,
    /// Connections of each worker to each.
    pub per_shard: u32,
}

/// The number of a descriptor.
pub fn number_of(descriptor: impl AsFd) -> u64 {
    u64::from(descriptor.as_fd().as_raw_fd().unsigned_abs())
}

/// The descriptors of this process.
#[derive(Debug)]
pub struct Descriptors {
    /// How many it may have.
    limit: u64,
    /// So many of them are not for clients.
    reserved: Cell<u64>,
    /// What the pools were last found to need.
    needed: Cell<u64>,
}

impl Descriptors {
    /// Of a process that may have so many.
    pub fn new(limit: u64) -> Self {
        let descriptors = Self { limit, reserved: Cell::new(0), needed: Cell::new(0) };
        descriptors.reserved.set(descriptors.aside().min(limit / 2));
        descriptors
    }

    /// Connections that the admin address may have, and as many the statistics.
    pub fn side_connections(&self) -> u64 {
        (self.limit / SIDE_SHARE).clamp(*SIDE_CONNECTIONS.start(), *SIDE_CONNECTIONS.end())
    }

    /// What is needed however many shards there are.
    fn aside(&self) -> u64 {
        OWN + SIDE_LISTENERS * self.side_connections()
    }

    /// How many there may be.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How many are kept from clients.
    pub fn reserved(&self) -> u64 {
        self.reserved.get()
    }

    /// These pools are served. Returns what they need, where that is more than can be kept for them, each
    /// time that it changes.
    pub fn reserve(&self, pools: impl Iterator<Item = Sockets>, workers: usize) -> Option<u64> {
        let of_pool = |pool: Sockets| {
            let connections = workers as u64 * u64::from(pool.per_shard) * LANES;
            // And a probe of each.
            pool.shards as u64 * (connections + 1)
        };
        let needed = self.aside() + pools.map(of_pool).sum::<u64>();
        // Without clients it would be of no use at all.
        self.reserved.set(needed.min(self.limit / 2));
        let has_changed = self.needed.replace(needed) != needed;
        (has_changed && needed > self.limit / 2).then_some(needed)
    }

    /// Whether a client may have the descriptor with this number, for itself or for a connection of its own to a shard.
    pub fn admits(&self, number: u64) -> bool {
        number < self.limit - self.reserved.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_descriptors_are_for_clients_at_least() {
        let descriptors = Descriptors::new(256);
        assert_eq!(descriptors.reserve(std::iter::empty(), 4), None);
        assert!(descriptors.admits(159) && !descriptors.admits(160));
        let few = Descriptors::new(100);
        assert_eq!(few.reserve(std::iter::empty(), 4), Some(80));
        assert!(few.admits(49) && !few.admits(50));
        assert!(Descriptors::new(u64::MAX).admits(1 << 40));
    }

    #[test]
    fn connections_that_are_held_open_beside_the_pools_take_nothing_of_shards() {
        for limit in [128, 256, 1024, 65536, u64::MAX] {
            let descriptors = Descriptors::new(limit);
            descriptors.reserve(std::iter::empty(), 4);
            let beside = 2 * descriptors.side_connections();
            assert!(descriptors.reserved() - beside >= 32, "{limit}: {beside} of {}", descriptors.reserved());
        }
    }
}
