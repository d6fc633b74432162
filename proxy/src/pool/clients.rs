//! The book of clients: who is connected, and whom the pool or the worker has to look at.
//!
//! An idle client has nothing but its place in the table. What one with something going on needs comes from those that have
//! become idle.

use std::collections::VecDeque;

use bytes::Bytes;

use super::client::{Activity, Client, State};
use super::heavy::Weight;
use super::rerun::Doubt;
use crate::buffer::Piece;
use crate::protocol::Protocol;
use crate::table::Table;
use crate::time::Time;

pub use super::client::ClientId;

/// Activities kept for the next clients that need one.
const SPARE_ACTIVITIES_MAX: usize = 128;

/// The clients of a pool.
pub(super) struct Clients<P: Protocol> {
    pub table: Table<Client<P>>,
    /// Places in it that somebody had, who left last at the end.
    vacant: Vec<u32>,
    next_number: u64,
    number_step: u64,
    next_generation: u32,
    pub spare_activities: SpareActivities<P>,
    /// What clients are to be told in the stead of others: the numbers of both, and what.
    pub forwarded: Vec<(u64, u64, Bytes)>,
    /// Those that the worker has to look at.
    pub dirty: Dirty,
    /// Those whose unread requests may go on.
    resumable: VecDeque<ClientId>,
    /// Those that wait for their turn.
    pub next_turn: Line,
    /// Those that did not take all of their replies the last time.
    blocked: Vec<ClientId>,
}

/// Clients that the worker has to look at, by their places, one entry each.
#[derive(Default)]
pub(super) struct Dirty(Vec<u32>);

impl Dirty {
    /// The client at this place is one of them.
    #[inline]
    pub fn mark<P: Protocol>(&mut self, client: &mut Client<P>, index: u32) {
        if !std::mem::replace(&mut client.dirty, true) {
            self.0.push(index);
        }
    }
}

/// Clients that wait for their turn, who waits longest first, one entry each.
#[derive(Default)]
pub(super) struct Line(VecDeque<ClientId>);

impl Line {
    /// The client stands at its end, unless it has its place already.
    pub fn join<P: Protocol>(&mut self, activity: &mut Activity<P>, id: ClientId) {
        if !std::mem::replace(&mut activity.in_line, true) {
            self.0.push_back(id);
        }
    }

    /// How many stand in it; some may not wait any more.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Nobody does.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Activities that nobody has.
pub(super) struct SpareActivities<P: Protocol>(Vec<Box<Activity<P>>>);

impl<P: Protocol> SpareActivities<P> {
    /// One for the client, if it has none.
    pub fn give<'c>(&mut self, client: &'c mut Client<P>) -> &'c mut Activity<P> {
        let usual_reply = client.usual_reply;
        client.activity.get_or_insert_with(|| {
            let mut activity = self.0.pop().unwrap_or_default();
            activity.replies.expect(usual_reply);
            activity
        })
    }

    /// Takes back that of a client that has become idle.
    pub fn take_back(&mut self, client: &mut Client<P>) {
        let Some(mut activity) = client.activity.take() else { return };
        client.usual_reply = activity.recycle();
        if self.0.len() < SPARE_ACTIVITIES_MAX {
            self.0.push(activity);
        }
    }
}

impl<P: Protocol> Clients<P> {
    /// Nobody yet; they are numbered from `first` in steps of `step`.
    pub fn new(first: u64, step: u64) -> Self {
        Self {
            table: Table::default(),
            vacant: Vec::new(),
            next_number: first,
            number_step: step,
            next_generation: 0,
            spare_activities: SpareActivities(Vec::new()),
            forwarded: Vec::new(),
            dirty: Dirty::default(),
            resumable: VecDeque::new(),
            next_turn: Line::default(),
            blocked: Vec::new(),
        }
    }

    /// The client, if it is still connected.
    #[inline]
    pub fn get(&self, id: ClientId) -> Option<&Client<P>> {
        self.table.get(id.index as usize).filter(|client| client.generation == id.generation)
    }

    /// The client, if it is still connected.
    #[inline]
    pub fn get_mut(&mut self, id: ClientId) -> Option<&mut Client<P>> {
        find(&mut self.table, id)
    }

    /// The same, for a change that the worker has to look at.
    #[inline]
    pub fn touch(&mut self, id: ClientId) -> Option<&mut Client<P>> {
        let Self { table, dirty, .. } = self;
        let client = find(table, id)?;
        dirty.mark(client, id.index);
        Some(client)
    }

    /// The client that waits for the answer to this question to a shard, which scripts that knows, is told what that has said before.
    pub fn answer_doubt(&mut self, id: ClientId, question: u32) {
        let Some(activity) = self.touch(id).and_then(|client| client.activity.as_mut()) else { return };
        let Some(named) = &mut activity.named else { return };
        if let Some(Doubt { ticket, reply, .. }) = named.doubt.take_if(|doubt| doubt.question == question)
            && activity.replies.is_newest(ticket.number)
        {
            activity.replies.answer(ticket.number, ticket.fragment, Piece::Copied(&reply), true);
        }
    }

    /// What the client has going on, if it is still connected and has something.
    #[inline]
    pub fn activity(&self, id: ClientId) -> Option<&Activity<P>> {
        self.get(id)?.activity.as_deref()
    }

    /// What the client has going on, if it is still connected and has something.
    #[inline]
    pub fn activity_mut(&mut self, id: ClientId) -> Option<&mut Activity<P>> {
        self.get_mut(id)?.activity.as_deref_mut()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (ClientId, &Client<P>)> {
        let id = |index: usize, generation| ClientId { index: index as u32, generation };
        self.table.iter().map(move |(index, client)| (id(index, client.generation), client))
    }

    /// One more.
    pub fn add(&mut self, session: P::Session, lane: u32, now: Time) -> ClientId {
        self.next_generation = self.next_generation.wrapping_add(1);
        let (generation, id) = (self.next_generation, self.next_number);
        self.next_number += self.number_step;
        let index = self.vacant.pop().unwrap_or(self.table.places() as u32);
        let client = Client {
            generation,
            id,
            session,
            lane,
            state: State::Open,
            dirty: false,
            usual_reply: 0,
            weight: Weight::default(),
            connected: now,
            active: now,
            activity: None,
        };
        self.table.put(index as usize, client);
        ClientId { index, generation }
    }

    /// One less, which has to be there.
    pub fn remove(&mut self, id: ClientId) -> Client<P> {
        let client = self.table.take(id.index as usize).expect("it is connected");
        self.vacant.push(id.index);
        if self.table.is_empty() {
            (self.table, self.vacant) = Default::default();
        }
        client
    }

    /// Those that the worker has to look at since the last call.
    pub fn take_dirty(&mut self, into: &mut Vec<ClientId>) {
        for index in self.dirty.0.drain(..) {
            if let Some(client) = self.table.get_mut(index as usize)
                && std::mem::take(&mut client.dirty)
            {
                into.push(ClientId { index, generation: client.generation });
            }
        }
    }

    /// The requests of the client that are not taken yet may go on.
    pub fn resume(&mut self, id: ClientId) {
        self.resumable.push_back(id);
    }

    /// The same for several.
    pub fn resume_all(&mut self, ids: impl IntoIterator<Item = ClientId>) {
        self.resumable.extend(ids);
    }

    /// One that may go on.
    pub fn take_resumable(&mut self) -> Option<ClientId> {
        self.resumable.pop_front()
    }

    /// Whether somebody has to be looked at in this pass.
    pub fn has_work(&self) -> bool {
        !self.dirty.0.is_empty() || !self.resumable.is_empty() || !self.forwarded.is_empty()
    }

    /// The first that waits for its turn has it; none if that one does not wait any more.
    pub fn take_turn(&mut self) -> Option<ClientId> {
        let id = self.next_turn.0.pop_front()?;
        std::mem::take(&mut self.activity_mut(id)?.in_line).then_some(id)
    }

    /// Not everything could be written to the client, or with `some` false nothing at all.
    pub fn block(&mut self, id: ClientId, some: bool, now: Time) {
        let Some(activity) = self.activity_mut(id) else { return };
        let is_known = activity.blocked.is_some();
        if some || !is_known {
            activity.blocked = Some(now);
        }
        if some {
            activity.told = false;
        }
        if !is_known {
            self.blocked.push(id);
        }
    }

    /// Where not everything could be written to the client before, some of it was since.
    pub fn takes(&mut self, id: ClientId, now: Time) {
        if let Some(activity) = self.activity_mut(id)
            && activity.blocked.is_some()
        {
            activity.blocked = Some(now);
            activity.told = false;
        }
    }

    /// Whether there are some that did not take all of their replies.
    pub fn has_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Those, once each.
    pub fn take_blocked(&mut self) -> Vec<ClientId> {
        let mut blocked = std::mem::take(&mut self.blocked);
        blocked.sort_unstable_by_key(|id| (id.index, id.generation));
        blocked.dedup();
        blocked
    }

    /// These have not taken them since.
    pub fn keep_blocked(&mut self, blocked: Vec<ClientId>) {
        self.blocked = blocked;
    }
}

/// The client, if it is still connected.
#[inline]
pub(super) fn find<P: Protocol>(table: &mut Table<Client<P>>, id: ClientId) -> Option<&mut Client<P>> {
    table.get_mut(id.index as usize).filter(|client| client.generation == id.generation)
}
