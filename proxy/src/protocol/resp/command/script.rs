//! Commands that run scripts, and those that change which are known.

use super::Command;

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

/// What a command changes about the scripts that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptChange {
    /// There is one more: its last argument.
    Shown,
    /// There is none any more.
    Forgotten,
    /// There is one more library of functions: that of its last argument.
    LibraryLoaded,
    /// There is one less: that of this name.
    LibraryDeleted,
    /// There is no library any more.
    LibrariesDeleted,
    /// There may be other libraries.
    LibrariesRestored,
}

impl Command<'static> {
    /// A row whose command changes which scripts are known.
    pub(super) const fn scripts(mut self, change: ScriptChange) -> Self {
        self.scripts = Some(change);
        self
    }
}
