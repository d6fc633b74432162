//! What a pool's shards can do, which decides what its clients may ask for.
//!
//! Clients with RESP3 need shards with RESP3: replies are passed on as they are. A shard of Redis 5 does not know it, and
//! the client has to be told so at its HELLO, where it can still go on with RESP2.

use std::rc::Rc;
use std::time::Duration;

use super::pools::PoolControl;
use super::probe;
use crate::config::{self, Protocol};

/// Pauses between two questions to shards that could not answer.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Whether the shards have to be asked.
pub fn has_questions(config: &config::Pool) -> bool {
    config.protocol == Protocol::Redis && config.resp3.is_none()
}

/// Asks the shards until each has answered, or one has said no. Once for each pool at a time; it takes notice of a
/// reload.
pub async fn learn(pool: Rc<PoolControl>) {
    if !pool.learning.replace(true) {
        ask(&pool).await;
        pool.learning.set(false);
    }
}

async fn ask(pool: &PoolControl) {
    let mut pause = PAUSE_MIN;
    let mut answered: Vec<shard_discovery::Shard> = Vec::new();
    while !pool.removed.get() {
        let config = pool.config();
        if !has_questions(&config) {
            return;
        }
        let mut asking = tokio::task::JoinSet::new();
        for shard in config.shards.iter().filter(|shard| !answered.contains(shard)).cloned() {
            let (config, names) = (config.clone(), pool.names.clone());
            asking.spawn_local(async move {
                let answer = probe::speaks_resp3(&shard.address, &names, &config).await;
                (shard, answer)
            });
        }
        for (shard, answer) in asking.join_all().await {
            match answer {
                Ok(true) => answered.push(shard),
                Ok(false) => {
                    tracing::info!(pool = %config.name, shard = %shard.name, "shard knows no RESP3; clients get RESP2");
                    return pool.know_resp2_only().await;
                }
                Err(reason) => {
                    tracing::debug!(pool = %config.name, shard = %shard.name, %reason, "cannot ask for RESP3");
                }
            }
        }
        if pool.config().shards.iter().all(|shard| answered.contains(shard)) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
