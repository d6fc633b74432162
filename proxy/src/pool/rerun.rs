//! Scripts that shards know no more: they are sent again, and what named one is asked once more.

use super::Pool;
use super::block::NAMED_MAX;
use super::connections::ConnectionId;
use super::router::Router;
use super::ticket::Ticket;
use crate::buffer::{Piece, SHARE_MIN};
use crate::protocol::Protocol;
use crate::scripts::{Digest, Scripts};
use crate::time::Time;

/// A request up to this size is kept until it is answered, where it names a script that its shard should know.
const KEPT_MAX: usize = 16 * 1024;

/// The newest request of a client that names a script.
pub struct Named {
    /// Its number among those of its client.
    pub(super) number: u32,
    pub(super) script: Digest,
    request: Vec<u8>,
}

impl Named {
    /// It is kept in place of an earlier one, unless it is large.
    pub(super) fn keep(kept: &mut Option<Box<Self>>, number: u32, script: Digest, request: &[u8]) {
        if request.len() > KEPT_MAX {
            *kept = None;
            return;
        }
        let named = kept.get_or_insert_with(|| Box::new(Self { number, script, request: Vec::new() }));
        (named.number, named.script) = (number, script);
        named.request.clear();
        named.request.extend_from_slice(request);
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.request.capacity()
    }
}

/// A request that its shard has not executed for want of the script.
pub(super) struct Rerun<P: Protocol> {
    pub at: ConnectionId,
    pub ticket: Ticket<P>,
    pub named: Box<Named>,
}

impl<P: Protocol> Router<P> {
    /// The shard is sent the script, if it is known here and the shard was not sent it on this connection. Whether it should
    /// know it from there on, and how many bytes were sent now for it.
    pub fn load_script(
        &mut self,
        at: ConnectionId,
        script: &Digest,
        scripts: &Scripts,
        since: Time,
        now: Time,
    ) -> (bool, usize) {
        let Some(mark) = scripts.find(script) else { return (false, 0) };
        let loaded = self.connections[at].loaded.get_or_insert_default();
        if loaded.has(mark) {
            return (!loaded.is_refused(mark), 0);
        }
        let Some(load) = scripts.load(mark) else { return (false, 0) };
        loaded.add(mark);
        let length = load.len();
        let piece = if load.len() < SHARE_MIN { Piece::Copied(&load) } else { Piece::Shared(load) };
        self.submit(at, Ticket::loader(mark, since), piece, now);
        (true, length)
    }

    /// How many bytes [`Self::load_script`] would send.
    pub fn script_bytes(&self, at: ConnectionId, script: &Digest, scripts: &Scripts) -> usize {
        let Some(mark) = scripts.find(script) else { return 0 };
        if self.connections[at].loaded.as_ref().is_some_and(|loaded| loaded.has(mark)) {
            return 0;
        }
        scripts.load(mark).map_or(0, |load| load.len())
    }
}

impl<P: Protocol> Pool<P> {
    /// What shards have not executed because they knew a script no more goes once more, on the same connection: nothing of its
    /// client has come there since.
    pub(super) fn run_again(&mut self, now: Time) {
        for Rerun { at, ticket, named } in std::mem::take(&mut self.redirects.unscripted) {
            let Self { router, context, .. } = self;
            let (_, sent) = router.load_script(at, &named.script, &context.scripts, ticket.since, now);
            context.counters.scripts_loaded.add(u64::from(sent > 0));
            context.counters.scripts_repaired.add(1);
            router.submit_owned(at, ticket, named.request, now);
        }
    }

    /// A request goes to another node than before, which may lack a script that it names.
    pub(super) fn load_for(&mut self, at: ConnectionId, ticket: &Ticket<P>, request: &[u8], now: Time) {
        if !ticket.scripted.is_script() && !ticket.is_block() {
            return;
        }
        let Self { router, context, .. } = self;
        for script in P::scripts_named(request, NAMED_MAX) {
            let (_, sent) = router.load_script(at, &script, &context.scripts, ticket.since, now);
            context.counters.scripts_loaded.add(u64::from(sent > 0));
        }
    }
}
