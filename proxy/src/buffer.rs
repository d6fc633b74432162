//! Bytes on their way out, and the unfinished rest of bytes that came in.
//!
//! Small messages are copied together, so that many leave in one write. Large ones are shared with the buffer they
//! were read into: at 64 KiB a value, copying in user space was a quarter of the proxy's CPU time.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

use crate::freed::LARGE_MIN;

/// From this size on a message is shared instead of copied: below it, the copy is cheaper than one more vector
/// in the system call and the reference count.
pub const SHARE_MIN: usize = 16 * 1024;
/// Room for one read. Larger than 64 KiB, so that a value of that size and its header come in one.
pub const READ_SIZE: usize = 128 * 1024;
/// An unfinished message up to this size is copied aside; above it, the whole read buffer is set aside.
pub const COPY_ASIDE_MAX: usize = 8 * 1024;
/// A message up to this size is copied out of the read buffer once it has to wait.
pub const SETTLE_MAX: usize = 512 * 1024;
/// Size of a block of requests read ahead.
const AHEAD_BLOCK: usize = 64 * 1024;
/// A buffer that is empty again is kept for the next message up to this size.
const KEEP_MAX: usize = 16 * 1024;

/// These bytes, so that they pin no memory but their own or about as much: what has to wait must not keep the buffer that it
/// was read into, which may be many times as large.
pub fn unpinned(bytes: Bytes) -> Bytes {
    if bytes.len() < SETTLE_MAX { Bytes::copy_from_slice(&bytes) } else { bytes }
}

/// A piece of a response on its way to a client.
#[derive(Debug)]
pub enum Piece<'b> {
    /// Small enough to be copied.
    Copied(&'b [u8]),
    /// Large: shared, not copied.
    Shared(Bytes),
}

impl Piece<'_> {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Piece::Copied(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }
}

/// Bytes on their way to one socket, in order: those that are queued here, and how many its transport has taken and not
/// written yet. A socket of the kernel takes what it writes; what encrypts takes bytes first and writes them as there is room.
#[derive(Default, Debug)]
pub struct Output {
    /// Small messages, copied one after the other.
    copied: Vec<u8>,
    /// How many of `copied` are written.
    written: usize,
    /// Large messages; each comes after `copied[..place]`. Places never decrease.
    shared: VecDeque<(usize, Bytes)>,
    /// Bytes of `shared` still to be written.
    shared_bytes: usize,
    /// The first so many of `shared` pin no memory but their own.
    settled: usize,
    /// Bytes that the transport holds until it can write them.
    held: usize,
}

impl Output {
    /// Bytes queued: the transport has not taken them.
    #[inline]
    pub fn len(&self) -> usize {
        self.copied.len() - self.written + self.shared_bytes
    }

    /// Bytes that the transport has taken and not written.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Bytes that are not written: queued, or held by the transport.
    #[inline]
    pub fn unsent(&self) -> usize {
        self.len() + self.held
    }

    /// Memory held, here and by the transport; what an empty one keeps for the next message is not counted.
    pub fn memory(&self) -> usize {
        if self.is_empty() {
            return self.held;
        }
        self.held
            + self.copied.capacity()
            + self.shared_bytes
            + self.shared.len() * size_of::<(usize, Bytes)>()
    }

    /// Nothing is queued. The transport may hold something still: see [`Self::is_sent`].
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything is written.
    #[inline]
    pub fn is_sent(&self) -> bool {
        self.unsent() == 0
    }

    /// The transport holds so many bytes from now on that it has taken and not written; none once it is gone.
    pub fn hold(&mut self, bytes: usize) {
        self.held = bytes;
    }

    /// Where small messages are written directly, after everything before them.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.copied
    }

    /// Appends a copy.
    #[inline]
    pub fn copy(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
    }

    /// Appends without copying, if that is worth it.
    pub fn share(&mut self, bytes: Bytes) {
        if bytes.len() < SHARE_MIN {
            return self.copy(&bytes);
        }
        self.shared_bytes += bytes.len();
        self.shared.push_back((self.copied.len(), bytes));
    }

    /// Appends a piece of a response.
    #[inline]
    pub fn push(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Copied(bytes) => self.copy(bytes),
            Piece::Shared(bytes) => self.share(bytes),
        }
    }

    /// Moves everything from `other` to the end of this.
    pub fn append(&mut self, mut other: Output) {
        while !other.is_empty() {
            match other.shared.front() {
                Some(&(place, _)) if place == other.written => {
                    let (_, bytes) = other.shared.pop_front().expect("just seen");
                    other.shared_bytes -= bytes.len();
                    self.share(bytes);
                }
                next => {
                    let end = next.map_or(other.copied.len(), |&(place, _)| place);
                    self.copy(&other.copied[other.written..end]);
                    other.written = end;
                }
            }
        }
    }

    /// Whether a large message is waiting: then writing early costs nothing and frees the read buffer.
    pub fn has_shared(&self) -> bool {
        !self.shared.is_empty()
    }

    /// All that is to be written, if that is one piece of small messages.
    #[inline]
    pub fn whole(&self) -> Option<&[u8]> {
        self.shared.is_empty().then(|| &self.copied[self.written..])
    }

    /// All that is to be written, in order: small messages together, and each large one with the word that it is one.
    pub fn each_piece(&self, mut see: impl FnMut(&[u8], bool)) {
        let mut from = self.written;
        for (place, bytes) in &self.shared {
            if from < *place {
                see(&self.copied[from..*place], false);
                from = *place;
            }
            see(bytes, true);
        }
        if from < self.copied.len() {
            see(&self.copied[from..], false);
        }
    }

    /// The first bytes to write, at most so many, as vectors; returns how many vectors were set.
    pub fn vectors<'o>(&'o self, vectors: &mut [IoSlice<'o>], mut most: usize) -> usize {
        let (mut count, room) = (0, vectors.len());
        let mut set = |bytes: &'o [u8]| {
            let bytes = &bytes[..bytes.len().min(most)];
            most -= bytes.len();
            if !bytes.is_empty() {
                vectors[count] = IoSlice::new(bytes);
                count += 1;
            }
            count < room && most > 0
        };
        let mut at = self.written;
        for (place, bytes) in &self.shared {
            if !set(&self.copied[at..*place]) || !set(bytes) {
                return count;
            }
            at = *place;
        }
        set(&self.copied[at..]);
        count
    }

    /// A copy of the first `count` bytes; shared with those where they are one large message.
    pub fn first(&self, count: usize) -> Bytes {
        if let Some((place, bytes)) = self.shared.front()
            && *place == self.written
            && bytes.len() == count
        {
            return bytes.clone();
        }
        let mut first = BytesMut::with_capacity(count);
        let mut at = self.written;
        for (place, bytes) in self
            .shared
            .iter()
            .map(|(place, bytes)| (*place, &bytes[..]))
            .chain([(self.copied.len(), &[][..])])
        {
            for part in [&self.copied[at..place], bytes] {
                let room = count - first.len();
                first.extend_from_slice(&part[..part.len().min(room)]);
            }
            if first.len() == count {
                break;
            }
            at = place;
        }
        first.freeze()
    }

    /// The first `count` bytes queued are taken by the transport, or not wanted any more.
    pub fn advance(&mut self, mut count: usize) {
        debug_assert!(count <= self.len());
        if self.shared.is_empty() {
            self.written += count;
            count = 0;
        }
        while count > 0 {
            let place = self.shared.front().map_or(self.copied.len(), |&(place, _)| place);
            let copied = (place - self.written).min(count);
            self.written += copied;
            count -= copied;
            if count == 0 {
                break;
            }
            let Some((_, bytes)) = self.shared.front_mut() else { break };
            let taken = bytes.len().min(count);
            bytes.advance(taken);
            self.shared_bytes -= taken;
            count -= taken;
            if bytes.is_empty() {
                self.shared.pop_front();
                self.settled = self.settled.saturating_sub(1);
            }
        }
        self.reclaim();
    }

    /// Drops everything that is queued.
    pub fn clear(&mut self) {
        self.advance(self.len());
    }

    /// A peer that does not read must not pin whole read buffers for small parts of them: large messages are
    /// copied out of theirs. Called when a write would have to wait.
    pub fn settle(&mut self) {
        for (_, bytes) in self.shared.iter_mut().skip(self.settled) {
            *bytes = unpinned(std::mem::take(bytes));
        }
        self.settled = self.shared.len();
    }

    /// Drops parts of what waits, each from one byte to another, in order.
    pub fn remove(&mut self, parts: &[Range<usize>]) {
        let before = std::mem::take(self);
        let mut parts = parts.iter().peekable();
        let mut start = 0;
        // What is left of a piece that begins at byte `start`.
        let mut left = |length: usize| {
            let (mut ranges, mut at) = (Vec::new(), 0);
            while let Some(part) = parts.peek()
                && part.start < start + length
            {
                if part.start > start + at {
                    ranges.push(at..part.start - start);
                }
                at = (part.end - start).min(length);
                if part.end > start + length {
                    break;
                }
                parts.next();
            }
            if at < length {
                ranges.push(at..length);
            }
            start += length;
            ranges
        };
        let mut at = before.written;
        for (place, bytes) in &before.shared {
            let copied = &before.copied[at..*place];
            left(copied.len()).into_iter().for_each(|range| self.copy(&copied[range]));
            left(bytes.len()).into_iter().for_each(|range| self.share(bytes.slice(range)));
            at = *place;
        }
        let copied = &before.copied[at..];
        left(copied.len()).into_iter().for_each(|range| self.copy(&copied[range]));
    }

    fn reclaim(&mut self) {
        if self.written == self.copied.len() && self.shared.is_empty() {
            self.copied.clear();
            self.written = 0;
            if self.copied.capacity() > KEEP_MAX {
                self.copied = Vec::new();
            }
            if self.shared.capacity() > 64 {
                self.shared = VecDeque::new();
            }
        } else if self.written > KEEP_MAX && self.written > self.copied.len() / 2 {
            self.copied.drain(..self.written);
            for (place, _) in &mut self.shared {
                *place -= self.written;
            }
            self.written = 0;
        }
    }
}

/// Requests that were read ahead of being served, in blocks: one that is served from them and stays for long pins no more
/// than a block.
#[derive(Default, Debug)]
pub struct Ahead {
    blocks: VecDeque<Vec<u8>>,
    length: usize,
}

impl Ahead {
    /// Bytes kept.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Keeps a copy of these bytes, which come after all before.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len();
        while !bytes.is_empty() {
            match self.blocks.back_mut() {
                Some(last) if last.len() < AHEAD_BLOCK => {
                    let (now, later) = bytes.split_at(bytes.len().min(AHEAD_BLOCK - last.len()));
                    last.extend_from_slice(now);
                    bytes = later;
                }
                _ => self.blocks.push_back(Vec::new()),
            }
        }
    }

    /// Moves the first block to the end of `scratch`.
    pub fn pop(&mut self, scratch: &mut BytesMut) {
        if let Some(block) = self.blocks.pop_front() {
            self.length -= block.len();
            scratch.extend_from_slice(&block);
        }
    }
}

/// The beginning of a message whose end has not come yet. Idle connections keep none and own no memory.
#[derive(Default, Debug)]
pub struct Rest(BytesMut);

impl Rest {
    /// Bytes kept.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Memory held for them, which is more where a whole read buffer was set aside. What a large one has room for was
    /// never touched.
    pub fn memory(&self) -> usize {
        if self.0.len() > READ_SIZE { self.0.len() } else { self.0.capacity() }
    }

    /// Nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the rest to `scratch`, which is empty, where nothing is read behind it.
    pub fn take(&mut self, scratch: &mut BytesMut) {
        debug_assert!(scratch.is_empty());
        if self.0.len() > COPY_ASIDE_MAX {
            *scratch = std::mem::take(&mut self.0);
        } else if !self.0.is_empty() {
            scratch.extend_from_slice(&self.0);
            self.0 = BytesMut::new();
        }
    }

    /// Puts the rest in front of what will be read into `scratch`, which is empty, and makes room for the next
    /// read: for `missing` bytes where that is known, but never for more than has come already, because
    /// announcing a length is cheap.
    pub fn restore(&mut self, scratch: &mut BytesMut, missing: usize) {
        debug_assert!(scratch.is_empty());
        if self.0.len() > COPY_ASIDE_MAX {
            *scratch = std::mem::take(&mut self.0);
            if missing == 0 {
                scratch.reserve(READ_SIZE / 2);
                return;
            }
            if scratch.capacity() - scratch.len() >= missing.min(READ_SIZE / 2) {
                return;
            }
            let room = missing.min(scratch.len().max(READ_SIZE));
            if scratch.len() >= LARGE_MIN {
                // The allocator moves pages instead of bytes, which would take others' time; what is not touched takes no
                // memory.
                scratch.reserve(room);
            } else {
                // No more than that: `reserve` would take twice as much, which a large message keeps as long as it waits.
                let mut larger = BytesMut::with_capacity(scratch.len() + room);
                larger.extend_from_slice(scratch);
                *scratch = larger;
            }
            return;
        }
        scratch.reserve(READ_SIZE);
        if !self.0.is_empty() {
            scratch.extend_from_slice(&self.0);
            self.0 = BytesMut::new();
        }
    }

    /// Keeps what is left in `scratch`, after so many bytes of it were used, and leaves that empty.
    pub fn keep(&mut self, scratch: &mut BytesMut, used: usize) {
        debug_assert!(self.0.is_empty());
        if used > 2 * READ_SIZE && scratch.len() < used {
            // The little that is left must not pin a buffer that grew for something large.
            *scratch = BytesMut::from(&scratch[..]);
        }
        if scratch.len() > COPY_ASIDE_MAX {
            self.0 = std::mem::take(scratch);
        } else if !scratch.is_empty() {
            self.0 = BytesMut::from(&scratch[..]);
            scratch.clear();
        }
        // A buffer that grew for one large message is not kept for small ones.
        if scratch.capacity() > 2 * READ_SIZE {
            *scratch = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(output: &Output) -> Vec<u8> {
        output.first(output.len()).to_vec()
    }

    #[test]
    fn parts_are_removed_wherever_they_stand() {
        let large = vec![b'L'; SHARE_MIN];
        let mut whole = b"wrote-abc".to_vec();
        whole.extend_from_slice(&large);
        whole.extend_from_slice(b"defg");
        let end = whole.len() - 6;
        for (from, to) in
            [(0, 0), (0, 3), (1, 2), (2, 20), (3, 3 + SHARE_MIN), (5, end), (0, end), (end - 3, end)]
        {
            for (again, until) in [(to, to), (to + 1, to + 2), (end - 1, end)] {
                if again < to || until > end {
                    continue;
                }
                let mut output = Output::default();
                output.copy(b"wrote-abc");
                output.share(Bytes::copy_from_slice(&large));
                output.copy(b"defg");
                output.advance(6);
                output.remove(&[from..to, again..until]);
                let mut expected = whole[6..].to_vec();
                expected.drain(again..until);
                expected.drain(from..to);
                assert!(all(&output) == expected, "{from}..{to}, {again}..{until}");
            }
        }
    }

    /// How often what is kept of a message of `whole` bytes is moved while it comes in pieces.
    fn moves(whole: usize, piece: usize, announced: bool) -> usize {
        let (mut rest, mut scratch) = (Rest::default(), BytesMut::new());
        let (mut came, mut moves, mut place) = (0, 0, std::ptr::null());
        while came < whole {
            rest.restore(&mut scratch, if announced { whole - came } else { 0 });
            let count = piece.min(whole - came);
            scratch.resize(came + count, b'x');
            moves += usize::from(!std::ptr::eq(scratch.as_ptr(), place));
            place = scratch.as_ptr();
            came += count;
            rest.keep(&mut scratch, 0);
        }
        assert_eq!(rest.len(), whole);
        moves
    }

    /// Copying a message again at every read of it would take a time that grows with its square.
    #[test]
    fn a_large_message_is_moved_a_few_times() {
        let moves = moves(64 << 20, 256 * 1024, true);
        assert!(moves <= 12, "{moves}");
    }

    #[test]
    fn a_message_that_comes_in_small_pieces_is_not_moved_for_each_of_them() {
        for announced in [false, true] {
            for (whole, piece) in [(3 << 20, 1400), (6 << 20, 1400), (6 << 20, 65536), (1 << 20, 100)] {
                let small = COPY_ASIDE_MAX / piece + 1;
                let moves = moves(whole, piece, announced);
                assert!(moves <= small + 24, "{whole} bytes in pieces of {piece}: moved {moves} times");
            }
        }
    }
}
