//! Decoders find where messages end, and know what is to be known of one that is complete.

use super::{Malformed, Progress, RequestBounds};

/// A decoder of requests; `S` is what clients have said of themselves.
pub trait DecodeRequests<S>: Default + 'static {
    /// Looks for the end of the request `input` starts with: its length, or `None` if it goes on beyond `input`.
    ///
    /// # Errors
    /// It is no request, or a larger one than the bounds allow.
    fn next(&mut self, session: &S, input: &[u8], bounds: RequestBounds) -> Result<Option<usize>, Malformed>;

    /// Arguments of the complete request.
    fn argument_count(&self) -> usize;

    /// Bytes the request needs beyond the `received` ones, as far as that is known.
    fn missing(&self, received: usize) -> usize;

    /// The complete request in the form that shards are sent.
    fn canonical<'b>(&'b self, input: &'b [u8]) -> &'b [u8];

    /// Whether nothing is remembered: the next byte begins a request. Not asked of an unfinished request.
    fn is_between_requests(&self) -> bool;

    /// The next request begins.
    fn reset(&mut self);
}

/// A decoder of responses.
pub trait DecodeResponses: Default + 'static {
    /// Understands as much of `unread` as it can.
    ///
    /// # Errors
    /// It is no response.
    fn decode(&mut self, unread: &[u8]) -> Result<Progress, Malformed>;

    /// Payload bytes the current response is known to need still.
    fn missing(&self) -> u64;
}
