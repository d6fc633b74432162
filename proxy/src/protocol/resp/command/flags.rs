//! What servers say of a command in words that are either there or not: flags, categories, what becomes of keys. Each set is one
//! number in the row, for the flags are looked at for every request.

use std::fmt;

/// Declares a set of named bits in the order in which Redis lists them.
macro_rules! bits {
    ($(#[$doc:meta])* $set:ident, $module:ident: $number:ty, $prefix:literal, [$($name:ident $text:literal),* $(,)?]) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $set(pub(super) $number);

        impl $set {
            const NAMES: &'static [(&'static str, $number)] = &[$((concat!($prefix, $text), $module::$name)),*];

            /// The bit of this name; 0 if it has none here.
            pub fn bit(name: &[u8]) -> $number {
                let found = Self::NAMES.iter().find(|(known, _)| known.as_bytes() == name);
                found.map_or(0, |(_, bit)| *bit)
            }

            /// Whether all of these bits are set.
            pub const fn has(self, bits: $number) -> bool {
                self.0 & bits == bits
            }

            /// The names of the bits that are set, in the order in which Redis lists them.
            pub fn names(self) -> impl Iterator<Item = &'static str> + Clone {
                Self::NAMES.iter().filter(move |(_, bit)| self.has(*bit)).map(|(name, _)| *name)
            }
        }

        impl fmt::Debug for $set {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.debug_set().entries(self.names()).finish()
            }
        }

        #[doc = concat!("The bits of [`", stringify!($set), "`].")]
        pub mod $module {
            // numbers the bits in the order of the list
            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            enum Position { $($name),* }
            $(
                #[doc = concat!("`", $text, "`")]
                pub const $name: $number = 1 << Position::$name as $number;
            )*
        }
    };
}

bits! {
    /// What a command does to a server, by the names that `COMMAND` uses.
    /// Source: <https://redis.io/docs/latest/commands/command/#flags>.
    Flags, flag: u32, "", [
        WRITE "write", READONLY "readonly", DENYOOM "denyoom", MODULE "module", ADMIN "admin", PUBSUB "pubsub",
        NOSCRIPT "noscript", BLOCKING "blocking", LOADING "loading", STALE "stale", SKIP_MONITOR "skip_monitor",
        SKIP_SLOWLOG "skip_slowlog", ASKING "asking", FAST "fast", NO_AUTH "no_auth",
        NO_MANDATORY_KEYS "no_mandatory_keys", NO_ASYNC_LOADING "no_async_loading", NO_MULTI "no_multi",
        MOVABLEKEYS "movablekeys", ALLOW_BUSY "allow_busy",
    ]
}

bits! {
    /// Categories of access control lists, by the names that `COMMAND` uses.
    /// Source: <https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/>.
    Categories, category: u32, "@", [
        KEYSPACE "keyspace", READ "read", WRITE "write", SET "set", SORTEDSET "sortedset", LIST "list", HASH "hash",
        STRING "string", BITMAP "bitmap", HYPERLOGLOG "hyperloglog", GEO "geo", STREAM "stream", PUBSUB "pubsub",
        ADMIN "admin", FAST "fast", SLOW "slow", BLOCKING "blocking", DANGEROUS "dangerous",
        CONNECTION "connection", TRANSACTION "transaction", SCRIPTING "scripting",
    ]
}

bits! {
    /// What a command does to a group of keys, by the names that `COMMAND` uses.
    /// Source: <https://redis.io/docs/latest/develop/reference/key-specs/#flags>.
    Access, access: u16, "", [
        RO "RO", RW "RW", OW "OW", RM "RM", ACCESS "access", INSERT "insert", UPDATE "update", DELETE "delete",
        NOT_KEY "not_key", INCOMPLETE "incomplete", VARIABLE_FLAGS "variable_flags",
    ]
}

impl Categories {
    /// All there are.
    pub const ALL: Self = Self(u32::MAX);
}

/// Kinds of data that commands are about. The first is of those that have none.
pub const FAMILIES: [&str; 15] = [
    "other",
    "string",
    "hash",
    "list",
    "set",
    "sortedset",
    "stream",
    "bitmap",
    "hyperloglog",
    "geo",
    "scripting",
    "pubsub",
    "transaction",
    "connection",
    "keyspace",
];

pub(super) const fn family(categories: u32) -> usize {
    let of_families = [
        category::STRING,
        category::HASH,
        category::LIST,
        category::SET,
        category::SORTEDSET,
        category::STREAM,
        category::BITMAP,
        category::HYPERLOGLOG,
        category::GEO,
        category::SCRIPTING,
        category::PUBSUB,
        category::TRANSACTION,
        category::CONNECTION,
        category::KEYSPACE,
    ];
    let mut index = 0;
    while index < of_families.len() {
        if categories & of_families[index] != 0 {
            return index + 1;
        }
        index += 1;
    }
    0
}

/// Redis derives these itself when it starts, so the table does not repeat them.
pub(super) const fn implied_categories(flags: u32, categories: u32) -> u32 {
    if flags & flag::MODULE != 0 {
        return 0;
    }
    let mut implied = if flags & flag::FAST != 0 { category::FAST } else { category::SLOW };
    if flags & flag::WRITE != 0 {
        implied |= category::WRITE;
    }
    if flags & flag::READONLY != 0 && categories & category::SCRIPTING == 0 {
        implied |= category::READ;
    }
    if flags & flag::ADMIN != 0 {
        implied |= category::ADMIN | category::DANGEROUS;
    }
    if flags & flag::PUBSUB != 0 {
        implied |= category::PUBSUB;
    }
    if flags & flag::BLOCKING != 0 {
        implied |= category::BLOCKING;
    }
    implied
}
