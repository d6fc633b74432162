//! What is watched on a private connection, for the client that has it.

use std::collections::HashSet;

/// Bytes of keys that are remembered for one client. Beyond it nobody knows whether they have moved.
const KEYS_BYTES_MAX: usize = 16 * 1024;
/// What one takes beside its bytes.
const KEY_BYTES: usize = 2 * size_of::<Box<[u8]>>();

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The shard is asked to watch keys. Nothing else of the client is in flight.
    Asked,
    /// It has refused.
    Refused,
    /// It does.
    Held,
    /// It may not know of all that happens to the keys.
    Unsure,
    /// What they guard is on its way. Nothing else of the client is in flight.
    Spent,
    /// That was refused.
    SpentInVain,
}

/// Keys that are watched.
#[derive(Debug)]
pub struct Watch {
    /// How far it is.
    pub stage: Stage,
    keys: HashSet<Box<[u8]>>,
    /// Memory that they take.
    bytes: usize,
    /// So many more are not remembered.
    others: usize,
    /// The topology has changed since: those may have moved.
    is_outdated: bool,
}

impl Watch {
    /// The shard is about to be asked for the first time.
    pub fn new() -> Self {
        Self { stage: Stage::Asked, keys: HashSet::new(), bytes: 0, others: 0, is_outdated: false }
    }

    /// One more key.
    pub fn add(&mut self, key: &[u8]) {
        if self.keys.contains(key) {
            return;
        }
        let bytes = self.bytes + key.len() + KEY_BYTES;
        if self.others > 0 || bytes > KEYS_BYTES_MAX {
            self.others += 1;
            return;
        }
        self.bytes = bytes;
        self.keys.insert(key.into());
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.keys.len() + self.others
    }

    /// There is another topology.
    pub fn topology_changed(&mut self) {
        self.is_outdated |= self.others > 0;
    }

    /// Whether all of them are of the shard that was asked, which owned them as it was. `is_own` says whether a key is by the present
    /// topology; where not all are remembered no other one may have come since.
    pub fn is_owned(&self, is_own: impl Fn(&[u8]) -> bool) -> bool {
        !self.is_outdated && self.keys.iter().all(|key| is_own(key))
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_each_key_counts_once() {
        let mut watch = Watch::new();
        for key in [&b"a"[..], b"b", b"a"] {
            watch.add(key);
        }
        watch.topology_changed();
        assert_eq!(watch.count(), 2);
        assert!(watch.is_owned(|_| true) && !watch.is_owned(|key| key == b"a"));
        for number in 0..10_000 {
            watch.add(format!("key:{number}").as_bytes());
        }
        assert!(watch.count() == 10_002 && watch.is_owned(|_| true));
        watch.topology_changed();
        assert!(!watch.is_owned(|_| true), "nobody knows");
        assert!(watch.bytes() < 2 * KEYS_BYTES_MAX);
    }
}
