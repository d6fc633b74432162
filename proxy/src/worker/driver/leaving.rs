//! How clients leave: one after the other before the process ends, all that remain when it does, and each with what it is
//! owed.

use super::{Driver, SWEEP};
use crate::pool::ClientId;
use crate::pool::time::Time;
use crate::protocol::Protocol;

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
        self.refuse_questions();
        self.drain_until = Some(until);
        self.next_sweep = Some(now.plus(SWEEP));
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
