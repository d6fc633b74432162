//! COMMAND and COMMAND DOCS, encoded once for each way to ask: these are large replies made of thousands of small pieces,
//! and anybody may ask for them as often as he likes. What is served at all is found once, too.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;

use crate::protocol::resp::command::docs::doc;
use crate::protocol::resp::command::info::info;
use crate::protocol::resp::command::table::COMMANDS;
use crate::protocol::resp::command::{Command, served};
use crate::protocol::resp::encode::{array, map};

/// All that is served, subcommands behind their containers.
pub fn rows(one_shard: bool) -> &'static [&'static Command<'static>] {
    static KEPT: [OnceLock<Vec<&'static Command<'static>>>; 2] = [const { OnceLock::new() }; 2];
    KEPT[usize::from(one_shard)].get_or_init(|| {
        served(&COMMANDS, one_shard)
            .flat_map(|row| std::iter::once(row).chain(served(row.subcommands, one_shard)))
            .collect()
    })
}

/// What is said of each command, and of all together.
pub struct Encoded {
    bytes: Bytes,
    /// The reply about all: so many of the first bytes.
    all: usize,
    /// By full name, also of subcommands.
    places: HashMap<&'static str, Range<usize>>,
}

impl Encoded {
    fn new(
        one_shard: bool,
        header: impl Fn(&mut Vec<u8>, usize),
        row: impl Fn(&Command, &mut Vec<u8>),
    ) -> Self {
        let mut bytes = Vec::new();
        let mut places = HashMap::new();
        let mut add = |command: &'static Command<'static>, bytes: &mut Vec<u8>| {
            let start = bytes.len();
            row(command, bytes);
            places.insert(command.name, start..bytes.len());
        };
        header(&mut bytes, served(&COMMANDS, one_shard).count());
        served(&COMMANDS, one_shard).for_each(|command| add(command, &mut bytes));
        let all = bytes.len();
        // Also where nothing but its HELP is served of a container, which is not listed then.
        for container in &COMMANDS {
            served(container.subcommands, one_shard).for_each(|command| add(command, &mut bytes));
        }
        Self { bytes: bytes.into_boxed_slice().into(), all, places }
    }

    /// The reply about all commands.
    pub fn all(&self) -> Bytes {
        self.bytes.slice(..self.all)
    }

    /// What is said of one that is served.
    pub fn of(&self, command: &Command) -> &[u8] {
        &self.bytes[self.places[command.name].clone()]
    }
}

/// Where the encodings are kept: not for a pool of one shard or for it, in RESP2 or in RESP3.
type Kept = [[OnceLock<Encoded>; 2]; 2];

/// What COMMAND and COMMAND INFO list.
pub fn infos(one_shard: bool, resp3: bool) -> &'static Encoded {
    static KEPT: Kept = [const { [const { OnceLock::new() }; 2] }; 2];
    KEPT[usize::from(one_shard)][usize::from(resp3)]
        .get_or_init(|| Encoded::new(one_shard, array, |row, out| info(row, one_shard, resp3, out)))
}

/// What COMMAND DOCS says.
pub fn docs(one_shard: bool, resp3: bool) -> &'static Encoded {
    static KEPT: Kept = [const { [const { OnceLock::new() }; 2] }; 2];
    KEPT[usize::from(one_shard)][usize::from(resp3)].get_or_init(|| {
        let header = |out: &mut Vec<u8>, count| map(out, resp3, count);
        Encoded::new(one_shard, header, |row, out| doc(row, &|row| row.is_served(one_shard), resp3, out))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_can_be_found_is_encoded() {
        for (one_shard, resp3) in [(false, false), (false, true), (true, false), (true, true)] {
            let (infos, docs) = (infos(one_shard, resp3), docs(one_shard, resp3));
            let subcommands = COMMANDS.iter().flat_map(|row| row.subcommands);
            for row in COMMANDS.iter().chain(subcommands).filter(|row| row.is_served(one_shard)) {
                assert!(infos.of(row).len() > row.name.len() && docs.of(row).len() > row.name.len());
            }
        }
    }
}
