//! Clients that have others told of what they may have kept (CLIENT TRACKING with REDIRECT), and those others. What is told for one goes to the
//! other in [`super::delivery`].

use std::collections::HashMap;

use super::ClientId;

/// Clients of this worker that others speak of by their numbers.
#[derive(Default)]
pub struct Forwarding {
    /// Those that have others told.
    senders: HashMap<u64, ClientId>,
    /// Those that may be told in the stead of others.
    receivers: HashMap<u64, ClientId>,
}

impl Forwarding {
    /// The client has another one told from now on, or not.
    pub fn settle(&mut self, number: u64, id: ClientId, is_sender: bool) {
        if is_sender {
            self.senders.insert(number, id);
        } else if !self.senders.is_empty() {
            self.senders.remove(&number);
        }
    }

    /// The client may be told in the stead of others.
    pub fn receives(&mut self, number: u64, id: ClientId) {
        self.receivers.insert(number, id);
    }

    /// The client is gone.
    pub fn forget(&mut self, number: u64) {
        if !self.senders.is_empty() {
            self.senders.remove(&number);
        }
        if !self.receivers.is_empty() {
            self.receivers.remove(&number);
        }
    }

    /// Who has this number, and has others told.
    pub fn sender(&self, number: u64) -> Option<ClientId> {
        self.senders.get(&number).copied()
    }

    /// Who has this number, and may be told in the stead of others.
    pub fn receiver(&self, number: u64) -> Option<ClientId> {
        self.receivers.get(&number).copied()
    }
}
