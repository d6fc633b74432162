//! Scripts that shards know no more: they are sent again, and what named one is asked once more.
//!
//! A script may say in the words of the shard that it is not known. So the shard is asked, on the same connection, and nothing is
//! sent again before it has said so itself; its client is not read meanwhile, so nothing overtakes the request.

use super::Pool;
use super::block::NAMED_MAX;
use super::connections::ConnectionId;
use super::router::Router;
use super::ticket::{Ticket, Whom};
use crate::buffer::{Piece, SHARE_MIN};
use crate::protocol::Protocol;
use crate::scripts::{Digest, Scripts};
use crate::time::Time;

/// A request up to this size is kept until it is answered, where it names a script that its shard should know.
const KEPT_MAX: usize = 16 * 1024;

/// The newest request of a client that names a script.
pub struct Named<P: Protocol> {
    /// Its number among those of its client.
    pub(super) number: u32,
    /// The scripts that it names, behind those of earlier ones that may not be answered; at most [`NAMED_MAX`].
    pub(super) scripts: Vec<Digest>,
    /// Empty if it is not to be sent again.
    request: Vec<u8>,
    /// What its shard has said, as long as it is not known who has said so.
    pub(super) doubt: Option<Doubt<P>>,
}

/// A response that may be the word of a script.
pub(super) struct Doubt<P: Protocol> {
    /// The number of the question to the shard.
    pub question: u32,
    /// That of the request.
    pub ticket: Ticket<P>,
    pub reply: Box<[u8]>,
}

impl<P: Protocol> Named<P> {
    /// It is kept in place of an earlier one, unless it is large. `is_first`: nothing of its client is in flight.
    pub(super) fn keep(
        kept: &mut Option<Box<Self>>,
        number: u32,
        scripts: &[Digest],
        request: &[u8],
        is_first: bool,
    ) {
        let named = kept.get_or_insert_with(|| {
            Box::new(Self { number, scripts: Vec::new(), request: Vec::new(), doubt: None })
        });
        (named.number, named.doubt) = (number, None);
        named.scripts.retain(|script| !is_first && !scripts.contains(script));
        named.scripts.extend_from_slice(scripts);
        named.scripts.drain(..named.scripts.len().saturating_sub(NAMED_MAX));
        named.request.clear();
        if request.len() <= KEPT_MAX {
            named.request.extend_from_slice(request);
        }
    }

    /// The script of the newest request, if that may be sent again.
    pub(super) fn again(&self) -> Option<Digest> {
        self.scripts.last().copied().filter(|_| !self.request.is_empty())
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        let reply = self.doubt.as_ref().map_or(0, |doubt| doubt.reply.len());
        size_of::<Self>() + self.request.capacity() + self.scripts.capacity() * size_of::<Digest>() + reply
    }
}

/// A question to a shard which scripts it knows.
pub(super) struct Inquiry<P: Protocol> {
    pub at: ConnectionId,
    pub ticket: Ticket<P>,
    pub request: Vec<u8>,
}

/// A request that its shard has not executed for want of the script.
pub(super) struct Rerun<P: Protocol> {
    pub at: ConnectionId,
    pub ticket: Ticket<P>,
    pub named: Box<Named<P>>,
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
        for Inquiry { at, ticket, request } in std::mem::take(&mut self.redirects.inquiries) {
            if self.router.connections.get(at).is_some() {
                self.router.submit_owned(at, ticket, request, now);
            } else {
                self.stays_unknown(&ticket);
            }
        }
        for Rerun { at, ticket, named } in std::mem::take(&mut self.redirects.unscripted) {
            let Self { router, context, .. } = self;
            let Some(script) = named.again() else { continue };
            let (_, sent) = router.load_script(at, &script, &context.scripts, ticket.since, now);
            context.counters.scripts_loaded.add(u64::from(sent > 0));
            context.counters.scripts_repaired.add(1);
            router.submit_owned(at, ticket, named.request, now);
        }
    }

    /// The question of this ticket has no answer: who waits for that is told what the shard has said before.
    pub(super) fn stays_unknown(&mut self, ticket: &Ticket<P>) {
        if let Whom::Inquirer(id) = ticket.whom {
            self.clients.answer_doubt(id, ticket.number);
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
