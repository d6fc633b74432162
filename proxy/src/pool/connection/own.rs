//! What is asked of a connection that one client has to itself.

use bytes::Bytes;

use super::{Connection, Link};
use crate::failure::ShardFailure;
use crate::pool::ConnectionId;
use crate::pool::caches::Caching;
use crate::pool::parked::Redirected;
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

    /// Whether it was there when something came on the other one, and has been since: then the same shard is behind both, and numbers
    /// that it has told there are known here.
    pub fn is_older_than(&self, other: &Self) -> bool {
        matches!(self.link, Link::Up) && other.received.is_some_and(|received| self.made <= received)
    }

    /// It is lost. What asks on it to end waits, with numbers that the next shard behind it may have given to others, is gone with it.
    pub fn take_askers(&mut self) -> Vec<ConnectionId> {
        let asked: Vec<_> = self.in_flight.iter().filter_map(Ticket::ends_wait).collect();
        if !asked.is_empty() {
            self.forsake(|ticket| ticket.ends_wait().is_some());
        }
        asked
    }

    /// Its shard has closed it, as it was made to end the wait there, and has given nothing before: the request that waited.
    pub fn ended_by_closing(&self, failure: &ShardFailure) -> Option<Redirected<P>> {
        let private = self.private.as_ref().filter(|private| private.finished)?;
        // A part of a response is an element that was taken.
        let is_whole = self.rest.is_empty() && self.understood == 0 && !self.streaming;
        if *failure != ShardFailure::Closed || !is_whole {
            return None;
        }
        let ticket = self.in_flight.iter().copied().find(|ticket| ticket.client().is_some())?;
        let (request, reply) = (self.newest_kept().unwrap_or_default(), Bytes::new());
        let (from, wait) = (self.member, private.wait);
        Some(Redirected { from, deadline: None, ticket, request, reply, wait })
    }

    /// What the client that has it reads there it may keep, and is not told of, or it keeps nothing anyway.
    pub fn keep_nothing(&mut self, is_keeping: bool) {
        let caching = Caching { registers: false, follows: true, overlong: false };
        (self.caching, self.special) = (is_keeping.then_some(caching), is_keeping);
    }

    /// Whether nothing of a client is asked on it.
    pub fn is_ours(&self) -> bool {
        self.feed.is_some() || self.tracker.is_some()
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

    /// The bytes of the oldest request, where they are kept.
    pub fn oldest_kept(&self) -> Option<Bytes> {
        let &Ticket { length, .. } = self.in_flight.front().filter(|ticket| !ticket.unkept)?;
        Some(self.kept.as_ref()?.first(length as usize))
    }

    /// Whether responses that name other nodes are followed.
    pub fn follows(&self) -> bool {
        self.private.as_ref().map_or(self.keeps(), |private| private.follows)
    }
}
