//! A mapping of the file, read setting by setting against the table; mistakes are collected, not thrown.

use std::str::FromStr;

use super::kind;
use super::mistake::{Mistake, Place, did_you_mean};
use super::settings::{Setting, row};
use super::shown;
use shard_discovery::yaml::{Entry, Node, Value};

/// A mapping whose settings are taken one by one.
pub struct Section<'n, 'm> {
    title: String,
    place: Place,
    entries: &'n [Entry],
    table: &'static [Setting],
    mistakes: &'m mut Vec<Mistake>,
}

impl<'n, 'm> Section<'n, 'm> {
    /// Begins to read; unknown and repeated keys are mistakes already. `title` names the section in messages.
    pub fn new(
        title: String,
        place: Place,
        entries: &'n [Entry],
        table: &'static [Setting],
        mistakes: &'m mut Vec<Mistake>,
    ) -> Self {
        let mut section = Self { title, place, entries, table, mistakes };
        for (index, entry) in entries.iter().enumerate() {
            if !table.iter().any(|setting| setting.name == entry.key) {
                let names = || table.iter().map(|setting| setting.name);
                let meant = did_you_mean(&entry.key, names());
                let allowed = if meant.is_empty() {
                    format!("; allowed are {}", names().collect::<Vec<_>>().join(", "))
                } else {
                    meant
                };
                section.wrong(entry.place, format!("unknown setting {:?}{allowed}", entry.key));
            }
            if let Some(first) = entries[..index].iter().find(|earlier| earlier.key == entry.key) {
                let text = format!("{} is set twice; first in line {}", entry.key, first.place.line);
                section.wrong(entry.place, text);
            }
        }
        section
    }

    /// A mapping that is the value of one of its settings.
    pub fn below<'e>(
        &mut self,
        name: &str,
        place: Place,
        entries: &'e [Entry],
        table: &'static [Setting],
    ) -> Section<'e, '_> {
        Section::new(format!("{}: {name}", self.title), place, entries, table, self.mistakes)
    }

    /// Notes a mistake.
    pub fn wrong(&mut self, place: Place, text: impl std::fmt::Display) {
        self.mistakes.push(Mistake { place, text: format!("{}: {text}", self.title) });
    }

    /// Where a setting is written, or the section if it is not.
    pub fn place(&self, name: &str) -> Place {
        self.entries.iter().find(|entry| entry.key == name).map_or(self.place, |entry| entry.place)
    }

    /// Whether a setting is written.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == name)
    }

    /// The value of a setting, if it is written.
    pub fn node(&self, name: &str) -> Option<&'n Node> {
        debug_assert!(self.table.iter().any(|setting| setting.name == name), "{name} is not in the table");
        self.entries.iter().find(|entry| entry.key == name).map(|entry| &entry.node)
    }

    /// The value of a setting that may be absent.
    pub fn optional<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let node = self.node(name)?;
        match &node.value {
            Value::Text(text) => match read(text) {
                Ok(value) => Some(value),
                Err(allowed) => {
                    let shown = shown::in_mistake(self.table, name, text);
                    self.wrong(node.place, format!("{name}: {shown} cannot be used: {allowed}"));
                    None
                }
            },
            other => {
                let hint = if name == "hash_tag" { "; put its two characters in quotes" } else { "" };
                self.wrong(node.place, format!("{name} has to be a string, not {}{hint}", other.kind()));
                None
            }
        }
    }

    /// The value of a setting as its kind reads it, or its default. After a mistake the default goes on, so that more can be found.
    pub fn value<T: kind::Value>(&mut self, name: &str) -> T {
        let row = row(self.table, name);
        self.setting(name, |text| row.read(text))
    }

    /// The same of a setting that may be absent.
    pub fn value_if_set<T: kind::Value>(&mut self, name: &str) -> Option<T> {
        let row = row(self.table, name);
        self.optional(name, |text| row.read(text))
    }

    /// One of the words of a setting, as what it names.
    pub fn named<T: FromStr>(&mut self, name: &str) -> T {
        let named = self.value::<&str>(name).parse().ok();
        named.unwrap_or_else(|| panic!("{name}: its row has a word that names nothing"))
    }

    /// The value of a setting that its own reader judges, or its default. After a mistake the default goes on, so that more can be found.
    pub fn setting<T>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> T {
        let default = row(self.table, name).default;
        let default =
            read(default.expect("settings with a default are read this way")).expect("defaults are valid");
        self.optional(name, read).unwrap_or(default)
    }

    /// The value of a setting that has to be there.
    pub fn required<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        if !self.has(name) {
            self.missing(name);
        }
        self.optional(name, read)
    }

    /// A required setting is not there.
    pub fn missing(&mut self, name: &str) {
        let allowed = row(self.table, name).kind;
        self.wrong(self.place, format!("{name} is missing; it is {allowed}"));
    }
}
