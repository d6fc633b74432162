//! One shard connection: greeting, write queue, tickets in flight, deadlines.
//!
//! Tickets stand in the order in which their requests were written, and the shard answers in that order, so the
//! response at hand always belongs to the front one:
//!
//! ```text
//!   requests ->  output: [....][....][....] -> socket      written first, answered first
//!                in_flight:  t1   t2 | t3   t4             | what is left of it is in `output`
//!   responses <- pop_front: t1                  <- socket
//! ```
//!
//! All requests of a connection share one timeout, which runs from when they were read: one that had to wait before it was
//! queued is due before others that were queued ahead of it.
//! No sockets here: the worker owns them.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::caches::Caching;
use super::feed::Feed;
use super::handshake::Handshake;
use super::members::MemberIndex;
use super::policy::Policy;
use super::private::Private;
use super::ticket::{Ticket, Waiter};
use super::tracker::Tracker;
use super::{ClientId, Limits};
use crate::buffer::{Output, Piece, Rest, unpinned};
use crate::failure::{Blame, ShardFailure, Stage};
use crate::protocol::{Protocol, Scripted};
use crate::time::Time;
use trail::Trail;

pub use admission::Admission;
pub use heard::HeardOfBlock;
pub use loaded::Loaded;
pub use trail::Traced;

mod admission;
mod carry;
mod forsake;
mod gauges;
mod heard;
mod loaded;
mod overdue;
mod own;
mod trail;

/// Shortest and longest pause between two attempts to connect.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// The longest where an attempt costs a packet or two: a shard that is there again is to be found soon.
const BACKOFF_CHEAP_MAX: Duration = Duration::from_millis(100);

/// How far the connection is.
#[derive(Debug)]
pub enum Link {
    /// Not connected, because nobody has needed it.
    Idle,
    /// The worker is connecting.
    Connecting {
        /// Why the last attempt failed, if that took its time: then nobody waits for this one.
        after: Option<ShardFailure>,
    },
    /// Connected; the greeting has to be answered first.
    Greeting(Box<Handshake>),
    /// Requests flow.
    Up,
    /// The last attempt failed: requests are answered with the reason at once, until the next attempt is due.
    Down {
        /// When that is.
        until: Time,
        /// Why.
        failure: ShardFailure,
    },
}

/// One connection to one shard.
pub struct Connection<P: Protocol> {
    /// Tells apart connections that had the same place in the book.
    pub generation: u32,
    /// The shard.
    pub member: MemberIndex,
    /// What is spoken on it.
    pub lane: P::Lane,
    /// What holds for it.
    pub policy: Policy,
    /// Set where one client has it to itself.
    pub private: Option<Box<Private>>,
    /// Set where the shard is listened to on it, and nothing else is asked.
    pub feed: Option<Box<Feed>>,
    /// Set where the shard tells of keys on it, and nothing else is asked.
    pub tracker: Option<Box<Tracker>>,
    /// Set where clients read on it that keep what they have read.
    pub caching: Option<Caching>,
    /// One of these three is set.
    pub special: bool,
    /// What was said on it last: the shard is a replica that is only read from.
    pub is_replica: bool,
    /// How far it is.
    pub link: Link,
    /// Requests not yet written.
    output: Output,
    /// The bytes of all requests in flight, where they may have to be sent elsewhere.
    kept: Option<Box<Output>>,
    /// Requests not yet answered, oldest first. At most `shard_queue_max`.
    in_flight: VecDeque<Ticket<P>>,
    /// Bytes of all requests in flight, written or not.
    in_flight_bytes: u64,
    /// So many tickets of `in_flight` are past their deadline.
    expired: usize,
    /// So many of the oldest in flight, or fewer, are behind one that was not executed: those that are may overtake it.
    pub watched: usize,
    /// How many transactions are in flight.
    blocks: usize,
    /// What has been heard of the oldest in flight, if that is a transaction.
    pub block: HeardOfBlock,
    /// The shard has refused to begin one, in these words.
    pub refuses_blocks: Option<Box<str>>,
    /// Scripts that the shard was sent on it.
    pub loaded: Option<Box<Loaded>>,
    /// What was written and is not answered, where requests may be told of that are slow.
    trail: Option<Box<Trail>>,
    /// Where the response at hand stands.
    pub decoder: P::ResponseDecoder,
    /// Bytes received that do not end a response yet.
    pub rest: Rest,
    /// How many bytes of `rest` the decoder has understood.
    pub understood: usize,
    /// Part of the response at hand has been passed on already.
    pub streaming: bool,
    /// Clients that wait for room in the queue, longest first.
    pub waiting: VecDeque<Waiter>,
    /// It is in the pool's list of connections with something to write.
    pub dirty: bool,
    /// It is in the pool's list of connections that nobody needs.
    pub unneeded: bool,
    /// When the last byte came, the connection was made, or the first request was queued after a pause.
    pub heard: Time,
    /// When the last byte came.
    received: Option<Time>,
    /// When it was made.
    made: Time,
    /// Failed attempts to connect in a row.
    attempts: u32,
    /// It is about to be closed for what is held there for nobody: nothing that somebody waits for is begun on it.
    pub closing: bool,
    /// Unwritten requests were carried over from a lost connection: the next loss fails them.
    carried: bool,
    /// Bytes it was last counted with in the pool's share of the account.
    pub counted: usize,
    /// What was last told to the counters: requests and bytes not written, requests and bytes written.
    published: [i64; 4],
}

impl<P: Protocol> Connection<P> {
    /// A connection that is made when the first request needs it. With `keeps` the bytes of requests are kept until they
    /// are answered.
    pub fn new(generation: u32, member: MemberIndex, lane: P::Lane, policy: Policy, keeps: bool) -> Self {
        // What was asked says which keys were read.
        let caching = P::is_told(lane).then(|| Caching {
            registers: P::registers(lane),
            follows: keeps,
            overlong: false,
        });
        Self {
            generation,
            member,
            lane,
            policy,
            private: None,
            feed: None,
            tracker: None,
            caching,
            special: caching.is_some(),
            is_replica: false,
            link: Link::Idle,
            output: Output::default(),
            kept: (keeps || caching.is_some()).then(Box::default),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            expired: 0,
            watched: 0,
            blocks: 0,
            block: HeardOfBlock::default(),
            refuses_blocks: None,
            loaded: None,
            trail: None,
            decoder: P::ResponseDecoder::default(),
            rest: Rest::default(),
            understood: 0,
            streaming: false,
            waiting: VecDeque::new(),
            dirty: false,
            unneeded: false,
            heard: Time::default(),
            received: None,
            made: Time::default(),
            attempts: 0,
            closing: false,
            carried: false,
            counted: 0,
            published: [0; 4],
        }
    }

    /// Whether requests are refused because the shard was not there the last time.
    pub fn is_down(&self, now: Time) -> bool {
        match &self.link {
            Link::Down { until, failure } => now < *until || failure.takes_time(),
            Link::Connecting { .. } | Link::Greeting(_) => self.refusal().is_some(),
            Link::Idle | Link::Up => false,
        }
    }

    /// Why nobody waits for the attempt that is under way, if it is one of those: it takes too long, or the last one took its
    /// time and nothing has come of this one yet.
    fn refusal(&self) -> Option<&ShardFailure> {
        match &self.link {
            Link::Connecting { after } => after.as_ref(),
            Link::Greeting(handshake) => handshake.refusal(),
            Link::Idle | Link::Up | Link::Down { .. } => None,
        }
    }

    /// Whether somebody waits, and there is room for more than a request or two: going on with a client has a price.
    pub fn wakes(&self, limits: &Limits) -> bool {
        !self.waiting.is_empty()
            && self.room(limits).is_some_and(|room| room > limits.shard_queue_max / 8)
            && self.in_flight_bytes <= limits.shard_queue_bytes_max / 8 * 7
    }

    /// A client waits for room; it has its place by how long it waits already.
    pub fn wait(&mut self, waiter: Waiter) {
        let place = self.waiting.partition_point(|other| other.since <= waiter.since);
        self.waiting.insert(place, waiter);
    }

    /// The client does not wait any more.
    pub fn stop_waiting(&mut self, client: ClientId, since: Time) {
        let start = self.waiting.partition_point(|waiter| waiter.since < since);
        let same = self.waiting.iter().skip(start).take_while(|waiter| waiter.since == since);
        if let Some(place) = same.into_iter().position(|waiter| waiter.client == client) {
            self.waiting.remove(start + place);
        }
    }

    /// One more request: its ticket is queued and its bytes are appended in one step. A ticket without bytes, or bytes without
    /// a ticket, and every later response would go to the wrong client.
    #[inline]
    pub fn submit(&mut self, ticket: Ticket<P>, request: Piece<'_>, now: Time) {
        if self.in_flight.is_empty() {
            self.heard = self.heard.max(now);
        }
        let length = request.as_slice().len() as u64;
        self.in_flight_bytes += length;
        self.in_flight.push_back(Ticket { length, ..ticket });
        self.blocks += usize::from(ticket.is_block());
        match request {
            Piece::Copied(request) => {
                self.output.copy(request);
                if let Some(kept) = &mut self.kept {
                    kept.copy(request);
                }
            }
            Piece::Shared(request) => self.share(request),
        }
    }

    /// Appends a request without copying, if it leaves soon.
    fn share(&mut self, request: Bytes) {
        if let Some(kept) = &mut self.kept {
            kept.share(unpinned(request.clone()));
        }
        self.output.share(if matches!(self.link, Link::Up) { request } else { unpinned(request) });
    }

    /// Whether the tickets in flight and the bytes that are kept of them belong together. (There may be more to write than
    /// the tickets have: a shard may answer a request before it has read all of it.)
    fn is_in_step(&self) -> bool {
        let (mut bytes, mut kept_bytes, mut expired) = (0, 0, 0);
        for ticket in &self.in_flight {
            bytes += ticket.length;
            kept_bytes += if ticket.unkept { 0 } else { ticket.length };
            expired += usize::from(ticket.expired);
        }
        self.in_flight_bytes == bytes
            && self.kept.as_ref().is_none_or(|kept| kept.len() as u64 == kept_bytes)
            && self.expired == expired
            && self.blocks == self.in_flight.iter().filter(|ticket| ticket.is_block()).count()
    }

    /// Tickets were taken out of the middle.
    fn count_again(&mut self) {
        self.expired = self.in_flight.iter().filter(|ticket| ticket.expired).count();
        self.blocks = self.in_flight.iter().filter(|ticket| ticket.is_block()).count();
    }

    /// Each request in flight has one response, which goes to whom it is for.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.watched == 0 && self.blocks == 0
    }

    /// These are not taken for requests any more whose script the shard should know.
    pub fn doubt(&mut self, mut is_doubtful: impl FnMut(&Ticket<P>) -> bool) {
        for ticket in self.in_flight.iter_mut().filter(|ticket| is_doubtful(ticket)) {
            ticket.scripted = Scripted::Yes;
        }
    }

    /// Requests not yet answered, oldest first.
    #[inline]
    pub fn in_flight(&self) -> &VecDeque<Ticket<P>> {
        &self.in_flight
    }

    /// Whether something is in flight that has time still.
    #[inline]
    pub fn is_waited_for(&self) -> bool {
        self.in_flight.len() > self.expired
    }

    /// Whether the bytes of requests are kept until they are answered, because they may have to be sent elsewhere.
    pub fn keeps(&self) -> bool {
        self.kept.is_some() && self.caching.is_none_or(|caching| caching.follows)
    }

    /// The request at hand was not executed: takes it back, with its bytes.
    pub fn take_back(&mut self) -> Option<(Ticket<P>, Bytes)> {
        let &Ticket { length, .. } = self.in_flight.front().filter(|ticket| !ticket.unkept)?;
        let request = self.kept.as_ref()?.first(length as usize);
        Some((self.answered()?, request))
    }

    /// Whose response has to be the next, if any: that of the oldest request of which something was written. Before that
    /// no shard can answer it.
    #[inline]
    pub fn asked(&self) -> Option<&Ticket<P>> {
        self.in_flight.front().filter(|_| self.in_flight_bytes > self.output.len() as u64)
    }

    /// The response at hand is complete: whose was it? `None` if nothing was asked.
    #[inline]
    pub fn answered(&mut self) -> Option<Ticket<P>> {
        let ticket = self.in_flight.pop_front()?;
        self.expired -= usize::from(ticket.expired);
        self.blocks -= usize::from(ticket.is_block());
        self.in_flight_bytes -= ticket.length;
        self.forget(&ticket);
        Some(ticket)
    }

    /// The response at hand, of which a part has come, is for nobody.
    pub fn pass_over(&mut self) {
        if let Some(ticket) = self.in_flight.front_mut() {
            ticket.forsake();
        }
        self.streaming = true;
    }

    /// The bytes of the oldest request are not needed any more.
    #[inline]
    fn forget(&mut self, ticket: &Ticket<P>) {
        if let Some(kept) = &mut self.kept
            && !ticket.unkept
        {
            kept.advance(ticket.length as usize);
        }
    }

    /// Bytes have come.
    #[inline]
    pub fn received(&mut self, now: Time) {
        self.heard = now;
        self.received = Some(now);
    }

    /// How far it is, for the judgement of a failure. `since`: when the request was queued that failed.
    pub fn stage(&self, is_default: bool, since: Time) -> Stage {
        match self.link {
            Link::Connecting { .. } => Stage::Connecting,
            Link::Greeting(_) if self.is_identifying() => Stage::Identifying { is_default },
            Link::Greeting(_) => Stage::Handshake { is_default },
            Link::Up if !self.is_quiet() => {
                let is_of_module = |ticket: &Ticket<P>| ticket.scripted == Scripted::Module;
                let is_held_up = self.in_flight.front().is_some_and(is_of_module);
                let is_silent = self.received.is_none_or(|received| received <= since);
                Stage::Serving { is_silent, is_held_up }
            }
            Link::Up | Link::Idle | Link::Down { .. } => Stage::Idle,
        }
    }

    /// Whose fault a failure is: `since` is when what has failed was begun, and `default_lane` what the configuration says is
    /// spoken.
    pub fn blame(&self, failure: &ShardFailure, default_lane: P::Lane, since: Time) -> Blame {
        match self.stage(self.lane == default_lane, since) {
            stage if self.policy.counts || stage == Stage::Connecting => failure.blame(stage),
            _ => Blame::Nobody,
        }
    }

    /// What is to be written next.
    pub fn writable(&mut self) -> Option<&mut Output> {
        match &mut self.link {
            _ if self.closing => None,
            Link::Greeting(handshake) => Some(&mut handshake.output),
            Link::Up => Some(&mut self.output),
            Link::Idle | Link::Connecting { .. } | Link::Down { .. } => None,
        }
    }

    /// The worker has connected.
    pub fn connected(&mut self, handshake: Option<Handshake>, now: Time) {
        (self.heard, self.made) = (now, now);
        self.received = None;
        let Some(mut handshake) = handshake else { return self.up() };
        if let Link::Connecting { after } = &mut self.link {
            handshake.refuse_until_identified(after.take());
        }
        self.link = Link::Greeting(Box::new(handshake));
    }

    /// Requests may flow.
    pub fn up(&mut self) {
        // What timed out before a byte of it was written is not to be executed after its client was told so. It may stand
        // behind others that have time still: deadlines run from when a request was read.
        if self.expired > 0 {
            self.forsake(|ticket| ticket.expired);
        }
        self.link = Link::Up;
        self.attempts = 0;
    }

    /// Whether the shard is asked who it is, and has not said so.
    pub fn is_identifying(&self) -> bool {
        matches!(&self.link, Link::Greeting(handshake) if handshake.is_identifying())
    }

    /// When the shard has to have said who it is, if it is asked and has not.
    pub fn identity_deadline(&self) -> Option<Time> {
        let Link::Greeting(handshake) = &self.link else { return None };
        handshake.identity_deadline(self.policy.timeout)
    }

    /// That has passed; see [`Handshake::go_on_identifying`].
    pub fn go_on_identifying(&mut self, failure: &ShardFailure, now: Time) -> Option<Time> {
        let Link::Greeting(handshake) = &mut self.link else { return None };
        handshake.go_on_identifying(failure, now)
    }

    /// The connection is lost or could not be made. Returns the tickets that are lost with it. Requests of which no
    /// byte was written stay queued for one more attempt if `retry` allows it; then `true` says that somebody has to
    /// connect.
    ///
    /// The first `eager` failed attempts are followed by the next request's at once, if they take no time: so many in a
    /// row are needed before the shard is ejected, and until then every one is a client's error.
    pub fn closed(
        &mut self,
        failure: &ShardFailure,
        retry: bool,
        eager: u32,
        jitter: u64,
        now: Time,
    ) -> (Vec<Ticket<P>>, bool) {
        let was_up = matches!(self.link, Link::Up);
        let keep = if retry && self.carries_over() { self.unwritten() } else { 0 };
        let lost: Vec<Ticket<P>> = self.in_flight.drain(..self.in_flight.len() - keep).collect();
        let kept_bytes: u64 = self.in_flight.iter().map(|ticket| ticket.length).sum();
        self.in_flight_bytes = kept_bytes;
        self.output.advance(self.output.len() - kept_bytes as usize);
        self.output.hold(0);
        lost.iter().for_each(|ticket| self.forget(ticket));
        self.watched = self.watched.saturating_sub(lost.len());
        if let Some(first) = self.in_flight.front_mut() {
            // Its prelude is lost.
            first.asks = false;
        }
        self.count_again();
        (self.block, self.refuses_blocks, self.loaded) = (HeardOfBlock::default(), None, None);
        self.trail = None;
        if let Some(caching) = &mut self.caching {
            caching.overlong = false;
        }
        self.decoder = P::ResponseDecoder::default();
        self.rest = Rest::default();
        self.understood = 0;
        self.streaming = false;
        self.closing = false;
        self.carried = keep > 0;
        if keep > 0 {
            self.link = Link::Connecting { after: None };
            return (lost, true);
        }
        if was_up && lost.is_empty() {
            // An idle connection may be closed by the shard; the next request opens another.
            self.link = Link::Idle;
            return (lost, false);
        }
        let longest = if failure.is_cheap() { BACKOFF_CHEAP_MAX } else { BACKOFF_MAX };
        let backoff = BACKOFF_MIN.saturating_mul(1 << self.attempts.min(10)).min(longest);
        self.attempts += 1;
        // Between half and all of it, so that workers and replicas do not knock in step.
        let half = backoff / 2;
        let pause = half + Duration::from_micros(jitter % (half.as_micros() as u64 + 1));
        // A connection that worked is worth an attempt at once.
        let at_once = was_up || (self.attempts <= eager && !failure.takes_time());
        self.link = if at_once {
            Link::Idle
        } else {
            Link::Down { until: now.plus(pause), failure: failure.clone() }
        };
        (lost, false)
    }

    /// Whether requests of which no byte was written may go on with the next connection, if this one is lost.
    fn carries_over(&self) -> bool {
        matches!(self.link, Link::Up) && self.policy.carries_over && !self.carried
    }

    /// The same, if it is given up. In a cluster there may be another node for them by then.
    pub fn may_move(&self) -> bool {
        self.carries_over() && !self.keeps()
    }

    /// A new connection has served: requests carried over are no special case any more.
    pub fn served(&mut self) {
        self.carried = false;
    }

    /// How many tickets, counted from the last, have no byte written.
    fn unwritten(&self) -> usize {
        let mut room = self.output.len() as u64;
        let mut count = 0;
        for ticket in self.in_flight.iter().rev() {
            if ticket.length > room {
                break;
            }
            room -= ticket.length;
            count += 1;
        }
        count
    }

    /// It is not there and nobody connects.
    pub fn is_closed(&self) -> bool {
        matches!(self.link, Link::Idle | Link::Down { .. })
    }

    /// It is made, whether requests flow already or not.
    pub fn is_made(&self) -> bool {
        matches!(self.link, Link::Greeting { .. } | Link::Up)
    }

    /// Nothing was asked and not answered, and nobody waits.
    pub fn is_quiet(&self) -> bool {
        self.in_flight.is_empty() && self.waiting.is_empty()
    }
}
