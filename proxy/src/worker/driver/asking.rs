//! Clients' questions about clients, put to the process; and this driver's part of the listing that answers them.

use super::{ClientSocket, Driver};
use crate::net::socket::End;
use crate::pool::{AskedQuestion, ClientId};
use crate::protocol::{Found, Protocol, Rows};
use crate::table::Table;
use crate::time::Time;
use crate::worker::{Report, may_have};

/// Why a question about clients has no answer.
const NO_ANSWER: &str = "the workers did not list their clients in time; try again";
const NOT_SET: &str = "the shards did not answer in time; try again";
const BUSY: &str = "the control thread is overloaded; try again later";
const DRAINING: &str = "the proxy is shutting down and no longer lists clients";

impl<P: Protocol> Driver<P> {
    /// Clients ask about clients: what concerns the one that asks is answered here, the rest is asked of the process.
    pub(super) fn put_question(&mut self, asked: AskedQuestion, now: Time) {
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
            None => self.pool.refuse_question(&asked, no_answer(&asked)),
        }
    }

    /// Those whose deadline has passed get no answer any more.
    pub(super) fn expire_questions(&mut self, now: Time) {
        while let Some(asked) = self.questions.take_expired(now) {
            self.pool.refuse_question(&asked, no_answer(&asked));
        }
    }

    /// A drain does not wait for answers.
    pub(super) fn refuse_questions(&mut self) {
        for asked in self.questions.take_all() {
            self.pool.refuse_question(&asked, DRAINING);
        }
    }
}

/// What a client is told whose question has no answer in time.
fn no_answer(asked: &AskedQuestion) -> &'static str {
    if asked.question.deed.is_about_clients() { NO_ANSWER } else { NOT_SET }
}

/// The addresses of a client's connection.
fn ends_of(clients: &Table<ClientSocket>, id: ClientId) -> Option<[End<'_>; 2]> {
    Some(clients.get(id.index as usize)?.ends.both())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::{BUSY, DRAINING, NO_ANSWER};
    use crate::worker::driver::rig::{Rig, heard, say};
    use crate::worker::{Order, Report};

    /// Whether the process is asked about clients.
    fn is_asked(rig: &mut Rig) -> bool {
        matches!(rig.reports.try_recv(), Ok(Report::Asked { .. }))
    }

    #[test]
    fn what_is_about_nobody_else_is_answered_without_the_process() {
        let mut rig = Rig::new(16, |_| {});
        let mut client = rig.client();
        for (request, reply) in [
            ("CLIENT INFO\r\n", "id=1 "),
            ("CLIENT LIST ID 1 1\r\n", "id=1 "),
            ("CLIENT KILL TYPE master\r\n", ":0\r\n"),
        ] {
            say(&mut client, request);
            rig.passes();
            let said = heard(&mut client);
            assert!(said.contains(reply), "{request}{said}");
            assert!(!is_asked(&mut rig), "{request}");
        }
    }

    /// Also where the control thread is told nothing more, is silent, or has no time for it.
    #[test]
    fn every_question_is_answered() {
        let mut rig = Rig::new(1, |_| {});
        let mut client = rig.client();
        let ask = |rig: &mut Rig, client: &mut UnixStream| {
            say(client, "CLIENT LIST\r\n");
            rig.passes();
            heard(client)
        };
        while rig.driver.setup.reports.try_send(Report::Stale { pool: 9 }).is_ok() {}
        let said = ask(&mut rig, &mut client);
        assert!(said.contains(BUSY), "{said}");
        while rig.reports.try_recv().is_ok() {}
        for ends in [false, true] {
            assert_eq!(ask(&mut rig, &mut client), "");
            assert!(is_asked(&mut rig));
            if ends {
                rig.order(Order::Drain { limit: Duration::from_secs(60) });
                rig.passes();
            } else {
                rig.blind_pass(Duration::from_secs(5));
            }
            let said = heard(&mut client);
            assert!(said.contains(if ends { DRAINING } else { NO_ANSWER }), "{said}");
        }
    }
}
