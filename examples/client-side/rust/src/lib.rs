//! What both applications do alike: follow where the list of shards comes from, and find the shard of a key.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use shard_discovery::document::DocumentFile;
use shard_discovery::source::file::File;
use shard_discovery::source::http::Http;
use shard_discovery::source::template::{self, Template};
use shard_discovery::source::{Follower, Source};
use shard_discovery::{Address, DistributionKind, KeyHash, Placement, Topology};

/// The shards and who owns what, by the source that says so.
pub enum Shards {
    /// A topology document, which says how keys are dealt as well.
    Document(DocumentFile),
    /// A list.
    Listed(Box<Listed>),
}

/// A list that is followed, and who owns what by the last one that could be used.
pub struct Listed {
    follower: Follower,
    topology: Topology,
    /// The last list could not be used.
    is_behind: bool,
}

impl Shards {
    /// Follows a list from now on.
    pub fn of(source: Source) -> anyhow::Result<Self> {
        let follower = Follower::new(source)?;
        let topology = dealt(&follower)?;
        Ok(Self::Listed(Listed { follower, topology, is_behind: false }.into()))
    }

    /// Who owns what.
    pub fn topology(&self) -> &Topology {
        match self {
            Self::Document(file) => file.topology(),
            Self::Listed(listed) => &listed.topology,
        }
    }

    /// Looks whether others own what by now. After an error those before still do.
    pub fn refresh(&mut self) -> anyhow::Result<bool> {
        match self {
            Self::Document(file) => Ok(file.refresh()?),
            Self::Listed(listed) => {
                // What could not be used is an error until another list comes.
                listed.is_behind |= listed.follower.refresh()?;
                let has_changed = listed.is_behind;
                if has_changed {
                    listed.topology = dealt(&listed.follower)?;
                    listed.is_behind = false;
                }
                Ok(has_changed)
            }
        }
    }
}

/// Keys are dealt as the list says, or as the proxy does it where nothing is set.
fn dealt(follower: &Follower) -> anyhow::Result<Topology> {
    let default = || Placement::new(DistributionKind::Ketama, KeyHash::Fnv1a64, None);
    let placement = follower.listing().placement.clone().unwrap_or_else(default);
    Ok(follower.listing().topology(&placement)?)
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
    fn keys_are_dealt_as_the_document_at_a_url_says() {
        use std::io::{Read as _, Write as _};

        let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", server.local_addr().expect("bound"));
        let lists = std::thread::spawn(move || {
            for (kind, shards) in [
                ("modula", r#"{"name":"a","address":"h:1"}"#),
                ("single", r#"{"name":"a","address":"h:1"},{"name":"b","address":"h:2"}"#),
                ("random", r#"{"name":"a","address":"h:1"},{"name":"b","address":"h:2"}"#),
            ] {
                let (mut stream, _) = server.accept().expect("a question");
                let _ = stream.read(&mut [0; 1024]).expect("a request");
                let body = format!(
                    r#"{{"version":1,"pools":{{"cache":{{"protocol":"redis","hash":"md5","distribution":"{kind}","shards":[{shards}]}}}}}}"#
                );
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                    .expect("it reads");
            }
        });
        let http = Http::parse(&url, "cache", Duration::from_secs(5)).expect("a URL");
        let mut shards = Shards::of(Source::Http(http)).expect("a list");
        let kind = |shards: &Shards| (shards.topology().kind(), shards.topology().key_hash());
        assert_eq!(kind(&shards), (DistributionKind::Modula, KeyHash::Md5));
        assert!(shards.refresh().is_err());
        assert_eq!(kind(&shards), (DistributionKind::Modula, KeyHash::Md5));
        assert!(shards.refresh().expect("another list"));
        assert_eq!(kind(&shards), (DistributionKind::Random, KeyHash::Md5));
        lists.join().expect("all were asked for");
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
