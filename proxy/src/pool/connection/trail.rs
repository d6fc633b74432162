//! What was written to a shard and is not answered: the bytes of requests, and when they were written.
//!
//! A ticket does not know what was asked, and most requests are answered before anybody could want to know. So whatever is written
//! is copied once for each write, not for each request, and where a request stands in it follows from how many bytes are in flight
//! behind it. Of what is large the beginning is kept.

use std::collections::VecDeque;

use bytes::{Buf as _, BytesMut};

use super::{Connection, Link};
use crate::buffer::Output;
use crate::pool::ticket::Ticket;
use crate::protocol::Protocol;
use crate::time::Time;

/// So much is shown of a request at most, and kept of one that is large: 32 words of 128 bytes, with what is around them.
pub const HEAD_MAX: usize = 5 * 1024;
/// Writes that are remembered; of what was written before nothing is known.
pub const WRITES_MAX: usize = 4096;
/// Bytes that are kept of one write.
const TOGETHER_MAX: usize = 512 * 1024;
/// Requests that are looked for of those that have failed together.
const FAILED_MAX: usize = 8;
/// Room that is kept while nothing is in flight.
const KEEP_MAX: usize = 4 * 1024;
/// The same of pieces.
const PIECES_KEEP_MAX: usize = 64;

/// What was written on a connection and is not answered.
#[derive(Default, Debug)]
pub struct Trail {
    pieces: VecDeque<Piece>,
    /// The bytes that are kept of them, one after the other.
    bytes: BytesMut,
    /// Bytes of all pieces, kept or not.
    length: u64,
    /// So many bytes stood in the output before it was written, and so many pieces and bytes of ours are from before that.
    staged: usize,
    before: (usize, usize),
    /// When the last response before those that are being taken was complete.
    heard: Time,
}

/// Bytes that were written together.
#[derive(Default, Debug)]
struct Piece {
    at: Time,
    /// When its shard had been heard of before.
    heard: Time,
    length: u64,
    kept: usize,
}

impl Trail {
    /// This is about to be written.
    fn stage(&mut self, output: &Output) {
        self.unstage();
        self.staged = output.len();
        let mut room = TOGETHER_MAX;
        output.each_piece(|bytes, is_large| {
            let kept = bytes.len().min(if is_large { HEAD_MAX } else { room }).min(room);
            room -= kept;
            self.keep(bytes, kept);
        });
    }

    fn keep(&mut self, bytes: &[u8], kept: usize) {
        self.bytes.extend_from_slice(&bytes[..kept]);
        self.pieces.push_back(Piece { length: bytes.len() as u64, kept, ..Piece::default() });
    }

    /// What was to be written is not, or is staged anew.
    fn unstage(&mut self) {
        if self.staged > 0 {
            let (pieces, bytes) = self.before;
            self.pieces.truncate(pieces);
            self.bytes.truncate(bytes);
            self.staged = 0;
        }
        self.before = (self.pieces.len(), self.bytes.len());
    }

    /// As much was written as makes the output so long; so many bytes of all that was ever written are not answered.
    fn settle(&mut self, left: usize, unanswered: u64, now: Time) {
        let mut written = self.staged.saturating_sub(left) as u64;
        if written == 0 {
            self.unstage();
        }
        self.staged = 0;
        let (first, mut end) = self.before;
        let mut count = first;
        for piece in self.pieces.range_mut(first..) {
            if written == 0 {
                break;
            }
            (piece.at, piece.heard) = (now, self.heard);
            piece.length = piece.length.min(written);
            piece.kept = piece.kept.min(usize::try_from(written).unwrap_or(usize::MAX));
            written -= piece.length;
            self.length += piece.length;
            end += piece.kept;
            count += 1;
        }
        self.pieces.truncate(count);
        self.bytes.truncate(end);
        self.trim(unanswered);
    }

    /// Only so many bytes of all that was written are of interest still.
    fn trim(&mut self, unanswered: u64) {
        while let Some(oldest) = self.pieces.front()
            && (self.length - oldest.length >= unanswered || self.pieces.len() > WRITES_MAX)
        {
            self.length -= oldest.length;
            self.bytes.advance(oldest.kept);
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            self.bytes.clear();
            // Room that was passed over is not in the capacity until it is asked for.
            if self.bytes.capacity() > KEEP_MAX || self.bytes.try_reclaim(KEEP_MAX + 1) {
                self.bytes = BytesMut::new();
            }
            if self.pieces.capacity() > PIECES_KEEP_MAX {
                self.pieces = VecDeque::new();
            }
        }
    }

    /// Nothing that was written is of interest any more.
    fn clear(&mut self) {
        self.unstage();
        self.trim(0);
    }

    /// Of a request of so many bytes, whose first was written so many bytes before the last of all: when that was, when its
    /// shard had been heard of before, and its beginning.
    fn find(&self, before_end: u64, length: u64) -> Option<(Time, Time, Vec<u8>)> {
        let mut start = self.length.checked_sub(before_end)?;
        let (mut at, mut found, mut offset) = (None, Vec::new(), 0);
        let most = usize::try_from(length).unwrap_or(usize::MAX).min(HEAD_MAX);
        for piece in &self.pieces {
            if start < piece.length {
                at.get_or_insert((piece.at, piece.heard));
                let from = usize::try_from(start).unwrap_or(usize::MAX).min(piece.kept);
                let room = most - found.len();
                let wanted = (piece.kept - from).min(room);
                found.extend_from_slice(&self.bytes[offset + from..][..wanted]);
                // What is not kept of a large one makes what follows something else.
                if found.len() == most || (piece.kept as u64) < piece.length {
                    break;
                }
                start = 0;
            } else {
                start -= piece.length;
            }
            offset += piece.kept;
        }
        let (at, heard) = at?;
        Some((at, heard, found))
    }

    /// Memory it holds; what an empty one keeps is not counted.
    pub fn memory(&self) -> usize {
        if self.pieces.is_empty() {
            return 0;
        }
        self.bytes.capacity() + self.pieces.capacity() * size_of::<Piece>()
    }
}

/// What is known of a request that was sent.
#[derive(Debug)]
pub struct Traced {
    /// When its first byte was written; none where none was.
    pub written: Option<Time>,
    /// When its shard had been heard of before that.
    pub heard: Time,
    /// Its beginning.
    pub head: Vec<u8>,
}

impl<P: Protocol> Connection<P> {
    /// What is to be written next is noted, or not.
    #[inline]
    pub fn stage_trail(&mut self, notes: bool) {
        if notes {
            if matches!(self.link, Link::Up) && !self.output.is_empty() {
                self.trail.get_or_insert_default().stage(&self.output);
            }
        } else if self.trail.is_some() {
            self.trail = None;
        }
    }

    /// It was written as far as possible.
    #[inline]
    pub fn settle_trail(&mut self, now: Time) {
        if let Some(trail) = &mut self.trail {
            let left = self.output.len();
            trail.settle(left, self.in_flight_bytes.saturating_sub(left as u64), now);
        }
    }

    /// Responses were taken just now: what is behind them waits for its shard from here on. A part of a response says nothing: what
    /// is large comes in many pieces, however long its shard has thought about it.
    pub fn trail_heard(&mut self, now: Time) {
        if let Some(trail) = &mut self.trail {
            trail.heard = now;
        }
    }

    /// Where nothing is in flight, what was written is not kept until the next write.
    #[inline]
    pub fn tidy_trail(&mut self) {
        if self.in_flight.is_empty()
            && let Some(trail) = &mut self.trail
        {
            trail.clear();
        }
    }

    /// Memory that is held for it.
    pub fn trail_bytes(&self) -> usize {
        self.trail.as_ref().map_or(0, |trail| trail.memory())
    }

    /// When the last response before those that are being taken was complete.
    pub fn heard_before(&self) -> Time {
        self.trail.as_ref().map_or(self.made, |trail| trail.heard)
    }

    /// What is known of the request that has just been answered.
    pub fn trace_answered(&self, ticket: &Ticket<P>) -> Traced {
        self.trace(ticket, self.in_flight_bytes)
    }

    /// The same of the oldest of those in flight whose deadline has just passed.
    pub fn trace_late(&self, now: Time) -> Vec<(Ticket<P>, Traced)> {
        let Some(timeout) = self.policy.timeout else { return Vec::new() };
        self.trace_some(|ticket| !ticket.expired && ticket.since.plus(timeout) <= now)
    }

    /// The same of the oldest of those in flight that are meant.
    pub fn trace_some(&self, is_meant: impl Fn(&Ticket<P>) -> bool) -> Vec<(Ticket<P>, Traced)> {
        let mut behind = self.in_flight_bytes;
        let mut found = Vec::new();
        for ticket in &self.in_flight {
            behind -= ticket.length;
            if is_meant(ticket) {
                found.push((*ticket, self.trace(ticket, behind)));
                if found.len() == FAILED_MAX {
                    break;
                }
            }
        }
        found
    }

    /// So many bytes are in flight behind it.
    fn trace(&self, ticket: &Ticket<P>, behind: u64) -> Traced {
        let (all, unwritten) = (behind + ticket.length, self.output.len() as u64);
        if all <= unwritten {
            let start = usize::try_from(unwritten - all).unwrap_or(usize::MAX);
            let length = usize::try_from(ticket.length).unwrap_or(usize::MAX).min(HEAD_MAX);
            let head = self.output.whole().and_then(|output| output.get(start..start + length));
            let head = head.unwrap_or_default().to_vec();
            return Traced { written: None, heard: Time::default(), head };
        }
        let found = self.trail.as_ref().and_then(|trail| trail.find(all - unwritten, ticket.length));
        match found {
            Some((at, heard, head)) => Traced { written: Some(at), heard, head },
            None => Traced { written: None, heard: Time::default(), head: Vec::new() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{Piece as Bytes, SHARE_MIN};
    use crate::pool::ClientId;
    use crate::pool::members::MemberIndex;
    use crate::pool::policy::Policy;
    use crate::pool::ticket::Whom;
    use crate::protocol::resp::Resp;
    use crate::protocol::resp::session::Settings;

    struct Bench {
        connection: Connection<Resp>,
        random: u64,
        now: u64,
    }

    impl Bench {
        fn new() -> Self {
            let lane = Resp::lane(&Resp::session(&Settings::default()));
            let mut connection =
                Connection::new(1, MemberIndex::default(), lane, Policy::shared(None), false);
            connection.up();
            Self { connection, random: 7, now: 1 }
        }

        fn below(&mut self, bound: usize) -> usize {
            self.random =
                self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.random >> 33) as usize % bound
        }

        fn submit(&mut self, number: u32, text: Vec<u8>) {
            let client = ClientId { index: 0, generation: 1 };
            let ticket = Ticket { whom: Whom::Client(client), number, ..Ticket::prelude(Time::default()) };
            let request =
                if text.len() < SHARE_MIN { Bytes::Copied(&text) } else { Bytes::Shared(text.into()) };
            self.connection.submit(ticket, request, Time::default());
        }

        fn write(&mut self, most: usize) {
            self.now += 1;
            self.connection.stage_trail(true);
            self.connection.output.advance(most);
            self.connection.settle_trail(Time::from_micros(self.now));
        }
    }

    /// However it is written, and whatever is dropped and answered between, what was asked is known.
    #[test]
    fn a_request_is_known_until_it_is_answered() {
        let mut bench = Bench::new();
        let mut made = Vec::new();
        let (mut known, mut large) = (0, 0);
        for number in 0..30_000_u32 {
            let length = if bench.below(100) == 0 { SHARE_MIN + bench.below(1000) } else { bench.below(60) };
            let mut text = format!("<{number}>").into_bytes();
            text.resize(text.len() + length, b'x');
            made.push(text.clone());
            bench.submit(number, text);
            match bench.below(5) {
                0 | 1 => {
                    let all = bench.connection.output.len();
                    let most = if bench.below(2) == 0 { all } else { bench.below(all + 1) };
                    bench.write(most);
                }
                2 => {
                    let chosen = bench.below(5) as u32;
                    bench.connection.forsake(|ticket| ticket.number % 5 == chosen);
                }
                _ => {}
            }
            while bench.connection.asked().is_some() && bench.below(3) > 0 {
                let ticket = bench.connection.answered().expect("just seen");
                let Traced { written, head, .. } = bench.connection.trace_answered(&ticket);
                let asked = &made[ticket.number as usize];
                assert!(written.is_some(), "{}", ticket.number);
                assert!(asked.starts_with(&head), "{}: {}", ticket.number, String::from_utf8_lossy(&head));
                let is_written = bench.connection.output.len() as u64 <= bench.connection.in_flight_bytes;
                if !is_written {
                    // A shard may answer a request of which it has read a part.
                } else if asked.len() < 100 {
                    // One that stands behind a large one in the same write is found as well.
                    assert_eq!(&head, asked);
                    known += 1;
                } else {
                    large += 1;
                    assert!(head.len() >= 8, "{}", ticket.number);
                }
            }
        }
        assert!(known > 10_000 && large > 100, "{known} {large}");
        let held = bench.connection.trail_bytes();
        assert!(held < 4 << 20, "{held}");
    }

    /// Small ones that stand together are no large one, however many they are, and wherever a large one stands.
    #[test]
    fn many_small_requests_beside_a_large_one_are_known() {
        let mut bench = Bench::new();
        let mut made = Vec::new();
        for number in 0..3000_u32 {
            let mut text = format!("<{number}>").into_bytes();
            text.resize(if number % 1000 == 500 { 2 * SHARE_MIN } else { 40 }, b'x');
            made.push(text.clone());
            bench.submit(number, text);
        }
        let all = bench.connection.output.len();
        bench.write(all);
        for asked in made {
            let ticket = bench.connection.answered().expect("it was sent");
            let head = bench.connection.trace_answered(&ticket).head;
            assert_eq!(head, asked[..asked.len().min(HEAD_MAX)]);
        }
    }

    #[test]
    fn a_shard_that_never_answers_makes_no_trail_without_end() {
        let mut bench = Bench::new();
        for number in 0..100_000 {
            bench.submit(number, b"*1\r\n$4\r\nPING\r\n".to_vec());
            bench.write(14);
        }
        assert!(bench.connection.trail_bytes() < 1 << 20, "{}", bench.connection.trail_bytes());
        while bench.connection.answered().is_some() {}
        bench.connection.tidy_trail();
        let trail = bench.connection.trail.as_ref().expect("it is on");
        assert!(trail.bytes.capacity() <= KEEP_MAX && trail.pieces.capacity() <= PIECES_KEEP_MAX);
        bench.connection.stage_trail(false);
        assert_eq!(bench.connection.trail_bytes(), 0);
    }
}
