//! A complete request, what a protocol may want to know besides it, and what it makes of it.

use bytes::Bytes;

use super::store::Store;
use super::{Protocol, Scripted};
use crate::account::Account;
use crate::buffer::{Piece, SHARE_MIN};
use crate::denied::DeniedLog;
use crate::metrics::Counters;
use crate::scripts::Scripts;
use crate::slow::SlowLog;
use crate::time::Time;

/// The largest request.
#[derive(Clone, Copy, Debug)]
pub struct RequestBounds {
    /// Its bytes.
    pub bytes: u64,
    /// Its arguments.
    pub arguments: usize,
}

/// What [`Protocol::plan`] may want to know besides the request.
pub struct Facts<'p, P: Protocol> {
    /// The pool's settings.
    pub settings: &'p P::Settings,
    /// Name of the pool.
    pub pool: &'p str,
    /// Unique number of the client in this process.
    pub client: u64,
    /// Microseconds from 1970 to the worker's start.
    pub unix_start: u64,
    /// The time since then.
    pub now: Time,
    /// What was counted of the pool, by this worker and all.
    pub counters: &'p Counters,
    /// What is known of the shards taken together.
    pub store: &'p Store,
    /// The scripts that clients have shown.
    pub scripts: &'p Scripts,
    /// What was slow.
    pub slow: &'p SlowLog,
    /// What was denied to users.
    pub denied: &'p DeniedLog,
    /// What the process holds and may hold.
    pub account: &'p Account,
    /// Every request of the client before this one has been answered.
    pub quiet: bool,
}

impl<P: Protocol> Facts<'_, P> {
    /// Microseconds since 1970.
    pub fn unix_micros(&self) -> u64 {
        self.unix_start + self.now.micros()
    }

    /// Seconds since the worker started.
    pub fn uptime(&self) -> u64 {
        self.now.micros() / 1_000_000
    }
}

/// A complete request, and who has found its end.
pub struct Request<'b, P: Protocol> {
    /// Knows where its arguments are.
    pub decoder: &'b P::RequestDecoder,
    /// The form that shards are sent.
    pub canonical: &'b [u8],
}

impl<P: Protocol> Clone for Request<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Protocol> Copy for Request<'_, P> {}

/// Scratch space of [`Protocol::plan`], used again for every request.
#[derive(Debug)]
pub struct Plan<P: Protocol> {
    /// Places of the keys in the canonical request: start and length.
    pub keys: Vec<(usize, usize)>,
    /// What is hashed instead of the canonical request, if the key is written in another form there. Not empty then,
    /// and the place of the key is one in here.
    pub decoded: Vec<u8>,
    /// What the proxy itself replies.
    pub reply: Vec<u8>,
    /// What it replies instead, where that is made once and the same for everybody.
    pub shared: Option<Bytes>,
    /// So many names of its own it has looked through for that.
    pub searched: usize,
    /// How the client wants to be answered.
    pub manner: P::Manner,
    /// The kind of command, one of [`Protocol::FAMILIES`].
    pub family: usize,
    /// Which responses the request can have.
    pub expected: P::Expected,
    /// It changes nothing: a replica can serve it.
    pub reads: bool,
    /// Whether it runs a script.
    pub scripted: Scripted,
    /// For each key, the fragment it belongs to.
    pub owners: Vec<u32>,
    /// The fragments of a split request.
    pub fragments: Vec<Vec<u8>>,
}

impl<P: Protocol> Default for Plan<P> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            decoded: Vec::new(),
            reply: Vec::new(),
            shared: None,
            searched: 0,
            manner: P::Manner::default(),
            family: 0,
            expected: P::Expected::default(),
            reads: false,
            scripted: Scripted::No,
            owners: Vec::new(),
            fragments: Vec::new(),
        }
    }
}

impl<P: Protocol> Plan<P> {
    /// For the next request.
    #[inline]
    pub fn begin(&mut self) {
        self.keys.clear();
        self.decoded.clear();
        self.reply.clear();
        debug_assert!(self.shared.is_none(), "it is taken with the reply");
        self.searched = 0;
        self.manner = P::Manner::default();
        self.family = 0;
        self.reads = false;
        self.scripted = Scripted::No;
    }

    /// The reply, to be given to the client.
    pub fn take_reply(&mut self) -> Piece<'_> {
        match self.shared.take() {
            Some(shared) => Piece::Shared(shared),
            None if self.reply.len() < SHARE_MIN => Piece::Copied(&self.reply),
            None => Piece::Shared(std::mem::take(&mut self.reply).into()),
        }
    }

    /// What the places of the keys are places in.
    #[inline]
    pub fn key_text<'b>(&'b self, canonical: &'b [u8]) -> &'b [u8] {
        if self.decoded.is_empty() { canonical } else { &self.decoded }
    }

    /// After the last request for now: what a huge one needed is given back.
    pub fn end(&mut self) {
        const KEEP_MAX: usize = 4096;
        if self.keys.capacity() > KEEP_MAX || self.reply.capacity() > 16 * KEEP_MAX {
            *self = Self::default();
        }
        if self.fragments.iter().any(|fragment| fragment.capacity() > 16 * KEEP_MAX) {
            self.fragments = Vec::new();
        }
    }
}
