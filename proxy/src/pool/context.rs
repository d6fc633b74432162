//! What a pool goes by: who it is, what its configuration says, what is counted of it and known of its shards.

use std::sync::Arc;

use super::limits::Limits;
use crate::account::Share;
use crate::denied::DeniedLog;
use crate::hot::HotKeys;
use crate::mailboxes::Mailboxes;
use crate::metrics::Counters;
use crate::monitor::Monitors;
use crate::protocol::store::Store;
use crate::protocol::{Facts, Protocol};
use crate::scripts::Scripts;
use crate::slow::SlowLog;
use crate::time::Time;

/// What never changes while a pool lives.
pub struct Identity {
    /// Name of the pool.
    pub name: String,
    /// Microseconds from 1970 to the worker's start, as the system's clock has it at first.
    pub unix_start: u64,
    /// Clients are numbered from here …
    pub client_id_first: u64,
    /// … in steps of this, so that workers never give the same number.
    pub client_id_step: u64,
    /// Spreads what must not happen in step everywhere: reconnects, ages.
    pub seed: u64,
}

/// What clients and shards are served by.
pub(super) struct Context<P: Protocol> {
    pub identity: Identity,
    pub settings: P::Settings,
    pub limits: Limits,
    pub counters: Counters,
    /// What is known of the shards taken together.
    pub store: Arc<Store>,
    /// The scripts that clients have shown.
    pub scripts: Arc<Scripts>,
    /// What was slow.
    pub slow: Arc<SlowLog>,
    /// What was denied to users.
    pub denied: Arc<DeniedLog>,
    /// Where workers of the pool tell each other of what their clients are to be told.
    pub mailboxes: Arc<Mailboxes>,
    /// What was seen of their requests.
    pub hot: Arc<HotKeys>,
    /// Who watches their requests.
    pub monitors: Arc<Monitors>,
}

impl<P: Protocol> Context<P> {
    /// The place of this worker's mailbox.
    pub fn own_mailbox(&self) -> usize {
        self.mailboxes.worker_of(self.identity.client_id_first)
    }
}

impl<P: Protocol> Context<P> {
    /// What a request of this client may want to know.
    #[inline(always)]
    pub fn facts<'p>(&'p self, share: &'p Share, client: u64, now: Time) -> Facts<'p, P> {
        let Self { identity, settings, counters, store, scripts, slow, denied, .. } = self;
        Facts {
            settings,
            pool: &identity.name,
            client,
            unix_start: identity.unix_start,
            now,
            counters,
            store,
            scripts,
            slow,
            denied,
            account: share.account(),
            quiet: true,
        }
    }
}
