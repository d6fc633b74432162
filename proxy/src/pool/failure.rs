//! Why a shard could not serve a request. The same word is log text, reply and metric label.

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
    /// The shard's host name was not found.
    Unresolved(String),
    /// The shard refused our greeting (AUTH, HELLO, SELECT), in its words.
    GreetingRefused(String),
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

impl ShardFailure {
    /// The failure and whose it is, as clients are told.
    pub fn of_shard(&self, name: &str) -> String {
        format!("shard {name}: {self}")
    }

    /// The names of all reasons, for metrics.
    pub const REASONS: [&str; 11] = [
        "connect_refused",
        "connect_timeout",
        "connect_failed",
        "unresolved",
        "greeting_refused",
        "response_timeout",
        "closed",
        "reset",
        "malformed",
        "queue_full",
        "removed",
    ];

    /// Its place in [`Self::REASONS`].
    pub fn reason(&self) -> usize {
        match self {
            Self::ConnectRefused => 0,
            Self::ConnectTimeout => 1,
            Self::ConnectFailed(_) => 2,
            Self::Unresolved(_) => 3,
            Self::GreetingRefused(_) => 4,
            Self::ResponseTimeout => 5,
            Self::Closed => 6,
            Self::Reset => 7,
            Self::Malformed(_) => 8,
            Self::QueueFull => 9,
            Self::Removed => 10,
        }
    }

    /// Whether the next attempt to connect is likely to take long, so that requests should not wait for it.
    pub fn takes_time(&self) -> bool {
        !matches!(self, Self::ConnectRefused | Self::Closed | Self::Reset | Self::GreetingRefused(_))
    }

    /// Whether it counts towards ejection: the shard did not do what a healthy one does.
    pub fn counts(&self) -> bool {
        !matches!(self, Self::QueueFull | Self::Removed)
    }
}

impl fmt::Display for ShardFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectRefused => f.write_str("connection refused"),
            Self::ConnectTimeout => f.write_str("connect timed out"),
            Self::ConnectFailed(reason) => write!(f, "cannot connect: {reason}"),
            Self::Unresolved(reason) => write!(f, "cannot resolve host: {reason}"),
            Self::GreetingRefused(words) => write!(f, "greeting refused: {words}"),
            Self::ResponseTimeout => f.write_str("timed out"),
            Self::Closed => f.write_str("connection closed"),
            Self::Reset => f.write_str("connection reset"),
            Self::Malformed(reason) => write!(f, "malformed response: {reason}"),
            Self::QueueFull => f.write_str("queue full"),
            Self::Removed => f.write_str("removed from the pool"),
        }
    }
}
