//! The listeners of a pool: one address, or a list of addresses with settings of their own.

use shard_discovery::yaml::{Node, Value};

use super::Surroundings;
use super::listen::Listen;
use super::section::Section;
use super::settings;
use super::tls::{ClientTls, read_tls};
use super::value::boolean;

/// Listeners of one pool: each has a task, and handshakes of its own that may be under way.
pub const LISTENERS_MAX: usize = 64;

/// Where clients of a pool connect, and what holds for those that do there. [`settings::LISTENER`] says what each setting means.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)] // the table has it
pub struct Listener {
    pub at: Listen,
    pub tls: Option<ClientTls>,
}

/// The listeners of a pool, at least one; none after a mistake. What its own `tls` says holds where an entry says nothing else.
pub(super) fn read_listeners(section: &mut Section<'_, '_>, around: &Surroundings<'_>) -> Vec<Listener> {
    let default = read_tls(section, around);
    let Some(Node { place, value }) = section.node("listen") else {
        section.missing("listen");
        return Vec::new();
    };
    let nodes = match value {
        Value::Text(_) => {
            let at = section.optional("listen", Listen::parse);
            return at.map(|at| Listener { at, tls: default }).into_iter().collect();
        }
        Value::List(nodes) if !nodes.is_empty() && nodes.len() <= LISTENERS_MAX => nodes,
        Value::List(nodes) => {
            let text = format!("listen has {} entries; allowed are 1 to {LISTENERS_MAX}", nodes.len());
            section.wrong(*place, text);
            return Vec::new();
        }
        other => {
            let text = format!("listen has to be an address or a list of them, not {}", other.kind());
            section.wrong(*place, text);
            return Vec::new();
        }
    };
    let mut found: Vec<Listener> = Vec::new();
    for node in nodes {
        let Some(listener) = read_listener(section, node, default.as_ref(), around) else { continue };
        if found.iter().any(|other| other.at.to_string() == listener.at.to_string()) {
            section.wrong(node.place, format!("listen: {} is listed twice", listener.at));
        }
        found.push(listener);
    }
    found
}

/// An entry of the list.
fn read_listener(
    outer: &mut Section<'_, '_>,
    node: &Node,
    default: Option<&ClientTls>,
    around: &Surroundings<'_>,
) -> Option<Listener> {
    let entries = match &node.value {
        Value::Text(text) => match Listen::parse(text) {
            Ok(at) => return Some(Listener { at, tls: default.cloned() }),
            Err(allowed) => {
                outer.wrong(node.place, format!("listen: {text:?} cannot be used: {allowed}"));
                return None;
            }
        },
        Value::Map(entries) => entries,
        other => {
            let text = format!("listen: an entry has to be an address or a mapping, not {}", other.kind());
            outer.wrong(node.place, text);
            return None;
        }
    };
    let has_default = outer.has("tls");
    let mut section = outer.below("listen", node.place, entries, settings::LISTENER);
    let at = section.required("address", Listen::parse);
    let tls = match section.node("tls") {
        None => default.cloned(),
        Some(Node { value: Value::Map(_), .. }) => read_tls(&mut section, around),
        Some(_) => match section.optional("tls", boolean) {
            Some(true) if !has_default => {
                let place = section.place("tls");
                section.wrong(
                    place,
                    "tls: true needs the tls of the pool; or write a mapping with certificate and key",
                );
                None
            }
            Some(true) => default.cloned(),
            Some(false) | None => None,
        },
    };
    Some(Listener { at: at?, tls })
}
