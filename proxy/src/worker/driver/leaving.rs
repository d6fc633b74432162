//! How clients leave: one after the other before the process ends, all that remain when it does, and each with what it is
//! owed.

use super::{Driver, SWEEP};
use crate::pool::ClientId;
use crate::pool::time::Time;
use crate::protocol::Protocol;
use crate::worker::ready::{Ready, Token};
use crate::worker::socket::Read;

impl<P: Protocol> Driver<P> {
    /// Which clients are to go after their next reply, of 1024.
    pub(super) fn share_to_go(&self, now: Time) -> u32 {
        match self.retiring {
            _ if self.drain_until.is_some() => 1024,
            None => 0,
            Some((since, within)) => {
                let passed = now.since(since).as_secs_f64() / within.as_secs_f64().max(0.001);
                (passed * 1024.0).min(1024.0) as u32
            }
        }
    }

    /// What was read is answered; what has come and was not read is read once more.
    pub(super) fn drain(&mut self, now: Time, until: Time) {
        if self.drain_until.is_some() {
            self.drain_until = Some(until);
            return;
        }
        for index in 0..self.clients.len() {
            self.read_client(index, now);
            if let Some(client) = &self.clients[index] {
                self.pool.drain_client(client.id);
            }
        }
        self.drain_until = Some(until);
        self.next_sweep = Some(now.plus(SWEEP));
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

    /// The limit of the drain has passed.
    pub(super) fn close_remaining(&mut self) {
        let ids: Vec<ClientId> = self.clients.iter().flatten().map(|client| client.id).collect();
        if !ids.is_empty() {
            tracing::warn!(
                pool = %self.pool.name(),
                clients = ids.len(),
                "drain limit passed; closing clients with requests unanswered"
            );
        }
        for id in ids {
            self.close_client(id, None);
        }
        self.lingering.clear();
    }
}
