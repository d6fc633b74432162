//! Why a shard could not serve a request, and whose fault that is. The same word is log text, reply and metric label.
//!
//! [`ShardFailure::blame`] is the one place that decides what counts against a shard. The rule: what a client, or our own
//! process, can cause is no failure of a shard. ARCHITECTURE.md has it as a table.

use std::fmt;

/// Why a shard could not serve a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ShardFailure {
    /// Nobody listens there.
    ConnectRefused,
    /// The connection was not made within `connect_timeout`.
    ConnectTimeout,
    /// The connection could not be made for another reason, in the words of the system.
    ConnectFailed(String),
    /// Our own process or machine has no descriptor, port or memory for it, in the words of the system.
    LocalResources(String),
    /// The shard's host name was not found.
    Unresolved(String),
    /// TLS could not be agreed on, or the shard could not prove who it is, or it has ended the session in words of TLS.
    TlsFailed(String),
    /// The shard refused our greeting (AUTH, HELLO, SELECT), in its words.
    HandshakeRefused(String),
    /// The response did not come within `timeout`.
    ResponseTimeout,
    /// The shard closed the connection.
    Closed,
    /// The connection broke.
    Reset,
    /// The shard sent bytes that are no response.
    Malformed(String),
    /// The shard's queue stayed full.
    QueueFull,
    /// The shard is not in the pool any more.
    Removed,
}

/// Where a connection stood when it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It was being made.
    Connecting,
    /// It was made, and who is there has not said yet that it is the shard.
    Identifying {
        /// As of [`Stage::Handshake`].
        is_default: bool,
    },
    /// It was made, and what we say first was not answered yet.
    Handshake {
        /// That is what the configuration says; else a client has chosen the database or protocol version.
        is_default: bool,
    },
    /// Nothing was asked on it.
    Idle,
    /// Requests of clients were on it.
    Serving {
        /// No byte has come since the request was queued.
        is_silent: bool,
        /// The shard may let the client of the oldest of them wait, and be well all the same.
        is_held_up: bool,
    },
}

/// Whose fault a failure is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blame {
    /// It counts against the shard.
    Shard,
    /// The shard's or that of a client's request: a probe of our own decides.
    Unknown,
    /// A client's, our own, or nobody's.
    Nobody,
}

impl ShardFailure {
    /// Whose fault it is.
    pub fn blame(&self, stage: Stage) -> Blame {
        match (self, stage) {
            (Self::LocalResources(_) | Self::QueueFull | Self::Removed, _) => Blame::Nobody,
            (
                Self::ConnectRefused | Self::ConnectTimeout | Self::ConnectFailed(_) | Self::Unresolved(_),
                _,
            ) => Blame::Shard,
            // A server may close what nobody uses.
            (_, Stage::Idle) => Blame::Nobody,
            // The password, the database or the protocol version that all clients begin with.
            (
                Self::HandshakeRefused(_),
                Stage::Handshake { is_default: true } | Stage::Identifying { is_default: true },
            ) => Blame::Shard,
            // What a client has chosen.
            (Self::HandshakeRefused(_), _) => Blame::Nobody,
            // Whoever makes the connection knows whether that takes too long, and so does who asks the shard who it is.
            (Self::ResponseTimeout, Stage::Connecting | Stage::Identifying { .. }) => Blame::Nobody,
            // It is busy with others' requests, or with a large response: that is no stall.
            (Self::ResponseTimeout, Stage::Serving { is_silent: false, .. }) => Blame::Nobody,
            // That it hangs looks the same from there.
            (Self::ResponseTimeout, Stage::Serving { is_held_up: true, .. }) => Blame::Unknown,
            (Self::ResponseTimeout, Stage::Handshake { .. } | Stage::Serving { .. }) => Blame::Shard,
            (
                Self::Closed | Self::Reset | Self::TlsFailed(_) | Self::Malformed(_),
                Stage::Handshake { is_default: true }
                | Stage::Identifying { is_default: true }
                | Stage::Connecting,
            ) => Blame::Shard,
            // Servers close the connection on requests beyond their limits, and answer some that are nearly right in ways
            // of their own.
            (
                Self::Closed | Self::Reset | Self::TlsFailed(_) | Self::Malformed(_),
                Stage::Handshake { is_default: false }
                | Stage::Identifying { is_default: false }
                | Stage::Serving { .. },
            ) => Blame::Unknown,
        }
    }

    /// The same of a server that has not said who it is: somebody else may have the address.
    pub fn unidentified(&self) -> Self {
        match self {
            Self::ResponseTimeout | Self::Closed | Self::Reset | Self::Malformed(_) => {
                Self::ConnectFailed(self.to_string())
            }
            _ => self.clone(),
        }
    }

    /// The failure and whose it is, as clients are told.
    pub fn of_shard(&self, name: &str) -> String {
        format!("shard {name}: {self}")
    }

    /// The names of all reasons, for metrics.
    pub const REASONS: [&str; 13] = [
        "connect_refused",
        "connect_timeout",
        "connect_failed",
        "unresolved",
        "handshake_refused",
        "response_timeout",
        "closed",
        "reset",
        "malformed",
        "queue_full",
        "removed",
        "local_resources",
        "tls_failed",
    ];

    /// Its place in [`Self::REASONS`].
    pub fn reason(&self) -> usize {
        match self {
            Self::ConnectRefused => 0,
            Self::ConnectTimeout => 1,
            Self::ConnectFailed(_) => 2,
            Self::Unresolved(_) => 3,
            Self::HandshakeRefused(_) => 4,
            Self::ResponseTimeout => 5,
            Self::Closed => 6,
            Self::Reset => 7,
            Self::Malformed(_) => 8,
            Self::QueueFull => 9,
            Self::Removed => 10,
            Self::LocalResources(_) => 11,
            Self::TlsFailed(_) => 12,
        }
    }

    /// Whether the next attempt to connect is likely to take long, so that requests should not wait for it.
    pub fn takes_time(&self) -> bool {
        !matches!(
            self,
            Self::ConnectRefused
                | Self::Closed
                | Self::Reset
                | Self::TlsFailed(_)
                | Self::HandshakeRefused(_)
                | Self::LocalResources(_)
        )
    }

    /// Whether attempts to connect may follow each other soon: where the peer's host answers at once, or the attempt has
    /// taken its time itself.
    pub fn is_cheap(&self) -> bool {
        !self.takes_time() || matches!(self, Self::ConnectTimeout | Self::ConnectFailed(_))
    }
}

impl fmt::Display for ShardFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectRefused => f.write_str("connection refused"),
            Self::ConnectTimeout => f.write_str("connect timed out"),
            Self::ConnectFailed(reason) => write!(f, "cannot connect: {reason}"),
            Self::LocalResources(reason) => write!(f, "the proxy is out of resources: {reason}"),
            Self::Unresolved(reason) => write!(f, "cannot resolve host: {reason}"),
            Self::TlsFailed(words) => write!(f, "TLS failed: {words}"),
            Self::HandshakeRefused(words) => write!(f, "handshake refused: {words}"),
            Self::ResponseTimeout => f.write_str("timed out"),
            Self::Closed => f.write_str("connection closed"),
            Self::Reset => f.write_str("connection reset"),
            Self::Malformed(reason) => write!(f, "malformed response: {reason}"),
            Self::QueueFull => f.write_str("queue full"),
            Self::Removed => f.write_str("removed from the pool"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Stage = Stage::Handshake { is_default: true };
    const CHOSEN: Stage = Stage::Handshake { is_default: false };
    const WHOEVER: Stage = Stage::Identifying { is_default: true };
    const WHOEVER_CHOSEN: Stage = Stage::Identifying { is_default: false };
    const SILENT: Stage = Stage::Serving { is_silent: true, is_held_up: false };
    const HELD_UP: Stage = Stage::Serving { is_silent: true, is_held_up: true };
    const BUSY: Stage = Stage::Serving { is_silent: false, is_held_up: true };

    #[test]
    fn what_the_process_lacks_is_no_failure_of_a_shard() {
        let failure = ShardFailure::LocalResources("Too many open files".into());
        assert!(!failure.takes_time(), "it is tried again soon");
        let serving = [SILENT, HELD_UP, BUSY];
        let before = [Stage::Connecting, WHOEVER, WHOEVER_CHOSEN, DEFAULT, CHOSEN, Stage::Idle];
        for stage in before.into_iter().chain(serving) {
            assert_eq!(failure.blame(stage), Blame::Nobody, "{stage:?}");
        }
    }

    /// Where a client has a say nothing counts by itself.
    #[test]
    fn what_a_client_can_cause_is_no_failure_of_a_shard() {
        let refused = || ShardFailure::HandshakeRefused("ERR DB index is out of range".into());
        let malformed = || ShardFailure::Malformed("unknown type".into());
        for (failure, stage, blame) in [
            (refused(), DEFAULT, Blame::Shard),
            (refused(), CHOSEN, Blame::Nobody),
            (malformed(), DEFAULT, Blame::Shard),
            (malformed(), CHOSEN, Blame::Unknown),
            (malformed(), BUSY, Blame::Unknown),
            (ShardFailure::Closed, SILENT, Blame::Unknown),
            (ShardFailure::Reset, BUSY, Blame::Unknown),
            (ShardFailure::Closed, Stage::Idle, Blame::Nobody),
            (ShardFailure::TlsFailed("alert".into()), Stage::Connecting, Blame::Shard),
            (ShardFailure::TlsFailed("alert".into()), DEFAULT, Blame::Shard),
            (ShardFailure::TlsFailed("alert".into()), BUSY, Blame::Unknown),
            (ShardFailure::ResponseTimeout, SILENT, Blame::Shard),
            (ShardFailure::ResponseTimeout, HELD_UP, Blame::Unknown),
            (ShardFailure::ResponseTimeout, BUSY, Blame::Nobody),
            (ShardFailure::ResponseTimeout, CHOSEN, Blame::Shard),
            (ShardFailure::ResponseTimeout, Stage::Connecting, Blame::Nobody),
            (ShardFailure::ConnectRefused, Stage::Connecting, Blame::Shard),
            (refused(), WHOEVER, Blame::Shard),
            (refused(), WHOEVER_CHOSEN, Blame::Nobody),
            (refused().unidentified(), WHOEVER_CHOSEN, Blame::Nobody),
            (malformed(), WHOEVER, Blame::Shard),
            (malformed(), WHOEVER_CHOSEN, Blame::Unknown),
            (ShardFailure::Closed, WHOEVER, Blame::Shard),
            (ShardFailure::ResponseTimeout, WHOEVER, Blame::Nobody),
            (ShardFailure::ResponseTimeout.unidentified(), WHOEVER_CHOSEN, Blame::Shard),
            (ShardFailure::QueueFull, BUSY, Blame::Nobody),
            (ShardFailure::Removed, BUSY, Blame::Nobody),
        ] {
            assert_eq!(failure.blame(stage), blame, "{failure} {stage:?}");
        }
    }
}
