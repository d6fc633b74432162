//! Log lines that a peer can cause: of clients at most a few a second from each place in the code, of shards one of each
//! kind for each shard, because which of them it is matters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Lines a second from one place.
const LINES_PER_SECOND: u64 = 5;

/// Pause before a shard's line with the same reason is written again, and with another one.
const SAME_PAUSE: Duration = Duration::from_secs(60);
const OTHER_PAUSE: Duration = Duration::from_secs(1);
/// Lines that are remembered before it is looked which are old.
const REMEMBERED: usize = 1024;

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

/// What one place has told the log of shards: by pool and name.
#[derive(Default)]
pub struct ShardLines(HashMap<(String, String), Told>);

struct Told {
    reason: String,
    at: Instant,
    /// Lines since.
    kept_back: u64,
}

impl ShardLines {
    /// Whether a line may be written of the shard, and how many were kept back before it.
    pub fn admit(&mut self, pool: &str, shard: &str, reason: &str, now: Instant) -> Option<u64> {
        let (lines, shard) = (&mut self.0, (pool.to_owned(), shard.to_owned()));
        if let Some(told) = lines.get_mut(&shard) {
            let pause = if told.reason == reason { SAME_PAUSE } else { OTHER_PAUSE };
            if now.saturating_duration_since(told.at) < pause {
                told.kept_back += 1;
                return None;
            }
            let present = Told { reason: reason.to_owned(), at: now, kept_back: 0 };
            return Some(std::mem::replace(told, present).kept_back);
        }
        if lines.len() >= REMEMBERED {
            // Shards that have left the pool among them.
            lines.retain(|_, told| now.saturating_duration_since(told.at) < SAME_PAUSE);
        }
        lines.insert(shard, Told { reason: reason.to_owned(), at: now, kept_back: 0 });
        Some(0)
    }
}

/// `tracing::warn!`, but at most [`LINES_PER_SECOND`] times a second from this place. What is said of a shard, or of
/// all those of a pool, is limited for each of them instead, on each thread.
macro_rules! warn_limited {
    (pool = %$pool:expr, shard = %$shard:expr, %$address:ident, reason = %$reason:expr, $text:literal $(,)?) => {{
        thread_local! {
            static LINES: std::cell::RefCell<$crate::log_limit::ShardLines> = std::cell::RefCell::default();
        }
        let (pool, shard, reason) = ($pool.to_string(), $shard.to_string(), $reason.to_string());
        let now = std::time::Instant::now();
        if let Some(suppressed) = LINES.with_borrow_mut(|lines| lines.admit(&pool, &shard, &reason, now)) {
            tracing::warn!(suppressed, %pool, %shard, %$address, %reason, $text);
        }
    }};
    (pool = %$pool:expr, reason = %$reason:expr, $text:literal $(,)?) => {{
        thread_local! {
            static LINES: std::cell::RefCell<$crate::log_limit::ShardLines> = std::cell::RefCell::default();
        }
        let (pool, reason) = ($pool.to_string(), $reason.to_string());
        let now = std::time::Instant::now();
        if let Some(suppressed) = LINES.with_borrow_mut(|lines| lines.admit(&pool, "", &reason, now)) {
            tracing::warn!(suppressed, %pool, %reason, $text);
        }
    }};
    (%$pool:ident, shard = %$shard:expr, $($rest:tt)+) => {
        $crate::log_limit::warn_limited!(pool = %$pool, shard = %$shard, $($rest)+)
    };
    ($($fields:tt)+) => {{
        static LIMIT: $crate::log_limit::LogLimit = $crate::log_limit::LogLimit::new();
        if let Some(suppressed) = LIMIT.admit() {
            tracing::warn!(suppressed, $($fields)+);
        }
    }};
}
pub(crate) use warn_limited;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noisy_shard_hides_no_other_and_is_not_told_of_for_ever() {
        let mut lines = ShardLines::default();
        let begin = Instant::now();
        let mut said = |shard: &str, reason: &str, second: u64| {
            lines.admit("pool", shard, reason, begin + Duration::from_secs(second))
        };
        assert_eq!(said("noisy", "NOAUTH", 0), Some(0));
        for second in 0..59 {
            assert_eq!(said("noisy", "NOAUTH", second), None);
        }
        for shard in 0..100 {
            assert_eq!(said(&format!("shard-{shard}"), "NOAUTH", 30), Some(0));
        }
        assert_eq!(said("noisy", "NOAUTH", 60), Some(59));
        assert_eq!(said("noisy", "timed out", 60), None);
        assert_eq!(said("noisy", "timed out", 61), Some(1));
    }

    #[test]
    fn shards_that_are_gone_are_forgotten() {
        let mut lines = ShardLines::default();
        let begin = Instant::now();
        for shard in 0..5 * REMEMBERED {
            lines.admit("pool", &shard.to_string(), "", begin + SAME_PAUSE * shard as u32);
        }
        assert!(lines.0.len() <= REMEMBERED);
    }
}
