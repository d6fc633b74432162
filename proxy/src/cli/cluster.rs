//! `memstore cluster`: what is said to the reconciler of Redis Clusters.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Subcommand};

use super::common::Tls;
use crate::config::{self, Auth, value};
use crate::reconcile::step::Goal;
use crate::reconcile::{self, Reconcile, Way};
use crate::secret::Secret;

/// `memstore cluster ...`
#[derive(Subcommand)]
pub enum ClusterCommand {
    /// Create a cluster and continuously reconcile it with the desired state: 16384 slots spread over the primaries,
    /// each with its replicas. Keeps no state of its own; can be stopped and restarted at any time
    Reconcile(Arguments),
}

/// Arguments of `memstore cluster reconcile`.
#[derive(Args)]
pub struct Arguments {
    /// host:port of a node; {} is replaced by the ordinals, starting at 0. Can be repeated
    #[arg(long, value_name = "HOST:PORT", required = true)]
    nodes: Vec<String>,
    /// Number of primaries
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
    primaries: u16,
    /// Number of replicas of each primary
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    replicas: u16,
    /// Number of nodes for {}; default: primaries and replicas together, with --drain-from all nodes whose names exist
    #[arg(long, value_name = "COUNT")]
    count: Option<u16>,
    /// Move all slots away from the nodes from this ordinal on and remove them; without --count nothing is done if there are none
    #[arg(long, value_name = "ORDINAL")]
    drain_from: Option<u16>,
    /// Exit once the cluster has the desired state; exit 1 if it does not within the limit
    #[arg(long)]
    once: bool,
    /// Timeout of --once
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = value::duration)]
    limit: Duration,
    /// Without --once: interval between checks of a healthy cluster
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = value::duration)]
    interval: Duration,
    /// Exit after N steps, even if more remain
    #[arg(long, value_name = "COUNT", hide = true)]
    steps: Option<u64>,
    /// Only report what is wrong and what would be done next
    #[arg(long)]
    dry_run: bool,
    /// Do not move slots: only create and repair; resizing is left to another run
    #[arg(long)]
    keep_slots: bool,
    /// Print one JSON object for each check
    #[arg(long)]
    json: bool,
    /// Assign slots without an owner although their keys are lost
    #[arg(long)]
    fix_missing_slots: bool,
    /// Merge two clusters that both own slots although one of them loses keys
    #[arg(long)]
    merge: bool,
    /// User name for authentication to the nodes
    #[arg(long, value_name = "NAME", requires = "auth_file")]
    user: Option<String>,
    /// File that contains the password
    #[arg(long, value_name = "FILE", env = "MEMSTORE_CLUSTER_AUTH_FILE")]
    auth_file: Option<PathBuf>,
    #[command(flatten)]
    tls: Tls,
    /// DNS server for node host names; default: the name servers of the system
    #[arg(long, value_name = "ADDRESS:PORT")]
    dns_server: Option<SocketAddr>,
}

/// Runs it.
pub fn run(command: ClusterCommand) -> anyhow::Result<()> {
    let ClusterCommand::Reconcile(arguments) = command;
    let reconcile = arguments.read()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, reconcile::run(reconcile))
}

impl Arguments {
    fn read(self) -> anyhow::Result<Reconcile> {
        let primaries = usize::from(self.primaries);
        let count = self.count.or(self.drain_from).map(usize::from);
        let count = count.unwrap_or(primaries * (1 + usize::from(self.replicas)));
        let mut nodes = Vec::new();
        let mut leaving = None;
        for node in &self.nodes {
            ensure!(
                config::address(node).is_some(),
                "--nodes {node}: allowed is host:port, with {{}} for the ordinal where one name stands for several"
            );
            if node.contains("{}") {
                if self.count.is_none() && self.drain_from.is_some() {
                    ensure!(
                        leaving.is_none() && self.nodes.len() == 1,
                        "--drain-from without --count: allowed is one --nodes, whose names are looked up from that ordinal on"
                    );
                    leaving = Some(node.clone());
                }
                nodes.extend((0..count).map(|ordinal| node.replace("{}", &ordinal.to_string())));
            } else {
                nodes.push(node.clone());
            }
        }
        let staying = self.drain_from.map_or(nodes.len(), usize::from);
        ensure!(
            primaries <= staying.min(nodes.len()),
            "--primaries {primaries}: there are only {} nodes that stay",
            staying.min(nodes.len())
        );
        let password = self.auth_file.as_deref().map(Secret::of_file).transpose()?;
        let auth = password.map(|password| Auth { user: self.user, password, previous: None });
        Ok(Reconcile {
            goal: Goal {
                nodes,
                primaries,
                replicas: usize::from(self.replicas),
                drain_from: self.drain_from.map(usize::from),
                keep_slots: self.keep_slots,
                assign_missing: self.fix_missing_slots,
                merge: self.merge,
            },
            leaving,
            way: Way { auth, tls: self.tls.read(true)? },
            dns_server: self.dns_server,
            interval: (!self.once).then_some(self.interval),
            limit: self.limit,
            steps: self.steps,
            dry_run: self.dry_run,
            json: self.json,
        })
    }
}
