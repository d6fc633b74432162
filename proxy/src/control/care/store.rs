//! What the shards say of themselves, for clients that ask the proxy as if it were the server: how much memory there is
//! and what happens when it is full, how many keys, which version.
//!
//! Asked beside the data path and kept, because clients ask at every start, and tools every second.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use shard_discovery::Shard;
use shard_discovery::resolver::Resolver;
use tokio::time::{Instant, timeout};

use super::{commands, events, functions};
use crate::config;
use crate::control::pool::PoolControl;
use crate::control::{machine, probe};
use crate::net::conversation::ConversationError;
use crate::protocol::questions;
use crate::protocol::store::Store;

/// Longest question, the connect included.
const QUESTION_MAX: Duration = Duration::from_secs(2);
/// Questions under way at a time.
const QUESTIONS_MAX: usize = 64;
/// What a shard said last holds for so many questions that it does not answer.
const SILENCES_MAX: u32 = 2;
/// How often it is looked whether there is something to ask at all.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// What a shard has said last.
struct Answer {
    store: Store,
    /// Questions since then.
    silences: u32,
}

/// Keeps what workers know of the shards as long as the pool is served.
pub async fn follow(pool: Rc<PoolControl>) {
    let mut inquiry = Inquiry::default();
    // Spread, so that many proxies do not ask in step.
    let spread = 0.75 + (machine::seed() % 512) as f64 / 1024.0;
    while !pool.removed.get() {
        inquiry.ask(&pool).await;
        inquiry.functions.settle(&pool).await;
        pool.inquired.notify_one();
        let pause = pool.config().info_refresh.filter(|_| !inquiry.answers.is_empty());
        tokio::time::sleep(pause.map_or(IDLE_PAUSE, |pause| pause.mul_f64(spread))).await;
    }
    inquiry.commands.forget(&pool);
    inquiry.functions.forget(&pool);
}

#[derive(Default)]
struct Inquiry {
    /// By the name of the shard.
    answers: HashMap<String, Answer>,
    /// Which commands they have.
    commands: commands::Learning,
    /// Which libraries of functions they have.
    functions: functions::Functions,
}

impl Inquiry {
    /// Asks all shards that are in use, and tells the workers if something is new.
    async fn ask(&mut self, pool: &PoolControl) {
        let config = pool.config();
        if config.info_refresh.is_none() {
            self.commands.forget(pool);
            self.functions.forget(pool);
            return pool.tell_store(Some(Store::default())).await;
        }
        let (all, ejected) = {
            let ejection = pool.ejection.borrow();
            (ejection.shards().to_vec(), ejection.ejected())
        };
        let is_fit = |(index, shard): (usize, &Shard)| (!ejected.contains(&index)).then(|| shard.clone());
        let shards: Vec<Shard> = all.iter().enumerate().filter_map(is_fit).collect();
        self.answers.retain(|name, _| shards.iter().any(|shard| shard.name == *name));
        for some in shards.chunks(QUESTIONS_MAX) {
            let now = Instant::now();
            let mut asking = tokio::task::JoinSet::new();
            for shard in some.iter().cloned() {
                let (config, names) = (config.clone(), pool.names.clone());
                // One that does not say which events it tells of may note who asks.
                let said = self.answers.get(&shard.name);
                let asks_events = said.is_none_or(|answer| answer.store.events.is_some());
                let known = self.commands.known(&shard.name, now);
                asking.spawn_local(async move {
                    let question =
                        timeout(QUESTION_MAX, ask_one(&shard, &names, &config, asks_events, known));
                    (shard.name.clone(), question.await)
                });
            }
            for (name, answer) in asking.join_all().await {
                match answer {
                    Ok(Ok(Said { store, run, commands, functions })) => {
                        self.functions.note(&name, functions);
                        let silent = self.commands.note(&name, run, &store, commands, Instant::now());
                        if let Some(reason) = silent {
                            tracing::warn!(
                                pool = %config.name, shard = %name, %reason,
                                "shard does not tell which commands it has, and may have any; asked again now and then"
                            );
                        }
                        self.answers.insert(name, Answer { store, silences: 0 });
                    }
                    Ok(Err(_)) | Err(_) => {
                        if let Some(answer) = self.answers.get_mut(&name) {
                            answer.silences += 1;
                        }
                    }
                }
            }
        }
        self.answers.retain(|_, answer| answer.silences <= SILENCES_MAX);
        let is_complete = shards.iter().all(|shard| self.answers.contains_key(&shard.name));
        // What those that do not answer have told in their last run holds until they are back.
        let kind = self.commands.settle(pool, all.iter().map(|shard| &*shard.name));
        let mut store = if is_complete {
            Store::of_all(self.answers.values().map(|answer| &answer.store))
        } else {
            Store::default()
        };
        (store.version, store.valkey, store.commands) = (kind.version, kind.valkey, kind.commands);
        pool.tell_store(Some(store)).await;
    }
}

/// What a shard says of itself.
struct Said {
    store: Store,
    run: String,
    /// What it has answered to COMMAND, if it was asked.
    commands: Option<Result<Bytes, ConversationError>>,
    functions: functions::Said,
}

/// Asks a shard; which commands it has only where that is not `known` of its run.
async fn ask_one(
    shard: &Shard,
    names: &Resolver,
    config: &config::Pool,
    asks_events: bool,
    known: Option<String>,
) -> Result<Said, ConversationError> {
    let mut shard = probe::enter(&shard.address, names, config).await?;
    shard.expect_short();
    let info = shard.text(&questions::INFO).await?;
    let (mut store, run) = (Store::of_info(&info), Store::run(&info));
    if asks_events {
        store.events = match events::text(&mut shard).await {
            Ok(text) => Some(String::from_utf8_lossy(&text).into_owned()),
            // It need not say.
            Err(ConversationError::Refused(_)) => None,
            Err(lost) => return Err(lost),
        };
    }
    let is_known = known.is_some_and(|known| known == run);
    let commands = if is_known { None } else { Some(commands::ask(&mut shard).await) };
    Ok(Said { store, run, commands, functions: functions::Said::read(&info) })
}
