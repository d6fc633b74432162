//! The proxies that are compared, how each is configured, and the one that runs now.
//! All get the same pool; a peer with a configuration language of its own gets its nearest words for it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::client::warm_up;
use crate::process::{Nursery, Process, find_program, free_port};
use crate::protocol::Protocol;
use crate::shard::Shard;

/// A proxy that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// Ours.
    Memstore,
    /// Twemproxy, the one all ratios refer to.
    Nutcracker,
    /// A shard of its own without a proxy: what the load generator and the machine allow.
    Direct,
    /// Predixy.
    Predixy,
    /// Envoy, by its filter for Redis.
    Envoy,
}

/// What a proxy is started with.
pub struct Setup<'a> {
    /// Where processes and their files go.
    pub nursery: &'a Nursery,
    /// What its clients and its shards speak.
    pub protocol: Protocol,
    /// The shards of the pool.
    pub shards: &'a [Shard],
    /// Threads, for the proxies that let one choose.
    pub workers: usize,
    /// The memstore binary.
    pub memstore: &'a Path,
}

/// A proxy that runs and has passed its warm-up.
pub struct Proxy {
    /// Where on loopback clients connect.
    pub port: u16,
    /// Its process.
    pub process: Process,
}

impl ProxyKind {
    /// Every kind, in the order they take turns in.
    pub const ALL: [ProxyKind; 5] =
        [ProxyKind::Nutcracker, ProxyKind::Memstore, ProxyKind::Direct, ProxyKind::Predixy, ProxyKind::Envoy];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            ProxyKind::Memstore => "memstore",
            ProxyKind::Nutcracker => crate::measurement::REFERENCE,
            ProxyKind::Direct => "direct",
            ProxyKind::Predixy => "predixy",
            ProxyKind::Envoy => "envoy",
        }
    }

    /// The proxies of a comma-separated list; `all` means those that are installed.
    pub fn select(list: &str) -> Result<Vec<ProxyKind>, String> {
        if list == "all" {
            let installed = |kind: &ProxyKind| !kind.is_optional() || find_program(kind.name()).is_some();
            return Ok(ProxyKind::ALL.into_iter().filter(installed).collect());
        }
        list.split(',').map(ProxyKind::named).collect()
    }

    fn named(name: &str) -> Result<ProxyKind, String> {
        ProxyKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known: Vec<_> = ProxyKind::ALL.iter().map(|kind| kind.name()).collect();
            format!("no proxy is called {name:?}; there are {} and all", known.join(", "))
        })
    }

    /// Whether it has pools of this protocol.
    pub fn speaks(self, protocol: Protocol) -> bool {
        !self.is_optional() || protocol == Protocol::Resp
    }

    /// Whether it is left out of `all` where it is not installed. These have no pools of memcached either.
    fn is_optional(self) -> bool {
        matches!(self, ProxyKind::Predixy | ProxyKind::Envoy)
    }

    /// Its binary, or how to get it.
    pub fn program(self, memstore: &Path) -> Result<PathBuf> {
        let (program, install) = match self {
            ProxyKind::Memstore if memstore.is_file() => return Ok(memstore.to_path_buf()),
            ProxyKind::Memstore => {
                bail!("{} is not there: cargo build --release -p memstore-proxy", memstore.display())
            }
            ProxyKind::Nutcracker => ("nutcracker", "apt-get install nutcracker"),
            ProxyKind::Direct => bail!("direct is a shard and has no binary of its own"),
            ProxyKind::Predixy => ("predixy", "build it from https://github.com/joyieldInc/predixy"),
            ProxyKind::Envoy => ("envoy", "https://www.envoyproxy.io/docs/envoy/latest/start/install"),
        };
        find_program(program).with_context(|| format!("{program} is not on PATH: {install}"))
    }

    /// Starts it and waits until keys can be set and read through it.
    pub fn start(self, setup: &Setup) -> Result<Proxy> {
        if self == ProxyKind::Direct {
            let Shard { port, process, .. } = Shard::start(setup.nursery, self.name(), setup.protocol)?;
            return Ok(Proxy { port, process });
        }
        let program = self.program(setup.memstore)?;
        let port = free_port()?;
        let ports: Vec<u16> = setup.shards.iter().map(|shard| shard.port).collect();
        let ending = if self == ProxyKind::Envoy { "json" } else { "conf" };
        let file = setup.nursery.scratch().join(format!("{}.{ending}", self.name()));
        let mut command = Command::new(program);
        let text = match self {
            ProxyKind::Memstore => {
                command.args(["serve", "-c"]).arg(&file).env("MEMSTORE_WORKERS", setup.workers.to_string());
                pool_text(port, setup.protocol, &ports)
            }
            ProxyKind::Nutcracker => {
                let statistics = free_port()?.to_string();
                command.arg("-c").arg(&file).args(["-a", "127.0.0.1", "-s", &statistics]);
                pool_text(port, setup.protocol, &ports)
            }
            ProxyKind::Predixy => {
                command.arg(&file);
                predixy_text(port, &ports, setup.workers)
            }
            ProxyKind::Envoy => {
                let workers = setup.workers.to_string();
                command.arg("-c").arg(&file).args(["--concurrency", &workers, "--log-level", "error"]);
                // Two of them on one machine would share memory by this number.
                command.arg("--disable-hot-restart");
                envoy_text(port, &ports)
            }
            ProxyKind::Direct => unreachable!("answered above"),
        };
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let process = setup.nursery.start(self.name(), &mut command)?;
        let alive = || match process.exited() {
            None => Ok(()),
            Some(status) => bail!("it ended with {status}"),
        };
        warm_up(port, setup.protocol, alive).with_context(|| match process.last_words() {
            words if words.is_empty() => "warm-up failed".to_owned(),
            words => format!("warm-up failed; its last words:\n{words}\n"),
        })?;
        Ok(Proxy { port, process })
    }
}

/// The pool as twemproxy writes it, and memstore reads it.
fn pool_text(port: u16, protocol: Protocol, shards: &[u16]) -> String {
    let redis = protocol == Protocol::Resp;
    let mut text = format!(
        "bench:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n  distribution: ketama\n  \
         auto_eject_hosts: false\n  timeout: 5000\n  backlog: 4096\n  preconnect: true\n  redis: {redis}\n  \
         servers:\n"
    );
    for (number, shard) in shards.iter().enumerate() {
        let _ = writeln!(text, "   - 127.0.0.1:{shard}:1 shard{number}");
    }
    text
}

/// Predixy knows no ketama; which shard a key is on is no part of what is measured.
fn predixy_text(port: u16, shards: &[u16], workers: usize) -> String {
    let mut text = format!(
        "Name bench\nBind 127.0.0.1:{port}\nWorkerThreads {workers}\n\
         Authority {{\n  Auth {{\n    Mode write\n  }}\n}}\n\
         StandaloneServerPool {{\n  Databases 1\n  Hash crc16\n  HashTag \"{{}}\"\n  Distribution modula\n  \
         RefreshMethod fixed\n  ServerTimeout 5\n"
    );
    for (number, shard) in shards.iter().enumerate() {
        let _ = writeln!(text, "  Group shard{number} {{\n    + 127.0.0.1:{shard}\n  }}");
    }
    text.push_str("}\n");
    text
}

/// A ring of its own making: which shard a key is on is no part of what is measured.
/// Source: <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/other_protocols/redis>.
fn envoy_text(port: u16, shards: &[u16]) -> String {
    let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let endpoints: Vec<_> =
        shards.iter().map(|shard| json!({"endpoint": {"address": address(*shard)}})).collect();
    let filter = json!({
        "name": "envoy.filters.network.redis_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
            "stat_prefix": "bench",
            "settings": {"op_timeout": "5s"},
            "prefix_routes": {"catch_all_route": {"cluster": "bench"}},
        },
    });
    json!({"static_resources": {
        "listeners": [{"name": "bench", "address": address(port), "filter_chains": [{"filters": [filter]}]}],
        "clusters": [{
            "name": "bench",
            "type": "STATIC",
            "lb_policy": "RING_HASH",
            "load_assignment": {"cluster_name": "bench", "endpoints": [{"lb_endpoints": endpoints}]},
        }],
    }})
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_proxies_keeps_its_order() {
        let chosen = ProxyKind::select("direct,memstore").unwrap();
        assert_eq!(chosen, [ProxyKind::Direct, ProxyKind::Memstore]);
        assert!(ProxyKind::select("squid").unwrap_err().contains("nutcracker"));
    }

    #[test]
    fn the_pool_names_every_shard() {
        let text = pool_text(1, Protocol::Resp, &[7001, 7002]);
        assert!(text.starts_with("bench:\n  listen: 127.0.0.1:1\n  hash: fnv1a_64\n"), "{text}");
        assert!(text.ends_with("  servers:\n   - 127.0.0.1:7001:1 shard0\n   - 127.0.0.1:7002:1 shard1\n"));
        assert!(text.contains("  redis: true\n"), "{text}");
        assert!(pool_text(1, Protocol::Memcache, &[7001]).contains("  redis: false\n"));
    }
}
