//! From bytes of a client to requests in the queues of shards.

use bytes::BytesMut;

use super::Pool;
use super::client::{Client, Pause, Stall};
use super::clients::{ClientId, Clients, find};
use super::connections::ConnectionId;
use super::router::Turn;
use super::service::Service;
use super::service::look::Nobody;
use crate::protocol::Protocol;
use crate::time::Time;

impl<P: Protocol> Pool<P> {
    /// Goes on with clients that had to wait, those first that wait for their turn. Once in a pass. `scratch` is empty before
    /// and after.
    pub fn resume(&mut self, scratch: &mut BytesMut, now: Time) {
        self.pass.turns(self.context.limits.pass_work_max, now);
        self.tell_late();
        // Those that come to wait for another turn meanwhile have theirs in the next pass.
        for _ in 0..self.clients.next_turn.len() {
            if self.pass.turn() == 0 {
                break;
            }
            if let Some(id) = self.clients.take_turn() {
                self.go_on(id, scratch, now);
            }
        }
        self.resume_others(scratch, now);
    }

    /// The same, in the same pass, but for those that wait for their turn.
    pub fn resume_others(&mut self, scratch: &mut BytesMut, now: Time) {
        self.relieve();
        self.tidy_channels(scratch, now);
        while let Some(connection) = self.router.connections.take_roomy() {
            self.resume_waiting(connection, scratch, now);
        }
        while let Some(id) = self.clients.take_resumable() {
            self.go_on(id, scratch, now);
        }
        self.tidy_wide(now);
        self.tidy_confirmations(now);
        self.count_transfers();
        self.tidy_broadcasts(now);
        self.forward(now);
        self.tell_monitors(now);
        self.count_caches();
    }

    fn go_on(&mut self, id: ClientId, scratch: &mut BytesMut, now: Time) {
        let stalled = self.clients.activity(id).and_then(|activity| activity.stalled);
        if let Some(Stall { since, at }) = stalled {
            // It may stand in that line still; it will find its place again.
            self.router.stop_waiting(at, id, since);
        }
        self.resume_client(id, scratch, now);
    }

    /// There is room in the queue of the connection: those that wait for it share it, who waits longest first. One that
    /// wants more than its share waits anew, behind the others.
    fn resume_waiting(&mut self, at: ConnectionId, scratch: &mut BytesMut, now: Time) {
        while let Some(connection) = self.router.connections.get(at) {
            let waiting = connection.waiting.len();
            let Some(room) = connection.room(&self.context.limits) else { break };
            if waiting == 0 {
                break;
            }
            let share = (room / waiting).max(1);
            for _ in 0..waiting {
                let Some(connection) = self.router.connections.get_mut(at) else { break };
                if connection.room(&self.context.limits).is_none() {
                    break;
                }
                let Some(waiter) = connection.waiting.pop_front() else { break };
                self.router.turn.queue = Some((at, share));
                self.resume_client(waiter.client, scratch, now);
            }
        }
        self.router.turn = Turn::default();
    }

    fn resume_client(&mut self, id: ClientId, scratch: &mut BytesMut, now: Time) {
        let Clients { table, dirty, .. } = &mut self.clients;
        let Some(client) = find(table, id) else { return };
        let Some(activity) = client.activity.as_mut() else { return };
        if !activity.waits() {
            return;
        }
        if activity.paused == Some(Pause::UntilQuiet) && activity.replies.in_flight() > 0 {
            // Room in a queue is not what it waits for; its last reply brings it here again.
            return;
        }
        let arrived = activity.arrived.take().unwrap_or(now);
        dirty.mark(client, id.index);
        self.process_ahead(id, scratch, arrived, now);
    }

    /// Takes requests from what was read of the client, as many as it has a turn for.
    fn process_ahead(&mut self, id: ClientId, scratch: &mut BytesMut, arrived: Time, now: Time) {
        let Some(activity) = self.clients.activity_mut(id) else { return };
        activity.paused = None;
        activity.rest.take(scratch);
        activity.ahead.pop(scratch);
        self.process(id, scratch, arrived, now);
        if let Some(activity) = self.clients.activity_mut(id)
            && !activity.waits()
            && !activity.ahead.is_empty()
        {
            // The next block is for its next turn.
            activity.paused = Some(Pause::Turn);
        }
    }

    /// Takes requests from `scratch`, which was read at `arrived`, until it is used up or the client has to wait; keeps the
    /// rest.
    pub(super) fn process(&mut self, id: ClientId, scratch: &mut BytesMut, arrived: Time, now: Time) {
        let Self {
            context,
            clients,
            router,
            denials,
            wishes,
            channels,
            caches,
            wide,
            confirmations,
            share,
            plan,
            pass,
            ..
        } = self;
        let Clients { table, dirty, .. } = clients;
        let client = table.get_mut(id.index as usize).expect("it is connected");
        let session_bytes = P::session_bytes(&client.session);
        let Client { id: number, session, lane, weight, state, activity, .. } = client;
        let activity = activity.as_deref_mut().expect("a client that is read has an activity");
        router.turn.since = activity.stalled.map(|stall| stall.since);
        pass.read(context.limits.pass_work_max, now);
        // One that has had to wait for room is not made to wait for its turn as well.
        let turn = pass.turn().max(usize::from(activity.stalled.is_some()));
        let (is_drawn, is_looked_at) = (pass.is_drawn(), pass.is_looked_at());
        let (share_now, number, received) = (&*share, *number, scratch.len());
        let mut service = Service {
            context,
            facts: context.facts(share_now, number, now),
            router,
            denials,
            wishes,
            channels,
            caches,
            wide,
            confirmations,
            share: share_now,
            plan,
            id,
            number,
            session,
            lane,
            weight,
            state,
            activity,
            arrived,
            now,
            received,
            used: 0,
            shared: false,
            done: 0,
            turn,
        };
        // One branch for both, so that most pass one only.
        if service.weight.is_light() & !is_looked_at {
            service.serve(scratch, &mut Nobody);
        } else if service.weight.is_light() || service.weigh() {
            service.serve_looked_at(scratch, is_drawn);
        }
        service.keep(scratch);
        pass.done(service.done);
        share.change(session_bytes, P::session_bytes(&client.session));
        dirty.mark(client, id.index);
    }
}
