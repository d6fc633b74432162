//! What a pool's shards can do, which decides what its clients may ask for.
//!
//! Clients with RESP3 need shards with RESP3: replies are passed on as they are. A shard of Redis 5 does not know it, and
//! the client has to be told so at its HELLO, where it can still go on with RESP2. A database that some shard does not have is
//! refused at SELECT, as Redis does. And clients that keep what they read (CLIENT TRACKING) need shards that tell of changes.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use shard_discovery::Shard;
use shard_discovery::resolver::Resolver;

use crate::config;
use crate::control::pool::PoolControl;
use crate::control::probe;
use crate::net::conversation::ConversationError;
use crate::worker::Learnt;

/// Pauses between two questions to shards that could not answer.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Whether the shards have to be asked.
pub fn has_questions(config: &config::Pool) -> bool {
    config.resp3 != Some(false) || asks_for_databases(config)
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

async fn ask_one(
    shard: &Shard,
    names: &Resolver,
    config: &config::Pool,
) -> Result<Learnt, ConversationError> {
    let lacks_resp3 = config.resp3.is_none() && !probe::speaks_resp3(&shard.address, names, config).await?;
    let untracked = match config.resp3 != Some(false) && !lacks_resp3 {
        true => probe::why_untracked(&shard.address, names, config).await?,
        false => None,
    };
    let untracked = untracked.map(|words| format!("shard {} says: {words}", shard.name).into());
    let databases = match asks_for_databases(config) {
        true => {
            let found = probe::databases(&shard.address, names, config, config.databases).await?;
            found.filter(|&found| found < config.databases)
        }
        false => None,
    };
    Ok(Learnt { lacks_resp3, databases, untracked })
}

async fn ask(pool: &PoolControl) {
    let mut pause = PAUSE_MIN;
    let mut under = pool.config();
    // Those that have answered under this configuration.
    let mut answered: HashSet<Shard> = HashSet::new();
    while !pool.removed.get() {
        let config = pool.config();
        if !has_questions(&config) {
            return;
        }
        if !Arc::ptr_eq(&config, &under) {
            // What was asked may have been something else.
            answered.clear();
            under = config.clone();
        }
        let mut asking = tokio::task::JoinSet::new();
        for shard in pool.topology().shards().iter().filter(|shard| !answered.contains(shard)).cloned() {
            let (config, names) = (config.clone(), pool.names.clone());
            asking.spawn_local(async move {
                let answer = ask_one(&shard, &names, &config).await;
                (shard, answer)
            });
        }
        for (shard, answer) in asking.join_all().await {
            match answer {
                // At once: others may take long to answer.
                Ok(learnt) => tell(pool, &config, &shard, learnt).await,
                Err(reason) => {
                    tracing::debug!(
                        pool = %config.name, shard = %shard.name, %reason, "shard capability query failed"
                    );
                    continue;
                }
            }
            answered.insert(shard);
        }
        if Arc::ptr_eq(&pool.config(), &under)
            && pool.topology().shards().iter().all(|shard| answered.contains(shard))
        {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn tell(pool: &PoolControl, config: &config::Pool, shard: &Shard, learnt: Learnt) {
    let before = pool.learnt();
    pool.learn(shard, learnt).await;
    let now = pool.learnt();
    if now.lacks_resp3 && !before.lacks_resp3 {
        tracing::info!(pool = %config.name, shard = %shard.name, "shard without RESP3 detected; clients are limited to RESP2");
    }
    if let Some(reason) = now.untracked.filter(|_| before.untracked.is_none()) {
        tracing::info!(pool = %config.name, %reason, "shard without client tracking detected; CLIENT TRACKING is refused");
    }
    if let Some(databases) = now.databases.filter(|_| now.databases != before.databases) {
        tracing::info!(
            pool = %config.name, shard = %shard.name, databases,
            "shard with fewer databases than the pool detected; SELECT is limited to these"
        );
    }
}
