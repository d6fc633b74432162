//! The book of requests that wait until replicas have what their client has written (WAIT), and how shards are asked.
//!
//! A server counts replicas by what was said on the very connection that asks. On one that clients share that would hold up all of
//! them, and on one on which nothing was written it would count all replicas. So it is asked on a private connection (`private.rs`),
//! behind a mark ([`Confirming::mark`](crate::protocol::Confirming::mark)): replicas that have that have all that the shard executed before. What
//! its client has sent before is answered by then, so executed.
//!
//! Which shards the client has written to nobody remembers: all of the pool are asked at once, or all nodes of a cluster that own slots, and the
//! reply is the least that one of them says. Those that ask for the same in the same pass share a round, with one connection to each shard. A later round has connections of
//! its own: replicas may have an earlier mark and not a later one, and who waits for two of them holds up nobody who waits for one.
//!
//! The shards keep the time. A round ends before that with its last client, or where one shard fails; connections on which a shard
//! waits still are closed then. Whoever is to wait no more though it is there is told what shards have said by then.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use shard_discovery::Home;

use super::Pool;
use super::clients::ClientId;
use super::connection::Connection;
use super::connections::ConnectionId;
use super::members::{MemberIndex, ShardIndex};
use super::private::Ending;
use super::router::{Refusal, Router};
use super::ticket::{Sender, Ticket};
use super::waiting::occupied;
use crate::buffer::Piece;
use crate::failure::ShardFailure;
use crate::protocol::Protocol;
use crate::time::Time;

/// So many keys are looked at to find one of each node. Of one that has a single slot, none is among them once in e^16 times.
const KEYS_TRIED_MAX: u32 = 1 << 18;
/// What a client, and a part of a round, take beside what stands in the round itself.
const CLIENT_BYTES: usize = 2 * size_of::<(ClientId, u32)>() + 2 * size_of::<(ClientId, u32)>();
const PART_BYTES: usize = 2 * size_of::<Part>() + 2 * size_of::<(u32, u32)>();
const ROUND_BYTES: usize = 2 * size_of::<(u32, Round)>() + 64;

/// Those who ask for the same.
struct Round {
    request: Bytes,
    /// For how long at most; `None` for ever.
    patience: Option<Duration>,
    /// Something is to be confirmed.
    marks: bool,
    /// Who waits, with the number of the request among its own. Nobody does in a round that is over.
    clients: Vec<(ClientId, u32)>,
    /// One for each shard, once they are asked.
    parts: Vec<Part>,
}

/// What one shard is asked.
struct Part {
    member: MemberIndex,
    at: ConnectionId,
    /// Its number, which its tickets have.
    serial: u32,
    /// So many responses are to come.
    missing: usize,
    said: Option<Bytes>,
}

/// A shard that is asked, with a key of it where a mark needs one.
#[derive(Clone)]
struct Keeper {
    member: MemberIndex,
    key: Option<Bytes>,
}

/// All requests of a pool that wait for replicas.
#[derive(Default)]
pub(super) struct Confirmations {
    rounds: HashMap<u32, Round>,
    of_clients: HashMap<ClientId, u32>,
    of_parts: HashMap<u32, u32>,
    /// Those whose shards are not asked yet.
    fresh: Vec<u32>,
    next_round: u32,
    /// Whom to ask, as long as nobody owns other keys than before.
    keepers: Option<Vec<Keeper>>,
    /// Bytes that all take, and what was last counted.
    held: usize,
    counted: usize,
}

impl Confirmations {
    /// How many clients wait.
    pub fn len(&self) -> usize {
        self.of_clients.len()
    }

    /// Whether the client waits.
    pub fn has(&self, id: ClientId) -> bool {
        self.of_clients.contains_key(&id)
    }

    /// All that wait.
    pub fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.of_clients.keys().copied()
    }

    /// Whether somebody waits for what is asked with this ticket, whichever client stands on it.
    pub fn awaits<P: Protocol>(&self, ticket: &Ticket<P>) -> bool {
        ticket.attempts().is_some_and(|serial| self.of_parts.contains_key(&serial))
    }

    /// Whether shards are to be asked in this pass.
    pub fn has_work(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Others may own keys from now on.
    pub fn forget_keepers(&mut self) {
        self.keepers = None;
    }

    /// What it takes, as it was counted last, and as it is.
    fn count(&mut self) -> (usize, usize) {
        (std::mem::replace(&mut self.counted, self.held), self.held)
    }

    /// The client waits from now on, with others that have just asked for the same.
    pub fn join(
        &mut self,
        id: ClientId,
        number: u32,
        request: Bytes,
        patience: Option<Duration>,
        marks: bool,
    ) {
        let rounds = &mut self.rounds;
        let known = self
            .fresh
            .iter()
            .copied()
            .find(|round| rounds.get(round).is_some_and(|round| round.request == request));
        let round = known.unwrap_or_else(|| {
            self.next_round = self.next_round.wrapping_add(1);
            self.held += ROUND_BYTES + request.len();
            let round = Round { request, patience, marks, clients: Vec::new(), parts: Vec::new() };
            rounds.insert(self.next_round, round);
            self.fresh.push(self.next_round);
            self.next_round
        });
        rounds.get_mut(&round).expect("it is there").clients.push((id, number));
        self.of_clients.insert(id, round);
        self.held += CLIENT_BYTES;
    }

    /// The client waits no more. Returns its round, and the number of its request.
    fn leave(&mut self, id: ClientId) -> Option<(u32, u32)> {
        let round = self.of_clients.remove(&id)?;
        self.held -= CLIENT_BYTES;
        let clients = &mut self.rounds.get_mut(&round)?.clients;
        let place = clients.iter().position(|&(client, _)| client == id)?;
        Some((round, clients.swap_remove(place).1))
    }

    /// The round is over.
    fn end(&mut self, round: u32) -> Option<Round> {
        let round = self.rounds.remove(&round)?;
        self.held -= ROUND_BYTES + round.request.len() + round.parts.len() * PART_BYTES;
        for (client, _) in &round.clients {
            self.of_clients.remove(client);
            self.held -= CLIENT_BYTES;
        }
        round.parts.iter().for_each(|part| {
            self.of_parts.remove(&part.serial);
        });
        self.rounds.shrink_to(self.rounds.len() * 4);
        self.of_clients.shrink_to(self.of_clients.len() * 4);
        self.of_parts.shrink_to(self.of_parts.len() * 4);
        Some(round)
    }
}

impl<P: Protocol> Router<P> {
    /// The shards that may have what a client has written, ejected ones too. None where that is not known of all: a slot has no owner.
    fn keepers(&self) -> Vec<Keeper> {
        let homes = self.topology.holders().unwrap_or_default();
        let mut keys: HashMap<usize, Bytes> = HashMap::new();
        let tried = if self.topology.redirects() { KEYS_TRIED_MAX } else { 0 };
        for number in 0..tried {
            if keys.len() == homes.len() {
                break;
            }
            let key = format!("memstore:wait:{number}");
            if let Some(home) = self.topology.home_of(key.as_bytes()) {
                keys.entry(home.shard).or_insert(key.into());
            }
        }
        let keeper = |home: &Home| Keeper {
            member: self.members.of(ShardIndex(home.shard)),
            key: keys.get(&home.shard).cloned(),
        };
        homes.iter().map(keeper).collect()
    }
}

impl<P: Protocol> Pool<P> {
    /// Asks shards for those that have come to wait.
    pub(super) fn tidy_confirmations(&mut self, now: Time) {
        for round in std::mem::take(&mut self.confirmations.fresh) {
            if let Err(reply) = self.ask_replicas(round, now) {
                self.end_round(round, &reply, None);
            }
        }
        let (before, after) = self.confirmations.count();
        self.share.change(before, after);
        self.context.counters.blocked_confirming.set(self.confirmations.len() as i64);
    }

    /// Asks all shards of the round, or none: then there is the reply.
    fn ask_replicas(&mut self, id: u32, now: Time) -> Result<(), Vec<u8>> {
        let Some(round) = self.confirmations.rounds.get(&id) else { return Ok(()) };
        let Some(&(holder, _)) = round.clients.first() else { return Ok(()) };
        let (request, patience, marks) = (round.request.clone(), round.patience, round.marks);
        let Some(client) = self.clients.get(holder) else { return Ok(()) };
        let lane = self.router.connections.usual;
        let sender = Sender { id: holder, number: client.id, lane, since: now, now };
        let keepers = match self.confirmations.keepers.take() {
            Some(keepers) => keepers,
            None => self.router.keepers(),
        };
        self.confirmations.keepers = Some(keepers.clone());
        if keepers.is_empty() {
            let nobody = self.router.nobody();
            return Err(self.failure_of(nobody));
        }
        for keeper in keepers {
            let at = match self.router.take_private(sender, keeper.member, &self.context) {
                Ok(at) => at,
                Err(refusal) => return Err(self.why_unasked(keeper.member, &refusal)),
            };
            self.router.begin_confirming(at, patience, self.context.limits.timeout);
            let mark = if marks { P::mark(keeper.key.as_deref()) } else { Vec::new() };
            let serial = self.wide.next_serial();
            let ticket = Ticket { reads: true, ..Ticket::attempt(holder, 0, serial, now) };
            for request in mark.iter().map(Vec::as_slice).chain([&request[..]]) {
                self.router.submit(at, ticket, Piece::Copied(request), now);
            }
            let part = Part { member: keeper.member, at, serial, missing: mark.len() + 1, said: None };
            self.confirmations.of_parts.insert(serial, id);
            self.confirmations.held += PART_BYTES;
            self.confirmations.rounds.get_mut(&id).expect("it is there").parts.push(part);
        }
        Ok(())
    }

    /// Why a shard cannot be asked.
    fn why_unasked(&mut self, member: MemberIndex, refusal: &Refusal) -> Vec<u8> {
        let name = self.router.members[member].name.clone();
        if let Refusal::Failed(_, failure) = refusal {
            return self.failure_at(member, failure);
        }
        self.context.counters.refused.add(1);
        let words = occupied(&self.context, &name);
        self.failure_of(&words)
    }

    fn failure_at(&mut self, member: MemberIndex, failure: &ShardFailure) -> Vec<u8> {
        self.context.counters.forward_error.add(1);
        let member = &self.router.members[member];
        member.counters.failures[failure.reason()].add(1);
        self.failure_of(&failure.of_shard(&member.name))
    }

    fn failure_of(&self, words: &str) -> Vec<u8> {
        let mut reply = Vec::new();
        P::failure(P::Manner::default(), words, &mut reply);
        reply
    }

    /// A shard has said something to what it was asked by this number.
    pub(super) fn heard_of_replicas(&mut self, serial: u32, response: &Bytes) {
        let Some(&id) = self.confirmations.of_parts.get(&serial) else { return };
        let Some(round) = self.confirmations.rounds.get_mut(&id) else { return };
        let Some(part) = round.parts.iter_mut().find(|part| part.serial == serial) else { return };
        part.missing -= 1;
        let is_last = part.missing == 0;
        let is_fine = if is_last { P::is_count(&round.request, response) } else { P::is_marked(response) };
        if !is_fine {
            let member = part.member;
            let mut reply = Vec::new();
            if response.first() == Some(&P::ERROR) {
                self.context.counters.refused.add(1);
                self.redirects.stale |= P::redirect(response).is_some();
                P::unconfirmed(&self.router.members[member].name, response, &mut reply);
            } else {
                // Whose responses come next there nobody knows.
                let at = part.at;
                let is_spare = |connection: &Connection<P>| {
                    connection.private.as_ref().is_some_and(|private| private.is_spare)
                };
                if self.router.connections.get(at).is_some_and(is_spare) {
                    self.router.close_private(at);
                }
                let failure = ShardFailure::Malformed("it is no number of replicas".into());
                reply = self.failure_at(member, &failure);
            }
            return self.end_round(id, &reply, None);
        }
        if is_last {
            part.said = Some(response.clone());
            if round.parts.iter().all(|part| part.said.is_some()) {
                let mut reply = Vec::new();
                P::least(&round.request, round.parts.iter().map(|part| part.said.as_ref()), &mut reply);
                self.end_round(id, &reply, None);
            }
        }
    }

    /// What a shard was asked by this number has no response: it is lost, or has taken too long.
    pub(super) fn replicas_unknown(&mut self, serial: u32, member: MemberIndex, failure: &ShardFailure) {
        let Some(&id) = self.confirmations.of_parts.get(&serial) else { return };
        let reply = self.failure_at(member, failure);
        self.end_round(id, &reply, Some(serial));
    }

    /// The round is over, with this reply. Connections on which a shard waits still are closed, but for that of the `lost` part, which
    /// is already.
    fn end_round(&mut self, id: u32, reply: &[u8], lost: Option<u32>) {
        let Some(round) = self.confirmations.end(id) else { return };
        for (client, number) in round.clients {
            self.answer_confirmed(client, number, reply);
        }
        for Part { at, serial, .. } in round.parts {
            let is_asked = self.router.connections.get(at).is_some_and(|connection| {
                connection.in_flight().iter().any(|ticket| ticket.attempts() == Some(serial))
            });
            if is_asked && lost != Some(serial) {
                self.router.abandon_private(at);
            }
        }
    }

    fn answer_confirmed(&mut self, client: ClientId, number: u32, reply: &[u8]) {
        let Some(client) = self.clients.touch(client) else { return };
        let Some(activity) = client.activity.as_mut() else { return };
        (activity.is_wide, activity.arrived) = (false, None);
        activity.replies.answer(number, 0, Piece::Copied(reply), true);
    }

    /// The client is gone, or hears nothing any more.
    pub(super) fn drop_confirming(&mut self, id: ClientId) {
        let Some((round, _)) = self.confirmations.leave(id) else { return };
        self.end_if_left(round);
    }

    /// Nobody may be left who waits in the round.
    fn end_if_left(&mut self, id: u32) {
        if self.confirmations.rounds.get(&id).is_some_and(|round| round.clients.is_empty()) {
            self.end_round(id, &[], None);
        }
    }

    /// The client's request waits no more though the client is there. False if it goes on.
    pub(super) fn end_confirming(&mut self, id: ClientId, ending: Ending) -> bool {
        let mut reply = Vec::new();
        match ending {
            // What it has written is where it was written.
            Ending::Again => return false,
            Ending::Error => P::unblocked(&mut reply),
            Ending::TimeOver => {
                let known = self.confirmations.of_clients.get(&id);
                let Some(round) = known.and_then(|round| self.confirmations.rounds.get(round)) else {
                    return false;
                };
                P::least(&round.request, round.parts.iter().map(|part| part.said.as_ref()), &mut reply);
            }
        }
        let Some((round, number)) = self.confirmations.leave(id) else { return false };
        self.answer_confirmed(id, number, &reply);
        self.end_if_left(round);
        true
    }
}

impl<P: Protocol> Pool<P> {
    /// How many clients wait for replicas, and bytes that they take.
    pub fn waiting_for_replicas(&self) -> (usize, usize) {
        (self.confirmations.len(), self.confirmations.held)
    }
}
