//! What is kept of passwords of users: their SHA-256, as in Redis' own files.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

/// Longest password that is looked at: whoever sends a longer one is not to cost the time of hashing it.
pub const PASSWORD_MAX: usize = 4096;
/// Bytes of a hash.
const BYTES: usize = 32;

/// The SHA-256 of a password. It does not show itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; BYTES]);

impl Hash {
    /// Of a password; none if that is longer than any.
    pub fn of(password: &[u8]) -> Option<Self> {
        if password.len() > PASSWORD_MAX {
            return None;
        }
        digest(&SHA256, password).as_ref().try_into().ok().map(Self)
    }

    /// As it is written: 64 digits in lower case.
    pub fn read(text: &[u8]) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut hash = [0; BYTES];
        if text.len() != 2 * BYTES {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(text.chunks(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(hash))
    }

    /// Whether it is one of these. How long this takes tells nothing but how many there are.
    pub fn is_among(&self, known: &[Self]) -> bool {
        known.iter().fold(false, |found, known| found | verify_slices_are_equal(&self.0, &known.0).is_ok())
    }

    /// Its digits: for those that may see the rules of users.
    pub fn digits(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Hash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_redis() {
        let digits = "30c952fab122c3f9759f02a6d95c3758b246b4fee239957b2d4fee46e26170c4";
        let hash = Hash::of(b"pw").expect("a hash");
        assert_eq!(hash.digits(), digits);
        assert_eq!(Hash::read(digits.as_bytes()), Some(hash));
        assert_eq!(Hash::read(digits.to_uppercase().as_bytes()), None);
        assert_eq!(Hash::read(&digits.as_bytes()[1..]), None);
        assert!(hash.is_among(&[Hash::of(b"").expect("one"), hash]) && !hash.is_among(&[]));
        assert_eq!(format!("{hash:?}"), "Hash(..)");
    }

    #[test]
    fn a_long_password_is_none() {
        assert!(Hash::of(&[b'x'; PASSWORD_MAX]).is_some());
        assert!(Hash::of(&[b'x'; PASSWORD_MAX + 1]).is_none());
    }
}
