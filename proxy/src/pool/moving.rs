//! Sharded channels on their way: a node of a cluster does not have their slot, or not any more.
//!
//! A node that loses a slot says of each channel in it, unasked, that it is listened to no more, and one that does not have it names another or asks
//! for patience. Clients hear nothing of that: the nodes are asked who owns what, and the channel is asked of its owner again, after pauses that
//! double, and whenever owners change. If nodes still refuse it after [`MOVING_MAX`], those that wait for it get their words, and
//! those that listen are told that they do no more, as a node tells its own clients. One whose owner is away is waited for as any.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::Pool;
use super::clients::{Clients, find};
use super::connections::ConnectionId;
use super::feed::{Key, Verdict};
use crate::buffer::Piece;
use crate::protocol::channels::Listening;
use crate::protocol::{Protocol, Redirect};
use crate::time::Time;

/// How long nodes may refuse a channel.
const MOVING_MAX: Duration = Duration::from_secs(5);
/// The pauses between attempts.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// What a channel takes here beside its bytes, which it shares.
const ENTRY_BYTES: usize = 4 * size_of::<(Time, Key)>() + 2 * size_of::<Attempts>();

/// What a node has said of a channel that is at another one.
#[derive(Debug)]
pub(super) struct Moved {
    pub key: Key,
    /// Its words; none where it has left the channel unasked.
    pub words: Option<Box<str>>,
}

#[derive(Debug)]
struct Attempts {
    since: Time,
    count: u32,
    due: Time,
}

/// The channels that are on their way.
#[derive(Default)]
pub(super) struct Moving {
    channels: HashMap<Key, Attempts>,
    /// When the next attempt is due.
    due: BTreeSet<(Time, Key)>,
    /// What nodes have said in this pass.
    said: Vec<Moved>,
}

impl Moving {
    /// A node has said this.
    pub fn said(&mut self, moved: Moved) {
        self.said.push(moved);
    }

    /// When the next attempt is due.
    pub fn due(&self) -> Option<Time> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Whether the channel is on its way.
    pub fn has(&self, key: &Key) -> bool {
        self.channels.contains_key(key)
    }

    /// What is held.
    pub fn bytes(&self) -> usize {
        self.channels.len() * ENTRY_BYTES
    }

    /// It is there, or nobody wants it any more.
    pub fn forget(&mut self, key: &Key) {
        if let Some(attempts) = self.channels.remove(key) {
            self.due.remove(&(attempts.due, key.clone()));
        }
    }

    /// It is to be tried again after a pause, which is longer each time that it was `refused`. Since when it has been on its way.
    fn put_off(&mut self, key: &Key, refused: bool, now: Time) -> Time {
        let fresh = Attempts { since: now, count: 0, due: now };
        let attempts = self.channels.entry(key.clone()).or_insert(fresh);
        self.due.remove(&(attempts.due, key.clone()));
        let pause = if refused { PAUSE_MIN * (1 << attempts.count.min(10)) } else { PAUSE_MAX };
        attempts.due = now.plus(pause.min(PAUSE_MAX));
        attempts.count += u32::from(refused);
        self.due.insert((attempts.due, key.clone()));
        attempts.since
    }

    fn take_due(&mut self, now: Time) -> Vec<Key> {
        let due = self.due.iter().take_while(|&&(due, _)| due <= now);
        due.map(|(_, key)| key.clone()).collect()
    }
}

impl<P: Protocol> Pool<P> {
    /// Nodes have said of channels that they are elsewhere.
    pub(super) fn follow_moved(&mut self, feed: ConnectionId, now: Time) {
        let mut missed = Vec::new();
        for Moved { key, words } in std::mem::take(&mut self.channels.moving.said) {
            self.count_moved(words.as_deref());
            let is_left = words.is_none();
            // What counts the listeners of a channel goes with it.
            let channel = P::tallied(key.0, &key.1).map(|channel| (key.0, key.1.slice_ref(channel)));
            let is_own = channel.is_none();
            let channel = channel.unwrap_or_else(|| key.clone());
            if !self.channels.is_wanted(channel.0, &channel.1) {
                continue;
            }
            let since = self.channels.moving.put_off(&channel, true, now);
            if is_left && is_own && !self.channels.listeners(channel.0, &channel.1).is_empty() {
                missed.push(channel.clone());
            }
            if now.since(since) >= MOVING_MAX {
                let words = words.unwrap_or_else(|| "the channel is at another node".into());
                self.router.refuse_name(feed, &key, words);
                if is_own {
                    self.give_up_channel(&channel);
                } else {
                    // It counts less than it should, if the channel itself is there.
                    self.decide(&channel);
                    self.settle_moved(&channel);
                }
            }
        }
        self.note_gap(missed);
    }

    fn count_moved(&mut self, words: Option<&str>) {
        let counters = &self.context.counters;
        let reply = words.map(|words| format!("-{words}\r\n"));
        match reply.as_deref().and_then(|reply| P::redirect(reply.as_bytes())) {
            Some(Redirect::Ask { .. }) => counters.redirects_ask.add(1),
            Some(Redirect::Later { .. }) => counters.redirects_later.add(1),
            _ => counters.redirects_moved.add(1),
        }
        self.redirects.stale = true;
    }

    /// Channels whose time has come are asked of their owners again.
    pub(super) fn try_moved(&mut self, now: Time) {
        for key in self.channels.moving.take_due(now) {
            if !self.channels.is_wanted(key.0, &key.1) {
                self.channels.moving.forget(&key);
                continue;
            }
            let since = self.channels.moving.put_off(&key, false, now);
            let has_home = self.router.ask_again(&key, &self.context.limits, now);
            if !has_home {
                // Nobody owns its slot, as far as is known.
                self.redirects.stale = true;
                if now.since(since) >= MOVING_MAX {
                    self.give_up_channel(&key);
                }
            }
        }
        self.acknowledge_ready();
    }

    /// The channel may have arrived, or its owner may have refused it for good.
    pub(super) fn settle_moved(&mut self, key: &Key) {
        if self.router.is_refused(key, &self.context.limits) {
            self.channels.moving.forget(key);
            self.dismiss(key);
        } else if self.channels.moving.has(key)
            && matches!(self.router.verdict(key, &self.context.limits), Verdict::Heard)
        {
            self.channels.moving.forget(key);
        }
    }

    fn give_up_channel(&mut self, key: &Key) {
        self.context.counters.redirects_given_up.add(1);
        self.channels.moving.forget(key);
        self.decide(key);
        self.dismiss(key);
    }

    /// Those that listen to the channel are told that they do no more.
    fn dismiss(&mut self, key: &Key) {
        let (kind, name) = key;
        for (id, count) in self.channels.dismiss(key) {
            let Clients { table, spare_activities, dirty, .. } = &mut self.clients;
            let Some(client) = find(table, id) else { continue };
            let mut words = Vec::new();
            let change = Listening { kind: *kind, on: false };
            P::acknowledge(change, Some(name), count, P::voice(&client.session), &mut words);
            spare_activities.give(client).replies.push(b"", Piece::Copied(&words));
            P::listens(&mut client.session, self.channels.listens(id));
            dirty.mark(client, id.index);
        }
    }
}
