//! What COMMAND and COMMAND INFO say of a command.
//!
//! Source of the parts and their order: <https://redis.io/docs/latest/commands/command/>.

use super::{Begin, Command, Find, KeySpec};
use crate::protocol::resp::encode::{array, bulk, integer, map, set, simple};

/// Writes the description of a row, without those subcommands that are not served.
pub fn info(row: &Command, one_shard: bool, resp3: bool, out: &mut Vec<u8>) {
    array(out, 10);
    bulk(out, row.name.as_bytes());
    integer(out, row.arity.into());
    names(row.flags.names(), resp3, out);
    for number in range(row) {
        integer(out, number);
    }
    names(row.categories.names(), resp3, out);
    set(out, resp3, row.tips.len());
    row.tips.iter().for_each(|tip| bulk(out, tip.as_bytes()));
    set(out, resp3, row.keys.len());
    row.keys.iter().for_each(|spec| key_spec(spec, resp3, out));
    set(out, resp3, served(row.subcommands, one_shard).count());
    served(row.subcommands, one_shard).for_each(|row| info(row, one_shard, resp3, out));
}

/// A set of simple strings.
pub fn names(names: impl Iterator<Item = &'static str> + Clone, resp3: bool, out: &mut Vec<u8>) {
    set(out, resp3, names.clone().count());
    names.for_each(|name| simple(out, name));
}

/// First key, last key and step, as servers published them before there were key specs: the first run of neighbouring
/// specs, and zeros where the keys move.
fn range(row: &Command) -> [i64; 3] {
    let mut found: Option<[i64; 3]> = None;
    for spec in row.keys {
        let (Begin::Index(begin), Find::Range { last, step, .. }) = (spec.begin, spec.find) else {
            continue;
        };
        let (begin, last, step) = (i64::from(begin), i64::from(last), i64::from(step));
        let last = if last < 0 { last } else { begin + last };
        match &mut found {
            None => found = Some([begin, last, step]),
            Some([_, end, _]) if *end + 1 == begin => *end = last,
            Some(_) => {}
        }
    }
    found.unwrap_or_default()
}

fn key_spec(spec: &KeySpec, resp3: bool, out: &mut Vec<u8>) {
    map(out, resp3, if spec.notes.is_empty() { 3 } else { 4 });
    if !spec.notes.is_empty() {
        bulk(out, b"notes");
        bulk(out, spec.notes.as_bytes());
    }
    bulk(out, b"flags");
    names(spec.access.names(), resp3, out);

    bulk(out, b"begin_search");
    match spec.begin {
        Begin::Index(index) => {
            kind("index", 1, resp3, out);
            pair("index", index.into(), out);
        }
        Begin::Keyword { word, from } => {
            kind("keyword", 2, resp3, out);
            bulk(out, b"keyword");
            bulk(out, word.as_bytes());
            pair("startfrom", from.into(), out);
        }
        Begin::Option { .. } => kind("unknown", 0, resp3, out),
    }

    bulk(out, b"find_keys");
    match (spec.begin, spec.find) {
        (Begin::Option { .. }, _) | (_, Find::Pattern) => kind("unknown", 0, resp3, out),
        (_, Find::Range { last, step, limit }) => {
            kind("range", 3, resp3, out);
            pair("lastkey", last.into(), out);
            pair("keystep", step.into(), out);
            pair("limit", limit.into(), out);
        }
        (_, Find::KeyNum { index, first, step, .. }) => {
            kind("keynum", 3, resp3, out);
            pair("keynumidx", index.into(), out);
            pair("firstkey", first.into(), out);
            pair("keystep", step.into(), out);
        }
    }
}

fn kind(kind: &str, pairs: usize, resp3: bool, out: &mut Vec<u8>) {
    map(out, resp3, 2);
    bulk(out, b"type");
    bulk(out, kind.as_bytes());
    bulk(out, b"spec");
    map(out, resp3, pairs);
}

fn pair(name: &str, number: i64, out: &mut Vec<u8>) {
    bulk(out, name.as_bytes());
    integer(out, number);
}

/// Those of these rows that the proxy does in pools of one shard, or of several.
pub fn served(
    rows: &'static [Command<'static>],
    one_shard: bool,
) -> impl Iterator<Item = &'static Command<'static>> {
    rows.iter().filter(move |row| row.is_served(one_shard))
}
