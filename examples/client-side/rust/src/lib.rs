//! What both applications do alike: the shard of a key from a topology document in a file.

use std::path::PathBuf;

use anyhow::Context as _;
use shard_discovery::document::DocumentFile;
use shard_discovery::{Address, Topology};

/// Name and `host:port` of the shard that owns the key.
pub fn owner<'t>(topology: &'t Topology, key: &[u8]) -> anyhow::Result<(&'t str, String)> {
    let shard = topology.shard_for(key).context("every shard is ejected")?;
    let shard = &topology.shards()[shard];
    match &shard.address {
        Address::Tcp { .. } => Ok((&shard.name, shard.address.to_string())),
        Address::Unix(path) => anyhow::bail!("this example speaks TCP, not {}", path.display()),
    }
}

/// The document and keys from the command line.
pub fn arguments() -> anyhow::Result<(DocumentFile, Vec<String>)> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next(), arguments.collect::<Vec<_>>()) {
        (Some(file), Some(pool), keys) if !keys.is_empty() => {
            Ok((DocumentFile::read(PathBuf::from(file), pool)?, keys))
        }
        _ => anyhow::bail!("usage: topology.json POOL KEY..."),
    }
}
