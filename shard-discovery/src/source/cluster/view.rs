//! What one node of a Redis Cluster says of all of them: `CLUSTER NODES` and `CLUSTER INFO`.
//!
//! Source: <https://redis.io/docs/latest/commands/cluster-nodes/>.

use std::collections::{BTreeMap, HashMap};

use crate::Address;

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
///
/// # Errors
/// See above.
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

/// Where one node is, as another one says: one of the entries of `CLUSTER SLOTS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address; absent, empty or `?`: that of the node that was asked.
    pub host: Option<String>,
    /// Its port.
    pub port: i64,
    /// 40 hexadecimal digits.
    pub id: String,
}

/// Where clients reach each node, by its id, from what the node at `asked` says. Source:
/// <https://redis.io/docs/latest/commands/cluster-slots/>.
pub fn endpoints(told: impl IntoIterator<Item = Endpoint>, asked: &Address) -> HashMap<String, Address> {
    let own = match asked {
        Address::Tcp { host, .. } => host.clone(),
        Address::Unix(_) => String::new(),
    };
    let place = |Endpoint { host, port, id }: Endpoint| {
        let host = host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| own.clone());
        // A node whose address nobody knows has port 0.
        let port = u16::try_from(port).ok().filter(|&port| port > 0)?;
        Some((id, Address::Tcp { host, port }))
    };
    told.into_iter().filter_map(place).collect()
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
    fn a_node_without_a_host_is_where_the_one_is_that_was_asked() {
        let asked = Address::Tcp { host: "10.0.0.1".into(), port: 7000 };
        let told = [
            (Some("h"), 1, "a"),
            (None, 2, "b"),
            (Some("?"), 3, "c"),
            (Some("h"), 0, "d"),
            (Some("h"), 65536, "e"),
        ];
        let told = told.map(|(host, port, id)| Endpoint { host: host.map(Into::into), port, id: id.into() });
        let found = endpoints(told, &asked);
        let at = |id: &str| found.get(id).map(ToString::to_string);
        assert_eq!(
            [at("a"), at("b"), at("c")],
            ["h:1", "10.0.0.1:2", "10.0.0.1:3"].map(|at| Some(at.into()))
        );
        assert_eq!((at("d"), at("e")), (None, None));
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
