//! What a shard says of itself to somebody who has not begun to serve yet: `memstore check --connect`.

use std::rc::Rc;
use std::sync::Arc;

use shard_discovery::resolver::{Resolver, ResolverOptions};
use shard_discovery::{Address, Shard};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use super::{lists, probe};
use crate::config;
use crate::failure::ShardFailure;
use crate::net::conversation::ConversationError;
use crate::protocol::questions;

/// Shards that are asked at a time.
const TOGETHER_MAX: usize = 64;

/// What was found at the address of one shard.
pub struct Look {
    /// The shard; of a cluster a seed, which has its address as a name.
    pub shard: Shard,
    /// What it has said, or why it has not.
    pub found: Result<Seen, ShardFailure>,
}

/// What a shard has said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The server and its version.
    pub version: Option<String>,
    /// How many databases it has, if these are fewer than the pool's clients may use.
    pub databases: Option<u32>,
    /// Whose replica it is.
    pub replica_of: Option<String>,
}

/// Asks all shards of all pools, and the nodes that clusters are found by; lists at URLs are read for that.
pub fn look(pools: &mut [config::Pool]) -> anyhow::Result<Vec<Vec<Look>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let names = Arc::new(Resolver::new(&ResolverOptions::default())?);
    let all = LocalSet::new().block_on(&runtime, async {
        lists::settle(pools, &[], &names).await?;
        let room = Rc::new(Semaphore::new(TOGETHER_MAX));
        let mut all = Vec::new();
        for pool in pools.iter() {
            all.push(look_at(Rc::new(pool.clone()), names.clone(), room.clone()).await);
        }
        anyhow::Ok(all)
    });
    // A lookup that hangs is not waited for.
    runtime.shutdown_background();
    all
}

async fn look_at(pool: Rc<config::Pool>, names: Arc<Resolver>, room: Rc<Semaphore>) -> Vec<Look> {
    let seed = |address: &Address| Shard { name: address.to_string(), address: address.clone(), weight: 1 };
    let shards: Vec<Shard> = match pool.cluster() {
        Some(cluster) => cluster.seeds.iter().map(seed).collect(),
        None => pool.shards.clone(),
    };
    let mut asking = JoinSet::new();
    for (place, shard) in shards.into_iter().enumerate() {
        let (pool, names, room) = (pool.clone(), names.clone(), room.clone());
        asking.spawn_local(async move {
            let _room = room.acquire().await;
            let found = ask(&shard.address, &names, &pool).await.map_err(ConversationError::failure);
            (place, Look { shard, found })
        });
    }
    let mut looks = asking.join_all().await;
    looks.sort_by_key(|(place, _)| *place);
    looks.into_iter().map(|(_, look)| look).collect()
}

async fn ask(address: &Address, names: &Resolver, pool: &config::Pool) -> Result<Seen, ConversationError> {
    let answer = probe::ask(address, names, pool).await?;
    if let Some(version) = answer.strip_prefix("VERSION ") {
        let version = Some(format!("memcached {}", version.trim_end()));
        return Ok(Seen { version, ..Seen::default() });
    }
    // Who may not ask for that may be of use all the same.
    let info = match probe::enter(address, names, pool).await?.text(&questions::INFO).await {
        Ok(info) => info,
        Err(ConversationError::Refused(_)) => String::new(),
        Err(lost) => return Err(lost),
    };
    let databases = match pool.databases {
        _ if pool.cluster().is_some() || pool.db > 0 => None,
        1 => None,
        many => probe::databases(address, names, pool, many).await?.filter(|found| *found < many),
    };
    Ok(Seen { databases, ..told(&info) })
}

/// What INFO says.
fn told(info: &str) -> Seen {
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let version = ["valkey", "redis"].iter().find_map(|server| {
        let version = field(&format!("{server}_version"))?;
        Some(format!("{server} {version}"))
    });
    let replica_of = match (field("role"), field("master_host"), field("master_port")) {
        (Some("slave"), Some(host), Some(port)) => Some(format!("{host}:{port}")),
        _ => None,
    };
    Seen { version, databases: None, replica_of }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_what_it_says_itself() {
        let valkey = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\nrole:master\r\n";
        assert_eq!(told(valkey).version.as_deref(), Some("valkey 8.1.0"));
        let redis = "redis_version:7.0.15\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n";
        let seen = told(redis);
        assert_eq!(
            (seen.version.as_deref(), seen.replica_of.as_deref()),
            (Some("redis 7.0.15"), Some("10.0.0.1:6379"))
        );
        assert_eq!(told(""), Seen::default());
    }
}
