//! What holds a pool within bounds.

use std::time::Duration;

use super::pass::PASS_WORK_MAX;
use crate::privacy::Privacy;

/// No request takes so many microseconds.
pub const NEVER_SLOW: u64 = u64::MAX;

/// A failover makes many clients wait at once.
pub const PARKED_BYTES_MAX: usize = 8 << 20;

/// What holds a pool within bounds. All sizes in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a request may take, from the moment it is queued. `None`: as long as it likes.
    pub timeout: Option<Duration>,
    /// How long a request may wait for room in its shard's queue.
    pub queue_wait: Duration,
    /// Requests in flight of one client; beyond it the client is not read.
    pub in_flight_max: usize,
    /// Largest request.
    pub request_bytes_max: u64,
    /// Replies waiting for one client; beyond it the client is closed.
    pub client_output_max: usize,
    /// Replies waiting for one client beyond what it has sent meanwhile; then its further requests have to wait.
    pub client_output_pause: usize,
    /// Requests and replies of this size are large: their clients use other shard connections than the rest.
    pub large_value_min: usize,
    /// Requests in flight and queued on one shard connection.
    pub shard_queue_max: usize,
    /// Bytes of requests queued and in flight on one shard connection: what is written and not answered stands in buffers of
    /// the kernel, of tens of megabytes, and is in the way of the next request all the same.
    pub shard_queue_bytes_max: u64,
    /// Bytes of requests that wait because nodes of a cluster have not executed them, as [`PARKED_BYTES_MAX`].
    pub parked_bytes_max: usize,
    /// Clients that have a connection to one shard to themselves, in the whole process.
    pub blocked_max: usize,
    /// Arguments of a request.
    pub arguments_max: usize,
    /// Bytes that may wait for a client that listens to channels; beyond it the client is closed.
    pub subscriber_output_max: usize,
    /// The same, where so many wait for `subscriber_output_soft_time`.
    pub subscriber_output_soft_max: usize,
    /// How long.
    pub subscriber_output_soft_time: Duration,
    /// Clients are closed that may have missed messages.
    pub closes_on_gap: bool,
    /// Names that one client may listen to.
    pub subscriptions_max: usize,
    /// A name is listened to on all shards, and not only on its owner.
    pub listens_everywhere: bool,
    /// A transaction may have keys on several shards: each executes its part.
    pub per_shard_transactions: bool,
    /// The value of a key may be brought to a key of another shard, in several steps.
    pub renames_across_shards: bool,
    /// Bytes that all pools may hold together for clients and shards; beyond it the largest client is closed.
    pub memory_max: usize,
    /// Work done in a pass, as [`super::PASS_WORK_MAX`].
    pub pass_work_max: usize,
    /// Connections to each shard.
    pub server_connections: usize,
    /// Failed attempts to connect that are not followed by a pause.
    pub eager_connects: u32,
    /// A client that sends nothing for so long is closed.
    pub client_idle_timeout: Option<Duration>,
    /// A client whose request stays unfinished for so long is closed.
    pub client_request_timeout: Option<Duration>,
    /// A client is closed between two requests at about this age.
    pub client_age_max: Option<Duration>,
    /// Requests that take so many microseconds are slow; none are where it is [`NEVER_SLOW`].
    pub slow_min: u64,
    /// Entries of the slow log.
    pub slow_log_max: usize,
    /// The access log has one request in so many; none where it is 0.
    pub access_sample: u64,
    /// Of one request in so many a trace is sent; of none where it is 0.
    pub trace_sample: u64,
    /// The same of all that take so many microseconds, or [`NEVER_SLOW`].
    pub trace_min: u64,
    /// The access log has all requests that are answered with an error.
    pub access_errors: bool,
    /// What is shown of keys where requests are told of.
    pub privacy: Privacy,
    /// One pass in so many is looked at for hot keys; 0: none.
    pub hot_keys_sample: u32,
}

impl Default for Limits {
    /// No deadline, one connection to each shard, and bounds that nobody reaches who does not mean to.
    fn default() -> Self {
        Self {
            timeout: None,
            queue_wait: Duration::from_secs(1),
            in_flight_max: 1024,
            request_bytes_max: 1 << 20,
            client_output_max: 1 << 30,
            client_output_pause: 4 << 20,
            blocked_max: 1000,
            arguments_max: 1 << 20,
            per_shard_transactions: false,
            renames_across_shards: false,
            large_value_min: 64 << 10,
            shard_queue_max: 65536,
            shard_queue_bytes_max: 2 << 20,
            parked_bytes_max: PARKED_BYTES_MAX,
            subscriber_output_max: 32 << 20,
            subscriber_output_soft_max: 8 << 20,
            subscriber_output_soft_time: Duration::from_secs(60),
            closes_on_gap: false,
            subscriptions_max: 10_000,
            listens_everywhere: true,
            memory_max: usize::MAX,
            pass_work_max: PASS_WORK_MAX,
            server_connections: 1,
            eager_connects: 0,
            client_idle_timeout: None,
            client_request_timeout: None,
            client_age_max: None,
            slow_min: NEVER_SLOW,
            slow_log_max: 128,
            access_sample: 0,
            access_errors: false,
            trace_sample: 0,
            trace_min: NEVER_SLOW,
            privacy: Privacy::Shown,
            hot_keys_sample: 0,
        }
    }
}

impl Limits {
    /// Larger messages no client can be handed.
    pub fn message_max(&self) -> usize {
        self.client_output_max.min(self.subscriber_output_max)
    }

    /// Whether somebody may want to know of a request what it was, once it is answered.
    #[inline]
    pub fn notes_requests(&self) -> bool {
        self.slow_min.min(self.trace_min) != NEVER_SLOW
            || self.access_errors
            || self.access_sample.max(self.trace_sample) > 0
    }

    /// Whether clients have to be looked after from time to time.
    pub fn watches_clients(&self) -> bool {
        self.client_idle_timeout.is_some()
            || self.client_request_timeout.is_some()
            || self.client_age_max.is_some()
    }
}
