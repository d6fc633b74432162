//! Who owns a key, and why: `/route` of a running proxy, and `memstore route` of a configuration.

use serde_json::{Value, json};
use shard_discovery::{Explanation, Group, Place, Topology};

use super::rings::Rings;
use crate::status::{PoolStatus, Status};

/// Why a request has no answer: its status, and words.
pub type Refusal = (hyper::StatusCode, String);

/// The answer to these names and values of a query.
pub fn document(status: &Status, rings: &Rings, query: &[(Vec<u8>, Vec<u8>)]) -> Result<String, Refusal> {
    let wrong = |words: String| (hyper::StatusCode::BAD_REQUEST, words);
    let value = |name: &[u8]| query.iter().rfind(|(known, _)| known == name).map(|(_, value)| &value[..]);
    let key = value(b"key").ok_or_else(|| wrong("key is missing: /route?pool=POOL&key=KEY".into()))?;
    let pools = status.pools();
    let pool = match (value(b"pool"), &pools[..]) {
        (None, [only]) => only,
        (None, _) => return Err(wrong(format!("pool is missing; there are {}", names(&pools)))),
        (Some(name), _) => {
            pools.iter().find(|pool| pool.config.name.as_bytes() == name).ok_or_else(|| {
                let words =
                    format!("unknown pool {:?}; there are {}", String::from_utf8_lossy(name), names(&pools));
                (hyper::StatusCode::NOT_FOUND, words)
            })?
        }
    };
    let ring = rings.of(pool);
    let why = ring.live.explain(key);
    let mut told = explained(&pool.config.name, &ring.live, key, &why);
    if let Some(shard) = why.shard {
        told["healthy"] = pool.is_healthy(shard).into();
    }
    // Who would own it if all were fit.
    let usual = pool.topology.explain(key).shard.filter(|usual| why.shard != Some(*usual));
    if let Some(usual) = usual {
        told["ejected"] = pool.topology.shards()[usual].name.as_str().into();
    }
    Ok(format!("{told}\n"))
}

fn names(pools: &[PoolStatus]) -> String {
    pools.iter().map(|pool| pool.config.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Where the key is, and why.
pub fn explained(pool: &str, topology: &Topology, key: &[u8], why: &Explanation<'_>) -> Value {
    let shard = why.shard.map(|shard| &topology.shards()[shard]);
    let mut told = json!({
        "pool": pool, "key": text(key), "hashed": text(why.hashed), "by_tag": why.by_tag,
        "hash": hash(topology, why), "shard": shard.map(|shard| &shard.name),
    });
    match &why.place {
        None => {}
        Some(Place::Point(point)) => told["point"] = (*point).into(),
        Some(Place::Slot(slot)) => told["slot"] = (*slot).into(),
    }
    if let Some(pin) = why.pin {
        told["pin"] = json!({ "prefix": pin.prefix, "to": pin.target.to_string() });
    }
    if let Some(shard) = shard {
        told["address"] = shard.address.to_string().into();
    }
    told
}

/// Twemproxy's crc16 has more bits than its name says; slots are taken from the 16 that Redis Cluster knows.
pub fn hash(topology: &Topology, why: &Explanation<'_>) -> u32 {
    if topology.group() == Group::Slot { why.hash & 0xffff } else { why.hash }
}

/// Bytes as text; those that are no UTF-8 are shown as U+FFFD.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
