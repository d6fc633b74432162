//! Questions of clients about all clients: put to every worker, answered when all have answered.

use std::collections::HashMap;
use std::rc::Rc;

use super::pools::PoolControl;
use crate::pool::Asked;
use crate::protocol::ClientRow;
use crate::worker::{Answer, Order};

/// Questions under way. Each client has at most one request of this kind answered at a time per pipeline entry, and
/// workers always answer, so their number is bounded by the requests in flight.
#[derive(Default)]
pub struct Questions {
    next: u64,
    open: HashMap<u64, Open>,
}

struct Open {
    worker: usize,
    pool: Rc<PoolControl>,
    asked: Asked,
    missing: usize,
    rows: Vec<ClientRow>,
}

impl Questions {
    /// Puts the question to all workers of the pool.
    pub async fn ask(&mut self, pool: Rc<PoolControl>, worker: usize, asked: Asked) {
        let ask = self.next;
        self.next += 1;
        let orders = &pool.orders;
        let (question, asker) = (asked.question.clone(), asked.asker);
        let open = Open { worker, pool: pool.clone(), asked, missing: orders.len(), rows: Vec::new() };
        self.open.insert(ask, open);
        for orders in orders {
            orders.send(Order::List { question: question.clone(), ask, asker }).await;
        }
    }

    /// One worker has answered.
    pub async fn listed(&mut self, ask: u64, rows: Vec<ClientRow>) {
        let Some(open) = self.open.get_mut(&ask) else { return };
        open.rows.extend(rows);
        open.missing -= 1;
        if open.missing > 0 {
            return;
        }
        let Open { worker, pool, asked, mut rows, .. } = self.open.remove(&ask).expect("just seen");
        rows.sort_by_key(|row| row.id);
        pool.orders[worker].send(Order::Answer(Answer { asked, rows })).await;
    }
}
