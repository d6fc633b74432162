//! The decoders as the pool knows them.

use super::decode::{RequestDecoder, RequestLimits, ResponseDecoder};
use super::session::Session;
use crate::protocol::{DecodeRequests, DecodeResponses, Malformed, Progress, RequestBounds};

impl DecodeRequests<Session> for RequestDecoder {
    #[inline(always)]
    fn next(
        &mut self,
        session: &Session,
        input: &[u8],
        bounds: RequestBounds,
    ) -> Result<Option<usize>, Malformed> {
        self.decode(input, RequestLimits { bounds, authenticated: session.is_authenticated() })
    }

    #[inline]
    fn argument_count(&self) -> usize {
        self.argument_count()
    }

    fn missing(&self, received: usize) -> usize {
        self.missing(received)
    }

    #[inline]
    fn canonical<'b>(&'b self, input: &'b [u8]) -> &'b [u8] {
        self.canonical(input)
    }

    #[inline]
    fn is_between_requests(&self) -> bool {
        true
    }

    #[inline]
    fn reset(&mut self) {
        self.reset();
    }
}

impl DecodeResponses for ResponseDecoder {
    #[inline]
    fn decode(&mut self, unread: &[u8]) -> Result<Progress, Malformed> {
        self.decode(unread)
    }

    fn missing(&self) -> u64 {
        self.missing()
    }
}
