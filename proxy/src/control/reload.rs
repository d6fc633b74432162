//! Another configuration while clients are served: read aside, and applied as a whole or not at all.
//!
//! Whatever can go wrong goes wrong before the first worker hears of it: mistakes in the file, addresses that are taken,
//! shards that do not answer. What stays is not touched.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use shard_discovery::Address;

use super::adoption::{ADOPT_PAUSE, wait_for_shards};
use super::change::{Change, Superseded};
use super::files::Files;
use super::pool::PoolControl;
use super::{Control, care, lists};
use crate::admin::Reloaded;
use crate::config::{self, Listen};
use crate::net::listen::{Bound, Listener};

/// How often the files of the configuration are looked at.
const WATCH_TICK: Duration = Duration::from_secs(1);
/// Times a file that is being written is looked at before it is read all the same.
const UNSTABLE_MAX: usize = 3;
/// Pause before a reload that failed is tried again: what it lacked may come later, a shard or a file.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// Why a reload that failed is tried again.
const RETRY: &str = "retry";
/// Where a pool's clients are to be accepted.
enum Door {
    Bound(Bound, Arc<config::Pool>),
    /// The listener of this pool, which gives it up.
    From(Rc<PoolControl>),
}

/// Reads the configuration again and applies it.
pub async fn reload(control: &Rc<Control>, trigger: &str) -> anyhow::Result<Reloaded> {
    let _running = control.reloading.lock().await;
    let mut result = attempt(control).await;
    while result.as_ref().is_err_and(|error| error.is::<Superseded>()) {
        tracing::info!(trigger, "configuration reload restarted: the files changed while they were read");
        tokio::time::sleep(ADOPT_PAUSE).await;
        result = attempt(control).await;
    }
    control.tell_rings();
    // Also those of a configuration that was refused.
    control.forget_hosts();
    // Those that are no more are closed with their listeners.
    for pool in control.served() {
        pool.tolerate(false);
    }
    match &result {
        Ok(None) => {
            control.status.reload_needless();
            tracing::info!(trigger, "configuration unchanged");
        }
        Ok(Some(window)) => {
            control.status.reloaded(*window);
            let generation = control.status.generation.load(Relaxed);
            tracing::info!(trigger, generation, ?window, "configuration reloaded");
        }
        Err(error) => {
            let error = format!("{error:#}");
            // It is tried again and again, and has been told.
            if trigger != RETRY || control.status.last_error().as_ref() != Some(&error) {
                tracing::error!(
                    trigger,
                    reason = error,
                    "configuration reload failed; keeping the previous configuration"
                );
                control.status.reload_failed(error);
            }
        }
    }
    result.map(|window| Reloaded {
        generation: control.status.generation.load(Relaxed),
        changed: window.is_some(),
        need_restart: control.told_fixed.borrow().clone(),
    })
}

/// Returns how long workers disagreed, or nothing if nothing has changed.
async fn attempt(control: &Rc<Control>) -> anyhow::Result<Option<Duration>> {
    control.refuse_draining()?;
    let mut config = control.read()?;
    lists::settle(&mut config.pools, &control.served(), &control.names).await?;
    let process = control.status.process();
    let (settings, fixed) = process.adopt(config.process);
    if control.told_fixed.replace(fixed.clone()) != fixed && !fixed.is_empty() {
        tracing::warn!(settings = %fixed.join(", "), "changed settings need a restart");
    }
    let present = control.served();
    let names: HashSet<String> = config.pools.iter().map(|pool| pool.name.clone()).collect();
    let memory_max = super::memory_max(&settings);
    let digest = config::digest(&settings, config.pools.iter());
    refuse_overlaps(&config.pools)?;
    let mut changes = Vec::new();
    let mut openings = Vec::new();
    for wanted in config.pools {
        // What is listed can be used; a cluster's slots are asked for below.
        let topology = wanted.topology().with_context(|| format!("pool {}", wanted.name))?;
        let config = Arc::new(wanted);
        match present.iter().find(|pool| pool.config().name == config.name) {
            None => openings.push((config, Arc::new(topology))),
            Some(pool) if pool.config() == config && pool.memory_max() == memory_max => {}
            Some(pool) if pool.config().protocol != config.protocol => bail!(
                "pool {}: a pool that is served cannot change between Redis and memcache; give it another name",
                config.name
            ),
            Some(pool) => changes.push(Change { pool: pool.clone(), config }),
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
    let mut maps = wait_for_shards(&changes, &openings, control, &|| control.has_changed()).await?;
    let doors = open_doors(doors)?;
    let opening_doors = open_doors(opening_doors)?;

    // From here on nothing can fail.
    for change in &changes {
        control.rings.awaits(&change.config.name, Vec::new());
    }
    if settings.log_level != process.log_level {
        let _ = (control.set_log_level)(&settings.log_level);
    }
    control.status.set_process(settings);
    control.status.set_digest(digest);
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
    for (Change { pool, config }, listener) in changes.into_iter().zip(entered) {
        if let Err(error) = config.listen.permit() {
            tracing::warn!(pool = %config.name, listen = %config.listen, reason = %error, "changing socket permissions failed");
        }
        pool.set_memory_max(memory_max);
        let listing = pool.listing_of(&config, maps.remove(&config.name));
        window = window.max(pool.reconfigure(config, &listing).await);
        tokio::task::spawn_local(care::capabilities::learn(pool.clone()));
        if let Some(listener) = listener {
            pool.accept(listener);
        }
    }
    for ((config, topology), listener) in openings.into_iter().zip(opened) {
        let map = maps.remove(&config.name);
        let pool = control.open(config.clone(), topology, memory_max);
        if map.is_some() {
            let listing = pool.listing_of(&config, map);
            pool.reconfigure(config, &listing).await;
        }
        tokio::task::spawn_local(care::capabilities::learn(pool.clone()));
        if let Some(listener) = listener {
            pool.accept(listener);
        }
    }
    for pool in removed {
        pool.removed.set(true);
        pool.drain(control.status.process().drain_limit).await;
        tracing::info!(pool = %pool.config().name, "pool removed; draining its clients");
    }
    control.tell_status();
    Ok(Some(window))
}

/// Takes the address that the pool is to listen on, if nobody here has it to give.
fn find_door(config: &Arc<config::Pool>, given_up: &[Rc<PoolControl>]) -> anyhow::Result<Door> {
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
    match Bound::new(config, !beside.is_empty()) {
        Ok(bound) => Ok(Door::Bound(bound, config.clone())),
        Err(error) => Err(taken(config, error)),
    }
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
        Some(Door::Bound(bound, config)) => {
            let listener = bound.listen().map_err(|error| taken(&config, error.into()))?;
            Ok(Some(OpenDoor::Listening(listener)))
        }
    };
    doors.into_iter().map(open).collect()
}

fn taken(config: &config::Pool, error: anyhow::Error) -> anyhow::Error {
    error.context(format!("pool {}: cannot listen on {}", config.name, config.listen))
}

/// Where one port is listened on twice the kernel may send clients to either.
fn refuse_overlaps(pools: &[config::Pool]) -> anyhow::Result<()> {
    for (index, pool) in pools.iter().enumerate() {
        let overlaps = |other: &&config::Pool| {
            pool.listen.overlaps(&other.listen) && !(pool.reuseport && other.reuseport)
        };
        if let Some(other) = pools[..index].iter().find(overlaps) {
            bail!(
                "pool {}: cannot listen on {}: pool {} listens on {}; give one of them another port",
                pool.name,
                pool.listen,
                other.name,
                other.listen
            );
        }
    }
    Ok(())
}

impl Control {
    /// Reads the configuration again. What changes from now on is a change.
    fn read(&self) -> anyhow::Result<config::Config> {
        let before = self.files.borrow().again();
        let mut config = (self.load)();
        if let Ok(config) = &mut config {
            self.rings.settle(&mut config.pools);
        }
        let named = match &config {
            Ok(config) if config.files != before.paths => Files::look(config.files.clone(), &before),
            _ => before,
        };
        self.files.replace(named);
        config
    }

    /// Whether a file has changed since it was read.
    pub(super) fn has_changed(&self) -> bool {
        let files = self.files.borrow();
        files.again() != *files
    }

    pub(super) fn refuse_draining(&self) -> anyhow::Result<()> {
        if self.status.draining.load(Relaxed) { Err(anyhow!("the process is draining")) } else { Ok(()) }
    }

    /// Where shards were that are in no pool any more.
    pub(super) fn forget_hosts(&self) {
        let pools: Vec<_> = self.served().iter().map(|pool| (pool.config(), pool.topology())).collect();
        let hosts: HashSet<&str> = pools
            .iter()
            .flat_map(|(config, topology)| {
                let seeds = config.cluster().into_iter().flat_map(|cluster| &cluster.seeds);
                let list = config.source.polled().map(|polled| polled.place());
                topology.shards().iter().map(|shard| &shard.address).chain(seeds).chain(list)
            })
            .filter_map(|address| match address {
                Address::Tcp { host, .. } => Some(host.as_str()),
                Address::Unix(_) => None,
            })
            .chain(pools.iter().filter_map(|(config, _)| config.servers_srv.as_deref()))
            .collect();
        self.names.retain(|host| hosts.contains(host));
    }
}

/// Reloads whenever a file of the configuration has changed since it was read, as long as the process lives.
pub async fn watch(control: Rc<Control>) {
    loop {
        let retry = control.status.last_error().is_some();
        let mut slept = Duration::ZERO;
        while slept < if retry { RETRY_PAUSE } else { WATCH_TICK }
            && !control.has_changed()
            && (slept.is_zero() || !control.rings.is_due())
        {
            tokio::time::sleep(WATCH_TICK).await;
            slept += WATCH_TICK;
        }
        if control.rings.is_due() && control.refuse_draining().is_ok() {
            let _ = reload(&control, "servers_within_limit reached").await;
        }
        if !control.status.process().watch_config {
            tokio::time::sleep(WATCH_TICK).await;
            continue;
        }
        if control.has_changed() {
            // It may still be being written, but not for ever.
            for _ in 0..UNSTABLE_MAX {
                let now = control.files.borrow().again();
                tokio::time::sleep(WATCH_TICK).await;
                if now.again() == now {
                    break;
                }
            }
            let _ = reload(&control, "file changed").await;
        } else if retry {
            let _ = reload(&control, RETRY).await;
        }
    }
}
