//! MD5 as a key hash and as the source of ketama's points.

use md5::{Digest, Md5};

pub(super) fn md5(key: &[u8]) -> u32 {
    digest_words(key)[0]
}

/// The MD5 digest of `bytes` as four little-endian words.
pub(crate) fn digest_words(bytes: &[u8]) -> [u32; 4] {
    let digest: [u8; 16] = Md5::digest(bytes).into();
    let (words, _) = digest.as_chunks::<4>();
    [0, 1, 2, 3].map(|word| u32::from_le_bytes(words[word]))
}
