//! The responses to a transaction: one to each of its requests, which nobody waits for, and the last one, which is its client's.
//!
//! A shard that refuses a request as it queues it executes none of them, and says so at the end; in a cluster it may have named
//! another node by then.

use bytes::{Bytes, BytesMut};

use super::{Intake, STREAM_MIN, beginning};
use crate::buffer::Piece;
use crate::failure::ShardFailure;
use crate::pool::parked::Redirected;
use crate::pool::ticket::{Ticket, Whom};
use crate::pool::watch::Stage;
use crate::protocol::{BlockOutcome, DecodeResponses, Malformed, Protocol};

/// Within so many bytes it shows whether the last response is one to this transaction.
const HEAD_MAX: usize = 32;

impl<P: Protocol> Intake<'_, P> {
    /// The next response to the transaction of the ticket, which is the oldest in flight; false if there is none yet.
    pub(super) fn take_of_block(
        &mut self,
        ticket: Ticket<P>,
        scratch: &mut BytesMut,
    ) -> Result<bool, ShardFailure> {
        if self.connection.block.responses < P::preceding(ticket.expected) {
            return self.take_preceding(scratch);
        }
        let response = &scratch[self.start..];
        match response.first() {
            Some(&first) if first == P::ERROR && !self.connection.streaming => {
                return self.take_refusal(ticket, scratch);
            }
            Some(_) if !self.connection.streaming => {
                let is_known = response.len() >= HEAD_MAX || response.contains(&b'\n');
                let is_push = response[0] == b'>';
                if is_known && !is_push {
                    match P::outcome(ticket.expected, response) {
                        BlockOutcome::Executed => {}
                        BlockOutcome::Changed if self.connection.watch_mut().is_some() => {
                            self.context.counters.watch_conflicts.add(1);
                        }
                        _ => return Err(odd(response)),
                    }
                }
            }
            _ => {}
        }
        let in_flight = self.connection.in_flight().len();
        let goes_on = self.take_one::<true>(scratch)?;
        if self.connection.in_flight().len() < in_flight {
            self.connection.block = Default::default();
        }
        Ok(goes_on)
    }

    /// A response that nobody waits for.
    fn take_preceding(&mut self, scratch: &BytesMut) -> Result<bool, ShardFailure> {
        let Some((is_complete, is_push)) = self.decode(scratch)? else { return Ok(false) };
        if is_push {
            return Ok(self.take_push(scratch, is_complete));
        }
        let response = &scratch[self.start..self.end];
        let heard = &mut self.connection.block;
        if !is_complete && response.len() < STREAM_MIN {
            return Ok(false);
        }
        if !is_complete {
            // Nothing is as long that is only queued.
            if !heard.is_not_begun {
                return Err(odd(response));
            }
            heard.drops = true;
            self.start = self.end;
            return Ok(false);
        }
        if !std::mem::take(&mut heard.drops) {
            match P::is_taken(heard.responses == 0, response) {
                Some(true) => {}
                Some(false) => {
                    heard.refused(response);
                    if P::is_complaint(response) {
                        self.wishes.log_complaint(self.at, response);
                    }
                }
                None if heard.is_not_begun => {}
                None => return Err(odd(response)),
            }
        }
        self.connection.block.responses += 1;
        self.response_bytes += (self.end - self.start) as u64;
        self.start = self.end;
        Ok(true)
    }

    /// The last response is an error: the transaction was not executed.
    fn take_refusal(&mut self, ticket: Ticket<P>, scratch: &BytesMut) -> Result<bool, ShardFailure> {
        let Some((is_complete, _)) = self.decode(scratch)? else { return Ok(false) };
        let response = &scratch[self.start..self.end];
        if !is_complete {
            return if response.len() < STREAM_MIN { Ok(false) } else { Err(odd(response)) };
        }
        let outcome = P::outcome(ticket.expected, response);
        let heard = std::mem::take(&mut self.connection.block);
        self.responses += 1;
        self.response_bytes += response.len() as u64;
        self.start = self.end;
        let is_watched = match self.connection.watch_mut() {
            Some(watch) => {
                watch.stage = Stage::SpentInVain;
                true
            }
            None => false,
        };
        let errors = [heard.error.as_deref(), Some(response)];
        let redirect = errors.into_iter().flatten().find(|error| P::redirect(error).is_some());
        if let Some(reply) = redirect
            && !is_watched
            && outcome == BlockOutcome::Refused
            && !heard.is_not_begun
            && self.connection.keeps()
            && let Some((ticket, request)) = self.connection.take_back()
        {
            let (from, deadline) = (self.connection.member, self.connection.policy.deadline(ticket.since));
            let reply = Bytes::copy_from_slice(reply);
            self.connection.watched = self.connection.in_flight().len();
            self.redirects.fresh.push(Redirected { from, deadline, ticket, request, reply, wait: None });
            return Ok(true);
        }
        let ticket = self.connection.answered().expect("it is the oldest in flight");
        self.counters.latency.record(self.now.micros().saturating_sub(ticket.since.micros()));
        let reason = heard.error.as_deref().unwrap_or(response);
        let mut reply = Vec::new();
        if heard.is_not_begun {
            if let Some(private) = &mut self.connection.private {
                private.is_tainted = true;
            }
            let words = String::from_utf8_lossy(reason.strip_prefix(&[P::ERROR]).unwrap_or(reason));
            self.connection.refuses_blocks = Some(words.trim_end().into());
            let words = format!(
                "the shard has refused to begin a transaction, so its commands were executed one by one: {}",
                words.trim_end()
            );
            P::failure(P::Manner::default(), &words, &mut reply);
        } else if let Some(redirect) = redirect.and_then(|error| P::redirect(error))
            && is_watched
            && self.connection.follows()
        {
            // Where it would go now nobody has watched.
            self.count_redirect(redirect);
            P::nothing_came(self.connection.lane, &mut reply);
        } else {
            P::refuse_block(reason, &mut reply);
        }
        match ticket.client().and_then(|id| self.clients.touch(id)) {
            Some(client) => {
                let activity =
                    client.activity.as_mut().expect("a client with a request in flight has an activity");
                activity.replies.answer(ticket.number, ticket.fragment, Piece::Copied(&reply), true);
            }
            None => self.counters.late_responses.add(u64::from(ticket.whom == Whom::Nobody)),
        }
        if outcome == BlockOutcome::Refused { Ok(true) } else { Err(odd(response)) }
    }

    /// How far the response at hand is understood: whether it is complete, and a push. None if nothing of it is there.
    fn decode(&mut self, scratch: &BytesMut) -> Result<Option<(bool, bool)>, ShardFailure> {
        let progress = self
            .connection
            .decoder
            .decode(&scratch[self.end..])
            .map_err(|Malformed(reason)| ShardFailure::Malformed(reason))?;
        self.end += progress.length;
        Ok((self.end > self.start).then_some((progress.complete, progress.push)))
    }
}

fn odd(response: &[u8]) -> ShardFailure {
    ShardFailure::Malformed(format!("{:?} is not a response to this transaction", beginning(response)))
}
