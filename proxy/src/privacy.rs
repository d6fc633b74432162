//! What is shown of the names of keys where requests are told of: in the slow log, the access log, lists of keys that are used much.
//!
//! A name that is not to be shown is replaced by a hash with a secret of this process, so that the same key can be recognized and
//! nobody can tell its name by trying names: who has not the secret cannot compute the hash. It is another one after a restart.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::OnceLock;

/// What is shown of the names of keys.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Privacy {
    /// The names.
    #[default]
    Shown,
    /// Hashes of them, and of what else a client has written only its size.
    HashedKeys,
}

impl Privacy {
    /// By its word in the table of settings.
    pub fn of(word: &str) -> Self {
        if word == "hash_keys" { Self::HashedKeys } else { Self::Shown }
    }

    /// What is shown of the name of a key.
    pub fn key(self, key: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Shown => Cow::Borrowed(key),
            Self::HashedKeys => Cow::Owned(hashed(key).into_bytes()),
        }
    }

    /// What is shown of an argument that is no key, and neither the name of a command.
    pub fn argument(self, argument: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Shown => Cow::Borrowed(argument),
            Self::HashedKeys => Cow::Owned(format!("({} bytes)", argument.len()).into_bytes()),
        }
    }
}

/// A hash of the name that takes the secret of this process.
pub fn hash(key: &[u8]) -> u64 {
    static SECRET: OnceLock<RandomState> = OnceLock::new();
    let mut hasher = SECRET.get_or_init(RandomState::new).build_hasher();
    // Not as a slice, which is hashed with its length.
    hasher.write(key);
    hasher.finish()
}

/// The same as it is shown: `#` and 16 digits.
pub fn hashed(key: &[u8]) -> String {
    shown(hash(key))
}

/// What is shown of a hash.
pub fn shown(hash: u64) -> String {
    format!("#{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_recognized_and_not_shown() {
        let (one, same, other) = (hashed(b"user:1"), hashed(b"user:1"), hashed(b"user:2"));
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert!(one.len() == 17 && one.starts_with('#') && !one.contains("user"), "{one}");
        assert_eq!(&*Privacy::HashedKeys.key(b"user:1"), one.as_bytes());
        assert_eq!(&*Privacy::HashedKeys.argument(b"value"), b"(5 bytes)");
        assert_eq!(&*Privacy::of("none").key(b"user:1"), b"user:1");
        assert_eq!(&*Privacy::of("none").argument(b"value"), b"value");
    }
}
