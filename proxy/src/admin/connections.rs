//! The connections of one listener of this thread, as many as it may have.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::AbortHandle;

/// Oldest first. Beyond the limit the oldest is cut off, so that others get in whoever holds connections.
pub struct Connections {
    max: usize,
    open: VecDeque<AbortHandle>,
}

impl Connections {
    /// At most so many.
    pub fn new(max: usize) -> Self {
        Self { max, open: VecDeque::new() }
    }

    /// One more, that is served by `serve`.
    pub fn spawn(&mut self, serve: impl Future<Output = ()> + Send + 'static) {
        self.open.push_back(tokio::spawn(serve).abort_handle());
        if self.open.len() > self.max {
            self.open.retain(|connection| !connection.is_finished());
        }
        if self.open.len() > self.max
            && let Some(oldest) = self.open.pop_front()
        {
            oldest.abort();
        }
    }
}
