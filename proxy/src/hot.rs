//! Which keys are named most, and what moves most bytes: found in a sample of the requests.
//!
//! **The sample.** A pass of a worker is looked at or is not, all of its requests or none. That is drawn by lot as the pass begins
//! ([`crate::pool`] has the lot: one in so many, whatever came before), so the plain way of a request knows nothing of it: the
//! function that serves a client's turn has a second copy that looks, and the branch that chooses is the one by which clients with
//! large values are known.
//!
//! **Why that makes no figure wrong.** A request is in the sample if the pass in which it is served is. Each pass has the same chance,
//! drawn before anything of it was read, by a generator that nobody outside sees; so each request has that chance, whichever key it
//! names, whoever sends it and however many come together. What is counted, times what one in so many is, is therefore right on
//! average for each key, and so is the share of a key in all. Every hundredth pass instead would not do: a client that asks for one
//! key after the other, one in each pass, would be seen with the same key over and over. What whole passes cost is spread: requests that
//! come together are seen together or not at all, so a pipeline of a hundred tells no more than a few requests that came apart. A share
//! is therefore sure to about the root of its share over the number of *passes* looked at, which is some thousands in a minute of load.
//! A request with more keys than are counted of one has every so-manieth of them counted as so many, from a place drawn by lot: the same
//! again. What has to wait (for room, for replies to earlier requests) counts in the pass in which it is taken, once.
//!
//! **Counting.** [`sketch`] has the bounds. Two spans of [`SPAN`], the present one and the one before, are told of together, so that what was
//! hot an hour ago is not.
//!
//! **Large requests and replies** are those of [`LARGE_MIN`] and more. Requests that were looked at are remembered until others take their
//! place, so that a large reply finds its key. Beside the sample everything is looked at of clients that move large values
//! (`pool/heavy.rs`), and each large request that goes to one shard in one piece: what is large and rare is worth more than a look, and
//! costs far more than one. The first large reply of a client may be missed.
//!
//! There is a book for each worker, behind a lock that its worker takes once for a client's turn that is looked at, and for a large reply;
//! where somebody reads the book meanwhile the worker does not wait and looks at nothing, which is no choice by content either.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::privacy;
use crate::time::Time;
pub use sketch::{Found, Key, SHOWN_MAX};
use sketch::{Sketch, merged};

mod sketch;

/// How long a span of counting is. Two are told of, so what is told is between one and two old.
pub const SPAN: Duration = Duration::from_secs(60);
/// Requests and replies of this size are told of.
pub const LARGE_MIN: usize = 16 * 1024;
/// Keys that are counted of one request.
const COUNTED_MAX: usize = 64;
/// The largest requests and replies that are kept in a span, of either.
const LARGEST_MAX: usize = 16;
/// Requests that are remembered for their replies.
const ASKED_MAX: usize = 128;
/// Bytes of a key that its hash is made of: it may have megabytes.
const HASHED_MAX: usize = 64 * 1024;
/// Bytes that are kept of the name of a command.
const NAME_MAX: usize = 32;

/// What was seen of the requests of a pool.
#[derive(Debug)]
pub struct HotKeys {
    books: Box<[Mutex<Book>]>,
    account: Arc<Account>,
}

/// What one worker has seen.
#[derive(Debug)]
pub struct Book {
    /// What the times of its worker count from.
    start: Instant,
    /// Bytes that are in the account.
    told: usize,
    /// One pass in so many is looked at; 0: none.
    sample: u32,
    /// The present span, and the one before.
    spans: [Span; 2],
    /// The request at hand.
    pending: Pending,
    /// Those whose replies may come, at places that their numbers say.
    asked: Vec<Asked>,
    /// For places drawn by lot.
    random: u64,
}

#[derive(Default, Debug)]
struct Span {
    began: Time,
    sketch: Sketch,
    /// Requests that were looked at by lot.
    requests: u64,
    /// The largest requests, and those with the largest replies.
    largest: [Vec<Large>; 2],
}

/// A request as it is planned: it may turn out that it is not taken yet.
#[derive(Default, Debug)]
struct Pending {
    text: Vec<u8>,
    /// Of each key that counts, its place in `text` and its length there, its whole length and its hash.
    keys: Vec<(usize, usize, u64)>,
    /// Each of them stands for so many.
    weight: u64,
    reads: bool,
    seen: Seen,
}

/// What is known of one request.
#[derive(Clone, Default, Debug)]
struct Seen {
    command: Box<[u8]>,
    first: Option<(u64, Key)>,
    keys: usize,
    bytes: u64,
}

#[derive(Debug)]
struct Asked {
    client: u64,
    number: u32,
    seen: Seen,
    reply: u64,
}

/// A large request, or one with a large reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Large {
    /// The name of the command, as it was written.
    pub command: Box<[u8]>,
    /// Its first key, if it has one, with its hash.
    pub key: Option<(u64, Key)>,
    /// How many it names.
    pub keys: usize,
    /// The size of the largest.
    pub bytes: u64,
    /// When that was.
    at: Time,
    /// Seconds ago, where it is told of.
    pub ago: Duration,
}

/// What was found.
#[derive(Default, Debug)]
pub struct Report {
    /// One pass in so many was looked at; 0: none.
    pub sample: u32,
    /// For how long.
    pub time: Duration,
    /// Requests that were looked at.
    pub requests: u64,
    /// Keys that they named.
    pub accesses: u64,
    /// Who is named most comes first.
    pub keys: Vec<Found>,
    /// The largest requests, the largest first, each command and key once.
    pub large_requests: Vec<Large>,
    /// The same by the size of their replies.
    pub large_replies: Vec<Large>,
}

/// What is to be known of a request that is looked at.
pub struct Look<'r, K> {
    /// Name of the command, as it was written.
    pub command: &'r [u8],
    /// Its keys.
    pub keys: K,
    /// How many.
    pub count: usize,
    /// Its size.
    pub bytes: usize,
    /// It changes nothing.
    pub reads: bool,
}

impl HotKeys {
    /// Of a pool with so many workers; what is held counts in this account. Nothing is looked at yet.
    pub fn new(workers: usize, account: &Arc<Account>) -> Self {
        let books = (0..workers.max(1)).map(|_| Mutex::new(Book::new())).collect();
        Self { books, account: account.clone() }
    }

    /// The book of a worker, unless somebody reads it.
    pub fn try_open(&self, worker: usize) -> Option<MutexGuard<'_, Book>> {
        match self.books[worker].try_lock() {
            Ok(book) => Some(book),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn open(&self, worker: usize) -> MutexGuard<'_, Book> {
        self.books[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker looks at one pass in so many from now on, at none if that is 0.
    pub fn set_sample(&self, worker: usize, sample: u32) {
        let mut book = self.open(worker);
        if book.sample != sample {
            // What is counted would mean something else.
            *book = Book { start: book.start, told: book.told, sample, ..Book::new() };
            self.settle(&mut book);
        }
    }

    /// The book may hold more or less than before.
    pub fn settle(&self, book: &mut Book) {
        let bytes = book.bytes();
        self.account.change(std::mem::replace(&mut book.told, bytes), bytes);
    }

    /// The times of the worker count from here.
    pub fn set_start(&self, worker: usize, start: Instant) {
        self.open(worker).start = start;
    }

    /// What all workers have seen, with so many keys and so many large requests and replies.
    pub fn report(&self, most: usize) -> Report {
        self.report_by(most, |book| {
            Time::from_micros(u64::try_from(book.start.elapsed().as_micros()).unwrap_or(u64::MAX))
        })
    }

    /// The same at this time of all workers.
    pub fn report_at(&self, most: usize, now: Time) -> Report {
        self.report_by(most, |_| now)
    }

    fn report_by(&self, most: usize, clock: impl Fn(&Book) -> Time) -> Report {
        let mut books: Vec<_> = (0..self.books.len()).map(|worker| self.open(worker)).collect();
        let mut report = Report::default();
        for book in &mut books {
            let now = clock(book);
            book.turn(now);
            report.add(book, now);
        }
        let spans = || books.iter().flat_map(|book| &book.spans);
        report.keys = merged(spans().map(|span| &span.sketch));
        report.keys.truncate(most);
        for large in [&mut report.large_requests, &mut report.large_replies] {
            *large = once_each(std::mem::take(large));
            large.truncate(most);
        }
        report
    }
}

impl Drop for HotKeys {
    fn drop(&mut self) {
        for book in &mut self.books {
            self.account.change(book.get_mut().unwrap_or_else(PoisonError::into_inner).told, 0);
        }
    }
}

/// Each command and key once, the largest first.
fn once_each(mut all: Vec<Large>) -> Vec<Large> {
    all.sort_by_key(|large| (std::cmp::Reverse(large.bytes), large.ago));
    let mut seen = HashMap::new();
    all.retain(|large| seen.insert((large.command.clone(), large.hash()), ()).is_none());
    all
}

impl Report {
    fn add(&mut self, book: &Book, now: Time) {
        self.sample = self.sample.max(book.sample);
        let of_before = &book.spans[1];
        let began = if of_before.is_empty() { book.spans[0].began } else { of_before.began };
        self.time = self.time.max(now.since(began));
        for span in &book.spans {
            self.requests += span.requests;
            self.accesses += span.sketch.total();
            for (all, of_span) in
                [&mut self.large_requests, &mut self.large_replies].into_iter().zip(&span.largest)
            {
                all.extend(of_span.iter().map(|large| Large { ago: now.since(large.at), ..large.clone() }));
            }
        }
    }

    /// The share of the key that is named most, of all that was counted, as far as it is sure.
    pub fn hottest_share(&self) -> f64 {
        let most = self.keys.first().map_or(0, |found| found.least);
        if self.accesses == 0 { 0.0 } else { most as f64 / self.accesses as f64 }
    }
}

impl Book {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            told: 0,
            sample: 0,
            spans: Default::default(),
            pending: Pending::default(),
            asked: Vec::new(),
            random: privacy::hash(b"a place drawn by lot") | 1,
        }
    }

    /// Whether anything is looked at.
    pub fn is_on(&self) -> bool {
        self.sample > 0
    }

    /// A span that is over makes room for the next one.
    fn turn(&mut self, now: Time) {
        let age = now.since(self.spans[0].began);
        if age < SPAN {
            return;
        }
        let next = Span { began: now, ..Span::default() };
        let ended = std::mem::replace(&mut self.spans[0], next);
        self.spans[1] = if age < 2 * SPAN { ended } else { Span { began: now, ..Span::default() } };
    }

    /// A request is planned. It counts once it is taken.
    pub fn plan<'k>(&mut self, look: Look<'_, impl Iterator<Item = &'k [u8]>>) {
        let Look { command, keys, count, bytes, reads } = look;
        let step = count.div_ceil(COUNTED_MAX).max(1);
        let first = if step > 1 { self.random() as usize % step } else { 0 };
        let Pending { text, keys: places, weight, seen, reads: reading } = &mut self.pending;
        text.clear();
        places.clear();
        (*weight, *reading) = (step as u64, reads);
        *seen = Seen {
            command: command[..command.len().min(NAME_MAX)].into(),
            first: None,
            keys: count,
            bytes: bytes as u64,
        };
        for (place, key) in keys.enumerate() {
            if place > 0 && place % step != first {
                continue;
            }
            let hash = privacy::hash(&key[..key.len().min(HASHED_MAX)]);
            if place == 0 {
                seen.first = Some((hash, Key::of(key)));
            }
            if place % step == first {
                let start = text.len();
                text.extend_from_slice(&key[..key.len().min(SHOWN_MAX)]);
                places.push((start, key.len(), hash));
            }
        }
    }

    /// The request that was planned last is taken, as the one with this number of the client; it `counts` where it was drawn by lot.
    pub fn taken(&mut self, client: u64, number: u32, counts: bool, now: Time) {
        self.turn(now);
        let Pending { text, keys, weight, reads, seen } = &mut self.pending;
        let span = &mut self.spans[0];
        if counts {
            span.requests += 1;
            for &(start, length, hash) in &*keys {
                let shown = &text[start..start + length.min(SHOWN_MAX)];
                span.sketch.add(hash, shown, length, *weight, *reads);
            }
        }
        if seen.bytes >= LARGE_MIN as u64 {
            keep_large(&mut span.largest[0], seen, seen.bytes, now);
        }
        let asked = Asked { client, number, seen: std::mem::take(seen), reply: 0 };
        let place = place_of(client, number);
        match self.asked.get_mut(place) {
            Some(before) => *before = asked,
            None => {
                let empty = || Asked { client: u64::MAX, number: 0, seen: Seen::default(), reply: 0 };
                self.asked.resize_with(ASKED_MAX, empty);
                self.asked[place] = asked;
            }
        }
    }

    /// So many bytes of the reply to that request have come.
    pub fn replied(&mut self, client: u64, number: u32, bytes: usize, now: Time) {
        self.turn(now);
        let Some(asked) = self.asked.get_mut(place_of(client, number)) else { return };
        if (asked.client, asked.number) == (client, number) {
            asked.reply += bytes as u64;
            if asked.reply >= LARGE_MIN as u64 {
                keep_large(&mut self.spans[0].largest[1], &asked.seen, asked.reply, now);
            }
        }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Bytes it holds.
    pub fn bytes(&self) -> usize {
        let large: usize = self.spans.iter().flat_map(|span| &span.largest).map(Vec::len).sum();
        let counted: usize = self.spans.iter().map(|span| span.sketch.bytes()).sum();
        counted + (large + self.asked.len()) * (size_of::<Asked>() + SHOWN_MAX)
    }
}

impl Span {
    fn is_empty(&self) -> bool {
        self.requests == 0 && self.largest.iter().all(Vec::is_empty)
    }
}

impl Large {
    fn hash(&self) -> Option<u64> {
        self.key.as_ref().map(|(hash, _)| *hash)
    }
}

/// Where a request is remembered.
fn place_of(client: u64, number: u32) -> usize {
    (client.wrapping_mul(31).wrapping_add(u64::from(number)) % ASKED_MAX as u64) as usize
}

/// It is among the largest, if it is.
fn keep_large(largest: &mut Vec<Large>, seen: &Seen, bytes: u64, now: Time) {
    let hash = seen.first.as_ref().map(|(hash, _)| *hash);
    let is_same = |large: &&mut Large| large.hash() == hash && large.command == seen.command;
    if let Some(same) = largest.iter_mut().find(is_same) {
        if bytes >= same.bytes {
            (same.bytes, same.at, same.keys) = (bytes, now, seen.keys);
        }
        return;
    }
    let Seen { command, first, keys, .. } = seen.clone();
    let large = Large { command, key: first, keys, bytes, at: now, ago: Duration::ZERO };
    if largest.len() < LARGEST_MAX {
        largest.push(large);
    } else if let Some(least) = largest.iter_mut().min_by_key(|large| large.bytes)
        && least.bytes < bytes
    {
        *least = large;
    }
}

mod tests;
