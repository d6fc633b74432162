//! What was denied to users of a pool, for ACL LOG: of all its workers, behind a lock that is taken where something is denied.
//!
//! Bounded in entries, each of which is bounded in bytes. Source of the fields: <https://redis.io/docs/latest/commands/acl-log/>.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Entries that are kept, as many as a server of Redis keeps.
pub const ENTRIES_MAX: usize = 128;
/// The same happening again within so many milliseconds is one entry.
const GROUPING: u64 = 60_000;

/// Why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // each is the word of that name
pub enum Reason {
    Command,
    Key,
    Channel,
    Auth,
}

impl Reason {
    /// As ACL LOG has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Key => "key",
            Self::Channel => "channel",
            Self::Auth => "auth",
        }
    }
}

/// Where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // each is the word of that name
pub enum Context {
    Toplevel,
    Multi,
}

impl Context {
    /// As ACL LOG has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Toplevel => "toplevel",
            Self::Multi => "multi",
        }
    }
}

/// Something that was denied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Why.
    pub reason: Reason,
    /// Where.
    pub context: Context,
    /// The command, key or channel.
    pub object: String,
    /// To whom.
    pub user: String,
    /// What is known of its client.
    pub client: String,
}

/// An entry of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number.
    pub id: u64,
    /// What.
    pub event: Event,
    /// How often.
    pub count: u64,
    /// The first time, in milliseconds since 1970.
    pub created: u64,
    /// The last time.
    pub updated: u64,
}

/// The log.
#[derive(Default, Debug)]
pub struct DeniedLog {
    book: Mutex<Book>,
}

#[derive(Default, Debug)]
struct Book {
    /// Newest first.
    entries: VecDeque<Entry>,
    next: u64,
}

impl DeniedLog {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, at this time in milliseconds since 1970. The same again counts for the entry that it has.
    pub fn note(&self, event: Event, now: u64) {
        let mut book = self.book();
        let is_same = |entry: &Entry| {
            let Event { reason, context, object, user, .. } = &entry.event;
            (*reason, *context) == (event.reason, event.context)
                && (object, user) == (&event.object, &event.user)
                && now.saturating_sub(entry.updated) <= GROUPING
        };
        let entry = match book.entries.iter().position(is_same) {
            Some(place) => {
                let known = book.entries.remove(place).expect("it was found");
                Entry { event, count: known.count + 1, updated: now, ..known }
            }
            None => {
                let id = book.next;
                book.next += 1;
                Entry { id, event, count: 1, created: now, updated: now }
            }
        };
        book.entries.push_front(entry);
        book.entries.truncate(ENTRIES_MAX);
    }

    /// The newest so many.
    pub fn latest(&self, count: usize) -> Vec<Entry> {
        self.book().entries.iter().take(count).cloned().collect()
    }

    /// Forgets all.
    pub fn reset(&self) {
        self.book().entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(object: &str) -> Event {
        Event {
            reason: Reason::Key,
            context: Context::Toplevel,
            object: object.into(),
            user: "u".into(),
            client: String::new(),
        }
    }

    #[test]
    fn the_same_again_is_one_entry_and_there_are_not_many() {
        let log = DeniedLog::default();
        log.note(event("a"), 0);
        log.note(event("b"), 1);
        log.note(event("a"), 2);
        let found: Vec<_> =
            log.latest(10).into_iter().map(|entry| (entry.id, entry.event.object, entry.count)).collect();
        assert_eq!(found, [(0, "a".into(), 2), (1, "b".into(), 1)]);
        log.note(event("a"), 2 + GROUPING + 1);
        assert_eq!(log.latest(1)[0].id, 2);
        for number in 0..10 * ENTRIES_MAX {
            log.note(event(&number.to_string()), 5);
        }
        assert_eq!(log.latest(usize::MAX).len(), ENTRIES_MAX);
        log.reset();
        assert!(log.latest(1).is_empty());
    }
}
