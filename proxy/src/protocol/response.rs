//! What shards say, as far as it concerns more than the client that has asked.

/// What a shard says to a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockOutcome {
    /// It was executed.
    Executed,
    /// None of it was executed.
    Refused,
    /// None of it was executed: a key has changed that was watched.
    Changed,
    /// None of it was executed, and it may go on with what comes next: nothing else is to be sent on the connection.
    Unclear,
    /// That is no response to it.
    Odd,
}

/// Who is to be asked instead. Nothing was executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Redirect<'b> {
    /// This server from now on. Without a host, at the host that answered.
    Moved {
        /// What it is about.
        slot: u16,
        /// Name or address, without brackets.
        host: &'b str,
        /// Port.
        port: u16,
    },
    /// This server, this once.
    Ask {
        /// What it is about.
        slot: u16,
        /// As for `Moved`.
        host: &'b str,
        /// Port.
        port: u16,
    },
    /// The same, a little later.
    Later {
        /// Somebody else may be who is to be asked by then.
        stale: bool,
    },
}

/// What a response decoder understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Bytes understood; never more than were given.
    pub length: usize,
    /// The response ends with them.
    pub complete: bool,
    /// It was not asked for (a push) and answers no request.
    pub push: bool,
}
