//! Who is next: what one client may try, and whom of those that wait for the same.

use super::{Key, Line, Step, WideWait, WideWaits};
use crate::pool::client::ClientId;

impl WideWaits {
    /// What is to be done for the client now.
    pub fn step(&self, id: ClientId) -> Step {
        let Some(wait) = self.waits.get(&id).filter(|wait| wait.trying.is_none()) else {
            return Step::Nothing;
        };
        let is_due = |key: &Key| self.is_due(wait, key);
        // What is to be known at once comes before all that may have to wait.
        let early = wait.keys.iter().position(|key| key.is_early && is_due(key));
        let next = early.or_else(|| wait.keys.iter().position(is_due));
        match next {
            Some(place) if self.may_try(wait, &wait.keys[place]) => Step::Try(place),
            Some(_) => Step::Nothing,
            None if !wait.parts.is_empty() => Step::Join,
            None if wait.is_late => Step::TimeOver,
            None => Step::Nothing,
        }
    }

    /// Whether the key may have something that is not known.
    fn is_due(&self, wait: &WideWait, key: &Key) -> bool {
        let line = &self.lines[key.line];
        let changes = self.names[line.name].changes;
        // One that has something, or whose time is over, does not wait for more.
        let is_first = self.is_first(wait, key);
        if key.is_done || ((wait.is_late || !wait.parts.is_empty()) && !is_first) {
            return false;
        }
        match line.rivals {
            None => key.seen < changes,
            Some(_) => line.empty < changes || (line.is_wrong && is_first),
        }
    }

    /// Whether nothing is known of the key since the client came.
    pub(super) fn is_first(&self, wait: &WideWait, key: &Key) -> bool {
        key.seen == 0 && wait.order > self.lines[key.line].settled
    }

    fn may_try(&self, wait: &WideWait, key: &Key) -> bool {
        let line = &self.lines[key.line];
        if key.is_early {
            return !self.names[line.name].is_paused();
        }
        if !self.names[line.name].is_tracked {
            return false;
        }
        // What is of another kind nobody takes.
        let is_told = line.is_wrong && self.is_first(wait, key);
        let is_next = || self.first_of(line).is_none_or(|(first, _)| wait.order <= first);
        line.rivals.is_none() || (line.trying.is_none() && (is_told || is_next()))
    }

    /// Who is next in the line: the first that is not passed over. What comes may make one that is there be passed over, and nothing but a change of which
    /// names are away the other way round, so those that are passed over are counted once for each of those.
    pub(super) fn first_of(&self, line: &Line) -> Option<(u64, ClientId)> {
        if !self.may_be_away() {
            return line.waiting.first_key_value().map(|(&order, &(id, _))| (order, id));
        }
        let known = line.passed_over.get().filter(|&(since, _)| since == self.away_changes);
        let from = known.map_or(0, |(_, last)| last + 1);
        let mut waiting = line.waiting.range(from..);
        let first = waiting.find(|&(_, &(id, place))| !self.is_passed_over(id, place));
        let last =
            first.map_or(line.waiting.last_key_value(), |(first, _)| line.waiting.range(..first).next_back());
        line.passed_over.set(last.map(|(&last, _)| (self.away_changes, last)));
        first.map(|(&order, &(id, _))| (order, id))
    }

    /// One that waits for a shard that is not there does not hold up those behind it: its turn for what it has named behind that would not
    /// come. Among the keys of each client that is looked up once for each change of that.
    fn is_passed_over(&self, id: ClientId, place: usize) -> bool {
        let wait = &self.waits[&id];
        let known = wait.away_from.get().filter(|&(since, _)| since == self.away_changes);
        let (_, away_from) = known.unwrap_or_else(|| {
            let place = wait.keys.iter().position(|key| self.is_away(key));
            (self.away_changes, place.unwrap_or(usize::MAX))
        });
        wait.away_from.set(Some((self.away_changes, away_from)));
        // One that has something, or whose time is over, does not wait for all of its keys.
        let place = if wait.is_late || !wait.parts.is_empty() { usize::MAX } else { place };
        away_from < place
    }

    /// Whether there may be keys that nobody can be asked for now.
    pub(super) fn may_be_away(&self) -> bool {
        !self.away.is_empty() || !self.paused.is_empty()
    }

    /// Nobody can be asked for the key now; then it is not known whether it has something.
    fn is_away(&self, key: &Key) -> bool {
        let name = &self.names[self.lines[key.line].name];
        name.is_paused() || (!key.is_early && !name.is_tracked && !self.up.contains(&name.member))
    }

    /// Whether the first in the line could try something.
    pub(super) fn judge_line(&mut self, place: usize) {
        let line = &self.lines[place];
        let name = &self.names[line.name];
        let is_hot = line.rivals.is_some()
            && line.trying.is_none()
            && !line.waiting.is_empty()
            && name.is_tracked
            && line.empty < name.changes;
        if is_hot {
            self.hot.insert(place);
        } else {
            self.hot.remove(&place);
        }
    }

    /// The first in the line is looked at, or all where they are no rivals.
    pub(super) fn look_at_first(&mut self, place: usize) {
        let line = &mut self.lines[place];
        if line.rivals.is_none() {
            self.looks.clients(line.clients());
        } else if !std::mem::replace(&mut line.is_looked_at, true) {
            self.looks.line(place);
        }
    }
}
