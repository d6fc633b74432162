//! What a shard says that does not know a script which it was sent.

use super::Intake;
use crate::pool::rerun::Rerun;
use crate::protocol::Protocol;

impl<P: Protocol> Intake<'_, P> {
    /// The response at hand is an error, and its request names a script that the shard was sent. Where it does not know that
    /// any more, somebody has made it forget all; the request is asked once more, unless its client has asked for something
    /// since, which may have been executed.
    pub(super) fn is_run_again(&mut self, response: &[u8]) -> bool {
        if !P::is_unknown_script(response) {
            return false;
        }
        if let Some(loaded) = &mut self.connection.loaded {
            loaded.clear();
        }
        let Some(ticket) = self.connection.in_flight().front().copied() else { return false };
        let Some(activity) = ticket.client().and_then(|id| self.clients.activity_mut(id)) else {
            return false;
        };
        let Some(named) = activity.named.take().filter(|named| named.number == ticket.number) else {
            return false;
        };
        if ticket.is_block() || !activity.replies.is_newest(ticket.number) {
            return false;
        }
        let ticket = self.connection.answered().expect("it is the oldest in flight");
        self.responses += 1;
        self.response_bytes += response.len() as u64;
        self.start = self.end;
        self.redirects.unscripted.push(Rerun { at: self.at, ticket, named });
        true
    }
}
