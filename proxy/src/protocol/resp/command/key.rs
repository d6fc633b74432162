//! The words of key specs in the table.

pub use crate::protocol::resp::command::access::*;
use crate::protocol::resp::command::{Access, Begin, Find, KeyNumWords, KeySpec, Keyword};

const fn spec(begin: Begin, find: Find, access: u16) -> KeySpec {
    KeySpec { begin, find, access: Access(access), notes: "" }
}

/// The one key at this argument.
pub const fn at(index: u8, access: u16) -> KeySpec {
    through(index, 0, 1, 0, access)
}

/// Keys from this argument through `last`.
pub const fn through(index: u8, last: i8, step: u8, limit: u8, access: u16) -> KeySpec {
    spec(Begin::Index(index), Find::Range { last, step, limit }, access)
}

/// Keys behind a keyword.
pub const fn after(word: &'static str, from: i8, last: i8, step: u8, limit: u8, access: u16) -> KeySpec {
    spec(Begin::Keyword { word: Keyword::new(word), from }, Find::Range { last, step, limit }, access)
}

/// As many keys as an argument says.
pub const fn counted(
    begin: u8,
    index: u8,
    first: u8,
    step: u8,
    words: KeyNumWords,
    access: u16,
) -> KeySpec {
    spec(Begin::Index(begin), Find::KeyNum { index, first, step, words }, access)
}

/// The one key behind the last of these options.
pub const fn option(
    words: &'static [&'static str],
    from: u8,
    options: &'static [(&'static str, u8)],
    access: u16,
) -> KeySpec {
    let begin = Begin::Option { words, from, options, first: false };
    spec(begin, Find::Range { last: 0, step: 1, limit: 0 }, access)
}

/// The first half of what stands behind this option.
pub const fn half_behind(
    words: &'static [&'static str],
    from: u8,
    options: &'static [(&'static str, u8)],
    access: u16,
) -> KeySpec {
    let begin = Begin::Option { words, from, options, first: true };
    spec(begin, Find::Range { last: -1, step: 1, limit: 2 }, access)
}

/// Patterns of keys behind these options.
pub const fn patterns(
    words: &'static [&'static str],
    from: u8,
    options: &'static [(&'static str, u8)],
    access: u16,
) -> KeySpec {
    spec(Begin::Option { words, from, options, first: false }, Find::Pattern, access)
}

impl KeySpec {
    /// With the server's remark.
    pub const fn notes(mut self, notes: &'static str) -> Self {
        self.notes = notes;
        self
    }
}
