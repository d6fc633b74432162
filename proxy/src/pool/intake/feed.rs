//! What has come of a shard that is listened to: messages, and answers to what names are to be listened to.

use bytes::{Bytes, BytesMut};

use super::{Intake, unasked};
use crate::buffer::{Piece, SHARE_MIN};
use crate::failure::ShardFailure;
use crate::pool::channels::Handing;
use crate::pool::client::State;
use crate::pool::clients::{ClientId, Clients, find};
use crate::pool::connection::Link;
use crate::protocol::channels::{Kind, Told};
use crate::protocol::{Malformed, Protocol};

/// So many bytes are handed out in a pass before others have their turn and clients are written to, in the middle of a message
/// where many listen: one read of messages would otherwise become that much for each of them.
const HANDED_MAX: usize = 8 << 20;
/// What handing a message to a client costs beside its bytes.
const HANDING: usize = 64;

impl<P: Protocol> Intake<'_, P> {
    /// Takes what is complete, until enough is handed out for one pass.
    pub(super) fn take_feed(&mut self, scratch: &BytesMut) -> Result<(), ShardFailure> {
        let mut left = HANDED_MAX;
        if let Some(Handing { kind, name, message, last }) = self.channels.take_handing(self.at) {
            self.hand_out(kind, &name, &message, Some(last), &mut left);
        }
        while left > 0 && self.take_told(scratch, &mut left)? {}
        if left == 0 {
            self.channels.put_off(self.at);
        }
        Ok(())
    }

    /// The next that the shard says; false if there is nothing complete.
    fn take_told(&mut self, scratch: &BytesMut, left: &mut usize) -> Result<bool, ShardFailure> {
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
        feed.heard = self.now;
        match P::told(response) {
            Told::Message(kind, name) => {
                self.context.counters.messages.add(1);
                if feed.hears(kind, name) {
                    self.hand_out(kind, name, response, None, left);
                }
            }
            told @ (Told::Done(..) | Told::Refused(_) | Told::Alive) => {
                if self.connection.asked().is_none() {
                    return Err(unasked::<P>(&self.context.settings, Some(response)));
                }
                let feed = self.connection.feed.as_deref_mut().expect("it is a feed");
                let answered = match told {
                    Told::Done(change, name) => feed.done(change, name).map(Some),
                    Told::Alive => feed.lives().then_some(None),
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
                key.into_iter().for_each(|key| self.channels.answered(key));
            }
            Told::Odd => {
                return Err(ShardFailure::Malformed("it is nothing that is said of channels".into()));
            }
        }
        self.response_bytes += response.len() as u64;
        self.start = self.end;
        Ok(true)
    }

    /// The message goes to all behind `last` that listen to the name, as long as `left` lasts; the others get it later.
    fn hand_out(
        &mut self,
        kind: Kind,
        name: &[u8],
        message: &[u8],
        last: Option<ClientId>,
        left: &mut usize,
    ) {
        let listeners = self.channels.listeners(kind, name);
        let begin = last.map_or(0, |last| listeners.partition_point(|&id| id <= last));
        let shared = (message.len() >= SHARE_MIN).then(|| Bytes::copy_from_slice(message));
        let cost = HANDING + if shared.is_some() { 0 } else { message.len() };
        let Clients { table, spare_activities, dirty, .. } = &mut *self.clients;
        let limits = &self.context.limits;
        let (mut delivered, mut later) = (0, None);
        for &id in &listeners[begin..] {
            *left = left.saturating_sub(cost);
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
            if *left == 0 && listeners.last() != Some(&id) {
                later = Some(id);
                break;
            }
        }
        if let Some(last) = later {
            let message = shared.unwrap_or_else(|| Bytes::copy_from_slice(message));
            let name = Bytes::copy_from_slice(name);
            self.channels.hand_out_later(self.at, Handing { kind, name, message, last });
        }
        self.context.counters.messages_delivered.add(delivered);
    }
}
