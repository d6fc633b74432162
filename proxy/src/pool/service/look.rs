//! Requests that are looked at as they are served: those of a pass that was drawn by lot, and those of clients that move large values.
//! [`crate::hot`] says why these, and what is made of them.

use std::sync::MutexGuard;

use bytes::BytesMut;

use super::{Next, Service};
use crate::hot::{Book, Look};
use crate::pool::ClientId;
use crate::protocol::{DecodeRequests as _, Protocol, Request, Route};

/// Who looks at the requests of a turn.
pub trait Looks<P: Protocol> {
    /// The request that `input` is was planned so.
    fn planned(&mut self, service: &Service<'_, P>, route: &Route<P::Merge>, input: &[u8]);
    /// This has come of it.
    fn followed(&mut self, service: &Service<'_, P>, next: Next);
}

/// Nobody does.
pub struct Nobody;

impl<P: Protocol> Looks<P> for Nobody {
    #[inline(always)]
    fn planned(&mut self, _: &Service<'_, P>, _: &Route<P::Merge>, _: &[u8]) {}

    #[inline(always)]
    fn followed(&mut self, _: &Service<'_, P>, _: Next) {}
}

/// They go into a book.
struct Books<'s> {
    /// None where nothing is looked at after all.
    book: Option<MutexGuard<'s, Book>>,
    /// They count: the pass was drawn by lot.
    counts: bool,
    /// The number that the request at hand has, if it is sent.
    number: u32,
}

impl<P: Protocol> Looks<P> for Books<'_> {
    fn planned(&mut self, service: &Service<'_, P>, route: &Route<P::Merge>, input: &[u8]) {
        if let Some(book) = &mut self.book {
            self.number = service.activity.replies.next_number();
            service.note(book, keys_of(route, service.plan.keys.len()), input);
        }
    }

    fn followed(&mut self, service: &Service<'_, P>, next: Next) {
        if let Some(book) = &mut self.book
            && next != Next::Same
        {
            book.taken(place(service.id), self.number, self.counts, service.now);
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
        let mut books = Books { book, counts, number: 0 };
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

    /// A large request goes to a shard in one piece.
    #[cold]
    #[inline(never)]
    pub(super) fn note_large(&self, input: &[u8]) {
        let Self { context, .. } = self;
        if context.limits.hot_keys_sample > 0
            && let Some(mut book) = context.hot.try_open(context.own_mailbox())
        {
            self.note(&mut book, self.plan.keys.len(), input);
            book.taken(place(self.id), self.activity.replies.next_number(), false, self.now);
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

/// A client, as a book knows it.
pub fn place(client: ClientId) -> u64 {
    u64::from(client.index) << 32 | u64::from(client.generation)
}
