//! What a reload is to change.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;
use shard_discovery::{Shard, Topology};

use super::pool::PoolControl;
use crate::config::{self, Row};
use crate::status::Difference;

/// What is to change of one pool.
pub struct Change {
    /// The pool as it is.
    pub pool: Rc<PoolControl>,
    /// Its configuration when that was compared.
    pub before: Arc<config::Pool>,
    /// What it is to be.
    pub config: Arc<config::Pool>,
}

impl Change {
    /// Whether the pool has gone or has taken another configuration since then.
    pub fn is_overtaken(&self) -> bool {
        self.pool.removed.get() || !Arc::ptr_eq(&self.before, &self.pool.config())
    }

    /// What of the pool is other than it was.
    pub fn differences(&self) -> Vec<Difference> {
        let Self { before, config, .. } = self;
        let mut found = Vec::new();
        if before.auth != config.auth {
            found.push(Difference::of_secret(Some(&config.name), "password"));
        }
        let of_clients = |config: &config::Pool| {
            config.listeners.iter().map(|listener| listener.tls.clone()).collect::<Vec<_>>()
        };
        if of_clients(before) != of_clients(config) || before.servers_tls != config.servers_tls {
            found.push(Difference::of_secret(Some(&config.name), "certificates and settings of TLS"));
        }
        found.extend(shards(&config.name, &before.shards, &config.shards));
        found
    }
}

impl Difference {
    /// A pool that is served now, or no more.
    pub fn of_pool(name: String, is_new: bool) -> Self {
        let [before, after] = [!is_new, is_new].map(|is_there| is_there.then(|| name.clone()));
        Self { pool: Some(name), what: "pool".into(), before, after }
    }

    /// Something that is never shown.
    pub fn of_secret(pool: Option<&String>, what: &str) -> Self {
        Self { pool: pool.cloned(), what: what.into(), before: None, after: None }
    }
}

/// Settings that have another value. Of pools that have come or gone none are told, and of lists of servers nothing.
pub fn settings(before: &config::Shown, after: &config::Shown) -> Vec<Difference> {
    let mut found = Vec::new();
    differing(None, &before.process, &after.process, &mut found);
    for (name, rows) in &after.pools {
        if let Some((_, known)) = before.pools.iter().find(|(known, _)| known == name) {
            differing(Some(name), known, rows, &mut found);
        }
    }
    found
}

/// Longest value that is shown in a difference, in characters.
const VALUE_MAX: usize = 200;

fn differing(pool: Option<&String>, before: &[Row], after: &[Row], found: &mut Vec<Difference>) {
    let value = |row: Option<&Row>| {
        let text = match &row?.value {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some(text.chars().take(VALUE_MAX).collect::<String>())
    };
    let find = |rows: &[Row], name: &str| rows.iter().position(|row| row.name == name);
    let gone = before.iter().filter(|row| find(after, &row.name).is_none());
    for row in after.iter().chain(gone).filter(|row| row.name != "servers") {
        let [before, after] = [before, after].map(|rows| find(rows, &row.name).map(|place| &rows[place]));
        if before.map(|row| &row.value) != after.map(|row| &row.value) {
            let (before, after) = (value(before), value(after));
            found.push(Difference { pool: pool.cloned(), what: row.name.clone(), before, after });
        }
    }
}

/// Shards that have come, gone or changed.
fn shards(pool: &str, before: &[Shard], after: &[Shard]) -> Vec<Difference> {
    let mut known: HashMap<&str, &Shard> = before.iter().map(|shard| (shard.name.as_str(), shard)).collect();
    let difference = |before: Option<&Shard>, after: Option<&Shard>| Difference {
        pool: Some(pool.to_owned()),
        what: "shard".into(),
        before: before.map(shown),
        after: after.map(shown),
    };
    let mut found = Vec::new();
    for shard in after {
        let was = known.remove(shard.name.as_str());
        if was != Some(shard) {
            found.push(difference(was, Some(shard)));
        }
    }
    let gone = before.iter().filter(|shard| known.contains_key(shard.name.as_str()));
    found.extend(gone.map(|shard| difference(Some(shard), None)));
    found
}

fn shown(Shard { name, address, weight, .. }: &Shard) -> String {
    format!("{name} at {address}, weight {weight}")
}

/// A pool that is to be served, with who owns what as far as it is known.
pub type Opening = (Arc<config::Pool>, Arc<Topology>);

/// Something has changed since it was compared: what is there now counts.
#[derive(Debug, thiserror::Error)]
#[error("the files or a server list changed meanwhile")]
pub struct Superseded;
