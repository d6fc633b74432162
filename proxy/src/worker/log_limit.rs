//! Log lines that a peer can cause, at most a few a second from each place in the code.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines a second from one place.
const LINES_PER_SECOND: u64 = 5;

/// The memory of one place: the second it last wrote in, lines in that second, lines kept back.
#[derive(Default)]
pub struct LogLimit {
    second: AtomicU64,
    lines: AtomicU64,
    kept_back: AtomicU64,
}

impl LogLimit {
    /// For a `static`.
    pub const fn new() -> Self {
        Self { second: AtomicU64::new(0), lines: AtomicU64::new(0), kept_back: AtomicU64::new(0) }
    }

    /// Whether a line may be written, and how many were kept back before it. Races between threads cost a line more or
    /// less, nothing else.
    pub fn admit(&self) -> Option<u64> {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        if self.second.swap(second, Relaxed) != second {
            self.lines.store(0, Relaxed);
        }
        if self.lines.fetch_add(1, Relaxed) < LINES_PER_SECOND {
            Some(self.kept_back.swap(0, Relaxed))
        } else {
            self.kept_back.fetch_add(1, Relaxed);
            None
        }
    }
}

/// `tracing::warn!`, but at most [`LINES_PER_SECOND`] times a second from this place.
macro_rules! warn_limited {
    ($($fields:tt)+) => {{
        static LIMIT: $crate::worker::log_limit::LogLimit = $crate::worker::log_limit::LogLimit::new();
        if let Some(suppressed) = LIMIT.admit() {
            tracing::warn!(suppressed, $($fields)+);
        }
    }};
}
pub(crate) use warn_limited;
