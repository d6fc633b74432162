//! What a pool's shards can do, which decides what its clients may ask for.
//!
//! Clients with RESP3 need shards with RESP3: replies are passed on as they are. A shard of Redis 5 does not know it, and
//! the client has to be told so at its HELLO, where it can still go on with RESP2. A database that some shard does not have is
//! refused at SELECT, as Redis does.

use std::rc::Rc;
use std::time::Duration;

use shard_discovery::Shard;
use shard_discovery::resolver::Resolver;

use crate::config::{self, Protocol};
use crate::control::pool::PoolControl;
use crate::control::probe;
use crate::net::conversation::ConversationError;

/// Pauses between two questions to shards that could not answer.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Whether the shards have to be asked.
pub fn has_questions(config: &config::Pool) -> bool {
    config.protocol == Protocol::Redis && (config.resp3.is_none() || asks_for_databases(config))
}

/// Clients can SELECT databases, which the shards need not have. (A cluster says itself that it has one.)
fn asks_for_databases(config: &config::Pool) -> bool {
    config.databases > 1 && config.db == 0 && config.cluster.is_none()
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
    /// None if it does not say.
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
        true => probe::databases(&shard.address, names, config, config.databases).await?,
        false => None,
    };
    Ok(Answer { resp3, databases })
}

async fn ask(pool: &PoolControl) {
    let mut pause = PAUSE_MIN;
    let mut answered: Vec<Shard> = Vec::new();
    while !pool.removed.get() {
        let config = pool.config();
        if !has_questions(&config) {
            return;
        }
        let mut asking = tokio::task::JoinSet::new();
        for shard in config.shards.iter().filter(|shard| !answered.contains(shard)).cloned() {
            let (config, names) = (config.clone(), pool.names.clone());
            asking.spawn_local(async move {
                let answer = ask_one(&shard, &names, &config).await;
                (shard, answer)
            });
        }
        for (shard, answer) in asking.join_all().await {
            let Answer { resp3, databases } = match answer {
                Ok(answer) => answer,
                Err(reason) => {
                    tracing::debug!(
                        pool = %config.name, shard = %shard.name, %reason, "shard capability query failed"
                    );
                    continue;
                }
            };
            if resp3 == Some(false) && pool.config().resp3.is_none() {
                tracing::info!(pool = %config.name, shard = %shard.name, "shard without RESP3 detected; clients are limited to RESP2");
                pool.know(|config| config.resp3 = Some(false)).await;
            }
            if let Some(databases) = databases.filter(|&databases| databases < pool.config().databases) {
                tracing::info!(
                    pool = %config.name, shard = %shard.name, databases,
                    "shard with fewer databases than the pool detected; SELECT is limited to these"
                );
                pool.know(|config| config.databases = databases).await;
            }
            answered.push(shard);
        }
        if pool.config().shards.iter().all(|shard| answered.contains(shard)) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
