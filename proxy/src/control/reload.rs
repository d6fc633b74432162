//! Another configuration while clients are served: read aside, and applied as a whole or not at all.
//!
//! Whatever can go wrong goes wrong before the first worker hears of it: mistakes in the file, addresses that are taken,
//! shards that do not answer. What stays is not touched. While shards are waited for lists go on changing pools; where that
//! concerns one that is to change here, it is all compared anew.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use shard_discovery::Address;
use shard_discovery::source::cluster::Map;

use super::adoption::{ADOPT_PAUSE, wait_for_shards};
use super::change::{self, Change, Opening, Superseded};
use super::doors::{GivenUp, OpenDoor};
use super::files::Files;
use super::pool::PoolControl;
use super::{Control, care, doors, lists};
use crate::admin::Reloaded;
use crate::config;
use crate::net::listen::Listener;
use crate::status::{Difference, Status};

/// How often the files of the configuration are looked at.
const WATCH_TICK: Duration = Duration::from_secs(1);
/// Times a file that is being written is looked at before it is read all the same.
const UNSTABLE_MAX: usize = 3;
/// Pause before a reload that failed is tried again: what it lacked may come later, a shard or a file.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// Why a reload that failed is tried again.
const RETRY: &str = "retry";

/// Reads the configuration again and applies it.
pub async fn reload(control: &Rc<Control>, trigger: &str) -> anyhow::Result<Reloaded> {
    let _running = control.reloading.lock().await;
    let begun = Instant::now();
    let mut result = attempt(control).await;
    // Not for ever: somebody may wait for the answer.
    while result.as_ref().is_err_and(|error| error.is::<Superseded>())
        && begun.elapsed() < restart_max(control)
    {
        tracing::info!(trigger, "configuration reload restarted: {Superseded}");
        tokio::time::sleep(ADOPT_PAUSE).await;
        result = attempt(control).await;
    }
    control.tell_rings();
    // Also those of a configuration that was refused.
    control.forget_hosts();
    // Those that are no more are closed with their listeners.
    for pool in control.served() {
        pool.entrances.tolerate_none(pool.config().reuseport);
    }
    match &mut result {
        Ok(None) => {
            control.status.reload_needless(trigger);
            tracing::info!(trigger, "configuration unchanged");
        }
        Ok(Some(Applied { window, changes })) => {
            control.status.reloaded(*window, trigger, std::mem::take(changes));
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
                control.status.reload_failed(trigger, error);
            }
        }
    }
    result.map(|applied| Reloaded {
        generation: control.status.generation.load(Relaxed),
        changed: applied.is_some(),
        need_restart: control.told_fixed.borrow().clone(),
    })
}

/// What is superseded after so long fails: the longest that new shards are waited for.
fn restart_max(control: &Control) -> Duration {
    let waits = control.served().into_iter().filter_map(|pool| pool.config().adopt_wait);
    waits.max().unwrap_or(RETRY_PAUSE)
}

/// What came of a configuration that is another one.
struct Applied {
    /// How long workers disagreed.
    window: Duration,
    changes: Vec<Difference>,
}

/// Returns nothing if nothing has changed.
async fn attempt(control: &Rc<Control>) -> anyhow::Result<Option<Applied>> {
    control.refuse_draining()?;
    let mut config = control.read()?;
    // As they are before anything is awaited: lists go on changing them.
    let present: Vec<Present> = control.served().into_iter().map(|pool| (pool.config(), pool)).collect();
    let served: Vec<_> = present.iter().map(|(config, _)| config.clone()).collect();
    lists::settle(&mut config.pools, &served, &control.names).await?;
    let mut shown = std::mem::take(&mut config.shown);
    let wanted = Wanted::compare(control, config, &present)?;
    shown.keep(&control.status.shown(), &control.told_fixed.borrow());
    let Some(wanted) = wanted else {
        // Lines may have moved.
        control.status.set_shown(shown);
        return Ok(None);
    };
    let mut doors = Vec::new();
    for change in &wanted.changes {
        doors.push(doors::find(&change.config, Some(&change.before), &wanted.given_up)?);
    }
    let mut opening_doors = Vec::new();
    for (config, _) in &wanted.openings {
        opening_doors.push(doors::find(config, None, &wanted.given_up)?);
    }
    let is_superseded = || control.has_changed() || wanted.changes.iter().any(Change::is_overtaken);
    let maps = wait_for_shards(&wanted.changes, &wanted.openings, control, &is_superseded).await?;
    // Only now: lists of other pools do not wait for these shards.
    let _changing = control.changing.lock().await;
    control.refuse_draining()?;
    if is_superseded() {
        return Err(Superseded.into());
    }
    let pools = wanted.changes.iter().map(|change| &change.config);
    let doors = pools
        .zip(doors)
        .map(|(pool, doors)| doors::open(&pool.name, doors))
        .collect::<Result<Vec<_>, _>>()?;
    let pools = wanted.openings.iter().map(|(pool, _)| pool).zip(opening_doors);
    let opening_doors =
        pools.map(|(pool, doors)| doors::open(&pool.name, doors)).collect::<Result<Vec<_>, _>>()?;
    // From here on nothing can fail.
    let changes = wanted.differences(&control.status, &shown);
    let window = wanted.apply(control, maps, doors, opening_doors).await;
    control.status.set_shown(shown);
    Ok(Some(Applied { window, changes }))
}

/// A pool that is served, under this configuration.
type Present = (Arc<config::Pool>, Rc<PoolControl>);

/// What is to be other than it is.
struct Wanted {
    settings: config::Process,
    memory_max: usize,
    changes: Vec<Change>,
    openings: Vec<Opening>,
    removed: Vec<Rc<PoolControl>>,
    /// Listeners that pools give up.
    given_up: Vec<GivenUp>,
}

impl Wanted {
    /// What the configuration changes, if anything.
    fn compare(
        control: &Control,
        config: config::Config,
        present: &[Present],
    ) -> anyhow::Result<Option<Self>> {
        let process = control.status.process();
        let (settings, fixed) = process.adopt(config.process);
        if control.told_fixed.replace(fixed.clone()) != fixed && !fixed.is_empty() {
            tracing::warn!(settings = %fixed.join(", "), "changed settings need a restart");
        }
        let names: HashSet<String> = config.pools.iter().map(|pool| pool.name.clone()).collect();
        let memory_max = super::memory_max(&settings);
        doors::refuse_overlaps(&config.pools)?;
        let mut changes = Vec::new();
        let mut openings = Vec::new();
        for wanted in config.pools {
            // What is listed can be used; a cluster's slots are asked for below.
            let topology = wanted.topology().with_context(|| format!("pool {}", wanted.name))?;
            let config = Arc::new(wanted);
            match present.iter().find(|(before, _)| before.name == config.name) {
                None => openings.push((config, Arc::new(topology))),
                Some((before, pool)) if *before == config && pool.memory_max() == memory_max => {}
                Some((before, _)) if before.protocol != config.protocol => bail!(
                    "pool {}: a pool that is served cannot change between Redis and memcache; give it another name",
                    config.name
                ),
                Some((before, pool)) => {
                    changes.push(Change { pool: pool.clone(), before: before.clone(), config });
                }
            }
        }
        let removed: Vec<_> = present
            .iter()
            .filter(|(before, _)| !names.contains(&before.name))
            .map(|(_, pool)| pool.clone())
            .collect();
        if changes.is_empty() && openings.is_empty() && removed.is_empty() && settings == *process {
            return Ok(None);
        }
        let moved =
            changes.iter().flat_map(|change: &Change| GivenUp::of(&change.pool, Some(&change.config)));
        let given_up = removed.iter().flat_map(|pool| GivenUp::of(pool, None)).chain(moved).collect();
        Ok(Some(Self { settings, memory_max, changes, openings, removed, given_up }))
    }

    /// What is other than it was: settings, then pools and their shards.
    fn differences(&self, status: &Status, shown: &config::Shown) -> Vec<Difference> {
        let mut found = change::settings(&status.shown(), shown);
        if self.settings.admin_token != status.process().admin_token {
            found.push(Difference::of_secret(None, "admin_token_file"));
        }
        let name = |pool: &Rc<PoolControl>| pool.config().name.clone();
        let removed = self.removed.iter().map(|pool| Difference::of_pool(name(pool), false));
        let opened = self.openings.iter().map(|(config, _)| Difference::of_pool(config.name.clone(), true));
        let changed = self.changes.iter().flat_map(Change::differences);
        found.extend(removed.chain(opened).chain(changed));
        found
    }

    /// Returns how long workers disagreed.
    async fn apply(
        self,
        control: &Rc<Control>,
        mut maps: HashMap<String, Map>,
        doors: Vec<Vec<OpenDoor>>,
        opening_doors: Vec<Vec<OpenDoor>>,
    ) -> Duration {
        for change in &self.changes {
            control.rings.awaits(&change.config.name, Vec::new());
        }
        if self.settings.log_level != control.status.process().log_level {
            let _ = (control.set_log_level)(&self.settings.log_level);
        }
        control.status.set_process(self.settings);
        // Before the pools that own the listeners take other configurations.
        let mut given = Vec::new();
        let concerned = self.changes.iter().map(|change| &change.pool).chain(&self.removed);
        for pool in concerned {
            let is_given = |at: &config::Listen| {
                self.given_up.iter().any(|given| Rc::ptr_eq(&given.pool, pool) && given.at.is_at(at))
            };
            given.extend(pool.close(is_given).await);
        }
        let mut window = Duration::ZERO;
        for (Change { pool, config, .. }, doors) in self.changes.into_iter().zip(doors) {
            for at in config.listeners.iter().map(|listener| &listener.at) {
                let Err(error) = at.permit() else { continue };
                tracing::warn!(pool = %config.name, listen = %at, reason = %error, "changing socket permissions failed");
            }
            pool.set_memory_max(self.memory_max);
            let listing = pool.listing_of(&config, maps.remove(&config.name));
            window = window.max(pool.reconfigure(config, &listing).await);
            begin(&pool, doors, &given);
        }
        for ((config, topology), doors) in self.openings.into_iter().zip(opening_doors) {
            let map = maps.remove(&config.name);
            let pool = control.open(config.clone(), topology, self.memory_max);
            if map.is_some() {
                let listing = pool.listing_of(&config, map);
                pool.reconfigure(config, &listing).await;
            }
            begin(&pool, doors, &given);
        }
        for pool in &self.removed {
            pool.removed.set(true);
            pool.drain(control.status.process().drain_limit).await;
            tracing::info!(pool = %pool.config().name, "pool removed; draining its clients");
        }
        control.tell_status();
        // Nobody finds them from here on to begin to watch them. They are kept for long after they have ended.
        self.removed.iter().for_each(|pool| pool.end_watching());
        window
    }
}

/// The pool is as it is to be.
fn begin(pool: &Rc<PoolControl>, doors: Vec<OpenDoor>, given_up: &[(config::Listen, Rc<Listener>)]) {
    tokio::task::spawn_local(care::capabilities::learn(pool.clone()));
    doors.into_iter().for_each(|door| pool.accept(door, given_up));
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
                let list = config.source.polled().into_iter().flat_map(|polled| polled.places());
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
