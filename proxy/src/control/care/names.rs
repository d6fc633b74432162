//! Where a pool's shards are: connecting to them, and following their host names.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shard_discovery::source::cluster::Map;
use shard_discovery::{Address, Shard};

use crate::control::pool::{Found, PoolControl};
use crate::failure::{ShardFailure, Stage};
use crate::net::connect::connect;
use crate::net::socket::Socket;
use crate::protocol::{NodeIds, ShardIdentity};

/// How often a shard is looked for that was not found the last time.
const MISSING_REFRESH: Duration = Duration::from_millis(250);

impl PoolControl {
    /// Connects to a shard, remembers where it was found, and judges the shard by it.
    pub async fn connect(self: &Rc<Self>, shard: &Shard) -> Result<Socket, ShardFailure> {
        let config = self.config();
        let mut began = Instant::now();
        let mut attempt = std::pin::pin!(self.find(shard.address.clone()));
        // To requests an attempt that takes longer than they may is a failure, though it may succeed yet.
        let patience = config.timeout.unwrap_or(Duration::MAX);
        let result = match tokio::time::timeout(patience, &mut attempt).await {
            Ok(result) => result,
            Err(_) => {
                let (failure, now) = (ShardFailure::ConnectTimeout, Instant::now());
                self.judge_attempt(shard, &failure, began..now).await;
                began = now;
                attempt.await
            }
        };
        if let Err(failure) = &result {
            self.judge_attempt(shard, failure, began..Instant::now()).await;
        }
        result
    }

    /// An attempt to connect has failed. Where the shard is elsewhere by now it says nothing.
    async fn judge_attempt(self: &Rc<Self>, shard: &Shard, failure: &ShardFailure, time: Range<Instant>) {
        if self.is_present(shard) {
            self.judge(&shard.name, failure, failure.blame(Stage::Connecting), time).await;
        }
    }

    /// Whether the shard is in the pool, at this address.
    pub(super) fn is_present(&self, shard: &Shard) -> bool {
        let is_same = |known: &Shard| known.name == shard.name && known.address == shard.address;
        self.ejection.borrow().shards().iter().any(is_same)
    }

    async fn find(&self, address: Address) -> Result<Socket, ShardFailure> {
        let config = self.config();
        let connected = connect(&address, &self.names, &config).await;
        let mut found = self.found.borrow_mut();
        let found = found.entry(address).or_insert_with(|| Found {
            at: BTreeSet::new(),
            is_missing: false,
            looked: Instant::now(),
        });
        // Nothing is known of a shard that we had no means to connect to.
        if !matches!(connected, Err(ShardFailure::LocalResources(_))) {
            found.is_missing = connected.is_err();
            if connected.is_err() {
                self.stale.notify_one();
            }
        }
        found.at.extend(connected.as_ref().ok().and_then(Socket::peer));
        connected
    }

    /// Who has to be there, where the worker that has the connection can ask. A Unix socket nobody else can have.
    pub fn identity_of(&self, address: &Address) -> Option<ShardIdentity> {
        let Address::Tcp { host, .. } = address else { return None };
        let map = self.map.borrow().clone();
        if let Some(member) = map.members.iter().find(|member| member.address == *address) {
            return Some(ShardIdentity::Node { id: (*member.id).into(), known: self.ids(&map), found: None });
        }
        self.config().shard_identity.then(|| ShardIdentity::Host(host.as_str().into()))
    }

    /// The IDs of all nodes in the present map, written down once for all connections.
    fn ids(&self, map: &Arc<Map>) -> NodeIds {
        let mut ids = self.ids.borrow_mut();
        if !Arc::ptr_eq(&ids.0, map) {
            *ids = (map.clone(), map.members.iter().map(|member| (*member.id).into()).collect());
        }
        ids.1.clone()
    }

    /// Somebody else is where the shard was found, as a worker that has connected there was told: its name is looked up again
    /// soon.
    pub fn note_missing(&self, shard: &str, failure: &ShardFailure) {
        if !matches!(failure, ShardFailure::ConnectFailed(_)) {
            return;
        }
        let known = self.topology();
        let address = known.shards().iter().find(|known| known.name == shard).map(|known| &known.address);
        let mut found = self.found.borrow_mut();
        if let Some(found) = address.and_then(|address| found.get_mut(address)) {
            found.is_missing = true;
        }
    }

    /// Looks up where shards are, those that were not found the last time more often. No name waits for another.
    pub fn follow_names(self: &Rc<Self>, refresh: Duration) {
        for shard in self.topology().shards() {
            let Address::Tcp { host, .. } = &shard.address else { continue };
            if host.parse::<IpAddr>().is_ok() {
                continue;
            }
            let mut found = self.found.borrow_mut();
            let Some(found) = found.get_mut(&shard.address) else { continue };
            let pause = if found.is_missing { MISSING_REFRESH } else { refresh };
            if found.looked.elapsed() >= pause {
                found.looked = Instant::now();
                let (pool, shard, host) = (self.clone(), shard.clone(), host.clone());
                tokio::task::spawn_local(async move { pool.follow(&shard, &host).await });
            }
        }
    }

    /// Looks up where one shard is. If it has moved workers are told.
    async fn follow(&self, shard: &Shard, host: &str) {
        let before = self.names.known(host);
        let service = self.config().servers_srv.clone();
        let port_before = service.as_ref().and_then(|service| self.names.known_port(service, host));
        let port = match &service {
            Some(service) => self.names.refresh_port(service, host).await.ok(),
            None => None,
        };
        let Ok(now) = self.names.refresh(host).await else { return };
        let has_moved = match self.found.borrow().get(&shard.address) {
            Some(found) if found.is_missing && found.at.is_empty() => now != before,
            Some(found) => found.at.iter().any(|at| !now.contains(at)),
            None => false,
        };
        if has_moved || (port_before.is_some() && port != port_before) {
            tracing::info!(
                pool = %self.config().name, shard = %shard.name, addresses = ?now, port, "shard address changed"
            );
            self.renew(shard).await;
        }
    }
}
