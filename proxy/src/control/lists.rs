//! Lists of shards that are asked for over the network: known before the first client comes, then asked for again and again.
//!
//! Another list is taken over as a reload takes one over: once its new shards have answered. Until then, and while the source
//! cannot be asked or lists what cannot be used, the one before stays.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use shard_discovery::Address;
use shard_discovery::resolver::Resolver;
use shard_discovery::source::{Listing, Polled, Source};
use tokio::time::Instant;

use super::adoption::wait_for_shards;
use super::change::Change;
use super::pool::PoolControl;
use super::{Control, care};
use crate::config;
use crate::log_limit::{LogLimit, warn_limited};

/// How often it is looked whether there is another pool whose list has to be asked for.
const TICK: Duration = Duration::from_millis(250);

/// Fills in what is listed for pools whose configuration was read just now. Those that are served already keep their list.
pub async fn settle(
    pools: &mut [config::Pool],
    served: &[Arc<config::Pool>],
    names: &Resolver,
) -> anyhow::Result<()> {
    let asking = pools.iter_mut().filter(|pool| pool.source.polled().is_some()).map(async |pool| {
        let failed = || format!("pool {}: the list of servers cannot be used", pool.name);
        let mut present = served.iter();
        let present = present.find(|present| present.name == pool.name && present.source == pool.source);
        let present = present.map(|present| present.listing());
        let listing = match present.filter(|listing| pool.topology_of(listing).is_ok()) {
            Some(listing) => listing,
            // Keys are to be dealt otherwise: there may be a list by now that says the same.
            None => match ask(&pool.source, None, names).await.with_context(failed)? {
                Polled::Same => Listing::default(),
                Polled::Listed { listing, .. } => listing,
            },
        };
        pool.topology_of(&listing).with_context(failed)?;
        (pool.shards, pool.placement) = (listing.servers, listing.placement);
        anyhow::Ok(())
    });
    try_join_all(asking).await.map(drop)
}

/// Follows the lists of all pools as long as the process lives.
pub async fn follow(control: Rc<Control>) {
    let followed: Rc<RefCell<HashSet<usize>>> = Rc::default();
    loop {
        for pool in control.served() {
            if pool.config().source.polled().is_some() && followed.borrow_mut().insert(pool.number) {
                let (control, followed) = (control.clone(), followed.clone());
                tokio::task::spawn_local(async move {
                    follow_one(&control, &pool).await;
                    followed.borrow_mut().remove(&pool.number);
                });
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn follow_one(control: &Rc<Control>, pool: &Rc<PoolControl>) {
    let mut version: Option<String> = None;
    let mut asked = pool.config().source.clone();
    while let Some(pause) = asked.polled().map(|source| source.refresh()) {
        let until = Instant::now() + pause;
        while is_followed(control, pool) && pool.config().source == asked && Instant::now() < until {
            tokio::time::sleep_until(until.min(Instant::now() + TICK)).await;
        }
        if !is_followed(control, pool) {
            return;
        }
        let config = pool.config();
        if config.source != asked {
            // Asked for just now.
            (asked, version) = (config.source.clone(), None);
            continue;
        }
        // After an error the whole list is asked for: it may be the condition that was refused.
        let known = version.take();
        let result = match ask(&asked, known.as_deref(), &control.names).await {
            Ok(Polled::Same) => {
                version = known;
                Ok(())
            }
            Ok(Polled::Listed { listing, version: other }) => {
                let adopted = adopt(control, pool, &config, listing).await;
                version = other.filter(|_| matches!(adopted, Ok(true)));
                adopted.map(drop)
            }
            Err(error) => Err(error),
        };
        if !is_followed(control, pool) {
            return;
        }
        let error = result.err().map(|error| format!("{error:#}"));
        if let Some(reason) = &error {
            warn_limited!(pool = %config.name, reason = %reason, "server list refresh failed; keeping the previous list");
        }
        pool.note_source(error);
    }
}

/// Whether it matters what is listed for the pool.
fn is_followed(control: &Control, pool: &PoolControl) -> bool {
    !pool.removed.get() && control.refuse_draining().is_ok()
}

/// Asks where the hosts are now.
async fn ask(source: &Source, version: Option<&str>, names: &Resolver) -> anyhow::Result<Polled> {
    let Some(polled) = source.polled() else { return Ok(Polled::Same) };
    let (mut at, mut unknown) = (Vec::new(), None);
    for place in polled.places() {
        let Address::Tcp { host, port } = place else { continue };
        match names.refresh(host).await.with_context(|| host.clone()) {
            Ok(found) => at.extend(found.into_iter().map(|address| SocketAddr::new(address, *port))),
            Err(error) => unknown = Some(error),
        }
    }
    if let Some(error) = unknown.filter(|_| at.is_empty()) {
        return Err(error);
    }
    let (source, version) = (source.clone(), version.map(str::to_owned));
    let asking = move || match source.polled() {
        Some(polled) => polled.poll(&at, version.as_deref()),
        None => Ok(Polled::Same),
    };
    Ok(tokio::task::spawn_blocking(asking).await??)
}

/// Takes over another list, once its new shards have answered. Returns whether it is in force; it is not where the
/// configuration that it was asked for is not any more.
async fn adopt(
    control: &Rc<Control>,
    pool: &Rc<PoolControl>,
    under: &Arc<config::Pool>,
    listing: Listing,
) -> anyhow::Result<bool> {
    static LIMIT: LogLimit = LogLimit::new();
    under.topology_of(&listing)?;
    if listing == under.listing() {
        return Ok(Arc::ptr_eq(under, &pool.config()));
    }
    let (shards, placement) = (listing.servers.clone(), listing.placement.clone());
    let config = Arc::new(config::Pool { shards, placement, ..(**under).clone() });
    let change = Change { pool: pool.clone(), before: under.clone(), config: config.clone() };
    let is_superseded = || change.is_overtaken();
    let answered = wait_for_shards(std::slice::from_ref(&change), &[], control, &is_superseded).await;
    // Only now: nobody else has to wait for shards of this pool.
    let _changing = control.changing.lock().await;
    if is_superseded() {
        return Ok(false);
    }
    control.rings.awaits(&config.name, Vec::new());
    control.tell_rings();
    if answered.is_err() {
        control.forget_hosts();
    }
    answered?;
    let shards = config.shards.len();
    let window = pool.reconfigure(config.clone(), &listing).await;
    if let Some(suppressed) = LIMIT.admit() {
        tracing::info!(suppressed, pool = %config.name, shards, ?window, "server list changed");
    }
    tokio::task::spawn_local(care::capabilities::learn(pool.clone()));
    control.tell_status();
    control.forget_hosts();
    Ok(true)
}
