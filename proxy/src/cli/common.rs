//! What the commands share: the configuration they read, how they print, keys from standard input.

use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use shard_discovery::Topology;
use shard_discovery::source::Poll;

use crate::config::{self, Config, ShardTls};

/// The configuration that a command reads.
#[derive(Args)]
pub struct File {
    /// Configuration file: a nutcracker.yml, or one with `pools:`
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "MEMSTORE_CONFIG")]
    pub config: PathBuf,
}

/// How a command speaks to servers, in the words of `servers_tls`.
#[derive(Args)]
pub struct Tls {
    /// Use TLS
    #[arg(long)]
    tls: bool,
    /// File with the certificate authorities in PEM that sign the servers' certificates; default: those of the system
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_ca: Option<String>,
    /// File with the certificate in PEM that is presented to the servers
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_certificate: Option<String>,
    /// File with the private key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_key: Option<String>,
    /// Name that the servers' certificates have to be valid for; default: their host
    #[arg(long, value_name = "NAME", requires = "tls")]
    tls_server_name: Option<String>,
    /// How the servers' certificates are verified; default: full
    #[arg(long, value_name = "HOW", requires = "tls", value_parser = ["full", "ca", "none"])]
    tls_verify: Option<String>,
}

impl Tls {
    /// What was said, if it was.
    pub fn read(&self, redis: bool) -> anyhow::Result<Option<ShardTls>> {
        if !self.tls {
            return Ok(None);
        }
        let said = [
            ("ca", &self.tls_ca),
            ("certificate", &self.tls_certificate),
            ("key", &self.tls_key),
            ("server_name", &self.tls_server_name),
            ("verify", &self.tls_verify),
        ];
        let said = said.map(|(name, value)| value.clone().map(|value| (name, value)));
        let said: Vec<_> = said.into_iter().flatten().collect();
        config::servers_tls(&said, redis).map(Some).map_err(|why| anyhow!("{why}"))
    }
}

/// What a command shows of it, and how.
#[derive(Args)]
pub struct Output {
    /// Only this pool
    #[arg(long)]
    pub pool: Option<String>,
    /// Output format: text, or one JSON object per line
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// For whom a command prints.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// Keys from standard input, one a line.
pub fn keys_of_input() -> std::io::Result<Vec<Vec<u8>>> {
    let without_return = |line: std::io::Result<Vec<u8>>| {
        line.map(|mut line| {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            line
        })
    };
    std::io::stdin().lock().split(b'\n').map(without_return).collect()
}

/// The pools that are asked for.
pub fn topologies<'c>(config: &'c Config, output: &Output) -> anyhow::Result<Vec<(&'c str, Topology)>> {
    let wanted = |pool: &&config::Pool| output.pool.as_ref().is_none_or(|name| *name == pool.name);
    let found: Vec<_> = config.pools.iter().filter(wanted).collect();
    if found.is_empty() {
        let names: Vec<_> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
        let wanted = output.pool.as_deref().unwrap_or_default();
        anyhow::bail!("unknown pool {wanted:?}; the file has {}", names.join(", "));
    }
    let topology = |pool: &'c config::Pool| {
        if let Some(polled) = pool.source.polled() {
            anyhow::bail!(
                "pool {}: its shards are listed at {}; a running proxy shows them: curl 127.0.0.1:9121/topology",
                pool.name,
                places(polled)
            );
        }
        Ok((pool.name.as_str(), pool.topology()?))
    };
    found.into_iter().map(topology).collect()
}

/// Where a list of shards is asked for.
pub fn places(polled: &dyn Poll) -> String {
    polled.places().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// To standard output; a reader that has seen enough is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
