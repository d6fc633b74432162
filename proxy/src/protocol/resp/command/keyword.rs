//! The words that keys stand behind, also those that a shard has told of: kept in place, so that a key spec owns nothing.

use std::fmt;

/// A word that keys stand behind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Keyword {
    bytes: [u8; Self::MAX],
    length: u8,
}

impl Keyword {
    /// Bytes of the longest.
    pub const MAX: usize = 15;

    /// One in the table.
    pub const fn new(word: &'static str) -> Self {
        match Self::read(word.as_bytes()) {
            Some(word) => word,
            None => panic!("the word is too long"),
        }
    }

    /// One that a shard has told of; none if there is no room for it.
    pub const fn read(word: &[u8]) -> Option<Self> {
        if word.is_empty() || word.len() > Self::MAX {
            return None;
        }
        let (mut bytes, mut at) = ([0; Self::MAX], 0);
        while at < word.len() {
            bytes[at] = word[at];
            at += 1;
        }
        Some(Self { bytes, length: word.len() as u8 })
    }

    /// The word.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for Keyword {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}
