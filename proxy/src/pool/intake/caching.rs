//! What has come on a connection for clients that keep what they read: responses, whose keys are noted, and what the shard tells of keys that
//! have changed.

use bytes::{Bytes, BytesMut};

use super::Intake;
use crate::failure::ShardFailure;
use crate::pool::caches::Caches;
use crate::pool::caching::told_of;
use crate::pool::clients::ClientId;
use crate::pool::members::ShardIndex;
use crate::pool::ticket::Whom;
use crate::protocol::{Protocol, Tracked};

/// A shard that tells more at once than this is taken to tell of all keys.
const TOLD_BYTES_MAX: usize = 1024 * 1024;

/// A request that is answered next, of a client that may keep the response.
struct Read {
    id: ClientId,
    /// It, or those of a transaction. None: it is not known any more.
    requests: Option<Bytes>,
}

impl<P: Protocol> Intake<'_, P> {
    /// Takes what is complete, and notes what was read.
    pub(super) fn take_to_keep(&mut self, scratch: &mut BytesMut) -> Result<(), ShardFailure> {
        loop {
            let read = self.read_at_hand();
            let taken = self.take_one_carefully(scratch)?;
            if let Some(read) = read.filter(|_| taken.is_answered) {
                self.note(&read);
            }
            if !taken.goes_on {
                return Ok(());
            }
        }
    }

    /// The request that is answered next, if its client may keep what it reads.
    fn read_at_hand(&self) -> Option<Read> {
        let ticket = self.connection.asked()?;
        let Whom::Client(id) = ticket.whom else { return None };
        if !(ticket.reads || ticket.scripted.is_script() || ticket.is_block()) {
            return None;
        }
        let client = self.clients.get(id)?;
        let manner = client.activity.as_ref()?.replies.manner(ticket.number);
        P::may_keep(&client.session, manner).then(|| Read { id, requests: self.connection.oldest_kept() })
    }

    /// The response is handed to its client: from now on that is told of changes, or it is told at once that it is not to keep this.
    fn note(&mut self, Read { id, requests }: &Read) {
        let requests = requests.as_deref().unwrap_or_default();
        let mut places = Vec::new();
        let memory_max = self.context.limits.memory_max;
        // For more keys than there is room for all others would go, and each would be told of on its own.
        let is_known = P::keys_read(requests, &mut places)
            && !requests.is_empty()
            && Caches::can_hold(places.iter().map(|(_, length)| *length), memory_max);
        if !is_known {
            return self.clients.keep_nothing(*id, &[], &self.context.counters);
        }
        let registers = self.connection.caching.is_some_and(|caching| caching.registers);
        let mut untold: Vec<&[u8]> = Vec::new();
        for &(start, length) in &places {
            let key = &requests[start..start + length];
            let home = self.topology.home_of(key).map(|home| self.members.of(ShardIndex(home.shard)));
            let is_told = registers && home == Some(self.connection.member);
            if !is_told || !self.caches.add(self.at, key, *id, memory_max) {
                untold.push(key);
            }
            while let Some((key, clients)) = self.caches.take_oldest(memory_max) {
                self.context.counters.tracked_evicted.add(1);
                self.tell(&key, clients);
            }
        }
        if !untold.is_empty() {
            self.clients.keep_nothing(*id, &untold, &self.context.counters);
        }
    }

    /// The shard says something that nobody has asked for, as far as it is there. False if more of it has to come first.
    pub(super) fn take_push(&mut self, scratch: &BytesMut, is_complete: bool) -> bool {
        if let Some(caching) = self.connection.caching.as_mut().filter(|caching| caching.registers) {
            let push = &scratch[self.start..self.end];
            let was_overlong = caching.overlong;
            if !is_complete && !was_overlong && push.len() <= TOLD_BYTES_MAX {
                return false;
            }
            caching.overlong = !is_complete;
            if !was_overlong {
                match if is_complete { P::tracked(push) } else { Tracked::AllChanged } {
                    Tracked::Changed(keys) => {
                        for key in keys {
                            let clients = self.caches.take(self.at, key);
                            self.tell(key, clients);
                        }
                    }
                    _ => {
                        let clients = self.caches.take_all(self.at, |_| true);
                        self.clients.tell_all_changed(&clients, &self.context.counters);
                    }
                }
            }
        }
        self.start = self.end;
        is_complete
    }

    /// The clients are told of the key: at once, or where they are many in the next passes.
    fn tell(&mut self, key: &[u8], clients: Vec<ClientId>) {
        if clients.is_empty() {
            return;
        }
        let told = told_of::<P>(key);
        if !self.caches.has_turn(clients.len()) {
            return self.caches.tell_later(told, clients);
        }
        let heard = clients.into_iter().filter(|&id| self.clients.tell_changed(id, &told)).count();
        self.context.counters.invalidations.add(heard as u64);
    }
}
