//! Clients ask COMMAND where keys stand and what may be sent, so it has to tell what this proxy does and not what some
//! shard would do: commands that are refused, or not supported yet, are left out as if they did not exist.
//!
//! Replies have the shape that Redis gives them. COMMAND DOCS leaves out history and complexity, which only people read.
//! Source: <https://redis.io/docs/latest/commands/command/>.

use bytes::Bytes;

use super::encoded;
use crate::protocol::Plan;
use crate::protocol::glob;
use crate::protocol::resp::Resp;
use crate::protocol::resp::command::index::lookup;
use crate::protocol::resp::command::info::{info, names};
use crate::protocol::resp::command::{Categories, Command, Commands, WrongArity, access, flag, served};
use crate::protocol::resp::encode::{array, bulk, error, integer, map, null, simple};

/// Several times what all rows take.
const REPLY_MAX: usize = 4 << 20;

/// What there is: of our own rows and of those that the shards have told of.
#[derive(Clone, Copy)]
struct Known<'s> {
    one_shard: bool,
    commands: &'s Commands,
}

/// Answers COMMAND and its subcommands; `args` starts with the word COMMAND. A pool of one shard does more, and what there is
/// besides depends on what the shards have. A reply that is the same for everybody is shared instead of written.
pub fn answer(args: &[&[u8]], one_shard: bool, commands: &Commands, resp3: bool, plan: &mut Plan<Resp>) {
    let known = Known { one_shard, commands };
    let Plan { reply: out, shared, searched, .. } = plan;
    let Some((name, rest)) = args.get(1..).and_then(<[_]>::split_first) else {
        *shared = known.infos(&[], resp3, out);
        return;
    };
    let row = lookup(b"command").and_then(|container| container.subcommand(name));
    match row {
        Some(row) if !row.accepts(args.len()) => error(out, &WrongArity(row).to_string()),
        Some(row) => match row.name {
            "command|info" => *shared = known.infos(rest, resp3, out),
            "command|docs" => *shared = known.docs(rest, resp3, out),
            "command|count" => integer(out, known.names().filter(|name| !name.contains('|')).count() as i64),
            "command|list" => {
                // Also for a reply of a few bytes.
                *searched = known.cost();
                known.list(rest, out);
            }
            "command|getkeys" => known.keys(rest, false, resp3, out),
            "command|getkeysandflags" => known.keys(rest, true, resp3, out),
            "command|help" => help(lookup(b"command").expect("its subcommand was found"), one_shard, out),
            _ => unknown_subcommand("command", name, out),
        },
        None => unknown_subcommand("command", name, out),
    }
}

/// Writes the names of the commands of this category; none that the proxy does not do. False where there is no such category.
/// `searched` is what that costs, in rows.
pub fn of_category(
    name: &[u8],
    one_shard: bool,
    commands: &Commands,
    searched: &mut usize,
    out: &mut Vec<u8>,
) -> bool {
    let is_it = |known: &str| name.eq_ignore_ascii_case(&known.as_bytes()[1..]);
    if !Categories::ALL.names().any(is_it) {
        return false;
    }
    let known = Known { one_shard, commands };
    *searched = known.cost();
    known.list(&[b"FILTERBY", b"ACLCAT", name], out);
    true
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

impl Known<'_> {
    /// How many rows are walked for a list.
    fn cost(&self) -> usize {
        encoded::rows(self.one_shard).len() + self.commands.learnt().count()
    }

    /// Finds `config|get` as well as `get`.
    fn find(&self, name: &[u8]) -> Option<&'static Command<'static>> {
        let row = match name.iter().position(|byte| *byte == b'|') {
            Some(bar) => lookup(&name[..bar])?.subcommand(&name[bar + 1..]),
            None => lookup(name),
        };
        row.filter(|row| row.is_served(self.one_shard) && !self.commands.lacks(row))
    }

    /// Rows of ours, subcommands behind their containers.
    fn rows(&self) -> impl Iterator<Item = &'static Command<'static>> {
        encoded::rows(self.one_shard).iter().copied().filter(|row| !self.commands.lacks(row))
    }

    /// Those that the shards have told of.
    fn learnt(&self) -> impl Iterator<Item = Command<'_>> {
        self.commands.learnt().filter(|row| row.is_served(self.one_shard))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.rows().map(|row| row.name).chain(self.learnt().map(|row| row.name))
    }

    fn infos(&self, names: &[&[u8]], resp3: bool, out: &mut Vec<u8>) -> Option<Bytes> {
        let infos = encoded::infos(self.one_shard, resp3);
        let one_shard = self.one_shard;
        if names.is_empty() {
            if self.commands.is_ours() {
                return Some(infos.all());
            }
            let is_no_part = |row: &Command| !row.name.contains('|');
            array(out, self.names().filter(|name| !name.contains('|')).count());
            self.rows().filter(|row| is_no_part(row)).for_each(|row| out.extend_from_slice(infos.of(row)));
            self.learnt().filter(is_no_part).for_each(|row| info(&row, one_shard, resp3, out));
            return None;
        }
        array(out, names.len());
        for name in names {
            match (self.find(name), lookup(name)) {
                (Some(row), _) => out.extend_from_slice(infos.of(row)),
                (None, Some(_)) => null(out, resp3),
                (None, None) => match self.commands.find(name, None).filter(|row| row.is_served(one_shard)) {
                    Some(row) => info(&row, one_shard, resp3, out),
                    None => null(out, resp3),
                },
            }
            if out.len() > REPLY_MAX {
                too_much(out);
                break;
            }
        }
        None
    }

    /// What the shards have told of has none.
    fn docs(&self, names: &[&[u8]], resp3: bool, out: &mut Vec<u8>) -> Option<Bytes> {
        let docs = encoded::docs(self.one_shard, resp3);
        if names.is_empty() && self.commands.is_ours() {
            return Some(docs.all());
        }
        let rows: Vec<_> = match names {
            [] => self.rows().filter(|row| !row.name.contains('|')).collect(),
            names => names.iter().filter_map(|name| self.find(name)).collect(),
        };
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

    fn list(&self, filter: &[&[u8]], out: &mut Vec<u8>) {
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
                    // Of which module a command is no server says.
                    Box::new(|_| false)
                } else {
                    return error(out, "ERR syntax error");
                }
            }
            _ => return error(out, "ERR syntax error"),
        };
        let own = self.rows().filter(|row| wanted(row)).map(|row| row.name);
        let names: Vec<_> = own.chain(self.learnt().filter(|row| wanted(row)).map(|row| row.name)).collect();
        array(out, names.len());
        names.into_iter().for_each(|name| bulk(out, name.as_bytes()));
    }

    /// COMMAND GETKEYS of any row, also of commands that the proxy does not do: that harms nobody.
    fn keys(&self, args: &[&[u8]], flags: bool, resp3: bool, out: &mut Vec<u8>) {
        let row = args.first().and_then(|name| lookup(name));
        let row = match (row, args.get(1)) {
            (Some(container), Some(name)) if !container.subcommands.is_empty() => container.subcommand(name),
            _ => row,
        };
        let learnt = match (row, args) {
            (None, [name, rest @ ..]) => self.commands.find(name, rest.first().copied()),
            _ => None,
        };
        match row.or(learnt.as_ref()).filter(|row| !self.commands.lacks(row)) {
            Some(row) => keys_of(row, args, flags, resp3, out),
            None => error(out, "ERR Invalid command specified"),
        }
    }
}

/// The rows are not worth a reply that is many times the request.
fn too_much(out: &mut Vec<u8>) {
    *out = Vec::new();
    error(out, &format!("ERR the reply is larger than {REPLY_MAX} bytes; request fewer commands at a time"));
}

fn keys_of(row: &Command, args: &[&[u8]], flags: bool, resp3: bool, out: &mut Vec<u8>) {
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
            answer(
                &[b"COMMAND", b"LIST", b"FILTERBY", b"PATTERN", &pattern],
                false,
                &Commands::default(),
                false,
                &mut plan,
            );
            assert!(plan.reply.starts_with(b"*"));
        }
    }
}
