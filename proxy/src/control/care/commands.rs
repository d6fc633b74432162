//! Which commands the shards have, as they tell themselves: asked once in each run of a server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::control::pool::PoolControl;
use crate::net::conversation::{Conversation, ConversationError};
use crate::protocol::store::{Commands, Store};

/// Longest question.
const QUESTION_MAX: Duration = Duration::from_secs(1);
/// A run of a server that has given no answer so often is not asked any more.
const FAILURES_MAX: u32 = 3;

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
    /// Nothing yet, and it has been asked so often.
    NotYet(u32),
    /// These; none if it does not say.
    All(Option<Arc<Commands>>),
}

impl Learning {
    /// The run of a shard in which it need not be asked.
    pub fn known(&self, shard: &str) -> Option<String> {
        let kept = self.shards.get(shard).filter(|kept| matches!(kept.told, Told::All(_)));
        kept.map(|kept| kept.run.clone())
    }

    /// What a shard has said in this run, if it was asked.
    pub fn note(
        &mut self,
        shard: &str,
        run: String,
        store: &Store,
        answer: Option<Result<Bytes, ConversationError>>,
    ) {
        let before = self.shards.get(shard).filter(|kept| kept.run == run).map(|kept| &kept.told);
        let told = match (answer, before) {
            (None, Some(Told::All(commands))) => Told::All(commands.clone()),
            (None, Some(Told::NotYet(failures))) => Told::NotYet(*failures),
            (None, None) => Told::NotYet(0),
            (Some(Ok(answer)), _) => Told::All(Commands::read(&answer).map(|commands| self.shared(commands))),
            // It need not say.
            (Some(Err(ConversationError::Refused(_))), _) => Told::All(None),
            (Some(Err(_)), Some(Told::NotYet(failures))) if *failures + 1 >= FAILURES_MAX => Told::All(None),
            (Some(Err(_)), Some(Told::NotYet(failures))) => Told::NotYet(failures + 1),
            (Some(Err(_)), _) => Told::NotYet(1),
        };
        self.shards.insert(shard.to_owned(), Kept { run, kind: store.kind(), told });
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
        const SHOWN_MAX: usize = 3;
        let mut differences = String::new();
        for name in names {
            let Some(commands) = self.shards.get(*name).and_then(Kept::commands) else { continue };
            let mut missing = commands.missing_of(&self.all);
            let shown: Vec<&str> = missing.by_ref().take(SHOWN_MAX).collect();
            if !shown.is_empty() && differences.len() < 1024 {
                let more = missing.count();
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let before = if differences.is_empty() { "" } else { "; " };
                differences.push_str(&format!("{before}{name} lacks {}{more}", shown.join(", ")));
            }
        }
        if differences != self.differences {
            if differences.is_empty() {
                tracing::info!(pool = %pool.config().name, "all shards have the same commands again");
            } else {
                tracing::warn!(
                    pool = %pool.config().name, %differences,
                    "shards differ in their commands; a shard without one answers it with an error of its own"
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
            Told::All(commands) => commands.as_ref(),
            Told::NotYet(_) => None,
        }
    }
}

/// Asks a shard which commands it has.
pub async fn ask(shard: &mut Conversation) -> Result<Bytes, ConversationError> {
    let lost = Err(ConversationError::Lost(crate::failure::ShardFailure::ResponseTimeout));
    timeout(QUESTION_MAX, shard.bytes(&["COMMAND"])).await.unwrap_or(lost)
}
