//! What a shard says that does not know a script which it was sent.

use super::Intake;
use crate::pool::rerun::Rerun;
use crate::protocol::{Protocol, Refused, Scripted};
use crate::scripts::Mark;

impl<P: Protocol> Intake<'_, P> {
    /// The response at hand is an error, and its request names a script that the shard was sent. Where it does not know that
    /// any more, somebody has made it forget all; the request is asked once more, unless its client has asked for something
    /// since, which may have been executed.
    pub(super) fn is_run_again(&mut self, response: &[u8]) -> bool {
        if !P::is_unknown_script(response) {
            return false;
        }
        let Some(ticket) = self.connection.in_flight().front().copied() else { return false };
        let activity = ticket.client().and_then(|id| self.clients.activity_mut(id));
        let named = activity.as_ref().and_then(|activity| activity.named.as_ref());
        let script = named.filter(|named| named.number == ticket.number).map(|named| named.script);
        let mark = script.and_then(|script| self.context.scripts.find(&script));
        // Where the shard did not take it, it has not forgotten others.
        if let Some(loaded) = &mut self.connection.loaded
            && mark.is_none_or(|mark| loaded.has(mark))
        {
            loaded.clear();
        }
        let Some(activity) = activity else { return false };
        let Some(named) = activity.named.take().filter(|_| script.is_some()) else { return false };
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

    /// The shard has not taken a script. What is in flight behind it and may name it is not asked again, nor taken for a sign that
    /// the shard has forgotten others.
    pub(super) fn script_is_refused(&mut self, mark: Mark, refused: Refused) {
        let Some(loaded) = &mut self.connection.loaded else { return };
        if refused == Refused::ForNow {
            return loaded.remove(mark);
        }
        loaded.refuse(mark);
        let (clients, scripts) = (&mut *self.clients, &self.context.scripts);
        self.connection.doubt(|ticket| {
            let activity = ticket.client().and_then(|id| clients.activity_mut(id));
            let named = activity.and_then(|activity| activity.named.as_ref());
            let named = named.filter(|named| named.number == ticket.number);
            ticket.scripted == Scripted::Loaded
                && named.is_none_or(|named| scripts.find(&named.script) == Some(mark))
        });
        if refused == Refused::Everywhere {
            self.context.scripts.forget_one(mark);
        }
    }
}
