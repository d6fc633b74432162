//! Names whose slot is at another node of a cluster than is thought, or on its way to one.
//!
//! A name goes where nodes send those that ask for it: to the owner that is named (MOVED), or to the node that its slot is on its way to
//! (ASK), which is asked as such until the slot has arrived. There the shard is made to tell of it, and then it is tried, as anywhere; so whatever was
//! done to it on the way is found.
//!
//! No node says that it has lost a slot, nor what it does no more tell of for that. So of each name that is waited for the owner of
//! its slot is asked again and again whether it has that still. One that has sent it on is asked as well, because the slot may stay.
//!
//! Where nodes send a name to each other, or cannot serve it for the moment, nobody is asked for it for a while, longer each time; in
//! the end those that wait for it get the words of the last one.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::{Name, WideWaits};
use crate::pool::client::ClientId;
use crate::pool::members::MemberIndex;
use crate::pool::tracker::Asked;
use crate::time::Time;

/// How often a name is sent elsewhere in a row before that is an error, as any request.
const TIMES_MAX: u8 = 8;
/// The pause before it is asked for again; it doubles each time. Who is sent on for the first time is named one at once.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// After so long it is no longer in a row.
const ROW_MAX: Duration = Duration::from_secs(5);
/// So often owners are asked whether they have the slots still, as a node looks at its own clients that wait.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// So many names are asked for at once then, the next ones the next time.
const CHECKED_MAX: usize = 512;

/// What is known of a name that was sent elsewhere.
#[derive(Default)]
pub(super) struct Way {
    /// Its slot is on its way to who has it: this one owns it.
    pub owner: Option<MemberIndex>,
    /// How often it was sent elsewhere in a row, and when last.
    times: u8,
    last: Time,
    /// It is where a node has said then.
    is_named: bool,
    /// Nobody is asked for it until then.
    pub paused: Option<Time>,
}

/// What a node says of a name that it does not look at, or try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Course {
    /// The slot is this one's.
    Moved(MemberIndex),
    /// It is on its way to this one.
    Coming(MemberIndex),
    /// Nobody can say for the moment.
    Later,
}

impl Name {
    /// Who owns its slot, if that is on its way to who has it.
    pub(super) fn owner(&self) -> Option<MemberIndex> {
        self.way.as_ref()?.owner
    }

    /// The shards that matter for those that wait for it.
    pub(super) fn members(&self) -> impl Iterator<Item = MemberIndex> + use<> {
        [Some(self.member), self.owner()].into_iter().flatten()
    }

    /// Whether nobody is asked for it for now.
    pub(super) fn is_paused(&self) -> bool {
        self.way.as_ref().is_some_and(|way| way.paused.is_some())
    }

    /// How it is asked for where it is.
    pub(super) fn asked(&self) -> Asked {
        Asked { name: self.name.clone(), is_coming: self.owner().is_some() }
    }
}

impl WideWaits {
    /// The node says so of the name. `None`: that is nothing new. Else it goes there; those that are returned are to get the node's
    /// words, because it went to and fro too often.
    pub fn sent_on(
        &mut self,
        from: MemberIndex,
        name: &[u8],
        course: Course,
        now: Time,
    ) -> Option<Vec<ClientId>> {
        let place = *self.by_name.get(name)?;
        let Name { member, ref way, .. } = self.names[place];
        let owner = way.as_ref().and_then(|way| way.owner);
        let (to, owner) = match course {
            // It has said so before, or the slot has arrived.
            Course::Coming(to) if owner == Some(from) && to == member => return None,
            Course::Moved(to) if owner == Some(from) && to == member => {
                self.names[place].way.as_mut().expect("it has an owner").owner = None;
                self.has_moved = true;
                return None;
            }
            Course::Later if owner == Some(from) => return None,
            // What others say counts for nothing.
            _ if from != member && owner != Some(from) => return None,
            Course::Moved(to) if to != from => (to, None),
            Course::Coming(to) if to != from => (to, Some(from)),
            _ => (member, owner),
        };
        let way = self.names[place].way.get_or_insert_default();
        way.times = if now.since(way.last) < ROW_MAX { way.times.saturating_add(1) } else { 1 };
        way.last = now;
        way.is_named = course != Course::Later;
        let is_given_up = way.times > TIMES_MAX;
        let doublings = u32::from(way.times.min(TIMES_MAX) - 1);
        if is_given_up {
            way.times = 0;
        }
        let waiting = |line: &usize| self.lines[*line].clients();
        let given_up = self.names[place].lines.iter().filter(|_| is_given_up).flat_map(waiting).collect();
        // Who names another one has said where to ask.
        let pause = match course {
            Course::Later => PAUSE_MIN * (1 << doublings),
            _ if doublings == 0 => Duration::ZERO,
            _ => PAUSE_MIN * (1 << (doublings - 1)),
        };
        self.go_to(place, to, owner, pause.is_zero());
        if !pause.is_zero() {
            self.pause(place, now.plus(pause));
        }
        Some(given_up)
    }

    /// The name is at that shard, which knows nothing of it yet. With `asks` it is asked now.
    pub(super) fn go_to(&mut self, place: usize, to: MemberIndex, owner: Option<MemberIndex>, asks: bool) {
        self.go_on_asking(place);
        let name = &mut self.names[place];
        name.member = to;
        if owner.is_some() || name.way.is_some() {
            name.way.get_or_insert_default().owner = owner;
        }
        name.is_tracked = true;
        self.has_moved = true;
        self.away_changes += 1;
        self.name_changed(place, asks);
    }

    fn pause(&mut self, place: usize, until: Time) {
        // Nobody may wait for it any more.
        let Some(name) = self.names.get_mut(place) else { return };
        name.way.get_or_insert_default().paused = Some(until);
        self.paused.insert((until, place));
        self.away_changes += 1;
        // Those that wait for it hold up nobody meanwhile.
        self.looks.hot();
    }

    /// The pause of the name is over, if it has one.
    pub(super) fn go_on_asking(&mut self, place: usize) {
        if let Some(until) = self.names[place].way.as_mut().and_then(|way| way.paused.take()) {
            self.paused.remove(&(until, place));
            self.away_changes += 1;
        }
    }

    /// Those whose pause is over are asked for.
    pub fn end_pauses(&mut self, now: Time) {
        let mut ended = BTreeSet::new();
        while let Some(&(until, place)) = self.paused.first()
            && until <= now
        {
            self.go_on_asking(place);
            self.unasked.push(place);
            for &line in &self.names[place].lines {
                ended.extend(self.lines[line].clients());
            }
        }
        self.looks.clients(ended);
    }

    /// Whether nodes have their keys still is to be seen from now on, as long as somebody waits.
    pub fn check_from(&mut self, now: Time) {
        self.check_due.get_or_insert(now.plus(CHECK_EVERY));
    }

    /// Owners of slots, and names of which it is to be seen now whether they have them still.
    pub fn take_checks(&mut self, now: Time) -> Vec<(MemberIndex, Bytes)> {
        if self.check_due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.check_due = (!self.waits.is_empty()).then(|| now.plus(CHECK_EVERY));
        let is_meant = |(_, name): &(usize, &Name)| {
            !name.lines.is_empty() && (name.is_tracked || name.owner().is_some()) && !name.is_paused()
        };
        let from = self.check_from;
        let (before, behind): (Vec<_>, Vec<_>) =
            self.names.iter().filter(is_meant).partition(|(place, _)| *place < from);
        let meant: Vec<_> = behind.into_iter().chain(before).take(CHECKED_MAX).collect();
        self.check_from = meant.last().map_or(0, |(place, _)| place + 1);
        let asked = |(_, name): (usize, &Name)| (name.owner().unwrap_or(name.member), name.name.clone());
        meant.into_iter().map(asked).collect()
    }

    /// Whether a name stays where nodes have sent it, though the owner of its slot is another one by what is known of all: that
    /// may be older, and if it is not it will be found out.
    pub(super) fn stays(&self, place: usize, home: Option<MemberIndex>, now: Time) -> bool {
        let Some(way) = &self.names[place].way else { return false };
        let is_fresh = way.is_named && way.times == 1 && now.since(way.last) < CHECK_EVERY;
        home.is_some() && (way.owner == home || is_fresh)
    }

    /// The shards of all that wait are found anew, if keys have gone to others. True if so.
    pub fn recount(&mut self) -> bool {
        if !std::mem::take(&mut self.has_moved) {
            return false;
        }
        let Self { waits, lines, names, at, up, away, .. } = self;
        at.clear();
        for wait in waits.values_mut() {
            wait.members.clear();
            for key in &wait.keys {
                let name = &names[lines[key.line].name];
                for member in name.members() {
                    if !wait.members.contains(&member) {
                        wait.members.push(member);
                        *at.entry(member).or_default() += 1;
                    }
                }
            }
        }
        *away = at.keys().filter(|member| !up.contains(member)).copied().collect();
        true
    }
}
