//! What is asked of a connection that one client has to itself.

use bytes::Bytes;

use super::{Connection, Link};
use crate::pool::ticket::Ticket;
use crate::pool::watch::Watch;
use crate::protocol::Protocol;

impl<P: Protocol> Connection<P> {
    /// Everything asked on it is answered, and nothing is left of that.
    pub fn is_clean(&self) -> bool {
        matches!(self.link, Link::Up)
            && !self.closing
            && self.is_quiet()
            && !self.streaming
            && self.understood == 0
            && self.rest.is_empty()
            && self.private.as_ref().is_some_and(|private| !private.is_tainted)
    }

    /// Whether not a byte was written of what is asked on it.
    pub fn is_unheard(&self) -> bool {
        self.in_flight_bytes == self.output.len() as u64 && self.output.held() == 0
    }

    /// Whether the last byte of what is asked on it was never written.
    pub fn is_unfinished(&self) -> bool {
        !self.output.is_empty()
    }

    /// Keys are watched on it, for a client.
    pub fn watch_mut(&mut self) -> Option<&mut Watch> {
        self.private.as_mut()?.watch.as_mut()
    }

    /// The bytes of the newest request, where they are kept.
    pub fn newest_kept(&self) -> Option<Bytes> {
        let &Ticket { length, .. } = self.in_flight.back().filter(|ticket| !ticket.unkept)?;
        let kept = self.kept.as_ref()?;
        Some(kept.first(kept.len()).slice(kept.len() - length as usize..))
    }

    /// Whether responses that name other nodes are followed.
    pub fn follows(&self) -> bool {
        self.private.as_ref().map_or(self.keeps(), |private| private.follows)
    }
}
