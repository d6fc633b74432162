//! Finding a row by its name, once per request: the index is computed by the compiler, and a name is two machine words.

use super::commands::{COMMANDS, Command};

/// Finds a command by its name in any case; subcommands are found through their container.
///
/// On the path of every request, so it compares two words instead of the name where the name has up to 16 bytes.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    let (head, tail) = ends(name)?;
    let mut at = slot_of(head, tail);
    loop {
        let slot = &INDEX[at];
        if slot.row == NO_ROW {
            return None;
        }
        if slot.head == head && slot.tail == tail && usize::from(slot.length) == name.len() {
            let row = &COMMANDS[usize::from(slot.row)];
            // two words cover 16 bytes; the middle of longer names is compared
            if name.len() <= 16 || name.eq_ignore_ascii_case(row.name.as_bytes()) {
                return Some(row);
            }
        }
        at = (at + 1) % SLOTS;
    }
}

/// A power of two, four times as many as there are commands, so that most are found at once and unknown ones end soon.
const SLOTS: usize = 1024;
const NO_ROW: u16 = u16::MAX;

#[derive(Clone, Copy)]
struct Slot {
    /// The first and last bytes of the name, see [`ends`].
    head: u64,
    tail: u64,
    row: u16,
    length: u8,
}

static INDEX: [Slot; SLOTS] = index();

const fn index() -> [Slot; SLOTS] {
    let mut slots = [Slot { head: 0, tail: 0, row: NO_ROW, length: 0 }; SLOTS];
    let mut row = 0;
    while row < COMMANDS.len() {
        let name = COMMANDS[row].name.as_bytes();
        let Some((head, tail)) = ends(name) else { panic!("a command without a name") };
        let mut at = slot_of(head, tail);
        while slots[at].row != NO_ROW {
            at = (at + 1) % SLOTS;
        }
        slots[at] = Slot { head, tail, row: row as u16, length: name.len() as u8 };
        row += 1;
    }
    slots
}

const fn slot_of(head: u64, tail: u64) -> usize {
    // multiplication carries every byte into the topmost bits (multiplicative hashing, the golden ratio of 2^64)
    let mixed = (head ^ tail.rotate_left(23)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (u64::BITS - SLOTS.trailing_zeros())) as usize
}

/// The first and the last eight bytes in lower case; they overlap in names of less than 16 bytes, and names of less
/// than eight are the same twice. None: empty, or longer than any command.
#[inline]
const fn ends(name: &[u8]) -> Option<(u64, u64)> {
    if let (Some(first), Some(last)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        return Some((lower_case(u64::from_le_bytes(*first)), lower_case(u64::from_le_bytes(*last))));
    }
    let mut word = 0;
    let mut at = 0;
    while at < name.len() {
        word |= (name[at] as u64) << (8 * at);
        at += 1;
    }
    if at == 0 {
        return None;
    }
    let word = lower_case(word);
    Some((word, word))
}

/// Lower case of eight bytes at once; bytes that are no ASCII capitals stay.
const fn lower_case(bytes: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xFF;
    let low = bytes & (ONES * 0x7F);
    // the topmost bit of each byte tells whether its lower seven bits are at least 'A', and above 'Z'
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let above_z = low + ONES * (0x7F - b'Z' as u64);
    let capital = from_a & !above_z & !bytes & (ONES * 0x80);
    bytes | (capital >> 2)
}
