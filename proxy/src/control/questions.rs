//! Questions of clients about all clients: put to every worker, answered when all have answered.

use std::collections::HashMap;

use super::PoolControl;
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
    pool: usize,
    asked: Asked,
    missing: usize,
    rows: Vec<ClientRow>,
}

impl Questions {
    /// Puts the question to all workers of the pool.
    pub async fn ask(&mut self, pools: &[PoolControl], worker: usize, pool: usize, asked: Asked) {
        let ask = self.next;
        self.next += 1;
        let orders = &pools[pool].orders;
        let (question, asker) = (asked.question.clone(), asked.asker);
        self.open.insert(ask, Open { worker, pool, asked, missing: orders.len(), rows: Vec::new() });
        for orders in orders {
            orders.send(Order::List { question: question.clone(), ask, asker }).await;
        }
    }

    /// One worker has answered.
    pub async fn listed(&mut self, pools: &[PoolControl], ask: u64, rows: Vec<ClientRow>) {
        let Some(open) = self.open.get_mut(&ask) else { return };
        open.rows.extend(rows);
        open.missing -= 1;
        if open.missing > 0 {
            return;
        }
        let Open { worker, pool, asked, mut rows, .. } = self.open.remove(&ask).expect("just seen");
        rows.sort_by_key(|row| row.id);
        pools[pool].orders[worker].send(Order::Answer(Answer { asked, rows })).await;
    }
}
