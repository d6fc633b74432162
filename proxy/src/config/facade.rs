//! A pool that poses as a Redis Cluster.

use std::net::IpAddr;

use shard_discovery::Address;
use shard_discovery::source::fixed::address;
use shard_discovery::yaml::{Node, Value};

use super::listen::Listen;
use super::listeners::Listener;
use super::section::Section;
use crate::protocol::resp::facade::NODES_MAX;

/// What clients with cluster support are told.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Facade {
    /// Host and port of this proxy; none: those that the client has connected to.
    pub announce: Option<(String, u16)>,
    /// Of all proxies of the pool, if they are named.
    pub nodes: Vec<(String, u16)>,
}

const ANNOUNCE: &str = "cluster_facade_announce";
const NODES: &str = "cluster_facade_nodes";

/// None if the pool does not pose as a cluster.
pub(super) fn read_facade(
    section: &mut Section<'_, '_>,
    redis: bool,
    listeners: &[Listener],
) -> Option<Facade> {
    let poses: bool = section.value("cluster_facade");
    let announce = section.optional(ANNOUNCE, reachable);
    let nodes = read_nodes(section);
    if !poses {
        for name in [ANNOUNCE, NODES].into_iter().filter(|name| section.has(name)).collect::<Vec<_>>() {
            let text = format!("{name} needs cluster_facade: true");
            section.wrong(section.place(name), text);
        }
        return None;
    }
    let place = section.place("cluster_facade");
    if !redis {
        section.wrong(place, "cluster_facade is for Redis pools; this one is a memcache pool (redis: false)");
    }
    if listeners.iter().any(|listener| matches!(listener.at, Listen::Unix { .. }))
        && !section.has(ANNOUNCE)
        && !section.has(NODES)
    {
        let text =
            format!("cluster_facade: clients of a Unix socket have no address to be told; set {ANNOUNCE}");
        section.wrong(place, text);
    }
    if let Some(announce) = &announce
        && !nodes.is_empty()
        && !nodes.contains(announce)
    {
        section.wrong(section.place(ANNOUNCE), format!("{ANNOUNCE} is none of {NODES}"));
    }
    Some(Facade { announce, nodes })
}

fn read_nodes(section: &mut Section<'_, '_>) -> Vec<(String, u16)> {
    let Some(Node { place, value }) = section.node(NODES) else { return Vec::new() };
    let Value::List(lines) = value else {
        let text = format!("{NODES} has to be a list of host:port, not {}", value.kind());
        section.wrong(*place, text);
        return Vec::new();
    };
    if lines.is_empty() || lines.len() > NODES_MAX {
        let text = format!("{NODES} names {} proxies; allowed are 1 to {NODES_MAX}", lines.len());
        section.wrong(*place, text);
    }
    let mut nodes = Vec::new();
    for Node { place, value } in lines {
        let read = match value {
            Value::Text(text) => reachable(text).map_err(|why| format!("{text:?} cannot be used: {why}")),
            other => Err(format!("a proxy has to be a string, not {}", other.kind())),
        };
        match read {
            Ok(node) if nodes.contains(&node) => {
                section.wrong(*place, format!("{NODES}: {}:{} is named twice", node.0, node.1));
            }
            Ok(node) => nodes.push(node),
            Err(text) => section.wrong(*place, format!("{NODES}: {text}")),
        }
    }
    nodes
}

/// Where a client could connect to. It stands in lines whose words are parted by blanks, commas and `@`.
fn reachable(text: &str) -> Result<(String, u16), String> {
    let Some(Address::Tcp { host, port }) = address(text) else {
        return Err("allowed is host:port, or [IPv6 address]:port".into());
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        if address.is_unspecified() {
            return Err("clients cannot connect to it; name the address that they reach".into());
        }
        return Ok((address.to_canonical().to_string(), port));
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.len() > 253 || !host.bytes().all(is_name) {
        return Err("the host is neither an address nor a name".into());
    }
    Ok((host, port))
}
