//! Commands that run scripts.

/// What a command that runs scripts runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptKind {
    /// The text behind its name.
    Text,
    /// What a shard knows by the digest behind its name.
    Digest,
    /// A function of a library.
    Function,
}
