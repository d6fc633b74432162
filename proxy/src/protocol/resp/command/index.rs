//! Finding a row by its name, once per request: the index is computed by the compiler, and a name is two machine words.

use super::Command;
use super::table::COMMANDS;

/// Finds a command by its name in any case; subcommands are found through their container.
///
/// On the path of every request, so it compares two words instead of the name where the name has up to 16 bytes.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Command<'static>> {
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

/// A power of two, three times as many as there are commands, so that most are found at once and unknown ones end soon.
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
    let mixed = (head ^ tail.rotate_left(22)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name_in_any_case() {
        for row in &COMMANDS {
            let mixed = row
                .name
                .char_indices()
                .map(|(at, letter)| if at % 2 == 0 { letter.to_ascii_uppercase() } else { letter });
            for name in [row.name.to_owned(), row.name.to_ascii_uppercase(), mixed.collect()] {
                let found = lookup(name.as_bytes());
                assert!(found.is_some_and(|found| std::ptr::eq(found, row)), "{name}");
            }
        }
    }

    #[test]
    fn one_byte_more_less_or_different_is_another_command() {
        let names: Vec<_> = COMMANDS.iter().map(|row| row.name.as_bytes()).collect();
        for name in &names {
            for at in 0..name.len() {
                let mut shorter = name.to_vec();
                shorter.remove(at);
                for byte in 0..=u8::MAX {
                    let mut changed = name.to_vec();
                    changed[at] = byte;
                    let mut longer = name.to_vec();
                    longer.insert(at, byte);
                    for other in [&changed, &longer, &shorter] {
                        let lower = other.to_ascii_lowercase();
                        let known = names.contains(&&lower[..]);
                        assert_eq!(lookup(other).is_some(), known, "{}", other.escape_ascii());
                    }
                }
            }
        }
    }

    #[test]
    fn unknown_and_odd_names_are_not_found() {
        for name in [&b""[..], b"nosuch", b"get ", b" get", b"g\0t", b"get\0", b"\xC7ET", b"object|encoding"]
        {
            assert!(lookup(name).is_none(), "{}", name.escape_ascii());
        }
        assert!(lookup(&b"x".repeat(100_000)).is_none());
        // the same first and last eight bytes and the same length as a known name
        assert!(lookup(b"georadiusbymember").is_some());
        assert!(lookup(b"georadiuXbymember").is_none());
    }

    #[test]
    fn no_name_is_far_from_its_slot() {
        let far = COMMANDS.iter().map(|row| {
            let (head, tail) = ends(row.name.as_bytes()).expect("it has a name");
            let at = INDEX
                .iter()
                .position(|slot| slot.row != NO_ROW && COMMANDS[usize::from(slot.row)].name == row.name);
            (at.expect("it is in the index") + SLOTS - slot_of(head, tail)) % SLOTS
        });
        let farthest = far.max().expect("there are commands");
        assert!(farthest <= 8, "a name is {farthest} slots away: double SLOTS");
    }

    #[test]
    fn lower_case_is_that_of_ascii_for_every_byte_in_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                for around in [0, 0x41, 0x5B, 0x7F, 0x80, 0xFF] {
                    let mut bytes = [around; 8];
                    bytes[place] = byte;
                    let expected = u64::from_le_bytes(bytes.map(|byte| byte.to_ascii_lowercase()));
                    assert_eq!(lower_case(u64::from_le_bytes(bytes)), expected, "{bytes:x?}");
                }
            }
        }
    }
}
