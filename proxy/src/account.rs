//! What the process may hold for clients and shards, and what it holds.
//!
//! There is one account, because memory is one thing whoever uses it. Each pool of each worker counts its own share exactly
//! and tells the account of it in steps, so that the shared number is touched once in many requests. Where more is held than
//! may be, the client that holds most has to go, wherever it is: the pool that sees the excess asks those that hold enough
//! to have a larger one, and the last one asked decides.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A share is told to the account when it has changed by so many bytes.
const STEP: usize = 64 * 1024;

/// A share has to say how much its largest client holds, or to end it.
const ASKED: u8 = 1;
/// More is held than may be, by what a share does not count itself.
const OVER: u8 = 2;

/// What the process may hold and holds.
#[derive(Debug)]
pub struct Account {
    max: AtomicUsize,
    held: AtomicUsize,
    /// So much of it is held by transports.
    aside: AtomicUsize,
    census: Mutex<Census>,
}

/// The search for the client that holds most.
#[derive(Default, Debug)]
struct Census {
    /// One for each share; `None` where it has ended.
    books: Vec<Option<Arc<Book>>>,
    /// Somebody has been asked and has not answered.
    missing: usize,
    /// The most that any client holds, of those who have answered, and whose it is.
    best: (usize, usize),
    /// Whose largest client is to go.
    verdict: Option<usize>,
}

/// A share, as others see it.
#[derive(Default, Debug)]
struct Book {
    /// The worker that keeps it.
    worker: usize,
    /// What was told of it.
    told: AtomicUsize,
    /// What the transports of its clients hold beside that.
    aside: AtomicUsize,
    /// Why it is to look at what its clients hold: [`ASKED`], [`OVER`].
    asked: AtomicU8,
}

impl Account {
    /// Of a process that may hold so many bytes.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max: AtomicUsize::new(max),
            held: AtomicUsize::new(0),
            aside: AtomicUsize::new(0),
            census: Mutex::default(),
        })
    }

    /// So many bytes may be held from now on.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// Bytes that may be held.
    pub fn max(&self) -> usize {
        self.max.load(Relaxed)
    }

    /// Bytes held, as far as was told.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Bytes that may be held beyond what is held.
    pub fn room(&self) -> usize {
        self.max().saturating_sub(self.held())
    }

    /// What no worker has alone held so many bytes before, and holds so many after.
    pub fn change(&self, before: usize, after: usize) {
        change(&self.held, before, after);
    }

    /// Bytes that transports hold.
    pub fn aside(&self) -> usize {
        self.aside.load(Relaxed)
    }

    /// Whether transports hold half of what may be held, and there are to be no more of them.
    pub fn is_crowded(&self) -> bool {
        self.aside() > self.max() / 2
    }

    /// Whether transports hold three quarters of what may be held. The rest is for what is done over them: who holds much of that
    /// does not go for them.
    pub fn is_swamped(&self) -> bool {
        self.aside() > self.max() / 4 * 3
    }

    /// Bytes that are held beyond what may be, by all or by transports.
    fn excess(&self) -> usize {
        let (max, transports_max) = (self.max(), self.max() / 4 * 3);
        self.held().saturating_sub(max).max(self.aside().saturating_sub(transports_max))
    }

    fn census(&self) -> MutexGuard<'_, Census> {
        self.census.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Census {
    fn ask(&self, book: usize, wake: &mut Vec<usize>) {
        if let Some(Some(book)) = self.books.get(book) {
            book.asked.fetch_or(ASKED, Relaxed);
            wake.push(book.worker);
        }
    }
}

/// What one pool of one worker holds.
#[derive(Debug)]
pub struct Share {
    account: Arc<Account>,
    place: usize,
    book: Arc<Book>,
    own: usize,
    /// More is held than may be, as it was told last.
    excess: bool,
}

impl Share {
    /// Holds nothing yet.
    pub fn new(account: &Arc<Account>, worker: usize) -> Self {
        let book = Arc::new(Book { worker, ..Book::default() });
        let mut census = account.census();
        let free = census.books.iter().position(Option::is_none);
        let place = free.unwrap_or(census.books.len());
        if free.is_none() {
            census.books.push(None);
        }
        census.books[place] = Some(book.clone());
        drop(census);
        Self { account: account.clone(), place, book, own: 0, excess: false }
    }

    /// The account.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.own
    }

    /// Something that held `before` bytes holds `after` now.
    #[inline]
    pub fn change(&mut self, before: usize, after: usize) {
        self.own = (self.own + after).saturating_sub(before);
        if self.own.abs_diff(self.book.told.load(Relaxed)) >= STEP {
            self.tell();
        }
    }

    /// Tells the account what is held.
    pub fn tell(&mut self) {
        let told = self.book.told.swap(self.own, Relaxed);
        self.account.change(told, self.own);
        self.excess = self.account.excess() > 0;
    }

    /// Bytes that may be held beyond what is held.
    pub fn room(&self) -> usize {
        self.account.room()
    }

    /// Bytes that are held beyond what may be, as far as was told.
    pub fn excess(&self) -> usize {
        self.account.excess()
    }

    /// Whether [`Self::bid`] is to be called.
    #[inline]
    pub fn is_asked(&self) -> bool {
        self.excess || self.book.asked.load(Relaxed) != 0
    }

    /// Whether the transports of its clients hold something.
    pub fn has_aside(&self) -> bool {
        self.book.aside.load(Relaxed) > 0
    }

    /// The largest client of this share holds so many bytes. True if it is to go; then [`Self::tell`] says whether that was
    /// enough. `wake` gets the workers that have to look at their shares.
    pub fn bid(&mut self, largest: usize, wake: &mut Vec<usize>) -> bool {
        let mut census = self.account.census();
        let asked = self.book.asked.swap(0, Relaxed) & ASKED != 0;
        self.excess = false;
        let is_over = self.account.excess() > 0;
        if census.verdict == Some(self.place) {
            census.verdict = None;
            return is_over && largest > 0;
        }
        if asked && census.missing > 0 {
            if largest > census.best.0 {
                census.best = (largest, self.place);
            }
            census.missing -= 1;
        } else if census.missing > 0 || census.verdict.is_some() || !is_over {
            // Others are at it, or it is over.
            return false;
        } else {
            census.best = (largest, self.place);
            for place in 0..census.books.len() {
                let Some(book) = &census.books[place] else { continue };
                if place != self.place && book.told.load(Relaxed) + book.aside.load(Relaxed) > largest {
                    census.missing += 1;
                    census.ask(place, wake);
                }
            }
        }
        if census.missing > 0 {
            return false;
        }
        let (most, place) = census.best;
        if !is_over || most == 0 {
            return false;
        }
        if place == self.place {
            return true;
        }
        if census.books[place].is_some() {
            census.verdict = Some(place);
            census.ask(place, wake);
        }
        false
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let told = self.book.told.swap(0, Relaxed);
        self.account.held.fetch_sub(told, Relaxed);
        let mut census = self.account.census();
        census.books[self.place] = None;
        if census.verdict == Some(self.place) {
            census.verdict = None;
        } else if self.book.asked.load(Relaxed) & ASKED != 0 {
            census.missing = census.missing.saturating_sub(1);
        }
    }
}

/// What the transport of one client holds, which counts it itself: the pool that has the client does not see it.
#[derive(Debug)]
pub struct Aside {
    account: Arc<Account>,
    book: Option<Arc<Book>>,
    held: usize,
}

impl Aside {
    /// Of a client that no pool has yet.
    pub fn new(account: &Arc<Account>) -> Self {
        Self { account: account.clone(), book: None, held: 0 }
    }

    /// The account.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// So many bytes are held from now on. Where that is more than before, and too much, whoever has the client looks at all of
    /// its clients.
    #[inline]
    pub fn hold(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.held, bytes);
        if bytes == before {
            return;
        }
        self.account.change(before, bytes);
        change(&self.account.aside, before, bytes);
        let Some(book) = &self.book else { return };
        change(&book.aside, before, bytes);
        if bytes > before && self.account.excess() > 0 {
            book.asked.fetch_or(OVER, Relaxed);
        }
    }

    /// The client belongs to this share from now on.
    pub fn join(&mut self, share: &Share) {
        let held = self.held;
        self.hold(0);
        self.book = Some(share.book.clone());
        self.hold(held);
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.hold(0);
    }
}

/// One after the other, so that it cannot become less than nothing between.
fn change(held: &AtomicUsize, before: usize, after: usize) {
    if after >= before {
        held.fetch_add(after - before, Relaxed);
    } else {
        held.fetch_sub(before - after, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_transports_hold_is_looked_at_where_their_clients_are() {
        let account = Account::new(10 * STEP);
        let mut shares: Vec<Share> = (0..2).map(|worker| Share::new(&account, worker)).collect();
        let mut early = Aside::new(&account);
        early.hold(2 * STEP);
        assert!((account.held(), account.aside()) == (2 * STEP, 2 * STEP) && !shares[1].has_aside());
        early.join(&shares[1]);
        assert!(shares[1].has_aside() && account.held() == 2 * STEP && !account.is_crowded());
        early.hold(6 * STEP);
        assert!(account.is_crowded() && !account.is_swamped() && !shares[1].is_asked());
        shares[0].change(0, 5 * STEP);
        let mut wake = Vec::new();
        assert!(!shares[0].bid(5 * STEP, &mut wake), "somebody else may have a larger one");
        assert_eq!(wake, [1]);
        assert!(shares[1].bid(6 * STEP, &mut wake));
        // It grows, and nobody else has anything to tell.
        early.hold(7 * STEP);
        assert!(shares[1].is_asked() && !shares[0].is_asked());
        assert!(shares[1].bid(7 * STEP, &mut wake));
        // There is room, but not for transports alone.
        shares[0].change(5 * STEP, 0);
        early.hold(8 * STEP);
        assert!(account.held() == 8 * STEP && account.is_swamped() && shares[1].is_asked());
        assert!(shares[1].excess() < STEP && shares[1].bid(8 * STEP, &mut wake));
        drop(early);
        assert!(!shares[1].has_aside() && (account.held(), account.aside()) == (0, 0));
    }

    #[test]
    fn shares_are_told_in_steps() {
        let account = Account::new(1 << 20);
        let mut share = Share::new(&account, 0);
        share.change(0, STEP - 1);
        assert_eq!((share.held(), account.held()), (STEP - 1, 0));
        share.change(0, 1);
        assert_eq!(account.held(), STEP);
        share.change(STEP, 0);
        assert_eq!(account.held(), 0);
        share.change(0, 5 * STEP);
        drop(share);
        assert_eq!(account.held(), 0, "what has ended holds nothing");
    }

    #[test]
    fn the_largest_of_all_shares_goes() {
        let account = Account::new(10 * STEP);
        let mut shares: Vec<Share> = (0..3).map(|worker| Share::new(&account, worker)).collect();
        let largest = [2 * STEP, 6 * STEP, STEP];
        shares[1].change(0, 6 * STEP);
        shares[2].change(0, 3 * STEP);
        assert!(!shares[2].is_asked());
        shares[0].change(0, 2 * STEP);
        assert!(shares[0].is_asked(), "11 of 10");
        let mut wake = Vec::new();
        assert!(!shares[0].bid(largest[0], &mut wake));
        assert_eq!(wake, [1, 2], "both hold more than the first one's largest");
        assert!(!shares[0].bid(largest[0], &mut wake), "they have not answered");
        wake.clear();
        assert!(!shares[1].bid(largest[1], &mut wake));
        assert!(!shares[2].bid(largest[2], &mut wake));
        assert_eq!(wake, [1]);
        assert!(shares[1].is_asked());
        assert!(shares[1].bid(largest[1], &mut wake));
        shares[1].change(6 * STEP, 0);
        shares[1].tell();
        assert!(!shares.iter().any(Share::is_asked), "one was enough");
    }

    #[test]
    fn who_ends_while_asked_holds_nobody_up() {
        let account = Account::new(STEP);
        let mut first = Share::new(&account, 0);
        let mut second = Share::new(&account, 1);
        second.change(0, 4 * STEP);
        first.change(0, STEP);
        let mut wake = Vec::new();
        assert!(!first.bid(STEP, &mut wake));
        drop(second);
        first.change(0, STEP);
        assert!(first.is_asked());
        assert!(first.bid(2 * STEP, &mut wake));
    }
}
