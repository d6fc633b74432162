//! Who is to be looked at, each once however often that is said.
//!
//! A client that goes, or a key that gives nothing, concerns the firsts of as many lines as there are keys, and each of those may have as many keys
//! again. So what is to be looked at is noted, and looked at once for all that has happened in a pass.

use std::collections::{HashSet, VecDeque};

use super::WideWaits;
use crate::pool::client::ClientId;

/// What is to be looked at.
#[derive(Default)]
pub(super) struct Looks {
    /// Clients, in order, and whether they stand there already.
    queue: VecDeque<ClientId>,
    queued: HashSet<ClientId>,
    /// Lines whose first is.
    lines: Vec<usize>,
    /// The first of each line in which it could try something.
    hot: bool,
    /// Those that may have something to do where others are first.
    apart: bool,
}

impl Looks {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.lines.is_empty() && !self.hot && !self.apart
    }

    /// The client is to be looked at.
    pub fn client(&mut self, id: ClientId) {
        if self.queued.insert(id) {
            self.queue.push_back(id);
        }
    }

    pub fn clients(&mut self, ids: impl IntoIterator<Item = ClientId>) {
        ids.into_iter().for_each(|id| self.client(id));
    }

    pub fn has_client(&self) -> bool {
        !self.queue.is_empty()
    }

    pub fn take_client(&mut self) -> Option<ClientId> {
        let id = self.queue.pop_front()?;
        self.queued.remove(&id);
        Some(id)
    }

    /// The first of the line is, which is not noted yet.
    pub fn line(&mut self, line: usize) {
        self.lines.push(line);
    }

    pub fn hot(&mut self) {
        self.hot = true;
    }

    pub fn apart(&mut self) {
        self.apart = true;
    }

    /// Gives back what many have needed.
    pub fn shrink_to(&mut self, kept: usize) {
        self.queue.shrink_to(kept);
        self.queued.shrink_to(kept);
        self.lines.shrink_to(kept);
    }
}

impl WideWaits {
    /// Finds the clients that are behind what was noted. False if nothing was.
    pub(super) fn look_further(&mut self) -> bool {
        if self.looks.is_empty() {
            return false;
        }
        let mut lines = std::mem::take(&mut self.looks.lines);
        for &line in &lines {
            // It may be another line by now, or none.
            let Some(line) = self.lines.get_mut(line) else { continue };
            line.is_looked_at = false;
        }
        if std::mem::take(&mut self.looks.hot) {
            lines.extend(&self.hot);
        }
        let firsts = lines.iter().filter_map(|&line| self.first_of(self.lines.get(line)?));
        let firsts: Vec<ClientId> = firsts.map(|(_, id)| id).collect();
        self.looks.clients(firsts);
        // One whose time is over is passed over where a shard is away.
        if std::mem::take(&mut self.looks.apart) || self.may_be_away() {
            self.looks.clients(self.apart.iter().copied());
        }
        true
    }
}
