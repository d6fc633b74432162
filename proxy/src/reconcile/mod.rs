//! `memstore cluster reconcile`: looks at the nodes, decides ([`plan`]), does it, and looks again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use redis_protocol::resp2::types::BytesFrame;
use serde_json::json;
use shard_discovery::Address;
use shard_discovery::resolver::{Resolver, ResolverOptions};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Auth, ShardTls};
use crate::failure::ShardFailure;
use crate::net::connect::{connect_to, secure};
use crate::net::conversation::{Conversation, ConversationError};
use shard_discovery::source::cluster::View;
use shard_discovery::source::cluster::view;
use step::{Advice, Goal, NodeFacts, Step};

mod orders;
mod plan;
mod roles;
pub mod step;

/// How long a node may take to answer; moving keys has a limit of its own.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause before it is looked again after something was done, or while nodes tell each other.
const ROUND_PAUSE: Duration = Duration::from_millis(500);
/// So long a node that owns nothing any more tells clients who owns what: more than the `refresh` of a proxy.
const LEAVE_PAUSE: Duration = Duration::from_secs(6);
/// What only somebody else can change may still change by itself for so long.
const STUCK_MAX: Duration = Duration::from_secs(15);
/// A primary holds writes back for five seconds when it is asked to hand over; asked again, for five more.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(7);
/// The channel on which runs that end announce themselves to each other.
const RUNS: &str = "memstore:reconcile";
/// Ordinals in a row without a name after which there are no more.
const ABSENT_MAX: usize = 8;
/// A node that was met needs some time before it makes sense to say so again.
const MEET_PAUSE: Duration = Duration::from_secs(3);

/// How nodes are spoken to.
#[derive(Clone)]
pub struct Way {
    /// What is said to them.
    pub auth: Option<Auth>,
    /// TLS, if they speak it.
    pub tls: Option<ShardTls>,
}

/// What is wanted, and how.
pub struct Reconcile {
    /// How the cluster is meant to be.
    pub goal: Goal,
    /// The names of nodes that are to leave, {} for their ordinals: those that exist are added to the goal.
    pub leaving: Option<String>,
    /// How the nodes are spoken to.
    pub way: Way,
    /// The name server; none: those of the system.
    pub dns_server: Option<SocketAddr>,
    /// Pause between two looks at a healthy cluster; none: ends once it is.
    pub interval: Option<Duration>,
    /// Without an interval: how long it may take.
    pub limit: Duration,
    /// Ends after so many steps.
    pub steps: Option<u64>,
    /// Nothing is done, only told.
    pub dry_run: bool,
    /// One JSON object for each look instead of words.
    pub json: bool,
}

/// Runs until the cluster is as it is meant to be, or for ever; an error says why it is not.
pub async fn run(mut reconcile: Reconcile) -> anyhow::Result<()> {
    let names = Arc::new(Resolver::new(&ResolverOptions { server: reconcile.dns_server })?);
    let is_bystander = reconcile.interval.is_some() || reconcile.dry_run;
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    if !is_bystander {
        announce(&reconcile, &names, began).await;
    }
    if let Some(template) = &reconcile.leaving {
        let first = reconcile.goal.nodes.len();
        let found = leaving(template, first, &names, reconcile.limit).await?;
        if found.is_empty() {
            nothing_left_behind(&reconcile, &names).await?;
            say(&format!("no node from ordinal {first} on exists: nothing to drain"), reconcile.json)?;
            return Ok(());
        }
        reconcile.goal.nodes.extend(found);
    }
    if is_bystander {
        return work(&reconcile, &names).await;
    }
    // It may be ended anywhere.
    tokio::select! {
        done = work(&reconcile, &names) => done,
        () = superseded(&reconcile, &names, began) => {
            say("superseded by a newer run", reconcile.json)?;
            // Whoever takes nodes away after this must not believe that they are empty.
            anyhow::ensure!(reconcile.goal.drain_from.is_none(), "nodes to be removed may still own slots");
            Ok(())
        }
    }
}

/// Tells runs that are at work that there is a newer one, which may have another goal.
async fn announce(reconcile: &Reconcile, names: &Arc<Resolver>, began: u128) {
    for node in &reconcile.goal.nodes {
        if let Ok((mut node, _)) = enter(node, names, &reconcile.way, NODE_TIMEOUT).await {
            let _ = node.ask(&["PUBLISH", RUNS, &began.to_string()]).await;
        }
    }
}

/// Waits until a newer run announces itself. Any node hears of it, by the cluster's bus.
async fn superseded(reconcile: &Reconcile, names: &Arc<Resolver>, began: u128) {
    loop {
        for node in &reconcile.goal.nodes {
            let Ok((mut node, _)) = enter(node, names, &reconcile.way, NODE_TIMEOUT).await else {
                continue;
            };
            if node.ask(&["SUBSCRIBE", RUNS]).await.is_err() {
                continue;
            }
            while let Ok(message) = node.hear().await {
                if let BytesFrame::Array(words) = message
                    && let [_, _, BytesFrame::BulkString(other)] = &words[..]
                    // What an older one said may come late.
                    && std::str::from_utf8(other).ok().and_then(|other| other.parse().ok()) > Some(began)
                {
                    return;
                }
            }
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

async fn work(reconcile: &Reconcile, names: &Arc<Resolver>) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut told = Advice::default();
    let mut progress = Progress::default();
    let mut stuck: Option<Instant> = None;
    loop {
        let seen = observe(reconcile, names).await;
        let mut advice = plan::next(&reconcile.goal, &seen);
        if advice.is_healthy && !reconcile.dry_run {
            progress.empty_who_left(&mut advice, &seen, reconcile, names).await;
        }
        if advice != told || reconcile.dry_run {
            tell(&advice, reconcile.json)?;
        }
        if reconcile.dry_run {
            anyhow::ensure!(advice.is_healthy, "the cluster is not in the desired state");
            return Ok(());
        }
        if advice.steps != told.steps {
            progress.handed = None;
        }
        // Only somebody else can change that.
        let is_stuck = !advice.blocked.is_empty() && seen.iter().all(Result::is_ok);
        stuck = if is_stuck { stuck.or(Some(Instant::now())) } else { None };
        match (advice.is_healthy, reconcile.interval) {
            (true, None) => return Ok(()),
            (true, Some(interval)) => tokio::time::sleep(interval).await,
            (false, None)
                if begin.elapsed() > reconcile.limit
                    || stuck.is_some_and(|since| since.elapsed() > STUCK_MAX) =>
            {
                let reasons = [&advice.blocked[..], &advice.findings[..]].concat();
                anyhow::bail!("the cluster is not in the desired state: {}", reasons.join("; "));
            }
            (false, _) if progress.lets_clients_learn(&advice, reconcile.json)? => {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
            (false, _) => {
                let has_failed = progress.take_steps(&advice, &seen, reconcile, names).await?;
                if has_failed || !advice.steps.iter().any(|step| matches!(step, Step::Move { .. })) {
                    tokio::time::sleep(ROUND_PAUSE).await;
                }
            }
        }
        told = advice;
    }
}

/// What a run remembers of its steps: only when to take the next ones.
#[derive(Default)]
struct Progress {
    /// How many were taken.
    taken: u64,
    /// When nodes were told to meet.
    met: Option<Instant>,
    /// When a primary was asked to hand over.
    handed: Option<Instant>,
    /// Since when nodes that are to leave own nothing.
    emptied: Option<Instant>,
    /// Nodes that have left, and were emptied by this run after that.
    cleared: BTreeSet<usize>,
}

impl Progress {
    /// Whether the steps are to wait, so that clients learn what was done before.
    fn lets_clients_learn(&mut self, advice: &Advice, json: bool) -> std::io::Result<bool> {
        if !advice.is_for_later {
            self.emptied = None;
            return Ok(false);
        }
        if self.emptied.is_none() {
            say(&format!("waiting {LEAVE_PAUSE:?} for clients to discover the new slot owners"), json)?;
        }
        Ok(self.emptied.get_or_insert_with(Instant::now).elapsed() < LEAVE_PAUSE)
    }

    /// Whoever made nodes leave may have been ended before they were empty.
    async fn empty_who_left(
        &mut self,
        advice: &mut Advice,
        seen: &[Result<NodeFacts, String>],
        reconcile: &Reconcile,
        names: &Resolver,
    ) {
        let count = reconcile.goal.nodes.len();
        for node in reconcile.goal.drain_from.unwrap_or(count)..count {
            if self.cleared.contains(&node) {
                continue;
            }
            match orders::take(&Step::Reset { node }, seen, reconcile, names).await {
                Ok(()) => drop(self.cleared.insert(node)),
                Err(error) => {
                    advice.is_healthy = false;
                    advice.findings.push(format!(
                        "node {node} has left the cluster, and may have its keys on disk: {error}"
                    ));
                }
            }
        }
    }

    /// Takes the steps whose time has come. Returns whether one has failed.
    async fn take_steps(
        &mut self,
        advice: &Advice,
        seen: &[Result<NodeFacts, String>],
        reconcile: &Reconcile,
        names: &Resolver,
    ) -> anyhow::Result<bool> {
        let mut has_failed = false;
        for step in &advice.steps {
            let is_meet = matches!(step, Step::Meet { .. } | Step::Rejoin { .. });
            if is_meet && self.met.is_some_and(|met| met.elapsed() < MEET_PAUSE) {
                continue;
            }
            if matches!(step, Step::HandOver { .. }) {
                if self.handed.is_some_and(|handed| handed.elapsed() < HAND_OVER_PAUSE) {
                    continue;
                }
                self.handed = Some(Instant::now());
            }
            if reconcile.steps.is_some_and(|most| self.taken >= most) {
                anyhow::bail!("ended after {} steps", self.taken);
            }
            self.taken += 1;
            if let Err(error) = orders::take(step, seen, reconcile, names).await {
                // It is seen what came of it.
                has_failed = true;
                say(&format!("failed: {step}: {error}"), reconcile.json)?;
            }
        }
        let meets = advice.steps.iter().any(|step| matches!(step, Step::Meet { .. } | Step::Rejoin { .. }));
        if meets && self.met.is_none_or(|met| met.elapsed() >= MEET_PAUSE) {
            self.met = Some(Instant::now());
        }
        Ok(has_failed)
    }
}

/// The nodes from an ordinal on whose names exist. A name server that does not answer is asked again: who is overlooked
/// would go with its slots.
async fn leaving(
    template: &str,
    first: usize,
    names: &Resolver,
    limit: Duration,
) -> anyhow::Result<Vec<String>> {
    let begin = Instant::now();
    let mut found = Vec::new();
    let mut absent = 0;
    for ordinal in first.. {
        let node = template.replace("{}", &ordinal.to_string());
        let host = node.rsplit_once(':').map_or(node.as_str(), |(host, _)| host);
        anyhow::ensure!(
            host.parse::<IpAddr>().is_err(),
            "--drain-from needs --count where nodes are addresses"
        );
        loop {
            match names.refresh(host).await {
                Ok(_) => {
                    // One in between may have no address while it starts.
                    found.extend(
                        (ordinal - absent..=ordinal).map(|node| template.replace("{}", &node.to_string())),
                    );
                    absent = 0;
                }
                Err(error) if error.is_absent() => absent += 1,
                Err(error) if begin.elapsed() > limit => {
                    return Err(anyhow::Error::new(error).context(host.to_owned()));
                }
                Err(_) => {
                    tokio::time::sleep(ROUND_PAUSE).await;
                    continue;
                }
            }
            break;
        }
        if absent == ABSENT_MAX {
            break;
        }
    }
    Ok(found)
}

/// Makes sure that no slot belongs to a node that is to leave and has no address for now.
async fn nothing_left_behind(reconcile: &Reconcile, names: &Arc<Resolver>) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let mut are_absent = true;
        for node in &reconcile.goal.nodes {
            let host = node.rsplit_once(':').map_or(node.as_str(), |(host, _)| host);
            are_absent &= names.refresh(host).await.is_err_and(|error| error.is_absent());
        }
        if are_absent {
            // There is no cluster.
            return Ok(());
        }
        let seen = observe(reconcile, names).await;
        let missing = seen.iter().find_map(|seen| seen.as_ref().err());
        let staying: Vec<&NodeFacts> = seen.iter().flatten().collect();
        let nodes = staying.iter().flat_map(|facts| &facts.view.nodes);
        let is_known = |id: &str| staying.iter().any(|facts| facts.id() == id);
        let left =
            nodes.filter(|node| !node.slots.is_empty() && !is_known(&node.id)).min_by_key(|node| &node.id);
        let problem = match (left, missing) {
            (None, _) if !staying.is_empty() => return Ok(()),
            (Some(node), None) => format!(
                "{} ({}:{}) owns slots, is not among the remaining nodes, and its name does not resolve: start it first",
                node.id, node.ip, node.port
            ),
            (_, missing) => {
                format!("a remaining node is unreachable: {}", missing.map_or("none can", |why| why))
            }
        };
        anyhow::ensure!(begin.elapsed() < reconcile.limit, "{problem}");
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

fn tell(advice: &Advice, json: bool) -> std::io::Result<()> {
    if json {
        let steps: Vec<String> = advice.steps.iter().map(ToString::to_string).collect();
        let object = json!({
            "healthy": advice.is_healthy,
            "findings": advice.findings,
            "blocked": advice.blocked,
            "steps": steps,
        });
        return writeln!(std::io::stdout(), "{object}");
    }
    let mut text = String::new();
    for finding in &advice.findings {
        text.push_str(&format!("found: {finding}\n"));
    }
    for reason in &advice.blocked {
        text.push_str(&format!("blocked: {reason}\n"));
    }
    for step in &advice.steps {
        text.push_str(&format!("do: {step}\n"));
    }
    if advice.is_healthy {
        text.push_str("the cluster is in the desired state\n");
    }
    std::io::stdout().write_all(text.as_bytes())
}

fn say(words: &str, json: bool) -> std::io::Result<()> {
    if json {
        writeln!(std::io::stdout(), "{}", json!({ "said": words }))
    } else {
        writeln!(std::io::stdout(), "{words}")
    }
}

/// What all nodes say, by ordinal.
async fn observe(reconcile: &Reconcile, names: &Arc<Resolver>) -> Vec<Result<NodeFacts, String>> {
    let mut asking = JoinSet::new();
    for (node, host) in reconcile.goal.nodes.iter().cloned().enumerate() {
        let (names, way) = (names.clone(), reconcile.way.clone());
        asking.spawn_local(async move {
            (node, facts(&host, &names, &way).await.map_err(|error| error.to_string()))
        });
    }
    let mut seen: Vec<_> = asking.join_all().await;
    seen.sort_by_key(|(node, _)| *node);
    let mut seen: Vec<Result<NodeFacts, String>> = seen.into_iter().map(|(_, facts)| facts).collect();
    let own = seen.iter().flatten().filter_map(NodeFacts::own);
    let open: BTreeSet<u16> =
        own.flat_map(|own| own.migrating.keys().chain(own.importing.keys())).copied().collect();
    if !open.is_empty() {
        for (node, host) in reconcile.goal.nodes.iter().enumerate() {
            if let Ok(facts) = &mut seen[node]
                && let Err(error) = count(host, names, &reconcile.way, &open, facts).await
            {
                seen[node] = Err(error.to_string());
            }
        }
    }
    seen
}

/// Counts the keys of slots that are on their way.
async fn count(
    host: &str,
    names: &Resolver,
    way: &Way,
    open: &BTreeSet<u16>,
    facts: &mut NodeFacts,
) -> Result<(), ConversationError> {
    let (mut node, _) = enter(host, names, way, NODE_TIMEOUT).await?;
    for &slot in open {
        if let BytesFrame::Integer(keys) =
            node.ask(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]).await?
        {
            facts.open_slots.insert(slot, u64::try_from(keys).unwrap_or(0));
        }
    }
    Ok(())
}

async fn facts(host: &str, names: &Resolver, way: &Way) -> Result<NodeFacts, ConversationError> {
    let refused = ConversationError::Refused;
    let (mut node, place) = enter(host, names, way, NODE_TIMEOUT).await?;
    let info = node.text(&["CLUSTER", "INFO"]).await?;
    let nodes = node.text(&["CLUSTER", "NODES"]).await?;
    let replication = node.text(&["INFO", "replication"]).await?;
    let keys = match node.ask(&["DBSIZE"]).await? {
        BytesFrame::Integer(keys) => u64::try_from(keys).unwrap_or(0),
        _ => 0,
    };
    let looks_at = || {
        let host = view::info(&replication, "master_host")?.to_owned();
        let port = view::info(&replication, "master_port")?.parse().ok()?;
        (view::info(&replication, "master_link_status") != Some("up")).then_some((host, port))
    };
    let asked = Address::Tcp { host: place.ip().to_string(), port: place.port() };
    let nodes = view::nodes(&nodes).map_err(refused)?;
    if !nodes.iter().any(|node| node.myself) {
        return Err(refused("the node does not report its ID".into()));
    }
    Ok(NodeFacts {
        ip: place.ip().to_string(),
        port: place.port(),
        keys,
        epoch: view::info(&info, "cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
        looks_at: looks_at(),
        open_slots: BTreeMap::new(),
        view: View {
            asked,
            is_well: view::info(&info, "cluster_state") == Some("ok"),
            nodes,
            endpoints: Default::default(),
        },
    })
}

/// A conversation with a node, and where that is.
async fn enter(
    host: &str,
    names: &Resolver,
    way: &Way,
    limit: Duration,
) -> Result<(Conversation, SocketAddr), ConversationError> {
    let lost = |failure| ConversationError::Lost(failure);
    let Some(address) = crate::config::address(host) else {
        return Err(ConversationError::Refused(format!("{host:?} is not host:port")));
    };
    let Address::Tcp { host: name, port } = &address else {
        return Err(ConversationError::Refused(format!("{host:?} is not host:port")));
    };
    let connect = async {
        // Looked up each time: nodes move.
        let addresses = names.refresh(name).await;
        let addresses = addresses.map_err(|error| lost(ShardFailure::Unresolved(error.to_string())))?;
        let places = addresses.into_iter().map(|address| SocketAddr::new(address, *port));
        let (socket, place) = connect_to(places, NODE_TIMEOUT).await.map_err(lost)?;
        let socket = secure(socket, way.tls.as_ref(), &address, NODE_TIMEOUT).await.map_err(lost)?;
        Ok((socket, place))
    };
    let connected = timeout(NODE_TIMEOUT, connect).await;
    let (socket, place) = connected.unwrap_or(Err(lost(ShardFailure::ConnectTimeout)))?;
    let mut conversation = Conversation::over(socket, limit)?;
    conversation.authenticate(way.auth.as_ref()).await?;
    Ok((conversation, place))
}
