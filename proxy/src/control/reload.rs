//! Another configuration while clients are served: read aside, and applied as a whole or not at all.
//!
//! Whatever can go wrong goes wrong before the first worker hears of it: mistakes in the file, addresses that are taken,
//! shards that do not answer. What stays is not touched.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use shard_discovery::{Address, Shard, Topology};

use super::listener::{Bound, Listener};
use super::pools::PoolControl;
use super::{Control, cluster, learn, probe};
use crate::cluster::map::Map;
use crate::config::{self, Listen};
use crate::conversation::ConversationError;

/// How often the files of the configuration are looked at.
const WATCH_TICK: Duration = Duration::from_secs(1);
/// Pause before a reload that failed is tried again: what it lacked may come later, a shard or a file.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// Why a reload that failed is tried again.
const RETRY: &str = "retry";
/// Pause between two probes of a shard that is to be adopted.
const ADOPT_PAUSE: Duration = Duration::from_millis(200);

/// What is to change of one pool.
struct Change {
    pool: Rc<PoolControl>,
    config: Arc<config::Pool>,
    topology: Arc<Topology>,
}

/// A pool that is to be served.
type Opening = (Arc<config::Pool>, Arc<Topology>);

/// Where a pool's clients are to be accepted.
enum Door {
    Bound(Bound),
    /// The listener of this pool, which gives it up.
    From(Rc<PoolControl>),
}

/// Reads the configuration again and applies it.
pub async fn reload(control: &Rc<Control>, why: &str) -> anyhow::Result<()> {
    let _running = control.reloading.lock().await;
    let result = attempt(control).await;
    // Those that are no more are closed with their listeners.
    for pool in control.served() {
        pool.tolerate(false);
    }
    match &result {
        Ok(None) => {
            control.status.reload_needless();
            tracing::info!(why, "reload: nothing has changed");
        }
        Ok(Some(window)) => {
            control.status.reloaded(*window);
            let generation = control.status.generation.load(Relaxed);
            tracing::info!(why, generation, ?window, "reloaded");
        }
        Err(error) => {
            let error = format!("{error:#}");
            // It is tried again and again, and has been told.
            if why != RETRY || control.status.last_error().as_ref() != Some(&error) {
                tracing::error!(why, error, "reload failed; the present configuration goes on");
                control.status.reload_failed(error);
            }
        }
    }
    result.map(|_| ())
}

/// Returns how long workers disagreed, or nothing if nothing has changed.
async fn attempt(control: &Rc<Control>) -> anyhow::Result<Option<Duration>> {
    control.refuse_draining()?;
    let config = control.read()?;
    let process = control.status.process();
    let (settings, fixed) = process.adopt(config.process);
    if !fixed.is_empty() {
        tracing::warn!(settings = %fixed.join(", "), "settings have changed that need a restart");
    }
    let present = control.served();
    let names: HashSet<String> = config.pools.iter().map(|pool| pool.name.clone()).collect();
    let memory_max = control.memory_of_pool(settings.memory_max, names.len());
    let mut changes = Vec::new();
    let mut openings = Vec::new();
    for wanted in config.pools {
        let topology = Arc::new(wanted.topology().with_context(|| format!("pool {}", wanted.name))?);
        let config = Arc::new(wanted);
        match present.iter().find(|pool| pool.config().name == config.name) {
            None => openings.push((config, topology)),
            Some(pool) if pool.written() == config && pool.memory_max() == memory_max => {}
            Some(pool) if pool.config().protocol != config.protocol => bail!(
                "pool {}: a pool that is served cannot change between Redis and memcache; give it another name",
                config.name
            ),
            Some(pool) => changes.push(Change { pool: pool.clone(), config, topology }),
        }
    }
    let removed: Vec<_> =
        present.iter().filter(|pool| !names.contains(&pool.config().name)).cloned().collect();
    if changes.is_empty() && openings.is_empty() && removed.is_empty() && settings == *process {
        return Ok(None);
    }
    let moved = |change: &&Change| !change.pool.config().listen.is_at(&change.config.listen);
    let given_up: Vec<_> = removed
        .iter()
        .cloned()
        .chain(changes.iter().filter(moved).map(|change| change.pool.clone()))
        .collect();
    let mut doors = Vec::new();
    for change in &changes {
        doors.push(if moved(&change) { Some(find_door(&change.config, &given_up)?) } else { None });
    }
    let mut opening_doors = Vec::new();
    for (config, _) in &openings {
        opening_doors.push(Some(find_door(config, &given_up)?));
    }
    let mut maps = wait_for_shards(&changes, &openings, control).await?;
    let doors = open_doors(doors)?;
    let opening_doors = open_doors(opening_doors)?;

    // From here on nothing can fail.
    if settings.log_level != process.log_level {
        let _ = (control.set_log_level)(&settings.log_level);
    }
    control.status.set_process(settings);
    let mut listeners: Vec<(Listen, Rc<Listener>)> = Vec::new();
    for pool in &given_up {
        let listen = pool.config().listen.clone();
        listeners.extend(pool.close().await.map(|listener| (listen, listener)));
    }
    let mut enter = |door: OpenDoor| match door {
        OpenDoor::Listening(listener) => Some(Rc::new(listener)),
        OpenDoor::From(pool) => {
            let listen = &pool.config().listen;
            let place = listeners.iter().position(|(known, _)| known.is_at(listen))?;
            Some(listeners.swap_remove(place).1)
        }
    };
    // Before the pools that own the listeners take other configurations.
    let entered: Vec<_> = doors.into_iter().map(|door| door.and_then(&mut enter)).collect();
    let opened: Vec<_> = opening_doors.into_iter().map(|door| door.and_then(&mut enter)).collect();
    let mut window = Duration::ZERO;
    for (Change { pool, config, topology }, listener) in changes.into_iter().zip(entered) {
        if let Err(error) = config.listen.permit() {
            tracing::warn!(pool = %config.name, listen = %config.listen, %error, "cannot change permissions");
        }
        let map = maps.remove(&config.name);
        window = window.max(pool.reconfigure(config, topology, map, memory_max).await);
        tokio::task::spawn_local(learn::learn(pool.clone()));
        if let Some(listener) = listener {
            pool.accept(listener);
        }
    }
    for ((config, topology), listener) in openings.into_iter().zip(opened) {
        let pool = control.open(config.clone(), topology.clone(), memory_max);
        if let Some(map) = maps.remove(&config.name) {
            pool.reconfigure(config, topology, Some(map), memory_max).await;
        }
        tokio::task::spawn_local(learn::learn(pool.clone()));
        if let Some(listener) = listener {
            pool.accept(listener);
        }
    }
    for pool in removed {
        pool.removed.set(true);
        pool.drain(control.status.process().drain_limit).await;
        tracing::info!(pool = %pool.config().name, "pool removed; its clients are drained");
    }
    control.tell_status();
    control.forget_hosts();
    Ok(Some(window))
}

/// Takes the address that the pool is to listen on, if nobody here has it to give.
fn find_door(config: &config::Pool, given_up: &[Rc<PoolControl>]) -> anyhow::Result<Door> {
    if let Some(pool) = given_up.iter().find(|pool| pool.config().listen.is_at(&config.listen)) {
        return Ok(Door::From(pool.clone()));
    }
    // The same port on other addresses, which may be some of the same.
    let port = config.listen.port();
    let beside: Vec<_> = given_up
        .iter()
        .filter(|pool| port.is_some() && pool.config().listen.port() == port)
        .inspect(|pool| pool.tolerate(true))
        .collect();
    Bound::new(config, !beside.is_empty()).map(Door::Bound).map_err(|error| taken(config, error))
}

/// A door that clients can come to.
enum OpenDoor {
    Listening(Listener),
    From(Rc<PoolControl>),
}

fn open_doors(doors: Vec<Option<Door>>) -> anyhow::Result<Vec<Option<OpenDoor>>> {
    let open = |door: Option<Door>| match door {
        None => Ok(None),
        Some(Door::From(pool)) => Ok(Some(OpenDoor::From(pool))),
        Some(Door::Bound(bound)) => Ok(Some(OpenDoor::Listening(bound.listen()?))),
    };
    doors.into_iter().map(open).collect()
}

fn taken(config: &config::Pool, error: anyhow::Error) -> anyhow::Error {
    error.context(format!("pool {}: cannot listen on {}", config.name, config.listen))
}

/// Every shard that is new has to answer once, and none may refuse a new password. Of clusters that are new somebody has
/// to say who owns what; returns that by the names of their pools.
async fn wait_for_shards(
    changes: &[Change],
    openings: &[Opening],
    control: &Rc<Control>,
) -> anyhow::Result<HashMap<String, Map>> {
    let maps = wait_for_clusters(changes, openings, control).await?;
    let mut asking = tokio::task::JoinSet::new();
    let changed = changes.iter().map(|change| (&change.config, Some(change.pool.config())));
    let opened = openings.iter().map(|(config, _)| (config, None));
    for (config, before) in changed.chain(opened) {
        let Some(limit) = config.adopt_wait else { continue };
        let (known, has_new_auth) = match &before {
            None => (&[][..], false),
            Some(before) => (&before.shards[..], before.auth != config.auth),
        };
        let is_known = |shard: &Shard| {
            known.iter().any(|known| known.name == shard.name && known.address == shard.address)
        };
        for shard in &config.shards {
            let what = match is_known(shard) {
                false => Asked::Adopted,
                true if has_new_auth => Asked::NewPassword,
                true => continue,
            };
            asking.spawn_local(answers(shard.clone(), what, config.clone(), control.clone(), limit));
        }
    }
    let silent: Vec<String> = asking.join_all().await.into_iter().filter_map(Result::err).collect();
    control.refuse_draining()?;
    if control.has_changed() {
        bail!("the files have changed again since they were read");
    }
    if silent.is_empty() { Ok(maps) } else { Err(anyhow!(silent.join("; "))) }
}

async fn wait_for_clusters(
    changes: &[Change],
    openings: &[Opening],
    control: &Rc<Control>,
) -> anyhow::Result<HashMap<String, Map>> {
    let is_new = |change: &&Change| {
        let seeds = |config: &config::Pool| config.cluster.as_ref().map(|cluster| cluster.seeds.clone());
        seeds(&change.config) != seeds(&change.pool.config())
            || change.config.auth != change.pool.config().auth
    };
    let changed = changes.iter().filter(is_new).map(|change| &change.config);
    let opened = openings.iter().map(|(config, _)| config);
    let mut maps = HashMap::new();
    for config in changed.chain(opened).filter(|config| config.cluster.is_some()) {
        let Some(limit) = config.adopt_wait else { continue };
        let until = tokio::time::Instant::now() + limit;
        let map = loop {
            match cluster::discover(config, &control.names, &[], 0).await {
                Ok(map) => break map,
                Err(reason) => {
                    let is_over = control.refuse_draining().is_err() || control.has_changed();
                    if is_over || tokio::time::Instant::now() + ADOPT_PAUSE >= until {
                        bail!("pool {}: nobody says who owns what in the cluster: {reason}", config.name);
                    }
                    tokio::time::sleep(ADOPT_PAUSE).await;
                }
            }
        };
        maps.insert(config.name.clone(), map);
    }
    Ok(maps)
}

/// Why a shard is asked.
#[derive(Clone, Copy)]
enum Asked {
    /// It is to get keys.
    Adopted,
    /// It is known, and there is a new password. It need not be there.
    NewPassword,
}

/// Asks until the shard answers, at most for `limit`, and only as long as its answer matters.
async fn answers(
    shard: Shard,
    what: Asked,
    config: Arc<config::Pool>,
    control: Rc<Control>,
    limit: Duration,
) -> Result<(), String> {
    let until = tokio::time::Instant::now() + limit;
    loop {
        let answer = match what {
            Asked::Adopted => probe::probe(&shard.address, &control.names, &config).await,
            Asked::NewPassword if config.protocol == config::Protocol::Memcache => Ok(()),
            Asked::NewPassword => match probe::enter(&shard.address, &control.names, &config).await {
                Err(ConversationError::Refused(words)) => Err(ConversationError::Refused(words)),
                Ok(_) | Err(ConversationError::Lost(_)) => Ok(()),
            },
        };
        let Err(reason) = answer else { return Ok(()) };
        let is_over = control.refuse_draining().is_err() || control.has_changed();
        if is_over || tokio::time::Instant::now() + ADOPT_PAUSE >= until {
            let complaint = match what {
                Asked::Adopted => "does not answer",
                Asked::NewPassword => "does not take the new password",
            };
            return Err(format!("pool {}: shard {} {complaint}: {reason}", config.name, shard.name));
        }
        tokio::time::sleep(ADOPT_PAUSE).await;
    }
}

impl Control {
    /// Reads the configuration again. What changes from now on is a change.
    fn read(&self) -> anyhow::Result<config::Config> {
        let before = Files::look(self.files.borrow().paths.clone());
        let config = (self.load)();
        let named = match &config {
            Ok(config) if config.files != before.paths => Files::look(config.files.clone()),
            _ => before,
        };
        self.files.replace(named);
        config
    }

    /// Whether a file has changed since it was read.
    fn has_changed(&self) -> bool {
        let files = self.files.borrow();
        Files::look(files.paths.clone()) != *files
    }

    fn refuse_draining(&self) -> anyhow::Result<()> {
        if self.status.draining.load(Relaxed) { Err(anyhow!("the process is draining")) } else { Ok(()) }
    }

    /// Where shards were that are in no pool any more.
    fn forget_hosts(&self) {
        let configs: Vec<_> = self.served().iter().map(|pool| pool.config()).collect();
        let hosts: HashSet<&str> = configs
            .iter()
            .flat_map(|config| {
                let seeds = config.cluster.iter().flat_map(|cluster| &cluster.seeds);
                config.shards.iter().map(|shard| &shard.address).chain(seeds)
            })
            .filter_map(|address| match address {
                Address::Tcp { host, .. } => Some(host.as_str()),
                Address::Unix(_) => None,
            })
            .collect();
        self.names.retain(|host| hosts.contains(host));
    }
}

/// Reloads whenever a file of the configuration has changed since it was read, as long as the process lives.
pub async fn watch(control: Rc<Control>) {
    loop {
        let retry = control.status.last_error().is_some();
        let mut slept = Duration::ZERO;
        while slept < if retry { RETRY_PAUSE } else { WATCH_TICK } && !control.has_changed() {
            tokio::time::sleep(WATCH_TICK).await;
            slept += WATCH_TICK;
        }
        if !control.status.process().watch_config {
            tokio::time::sleep(WATCH_TICK).await;
            continue;
        }
        if control.has_changed() {
            // It may still be being written.
            let now = Files::look(control.files.borrow().paths.clone());
            tokio::time::sleep(WATCH_TICK).await;
            if Files::look(now.paths.clone()) == now {
                let _ = reload(&control, "file changed").await;
            }
        } else if retry {
            let _ = reload(&control, RETRY).await;
        }
    }
}

/// Files, and what changes when one does, also behind symbolic links that are swapped: device, inode, time and size.
#[derive(PartialEq, Eq, Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    state: Vec<Option<[i128; 5]>>,
}

impl Files {
    /// As they are now.
    pub fn look(paths: Vec<PathBuf>) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let of_file = |path: &PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            let (device, inode, size) = (found.dev().into(), found.ino().into(), found.size().into());
            Some([device, inode, found.mtime().into(), found.mtime_nsec().into(), size])
        };
        Self { state: paths.iter().map(of_file).collect(), paths }
    }
}
