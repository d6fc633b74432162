//! All that is known of a command is its row: arity, flags, where its keys stand, and what the proxy does with it.
//! Whoever handles a request looks up its row here and branches on [`Command::handling`]; no other file names a command.
//!
//! The rows are in `table.rs`, written by a script from what servers publish. This file holds the words they are made of;
//! `index.rs` finds a row by its name, `keys.rs` a request's keys by its row, and `docs.rs` reads its documentation.


use crate::protocol::channels::Kind;
use crate::protocol::figures::Sections;
use crate::protocol::scan::Page;
use crate::protocol::transfer::TransferKind;

pub use arity::WrongArity;
pub use cluster::ClusterWord;
pub use feature::Feature;
pub use info::served;
pub use keyword::Keyword;
pub use learnt::Commands;
pub use modules::is_corrected;
pub use reach::Reach;
pub use flags::{Access, Categories, FAMILIES, Flags, access, category, flag};
use flags::{family, implied_categories};
pub use script::{ScriptChange, ScriptKind};
pub use since::{Since, Version, since};
pub use varies::Varies;
pub use waits::TimeoutPlace;
pub(super) use waits::Trial;

mod arity;
mod cluster;
pub mod docs;
mod feature;
mod flags;
pub mod handbook;
pub mod index;
pub mod info;
pub mod key;
pub mod keys;
mod keyword;
pub mod learnt;
mod modules;
mod reach;
mod reading;
mod script;
mod since;
pub mod table;
mod varies;
mod waits;

/// What a command is and what becomes of it.
///
/// Names, arities, flags, key specs, tips and documentation are those of `COMMAND` and `COMMAND DOCS`.
/// Source: <https://redis.io/docs/latest/commands/command/>.
#[derive(Debug)]
pub struct Command<'t> {
    /// Lower case, or as a shard calls it that has told of it; a subcommand is called `container|name`.
    pub name: &'t str,
    /// Number of arguments with the command's name; negative: at least that many.
    pub arity: i8,
    /// What the server says of the command: whether it writes, may block and so on.
    pub flags: Flags,
    /// Where its keys stand, as the server publishes it.
    pub keys: &'t [KeySpec],
    /// Where they stand if that is not where the server takes them from when it executes the command.
    pub(super) executed: Option<&'static [KeySpec]>,
    /// What the proxy does with it.
    pub handling: Handling,
    /// Position of the key where there is always exactly one, else 0: spares most requests the walk over key specs. 0 as well
    /// where more than that is to be looked at.
    pub single_key: u8,
    /// Categories of access control lists.
    pub categories: Categories,
    /// The kind of data it is about: a place in [`FAMILIES`].
    pub family: usize,
    /// Hints for clients, with the request and response policies of clusters.
    pub tips: &'static [&'static str],
    /// Set where the command reaches another database than the client's: with this option, or always.
    pub(super) leaves_database: Option<LeavesDatabase>,
    /// Set where an option makes the command wait for data, so that it must not travel on a shared connection.
    pub(super) blocks_with: Option<BlocksWith>,
    /// How one key of a request is tried that waits under keys of several shards; none where it has to wait on one.
    pub(super) trial: Option<Trial>,
    /// What becomes of its key, where that depends on other arguments.
    pub(super) varies: Option<Varies>,
    /// What it does if it brings the value of one key to another one.
    pub transfers: Option<TransferKind>,
    /// What it changes about the scripts that are known.
    pub(super) scripts: Option<ScriptChange>,
    /// The rows of a container; sorted by name.
    pub subcommands: &'static [Command<'static>],
    /// Which servers know it; none where a shard has told of it.
    pub since: Since,
    /// Documentation as `COMMAND DOCS` gives it.
    pub docs: Docs,
}

/// What makes a command reach another database than the client's.
#[derive(Debug, Clone, Copy)]
pub enum LeavesDatabase {
    /// It reaches all.
    All,
    /// It reaches the one that this argument names.
    To(u8),
    /// The one behind an option of this name behind the second key.
    With(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct BlocksWith {
    pub(super) option: &'static str,
    pub(super) until: &'static str,
    pub(super) options: &'static [(&'static str, u8)],
}

/// Documentation of a command.
#[derive(Debug, Clone, Copy)]
pub struct Docs(pub(super) &'static str);

/// What the proxy does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// To the shard that owns its keys. With keys on several shards it is refused with CROSSSLOT.
    Forward,
    /// The same, and it runs a script or function there.
    Run(ScriptKind),
    /// One fragment per shard, responses merged.
    Split(Merge),
    /// Answered by the proxy itself.
    Answer(Local),
    /// Only its subcommands do something: [`Command::subcommand`].
    Container,
    /// To the shard that owns its keys, on a connection of its own: it waits there for data. The word tells where its
    /// timeout stands.
    Block(TimeoutPlace),
    /// The shard that owns its keys watches them, on a connection that its client has to itself from then on.
    Watch,
    /// The shards say how many replicas have what they executed before.
    Confirm {
        /// Whose files have it, their own and those of replicas.
        files: bool,
    },
    /// Names of this kind are listened to, or no more: all arguments.
    Listen(Kind, bool),
    /// To the shard that owns the channel it is said to.
    ToChannel,
    /// To every shard, responses merged; in a cluster to every node that owns slots. As it is where the pool has one shard.
    ToAll(Merge, Reach),
    /// Names of the keys of all shards, one after the other. As it is where the pool has one shard.
    Scan,
    /// A question about channels, to the shards that know: all, or the owners of those that are named.
    AskChannels(Merge),
    /// Refused until the proxy can do it.
    Later(Feature),
    /// Refused for good: the reason.
    Refuse(&'static str),
}

/// How the responses to the fragments of a split request become one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// One element per key, in the order of the request.
    Array,
    /// Integers are added up.
    Sum,
    /// OK if all say so, else the first error.
    AllOk,
    /// The same; statistics of the proxy begin anew as well.
    AllReset,
    /// One element per command of a transaction, in their order.
    Transaction,
    /// How many listen to each channel of the request, which are of this kind.
    Counts(Kind),
    /// The names that any of them says.
    Union,
    /// The largest number.
    Most,
    /// The smallest number.
    Least,
    /// The names of keys that all say, which match the pattern that is the only argument.
    Keys,
    /// Of each element the smallest number that any array has: 1 where all say so that are there.
    Every,
    /// What all say, else the first error.
    Same,
    /// The longest that is no error; an error only if all say one.
    AnyDone,
    /// The same of modules, by name and version alone.
    Modules,
    /// A page of a scan, from one shard.
    Page(Page),
    /// The scan is over if the nodes of a cluster own this together, as [`crate::protocol::scan::digest`] has it.
    ScanEnd(u32),
    /// The response of any that has something, by this number; nil if none has.
    Any(u32),
    /// The newest entries of logs, so many at most.
    Log(u32),
    /// What happened when, in order.
    History,
    /// What happened last, for each event.
    Latest,
    /// Texts for people, below the names of their shards.
    Texts,
    /// Parameters that all shards agree on, behind those that the proxy knows itself.
    Parameters,
    /// These sections of INFO, beside what the proxy knows itself.
    Sections(Sections),
    /// Figures of memory, added up.
    MemoryStats,
    /// How long commands took, added up.
    Histogram,
    /// What the one shard says that is asked, of so many databases from the first on.
    Own(u32, u32),
}

/// What the proxy answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each variant is the command of that name
pub enum Local {
    Ping,
    Echo,
    Time,
    Quit,
    Reset,
    Monitor,
    Hello,
    Auth,
    Select,
    Readonly,
    Readwrite,
    Asking,
    Multi,
    Exec,
    Discard,
    Unwatch,
    Role,
    Info,
    Lolwut,
    /// COMMAND with all its subcommands: `local::command::answer`.
    Command,
    /// Any subcommand of CLUSTER: `local::cluster::answer`.
    Cluster(ClusterWord),
    /// HELP of any container: `local::command::help`.
    Help,
    ClientId,
    ClientInfo,
    ClientList,
    ClientKill,
    ClientGetname,
    ClientSetname,
    ClientSetinfo,
    ClientReply,
    ClientNoEvict,
    ClientNoTouch,
    ClientUnblock,
    ClientTracking,
    ClientCaching,
    ClientTrackinginfo,
    ClientGetredir,
    ClientUnpause,
    AclWhoami,
    AclUsers,
    AclList,
    AclGetuser,
    AclCat,
    AclDryrun,
    AclLog,
    ConfigGet,
    ConfigSet,
    ScriptKill,
    FunctionKill,
    SlowlogGet,
    SlowlogLen,
    SlowlogReset,
}

/// Where one group of keys stands. Source: <https://redis.io/docs/latest/develop/reference/key-specs/>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    /// Where to start.
    pub begin: Begin,
    /// Which arguments from there on are keys.
    pub find: Find,
    /// What happens to the keys.
    pub access: Access,
    /// The server's remark on this group, mostly empty.
    pub notes: &'static str,
}

/// Where a group of keys begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At this argument; 0 is the command's name.
    Index(u8),
    /// Behind this word, searched from argument `from` on; a negative `from` counts from the end and searches backwards.
    Keyword {
        /// Compared without regard to case.
        word: Keyword,
        /// First argument looked at.
        from: i8,
    },
    /// Behind the last of these options, or the first where nothing but keys follows it. The values of other options are not
    /// mistaken for an option. Redis does this by code; the spec it publishes is "unknown", or wrong in such cases.
    Option {
        /// Any of these; compared without regard to case.
        words: &'static [&'static str],
        /// First argument looked at.
        from: u8,
        /// Options with the number of values that follow them; other arguments count as options without a value.
        options: &'static [(&'static str, u8)],
        /// The first one counts.
        first: bool,
    },
}

/// Which arguments are keys, from the beginning of a group on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Find {
    /// From the first to the last, every `step`th.
    Range {
        /// Relative to the first key; negative: relative to the end of the request (-1 is the last argument).
        last: i8,
        /// 2 where each key has a value behind it.
        step: u8,
        /// With `last` -1: keys take the first `1/limit` of the remaining arguments; 0 and 1 mean all of them.
        limit: u8,
    },
    /// An argument says how many keys there are.
    KeyNum {
        /// Where the number stands, relative to the beginning.
        index: u8,
        /// Where the first key stands, relative to the beginning.
        first: u8,
        /// 2 where each key has a value behind it.
        step: u8,
        /// How Redis words a bad number.
        words: KeyNumWords,
    },
    /// The argument is a pattern from which the server makes names of keys: [`Command::foreign_patterns`].
    Pattern,
}

/// Redis has several sets of words for a bad number of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyNumWords {
    /// ZUNION and its relatives.
    AtLeastOne,
    /// The MPOPs.
    GreaterThanZero,
    /// SINTERCARD.
    GreaterThanZeroOfArgs,
    /// MSETEX of Redis.
    Pairs,
    /// EVAL, which also takes no keys at all.
    Script,
    /// EVALSHA and FCALL, which look for the script or function before they look at the number.
    NamedScript,
}

/// A row of the table. `categories` are those that do not follow from the flags.
#[allow(clippy::too_many_arguments)] // each is a column
pub const fn row(
    name: &'static str,
    since: Since,
    arity: i8,
    flags: u32,
    keys: &'static [KeySpec],
    handling: Handling,
    categories: u32,
    docs: &'static str,
) -> Command<'static> {
    Command {
        name,
        arity,
        flags: Flags(flags),
        keys,
        handling,
        // Whether the shards have it is to be seen first.
        single_key: if since.is_everywhere() { single_key(keys) } else { 0 },
        categories: Categories(categories | implied_categories(flags, categories)),
        family: family(categories),
        tips: &[],
        executed: None,
        leaves_database: None,
        blocks_with: None,
        trial: None,
        varies: None,
        transfers: None,
        scripts: None,
        subcommands: &[],
        since,
        docs: Docs(docs),
    }
}

const fn single_key(keys: &[KeySpec]) -> u8 {
    match keys {
        [KeySpec { begin: Begin::Index(index), find: Find::Range { last: 0, .. }, access, .. }]
            if !access.has(access::NOT_KEY) =>
        {
            *index
        }
        _ => 0,
    }
}

impl Command<'static> {
    /// A row with tips.
    pub const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }

    /// A row whose command waits for data if `option` stands among `options`, before the word `until`.
    pub const fn blocks_with(
        mut self,
        option: &'static str,
        until: &'static str,
        options: &'static [(&'static str, u8)],
    ) -> Self {
        self.blocks_with = Some(BlocksWith { option, until, options });
        self
    }

    /// A row of which single keys are tried so.
    pub(super) const fn tried_by(mut self, trial: Trial) -> Self {
        self.trial = Some(trial);
        self
    }

    /// A row whose command does with its key what other arguments say.
    pub(super) const fn varies(mut self, varies: Varies) -> Self {
        self.varies = Some(varies);
        self
    }

    /// A row whose command brings the value of one key to another one.
    pub(super) const fn transfers(mut self, kind: TransferKind) -> Self {
        self.transfers = Some(kind);
        self
    }

    /// A row whose command is executed with other keys than its key specs say.
    pub const fn executed(mut self, keys: &'static [KeySpec]) -> Self {
        self.executed = Some(keys);
        self
    }

    /// A row whose command reaches other databases.
    pub const fn leaves_database(mut self, how: LeavesDatabase) -> Self {
        self.leaves_database = Some(how);
        // It is to be looked at before it goes anywhere.
        self.single_key = 0;
        self
    }

    /// A row with subcommands.
    pub const fn subcommands(mut self, subcommands: &'static [Command<'static>]) -> Self {
        self.subcommands = subcommands;
        self
    }
}

impl Command<'_> {
    /// It has no row of ours: a shard has told of it.
    pub fn is_learnt(&self) -> bool {
        self.since.is_nowhere()
    }

    /// Finds a subcommand by the word behind the container's name.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Command<'static>> {
        // "container|" stands before the name in the row
        let prefix = self.name.len() + 1;
        self.subcommands.iter().find(|row| row.name.as_bytes()[prefix..].eq_ignore_ascii_case(name))
    }

    /// Whether a request of this many arguments, the name included, can be right.
    pub const fn accepts(&self, args: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { args >= arity } else { args == arity }
    }

    /// As it is written: `client tracking`. In its own errors Redis writes `client|tracking`, which nobody can type.
    pub fn words(&self) -> String {
        self.name.replace('|', " ")
    }

    /// Why the proxy does not do this command, if it does not.
    pub fn refusal(&self) -> Option<&'static str> {
        match self.handling {
            Handling::Later(feature) => Some(feature.refusal()),
            Handling::Refuse(reason) => Some(reason),
            Handling::Forward
            | Handling::Run(_)
            | Handling::Split(_)
            | Handling::Answer(_)
            | Handling::Block(_)
            | Handling::Watch
            | Handling::Confirm { .. }
            | Handling::Listen(..)
            | Handling::ToChannel
            | Handling::ToAll(..)
            | Handling::Scan
            | Handling::AskChannels(_)
            | Handling::Container => None,
        }
    }

    /// Whether the proxy does this command or at least one of its subcommands, HELP aside, in pools of one shard or of
    /// several.
    pub fn is_served(&self, one_shard: bool) -> bool {
        match self.handling {
            Handling::Later(feature) => one_shard && feature.is_served_by_one_shard(),
            // Off by default, and for people, who know whether they have turned it on.
            Handling::Refuse(_) | Handling::Answer(Local::Monitor) => false,
            Handling::Forward
            | Handling::Run(_)
            | Handling::Split(_)
            | Handling::Answer(_)
            | Handling::Block(_)
            | Handling::Watch
            | Handling::Confirm { .. }
            | Handling::Listen(..)
            | Handling::ToChannel
            | Handling::ToAll(..)
            | Handling::Scan
            | Handling::AskChannels(_) => true,
            Handling::Container if self.is_learnt() => true,
            Handling::Container => self
                .subcommands
                .iter()
                .any(|row| row.handling != Handling::Answer(Local::Help) && row.is_served(one_shard)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::index::lookup;
    use super::table::COMMANDS;
    use super::*;

    #[test]
    fn rows_are_sorted_and_subcommands_carry_their_containers_name() {
        assert!(COMMANDS.is_sorted_by(|one, other| one.name < other.name));
        for container in COMMANDS.iter().filter(|row| !row.subcommands.is_empty()) {
            assert!(
                container.subcommands.is_sorted_by(|one, other| one.name < other.name),
                "{}",
                container.name
            );
            for row in container.subcommands {
                let name = row.name.strip_prefix(container.name).and_then(|rest| rest.strip_prefix('|'));
                let name = name.expect("it starts with the container's name");
                let found = container.subcommand(name.to_ascii_uppercase().as_bytes());
                assert!(found.is_some_and(|found| std::ptr::eq(found, row)), "{}", row.name);
            }
        }
    }

    #[test]
    fn what_is_forwarded_or_split_has_keys_to_go_by() {
        let rows = COMMANDS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
        for row in rows {
            let by_key = matches!(
                row.handling,
                Handling::Forward | Handling::Run(_) | Handling::Split(_) | Handling::Block(_)
            );
            assert!(!by_key || row.keys.iter().any(|spec| !spec.access.has(access::NOT_KEY)), "{}", row.name);
            assert_eq!(
                row.handling == Handling::Container,
                !row.subcommands.is_empty() && row.name != "command"
            );
        }
    }

    #[test]
    fn reasons_read_on_after_a_colon() {
        let rows = COMMANDS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
        for (row, reason) in rows.filter_map(|row| Some((row, row.refusal()?))) {
            assert!(
                !reason.is_empty() && !reason.ends_with('.') && !reason.contains('\n'),
                "{}: {reason}",
                row.name
            );
        }
    }

    #[test]
    fn the_single_key_is_where_the_walk_finds_it() {
        let rows = COMMANDS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
        for row in rows.filter(|row| row.single_key > 0) {
            let args = usize::from(row.arity.unsigned_abs());
            let found = row.key_positions(args, |_| b"x").expect("it has as many arguments as it must");
            assert_eq!(found.collect::<Vec<_>>(), [usize::from(row.single_key)], "{}", row.name);
        }
        assert_eq!(lookup(b"get").expect("a row").single_key, 1);
        assert_eq!(lookup(b"mget").expect("a row").single_key, 0);
        assert_eq!(lookup(b"hgetex").expect("a row").single_key, 0, "not all shards have it");
        assert_eq!(lookup(b"spublish").expect("a row").single_key, 0, "a channel is no key");
    }

    #[test]
    fn arity_counts_the_commands_name() {
        let get = lookup(b"get").expect("a row");
        assert!(!get.accepts(1) && get.accepts(2) && !get.accepts(3));
        let del = lookup(b"del").expect("a row");
        assert!(!del.accepts(1) && del.accepts(2) && del.accepts(1_000));
        assert_eq!(WrongArity(get).to_string(), "ERR wrong number of arguments for 'get' command");
    }
}
