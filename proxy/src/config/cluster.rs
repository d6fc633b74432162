//! A pool over a Redis Cluster.

use shard_discovery::source::cluster::{Cluster, ReadFrom};
use shard_discovery::source::fixed::address;
use shard_discovery::yaml::{Node, Value};

use super::section::Section;
use super::settings;

/// A cluster decides for itself what other pools are told.
pub(super) fn read_cluster(section: &mut Section<'_, '_>, node: &Node, redis: bool) -> Option<Cluster> {
    const OTHERS: [(&str, &str); 9] = [
        ("hash", "keys are hashed as Redis Cluster does"),
        ("distribution", "slot ownership is discovered"),
        ("hash_tag", "it is always {}"),
        ("pin", "its nodes assign the slots; give the keys a hash tag"),
        ("redis_db", "it has database 0 only"),
        ("databases", "it has database 0 only"),
        ("auto_eject_hosts", "it replaces failed nodes itself"),
        ("shard_identity", "nodes are verified by their IDs"),
        ("preconnect", "nodes are connected on demand"),
    ];
    // Whatever says which shards there are.
    let lists = settings::POOL
        .iter()
        .map(|setting| setting.name)
        .filter(|name| name.starts_with("servers") && *name != "servers_tls");
    let lists = lists.map(|name| (name, "the nodes are discovered; list some of them as seeds"));
    if !redis {
        section.wrong(node.place, "cluster is for Redis pools; this one is a memcache pool (redis: false)");
    }
    for (name, why) in lists.chain(OTHERS) {
        if section.has(name) {
            let place = section.place(name);
            section.wrong(place, format!("{name} is not for a cluster: {why}"));
        }
    }
    read(section, node)
}

/// Reads the mapping.
fn read(outer: &mut Section<'_, '_>, node: &Node) -> Option<Cluster> {
    let Value::Map(entries) = &node.value else {
        outer.wrong(node.place, format!("cluster has to be a mapping, not {}", node.value.kind()));
        return None;
    };
    let mut section = outer.below("cluster", node.place, entries, settings::CLUSTER);
    let read_from = match section.value("read_from") {
        "nearest" => ReadFrom::Nearest,
        "prefer-replica" => ReadFrom::PreferReplica,
        _ => ReadFrom::Primary,
    };
    let refresh = section.value("refresh");
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
                None => section.wrong(*place, format!("seed {text:?} cannot be used: allowed is host:port")),
            },
            other => section.wrong(*place, format!("a seed has to be a string, not {}", other.kind())),
        }
    }
    (!found.is_empty()).then_some(Cluster { seeds: found, read_from, refresh })
}
