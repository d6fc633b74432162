//! What has come of a shard that is listened to: messages, and answers to what names are to be listened to.

use bytes::{Bytes, BytesMut};

use super::{Intake, unasked};
use crate::buffer::{Piece, SHARE_MIN};
use crate::failure::ShardFailure;
use crate::pool::channels::Handing;
use crate::pool::client::State;
use crate::pool::clients::{ClientId, Clients, find};
use crate::pool::connection::Link;
use crate::pool::feed::{Said, shown};
use crate::pool::moving::Moved;
use crate::protocol::channels::{Kind, Told, Voice};
use crate::protocol::{DecodeResponses, Malformed, Protocol};

/// So much is handed out in a pass before others have their turn and clients are written to, in bytes that are copied and
/// [`HANDING`]: what a client with a small request waits for some milliseconds.
const HANDED_MAX: usize = 512 * 1024;
/// What handing something to a client costs beside its bytes: mostly that it is written to, with a system call.
const HANDING: usize = 1024;

/// Messages that came one behind the other, all because of one name: a client gets them at once, and is written to once.
struct Run<'s> {
    kind: Kind,
    name: &'s [u8],
    /// As they came.
    messages: &'s [u8],
    /// Where each of them begins.
    starts: Vec<usize>,
}

impl Run<'_> {
    /// The messages as these clients are to hear them.
    fn heard<P: Protocol>(&self, voice: Voice) -> Bytes {
        let (beginning, instead) = P::beginning(voice);
        let mut heard = BytesMut::with_capacity(self.messages.len() + beginning.len() * self.starts.len());
        let ends = self.starts[1..].iter().copied().chain([self.messages.len()]);
        for (&start, end) in self.starts.iter().zip(ends) {
            heard.extend_from_slice(beginning);
            heard.extend_from_slice(&self.messages[start + instead..end]);
        }
        heard.freeze()
    }
}

impl<P: Protocol> Intake<'_, P> {
    /// Takes what is complete, until enough is handed out for one pass.
    pub(super) fn take_feed(&mut self, scratch: &BytesMut) -> Result<(), ShardFailure> {
        let mut left = HANDED_MAX;
        if let Some(Handing { kind, name, messages, starts, last }) = self.channels.take_handing(self.at) {
            self.hand_out(&Run { kind, name: &name, messages: &messages, starts }, Some(last), &mut left);
        }
        let mut run = None;
        let mut taken = Ok(true);
        while left > 0 && matches!(taken, Ok(true)) {
            taken = self.take_told(scratch, &mut run, &mut left);
        }
        self.end_run(&mut run, &mut left);
        if left == 0 {
            self.channels.put_off(self.at);
        }
        taken.map(|_| ())
    }

    /// The next that the shard says; false if there is nothing complete, or no more time for it in this pass.
    fn take_told<'s>(
        &mut self,
        scratch: &'s BytesMut,
        run: &mut Option<Run<'s>>,
        left: &mut usize,
    ) -> Result<bool, ShardFailure> {
        let progress = self
            .connection
            .decoder
            .decode(&scratch[self.end..])
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
        let told = P::told(response);
        if !self.continues(scratch, run.as_ref(), &told) {
            self.end_run(run, left);
            if *left == 0 {
                // It comes behind what is not handed out yet, so it is read again.
                self.end = self.start;
                return Ok(false);
            }
        }
        let feed = self.connection.feed.as_deref_mut().expect("it is a feed");
        feed.heard = self.now;
        match told {
            Told::Message(kind, name) => {
                self.context.counters.messages.add(1);
                if feed.takes::<P>(kind, name, response) {
                    let run =
                        run.get_or_insert_with(|| Run { kind, name, messages: &[], starts: Vec::new() });
                    run.starts.push(run.messages.len());
                    run.messages = &scratch[self.start - run.messages.len()..self.end];
                }
            }
            told @ (Told::Done(..) | Told::Refused(_) | Told::Alive) => self.take_news(told, response)?,
            Told::Odd => {
                return Err(ShardFailure::Malformed("it is nothing that is said of channels".into()));
            }
        }
        self.response_bytes += response.len() as u64;
        self.start = self.end;
        Ok(true)
    }

    /// The shard says what has become of a name, or that it is alive.
    fn take_news(&mut self, told: Told<'_>, response: &[u8]) -> Result<(), ShardFailure> {
        let is_asked = self.connection.asked().is_some();
        let feed = self.connection.feed.as_deref_mut().expect("it is a feed");
        let said = match told {
            Told::Done(change, name) if is_asked => feed.done(change, name),
            Told::Done(change, name) => feed.unasked(change, name),
            Told::Refused(words) => feed.refused(words, P::redirect(response).is_some(), is_asked),
            _ => feed.lives(is_asked),
        };
        let Some(said) = said else {
            return Err(if is_asked {
                ShardFailure::Malformed("another channel is answered than was asked".into())
            } else {
                unasked::<P>(&self.context.settings, Some(response))
            });
        };
        if matches!(said, Said::Answer(_) | Said::Elsewhere(_)) {
            self.connection.answered();
            self.responses += 1;
        }
        match said {
            Said::Answer(key) => {
                if P::is_complaint(response) {
                    self.wishes.log_complaint(self.at, response);
                }
                key.into_iter().for_each(|key| self.channels.answered(key));
            }
            Said::Elsewhere(key) => {
                let words = shown(response.get(1..).unwrap_or_default().trim_ascii_end());
                self.channels.moving.said(Moved { key, words: Some(words) });
            }
            Said::Left(key) => self.channels.moving.said(Moved { key, words: None }),
            Said::Late(key) => self.channels.answered(key),
            Said::Idle => {}
        }
        Ok(())
    }

    /// Whether what was told goes on with the run: with one that is long enough to be shared nothing does.
    fn continues(&self, scratch: &BytesMut, run: Option<&Run<'_>>, told: &Told<'_>) -> bool {
        let (Some(run), Told::Message(kind, name)) = (run, told) else { return run.is_none() };
        let is_next = run.messages.as_ptr_range().end == scratch[self.start..].as_ptr();
        is_next && run.messages.len() < SHARE_MIN && (run.kind, run.name) == (*kind, *name)
    }

    /// Hands out what there is of a run.
    fn end_run(&mut self, run: &mut Option<Run<'_>>, left: &mut usize) {
        if let Some(run) = run.take() {
            self.hand_out(&run, None, left);
        }
    }

    /// The messages go to all behind `last` that listen to the name, as long as `left` lasts; the others get them later.
    fn hand_out(&mut self, run: &Run<'_>, last: Option<ClientId>, left: &mut usize) {
        let listeners = self.channels.listeners(run.kind, run.name);
        let begin = last.map_or(0, |last| listeners.partition_point(|&id| id <= last));
        let is_shared = run.messages.len() >= SHARE_MIN;
        let is_one = run.starts.len() == 1 && !is_shared;
        let cost = HANDING + if is_shared { 0 } else { run.messages.len() };
        // For each protocol version once.
        let mut heard: Vec<(Voice, Bytes)> = Vec::new();
        let Clients { table, spare_activities, dirty, .. } = &mut *self.clients;
        let limits = &self.context.limits;
        let (mut delivered, mut later) = (0, None);
        for &id in &listeners[begin..] {
            *left = left.saturating_sub(cost);
            let Some(client) = find(table, id).filter(|client| client.state == State::Open) else { continue };
            let voice = P::voice(&client.session);
            let activity = spare_activities.give(client);
            // What it took since the last message may have ended that.
            activity.is_swamped(limits, self.now);
            if is_one {
                let (beginning, instead) = P::beginning(voice);
                activity.replies.push(beginning, Piece::Copied(&run.messages[instead..]));
            } else {
                let place = heard.iter().position(|(of, _)| *of == voice).unwrap_or_else(|| {
                    heard.push((voice, run.heard::<P>(voice)));
                    heard.len() - 1
                });
                let bytes = &heard[place].1;
                let piece = if is_shared { Piece::Shared(bytes.clone()) } else { Piece::Copied(bytes) };
                activity.replies.push(b"", piece);
            }
            if activity.is_swamped(limits, self.now) {
                self.context.counters.subscriber_output_exceeded.add(1);
                client.state = State::Broken;
            }
            dirty.mark(client, id.index);
            delivered += run.starts.len() as u64;
            if *left == 0 && listeners.last() != Some(&id) {
                later = Some(id);
                break;
            }
        }
        if let Some(last) = later {
            let (kind, starts) = (run.kind, run.starts.clone());
            let (name, messages) = (Bytes::copy_from_slice(run.name), Bytes::copy_from_slice(run.messages));
            self.channels.hand_out_later(self.at, Handing { kind, name, messages, starts, last });
        }
        self.context.counters.messages_delivered.add(delivered);
    }
}
