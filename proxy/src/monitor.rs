//! Whoever watches requests as they are served: clients that have said MONITOR, and `/monitor` of the admin address.
//!
//! As long as somebody watches a pool all passes of its workers are looked at ([`crate::hot`] has the way), and no request otherwise
//! knows of it. Each monitor has a feed of its own, bounded in bytes. Whoever reads it slowly loses lines, and is told how many;
//! nobody waits for it: a worker leaves a line, and takes a lock for that which readers hold only to take what is there.
//!
//! Lines are those of Redis: `1339518083.107412 [0 127.0.0.1:60866] "GET" "key"`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::account::Account;
use crate::protocol::glob::Pattern;

/// Monitors of a pool.
pub const MONITORS_MAX: usize = 16;
/// Bytes that wait for one.
pub const FEED_MAX: usize = 1 << 20;
/// What a line takes beside its bytes.
const LINE_BYTES: usize = 64;

/// Those who watch a pool.
#[derive(Debug)]
pub struct Monitors {
    /// How many there are.
    watching: AtomicUsize,
    all: Mutex<Vec<Arc<Monitor>>>,
    dropped: AtomicU64,
    account: Arc<Account>,
}

/// One who watches.
pub struct Monitor {
    filter: Filter,
    reader: Reader,
    feed: Mutex<Feed>,
    /// Requests that passed the filter, for its sample.
    passed: AtomicU64,
}

/// Who takes the lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reader {
    /// A client, by its number and its place among those of this worker.
    Client {
        /// Unique number.
        number: u64,
        /// See `pool::ClientId`.
        place: u64,
        /// The worker's number.
        worker: usize,
    },
    /// A task, that is woken.
    Task,
}

/// Which requests are shown.
#[derive(Default)]
pub struct Filter {
    /// Those of this client.
    pub client: Option<Who>,
    /// Those whose first key is on the shard with this name.
    pub shard: Option<String>,
    /// Those with a key that matches.
    pub keys: Option<Pattern>,
    /// One in so many; 0: all.
    pub sample: u64,
}

/// Which client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// By its number.
    Number(u64),
    /// Whoever comes from there.
    Host(IpAddr),
    /// By its address.
    Address(std::net::SocketAddr),
}

/// What waits for a monitor.
#[derive(Default)]
struct Feed {
    lines: VecDeque<Bytes>,
    bytes: usize,
    /// Lines that had no room since the last time some were taken.
    dropped: u64,
    waker: Option<Waker>,
    /// Nothing more will come.
    ended: bool,
}

/// What was taken of a feed.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Lines that had no room before these.
    pub dropped: u64,
    /// In order, without their ends.
    pub lines: Vec<Bytes>,
}

/// As many as there may be watch already.
#[derive(PartialEq, Eq, Debug)]
pub struct TooMany;

impl Who {
    /// By its number, its host or its address.
    pub fn of(text: &str) -> Option<Self> {
        let number = text.parse().ok().map(Self::Number);
        let host = || text.parse().ok().map(Self::Host);
        let address = || text.parse().ok().map(Self::Address);
        number.or_else(host).or_else(address)
    }

    /// Whether that is the client with this number and address.
    fn is(self, number: u64, address: &str) -> bool {
        match self {
            Self::Number(meant) => meant == number,
            Self::Host(host) => address
                .parse::<std::net::SocketAddr>()
                .is_ok_and(|address| address.ip().to_canonical() == host.to_canonical()),
            Self::Address(meant) => address.parse() == Ok(meant),
        }
    }
}

impl Monitors {
    /// Nobody watches yet; what waits counts in this account.
    pub fn new(account: &Arc<Account>) -> Self {
        Self {
            watching: AtomicUsize::new(0),
            all: Mutex::default(),
            dropped: AtomicU64::new(0),
            account: account.clone(),
        }
    }

    /// Whether somebody watches.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.watching.load(Relaxed) > 0
    }

    /// How many watch.
    pub fn count(&self) -> usize {
        self.watching.load(Relaxed)
    }

    /// Lines that had no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Monitor>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who watch.
    pub fn list(&self) -> Vec<Arc<Monitor>> {
        self.all().clone()
    }

    /// One more watches from the next pass of each worker on.
    pub fn watch(&self, filter: Filter, reader: Reader) -> Result<Arc<Monitor>, TooMany> {
        let mut all = self.all();
        if all.len() >= MONITORS_MAX {
            return Err(TooMany);
        }
        let monitor = Arc::new(Monitor { filter, reader, feed: Mutex::default(), passed: AtomicU64::new(0) });
        all.push(monitor.clone());
        self.watching.store(all.len(), Relaxed);
        Ok(monitor)
    }

    /// This one does not watch any more.
    pub fn leave(&self, monitor: &Arc<Monitor>) {
        self.retain(|other| !Arc::ptr_eq(other, monitor));
    }

    /// The client with this number does not.
    pub fn leave_client(&self, gone: u64) {
        if !self.is_active() {
            return;
        }
        self.retain(|other| !matches!(other.reader, Reader::Client { number, .. } if number == gone));
    }

    /// Nobody does: the pool has ended, and those who watch are told so.
    pub fn close(&self) {
        self.retain(|_| false);
    }

    fn retain(&self, stays: impl Fn(&Arc<Monitor>) -> bool) {
        let mut all = self.all();
        let left: Vec<_> = all.extract_if(.., |monitor| !stays(monitor)).collect();
        self.watching.store(all.len(), Relaxed);
        drop(all);
        left.iter().for_each(|monitor| self.end(monitor));
    }

    fn end(&self, monitor: &Monitor) {
        let mut feed = monitor.feed();
        self.account.change(feed.bytes, 0);
        (feed.lines, feed.bytes, feed.ended) = (VecDeque::new(), 0, true);
        if let Some(waker) = feed.waker.take() {
            waker.wake();
        }
    }

    /// The monitor gets the line, if there is room; the worker that has to be woken for that.
    pub fn tell(&self, monitor: &Monitor, line: &Bytes) -> Option<usize> {
        let mut feed = monitor.feed();
        let bytes = line.len() + LINE_BYTES;
        if feed.ended {
            return None;
        }
        if feed.bytes + bytes > FEED_MAX {
            feed.dropped += 1;
            self.dropped.fetch_add(1, Relaxed);
            return None;
        }
        self.account.change(0, bytes);
        feed.bytes += bytes;
        feed.lines.push_back(line.clone());
        if let Some(waker) = feed.waker.take() {
            waker.wake();
        }
        match monitor.reader {
            Reader::Client { worker, .. } if feed.lines.len() == 1 => Some(worker),
            _ => None,
        }
    }

    /// What waits for the monitor, up to about so many bytes.
    pub fn take(&self, monitor: &Monitor, most: usize) -> Taken {
        self.take_of(&mut monitor.feed(), most)
    }

    fn take_of(&self, feed: &mut Feed, most: usize) -> Taken {
        let mut taken = Taken { dropped: std::mem::take(&mut feed.dropped), lines: Vec::new() };
        let mut bytes = 0;
        while bytes < most
            && let Some(line) = feed.lines.pop_front()
        {
            bytes += line.len() + LINE_BYTES;
            taken.lines.push(line);
        }
        self.account.change(bytes, 0);
        feed.bytes -= bytes;
        taken
    }

    /// The same for a task, which is woken once there is something; none at the end.
    pub fn poll_take(&self, monitor: &Monitor, most: usize, context: &Context<'_>) -> Poll<Option<Taken>> {
        let mut feed = monitor.feed();
        if feed.ended {
            return Poll::Ready(None);
        }
        if feed.lines.is_empty() && feed.dropped == 0 {
            feed.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(self.take_of(&mut feed, most)))
    }
}

impl Drop for Monitors {
    fn drop(&mut self) {
        self.close();
    }
}

impl Monitor {
    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who takes its lines.
    pub fn reader(&self) -> Reader {
        self.reader
    }

    /// Whether something waits for it.
    pub fn has_lines(&self) -> bool {
        let feed = self.feed();
        !feed.lines.is_empty() || feed.dropped > 0
    }

    /// Whether a request with these keys, whose first is on this shard, passes its filter, but for whose it is.
    pub fn wants<'k>(
        &self,
        mut keys: impl Iterator<Item = &'k [u8]>,
        shard: impl FnOnce() -> Option<Arc<str>>,
    ) -> bool {
        let Filter { keys: pattern, shard: meant, .. } = &self.filter;
        pattern.as_ref().is_none_or(|pattern| keys.any(|key| pattern.matches(key)))
            && meant.as_ref().is_none_or(|meant| shard().is_some_and(|shard| *shard == **meant))
    }

    /// Whether it is one of this client, and one of the sample. Once for each request that passes otherwise.
    pub fn takes(&self, number: u64, address: &str) -> bool {
        self.filter.client.is_none_or(|who| who.is(number, address))
            && (self.filter.sample < 2
                || mixed(self.passed.fetch_add(1, Relaxed)).is_multiple_of(self.filter.sample))
    }
}

/// Each is one by itself.
impl PartialEq for Monitor {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Monitor {}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Monitor").field("reader", &self.reader).finish_non_exhaustive()
    }
}

/// A number that looks drawn by lot: clients that ask in turns would keep step with every so-manieth request (the finalizer of SplitMix64).
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The line of a request: when it came in microseconds since 1970, its database, the client's address, and its words.
pub fn line(micros: u64, db: u32, address: &str, words: &[Box<[u8]>]) -> Bytes {
    let mut line = format!("{}.{:06} [{db} {address}]", micros / 1_000_000, micros % 1_000_000);
    for word in words {
        line.push_str(" \"");
        quote(word, &mut line);
        line.push('"');
    }
    line.into_bytes().into()
}

/// What is told instead of lines that had no room.
pub fn lost(micros: u64, lines: u64) -> Bytes {
    format!("{}.{:06} [0 proxy] \"lines dropped\" \"{lines}\"", micros / 1_000_000, micros % 1_000_000)
        .into_bytes()
        .into()
}

/// As Redis does it (`sdscatrepr`).
fn quote(word: &[u8], line: &mut String) {
    for &byte in word {
        match byte {
            b'\\' | b'"' => {
                line.push('\\');
                line.push(char::from(byte));
            }
            b'\n' => line.push_str("\\n"),
            b'\r' => line.push_str("\\r"),
            b'\t' => line.push_str("\\t"),
            0x07 => line.push_str("\\a"),
            0x08 => line.push_str("\\b"),
            b' '..=b'~' => line.push(char::from(byte)),
            byte => {
                let _ = write!(line, "\\x{byte:02x}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitors() -> (Monitors, Arc<Account>) {
        let account = Account::new(usize::MAX);
        (Monitors::new(&account), account)
    }

    #[test]
    fn lines_are_those_of_redis() {
        let words: Vec<Box<[u8]>> = vec![b"set".as_slice().into(), b"a\"\\ \r\n\x00\xff".as_slice().into()];
        assert_eq!(
            line(1_339_518_083_107_412, 9, "127.0.0.1:60866", &words),
            "1339518083.107412 [9 127.0.0.1:60866] \"set\" \"a\\\"\\\\ \\r\\n\\x00\\xff\""
        );
    }

    #[test]
    fn who_reads_slowly_loses_lines_and_is_told_how_many() {
        let (monitors, account) = monitors();
        let slow = monitors.watch(Filter::default(), Reader::Task).expect("there is room");
        let quick = monitors.watch(Filter::default(), Reader::Task).expect("there is room");
        let line = Bytes::from(vec![b'x'; 10_000]);
        let mut heard = 0;
        for _ in 0..1_000 {
            for monitor in monitors.list() {
                monitors.tell(&monitor, &line);
            }
            heard += monitors.take(&quick, usize::MAX).lines.len();
        }
        assert_eq!(heard, 1_000);
        assert!(account.held() <= FEED_MAX, "{}", account.held());
        let taken = monitors.take(&slow, usize::MAX);
        assert_eq!(taken.dropped + taken.lines.len() as u64, 1_000);
        assert_eq!((taken.dropped, account.held()), (monitors.dropped(), 0));
        assert_eq!(monitors.take(&slow, usize::MAX), Taken::default());
        monitors.tell(&slow, &line);
        monitors.leave(&slow);
        assert_eq!((account.held(), monitors.count()), (0, 1));
        assert_eq!(monitors.tell(&slow, &line), None);
        assert_eq!(account.held(), 0, "nothing is kept for one that has left");
    }

    #[test]
    fn there_are_so_many_at_most() {
        let (monitors, _) = monitors();
        let client = |number| Reader::Client { number, place: number, worker: 0 };
        for number in 0..MONITORS_MAX as u64 {
            assert!(monitors.watch(Filter::default(), client(number)).is_ok());
        }
        assert_eq!(monitors.watch(Filter::default(), client(99)).err(), Some(TooMany));
        monitors.leave_client(3);
        assert!(monitors.watch(Filter::default(), client(99)).is_ok());
        (0..100).for_each(|number| monitors.leave_client(number));
        assert!(!monitors.is_active());
        let last = monitors.watch(Filter::default(), Reader::Task).expect("there is room");
        monitors.close();
        assert!(!monitors.is_active());
        let context = &mut Context::from_waker(Waker::noop());
        assert_eq!(monitors.poll_take(&last, usize::MAX, context), Poll::Ready(None));
    }

    #[test]
    fn a_filter_shows_what_it_means() {
        let (monitors, _) = monitors();
        let watch = |filter| monitors.watch(filter, Reader::Task).expect("there is room");
        let keys = || [b"a:1".as_slice(), b"B:2"].into_iter();
        let shard = || Some(Arc::from("one"));
        let of_keys =
            |pattern: &[u8]| watch(Filter { keys: Some(Pattern::exact(pattern)), ..Filter::default() });
        assert!(of_keys(b"B:*").wants(keys(), shard) && !of_keys(b"b:*").wants(keys(), shard));
        assert!(!of_keys(b"*").wants(std::iter::empty(), shard), "a request without keys matches no pattern");
        let on = |name: &str| watch(Filter { shard: Some(name.into()), ..Filter::default() });
        assert!(
            on("one").wants(keys(), shard)
                && !on("two").wants(keys(), shard)
                && !on("one").wants(keys(), || None)
        );
        let of = |who: &str| watch(Filter { client: Who::of(who), ..Filter::default() });
        for (who, is_meant) in [
            ("7", true),
            ("8", false),
            ("10.0.0.1", true),
            ("10.0.0.2", false),
            ("10.0.0.1:5", true),
            ("10.0.0.1:6", false),
        ] {
            assert_eq!(of(who).takes(7, "10.0.0.1:5"), is_meant, "{who}");
        }
        assert_eq!(Who::of("nobody"), None);
        let tenth = watch(Filter { sample: 10, ..Filter::default() });
        let shown = (0..1000).filter(|_| tenth.takes(1, "")).count();
        assert!((60..140).contains(&shown), "{shown}");
    }
}
