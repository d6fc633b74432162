//! Feeds: the connections on which shards are listened to, one for each shard at most.
//!
//! They are in the book of connections like all others, but in no lane, and nothing but names is asked on them: a shard sends
//! messages whenever it has some, between responses, which the connections of requests have no place for. Each name is asked for by
//! a ticket of its own, so its time is measured as that of any request; while one is on its way no other is sent for that name.
//!
//! A shard is asked for some names at a time ([`super::feed::ASKED_MAX`]), the next ones as it answers; one that has said nothing for
//! a while is asked for a sign of life, because nobody else would notice that no message can come any more.
//!
//! What fails on a feed counts against nobody: the shard's other connections tell how it fares. One that is lost is made again
//! as long as somebody listens to something, and then all names are asked for anew. What was published meanwhile is lost, as a
//! server's subscriber would have lost it.
//!
//! However many clients of a worker listen to a channel, its shard sees one subscription. So that PUBSUB NUMSUB counts clients all the
//! same, the owner of a channel that n listen to here is asked for names beside it, one for each bit of n - 1
//! ([`crate::protocol::channels::Channels::tally`]): what all proxies have asked for is added up from the number of subscriptions to
//! each of them. Nothing is published to those names.
//!
//! Which shards a name is asked of: all of them, because a message may be published on any (by a script, by the shard itself, by
//! whoever speaks to it directly), and each message is published on one only; or the owner of the name alone, where the pool
//! says so, and of a sharded channel anyhow. Nodes of a cluster hand on what is published, so there it is one of them in any case. A message counts only where
//! it comes from a shard that the name is asked of at that time. Where a sharded channel gets another owner, the former one is asked until the
//! present one has answered: no node hands such messages on, so none comes twice.

use std::time::Duration;

use bytes::Bytes;

use super::channels::Channels;
use super::connection::Link;
use super::connections::ConnectionId;
use super::feed::{Feed, FeedRequest, Key, Line, Verdict};
use super::limits::Limits;
use super::members::{MemberIndex, ShardIndex};
use super::policy::Policy;
use super::router::Router;
use super::ticket::Ticket;
use crate::buffer::Piece;
use crate::failure::ShardFailure;
use crate::protocol::Protocol;
use crate::protocol::channels::{Kind, Listening, TALLY_BITS};
use crate::time::Time;

/// A feed that nothing is asked of is kept for so long.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// One that has said nothing for so long is asked for a sign of life.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The pauses before a lost feed is made again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// One that was there for so long was no failed attempt.
const STEADY: Duration = Duration::from_secs(10);

/// How a name stands at one shard.
enum Stand {
    Open,
    Heard,
    Failed(String),
}

/// The bits that are set.
fn bits(of: u32) -> impl Iterator<Item = u32> {
    (0..TALLY_BITS).filter(move |bit| of & (1 << bit) != 0)
}

impl<P: Protocol> Router<P> {
    /// The shards that the name is asked of.
    fn homes(&self, kind: Kind, name: &[u8], limits: &Limits) -> Vec<MemberIndex> {
        let is_owners = match kind {
            Kind::Sharded => true,
            _ if P::is_of_each_shard(kind, name) => false,
            Kind::Channel => self.topology.redirects() || !limits.listens_everywhere,
            Kind::Pattern => self.topology.redirects(),
        };
        if is_owners {
            return self.owner(name).into_iter().collect();
        }
        // Replicas tell of the same once more.
        let primaries = self.members.present().iter().filter(|&&member| !self.members[member].is_replica);
        primaries.copied().collect()
    }

    /// The shard on which what is published to the name through the proxy is published.
    fn owner(&self, name: &[u8]) -> Option<MemberIndex> {
        let home = self.topology.home_of(name)?;
        Some(self.members.of(ShardIndex(home.shard)))
    }

    /// How the name stands at the shards that matter. All of them have to say yes that are there; at least the one does where
    /// messages are published through the proxy.
    pub fn verdict(&self, (kind, name): &Key, limits: &Limits) -> Verdict {
        let has_owner = kind.is_channel() && !P::is_of_each_shard(*kind, name);
        let owner = if has_owner { self.owner(name) } else { None };
        let (mut is_heard, mut failed) = (false, None);
        for member in self.homes(*kind, name, limits) {
            match self.stand(member, *kind, name) {
                Stand::Open => return Verdict::Open,
                Stand::Heard => is_heard = true,
                Stand::Failed(words) if owner == Some(member) => return Verdict::Failed(words),
                Stand::Failed(words) => failed = Some(words),
            }
        }
        match failed {
            _ if is_heard => Verdict::Heard,
            Some(words) => Verdict::Failed(words),
            None => Verdict::Failed("no shard is there to listen to".into()),
        }
    }

    fn stand(&self, member: MemberIndex, kind: Kind, name: &[u8]) -> Stand {
        let Some(feed) = self.feed_of(member) else { return Stand::Open };
        let said = |words: &str| Stand::Failed(format!("shard {}: {words}", self.members[member].name));
        if let Some(failure) = &feed.failure {
            return Stand::Failed(failure.of_shard(&self.members[member].name));
        }
        let lines = &feed.names[kind.place()];
        match lines.get(name) {
            Some(Line { asked: None, is_on: true, tally, .. }) => {
                let mut names = bits(*tally).map(|bit| P::tally(kind, name, bit));
                let is_counted = |name: Vec<u8>| lines.get(&name[..]).is_none_or(Line::is_settled);
                if names.all(is_counted) { Stand::Heard } else { Stand::Open }
            }
            Some(Line { asked: None, refused: Some(words), .. }) => said(words),
            _ => Stand::Open,
        }
    }

    /// The feed of the member, if it has one.
    pub fn feed_id(&self, member: MemberIndex) -> Option<ConnectionId> {
        self.feeds.of_members.get(&member).copied()
    }

    fn feed_of(&self, member: MemberIndex) -> Option<&Feed> {
        self.connections[self.feed_id(member)?].feed.as_deref()
    }

    fn feed_mut(&mut self, id: ConnectionId) -> &mut Feed {
        self.connections[id].feed.as_deref_mut().expect("it is a feed")
    }

    /// Whether a shard has so many names to answer that no more are asked.
    pub fn is_feed_full(&self, limits: &Limits) -> bool {
        let feeds = self.members.present().iter().filter_map(|&member| self.feed_of(member));
        feeds.map(Feed::unanswered).max().unwrap_or(0) >= limits.shard_queue_max
    }

    /// Somebody wants to listen to the name, which nobody did.
    pub fn listen(&mut self, kind: Kind, name: &Bytes, limits: &Limits, now: Time) {
        for member in self.homes(kind, name, limits) {
            let id = match self.feed_id(member) {
                Some(id) => id,
                None => self.add_feed(member, limits),
            };
            let connection = &self.connections[id];
            // One that was lost is made again in its time.
            let is_due = connection.feed.as_ref().is_some_and(|feed| feed.due.is_none());
            match connection.link {
                Link::Up => self.ask(id, Listening { kind, on: true }, name, now),
                Link::Idle | Link::Down { .. } if is_due => self.connections.connect(id),
                Link::Idle | Link::Down { .. } | Link::Connecting { .. } | Link::Greeting(_) => {}
            }
        }
        self.set_scopes(kind, name);
    }

    /// In a cluster one node hands on what is published anywhere, though all are asked for the name.
    fn set_scopes(&mut self, kind: Kind, name: &[u8]) {
        if !self.topology.redirects() || !P::is_of_each_shard(kind, name) {
            return;
        }
        let owner = self.owner(name);
        for member in self.members.present().to_vec() {
            if let Some(id) = self.feed_id(member)
                && let Some(line) = self.feed_mut(id).names[kind.place()].get_mut(name)
            {
                line.only_own = owner != Some(member);
            }
        }
    }

    /// So many listen to the channel beside one: its owner is told.
    pub fn count_listeners(&mut self, key: &Key, tally: u32, limits: &Limits, now: Time) {
        let (kind, channel) = key;
        let owner = self.owner(channel).filter(|owner| self.homes(*kind, channel, limits).contains(owner));
        for member in self.members.present().to_vec() {
            self.set_tally(member, key, if owner == Some(member) { tally } else { 0 }, now);
        }
    }

    fn set_tally(&mut self, member: MemberIndex, (kind, channel): &Key, tally: u32, now: Time) {
        let (kind, Some(id)) = (*kind, self.feed_id(member)) else { return };
        let lines = &mut self.feed_mut(id).names[kind.place()];
        let Some(line) = lines.get_mut(channel) else { return };
        let before = std::mem::replace(&mut line.tally, tally);
        if before == tally {
            return;
        }
        let feed = self.feed_mut(id);
        feed.tally_bytes += channel.len() * tally.count_ones() as usize;
        feed.tally_bytes = feed.tally_bytes.saturating_sub(channel.len() * before.count_ones() as usize);
        for (on, changed) in [(false, before & !tally), (true, tally & !before)] {
            for bit in bits(changed) {
                let name = Bytes::from(P::tally(kind, channel, bit));
                self.ask(id, Listening { kind, on }, &name, now);
            }
        }
    }

    /// Nobody wants to listen to the name any more.
    pub fn listen_no_more(&mut self, kind: Kind, name: &Bytes, now: Time) {
        for member in self.members.present().to_vec() {
            if let Some(id) = self.feed_id(member)
                && self.feed_mut(id).names[kind.place()].contains_key(name)
            {
                if kind.is_channel() {
                    self.set_tally(member, &(kind, name.clone()), 0, now);
                }
                self.ask(id, Listening { kind, on: false }, name, now);
            }
        }
    }

    /// Nobody listens to anything: feeds are closed if that stays so.
    pub fn rest_feeds(&mut self, now: Time) {
        for member in self.members.present().to_vec() {
            if let Some(id) = self.feed_id(member)
                && self.connections[id].is_made()
            {
                self.look_later(id, now.plus(IDLE_MAX));
            }
        }
    }

    fn look_later(&mut self, id: ConnectionId, due: Time) {
        self.feed_mut(id).due = Some(due);
        self.feeds.due = Some(self.feeds.due.map_or(due, |earliest| earliest.min(due)));
    }

    fn add_feed(&mut self, member: MemberIndex, limits: &Limits) -> ConnectionId {
        let policy = Policy::feed(limits.timeout);
        let lane = self.connections.usual_key();
        let id = self.connections.insert(member, lane, policy, false);
        self.connections[id].feed =
            Some(Box::new(Feed { follows: self.topology.redirects(), ..Feed::default() }));
        self.connections[id].special = true;
        self.feeds.of_members.insert(member, id);
        id
    }

    /// Asks for the name, once what was asked for it before is answered.
    fn ask(&mut self, id: ConnectionId, change: Listening, name: &Bytes, now: Time) {
        let feed = self.feed_mut(id);
        let is_busy = feed.is_busy();
        let line = feed.names[change.kind.place()].entry(name.clone()).or_default();
        line.wanted = change.on;
        if line.asked.is_some() || line.queued {
            return;
        }
        if line.is_on == change.on && line.refused.is_none() {
            if !change.on {
                // A node has left it of its own accord.
                feed.names[change.kind.place()].remove(name);
            }
            return;
        }
        if is_busy {
            line.queued = true;
            return feed.backlog.push_back((change.kind, name.clone()));
        }
        line.asked = Some(change.on);
        line.refused = None;
        feed.asked.push_back(FeedRequest::Name(change, name.clone()));
        let mut request = Vec::new();
        P::listen(change, name, &mut request);
        self.submit(id, Ticket::prelude(now), Piece::Copied(&request), now);
    }

    /// The shard has answered for the name.
    pub fn answered(&mut self, id: ConnectionId, (kind, name): &Key, limits: &Limits, now: Time) {
        let Some(line) = self.feed_mut(id).names[kind.place()].get(name) else { return };
        let (wanted, is_on, is_refused) = (line.wanted, line.is_on, line.refused.is_some());
        if wanted != is_on && !is_refused {
            self.ask(id, Listening { kind: *kind, on: wanted }, name, now);
        } else if !wanted && !line.queued {
            self.feed_mut(id).names[kind.place()].remove(name);
        } else if *kind == Kind::Sharded && P::tallied(*kind, name).is_none() {
            self.leave_former(*kind, name, limits, now);
        }
    }

    /// Names are asked for that have waited for others to be answered.
    pub fn ask_next(&mut self, id: ConnectionId, now: Time) {
        while !self.feed_mut(id).is_busy()
            && let Some((kind, name)) = self.feed_mut(id).backlog.pop_front()
        {
            let names = &mut self.feed_mut(id).names[kind.place()];
            let Some(line) = names.get_mut(&name) else { continue };
            line.queued = false;
            let (on, is_over) = (line.wanted, !line.wanted && !line.is_on && line.asked.is_none());
            if is_over {
                names.remove(&name);
            } else {
                self.ask(id, Listening { kind, on }, &name, now);
            }
        }
    }

    /// The feed is there: all names are asked for that are to be asked of its shard.
    pub fn begin_feed(&mut self, id: ConnectionId, channels: &Channels, limits: &Limits, now: Time) {
        let connection = &self.connections[id];
        let Some(feed) = connection.feed.as_ref() else { return };
        let member = connection.member;
        if feed.begun.is_some() || !matches!(connection.link, Link::Up) || !self.members[member].is_present()
        {
            return;
        }
        let feed = self.feed_mut(id);
        (feed.begun, feed.heard, feed.failure) = (Some(now), now, None);
        self.look_later(id, now.plus(if channels.is_empty() { IDLE_MAX } else { SILENCE_MAX }));
        for (kind, name) in channels.wanted() {
            if self.homes(kind, name, limits).contains(&member) {
                self.ask(id, Listening { kind, on: true }, name, now);
                self.set_scopes(kind, name);
                if kind.is_channel() && self.owner(name) == Some(member) {
                    self.set_tally(member, &(kind, name.clone()), channels.tally(kind, name), now);
                }
            }
        }
    }

    /// The feed is lost, or could not be made. Names that were listened to on it.
    pub fn feed_is_lost(
        &mut self,
        id: ConnectionId,
        failure: &ShardFailure,
        wanted: bool,
        now: Time,
    ) -> Vec<Key> {
        let jitter = self.random();
        let feed = self.feed_mut(id);
        let heard = feed.take_heard();
        let begun = feed.begun.take();
        feed.due = None;
        if begun.is_some_and(|begun| now.since(begun) >= STEADY) {
            feed.attempts = 0;
        }
        // One that was there is worth an attempt that is waited for.
        feed.failure = (begun.is_none() || feed.attempts > 0).then(|| failure.clone());
        if !wanted {
            feed.failure = None;
            return heard;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << feed.attempts.min(10)).min(PAUSE_MAX);
        feed.attempts += 1;
        // Workers and replicas do not knock in step.
        let half = pause / 2;
        let pause = half + Duration::from_micros(jitter % (half.as_micros() as u64 + 1));
        self.look_later(id, now.plus(pause));
        heard
    }

    /// Feeds whose time has come are made again, or closed.
    pub fn look_at_feeds(&mut self, channels: &Channels, now: Time) {
        if self.feeds.due.is_none_or(|due| due > now) {
            return;
        }
        self.feeds.due = None;
        for member in self.members.present().to_vec() {
            let Some(id) = self.feed_id(member) else { continue };
            let Some(due) = self.feed_mut(id).due else { continue };
            if due > now {
                self.look_later(id, due);
                continue;
            }
            self.feed_mut(id).due = None;
            let connection = &self.connections[id];
            if channels.is_empty() {
                if connection.is_made() {
                    self.connections.close(id, ShardFailure::Removed);
                }
            } else if connection.is_closed() {
                self.connections.connect(id);
            } else if matches!(connection.link, Link::Up) {
                self.ask_for_life(id, now);
            }
        }
    }

    /// Asks the shard for a sign of life, if it has given none for a while.
    fn ask_for_life(&mut self, id: ConnectionId, now: Time) {
        let feed = self.feed_mut(id);
        let silent_from = feed.heard.plus(SILENCE_MAX);
        // What is asked of it anyway is as good.
        if feed.asked.is_empty() && silent_from <= now {
            feed.asked.push_back(FeedRequest::Life);
            let mut request = Vec::new();
            P::ask_for_life(&mut request);
            self.submit(id, Ticket::prelude(now), Piece::Copied(&request), now);
        }
        self.look_later(id, if silent_from > now { silent_from } else { now.plus(SILENCE_MAX) });
    }

    /// Other shards matter for names: those are asked that were not, and others no more. Returns names whose messages are
    /// published where they are not heard yet: some may be missed by those that listen already.
    pub fn rehome(&mut self, channels: &Channels, limits: &Limits, now: Time) -> Vec<Key> {
        let mut missed = Vec::new();
        if channels.is_empty() {
            return missed;
        }
        for (kind, name) in channels.wanted() {
            self.listen(kind, name, limits, now);
            self.leave_former(kind, name, limits, now);
            if kind.is_channel() {
                self.count_listeners(&(kind, name.clone()), channels.tally(kind, name), limits, now);
            }
            let is_deaf = |&member: &MemberIndex| !self.is_heard(member, kind, name);
            let is_missed = match kind.is_channel() && !P::is_of_each_shard(kind, name) {
                true => self.owner(name).as_ref().is_none_or(is_deaf),
                false => self.homes(kind, name, limits).iter().any(is_deaf),
            };
            let is_known = channels.moving.has(&(kind, name.clone()));
            if is_missed && !is_known && !channels.listeners(kind, name).is_empty() {
                missed.push((kind, name.clone()));
            }
        }
        missed
    }

    /// Shards that need not be asked for the name any more are told so. Where each message is on one shard only, the one that has
    /// them from now on is listened to first, so that fewer are missed.
    fn leave_former(&mut self, kind: Kind, name: &Bytes, limits: &Limits, now: Time) {
        let homes = self.homes(kind, name, limits);
        if kind == Kind::Sharded && homes.iter().any(|&home| !self.is_heard(home, kind, name)) {
            return;
        }
        for member in self.members.present().to_vec() {
            if let Some(id) = self.feed_id(member)
                && !homes.contains(&member)
                && self.feed_mut(id).hears(kind, name)
            {
                self.ask(id, Listening { kind, on: false }, name, now);
            }
        }
    }

    /// The channel is asked of its owner again, and with it what counts its listeners, unless that is done. False if nobody owns it.
    pub fn ask_again(&mut self, key: &Key, limits: &Limits, now: Time) -> bool {
        let (kind, name) = key;
        self.listen(*kind, name, limits, now);
        let homes = self.homes(*kind, name, limits);
        for &home in &homes {
            let Some(id) = self.feed_id(home).filter(|&id| matches!(self.connections[id].link, Link::Up))
            else {
                continue;
            };
            let tally = self.feed_mut(id).names[kind.place()].get(name).map_or(0, |line| line.tally);
            for bit in bits(tally) {
                let name = Bytes::from(P::tally(*kind, name, bit));
                self.ask(id, Listening { kind: *kind, on: true }, &name, now);
            }
        }
        !homes.is_empty()
    }

    /// Whether an owner of the name has refused it for good.
    pub fn is_refused(&self, (kind, name): &Key, limits: &Limits) -> bool {
        let line = |home| self.feed_of(home).and_then(|feed| feed.names[kind.place()].get(name));
        let mut lines = self.homes(*kind, name, limits).into_iter().filter_map(line);
        lines.any(|line| line.asked.is_none() && line.refused.is_some())
    }

    /// The shard's last word on the name is that it is elsewhere.
    pub fn refuse_name(&mut self, id: ConnectionId, (kind, name): &Key, words: Box<str>) {
        if let Some(line) = self.feed_mut(id).names[kind.place()].get_mut(name) {
            line.refused = Some(words);
        }
    }

    /// Whether the shard has said that the name is listened to.
    fn is_heard(&self, member: MemberIndex, kind: Kind, name: &[u8]) -> bool {
        let line = self.feed_of(member).and_then(|feed| feed.names[kind.place()].get(name));
        line.is_some_and(|line| line.is_on)
    }

    /// The feed of a member that has left is closed.
    pub fn leave_feed(&mut self, member: MemberIndex) {
        let Some(id) = self.feed_id(member) else { return };
        if self.connections[id].is_made() {
            self.connections.close(id, ShardFailure::Removed);
        } else if self.connections[id].is_closed() {
            self.remove_feed(member);
        }
    }

    /// It is closed.
    pub fn remove_feed(&mut self, member: MemberIndex) {
        if let Some(id) = self.feeds.of_members.remove(&member) {
            self.connections.remove([id]);
        }
    }
}
