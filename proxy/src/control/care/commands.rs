//! Which commands the shards have, as they tell themselves: asked once in each run of a server.
//!
//! Nothing but a list of commands is an answer for good. A server may be busy, load its data, be a replica without its primary, or not let
//! this user ask for the moment; one that will never tell costs a short question now and then. So it is asked again until it has told, each time
//! after a longer pause.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use crate::control::pool::PoolControl;
use crate::net::conversation::{Conversation, ConversationError};
use crate::protocol::questions;
use crate::protocol::store::{Commands, Store};

/// Longest question.
const QUESTION_MAX: Duration = Duration::from_secs(1);
/// The pause before a shard that has not told is asked again: so long after the first time, twice as long after each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// After so many questions the log is told that a shard does not tell.
const FAILURES_TOLD: u32 = 4;

/// What the shards of a pool have told.
#[derive(Default)]
pub struct Learning {
    /// By the name of the shard, as long as it is one of the pool, whether it answers or not.
    shards: HashMap<String, Kept>,
    /// All of them taken together.
    all: Arc<Commands>,
    /// What the log knows of shards that lack what others have.
    differences: String,
    /// Bytes that the account knows of.
    held: usize,
}

/// What is known of one shard.
struct Kept {
    run: String,
    /// Its kind and version.
    kind: Store,
    told: Told,
}

/// What a run of a server has told of its commands.
enum Told {
    /// These.
    All(Arc<Commands>),
    /// Nothing: it may have any.
    NotYet {
        /// How often it was asked.
        failures: u32,
        /// When it is asked again.
        again: Instant,
    },
}

impl Learning {
    /// The run of a shard in which it need not be asked now.
    pub fn known(&self, shard: &str, now: Instant) -> Option<String> {
        let kept = self.shards.get(shard).filter(|kept| match kept.told {
            Told::All(_) => true,
            Told::NotYet { again, .. } => now < again,
        });
        kept.map(|kept| kept.run.clone())
    }

    /// What a shard has said in this run, if it was asked. Returns why it has not told, once for each run.
    pub fn note(
        &mut self,
        shard: &str,
        run: String,
        store: &Store,
        answer: Option<Result<Bytes, ConversationError>>,
        now: Instant,
    ) -> Option<String> {
        let before = self.shards.remove(shard).filter(|kept| kept.run == run).map(|kept| kept.told);
        let (told, reason) = match answer {
            None => (before.unwrap_or(Told::NotYet { failures: 0, again: now }), None),
            Some(answer) => {
                let read =
                    |answer: Bytes| Commands::read(&answer).ok_or_else(|| "no list of commands".to_owned());
                match answer.map_err(|error| error.to_string()).and_then(read) {
                    Ok(commands) => (Told::All(self.shared(commands)), None),
                    Err(reason) => {
                        let failures = match before {
                            Some(Told::NotYet { failures, .. }) => failures.saturating_add(1),
                            _ => 1,
                        };
                        let told = Told::NotYet { failures, again: now + pause(failures) };
                        (told, (failures == FAILURES_TOLD).then_some(reason))
                    }
                }
            }
        };
        self.shards.insert(shard.to_owned(), Kept { run, kind: store.kind(), told });
        reason
    }

    /// The same commands are kept once: most shards have the same.
    fn shared(&self, commands: Commands) -> Arc<Commands> {
        let known = self.shards.values().filter_map(Kept::commands).find(|known| ***known == commands);
        known.cloned().unwrap_or_else(|| Arc::new(commands))
    }

    /// These are the shards of the pool now. Returns which commands they have, and their kind and version.
    pub fn settle<'s>(&mut self, pool: &PoolControl, shards: impl Iterator<Item = &'s str>) -> Store {
        let names: Vec<&str> = shards.collect();
        self.shards.retain(|name, _| names.contains(&&**name));
        let of_shards: Vec<Option<&Commands>> =
            names.iter().map(|name| self.shards.get(*name)?.commands().map(|commands| &**commands)).collect();
        let all = Commands::of_all(of_shards.into_iter());
        if all != *self.all {
            self.tell_log(pool, &all);
            self.all = Arc::new(all);
        }
        self.tell_of_differences(pool, &names);
        self.hold(pool);
        let kinds = self.shards.values().map(|kept| &kept.kind);
        let mut store = Store::of_all(kinds);
        store.commands = self.all.clone();
        store
    }

    fn tell_log(&self, pool: &PoolControl, all: &Commands) {
        let (learnt, passed_over) = (all.learnt().count(), all.passed_over());
        pool.counters().learnt_commands.set(learnt as i64);
        pool.counters().passed_over_commands.set(passed_over as i64);
        if learnt > 0 || self.all.learnt().next().is_some() {
            tracing::info!(pool = %pool.config().name, learnt, "commands learnt from shards");
        }
        if passed_over > self.all.passed_over() {
            tracing::warn!(pool = %pool.config().name, passed_over, "commands of a shard not learnt: too many, or with odd names");
        }
    }

    /// What a client gets depends on the shard of its key, and nobody would find out why.
    fn tell_of_differences(&mut self, pool: &PoolControl, names: &[&str]) {
        const TOLD_MAX: usize = 1024;
        let mut differences = String::new();
        for name in names {
            let Some(commands) = self.shards.get(*name).and_then(Kept::commands) else { continue };
            let lacks = some_of(commands.missing_of(&self.all)).map(|names| format!("{name} lacks {names}"));
            let differs =
                some_of(commands.other_than(&self.all)).map(|names| format!("{name} differs in {names}"));
            for words in lacks.into_iter().chain(differs) {
                if differences.len() >= TOLD_MAX {
                    break;
                }
                let before = if differences.is_empty() { "" } else { "; " };
                differences.push_str(&format!("{before}{words}"));
            }
        }
        if differences != self.differences {
            if differences.is_empty() {
                tracing::info!(pool = %pool.config().name, "all shards have the same commands again");
            } else {
                tracing::warn!(
                    pool = %pool.config().name, %differences,
                    "shards differ in their commands; a shard without one answers it with an error of its own, and what several say of one in \
                     different words is taken as the strictest has it"
                );
            }
            self.differences = differences;
        }
    }

    /// It is in the account as long as it is kept.
    fn hold(&mut self, pool: &PoolControl) {
        let mut counted: Vec<*const Commands> = Vec::new();
        let mut bytes = self.all.bytes();
        for kept in self.shards.values() {
            bytes += kept.run.len();
            if let Some(commands) = kept.commands()
                && !counted.contains(&Arc::as_ptr(commands))
            {
                counted.push(Arc::as_ptr(commands));
                bytes += commands.bytes();
            }
        }
        pool.account.change(self.held, bytes);
        self.held = bytes;
    }

    /// Nothing is known any more.
    pub fn forget(&mut self, pool: &PoolControl) {
        pool.account.change(self.held, 0);
        if *self.all != Commands::default() {
            pool.counters().learnt_commands.set(0);
            pool.counters().passed_over_commands.set(0);
        }
        *self = Self::default();
    }
}

impl Kept {
    fn commands(&self) -> Option<&Arc<Commands>> {
        match &self.told {
            Told::All(commands) => Some(commands),
            Told::NotYet { .. } => None,
        }
    }
}

/// The first of these names, and how many more there are; none if there are none.
fn some_of<'n>(mut names: impl Iterator<Item = &'n str>) -> Option<String> {
    const SHOWN_MAX: usize = 3;
    let shown: Vec<&str> = names.by_ref().take(SHOWN_MAX).collect();
    let more = match names.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!shown.is_empty()).then(|| format!("{}{more}", shown.join(", ")))
}

/// How long a shard that has failed so often is left alone.
fn pause(failures: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE_MAX)
}

/// Asks a shard which commands it has.
pub async fn ask(shard: &mut Conversation) -> Result<Bytes, ConversationError> {
    let lost = Err(ConversationError::Lost(crate::failure::ShardFailure::ResponseTimeout));
    timeout(QUESTION_MAX, shard.bytes(&questions::COMMANDS)).await.unwrap_or(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &str) -> Option<Result<Bytes, ConversationError>> {
        Some(Err(ConversationError::Refused(words.into())))
    }

    fn list() -> Bytes {
        let rows = &crate::protocol::resp::command::table::COMMANDS;
        let rows: Vec<String> = rows
            .iter()
            .map(|row| format!("*6\r\n+{}\r\n:-1\r\n*0\r\n:0\r\n:0\r\n:0\r\n", row.name))
            .collect();
        format!("*{}\r\n{}", rows.len(), rows.concat()).into()
    }

    #[test]
    fn a_shard_that_does_not_tell_is_asked_again_after_longer_and_longer_pauses() {
        let (mut learning, mut now, mut asked, mut told) = (Learning::default(), Instant::now(), 0, 0);
        let begin = now;
        for error in ["BUSY a script", "LOADING", "MASTERDOWN", "NOPERM", "ERR unknown command 'COMMAND'"]
            .iter()
            .cycle()
        {
            if now > begin + 12 * 3600 * Duration::from_secs(1) {
                break;
            }
            if learning.known("one", now).is_none() {
                asked += 1;
                told += usize::from(
                    learning.note("one", "run".into(), &Store::default(), refused(error), now).is_some(),
                );
            } else {
                assert_eq!(learning.note("one", "run".into(), &Store::default(), None, now), None);
            }
            now += PAUSE_MIN;
        }
        // In twelve hours, of which each has twelve longest pauses.
        assert!((140..160).contains(&asked), "{asked}");
        assert_eq!(told, 1, "the log is told once");
        // What it tells at last holds as long as it runs.
        learning.note("one", "run".into(), &Store::default(), Some(Ok(list())), now);
        assert_eq!(learning.known("one", now + 1000 * PAUSE_MAX).as_deref(), Some("run"));
        // The next run is asked at once, and again soon.
        let lost = Some(Err(ConversationError::Lost(crate::failure::ShardFailure::ResponseTimeout)));
        learning.note("one", "next".into(), &Store::default(), lost, now);
        assert!(learning.known("one", now).is_some() && learning.known("one", now + PAUSE_MIN).is_none());
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }

    #[test]
    fn few_names_are_shown() {
        assert_eq!(some_of(["a", "b", "c", "d", "e"].into_iter()).as_deref(), Some("a, b, c and 2 more"));
        assert_eq!(some_of(["a"].into_iter()).as_deref(), Some("a"));
        assert_eq!(some_of(std::iter::empty()), None);
    }
}
