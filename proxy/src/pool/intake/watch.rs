//! Errors of a shard on a connection on which keys are watched.

use super::Intake;
use crate::buffer::Piece;
use crate::pool::watch::Stage;
use crate::protocol::{Protocol, Redirect};

impl<P: Protocol> Intake<'_, P> {
    /// The response at hand is an error on a connection on which keys are watched, or are to be. True if its client is told something
    /// else: where a node names another one, or cannot serve for the moment, its next transaction is not executed, which clients know
    /// how to go on from.
    pub(super) fn is_unwatched(&mut self, response: &[u8]) -> bool {
        let is_own = self.connection.asked().is_some_and(|ticket| !ticket.is_prelude());
        let redirect = P::redirect(response).filter(|_| is_own && self.connection.follows());
        let Some(watch) = self.connection.watch_mut() else { return false };
        match (watch.stage, redirect) {
            (Stage::Asked, Some(redirect)) => {
                watch.stage = Stage::Unsure;
                self.count_redirect(redirect);
            }
            (Stage::Asked, None) if is_own => {
                watch.stage = Stage::Refused;
                return false;
            }
            (Stage::Held, Some(Redirect::Moved { .. } | Redirect::Ask { .. })) => {
                watch.stage = Stage::Unsure;
                return false;
            }
            _ => return false,
        }
        self.responses += 1;
        self.response_bytes += response.len() as u64;
        self.start = self.end;
        let ticket = self.connection.answered().expect("it is the oldest in flight");
        if let Some(client) = ticket.client().and_then(|id| self.clients.touch(id)) {
            let mut reply = Vec::new();
            P::is_watching(&mut reply);
            let activity =
                client.activity.as_mut().expect("a client with a request in flight has an activity");
            activity.replies.answer(ticket.number, ticket.fragment, Piece::Copied(&reply), true);
        }
        true
    }

    /// A node names another one, or cannot serve for the moment, and nothing is sent again.
    pub(super) fn count_redirect(&mut self, redirect: Redirect<'_>) {
        let counters = &self.context.counters;
        match redirect {
            Redirect::Moved { .. } => {
                self.redirects.stale = true;
                counters.redirects_moved.add(1);
            }
            Redirect::Ask { .. } => counters.redirects_ask.add(1),
            Redirect::Later { stale } => {
                self.redirects.stale |= stale;
                counters.redirects_later.add(1);
            }
        }
    }
}
