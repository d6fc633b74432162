//! Where a scan over all shards is: one number, from which any process goes on that has the same shards.
//!
//! ```text
//!   the shard's own cursor | check, 16 bits | place of the shard, as many bits as places need
//! ```
//!
//! The check is of the list of shards and of the process of the shard that has given its cursor: another process has its keys in
//! another order, and its cursor would lead past some of them. A number is below 2^53, which every client can read, as long as
//! the table of a shard has fewer places than about 2^37 divided by the number of shards, and below 2^64 in any case.

/// Why a number leads nowhere.
pub const STALE: &str = "the SCAN cursor is from before a change of the shards; start again with 0";

const CHECK_BITS: u32 = 16;

/// The shards that are scanned, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    /// Tells the list of shards from another one.
    fingerprint: u32,
    shards: u16,
    /// Keys may have moved on the way: behind the last shard it is asked whether some have.
    checks_end: bool,
}

/// Where a scan is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Number of the shard; that of all shards at the end, where nothing is left but to ask whether keys have moved.
    pub place: u16,
    check: u16,
    /// The shard's own cursor; 0 at its beginning.
    pub cursor: u64,
}

/// One request to one shard, as far as its response is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    walk: Walk,
    place: u16,
    check: u16,
    is_first: bool,
    is_only_shard: bool,
}

/// What is asked next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// One shard has to name keys.
    Page(Page),
    /// All have to say what they own: together that, as [`digest`] has it.
    End {
        /// The digests of all, one upon the other.
        owned: u32,
    },
}

impl Walk {
    /// Over so many shards of the list with this fingerprint. None where nothing can be walked over.
    pub fn new(shards: usize, fingerprint: u32, checks_end: bool) -> Option<Self> {
        let shards = u16::try_from(shards).ok().filter(|&shards| shards > 0)?;
        Some(Self { fingerprint, shards, checks_end })
    }

    fn place_bits(self) -> u32 {
        u32::from(self.shards).ilog2() + 1
    }

    /// What the number means; none if it is none of this walk.
    pub fn read(self, number: u64) -> Option<Position> {
        if number == 0 {
            return Some(Position { place: 0, check: self.check(b""), cursor: 0 });
        }
        let bits = self.place_bits();
        let place = (number & ((1 << bits) - 1)) as u16;
        let position =
            Position { place, check: (number >> bits) as u16, cursor: number >> (bits + CHECK_BITS) };
        let is_known = match position.cursor {
            0 => {
                let is_place =
                    place > 0 && (place < self.shards || (place == self.shards && self.checks_end));
                is_place && position.check == self.check(b"")
            }
            _ => place < self.shards,
        };
        is_known.then_some(position)
    }

    fn write(self, Position { place, check, cursor }: Position) -> Option<u64> {
        let bits = self.place_bits();
        let high = cursor.checked_mul(1 << (bits + CHECK_BITS))?;
        Some(high | u64::from(check) << bits | u64::from(place))
    }

    /// Of this list of shards and a process of one.
    fn check(self, process: &[u8]) -> u16 {
        // FNV-1a
        let all = self.fingerprint.to_le_bytes();
        let hash = all.iter().chain(process).fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        (hash ^ (hash >> 16) ^ (hash >> 32) ^ (hash >> 48)) as u16
    }

    /// The request at this position; where `is_only_shard`, no other shard has what is looked for.
    pub fn page(self, position: Position, is_only_shard: bool) -> Page {
        let Position { place, check, cursor } = position;
        Page { walk: self, place, check, is_first: cursor == 0, is_only_shard }
    }
}

impl Page {
    /// The shard's own cursor in the number that its client has given; none at its beginning, wherever the scan is.
    pub fn cursor_in(self, number: u64) -> u64 {
        self.walk.read(number).map_or(0, |position| position.cursor)
    }

    /// Whether this process of the shard can go on from where its client is.
    pub fn is_of(self, process: &[u8]) -> bool {
        self.is_first || self.check == self.walk.check(process)
    }

    /// The number for the client behind this page, where the shard itself goes on from `cursor`. None if that cannot be written.
    pub fn next(self, cursor: u64, process: &[u8]) -> Option<u64> {
        let Walk { shards, checks_end, .. } = self.walk;
        let (place, process) = match cursor {
            0 if self.is_only_shard => (shards, &b""[..]),
            0 => (self.place + 1, &b""[..]),
            _ => (self.place, process),
        };
        if place == shards && !checks_end {
            return Some(0);
        }
        self.walk.write(Position { place, check: self.walk.check(process), cursor })
    }
}

/// Of what one node of a cluster owns, in its own words.
pub fn digest(slots: &str) -> u32 {
    // FNV-1a
    slots.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cursors that each shard of a walk gives, until the walk ends.
    fn walk(walk: Walk, cursors: &[&[u64]]) -> Vec<(u16, u64)> {
        let (mut number, mut pages) = (0, Vec::new());
        loop {
            let position = walk.read(number).expect("a number of this walk");
            if usize::from(position.place) == cursors.len() {
                return pages;
            }
            let page = walk.page(position, false);
            assert_eq!(page.cursor_in(number), position.cursor);
            assert!(page.is_of(b"process"));
            pages.push((position.place, position.cursor));
            let of_shard = cursors[usize::from(position.place)];
            let next = match of_shard.iter().position(|&cursor| cursor == position.cursor) {
                None => of_shard.first(),
                Some(at) => of_shard.get(at + 1),
            };
            number = page.next(next.copied().unwrap_or(0), b"process").expect("it can be written");
            if number == 0 {
                return pages;
            }
        }
    }

    #[test]
    fn every_page_of_every_shard_is_walked_once() {
        for checks_end in [false, true] {
            let shards = Walk::new(4, 77, checks_end).expect("four shards");
            let pages = walk(shards, &[&[5, 1 << 30, 3], &[], &[1], &[9, 2]]);
            let expected =
                [(0, 0), (0, 5), (0, 1 << 30), (0, 3), (1, 0), (2, 0), (2, 1), (3, 0), (3, 9), (3, 2)];
            assert_eq!(pages, expected);
        }
    }

    #[test]
    fn numbers_are_read_as_they_were_written_and_stay_small() {
        for shards in [1, 2, 3, 4, 100, 1_000, u16::MAX as usize] {
            let walk = Walk::new(shards, 1, true).expect("some shards");
            for place in [0, shards / 2, shards - 1] {
                let position = Position { place: place as u16, check: walk.check(b""), cursor: 0 };
                for bit in 0..64 {
                    let page = walk.page(position, false);
                    let cursor = 1 << bit;
                    match page.next(cursor, b"process") {
                        Some(number) => {
                            let read = walk.read(number).expect("a number of this walk");
                            assert_eq!((usize::from(read.place), read.cursor), (place, cursor));
                            assert!(walk.page(read, false).is_of(b"process"));
                            assert!(bit >= 21 || number < 1 << 53, "{shards} {bit} {number}");
                        }
                        None => assert!(bit >= 64 - 16 - 16, "{shards} {bit}"),
                    }
                }
            }
        }
        let three = Walk::new(3, 1, false).expect("some shards");
        let page = three.page(three.read(0).expect("the beginning"), false);
        assert!(page.next((1 << 35) - 1, b"process").expect("a number") < 1 << 53);
        assert_eq!(page.next(1 << 46, b"process"), None, "nothing is lost in silence");
    }

    #[test]
    fn a_number_of_other_shards_or_of_another_process_leads_nowhere() {
        let (before, after) = (Walk::new(3, 1, false), Walk::new(3, 2, false));
        let (before, after) = (before.expect("some shards"), after.expect("some shards"));
        let page = before.page(before.read(0).expect("the beginning"), false);
        let within = page.next(5, b"process").expect("a number");
        let between = page.next(0, b"process").expect("a number");
        assert_eq!(after.read(between), None);
        let position = after.read(within).expect("that shows when the shard has answered");
        assert!(!after.page(position, false).is_of(b"process"));
        let position = before.read(within).expect("a number of this walk");
        assert!(!before.page(position, false).is_of(b"another"));
        assert!(before.page(position, false).is_of(b"process"));
        assert!(page.is_of(b"any"), "at its beginning any process will do");
        assert_eq!(before.read(3), None, "nobody has given that");
        assert_eq!(before.read(u64::MAX), None);
    }

    #[test]
    fn where_one_shard_has_all_the_scan_ends_with_it() {
        for (checks_end, is_over) in [(false, true), (true, false)] {
            let walk = Walk::new(3, 1, checks_end).expect("some shards");
            let first = walk.read(0).expect("the beginning");
            let page = walk.page(Position { place: 1, ..first }, true);
            let next = page.next(0, b"process").expect("a number");
            assert_eq!(next == 0, is_over);
            assert!(is_over || walk.read(next).expect("the end").place == 3);
        }
    }
}
