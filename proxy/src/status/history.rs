//! The last reloads: when, why, what became of them, and what they have changed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::unix_millis;

/// Reloads that are remembered.
const RELOADS_MAX: usize = 20;
/// Changes of one reload that are remembered.
const CHANGES_MAX: usize = 100;
/// Longest text of an error, in characters.
const ERROR_MAX: usize = 2000;

/// Oldest first.
#[derive(Default, Debug)]
pub struct History(Mutex<VecDeque<Arc<ReloadRecord>>>);

/// One reload, or several in a row with the same end.
#[derive(Clone, PartialEq, Debug)]
pub struct ReloadRecord {
    /// When the last of them ended, in milliseconds since 1970.
    pub time: u64,
    /// What the last of them was for.
    pub trigger: String,
    /// What became of it.
    pub end: End,
    /// How many there were.
    pub times: u64,
}

/// What became of a reload.
#[derive(Clone, PartialEq, Debug)]
pub enum End {
    /// Another configuration holds.
    Applied {
        /// Counted from 1, which is the one that the process has started with.
        generation: u64,
        /// What has changed.
        changes: Vec<Difference>,
        /// Further changes.
        more: usize,
    },
    /// The configuration is the same.
    Unchanged,
    /// It was refused, for this reason.
    Failed(String),
}

/// What is another than before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// In which pool; none for the process.
    pub pool: Option<String>,
    /// `pool`, `shard` or the name of a setting.
    pub what: String,
    /// The name of the shard, or what the setting was.
    pub before: Option<String>,
    /// The name of the shard, or what the setting is.
    pub after: Option<String>,
}

impl History {
    /// A reload has ended.
    pub fn note(&self, trigger: &str, mut end: End) {
        match &mut end {
            End::Applied { changes, more, .. } => {
                *more += changes.len().saturating_sub(CHANGES_MAX);
                changes.truncate(CHANGES_MAX);
            }
            End::Failed(reason) => *reason = reason.chars().take(ERROR_MAX).collect(),
            End::Unchanged => {}
        }
        let (mut book, time) = (self.book(), unix_millis());
        // One that is asked for in a loop pushes nothing out.
        let times = match book.back() {
            Some(last) if last.end == end => last.times + 1,
            _ => 1,
        };
        if times > 1 || book.len() == RELOADS_MAX {
            let _ = if times > 1 { book.pop_back() } else { book.pop_front() };
        }
        book.push_back(Arc::new(ReloadRecord { time, trigger: trigger.to_owned(), end, times }));
    }

    /// Those that are remembered, oldest first.
    pub fn snapshot(&self) -> Vec<Arc<ReloadRecord>> {
        self.book().iter().cloned().collect()
    }

    fn book(&self) -> MutexGuard<'_, VecDeque<Arc<ReloadRecord>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reloads_are_kept_and_those_with_the_same_end_count_as_one() {
        let history = History::default();
        let change = Difference { pool: None, what: "log_level".into(), before: None, after: None };
        let changes = vec![change; CHANGES_MAX + 5];
        history.note("SIGHUP", End::Applied { generation: 2, changes, more: 0 });
        for _ in 0..1000 {
            history.note("HTTP", End::Unchanged);
        }
        history.note("HTTP", End::Failed("x".repeat(1 << 20)));
        let kept = history.snapshot();
        assert_eq!(kept.iter().map(|record| record.times).collect::<Vec<_>>(), [1, 1000, 1]);
        let End::Applied { changes, more, .. } = &kept[0].end else { panic!("{:?}", kept[0]) };
        assert_eq!((changes.len(), *more), (CHANGES_MAX, 5));
        assert_eq!(kept[2].end, End::Failed("x".repeat(ERROR_MAX)));
        for number in 0..100 {
            history.note("file changed", End::Failed(number.to_string()));
        }
        assert_eq!(history.snapshot().len(), RELOADS_MAX);
    }
}
