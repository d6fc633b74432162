//! Prefixes of keys that share one shard whatever their hashes, for applications that cannot be given a hash tag.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::shard::{check_name, quoted};

/// A lookup costs the logarithm of their number for each key; more are a mistake, not a way to place keys.
const PINS_MAX: usize = 1_000;
const PREFIX_MAX: usize = 250;

/// Where the keys with a prefix go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinTarget {
    /// To the shard of this name. While it is ejected they go together to whoever owns their prefix as a hash tag.
    Shard(String),
    /// To the shard that owns this hash tag, with all keys that have the tag; written in braces.
    Tag(String),
}

/// One prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// What the keys begin with; not empty.
    pub prefix: String,
    /// Where they go.
    pub target: PinTarget,
    /// The longest other prefix that this one begins with.
    parent: Option<usize>,
}

/// All prefixes of a pool, in the order of their bytes. The longest that a key begins with counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins(Arc<[Pin]>);

/// Why a prefix cannot be pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Too many of them.
    #[error("{0} prefixes are more than {PINS_MAX}")]
    TooMany(usize),
    /// It would mean all keys, or is no prefix that anybody wants.
    #[error("prefix {} cannot be pinned: allowed are 1 to {PREFIX_MAX} bytes", quoted(.0))]
    Prefix(String),
    /// It stands there already.
    #[error("prefix {} is pinned twice", quoted(.0))]
    Twice(String),
    /// Neither the name of a shard nor a hash tag.
    #[error("prefix {}: {} is neither the name of a shard nor a hash tag in braces such as \"{{user}}\": {allowed}", quoted(.prefix), quoted(.target))]
    Target {
        /// The prefix.
        prefix: String,
        /// What stands there.
        target: String,
        /// What is allowed.
        allowed: String,
    },
}

impl FromStr for PinTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some("") => Err("the tag is empty".into()),
            Some(tag) if tag.len() > PREFIX_MAX => Err(format!("a tag has at most {PREFIX_MAX} bytes")),
            Some(tag) => Ok(Self::Tag(tag.into())),
            None => check_name(text).map(|()| Self::Shard(text.into())),
        }
    }
}

impl fmt::Display for PinTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shard(name) => formatter.write_str(name),
            Self::Tag(tag) => write!(formatter, "{{{tag}}}"),
        }
    }
}

impl Pins {
    /// Prefixes with what is written as their targets, in any order.
    ///
    /// # Errors
    /// See [`PinError`].
    pub fn new<'t>(written: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<Self, PinError> {
        let mut pins = Vec::new();
        for (prefix, target) in written {
            if !(1..=PREFIX_MAX).contains(&prefix.len()) {
                return Err(PinError::Prefix(prefix.into()));
            }
            let target = target.parse().map_err(|allowed| PinError::Target {
                prefix: prefix.into(),
                target: target.into(),
                allowed,
            })?;
            pins.push(Pin { prefix: prefix.to_owned(), target, parent: None });
        }
        if pins.len() > PINS_MAX {
            return Err(PinError::TooMany(pins.len()));
        }
        pins.sort_by(|one, other| one.prefix.cmp(&other.prefix));
        if let Some(twice) = pins.windows(2).find(|two| two[0].prefix == two[1].prefix) {
            return Err(PinError::Twice(twice[0].prefix.clone()));
        }
        Ok(Self::linked(pins))
    }

    /// In order, none twice.
    fn linked(mut pins: Vec<Pin>) -> Self {
        for index in 0..pins.len() {
            pins[index].parent = Self::longest(&pins[..index], pins[index].prefix.as_bytes());
        }
        Self(pins.into())
    }

    /// Whether no key is pinned.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of their bytes.
    pub fn iter(&self) -> impl Iterator<Item = &Pin> {
        self.0.iter()
    }

    /// Those that name none of these shards.
    #[must_use]
    pub fn without_shards(&self, names: &[String]) -> Self {
        let is_named = |pin: &&Pin| matches!(&pin.target, PinTarget::Shard(name) if names.contains(name));
        if !self.iter().any(|pin| is_named(&pin)) {
            return self.clone();
        }
        Self::linked(self.iter().filter(|pin| !is_named(pin)).cloned().collect())
    }

    /// The pin with exactly this prefix.
    pub fn get(&self, prefix: &str) -> Option<&Pin> {
        let at = self.0.binary_search_by(|pin| pin.prefix.as_str().cmp(prefix)).ok()?;
        Some(&self.0[at])
    }

    /// Index of the pin that counts for `key`.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<usize> {
        if self.0.is_empty() { None } else { Self::longest(&self.0, key) }
    }

    pub(crate) fn at(&self, index: usize) -> &Pin {
        &self.0[index]
    }

    /// Whatever sorts between a prefix of the key and the key begins with that prefix too. So the prefixes of the key
    /// are among the parents of the last that does not sort behind it.
    fn longest(pins: &[Pin], key: &[u8]) -> Option<usize> {
        let mut at = pins.partition_point(|pin| pin.prefix.as_bytes() <= key).checked_sub(1);
        while let Some(index) = at {
            if key.starts_with(pins[index].prefix.as_bytes()) {
                break;
            }
            at = pins[index].parent;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts() {
        let written = [("ab", "s1"), ("a", "s0"), ("abcd", "s2"), ("abd", "s3"), ("rq:", "{jobs}")];
        let pins = Pins::new(written).unwrap();
        let found = |key: &str| pins.find(key.as_bytes()).map(|at| pins.at(at).target.to_string());
        for (key, target) in [
            ("", None),
            ("b", None),
            ("a", Some("s0")),
            ("ac", Some("s0")),
            ("ab", Some("s1")),
            ("abcc", Some("s1")),
            ("abcd", Some("s2")),
            ("abcde", Some("s2")),
            ("abce", Some("s1")),
            ("abdx", Some("s3")),
            ("rq", None),
            ("rq:queue", Some("{jobs}")),
            ("rqz", None),
        ] {
            assert_eq!(found(key).as_deref(), target, "{key}");
        }
    }

    #[test]
    fn those_of_some_shards_can_be_left_out() {
        let pins = Pins::new([("a", "s0"), ("ab", "s1"), ("abc", "{s1}")]).unwrap();
        let fewer = pins.without_shards(&["s1".into(), "s9".into()]);
        assert_eq!(fewer, Pins::new([("a", "s0"), ("abc", "{s1}")]).unwrap());
        assert_eq!(fewer.find(b"abx"), Some(0));
        assert_eq!(pins.without_shards(&["s9".into()]), pins);
    }

    #[test]
    fn it_is_what_a_look_at_all_prefixes_finds() {
        // All words of up to four letters of two, some of them pinned.
        let words: Vec<String> = (1..=4_u32)
            .flat_map(|length| (0..1_u32 << length).map(move |bits| (length, bits)))
            .map(|(length, bits)| (0..length).map(|at| if bits >> at & 1 == 0 { 'a' } else { 'b' }).collect())
            .collect();
        for seed in 0..500_u64 {
            let is_pinned = |at: usize| (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (at % 60) & 3 == 0;
            let chosen: Vec<&str> =
                words.iter().enumerate().filter(|(at, _)| is_pinned(*at)).map(|(_, word)| &**word).collect();
            let pins = Pins::new(chosen.iter().map(|prefix| (*prefix, "s"))).unwrap();
            for key in &words {
                let longest = chosen
                    .iter()
                    .filter(|prefix| key.starts_with(**prefix))
                    .max_by_key(|prefix| prefix.len());
                let found = pins.find(key.as_bytes()).map(|at| pins.at(at).prefix.as_str());
                assert_eq!(found, longest.copied(), "{key} of {chosen:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_pinned_is_told() {
        let long = "p".repeat(251);
        for (prefix, target, told) in [
            ("", "s", "prefix \"\" cannot be pinned: allowed are 1 to 250 bytes"),
            (&*long, "s", "cannot be pinned: allowed are 1 to 250 bytes"),
            (
                "p:",
                "{}",
                "\"{}\" is neither the name of a shard nor a hash tag in braces such as \"{user}\": the tag is empty",
            ),
            ("p:", "", "prefix \"p:\": \"\" is neither"),
        ] {
            let error = Pins::new([(prefix, target)]).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let twice = Pins::new([("p:", "a"), ("q", "a"), ("p:", "b")]).unwrap_err();
        assert_eq!(twice.to_string(), "prefix \"p:\" is pinned twice");
        let names: Vec<String> = (0..1_001).map(|number| number.to_string()).collect();
        let many = Pins::new(names.iter().map(|name| (&**name, "s"))).unwrap_err();
        assert_eq!(many, PinError::TooMany(1_001));
    }
}
