//! Which clients may have kept what: for each connection on which a shard tells of changes, the keys that were read there and the clients
//! that have read them. [`super::caching`] says what becomes of that.
//!
//! A shard tells once of a key, on the connection on which it was read, and knows it no more then. So a key stands here from the response that
//! was handed to a client until its shard has told of it, or cannot any more. It is not to stand here earlier: a change of which the
//! shard tells before that response, because the key was read before, would take it out again, and of the next one nobody would be told.
//!
//! What stands here is bounded; where there is no room the oldest key goes, and its clients are told of it as if it had changed.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;

use super::broadcasts::Broadcasts;
use super::forwarding::Forwarding;
use super::{ClientId, ConnectionId};

/// Bytes that keys and clients may take here.
const KEPT_MAX: usize = 16 << 20;
/// Nor more than this part of what the process may hold.
const KEPT_SHARE: usize = 32;
/// Memory that a key takes beside its bytes and clients: its place in a table, in the order, and as a piece.
const KEY_BYTES: usize = 192;
/// So many clients are told in a pass; others have their turn before the rest of them. Mostly it is that they are written to which takes time.
const TOLD_MAX: usize = 512;
/// Where so many bytes are told at once, that counts as one client more.
const TOLD_BYTES: usize = 4096;
/// Bytes of what clients are to be told later. Beyond that they are told that they have nothing any more that is worth keeping, once.
const LATE_MAX: usize = 1 << 20;

/// In place of the connection: what is told of by all shards, on others than those on which it was read.
pub const READ_OF_ALL: ConnectionId = ConnectionId { index: u32::MAX, generation: 0 };

/// A connection on which clients read that keep what they read.
#[derive(Clone, Copy, Debug)]
pub struct Caching {
    /// Its shard tells of what is read there. Else its clients are to keep nothing of it.
    pub registers: bool,
    /// Responses that name other nodes are followed.
    pub follows: bool,
    /// The shard is telling of more than is looked at.
    pub overlong: bool,
}

/// Clients that may have kept a key.
struct Kept {
    /// Tells apart those that were kept under the same name.
    serial: u64,
    /// In order.
    clients: Vec<ClientId>,
}

/// A key, in the order in which they came.
struct Place {
    at: ConnectionId,
    /// Empty if it is not there any more: its name counts nowhere then.
    key: Bytes,
    serial: u64,
}

/// Clients that are told later.
struct Late {
    told: Bytes,
    clients: Vec<ClientId>,
}

/// What clients may have kept.
#[derive(Default)]
pub struct Caches {
    /// By the connection on which it was read.
    tables: HashMap<ConnectionId, HashMap<Bytes, Kept>>,
    /// Oldest first, and so by serial; some may not be there any more.
    order: VecDeque<Place>,
    next_serial: u64,
    keys: usize,
    /// Memory of all of it.
    bytes: usize,
    counted: usize,
    /// Clients that have asked to be told.
    tracking: HashSet<ClientId>,
    /// Those that have ever done so: what they have read counts again once they ask again, as at a server.
    known: HashSet<ClientId>,
    /// Those that are told of more than they have read.
    pub broadcasts: Broadcasts,
    /// Those that have others told, and those others.
    pub forwarding: Forwarding,
    late: VecDeque<Late>,
    late_bytes: usize,
    /// Clients that are to be told later that they have nothing any more that is worth keeping.
    emptied: BTreeSet<ClientId>,
    /// So many may be told in this pass.
    turn: usize,
}

fn cost(key: &[u8], clients: usize) -> usize {
    KEY_BYTES + key.len() + clients * size_of::<ClientId>()
}

impl Caches {
    /// The client has asked to be told, or not any more. False if that is known.
    pub fn set_tracking(&mut self, id: ClientId, is_on: bool) -> bool {
        if is_on {
            self.known.insert(id);
            return self.tracking.insert(id);
        }
        !self.tracking.is_empty() && self.tracking.remove(&id)
    }

    /// The client is gone. Whether it had asked to be told.
    pub fn forget(&mut self, id: ClientId) -> bool {
        if self.known.is_empty() || !self.known.remove(&id) {
            return false;
        }
        self.broadcasts.leave(id);
        let was_told = self.set_tracking(id, false);
        if self.known.is_empty() {
            // Nobody is left to be told.
            (self.tables, self.order, self.late, self.emptied) = Default::default();
            (self.tracking, self.known) = Default::default();
            (self.keys, self.bytes, self.late_bytes) = (0, 0, 0);
        }
        was_told
    }

    /// How many clients have asked to be told.
    pub fn tracking(&self) -> usize {
        self.tracking.len()
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// Whether something was read on the connection that somebody may have kept.
    pub fn holds(&self, at: ConnectionId) -> bool {
        self.tables.contains_key(&at)
    }

    /// Connections on which something was read that somebody may have kept.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.tables.keys().copied()
    }

    /// Whether there would be room for keys of these lengths if they were alone.
    pub fn can_hold(mut lengths: impl Iterator<Item = usize>, memory_max: usize) -> bool {
        let most = most(memory_max);
        let each = KEY_BYTES + size_of::<ClientId>();
        lengths
            .try_fold(0, |bytes, length| Some(bytes + each + length).filter(|bytes| *bytes <= most))
            .is_some()
    }

    /// The client has heard something of the key. False if it is too large to be remembered.
    pub fn add(&mut self, at: ConnectionId, key: &[u8], id: ClientId, memory_max: usize) -> bool {
        if cost(key, 1) > most(memory_max) / 16 {
            return false;
        }
        let table = self.tables.entry(at).or_default();
        if let Some(kept) = table.get_mut(key) {
            if let Err(place) = kept.clients.binary_search(&id) {
                kept.clients.insert(place, id);
                self.bytes += size_of::<ClientId>();
            }
            return true;
        }
        self.next_serial += 1;
        let (serial, key) = (self.next_serial, Bytes::copy_from_slice(key));
        self.bytes += cost(&key, 1);
        self.keys += 1;
        table.insert(key.clone(), Kept { serial, clients: vec![id] });
        self.order.push_back(Place { at, key, serial });
        if self.order.len() > 2 * self.keys + 64 {
            let tables = &self.tables;
            self.order.retain(|place| is_there(tables, place));
        }
        true
    }

    /// The shard has told of the key, or has forgotten it: who may have kept it.
    pub fn take(&mut self, at: ConnectionId, key: &[u8]) -> Vec<ClientId> {
        let Some(table) = self.tables.get_mut(&at) else { return Vec::new() };
        let Some(kept) = table.remove(key) else { return Vec::new() };
        if table.is_empty() {
            self.tables.remove(&at);
        }
        self.keys -= 1;
        self.bytes -= cost(key, kept.clients.len());
        let_go(&mut self.order, kept.serial);
        kept.clients
    }

    /// The oldest key, if there is no room for all, and who may have kept it.
    pub fn take_oldest(&mut self, memory_max: usize) -> Option<(Bytes, Vec<ClientId>)> {
        while self.bytes > most(memory_max) {
            let place = self.order.pop_front()?;
            if is_there(&self.tables, &place) {
                let clients = self.take(place.at, &place.key);
                return Some((place.key, clients));
            }
        }
        None
    }

    /// Keys that were read there and for which `is_over` holds are not told of any more: who may have kept any of them.
    pub fn take_all(&mut self, at: ConnectionId, mut is_over: impl FnMut(&[u8]) -> bool) -> Vec<ClientId> {
        let Some(table) = self.tables.get_mut(&at) else { return Vec::new() };
        let mut clients = HashSet::new();
        let (mut keys, mut bytes) = (0, 0);
        table.retain(|key, kept| {
            let goes = is_over(key);
            if goes {
                keys += 1;
                bytes += cost(key, kept.clients.len());
                clients.extend(&kept.clients);
                let_go(&mut self.order, kept.serial);
            }
            !goes
        });
        if table.is_empty() {
            self.tables.remove(&at);
        }
        self.keys -= keys;
        self.bytes -= bytes;
        let mut clients: Vec<_> = clients.into_iter().collect();
        clients.sort_unstable();
        clients
    }

    /// Whether so many clients may be told so many bytes at once.
    pub fn has_turn(&mut self, clients: usize, bytes: usize) -> bool {
        let cost = clients * weight(bytes);
        let may = cost <= self.turn;
        self.turn -= if may { cost } else { 0 };
        may
    }

    /// They are told in a later pass; of that they have nothing any more that is worth keeping where there is too much to tell.
    pub fn tell_later(&mut self, told: Bytes, clients: Vec<ClientId>) {
        self.late_bytes += cost(&told, clients.len());
        self.late.push_back(Late { told, clients });
        if self.late_bytes > LATE_MAX {
            let clients = std::mem::take(&mut self.late).into_iter().flat_map(|late| late.clients);
            self.emptied.extend(clients);
            self.late_bytes = 0;
        }
    }

    /// They are told in a later pass that they have nothing any more that is worth keeping.
    pub fn empty_later(&mut self, clients: Vec<ClientId>) {
        self.emptied.extend(clients);
    }

    /// Whether some are to be told later.
    pub fn has_late(&self) -> bool {
        !self.late.is_empty() || !self.emptied.is_empty()
    }

    /// A pass begins. Who is told in it that it has nothing any more that is worth keeping.
    pub fn take_emptied(&mut self) -> Vec<ClientId> {
        let most = TOLD_MAX.max(self.emptied.len() / 8);
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(id) = self.emptied.pop_first()
        {
            taken.push(id);
        }
        taken
    }

    /// A pass begins. Who is told in it what was put off, as many as there are turns for. The more there are the more are told at once,
    /// so that they do not become ever more.
    pub fn take_late(&mut self) -> Vec<(Bytes, Vec<ClientId>)> {
        self.turn = TOLD_MAX;
        let all: usize = self.late.iter().map(|late| late.clients.len() * weight(late.told.len())).sum();
        let mut left = TOLD_MAX.max(all / 8);
        let mut taken = Vec::new();
        while left > 0
            && let Some(Late { told, clients }) = self.late.front_mut()
        {
            let each = weight(told.len());
            let first = clients.split_off(clients.len().saturating_sub((left / each).max(1)));
            left = left.saturating_sub(first.len() * each);
            self.late_bytes -= first.len() * size_of::<ClientId>();
            taken.push((told.clone(), first));
            if clients.is_empty() {
                self.late_bytes -= cost(told, 0);
                self.late.pop_front();
            }
        }
        taken
    }

    /// Bytes that were counted the last time, and are from now on.
    pub fn count(&mut self) -> (usize, usize) {
        let bytes = self.bytes + self.late_bytes + self.emptied.len() * size_of::<ClientId>();
        (std::mem::replace(&mut self.counted, bytes), bytes)
    }
}

/// For how many clients one counts that is told so many bytes.
fn weight(bytes: usize) -> usize {
    1 + bytes / TOLD_BYTES
}

fn is_there(tables: &HashMap<ConnectionId, HashMap<Bytes, Kept>>, place: &Place) -> bool {
    let kept = tables.get(&place.at).and_then(|table| table.get(&place.key));
    kept.is_some_and(|kept| kept.serial == place.serial)
}

/// The key with this serial is not there any more.
fn let_go(order: &mut VecDeque<Place>, serial: u64) {
    if let Ok(at) = order.binary_search_by_key(&serial, |place| place.serial) {
        order[at].key = Bytes::new();
    }
}

fn most(memory_max: usize) -> usize {
    KEPT_MAX.min(memory_max / KEPT_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: ConnectionId = ConnectionId { index: 0, generation: 1 };

    fn client(index: u32) -> ClientId {
        ClientId { index, generation: 1 }
    }

    /// One client reads a million keys, and one key a million times.
    #[test]
    fn what_is_remembered_is_bounded_and_whoever_is_forgotten_is_told() {
        let mut caches = Caches::default();
        let mut told = 0;
        for number in 0..1_000_000 {
            assert!(caches.add(AT, format!("key:{number}").as_bytes(), client(1), usize::MAX));
            while let Some((_, clients)) = caches.take_oldest(usize::MAX) {
                assert_eq!(clients, [client(1)]);
                told += 1;
            }
        }
        assert_eq!(told + caches.keys(), 1_000_000);
        assert!(caches.bytes <= KEPT_MAX && caches.keys() > 70_000, "{} keys", caches.keys());
        for _ in 0..1_000_000 {
            caches.add(AT, b"hot", client(2), usize::MAX);
            assert_eq!(caches.take(AT, b"hot"), [client(2)]);
        }
        assert!(caches.order.len() <= 2 * caches.keys() + 65);
        assert_eq!(caches.take_all(AT, |_| true), [client(1)]);
        assert_eq!((caches.keys(), caches.bytes), (0, 0));
        assert!(!caches.add(AT, &vec![b'k'; KEPT_MAX], client(1), usize::MAX), "it would leave no room");
    }

    /// One client reads and writes long names again and again, among many short ones that stay.
    #[test]
    fn names_that_are_gone_take_no_memory() {
        let mut caches = Caches::default();
        for number in 0..1000 {
            assert!(caches.add(AT, format!("key:{number}").as_bytes(), client(1), usize::MAX));
        }
        let other = ConnectionId { index: 1, generation: 1 };
        for number in 0..900 {
            let name = format!("{number:0>60000}");
            let at = if number % 2 == 0 { AT } else { other };
            assert!(caches.add(at, name.as_bytes(), client(1), usize::MAX));
            match at == AT {
                true => assert_eq!(caches.take(at, name.as_bytes()), [client(1)]),
                false => assert_eq!(caches.take_all(at, |_| true), [client(1)]),
            }
        }
        let names: usize = caches.order.iter().map(|place| place.key.len()).sum();
        assert!(names <= caches.bytes, "{names} bytes of names, {} counted", caches.bytes);
    }

    #[test]
    fn many_clients_of_a_key_are_told_in_several_passes() {
        let mut caches = Caches::default();
        for index in (0..10_000).rev() {
            assert!(caches.add(AT, b"hot", client(index), usize::MAX));
            assert!(caches.add(AT, b"hot", client(index), usize::MAX), "it is one of them already");
        }
        let clients = caches.take(AT, b"hot");
        assert_eq!(clients.len(), 10_000);
        assert!(!caches.has_turn(clients.len(), 4));
        caches.tell_later(Bytes::from_static(b"told"), clients);
        let (mut told, mut passes) = (HashSet::new(), 0);
        while caches.has_late() {
            let now: Vec<_> = caches.take_late().into_iter().flat_map(|(_, clients)| clients).collect();
            assert!(now.len() <= 10_000 / 8);
            told.extend(now);
            passes += 1;
        }
        assert!(told.len() == 10_000 && (9..=20).contains(&passes), "{passes} passes");
        assert_eq!((caches.bytes, caches.late_bytes), (0, 0));
    }

    /// A thousand clients are to be told of a million changes before any of them has its turn.
    #[test]
    fn where_there_is_too_much_to_tell_clients_are_told_that_they_have_nothing() {
        let mut caches = Caches::default();
        for _ in 0..1_000_000 / 1000 {
            for _ in 0..10 {
                caches.tell_later(Bytes::from(vec![b'x'; 100]), (0..1000).map(client).collect());
                assert!(caches.late_bytes <= LATE_MAX);
            }
        }
        let (mut emptied, mut passes) = (Vec::new(), 0);
        while caches.has_late() {
            caches.take_late();
            emptied.extend(caches.take_emptied());
            passes += 1;
        }
        assert_eq!(emptied, (0..1000).map(client).collect::<Vec<_>>(), "each once");
        assert_eq!(caches.count().1, 0, "{passes} passes");
    }

    /// Whoever asks no more is not told, and is told again once it asks again of what has not changed since: its server forgets nothing.
    #[test]
    fn what_was_read_is_remembered_until_its_client_is_gone() {
        let mut caches = Caches::default();
        assert!(caches.set_tracking(client(1), true) && !caches.set_tracking(client(1), true));
        assert!(caches.add(AT, b"k", client(1), usize::MAX));
        assert!(caches.set_tracking(client(1), false) && caches.tracking() == 0);
        assert_eq!(caches.keys(), 1);
        assert!(!caches.forget(client(1)) && caches.keys() == 0 && caches.bytes == 0);
    }
}
