//! `memstore route` and `memstore ring`: which shard owns a key, and what share of the keys each shard owns.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use clap::Args;
use serde_json::json;
use shard_discovery::{Group, Place, Topology};

use super::check::warnings;
use super::common::{File, Format, Output, keys_of_input, print, topologies};
use crate::{admin, config};

/// The keys, and where they are routed.
#[derive(Args)]
pub struct Route {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    output: Output,
    /// Keys; `-` reads them from standard input, one per line
    #[arg(required = true)]
    keys: Vec<OsString>,
}

/// The ring that is shown.
#[derive(Args)]
pub struct Ring {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    output: Output,
}

/// Shows it.
pub fn route(asked: &Route) -> anyhow::Result<()> {
    let config = config::load(&asked.file.config)?;
    let mut keys = Vec::new();
    for key in &asked.keys {
        if key == "-" {
            keys.extend(keys_of_input()?);
        } else {
            keys.push(key.as_bytes().to_vec());
        }
    }
    let mut text = String::new();
    for (name, topology) in topologies(&config, &asked.output)? {
        for key in &keys {
            text.push_str(&routed(name, &topology, key, asked.output.format));
        }
    }
    print(&text)
}

fn routed(pool: &str, topology: &Topology, key: &[u8], format: Format) -> String {
    let why = topology.explain(key);
    if format == Format::Json {
        return format!("{}\n", admin::explained(pool, topology, key, &why));
    }
    let hash = admin::hash(topology, &why);
    let shard = why.shard.map(|shard| &topology.shards()[shard]);
    let place = match &why.place {
        None => None,
        Some(Place::Point(point)) => Some(("point", *point)),
        Some(Place::Slot(slot)) => Some(("slot", *slot)),
    };
    let nobody = if topology.group() == Group::Slot { "the owner of the slot" } else { "any shard" };
    let owner = shard.map_or(nobody.to_owned(), |shard| format!("{} ({})", shard.name, shard.address));
    let part = if why.by_tag { format!("tag {}", why.hashed.escape_ascii()) } else { "whole key".to_owned() };
    let place = place.map_or(String::new(), |(kind, at)| format!(", {kind} {at}"));
    if let Some(pin) = why.pin {
        // As a text in quotes: it may contain anything.
        let pinned = format!("{:?} is pinned to {}", pin.prefix, pin.target);
        return format!("{pool}: {} -> {owner}: {pinned}{place}\n", key.escape_ascii());
    }
    format!("{pool}: {} -> {owner}: {part}, {} {}{place}\n", key.escape_ascii(), topology.key_hash(), hash)
}

/// Shows it.
pub fn ring(asked: &Ring) -> anyhow::Result<()> {
    let config = config::load(&asked.file.config)?;
    let wanted = |pool: &&config::Pool| asked.output.pool.as_ref().is_none_or(|name| *name == pool.name);
    for warning in config.pools.iter().filter(wanted).flat_map(warnings) {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    let mut text = String::new();
    for (name, topology) in topologies(&config, &asked.output)? {
        if topology.group() == Group::Slot {
            // Nothing is in the file; the nodes say it.
            text.push_str(&match asked.output.format {
                Format::Json => format!("{}\n", json!({"pool": name, "cluster": true})),
                Format::Text => format!(
                    "{name}: a Redis Cluster, whose nodes assign its slots; a running proxy shows them: curl 127.0.0.1:9121/topology\n"
                ),
            });
            continue;
        }
        for pin in topology.pins().iter() {
            let owner = topology.shard_for(pin.prefix.as_bytes()).map(|at| &topology.shards()[at].name);
            text.push_str(&match asked.output.format {
                Format::Json => {
                    let told = json!({
                        "pool": name, "pin": pin.prefix, "to": pin.target.to_string(), "shard": owner,
                    });
                    format!("{told}\n")
                }
                Format::Text => {
                    let owner = owner.map_or("no shard", String::as_str);
                    format!(
                        "{name}: keys that begin with {:?} -> {owner}: pinned to {}\n",
                        pin.prefix, pin.target
                    )
                }
            });
        }
        let width = topology.shards().iter().map(|shard| shard.name.len()).max().unwrap_or(0);
        for share in topology.shares() {
            let shard = &topology.shards()[share.shard];
            text.push_str(&match asked.output.format {
                Format::Json => format!(
                    "{}\n",
                    json!({
                        "pool": name, "shard": shard.name, "address": shard.address.to_string(),
                        "weight": shard.weight, "points": share.points, "share": share.share,
                    })
                ),
                Format::Text => format!(
                    "{name}: {:width$}  {:6.2} %  {:5} points  weight {}  {}\n",
                    shard.name,
                    share.share * 100.0,
                    share.points,
                    shard.weight,
                    shard.address
                ),
            });
        }
    }
    print(&text)
}
