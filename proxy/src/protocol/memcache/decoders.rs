//! The decoders as the pool knows them.

use super::decode::RequestDecoder;
use super::response::ResponseDecoder;
use crate::protocol::{DecodeRequests, DecodeResponses, Malformed, Progress, RequestBounds};

impl DecodeRequests<()> for RequestDecoder {
    #[inline]
    fn next(
        &mut self,
        _session: &(),
        input: &[u8],
        bounds: RequestBounds,
    ) -> Result<Option<usize>, Malformed> {
        let length = self.decode(input, bounds.bytes)?;
        let words = if length.is_some() { self.word_count() } else { self.words_so_far(input) };
        if words > bounds.arguments {
            return Err(Malformed(format!(
                "request has {words} words, more than arguments_max ({})",
                bounds.arguments
            )));
        }
        Ok(length)
    }

    #[inline]
    fn argument_count(&self) -> usize {
        self.word_count()
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
        self.is_between_requests()
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
