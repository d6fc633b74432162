//! What one node of a Redis Cluster says of all of them: `CLUSTER NODES` and `CLUSTER INFO`.
//!
//! Source: <https://redis.io/docs/latest/commands/cluster-nodes/>.

use std::collections::{BTreeMap, HashMap};

use redis_protocol::resp2::types::BytesFrame;
use shard_discovery::Address;

/// How many slots a cluster has.
pub const SLOTS: u16 = 16_384;

/// One node as another one sees it, or itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// 40 hexadecimal digits.
    pub id: String,
    /// Its address; empty where the node does not know its own.
    pub ip: String,
    /// The port of clients.
    pub port: u16,
    /// The host name that it announces.
    pub hostname: Option<String>,
    /// The node that says all this.
    pub myself: bool,
    /// It owns slots or could; else it is a replica.
    pub primary: bool,
    /// The primary of a replica, by its id.
    pub replica_of: Option<String>,
    /// Most primaries cannot reach it.
    pub failed: bool,
    /// This node cannot reach it.
    pub suspected: bool,
    /// It has not been met yet.
    pub handshake: bool,
    /// Nobody knows where it is.
    pub no_address: bool,
    /// The link of the bus to it is up.
    pub linked: bool,
    /// Of several claims to a slot that with the highest epoch holds.
    pub epoch: u64,
    /// Ranges of slots, both ends included.
    pub slots: Vec<(u16, u16)>,
    /// Slots on their way out, with the id of the node they go to.
    pub migrating: BTreeMap<u16, String>,
    /// Slots on their way in, with the id of the node they come from.
    pub importing: BTreeMap<u16, String>,
}

impl Node {
    /// Each slot it owns.
    pub fn each_slot(&self) -> impl Iterator<Item = u16> {
        self.slots.iter().flat_map(|&(first, last)| first..=last)
    }
}

/// Reads the lines of `CLUSTER NODES`. An error names the line that is none.
pub fn nodes(text: &str) -> Result<Vec<Node>, String> {
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| node(line).ok_or_else(|| format!("invalid line in CLUSTER NODES: {line:?}")))
        .collect()
}

/// `id ip:port@bus[,hostname[,...]] flags primary ping pong epoch link slots...`
fn node(line: &str) -> Option<Node> {
    let mut words = line.split(' ');
    let id = words.next().filter(|id| !id.is_empty())?.to_owned();
    let address = words.next()?;
    let (place, extras) = address.split_once(',').unwrap_or((address, ""));
    let (ip, ports) = place.rsplit_once(':')?;
    let port = ports.split('@').next()?.parse().ok()?;
    let hostname = extras.split(',').next().filter(|name| !name.is_empty() && !name.contains('='));
    let flags: Vec<&str> = words.next()?.split(',').collect();
    let has = |flag: &str| flags.contains(&flag);
    let replica_of = words.next().filter(|&primary| primary != "-").map(str::to_owned);
    let (_ping, _pong) = (words.next()?, words.next()?);
    let epoch = words.next()?.parse().ok()?;
    let linked = words.next()? == "connected";
    let mut node = Node {
        id,
        ip: ip.to_owned(),
        port,
        hostname: hostname.map(str::to_owned),
        myself: has("myself"),
        primary: has("master"),
        replica_of,
        failed: has("fail"),
        suspected: has("fail?"),
        handshake: has("handshake"),
        no_address: has("noaddr"),
        linked,
        epoch,
        ..Node::default()
    };
    for word in words.filter(|word| !word.is_empty()) {
        if let Some(moving) = word.strip_prefix('[') {
            let moving = moving.strip_suffix(']')?;
            if let Some((slot, to)) = moving.split_once("->-") {
                node.migrating.insert(slot_of(slot)?, to.to_owned());
            } else {
                let (slot, from) = moving.split_once("-<-")?;
                node.importing.insert(slot_of(slot)?, from.to_owned());
            }
            continue;
        }
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (first, last) = (slot_of(first)?, slot_of(last)?);
        if first > last {
            return None;
        }
        node.slots.push((first, last));
    }
    Some(node)
}

fn slot_of(text: &str) -> Option<u16> {
    text.parse().ok().filter(|&slot| slot < SLOTS)
}

/// Where clients reach each node, by its id: `CLUSTER SLOTS`. A node that is named without a host is at the one that was
/// asked. Source: <https://redis.io/docs/latest/commands/cluster-slots/>.
pub fn endpoints(slots: &BytesFrame, asked: &Address) -> HashMap<String, Address> {
    let text = |frame: &BytesFrame| match frame {
        BytesFrame::BulkString(bytes) | BytesFrame::SimpleString(bytes) => {
            String::from_utf8(bytes.to_vec()).ok()
        }
        _ => None,
    };
    let own = match asked {
        Address::Tcp { host, .. } => host.clone(),
        Address::Unix(_) => String::new(),
    };
    let list = |frame: &BytesFrame| match frame {
        BytesFrame::Array(list) => list.clone(),
        _ => Vec::new(),
    };
    let endpoint = |node: BytesFrame| {
        let [host, BytesFrame::Integer(port), id, ..] = &list(&node)[..] else { return None };
        let host = text(host).filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| own.clone());
        // A node whose address nobody knows has port 0.
        let port = u16::try_from(*port).ok().filter(|&port| port > 0)?;
        Some((text(id)?, Address::Tcp { host, port }))
    };
    list(slots).iter().flat_map(|range| list(range).into_iter().skip(2)).filter_map(endpoint).collect()
}

/// A line of `CLUSTER INFO`.
pub fn info<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_kinds() {
        let text = "\
            07c37df 127.0.0.1:30004@31004,host4 slave e7d1eec 0 1426238317239 4 connected\n\
            67ed2db 127.0.0.1:30002@31002 master - 0 1426238316232 2 connected 5461-10922\n\
            292f8b3 :0@0 master,fail,noaddr - 0 1426238318243 3 disconnected\n\
            e7d1eec ::1:30001@31001,,tls-port=0,shard-id=69b myself,master - 0 0 1 connected 0-5460 7 [93->-292f8b3] [77-<-67ed2db]\n\
            824fe11 10.0.0.5:30006@31006 handshake - 1426238316232 0 0 connected\n\
            6ec2392 127.0.0.1:30005@31005 slave,fail? 67ed2db 0 1 5 connected\n";
        let nodes = nodes(text).unwrap();
        assert_eq!(nodes.len(), 6);
        assert_eq!(
            (nodes[0].hostname.as_deref(), nodes[0].replica_of.as_deref(), nodes[0].primary),
            (Some("host4"), Some("e7d1eec"), false)
        );
        assert_eq!((nodes[1].each_slot().count(), nodes[1].epoch, nodes[1].port), (5462, 2, 30002));
        assert!(nodes[2].failed && nodes[2].no_address && !nodes[2].linked && nodes[2].ip.is_empty());
        assert_eq!(
            (nodes[3].ip.as_str(), nodes[3].hostname.as_deref(), nodes[3].myself),
            ("::1", None, true)
        );
        assert_eq!(nodes[3].slots, [(0, 5460), (7, 7)]);
        assert_eq!(nodes[3].migrating[&93], "292f8b3");
        assert_eq!(nodes[3].importing[&77], "67ed2db");
        assert!(nodes[4].handshake && !nodes[4].primary);
        assert!(nodes[5].suspected && !nodes[5].failed);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_a_node_says_is_too_much(text in "[a-f0-9]{0,3} ?[0-9:.@,a-z-]{0,20} (master|slave|[a-z,?]{0,9}) ?(-|[a-f]{2}) [0-9]{0,21} 0 [0-9]{0,21} connected( [0-9\\[\\]><-]{0,12}){0,3}\n?") {
            if let Ok(nodes) = nodes(&text) {
                for node in nodes {
                    assert!(node.each_slot().all(|slot| slot < SLOTS));
                }
            }
            let _ = info(&text, "a");
        }
    }

    #[test]
    fn what_is_no_node_is_named() {
        for line in [
            "x",
            "a 1:1 master - 0 0 1",
            "a 1:x@2 master - 0 0 1 connected",
            "a 1:1@2 master - 0 0 1 connected 16384",
        ] {
            assert!(nodes(line).is_err(), "{line}");
        }
        assert_eq!(nodes(""), Ok(vec![]));
        assert_eq!(info("cluster_state:ok\r\ncluster_size:3\r\n", "cluster_size"), Some("3"));
        assert_eq!(info("cluster_state:ok\r\n", "cluster"), None);
    }
}
