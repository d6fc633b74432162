//! What shards say of keys: that they tell of one, and that one has changed.

use super::WideWaits;
use crate::pool::client::ClientId;
use crate::pool::members::MemberIndex;
use crate::time::Time;

impl WideWaits {
    /// The name, if the shard has it: what others say of it counts for nothing.
    pub(super) fn name_at(&self, member: MemberIndex, name: &[u8]) -> Option<usize> {
        self.by_name.get(name).copied().filter(|&place| self.names[place].member == member)
    }

    /// The shard tells of the name from here on.
    pub fn tracked(&mut self, member: MemberIndex, name: &[u8]) {
        if let Some(&place) = self.by_name.get(name)
            && self.names[place].owner() == Some(member)
        {
            // The slot stays, or the key is back.
            self.go_to(place, member, None, false);
        }
        let Some(place) = self.name_at(member, name) else { return };
        self.go_on_asking(place);
        if std::mem::replace(&mut self.names[place].is_tracked, true) {
            return;
        }
        for line in self.names[place].lines.clone() {
            self.judge_line(line);
            self.look_at_first(line);
        }
    }

    /// The shard says that the key has changed, and does not tell of it any more.
    pub fn changed(&mut self, name: &[u8]) {
        if let Some(&place) = self.by_name.get(name) {
            self.name_changed(place, true);
        }
    }

    pub(super) fn name_changed(&mut self, place: usize, asks: bool) {
        let name = &mut self.names[place];
        name.changes += 1;
        let was_tracked = std::mem::take(&mut name.is_tracked);
        if name.lines.is_empty() {
            // Nobody is to be told again.
            if was_tracked {
                self.forget(place);
            }
            return;
        }
        if was_tracked && asks {
            self.unasked.push(place);
        }
        for line in self.names[place].lines.clone() {
            self.judge_line(line);
        }
    }

    /// Any key of the shard may have changed. It is asked anew, as long as it is there.
    pub fn all_changed(&mut self, member: MemberIndex) {
        let asks = self.up.contains(&member);
        let at = self.names.iter().filter(|(_, name)| name.member == member);
        for place in at.map(|(place, _)| place).collect::<Vec<_>>() {
            self.name_changed(place, asks);
        }
    }

    /// The shard can be asked from here on, or no more. Then it tells of nothing, and any key may have changed.
    pub fn is_up(&mut self, member: MemberIndex, is_up: bool) {
        self.away_changes += 1;
        if is_up {
            self.up.insert(member);
            self.away.remove(&member);
        } else {
            self.up.remove(&member);
            if self.at.contains_key(&member) {
                self.away.insert(member);
            }
            self.all_changed(member);
            self.names.shrink_to_fit();
            self.looks.hot();
        }
    }

    /// Other shards have the keys from now on, of those that are there. Returns those that nobody has a key of.
    pub fn rehome(
        &mut self,
        home: impl Fn(&[u8]) -> Option<MemberIndex>,
        is_there: impl Fn(MemberIndex) -> bool,
        now: Time,
    ) -> Vec<ClientId> {
        let mut homeless = Vec::new();
        for place in self.names.iter().map(|(place, _)| place).collect::<Vec<_>>() {
            let name = &self.names[place];
            let (member, home) = (name.member, home(&name.name));
            if home == Some(member) {
                self.go_on_asking(place);
                let name = &mut self.names[place];
                if let Some(way) = &mut name.way {
                    way.owner = None;
                }
                // It may be a shard at another address that has the place of the former one, and knows nothing of what that was asked.
                if !name.is_tracked && !name.lines.is_empty() {
                    self.unasked.push(place);
                }
                continue;
            }
            if is_there(member) && self.stays(place, home, now) {
                continue;
            }
            if home.is_none() {
                let lines = name.lines.iter();
                homeless.extend(lines.flat_map(|&line| self.lines[line].clients()));
            }
            self.go_to(place, home.unwrap_or(member), None, home.is_some());
        }
        self.has_moved = true;
        self.recount();
        // Who was first may wait for a shard that is not there yet.
        self.looks.hot();
        homeless
    }
}
