//! Which of a pool's servers count, where the files alone cannot say it.
//!
//! Two things are known only by processes that run: since when `servers_within` leaves servers out, which ends by itself,
//! and which new servers have answered. They are the memory of a release: a process that starts asks the others
//! (`servers_peers`), begins with the servers that they use, and comes to use further ones as they do.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use shard_discovery::resolver::Resolver;
use shard_discovery::{Address, Shard};
use tokio::time::timeout;

use crate::admin;
use crate::config;
use crate::status::Ring;

/// How long a process that starts waits for what others say: for the lookup of their name, and for their answers.
const PEERS_WAIT: Duration = Duration::from_secs(2);
/// Others that are asked; any of them knows.
const PEERS_MAX: usize = 64;

/// The same of all pools, by their names.
#[derive(Default)]
pub struct Rings(RefCell<HashMap<String, Ring>>);

impl Rings {
    /// Looks at pools that were read just now: servers that were left out for too long count again, until another list
    /// leaves them out or somebody puts the same one in force once more. Nothing else brings it back.
    pub fn settle(&self, pools: &mut [config::Pool]) {
        let mut rings = self.0.borrow_mut();
        rings.retain(|name, _| pools.iter().any(|pool| pool.name == *name));
        for pool in pools {
            let ring = rings.entry(pool.name.clone()).or_default();
            ring.awaited.clear();
            let Some(within) = &pool.within else {
                *ring = Ring::default();
                continue;
            };
            let left_out = pool.left_out();
            let is_repeated = within.is_attempted && !ring.is_attempted;
            if ring.text != within.text || ring.left_out != left_out || is_repeated {
                let until = pool.servers_within_limit.map(|limit| Instant::now() + limit);
                *ring = Ring { left_out, text: within.text, until, ..Ring::default() };
            }
            ring.is_attempted = within.is_attempted;
            if ring.is_due() {
                ring.has_expired = true;
                tracing::warn!(
                    pool = %pool.name, shards = %ring.left_out.join(", "),
                    "servers_within ignored: servers_within_limit reached; using the excluded shards again"
                );
            }
            if ring.has_expired {
                forget_within(pool);
            }
        }
    }

    /// Whether a list is to end that is still in force.
    pub fn is_due(&self) -> bool {
        self.0.borrow().values().any(Ring::is_due)
    }

    /// These servers of the pool are waited for.
    pub fn awaits(&self, pool: &str, shards: Vec<String>) {
        if let Some(ring) = self.0.borrow_mut().get_mut(pool) {
            ring.awaited = shards;
        }
    }

    /// What is known of a pool.
    pub fn of(&self, pool: &str) -> Ring {
        self.0.borrow().get(pool).cloned().unwrap_or_default()
    }

    /// Asks others that serve these pools which servers they use, and leaves only those, where that is a part of what the
    /// files say. Returns whether something was left out that way, which is to be adopted once it answers.
    pub async fn ask_peers(&self, pools: &mut [config::Pool], names: &Resolver) -> bool {
        let mut is_behind = false;
        for pool in pools {
            let Some(Address::Tcp { host, port }) = &pool.servers_peers else { continue };
            let Ok(Ok(found)) = timeout(PEERS_WAIT, names.refresh(host)).await else {
                tracing::info!(pool = %pool.name, peers = %host, "no peers found");
                continue;
            };
            let mut asking = tokio::task::JoinSet::new();
            for address in found.into_iter().take(PEERS_MAX) {
                asking.spawn(admin::topology_of(SocketAddr::new(address, *port), PEERS_WAIT));
            }
            let answers: Vec<Value> = asking.join_all().await.into_iter().flatten().collect();
            let told: Vec<&Value> =
                answers.iter().filter_map(|document| document["pools"].get(&pool.name)).collect();
            self.learn_age(pool, &told);
            let used = told.iter().map(|told| names_of(told));
            let is_part = |used: &Vec<String>| {
                !used.is_empty()
                    && used.iter().all(|name| pool.shards.iter().any(|shard| shard.name == *name))
            };
            // The one that uses most has had an answer of each.
            let Some(used) = used.filter(is_part).max_by_key(Vec::len) else { continue };
            if used.len() < pool.shards.len() {
                start_within(pool, &used);
                tracing::info!(
                    pool = %pool.name, shards = %used.join(", "),
                    "started with the shards that peers use; waiting for the others to answer"
                );
                is_behind = true;
            }
        }
        is_behind
    }

    /// Others know since when servers are left out. Of an attempt only those that have seen it too.
    fn learn_age(&self, pool: &mut config::Pool, told: &[&Value]) {
        let mut rings = self.0.borrow_mut();
        let Some(ring) = rings.get_mut(&pool.name).filter(|ring| !ring.left_out.is_empty()) else { return };
        let text = format!("{:016x}", ring.text);
        let is_same =
            |within: &&Value| within["list"] == text && (!ring.is_attempted || within["attempted"] == true);
        for within in told.iter().map(|told| &told["servers_within"]).filter(is_same) {
            if let (Some(until), Some(left)) = (ring.until, within["seconds_left"].as_f64()) {
                let left = Duration::try_from_secs_f64(left).unwrap_or_default();
                ring.until = Some(until.min(Instant::now() + left));
            }
            ring.has_expired |= within["expired"] == true;
        }
        if ring.has_expired {
            forget_within(pool);
        }
    }
}

/// The pool begins with these servers only. What is to be pinned to one of the others is where its hash says until then, as it
/// is for the peers.
fn start_within(pool: &mut config::Pool, used: &[String]) {
    let is_later = |shard: &&Shard| !used.contains(&shard.name);
    let later: Vec<String> = pool.shards.iter().filter(is_later).map(|shard| shard.name.clone()).collect();
    pool.pins = pool.pins.without_shards(&later);
    if let Some(placement) = &mut pool.placement {
        placement.pins = placement.pins.without_shards(&later);
    }
    pool.shards.retain(|shard| used.contains(&shard.name));
}

fn forget_within(pool: &mut config::Pool) {
    if let Some(within) = pool.within.take() {
        pool.shards = within.all;
    }
}

fn names_of(pool: &Value) -> Vec<String> {
    let shards = pool["shards"].as_array().into_iter().flatten();
    shards.filter_map(|shard| shard["name"].as_str()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::path::Path;

    use super::*;
    use crate::config::Surroundings;

    const ONE: &str = "# revision 1\n- 127.0.0.1:1:1 a\n";
    const TEXT: &str = "pools:\n  p:\n    listen: 127.0.0.1:9\n    redis: true\n    servers: ['127.0.0.1:1:1 a', '127.0.0.1:2:1 b']\n    \
        servers_within: next\n    servers_within_attempt: attempt\n    servers_within_limit: 1h\n";

    /// What is read with these two files; none where one is empty.
    fn read(next: &str, attempt: &str) -> Vec<config::Pool> {
        let read_file = |path: &Path| match if path.ends_with("next") { next } else { attempt } {
            "" => Err(ErrorKind::NotFound.into()),
            text => Ok(text.to_owned()),
        };
        let around = Surroundings { read_file: &read_file, environment: &|_| None };
        config::parse(TEXT, Path::new("memstore.yml"), &around).expect("a configuration").pools
    }

    /// How many shards are used.
    fn used(rings: &Rings, next: &str, attempt: &str) -> usize {
        let mut pools = read(next, attempt);
        rings.settle(&mut pools);
        pools[0].shards.len()
    }

    fn end(rings: &Rings) {
        rings.0.borrow_mut().get_mut("p").expect("the pool").until = Some(Instant::now());
    }

    #[test]
    fn what_has_ended_comes_back_only_when_it_is_put_in_force_again() {
        let rings = Rings::default();
        assert_eq!(used(&rings, "", ""), 2);
        assert_eq!(used(&rings, ONE, ONE), 1);
        end(&rings);
        // Neither reading it again nor the end of that attempt brings it back, nor an attempt at something else.
        for attempt in [ONE, ONE, "", "", "# revision 2\n- 127.0.0.1:1:1 a\n", ""] {
            assert_eq!(used(&rings, ONE, attempt), 2, "{attempt:?}");
        }
        assert_eq!(used(&rings, ONE, ONE), 1);
        assert_eq!(used(&rings, ONE, ""), 1);
        assert!(!rings.is_due());
        end(&rings);
        assert_eq!(used(&rings, ONE, ""), 2);
    }

    /// What is listed at a URL may say itself how keys are dealt.
    #[test]
    fn who_starts_with_fewer_servers_pins_nothing_to_the_others() {
        let text = format!("{TEXT}    pin: {{\"rq:\": b, \"s:\": a}}\n");
        let around = Surroundings { read_file: &|_| Err(ErrorKind::NotFound.into()), environment: &|_| None };
        let mut pool = config::parse(&text, Path::new("memstore.yml"), &around)
            .expect("a configuration")
            .pools
            .remove(0);
        for is_told in [false, true] {
            pool.placement = is_told.then(|| pool.topology().expect("two servers").placement());
            let mut fewer = pool.clone();
            start_within(&mut fewer, &["a".to_owned()]);
            let topology = fewer.topology().expect("one server");
            assert_eq!((topology.shards().len(), topology.pins().iter().count()), (1, 1));
        }
    }

    #[test]
    fn who_starts_in_an_attempt_does_not_take_its_age_from_who_has_not_seen_it() {
        for (attempt, attempted, expected) in [("", false, 2), ("", true, 2), (ONE, false, 1), (ONE, true, 2)]
        {
            let (rings, mut pools) = (Rings::default(), read(ONE, attempt));
            rings.settle(&mut pools);
            let list = format!("{:016x}", rings.of("p").text);
            let told = serde_json::json!({ "servers_within": { "list": list, "expired": true, "attempted": attempted } });
            rings.learn_age(&mut pools[0], &[&told]);
            assert_eq!(pools[0].shards.len(), expected, "{attempt:?} {attempted}");
        }
    }
}
