//! What a pool's shards can do, which decides what its clients may ask for.
//!
//! Clients with RESP3 need shards with RESP3: replies are passed on as they are. A shard of Redis 5 does not know it, and
//! the client has to be told so at its HELLO, where it can still go on with RESP2. A database that some shard does not have is
//! refused at SELECT, as Redis does.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use shard_discovery::Shard;
use shard_discovery::resolver::Resolver;

use crate::config::{self, Protocol};
use crate::control::pool::PoolControl;
use crate::control::probe;
use crate::net::conversation::ConversationError;
use crate::worker::Learnt;

/// Pauses between two questions to shards that could not answer.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Whether the shards have to be asked.
pub fn has_questions(config: &config::Pool) -> bool {
    config.protocol == Protocol::Redis && (config.resp3.is_none() || asks_for_databases(config))
}

/// Clients can SELECT databases, which the shards need not have. (A cluster says itself that it has one.)
fn asks_for_databases(config: &config::Pool) -> bool {
    config.databases > 1 && config.db == 0 && config.cluster().is_none()
}

/// Asks the shards until each has answered. Once for each pool at a time; it takes notice of a reload.
pub async fn learn(pool: Rc<PoolControl>) {
    if !pool.learning.replace(true) {
        ask(&pool).await;
        pool.learning.set(false);
    }
}

/// What one shard can do.
struct Answer {
    /// None if it was not asked.
    resp3: Option<bool>,
    /// None if it does not say, or has as many as the pool.
    databases: Option<u32>,
}

async fn ask_one(
    shard: &Shard,
    names: &Resolver,
    config: &config::Pool,
) -> Result<Answer, ConversationError> {
    let resp3 = match config.resp3 {
        None => Some(probe::speaks_resp3(&shard.address, names, config).await?),
        Some(_) => None,
    };
    let databases = match asks_for_databases(config) {
        true => {
            let found = probe::databases(&shard.address, names, config, config.databases).await?;
            found.filter(|&found| found < config.databases)
        }
        false => None,
    };
    Ok(Answer { resp3, databases })
}

async fn ask(pool: &PoolControl) {
    let mut pause = PAUSE_MIN;
    let mut answered: HashMap<Shard, Answer> = HashMap::new();
    while !pool.removed.get() {
        let config = pool.config();
        if !has_questions(&config) {
            return;
        }
        let mut asking = tokio::task::JoinSet::new();
        for shard in pool.topology().shards().iter().filter(|shard| !answered.contains_key(shard)).cloned() {
            let (config, names) = (config.clone(), pool.names.clone());
            asking.spawn_local(async move {
                let answer = ask_one(&shard, &names, &config).await;
                (shard, answer)
            });
        }
        for (shard, answer) in asking.join_all().await {
            let answer = match answer {
                Ok(answer) => answer,
                Err(reason) => {
                    tracing::debug!(
                        pool = %config.name, shard = %shard.name, %reason, "shard capability query failed"
                    );
                    continue;
                }
            };
            // At once: others may take long to answer.
            let before = pool.learnt();
            let learnt = before.with(&answer);
            if learnt.lacks_resp3 && !before.lacks_resp3 {
                tracing::info!(pool = %config.name, shard = %shard.name, "shard without RESP3 detected; clients are limited to RESP2");
            }
            if let Some(databases) = learnt.databases.filter(|_| learnt.databases != before.databases) {
                tracing::info!(
                    pool = %config.name, shard = %shard.name, databases,
                    "shard with fewer databases than the pool detected; SELECT is limited to these"
                );
            }
            pool.learn(learnt).await;
            answered.insert(shard, answer);
        }
        let topology = pool.topology();
        let answers: Option<Vec<&Answer>> =
            topology.shards().iter().map(|shard| answered.get(shard)).collect();
        if let Some(answers) = answers {
            // What was known before may have been of shards that have gone, or are others by now.
            pool.learn(answers.into_iter().fold(Learnt::default(), Learnt::with)).await;
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

impl Learnt {
    /// And this, of another shard.
    fn with(self, answer: &Answer) -> Self {
        Self {
            lacks_resp3: self.lacks_resp3 || answer.resp3 == Some(false),
            databases: self.databases.into_iter().chain(answer.databases).min(),
        }
    }
}
