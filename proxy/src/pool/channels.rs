//! The book of channels: which client listens to what, and who waits to be told that it does.
//!
//! ```text
//!   SUBSCRIBE ──> request in line ──> all shards that matter have said yes ──> acknowledged: the client listens
//!                 (its reply is owed)          ([`super::feeds`])
//!   message ──────────────────────────────────────────────────────────────> to each that listens, between its replies
//! ```
//!
//! A client listens from its acknowledgement on and until the one that says that it does no more, so no message can come
//! before the first or after the second. Requests stand in line: what one says of how many channels there are is what holds
//! when its turn has come. A request of this kind is taken only while nothing but such requests is in flight for its client, so
//! the front of the line is the front of the client's replies.
//!
//! However many clients listen to a name, each shard is asked for it once.
//!
//! Limits: names of one client (`subscriptions_max`), bytes of a name ([`NAME_MAX`]); what a client holds here is in the account.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;

use super::clients::ClientId;
use super::connections::ConnectionId;
use super::feed::{Key, Verdict};
use super::moving::Moving;
use crate::protocol::Protocol;
use crate::protocol::channels::{Kind, Listening, TALLY_BITS, Voice};

/// Longest name of a channel, and longest pattern.
pub const NAME_MAX: usize = 64 * 1024;
/// What a name takes beside its bytes, for a client that listens to it.
const ENTRY_BYTES: usize = 160;

/// No more can be told of a channel.
const TALLY_MAX: u32 = (1 << TALLY_BITS) - 1;

/// Which clients listen to what.
#[derive(Default)]
pub(super) struct Channels {
    /// By kind and name; each is there as long as somebody listens or waits.
    names: [HashMap<Bytes, Name>; Kind::COUNT],
    /// Those that have ever listened to something, or want to.
    subscribers: HashMap<ClientId, Subscriber>,
    /// Names that somebody waits for.
    awaited: HashSet<Key>,
    /// Names that a shard has answered for.
    answered: Vec<Key>,
    /// Clients of whose requests more is known.
    ready: Vec<ClientId>,
    /// Names that nobody wants any more, or nobody did for a time.
    dropped: Vec<Key>,
    /// Channels that fewer listen to than before.
    recounted: Vec<Key>,
    /// Feeds with messages that wait for another pass.
    put_off: Vec<ConnectionId>,
    /// Messages of which not all that listen have got theirs, one for a feed at most.
    handing: Vec<(ConnectionId, Handing)>,
    /// Those that are on their way from one node of a cluster to another.
    pub moving: Moving,
    /// What all clients hold here, and what of that was counted last.
    bytes: usize,
    counted: usize,
}

/// Messages that are handed out, in the order of clients.
#[derive(Debug)]
pub(super) struct Handing {
    /// What of.
    pub kind: Kind,
    /// The name because of which they came.
    pub name: Bytes,
    /// As they came.
    pub messages: Bytes,
    /// Where each of them begins.
    pub starts: Vec<usize>,
    /// Those up to this one have them.
    pub last: ClientId,
}

impl Handing {
    /// What it holds.
    fn bytes(&self) -> usize {
        self.name.len() + self.messages.len() + self.starts.capacity() * size_of::<usize>()
    }
}

/// Who listens to a name.
#[derive(Default)]
struct Name {
    /// In order.
    listeners: Vec<ClientId>,
    /// Requests that wait for it, by client and number, in order; as often as they name it.
    waiting: Vec<(ClientId, u32)>,
    /// Clients of requests in line that want to listen to it, in order, as often as they name it, whether it is known already what
    /// becomes of it or not.
    claimants: Vec<ClientId>,
    /// How many of those do not listen to it yet, each counted once.
    coming: usize,
}

impl Name {
    fn is_wanted(&self) -> bool {
        !self.listeners.is_empty() || !self.claimants.is_empty()
    }

    fn has(&self, id: ClientId) -> bool {
        self.listeners.binary_search(&id).is_ok() || self.claimants.binary_search(&id).is_ok()
    }

    fn claim(&mut self, id: ClientId) {
        self.coming += usize::from(!self.has(id));
        let place = self.claimants.partition_point(|&other| other <= id);
        self.claimants.insert(place, id);
    }

    fn unclaim(&mut self, id: ClientId) {
        let Ok(place) = self.claimants.binary_search(&id) else { return };
        self.claimants.remove(place);
        self.coming -= usize::from(!self.has(id));
    }

    fn hear(&mut self, id: ClientId) {
        let Err(place) = self.listeners.binary_search(&id) else { return };
        self.coming -= usize::from(self.has(id));
        self.listeners.insert(place, id);
    }

    fn leave(&mut self, id: ClientId) {
        let Ok(place) = self.listeners.binary_search(&id) else { return };
        self.listeners.remove(place);
        self.coming += usize::from(self.has(id));
    }
}

/// A client that listens, or is about to.
#[derive(Default)]
pub(super) struct Subscriber {
    /// What it listens to.
    names: [BTreeSet<Bytes>; Kind::COUNT],
    /// Requests that are not acknowledged yet, oldest first; their numbers follow each other.
    line: VecDeque<Request>,
    /// How many names those have.
    names_in_line: usize,
    /// What it holds.
    bytes: usize,
}

/// What a request holds with these names.
fn bytes_of(names: &[Bytes]) -> usize {
    names.iter().map(|name| name.len() + ENTRY_BYTES).sum::<usize>() + size_of::<Request>()
}

struct Request {
    number: u32,
    change: Listening,
    /// As they came. None: all.
    names: Vec<Bytes>,
    /// Names that shards have not said yes to yet.
    missing: usize,
    /// Why it cannot be done, if so.
    failed: Option<String>,
}

impl Channels {
    /// Nobody listens to anything.
    pub fn is_empty(&self) -> bool {
        self.names.iter().all(HashMap::is_empty)
    }

    /// How many requests of the client are in line.
    pub fn in_line(&self, id: ClientId) -> usize {
        self.subscribers.get(&id).map_or(0, |subscriber| subscriber.line.len())
    }

    /// To how many names of each kind the client listens.
    pub fn count_of(&self, id: ClientId) -> [usize; Kind::COUNT] {
        let subscriber = self.subscribers.get(&id);
        subscriber.map_or([0; Kind::COUNT], |subscriber| subscriber.names.each_ref().map(BTreeSet::len))
    }

    /// What the client listens to, and what it has asked to listen to.
    pub fn of(&self, id: ClientId) -> impl Iterator<Item = (Kind, &[u8])> {
        let subscriber = self.subscribers.get(&id);
        let heard = subscriber.into_iter().flat_map(|subscriber| {
            Kind::ALL
                .into_iter()
                .zip(&subscriber.names)
                .flat_map(|(kind, names)| names.iter().map(move |name| (kind, &name[..])))
        });
        let asked = subscriber.into_iter().flat_map(|subscriber| &subscriber.line);
        let asked = asked
            .filter(|request| request.change.on)
            .flat_map(|request| request.names.iter().map(|name| (request.change.kind, &name[..])));
        heard.chain(asked)
    }

    /// Whether the client listens to something, or has asked for that.
    pub fn listens(&self, id: ClientId) -> bool {
        self.subscribers.get(&id).is_some_and(Subscriber::listens)
    }

    /// How many names the client has, those that it waits for included.
    pub fn names_of(&self, id: ClientId) -> usize {
        self.subscribers.get(&id).map_or(0, Subscriber::names)
    }

    /// What is held for the client.
    pub fn bytes_of(&self, id: ClientId) -> usize {
        self.subscribers.get(&id).map_or(0, |subscriber| subscriber.bytes)
    }

    /// Who listens to the name.
    pub fn listeners(&self, kind: Kind, name: &[u8]) -> &[ClientId] {
        self.names[kind.place()].get(name).map_or(&[], |name| &name.listeners)
    }

    /// How many listen to the channel beside one, those included that are about to: what shards are told of that.
    pub fn tally(&self, kind: Kind, channel: &[u8]) -> u32 {
        let name = self.names[kind.place()].get(channel);
        let count = name.map_or(0, |name| name.listeners.len() + name.coming);
        u32::try_from(count.saturating_sub(1)).map_or(TALLY_MAX, |count| count.min(TALLY_MAX))
    }

    /// Channels that fewer listen to than before.
    pub fn take_recounted(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.recounted)
    }

    /// Whether somebody listens to the name or waits for it.
    pub fn is_wanted(&self, kind: Kind, name: &[u8]) -> bool {
        self.names[kind.place()].contains_key(name)
    }

    /// All names that somebody listens to or waits for, in order: one seed is to be one run.
    pub fn wanted(&self) -> Vec<(Kind, &Bytes)> {
        let of_kind = |kind: Kind| self.names[kind.place()].keys().map(move |name| (kind, name));
        let mut wanted: Vec<_> = Kind::ALL.into_iter().flat_map(of_kind).collect();
        wanted.sort_unstable();
        wanted
    }

    /// Names that somebody waits for, in order.
    pub fn awaited(&self) -> Vec<Key> {
        let mut awaited: Vec<Key> = self.awaited.iter().cloned().collect();
        awaited.sort_unstable();
        awaited
    }

    /// Whether somebody waits for the name.
    pub fn is_awaited(&self, key: &Key) -> bool {
        self.awaited.contains(key)
    }

    /// How many clients listen, or are about to.
    pub fn subscriber_count(&self) -> usize {
        self.subscribers.len()
    }

    /// What all clients held here when this was asked last, and what they do now.
    pub fn count(&mut self) -> (usize, usize) {
        let handing: usize = self.handing.iter().map(|(_, handing)| handing.bytes()).sum();
        let bytes = self.bytes + handing + self.moving.bytes();
        (std::mem::replace(&mut self.counted, bytes), bytes)
    }

    /// Whether something is left to do in this pass.
    pub fn has_work(&self) -> bool {
        !self.dropped.is_empty() || !self.ready.is_empty() || !self.recounted.is_empty()
    }

    /// Whether messages wait for the next pass.
    pub fn has_put_off(&self) -> bool {
        !self.put_off.is_empty()
    }

    /// A shard has answered for the name.
    pub fn answered(&mut self, key: Key) {
        self.answered.push(key);
    }

    /// Names that a shard has answered for.
    pub fn take_answered(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.answered)
    }

    /// Clients of whose requests more is known.
    pub fn take_ready(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.ready)
    }

    /// Names that nobody wants any more, unless somebody does again.
    pub fn take_dropped(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.dropped)
    }

    /// The feed has messages that wait for another pass.
    pub fn put_off(&mut self, feed: ConnectionId) {
        if !self.put_off.contains(&feed) {
            self.put_off.push(feed);
        }
    }

    /// The rest of those that listen get the message in another pass.
    pub fn hand_out_later(&mut self, feed: ConnectionId, handing: Handing) {
        self.handing.push((feed, handing));
    }

    /// A message of the feed that not all have got, if there is one: nobody will get it if it is not handed out now.
    pub fn take_handing(&mut self, feed: ConnectionId) -> Option<Handing> {
        let place = self.handing.iter().position(|(of, _)| *of == feed)?;
        Some(self.handing.swap_remove(place).1)
    }

    /// Feeds with such messages.
    pub fn take_put_off(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.put_off)
    }

    /// Whether the feed has such messages.
    pub fn is_put_off(&self, feed: ConnectionId) -> bool {
        self.put_off.contains(&feed)
    }

    /// A request of the client stands at the end of its line. Returns those of its names that are new to everybody.
    pub fn join(&mut self, id: ClientId, number: u32, change: Listening, names: Vec<Bytes>) -> Vec<Bytes> {
        let mut fresh = Vec::new();
        let subscriber = self.subscribers.entry(id).or_default();
        subscriber.names_in_line += names.len();
        subscriber.bytes += bytes_of(&names);
        self.bytes += bytes_of(&names);
        let missing = if change.on { names.len() } else { 0 };
        if change.on {
            for name in &names {
                let entry = self.names[change.kind.place()].entry(name.clone()).or_default();
                if !entry.is_wanted() {
                    fresh.push(name.clone());
                }
                let place = entry.waiting.partition_point(|other| *other < (id, number));
                entry.waiting.insert(place, (id, number));
                entry.claim(id);
                self.awaited.insert((change.kind, name.clone()));
            }
        }
        subscriber.line.push_back(Request { number, change, names, missing, failed: None });
        fresh
    }

    /// This is known of the name: if it is all, those that wait for it do so no more.
    pub fn decide(&mut self, (kind, name): &Key, verdict: Verdict) {
        let failed = match verdict {
            Verdict::Open => return,
            Verdict::Heard => None,
            Verdict::Failed(words) => Some(words),
        };
        self.awaited.remove(&(*kind, name.clone()));
        let Some(entry) = self.names[kind.place()].get_mut(name) else { return };
        for (id, number) in std::mem::take(&mut entry.waiting) {
            let Some(subscriber) = self.subscribers.get_mut(&id) else { continue };
            let Some(first) = subscriber.line.front().map(|request| request.number) else { continue };
            let Some(request) = subscriber.line.get_mut(number.wrapping_sub(first) as usize) else {
                continue;
            };
            request.missing -= 1;
            if request.failed.is_none() {
                request.failed.clone_from(&failed);
            }
            self.ready.push(id);
        }
    }

    /// The request whose turn has come, if all is known that it waits for: its number and its reply.
    pub fn acknowledge<P: Protocol>(
        &mut self,
        id: ClientId,
        voice: Voice,
        reply: &mut Vec<u8>,
    ) -> Option<u32> {
        let subscriber = self.subscribers.get_mut(&id)?;
        if subscriber.line.front()?.missing > 0 {
            return None;
        }
        let Request { number, change, names, failed, .. } = subscriber.line.pop_front()?;
        let Listening { kind, on } = change;
        subscriber.names_in_line -= names.len();
        let before = subscriber.bytes;
        subscriber.bytes -= bytes_of(&names);
        let mut dropped = Vec::new();
        if let Some(words) = failed {
            P::failure(P::Manner::default(), &words, reply);
            for name in names {
                self.names[kind.place()].entry(name.clone()).and_modify(|entry| entry.unclaim(id));
                dropped.push((kind, name));
            }
        } else if on {
            for name in names {
                let entry = self.names[kind.place()].get_mut(&name).expect("it is claimed");
                entry.unclaim(id);
                entry.hear(id);
                if subscriber.names[kind.place()].insert(name.clone()) {
                    subscriber.bytes += name.len() + ENTRY_BYTES;
                }
                P::acknowledge(change, Some(&name), subscriber.count(kind), voice, reply);
            }
        } else {
            let all = names.is_empty();
            let names = if all { subscriber.names[kind.place()].iter().cloned().collect() } else { names };
            if names.is_empty() {
                P::acknowledge(change, None, subscriber.count(kind), voice, reply);
            }
            for name in names {
                subscriber.leave(kind, &name);
                if let Some(entry) = self.names[kind.place()].get_mut(&name) {
                    entry.leave(id);
                }
                P::acknowledge(change, Some(&name), subscriber.count(kind), voice, reply);
                dropped.push((kind, name));
            }
        }
        self.bytes = (self.bytes + subscriber.bytes) - before;
        if !subscriber.listens() && subscriber.line.is_empty() {
            self.subscribers.remove(&id);
        }
        self.drop_names(dropped);
        Some(number)
    }

    /// Whether nobody wants the name any more; then it is gone.
    fn is_over(&mut self, (kind, name): &Key) -> bool {
        let names = &mut self.names[kind.place()];
        let is_over = names.get(name).is_some_and(|entry| !entry.is_wanted());
        if is_over {
            names.remove(name);
        }
        is_over
    }

    /// Nobody listens to the name any more. Those that did, and what they are told of how many names they have left.
    pub fn dismiss(&mut self, key: &Key) -> Vec<(ClientId, usize)> {
        let (kind, name) = key;
        let Some(entry) = self.names[kind.place()].get_mut(name) else { return Vec::new() };
        let mut dismissed = Vec::new();
        for id in entry.listeners.clone() {
            entry.leave(id);
            let Some(subscriber) = self.subscribers.get_mut(&id) else { continue };
            let before = subscriber.bytes;
            subscriber.leave(*kind, name);
            self.bytes -= before - subscriber.bytes;
            dismissed.push((id, subscriber.count(*kind)));
            if !subscriber.listens() && subscriber.line.is_empty() {
                self.subscribers.remove(&id);
            }
        }
        if !dismissed.is_empty() {
            self.drop_names(vec![key.clone()]);
        }
        dismissed
    }

    /// The client listens to nothing any more, and its requests are forgotten.
    pub fn forget(&mut self, id: ClientId) {
        if self.subscribers.is_empty() {
            return;
        }
        let Some(subscriber) = self.subscribers.remove(&id) else { return };
        let mut dropped = Vec::new();
        self.bytes -= subscriber.bytes;
        for (kind, names) in Kind::ALL.into_iter().zip(subscriber.names) {
            for name in names {
                if let Some(entry) = self.names[kind.place()].get_mut(&name) {
                    entry.leave(id);
                }
                dropped.push((kind, name));
            }
        }
        for Request { change, names, .. } in subscriber.line.into_iter().filter(|request| request.change.on) {
            for name in names {
                if let Some(entry) = self.names[change.kind.place()].get_mut(&name) {
                    entry.unclaim(id);
                    let first = entry.waiting.partition_point(|(other, _)| *other < id);
                    let behind = entry.waiting.partition_point(|(other, _)| *other <= id);
                    entry.waiting.drain(first..behind);
                    if entry.waiting.is_empty() {
                        self.awaited.remove(&(change.kind, name.clone()));
                    }
                }
                dropped.push((change.kind, name));
            }
        }
        self.drop_names(dropped);
    }

    /// Fewer listen to these names than before.
    fn drop_names(&mut self, names: Vec<Key>) {
        for key in names {
            if self.is_over(&key) {
                self.dropped.push(key);
            } else if key.0.is_channel() {
                self.recounted.push(key);
            }
        }
    }
}

impl Subscriber {
    /// To how many names it listens, as it is told of one of this kind.
    fn count(&self, kind: Kind) -> usize {
        let kinds = Kind::ALL.into_iter().filter(|other| other.counts_with(kind));
        kinds.map(|other| self.names[other.place()].len()).sum()
    }

    /// How many names it has, those that it waits for included.
    fn names(&self) -> usize {
        self.names.iter().map(BTreeSet::len).sum::<usize>() + self.names_in_line
    }

    fn listens(&self) -> bool {
        self.names.iter().any(|names| !names.is_empty()) || self.line.iter().any(|request| request.change.on)
    }

    fn leave(&mut self, kind: Kind, name: &Bytes) {
        if self.names[kind.place()].remove(name) {
            self.bytes -= name.len() + ENTRY_BYTES;
        }
    }
}
