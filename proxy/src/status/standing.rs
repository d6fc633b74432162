//! How the shards of a pool are: whether they serve, since when, and why not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::unix_millis;
use crate::failure::ShardFailure;

/// Longest reason that is kept, in characters: some are in the words of a shard.
const REASON_MAX: usize = 300;

/// What the log was told last of each shard that has ever failed, by name. The control thread writes; any may read.
#[derive(Default, Debug)]
pub struct Standings(Mutex<HashMap<String, Standing>>);

/// How one shard is.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// Why it does not serve; none if it does.
    pub reason: Option<Arc<str>>,
    /// That is what the shard itself has said.
    in_words: bool,
}

impl Standings {
    /// The shard does not serve. Whether that is news: also the shard's own words are, which tell more than its silence
    /// before.
    pub fn fell(&self, name: &str, failure: &ShardFailure) -> bool {
        let in_words = matches!(failure, ShardFailure::HandshakeRefused(_));
        let mut book = self.book();
        let down = book.get(name).filter(|standing| standing.reason.is_some());
        let since = down.map(|standing| standing.since);
        if down.is_some_and(|standing| standing.in_words || !in_words) {
            return false;
        }
        let reason: String = failure.to_string().chars().take(REASON_MAX).collect();
        let since = since.unwrap_or_else(unix_millis);
        book.insert(name.to_owned(), Standing { since, reason: Some(reason.into()), in_words });
        true
    }

    /// The shard serves. Whether that is news.
    pub fn rose(&self, name: &str) -> bool {
        let mut book = self.book();
        match book.get_mut(name) {
            Some(standing) if standing.reason.is_some() => {
                *standing = Standing { since: unix_millis(), reason: None, in_words: false };
                true
            }
            _ => false,
        }
    }

    /// Names of those that do not serve.
    pub fn down(&self) -> Vec<String> {
        let book = self.book();
        let down = book.iter().filter(|(_, standing)| standing.reason.is_some());
        down.map(|(name, _)| name.clone()).collect()
    }

    /// Others are not in the pool any more.
    pub fn retain(&self, is_known: impl Fn(&String) -> bool) {
        self.book().retain(|name, _| is_known(name));
    }

    /// All of them, as they are now.
    pub fn snapshot(&self) -> HashMap<String, Standing> {
        self.book().clone()
    }

    fn book(&self) -> MutexGuard<'_, HashMap<String, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_down_for_the_first_reason_until_it_says_another_itself() {
        let standings = Standings::default();
        let said = ShardFailure::HandshakeRefused("WRONGPASS".repeat(100));
        assert!(!standings.rose("a"));
        assert!(standings.fell("a", &ShardFailure::ConnectRefused));
        let first = standings.snapshot()["a"].clone();
        assert!(!standings.fell("a", &ShardFailure::ResponseTimeout));
        assert!(standings.fell("a", &said) && !standings.fell("a", &said));
        let second = standings.snapshot()["a"].clone();
        assert_eq!((first.reason.as_deref(), second.since), (Some("connection refused"), first.since));
        assert_eq!(second.reason.map(|reason| reason.chars().count()), Some(REASON_MAX));
        assert_eq!(standings.down(), ["a"]);
        assert!(standings.rose("a") && !standings.rose("a"));
        assert!(standings.down().is_empty() && standings.snapshot()["a"].reason.is_none());
        standings.retain(|_| false);
        assert!(standings.snapshot().is_empty());
    }
}
