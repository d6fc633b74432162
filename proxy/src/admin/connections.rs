//! The connections of one listener of this thread, as many as it may have.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use tokio::task::AbortHandle;

/// What is lost if a connection is cut off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Busy {
    /// Nothing: nobody has asked.
    Idle,
    /// The answer to what was asked.
    Asked,
    /// What somebody who may change the process has begun.
    Changing,
}

/// How busy a connection is, for both sides.
#[derive(Clone, Default)]
pub struct Work(Arc<AtomicU8>);

impl Work {
    /// It is so from now on.
    pub fn set(&self, busy: Busy) {
        self.0.store(busy as u8, Relaxed);
    }

    fn get(&self) -> Busy {
        match self.0.load(Relaxed) {
            0 => Busy::Idle,
            1 => Busy::Asked,
            _ => Busy::Changing,
        }
    }
}

struct Open {
    /// None over a Unix socket.
    peer: Option<IpAddr>,
    work: Work,
    task: AbortHandle,
}

/// Oldest first. Beyond the limit one is cut off, so that others get in whoever holds connections.
pub struct Connections {
    max: usize,
    open: Vec<Open>,
}

impl Connections {
    /// At most so many.
    pub fn new(max: usize) -> Self {
        Self { max, open: Vec::new() }
    }

    /// One more, that is served by `serve`.
    pub fn spawn(
        &mut self,
        peer: Option<IpAddr>,
        work: Work,
        serve: impl Future<Output = ()> + Send + 'static,
    ) {
        self.open.push(Open { peer, work, task: tokio::spawn(serve).abort_handle() });
        if self.open.len() > self.max {
            self.open.retain(|connection| !connection.task.is_finished());
        }
        if self.open.len() > self.max {
            let known: Vec<_> = self.open.iter().map(|open| (open.peer, open.work.get())).collect();
            if let Some(place) = least_missed(&known) {
                self.open.remove(place).task.abort();
            }
        }
    }
}

/// Which one is cut off: of those that are least busy the oldest of the peer that has most of them. The last one has had no
/// time to ask.
fn least_missed(open: &[(Option<IpAddr>, Busy)]) -> Option<usize> {
    let (_, others) = open.split_last()?;
    let least = others.iter().map(|(_, busy)| *busy).min()?;
    let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
    for (peer, _) in others.iter().filter(|(_, busy)| *busy == least) {
        *counts.entry(*peer).or_default() += 1;
    }
    let most = counts.values().max()?;
    others.iter().position(|(peer, busy)| *busy == least && counts.get(peer) == Some(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_most_and_asks_for_nothing_is_cut_off_first() {
        let [flood, probe] = [1, 2].map(|last| Some(IpAddr::from([127, 0, 0, last])));
        let cut = |open: &[(Option<IpAddr>, Busy)]| least_missed(open);
        // A probe and a reload that are older than the flood.
        let older = [(probe, Busy::Asked), (probe, Busy::Changing), (probe, Busy::Idle)];
        assert_eq!(cut(&[&older[..], &[(flood, Busy::Idle); 3]].concat()), Some(3));
        assert_eq!(cut(&[&older[..2], &[(flood, Busy::Asked); 3]].concat()), Some(2));
        assert_eq!(
            cut(&[
                (probe, Busy::Changing),
                (flood, Busy::Changing),
                (flood, Busy::Changing),
                (probe, Busy::Idle)
            ]),
            Some(1)
        );
        // From one peer: who waits for an answer stays, also beside who has just come.
        assert_eq!(cut(&[(probe, Busy::Asked), (probe, Busy::Idle), (probe, Busy::Idle)]), Some(1));
        assert_eq!(cut(&[(probe, Busy::Asked), (probe, Busy::Idle)]), Some(0));
    }
}
