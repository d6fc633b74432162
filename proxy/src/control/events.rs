//! Which events of keys clients of a pool have asked for, who waits for that, and which shards are held because of that:
//! [`super::care::events`] does it.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::Duration;

use shard_discovery::Shard;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::kills::Answer;
use crate::protocol::events::Flags;

/// So many wait for the next round. Those that have gone meanwhile are among them.
const FLAGS_WAITING_MAX: usize = 64;
/// Letters that shards have refused are refused for so long without asking them again.
const REFUSED_TIME: Duration = Duration::from_secs(1);

/// A client that waits until shards are told.
pub struct Asked {
    /// Which it asks for.
    pub flags: Flags,
    /// Since when.
    pub since: Instant,
    /// Where it is told.
    pub told: oneshot::Sender<Answer>,
}

/// What clients of a pool have asked for.
#[derive(Default)]
pub struct Events {
    /// All flags that any has asked for.
    pub wanted: Cell<Flags>,
    /// Who waits for the next round.
    waiting: RefCell<Vec<Asked>>,
    /// One is under way.
    pub busy: Cell<bool>,
    /// There is more.
    pub changed: Notify,
    /// Which letters shards have refused since when.
    refused: Cell<Option<(Instant, Flags)>>,
    /// Shards that are held: those of the pool at most, and some that have just left it.
    pub held: RefCell<HashSet<Shard>>,
}

impl Events {
    /// One more waits, unless there are too many.
    #[must_use]
    pub fn put(&self, asked: Asked) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let has_room = waiting.len() < FLAGS_WAITING_MAX;
        if has_room {
            waiting.push(asked);
        }
        has_room
    }

    /// Who waits for the round that begins.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.waiting.borrow_mut())
    }

    /// Whether shards have just refused one of these.
    pub fn refuses(&self, flags: Flags) -> bool {
        let flags = flags.without(self.wanted.get());
        self.recent().is_some_and(|(_, refused)| refused.meets(flags))
    }

    /// They have refused these.
    pub fn refused(&self, flags: Flags) {
        let doubtful = flags.without(self.wanted.get()).doubtful();
        let (since, refused) = self.recent().unwrap_or_else(|| (Instant::now(), Flags::default()));
        self.refused.set(Some((since, refused.with(doubtful))));
    }

    fn recent(&self) -> Option<(Instant, Flags)> {
        self.refused.get().filter(|(since, _)| since.elapsed() < REFUSED_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Flags {
        Flags::of(text.as_bytes()).expect("letters")
    }

    #[test]
    fn who_waits_is_limited_and_refused_letters_are_for_those_that_ask_for_them() {
        let events = Events::default();
        let asked = || Asked { flags: of("K"), since: Instant::now(), told: oneshot::channel().0 };
        assert!((0..FLAGS_WAITING_MAX).all(|_| events.put(asked())));
        assert!(!events.put(asked()));
        assert_eq!(events.take().len(), FLAGS_WAITING_MAX);
        assert!(events.put(asked()));
        events.refused(of("KEnQ"));
        assert!(events.refuses(of("Q")) && events.refuses(of("KQ")) && !events.refuses(of("KEn")));
        events.wanted.set(of("n"));
        events.refused(of("nR"));
        assert!(events.refuses(of("R")) && events.refuses(of("Q")) && !events.refuses(of("n")));
    }
}
