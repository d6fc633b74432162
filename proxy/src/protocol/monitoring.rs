//! What those have to know of a protocol who look at requests that others make: what they are called, and which are shown.

use super::{Protocol, Request};

/// Requests that somebody looks at.
pub trait Monitoring {
    /// The name of the command, as it is written.
    fn command_name(request: Request<'_, Self>) -> &[u8]
    where
        Self: Protocol;

    /// Whether those who watch requests are shown this one.
    fn is_monitored(_request: Request<'_, Self>) -> bool
    where
        Self: Protocol,
    {
        true
    }

    /// Whether clients may watch requests.
    fn may_monitor(_settings: &Self::Settings) -> bool
    where
        Self: Protocol,
    {
        false
    }

    /// Writes one line to a client that watches requests.
    fn monitored(_line: &[u8], _out: &mut Vec<u8>) {}
}
