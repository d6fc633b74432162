//! The order in which the replies of one client leave.
//!
//! ```text
//!   requests ->  queue:  [0 waiting][1 ready][2 merging][3 waiting]      index = number - oldest
//!                           |
//!   response to 0 ----------+--> straight to `output`, then 1 follows it; 2 waits for its fragments
//! ```
//!
//! A late response is kept until its turn.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::merging::Merging;
use crate::buffer::{Output, Piece, SHARE_MIN, unpinned};
use crate::protocol::Protocol;

/// From this size on, space in `held` is used again before it is empty.
const HELD_COMPACT_MIN: usize = 16 * 1024;
/// An empty `held` is kept for the next responses up to this size.
const HELD_KEEP_MAX: usize = 16 * 1024;

/// The replies one client waits for, and those it has not taken yet.
pub struct Replies<P: Protocol> {
    /// One per request in flight, oldest first. At most `in_flight_max`.
    queue: VecDeque<Reply<P>>,
    /// Number of the oldest request in flight.
    oldest: u32,
    /// Replies whose turn has come.
    pub output: Output,
    /// Small responses that wait for their turn, copied one after the other in the order they came: memory of their
    /// own would cost each of them more than the copy.
    held: Vec<u8>,
    /// How many of `held` still wait.
    held_bytes: usize,
    /// Bytes of responses that wait for their turn, in `held` or elsewhere.
    waiting_bytes: usize,
    /// Bytes of what split requests remember.
    merging_bytes: usize,
    /// Average size of a reply, to foresee what the requests in flight will bring.
    average: usize,
}

struct Reply<P: Protocol> {
    state: ReplyState<P>,
    /// How the client wants to be answered.
    manner: P::Manner,
}

enum ReplyState<P: Protocol> {
    /// Nothing has come.
    Waiting,
    /// It is the oldest and part of it has gone to the output, unless it is kept from the client.
    Streaming { withheld: bool },
    /// The same, and what was not asked for waits until it is complete.
    Interrupted(Box<Output>),
    /// Begun before its turn.
    Partial(BytesMut),
    /// Complete before its turn: in `held`, from here so many bytes.
    Held { start: usize, length: usize },
    /// Complete before its turn, and large.
    Ready(Bytes),
    /// Complete before its turn, in several pieces.
    Merged(Box<Output>),
    /// A split request.
    Merging(Box<Merging<P>>),
    /// No reply at all: what its client is told behind those before it.
    News(Vec<u8>),
}

impl<P: Protocol> ReplyState<P> {
    /// Part of the reply is with the client: nothing else can come before the rest of it.
    fn is_begun(&self) -> bool {
        matches!(self, Self::Streaming { withheld: false } | Self::Interrupted(_))
    }
}

/// What a response, or a piece of it, has turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// What was asked for.
    Fine,
    /// It cannot be the response to the fragment.
    Odd,
    /// It was the last of a request, which the proxy itself refuses because of all that has come.
    Refused,
}

impl<P: Protocol> Default for Replies<P> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            oldest: 0,
            output: Output::default(),
            held: Vec::new(),
            held_bytes: 0,
            waiting_bytes: 0,
            merging_bytes: 0,
            average: 0,
        }
    }
}

impl<P: Protocol> Replies<P> {
    /// Requests in flight.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.queue.len()
    }

    /// Whether this is the number of the last request in flight.
    pub fn is_newest(&self, number: u32) -> bool {
        !self.queue.is_empty() && number.wrapping_sub(self.oldest) as usize == self.queue.len() - 1
    }

    /// Nothing is in flight and every reply is sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.output.is_sent()
    }

    /// Bytes of replies that are waiting.
    pub fn bytes(&self) -> usize {
        self.output.unsent() + self.waiting_bytes
    }

    /// Memory it holds.
    pub fn memory(&self) -> usize {
        self.output.memory()
            + self.waiting_bytes
            + self.merging_bytes
            + self.queue.len() * size_of::<Reply<P>>()
    }

    /// Drops all that is in flight or has to wait for its turn. True if no reply was begun, so that something else may be
    /// said after those that are complete.
    pub fn cut(&mut self) -> bool {
        let front = self.queue.front();
        let is_whole = !front.is_some_and(|reply| reply.state.is_begun());
        self.oldest = self.oldest.wrapping_add(self.queue.len() as u32);
        self.queue = VecDeque::new();
        self.held = Vec::new();
        (self.held_bytes, self.waiting_bytes, self.merging_bytes) = (0, 0, 0);
        is_whole
    }

    /// Bytes of replies that are waiting or, going by those so far, still to come.
    #[inline]
    pub fn bytes_expected(&self) -> usize {
        self.bytes() + self.queue.len() * self.average
    }

    /// Whether the size of replies can be foreseen.
    #[inline]
    pub fn can_be_foreseen(&self) -> bool {
        self.average > 0
    }

    /// For another client, or the same one later. Returns the average size of its replies, as its power of two.
    pub fn recycle(&mut self) -> u8 {
        debug_assert!(self.is_empty());
        let average = std::mem::take(&mut self.average);
        (usize::BITS - average.leading_zeros()) as u8
    }

    /// For a client whose replies had this average size before, as [`Self::recycle`] has returned it.
    pub fn expect(&mut self, power: u8) {
        self.average = 1usize.checked_shl(u32::from(power)).unwrap_or(usize::MAX) / 2;
    }

    /// The number of the next request.
    #[inline]
    pub fn next_number(&self) -> u32 {
        self.oldest.wrapping_add(self.queue.len() as u32)
    }

    /// One more request is in flight; returns its number.
    #[inline]
    pub fn submitted(&mut self, manner: P::Manner) -> u32 {
        let number = self.next_number();
        self.queue.push_back(Reply { state: ReplyState::Waiting, manner });
        number
    }

    /// One more request is in flight, in fragments; returns its number.
    pub fn submitted_split(&mut self, manner: P::Manner, merging: Merging<P>) -> u32 {
        let number = self.submitted(manner);
        self.merging_bytes += merging.bytes();
        // The proxy itself may have answered a part.
        self.waiting_bytes += merging.kept();
        self.queue.back_mut().expect("just pushed").state = ReplyState::Merging(Box::new(merging));
        number
    }

    /// The only request in flight is taken back; its number is that of the next one. False if its reply has begun, is
    /// kept from its client, or it is not the only one.
    pub fn withdraw(&mut self) -> bool {
        let is_meant = self.queue.len() == 1
            && self.queue.front().is_some_and(|reply| {
                matches!(reply.state, ReplyState::Waiting) && !P::is_withheld(reply.manner, &[])
            });
        if is_meant {
            self.queue.clear();
        }
        is_meant
    }

    /// The proxy itself replies to a request that was just read.
    pub fn replied(&mut self, reply: &[u8], manner: P::Manner) {
        if P::is_withheld(manner, reply) {
            return;
        }
        if self.queue.is_empty() {
            self.output.copy(reply);
        } else {
            let state = self.hold(reply);
            self.queue.push_back(Reply { state, manner });
        }
    }

    /// As [`Self::replied`]; what is shared is not copied.
    pub fn replied_with(&mut self, reply: Piece<'_>, manner: P::Manner) {
        let reply = match reply {
            Piece::Copied(reply) => return self.replied(reply, manner),
            Piece::Shared(reply) => reply,
        };
        if P::is_withheld(manner, &reply) {
            return;
        }
        if self.queue.is_empty() {
            self.output.share(reply);
        } else {
            self.waiting_bytes += reply.len();
            self.queue.push_back(Reply { state: ReplyState::Ready(reply), manner });
        }
    }

    /// What answers no request goes to the client: at once, unless the reply at hand is out in part; then behind that. It begins
    /// with what all such clients have in common.
    pub fn push(&mut self, beginning: &[u8], rest: Piece<'_>) {
        let Some(Reply { state, .. }) = self.queue.front_mut().filter(|reply| reply.state.is_begun()) else {
            self.output.copy(beginning);
            return self.output.push(rest);
        };
        self.waiting_bytes += beginning.len() + rest.as_slice().len();
        if matches!(state, ReplyState::Streaming { .. }) {
            *state = ReplyState::Interrupted(Box::default());
        }
        if let ReplyState::Interrupted(behind) = state {
            behind.copy(beginning);
            behind.push(rest);
        }
    }

    /// The client is not to use what it has read before: it hears so at once, and once more behind the replies to all that is in
    /// flight where something of those has come that it has not heard.
    pub fn tell_changed(&mut self, told: &[u8]) {
        self.push(told, Piece::Copied(b""));
        if self.queue.iter().all(|reply| matches!(reply.state, ReplyState::Waiting)) {
            return;
        }
        self.waiting_bytes += told.len();
        if let Some(Reply { state: ReplyState::News(news), .. }) = self.queue.back_mut() {
            return news.extend_from_slice(told);
        }
        let state = ReplyState::News(told.to_vec());
        self.queue.push_back(Reply { state, manner: P::Manner::default() });
    }

    /// A piece of the response to a request, or to a fragment of it, has come; `last` if it is complete.
    #[inline]
    pub fn answer(&mut self, number: u32, fragment: u32, piece: Piece<'_>, last: bool) -> Taken {
        let index = number.wrapping_sub(self.oldest) as usize;
        let Some(reply) = self.queue.get_mut(index) else {
            debug_assert!(false, "a response for request {number}, which is not in flight");
            return Taken::Fine;
        };
        let streaming = match reply.state {
            ReplyState::Waiting if index == 0 => Some(P::is_withheld(reply.manner, piece.as_slice())),
            ReplyState::Streaming { withheld } => Some(withheld),
            _ => None,
        };
        if let Some(withheld) = streaming {
            let length = piece.as_slice().len();
            if !withheld {
                self.output.push(piece);
            }
            if last {
                self.average = (self.average * 7 + length) / 8;
                self.pop_empty();
                if !self.queue.is_empty() {
                    self.release();
                }
            } else {
                self.average = self.average.max(length);
                reply.state = ReplyState::Streaming { withheld };
            }
            return Taken::Fine;
        }
        self.answer_early(index, fragment, piece, last)
    }

    /// The proxy itself replies to a request that was read earlier.
    pub fn answer_whole(&mut self, number: u32, reply: Output) {
        let index = number.wrapping_sub(self.oldest) as usize;
        let Some(entry) = self.queue.get_mut(index) else {
            debug_assert!(false, "a reply to request {number}, which is not in flight");
            return;
        };
        debug_assert!(matches!(entry.state, ReplyState::Waiting), "a reply to a request that was answered");
        self.waiting_bytes += reply.len();
        entry.state = ReplyState::Merged(Box::new(reply));
        if index == 0 {
            self.release();
        }
    }

    /// As [`Self::answer`], where the reply has to wait for its turn or for other fragments.
    fn answer_early(&mut self, index: usize, fragment: u32, piece: Piece<'_>, last: bool) -> Taken {
        let length = piece.as_slice().len();
        let mut taken = Taken::Fine;
        let state = std::mem::replace(&mut self.queue[index].state, ReplyState::Waiting);
        let state = match state {
            ReplyState::Waiting if last && length < SHARE_MIN => self.hold(piece.as_slice()),
            ReplyState::Waiting if last => {
                self.waiting_bytes += length;
                ReplyState::Ready(match piece {
                    Piece::Shared(bytes) => unpinned(bytes),
                    Piece::Copied(bytes) => Bytes::copy_from_slice(bytes),
                })
            }
            ReplyState::Waiting => {
                self.waiting_bytes += length;
                ReplyState::Partial(BytesMut::from(piece.as_slice()))
            }
            ReplyState::Partial(mut partial) => {
                self.waiting_bytes += length;
                partial.extend_from_slice(piece.as_slice());
                if last { ReplyState::Ready(partial.freeze()) } else { ReplyState::Partial(partial) }
            }
            ReplyState::Interrupted(behind) => {
                self.output.push(piece);
                if last {
                    // It stands at the front, or it would not be out in part.
                    self.waiting_bytes -= behind.len();
                    self.output.append(*behind);
                    ReplyState::Held { start: 0, length: 0 }
                } else {
                    ReplyState::Interrupted(behind)
                }
            }
            ReplyState::Merging(mut merging) => {
                self.waiting_bytes += length;
                self.waiting_bytes -= merging.take(fragment, piece, last);
                if last && merging.is_odd(fragment) {
                    taken = Taken::Odd;
                }
                if merging.missing > 0 {
                    ReplyState::Merging(merging)
                } else {
                    self.merging_bytes -= merging.bytes();
                    self.waiting_bytes -= merging.kept();
                    let (state, is_refused) = self.merged(index, *merging);
                    if is_refused {
                        taken = Taken::Refused;
                    }
                    state
                }
            }
            state => {
                debug_assert!(false, "a response to a request that was answered");
                state
            }
        };
        self.queue[index].state = state;
        if index == 0 {
            self.release();
        }
        taken
    }

    /// All fragments have come: joins them, straight into the output if it is their turn. Whether that is a refusal.
    fn merged(&mut self, index: usize, merging: Merging<P>) -> (ReplyState<P>, bool) {
        if index == 0 && !P::is_withheld(self.queue[0].manner, &[]) {
            let before = self.output.len();
            let is_refused = merging.join(&mut self.output);
            self.average = self.average.max(self.output.len() - before);
            return (ReplyState::Held { start: 0, length: 0 }, is_refused);
        }
        let mut merged = Output::default();
        let is_refused = merging.join(&mut merged);
        self.waiting_bytes += merged.len();
        (ReplyState::Merged(Box::new(merged)), is_refused)
    }

    /// Keeps a small response until its turn.
    #[inline]
    fn hold(&mut self, response: &[u8]) -> ReplyState<P> {
        if response.is_empty() {
            // It counts for nothing in `held`, which may be emptied before its turn.
            return ReplyState::Held { start: 0, length: 0 };
        }
        if self.held.len() > HELD_COMPACT_MIN && self.held_bytes < self.held.len() / 2 {
            self.compact();
        }
        let (start, length) = (self.held.len(), response.len());
        self.held.extend_from_slice(response);
        self.held_bytes += length;
        self.waiting_bytes += length;
        ReplyState::Held { start, length }
    }

    /// Moves what still waits in `held` together. Done when half of it is gone, so each byte moves once on average.
    fn compact(&mut self) {
        let mut kept = Vec::with_capacity(self.held_bytes);
        for reply in &mut self.queue {
            if let ReplyState::Held { start, length } = &mut reply.state {
                let place = kept.len();
                kept.extend_from_slice(&self.held[*start..*start + *length]);
                *start = place;
            }
        }
        self.held = kept;
    }

    /// A small response has left.
    #[inline]
    fn unhold(&mut self, length: usize) {
        self.held_bytes -= length;
        if self.held_bytes == 0 {
            self.held.clear();
            if self.held.capacity() > HELD_KEEP_MAX {
                self.held = Vec::new();
            }
        }
    }

    /// Replies whose turn has come go to the output.
    fn release(&mut self) {
        while let Some(reply) = self.queue.front_mut() {
            // Most often the next one has not come, and nothing needs to be taken out and put back.
            if matches!(reply.state, ReplyState::Waiting) {
                return;
            }
            let (bytes, done) = match std::mem::replace(&mut reply.state, ReplyState::Waiting) {
                ReplyState::Held { start, length } => {
                    let held = &self.held[start..start + length];
                    if !P::is_withheld(reply.manner, held) {
                        self.output.copy(held);
                    }
                    self.unhold(length);
                    (length, true)
                }
                ReplyState::Ready(bytes) => {
                    let length = bytes.len();
                    if !P::is_withheld(reply.manner, &bytes) {
                        self.output.share(bytes);
                    }
                    (length, true)
                }
                ReplyState::Merged(merged) => {
                    let length = merged.len();
                    if !P::is_withheld(reply.manner, &[]) {
                        self.output.append(*merged);
                    }
                    (length, true)
                }
                ReplyState::News(news) => {
                    self.waiting_bytes -= news.len();
                    self.output.copy(&news);
                    self.queue.pop_front();
                    self.oldest = self.oldest.wrapping_add(1);
                    continue;
                }
                ReplyState::Partial(partial) => {
                    let length = partial.len();
                    let withheld = P::is_withheld(reply.manner, &partial);
                    if !withheld {
                        self.output.share(partial.freeze());
                    }
                    reply.state = ReplyState::Streaming { withheld };
                    (length, false)
                }
                state => {
                    reply.state = state;
                    return;
                }
            };
            self.waiting_bytes -= bytes;
            self.average = (self.average * 7 + bytes) / 8;
            if !done {
                return;
            }
            self.pop_empty();
        }
    }

    /// The oldest request is answered, and its state holds nothing any more: dropping it would only look for what to free, which
    /// was a fortieth of a request's instructions.
    #[inline(always)]
    fn pop_empty(&mut self) {
        let reply = self.queue.pop_front();
        debug_assert!(
            reply.as_ref().is_some_and(|reply| matches!(
                reply.state,
                ReplyState::Waiting | ReplyState::Streaming { .. }
            ))
        );
        std::mem::forget(reply);
        self.oldest = self.oldest.wrapping_add(1);
    }

    /// Whether the request is in flight.
    pub fn has(&self, number: u32) -> bool {
        (number.wrapping_sub(self.oldest) as usize) < self.queue.len()
    }

    /// How many responses are still to come: one for each request in flight, or for each fragment of one.
    pub fn unanswered(&self) -> usize {
        let of_reply = |reply: &Reply<P>| match &reply.state {
            ReplyState::Waiting
            | ReplyState::Streaming { .. }
            | ReplyState::Interrupted(_)
            | ReplyState::Partial(_) => 1,
            ReplyState::Merging(merging) => merging.missing,
            ReplyState::Held { .. } | ReplyState::Ready(_) | ReplyState::Merged(_) | ReplyState::News(_) => 0,
        };
        self.queue.iter().map(of_reply).sum()
    }

    /// How the client wants the request to be answered.
    pub fn manner(&self, number: u32) -> P::Manner {
        let index = number.wrapping_sub(self.oldest) as usize;
        self.queue.get(index).map_or_else(P::Manner::default, |reply| reply.manner)
    }

    /// Whether part of the reply has gone to the client already, so that no error can take its place.
    pub fn is_streaming(&self, number: u32) -> bool {
        let index = number.wrapping_sub(self.oldest) as usize;
        self.queue.get(index).is_some_and(|reply| reply.state.is_begun())
    }

    /// A response that broke off before its turn: what came of it is dropped, so that an error can take its place.
    pub fn forget_partial(&mut self, number: u32, fragment: u32) {
        let index = number.wrapping_sub(self.oldest) as usize;
        let Some(reply) = self.queue.get_mut(index) else { return };
        match &mut reply.state {
            ReplyState::Partial(partial) => {
                self.waiting_bytes -= partial.len();
                reply.state = ReplyState::Waiting;
            }
            ReplyState::Merging(merging) => {
                self.waiting_bytes -= merging.forget(fragment);
            }
            _ => {}
        }
    }
}
