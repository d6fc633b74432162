//! Questions of clients about all clients: put to the workers, one listing at a time for the whole process.
//!
//! Whoever asks while a listing is under way gets the next one, together with all who ask the same. So it costs the same
//! whether one client asks or a thousand do, and the workers have time for requests between two listings.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::pool::PoolControl;
use crate::protocol::{Deed, Found, Question, Rows};
use crate::worker::{List, Order, may_have};

/// How long workers may take. Less than a client waits.
const DEADLINE: Duration = Duration::from_secs(4);
/// Different questions that are looked for in one listing.
const DIFFERENT_MAX: usize = 8;
/// The longest pause between two listings; as long as the last one took, if that is less.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// A client's question.
pub struct Asking<Pool = PoolControl> {
    /// The pool it is about.
    pub pool: Rc<Pool>,
    /// The client's worker.
    pub worker: usize,
    /// That worker's number of it.
    pub ask: u64,
    /// The client's number.
    pub asker: u64,
    /// What it asks.
    pub question: Question,
}

/// Questions that wait for the next listing. Workers put one at a time of each client.
#[derive(Default)]
pub struct Questions {
    waiting: RefCell<VecDeque<Asking>>,
    /// A listing is under way.
    busy: Cell<bool>,
}

/// Questions that differ, each with the number of who asks it.
pub(super) type Different = Arc<[(Question, u64)]>;
/// Those of one listing, and all who ask one of them, by its number.
type Together<Pool = PoolControl> = (Different, Vec<(usize, Asking<Pool>)>);

impl Questions {
    /// One more.
    pub fn put(self: &Rc<Self>, asking: Asking) {
        self.waiting.borrow_mut().push_back(asking);
        if !self.busy.replace(true) {
            tokio::task::spawn_local(self.clone().answer());
        }
    }

    /// Answers until nobody waits.
    async fn answer(self: Rc<Self>) {
        while let Some((different, asked)) = self.next() {
            let begin = Instant::now();
            let found = list(&asked[0].1.pool, different).await;
            for (number, asking) in asked {
                let found = found.as_ref().map(|found| found[number].clone());
                let orders = &asking.pool.orders[asking.worker];
                orders.send(Order::Answer { ask: asking.ask, found }).await;
            }
            tokio::time::sleep(begin.elapsed().min(PAUSE_MAX)).await;
        }
        self.busy.set(false);
    }

    fn next(&self) -> Option<Together> {
        take_next(&mut self.waiting.borrow_mut())
    }
}

/// Who waits for the next listing. Others go on waiting.
fn take_next<Pool>(waiting: &mut VecDeque<Asking<Pool>>) -> Option<Together<Pool>> {
    let pool = waiting.front()?.pool.clone();
    let mut different: Vec<(Question, u64)> = Vec::new();
    let (mut asked, mut later) = (Vec::new(), VecDeque::new());
    for asking in waiting.drain(..) {
        if !Rc::ptr_eq(&asking.pool, &pool) {
            later.push_back(asking);
            continue;
        }
        // Who kills or unblocks gets an answer of its own: it counts those that were there.
        let is_same = |(known, _): &(Question, u64)| known.deed == Deed::List && *known == asking.question;
        let number = different.iter().position(is_same).unwrap_or(different.len());
        if number == DIFFERENT_MAX {
            later.push_back(asking);
            continue;
        }
        if number == different.len() {
            different.push((asking.question.clone(), asking.asker));
        }
        asked.push((number, asking));
    }
    *waiting = later;
    Some((different.into(), asked))
}

/// What all workers that may know one of the clients meant have found; nothing if one of them takes too long.
pub(super) async fn list(pool: &PoolControl, questions: Different) -> Option<Vec<Found>> {
    let until = Instant::now() + DEADLINE;
    let mut answers = Vec::new();
    for (worker, orders) in pool.orders.iter().enumerate() {
        if questions.iter().any(|(question, _)| may_have(&question.filter, worker, pool.orders.len())) {
            let (listed, answer) = oneshot::channel();
            let list = Order::List(List { questions: questions.clone(), listed });
            tokio::time::timeout_at(until, orders.send(list)).await.ok()?;
            answers.push(answer);
        }
    }
    let mut found: Vec<Vec<Rows>> = vec![Vec::new(); questions.len()];
    for answer in answers {
        // A worker that has ended with the pool has no clients of it.
        let rows = tokio::time::timeout_at(until, answer).await.ok()?.unwrap_or_default();
        found.iter_mut().zip(rows).for_each(|(found, rows)| found.push(rows));
    }
    Some(found.iter().map(|parts| Found::of(parts)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ClientFilter;

    fn asking(pool: &Rc<()>, asker: u64, except: Option<u64>, kill: bool) -> Asking<()> {
        let deed = if kill { Deed::Kill } else { Deed::List };
        let question = Question { filter: ClientFilter { except, ..ClientFilter::default() }, deed, form: 0 };
        Asking { pool: pool.clone(), worker: 0, ask: asker, asker, question }
    }

    #[test]
    fn all_who_ask_the_same_share_a_listing_and_few_things_are_looked_for_in_one() {
        let [pool, other] = [(); 2].map(|()| Rc::new(()));
        let mut waiting: VecDeque<_> = (0..100).map(|asker| asking(&pool, asker, None, false)).collect();
        waiting.push_back(asking(&other, 100, None, false));
        waiting.extend((1..=2).map(|asker| asking(&pool, asker, None, true)));
        let rest = DIFFERENT_MAX as u64 - 3;
        waiting.extend((0..=rest).map(|number| asking(&pool, 200, Some(number), false)));
        let (different, asked) = take_next(&mut waiting).expect("somebody waits");
        assert_eq!(different.len(), DIFFERENT_MAX);
        let numbers: Vec<usize> = asked.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [vec![0; 100], (1..DIFFERENT_MAX).collect()].concat());
        let (different, asked) = take_next(&mut waiting).expect("those of the other pool");
        assert_eq!((different.len(), asked.len(), asked[0].1.asker), (1, 1, 100));
        assert_eq!(take_next(&mut waiting).expect("one thing more than there was room for").1.len(), 1);
        assert!(take_next(&mut waiting).is_none());
    }
}
