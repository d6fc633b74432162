//! The value of a key is to be brought to another shard: see [`crate::pool::transfers`].

use bytes::BytesMut;
use shard_discovery::Group;

use super::{Next, Pause, Refusal, Service, State};
use crate::buffer::Piece;
use crate::pool::members::ShardIndex;
use crate::pool::ticket::Ticket;
use crate::pool::transfers::Place;
use crate::protocol::{DecodeRequests, Protocol};

impl<P: Protocol> Service<'_, P> {
    /// What comes of a request whose keys are on several shards, if it is one that brings the value of one to the other.
    pub(super) fn transfer(&mut self, scratch: &BytesMut, length: usize) -> Option<Next> {
        let canonical = self.activity.decoder.canonical(&scratch[self.used..][..length]);
        // The keys of a cluster may be on their way themselves.
        if self.router.topology.group() == Group::Slot {
            return None;
        }
        let database = P::database(self.router.connections.lane_key(*self.lane));
        let asked = P::transfer(canonical, database)?;
        let keys = || self.plan.keys.iter().map(|&(start, length)| &canonical[start..start + length]);
        let transfer = match asked {
            _ if !self.context.limits.renames_across_shards => {
                let spread = self.router.spread_of(keys());
                return Some(self.refuse(Refusal::Reply(P::untransferred(spread)), scratch, length));
            }
            Err(words) => return Some(self.refuse(Refusal::Reply(format!("-{words}\r\n")), scratch, length)),
            Ok(transfer) => transfer,
        };
        if self.activity.replies.in_flight() > 0 {
            // They go to other connections, and come before it.
            self.activity.paused = Some(Pause::UntilQuiet);
            return Some(Next::Same);
        }
        if *self.state == State::Broken {
            return Some(Next::Drop);
        }
        let mut requests = [Vec::new(), Vec::new()];
        P::ask_lifetime(&transfer.source, &mut requests[0]);
        P::ask_value(&transfer.source, &mut requests[1]);
        let sender = self.sender();
        let mut places = Vec::with_capacity(2);
        // Nothing begins where one of the two is down.
        for key in [&transfer.source, &transfer.destination] {
            let Some(home) = self.router.topology.home_of(key) else {
                return Some(self.refuse(Refusal::Nobody, scratch, length));
            };
            let at = self.router.connection_for(sender, ShardIndex(home.shard), false);
            let needed = requests[1].len();
            if let Err(failure) =
                self.router.admit(at, needed, &self.context.limits, sender.since, sender.now)
            {
                return Some(self.refuse(Refusal::Failed(at, failure), scratch, length));
            }
            places.push(Place { at, shard: self.router.name_of(at).clone() });
        }
        let places: [Place; 2] = places.try_into().ok()?;
        let number = self.activity.replies.submitted(self.plan.manner);
        let serial = self.wide.next_serial();
        for request in requests {
            let ticket = Ticket::fetch(self.id, number, serial, sender.since);
            self.router.submit(places[0].at, ticket, Piece::Copied(&request), self.now);
        }
        self.router.transfers.begin(serial, self.id, number, transfer, places);
        self.activity.paused = Some(Pause::UntilQuiet);
        Some(Next::Stop)
    }
}
