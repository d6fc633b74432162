//! Clients that listen to channels: how their requests get to the book of [`super::channels`] and to the shards, and what of
//! that comes back to them.

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};

use super::Pool;
use super::channels::{Channels, NAME_MAX};
use super::client::{Pause, State};
use super::clients::ClientId;
use super::connections::ConnectionId;
use super::feed::{Key, Verdict};
use super::replies::Replies;
use super::service::{Next, Service};
use crate::buffer::Output;
use crate::failure::ShardFailure;
use crate::protocol::channels::{Kind, Listening};
use crate::protocol::{DecodeRequests, Protocol};
use crate::time::Time;

impl<P: Protocol> Service<'_, P> {
    /// The client wants to listen to what is named, or no more.
    pub(super) fn listen(&mut self, change: Listening, scratch: &BytesMut, length: usize) -> Next {
        if self.activity.replies.in_flight() != self.channels.in_line(self.id) {
            // What it is told has its place among its replies, and messages come behind that.
            self.activity.paused = Some(Pause::UntilQuiet);
            return Next::Same;
        }
        let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
        let names = self.plan.keys.iter().map(|&(start, length)| &canonical[start..start + length]);
        let limits = &self.context.limits;
        let refusal = if change.on && names.clone().any(|name| name.len() > NAME_MAX) {
            Some(format!("names of channels are limited to {NAME_MAX} bytes"))
        } else if change.on && change.kind.is_channel() && names.clone().any(is_own::<P>) {
            Some("names that end like this one are the proxy's own".into())
        } else if change.on && self.channels.names_of(self.id) + names.len() > limits.subscriptions_max {
            let most = limits.subscriptions_max;
            Some(format!("a client may subscribe to {most} channels and patterns (subscriptions_max)"))
        } else if change.on && self.router.is_feed_full(limits) {
            self.context.counters.queue_full.add(1);
            Some("queue full: a shard has many subscriptions to answer; try again later".into())
        } else {
            None
        };
        if let Some(words) = refusal {
            self.context.counters.refused.add(1);
            P::failure(P::Manner::default(), &words, &mut self.plan.reply);
            self.activity.replies.replied(&self.plan.reply, P::Manner::default());
            return Next::Request;
        }
        let names: Vec<Bytes> = names.map(Bytes::copy_from_slice).collect();
        let number = self.activity.replies.submitted(P::Manner::default());
        for name in self.channels.join(self.id, number, change, names.clone()) {
            self.router.listen(change.kind, &name, limits, self.now);
        }
        if change.on {
            let mut seen = HashSet::new();
            for name in names.into_iter().filter(|name| seen.insert(name.clone())) {
                let key = (change.kind, name);
                if change.kind.is_channel() {
                    let tally = self.channels.tally(key.0, &key.1);
                    self.router.count_listeners(&key, tally, limits, self.now);
                }
                self.channels.decide(&key, self.router.verdict(&key, limits));
            }
        }
        acknowledge::<P>(self.channels, self.id, self.session, &mut self.activity.replies);
        Next::Request
    }
}

/// Whether the name is one that the proxy counts by.
fn is_own<P: Protocol>(name: &[u8]) -> bool {
    Kind::ALL.into_iter().any(|kind| P::tallied(kind, name).is_some())
}

/// The client is told what there is to tell it of its requests.
fn acknowledge<P: Protocol>(
    channels: &mut Channels,
    id: ClientId,
    session: &mut P::Session,
    replies: &mut Replies<P>,
) {
    let voice = P::voice(session);
    loop {
        let mut reply = Output::default();
        let Some(number) = channels.acknowledge::<P>(id, voice, reply.tail()) else { break };
        replies.answer_whole(number, reply);
    }
    P::listens(session, channels.listens(id));
}

impl<P: Protocol> Pool<P> {
    /// The client listens to nothing any more.
    pub(super) fn forget_channels(&mut self, id: ClientId) {
        self.channels.forget(id);
    }

    /// Whether messages that have come on the connection wait for their turn: it is not to be read.
    #[inline]
    pub fn is_behind(&self, id: ConnectionId) -> bool {
        self.channels.is_put_off(id)
    }

    /// Something has come on a feed, or it is there now.
    pub(super) fn follow_feed(&mut self, id: ConnectionId, now: Time) {
        for key in self.channels.take_answered() {
            self.router.answered(id, &key, &self.context.limits, now);
            let key = match P::tallied(key.0, &key.1) {
                Some(channel) => (key.0, key.1.slice_ref(channel)),
                None => key,
            };
            self.decide(&key);
            if key.0 == Kind::Sharded {
                self.settle_moved(&key);
            }
        }
        self.follow_moved(id, now);
        self.router.ask_next(id, now);
        self.router.begin_feed(id, &self.channels, &self.context.limits, now);
        self.acknowledge_ready();
    }

    /// A feed is lost, or could not be made.
    pub(super) fn lose_feed(&mut self, id: ConnectionId, failure: &ShardFailure, now: Time) {
        let member = self.router.connections[id].member;
        let is_present = self.router.members[member].is_present();
        let wanted = is_present && !self.channels.is_empty();
        self.channels.take_handing(id);
        let missed = self.router.feed_is_lost(id, failure, wanted, now);
        if wanted {
            self.note_gap(missed);
        }
        self.count_shard(id);
        if !is_present {
            self.router.remove_feed(member);
        }
        self.decide_all();
    }

    /// Messages to these names may have been missed.
    pub(super) fn note_gap(&mut self, missed: Vec<Key>) {
        if missed.is_empty() {
            return;
        }
        self.context.counters.message_gaps.add(1);
        if self.context.limits.closes_on_gap {
            self.close_listeners(missed);
        }
    }

    /// Those are closed that listen to one of these names: they may have missed something, and would not know.
    fn close_listeners(&mut self, missed: Vec<Key>) {
        for (kind, name) in missed {
            for &id in self.channels.listeners(kind, &name) {
                if let Some(client) = self.clients.touch(id)
                    && client.state == State::Open
                {
                    self.context.counters.subscriber_gap.add(1);
                    client.state = State::Finishing;
                }
            }
        }
    }

    /// Other shards matter from now on.
    pub(super) fn rehome(&mut self, now: Time) {
        let missed = self.router.rehome(&self.channels, &self.context.limits, now);
        self.note_gap(missed);
        self.decide_all();
    }

    /// What is known by now of all names that somebody waits for.
    fn decide_all(&mut self) {
        for key in self.channels.awaited() {
            self.decide(&key);
        }
        self.acknowledge_ready();
    }

    pub(super) fn decide(&mut self, key: &Key) {
        if self.channels.is_awaited(key) {
            let verdict: Verdict = self.router.verdict(key, &self.context.limits);
            self.channels.decide(key, verdict);
        }
    }

    /// Those are told of whom it is known what becomes of their requests.
    pub(super) fn acknowledge_ready(&mut self) {
        for id in self.channels.take_ready() {
            if let Some(client) = self.clients.touch(id)
                && let Some(activity) = client.activity.as_deref_mut()
            {
                acknowledge::<P>(&mut self.channels, id, &mut client.session, &mut activity.replies);
            }
        }
    }

    /// What is left to do of channels at the end of a pass: shards are asked for no name that nobody wants, and messages that
    /// were put off have their turn.
    pub(super) fn tidy_channels(&mut self, scratch: &mut BytesMut, now: Time) {
        self.acknowledge_ready();
        let dropped = self.channels.take_dropped();
        let drops = !dropped.is_empty();
        for (kind, name) in dropped {
            if !self.channels.is_wanted(kind, &name) {
                self.router.listen_no_more(kind, &name, now);
            }
        }
        for key in self.channels.take_recounted() {
            let tally = self.channels.tally(key.0, &key.1);
            self.router.count_listeners(&key, tally, &self.context.limits, now);
            self.decide(&key);
        }
        self.acknowledge_ready();
        if drops && self.channels.is_empty() {
            self.router.rest_feeds(now);
        }
        for id in self.channels.take_put_off() {
            let Some(connection) = self.router.connections.get_mut(id) else { continue };
            connection.rest.take(scratch);
            if let Err(failure) = self.shard_goes_on(id, scratch, now) {
                self.router.connections.close(id, failure);
            }
        }
        let (before, after) = self.channels.count();
        self.share.change(before, after);
        self.context.counters.subscribers.set(self.channels.subscriber_count() as i64);
    }
}
