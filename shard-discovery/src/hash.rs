//! The twelve key hashes of Twemproxy, bit for bit as its x86-64 builds compute them.
//!
//! Several differ from the published algorithm of the same name; those differences decide where
//! existing keys live, so they are kept and explained where they occur.

mod bytewise;
mod crc;
mod hsieh;
mod jenkins;
mod md5;
mod murmur;

use std::fmt;
use std::str::FromStr;

pub(crate) use self::md5::digest_words;

/// Which function turns a key into the 32 bits a distribution works with (`hash:` in the configuration).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyHash {
    /// Bob Jenkins' one-at-a-time.
    OneAtATime,
    /// The first four bytes of the MD5 digest, little-endian.
    Md5,
    /// CRC-16/XMODEM in a register of 32 bits that is never masked.
    Crc16,
    /// Bits 16 to 30 of the IEEE CRC-32, as libmemcached has it: with ketama nearly all keys meet on one
    /// shard.
    Crc32,
    /// The IEEE CRC-32.
    Crc32a,
    /// The low half of 64-bit FNV-1.
    Fnv1_64,
    /// The low half of 64-bit FNV-1a; Twemproxy's default.
    #[default]
    Fnv1a64,
    /// 32-bit FNV-1.
    Fnv1_32,
    /// 32-bit FNV-1a.
    Fnv1a32,
    /// Paul Hsieh's SuperFastHash, started at 0.
    Hsieh,
    /// MurmurHash2.
    Murmur,
    /// Bob Jenkins' lookup3.
    Jenkins,
}

impl KeyHash {
    /// Every hash, in the order Twemproxy lists them.
    pub const ALL: [KeyHash; 12] = [
        KeyHash::OneAtATime,
        KeyHash::Md5,
        KeyHash::Crc16,
        KeyHash::Crc32,
        KeyHash::Crc32a,
        KeyHash::Fnv1_64,
        KeyHash::Fnv1a64,
        KeyHash::Fnv1_32,
        KeyHash::Fnv1a32,
        KeyHash::Hsieh,
        KeyHash::Murmur,
        KeyHash::Jenkins,
    ];

    /// The highest value there is: hashes are spread from 0 to here.
    pub(crate) fn highest(self) -> u32 {
        match self {
            KeyHash::Crc32 => 0x7fff,
            _ => u32::MAX,
        }
    }

    /// The hash of `key`. An empty key hashes to 0 whatever the function, because Twemproxy does not call
    /// it then.
    #[inline]
    pub fn hash(self, key: &[u8]) -> u32 {
        if key.is_empty() {
            return 0;
        }
        match self {
            KeyHash::OneAtATime => bytewise::one_at_a_time(key),
            KeyHash::Md5 => md5::md5(key),
            KeyHash::Crc16 => crc::crc16(key),
            KeyHash::Crc32 => crc::crc32(key),
            KeyHash::Crc32a => crc::crc32a(key),
            KeyHash::Fnv1_64 => bytewise::fnv1_64(key),
            KeyHash::Fnv1a64 => bytewise::fnv1a_64(key),
            KeyHash::Fnv1_32 => bytewise::fnv1_32(key),
            KeyHash::Fnv1a32 => bytewise::fnv1a_32(key),
            KeyHash::Hsieh => hsieh::hsieh(key),
            KeyHash::Murmur => murmur::murmur(key),
            KeyHash::Jenkins => jenkins::jenkins(key),
        }
    }

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            KeyHash::OneAtATime => "one_at_a_time",
            KeyHash::Md5 => "md5",
            KeyHash::Crc16 => "crc16",
            KeyHash::Crc32 => "crc32",
            KeyHash::Crc32a => "crc32a",
            KeyHash::Fnv1_64 => "fnv1_64",
            KeyHash::Fnv1a64 => "fnv1a_64",
            KeyHash::Fnv1_32 => "fnv1_32",
            KeyHash::Fnv1a32 => "fnv1a_32",
            KeyHash::Hsieh => "hsieh",
            KeyHash::Murmur => "murmur",
            KeyHash::Jenkins => "jenkins",
        }
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is none of [`KeyHash::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown hash {0:?}; it is one of {names}", names = KeyHash::ALL.map(KeyHash::name).join(", "))]
pub struct UnknownKeyHash(pub String);

impl FromStr for KeyHash {
    type Err = UnknownKeyHash;

    /// Exactly the names of the configuration, in lower case.
    fn from_str(name: &str) -> Result<KeyHash, UnknownKeyHash> {
        KeyHash::ALL.into_iter().find(|hash| hash.name() == name).ok_or_else(|| UnknownKeyHash(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apple_hashes_as_twemproxys_own_tests_say() {
        let published = [
            ("one_at_a_time", 2297466611),
            ("md5", 3195025439),
            ("crc16", 3662830516),
            ("crc32", 10542),
            ("crc32a", 2838417488),
            ("fnv1_32", 67176023),
            ("fnv1a_32", 280767167),
            ("fnv1_64", 473199127),
            ("fnv1a_64", 1488911807),
            ("hsieh", 3738850110),
            ("jenkins", 1442444624),
            ("murmur", 4142305122),
        ];
        assert_eq!(published.len(), KeyHash::ALL.len());
        for (name, expected) in published {
            assert_eq!(name.parse::<KeyHash>().unwrap().hash(b"apple"), expected, "{name}");
        }
    }

    #[test]
    fn an_empty_key_hashes_to_zero() {
        for hash in KeyHash::ALL {
            assert_eq!(hash.hash(b""), 0, "{hash}");
        }
    }

    #[test]
    fn names_are_read_back_and_others_refused() {
        for hash in KeyHash::ALL {
            assert_eq!(hash.to_string().parse(), Ok(hash));
        }
        let error = "MD5".parse::<KeyHash>().unwrap_err().to_string();
        assert!(error.starts_with("unknown hash \"MD5\"; it is one of one_at_a_time, md5,"), "{error}");
    }
}
