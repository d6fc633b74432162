//! The part of a key between two marks, so that related keys share a shard.

use std::fmt;
use std::str::FromStr;

use memchr::memchr;

/// Two bytes that enclose the part of a key to hash, such as `{}` or `$$`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashTag {
    /// The byte before the tag.
    pub open: u8,
    /// The byte after it; may equal `open`.
    pub close: u8,
}

impl HashTag {
    /// The tag of Redis Cluster, which follows the same rule.
    pub const REDIS_CLUSTER: HashTag = HashTag { open: b'{', close: b'}' };

    /// The bytes of `key` that are hashed: those between the first `open` and the first `close` after it,
    /// or the whole key when either is missing or nothing is between them. There is no second try:
    /// `{}{b}` is hashed whole.
    #[inline]
    pub fn hashed_part<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        let Some(before) = memchr(self.open, key) else { return key };
        let rest = &key[before + 1..];
        match memchr(self.close, rest) {
            Some(length) if length > 0 => &rest[..length],
            _ => key,
        }
    }
}

impl fmt::Display for HashTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", [self.open, self.close].escape_ascii())
    }
}

/// A hash tag that is not exactly two bytes long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hash tag {0:?} has {len} bytes; it needs exactly two, such as \"{{}}\"", len = .0.len())]
pub struct HashTagLength(pub String);

impl FromStr for HashTag {
    type Err = HashTagLength;

    fn from_str(text: &str) -> Result<HashTag, HashTagLength> {
        match *text.as_bytes() {
            [open, close] => Ok(HashTag { open, close }),
            _ => Err(HashTagLength(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tag: &str, key: &str, part: &str) {
        let tag: HashTag = tag.parse().unwrap();
        assert_eq!(tag.hashed_part(key.as_bytes()), part.as_bytes(), "{key}");
    }

    #[test]
    fn only_the_first_complete_tag_counts() {
        check("{}", "user:{1000}:name", "1000");
        check("{}", "a}{b}", "b");
        check("{}", "{a}{b}", "a");
        check("{}", "{{b}}", "{b");
        check("$$", "a$b$c", "b");
    }

    #[test]
    fn an_empty_or_open_tag_leaves_the_whole_key() {
        for key in ["", "abc", "{}{b}c", "a{}{b}", "a{b", "ab}", "}{"] {
            check("{}", key, key);
        }
        check("$$", "a$$b$", "a$$b$");
        check("$$", "a$", "a$");
    }

    #[test]
    fn a_tag_is_two_bytes() {
        let error = "{".parse::<HashTag>().unwrap_err();
        assert_eq!(error.to_string(), "hash tag \"{\" has 1 bytes; it needs exactly two, such as \"{}\"");
        assert!("{}}".parse::<HashTag>().is_err());
        assert_eq!("{}".parse::<HashTag>().unwrap().to_string(), "{}");
    }
}
