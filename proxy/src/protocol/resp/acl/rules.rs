//! Which commands are allowed: rules such as `+get`, `-@dangerous` and `+config|get` one after the other, of which the last one that
//! names a command counts, and what comes of them as a bit for each row of our table.
//!
//! What each rule does is what Redis does with it, also where that is odd: a category that has a container takes its subcommands along.
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/>.

use std::fmt;
use std::ptr::from_ref;

use crate::protocol::resp::command::index::lookup;
use crate::protocol::resp::command::table::COMMANDS;
use crate::protocol::resp::command::{Categories, Command};

/// Words of 64 bits: room for more rows than there are.
const WORDS: usize = 12;

/// A set of rows of our table, subcommands among them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CommandSet([u64; WORDS]);

impl CommandSet {
    /// None of them.
    pub const NONE: Self = Self([0; WORDS]);
    /// All of them.
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    #[inline]
    fn has(&self, number: usize) -> bool {
        self.0[number / 64] & (1 << (number % 64)) != 0
    }

    fn put(&mut self, number: usize, allows: bool) {
        let bit = 1 << (number % 64);
        if allows {
            self.0[number / 64] |= bit;
        } else {
            self.0[number / 64] &= !bit;
        }
    }
}

impl fmt::Debug for CommandSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = all_rows().filter(|row| number_of(row).is_some_and(|number| self.has(number)));
        formatter.debug_set().entries(rows.map(|row| row.name)).finish()
    }
}

/// The numbers of rows: a row comes before its subcommands, in the order of the table.
static NUMBERS: [u16; 512] = numbers();

const fn numbers() -> [u16; 512] {
    let mut numbers = [0; 512];
    let (mut row, mut next) = (0, 0);
    while row < COMMANDS.len() {
        numbers[row] = next;
        next += 1 + COMMANDS[row].subcommands.len() as u16;
        row += 1;
    }
    assert!(next as usize <= 64 * WORDS, "there are more rows than bits");
    numbers
}

/// The number of a row of our table; none of a command that a shard has told of.
#[inline]
fn number_of(command: &Command<'_>) -> Option<usize> {
    match place_in(&COMMANDS, command) {
        Some(place) => Some(usize::from(NUMBERS[place])),
        None => number_of_subcommand(command),
    }
}

fn number_of_subcommand(command: &Command<'_>) -> Option<usize> {
    let (container, _) = command.name.split_once('|')?;
    let container = lookup(container.as_bytes())?;
    let place = place_in(container.subcommands, command)?;
    Some(usize::from(NUMBERS[place_in(&COMMANDS, container)?]) + 1 + place)
}

/// Where it stands among these, by its place in memory.
#[inline]
fn place_in(rows: &[Command<'_>], row: &Command<'_>) -> Option<usize> {
    let offset = from_ref(row).addr().wrapping_sub(rows.as_ptr().addr());
    (offset < size_of_val(rows)).then_some(offset / size_of::<Command<'_>>())
}

fn all_rows() -> impl Iterator<Item = &'static Command<'static>> {
    COMMANDS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands))
}

/// What commands and categories are called that rules may name; categories with their `@`.
pub fn names() -> impl Iterator<Item = &'static str> {
    all_rows().map(|row| row.name).chain(["@all"]).chain(Categories::ALL.names())
}

/// Why a word is no rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuleError {
    /// It does not begin with `+` or `-`.
    NoRule,
    /// No command has this name.
    UnknownCommand,
    /// The command has no subcommand of this name.
    UnknownSubcommand,
    /// No category has this name.
    UnknownCategory,
    /// First arguments of subcommands cannot be told apart.
    FirstArgumentOfSubcommand,
    /// A first argument can be allowed, not forbidden.
    FirstArgumentForbidden,
}

impl fmt::Display for RuleError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoRule => "a rule for commands begins with + or -",
            Self::UnknownCommand => "there is no such command (those of modules have a dot in their names)",
            Self::UnknownSubcommand => "the command has no such subcommand",
            Self::UnknownCategory => "there is no such category; ACL CAT lists them",
            Self::FirstArgumentOfSubcommand => "arguments of subcommands cannot be told apart",
            Self::FirstArgumentForbidden => {
                "a first argument can be allowed (+command|argument), not forbidden"
            }
        })
    }
}

/// Rules about commands, and what comes of them.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandRules {
    set: CommandSet,
    /// It began with all commands, else with none.
    all: bool,
    /// What came then, each name once: the last rule with it.
    rules: Vec<Rule>,
    /// First arguments that are allowed of rows that are not, by number.
    first: Vec<(usize, Box<[u8]>)>,
}

#[derive(Clone, PartialEq, Eq)]
struct Rule {
    allows: bool,
    /// In lower case: `get`, `config|get`, `select|0` or `@read`.
    name: Box<str>,
}

impl CommandRules {
    /// No command.
    pub fn none() -> Self {
        Self { set: CommandSet::NONE, all: false, rules: Vec::new(), first: Vec::new() }
    }

    /// All commands, also those that nobody has thought of yet.
    pub fn all() -> Self {
        Self { set: CommandSet::ALL, all: true, rules: Vec::new(), first: Vec::new() }
    }

    /// Whether every command is allowed, also those that shards may tell of.
    pub fn is_all(&self) -> bool {
        self.all && self.rules.iter().all(|rule| rule.allows)
    }

    /// One more rule: `+name`, `-name`, `+container|subcommand`, `+command|argument`, `+@category`, `allcommands` and their like, in any
    /// case.
    ///
    /// # Errors
    /// Says why it is none; nothing has changed then.
    pub fn add(&mut self, word: &str) -> Result<(), RuleError> {
        let word = word.to_ascii_lowercase();
        match &*word {
            "allcommands" | "+@all" => *self = Self::all(),
            "nocommands" | "-@all" => *self = Self::none(),
            _ => {
                let allows = match word.as_bytes().first() {
                    Some(b'+') => true,
                    Some(b'-') => false,
                    _ => return Err(RuleError::NoRule),
                };
                self.change(&word[1..], allows)?;
                self.note(&word[1..], allows);
            }
        }
        Ok(())
    }

    fn change(&mut self, name: &str, allows: bool) -> Result<(), RuleError> {
        if name.starts_with('@') {
            let bit = Categories::bit(name.as_bytes());
            if bit == 0 {
                return Err(RuleError::UnknownCategory);
            }
            let of_category = all_rows().filter(|row| row.categories.has(bit));
            of_category.for_each(|row| self.put(row, allows));
            return Ok(());
        }
        let (command, behind) = match name.split_once('|') {
            Some((command, behind)) => (command, Some(behind)),
            None => (name, None),
        };
        let Some(row) = lookup(command.as_bytes()) else {
            return if is_of_module(command) { Ok(()) } else { Err(RuleError::UnknownCommand) };
        };
        let Some(behind) = behind else {
            self.put(row, allows);
            return Ok(());
        };
        if row.subcommands.is_empty() {
            if behind.is_empty() {
                return Err(RuleError::UnknownSubcommand);
            }
            if !allows {
                return Err(RuleError::FirstArgumentForbidden);
            }
            let number = number_of(row).expect("it is in our table");
            self.first.push((number, behind.as_bytes().into()));
            return Ok(());
        }
        match row.subcommand(behind.as_bytes()) {
            Some(row) => self.put(row, allows),
            None if behind.contains('|') => return Err(RuleError::FirstArgumentOfSubcommand),
            None => return Err(RuleError::UnknownSubcommand),
        }
        Ok(())
    }

    /// A row, with its subcommands.
    fn put(&mut self, row: &'static Command<'static>, allows: bool) {
        for row in std::iter::once(row).chain(row.subcommands) {
            let number = number_of(row).expect("it is in our table");
            self.set.put(number, allows);
            self.first.retain(|(of, _)| *of != number);
        }
    }

    /// What was said of the same name before does not count any more.
    fn note(&mut self, name: &str, allows: bool) {
        let is_below = |known: &str| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('|'));
        self.rules.retain(|rule| *rule.name != *name && !is_below(&rule.name));
        self.rules.push(Rule { allows, name: name.into() });
    }

    /// Whether a row of our table is allowed, whatever its arguments.
    #[inline]
    pub fn allows_row(&self, row: &Command<'_>) -> bool {
        number_of(row).is_some_and(|number| self.set.has(number))
    }

    /// Whether the command is allowed, with this first argument.
    pub fn allows(&self, command: &Command<'_>, first: Option<&[u8]>) -> bool {
        if command.is_learnt() {
            return self.allows_learnt(command);
        }
        let Some(number) = number_of(command) else { return self.all && self.rules.is_empty() };
        let is_first = |known: &[u8]| first.is_some_and(|first| first.eq_ignore_ascii_case(known));
        self.set.has(number) || self.first.iter().any(|(of, known)| *of == number && is_first(known))
    }

    /// One that a shard has told of: by the rules, one after the other.
    fn allows_learnt(&self, command: &Command<'_>) -> bool {
        let name = command.name;
        let container = name.split_once('|').map_or(name, |(container, _)| container);
        let says = |rule: &&Rule| match rule.name.starts_with('@') {
            true => command.categories.has(Categories::bit(rule.name.as_bytes())),
            false => [name, container].iter().any(|name| rule.name.eq_ignore_ascii_case(name)),
        };
        self.rules.iter().rev().find(says).map_or(self.all, |rule| rule.allows)
    }

    /// Memory it holds beside itself.
    pub fn bytes(&self) -> usize {
        let rules: usize = self.rules.iter().map(|rule| size_of::<Rule>() + rule.name.len()).sum();
        let first = self.first.iter().map(|(_, first)| size_of::<(usize, Box<[u8]>)>() + first.len());
        rules + first.sum::<usize>()
    }
}

/// The rules, as a server of Redis shows them.
impl fmt::Display for CommandRules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.all { "+@all" } else { "-@all" })?;
        for Rule { allows, name } in &self.rules {
            write!(formatter, " {}{name}", if *allows { '+' } else { '-' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for CommandRules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Commands of modules are known once a shard has told of them, which is long after rules are read: by their names they cannot be
/// mistaken for others.
fn is_of_module(name: &str) -> bool {
    name.contains('.') && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> CommandRules {
        let mut rules = CommandRules::none();
        text.split_whitespace()
            .for_each(|word| rules.add(word).unwrap_or_else(|error| panic!("{word}: {error}")));
        rules
    }

    fn row(name: &str) -> &'static Command<'static> {
        all_rows().find(|row| row.name == name).expect("a row")
    }

    /// `allowed` and `denied` are names, with a first argument behind a colon.
    fn check(text: &str, allowed: &str, denied: &str) {
        let rules = rules(text);
        for (names, expected) in [(allowed, true), (denied, false)] {
            for name in names.split_whitespace() {
                let (name, first) =
                    name.split_once(':').map_or((name, None), |(name, first)| (name, Some(first)));
                let found = rules.allows(row(name), first.map(str::as_bytes));
                assert_eq!(found, expected, "{text}: {name} {first:?}");
            }
        }
    }

    #[test]
    fn each_row_has_a_number_of_its_own() {
        let mut seen = CommandSet::NONE;
        for row in all_rows() {
            let number = number_of(row).expect("a number");
            assert!(!seen.has(number), "{}", row.name);
            seen.put(number, true);
            assert!(CommandSet::ALL.has(number));
        }
    }

    #[test]
    fn the_last_rule_that_names_a_command_counts() {
        check("+get", "get", "set config|get");
        check("+GET -get", "", "get");
        check("+@read -get +get -mget", "get strlen", "mget set");
        check("+@all -@dangerous", "get set ping", "flushall keys config|set client|kill");
        check("-@all", "", "get");
        check("allcommands nocommands +ping", "ping", "get");
        check("+config|get", "config|get", "config|set config");
        check("+config -config|set", "config|get", "config|set");
        check("+config|get -config", "", "config|get");
        check("+@all -config +config|get", "get config|get", "config|set");
        check("+select|0 +select|1", "select:0 select:1", "select:2 select");
        check("+select|0 -select", "", "select:0");
        check("+select|0 +select", "select:7", "");
        check("+acl|whoami +@connection", "acl|whoami ping client|id", "acl|list");
    }

    #[test]
    fn what_is_shown_is_what_counts() {
        for (text, shown) in [
            ("", "-@all"),
            ("+@all", "+@all"),
            ("+@read -get +GET", "-@all +@read +get"),
            ("+config|get +config|set -config", "-@all -config"),
            ("+get -@all +@all -keys", "+@all -keys"),
            ("+select|0 +json.get", "-@all +select|0 +json.get"),
        ] {
            let read = rules(text);
            assert_eq!(read.to_string(), shown);
            let again = rules(&read.to_string());
            assert_eq!(again, read);
        }
        assert!(rules("+@all").is_all() && rules("+@all +get").is_all());
        assert!(!rules("+@all -get").is_all() && !rules("+@read").is_all());
    }

    #[test]
    fn what_is_no_rule_says_why() {
        for (word, error) in [
            ("get", RuleError::NoRule),
            ("", RuleError::NoRule),
            ("+", RuleError::UnknownCommand),
            ("+gett", RuleError::UnknownCommand),
            ("-@reed", RuleError::UnknownCategory),
            ("+@", RuleError::UnknownCategory),
            ("+config|gett", RuleError::UnknownSubcommand),
            ("+config|", RuleError::UnknownSubcommand),
            ("+get|", RuleError::UnknownSubcommand),
            ("+config|get|x", RuleError::FirstArgumentOfSubcommand),
            ("-select|0", RuleError::FirstArgumentForbidden),
        ] {
            let mut read = rules("+@read");
            assert_eq!(read.add(word), Err(error), "{word}");
            assert_eq!(read, rules("+@read"));
        }
    }
}
