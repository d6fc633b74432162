//! Where a pool's shards are: connecting to them, and following their host names.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
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
        let found = found.entry(address).or_insert_with(|| Found::nowhere(Instant::now()));
        if found.tried(connected.as_ref().map(Socket::peer)) {
            self.stale.notify_one();
        }
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

    /// Where the shard was found is somebody who is not it, or does not say so, as a worker that has connected there was told: its
    /// name is looked up again soon. Or it has answered somebody.
    pub fn note_stranger(&self, shard: &str, is_stranger: bool) {
        let known = self.topology();
        let address = known.shards().iter().find(|known| known.name == shard).map(|known| &known.address);
        let mut found = self.found.borrow_mut();
        if let Some(found) = address.and_then(|address| found.get_mut(address)) {
            found.is_stranger = is_stranger;
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
            if found.looked.elapsed() >= found.pause(refresh) {
                found.looked = Instant::now();
                let (pool, shard, host) = (self.clone(), shard.clone(), host.clone());
                tokio::task::spawn_local(async move { pool.follow(&shard, &host).await });
            }
        }
    }

    /// Looks up where one shard is. If it has moved workers are told.
    async fn follow(&self, shard: &Shard, host: &str) {
        let before = self.names.known(host);
        let port = match &self.config().servers_srv {
            Some(service) => self.names.refresh_port(service, host).await.ok(),
            None => None,
        };
        let Ok(now) = self.names.refresh(host).await else { return };
        let has_moved = match self.found.borrow().get(&shard.address) {
            Some(found) if found.at.is_empty() => found.is_missing && now != before,
            Some(found) => found.has_moved(&now, port),
            None => false,
        };
        if has_moved {
            tracing::info!(
                pool = %self.config().name, shard = %shard.name, addresses = ?now, port, "shard address changed"
            );
            self.renew(shard).await;
        }
    }
}

impl Found {
    /// A shard that was not found yet, whose name is known since now.
    fn nowhere(now: Instant) -> Self {
        Self { at: BTreeSet::new(), is_missing: false, is_stranger: false, looked: now }
    }

    /// An attempt to connect has ended; whether it found nobody.
    fn tried(&mut self, connected: Result<Option<SocketAddr>, &ShardFailure>) -> bool {
        match connected {
            // Nothing is known of a shard that we had no means to connect to.
            Err(ShardFailure::LocalResources(_)) => return false,
            Err(_) => self.is_missing = true,
            // Who that is may still be to be asked.
            Ok(at) => {
                self.is_missing = false;
                self.at.extend(at);
            }
        }
        self.is_missing
    }

    /// How long its name is not looked up again.
    fn pause(&self, refresh: Duration) -> Duration {
        if self.is_missing || self.is_stranger { MISSING_REFRESH } else { refresh }
    }

    /// Whether connections lead elsewhere than to the addresses of its name, and its port where records tell that. (Not whether
    /// those have changed: a look-up for another shard may have found that out, for all hosts of the service at a time.)
    fn has_moved(&self, now: &[IpAddr], port: Option<u16>) -> bool {
        let is_elsewhere =
            |at: &SocketAddr| !now.contains(&at.ip()) || port.is_some_and(|port| port != at.port());
        self.at.iter().any(is_elsewhere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(30);

    fn at(address: &str) -> SocketAddr {
        address.parse().expect("an address")
    }

    #[test]
    fn a_shard_has_moved_where_its_connections_lead_elsewhere() {
        let mut found = Found::nowhere(Instant::now());
        found.tried(Ok(Some(at("10.0.0.1:6379"))));
        let [here, there] =
            ["10.0.0.1", "10.0.0.2"].map(|address| address.parse::<IpAddr>().expect("an address"));
        for (now, port, has_moved) in [
            (&[here][..], None, false),
            (&[there, here], None, false),
            (&[there], None, true),
            (&[here], Some(6379), false),
            // Whoever has looked that up.
            (&[here], Some(6380), true),
        ] {
            assert_eq!(found.has_moved(now, port), has_moved, "{now:?} {port:?}");
        }
    }

    /// A connection alone does not tell who is there.
    #[test]
    fn a_stranger_is_looked_up_soon_until_the_shard_has_answered() {
        let mut found = Found::nowhere(Instant::now());
        assert_eq!(found.pause(REFRESH), REFRESH);
        assert!(found.tried(Err(&ShardFailure::ConnectRefused)));
        assert_eq!(found.pause(REFRESH), MISSING_REFRESH);
        assert!(!found.tried(Ok(Some(at("10.0.0.1:6379")))));
        assert_eq!(found.pause(REFRESH), REFRESH);
        found.is_stranger = true;
        assert!(!found.tried(Ok(Some(at("10.0.0.1:6379")))));
        assert_eq!(found.pause(REFRESH), MISSING_REFRESH);
    }

    #[test]
    fn an_attempt_that_we_had_no_means_for_says_nothing() {
        let mut found = Found::nowhere(Instant::now());
        let local = ShardFailure::LocalResources("Too many open files".into());
        assert!(!found.tried(Err(&local)) && !found.is_missing);
        assert!(found.tried(Err(&ShardFailure::ConnectTimeout)));
        assert!(!found.tried(Err(&local)) && found.is_missing, "it was not found before");
    }
}
