//! Which libraries of functions clients have deleted through this process, so that none is brought back to a shard that has lost all
//! of them.
//!
//! A shard may have missed that a library was deleted, because it was down, and another one that comes back empty is given what the
//! others have. Names are remembered as the request is sent, which harms nobody where it is refused: a library is only not brought.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many names are remembered of each kind; the oldest go first.
const NAMES_MAX: usize = 256;
/// A longer name is not remembered.
const NAME_MAX: usize = 128;

/// What a request changes about the libraries that shards have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LibraryChange<'n> {
    /// There is one of this name.
    Loaded(&'n [u8]),
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
    deleted: VecDeque<Box<[u8]>>,
    /// Those that have come since all were deleted, if that has ever been.
    since_flush: Option<VecDeque<Box<[u8]>>>,
}

impl Libraries {
    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request for this is on its way to the shards.
    pub fn note(&self, change: LibraryChange<'_>) {
        let mut changes = self.changes();
        changes.number += 1;
        match change {
            LibraryChange::Loaded(name) => {
                changes.deleted.retain(|deleted| **deleted != *name);
                if let Some(loaded) = &mut changes.since_flush {
                    put(loaded, name);
                }
            }
            LibraryChange::Deleted(name) => {
                put(&mut changes.deleted, name);
                if let Some(loaded) = &mut changes.since_flush {
                    loaded.retain(|loaded| **loaded != *name);
                }
            }
            LibraryChange::AllDeleted => {
                changes.deleted.clear();
                changes.since_flush = Some(VecDeque::new());
            }
            LibraryChange::Any => {
                changes.deleted.clear();
                changes.since_flush = None;
            }
        }
    }

    /// How many changes there were.
    pub fn number(&self) -> u64 {
        self.changes().number
    }

    /// Whether a library of this name may be brought to a shard that has none.
    pub fn may_come(&self, name: &[u8]) -> bool {
        let changes = self.changes();
        let is_among = |names: &VecDeque<Box<[u8]>>| names.iter().any(|known| **known == *name);
        !is_among(&changes.deleted) && changes.since_flush.as_ref().is_none_or(is_among)
    }
}

fn put(names: &mut VecDeque<Box<[u8]>>, name: &[u8]) {
    names.retain(|known| **known != *name);
    if name.len() > NAME_MAX {
        return;
    }
    if names.len() >= NAMES_MAX {
        names.pop_front();
    }
    names.push_back(name.into());
}

#[cfg(test)]
mod tests {
    use super::LibraryChange::*;
    use super::*;

    #[test]
    fn what_was_deleted_does_not_come_until_it_is_loaded_again() {
        let libraries = Libraries::default();
        assert!(libraries.may_come(b"a"));
        libraries.note(Deleted(b"a"));
        assert!(!libraries.may_come(b"a") && libraries.may_come(b"b"));
        libraries.note(Loaded(b"a"));
        assert!(libraries.may_come(b"a"));
        libraries.note(AllDeleted);
        assert!(!libraries.may_come(b"a") && !libraries.may_come(b"b"));
        libraries.note(Loaded(b"b"));
        assert!(!libraries.may_come(b"a") && libraries.may_come(b"b"));
        libraries.note(Deleted(b"b"));
        assert!(!libraries.may_come(b"b"));
        libraries.note(Any);
        assert!(libraries.may_come(b"a") && libraries.may_come(b"b"));
        assert_eq!(libraries.number(), 6);
    }

    #[test]
    fn no_more_names_are_kept_than_there_is_room_for() {
        let libraries = Libraries::default();
        libraries.note(AllDeleted);
        for number in 0..1000 {
            libraries.note(Deleted(format!("{number}").as_bytes()));
            libraries.note(Loaded(format!("x{number}").as_bytes()));
            libraries.note(Deleted(&[b'x'; 1000]));
        }
        let changes = libraries.changes();
        assert_eq!(changes.deleted.len(), NAMES_MAX);
        assert_eq!(changes.since_flush.as_ref().map(VecDeque::len), Some(NAMES_MAX));
    }
}
