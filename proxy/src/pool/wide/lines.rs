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
            Some(place) if self.may_try(id, wait, &wait.keys[place]) => Step::Try(place),
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

    fn may_try(&self, id: ClientId, wait: &WideWait, key: &Key) -> bool {
        let line = &self.lines[key.line];
        if key.is_early {
            return !self.names[line.name].is_paused();
        }
        if !self.names[line.name].is_tracked {
            return false;
        }
        let is_next = self.first_of(line) == Some(id);
        // What is of another kind nobody takes.
        let is_told = line.is_wrong && self.is_first(wait, key);
        line.rivals.is_none() || (line.trying.is_none() && (is_next || is_told))
    }

    /// Who is next in the line. One that waits for a shard that is not there does not hold up those behind it.
    pub(super) fn first_of(&self, line: &Line) -> Option<ClientId> {
        let mut waiting = line.waiting.values();
        waiting.find(|id| !self.is_stuck(&self.waits[*id])).copied()
    }

    pub(super) fn is_stuck(&self, wait: &WideWait) -> bool {
        let next = || wait.keys.iter().find(|key| self.is_due(wait, key));
        let is_away = |key: &Key| {
            let name = &self.names[self.lines[key.line].name];
            name.is_paused() || (!key.is_early && !name.is_tracked && !self.up.contains(&name.member))
        };
        wait.trying.is_none() && next().is_some_and(is_away)
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
        let line = &self.lines[place];
        if line.rivals.is_none() {
            return self.looks.extend(line.waiting.values());
        }
        let first = self.first_of(line);
        self.looks.extend(first);
    }
}
