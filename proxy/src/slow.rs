//! The slow log of a pool: what has taken long, for whom, and where the time went.
//!
//! A pool has one for all of its workers, behind a lock that is taken for a request that was slow and for a look at the log, never
//! for others. It is bounded in entries and in bytes; who asks shares the entries and copies nothing under the lock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::account::Account;

/// Arguments that are shown of a request, and bytes of each, as servers of Redis do.
pub const WORDS_MAX: usize = 32;
/// See above.
pub const WORD_BYTES_MAX: usize = 128;
/// Bytes of all entries together, where the process may hold enough.
pub const SLOW_BYTES_MAX: usize = 4 << 20;
/// Requests of which spans wait to be sent.
pub const TRACED_MAX: usize = 2048;
/// They take no more than this part of what the process may hold.
const MEMORY_SHARE: usize = 64;
/// What an entry takes beside its texts.
const ENTRY_BYTES: usize = 256;
/// What a word takes beside its bytes.
const WORD_BYTES: usize = 16;

/// Where the time of a request went, in microseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Spent {
    /// From being read to being written to its shard.
    pub queued: u64,
    /// From there to the response, in which it may have waited behind other requests at its shard.
    pub shard: u64,
    /// From there until its reply was complete and those to earlier requests of its client were out: other fragments, the order.
    pub merged: u64,
    /// From there until the client had taken it.
    pub client: u64,
}

impl Spent {
    /// What the proxy and its shard have taken; not what the client has.
    pub fn micros(&self) -> u64 {
        self.queued + self.shard + self.merged
    }
}

/// Who has sent a request.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Sender {
    /// Its number in this process.
    pub number: u64,
    /// Its address.
    pub address: String,
    /// What it calls itself; empty where it has not said so.
    pub name: String,
    /// The user it is.
    pub user: String,
}

/// Which trace a request belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace {
    /// Its number, by the rules of OpenTelemetry: never 0.
    pub id: u128,
    /// The span of the client in which it was asked for; 0 where that is not known.
    pub parent: u64,
}

impl Trace {
    /// What a client has said by `traceparent` of W3C, anywhere in this text: `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
    pub fn of_client(text: &str) -> Option<Self> {
        text.match_indices("00-").find_map(|(start, _)| Self::at(text, start))
    }

    /// The same at this place.
    fn at(text: &str, start: usize) -> Option<Self> {
        const LENGTH: usize = 55;
        let words: Vec<&str> = text.get(start..start + LENGTH)?.split('-').collect();
        let [_, id, parent, flags] = words[..] else { return None };
        let is_written = |word: &str, length| {
            word.len() == length && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !is_written(id, 32) || !is_written(parent, 16) || !is_written(flags, 2) {
            return None;
        }
        let (id, parent) = (u128::from_str_radix(id, 16).ok()?, u64::from_str_radix(parent, 16).ok()?);
        (id != 0 && parent != 0).then_some(Self { id, parent })
    }
}

/// A request that was slow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number in the log.
    pub id: u64,
    /// Its number among those of its client, as long as that is busy.
    pub number: u32,
    /// When it was read, in microseconds since 1970.
    pub at: u64,
    /// Its words, as far as they are shown.
    pub words: Vec<Box<[u8]>>,
    /// Who has sent it.
    pub sender: Sender,
    /// The shard that has served it, or a part of it.
    pub shard: Arc<str>,
    /// Where the time went.
    pub spent: Spent,
    /// It had no response in time.
    pub failed: bool,
    /// What its client was told where that is an error, as far as it is shown.
    pub error: Option<Box<str>>,
    /// The trace that it is in, if it is in one.
    pub trace: Option<Trace>,
}

impl Entry {
    /// What tells it apart from others of this process, for whoever looks for it elsewhere.
    pub fn request(&self) -> String {
        format!("{}-{}-{}", self.sender.number, self.at, self.number)
    }

    fn bytes(&self) -> usize {
        let words: usize = self.words.iter().map(|word| word.len() + WORD_BYTES).sum();
        ENTRY_BYTES + words + self.sender.address.len() + self.sender.name.len() + self.sender.user.len()
    }
}

/// What was slow.
#[derive(Debug)]
pub struct SlowLog {
    book: Mutex<Book>,
    traced: Mutex<Traced>,
    account: Arc<Account>,
}

/// Requests of which spans are to be sent.
#[derive(Default, Debug)]
struct Traced {
    /// Oldest first.
    entries: VecDeque<Entry>,
    bytes: usize,
    dropped: u64,
}

#[derive(Default, Debug)]
struct Book {
    /// Oldest first.
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    next_id: u64,
}

impl SlowLog {
    /// Nothing so far; entries count in the account.
    pub fn new(account: &Arc<Account>) -> Self {
        Self { book: Mutex::default(), traced: Mutex::default(), account: account.clone() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, which gets its number; the oldest go where there are more than so many.
    pub fn add(&self, mut entry: Entry, entries_max: usize) {
        let bytes_max = SLOW_BYTES_MAX.min(self.account.max() / MEMORY_SHARE);
        let mut book = self.book();
        let before = book.bytes;
        entry.id = book.next_id;
        book.next_id += 1;
        book.bytes += entry.bytes();
        book.entries.push_back(Arc::new(entry));
        book.shorten(entries_max, bytes_max);
        self.account.change(before, book.bytes);
    }

    /// There are to be so many at most.
    pub fn shorten(&self, entries_max: usize) {
        let mut book = self.book();
        let before = book.bytes;
        book.shorten(entries_max, SLOW_BYTES_MAX);
        self.account.change(before, book.bytes);
    }

    /// The newest, that one first.
    pub fn latest(&self, count: usize) -> Vec<Arc<Entry>> {
        self.book().entries.iter().rev().take(count).cloned().collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.book().entries.len()
    }

    fn traced(&self) -> MutexGuard<'_, Traced> {
        self.traced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spans of this one are to be sent. It is dropped where too many wait.
    pub fn trace(&self, mut entry: Entry) {
        // What was asked for is no part of a span.
        entry.words.truncate(1);
        let bytes = entry.bytes();
        let mut traced = self.traced();
        if traced.entries.len() >= TRACED_MAX || traced.bytes + bytes > self.account.max() / MEMORY_SHARE {
            traced.dropped += 1;
            return;
        }
        traced.bytes += bytes;
        traced.entries.push_back(entry);
        self.account.change(0, bytes);
    }

    /// The oldest of those, so many at most.
    pub fn take_traced(&self, most: usize) -> Vec<Entry> {
        let mut traced = self.traced();
        let count = most.min(traced.entries.len());
        let taken: Vec<Entry> = traced.entries.drain(..count).collect();
        let bytes = taken.iter().map(Entry::bytes).sum();
        traced.bytes -= bytes;
        self.account.change(bytes, 0);
        taken
    }

    /// How many were dropped.
    pub fn traced_dropped(&self) -> u64 {
        self.traced().dropped
    }

    /// All are forgotten; numbers go on.
    pub fn reset(&self) {
        let mut book = self.book();
        self.account.change(book.bytes, 0);
        *book = Book { next_id: book.next_id, ..Book::default() };
    }
}

impl Drop for SlowLog {
    fn drop(&mut self) {
        self.reset();
        self.take_traced(usize::MAX);
    }
}

impl Book {
    fn shorten(&mut self, entries_max: usize, bytes_max: usize) {
        while self.entries.len() > entries_max || self.bytes > bytes_max {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }
}

/// The words of a request as they are shown, of which there may be more: so many of them, and so many bytes of each.
pub fn shorten<'w>(words: impl Iterator<Item = std::borrow::Cow<'w, [u8]>>, all: usize) -> Vec<Box<[u8]>> {
    shorten_cut(words, all, 0)
}

/// The same where the last of these words has so many bytes more.
pub fn shorten_cut<'w>(
    words: impl Iterator<Item = std::borrow::Cow<'w, [u8]>>,
    all: usize,
    cut: usize,
) -> Vec<Box<[u8]>> {
    let shown = if all > WORDS_MAX { WORDS_MAX - 1 } else { all };
    let mut words = words.peekable();
    let mut out: Vec<Box<[u8]>> = Vec::new();
    while out.len() < shown
        && let Some(word) = words.next()
    {
        out.push(shorten_word(&word, if words.peek().is_none() { cut } else { 0 }));
    }
    if all > out.len() {
        out.push(format!("... ({} more arguments)", all - out.len()).into_bytes().into());
    }
    out
}

/// A word, which has so many bytes more, or as much of it as is shown.
fn shorten_word(word: &[u8], cut: usize) -> Box<[u8]> {
    if word.len() <= WORD_BYTES_MAX && cut == 0 {
        return word.into();
    }
    let (shown, rest) = word.split_at(word.len().min(WORD_BYTES_MAX));
    let mut shown = shown.to_vec();
    shown.extend_from_slice(format!("... ({} more bytes)", rest.len() + cut).as_bytes());
    shown.into()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn entry(word: &str) -> Entry {
        Entry {
            id: 0,
            number: 0,
            at: 0,
            words: vec![word.as_bytes().into()],
            sender: Sender::default(),
            shard: "s".into(),
            spent: Spent::default(),
            failed: false,
            error: None,
            trace: None,
        }
    }

    #[test]
    fn the_newest_stay_and_numbers_go_on() {
        let account = Account::new(1 << 30);
        let log = SlowLog::new(&account);
        (0..1_000_000).for_each(|_| log.add(entry("GET"), 3));
        let ids = |log: &SlowLog| log.latest(10).iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!((ids(&log), log.count()), (vec![999_999, 999_998, 999_997], 3));
        assert!(account.held() > 0);
        log.shorten(1);
        assert_eq!(ids(&log), [999_999]);
        log.reset();
        assert_eq!(account.held(), 0);
        log.add(entry("GET"), 3);
        assert_eq!(ids(&log), [1_000_000]);
        drop(log);
        assert_eq!(account.held(), 0);
    }

    #[test]
    fn entries_are_bounded_in_bytes_by_what_the_process_may_hold() {
        let account = Account::new(64 * 1024 * MEMORY_SHARE);
        let log = SlowLog::new(&account);
        (0..1000).for_each(|_| log.add(entry(&"x".repeat(1000)), usize::MAX));
        assert!(log.count() > 10 && account.held() <= 64 * 1024, "{} {}", log.count(), account.held());
    }

    #[test]
    fn what_is_to_be_sent_is_bounded() {
        let account = Account::new(1 << 30);
        let log = SlowLog::new(&account);
        (0..1_000_000).for_each(|_| log.trace(entry("GET")));
        assert_eq!(log.traced_dropped(), 1_000_000 - TRACED_MAX as u64);
        assert_eq!((log.take_traced(10).len(), log.take_traced(usize::MAX).len()), (10, TRACED_MAX - 10));
        assert_eq!(account.held(), 0);
        log.trace(entry("GET"));
        drop(log);
        assert_eq!(account.held(), 0);
    }

    #[test]
    fn a_client_may_say_in_which_trace_it_is() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let good = format!("00-{id}-b7ad6b7169203331-01");
        let trace = Trace { id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, parent: 0xb7ad_6b71_6920_3331 };
        let named = format!("pod-7f00-x;{good}");
        for text in [good.clone(), format!("worker;traceparent={good};more"), named] {
            assert_eq!(Trace::of_client(&text), Some(trace));
        }
        for text in [
            "",
            "00-",
            "worker-00-1",
            &good[1..],
            &good[..54],
            &good.replace('b', "B"),
            &good.replace(id, &"0".repeat(32)),
        ] {
            assert_eq!(Trace::of_client(text), None, "{text}");
        }
    }

    #[test]
    fn words_are_cut_as_servers_cut_them() {
        let words = |count: usize| shorten((0..count).map(|_| Cow::Borrowed(&b"a"[..])), count);
        assert_eq!(words(WORDS_MAX).len(), WORDS_MAX);
        let cut = words(WORDS_MAX + 8);
        assert_eq!((cut.len(), &*cut[WORDS_MAX - 1]), (WORDS_MAX, &b"... (9 more arguments)"[..]));
        let long = shorten([Cow::Owned(vec![b'x'; WORD_BYTES_MAX + 5])].into_iter(), 1);
        assert!(long[0].ends_with(b"x... (5 more bytes)") && long[0].starts_with(&[b'x'; WORD_BYTES_MAX]));
        let part = shorten([Cow::Borrowed(&b"GET"[..])].into_iter(), 3);
        assert_eq!(&*part[1], b"... (2 more arguments)");
    }
}
