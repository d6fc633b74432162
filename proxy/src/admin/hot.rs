//! `/hot`: which keys are used most, and the largest requests and replies, of each pool. [`crate::hot`] finds them.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use shard_discovery::Topology;

use super::rings::{Ring, Rings};
use crate::hot::{Found, Key, Large};
use crate::privacy::{self, Privacy};
use crate::status::{PoolStatus, Status};

/// Keys that are told of, and large requests and replies, where it is not said how many, and at most.
const USUAL: usize = 20;
const MOST: usize = 256;

/// What is asked for.
pub struct Asked<'q> {
    pool: Option<&'q str>,
    count: usize,
}

impl<'q> Asked<'q> {
    /// By the query; an error says what is wrong with it.
    pub fn of(query: &'q HashMap<String, String>) -> Result<Self, String> {
        if let Some(other) = query.keys().find(|name| !["pool", "count"].contains(&name.as_str())) {
            return Err(format!("unknown parameter {other:?}; there are pool and count"));
        }
        let count =
            query.get("count").map(|count| count.parse().ok().filter(|count| (1..=MOST).contains(count)));
        match count {
            Some(None) => Err(format!("count has to be a number from 1 to {MOST}")),
            count => Ok(Self {
                pool: query.get("pool").map(String::as_str),
                count: count.flatten().unwrap_or(USUAL),
            }),
        }
    }
}

/// The document; an error says that there is no such pool.
pub fn document(status: &Status, rings: &Rings, asked: &Asked<'_>) -> Result<Value, String> {
    let mut pools = Map::new();
    for pool in status.pools() {
        if asked.pool.is_none_or(|name| name == pool.config.name) {
            pools.insert(pool.config.name.clone(), of_pool(&pool, &rings.of(&pool), asked.count));
        }
    }
    match asked.pool {
        Some(name) if pools.is_empty() => Err(format!("unknown pool {name:?}")),
        _ => Ok(json!({ "pools": pools })),
    }
}

fn of_pool(pool: &PoolStatus, ring: &Ring, count: usize) -> Value {
    let report = pool.hot.report(count);
    let names = Names { topology: &ring.live, privacy: pool.config.privacy };
    let (all, seconds) = (report.accesses.max(1) as f64, report.time.as_secs_f64());
    let rate = f64::from(report.sample) / seconds.max(1.0);
    let of_key = |found: &Found| {
        let mut told = names.of(found.hash, &found.key);
        told["share"] = json!(found.least as f64 / all);
        told["share_max"] = json!(found.most as f64 / all);
        told["accesses_per_second"] = json!(found.least as f64 * rate);
        told["reads"] = json!(found.reads as f64 / found.least.max(1) as f64);
        told
    };
    let of_large = |large: &Large| {
        let mut told = match &large.key {
            Some((hash, key)) => names.of(*hash, key),
            None => json!({ "key": null }),
        };
        told["command"] = json!(printable(&large.command).to_lowercase());
        told["keys"] = json!(large.keys);
        told["bytes"] = json!(large.bytes);
        told["seconds_ago"] = json!(large.ago.as_secs());
        told
    };
    json!({
        "sample": report.sample,
        "seconds": seconds,
        "sampled_requests": report.requests,
        "sampled_accesses": report.accesses,
        // One that is no more than a counter that others have had is none.
        "keys": report.keys.iter().filter(|found| found.least > 0).map(of_key).collect::<Vec<_>>(),
        "large_requests": report.large_requests.iter().map(of_large).collect::<Vec<_>>(),
        "large_replies": report.large_replies.iter().map(of_large).collect::<Vec<_>>(),
    })
}

/// What is told of keys.
struct Names<'p> {
    topology: &'p Topology,
    privacy: Privacy,
}

impl Names<'_> {
    fn of(&self, hash: u64, key: &Key) -> Value {
        let shown = match self.privacy {
            Privacy::Shown => printable(&key.shown),
            Privacy::HashedKeys => privacy::shown(hash),
        };
        // Where only its beginning is kept nobody can tell.
        let owner = key.is_whole().then(|| self.topology.shard_for(&key.shown)).flatten();
        let shard = owner.map(|owner| self.topology.shards()[owner].name.as_str());
        json!({ "key": shown, "key_bytes": key.length, "shard": shard })
    }
}

/// Bytes as they can be shown anywhere: what is no printable text stands as `\xff`, a backslash twice.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                character if character.is_control() || is_unseen(character) => {
                    let mut bytes = [0; 4];
                    character.encode_utf8(&mut bytes).bytes().for_each(|byte| hexadecimal(byte, &mut text));
                }
                character => text.push(character),
            }
        }
        chunk.invalid().iter().for_each(|&byte| hexadecimal(byte, &mut text));
    }
    text
}

fn hexadecimal(byte: u8, text: &mut String) {
    let _ = write!(text, "\\x{byte:02x}");
}

/// What changes the direction of text, or is not seen: a name must not look like another one.
fn is_unseen(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_so_that_nothing_else_is_meant() {
        assert_eq!(printable(b"user:1 {x}\"'"), "user:1 {x}\"'");
        assert_eq!(printable("m\u{fc}nchen".as_bytes()), "m\u{fc}nchen");
        assert_eq!(printable(b"a\\x00\x00\r\n\x1b[2J\xff"), "a\\\\x00\\x00\\x0d\\x0a\\x1b[2J\\xff");
        assert_eq!(printable("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
    }

    #[test]
    fn a_query_is_judged() {
        let asked = |pairs: &[(&str, &str)]| {
            let query = pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            Asked::of(&query).map(|asked| (asked.pool.map(str::to_owned), asked.count))
        };
        assert_eq!(asked(&[]), Ok((None, USUAL)));
        assert_eq!(asked(&[("pool", "a b"), ("count", "3")]), Ok((Some("a b".into()), 3)));
        for wrong in [("count", "0"), ("count", "257"), ("count", "-1"), ("count", ""), ("pools", "x")] {
            assert!(asked(&[wrong]).is_err(), "{wrong:?}");
        }
    }
}
