//! How far commands for all shards reach, which decides whether a pool lets its clients do that.

/// How far a command for all shards reaches on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It stays in the client's database, or changes nothing.
    Database,
    /// It looks at all keys of the database at once, and the shard serves nobody meanwhile: pools of several shards can be kept from it.
    Names,
    /// It changes something for all of the server's clients: refused where the pool is not to reach beyond its databases.
    Server,
    /// The same, and all data are written to the shard's disk: pools of several shards do it only where that is allowed.
    Disk,
}

impl Reach {
    /// Whether it concerns databases that are not the client's.
    pub fn is_beyond_database(self) -> bool {
        matches!(self, Self::Server | Self::Disk)
    }
}
