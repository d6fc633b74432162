//! Placement told to people: why a key is where it is, and how much each shard owns.

use crate::pins::Pin;

/// The way of one key, step by step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation<'k> {
    /// The bytes that were hashed.
    pub hashed: &'k [u8],
    /// Whether `hashed` is what the hash tag encloses and not the whole key.
    pub by_tag: bool,
    /// The prefix that decides where the key goes, if it begins with one: then `hashed` is the pin's tag, or the prefix
    /// while its shard is ejected; or nothing is hashed, as `place` says.
    pub pin: Option<&'k Pin>,
    /// Its hash; 0 for an empty key, and where the key decides nothing: `random`, `single`, and a ketama or
    /// modula pool of one shard.
    pub hash: u32,
    /// Where the hash falls; `None` where it decides nothing: `random`, `single`, or every shard ejected.
    pub place: Option<Place>,
    /// Index of the shard that owns the key; `None` when every shard is ejected and for `random`, where no
    /// shard owns a key.
    pub shard: Option<usize>,
}

/// Where a hash falls in its distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The value of the point on the ketama ring that owns the hash.
    Point(u32),
    /// The slot, of 16,384 for `slots` and of the sum of the live weights for `modula`.
    Slot(u32),
}

/// What one shard owns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Index of the shard.
    pub shard: usize,
    /// Its points on the ring, or its slots; 1 for `random` and `single`.
    pub points: usize,
    /// Its part of all hashes (of all slots for `slots`), 0 to 1. Keys follow it as far as the key hash
    /// spreads them; `crc32` does not.
    pub share: f64,
}
