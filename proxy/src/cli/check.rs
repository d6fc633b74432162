//! `memstore check`: what is wrong with a configuration, and what is most likely not meant.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::common::{File, Format, places, print};
use super::connect::{self, problem};
use super::plain::clean_lines;
use super::terminal::colours;
use crate::config::{self, Mistake};
use crate::control::look::look;
use crate::worker;

/// What is to be checked.
#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    file: File,
    /// Connect to each shard as well: is it there, does it take the password, what version is it, has it the databases
    #[arg(long)]
    connect: bool,
    /// Output format: text, or one JSON object
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Reports every mistake, or what there is and the warnings.
pub fn check(asked: &Check) -> anyhow::Result<ExitCode> {
    let mut config = match config::load(&asked.file.config) {
        Ok(config) => config,
        Err(error) if asked.format == Format::Json => {
            let told = |Mistake { place, text }: &Mistake| json!({"line": place.line, "column": place.column, "error": text});
            let report: Vec<_> = error.list.iter().map(told).collect();
            let file = asked.file.config.display().to_string();
            print(&format!("{}\n", json!({"ok": false, "file": file, "errors": report})))?;
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };
    let looks = if asked.connect { look(&mut config.pools)? } else { Vec::new() };
    let is_ok = looks.iter().flatten().all(|look| problem(look).is_none());
    let code = if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if asked.format == Format::Json {
        let pools: Vec<_> = config
            .pools
            .iter()
            .enumerate()
            .map(|(place, pool)| {
                let mut told = json!({
                    "pool": pool.name, "protocol": worker::about(pool.protocol).name, "listen": pool.listens(),
                    "shards": pool.shards.len(), "warnings": warnings(pool),
                });
                if let Some(looks) = looks.get(place) {
                    told["connected"] = looks.iter().map(|look| connect::json(look, pool)).collect();
                }
                told
            })
            .collect();
        let file = asked.file.config.display().to_string();
        let told = json!({"ok": is_ok, "file": file, "errors": [], "pools": pools});
        print(&clean_lines(&format!("{told}\n")))?;
        return Ok(code);
    }
    let mut text = String::new();
    for (place, pool) in config.pools.iter().enumerate() {
        let shards = match (pool.cluster(), pool.source.polled()) {
            (Some(cluster), _) => format!("a cluster with {} seeds", cluster.seeds.len()),
            (None, Some(polled)) => {
                format!("shards listed at {}, {} over {}", places(polled), pool.distribution, pool.key_hash)
            }
            (None, None) => {
                format!("{} shards, {} over {}", pool.shards.len(), pool.distribution, pool.key_hash)
            }
        };
        text.push_str(&format!(
            "pool {}: {} on {}, {shards}\n",
            pool.name,
            worker::about(pool.protocol).name,
            pool.listens()
        ));
        for warning in warnings(pool) {
            text.push_str(&format!("  warning: {warning}\n"));
        }
        for look in looks.get(place).into_iter().flatten() {
            text.push_str(&connect::text(look, pool, colours()));
        }
    }
    print(&text)?;
    Ok(code)
}

/// What is allowed and most likely not meant.
pub fn warnings(pool: &config::Pool) -> Vec<String> {
    let Ok(topology) = pool.topology() else { return Vec::new() };
    let mut found = Vec::new();
    let mut beyond = Vec::new();
    for share in topology.shares().iter().filter(|share| share.share == 0.0) {
        let shard = &topology.shards()[share.shard];
        if share.points > 0 {
            beyond.push(shard.name.as_str());
            continue;
        }
        found.push(format!(
            "pool {}: shard {} has weight {} beside much heavier ones and gets no keys",
            pool.name, shard.name, shard.weight
        ));
    }
    if !beyond.is_empty() {
        let (hash, distribution) = (pool.key_hash, pool.distribution);
        found.push(format!(
            "pool {}: hash {hash} has only 15 bits, {distribution} spreads shards over 32, so {} get no keys; crc32a has \
             all 32",
            pool.name,
            beyond.join(", ")
        ));
    }
    found
}
