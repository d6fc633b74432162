//! The connections of one listener of this thread, as many as it may have.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::AbortHandle;

/// Connections at the same time.
const CONNECTIONS_MAX: usize = 64;

/// Oldest first. Beyond the limit the oldest is cut off, so that others get in whoever holds connections.
#[derive(Default)]
pub struct Connections(VecDeque<AbortHandle>);

impl Connections {
    /// One more, that is served by `serve`.
    pub fn spawn(&mut self, serve: impl Future<Output = ()> + Send + 'static) {
        self.0.push_back(tokio::spawn(serve).abort_handle());
        if self.0.len() > CONNECTIONS_MAX {
            self.0.retain(|connection| !connection.is_finished());
        }
        if self.0.len() > CONNECTIONS_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
    }
}
