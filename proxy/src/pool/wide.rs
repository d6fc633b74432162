//! The book of wide waits: requests that wait for data under keys of several shards, and who is next to try which key.
//!
//! No shard can wait for the keys of another one. So each key is looked at on a connection on which its shard tells when it changes
//! (`trackers.rs`), and tried without waiting (`attempts.rs`) once that is so, and again whenever it has changed:
//!
//! ```text
//!   asked for ──> tracked ──> tried: something  ──> the client is answered, and waits for none of its keys any more
//!       ^            │          └──> nothing ─────> until the shard tells
//!       └────────────┘ has changed
//! ```
//!
//! What changes between looking and trying is told of, so no element is missed; and nothing is taken but by a try, of which a
//! client has one at a time, so none is taken for nobody. Keys are tried in the order of the request.
//!
//! Those that take from each other stand in a line, who came first at its head: a key is tried for one of them at a time. The one
//! that came first of all stands first in each of its lines, so nobody waits in a circle.
//!
//! A shard tells of a key once, however many clients wait for it, and keys are known to it by name alone. Of a name that nobody waits
//! for any more it is known for a while that the shard will tell, for the next who does.

use std::cell::Cell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use slab::Slab;

use super::client::ClientId;
use super::connections::ConnectionId;
use super::members::MemberIndex;
use super::tracker::Asked;
use crate::time::Time;
use looks::Looks;
use moves::Way;

pub(super) use moves::Course;

mod lines;
mod looks;
mod moves;
mod names;
mod tries;

/// So many names are kept that nobody waits for and that shards will tell of.
const IDLE_MAX: usize = 1024;
/// The same, in bytes.
const IDLE_BYTES_MAX: usize = 256 << 10;
/// What a wait, and a key of it, take beside the bytes of the request and of the name.
const WAIT_BYTES: usize = 2 * (size_of::<(ClientId, WideWait)>() + size_of::<ClientId>()) + 2 * PIECE_BYTES;
const KEY_BYTES: usize = size_of::<Key>() + size_of::<(ClientId, usize)>() + PIECE_BYTES;
/// The same of a name, and of those who wait for it: one at least, in a tree. It may be on its way between nodes of a cluster.
const NAME_BYTES: usize = 2 * (size_of::<(Bytes, usize)>() + size_of::<Name>() + size_of::<Line>())
    + 12 * size_of::<(u64, (ClientId, usize))>()
    + size_of::<Way>()
    + 3 * size_of::<(Time, usize)>()
    + 5 * PIECE_BYTES;
/// What the allocator adds to a piece of memory, and what shares it.
const PIECE_BYTES: usize = 32;

/// A name that shards know a key by.
struct Name {
    name: Bytes,
    /// Who has it.
    member: MemberIndex,
    /// A node of a cluster has sent those that asked for it elsewhere.
    way: Option<Box<Way>>,
    /// The shard tells when it changes; else it was asked for that, or will be.
    is_tracked: bool,
    /// How often it may have changed.
    changes: u64,
    /// Those that wait for it. None: it is idle.
    lines: Vec<usize>,
    /// Since when it is idle, in order.
    idle: Option<u64>,
}

/// Those that wait for the same.
struct Line {
    name: usize,
    database: u32,
    /// What they take from each other; none: each has all of it.
    rivals: Option<Vec<u8>>,
    /// So often the name had changed when nothing was found; of no interest where there are no rivals.
    empty: u64,
    /// What was found is of another kind.
    is_wrong: bool,
    /// Those up to here have learnt that there was nothing.
    settled: u64,
    /// It is being tried for one of them.
    trying: Option<u32>,
    /// Who came first is first; with the place that the key has among those of its request.
    waiting: BTreeMap<u64, (ClientId, usize)>,
    /// Its first is to be looked at.
    is_looked_at: bool,
    /// As of when it was looked up who is not passed over, and the last of those before.
    passed_over: Cell<Option<(u64, u64)>>,
}

/// A key of a wait.
struct Key {
    line: usize,
    /// So often its name had changed when it was tried for this client.
    seen: u64,
    /// It may be tried before its shard tells of it.
    is_early: bool,
    /// Its part of the reply is there.
    is_done: bool,
}

/// What a client waits for.
pub(super) struct WideWait {
    /// Its place among all.
    order: u64,
    /// Its number among the requests of its client.
    pub number: u32,
    pub request: Bytes,
    keys: Vec<Key>,
    /// Until then it waits.
    until: Option<Time>,
    /// That is over, and it is only to be known whether there is something now.
    is_late: bool,
    /// What is being tried for it.
    trying: Option<u32>,
    /// It is to end, with this, where that gives nothing.
    last: Option<Vec<u8>>,
    /// Parts of the reply.
    parts: Vec<Bytes>,
    /// The shards that have its keys.
    pub members: Vec<MemberIndex>,
    /// As of when it was looked up which of its keys is the first that nobody can be asked for, and its place.
    away_from: Cell<Option<(u64, usize)>>,
}

/// A key that is being tried.
pub(super) struct Attempt {
    pub client: ClientId,
    pub place: usize,
    /// The client's request, and what was made of it.
    pub request: Bytes,
    pub tried: Vec<u8>,
    /// Where.
    pub at: ConnectionId,
    /// At which shard.
    pub member: MemberIndex,
    order: u64,
    line: usize,
    is_rival: bool,
    /// As it was when it was sent.
    changes: u64,
    newest: u64,
}

/// A key that somebody wants to wait for.
pub(super) struct Wanted {
    pub name: Bytes,
    pub member: MemberIndex,
    pub rivals: Option<Vec<u8>>,
    pub is_early: bool,
}

/// What is to be done for a client.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Nothing for now.
    Nothing,
    /// The key at this place is tried.
    Try(usize),
    /// It has all parts that there are.
    Join,
    /// Its time is over.
    TimeOver,
}

/// All wide waits of a pool.
#[derive(Default)]
pub(super) struct WideWaits {
    waits: HashMap<ClientId, WideWait>,
    names: Slab<Name>,
    by_name: HashMap<Bytes, usize>,
    lines: Slab<Line>,
    attempts: HashMap<u32, Attempt>,
    /// Lines of rivals in which the first could try something.
    hot: BTreeSet<usize>,
    /// Those that may have something to do where others are first in their lines: their time is over, or they have keys that nobody
    /// takes from them, or have to be told that a key is of another kind.
    apart: BTreeSet<ClientId>,
    /// Who is to be looked at.
    looks: Looks,
    /// Clients to be looked at then.
    due: BTreeSet<(Time, ClientId)>,
    /// Shards that say at once whether they tell.
    up: HashSet<MemberIndex>,
    /// Those that are waited at, and do not.
    away: HashSet<MemberIndex>,
    /// How often it has changed of which names nobody can be asked.
    away_changes: u64,
    /// Names that shards are to be asked to tell of.
    unasked: Vec<usize>,
    /// Names that nobody is asked for until then: nodes of a cluster have sent them to each other.
    paused: BTreeSet<(Time, usize)>,
    /// When it is to be seen whether nodes of a cluster have their keys still, and with which name that goes on.
    check_due: Option<Time>,
    check_from: usize,
    /// Keys have gone to other shards: [`WideWait::members`] is to be found anew.
    has_moved: bool,
    /// Idle names, who is so for longest first.
    idle: BTreeMap<u64, usize>,
    idle_bytes: usize,
    /// How many wait at each shard.
    at: HashMap<MemberIndex, usize>,
    /// Numbers for what comes next.
    newest: u64,
    next_serial: u32,
    /// Bytes that all take, and what was last counted.
    held: usize,
    counted: usize,
}

impl WideWaits {
    /// How many wait.
    pub fn count_all(&self) -> usize {
        self.waits.len()
    }

    pub fn get(&self, id: ClientId) -> Option<&WideWait> {
        self.waits.get(&id)
    }

    /// Whether the client waits, and is to go on.
    pub fn goes_on(&self, id: ClientId) -> bool {
        self.waits.get(&id).is_some_and(|wait| wait.last.is_none())
    }

    /// All that wait.
    pub fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.waits.keys().copied()
    }

    /// Those that wait at the shard.
    pub fn clients_at(&self, member: MemberIndex) -> Vec<ClientId> {
        let at = self.waits.iter().filter(|(_, wait)| wait.members.contains(&member));
        at.map(|(&id, _)| id).collect()
    }

    /// Those that wait for this name, if the shard has it.
    pub fn clients_of(&self, member: MemberIndex, name: &[u8]) -> Vec<ClientId> {
        let Some(name) = self.name_at(member, name) else { return Vec::new() };
        self.names[name].lines.iter().flat_map(|&line| self.lines[line].clients()).collect()
    }

    /// Whether somebody waits at the shard.
    pub fn waits_at(&self, member: MemberIndex) -> bool {
        self.at.contains_key(&member)
    }

    /// How many do.
    pub fn count_at(&self, member: MemberIndex) -> usize {
        self.at.get(&member).copied().unwrap_or(0)
    }

    /// Whether the time of the client is over.
    pub fn is_over(&self, id: ClientId, now: Time) -> bool {
        self.waits.get(&id).and_then(|wait| wait.until).is_some_and(|until| until <= now)
    }

    /// The client is to be looked at.
    pub fn look(&mut self, id: ClientId) {
        self.looks.client(id);
    }

    /// Names that the shard is to tell of.
    pub fn names_at(&self, member: MemberIndex) -> Vec<Asked> {
        let is_meant = |name: &&Name| name.member == member && !name.lines.is_empty() && !name.is_paused();
        self.names.iter().map(|(_, name)| name).filter(is_meant).map(Name::asked).collect()
    }

    /// Whether somebody is to be looked at in this pass.
    pub fn has_work(&self) -> bool {
        !self.looks.is_empty() || !self.unasked.is_empty()
    }

    /// When something is to be looked at.
    pub fn due(&self) -> Option<Time> {
        let client = self.due.first().map(|&(due, _)| due);
        let name = self.paused.first().map(|&(due, _)| due);
        [client, name, self.check_due].into_iter().flatten().min()
    }

    /// One that is to be looked at by now.
    pub fn take_due(&mut self, now: Time) -> Option<ClientId> {
        if self.due.first()?.0 > now {
            return None;
        }
        self.due.pop_first().map(|(_, id)| id)
    }

    /// The client is to be looked at then.
    pub fn look_later(&mut self, id: ClientId, due: Time) {
        self.due.insert((due, id));
    }

    /// One that is to be looked at.
    pub fn take_look(&mut self) -> Option<ClientId> {
        while !self.looks.has_client() && self.look_further() {}
        self.looks.take_client()
    }

    /// Names that shards are to be asked to tell of.
    pub fn take_unasked(&mut self) -> Vec<(MemberIndex, Asked)> {
        let unasked = std::mem::take(&mut self.unasked);
        let known = unasked.into_iter().filter_map(|name| self.names.get(name));
        known.map(|name| (name.member, name.asked())).collect()
    }

    /// What it takes, as it was counted last, and as it is.
    pub fn count(&mut self) -> (usize, usize) {
        (std::mem::replace(&mut self.counted, self.held), self.held)
    }

    /// What the client takes.
    pub fn bytes_of(&self, id: ClientId) -> usize {
        self.waits.get(&id).map_or(0, WideWait::bytes)
    }

    /// The client waits for these keys, until then at most.
    pub fn join(
        &mut self,
        id: ClientId,
        number: u32,
        request: Bytes,
        database: u32,
        until: Option<Time>,
        wanted: Vec<Wanted>,
    ) {
        self.newest += 1;
        let order = self.newest;
        let (mut keys, mut members) = (Vec::with_capacity(wanted.len()), Vec::new());
        let is_shared = |wanted: &Wanted| wanted.rivals.is_none();
        let mut is_apart = wanted.iter().any(is_shared) && !wanted.iter().all(is_shared);
        for Wanted { name, member, rivals, is_early } in wanted {
            let name = self.name(name, member);
            // Nodes may have sent it on.
            for member in self.names[name].members() {
                if !members.contains(&member) {
                    members.push(member);
                }
            }
            let line = self.line(name, database, rivals);
            let Line { empty, is_wrong, waiting, .. } = &mut self.lines[line];
            // A name may stand twice in a request.
            waiting.entry(order).or_insert((id, keys.len()));
            is_apart |= *is_wrong;
            let is_known = !*is_wrong && *empty == self.names[name].changes;
            keys.push(Key { line, seen: u64::from(is_known), is_early, is_done: false });
            self.judge_line(line);
        }
        let (trying, last, parts, is_late) = (None, None, Vec::new(), false);
        let away_from = Cell::default();
        let wait = WideWait {
            order,
            number,
            request,
            keys,
            until,
            is_late,
            trying,
            last,
            parts,
            members,
            away_from,
        };
        self.held += wait.bytes();
        for &member in &wait.members {
            *self.at.entry(member).or_default() += 1;
            if !self.up.contains(&member) {
                self.away.insert(member);
            }
        }
        self.waits.insert(id, wait);
        if is_apart {
            self.apart.insert(id);
        }
        self.due.extend(until.map(|until| (until, id)));
        self.looks.client(id);
    }

    fn name(&mut self, name: Bytes, member: MemberIndex) -> usize {
        if let Some(&known) = self.by_name.get(&name) {
            if let Some(since) = self.names[known].idle.take() {
                self.idle.remove(&since);
                self.idle_bytes -= name.len();
            }
            return known;
        }
        self.held += NAME_BYTES + name.len();
        let (way, is_tracked, changes, lines, idle) = (None, false, 1, Vec::new(), None);
        let new = Name { name: name.clone(), member, way, is_tracked, changes, lines, idle };
        let place = self.names.insert(new);
        self.by_name.insert(name, place);
        self.unasked.push(place);
        place
    }

    fn line(&mut self, name: usize, database: u32, rivals: Option<Vec<u8>>) -> usize {
        let is_meant =
            |&&line: &&usize| self.lines[line].database == database && self.lines[line].rivals == rivals;
        if let Some(&line) = self.names[name].lines.iter().find(is_meant) {
            return line;
        }
        let (empty, is_wrong, settled, trying) = (0, false, 0, None);
        let (waiting, is_looked_at, passed_over) = (BTreeMap::new(), false, Cell::default());
        let line = self.lines.insert(Line {
            name,
            database,
            rivals,
            empty,
            is_wrong,
            settled,
            trying,
            waiting,
            is_looked_at,
            passed_over,
        });
        self.names[name].lines.push(line);
        line
    }

    /// The client waits no more.
    pub fn leave(&mut self, id: ClientId) -> Option<WideWait> {
        let wait = self.waits.remove(&id)?;
        self.apart.remove(&id);
        self.held -= wait.bytes();
        for &member in &wait.members {
            if let Entry::Occupied(mut count) = self.at.entry(member) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                    self.away.remove(&member);
                }
            }
        }
        if let Some(until) = wait.until {
            self.due.remove(&(until, id));
        }
        for key in &wait.keys {
            // A name may stand twice in a request.
            if let Some(line) = self.lines.get_mut(key.line)
                && line.waiting.remove(&wait.order).is_some()
            {
                self.look_at_first(key.line);
                self.judge_line(key.line);
                self.drop_line(key.line);
            }
        }
        self.shrink();
        Some(wait)
    }

    /// Tables that many have needed are given back.
    fn shrink(&mut self) {
        const KEPT: usize = 256;
        if self.waits.capacity() < KEPT || self.waits.len() * 4 > self.waits.capacity() {
            return;
        }
        self.waits.shrink_to(self.waits.len() * 2);
        self.by_name.shrink_to(self.by_name.len() * 2);
        self.names.shrink_to_fit();
        self.lines.shrink_to_fit();
        self.looks.shrink_to(KEPT);
    }

    /// A line in which nobody stands is none.
    fn drop_line(&mut self, place: usize) {
        let line = &self.lines[place];
        if !line.waiting.is_empty() || line.trying.is_some() {
            return;
        }
        let name = line.name;
        self.lines.remove(place);
        self.hot.remove(&place);
        let lines = &mut self.names[name].lines;
        lines.retain(|&other| other != place);
        if !lines.is_empty() {
            return;
        }
        if !self.names[name].is_tracked {
            return self.forget(name);
        }
        self.newest += 1;
        self.names[name].idle = Some(self.newest);
        self.idle.insert(self.newest, name);
        self.idle_bytes += self.names[name].name.len();
        while (self.idle.len() > IDLE_MAX || self.idle_bytes > IDLE_BYTES_MAX)
            && let Some((_, &oldest)) = self.idle.first_key_value()
        {
            self.forget(oldest);
        }
    }

    /// The name is forgotten, which is idle.
    fn forget(&mut self, place: usize) {
        let name = self.names.remove(place);
        if let Some(since) = name.idle {
            self.idle.remove(&since);
            self.idle_bytes -= name.name.len();
        }
        if let Some(until) = name.way.as_ref().and_then(|way| way.paused) {
            self.paused.remove(&(until, place));
        }
        self.by_name.remove(&name.name);
        self.held -= NAME_BYTES + name.name.len();
    }
}

impl Line {
    /// Those that stand in it, who came first first.
    fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.waiting.values().map(|&(id, _)| id)
    }
}

impl WideWait {
    fn bytes(&self) -> usize {
        let parts: usize = self.parts.iter().map(Bytes::len).sum();
        WAIT_BYTES
            + self.request.len()
            + self.keys.len() * KEY_BYTES
            + parts
            + self.last.as_ref().map_or(0, Vec::len)
    }

    /// The parts of its reply.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }
}
