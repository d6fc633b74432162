//! All that is known of a command is its row: how many words it has and what the proxy does with it.
//!
//! Source: memcached's `doc/protocol.txt`, and memcached 1.6.18 on the wire where that is silent.

/// What a command is and what becomes of it.
#[derive(Debug)]
pub struct Command {
    /// As it is written: memcached knows no upper case.
    pub name: &'static str,
    /// Least number of words, the name included; fewer are an `ERROR`.
    pub words_min: usize,
    /// Greatest number of words; more are an `ERROR`.
    pub words_max: usize,
    /// What the proxy does with it.
    pub handling: Handling,
}

/// What the proxy does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// All words from this one on are keys: one fragment per shard.
    Keys {
        /// The place of the first one, counted from the name.
        first: usize,
    },
    /// The key is the second word; nothing follows the line. `noreply` may be the last word.
    Key,
    /// A value follows the line; its length is the fifth word. `noreply` may be the last of the words.
    Value,
    /// A meta command: key, then flags.
    Meta(Meta),
    /// To every shard.
    Everywhere(Everywhere),
    /// Answered by the proxy itself.
    Answer(Local),
    /// Refused for good: the reason.
    Refuse(&'static str),
}

/// Kinds of commands. The first is of what is none of the others.
pub const FAMILIES: [&str; 8] = ["other", "get", "store", "change", "meta", "all_shards", "proxy", "refused"];

impl Handling {
    /// A place in [`FAMILIES`].
    pub fn family(self) -> usize {
        match self {
            Self::Keys { .. } => 1,
            Self::Value => 2,
            Self::Key => 3,
            Self::Meta(_) => 4,
            Self::Everywhere(_) => 5,
            Self::Answer(_) => 6,
            Self::Refuse(_) => 7,
        }
    }
}

/// The meta commands that name a key. They differ in which replies the `q` flag keeps from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// `mg`: no miss is told.
    Get,
    /// `ms`: no success is told. A value follows the line; its length is the third word.
    Set,
    /// `md`: no success is told.
    Delete,
    /// `ma`: no success is told, not even with the value.
    Arithmetic,
    /// `me`: knows no `q`.
    Debug,
}

/// What goes to every shard, by how the responses are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Everywhere {
    /// The lowest version: what a client may rely on.
    Version,
    /// OK if all say so, else the first error.
    AllOk,
}

/// What the proxy answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each variant is the command of that name
pub enum Local {
    MetaNoop,
    Quit,
    Stats,
}

const ANY: usize = usize::MAX;
const ONE_SERVER: &str = "ask the server itself";

const fn row(name: &'static str, words_min: usize, words_max: usize, handling: Handling) -> Command {
    Command { name, words_min, words_max, handling }
}

/// The rows, those that are used most first.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    row("get", 2, ANY, Handling::Keys { first: 1 }),
    row("set", 5, 6, Handling::Value),
    row("mg", 2, ANY, Handling::Meta(Meta::Get)),
    row("ms", 2, ANY, Handling::Meta(Meta::Set)),
    row("md", 2, ANY, Handling::Meta(Meta::Delete)),
    row("ma", 2, ANY, Handling::Meta(Meta::Arithmetic)),
    row("mn", 1, ANY, Handling::Answer(Local::MetaNoop)),
    row("gets", 2, ANY, Handling::Keys { first: 1 }),
    row("delete", 2, 4, Handling::Key),
    row("add", 5, 6, Handling::Value),
    row("cas", 6, 7, Handling::Value),
    row("incr", 3, 4, Handling::Key),
    row("decr", 3, 4, Handling::Key),
    row("touch", 3, 4, Handling::Key),
    row("replace", 5, 6, Handling::Value),
    row("append", 5, 6, Handling::Value),
    row("prepend", 5, 6, Handling::Value),
    row("gat", 2, ANY, Handling::Keys { first: 2 }),
    row("gats", 2, ANY, Handling::Keys { first: 2 }),
    row("me", 1, ANY, Handling::Meta(Meta::Debug)),
    row("version", 1, ANY, Handling::Everywhere(Everywhere::Version)),
    row("verbosity", 2, 3, Handling::Everywhere(Everywhere::AllOk)),
    row("flush_all", 1, 3, Handling::Everywhere(Everywhere::AllOk)),
    row("stats", 1, ANY, Handling::Answer(Local::Stats)),
    row("quit", 1, ANY, Handling::Answer(Local::Quit)),
    row("cache_memlimit", 1, ANY, Handling::Refuse(ONE_SERVER)),
    row("debugtime", 1, ANY, Handling::Refuse(ONE_SERVER)),
    row("extstore", 1, ANY, Handling::Refuse(ONE_SERVER)),
    row("lru", 1, ANY, Handling::Refuse(ONE_SERVER)),
    row("lru_crawler", 1, ANY, Handling::Refuse(ONE_SERVER)),
    row("refresh_certs", 1, ANY, Handling::Refuse(ONE_SERVER)),
    row("shutdown", 1, ANY, Handling::Refuse(ONE_SERVER)),
    row("slabs", 1, ANY, Handling::Refuse(ONE_SERVER)),
    row("watch", 1, ANY, Handling::Refuse(ONE_SERVER)),
];

/// The row of a command.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_one_row() {
        for (index, command) in COMMANDS.iter().enumerate() {
            let first = COMMANDS.iter().position(|other| other.name == command.name);
            assert_eq!(first, Some(index), "{}", command.name);
        }
    }
}
