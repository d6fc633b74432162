//! The scripts that clients have shown: their texts, by the digest that EVALSHA asks for them by.
//!
//! A shard knows a script once it has been sent it, and only until it restarts. A text that is known here is sent to a shard that
//! lacks it before the request that needs it, so that clients need not know which shards there are. A pool has one book of them for
//! all of its workers. That is a lock, taken by requests that run scripts and for one look at a table each; messages between the
//! workers instead would leave a time in which a script that was flushed is known to some of them still.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sha1::{Digest as _, Sha1};

use crate::account::Account;
pub use libraries::{Libraries, LibraryChange};

mod libraries;

/// A text above this size is not remembered: to look at it takes a millisecond or so, in which others wait.
pub const SCRIPT_MAX: usize = 256 * 1024;
/// Scripts that are remembered; those that were not asked for go first.
pub const SCRIPTS_MAX: usize = 4096;
/// Bytes of all of them together, where the process may hold enough.
pub const SCRIPT_BYTES_MAX: usize = 8 << 20;
/// They take no more than this part of what the process may hold.
const MEMORY_SHARE: usize = 16;
/// What one takes in the tables, beside its text.
const ENTRY_BYTES: usize = 160;

/// SHA-1 of a text.
pub type Digest = [u8; 20];

/// A script in the book. Another one that comes to stand in its place has another number, and so has the same one once it was
/// forgotten meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Its place, below [`SCRIPTS_MAX`].
    pub place: u32,
    /// Its number, never 0.
    pub number: u32,
}

/// What is remembered of the scripts of one pool.
#[derive(Debug)]
pub struct Scripts {
    book: Mutex<Book>,
    account: Arc<Account>,
    libraries: Arc<Libraries>,
}

#[derive(Default, Debug)]
struct Book {
    entries: Vec<Option<Entry>>,
    /// Places in it that nobody has.
    vacant: Vec<u32>,
    by_digest: HashMap<Digest, u32>,
    /// Places in the order in which they are looked at to make room.
    order: VecDeque<u32>,
    bytes: usize,
    /// The number given last.
    number: u32,
}

#[derive(Debug)]
struct Entry {
    digest: Digest,
    number: u32,
    /// It was asked for since it was looked at last to make room.
    used: bool,
    /// The request that makes a shard know it.
    load: Bytes,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.load.len() + ENTRY_BYTES
    }
}

impl Scripts {
    /// None so far; they count in the account.
    pub fn new(account: &Arc<Account>) -> Self {
        Self::beside(account, Arc::default())
    }

    /// The same for a pool over the same shards as others, which have this book of libraries.
    pub fn beside(account: &Arc<Account>, libraries: Arc<Libraries>) -> Self {
        Self { book: Mutex::default(), account: account.clone(), libraries }
    }

    /// What they count in.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client has shown this text; `load` makes the request for it. Returns how many others are forgotten for it.
    pub fn remember(&self, text: &[u8], load: impl FnOnce(&[u8]) -> Vec<u8>) -> u64 {
        if text.len() > SCRIPT_MAX {
            return 0;
        }
        let digest: Digest = Sha1::digest(text).into();
        let mut book = self.book();
        if book.find(&digest).is_some() {
            return 0;
        }
        let load = load(text);
        let bytes_max = SCRIPT_BYTES_MAX.min(self.account.max() / MEMORY_SHARE);
        let before = book.bytes;
        let size = load.len() + ENTRY_BYTES;
        if size > bytes_max {
            return 0;
        }
        let mut forgotten = 0;
        while book.by_digest.len() >= SCRIPTS_MAX || (book.bytes + size > bytes_max && book.bytes > 0) {
            book.make_room();
            forgotten += 1;
        }
        book.add(digest, load.into());
        self.account.change(before, book.bytes);
        forgotten
    }

    /// The script of this digest, if it is known.
    pub fn find(&self, digest: &Digest) -> Option<Mark> {
        self.book().find(digest)
    }

    /// The request that makes a shard know it, unless it was forgotten meanwhile.
    pub fn load(&self, mark: Mark) -> Option<Bytes> {
        let book = self.book();
        let entry = book.entries.get(mark.place as usize)?.as_ref()?;
        (entry.number == mark.number).then(|| entry.load.clone())
    }

    /// Clients are not to find this one any more.
    pub fn forget_one(&self, mark: Mark) {
        let mut book = self.book();
        let before = book.bytes;
        book.remove(mark);
        self.account.change(before, book.bytes);
    }

    /// Clients are to find none of them any more.
    pub fn forget(&self) {
        let mut book = self.book();
        self.account.change(book.bytes, 0);
        *book = Book { number: book.number, ..Book::default() };
    }

    /// Which libraries of functions were changed.
    pub fn libraries(&self) -> &Arc<Libraries> {
        &self.libraries
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.book().by_digest.len()
    }

    /// Bytes they take.
    pub fn bytes(&self) -> usize {
        self.book().bytes
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Book {
    fn find(&mut self, digest: &Digest) -> Option<Mark> {
        let place = *self.by_digest.get(digest)?;
        let entry = self.entries[place as usize].as_mut()?;
        entry.used = true;
        Some(Mark { place, number: entry.number })
    }

    fn add(&mut self, digest: Digest, load: Bytes) {
        self.number = self.number.wrapping_add(1).max(1);
        let entry = Entry { digest, number: self.number, used: false, load };
        self.bytes += entry.bytes();
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        self.entries[place as usize] = Some(entry);
        self.by_digest.insert(digest, place);
        self.order.push_back(place);
    }

    /// This one goes, if it is still there.
    fn remove(&mut self, mark: Mark) {
        let Some(slot) = self.entries.get_mut(mark.place as usize) else { return };
        if let Some(entry) = slot.take_if(|entry| entry.number == mark.number) {
            self.bytes -= entry.bytes();
            self.by_digest.remove(&entry.digest);
            self.vacant.push(mark.place);
            self.order.retain(|place| *place != mark.place);
        }
    }

    /// One goes that was not asked for since it was looked at last.
    fn make_room(&mut self) {
        while let Some(place) = self.order.pop_front() {
            let slot = &mut self.entries[place as usize];
            if slot.as_mut().is_some_and(|entry| std::mem::take(&mut entry.used)) {
                self.order.push_back(place);
                continue;
            }
            if let Some(entry) = slot.take() {
                self.bytes -= entry.bytes();
                self.by_digest.remove(&entry.digest);
                self.vacant.push(place);
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scripts(memory_max: usize) -> (Scripts, Arc<Account>) {
        let account = Account::new(memory_max);
        (Scripts::new(&account), account)
    }

    fn digest(text: &[u8]) -> Digest {
        Sha1::digest(text).into()
    }

    fn copy(text: &[u8]) -> Vec<u8> {
        text.to_vec()
    }

    #[test]
    fn they_are_found_by_their_digest() {
        let (scripts, _) = scripts(usize::MAX);
        scripts.remember(b"return 1", copy);
        // Of `redis-cli script load "return 1"`.
        let known = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
        let found: String = digest(b"return 1").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, known);
        let mark = scripts.find(&digest(b"return 1")).expect("it was shown");
        assert_eq!(scripts.load(mark).expect("it is there"), &b"return 1"[..]);
        assert_eq!(scripts.find(&digest(b"return 2")), None);
    }

    #[test]
    fn one_that_was_forgotten_meanwhile_is_another_one() {
        let (scripts, account) = scripts(usize::MAX);
        scripts.remember(b"return 1", copy);
        let mark = scripts.find(&digest(b"return 1")).expect("it was shown");
        scripts.forget();
        assert_eq!((scripts.load(mark), account.held()), (None, 0));
        scripts.remember(b"return 2", copy);
        let other = scripts.find(&digest(b"return 2")).expect("it was shown");
        assert_eq!((other.place, scripts.load(mark)), (mark.place, None));
        scripts.forget();
        scripts.remember(b"return 1", copy);
        assert_ne!(scripts.find(&digest(b"return 1")), Some(mark));
    }

    #[test]
    fn one_that_is_forgotten_leaves_nothing_and_the_others_stay() {
        let (scripts, account) = scripts(usize::MAX);
        scripts.remember(b"return 1", copy);
        let mine = scripts.find(&digest(b"return 1")).expect("it was shown");
        let (held, places) = (account.held(), scripts.book().entries.len());
        for _ in 0..1000 {
            scripts.remember(b"bad(", copy);
            let bad = scripts.find(&digest(b"bad(")).expect("it was shown");
            scripts.forget_one(bad);
            scripts.forget_one(bad);
            assert_eq!(scripts.find(&digest(b"bad(")), None);
        }
        assert_eq!(scripts.find(&digest(b"return 1")), Some(mine));
        assert_eq!((account.held(), scripts.count()), (held, 1));
        let book = scripts.book();
        assert_eq!((book.entries.len(), book.order.len(), book.vacant.len()), (places + 1, 1, 1));
    }

    #[test]
    fn a_million_texts_leave_those_that_are_asked_for() {
        let (scripts, account) = scripts(1 << 30);
        scripts.remember(b"return 'mine'", copy);
        let mine = scripts.find(&digest(b"return 'mine'")).expect("it was shown");
        let mut forgotten = 0;
        for number in 0..100_000u32 {
            forgotten += scripts.remember(&number.to_le_bytes().repeat(64), copy);
            if number % 1000 == 0 {
                assert_eq!(scripts.find(&digest(b"return 'mine'")), Some(mine));
            }
        }
        assert_eq!((scripts.count(), forgotten), (SCRIPTS_MAX, 100_001 - SCRIPTS_MAX as u64));
        assert!(scripts.book().entries.len() <= SCRIPTS_MAX);
        assert_eq!(account.held(), scripts.bytes());
        drop(scripts);
        assert_eq!(account.held(), 0);
    }

    #[test]
    fn large_ones_are_bounded_in_bytes_and_the_largest_are_not_looked_at() {
        let (scripts, _) = scripts(1 << 30);
        for number in 0..200 {
            scripts.remember(&[number; SCRIPT_MAX], copy);
        }
        assert!(scripts.bytes() <= SCRIPT_BYTES_MAX && scripts.bytes() > SCRIPT_BYTES_MAX - 2 * SCRIPT_MAX);
        let count = scripts.count();
        scripts.remember(&[0; SCRIPT_MAX + 1], copy);
        assert_eq!(scripts.count(), count);
        let (small, _) = super::tests::scripts(1 << 20);
        (0..200).for_each(|number| {
            small.remember(&[number; 8192], copy);
        });
        assert!(small.bytes() <= (1 << 20) / MEMORY_SHARE && small.count() > 0);
        let (count, bytes) = (small.count(), small.bytes());
        assert_eq!(small.remember(&[b'x'; (1 << 20) / MEMORY_SHARE], copy), 0, "it leaves the others");
        assert_eq!((small.count(), small.bytes()), (count, bytes));
    }
}
