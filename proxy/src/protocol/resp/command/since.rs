//! Which servers know a command: Redis and Valkey part from 7.2 on, and number their versions on their own.

use std::fmt;

/// Which families of servers know a command, and since when, as they publish it: Valkey counts the versions of the
/// Redis that it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// The Redis version that brought it.
    pub redis: Option<Version>,
    /// The Valkey version that brought it.
    pub valkey: Option<Version>,
}

/// The three numbers of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub [u8; 3]);

impl Version {
    /// Whether it is this version or an earlier one.
    const fn is_by(self, other: Self) -> bool {
        let Self([major, minor, patch]) = self;
        let own = u32::from_be_bytes([0, major, minor, patch]);
        let Self([major, minor, patch]) = other;
        own <= u32::from_be_bytes([0, major, minor, patch])
    }

    /// Reads `7.4.0`; None for anything else.
    pub const fn parse(text: &str) -> Option<Self> {
        let (mut numbers, mut place, mut at) = ([0_u8; 3], 0, 0);
        while at < text.len() {
            match text.as_bytes()[at] {
                b'.' => place += 1,
                digit @ b'0'..=b'9' if place < 3 => numbers[place] = numbers[place] * 10 + (digit - b'0'),
                _ => return None,
            }
            at += 1;
        }
        if place == 2 { Some(Self(numbers)) } else { None }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, patch]) = self;
        write!(formatter, "{major}.{minor}.{patch}")
    }
}

/// All servers from this version on know what it knows: Redis and Valkey alike.
const EVERYWHERE: Version = Version([7, 0, 0]);

impl Since {
    /// Of a command that no row of ours has.
    pub const NOWHERE: Self = Self { redis: None, valkey: None };

    /// Whether no family is known to have it.
    pub fn is_nowhere(self) -> bool {
        self == Self::NOWHERE
    }

    /// Whether the servers that are about all know it: it came with 7.0 at the latest, before Valkey left.
    pub const fn is_everywhere(self) -> bool {
        match (self.redis, self.valkey) {
            (Some(redis), Some(valkey)) => redis.is_by(EVERYWHERE) && valkey.is_by(EVERYWHERE),
            _ => false,
        }
    }

    /// The version that clients are told: that of Redis, if it has the command.
    pub fn first(self) -> Version {
        self.redis.or(self.valkey).expect("a row is of some family")
    }
}

/// The versions of Redis and of Valkey that brought a command; empty where a family does not know it.
pub const fn since(redis: &str, valkey: &str) -> Since {
    let since = Since { redis: Version::parse(redis), valkey: Version::parse(valkey) };
    assert!(since.redis.is_some() || since.valkey.is_some(), "a row is of some family");
    since
}
