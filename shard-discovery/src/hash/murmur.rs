//! MurmurHash2 by Austin Appleby (<https://github.com/aappleby/smhasher>, `MurmurHash2.cpp`), with the seed
//! libmemcached takes from the length of the key.

const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

pub(super) fn murmur(key: &[u8]) -> u32 {
    // The length counts modulo 2^32, as everything here does.
    let length = key.len() as u32;
    let mut hash = 0xdead_beef_u32.wrapping_mul(length) ^ length;
    let (blocks, tail) = key.as_chunks::<4>();
    for &block in blocks {
        let mut word = u32::from_le_bytes(block).wrapping_mul(MULTIPLIER);
        word ^= word >> SHIFT;
        word = word.wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ word;
    }
    if !tail.is_empty() {
        for (place, &byte) in tail.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * place);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}
