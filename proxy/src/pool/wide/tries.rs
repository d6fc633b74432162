//! Keys that are being tried, and what becomes of those who wait for that.

use std::cell::Cell;

use bytes::Bytes;

use super::{Attempt, Name, WideWaits};
use crate::pool::client::ClientId;
use crate::pool::connections::ConnectionId;
use crate::pool::members::MemberIndex;
use crate::time::Time;

impl WideWaits {
    /// The key is being tried for the client; returns a number for that.
    pub fn begin(&mut self, id: ClientId, place: usize, at: ConnectionId, tried: Vec<u8>) -> u32 {
        let serial = self.next_serial();
        let wait = self.waits.get_mut(&id).expect("it waits");
        wait.trying = Some(serial);
        let line = wait.keys[place].line;
        let (order, request, newest) = (wait.order, wait.request.clone(), self.newest);
        let known = &mut self.lines[line];
        let is_rival = known.rivals.is_some();
        if is_rival {
            known.trying = Some(serial);
        }
        let Name { member, changes, .. } = self.names[known.name];
        self.held += tried.len();
        let attempt =
            Attempt { client: id, place, request, tried, at, member, order, line, is_rival, changes, newest };
        self.attempts.insert(serial, attempt);
        self.judge_line(line);
        serial
    }

    /// A number that no other attempt has.
    pub fn next_serial(&mut self) -> u32 {
        self.next_serial = self.next_serial.wrapping_add(1);
        self.next_serial
    }

    /// What is being tried for the client.
    pub fn attempt_of(&self, id: ClientId) -> Option<(u32, ConnectionId)> {
        let serial = self.waits.get(&id)?.trying?;
        Some((serial, self.attempts.get(&serial)?.at))
    }

    /// The attempt is over.
    pub fn end_attempt(&mut self, serial: u32) -> Option<Attempt> {
        let attempt = self.attempts.remove(&serial)?;
        self.held -= attempt.tried.len();
        if let Some(wait) = self.waits.get_mut(&attempt.client)
            && wait.trying == Some(serial)
        {
            wait.trying = None;
        }
        if attempt.is_rival
            && let Some(line) = self.lines.get_mut(attempt.line)
            && line.trying == Some(serial)
        {
            line.trying = None;
            self.judge_line(attempt.line);
            self.look_at_first(attempt.line);
            if self.lines[attempt.line].is_wrong {
                self.looks.apart();
            }
            self.drop_line(attempt.line);
        }
        self.looks.client(attempt.client);
        Some(attempt)
    }

    /// Whether it was for a client that waits still.
    pub fn is_current(&self, attempt: &Attempt) -> bool {
        self.waits.get(&attempt.client).is_some_and(|wait| wait.order == attempt.order)
    }

    /// Whether it was the first that the client learnt of the key.
    pub fn was_first(&self, attempt: &Attempt) -> bool {
        let wait = self.waits.get(&attempt.client);
        wait.is_some_and(|wait| self.is_first(wait, &wait.keys[attempt.place]))
    }

    /// There is nothing, or nothing of the kind that is waited for.
    pub fn nothing(&mut self, attempt: &Attempt, is_wrong: bool) {
        let is_current = self.is_current(attempt);
        if let Some(wait) = self.waits.get_mut(&attempt.client)
            && is_current
        {
            wait.keys[attempt.place].seen = attempt.changes;
        }
        // Where there are no rivals nobody has kept its place.
        let Some(line) = self.lines.get_mut(attempt.line).filter(|_| attempt.is_rival) else { return };
        line.empty = line.empty.max(attempt.changes);
        line.is_wrong = is_wrong;
        if !is_wrong {
            line.settled = line.settled.max(attempt.newest);
        }
        self.judge_line(attempt.line);
        let line = &self.lines[attempt.line];
        if line.empty < self.names[line.name].changes {
            return self.look_at_first(attempt.line);
        }
        // Those that would have tried this one first may try another one.
        self.looks.hot();
        self.looks.apart();
        if is_wrong {
            self.tell_apart(attempt.line);
        }
    }

    /// The key is of another kind: those that know nothing of it are to be told when they come to it.
    fn tell_apart(&mut self, line: usize) {
        let Self { waits, lines, apart, .. } = self;
        let line = &lines[line];
        let new = line.waiting.range(line.settled + 1..).map(|(_, waiting)| waiting);
        let is_new = |(id, place): &&(ClientId, usize)| waits[id].keys[*place].seen == 0;
        apart.extend(new.filter(is_new).map(|&(id, _)| id));
    }

    /// A part of the client's reply.
    pub fn add_part(&mut self, attempt: &Attempt, part: Bytes) {
        let Some(wait) = self.waits.get_mut(&attempt.client) else { return };
        self.held += part.len();
        wait.parts.push(part);
        wait.keys[attempt.place].is_done = true;
    }

    /// The client's request is put so from now on.
    pub fn rewrite(&mut self, attempt: &Attempt, request: Bytes) {
        let Some(wait) = self.waits.get_mut(&attempt.client) else { return };
        self.held = self.held + request.len() - wait.request.len();
        wait.request = request;
        wait.keys[attempt.place].is_early = false;
        wait.away_from = Cell::default();
    }

    /// Who has the key at this place, and whether it is to be asked as one to whom its slot is on its way.
    pub fn member_at(&self, id: ClientId, place: usize) -> Option<(MemberIndex, bool)> {
        let key = self.waits.get(&id)?.keys.get(place)?;
        let name = &self.names[self.lines[key.line].name];
        Some((name.member, name.owner().is_some()))
    }

    /// The name of the key, as long as somebody waits for it.
    pub fn name_of(&self, attempt: &Attempt) -> Option<Bytes> {
        Some(self.names[self.lines.get(attempt.line)?.name].name.clone())
    }

    /// Those that stand in the line of the attempt, with the place that the key has among theirs. Those that have something else
    /// under way come last.
    pub fn heirs(&self, attempt: &Attempt) -> Vec<(ClientId, usize)> {
        let Some(line) = self.lines.get(attempt.line).filter(|_| attempt.is_rival) else { return Vec::new() };
        let (mut heirs, busy): (Vec<_>, Vec<_>) =
            line.waiting.values().partition(|(id, _)| self.waits[id].trying.is_none());
        heirs.extend(busy);
        heirs
    }

    /// The client is to go, with this reply where what is under way for it gives nothing. False if something is, or it is to go
    /// already; then it is not to be answered now.
    pub fn end(&mut self, id: ClientId, reply: &[u8]) -> bool {
        let Some(wait) = self.waits.get_mut(&id) else { return false };
        if wait.last.is_none() && wait.trying.is_some() {
            self.held += reply.len();
            wait.last = Some(reply.to_vec());
        }
        wait.trying.is_none()
    }

    /// With which reply it is to go.
    pub fn last(&mut self, id: ClientId) -> Option<Vec<u8>> {
        let last = self.waits.get_mut(&id)?.last.take()?;
        self.held -= last.len();
        Some(last)
    }

    /// Its time is over, but for what it has not learnt yet.
    pub fn be_late(&mut self, id: ClientId, most: Time) -> bool {
        let Some(wait) = self.waits.get_mut(&id) else { return false };
        if std::mem::replace(&mut wait.is_late, true) {
            return false;
        }
        wait.until = Some(most);
        self.apart.insert(id);
        self.due.insert((most, id));
        self.looks.client(id);
        true
    }
}
