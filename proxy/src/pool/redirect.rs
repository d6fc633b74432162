//! Requests that a node of a cluster has not executed: they are sent to the one it names, or again a little later.
//!
//! What was not executed can be sent again without running twice. The requests of one client for one slot keep their order: an
//! error that names another node finds those behind it on the same way. Where one has to wait, its client is not read, those
//! behind it that are not executed either wait as well, and all are sent again once everything else of the client is answered.
//! If one behind it was executed, it is too late: the client gets the error.
//!
//! A script may answer in the words of a redirect itself, after it has done something. A node names another owner before it
//! runs anything, and then the nodes together say the same: a script is sent on only once they do.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use shard_discovery::Address;

use super::client::Pause;
use super::connections::ConnectionId;
use super::members::MemberIndex;
use super::parked::{Parked, Redirected, Waiting, is_later};
use super::rerun::{Inquiry, Rerun};
use super::router::Turn;
use super::ticket::{Sender, Ticket};
use super::{ClientId, Pool};
use crate::buffer::Piece;
use crate::failure::ShardFailure;
use crate::protocol::{Protocol, Redirect};
use crate::time::Time;

/// How often a request is sent before its client gets the error.
const TRIES_MAX: u8 = 8;
/// The same for a script whose slot has the same owner as before, as far as is known: 620 ms altogether, some refreshes.
const SCRIPT_TRIES_MAX: u8 = 5;
/// The pause before a request is sent again to who did not want it; it doubles with every try.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// A node that owns nothing any more, and is silent for so long, answers nothing any more.
const ABANDONED_MAX: Duration = Duration::from_secs(1);
/// How long a request waits until everything else of its client is answered: as long as for all of its attempts. Without a
/// `timeout` a shard that hangs would keep it for ever.
const OTHERS_MAX: Duration = Duration::from_secs(5);

/// A request that was executed, or may have been, while earlier ones of its client were not.
pub(super) struct Executed {
    client: ClientId,
    slot: u16,
    number: u32,
}

impl Executed {
    /// The request of the ticket was, if somebody waits for it.
    pub fn of<P: Protocol>(ticket: &Ticket<P>) -> Option<Self> {
        Some(Self { client: ticket.client()?, slot: ticket.slot, number: ticket.number })
    }
}

/// The latest request of each client and slot that was executed.
struct Latest(HashMap<(ClientId, u16), u32>);

impl Latest {
    fn of(executed: impl Iterator<Item = Executed>) -> Self {
        let mut latest = HashMap::new();
        for Executed { client, slot, number } in executed {
            let known = latest.entry((client, slot)).or_insert(number);
            if is_later(number, *known) {
                *known = number;
            }
        }
        Self(latest)
    }

    /// Whether one that came after it was executed before it.
    fn has_overtaken<P: Protocol>(&self, ticket: &Ticket<P>) -> bool {
        let of_slot = |client| self.0.get(&(client, ticket.slot));
        ticket.client().and_then(of_slot).is_some_and(|&number| is_later(number, ticket.number))
    }
}

/// The requests of a pool that nodes of a cluster have not executed.
pub(super) struct Redirects<P: Protocol> {
    /// Those that were just sent elsewhere.
    pub fresh: Vec<Redirected<P>>,
    /// Bytes of those that wait for their next attempt, each with its client.
    parked_bytes: usize,
    /// When the clients are due of which some wait.
    parked_due: BTreeSet<(Time, ClientId)>,
    /// Requests that were executed behind some that were not.
    pub executed: Vec<Executed>,
    /// Requests whose wait for data was ended, without anything taken for them.
    pub interrupted: Vec<Redirected<P>>,
    /// Connections whose wait a shard was asked to end, and has said something to that; or it has refused to.
    pub heard: Vec<(ConnectionId, bool)>,
    /// Responses to keys that were tried, by the number of the attempt.
    pub attempted: Vec<(u32, Bytes)>,
    /// Requests that were not executed because their shard knew a script no more.
    pub unscripted: Vec<Rerun<P>>,
    /// Questions to shards which scripts they know, and the number of the newest.
    pub inquiries: Vec<Inquiry<P>>,
    pub question: u32,
    /// Connections to nodes that own nothing any more, with requests in flight; when to look at them again.
    abandoned: Vec<(Time, ConnectionId)>,
    /// A node has said that others own what it is thought to own.
    pub stale: bool,
}

impl<P: Protocol> Default for Redirects<P> {
    fn default() -> Self {
        Self {
            fresh: Vec::new(),
            parked_bytes: 0,
            parked_due: BTreeSet::new(),
            executed: Vec::new(),
            interrupted: Vec::new(),
            heard: Vec::new(),
            attempted: Vec::new(),
            unscripted: Vec::new(),
            inquiries: Vec::new(),
            question: 0,
            abandoned: Vec::new(),
            stale: false,
        }
    }
}

impl<P: Protocol> Redirects<P> {
    /// When a request is sent again, and when a connection is looked at.
    pub fn due(&self) -> [Option<Time>; 2] {
        let abandoned = self.abandoned.iter().map(|&(due, _)| due).min();
        [self.parked_due.first().map(|&(due, _)| due), abandoned]
    }

    /// Clients of which requests wait.
    pub fn parked_clients(&self) -> impl Iterator<Item = ClientId> {
        self.parked_due.iter().map(|&(_, client)| client)
    }

    /// What waits of the client is counted, and looked for when it is due. Returns its size.
    fn note(&mut self, client: ClientId, waiting: Option<&Waiting<P>>) -> usize {
        let Some(waiting) = waiting else { return 0 };
        self.parked_due.insert((waiting.due(), client));
        self.parked_bytes += waiting.bytes();
        waiting.bytes()
    }

    /// The same is not any more.
    fn forget(&mut self, client: ClientId, waiting: Option<&Waiting<P>>) -> usize {
        let Some(waiting) = waiting else { return 0 };
        self.parked_due.remove(&(waiting.due(), client));
        self.parked_bytes -= waiting.bytes();
        waiting.bytes()
    }
}

impl<P: Protocol> Pool<P> {
    /// Whether who owns what should be asked for, since the last call.
    pub fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.redirects.stale)
    }

    /// Requests that wait for their next attempt.
    pub fn parked_count(&self) -> usize {
        let waiting = |id| Some(self.clients.activity(id)?.parked.as_ref()?.count());
        self.redirects.parked_clients().filter_map(waiting).sum()
    }

    /// Bytes that they take.
    pub fn parked_bytes(&self) -> usize {
        self.redirects.parked_bytes
    }

    /// What waits of the client changes, and with it what is counted and when that is due.
    fn change_parked<R: Default>(
        &mut self,
        id: ClientId,
        change: impl FnOnce(&mut Option<Box<Waiting<P>>>) -> R,
    ) -> R {
        let Some(activity) = self.clients.activity_mut(id) else { return R::default() };
        let before = self.redirects.forget(id, activity.parked.as_deref());
        let changed = change(&mut activity.parked);
        let after = self.redirects.note(id, activity.parked.as_deref());
        self.share.change(before, after);
        changed
    }

    /// What waits of the client waits no more.
    pub(super) fn take_parked(&mut self, id: ClientId) -> Vec<Parked<P>> {
        self.change_parked(id, |waiting| waiting.take().map_or_else(Vec::new, |all| all.into_requests()))
    }

    /// Sends what was sent elsewhere on its way, in the order in which it came.
    pub(super) fn follow_redirects(&mut self, now: Time) {
        let waits = !self.redirects.parked_due.is_empty();
        if self.redirects.fresh.is_empty() && (self.redirects.executed.is_empty() || !waits) {
            // Nothing waits that could have been overtaken, as after most transactions.
            self.redirects.executed.clear();
            return;
        }
        let latest = self.give_up_overtaken();
        for redirected in std::mem::take(&mut self.redirects.fresh) {
            let Redirected { from, ticket, ref reply, .. } = redirected;
            let Some(redirect) = P::redirect(reply) else { continue };
            let is_meant = match redirect {
                Redirect::Moved { slot, .. } => slot == ticket.slot,
                Redirect::Ask { slot, .. } => slot == ticket.slot && !ticket.scripted.is_script(),
                Redirect::Later { .. } => !ticket.scripted.is_script(),
            };
            let Some(id) = ticket.client() else {
                self.router.members[from].counters.late_responses.add(1);
                continue;
            };
            match redirect {
                Redirect::Moved { .. } => {
                    self.redirects.stale = true;
                    self.context.counters.redirects_moved.add(1);
                }
                Redirect::Ask { .. } => self.context.counters.redirects_ask.add(1),
                Redirect::Later { stale } => {
                    self.redirects.stale |= stale;
                    self.context.counters.redirects_later.add(1);
                }
            }
            if redirected.wait.is_some_and(|wait| wait.is_over()) {
                // It was to end where it waited, and is not to begin elsewhere.
                self.interrupted(redirected, now);
                continue;
            }
            let waits = ticket.scripted.is_script() || matches!(redirect, Redirect::Later { .. });
            if !is_meant || ticket.tries >= TRIES_MAX || (waits && latest.has_overtaken(&ticket)) {
                self.give_up(&redirected);
            } else if waits || self.has_parked(id) {
                // Also behind one that waits: it must not be overtaken.
                self.park(redirected, now);
            } else {
                self.send_on(redirected, false, now);
            }
        }
    }

    /// What waits and was overtaken waits no more. Returns what was executed since the last call.
    fn give_up_overtaken(&mut self) -> Latest {
        let latest = Latest::of(self.redirects.executed.drain(..));
        // Most are of clients of whom nothing waits, and many may wait.
        let clients: HashSet<ClientId> = latest.0.keys().map(|&(id, _)| id).collect();
        for client in clients {
            if !self.has_parked(client) {
                continue;
            }
            let is_overtaken = |redirected: &Redirected<P>| latest.has_overtaken(&redirected.ticket);
            let overtaken = self.change_parked(client, |waiting| Waiting::extract(waiting, is_overtaken));
            for Parked { redirected, .. } in overtaken {
                self.give_up(&redirected);
            }
        }
        latest
    }

    /// Those whose time has come are sent again, or with `all` every one.
    pub(super) fn unpark(&mut self, now: Time, all: bool) {
        let due = self.redirects.parked_due.iter().take_while(|&&(due, _)| all || due <= now);
        let due: Vec<ClientId> = due.map(|&(_, client)| client).collect();
        if due.is_empty() {
            return;
        }
        self.give_up_overtaken();
        for client in due {
            self.unpark_client(client, now);
        }
    }

    /// All that waits of one client goes together and in order, when the oldest of it is due and nothing else of the client is
    /// still to be answered, which might be executed before it.
    fn unpark_client(&mut self, client: ClientId, now: Time) {
        let mut waiting = self.take_parked(client);
        let activity = self.clients.activity(client);
        if activity.map_or(0, |activity| activity.replies.unanswered()) > waiting.len() {
            // Nobody is to look at it before.
            let due = now.plus(PAUSE_MIN);
            for Parked { redirected, since, .. } in waiting {
                if redirected.is_late(due) || now.since(since) >= OTHERS_MAX {
                    self.give_up(&redirected);
                } else {
                    let parked = Parked { since, due, redirected };
                    self.change_parked(client, |waiting| Waiting::add(waiting, parked));
                }
            }
            return;
        }
        waiting.sort_by(|one, other| {
            let (one, other) = (one.redirected.ticket.number, other.redirected.ticket.number);
            one.wrapping_sub(other).cast_signed().cmp(&0)
        });
        // Those of one slot have to go to one node, whomever some of them were told of.
        let mut of_slots: HashMap<u16, (usize, bool)> = HashMap::new();
        for Parked { redirected, .. } in &waiting {
            let (count, is_named) = of_slots.entry(redirected.ticket.slot).or_insert((0, true));
            *count += 1;
            *is_named &= redirected.names_owner();
        }
        for Parked { redirected, .. } in waiting {
            let (count, is_named) = of_slots[&redirected.ticket.slot];
            if redirected.wait.is_some() && P::redirect(&redirected.reply).is_none() {
                // It was put off because its shard had ended it.
                self.wait_on(redirected, now);
            } else if self.has_parked(client) {
                // One before it has to wait longer.
                self.park(redirected, now);
            } else {
                // Where a slot was on its way to while this waited, it may have left since.
                let is_old = matches!(P::redirect(&redirected.reply), Some(Redirect::Ask { .. }));
                self.send_on(redirected, is_old || (count > 1 && !is_named), now);
            }
        }
    }

    fn has_parked(&self, id: ClientId) -> bool {
        self.clients.activity(id).is_some_and(|activity| activity.parked.is_some())
    }

    fn park(&mut self, redirected: Redirected<P>, now: Time) {
        let pause = PAUSE_MIN * (1 << redirected.ticket.tries.min(TRIES_MAX));
        self.park_until(redirected, now.plus(pause), now);
    }

    /// The request waits until then.
    pub(super) fn park_until(&mut self, redirected: Redirected<P>, due: Time, now: Time) {
        let Some(id) = redirected.ticket.client() else { return };
        let Some(activity) = self.clients.activity_mut(id) else { return };
        let bytes = Waiting::cost(activity.parked.as_deref(), &redirected);
        // Scripts may say what they like: they leave half of the room to what only nodes say.
        let share = if redirected.ticket.scripted.is_script() { 2 } else { 1 };
        let has_room = self.redirects.parked_bytes + bytes <= self.context.limits.parked_bytes_max / share;
        if !has_room || redirected.is_late(due) {
            return self.give_up(&redirected);
        }
        activity.paused = Some(Pause::UntilQuiet);
        let parked = Parked { since: now, due, redirected };
        self.change_parked(id, |waiting| Waiting::add(waiting, parked));
    }

    /// To the node that is named, else, or with `to_owner` anyhow, to who owns the slot now.
    fn send_on(&mut self, mut redirected: Redirected<P>, to_owner: bool, now: Time) {
        let Redirected { from, mut ticket, .. } = redirected;
        let Some(client) = ticket.client().and_then(|id| self.clients.get(id)) else { return };
        ticket.tries = ticket.tries.saturating_add(1);
        let mut prelude = Vec::new();
        let (number, lane) = (client.id, client.lane);
        let owner = match P::redirect(&redirected.reply) {
            Some(Redirect::Moved { .. }) if ticket.scripted.is_script() => {
                self.router.owner_of_slot(ticket.slot).filter(|&owner| owner != from)
            }
            _ if to_owner => self.router.owner_of_slot(ticket.slot),
            Some(Redirect::Moved { host, port, .. }) => self.router.member_at(self.host(host, from), port),
            Some(Redirect::Ask { host, port, .. }) => {
                P::asking(&mut prelude);
                self.router.member_at(self.host(host, from), port)
            }
            _ => self.router.owner_of_slot(ticket.slot),
        };
        let Some(owner) = owner else {
            if !to_owner && matches!(P::redirect(&redirected.reply), Some(Redirect::Ask { .. })) {
                // Nobody was asked: the next attempt is the owner's, who may name one by then that is known.
                self.redirects.stale = true;
                return self.park(redirected, now);
            }
            if ticket.tries >= if ticket.scripted.is_script() { SCRIPT_TRIES_MAX } else { TRIES_MAX } {
                return self.give_up(&redirected);
            }
            // A node that is not known yet, or not as the owner; soon it is.
            self.redirects.stale |= ticket.scripted.is_script();
            redirected.ticket.tries = ticket.tries;
            return self.park(redirected, now);
        };
        let Some(id) = ticket.client() else { return };
        let sender = Sender { id, number, lane, since: ticket.since, now };
        if let Some(wait) = redirected.wait {
            return self.wait_elsewhere(&redirected, wait, ticket, sender, owner, &prelude);
        }
        let target = self.router.connection(sender, owner);
        // It had its turn when it was sent first.
        self.router.turn.queue = Some((target, 1));
        let length = redirected.request.len();
        let admitted = self.router.admit(target, length, &self.context.limits, ticket.since, now);
        self.router.turn = Turn::default();
        if let Err(failure) = admitted {
            if failure == ShardFailure::QueueFull && ticket.tries < TRIES_MAX {
                redirected.ticket.tries = ticket.tries;
                return self.park(redirected, now);
            }
            return self.fail(ticket, owner, &failure);
        }
        self.load_for(target, &ticket, &redirected.request, now);
        ticket.asks = !prelude.is_empty();
        if ticket.asks {
            self.router.submit(target, Ticket::prelude(ticket.since), Piece::Copied(&prelude), now);
        }
        self.router.submit(target, ticket, Piece::Shared(redirected.request), now);
    }

    /// The host that is named, or else that of the node that names it.
    pub(super) fn host<'h>(&'h self, host: &'h str, from: MemberIndex) -> &'h str {
        match &self.router.members[from].shard.address {
            Address::Tcp { host: own, .. } if host.is_empty() => own,
            _ => host,
        }
    }

    /// A node that owns nothing any more may have been replaced because it hangs: what is in flight there is not waited for
    /// as long as it likes.
    pub(super) fn watch_abandoned(&mut self, now: Time) {
        if !self.router.topology.redirects() {
            return;
        }
        let needed = self.router.needed_members();
        let found = self.router.connections.find(|connection| {
            // Those that wait for data go elsewhere by themselves.
            connection.private.as_ref().is_none_or(|private| private.wait.is_none())
                && !connection.in_flight().is_empty()
                && !needed.contains(&connection.member)
        });
        let known: HashSet<ConnectionId> = self.redirects.abandoned.iter().map(|&(_, id)| id).collect();
        let new = found.into_iter().filter(|id| !known.contains(id));
        self.redirects.abandoned.extend(new.map(|id| (now.plus(ABANDONED_MAX), id)));
    }

    pub(super) fn close_abandoned(&mut self, now: Time) {
        if self.redirects.abandoned.is_empty() {
            return;
        }
        let needed = self.router.needed_members();
        let (due, later) = self.redirects.abandoned.drain(..).partition(|(due, _)| *due <= now);
        self.redirects.abandoned = later;
        let due: Vec<(Time, ConnectionId)> = due;
        for (_, id) in due {
            let Some(connection) = self.router.connections.get(id) else { continue };
            if connection.in_flight().is_empty() || needed.contains(&connection.member) {
                continue;
            }
            if connection.heard.plus(ABANDONED_MAX) <= now {
                self.router.connections.close(id, ShardFailure::Removed);
            } else {
                self.redirects.abandoned.push((now.plus(ABANDONED_MAX), id));
            }
        }
    }

    /// The client gets the node's own words.
    fn give_up(&mut self, redirected: &Redirected<P>) {
        let Redirected { ticket, reply, from, .. } = redirected;
        let Some(id) = ticket.client() else { return };
        self.context.counters.redirects_given_up.add(1);
        let Some(client) = self.clients.touch(id) else { return };
        let Some(activity) = client.activity.as_mut() else {
            return self.fail(*ticket, *from, &ShardFailure::Removed);
        };
        let mut refused = Vec::new();
        let reply = if ticket.is_block() {
            P::refuse_block(reply, &mut refused);
            &refused[..]
        } else {
            reply
        };
        activity.replies.answer(ticket.number, ticket.fragment, Piece::Copied(reply), true);
    }
}
