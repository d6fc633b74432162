//! Clients ask COMMAND where keys stand and what may be sent, so it has to tell what this proxy does and not what some
//! shard would do: commands that are refused, or not supported yet, are left out as if they did not exist.
//!
//! Replies have the shape that Redis gives them. COMMAND DOCS leaves out history and complexity, which only people read.
//! Source: <https://redis.io/docs/latest/commands/command/>.

use bytes::Bytes;

use super::encoded;
use crate::protocol::Plan;
use crate::protocol::resp::command::index::lookup;
use crate::protocol::resp::command::info::names;
use crate::protocol::resp::command::{Command, WrongArity, access, flag, served};
use crate::protocol::resp::encode::{array, bulk, error, integer, map, null, simple};
use crate::protocol::resp::{Resp, glob};

/// Several times what all rows take.
const REPLY_MAX: usize = 4 << 20;

/// Answers COMMAND and its subcommands; `args` starts with the word COMMAND. A pool of one shard does more. A reply that is the
/// same for everybody is shared instead of written.
pub fn answer(args: &[&[u8]], one_shard: bool, resp3: bool, plan: &mut Plan<Resp>) {
    let Plan { reply: out, shared, searched, .. } = plan;
    let Some((name, rest)) = args.get(1..).and_then(<[_]>::split_first) else {
        *shared = infos(&[], one_shard, resp3, out);
        return;
    };
    let row = lookup(b"command").and_then(|container| container.subcommand(name));
    match row {
        Some(row) if !row.accepts(args.len()) => error(out, &WrongArity(row).to_string()),
        Some(row) => match row.name {
            "command|info" => *shared = infos(rest, one_shard, resp3, out),
            "command|docs" => *shared = docs(rest, one_shard, resp3, out),
            "command|count" => integer(out, encoded::count(one_shard) as i64),
            "command|list" => {
                // Also for a reply of a few bytes.
                *searched = encoded::rows(one_shard).len();
                list(rest, one_shard, out);
            }
            "command|getkeys" => keys(rest, false, resp3, out),
            "command|getkeysandflags" => keys(rest, true, resp3, out),
            "command|help" => help(lookup(b"command").expect("its subcommand was found"), one_shard, out),
            _ => unknown_subcommand("command", name, out),
        },
        None => unknown_subcommand("command", name, out),
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

/// Finds `config|get` as well as `get`.
fn find(name: &[u8], one_shard: bool) -> Option<&'static Command> {
    let row = match name.iter().position(|byte| *byte == b'|') {
        Some(bar) => lookup(&name[..bar])?.subcommand(&name[bar + 1..]),
        None => lookup(name),
    };
    row.filter(|row| row.is_served(one_shard))
}

fn infos(names: &[&[u8]], one_shard: bool, resp3: bool, out: &mut Vec<u8>) -> Option<Bytes> {
    let infos = encoded::infos(one_shard, resp3);
    if names.is_empty() {
        return Some(infos.all());
    }
    array(out, names.len());
    for name in names {
        match find(name, one_shard) {
            Some(row) => out.extend_from_slice(infos.of(row)),
            None => null(out, resp3),
        }
        if out.len() > REPLY_MAX {
            too_much(out);
            break;
        }
    }
    None
}

/// The rows are not worth a reply that is many times the request.
fn too_much(out: &mut Vec<u8>) {
    *out = Vec::new();
    error(out, &format!("ERR the reply is larger than {REPLY_MAX} bytes; request fewer commands at a time"));
}

fn docs(names: &[&[u8]], one_shard: bool, resp3: bool, out: &mut Vec<u8>) -> Option<Bytes> {
    let docs = encoded::docs(one_shard, resp3);
    if names.is_empty() {
        return Some(docs.all());
    }
    let rows: Vec<_> = names.iter().filter_map(|name| find(name, one_shard)).collect();
    map(out, resp3, rows.len());
    for row in rows {
        out.extend_from_slice(docs.of(row));
        if out.len() > REPLY_MAX {
            too_much(out);
            break;
        }
    }
    None
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
    let rows = encoded::rows(one_shard).iter().filter(|row| wanted(row));
    let names: Vec<_> = rows.map(|row| row.name).collect();
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
            let mut plan = Plan::default();
            answer(&[b"COMMAND", b"LIST", b"FILTERBY", b"PATTERN", &pattern], false, false, &mut plan);
            assert!(plan.reply.starts_with(b"*"));
        }
    }
}
