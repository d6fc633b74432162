//! A pool over a Redis Cluster.

use std::time::Duration;

use shard_discovery::Address;

use super::listen::bare;
use super::mistake::did_you_mean;
use super::section::Section;
use super::settings;
use super::value::positive;
use super::yaml::{Node, Value};

/// Where a cluster is, and how it is used. [`settings::CLUSTER`] says what each means.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)] // the table has it
pub struct Cluster {
    pub seeds: Vec<Address>,
    pub read_from: ReadFrom,
    pub refresh: Duration,
}

/// Who serves commands that only read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadFrom {
    /// Who owns the slot.
    Primary,
    /// A replica, else the primary.
    PreferReplica,
    /// Whoever of them answers fastest.
    Nearest,
}

impl Cluster {
    /// Reads the mapping.
    pub(super) fn read(outer: &mut Section<'_, '_>, node: &Node) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            outer.wrong(node.place, format!("cluster has to be a mapping, not {}", node.value.kind()));
            return None;
        };
        let mut section = outer.below("cluster", node.place, entries, settings::CLUSTER);
        let read_from = section.setting("read_from", |text| match text {
            "primary" => Ok(ReadFrom::Primary),
            "prefer-replica" => Ok(ReadFrom::PreferReplica),
            "nearest" => Ok(ReadFrom::Nearest),
            _ => {
                let names = ["primary", "prefer-replica", "nearest"];
                Err(format!("allowed are {}{}", names.join(", "), did_you_mean(text, names)))
            }
        });
        let refresh = section.setting("refresh", positive);
        let Some(seeds) = section.node("seeds") else {
            section.missing("seeds");
            return None;
        };
        let Value::List(lines) = &seeds.value else {
            let text = format!("seeds has to be a list of host:port, not {}", seeds.value.kind());
            section.wrong(seeds.place, text);
            return None;
        };
        if lines.is_empty() {
            section.wrong(seeds.place, "seeds is empty; at least one node is needed");
        }
        let mut found = Vec::new();
        for Node { place, value } in lines {
            match value {
                Value::Text(text) => match address(text) {
                    Some(address) => found.push(address),
                    None => {
                        section.wrong(*place, format!("seed {text:?} cannot be used: allowed is host:port"))
                    }
                },
                other => section.wrong(*place, format!("a seed has to be a string, not {}", other.kind())),
            }
        }
        (!found.is_empty()).then_some(Self { seeds: found, read_from, refresh })
    }
}

/// `host:port`, IPv6 in brackets.
pub fn address(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|&port| port > 0)?;
    let host = bare(host);
    (!host.is_empty()).then(|| Address::Tcp { host: host.to_owned(), port })
}
