//! Clients that we have finished with: their side may still be sending, and what they are sent last must arrive.

use super::super::ready::{Ready, Token};
use super::super::socket::Read;
use super::{Driver, LINGER, LINGERING_MAX, LingeringSocket, SWEEP};
use crate::pool::ClientId;
use crate::pool::time::Time;
use crate::protocol::Protocol;

impl<P: Protocol> Driver<P> {
    /// Our side is closed; closing the whole connection with unread bytes in it would destroy replies on their way.
    pub(super) fn finish_client(&mut self, id: ClientId, now: Time) {
        let Some(slot) = self.clients.get_mut(id.index as usize) else { return };
        if slot.as_ref().is_none_or(|client| client.id != id) {
            return;
        }
        let socket = slot.take().expect("just seen").socket;
        self.pool.client_gone(id, false);
        socket.finish();
        if self.lingering.len() < LINGERING_MAX {
            let until = self.drain_until.unwrap_or(now.plus(LINGER));
            let entry = self.lingering.vacant_entry();
            let token = Token::Lingering(entry.key() as u32);
            if self.setup.sockets.rename(&socket, self.setup.pool, token).is_err() {
                return;
            }
            entry.insert(LingeringSocket { socket, until });
            self.again.push(Ready::again(token));
            self.next_sweep.get_or_insert(now.plus(SWEEP));
        }
    }

    pub(super) fn read_lingering(&mut self, index: usize) {
        let Some(lingering) = self.lingering.get_mut(index) else { return };
        self.scratch.reserve(crate::pool::buffer::READ_SIZE);
        let read = lingering.socket.read(&mut self.scratch);
        self.scratch.clear();
        match read {
            Ok(Read::Nothing) => {}
            // Whatever comes is dropped; the end may have come with it.
            Ok(Read::Full | Read::Drained) => self.again.push(Ready::again(Token::Lingering(index as u32))),
            Ok(Read::Ended) | Err(_) => {
                self.lingering.remove(index);
            }
        }
    }
}
