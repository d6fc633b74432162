//! Another configuration while clients are served: read aside, and applied as a whole or not at all.
//!
//! Whatever can go wrong goes wrong before the first worker hears of it: mistakes in the file, addresses that are taken,
//! shards that do not answer. What stays is not touched.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use shard_discovery::{Address, Shard, Topology};

use super::listener::{Bound, Listener};
use super::pools::PoolControl;
use super::{Control, cluster, learn, probe};
use crate::admin::Reloaded;
use crate::cluster::map::Map;
use crate::config::fnv;
use crate::config::{self, Listen};
use crate::conversation::ConversationError;

/// How often the files of the configuration are looked at.
const WATCH_TICK: Duration = Duration::from_secs(1);
/// Times a file that is being written is looked at before it is read all the same.
const UNSTABLE_MAX: usize = 3;
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
    Bound(Bound, Arc<config::Pool>),
    /// The listener of this pool, which gives it up.
    From(Rc<PoolControl>),
}

/// The files have changed since they were read: what they say now counts.
#[derive(Debug, thiserror::Error)]
#[error("the files have changed again since they were read")]
struct Superseded;

/// Reads the configuration again and applies it.
pub async fn reload(control: &Rc<Control>, why: &str) -> anyhow::Result<Reloaded> {
    let _running = control.reloading.lock().await;
    let mut result = attempt(control).await;
    while result.as_ref().is_err_and(|error| error.is::<Superseded>()) {
        tracing::info!(why, "reload: the files have changed again since they were read");
        tokio::time::sleep(ADOPT_PAUSE).await;
        result = attempt(control).await;
    }
    control.tell_rings();
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
    result.map(|window| Reloaded {
        generation: control.status.generation.load(Relaxed),
        changed: window.is_some(),
        need_restart: control.told_fixed.borrow().clone(),
    })
}

/// Returns how long workers disagreed, or nothing if nothing has changed.
async fn attempt(control: &Rc<Control>) -> anyhow::Result<Option<Duration>> {
    control.refuse_draining()?;
    let config = control.read()?;
    let process = control.status.process();
    let (settings, fixed) = process.adopt(config.process);
    if control.told_fixed.replace(fixed.clone()) != fixed && !fixed.is_empty() {
        tracing::warn!(settings = %fixed.join(", "), "settings have changed that need a restart");
    }
    let present = control.served();
    let names: HashSet<String> = config.pools.iter().map(|pool| pool.name.clone()).collect();
    let memory_max = super::memory_max(&settings);
    let digest = config::digest(&settings, &config.pools);
    refuse_overlaps(&config.pools)?;
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
            // Where they are, or who they have to be, may have changed for all.
            Some(before)
                if before.servers_srv == config.servers_srv
                    && (before.shard_identity || !config.shard_identity) =>
            {
                (&before.shards[..], before.auth != config.auth)
            }
            _ => (&[][..], false),
        };
        let is_known = |shard: &Shard| {
            known.iter().any(|known| known.name == shard.name && known.address == shard.address)
        };
        let names = |shards: &[Shard]| shards.iter().map(|shard| shard.name.clone()).collect::<HashSet<_>>();
        let used = before.as_ref().map(|before| names(&before.shards[..])).unwrap_or_default();
        let new = config.shards.iter().filter(|shard| before.is_some() && !used.contains(&shard.name));
        control.rings.awaits(&config.name, new.map(|shard| shard.name.clone()).collect());
        for shard in &config.shards {
            let what = match is_known(shard) {
                false => Asked::Adopted,
                true if has_new_auth => Asked::NewPassword,
                true => continue,
            };
            let (shard, config, control) = (shard.clone(), config.clone(), control.clone());
            asking.spawn_local(async move {
                let answer = answers(&shard, what, &config, &control, limit).await;
                (config.name.clone(), what, answer)
            });
        }
    }
    control.tell_rings();
    let mut silent = Vec::new();
    // By pool: who takes the new password, and who does not.
    let mut passwords: HashMap<String, (usize, Vec<String>)> = HashMap::new();
    for (pool, what, answer) in asking.join_all().await {
        match (what, answer) {
            (Asked::Adopted, answer) => silent.extend(answer.err()),
            (Asked::NewPassword, Ok(())) => passwords.entry(pool).or_default().0 += 1,
            (Asked::NewPassword, Err(words)) => passwords.entry(pool).or_default().1.push(words),
        }
    }
    // Where some take it and some do not, it is just being changed.
    silent.extend(passwords.into_values().filter(|(taken, _)| *taken == 0).flat_map(|(_, refused)| refused));
    control.refuse_draining()?;
    if control.has_changed() {
        return Err(Superseded.into());
    }
    if silent.is_empty() { Ok(maps) } else { Err(anyhow!(silent.join("; "))) }
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
            match cluster::discover(config, &control.names, &Map::default(), true, 0).await {
                Ok(map) => break map,
                Err(reason) => {
                    control.refuse_draining()?;
                    if control.has_changed() {
                        return Err(Superseded.into());
                    }
                    if tokio::time::Instant::now() + ADOPT_PAUSE >= until {
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
    /// It is known, and there is a new password, or none any more. It need not be there.
    NewPassword,
}

/// Asks until the shard answers, at most for `limit`, and only as long as its answer matters.
async fn answers(
    shard: &Shard,
    what: Asked,
    config: &config::Pool,
    control: &Control,
    limit: Duration,
) -> Result<(), String> {
    let complaint = match what {
        Asked::Adopted => "does not answer",
        Asked::NewPassword => "does not take the new password",
    };
    let mut reason = "it takes too long".to_owned();
    let asking = async {
        loop {
            match probe::probe(&shard.address, &control.names, config).await {
                Ok(()) => return Ok(()),
                Err(error) if matches!(what, Asked::NewPassword) => {
                    // Once: another shard may take it.
                    return if is_about_passwords(&error) { Err(error.to_string()) } else { Ok(()) };
                }
                Err(error) => reason = error.to_string(),
            }
            tokio::time::sleep(ADOPT_PAUSE).await;
        }
    };
    tokio::select! {
        answer = asking => if let Err(words) = answer { reason = words } else { return Ok(()) },
        () = tokio::time::sleep(limit) => {}
        () = control.is_overtaken() => {}
    }
    Err(format!("pool {}: shard {} {complaint}: {reason}", config.name, shard.name))
}

fn is_about_passwords(error: &ConversationError) -> bool {
    let ConversationError::Refused(words) = error else { return false };
    ["WRONGPASS", "NOAUTH", "NOPERM", "ERR invalid password"].iter().any(|code| words.starts_with(code))
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
    fn has_changed(&self) -> bool {
        let files = self.files.borrow();
        files.again() != *files
    }

    /// Returns when what is read now will not be needed.
    async fn is_overtaken(&self) {
        while !self.has_changed() && self.refuse_draining().is_ok() {
            tokio::time::sleep(ADOPT_PAUSE).await;
        }
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
            .chain(configs.iter().filter_map(|config| config.servers_srv.as_deref()))
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
            let _ = reload(&control, "servers_within has ended").await;
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

/// Files, and a hash of what is in them.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Files {
    paths: Vec<PathBuf>,
    state: Vec<Option<u64>>,
}

impl Files {
    /// As they are now, where they were like this before.
    pub fn look(paths: Vec<PathBuf>, former: &Self) -> Self {
        Self::read_by(|path| std::fs::read(path), paths, former)
    }

    fn again(&self) -> Self {
        Self::look(self.paths.clone(), self)
    }

    fn read_by(read: impl Fn(&Path) -> io::Result<Vec<u8>>, paths: Vec<PathBuf>, former: &Self) -> Self {
        let hash = |path: &PathBuf| match read(path) {
            Ok(bytes) => Some(fnv(&bytes)),
            // That says nothing of the file: without a descriptor nobody knows of a change, and nobody could read it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                let place = former.paths.iter().position(|known| known == path);
                place.and_then(|place| former.state[place])
            }
            Err(_) => None,
        };
        Self { state: paths.iter().map(hash).collect(), paths }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_there_is_no_descriptor_for_has_not_changed() {
        let paths = || vec![PathBuf::from("a"), PathBuf::from("b")];
        let read = Files::read_by(|_| Ok(b"text".to_vec()), paths(), &Files::default());
        for lack in [libc::EMFILE, libc::ENFILE] {
            let lacking = |_: &Path| Err(io::Error::from_raw_os_error(lack));
            assert_eq!(Files::read_by(lacking, paths(), &read), read);
        }
        let gone = |_: &Path| Err(io::Error::from_raw_os_error(libc::ENOENT));
        assert_ne!(Files::read_by(gone, paths(), &read), read);
    }
}
