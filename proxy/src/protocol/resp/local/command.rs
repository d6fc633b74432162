//! Clients ask COMMAND where keys stand and what may be sent, so it has to tell what this proxy does and not what some
//! shard would do: commands that are refused, or not supported yet, are left out as if they did not exist.
//!
//! Replies have the shape that Redis gives them. COMMAND DOCS leaves out history and complexity, which only people read.
//! Source: <https://redis.io/docs/latest/commands/command/>.

use crate::protocol::resp::command::docs::doc;
use crate::protocol::resp::command::index::lookup;
use crate::protocol::resp::command::table::COMMANDS;
use crate::protocol::resp::command::{Begin, Command, Find, KeySpec, WrongArity, access, flag};
use crate::protocol::resp::encode::{array, bulk, error, integer, map, null, set, simple};
use crate::protocol::resp::glob;

/// Several times what all rows take.
const REPLY_MAX: usize = 4 << 20;

/// Answers COMMAND and its subcommands; `args` starts with the word COMMAND. A pool of one shard does more.
pub fn answer(args: &[&[u8]], one_shard: bool, resp3: bool, out: &mut Vec<u8>) {
    let Some((name, rest)) = args.get(1..).and_then(<[_]>::split_first) else {
        return infos(&[], one_shard, resp3, out);
    };
    let row = lookup(b"command").and_then(|container| container.subcommand(name));
    let Some(row) = row else {
        return unknown_subcommand("command", name, out);
    };
    if !row.accepts(args.len()) {
        return error(out, &WrongArity(row).to_string());
    }
    match row.name {
        "command|count" => integer(out, served(&COMMANDS, one_shard).count() as i64),
        "command|info" => infos(rest, one_shard, resp3, out),
        "command|docs" => docs(rest, one_shard, resp3, out),
        "command|list" => list(rest, one_shard, out),
        "command|getkeys" => keys(rest, false, resp3, out),
        "command|getkeysandflags" => keys(rest, true, resp3, out),
        "command|help" => help(lookup(b"command").expect("its subcommand was found"), one_shard, out),
        _ => unknown_subcommand("command", name, out),
    }
}

/// Answers HELP of a container: one line per subcommand that the proxy does, and what it is for.
pub fn help(container: &Command, one_shard: bool, out: &mut Vec<u8>) {
    let title = container.name.to_ascii_uppercase();
    array(out, 1 + 2 * served(container.subcommands, one_shard).count());
    simple(out, &format!("{title} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for row in served(container.subcommands, one_shard) {
        simple(out, &row.name[container.name.len() + 1..].to_ascii_uppercase());
        simple(out, &format!("    {}.", row.docs.summary().trim_end_matches('.')));
    }
}

/// The error of Redis for a word that no subcommand of this container has.
pub fn unknown_subcommand(container: &str, word: &[u8], out: &mut Vec<u8>) {
    // Redis cuts the word at 128 bytes
    let word = String::from_utf8_lossy(&word[..word.len().min(128)]);
    let title = container.to_ascii_uppercase();
    error(out, &format!("ERR unknown subcommand '{word}'. Try {title} HELP."));
}

fn served(rows: &'static [Command], one_shard: bool) -> impl Iterator<Item = &'static Command> {
    rows.iter().filter(move |row| row.is_served(one_shard))
}

/// Finds `config|get` as well as `get`.
fn find(name: &[u8], one_shard: bool) -> Option<&'static Command> {
    let row = match name.iter().position(|byte| *byte == b'|') {
        Some(bar) => lookup(&name[..bar])?.subcommand(&name[bar + 1..]),
        None => lookup(name),
    };
    row.filter(|row| row.is_served(one_shard))
}

fn infos(names: &[&[u8]], one_shard: bool, resp3: bool, out: &mut Vec<u8>) {
    if names.is_empty() {
        array(out, served(&COMMANDS, one_shard).count());
        return served(&COMMANDS, one_shard).for_each(|row| info(row, one_shard, resp3, out));
    }
    array(out, names.len());
    for name in names {
        match find(name, one_shard) {
            Some(row) => info(row, one_shard, resp3, out),
            None => null(out, resp3),
        }
        if out.len() > REPLY_MAX {
            return too_much(out);
        }
    }
}

/// The rows are not worth a reply that is many times the request.
fn too_much(out: &mut Vec<u8>) {
    *out = Vec::new();
    error(out, &format!("ERR the reply is larger than {REPLY_MAX} bytes; ask for fewer commands at a time"));
}

/// The description of one command as COMMAND and COMMAND INFO list it.
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

fn names(names: impl Iterator<Item = &'static str> + Clone, resp3: bool, out: &mut Vec<u8>) {
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

fn docs(names: &[&[u8]], one_shard: bool, resp3: bool, out: &mut Vec<u8>) {
    let rows: Vec<_> = if names.is_empty() {
        served(&COMMANDS, one_shard).collect()
    } else {
        names.iter().filter_map(|name| find(name, one_shard)).collect()
    };
    map(out, resp3, rows.len());
    for row in rows {
        doc(row, &|row| row.is_served(one_shard), resp3, out);
        if out.len() > REPLY_MAX {
            return too_much(out);
        }
    }
}

fn list(filter: &[&[u8]], one_shard: bool, out: &mut Vec<u8>) {
    type Filter<'a> = Box<dyn Fn(&Command) -> bool + 'a>;
    let wanted: Filter<'_> = match filter {
        [] => Box::new(|_| true),
        [word, kind, value] if word.eq_ignore_ascii_case(b"filterby") => {
            let value = *value;
            if kind.eq_ignore_ascii_case(b"pattern") {
                let pattern = glob::Pattern::new(value);
                Box::new(move |row| pattern.matches(row.name.as_bytes()))
            } else if kind.eq_ignore_ascii_case(b"aclcat") {
                Box::new(move |row| {
                    row.categories.names().any(|name| value.eq_ignore_ascii_case(&name.as_bytes()[1..]))
                })
            } else if kind.eq_ignore_ascii_case(b"module") {
                // no row comes from a module
                Box::new(|_| false)
            } else {
                return error(out, "ERR syntax error");
            }
        }
        _ => return error(out, "ERR syntax error"),
    };
    let rows = served(&COMMANDS, one_shard)
        .flat_map(|row| std::iter::once(row).chain(served(row.subcommands, one_shard)));
    let names: Vec<_> = rows.filter(|row| wanted(row)).map(|row| row.name).collect();
    array(out, names.len());
    names.into_iter().for_each(|name| bulk(out, name.as_bytes()));
}

/// COMMAND GETKEYS of any row, also of commands that the proxy does not do: that harms nobody.
fn keys(args: &[&[u8]], flags: bool, resp3: bool, out: &mut Vec<u8>) {
    let row = args.first().and_then(|name| lookup(name));
    let row = match (row, args.get(1)) {
        (Some(container), Some(name)) if !container.subcommands.is_empty() => container.subcommand(name),
        _ => row,
    };
    let Some(row) = row else {
        return error(out, "ERR Invalid command specified");
    };
    if row.keys.iter().all(|spec| spec.access.has(access::NOT_KEY)) {
        return error(out, "ERR The command has no key arguments");
    }
    if !row.accepts(args.len()) {
        return error(out, "ERR Invalid number of arguments specified for command");
    }
    match row.published_key_positions(args.len(), |at| args[at]) {
        Ok(positions) if flags => {
            array(out, positions.len());
            for spec in row.keys {
                for position in spec.positions(args.len(), |at| args[at]).unwrap_or_default() {
                    array(out, 2);
                    bulk(out, args[position]);
                    names(spec.access.names().filter(|name| *name != "variable_flags"), resp3, out);
                }
            }
        }
        Ok(positions) => {
            array(out, positions.len());
            positions.for_each(|position| bulk(out, args[position]));
        }
        Err(_) if row.flags.has(flag::NO_MANDATORY_KEYS) => array(out, 0),
        Err(_) => error(out, "ERR Invalid arguments specified for command"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_of_any_length_is_read_once() {
        for pattern in [
            [&b"*["[..], &b"x".repeat(1 << 20), b"]g*"].concat(),
            b"*".repeat(1 << 20),
            [&b"*"[..], &b"?".repeat(1 << 20)].concat(),
        ] {
            let mut out = Vec::new();
            answer(&[b"COMMAND", b"LIST", b"FILTERBY", b"PATTERN", &pattern], false, false, &mut out);
            assert!(out.starts_with(b"*"));
        }
    }
}
