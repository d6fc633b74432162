//! What is served in one pass of the worker: as much as others can wait for, whoever asks for it, in fair turns.
//!
//! What is read is served at once, as long as the pass has work left; whoever comes later in it waits for a turn. Then
//! those go on that have waited since an earlier pass, who waits longest first, with as much again: neither can starve the
//! other. All is measured in forwarded requests of one key.

use std::sync::Arc;

use crate::monitor::Monitors;
use crate::protocol::Run;
use crate::scripts::SCRIPT_MAX;
use crate::time::Time;

/// So much is done in a pass for what is read in it, and so much for those that have waited.
pub const PASS_WORK_MAX: usize = 8 * 1024;
/// Of what the pass has left a client has this share in its turn, but enough to be worth going on with it.
const TURN_SHARE: usize = 8;
const TURN_WORK_MIN: usize = 16;
/// A request that is refused costs so much more than one that is forwarded: its reply is made here, in words.
pub const REFUSED_WORK: usize = 8;
/// So many bytes of a request that is answered here, or of its reply, cost as much as a request, where they are made of many
/// small pieces. Most are cheaper, but what is large is asked for now and then, or by somebody who means harm.
const WORK_MADE_BYTES: usize = 4;
/// The first of them are in the work of the request itself: PING is no more than a GET.
const WORK_MADE_FREE: usize = 64;
/// So many bytes of a reply that was made before, and has only to be written (COMMAND DOCS), cost as much as a request.
const WORK_SHARED_BYTES: usize = 128;
/// So many bytes whose digest is made cost as much as a request.
const WORK_HASHED_BYTES: usize = 128;
/// One name that is held against a pattern may cost as much as so many requests.
const WORK_SEARCHED: usize = 4;

/// The work of a request that is sent for so many keys, or to so many shards.
#[inline]
pub fn work(keys: usize) -> usize {
    keys.max(1)
}

/// What a request costs beyond that where it is not sent on: with so many words, so many bytes that are read or `made` for the
/// reply, so many that are `shared` with other replies, and `searched` of the proxy's own names to look through.
pub fn answer_work(words: usize, made: usize, shared: usize, searched: usize) -> usize {
    words.saturating_sub(1)
        + made.saturating_sub(WORK_MADE_FREE) / WORK_MADE_BYTES
        + shared / WORK_SHARED_BYTES
        + searched * WORK_SEARCHED
}

/// What it costs to look at a script, beside sending it on.
pub fn script_work(run: &Run) -> usize {
    match run {
        Run::Text { length, .. } if *length <= SCRIPT_MAX => length / WORK_HASHED_BYTES,
        Run::Text { .. } | Run::Named(_) | Run::Unknown => 0,
    }
}

/// What the pass at hand may still do.
///
/// Whether its requests are looked at is drawn by lot as it begins, and again for those that have waited: see [`crate::hot`].
pub struct Pass {
    /// When it began.
    began: Option<Time>,
    left: usize,
    is_drawn: bool,
    /// It is drawn, or somebody watches.
    is_looked_at: bool,
    lot: Lot,
    monitors: Arc<Monitors>,
}

/// Draws lots (xorshift64*).
struct Lot {
    random: u64,
    /// Drawn is what is below; 0: nothing.
    below: u64,
}

impl Lot {
    /// The next one.
    #[inline]
    fn draw(&mut self) -> bool {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) < self.below
    }
}

impl Pass {
    /// Before the first one; no lots are drawn.
    pub fn new(seed: u64, monitors: Arc<Monitors>) -> Self {
        let lot = Lot { random: seed | 1, below: 0 };
        Self { began: None, left: 0, is_drawn: false, is_looked_at: false, lot, monitors }
    }

    /// These are who watches.
    pub fn set_monitors(&mut self, monitors: Arc<Monitors>) {
        self.monitors = monitors;
    }

    /// One pass in so many is drawn from now on; none where that is 0.
    pub fn set_sample(&mut self, sample: u32) {
        self.lot.below = if sample == 0 { 0 } else { u64::MAX / u64::from(sample) };
    }

    /// Whether its requests are in the sample.
    #[inline]
    pub fn is_drawn(&self) -> bool {
        self.is_drawn
    }

    /// Whether its requests are looked at, for whatever reason.
    #[inline]
    pub fn is_looked_at(&self) -> bool {
        self.is_looked_at
    }

    /// Begins anew where this is another pass than the last one that was served in.
    #[inline]
    pub fn read(&mut self, work_max: usize, now: Time) {
        if self.began != Some(now) {
            self.turns(work_max, now);
        }
    }

    /// When the one at hand began.
    pub fn began(&self) -> Time {
        self.began.unwrap_or_default()
    }

    /// Those have their turns that have waited.
    pub fn turns(&mut self, work_max: usize, now: Time) {
        (self.began, self.left) = (Some(now), work_max);
        self.is_drawn = self.lot.draw();
        self.is_looked_at = self.is_drawn || self.monitors.is_active();
    }

    /// What the next client may have done in its turn: nothing where nothing is left.
    #[inline]
    pub fn turn(&self) -> usize {
        (self.left / TURN_SHARE).max(TURN_WORK_MIN.min(self.left))
    }

    /// This is done. What is begun is finished, however much it is.
    #[inline]
    pub fn done(&mut self, work: usize) {
        self.left = self.left.saturating_sub(work);
    }
}
