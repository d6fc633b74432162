//! A list of servers in a file: YAML, or the part of it that JSON is.

use std::path::PathBuf;

use super::fixed::Servers;
use crate::Shard;
use crate::mistake::{Mistake, Mistakes};
use crate::yaml::{self, Node, Value};

/// A file with a list of servers, each a line of [`super::fixed::server`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
}

impl File {
    /// Reads it.
    ///
    /// # Errors
    /// That it cannot be read, or all mistakes in it.
    pub fn read(&self) -> Result<Vec<Shard>, Mistakes> {
        let unreadable = |error| Mistakes::of_all(&self.path, format!("cannot be read: {error}"));
        self.parse(&std::fs::read_to_string(&self.path).map_err(unreadable)?)
    }

    /// Reads what is in it.
    ///
    /// # Errors
    /// All mistakes in it.
    pub fn parse(&self, text: &str) -> Result<Vec<Shard>, Mistakes> {
        let mistakes = |list| Mistakes { origin: self.path.clone(), list };
        let list = yaml::parse(text).map_err(|mistake| mistakes(vec![mistake]))?;
        servers(&list).map_err(mistakes)
    }
}

/// The servers in a list.
///
/// # Errors
/// All mistakes in it.
pub fn servers(list: &Node) -> Result<Vec<Shard>, Vec<Mistake>> {
    let mistake = |place, text| Mistake { place, text };
    let Value::List(lines) = &list.value else {
        let text = format!("servers has to be a list, not {}", list.value.kind());
        return Err(vec![mistake(list.place, text)]);
    };
    if lines.is_empty() {
        return Err(vec![mistake(list.place, "servers is empty; a pool needs at least one".into())]);
    }
    let (mut servers, mut mistakes) = (Servers::default(), Vec::new());
    for Node { place, value } in lines {
        let added = match value {
            Value::Text(line) => servers.add(line, place.line),
            other => Err(format!("a server has to be a string, not {}", other.kind())),
        };
        mistakes.extend(added.err().map(|text| mistake(*place, text)));
    }
    if mistakes.is_empty() { Ok(servers.into_shards()) } else { Err(mistakes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Shard>, String> {
        File { path: "list".into() }.parse(text).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn a_list_is_yaml_and_so_may_be_json() {
        let names = |text: &str| -> Vec<String> {
            parse(text).unwrap().into_iter().map(|shard| shard.name).collect()
        };
        assert_eq!(names("# two\n- h:1:1 a\n- 'h:2:1 b' # blank\n"), ["a", "b"]);
        assert_eq!(names("[\"h:1:1 a\", \"h:2:1 b\"]"), ["a", "b"]);
    }

    #[test]
    fn every_mistake_has_its_place() {
        let told = parse("- h:1:1 a\n- h:1:0 b\n- h:2:1 a\n- [c]\n").unwrap_err();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines,
            [
                "list:2:3: server \"h:1:0 b\" cannot be used: a server of weight 0 gets no keys; leave it out or give it 1",
                "list:3:3: server \"h:2:1 a\" has the name \"a\", as the one in line 1; give one of them another name",
                "list:4:3: a server has to be a string, not a list",
            ]
        );
        assert!(
            parse("servers: []").unwrap_err().contains("list:1:1: servers has to be a list, not a mapping")
        );
        assert!(parse("[]").unwrap_err().contains("is empty"));
        assert!(parse("- 'h").unwrap_err().starts_with("list:"));
    }
}
