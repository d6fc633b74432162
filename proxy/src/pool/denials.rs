//! Wrong passwords that are answered later, so that guessing takes its time.

use std::collections::VecDeque;
use std::time::Duration;

use super::clients::ClientId;
use crate::time::Time;

/// How long a wrong password waits for its reply after many others: of the same client, or, because connecting anew is cheap,
/// of all clients within the last second.
const DENIED_PAUSE: Duration = Duration::from_secs(1);
const DENIED_AT_ONCE_MAX: usize = 100;

/// A wrong password that is answered later.
pub(super) struct Denial {
    due: Time,
    pub client: ClientId,
    /// Number of the request.
    pub number: u32,
    pub reply: Box<[u8]>,
}

/// The wrong passwords of a pool.
#[derive(Default)]
pub(super) struct Denials {
    /// By when they are due: all wait equally long.
    delayed: VecDeque<Denial>,
    /// Those since then.
    recent: (Time, usize),
}

impl Denials {
    /// One more; whether there were so many that it has to wait.
    pub fn is_one_too_many(&mut self, now: Time) -> bool {
        let (since, count) = &mut self.recent;
        if now.since(*since) >= DENIED_PAUSE {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count > DENIED_AT_ONCE_MAX
    }

    /// This is the reply once it has waited.
    pub fn delay(&mut self, client: ClientId, number: u32, reply: &[u8], now: Time) {
        self.delayed.push_back(Denial { due: now.plus(DENIED_PAUSE), client, number, reply: reply.into() });
    }

    /// When the next is due.
    pub fn due(&self) -> Option<Time> {
        self.delayed.front().map(|denial| denial.due)
    }

    /// One that has waited long enough.
    pub fn take_due(&mut self, now: Time) -> Option<Denial> {
        if self.due()? > now {
            return None;
        }
        self.delayed.pop_front()
    }
}
