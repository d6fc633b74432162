//! Commands that wait for data: where they say for how long, and by what their keys are tried without waiting.

/// Where a command that waits for data says for how long, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutPlace {
    /// Behind the command's name.
    First,
    /// At the end.
    Last,
    /// There, too, and before it stand the ends of two lists: LEFT or RIGHT.
    BehindEnds,
}

/// By what one key is tried for a request that waits: the command that does the same without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol::resp) enum Trial {
    /// This one takes the key alone, and gives an element.
    Element(&'static str),
    /// The same, with the score of the element.
    Scored(&'static str),
    /// This one takes a number of keys and what stands behind them, which begins with one of these words.
    Elements(&'static str, [&'static str; 2]),
    /// The command itself, without its option to wait. What it reads is there for others still.
    Entries,
    /// The same, where each member of a group reads what no other has read.
    EntriesOfGroup,
}
