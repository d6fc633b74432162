//! What has come on a connection for clients that keep what they read: responses, whose keys are noted, and what the shard tells of keys that
//! have changed.

use bytes::{Bytes, BytesMut};

use super::Intake;
use crate::failure::ShardFailure;
use crate::pool::caches::{Caches, READ_OF_ALL};
use crate::pool::caching::told_of;
use crate::pool::clients::ClientId;
use crate::pool::members::ShardIndex;
use crate::pool::ticket::Whom;
use crate::protocol::caching::KeysRead;
use crate::protocol::{Protocol, Tracked};
use crate::time::Time;

/// A shard that tells more at once than this is taken to tell of all keys.
pub(super) const TOLD_BYTES_MAX: usize = 1024 * 1024;

/// A request that is answered next, of a client that may keep the response.
struct Read {
    id: ClientId,
    /// When it was read.
    since: Time,
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
        let since = ticket.since;
        P::may_keep(&client.session, manner).then(|| Read {
            id,
            since,
            requests: self.connection.oldest_kept(),
        })
    }

    /// The response is handed to its client: from now on that is told of changes, or it is told at once that it is not to keep this.
    fn note(&mut self, Read { id, since, requests }: &Read) {
        let requests = requests.as_deref().unwrap_or_default();
        let mut read = KeysRead::default();
        let is_known = P::keys_read(requests, &self.context.store, &mut read) && !requests.is_empty();
        let key = |&(start, length): &(usize, usize)| &requests[start..start + length];
        if self.caches.broadcasts.has(*id) {
            let keys = read.keys.iter().chain(&read.unsure).map(key);
            return self.note_broadcast(*id, *since, keys, is_known);
        }
        let memory_max = self.context.limits.memory_max;
        // For more keys than there is room for all others would go, and each would be told of on its own.
        if !is_known || !Caches::can_hold(read.keys.iter().map(|(_, length)| *length), memory_max) {
            return self.clients.keep_nothing(*id, &[], &self.context.counters);
        }
        let registers = self.connection.caching.is_some_and(|caching| caching.registers);
        let mut untold: Vec<&[u8]> = read.unsure.iter().map(key).collect();
        for key in read.keys.iter().map(key) {
            let home = self.topology.home_of(key).map(|home| self.members.of(ShardIndex(home.shard)));
            let is_told = registers && home == Some(self.connection.member);
            if !is_told || !self.caches.add(self.at, key, *id, memory_max) {
                untold.push(key);
            }
            self.make_room();
        }
        if !untold.is_empty() {
            self.clients.keep_nothing(*id, &untold, &self.context.counters);
        }
    }

    /// The oldest keys go, where there is no room for all.
    fn make_room(&mut self) {
        while let Some((key, clients)) = self.caches.take_oldest(self.context.limits.memory_max) {
            self.context.counters.tracked_evicted.add(1);
            self.tell(&key, clients);
        }
    }

    /// The same, where the client is told of all keys that begin in some way, but not on this connection: what it was told of since it has
    /// asked for these it is told of again.
    fn note_broadcast<'k>(
        &mut self,
        id: ClientId,
        since: Time,
        keys: impl Iterator<Item = &'k [u8]>,
        is_known: bool,
    ) {
        let (broadcasts, member) = (&self.caches.broadcasts, self.connection.member);
        let (topology, members) = (self.topology, self.members);
        let (mut untold, told): (Vec<&[u8]>, Vec<&[u8]>) = keys.partition(|key| {
            // Another one may have the key by now, and tells nothing of what this one has answered.
            let home = topology.home_of(key).map(|home| members.of(ShardIndex(home.shard)));
            broadcasts.hides(id, home.filter(|home| *home == member), Some(key), since)
        });
        let is_of_read = broadcasts.is_of_read(id);
        // Of what is not known nobody can be told.
        let mut may_be_any = !is_known && (is_of_read || broadcasts.hides(id, Some(member), None, since));
        if is_of_read {
            let memory_max = self.context.limits.memory_max;
            may_be_any |= !Caches::can_hold(told.iter().map(|key| key.len()), memory_max);
            for key in told.into_iter().filter(|_| !may_be_any) {
                if !self.caches.add(READ_OF_ALL, key, id, memory_max) {
                    untold.push(key);
                }
                self.make_room();
            }
        }
        if may_be_any || !untold.is_empty() {
            let keys: &[&[u8]] = if may_be_any { &[] } else { &untold };
            self.clients.keep_nothing(id, keys, &self.context.counters);
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
        if !clients.is_empty() {
            self.clients.tell_in_turn(told_of::<P>(key), clients, self.caches, &self.context.counters);
        }
    }
}
