//! What COMMAND DOCS says of a command. `redis-cli` makes its hints from the arguments, which are by far the largest part of
//! the table; so a row holds one text, of which nothing is read, nor paged in, before somebody asks.
//!
//! The text has parts between tabs: group, summary, arguments, then names and values in turn. An argument is
//! `name:type`, with what else is said of it behind commas and its own arguments in brackets:
//! `key:key,key_spec_index=0 condition:oneof,optional[nx:pure-token,token=NX xx:pure-token,token=XX]`.
//! Source of names and their order: <https://redis.io/docs/latest/commands/command-docs/>.

use super::{Command, Docs};
use crate::protocol::resp::encode::{array, bulk, integer, map, set, simple};

impl Docs {
    /// The part at this place.
    fn part(self, place: usize) -> &'static str {
        self.0.split('\t').nth(place).unwrap_or_default()
    }

    /// What the command does, in one sentence.
    pub fn summary(self) -> &'static str {
        self.part(1)
    }

    /// The arguments, as the table has them.
    fn arguments(self) -> &'static str {
        self.part(2)
    }

    /// What is said under this name; None if nothing is.
    pub fn said(self, name: &str) -> Option<&'static str> {
        let known = [("group", self.part(0)), ("summary", self.summary()), ("arguments", self.arguments())];
        let found = known.into_iter().chain(self.further()).find(|(known, _)| *known == name);
        found.map(|(_, said)| said).filter(|said| !said.is_empty())
    }

    /// What is said beyond group, summary and arguments.
    fn further(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let mut parts = self.0.split('\t').skip(3);
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }
}

/// Writes the documentation of a row: its name, and a map without those subcommands that are not `served`.
pub fn doc(row: &Command, served: &dyn Fn(&Command) -> bool, resp3: bool, out: &mut Vec<u8>) {
    let (group, summary, arguments) = (row.docs.part(0), row.docs.summary(), row.docs.arguments());
    let is_deprecated = row.docs.said("deprecated_since").is_some();
    let parts = 3
        + row.docs.further().count()
        + usize::from(is_deprecated)
        + usize::from(!arguments.is_empty())
        + usize::from(!row.subcommands.is_empty());
    bulk(out, row.name.as_bytes());
    map(out, resp3, parts);
    pair("summary", summary, out);
    pair("since", &row.since.first().to_string(), out);
    pair("group", group, out);
    for (name, value) in row.docs.further() {
        if name == "deprecated_since" {
            bulk(out, b"doc_flags");
            set(out, resp3, 1);
            simple(out, "deprecated");
        }
        pair(name, value, out);
    }
    if !arguments.is_empty() {
        bulk(out, b"arguments");
        list(arguments, resp3, out);
    }
    if !row.subcommands.is_empty() {
        let rows = || row.subcommands.iter().filter(|row| served(row));
        bulk(out, b"subcommands");
        map(out, resp3, rows().count());
        rows().for_each(|row| doc(row, served, resp3, out));
    }
}

fn pair(name: &str, value: &str, out: &mut Vec<u8>) {
    bulk(out, name.as_bytes());
    bulk(out, value.as_bytes());
}

fn list(text: &str, resp3: bool, out: &mut Vec<u8>) {
    array(out, arguments(text).count());
    for argument in arguments(text) {
        argument.write(resp3, out);
    }
}

/// One argument of a command.
struct Argument<'a> {
    name: &'a str,
    kind: &'a str,
    /// What else is said of it, between commas.
    said: &'a str,
    /// Its own arguments; empty where it has none.
    inner: &'a str,
}

/// Splits a text at the spaces outside of brackets.
fn arguments(mut text: &str) -> impl Iterator<Item = Argument<'_>> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let mut depth = 0;
        let end = text.bytes().position(|byte| {
            match byte {
                b'[' => depth += 1,
                b']' => depth -= 1,
                _ => {}
            }
            byte == b' ' && depth == 0
        });
        let (argument, rest) = text.split_at(end.unwrap_or(text.len()));
        text = rest.get(1..).unwrap_or_default();
        let (head, inner) = argument.split_once('[').unwrap_or((argument, "]"));
        let (head, said) = head.split_once(',').unwrap_or((head, ""));
        let (name, kind) = head.rsplit_once(':').expect("an argument has a type");
        Some(Argument { name, kind, said, inner: &inner[..inner.len() - 1] })
    })
}

impl<'a> Argument<'a> {
    fn said(&self) -> impl Iterator<Item = &'a str> {
        self.said.split(',').filter(|said| !said.is_empty())
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.said().find_map(|said| said.strip_prefix(name)?.strip_prefix('='))
    }

    fn flags(&self) -> impl Iterator<Item = &'a str> {
        self.said().filter(|said| !said.contains('='))
    }

    fn write(&self, resp3: bool, out: &mut Vec<u8>) {
        let is_leaf = self.inner.is_empty();
        let valued = self.said().filter(|said| said.contains('=') && !said.starts_with("display="));
        let has_flags = self.flags().next().is_some();
        map(out, resp3, 3 + valued.count() + usize::from(has_flags));
        pair("name", self.name, out);
        pair("type", self.kind, out);
        if is_leaf {
            pair("display_text", self.value("display").unwrap_or(self.name), out);
        }
        if let Some(index) = self.value("key_spec_index") {
            bulk(out, b"key_spec_index");
            integer(out, index.parse().expect("an index is a number"));
        }
        for name in ["token", "since", "deprecated_since"] {
            if let Some(value) = self.value(name) {
                pair(name, value, out);
            }
        }
        if has_flags {
            bulk(out, b"flags");
            set(out, resp3, self.flags().count());
            self.flags().for_each(|flag| simple(out, flag));
        }
        if !is_leaf {
            bulk(out, b"arguments");
            list(self.inner, resp3, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, resp3: bool) -> String {
        let mut out = Vec::new();
        list(text, resp3, &mut out);
        String::from_utf8(out).expect("text").replace("\r\n", " ")
    }

    #[test]
    fn arguments_become_maps_within_each_other() {
        assert_eq!(
            written("key:key,key_spec_index=0", false),
            "*1 *8 $4 name $3 key $4 type $3 key $12 display_text $3 key $14 key_spec_index :0 "
        );
        assert_eq!(
            written(
                "a:oneof,since=7.0.0,optional,multiple[b:block,token=B[c:pure-token,token==] d:string]",
                true
            ),
            "*1 %5 $4 name $1 a $4 type $5 oneof $5 since $5 7.0.0 $5 flags ~2 +optional +multiple $9 arguments *2 \
             %4 $4 name $1 b $4 type $5 block $5 token $1 B $9 arguments *1 \
             %4 $4 name $1 c $4 type $10 pure-token $12 display_text $1 c $5 token $1 = \
             %3 $4 name $1 d $4 type $6 string $12 display_text $1 d "
        );
        assert_eq!(
            written("ip:port:string,display=a:b,token=", false),
            "*1 *8 $4 name $7 ip:port $4 type $6 string $12 display_text $3 a:b $5 token $0  "
        );
    }
}
