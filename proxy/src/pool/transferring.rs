//! Values go from one shard to another (RENAME and its like), step by step: see [`super::transfers`].

use std::time::Duration;

use bytes::Bytes;

use super::Pool;
use super::clients::ClientId;
use super::connection::Connection;
use super::connections::ConnectionId;
use super::members::{MemberIndex, ShardIndex};
use super::router::{Router, Turn};
use super::ticket::{Sender, Ticket};
use super::transfers::{Place, Step, UnderWay, value_max};
use crate::buffer::Piece;
use crate::failure::ShardFailure;
use crate::protocol::{Heard, Protocol, TransferKind, Transferred};
use crate::time::Time;

/// The pause where the queue of a shard is full.
const AGAIN: Duration = Duration::from_millis(5);

impl<P: Protocol> Pool<P> {
    /// A shard has answered a step. None is too long an answer.
    pub(super) fn heard_of_transfer(&mut self, serial: u32, response: &Bytes, now: Time) {
        let Some(under_way) = self.router.transfers.take(serial) else { return };
        match under_way.step {
            Step::Lifetime => match P::lifetime(response) {
                Heard::Done(lifetime) => {
                    let step = Step::Value(lifetime);
                    self.router.transfers.put(serial, UnderWay { step, ..under_way });
                }
                Heard::Nothing => self.end_transfer(&under_way, Transferred::Missing),
                Heard::Refused(words) => self.transfer_refused(&under_way, words),
            },
            Step::Value(_) if response.is_empty() => self.transfer_is_too_large(&under_way),
            Step::Value(lifetime) => match P::value(response) {
                Heard::Done(value) => self.store(serial, under_way, lifetime, &response[value], now),
                Heard::Nothing => self.end_transfer(&under_way, Transferred::Missing),
                Heard::Refused(words) => self.transfer_refused(&under_way, words),
            },
            Step::Store => match P::stored(response) {
                Heard::Done(()) if under_way.transfer.kind == TransferKind::Copies => {
                    self.end_transfer(&under_way, Transferred::Done);
                }
                Heard::Done(()) => self.remove_source(serial, under_way, now),
                Heard::Nothing => self.end_transfer(&under_way, Transferred::Occupied),
                Heard::Refused(words) => self.transfer_refused(&under_way, words),
            },
            Step::Remove => match P::removed(response) {
                Heard::Done(()) | Heard::Nothing => self.end_transfer(&under_way, Transferred::Done),
                Heard::Refused(words) => self.transfer_refused(&under_way, words),
            },
            // Nothing was asked.
            Step::Waiting(..) => self.router.transfers.put(serial, under_way),
        }
    }

    fn store(&mut self, serial: u32, under_way: UnderWay, lifetime: Option<u64>, value: &[u8], now: Time) {
        if value.len() > self.share.room() {
            self.context.counters.out_of_memory.add(1);
            return self.fail_transfer(&under_way, "there is no room for it in the proxy (memory_max)", true);
        }
        let mut request = Vec::new();
        P::store(&under_way.transfer, lifetime, value, &mut request);
        if request.len() as u64 > value_max(&self.context.limits) {
            return self.transfer_is_too_large(&under_way);
        }
        let until = now.plus(self.context.limits.queue_wait);
        self.send_value(serial, under_way, request, until, now);
    }

    /// The value is sent, or waits for room in the queue of its shard.
    fn send_value(&mut self, serial: u32, mut under_way: UnderWay, request: Vec<u8>, until: Time, now: Time) {
        // Another shard may own the key by now.
        if let Some(to) = self.destination(&under_way, now) {
            under_way.to = to;
        }
        match self.admit_step(under_way.to.at, request.len(), now) {
            Ok(()) => {
                under_way.step = Step::Store;
                let ticket = Ticket::attempt(under_way.client, under_way.number, serial, now);
                self.router.submit_owned(under_way.to.at, ticket, request, now);
                self.router.transfers.put(serial, under_way);
            }
            Err(ShardFailure::QueueFull) if now < until => {
                under_way.step = Step::Waiting(request, until);
                self.router.transfers.look_later(serial, now.plus(AGAIN));
                self.router.transfers.put(serial, under_way);
                // The next value of this pass finds less room.
                self.count_transfers();
            }
            Err(failure) => {
                under_way.step = Step::Waiting(Vec::new(), until);
                self.fail_transfer(&under_way, &failure.to_string(), true);
            }
        }
    }

    /// Where the value is to go, by who owns which keys now.
    fn destination(&self, under_way: &UnderWay, now: Time) -> Option<Place> {
        let client = self.clients.get(under_way.client)?;
        let home = self.router.topology.home_of(&under_way.transfer.destination)?;
        let (id, number, lane) = (under_way.client, client.id, client.lane);
        let sender = Sender { id, number, lane, since: now, now };
        let at = self.router.connection_for(sender, ShardIndex(home.shard), false);
        Some(Place { at, shard: self.router.name_of(at).clone() })
    }

    fn remove_source(&mut self, serial: u32, mut under_way: UnderWay, now: Time) {
        under_way.step = Step::Remove;
        if let Some(at) = self.source(&under_way) {
            under_way.from.at = at;
        }
        let mut request = Vec::new();
        P::remove(&under_way.transfer.source, &mut request);
        match self.admit_step(under_way.from.at, request.len(), now) {
            // There is one for each that was written.
            Ok(()) | Err(ShardFailure::QueueFull) => {
                let ticket = Ticket::attempt(under_way.client, under_way.number, serial, now);
                self.router.submit(under_way.from.at, ticket, Piece::Copied(&request), now);
                self.router.transfers.put(serial, under_way);
            }
            // With its shard it has left the pool.
            Err(ShardFailure::Removed) if self.present(&under_way.from.shard).is_none() => {
                self.end_transfer(&under_way, Transferred::Done);
            }
            Err(failure) => self.fail_transfer(&under_way, &failure.to_string(), true),
        }
    }

    /// The shard of this name, if it is in the pool.
    fn present(&self, shard: &str) -> Option<MemberIndex> {
        let members = &self.router.members;
        members.present().iter().copied().find(|&member| *members[member].name == *shard)
    }

    /// Where the source is by now: the connection on which it was read may be gone or somebody else's, and its shard may have
    /// another address, with all that it has.
    fn source(&self, under_way: &UnderWay) -> Option<ConnectionId> {
        let Router { connections, members, .. } = &self.router;
        let at = under_way.from.at;
        let is_good = |connection: &Connection<P>| {
            let holder = connection.private.as_ref().map(|private| private.holder);
            let is_ours = holder.is_none_or(|holder| holder == Some(under_way.client));
            is_ours && members[connection.member].is_present()
        };
        if connections.get(at).is_some_and(is_good) {
            return Some(at);
        }
        let member = self.present(&under_way.from.shard)?;
        let lane = connections.get(under_way.to.at)?.lane;
        connections.of_member(member).find(|&id| connections[id].lane == lane)
    }

    /// Whether a step may be sent on the connection. It has waited longer than all that wait for room.
    fn admit_step(&mut self, at: ConnectionId, length: usize, now: Time) -> Result<(), ShardFailure> {
        if self.router.connections.get(at).is_none() {
            return Err(ShardFailure::Removed);
        }
        self.router.turn.queue = Some((at, 1));
        let admitted = self.router.admit(at, length, &self.context.limits, now, now);
        self.router.turn = Turn::default();
        admitted
    }

    /// There may be room by now.
    pub(super) fn send_waiting_values(&mut self, now: Time) {
        while let Some(serial) = self.router.transfers.take_due(now) {
            let Some(mut under_way) = self.router.transfers.take(serial) else { continue };
            match std::mem::replace(&mut under_way.step, Step::Store) {
                Step::Waiting(request, until) => self.send_value(serial, under_way, request, until, now),
                step => self.router.transfers.put(serial, UnderWay { step, ..under_way }),
            }
        }
    }

    /// A step has no response: its shard is lost, or has taken too long. False if there is none of this number.
    pub(super) fn transfer_is_lost(&mut self, serial: u32, failure: &ShardFailure) -> bool {
        let Some(under_way) = self.router.transfers.take(serial) else { return false };
        self.fail_transfer(&under_way, &failure.to_string(), false);
        true
    }

    fn transfer_refused(&mut self, under_way: &UnderWay, words: &[u8]) {
        let why = if matches!(under_way.step, Step::Store) { P::why_unstored(words) } else { "" };
        let words = format!("{}{why}", String::from_utf8_lossy(words));
        self.fail_transfer(under_way, &words, true);
    }

    fn transfer_is_too_large(&mut self, under_way: &UnderWay) {
        let max = value_max(&self.context.limits);
        let words = format!(
            "it has more than {max} bytes (request_bytes_max, client_output_max, half of memory_max)"
        );
        self.fail_transfer(under_way, &words, true);
    }

    fn fail_transfer(&mut self, under_way: &UnderWay, words: &str, is_known: bool) {
        let counters = &self.context.counters;
        counters.transfers_failed.add(1);
        counters.forward_error.add(1);
        let (step, place, meaning) = under_way.at(is_known);
        let name = under_way.transfer.name.to_ascii_uppercase();
        let words =
            format!("{name} over shards failed at {step} on shard {}: {words}; {meaning}", place.shard);
        let mut reply = Vec::new();
        P::failure(P::Manner::default(), &words, &mut reply);
        self.answer_transfer(under_way, &reply);
    }

    fn end_transfer(&mut self, under_way: &UnderWay, outcome: Transferred) {
        self.context.counters.transfers.add(u64::from(outcome == Transferred::Done));
        let mut reply = Vec::new();
        P::transferred(&under_way.transfer, outcome, &mut reply);
        self.answer_transfer(under_way, &reply);
    }

    fn answer_transfer(&mut self, under_way: &UnderWay, reply: &[u8]) {
        if under_way.is_alone {
            return;
        }
        let Some(client) = self.clients.touch(under_way.client) else { return };
        let Some(activity) = client.activity.as_mut() else { return };
        if activity.replies.has(under_way.number) {
            activity.replies.answer(under_way.number, 0, Piece::Copied(reply), true);
        }
    }

    /// The client is gone, or hears nothing any more: what is not on its way to the destination stays where it is.
    pub(super) fn drop_transfer(&mut self, id: ClientId) {
        let Some(serial) = self.router.transfers.of_client(id) else { return };
        let Some(mut under_way) = self.router.transfers.take(serial) else { return };
        under_way.is_alone = true;
        let at = match under_way.step {
            Step::Lifetime | Step::Value(_) => under_way.from.at,
            Step::Waiting(..) => return,
            Step::Store => under_way.to.at,
            Step::Remove => return self.router.transfers.put(serial, under_way),
        };
        let Some(connection) = self.router.connections.get_mut(at) else { return };
        connection.forsake(|ticket| ticket.attempts() == Some(serial));
        // What is forsaken of what is only read has no number any more.
        if connection.in_flight().iter().any(|ticket| ticket.attempts() == Some(serial)) {
            self.router.transfers.put(serial, under_way);
        }
        self.count_shard(at);
        self.router.close_if_left(at);
    }

    /// Counts what they hold.
    pub(super) fn count_transfers(&mut self) {
        let (before, after) = self.router.transfers.count();
        self.share.change(before, after);
    }
}
