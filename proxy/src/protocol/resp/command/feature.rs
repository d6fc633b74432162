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
    /// The same, where shards would have to do it at the same moment.
    AtOnce,
    /// What a module does without a key, which is another thing on each shard.
    Keyless,
    /// An index that a module keeps of the keys of its own shard.
    Indexes,
    /// Keys that only the code of a module finds.
    HiddenKeys,
    /// One meaning of a command that shards tell different things of.
    Agreement,
    /// A command of servers to come that may change the connection, or hold it up.
    Unfamiliar,
}

impl Feature {
    /// Whether a pool that has one shard does it already: then it needs nothing of the proxy, and nothing of the
    /// connection that all clients share.
    pub fn is_served_by_one_shard(self) -> bool {
        match self {
            Self::AllShards
            | Self::WholeServer
            | Self::AtOnce
            | Self::Keyless
            | Self::Indexes
            | Self::HiddenKeys
            | Self::Agreement => true,
            Self::Blocking | Self::Unfamiliar => false,
        }
    }

    /// Why a command that needs this is refused, as a sentence without its first word.
    pub fn refusal(self) -> &'static str {
        match self {
            Self::Blocking => "this command waits for data in a way that is not supported yet",
            Self::AllShards | Self::WholeServer => "commands for all shards at once are not supported yet",
            Self::AtOnce => "one shard would do it after another, and clients would see a mixture",
            Self::Keyless => "it names no key, so each of several shards would do it for itself",
            Self::Indexes => "each of several shards would look at its own keys only",
            Self::HiddenKeys => "the shards do not say where its keys are, and there are several shards",
            Self::Agreement => "the shards do not agree on where its keys are",
            Self::Unfamiliar => "the proxy does not know what it does to a connection that clients share",
        }
    }
}
