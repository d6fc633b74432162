//! Another configuration while clients are served: read aside, and applied as a whole or not at all.
//!
//! Whatever can go wrong goes wrong before the first worker hears of it: mistakes in the file, addresses that are taken,
//! shards that do not answer. What stays is not touched.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use shard_discovery::resolver::Resolver;
use shard_discovery::{Shard, Topology};

use super::listener::Listener;
use super::pools::PoolControl;
use super::status::Status;
use super::{Control, learn, probe};
use crate::config::{self, Listen};

/// How often the files of the configuration are looked at.
const WATCH_TICK: Duration = Duration::from_secs(1);
/// Pause before a reload that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// Why a reload that failed is tried again.
const RETRY: &str = "retry";
/// Pause between two probes of a shard that is to be adopted.
const ADOPT_PAUSE: Duration = Duration::from_millis(200);

/// Why the present configuration goes on.
#[derive(Debug)]
pub enum ReloadError {
    /// The new one cannot hold.
    Refused(anyhow::Error),
    /// Shards that are new do not answer; they may later.
    NotReady(String),
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "{error:#}"),
            Self::NotReady(text) => f.write_str(text),
        }
    }
}

/// What is to change of one pool.
struct Change {
    pool: Rc<PoolControl>,
    config: Arc<config::Pool>,
    topology: Arc<Topology>,
}

/// Where a pool's clients are to be accepted.
enum Door {
    Bound(Listener),
    /// The listener of this pool, which gives it up.
    From(Rc<PoolControl>),
}

/// Reads the configuration again and applies it.
pub async fn reload(control: &Rc<Control>, why: &str) -> Result<(), ReloadError> {
    let _running = control.reloading.lock().await;
    let result = if control.status.draining.load(Relaxed) {
        Err(ReloadError::Refused(anyhow::anyhow!("the process is draining")))
    } else {
        attempt(control).await
    };
    match &result {
        Ok(None) => tracing::info!(why, "reload: nothing has changed"),
        Ok(Some(window)) => {
            control.status.reloaded(*window);
            let generation = control.status.generation.load(Relaxed);
            tracing::info!(why, generation, ?window, "reloaded");
        }
        // It is tried again and again, and has been told.
        Err(error) if why == RETRY && control.status.last_error() == Some(error.to_string()) => {}
        Err(error) => {
            control.status.reload_failed(error.to_string());
            tracing::error!(why, %error, "reload failed; the present configuration goes on");
        }
    }
    result.map(|_| ())
}

/// Returns how long workers disagreed, or nothing if nothing has changed.
async fn attempt(control: &Rc<Control>) -> Result<Option<Duration>, ReloadError> {
    let config = (control.load)().map_err(ReloadError::Refused)?;
    control.files.replace(config.files);
    control.status.set_token(config.process.admin_token.clone());
    if (config::Process { admin_token: None, ..config.process })
        != (config::Process { admin_token: None, ..control.process.clone() })
    {
        tracing::warn!("settings of the process have changed; they need a restart");
    }
    let present = control.served();
    let names: HashSet<String> = config.pools.iter().map(|pool| pool.name.clone()).collect();
    let mut changes = Vec::new();
    let mut openings = Vec::new();
    for wanted in config.pools {
        let topology = Arc::new(wanted.topology().map_err(|error| refused(&wanted.name, error))?);
        let config = Arc::new(wanted);
        match present.iter().find(|pool| pool.config().name == config.name) {
            None => openings.push((config, topology)),
            Some(pool) if pool.written() == *config => {}
            Some(pool) if pool.config().protocol != config.protocol => {
                let text =
                    "a pool that is served cannot change between Redis and memcache; give it another name";
                return Err(refused(&config.name, text));
            }
            Some(pool) => changes.push(Change { pool: pool.clone(), config, topology }),
        }
    }
    let removed: Vec<_> =
        present.iter().filter(|pool| !names.contains(&pool.config().name)).cloned().collect();
    if changes.is_empty() && openings.is_empty() && removed.is_empty() {
        return Ok(None);
    }
    let moved = |change: &&Change| !change.pool.config().listen.is_at(&change.config.listen);
    let given_up: Vec<_> = removed
        .iter()
        .cloned()
        .chain(changes.iter().filter(moved).map(|change| change.pool.clone()))
        .collect();
    let find_door = |config: &config::Pool| -> Result<Door, ReloadError> {
        match given_up.iter().find(|pool| pool.config().listen.is_at(&config.listen)) {
            Some(pool) => Ok(Door::From(pool.clone())),
            None => Listener::bind(config).map(Door::Bound).map_err(|error| {
                refused(&config.name, format_args!("cannot listen on {}: {error:#}", config.listen))
            }),
        }
    };
    let mut doors: Vec<Option<Door>> = Vec::new();
    for change in &changes {
        doors.push(if moved(&change) { Some(find_door(&change.config)?) } else { None });
    }
    let mut opening_doors = Vec::new();
    for (config, _) in &openings {
        opening_doors.push(find_door(config)?);
    }
    wait_for_shards(&changes, &openings, control).await?;

    // From here on nothing can fail.
    let memory_max = control.memory_of_pool(present.len() - removed.len() + openings.len());
    let mut listeners: Vec<(Listen, Listener)> = Vec::new();
    for pool in &given_up {
        let listen = pool.config().listen.clone();
        listeners.extend(pool.close().await.map(|listener| (listen, listener)));
    }
    let mut enter = |door: Door| match door {
        Door::Bound(listener) => Some(listener),
        Door::From(pool) => {
            let listen = &pool.config().listen;
            let place = listeners.iter().position(|(known, _)| known.is_at(listen))?;
            Some(listeners.swap_remove(place).1)
        }
    };
    // Before the pools that own the listeners take other configurations.
    let entered: Vec<Option<Listener>> = doors.into_iter().map(|door| door.and_then(&mut enter)).collect();
    let opened: Vec<Option<Listener>> = opening_doors.into_iter().map(&mut enter).collect();
    let mut window = Duration::ZERO;
    for (Change { pool, config, topology }, listener) in changes.into_iter().zip(entered) {
        if let Err(error) = config.listen.permit() {
            tracing::warn!(pool = %config.name, listen = %config.listen, %error, "cannot change permissions");
        }
        window = window.max(pool.reconfigure(config, topology, memory_max).await);
        tokio::task::spawn_local(learn::learn(pool.clone()));
        if let Some(listener) = listener {
            pool.accept(listener);
        }
    }
    for ((config, topology), listener) in openings.into_iter().zip(opened) {
        let pool = control.open(config, topology, memory_max);
        tokio::task::spawn_local(learn::learn(pool.clone()));
        if let Some(listener) = listener {
            pool.accept(listener);
        }
    }
    for pool in removed {
        pool.removed.set(true);
        pool.drain(control.process.drain_limit).await;
        tracing::info!(pool = %pool.config().name, "pool removed; its clients are drained");
    }
    control.tell_status();
    Ok(Some(window))
}

fn refused(pool: &str, why: impl fmt::Display) -> ReloadError {
    ReloadError::Refused(anyhow::anyhow!("pool {pool}: {why}"))
}

/// Every shard that is new has to answer once.
async fn wait_for_shards(
    changes: &[Change],
    openings: &[(Arc<config::Pool>, Arc<Topology>)],
    control: &Control,
) -> Result<(), ReloadError> {
    let mut asking = tokio::task::JoinSet::new();
    let changed = changes.iter().map(|change| (&change.config, change.pool.config().shards.clone()));
    let opened = openings.iter().map(|(config, _)| (config, Vec::new()));
    for (config, known) in changed.chain(opened) {
        let Some(limit) = config.adopt_wait else { continue };
        let is_known = |shard: &Shard| {
            known.iter().any(|known| known.name == shard.name && known.address == shard.address)
        };
        for shard in config.shards.iter().filter(|shard| !is_known(shard)).cloned() {
            asking.spawn_local(answers(
                shard,
                config.clone(),
                control.names.clone(),
                control.status.clone(),
                limit,
            ));
        }
    }
    let silent: Vec<String> = asking.join_all().await.into_iter().filter_map(Result::err).collect();
    if control.status.draining.load(Relaxed) {
        return Err(ReloadError::Refused(anyhow::anyhow!("the process is draining")));
    }
    if silent.is_empty() { Ok(()) } else { Err(ReloadError::NotReady(silent.join("; "))) }
}

/// Asks until the shard answers, at most for `limit`.
async fn answers(
    shard: Shard,
    config: Arc<config::Pool>,
    names: Arc<Resolver>,
    status: Arc<Status>,
    limit: Duration,
) -> Result<(), String> {
    let until = tokio::time::Instant::now() + limit;
    loop {
        if status.draining.load(Relaxed) {
            return Err("the process is draining".into());
        }
        let Err(reason) = probe::probe(&shard.address, &names, &config).await else { return Ok(()) };
        if tokio::time::Instant::now() + ADOPT_PAUSE >= until {
            return Err(format!("pool {}: shard {} does not answer: {reason}", config.name, shard.name));
        }
        tokio::time::sleep(ADOPT_PAUSE).await;
    }
}

/// Reloads whenever a file of the configuration changes from what was seen when it was read, as long as the process
/// lives.
pub async fn watch(control: Rc<Control>, mut seen: Fingerprint) {
    let mut retry = false;
    loop {
        tokio::time::sleep(if retry { RETRY_PAUSE } else { WATCH_TICK }).await;
        let now = fingerprint(&control.files.borrow());
        if now == seen && !retry {
            continue;
        }
        if now != seen {
            // It may still be being written.
            tokio::time::sleep(WATCH_TICK).await;
            if fingerprint(&control.files.borrow()) != now {
                continue;
            }
        }
        seen = now;
        // What it lacked may come later: a shard, or a file that it names and that is not watched yet.
        retry = reload(&control, if retry { RETRY } else { "file changed" }).await.is_err();
        // The files may be others now.
        seen = if retry { seen } else { fingerprint(&control.files.borrow()) };
    }
}

/// See [`fingerprint`].
pub type Fingerprint = Vec<Option<[i128; 5]>>;

/// What changes when a file does, also behind symbolic links that are swapped: device, inode, time and size.
pub fn fingerprint(files: &[PathBuf]) -> Fingerprint {
    use std::os::unix::fs::MetadataExt as _;
    let of_file = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        let (device, inode, size) = (found.dev().into(), found.ino().into(), found.size().into());
        Some([device, inode, found.mtime().into(), found.mtime_nsec().into(), size])
    };
    files.iter().map(of_file).collect()
}
