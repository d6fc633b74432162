//! The CRCs, computed by the `crc` crate and put together as Twemproxy has them.

use crc::{CRC_16_XMODEM, CRC_32_ISO_HDLC, Crc};

const XMODEM: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
const IEEE: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// CRC-16/XMODEM whose 32-bit register is shifted but never masked. The low half is the true CRC; the high
/// half is what was shifted out: the upper bytes of the true CRCs one and two bytes before the end.
pub(super) fn crc16(key: &[u8]) -> u32 {
    let (head, last_two) = key.split_at(key.len().saturating_sub(2));
    let mut register = u32::from(XMODEM.checksum(head));
    for byte in last_two {
        let mut step = XMODEM.digest_with_initial(register as u16);
        step.update(std::slice::from_ref(byte));
        register = (register << 8) & 0xffff_0000 | u32::from(step.finalize());
    }
    register
}

/// libmemcached's `crc32`: 15 bits from the middle of the CRC-32.
pub(super) fn crc32(key: &[u8]) -> u32 {
    (crc32a(key) >> 16) & 0x7fff
}

/// The IEEE CRC-32 of zlib.
pub(super) fn crc32a(key: &[u8]) -> u32 {
    IEEE.checksum(key)
}
