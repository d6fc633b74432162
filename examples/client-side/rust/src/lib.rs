//! What both applications do alike: follow where the list of shards comes from, and find the shard of a key.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use shard_discovery::document::DocumentFile;
use shard_discovery::source::file::File;
use shard_discovery::source::http::Http;
use shard_discovery::source::template::{self, Template};
use shard_discovery::source::{Follower, Source};
use shard_discovery::{Address, DistributionKind, KeyHash, Topology};

/// The shards and who owns what, by the source that says so.
pub enum Shards {
    /// A topology document, which says how keys are dealt as well.
    Document(DocumentFile),
    /// A list, whose keys are dealt as the proxy does it where nothing else is set.
    Listed(Box<Follower>, Box<Topology>),
}

impl Shards {
    /// Follows a list from now on.
    pub fn of(source: Source) -> anyhow::Result<Self> {
        let follower = Follower::new(source)?;
        let topology = dealt(&follower)?;
        Ok(Self::Listed(follower.into(), topology.into()))
    }

    /// Who owns what.
    pub fn topology(&self) -> &Topology {
        match self {
            Self::Document(file) => file.topology(),
            Self::Listed(_, topology) => topology,
        }
    }

    /// Looks whether others own what by now. After an error those before still do.
    pub fn refresh(&mut self) -> anyhow::Result<bool> {
        match self {
            Self::Document(file) => Ok(file.refresh()?),
            Self::Listed(follower, topology) => {
                let has_changed = follower.refresh()?;
                if has_changed {
                    **topology = dealt(follower)?;
                }
                Ok(has_changed)
            }
        }
    }
}

fn dealt(follower: &Follower) -> anyhow::Result<Topology> {
    Ok(follower.listing().topology(DistributionKind::Ketama, KeyHash::Fnv1a64, None)?)
}

/// Name and `host:port` of the shard that owns the key.
pub fn owner<'t>(topology: &'t Topology, key: &[u8]) -> anyhow::Result<(&'t str, String)> {
    let shard = topology.shard_for(key).context("every shard is ejected")?;
    let shard = &topology.shards()[shard];
    match &shard.address {
        Address::Tcp { .. } => Ok((&shard.name, shard.address.to_string())),
        Address::Unix(path) => anyhow::bail!("this example speaks TCP, not {}", path.display()),
    }
}

/// The source of the shards, and keys, from the command line.
pub fn arguments() -> anyhow::Result<(Shards, Vec<String>)> {
    const USAGE: &str = "usage: topology.json POOL KEY... | --servers FILE KEY... | --template HOST:PORT COUNT KEY... | \
                         --url http://HOST:PORT/PATH POOL KEY...";
    let mut arguments = std::env::args().skip(1);
    let (first, second) = (arguments.next().context(USAGE)?, arguments.next().context(USAGE)?);
    let shards = match first.as_str() {
        "--servers" => Shards::of(Source::File(File { path: second.into() }))?,
        "--template" => {
            let (host, port) = template::host(&second, false).map_err(anyhow::Error::msg)?;
            let count = arguments.next().context(USAGE)?.parse().context(USAGE)?;
            Shards::of(Source::Template(Template { host, port, count, names: "shard-{}".into() }))?
        }
        "--url" => {
            let pool = arguments.next().context(USAGE)?;
            let http = Http::parse(&second, &pool, Duration::from_secs(5)).map_err(anyhow::Error::msg)?;
            Shards::of(Source::Http(http))?
        }
        _ => Shards::Document(DocumentFile::read(PathBuf::from(first), second)?),
    };
    let keys: Vec<String> = arguments.collect();
    anyhow::ensure!(!keys.is_empty(), USAGE);
    Ok((shards, keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_follows_a_list_without_a_proxy() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("servers.yml");
        let put = |text: &str| {
            let beside = folder.path().join("beside");
            std::fs::write(&beside, text).expect("a file");
            std::fs::rename(&beside, &path).expect("in its place");
        };
        put("- 10.0.0.1:6379:1 a\n");
        let mut shards = Shards::of(Source::File(File { path: path.clone() })).expect("a list");
        let owners = |shards: &Shards| {
            let mut names: Vec<String> = (0..100)
                .map(|key| {
                    owner(shards.topology(), format!("key:{key}").as_bytes()).expect("an owner").0.into()
                })
                .collect();
            names.sort();
            names.dedup();
            names
        };
        assert_eq!(owners(&shards), ["a"]);
        put("- 10.0.0.1:6379:1 a\n- 10.0.0.2:6379:1 b\n");
        assert!(shards.refresh().expect("another list"));
        assert_eq!(owners(&shards), ["a", "b"]);
        put("- 10.0.0.1:6379:1 a\n- 10.0.0.2:6379:1 a\n");
        assert!(shards.refresh().is_err());
        assert_eq!(owners(&shards), ["a", "b"]);
    }

    #[test]
    fn a_template_is_a_source_as_well() {
        let (host, port) = template::host("cache-{}.cache:6379", false).expect("a template");
        let template = Template { host, port, count: 3, names: "shard-{}".into() };
        let mut shards = Shards::of(Source::Template(template)).expect("a list");
        assert_eq!(shards.topology().shards().len(), 3);
        assert_eq!(shards.topology().shards()[2].address.to_string(), "cache-2.cache:6379");
        assert!(!shards.refresh().expect("nothing to read"));
    }
}
