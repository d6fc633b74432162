//! What has come of a shard that is listened to: messages, and answers to what names are to be listened to.

use bytes::{Bytes, BytesMut};

use super::{Intake, unasked};
use crate::buffer::{Piece, SHARE_MIN};
use crate::failure::ShardFailure;
use crate::pool::client::State;
use crate::pool::clients::{Clients, find};
use crate::pool::connection::Link;
use crate::protocol::channels::{Kind, Told};
use crate::protocol::{Malformed, Protocol};

/// So many bytes are handed out in a pass before others have their turn and clients are written to: one read of messages
/// would otherwise become that much for each client that listens.
const HANDED_MAX: usize = 8 << 20;
/// What handing a message to a client costs beside its bytes.
const HANDING: usize = 64;

impl<P: Protocol> Intake<'_, P> {
    /// Takes what is complete, until enough is handed out for one pass.
    pub(super) fn take_feed(&mut self, scratch: &BytesMut) -> Result<(), ShardFailure> {
        let mut handed = 0;
        while self.take_told(scratch, &mut handed)? {
            if handed >= HANDED_MAX {
                self.channels.put_off(self.at);
                break;
            }
        }
        Ok(())
    }

    /// The next that the shard says; false if there is nothing complete.
    fn take_told(&mut self, scratch: &BytesMut, handed: &mut usize) -> Result<bool, ShardFailure> {
        let progress = P::next_response(&mut self.connection.decoder, &scratch[self.end..])
            .map_err(|Malformed(reason)| ShardFailure::Malformed(reason))?;
        self.end += progress.length;
        let response = &scratch[self.start..self.end];
        if matches!(self.connection.link, Link::Greeting { .. }) {
            return self.take_greeting(response, progress.complete);
        }
        if !progress.complete {
            // No client could take it.
            if self.connection.streaming || response.len() > self.context.limits.message_max() {
                self.connection.streaming = true;
                self.start = self.end;
            }
            return Ok(false);
        }
        if std::mem::take(&mut self.connection.streaming) {
            self.context.counters.messages_dropped.add(1);
            self.start = self.end;
            return Ok(true);
        }
        let feed = self.connection.feed.as_deref_mut().expect("it is a feed");
        match P::told(response) {
            Told::Message(kind, name) => {
                self.context.counters.messages.add(1);
                if feed.hears(kind, name) {
                    *handed += self.hand_out(kind, name, response);
                }
            }
            told @ (Told::Done(..) | Told::Refused(_)) => {
                if self.connection.asked().is_none() {
                    return Err(unasked::<P>(&self.context.settings, Some(response)));
                }
                let feed = self.connection.feed.as_deref_mut().expect("it is a feed");
                let answered = match told {
                    Told::Done(change, name) => feed.done(change, name),
                    _ => feed.refused(response.get(1..).unwrap_or_default().trim_ascii_end()),
                };
                let Some(key) = answered else {
                    return Err(ShardFailure::Malformed("another channel is answered than was asked".into()));
                };
                if P::is_complaint(response) {
                    self.wishes.log_complaint(self.at, response);
                }
                self.connection.answered();
                self.responses += 1;
                self.channels.answered(key);
            }
            Told::Odd => {
                return Err(ShardFailure::Malformed("it is nothing that is said of channels".into()));
            }
        }
        self.response_bytes += response.len() as u64;
        self.start = self.end;
        Ok(true)
    }

    /// The message goes to all that listen to the name. Returns what that cost.
    fn hand_out(&mut self, kind: Kind, name: &[u8], message: &[u8]) -> usize {
        let listeners = self.channels.listeners(kind, name);
        let shared = (message.len() >= SHARE_MIN).then(|| Bytes::copy_from_slice(message));
        let Clients { table, spare_activities, dirty, .. } = &mut *self.clients;
        let limits = &self.context.limits;
        let mut delivered = 0;
        for &id in listeners {
            let Some(client) = find(table, id).filter(|client| client.state == State::Open) else { continue };
            let (beginning, instead) = P::beginning(P::voice(&client.session));
            let activity = spare_activities.give(client);
            // What it took since the last message may have ended that.
            activity.is_swamped(limits, self.now);
            activity.replies.push(
                beginning,
                match &shared {
                    Some(shared) => Piece::Shared(shared.slice(instead..)),
                    None => Piece::Copied(&message[instead..]),
                },
            );
            if activity.is_swamped(limits, self.now) {
                self.context.counters.subscriber_output_exceeded.add(1);
                client.state = State::Broken;
            }
            dirty.mark(client, id.index);
            delivered += 1;
        }
        self.context.counters.messages_delivered.add(delivered as u64);
        delivered * (HANDING + if shared.is_some() { 0 } else { message.len() })
    }
}
