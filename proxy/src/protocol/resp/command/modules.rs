//! What is known of commands of modules beyond what they tell servers, and so COMMAND, of their keys. It holds only where a shard
//! has the command.
//!
//! Many tell of their first key only. Behind a proxy the other keys may live on other shards, where they would silently count as
//! absent. Sources: <https://redis.io/docs/latest/commands/json.mget/>, <https://redis.io/docs/latest/commands/cms.merge/>,
//! <https://redis.io/docs/latest/commands/tdigest.merge/>; FT.* by
//! <https://redis.io/docs/latest/develop/ai/search-and-query/>: what they call a key is the name of an index.

use super::key::*;
use super::{Feature, KeyNumWords, KeySpec};

/// What is known better.
#[derive(Debug, Clone, Copy)]
pub(super) enum Correction {
    /// Where its keys stand.
    Keys(&'static [KeySpec]),
    /// What it would need behind several shards.
    Later(Feature),
}

/// One key, and as many as a number behind it says.
const MERGED: &[KeySpec] =
    &[at(1, RW | UPDATE), counted(2, 0, 1, 1, KeyNumWords::Script, RO | ACCESS)];

/// Those of one name, in lower case.
const NAMED: [(&str, Correction); 7] = [
    ("json.mget", Correction::Keys(&[through(1, -2, 1, 0, RO | ACCESS)])),
    ("cms.merge", Correction::Keys(MERGED)),
    ("tdigest.merge", Correction::Keys(MERGED)),
    // Dictionaries of suggestions are values of keys.
    ("ft.sugadd", Correction::Keys(&[at(1, RW | INSERT)])),
    ("ft.sugdel", Correction::Keys(&[at(1, RW | DELETE)])),
    ("ft.sugget", Correction::Keys(&[at(1, RO | ACCESS)])),
    ("ft.suglen", Correction::Keys(&[at(1, RO)])),
];

/// What the names of commands about indexes begin with.
const INDEXES: [&str; 2] = ["ft.", "_ft."];

/// What is known better of a command of a module than it tells itself.
pub(super) fn correction(name: &str) -> Option<Correction> {
    let name = name.to_ascii_lowercase();
    let named = NAMED.iter().find(|(known, _)| *known == name).map(|(_, correction)| *correction);
    let is_index = INDEXES.iter().any(|beginning| name.starts_with(beginning));
    named.or(is_index.then_some(Correction::Later(Feature::Indexes)))
}

/// Whether keys of the command are known that it does not tell its server of.
pub fn is_corrected(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| correction(name).is_some())
}
