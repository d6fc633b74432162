//! All that is known of a command is its row: how many words it has and what the proxy does with it.
//!
//! Source: memcached's `doc/protocol.txt`, and memcached 1.6.18 on the wire where that is silent.

/// Longest line but of get and gets, as in memcached, which closes the connection beyond it.
pub(super) const LINE_MAX: usize = 2048;
/// Longest value that memcached would try to store.
pub(super) const VALUE_MAX: u64 = i32::MAX as u64 - 2;

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
    /// What a server answers.
    pub answers: Answers,
}

/// How the response to a command can begin. Whatever else comes is none, or somebody else's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Answers {
    /// No server is asked.
    #[default]
    Nothing,
    /// Values, then END.
    Values,
    /// Whether a value was stored.
    Stored,
    /// Whether a key was deleted.
    Deleted,
    /// Whether a key was touched.
    Touched,
    /// The number that a key has now.
    Number,
    /// A hit or a miss of `mg`.
    MetaGet,
    /// What has become of an `ms`.
    MetaSet,
    /// What has become of an `md`.
    MetaDelete,
    /// What has become of an `ma`.
    MetaArithmetic,
    /// What is known of an item.
    MetaDebug,
    /// A version.
    Version,
    /// OK.
    Done,
    /// Whether there may be so much memory now.
    MemoryLimit,
    /// A list of statistics or of items, or that the counts of statistics begin anew.
    Stats,
}

impl Answers {
    /// The words that such a response can begin with, errors and numbers aside.
    #[inline]
    pub fn words(self) -> &'static [&'static [u8]] {
        match self {
            Self::Nothing => &[],
            Self::Values => &[b"VALUE", b"END"],
            Self::Stored => &[b"STORED", b"NOT_STORED", b"EXISTS", b"NOT_FOUND"],
            Self::Deleted => &[b"DELETED", b"NOT_FOUND"],
            Self::Touched => &[b"TOUCHED", b"NOT_FOUND"],
            Self::Number => &[b"NOT_FOUND"],
            Self::MetaGet => &[b"VA", b"HD", b"EN"],
            Self::MetaSet => &[b"HD", b"NS", b"EX", b"NF"],
            Self::MetaDelete => &[b"HD", b"NF", b"EX", b"NS"],
            Self::MetaArithmetic => &[b"VA", b"HD", b"NF", b"NS", b"EX"],
            Self::MetaDebug => &[b"ME", b"EN"],
            Self::Version => &[b"VERSION"],
            Self::Done => &[b"OK"],
            Self::MemoryLimit => &[b"OK", b"MEMLIMIT_TOO_SMALL", b"MEMLIMIT_ADJUST_FAILED"],
            Self::Stats => &[b"STAT", b"ITEM", b"END", b"RESET"],
        }
    }
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
    /// Whether it changes nothing that it would matter to change late. (`gat` sets when an item expires.)
    #[inline]
    pub fn reads(self) -> bool {
        matches!(
            self,
            Self::Keys { first: 1 }
                | Self::Meta(Meta::Get | Meta::Debug)
                | Self::Everywhere(Everywhere::Version)
        )
    }

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
const ONE_SERVER: &str = "connect to the server directly";

const fn row(
    name: &'static str,
    words_min: usize,
    words_max: usize,
    handling: Handling,
    answers: Answers,
) -> Command {
    Command { name, words_min, words_max, handling, answers }
}

/// The rows, those that are used most first.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    row("get", 2, ANY, Handling::Keys { first: 1 }, Answers::Values),
    row("set", 5, 6, Handling::Value, Answers::Stored),
    row("mg", 2, ANY, Handling::Meta(Meta::Get), Answers::MetaGet),
    row("ms", 2, ANY, Handling::Meta(Meta::Set), Answers::MetaSet),
    row("md", 2, ANY, Handling::Meta(Meta::Delete), Answers::MetaDelete),
    row("ma", 2, ANY, Handling::Meta(Meta::Arithmetic), Answers::MetaArithmetic),
    row("mn", 1, ANY, Handling::Answer(Local::MetaNoop), Answers::Nothing),
    row("gets", 2, ANY, Handling::Keys { first: 1 }, Answers::Values),
    row("delete", 2, 4, Handling::Key, Answers::Deleted),
    row("add", 5, 6, Handling::Value, Answers::Stored),
    row("cas", 6, 7, Handling::Value, Answers::Stored),
    row("incr", 3, 4, Handling::Key, Answers::Number),
    row("decr", 3, 4, Handling::Key, Answers::Number),
    row("touch", 3, 4, Handling::Key, Answers::Touched),
    row("replace", 5, 6, Handling::Value, Answers::Stored),
    row("append", 5, 6, Handling::Value, Answers::Stored),
    row("prepend", 5, 6, Handling::Value, Answers::Stored),
    row("gat", 2, ANY, Handling::Keys { first: 2 }, Answers::Values),
    row("gats", 2, ANY, Handling::Keys { first: 2 }, Answers::Values),
    row("me", 1, ANY, Handling::Meta(Meta::Debug), Answers::MetaDebug),
    row("version", 1, ANY, Handling::Everywhere(Everywhere::Version), Answers::Version),
    row("verbosity", 2, 3, Handling::Everywhere(Everywhere::AllOk), Answers::Done),
    row("flush_all", 1, 3, Handling::Everywhere(Everywhere::AllOk), Answers::Done),
    row("cache_memlimit", 2, 3, Handling::Everywhere(Everywhere::AllOk), Answers::MemoryLimit),
    row("stats", 1, ANY, Handling::Answer(Local::Stats), Answers::Stats),
    row("quit", 1, ANY, Handling::Answer(Local::Quit), Answers::Nothing),
    row("debugtime", 1, ANY, Handling::Refuse(ONE_SERVER), Answers::Nothing),
    row("extstore", 1, ANY, Handling::Refuse(ONE_SERVER), Answers::Nothing),
    row("lru", 1, ANY, Handling::Refuse(ONE_SERVER), Answers::Nothing),
    row("lru_crawler", 1, ANY, Handling::Refuse(ONE_SERVER), Answers::Nothing),
    row("refresh_certs", 1, ANY, Handling::Refuse(ONE_SERVER), Answers::Nothing),
    row("shutdown", 1, ANY, Handling::Refuse(ONE_SERVER), Answers::Nothing),
    row("slabs", 1, ANY, Handling::Refuse(ONE_SERVER), Answers::Nothing),
    row("watch", 1, ANY, Handling::Refuse(ONE_SERVER), Answers::Nothing),
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
