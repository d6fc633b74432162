//! Responses to what the proxy asks on its own for a client: keys that are tried, replicas that are counted, values that go to another
//! shard.

use bytes::{Buf, Bytes, BytesMut};

use super::Intake;
use crate::buffer::SHARE_MIN;
use crate::failure::ShardFailure;
use crate::pool::ticket::Ticket;
use crate::pool::transfers::value_max;
use crate::protocol::{DecodeResponses, Protocol};

impl<P: Protocol> Intake<'_, P> {
    /// Whether the response at hand, of which so many bytes are there, is longer than any that is waited for whole. Of a value that was to go
    /// to another shard the rest can be passed over, and its client is told.
    ///
    /// # Errors
    /// It is to anything else: nobody knows what the shard has done, nor when it will have said so.
    #[cold]
    pub(super) fn is_overlong(&self, length: usize) -> Result<bool, ShardFailure> {
        let all = length as u64 + self.connection.decoder.missing();
        let most = value_max(&self.context.limits);
        if all > most && !self.connection.asked().is_some_and(Ticket::fetches) {
            return Err(ShardFailure::Malformed(format!("a response of more than {most} bytes")));
        }
        Ok(all > most)
    }

    /// The response at hand is one to an attempt of this number. Of one that is not complete, and is too long, all is passed over; what
    /// is handed on instead is empty. False if that is to come still.
    pub(super) fn take_attempt(
        &mut self,
        ticket: &Ticket<P>,
        serial: u32,
        scratch: &mut BytesMut,
        is_complete: bool,
    ) -> bool {
        if !is_complete {
            self.connection.pass_over();
            self.redirects.attempted.push((serial, Bytes::new()));
            self.start = self.end;
            return false;
        }
        let response = &scratch[self.start..self.end];
        let is_error = response.first() == Some(&P::ERROR);
        let response = if response.len() < SHARE_MIN {
            let copy = Bytes::copy_from_slice(response);
            self.start = self.end;
            copy
        } else {
            let length = response.len();
            scratch.advance(self.start);
            (self.start, self.end) = (0, 0);
            scratch.split_to(length).freeze()
        };
        self.redirects.attempted.push((serial, response));
        self.responses += 1;
        match &mut self.connection.private {
            // How long replicas were waited for says nothing of the shard, which may close the connection after an error.
            Some(private) => private.is_tainted |= is_error,
            None => self.counters.latency.record(self.now.micros().saturating_sub(ticket.since.micros())),
        }
        true
    }
}
