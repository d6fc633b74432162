//! What is missing: commands that are refused need one of these, and where they are served already.

/// What the proxy cannot do yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Commands of servers to come that wait for data: nobody knows yet where their timeout stands.
    Blocking,
    /// One request to every shard, answers joined.
    AllShards,
    /// The same, where it reaches beyond the database it is said in.
    WholeServer,
    /// Invalidation messages for caching clients.
    Tracking,
}

impl Feature {
    /// Whether a pool that has one shard does it already: then it needs nothing of the proxy, and nothing of the
    /// connection that all clients share.
    pub fn is_served_by_one_shard(self) -> bool {
        match self {
            Self::AllShards | Self::WholeServer => true,
            Self::Blocking | Self::Tracking => false,
        }
    }

    /// Why a command that needs this is refused, as a sentence without its first word.
    pub fn refusal(self) -> &'static str {
        match self {
            Self::Blocking => "this command waits for data in a way that is not supported yet",
            Self::AllShards | Self::WholeServer => "commands for all shards at once are not supported yet",
            Self::Tracking => "client-side caching (CLIENT TRACKING, CLIENT CACHING) is not supported yet",
        }
    }
}
