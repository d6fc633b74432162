//! `memstore cluster`: what is said to the reconciler of Redis Clusters.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Subcommand};

use crate::config::{self, Auth, Secret, value};
use crate::reconcile::step::Goal;
use crate::reconcile::{self, Reconcile};

/// `memstore cluster ...`
#[derive(Subcommand)]
pub enum Cluster {
    /// Form a cluster, heal it, and keep it as it is meant to be: 16384 slots shared by the primaries, each with its
    /// replicas. Needs nothing but the nodes; may be ended and started again at any moment
    Reconcile(Arguments),
}

/// Arguments of `memstore cluster reconcile`.
#[derive(Args)]
pub struct Arguments {
    /// host:port of a node; {} stands for the ordinals from 0 on. May be given several times
    #[arg(long, value_name = "HOST:PORT", required = true)]
    nodes: Vec<String>,
    /// How many nodes own slots
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
    primaries: u16,
    /// Replicas of each
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    replicas: u16,
    /// Nodes that {} stands for, if not primaries and replicas together, and with --drain-from those whose names exist
    #[arg(long, value_name = "COUNT")]
    count: Option<u16>,
    /// Nodes from this ordinal on give away what they own and leave; without --count nothing is done if there are none
    #[arg(long, value_name = "ORDINAL")]
    drain_from: Option<u16>,
    /// End once the cluster is as it is meant to be; exit 1 if it is not within the limit
    #[arg(long)]
    once: bool,
    /// How long that may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = value::duration)]
    limit: Duration,
    /// Without --once: pause between two looks at a healthy cluster
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = value::duration)]
    interval: Duration,
    /// End after so many steps, whatever remains
    #[arg(long, value_name = "COUNT", hide = true)]
    steps: Option<u64>,
    /// Only say what is wrong and what would be done next
    #[arg(long)]
    dry_run: bool,
    /// Leave slots with those who own them: only form and heal, while growth and shrinking are left to another run
    #[arg(long)]
    keep_slots: bool,
    /// One JSON object for each look, for programs
    #[arg(long)]
    json: bool,
    /// Give away slots that nobody owns although their keys are lost
    #[arg(long)]
    fix_missing_slots: bool,
    /// Join two clusters that both own slots although one of them loses keys
    #[arg(long)]
    merge: bool,
    /// User that is named to the nodes beside the password
    #[arg(long, value_name = "NAME", requires = "auth_file")]
    user: Option<String>,
    /// File with the password
    #[arg(long, value_name = "FILE", env = "MEMSTORE_CLUSTER_AUTH_FILE")]
    auth_file: Option<PathBuf>,
    /// Who is asked for addresses of nodes; else the name servers of the system
    #[arg(long, value_name = "ADDRESS:PORT")]
    dns_server: Option<SocketAddr>,
}

/// Runs it.
pub fn run(command: Cluster) -> anyhow::Result<()> {
    let Cluster::Reconcile(arguments) = command;
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
            auth,
            dns_server: self.dns_server,
            interval: (!self.once).then_some(self.interval),
            limit: self.limit,
            steps: self.steps,
            dry_run: self.dry_run,
            json: self.json,
        })
    }
}
