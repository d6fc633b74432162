//! Hashes that take one byte at a time: Jenkins' one-at-a-time and the FNV family
//! (Fowler, Noll, Vo: <http://www.isthe.com/chongo/tech/comp/fnv/>).

/// Twemproxy reads keys as C `char`, which is signed on x86-64: bytes from 0x80 on flip the upper 24 bits.
/// For ASCII this is the published algorithm.
fn signed(byte: u8) -> u32 {
    byte.cast_signed() as u32
}

pub(super) fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = 0u32;
    for &byte in key {
        hash = hash.wrapping_add(signed(byte));
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

/// The low halves of the 64-bit offset basis and prime. Multiplication carries only upwards, so the low
/// half of the 64-bit hash needs no more than this.
const BASIS_64: u32 = 0x8422_2325;
const PRIME_64: u32 = 0x0000_01b3;

const BASIS_32: u32 = 2_166_136_261;
const PRIME_32: u32 = 16_777_619;

pub(super) fn fnv1_64(key: &[u8]) -> u32 {
    fnv1(BASIS_64, PRIME_64, key)
}

pub(super) fn fnv1a_64(key: &[u8]) -> u32 {
    fnv1a(BASIS_64, PRIME_64, key)
}

pub(super) fn fnv1_32(key: &[u8]) -> u32 {
    fnv1(BASIS_32, PRIME_32, key)
}

pub(super) fn fnv1a_32(key: &[u8]) -> u32 {
    fnv1a(BASIS_32, PRIME_32, key)
}

#[inline(always)]
fn fnv1(basis: u32, prime: u32, key: &[u8]) -> u32 {
    key.iter().fold(basis, |hash, &byte| hash.wrapping_mul(prime) ^ signed(byte))
}

#[inline(always)]
fn fnv1a(basis: u32, prime: u32, key: &[u8]) -> u32 {
    key.iter().fold(basis, |hash, &byte| (hash ^ signed(byte)).wrapping_mul(prime))
}
