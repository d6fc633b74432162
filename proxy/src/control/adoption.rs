//! New shards before they get keys: each has to answer once, and of a cluster somebody has to say who owns what.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use shard_discovery::Shard;
use shard_discovery::source::cluster::Map;
use tokio::sync::Semaphore;

use super::change::{Change, Opening, Superseded};
use super::{Control, care, probe};
use crate::config;
use crate::net::conversation::ConversationError;
use crate::protocol::questions;

/// Pause between two probes of a shard that is to be adopted.
pub const ADOPT_PAUSE: Duration = Duration::from_millis(200);
/// Probes at once, each with a descriptor: a list may name thousands.
const PROBES_MAX: usize = 64;

/// Every shard that is new has to answer once, and none may refuse a new password. Of clusters that are new somebody has
/// to say who owns what; returns that by the names of their pools. Ends early, with [`Superseded`], once that is needed no more.
pub async fn wait_for_shards(
    changes: &[Change],
    openings: &[Opening],
    control: &Rc<Control>,
    is_superseded: &dyn Fn() -> bool,
) -> anyhow::Result<HashMap<String, Map>> {
    let maps = wait_for_clusters(changes, openings, control, is_superseded).await?;
    let mut asking = tokio::task::JoinSet::new();
    let probes = Rc::new(Semaphore::new(PROBES_MAX));
    let changed =
        changes.iter().map(|change| (&change.config, Some((change.pool.config(), change.pool.topology()))));
    let opened = openings.iter().map(|(config, _)| (config, None));
    for (config, before) in changed.chain(opened) {
        let Some(limit) = config.adopt_wait else { continue };
        let (known, has_new_auth) = match &before {
            // Where they are, or who they have to be, may have changed for all.
            Some((before, topology))
                if before.servers_srv == config.servers_srv
                    && (before.shard_identity || !config.shard_identity) =>
            {
                (topology.shards(), before.auth != config.auth)
            }
            _ => (&[][..], false),
        };
        let is_known = |shard: &Shard| {
            known.iter().any(|known| known.name == shard.name && known.address == shard.address)
        };
        let names = |shards: &[Shard]| shards.iter().map(|shard| shard.name.clone()).collect::<HashSet<_>>();
        let used = before.as_ref().map(|(_, topology)| names(topology.shards())).unwrap_or_default();
        let new = config.shards.iter().filter(|shard| before.is_some() && !used.contains(&shard.name));
        control.rings.awaits(&config.name, new.map(|shard| shard.name.clone()).collect());
        for shard in &config.shards {
            let what = match is_known(shard) {
                false => WhyAsked::Adopted,
                true if has_new_auth => WhyAsked::NewPassword,
                true => continue,
            };
            let (shard, config, control, probes) =
                (shard.clone(), config.clone(), control.clone(), probes.clone());
            asking.spawn_local(async move {
                let answer = answers(&shard, what, &config, &control, &probes, limit).await;
                (config.name.clone(), what, answer)
            });
        }
    }
    control.tell_rings();
    let mut silent = Vec::new();
    // By pool: who takes the new password, and who does not.
    let mut passwords: HashMap<String, (usize, Vec<String>)> = HashMap::new();
    let answers = tokio::select! {
        answers = asking.join_all() => answers,
        () = until(|| is_superseded() || control.refuse_draining().is_err()) => {
            // Also where it would be needed again by now.
            control.refuse_draining()?;
            return Err(Superseded.into());
        }
    };
    for (pool, what, answer) in answers {
        match (what, answer) {
            (WhyAsked::Adopted, answer) => silent.extend(answer.err()),
            (WhyAsked::NewPassword, Ok(())) => passwords.entry(pool).or_default().0 += 1,
            (WhyAsked::NewPassword, Err(words)) => passwords.entry(pool).or_default().1.push(words),
        }
    }
    // Where some take it and some do not, it is just being changed.
    silent.extend(passwords.into_values().filter(|(taken, _)| *taken == 0).flat_map(|(_, refused)| refused));
    control.refuse_draining()?;
    if is_superseded() {
        return Err(Superseded.into());
    }
    if silent.is_empty() { Ok(maps) } else { Err(anyhow!(silent.join("; "))) }
}

async fn wait_for_clusters(
    changes: &[Change],
    openings: &[Opening],
    control: &Rc<Control>,
    is_superseded: &dyn Fn() -> bool,
) -> anyhow::Result<HashMap<String, Map>> {
    let is_new = |change: &&Change| {
        let seeds = |config: &config::Pool| config.cluster().map(|cluster| cluster.seeds.clone());
        seeds(&change.config) != seeds(&change.pool.config())
            || change.config.auth != change.pool.config().auth
    };
    let changed = changes.iter().filter(is_new).map(|change| &change.config);
    let mut maps = HashMap::new();
    for config in
        changed.chain(openings.iter().map(|(config, _)| config)).filter(|config| config.cluster().is_some())
    {
        let Some(limit) = config.adopt_wait else { continue };
        let until = tokio::time::Instant::now() + limit;
        let map = loop {
            match care::cluster::discover(config, &control.names, &Map::default(), true, 0).await {
                Ok(map) => break map,
                Err(reason) => {
                    control.refuse_draining()?;
                    if is_superseded() {
                        return Err(Superseded.into());
                    }
                    if tokio::time::Instant::now() + ADOPT_PAUSE >= until {
                        bail!("pool {}: cluster slot discovery failed: {reason}", config.name);
                    }
                    tokio::time::sleep(ADOPT_PAUSE).await;
                }
            }
        };
        config.topology_of(&map.listing()).with_context(|| format!("pool {}", config.name))?;
        maps.insert(config.name.clone(), map);
    }
    Ok(maps)
}

/// Why a shard is asked.
#[derive(Clone, Copy)]
enum WhyAsked {
    /// It is to get keys.
    Adopted,
    /// It is known, and there is a new password, or none any more. It need not be there.
    NewPassword,
}

/// Asks until the shard answers, at most for `limit`.
async fn answers(
    shard: &Shard,
    what: WhyAsked,
    config: &config::Pool,
    control: &Control,
    probes: &Semaphore,
    limit: Duration,
) -> Result<(), String> {
    let complaint = match what {
        WhyAsked::Adopted => "does not answer",
        WhyAsked::NewPassword => "rejected the new password",
    };
    let mut reason = "timed out".to_owned();
    let asking = async {
        loop {
            let turn = probes.acquire().await;
            let answer = probe::probe(&shard.address, &control.names, config).await;
            drop(turn);
            match answer {
                Ok(()) => return Ok(()),
                Err(error) if matches!(what, WhyAsked::NewPassword) => {
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
    }
    Err(format!("pool {}: shard {} {complaint}: {reason}", config.name, shard.name))
}

fn is_about_passwords(error: &ConversationError) -> bool {
    let ConversationError::Refused(words) = error else { return false };
    questions::is_denial(words)
}

/// Returns once this is so.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(ADOPT_PAUSE).await;
    }
}
