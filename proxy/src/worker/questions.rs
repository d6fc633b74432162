//! Questions of clients about all clients, from the side of a worker: those of its own clients that wait for an answer,
//! and the listing it makes for others.
//!
//! Every question is answered: by the process, or with an error once its deadline has passed. A listing goes over a few
//! clients in each pass of the worker, so that it never holds up requests for long, however many clients there are.

use std::collections::BTreeMap;
use std::time::Duration;

use super::List;
use crate::pool::AskedQuestion;
use crate::protocol::Rows;
use crate::time::Time;

/// How long a client waits for the answer to its question.
const DEADLINE: Duration = Duration::from_secs(5);
/// Clients that a listing looks at in one pass, divided by its questions: a line takes about a microsecond.
const CLIENTS_PER_PASS: usize = 128;
/// However many questions there are, so many clients are looked at: a listing of many must end in time.
const CLIENTS_PER_PASS_MIN: usize = 32;

/// Questions that wait for the process, at most one of each client.
#[derive(Default)]
pub struct Questions {
    next: u64,
    /// By their numbers, so in the order of their deadlines.
    open: BTreeMap<u64, (Time, AskedQuestion)>,
}

impl Questions {
    /// One more; its number.
    pub fn put(&mut self, asked: AskedQuestion, now: Time) -> u64 {
        let ask = self.next;
        self.next += 1;
        self.open.insert(ask, (now.plus(DEADLINE), asked));
        ask
    }

    /// The question with this number, unless it has been answered.
    pub fn take(&mut self, ask: u64) -> Option<AskedQuestion> {
        self.open.remove(&ask).map(|(_, asked)| asked)
    }

    /// One whose deadline has passed.
    pub fn take_expired(&mut self, now: Time) -> Option<AskedQuestion> {
        if self.deadline()? > now {
            return None;
        }
        self.open.pop_first().map(|(_, (_, asked))| asked)
    }

    /// The earliest deadline.
    pub fn deadline(&self) -> Option<Time> {
        self.open.first_key_value().map(|(_, (until, _))| *until)
    }

    /// All of them.
    pub fn take_all(&mut self) -> impl Iterator<Item = AskedQuestion> {
        std::mem::take(&mut self.open).into_values().map(|(_, asked)| asked)
    }
}

/// A listing under way.
pub struct ClientListing {
    asked: List,
    /// What is found so far, for each question.
    rows: Vec<Rows>,
    /// The place of the next client to look at.
    next: usize,
}

impl ClientListing {
    /// One that has looked at nobody.
    pub fn new(asked: List) -> Self {
        let rows = vec![Rows::default(); asked.questions.len()];
        Self { asked, rows, next: 0 }
    }

    /// Looks at some more clients: `look` is given the places, the number of a question and what was found for it. Tells
    /// the process once there are no more; then nothing remains.
    pub fn go_on(
        mut self,
        mut look: impl FnMut(std::ops::Range<usize>, &List, usize, &mut Rows) -> bool,
    ) -> Option<Self> {
        let step = (CLIENTS_PER_PASS / self.rows.len().max(1)).max(CLIENTS_PER_PASS_MIN);
        let places = self.next..self.next + step;
        self.next = places.end;
        let mut goes_on = false;
        for (number, rows) in self.rows.iter_mut().enumerate() {
            goes_on |= look(places.clone(), &self.asked, number, rows);
        }
        if goes_on && !self.asked.listed.is_closed() {
            return Some(self);
        }
        // Nobody waits for it if it took too long.
        let _ = self.asked.listed.send(self.rows);
        None
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::pool::ClientId;
    use crate::protocol::{ClientFilter, Deed, Found, Question};

    fn question() -> Question {
        Question { filter: ClientFilter::default(), deed: Deed::List, form: 0 }
    }

    #[test]
    fn every_question_has_a_deadline() {
        let mut questions = Questions::default();
        let client = ClientId { index: 0, generation: 1 };
        let asked = |number| AskedQuestion { client, asker: 1, number, question: question() };
        let start = Time::from_micros(1);
        let first = questions.put(asked(1), start);
        questions.put(asked(2), start.plus(Duration::from_secs(1)));
        assert_eq!(questions.deadline(), Some(start.plus(DEADLINE)));
        assert_eq!(questions.take(first).map(|asked| asked.number), Some(1));
        assert!(questions.take(first).is_none(), "it is answered once");
        assert!(questions.take_expired(start.plus(DEADLINE)).is_none());
        let late = start.plus(DEADLINE + Duration::from_secs(1));
        assert_eq!(questions.take_expired(late).map(|asked| asked.number), Some(2));
        assert_eq!(questions.deadline(), None);
    }

    #[test]
    fn a_listing_looks_at_a_few_clients_at_a_time() {
        let (listed, mut answer) = oneshot::channel();
        let list = List { questions: vec![(question(), 1), (question(), 2)].into(), listed };
        let mut listing = Some(ClientListing::new(list));
        let (clients, mut passes) = (1000, 0);
        while let Some(present) = listing.take() {
            passes += 1;
            listing = present.go_on(|places, _, _, rows| {
                let goes_on = places.end < clients;
                places.filter(|&place| place < clients).for_each(|place| rows.push(place as u64, |_| {}));
                goes_on
            });
        }
        assert_eq!(passes, 16, "64 at a time, for there are two questions");
        let found: Vec<usize> = answer
            .try_recv()
            .expect("it is told")
            .iter()
            .map(|rows| Found::of(std::slice::from_ref(rows)).count)
            .collect();
        assert_eq!(found, [1000, 1000]);
    }
}
