//! Clients' questions about clients, put to the process; and this driver's part of the listing that answers them.

use super::{ClientSocket, Driver};
use crate::net::socket::End;
use crate::pool::ClientId;
use crate::protocol::{Found, Protocol, Rows};
use crate::time::Time;
use crate::worker::{Report, may_have};

/// Why a question about clients has no answer.
const NO_ANSWER: &str = "the workers did not list their clients in time; ask again";
const BUSY: &str = "too much is asked of the control thread; ask again later";
const DRAINING: &str = "the proxy is about to end and lists no clients any more";

impl<P: Protocol> Driver<P> {
    /// Clients ask about clients: what concerns the one that asks is answered here, the rest is asked of the process.
    pub(super) fn put_questions(&mut self, now: Time) {
        for asked in self.pool.take_questions() {
            if asked.question.is_about_nobody() {
                self.pool.answer_question(&asked, &Found::default());
            } else if asked.question.is_only_about(asked.asker) {
                let (mut rows, place) = (Rows::default(), asked.client.index as usize);
                let clients = &self.clients;
                let ends = |id| ends_of(clients, id);
                let places = place..place + 1;
                self.pool.list_clients(&asked.question, asked.asker, places, now, ends, &mut rows);
                self.pool.answer_question(&asked, &Found::of(&[rows]));
            } else if self.drain_until.is_some() {
                self.pool.refuse_question(&asked, DRAINING);
            } else {
                let (worker, pool) = (self.setup.worker, self.setup.pool);
                let (question, asker) = (asked.question.clone(), asked.asker);
                let ask = self.questions.put(asked, now);
                let report = Report::Asked { worker, pool, ask, asker, question };
                if self.setup.reports.try_send(report).is_err()
                    && let Some(asked) = self.questions.take(ask)
                {
                    self.pool.refuse_question(&asked, BUSY);
                }
            }
        }
    }

    /// Goes on with the listing that the process has asked for.
    pub(super) fn go_on_listing(&mut self, now: Time) {
        let Some(listing) = self.listing.take() else { return };
        let Self { pool, clients, setup, .. } = self;
        self.listing = listing.go_on(|places, list, number, rows| {
            let (question, asker) = &list.questions[number];
            may_have(&question.filter, setup.worker, setup.workers)
                && pool.list_clients(question, *asker, places, now, |id| ends_of(clients, id), rows)
        });
    }

    /// The process has answered, or has no answer.
    pub(super) fn answer_question(&mut self, ask: u64, found: Option<Found>) {
        let Some(asked) = self.questions.take(ask) else { return };
        match found {
            Some(found) => self.pool.answer_question(&asked, &found),
            None => self.pool.refuse_question(&asked, NO_ANSWER),
        }
    }

    /// Those whose deadline has passed get no answer any more.
    pub(super) fn expire_questions(&mut self, now: Time) {
        while let Some(asked) = self.questions.take_expired(now) {
            self.pool.refuse_question(&asked, NO_ANSWER);
        }
    }

    /// A drain does not wait for answers.
    pub(super) fn refuse_questions(&mut self) {
        for asked in self.questions.take_all() {
            self.pool.refuse_question(&asked, DRAINING);
        }
    }
}

/// The addresses of a client's connection.
fn ends_of(clients: &[Option<ClientSocket>], id: ClientId) -> Option<[End<'_>; 2]> {
    Some(clients.get(id.index as usize)?.as_ref()?.ends.both())
}
