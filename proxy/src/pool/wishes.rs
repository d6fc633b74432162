//! What the worker is to do for a pool beside reading and writing, and what the log is to be told: kept until it asks.

use super::Pool;
use super::clients::ClientId;
use super::connections::ConnectionId;
use super::listing::Asked;
use crate::protocol::{Malformed, Protocol};

/// Clients and requests remembered for the log between two passes.
const TOLD_MAX: usize = 64;
/// Complaints of shards that are kept for the log, and bytes that are shown of one.
const COMPLAINTS_MAX: usize = 8;
const COMPLAINT_SHOWN_MAX: usize = 200;

/// What the worker has not asked for yet.
#[derive(Default)]
pub(super) struct Wishes {
    pub questions: Vec<Asked>,
    /// A large response was handed on.
    pub large: bool,
    /// Connections with a write that timed out and may not have reached the shard.
    pub doubtful: Vec<ConnectionId>,
    /// Workers that have to look at theirs.
    pub wakes: Vec<usize>,
    /// What clients sent that is no request.
    pub malformed: Vec<(ClientId, Malformed)>,
    /// Clients that sent a wrong password.
    pub wrong_passwords: Vec<ClientId>,
    /// Those that have taken no replies for long, and bytes held for them.
    pub wedged: Vec<(ClientId, usize)>,
    /// Those that had to go because too much was held, and what each held.
    evicted: Vec<(ClientId, usize)>,
    /// Those whose request was refused for that, and its size.
    oversized: Vec<(ClientId, usize)>,
    /// What shards have said that do not want us.
    complaints: Vec<(ConnectionId, String)>,
}

impl Wishes {
    /// A client has to go because too much is held.
    pub fn tell_evicted(&mut self, client: ClientId, bytes: usize) {
        if self.evicted.len() < TOLD_MAX {
            self.evicted.push((client, bytes));
        }
    }

    /// A request is refused because too much would be held.
    pub fn tell_oversized(&mut self, client: ClientId, bytes: usize) {
        if self.oversized.len() < TOLD_MAX {
            self.oversized.push((client, bytes));
        }
    }

    /// A shard has said that it does not want us.
    pub fn tell_complaint(&mut self, connection: ConnectionId, response: &[u8]) {
        if self.complaints.len() < COMPLAINTS_MAX {
            let words = response.trim_ascii_end();
            let words = String::from_utf8_lossy(&words[..words.len().min(COMPLAINT_SHOWN_MAX)]);
            self.complaints.push((connection, words.escape_debug().to_string()));
        }
    }
}

impl<P: Protocol> Pool<P> {
    /// Questions to the whole process since the last call.
    pub fn take_questions(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.wishes.questions)
    }

    /// Whether a large response was handed on since the last call: it is worth writing at once.
    pub fn take_large(&mut self) -> bool {
        std::mem::take(&mut self.wishes.large)
    }

    /// Connections on which a write has timed out, though the shard answers others: they are to be closed as after a
    /// timeout unless it has acknowledged all that was sent.
    pub fn take_doubtful(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.wishes.doubtful)
    }

    /// Workers that have to look at what their clients hold.
    pub fn take_wakes(&mut self, into: &mut Vec<usize>) {
        into.append(&mut self.wishes.wakes);
    }

    /// What clients have sent since the last call that is no request.
    pub fn take_malformed(&mut self) -> Vec<(ClientId, Malformed)> {
        std::mem::take(&mut self.wishes.malformed)
    }

    /// Clients that have sent a wrong password since the last call, once for each.
    pub fn take_wrong_passwords(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.wishes.wrong_passwords)
    }

    /// Clients that have taken none of their replies for long, found since the last call, and bytes held for them.
    pub fn take_wedged(&mut self) -> Vec<(ClientId, usize)> {
        std::mem::take(&mut self.wishes.wedged)
    }

    /// Clients that were disconnected since the last call because too much was held, and what each held.
    pub fn take_evicted(&mut self) -> Vec<(ClientId, usize)> {
        std::mem::take(&mut self.wishes.evicted)
    }

    /// Clients whose request was refused since the last call because too much would be held, and its size.
    pub fn take_oversized(&mut self) -> Vec<(ClientId, usize)> {
        std::mem::take(&mut self.wishes.oversized)
    }

    /// Responses since the last call that say that a shard does not want the proxy, for the log.
    pub fn take_complaints(&mut self) -> Vec<(ConnectionId, String)> {
        std::mem::take(&mut self.wishes.complaints)
    }
}
