//! The shards of a pool from a topology document in a file, read again when it changes.

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context as _;
use shard_discovery::document::Document;
use shard_discovery::{Address, Topology};

/// The shards of one pool, as the file says.
pub struct Shards {
    file: PathBuf,
    pool: String,
    modified: Option<SystemTime>,
    topology: Topology,
}

impl Shards {
    /// Reads the file.
    pub fn read(file: PathBuf, pool: String) -> anyhow::Result<Self> {
        let modified = modified(&file);
        let topology = parse(&file, &pool)?;
        Ok(Self { file, pool, modified, topology })
    }

    /// Reads the file again if it has changed. A file that cannot be used changes nothing and is an error.
    pub fn refresh(&mut self) -> anyhow::Result<()> {
        let now = modified(&self.file);
        if now != self.modified {
            self.topology = parse(&self.file, &self.pool)?;
            self.modified = now;
        }
        Ok(())
    }

    /// Name and `host:port` of the shard that owns the key.
    pub fn owner(&self, key: &[u8]) -> anyhow::Result<(&str, String)> {
        let shard = self.topology.shard_for(key).context("every shard is ejected")?;
        let shard = &self.topology.shards()[shard];
        match &shard.address {
            Address::Tcp { .. } => Ok((&shard.name, shard.address.to_string())),
            Address::Unix(path) => anyhow::bail!("this example speaks TCP, not {}", path.display()),
        }
    }
}

fn parse(file: &PathBuf, pool: &str) -> anyhow::Result<Topology> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let document = Document::parse(&text).with_context(|| file.display().to_string())?;
    Ok(document.topology(pool)?)
}

fn modified(file: &PathBuf) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|found| found.modified()).ok()
}

/// File, pool and keys from the command line.
pub fn arguments() -> anyhow::Result<(PathBuf, String, Vec<String>)> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next(), arguments.collect::<Vec<_>>()) {
        (Some(file), Some(pool), keys) if !keys.is_empty() => Ok((file.into(), pool, keys)),
        _ => anyhow::bail!("usage: topology.json POOL KEY..."),
    }
}
