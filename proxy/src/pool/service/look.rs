//! Requests that are looked at as they are served: those of a pass that was drawn by lot, those of clients that move large values, and
//! all where somebody watches. [`crate::hot`] says why these, and what is made of them; [`crate::monitor`] has those who watch.

use std::sync::{Arc, MutexGuard};

use bytes::BytesMut;

use super::{Next, Service};
use crate::hot::{Book, Look};
use crate::monitor::{Filter, Monitor, Reader};
use crate::pool::members::ShardIndex;
use crate::pool::monitoring::Seen;
use crate::pool::wishes::Wish;
use crate::protocol::{DecodeRequests as _, Protocol, Request, Route};

/// Keys of a request that are held against a pattern.
const SOUGHT_MAX: usize = 1024;
/// The reply to a client that is one too many.
const TOO_MANY: &str = "too many clients and others watch this pool already";

/// Who looks at the requests of a turn.
pub trait Looks<P: Protocol> {
    /// The request that `input` is was planned so.
    fn planned(&mut self, service: &Service<'_, P>, route: &Route<P::Merge>, input: &[u8]);
    /// This has come of it.
    fn followed(&mut self, service: &mut Service<'_, P>, next: Next);
}

/// Nobody does.
pub struct Nobody;

impl<P: Protocol> Looks<P> for Nobody {
    #[inline(always)]
    fn planned(&mut self, _: &Service<'_, P>, _: &Route<P::Merge>, _: &[u8]) {}

    #[inline(always)]
    fn followed(&mut self, _: &mut Service<'_, P>, _: Next) {}
}

/// They go into a book, and to those who watch.
struct Books<'s> {
    /// None where nothing is looked at after all.
    book: Option<MutexGuard<'s, Book>>,
    /// They count: the pass was drawn by lot.
    counts: bool,
    /// The number that the request at hand has, if it is sent.
    number: u32,
    /// Those who watch.
    monitors: Vec<Arc<Monitor>>,
    /// What they are to be shown of the request at hand.
    seen: Option<Box<Seen>>,
}

impl<P: Protocol> Looks<P> for Books<'_> {
    fn planned(&mut self, service: &Service<'_, P>, route: &Route<P::Merge>, input: &[u8]) {
        if let Some(book) = &mut self.book {
            self.number = service.activity.replies.next_number();
            service.note(book, keys_of(route, service.plan.keys.len()), input);
        }
        if !self.monitors.is_empty() {
            self.seen = service.seen(&self.monitors, route, input);
        }
    }

    fn followed(&mut self, service: &mut Service<'_, P>, next: Next) {
        if let Some(seen) = self.seen.take().filter(|_| next != Next::Same) {
            service.wishes.add(Wish::Show(seen));
        }
        if let Some(book) = &mut self.book
            && next != Next::Same
        {
            book.taken(service.id.number(), self.number, self.counts, service.now);
        }
    }
}

impl<P: Protocol> Service<'_, P> {
    /// As [`Self::serve`], for requests that are looked at; they count where they were drawn by lot.
    #[cold]
    #[inline(never)]
    pub fn serve_looked_at(&mut self, scratch: &mut BytesMut, counts: bool) {
        let context = self.context;
        let book = context.hot.try_open(context.own_mailbox()).filter(|book| book.is_on());
        let monitors = if context.monitors.is_active() { context.monitors.list() } else { Vec::new() };
        let mut books = Books { book, counts, number: 0, monitors, seen: None };
        self.serve(scratch, &mut books);
        if let Some(book) = &mut books.book {
            context.hot.settle(book);
        }
    }

    /// The book is told of the request that `input` is, of whose places of keys so many are those of keys.
    fn note(&self, book: &mut Book, keys: usize, input: &[u8]) {
        let decoder = &self.activity.decoder;
        let canonical = decoder.canonical(input);
        let text = self.plan.key_text(canonical);
        // Where there is no key, but a shard for it, that is the one of the empty key.
        let keys = || self.plan.keys[..keys].iter().filter(|(_, length)| *length > 0);
        book.plan(Look {
            command: P::command_name(Request { decoder, canonical }),
            count: keys().count(),
            keys: keys().map(|&(start, length)| &text[start..start + length]),
            bytes: input.len(),
            reads: self.plan.reads,
        });
    }

    /// What those who watch are to be shown of the request that `input` is, if any of them is: not what the proxy has refused, as a
    /// server shows nothing that it does not execute.
    fn seen(&self, monitors: &[Arc<Monitor>], route: &Route<P::Merge>, input: &[u8]) -> Option<Box<Seen>> {
        let is_refused = match route {
            Route::Ignore | Route::NoRoom | Route::Deny { .. } => true,
            Route::Answer => P::error(&self.plan.reply).is_some(),
            _ => false,
        };
        let decoder = &self.activity.decoder;
        let request = Request { decoder, canonical: decoder.canonical(input) };
        if is_refused || !P::is_monitored(request) {
            return None;
        }
        let (canonical, places) =
            (request.canonical, &self.plan.keys[..keys_of(route, self.plan.keys.len())]);
        let text = self.plan.key_text(canonical);
        let keys = || places.iter().take(SOUGHT_MAX).map(|&(start, length)| &text[start..start + length]);
        let shard = || {
            let home = self.router.topology.home_of(keys().next()?)?;
            Some(self.router.members[self.router.members.of(ShardIndex(home.shard))].name.clone())
        };
        let takers: Vec<_> =
            monitors.iter().filter(|monitor| monitor.wants(keys(), shard)).cloned().collect();
        (!takers.is_empty()).then(|| {
            Box::new(Seen {
                client: self.id,
                number: self.number,
                micros: self.facts.unix_micros(),
                database: P::database(P::lane(self.session)),
                words: P::shown(canonical, self.context.limits.privacy),
                takers,
            })
        })
    }

    /// The client is shown all requests from now on, unless as many are as may be.
    pub(super) fn begin_monitor(&mut self) -> Next {
        let worker = self.context.own_mailbox();
        let reader = Reader::Client { number: self.number, place: self.id.number(), worker };
        self.context.monitors.leave_client(self.number);
        if self.context.monitors.watch(Filter::default(), reader).is_err() {
            self.context.counters.refused.add(1);
            self.plan.reply.clear();
            P::failure(self.plan.manner, TOO_MANY, &mut self.plan.reply);
        }
        self.answer()
    }

    /// A large request goes to a shard in one piece.
    #[cold]
    #[inline(never)]
    pub(super) fn note_large(&self, input: &[u8]) {
        let Self { context, .. } = self;
        if context.limits.hot_keys_sample > 0
            && let Some(mut book) = context.hot.try_open(context.own_mailbox())
        {
            self.note(&mut book, self.plan.keys.len(), input);
            book.taken(self.id.number(), self.activity.replies.next_number(), false, self.now);
            context.hot.settle(&mut book);
        }
    }
}

/// So many of the places of keys are those of keys, where the request is handled so; the others are patterns, channels and the like.
fn keys_of<M>(route: &Route<M>, places: usize) -> usize {
    match route {
        Route::Forward
        | Route::Run(_)
        | Route::Wait(_)
        | Route::Watch
        | Route::Split(_)
        | Route::Queue { here: false }
        | Route::QueueRun(_) => places,
        Route::ForwardWith { patterns } => places - patterns,
        _ => 0,
    }
}
