//! The book of clients that are told of all keys that begin in some way, whatever they have read (CLIENT TRACKING with BCAST).
//!
//! Shards tell of these on connections for that alone ([`super::subscriptions`]), one for each worker and shard, which name all prefixes that
//! any client has named. So what a shard tells may overtake the response that has the value from before, which comes on another
//! connection. Its client is told again behind that: it is known for a while what was told of last ([`Recent`]), and whoever asked before it
//! was told of is not to keep the response ([`Broadcasts::hides`]). The same where the shard did not tell as the client asked: it could not
//! be reached, it was not asked for this prefix yet, or nobody knows who has answered.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use super::ClientId;
use super::members::MemberIndex;
use crate::protocol::caching::Broadcast;
use crate::time::Time;

/// Shards are asked for so many prefixes; where there are more, for all keys.
const SUBSCRIBED_MAX: usize = 256;
/// Keys that were told of last.
const RECENT_MAX: usize = 16 * 1024;
/// Memory that a prefix takes beside its bytes: its place in the tables, and as a piece, once for shards and once for clients.
const PREFIX_BYTES: usize = 256;

/// A client that is told of some prefixes.
struct Listener {
    prefixes: Box<[Bytes]>,
    /// It is only told of keys that it has read.
    is_of_read: bool,
    /// Shards are asked for them from this on.
    version: u64,
    /// The same of what it has named first: it may have kept something since then.
    first: u64,
}

/// A shard that tells.
struct Teller {
    /// It tells of all that was asked up to this.
    version: u64,
    /// Since when.
    since: Time,
}

/// Who is told of what.
#[derive(Default)]
pub struct Broadcasts {
    listeners: HashMap<ClientId, Listener>,
    /// Clients in order.
    by_prefix: HashMap<Bytes, Vec<ClientId>>,
    /// How many prefixes have each length.
    lengths: BTreeMap<usize, usize>,
    /// What shards are asked for, in order: all that clients have named, and none that begins with another one.
    subscribed: Vec<Bytes>,
    /// Counts the changes of that.
    version: u64,
    /// The version that came of the last change which was more than one prefix more.
    narrow_until: u64,
    tellers: HashMap<MemberIndex, Teller>,
    recent: Recent,
    /// Shards have to be asked for something else.
    is_changed: bool,
    bytes: usize,
    counted: usize,
}

/// Keys that shards have told of last.
#[derive(Default)]
struct Recent {
    /// When, by a hash of the key: two keys that are taken for the same are told of too often.
    told: HashMap<u64, Time>,
    order: VecDeque<(u64, Time)>,
    /// Of what was told up to this nothing is known.
    floor: Time,
    /// When the last one was told of, or all were.
    last: Time,
}

impl Recent {
    fn add(&mut self, key: &[u8], now: Time) {
        let hash = hash(key);
        if self.told.insert(hash, now) != Some(now) {
            self.order.push_back((hash, now));
        }
        self.last = now;
        while self.order.len() > RECENT_MAX
            && let Some((hash, time)) = self.order.pop_front()
        {
            self.floor = time;
            if self.told.get(&hash) == Some(&time) {
                self.told.remove(&hash);
            }
        }
    }

    fn has(&self, key: &[u8], since: Time) -> bool {
        since <= self.floor || self.told.get(&hash(key)).is_some_and(|&told| since <= told)
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Broadcasts {
    /// Nobody is told of anything so.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// How many prefixes there are.
    pub fn prefixes(&self) -> usize {
        self.by_prefix.len()
    }

    /// Whether the client is told so.
    pub fn has(&self, id: ClientId) -> bool {
        !self.listeners.is_empty() && self.listeners.contains_key(&id)
    }

    /// Whether the client is told so, but only of keys that it has read.
    pub fn is_of_read(&self, id: ClientId) -> bool {
        self.listeners.get(&id).is_some_and(|listener| listener.is_of_read)
    }

    /// All who are, in order.
    pub fn clients(&self) -> Vec<ClientId> {
        self.clients_before(u64::MAX)
    }

    /// Those of them that shards were asked for before they were asked for what has this number.
    pub fn clients_before(&self, version: u64) -> Vec<ClientId> {
        let before = self.listeners.iter().filter(|(_, listener)| listener.first < version);
        let mut clients: Vec<ClientId> = before.map(|(&id, _)| id).collect();
        clients.sort_unstable();
        clients
    }

    /// What shards are to be asked for, and the number of that.
    pub fn wanted(&self) -> (u64, &[Bytes]) {
        (self.version, &self.subscribed)
    }

    /// What is to be asked for beside what has this number. None: all of it, in place of that.
    pub fn wanted_since(&self, version: u64) -> Option<&[Bytes]> {
        // Each version has one more at the end.
        let more = usize::try_from(self.version - version).ok()?;
        (version >= self.narrow_until).then(|| &self.subscribed[self.subscribed.len() - more..])
    }

    /// The client is told of this from now on, or of nothing.
    pub fn settle(&mut self, id: ClientId, wanted: Option<Broadcast<'_>>) {
        let Some(Broadcast { prefixes, is_of_read }) = wanted else { return self.leave(id) };
        let known = self.listeners.get(&id);
        let was_of_read = known.is_some_and(|known| known.is_of_read);
        let known = known.map(|known| known.prefixes.clone()).unwrap_or_default();
        if *known == *prefixes && was_of_read == is_of_read {
            return;
        }
        if is_of_read || was_of_read {
            self.leave(id);
        }
        let known = if was_of_read || is_of_read { Box::default() } else { known };
        let heard: &[Bytes] = if is_of_read { &[] } else { prefixes };
        for prefix in heard.iter().filter(|prefix| !known.contains(prefix)) {
            self.bytes += size_of::<ClientId>();
            let clients = match self.by_prefix.get_mut(prefix) {
                Some(clients) => clients,
                None => {
                    self.bytes += PREFIX_BYTES + prefix.len();
                    *self.lengths.entry(prefix.len()).or_default() += 1;
                    self.by_prefix.entry(prefix.clone()).or_default()
                }
            };
            if let Err(place) = clients.binary_search(&id) {
                clients.insert(place, id);
            }
        }
        for prefix in prefixes {
            self.subscribe(prefix);
        }
        let version = self.version;
        let first = self.listeners.get(&id).map_or(version, |known| known.first);
        self.listeners.insert(id, Listener { prefixes: prefixes.into(), is_of_read, version, first });
        self.is_changed = true;
        known
            .iter()
            .filter(|prefix| !prefixes.contains(prefix))
            .for_each(|prefix| self.drop_prefix(id, prefix));
    }

    /// Shards are asked for what begins so, too.
    fn subscribe(&mut self, prefix: &Bytes) {
        if self.subscribed.iter().any(|known| prefix.starts_with(known)) {
            return;
        }
        self.version += 1;
        let is_broader = self.subscribed.iter().any(|known| known.starts_with(prefix));
        if is_broader {
            self.subscribed.retain(|known| !known.starts_with(prefix));
        }
        let is_full = self.subscribed.len() >= SUBSCRIBED_MAX;
        if is_full {
            self.subscribed = vec![Bytes::new()];
        } else {
            self.subscribed.push(prefix.clone());
        }
        if is_broader || is_full {
            self.narrow_until = self.version;
        }
    }

    /// The client is told of nothing any more.
    pub fn leave(&mut self, id: ClientId) {
        let Some(Listener { prefixes, is_of_read, .. }) = self.listeners.remove(&id) else { return };
        if !is_of_read {
            prefixes.iter().for_each(|prefix| self.drop_prefix(id, prefix));
        }
        if self.listeners.is_empty() {
            // Shards are asked for nothing; what they still tell nobody hears.
            self.subscribed.clear();
            self.recent = Recent::default();
            self.version += 1;
            self.narrow_until = self.version;
            self.tellers.clear();
            self.is_changed = true;
        }
    }

    fn drop_prefix(&mut self, id: ClientId, prefix: &Bytes) {
        self.bytes -= size_of::<ClientId>();
        let Some(clients) = self.by_prefix.get_mut(prefix) else { return };
        if let Ok(place) = clients.binary_search(&id) {
            clients.remove(place);
        }
        if !clients.is_empty() {
            return;
        }
        self.by_prefix.remove(prefix);
        self.bytes -= PREFIX_BYTES + prefix.len();
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }

    /// Whether shards have to be asked for something else.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// The same, without taking note of it.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// The shards are to be looked at.
    pub fn look(&mut self) {
        self.is_changed = !self.listeners.is_empty();
    }

    /// The shard tells of all that was asked up to this, from now on.
    pub fn tells(&mut self, member: MemberIndex, version: u64, now: Time) {
        if !self.listeners.is_empty() {
            self.tellers.insert(member, Teller { version, since: now });
        }
    }

    /// It does not any more. False if it did not.
    pub fn is_silent(&mut self, member: MemberIndex) -> bool {
        self.tellers.remove(&member).is_some()
    }

    /// Shards have told of these keys: who is to hear of which, by prefix.
    pub fn told<'k>(&mut self, keys: &'k [Bytes], now: Time) -> BTreeMap<Bytes, Vec<&'k [u8]>> {
        let mut found: BTreeMap<Bytes, Vec<&[u8]>> = BTreeMap::new();
        if self.listeners.is_empty() {
            return found;
        }
        for key in keys {
            self.recent.add(key, now);
            for (&length, _) in self.lengths.range(..=key.len()) {
                if let Some((prefix, _)) = self.by_prefix.get_key_value(&key[..length]) {
                    found.entry(prefix.clone()).or_default().push(key);
                }
            }
        }
        found
    }

    /// Any key may have changed.
    pub fn all_told(&mut self, now: Time) {
        self.recent = Recent { floor: now, last: now, ..Recent::default() };
    }

    /// Who is told of what begins so, in order.
    pub fn clients_of(&self, prefix: &[u8]) -> &[ClientId] {
        self.by_prefix.get(prefix).map_or(&[], |clients| clients)
    }

    /// Whether a change may have been kept from the client, which has asked at `since` and was answered by this shard: of this key, or of any.
    /// None: by a shard that does not have the key.
    pub fn hides(&self, id: ClientId, member: Option<MemberIndex>, key: Option<&[u8]>, since: Time) -> bool {
        let Some(listener) = self.listeners.get(&id) else { return true };
        if key.is_some_and(|key| !listener.prefixes.iter().any(|prefix| key.starts_with(prefix))) {
            return false;
        }
        let Some(teller) = member.and_then(|member| self.tellers.get(&member)) else { return true };
        let is_recent = match key {
            Some(key) => self.recent.has(key, since),
            None => since <= self.recent.last,
        };
        teller.version < listener.version || since <= teller.since || is_recent
    }

    /// Bytes that were counted the last time, and are from now on.
    pub fn count(&mut self) -> (usize, usize) {
        let recent = self.recent.order.capacity() * size_of::<(u64, Time)>()
            + self.recent.told.capacity() * size_of::<(u64, Time)>();
        let bytes = self.bytes + recent;
        (std::mem::replace(&mut self.counted, bytes), bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(index: u32) -> ClientId {
        ClientId { index, generation: 1 }
    }

    fn named(prefixes: &[&str]) -> Vec<Bytes> {
        prefixes.iter().map(|prefix| Bytes::copy_from_slice(prefix.as_bytes())).collect()
    }

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    fn join(book: &mut Broadcasts, id: u32, prefixes: &[&str]) {
        book.settle(client(id), Some(Broadcast { prefixes: &named(prefixes), is_of_read: false }));
    }

    #[test]
    fn shards_are_asked_for_what_covers_all_prefixes() {
        let mut book = Broadcasts::default();
        join(&mut book, 1, &["user:", "x"]);
        assert_eq!(book.wanted(), (2, &named(&["user:", "x"])[..]));
        join(&mut book, 2, &["user:1:"]);
        assert_eq!(book.wanted().0, 2, "it is covered");
        join(&mut book, 2, &["y"]);
        assert_eq!(book.wanted_since(2), Some(&named(&["y"])[..]));
        assert_eq!(book.wanted_since(0), Some(&named(&["user:", "x", "y"])[..]));
        join(&mut book, 3, &["u"]);
        assert_eq!(book.wanted(), (4, &named(&["x", "y", "u"])[..]));
        assert_eq!(book.wanted_since(3), None, "it takes the place of another one");
        for number in 0..SUBSCRIBED_MAX {
            join(&mut book, 4 + number as u32, &[&format!("p{number:04}")]);
        }
        assert_eq!(book.wanted().1, named(&[""]), "all keys, where there are many");
        for number in 0..4 + SUBSCRIBED_MAX {
            book.leave(client(number as u32));
        }
        assert!(book.is_empty() && book.wanted().1.is_empty() && book.bytes == 0 && book.lengths.is_empty());
    }

    #[test]
    fn who_names_more_may_have_kept_something_before() {
        let mut book = Broadcasts::default();
        join(&mut book, 1, &["user:"]);
        join(&mut book, 2, &["abc"]);
        join(&mut book, 1, &["a", "user:"]);
        assert_eq!(book.clients_before(book.wanted().0), [client(1), client(2)]);
    }

    #[test]
    fn clients_hear_of_what_begins_as_they_have_named() {
        let mut book = Broadcasts::default();
        join(&mut book, 1, &["a", "bc"]);
        join(&mut book, 2, &["ab"]);
        join(&mut book, 3, &[""]);
        let keys = named(&["abc", "b", "bcd", ""]);
        let told = book.told(&keys, at(1));
        let told: Vec<(&[u8], Vec<&[u8]>)> =
            told.iter().map(|(prefix, keys)| (&prefix[..], keys.clone())).collect();
        let of = |words: &[&'static str]| words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>();
        assert_eq!(
            told,
            [
                (&b""[..], of(&["abc", "b", "bcd", ""])),
                (b"a", of(&["abc"])),
                (b"ab", of(&["abc"])),
                (b"bc", of(&["bcd"])),
            ]
        );
        assert_eq!(book.clients_of(b"ab"), [client(2)]);
    }

    /// What a shard has told may have been overtaken by nothing but what was asked before.
    #[test]
    fn what_was_asked_before_it_was_told_of_is_not_kept() {
        let mut book = Broadcasts::default();
        let [shard, other] = [0, 1].map(MemberIndex::at);
        join(&mut book, 1, &["a"]);
        let hides = |book: &Broadcasts, member, key: &str, since| {
            book.hides(client(1), Some(member), Some(key.as_bytes()), at(since))
        };
        assert!(hides(&book, shard, "a", 1), "it does not tell yet");
        assert!(!hides(&book, shard, "b", 1), "the client is not told of it in any case");
        book.tells(shard, book.wanted().0, at(5));
        assert!(hides(&book, shard, "a", 5) && !hides(&book, shard, "a", 6) && hides(&book, other, "a", 6));
        book.told(&named(&["a1"]), at(8));
        assert!(
            hides(&book, shard, "a1", 8) && !hides(&book, shard, "a1", 9) && !hides(&book, shard, "a2", 8)
        );
        join(&mut book, 1, &["a", "c"]);
        assert!(hides(&book, shard, "c", 20), "it is not asked for that yet");
        for number in 0..2 * RECENT_MAX {
            book.told(&[Bytes::from(format!("a{number}"))], at(30 + number as u64));
        }
        book.tells(shard, book.wanted().0, at(10));
        assert!(hides(&book, shard, "a-never", 30 + RECENT_MAX as u64 - 1), "nobody remembers");
        assert!(!hides(&book, shard, "a-never", 30 + RECENT_MAX as u64 + 1));
        assert!(book.recent.told.len() <= RECENT_MAX && book.recent.order.len() <= RECENT_MAX);
        assert!(book.is_silent(shard) && hides(&book, shard, "a-never", 1 << 40));
    }
}
