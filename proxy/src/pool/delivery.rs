//! What clients are to be told in the stead of others: here, or by the workers that have them ([`crate::mailboxes`]).
//!
//! The worker of a client that is to be told knows it by its number from when somebody has asked whether it is there ([`super::forwarding`]). If
//! it is gone when it is to be told something, whoever wanted that is told so, as a server does it: not before.
//!
//! What is told so has no place among the replies of the client that it is told for, at a server neither: whoever keeps something takes a key
//! for changed that it is told of between request and reply.

use bytes::Bytes;

use super::Pool;
use super::client::State;
use super::clients::{ClientId, Clients, find};
use super::wishes::Wish;
use crate::buffer::Piece;
use crate::mailboxes::Letter;
use crate::protocol::Protocol;
use crate::time::Time;

impl<P: Protocol> Pool<P> {
    /// What clients were to be told in the stead of others since the last time they are told, here or by their workers.
    pub(super) fn forward(&mut self, now: Time) {
        let own = self.context.own_mailbox();
        for (to, from, told) in std::mem::take(&mut self.clients.forwarded) {
            if self.context.mailboxes.worker_of(to) == own {
                let letter = Letter { senders: [from].into(), told: vec![told], is_all: false };
                self.deliver(to, letter, now);
            } else if self.context.mailboxes.tell(to, from, &told) {
                self.wishes.add(Wish::Wake(self.context.mailboxes.worker_of(to)));
            }
        }
        if self.context.mailboxes.has_mail(own) {
            let mail = self.context.mailboxes.take(own);
            mail.letters.into_iter().for_each(|(to, letter)| self.deliver(to, letter, now));
            mail.lost.into_iter().for_each(|(to, lost)| self.receiver_is_lost(to, lost));
        }
    }

    /// The client is told, if it is there.
    fn deliver(&mut self, to: u64, Letter { senders, mut told, is_all }: Letter, now: Time) {
        let id = self.caches.forwarding.receiver(to);
        let Some(id) = id.filter(|&id| self.clients.get(id).is_some()) else {
            for from in senders {
                let worker = self.context.mailboxes.worker_of(from);
                if worker == self.context.own_mailbox() {
                    self.receiver_is_lost(from, to);
                } else if self.context.mailboxes.tell_lost(from, to) {
                    self.wishes.add(Wish::Wake(worker));
                }
            }
            return;
        };
        if is_all {
            let mut all = Vec::new();
            P::tell_changed(&[], &mut all);
            told.push(all.into());
        }
        told.iter().for_each(|told| self.hand_over(id, told, now));
    }

    fn hand_over(&mut self, id: ClientId, told: &Bytes, now: Time) {
        let Some(client) = self.clients.get(id).filter(|client| client.state == State::Open) else { return };
        let mut words = Vec::new();
        P::tell_for_another(&client.session, told, &mut words);
        if words.is_empty() {
            // It cannot hear of it, and neither could it at a server.
            return;
        }
        // What one that is subscribed to nothing does not read is its own replies, too: it is bounded as any client is.
        let is_subscriber = self.channels.listens(id);
        let Clients { table, spare_activities, dirty, .. } = &mut self.clients;
        let Some(client) = find(table, id) else { return };
        let limits = &self.context.limits;
        let activity = spare_activities.give(client);
        // What it took since it was told last may have ended that.
        if is_subscriber {
            activity.is_swamped(limits, now);
        }
        activity.replies.push(&words, Piece::Copied(b""));
        if is_subscriber && activity.is_swamped(limits, now) {
            self.context.counters.subscriber_output_exceeded.add(1);
            client.state = State::Broken;
        }
        dirty.mark(client, id.index);
    }

    /// The client that was to be told in the stead of this one is not there.
    fn receiver_is_lost(&mut self, from: u64, lost: u64) {
        let Some(id) = self.caches.forwarding.sender(from) else { return };
        let Some(client) = self.clients.get_mut(id) else { return };
        let mut words = Vec::new();
        P::receiver_is_lost(&mut client.session, lost, &mut words);
        if !words.is_empty() {
            self.clients.push(id, &words);
        }
    }
}
