//! Which libraries of functions clients have deleted through this process, so that none is brought back to a shard that has lost all
//! of them.
//!
//! A shard may have missed that a library was deleted, because it was down, and another one that comes back empty is given what the
//! others have. What is deleted is remembered as the request is sent, which harms nobody where it is refused: a library is only not brought. A library
//! of the same name that is loaded later may be refused as well, and then what was deleted is not to come in its stead: it is known by
//! its code what was loaded since.
//!
//! Pools over the same shards have one book, because a library is deleted through any of them for all.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many names are remembered; the oldest go first.
const NAMES_MAX: usize = 256;
/// A longer name is not remembered.
const NAME_MAX: usize = 128;
/// So many codes are remembered that were loaded under a name; the oldest go first.
const CODES_MAX: usize = 8;
/// So much of a code tells it from others, beside its length.
const CODE_MAX: usize = 256 << 10;

/// What a request changes about the libraries that shards have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LibraryChange<'n> {
    /// There is one of this name with this code, unless that is refused.
    Loaded(&'n [u8], &'n [u8]),
    /// There is none of this name any more.
    Deleted(&'n [u8]),
    /// There is none at all any more.
    AllDeleted,
    /// There may be any.
    Any,
}

/// What is remembered.
#[derive(Default, Debug)]
pub struct Libraries(Mutex<Changes>);

#[derive(Default, Debug)]
struct Changes {
    /// How many there were.
    number: u64,
    /// All were deleted. Then those are known that have come since, else those that were deleted.
    is_flushed: bool,
    known: VecDeque<Library>,
}

/// A library that was deleted.
#[derive(Debug)]
struct Library {
    name: Box<[u8]>,
    /// What has come since under its name, by hashes.
    codes: VecDeque<u64>,
}

impl Libraries {
    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request for this is on its way to the shards.
    pub fn note(&self, change: LibraryChange<'_>) {
        let mut changes = self.changes();
        changes.number += 1;
        let Changes { is_flushed, known, .. } = &mut *changes;
        match change {
            LibraryChange::Loaded(name, code) => {
                let is_known = known.iter().any(|library| *library.name == *name);
                if !is_known && *is_flushed {
                    put(known, name);
                }
                let Some(library) = known.iter_mut().find(|library| *library.name == *name) else { return };
                let code = hash(code);
                library.codes.retain(|known| *known != code);
                if library.codes.len() >= CODES_MAX {
                    library.codes.pop_front();
                }
                library.codes.push_back(code);
            }
            LibraryChange::Deleted(name) if *is_flushed => known.retain(|library| *library.name != *name),
            LibraryChange::Deleted(name) => put(known, name),
            LibraryChange::AllDeleted | LibraryChange::Any => {
                known.clear();
                *is_flushed = change == LibraryChange::AllDeleted;
            }
        }
    }

    /// How many changes there were.
    pub fn number(&self) -> u64 {
        self.changes().number
    }

    /// Whether a library of this name and code may be brought to a shard that has none.
    pub fn may_come(&self, name: &[u8], code: &[u8]) -> bool {
        let changes = self.changes();
        match changes.known.iter().find(|library| *library.name == *name) {
            Some(library) => library.codes.contains(&hash(code)),
            None => !changes.is_flushed,
        }
    }
}

/// The library is known anew, with no code.
fn put(known: &mut VecDeque<Library>, name: &[u8]) {
    known.retain(|library| *library.name != *name);
    if name.len() > NAME_MAX {
        return;
    }
    if known.len() >= NAMES_MAX {
        known.pop_front();
    }
    known.push_back(Library { name: name.into(), codes: VecDeque::new() });
}

fn hash(code: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (code.len(), &code[..code.len().min(CODE_MAX)]).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::LibraryChange::*;
    use super::*;

    #[test]
    fn what_was_deleted_does_not_come_until_it_is_loaded_again() {
        let libraries = Libraries::default();
        let may_come = |name: &str| libraries.may_come(name.as_bytes(), b"code");
        assert!(may_come("a"));
        libraries.note(Deleted(b"a"));
        assert!(!may_come("a") && may_come("b"));
        // It may be refused: what it was to be comes, and nothing else.
        libraries.note(Loaded(b"a", b"broken"));
        assert!(!may_come("a") && libraries.may_come(b"a", b"broken"));
        libraries.note(Loaded(b"a", b"code"));
        assert!(may_come("a") && libraries.may_come(b"a", b"broken"));
        libraries.note(Deleted(b"a"));
        assert!(!may_come("a"));
        libraries.note(AllDeleted);
        assert!(!may_come("a") && !may_come("b"));
        libraries.note(Loaded(b"b", b"code"));
        assert!(!may_come("a") && may_come("b") && !libraries.may_come(b"b", b"other"));
        libraries.note(Deleted(b"b"));
        assert!(!may_come("b"));
        libraries.note(Any);
        assert!(may_come("a") && may_come("b"));
        assert_eq!(libraries.number(), 8);
    }

    #[test]
    fn no_more_names_are_kept_than_there_is_room_for() {
        for is_flushed in [false, true] {
            let libraries = Libraries::default();
            if is_flushed {
                libraries.note(AllDeleted);
            }
            for number in 0..1000 {
                let name = format!("{number}");
                libraries.note(Deleted(name.as_bytes()));
                libraries.note(Loaded(name.as_bytes(), b"code"));
                libraries.note(Loaded(b"999", name.as_bytes()));
                libraries.note(Deleted(&[b'x'; 1000]));
                libraries.note(Loaded(&[b'x'; 1000], b"code"));
            }
            let changes = libraries.changes();
            assert_eq!(changes.known.len(), NAMES_MAX);
            assert!(changes.known.iter().all(|library| library.codes.len() <= CODES_MAX));
        }
    }
}
