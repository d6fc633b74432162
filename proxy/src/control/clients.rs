//! What operators ask about clients, over the admin address: put to the workers as CLIENT LIST is, one question after the other.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Control, questions};
use crate::admin::clients::ClientsWish;

/// Longest pause between two of them; as long as the last one took, if that is less, so that workers have time for requests.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The number of no client: whoever asks is none.
const NOBODY: u64 = 0;

/// Answers as long as the process lives.
pub async fn answer(mut wishes: mpsc::Receiver<ClientsWish>, control: Rc<Control>) {
    while let Some(ClientsWish { pool, question, answer }) = wishes.recv().await {
        let served = control.served();
        let Some(pool) = served.iter().find(|served| served.config().name == pool) else { continue };
        let begin = Instant::now();
        let found = questions::list(pool, [(question, NOBODY)].into()).await;
        let _ = answer.send(found.and_then(|mut found| found.pop()));
        tokio::time::sleep(begin.elapsed().min(PAUSE_MAX)).await;
    }
}
