//! The core: requests from clients to shards, responses back in order.
//!
//! A [`Pool`] is what one worker does for one listener. Bytes and the time come in; bytes, deadlines and wishes
//! (connect, close, ask) go out. It does no I/O, reads no clock and calls nobody back, so a simulation can drive it
//! through any order of events.
//!
//! Its methods are of four kinds, and a pass of the worker calls them in this order:
//!
//! 1. **What has happened**: [`Pool::client_connected`], [`Pool::client_received`], [`Pool::client_ended`],
//!    [`Pool::client_gone`]; [`Pool::shard_connected`], [`Pool::shard_received`], [`Pool::shard_closed`]; what the control
//!    thread has decided: [`Pool::set_topology`], [`Pool::reconfigure`], [`Pool::renew`], [`Pool::answer_question`]. Around each
//!    read: `before_client_read` gives back what is left of an unfinished message and makes room, and whoever has read nothing
//!    says so by `keep_client_rest` (the same for shards).
//! 2. **Time**: [`Pool::tick`] once [`Pool::next_deadline`] has passed; sweeps once a second where `has_blocked` and the like ask
//!    for them.
//! 3. **Wishes** ([`Wish`]): [`Pool::take_wishes`] says what the worker is to do for the pool, in order; [`Pool::resume`] goes on
//!    with clients that have waited, and may wish for more.
//! 4. **Bytes to write**: `take_dirty_shards` and `take_dirty_clients` name the connections, `shard_output` and `client_output`
//!    have the bytes, and after each write `settle_shard` or [`Pool::settle_client`], whose [`Verdict`] says what becomes of
//!    the client. Where [`Pool::has_more`] is true then, 3 and 4 are repeated, with [`Pool::resume_others`].
//!
//! [`settle`] does 3 and 4 in their order; the worker and tests give it a [`Shell`].
//!
//! One concern, one file: [`replies`] keeps the order of one client's replies, `connection` the queue of one shard connection,
//! [`crate::buffer`] the bytes; `clients` is the book of clients, `connections` and `members` are those of what there is of
//! shards, `router` knows which of them a request takes, and `wishes` what the worker is to do.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use shard_discovery::Topology;

use crate::account::{Account, Share};
use crate::buffer::{Output, READ_SIZE};
use crate::denied::DeniedLog;
use crate::failure::{Blame, ShardFailure};
use crate::hot::HotKeys;
use crate::mailboxes::Mailboxes;
use crate::metrics::Counters;
use crate::monitor::Monitors;
use crate::protocol::store::Store;
use crate::protocol::{DecodeRequests, Plan, Protocol};
use crate::scripts::Scripts;
use crate::slow::SlowLog;
use crate::time::Time;
use caches::Caches;
use channels::Channels;
use client::{Activity, Pause, Stall, State};
use clients::{Clients, find};
use confirming::Confirmations;
use connection::Link;
use context::Context;
use denials::Denials;
use pass::Pass;
use policy::Policy;
use redirect::Redirects;
use router::Router;
use wide::WideWaits;
use wishes::Wishes;

pub use clients::ClientId;
pub use connections::ConnectionId;
pub use context::Identity;
pub use limits::{Limits, NEVER_SLOW, PARKED_BYTES_MAX};
pub use listing::AskedQuestion;
pub use monitoring::Seen;
pub use noted::Noted;
pub use parting::Parting;
pub use pass::PASS_WORK_MAX;
pub use wishes::{Notice, Shell, Wish, settle};

mod attempts;
mod block;
mod broadcasts;
mod caches;
mod caching;
mod channels;
pub mod client;
mod clients;
mod confirming;
mod connection;
mod connections;
mod context;
mod deadlines;
mod delivery;
mod denials;
mod feed;
mod feeds;
mod forwarding;
mod handshake;
mod heavy;
mod intake;
mod joining;
mod lanes;
mod lending;
mod limits;
mod listening;
mod listing;
mod members;
mod merging;
mod monitoring;
mod moving;
mod noted;
mod pace;
mod parked;
mod parting;
mod pass;
mod pins;
mod policy;
mod private;
mod redirect;
mod relief;
pub mod replies;
mod requests;
mod rerun;
mod responses;
mod revoked;
mod router;
mod service;
mod spare;
mod split;
mod subscriptions;
mod telling;
mod ticket;
mod tracker;
mod trackers;
mod transferring;
mod transfers;
mod waiting;
mod wandering;
mod watch;
mod watching;
mod wide;
mod wishes;

/// What the worker has to do about a client after it was written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Read it when it has something to say.
    Read,
    /// Leave it unread for now.
    Wait,
    /// Shut down the writing side, read until it closes.
    Finish,
    /// Close it.
    Close,
}

/// What became of a shard, for whoever decides whether it is fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardEvent {
    /// Name of the shard.
    pub shard: Arc<str>,
    /// The failure, or `None` for the first success after failures.
    pub failure: Option<Failed>,
}

/// A failure that somebody has to judge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// What it was.
    pub failure: ShardFailure,
    /// Whose fault.
    pub blame: Blame,
    /// When what has failed was begun.
    pub began: Time,
    /// When it was noticed.
    pub at: Time,
}

/// One listener's clients and shards on one worker.
pub struct Pool<P: Protocol> {
    context: Context<P>,
    clients: Clients<P>,
    router: Router<P>,
    redirects: Redirects<P>,
    channels: Channels,
    caches: Caches,
    wide: WideWaits,
    confirmations: Confirmations,
    denials: Denials,
    noted: noted::NotedRequests,
    /// What the pass may still serve.
    pass: Pass,
    /// What is held for all clients and shards.
    share: Share,
    /// What their transports hold, where it was wished to know.
    transports: Option<HashMap<ClientId, usize>>,
    /// Of the request at hand.
    plan: Plan<P>,
    wishes: Wishes,
}

impl<P: Protocol> Pool<P> {
    /// A pool without clients, connected to nothing.
    pub fn new(
        identity: Identity,
        settings: P::Settings,
        limits: Limits,
        topology: Arc<Topology>,
        counters: Counters,
    ) -> Self {
        let (per_shard, memory_max) = (limits.server_connections, limits.memory_max);
        let policy = Policy::shared(limits.timeout);
        let (seed, sample) = (identity.seed, limits.hot_keys_sample);
        let router = Router::new(topology, counters.shards(), per_shard, policy, identity.seed);
        let account = Account::new(memory_max);
        let scripts = Arc::new(Scripts::new(&account));
        let slow = Arc::new(SlowLog::new(&account));
        let mailboxes = Arc::new(Mailboxes::new(identity.client_id_step as usize, &account));
        let hot = Arc::new(HotKeys::new(identity.client_id_step as usize, &account));
        let monitors = Arc::new(Monitors::new(&account));
        let mut pool = Self {
            clients: Clients::new(identity.client_id_first, identity.client_id_step),
            context: Context {
                identity,
                settings,
                limits,
                counters,
                store: Arc::default(),
                scripts,
                slow,
                denied: Arc::default(),
                mailboxes,
                hot,
                monitors: monitors.clone(),
            },
            router,
            redirects: Redirects::default(),
            channels: Channels::default(),
            caches: Caches::default(),
            wide: WideWaits::default(),
            confirmations: Confirmations::default(),
            denials: Denials::default(),
            noted: noted::NotedRequests::default(),
            pass: Pass::new(seed, monitors),
            share: Share::new(&account, 0),
            transports: None,
            plan: Plan::default(),
            wishes: Wishes::default(),
        };
        let first = P::lane(&P::session(&pool.context.settings));
        pool.router.connections.set_usual_lane(first, &pool.router.members);
        pool.context.counters.lanes.set(1);
        pool.router.set_roles(Time::default());
        pool.sample(sample);
        pool
    }

    /// What it holds counts in the account of the process, as what this worker holds. Before the first client.
    pub fn share_account(&mut self, account: &Arc<Account>, worker: usize) {
        self.share = Share::new(account, worker);
    }

    /// The scripts that are known to all workers of the pool.
    pub fn share_scripts(&mut self, scripts: Arc<Scripts>) {
        self.context.scripts = scripts;
    }

    /// What was slow on any worker of the pool.
    pub fn share_slow_log(&mut self, slow: Arc<SlowLog>) {
        self.context.slow = slow;
    }

    /// What was denied on any worker of the pool.
    pub fn share_denied_log(&mut self, denied: Arc<DeniedLog>) {
        self.context.denied = denied;
    }

    /// Where workers of the pool tell each other of what their clients are to be told.
    pub fn share_mailboxes(&mut self, mailboxes: Arc<Mailboxes>) {
        self.context.mailboxes = mailboxes;
    }

    /// Where it writes down which keys are hot, among all workers of the pool.
    pub fn share_hot_keys(&mut self, hot: Arc<HotKeys>) {
        self.context.hot = hot;
        self.sample(self.context.limits.hot_keys_sample);
    }

    /// Who watches the requests of its clients, whichever worker has them.
    pub fn share_monitors(&mut self, monitors: Arc<Monitors>) {
        self.pass.set_monitors(monitors.clone());
        self.context.monitors = monitors;
    }

    /// Who watches.
    pub fn monitors(&self) -> &Monitors {
        &self.context.monitors
    }

    /// One pass in so many is looked at for that.
    fn sample(&mut self, sample: u32) {
        self.pass.set_sample(sample);
        self.context.hot.set_sample(self.context.own_mailbox(), sample);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.context.identity.name
    }

    /// What is known of the shards taken together.
    pub fn set_store(&mut self, store: Arc<Store>) {
        self.context.store = store;
    }

    /// What the system's clock says: microseconds from 1970 to the worker's start.
    pub fn set_clock(&mut self, unix_start: u64) {
        self.context.identity.unix_start = unix_start;
    }

    /// What is counted of it.
    #[inline]
    pub fn counters(&self) -> &Counters {
        &self.context.counters
    }

    /// Connects to every shard before the first request needs it.
    pub fn preconnect(&mut self) {
        let Router { connections, members, .. } = &mut self.router;
        for id in
            members.present().iter().flat_map(|&member| connections.usual_of(member)).collect::<Vec<_>>()
        {
            if matches!(connections[id].link, Link::Idle) {
                connections.connect(id);
            }
        }
    }

    /// The same shards, but other owners: one was ejected or restored, or slots have moved.
    pub fn set_topology(&mut self, topology: Arc<Topology>, now: Time) {
        debug_assert_eq!(topology.shards(), self.router.topology.shards());
        if topology.redirects() {
            self.pause_until_quiet();
        }
        self.router.topology = topology;
        self.router.set_roles(now);
        self.rehome(now);
        self.rehome_wide(now);
        self.rehome_caches();
        self.rehome_broadcasts();
        self.unpark(now, true);
        self.watch_abandoned(now);
        self.move_waits(now);
    }

    /// Other settings, limits and shards from now on. Shards that stay where they are keep their connections; those
    /// that are gone finish what is in flight. `counters` are of the same pool.
    pub fn reconfigure(
        &mut self,
        settings: P::Settings,
        limits: Limits,
        topology: Arc<Topology>,
        counters: Counters,
        now: Time,
    ) {
        if limits.server_connections != self.context.limits.server_connections || topology.redirects() {
            self.pause_until_quiet();
        }
        let policy = Policy::shared(limits.timeout);
        let waiting = self.router.adopt(topology, counters.shards(), limits.server_connections, policy);
        self.router.set_roles(now);
        self.clients.resume_all(waiting);
        if limits.privacy != self.context.limits.privacy {
            // What was noted before is in clear, or not as it is wanted now.
            self.noted.open.clear();
            self.context.slow.reset();
        }
        self.close_revoked(&settings, now);
        if !P::may_monitor(&settings) {
            self.close_monitors();
        }
        self.context.settings = settings;
        self.share.account().set_max(limits.memory_max);
        self.context.slow.shorten(limits.slow_log_max);
        self.wishes.samples.renew(&self.context.limits, &limits);
        self.context.limits = limits;
        self.context.counters = counters;
        self.sample(self.context.limits.hot_keys_sample);
        self.rehome(now);
        self.rehome_wide(now);
        self.rehome_caches();
        self.rehome_broadcasts();
        let Router { connections, members, .. } = &mut self.router;
        connections.set_usual_lane(P::lane(&P::session(&self.context.settings)), members);
        self.context.counters.lanes.set(connections.lane_count() as i64);
        // Those that wait for room may have waited long enough by now, or may find more room.
        self.router.wait_deadline = connections.wake_all().then_some(now);
        self.unpark(now, true);
        self.watch_abandoned(now);
        self.move_waits(now);
    }

    /// The shard with this name has answered somebody: its last failure is past.
    pub fn recovered(&mut self, name: &str) {
        self.router.members.recovered(name);
    }

    /// The shard with this name is found elsewhere: requests go there from now on, what is in flight is finished where it
    /// was.
    pub fn renew(&mut self, name: &str, now: Time) {
        self.pause_until_quiet();
        let waiting = self.router.renew(name);
        self.clients.resume_all(waiting);
        self.rehome(now);
        self.rehome_wide(now);
        self.rehome_caches();
        self.rehome_broadcasts();
        self.move_waits(now);
    }

    /// Clients change connections: what they have in flight comes first, or the next could overtake it.
    fn pause_until_quiet(&mut self) {
        for (_, client) in self.clients.table.iter_mut() {
            if let Some(activity) = client.activity.as_mut()
                && activity.replies.in_flight() > 0
            {
                activity.paused = Some(Pause::UntilQuiet);
            }
        }
    }

    // --- clients ------------------------------------------------------------------------------------------------

    /// A client has connected.
    pub fn client_connected(&mut self, now: Time) -> ClientId {
        let session = P::session(&self.context.settings);
        let lane = self.router.connections.client_connected();
        self.context.counters.client_connections.add(1);
        self.context.counters.client_connections_total.add(1);
        self.clients.add(session, lane, now)
    }

    /// Number of clients connected.
    pub fn client_count(&self) -> usize {
        self.clients.table.len()
    }

    /// Whether the client's socket should be read.
    #[inline]
    pub fn wants_read(&self, client: ClientId) -> bool {
        let is_read =
            |activity: &Activity<P>| !activity.waits() || activity.reads_ahead(&self.context.limits);
        self.clients.get(client).is_some_and(|client| {
            client.state == State::Open && client.activity.as_deref().is_none_or(is_read)
        })
    }

    /// Puts what is left of earlier reads into `scratch`, with room for the next read behind it.
    #[inline]
    pub fn before_client_read(&mut self, client: ClientId, scratch: &mut BytesMut) {
        match self.clients.activity_mut(client) {
            // What comes stays behind what waits.
            Some(activity) if activity.waits() => scratch.reserve(READ_SIZE),
            Some(activity) => {
                let missing = activity.decoder.missing(activity.rest.len());
                activity.rest.restore(scratch, missing);
            }
            None => scratch.reserve(READ_SIZE),
        }
    }

    /// Nothing has come after all: takes back what [`Self::before_client_read`] put into `scratch`.
    pub fn keep_client_rest(&mut self, client: ClientId, scratch: &mut BytesMut) {
        match self.clients.activity_mut(client) {
            Some(activity) if !activity.waits() => activity.rest.keep(scratch, 0),
            _ => scratch.clear(),
        }
    }

    /// Bytes have come from the client: they are at the end of `scratch`, which began with the rest of earlier ones.
    /// Leaves `scratch` empty.
    pub fn client_received(&mut self, client: ClientId, scratch: &mut BytesMut, now: Time) {
        self.client_received_late(client, scratch, now, now);
    }

    /// The same, where the bytes have been there since `arrived`: the client was not to be read before.
    pub fn client_received_late(
        &mut self,
        client: ClientId,
        scratch: &mut BytesMut,
        arrived: Time,
        now: Time,
    ) {
        let Clients { table, spare_activities, dirty, .. } = &mut self.clients;
        let Some(found) = find(table, client) else { return scratch.clear() };
        found.active = now;
        let activity = spare_activities.give(found);
        if activity.waits() {
            activity.ahead.push(scratch);
            scratch.clear();
            return dirty.mark(found, client.index);
        }
        self.process(client, scratch, arrived, now);
    }

    /// The client's connection is gone, `broken` if not in good order. Responses still to come find nobody.
    pub fn client_gone(&mut self, id: ClientId, broken: bool, now: Time) {
        let Some(client) = self.clients.get(id) else { return };
        match client.state {
            State::Open | State::Ended if broken => self.context.counters.client_err.add(1),
            State::Open | State::Ended => self.context.counters.client_eof.add(1),
            // Counted when that was decided.
            State::Finishing | State::Broken => {}
        }
        self.forget_channels(id);
        self.forget_caching(id);
        self.drop_wide(id);
        self.take_parked(id);
        let mut client = self.clients.remove(id);
        if self.context.monitors.is_active() {
            self.context.monitors.leave_client(client.id);
        }
        self.caches.forwarding.forget(client.id);
        if let Some(at) = self.router.connections.unpin(&mut client.lane) {
            self.router.abandon_watch(at, now);
        }
        self.context.counters.client_connections.add(-1);
        self.share.change(P::session_bytes(&client.session), 0);
        self.router.connections.client_gone(client.lane);
        if let Some(activity) = client.activity {
            if let Some(Stall { since, at }) = activity.stalled {
                self.router.stop_waiting(at, id, since);
            }
            self.share.change(activity.counted, 0);
            if let Some(at) = activity.private {
                self.router.abandon_private(at);
            }
        }
    }

    /// Bytes waiting to be written to the client, if any.
    #[inline]
    pub fn client_output(&mut self, client: ClientId) -> Option<&mut Output> {
        self.clients.activity_mut(client).map(|activity| &mut activity.replies.output)
    }

    /// What is to be done about a client now that as much as possible was written to it.
    pub fn settle_client(&mut self, id: ClientId) -> Verdict {
        let limits = &self.context.limits;
        let Clients { table, spare_activities, next_turn, .. } = &mut self.clients;
        let Some(client) = table.get_mut(id.index as usize) else { return Verdict::Close };
        if client.generation != id.generation || client.state == State::Broken {
            return Verdict::Close;
        }
        let Some(activity) = client.activity.as_mut() else {
            return match client.state {
                State::Open => Verdict::Read,
                State::Ended => Verdict::Close,
                State::Finishing | State::Broken => Verdict::Finish,
            };
        };
        // What would go unread beyond that may have the client's end behind it.
        let is_overlong = activity.waits_for_data() && activity.bytes() >= limits.client_output_max;
        if is_overlong || activity.replies.bytes() > limits.client_output_max {
            self.context.counters.client_output_exceeded.add(1);
            client.state = State::Broken;
            return Verdict::Close;
        }
        let bytes = activity.bytes();
        self.share.change(std::mem::replace(&mut activity.counted, bytes), bytes);
        let waits = activity.waits();
        let resumes = match activity.paused {
            None | Some(Pause::Delayed) => false,
            Some(Pause::Full) => activity.may_submit(limits, 2),
            Some(Pause::Turn) => true,
            Some(Pause::UntilQuiet) => activity.replies.in_flight() == 0,
        };
        if resumes {
            next_turn.join(activity, id);
        }
        if !activity.replies.output.is_sent() {
            activity.arrived = None;
        }
        let answered = activity.replies.in_flight() == 0 && activity.replies.output.is_sent() && !waits;
        match client.state {
            State::Ended if answered => return Verdict::Close,
            State::Finishing if answered => return Verdict::Finish,
            _ => {}
        }
        if activity.replies.output.is_sent() {
            activity.sent = 0;
            activity.blocked = None;
            activity.told = false;
        }
        let read = client.state == State::Open && (!activity.waits() || activity.reads_ahead(limits));
        if activity.is_idle() && !waits {
            self.share.change(std::mem::take(&mut activity.counted), 0);
            spare_activities.take_back(client);
        }
        if read { Verdict::Read } else { Verdict::Wait }
    }

    /// Clients to be written to, settled, and read again if they are to be.
    pub fn take_dirty_clients(&mut self, into: &mut Vec<ClientId>) {
        self.clients.take_dirty(into);
    }
}
