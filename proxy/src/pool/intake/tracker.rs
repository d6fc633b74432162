//! What has come of a shard that tells of keys: those that have changed, and answers to what it was asked.

use bytes::{Bytes, BytesMut};

use super::caching::TOLD_BYTES_MAX;
use super::{Intake, unasked};
use crate::failure::ShardFailure;
use crate::pool::connection::Link;
use crate::pool::tracker::{News, TrackerRequest};
use crate::protocol::{DecodeResponses, Malformed, Protocol, Tracked};

impl<P: Protocol> Intake<'_, P> {
    /// Takes what is complete.
    pub(super) fn take_tracker(&mut self, scratch: &BytesMut) -> Result<(), ShardFailure> {
        while self.take_tracked(scratch)? {}
        Ok(())
    }

    /// The next that the shard says; false if there is nothing complete.
    fn take_tracked(&mut self, scratch: &BytesMut) -> Result<bool, ShardFailure> {
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
        let tracker = self.connection.tracker.as_deref_mut().expect("it is a tracker");
        if !progress.complete {
            if progress.push
                && response.len() > TOLD_BYTES_MAX
                && !std::mem::replace(&mut tracker.overlong, true)
            {
                tracker.news.push(News::AllChanged);
            }
            if tracker.overlong {
                self.start = self.end;
            }
            return Ok(false);
        }
        if std::mem::take(&mut tracker.overlong) {
            self.start = self.end;
            return Ok(true);
        }
        let told = P::tracked(response);
        if matches!(told, Tracked::Done | Tracked::Refused(_)) && self.connection.asked().is_none() {
            return Err(unasked::<P>(&self.context.settings, Some(response)));
        }
        let tracker = self.connection.tracker.as_deref_mut().expect("it is a tracker");
        tracker.heard = self.now;
        match told {
            Tracked::Changed(names) => {
                tracker
                    .news
                    .extend(names.into_iter().map(|name| News::Changed(Bytes::copy_from_slice(name))));
            }
            Tracked::AllChanged => tracker.news.push(News::AllChanged),
            Tracked::Done | Tracked::Refused(_) => {
                let asked = tracker.asked.pop_front().expect("one for each ticket");
                let is_elsewhere = self.topology.redirects() && P::redirect(response).is_some();
                tracker.news.extend(match (asked, told) {
                    (TrackerRequest::Name(name), Tracked::Done) => Some(News::Tracked(name)),
                    (TrackerRequest::Name(name), _) if is_elsewhere => {
                        Some(News::Elsewhere(name, Bytes::copy_from_slice(response)))
                    }
                    (TrackerRequest::Name(name), _) => {
                        Some(News::NameRefused(name, Bytes::copy_from_slice(response)))
                    }
                    (TrackerRequest::Prefixes { version }, Tracked::Done) => Some(News::Prefixes { version }),
                    (TrackerRequest::ToTell | TrackerRequest::Prefixes { .. }, Tracked::Refused(words)) => {
                        Some(News::Refused(String::from_utf8_lossy(words).into_owned()))
                    }
                    (
                        TrackerRequest::ToTell
                        | TrackerRequest::Way
                        | TrackerRequest::Life
                        | TrackerRequest::ToCease
                        | TrackerRequest::Prefixes { .. },
                        _,
                    ) => None,
                });
                if P::is_complaint(response) {
                    self.wishes.log_complaint(self.at, response);
                }
                self.connection.answered();
                self.responses += 1;
            }
            Tracked::Odd => {
                return Err(ShardFailure::Malformed("it is nothing that is said of keys".into()));
            }
        }
        self.response_bytes += response.len() as u64;
        self.start = self.end;
        Ok(true)
    }
}
