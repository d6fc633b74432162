//! What becomes of every command, for people and programs: `memstore commands` and docs/command-table.md.

use std::fmt::Write as _;

use serde_json::json;

use super::table::COMMANDS;
use super::{Command, FAMILIES, Handling, Local, Merge, Reach, ScriptKind, Version};

/// All rows but those of containers, which do nothing themselves.
fn rows() -> impl Iterator<Item = &'static Command<'static>> {
    COMMANDS
        .iter()
        .flat_map(|command| std::iter::once(command).chain(command.subcommands))
        .filter(|command| command.handling != Handling::Container)
}

fn display_name(command: &Command) -> String {
    command.name.replace('|', " ").to_uppercase()
}

/// A table for each kind of data, as docs/command-table.md has them.
pub fn markdown() -> String {
    let mut text = String::new();
    // What is about no kind of data comes last.
    for family in (1..FAMILIES.len()).chain([0]) {
        let mut rows = rows().filter(|command| command.family == family).peekable();
        if rows.peek().is_none() {
            continue;
        }
        let _ = writeln!(text, "## {}\n", FAMILIES[family]);
        text.push_str("| Command | Redis | Valkey | what becomes of it |\n|---|---|---|---|\n");
        for command in rows {
            let since =
                |version: Option<Version>| version.map(|version| version.to_string()).unwrap_or_default();
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} |",
                display_name(command),
                since(command.since.redis),
                since(command.since.valkey),
                outcome(command).replace('|', "\\|"),
            );
        }
        text.push('\n');
    }
    text
}

/// The same as a list.
pub fn json() -> String {
    let rows: Vec<_> = rows()
        .map(|command| {
            json!({
                "command": display_name(command),
                "family": FAMILIES[command.family],
                "redis": command.since.redis.map(|version| version.to_string()),
                "valkey": command.since.valkey.map(|version| version.to_string()),
                "handling": word(command.handling),
                "description": outcome(command),
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::from(rows))
}

/// What a program tells the ways apart by.
fn word(handling: Handling) -> &'static str {
    match handling {
        Handling::Forward | Handling::ToChannel | Handling::Run(_) => "forwarded",
        Handling::Split(_) => "split",
        Handling::Answer(_) => "answered",
        Handling::Container => "container",
        Handling::Block(_) | Handling::Watch => "own connection",
        Handling::Confirm { .. } | Handling::ToAll(..) | Handling::Scan | Handling::AskChannels(_) => {
            "all shards"
        }
        Handling::Listen(..) => "subscribed",
        Handling::Later(_) | Handling::Refuse(_) => "refused",
    }
}

/// What becomes of it in a pool of several shards.
fn outcome(command: &Command) -> String {
    match command.handling {
        Handling::Forward if command.keys.is_empty() => "to any shard".into(),
        Handling::Forward => "to the shard of its keys".into(),
        Handling::Run(kind) => match kind {
            ScriptKind::Function => "the function runs on the shard of its keys".into(),
            _ => "the script runs on the shard of its keys".into(),
        },
        Handling::Split(merge) => format!("split by shard; {}", merged(merge)),
        Handling::Answer(Local::Info) => {
            "answered by the proxy, with what all shards say where a section is named".into()
        }
        Handling::Answer(Local::Monitor) => "only with `monitor`: answered by the proxy".into(),
        Handling::Answer(_) => "answered by the proxy".into(),
        Handling::Container => String::new(),
        Handling::Block(_) => "to the shard of its keys, on a connection of its own while it waits".into(),
        Handling::Watch => {
            "to the shard of its keys, on a connection of its own until EXEC or UNWATCH".into()
        }
        Handling::Confirm { .. } => "to all shards; the least number counts".into(),
        Handling::Listen(_, true) => "the proxy subscribes on the shards".into(),
        Handling::Listen(_, false) => "the proxy unsubscribes once nobody is left".into(),
        Handling::ToChannel => "to the shard that owns the channel".into(),
        Handling::ToAll(merge, reach) => {
            let only = match reach {
                Reach::Disk => "only with `save_all_shards`: ",
                Reach::Names => "unless `keys_all_shards` forbids it: ",
                Reach::Database | Reach::Server => "",
            };
            format!("{only}to all shards; {}", merged(merge))
        }
        Handling::Scan => "one shard after the other".into(),
        Handling::AskChannels(merge) => format!("to the shards that know the channels; {}", merged(merge)),
        Handling::Later(feature) if feature.is_served_by_one_shard() => {
            format!("only in pools of one shard: {}", feature.refusal())
        }
        Handling::Later(feature) => format!("refused: {}", feature.refusal()),
        Handling::Refuse(reason) => format!("refused: {reason}"),
    }
}

/// What becomes of the replies of several shards.
fn merged(merge: Merge) -> &'static str {
    match merge {
        Merge::Array => "the values in the order of the keys",
        Merge::Sum => "numbers are added up",
        Merge::AllOk | Merge::AllReset => "OK if all say so",
        Merge::Transaction => "the replies in the order of the commands",
        Merge::Counts(_) => "the number for each channel",
        Merge::Union => "what any of them says, once",
        Merge::Most => "the largest number",
        Merge::Least => "the smallest number",
        Merge::Keys => "the keys of all",
        Merge::Every => "1 where all say so",
        Merge::Same => "what they agree on",
        Merge::AnyDone => "an error only if all say one",
        Merge::Modules => "modules by name and version",
        Merge::Page(_) | Merge::ScanEnd(_) => "page by page",
        Merge::Any(_) => "the reply of any of them",
        Merge::Log(_) => "the newest entries",
        Merge::History => "ordered by time",
        Merge::Latest => "the latest of each event",
        Merge::Texts => "texts below the names of the shards",
        Merge::Parameters => "parameters that they agree on",
        Merge::Sections(_) => "sections are merged",
        Merge::MemoryStats => "figures are added up",
        Merge::Histogram => "histograms are added up",
        Merge::Own(..) => "what the one that is asked says",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_in_the_docs_are_the_codes() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/command-table.md");
        let page = std::fs::read_to_string(&path).expect("docs/command-table.md");
        let start = page.find("## ").expect("the tables");
        let tables = format!("{}\n", markdown().trim_end());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, format!("{}{tables}", &page[..start])).expect("it can be written");
            return;
        }
        for (kept, told) in page[start..].lines().zip(tables.lines()) {
            assert_eq!(kept, told, "`make commands` writes the tables of docs/command-table.md");
        }
        assert_eq!(page[start..], tables, "`make commands` writes the tables of docs/command-table.md");
    }
}
