//! One client connection: who it is, how far it is, and what it has going on.
//!
//! An idle client owns nothing but its place in the table; [`super::replies`] keeps the order of its replies. No sockets
//! here: the worker owns them.

use super::block::Block;
use super::connections::ConnectionId;
use super::heavy::Weight;
use super::limits::Limits;
use super::parked::Waiting;
use super::replies::Replies;
use super::rerun::Named;
use crate::buffer::{Ahead, Rest};
use crate::protocol::{DecodeRequests, Protocol};
use crate::time::Time;

/// Which client: its place in the table, and which of those that had the place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId {
    /// Place in the table.
    pub index: u32,
    /// Tells apart those that had the place.
    pub generation: u32,
}

impl ClientId {
    /// Both in one number.
    pub fn number(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation)
    }

    /// Of that number.
    pub fn at(number: u64) -> Self {
        Self { index: (number >> 32) as u32, generation: number as u32 }
    }
}

/// A client whose replies so far are unknown in size may have so many requests in flight: what it asks for stands before
/// the requests of others in the queue of a shard.
const IN_FLIGHT_UNKNOWN_MAX: usize = 16;

/// How far the connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Requests are read.
    Open,
    /// The client has closed its writing side: what was read is answered, then the connection ends.
    Ended,
    /// We end the connection once everything read is answered.
    Finishing,
    /// It is closed at once; replies are discarded.
    Broken,
}

/// One client connection.
pub struct Client<P: Protocol> {
    /// Tells clients apart that had the same place in the table.
    pub generation: u32,
    /// Unique number in this process.
    pub id: u64,
    /// What it told us.
    pub session: P::Session,
    /// Index of the pool's lane it uses.
    pub lane: u32,
    /// How far it is.
    pub state: State,
    /// It is in the pool's list of clients the worker has to look at.
    pub dirty: bool,
    /// Average size of its replies, as their [`Replies`] keep it while it is idle.
    pub usual_reply: u8,
    /// Whether it moves large values.
    pub weight: Weight,
    /// When it connected.
    pub connected: Time,
    /// When its last bytes came.
    pub active: Time,
    /// All that only a client with something going on needs.
    pub activity: Option<Box<Activity<P>>>,
}

/// Why a request is not taken yet. In most cases its client is not read meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    /// It has too much in flight, or too many bytes of replies wait for it. It may be read ahead of being served.
    Full,
    /// It has had its turn, or the pass had none left for it: it is served and read further in one of the next.
    Turn,
    /// Its next request changes what the replies to the earlier ones depend on.
    UntilQuiet,
    /// It goes on sending wrong passwords.
    Delayed,
}

/// What a client waits for that found no room for its request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stall {
    /// Since when.
    pub since: Time,
    /// The connection whose queue was full.
    pub at: ConnectionId,
}

/// What a client has going on: an unfinished request, requests in flight, replies not yet taken.
pub struct Activity<P: Protocol> {
    /// Where the request at hand stands.
    pub decoder: P::RequestDecoder,
    /// Bytes received and not yet used.
    pub rest: Rest,
    /// What came after `rest` while nothing was served. Empty unless the client waits.
    pub ahead: Ahead,
    /// When the request at hand began, if it is unfinished and the client is who makes it wait.
    pub begun: Option<Time>,
    /// Why nothing is served, if so. Then `rest` may hold complete requests.
    pub paused: Option<Pause>,
    /// It has its place among the pool's `next_turn`.
    pub in_line: bool,
    /// It waits for room in a shard's queue.
    pub stalled: Option<Stall>,
    /// The requests of its transaction, if some are queued.
    pub block: Option<Box<Block>>,
    /// The newest request of it that names a script.
    pub(super) named: Option<Box<Named<P>>>,
    /// Requests of it that wait for their next attempt.
    pub(super) parked: Option<Box<Waiting<P>>>,
    /// The connection of a shard that it has to itself.
    pub private: Option<ConnectionId>,
    /// Its request waits at several shards.
    pub is_wide: bool,
    /// How often in a row its shard has ended its wait for data, and when the last time.
    pub set_back: (u8, Time),
    /// When `rest` was read, while the client waits for shards: the time of its requests runs from then. What waits until
    /// the client takes its replies has all its time still before it.
    pub arrived: Option<Time>,
    /// Bytes of the requests served since it last had taken all of its replies.
    pub sent: usize,
    /// It has not taken a byte of the replies that wait for it since then.
    pub blocked: Option<Time>,
    /// It listens to channels, and more waits for it since then than should.
    pub swamped: Option<Time>,
    /// That was told.
    pub told: bool,
    /// Bytes it was last counted with in the pool's share of the account.
    pub counted: usize,
    /// What it waits for.
    pub replies: Replies<P>,
}

impl<P: Protocol> Default for Activity<P> {
    fn default() -> Self {
        Self {
            decoder: P::RequestDecoder::default(),
            rest: Rest::default(),
            ahead: Ahead::default(),
            begun: None,
            paused: None,
            in_line: false,
            stalled: None,
            block: None,
            named: None,
            parked: None,
            private: None,
            is_wide: false,
            set_back: (0, Time::default()),
            sent: 0,
            blocked: None,
            swamped: None,
            told: false,
            arrived: None,
            counted: 0,
            replies: Replies::default(),
        }
    }
}

impl<P: Protocol> Activity<P> {
    /// There is a request that is not taken yet. The client is not read meanwhile, and what comes all the same is kept behind it.
    #[inline]
    pub fn waits(&self) -> bool {
        self.paused.is_some() || self.stalled.is_some()
    }

    /// Whether one more request of the client may be served. Replies may wait up to a pause, and beyond it as much as the
    /// client has sent since it last took all: one that writes a whole pipeline before it reads is served on, and holds no more
    /// here than it has written itself. With `share` 2 it has to be well below the limits, so that
    /// a client that was paused does not stop and go with every reply.
    #[inline]
    pub fn may_submit(&self, limits: &Limits, share: usize) -> bool {
        let in_flight = self.replies.in_flight();
        let in_flight_max = if self.replies.can_be_foreseen() {
            limits.in_flight_max
        } else {
            limits.in_flight_max.min(IN_FLIGHT_UNKNOWN_MAX)
        };
        let bytes_max = (limits.client_output_pause + self.sent).min(limits.client_output_max / 2);
        in_flight < (in_flight_max / share).max(1)
            && (self.replies.bytes_expected() < bytes_max / share || self.replies.is_empty())
    }

    /// Whether a client that waits is read all the same: it waits for itself, and may take its replies only once it has written
    /// all of its requests; or it waits for data, and its end may stand behind what it has sent.
    pub fn reads_ahead(&self, limits: &Limits) -> bool {
        let waits_for_itself =
            self.paused == Some(Pause::Full) && self.stalled.is_none() && self.replies.in_flight() == 0;
        (waits_for_itself || self.waits_for_data()) && self.bytes() < limits.client_output_max
    }

    /// Its request waits for data.
    pub fn waits_for_data(&self) -> bool {
        self.private.is_some()
            || self.is_wide
            || self.parked.as_ref().is_some_and(|waiting| waiting.wait().is_some())
    }

    /// The request at hand and what is behind it will not be served.
    pub fn drop_requests(&mut self) {
        self.paused = None;
        self.rest = Rest::default();
        self.decoder.reset();
    }

    /// More waits for it, which listens to channels, than may: at once, or for too long.
    pub fn is_swamped(&mut self, limits: &Limits, now: Time) -> bool {
        let waiting = self.replies.bytes();
        if waiting <= limits.subscriber_output_soft_max {
            self.swamped = None;
            return false;
        }
        let since = *self.swamped.get_or_insert(now);
        waiting > limits.subscriber_output_max || now.since(since) >= limits.subscriber_output_soft_time
    }

    /// Nothing is in flight, unfinished or waiting: the client is idle.
    pub fn is_idle(&self) -> bool {
        self.replies.is_empty()
            && self.rest.is_empty()
            && self.ahead.is_empty()
            && self.block.is_none()
            && !self.waits()
            && self.private.is_none()
            && !self.is_wide
            && self.decoder.is_between_requests()
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        let queued = self.block.as_ref().map_or(0, |block| block.bytes());
        let named = self.named.as_ref().map_or(0, |named| named.bytes());
        self.rest.memory() + self.ahead.len() + self.replies.memory() + queued + named
    }

    /// Makes it as new, keeping small buffers for its next owner. Returns the average size of the replies.
    pub fn recycle(&mut self) -> u8 {
        debug_assert!(self.is_idle() && self.parked.is_none());
        self.decoder.reset();
        self.begun = None;
        // What is left of it there is passed over.
        self.in_line = false;
        self.sent = 0;
        self.blocked = None;
        self.swamped = None;
        self.told = false;
        self.named = None;
        self.set_back = (0, Time::default());
        self.arrived = None;
        self.counted = 0;
        self.replies.recycle()
    }
}
