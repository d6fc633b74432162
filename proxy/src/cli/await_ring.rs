//! `memstore await-ring`: have all proxies left the shards that are to go? What a chart's hooks ask, in images without a shell.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use shard_discovery::resolver::{Resolver, ResolverOptions};
use shard_discovery::source::file::File;

use super::common::print;
use crate::admin;
use crate::config::{self, value};

/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A proxy that has not answered for so long does not run.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// However short the limit is, one attempt may take so long.
const ONCE_MIN: Duration = Duration::from_secs(1);
/// Pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Arguments of `memstore await-ring`.
#[derive(Args)]
pub struct AwaitRing {
    /// Host name that resolves to the admin addresses of all proxies, and their port
    #[arg(long, value_name = "HOST:PORT")]
    proxies: String,
    /// Name of the pool
    #[arg(long)]
    pool: String,
    /// File with the new list of shards, in the format of servers_file
    #[arg(long, value_name = "FILE")]
    servers: PathBuf,
    /// Timeout
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = value::duration)]
    limit: Duration,
}

/// Waits until no proxy has a shard that is not in the list; an error says which one still has.
pub fn await_ring(asked: &AwaitRing) -> anyhow::Result<()> {
    let meant: Vec<String> =
        File { path: asked.servers.clone() }.read()?.into_iter().map(|shard| shard.name).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begin = Instant::now();
    let until = begin + asked.limit.max(ONCE_MIN);
    let names = Resolver::new(&ResolverOptions::default())?;
    loop {
        let held_up = match runtime.block_on(proxies(&asked.proxies, &names)) {
            Ok(None) => return print(&format!("{} has no address: no proxy runs\n", asked.proxies)),
            Ok(Some(found)) => {
                let is_late = begin.elapsed() > SILENT_MAX;
                let behind =
                    found.iter().find_map(|proxy| match leftover(proxy, &asked.pool, &meant, until) {
                        Ok(left) => left.map(|shard| format!("{proxy} still sends requests to {shard}")),
                        // It serves nobody: one that does not start must not keep what mends it from being installed.
                        Err(error) if is_late || is_refused(&error) => None,
                        Err(error) => Some(format!("{proxy}: {error:#}")),
                    });
                match behind {
                    None => {
                        return print(&format!(
                            "none of {} proxies sends requests to other shards\n",
                            found.len()
                        ));
                    }
                    Some(reason) => reason,
                }
            }
            Err(error) => format!("{error:#}"),
        };
        ensure!(begin.elapsed() < asked.limit, "the ring is not in use yet: {held_up}");
        std::thread::sleep(PAUSE);
    }
}

/// Admin addresses of all proxies; none if there are none.
async fn proxies(name: &str, names: &Resolver) -> anyhow::Result<Option<Vec<SocketAddr>>> {
    let Some(shard_discovery::Address::Tcp { host, port }) = config::address(name) else {
        bail!("--proxies {name}: allowed is host:port");
    };
    match names.refresh(&host).await {
        Ok(found) => Ok(Some(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_refused(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// A shard of a proxy's pool that is not among those that are meant.
fn leftover(
    proxy: &SocketAddr,
    pool: &str,
    meant: &[String],
    until: Instant,
) -> anyhow::Result<Option<String>> {
    let limit = until.saturating_duration_since(Instant::now()).min(ANSWER_LIMIT);
    let (status, body) = admin::ask(&proxy.to_string(), "GET", "/topology", None, limit)?;
    ensure!(status == 200, "/topology answers {status}");
    let document: shard_discovery::document::Document = serde_json::from_str(&body)?;
    let pool = document.pools.get(pool).with_context(|| format!("it has no pool {pool:?}"))?;
    let names: Vec<String> = pool.shards.iter().map(|shard| shard.name.clone()).collect();
    // Other names are another ring, which proxies take over as a whole, later.
    let is_part = meant.iter().all(|name| names.contains(name));
    Ok(names.into_iter().find(|name| is_part && !meant.contains(name)))
}
