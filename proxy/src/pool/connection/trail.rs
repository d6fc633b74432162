//! What was written to a shard and is not answered: the bytes of requests, and when they were written.
//!
//! A ticket does not know what was asked, and most requests are answered before anybody could want to know. So whatever is written
//! is copied once for each write, not for each request, and where a request stands in it follows from how many bytes are in flight
//! behind it. Of what is large the beginning is kept.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf as _, BytesMut};

use super::{Connection, Link};
use crate::buffer::{Output, SHARE_MIN};
use crate::pool::ticket::Ticket;
use crate::protocol::Protocol;
use crate::time::Time;

/// So much is shown of a request at most, and kept of one that is large: 32 words of 128 bytes, with what is around them.
pub const HEAD_MAX: usize = 5 * 1024;
/// Writes that are remembered; of what was written before nothing is known.
pub const WRITES_MAX: usize = 4096;
/// Small requests that are kept of one write.
const TOGETHER_MAX: usize = 512 * 1024;
/// Pieces of one write that are looked at.
const PIECES_MAX: usize = 32;
/// Requests that are looked for of those that have failed together.
const FAILED_MAX: usize = 8;
/// Room that is kept while nothing is in flight.
const KEEP_MAX: usize = 4 * 1024;

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
    /// When something had come of the shard before what is being taken.
    heard: Time,
}

/// Bytes that were written together.
#[derive(Debug)]
struct Piece {
    at: Time,
    length: u64,
    kept: usize,
}

impl Trail {
    /// This is about to be written.
    fn stage(&mut self, output: &Output) {
        self.unstage();
        self.staged = output.len();
        if let Some(bytes) = output.whole() {
            // None of them is large.
            return self.keep(bytes, bytes.len().min(TOGETHER_MAX));
        }
        let mut vectors = [IoSlice::new(&[]); PIECES_MAX];
        let count = output.vectors(&mut vectors, usize::MAX);
        let mut left = output.len();
        for bytes in &vectors[..count] {
            left -= bytes.len();
            self.stage_piece(bytes);
        }
        if left > 0 {
            self.pieces.push_back(Piece { at: Time::default(), length: left as u64, kept: 0 });
        }
    }

    fn stage_piece(&mut self, bytes: &[u8]) {
        let kept = if bytes.len() < SHARE_MIN { bytes.len() } else { HEAD_MAX };
        self.keep(bytes, kept);
    }

    fn keep(&mut self, bytes: &[u8], kept: usize) {
        self.bytes.extend_from_slice(&bytes[..kept]);
        self.pieces.push_back(Piece { at: Time::default(), length: bytes.len() as u64, kept });
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
            piece.at = now;
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
            if self.bytes.capacity() > KEEP_MAX {
                self.bytes = BytesMut::new();
            }
        }
    }

    /// Of a request of so many bytes, whose first was written so many bytes before the last of all: when that was, and its beginning.
    fn find(&self, before_end: u64, length: u64) -> Option<(Time, Vec<u8>)> {
        let mut start = self.length.checked_sub(before_end)?;
        let (mut at, mut found, mut offset) = (None, Vec::new(), 0);
        let most = usize::try_from(length).unwrap_or(usize::MAX).min(HEAD_MAX);
        for piece in &self.pieces {
            if start < piece.length {
                at.get_or_insert(piece.at);
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
        Some((at?, found))
    }

    /// Memory it holds.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.pieces.len() * size_of::<Piece>()
    }
}

/// What is known of a request that was sent.
#[derive(Debug)]
pub struct Traced {
    /// When its first byte was written; none where none was.
    pub written: Option<Time>,
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

    /// Something has come; before that something had come then.
    pub fn trail_heard(&mut self) {
        if let Some(trail) = &mut self.trail {
            trail.heard = self.received.unwrap_or(self.made);
        }
    }

    /// Memory that is held for it.
    pub fn trail_bytes(&self) -> usize {
        self.trail.as_ref().map_or(0, |trail| trail.memory())
    }

    /// When something had come before what is being taken.
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
            return Traced { written: None, head: head.unwrap_or_default().to_vec() };
        }
        let found = self.trail.as_ref().and_then(|trail| trail.find(all - unwritten, ticket.length));
        let (written, head) = found.map_or((None, Vec::new()), |(at, head)| (Some(at), head));
        Traced { written, head }
    }
}
