//! Posing as a cluster: who clients with cluster support are told owns which slots.
//!
//! Every proxy serves every key, whatever a client was told, so any division of the slots is right. Several proxies are named as
//! primaries that share the slots in ranges, by their addresses in order: each says the same, so clients that ask again change nothing.
//! None is named as a replica, for clients send replicas nothing but reads, and those only if they are told to.

use core::net::{IpAddr, SocketAddr};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use sha1::{Digest as _, Sha1};

use super::encode;

/// Slots of a cluster.
pub const SLOTS: usize = 1 << 14;
/// So many proxies can be named: each is a line of a reply that clients may ask for again and again.
pub const NODES_MAX: usize = 128;
/// The configuration of the cluster is never another one than that of this number, for no slot ever moves.
const EPOCH: u32 = 1;

/// What clients are told of the cluster that the proxy poses as.
#[derive(Debug)]
pub struct Facade {
    /// The proxies that are named, by their addresses; none: this one alone, by the address that the client has connected to.
    nodes: Vec<Node>,
    /// Which of them this one is, if that is known.
    own: Option<usize>,
    /// There is a cluster behind the proxy, whose nodes know which keys a slot has.
    pub has_slots: bool,
}

/// One proxy, as clients find it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Node {
    host: String,
    port: u16,
}

/// The cluster as one client sees it.
pub struct View<'f> {
    nodes: Cow<'f, [Node]>,
    own: usize,
}

impl Facade {
    /// With these addresses of proxies, of which one may be known to be this one's. Without any it is the address that the client
    /// has connected to.
    pub fn new(own: Option<(&str, u16)>, nodes: &[(&str, u16)], has_slots: bool) -> Self {
        let node = |(host, port): (&str, u16)| Node { host: host.to_owned(), port };
        let mut nodes: Vec<Node> = nodes.iter().copied().map(node).collect();
        let own = own.map(node);
        if nodes.is_empty() {
            nodes.extend(own.clone());
        }
        nodes.sort_by(|one, other| (&one.host, one.port).cmp(&(&other.host, other.port)));
        let own = own.and_then(|own| nodes.iter().position(|node| *node == own));
        Self { nodes, own, has_slots }
    }

    /// How many proxies are named.
    pub fn node_count(&self) -> usize {
        self.nodes.len().max(1)
    }

    /// The cluster as a client sees it that has connected to the address `local`. `None` if that is none that others could connect to, and
    /// no other one is known.
    pub fn view(&self, local: &str) -> Option<View<'_>> {
        let local = || {
            let address: SocketAddr = local.parse().ok()?;
            // An address of IPv4 is shown as one of IPv6 where the proxy listens to both.
            Some(Node { host: address.ip().to_canonical().to_string(), port: address.port() })
        };
        if self.nodes.is_empty() {
            return Some(View { nodes: vec![local()?].into(), own: 0 });
        }
        let place = |node: Node| self.nodes.iter().position(|known| *known == node);
        let own = self.own.or_else(|| local().and_then(place)).unwrap_or(0);
        Some(View { nodes: self.nodes.as_slice().into(), own })
    }

    /// Whether a node may have this ID: all are known, or it looks like one.
    pub fn knows(&self, id: &[u8]) -> bool {
        if self.nodes.is_empty() {
            return id.len() == 40 && id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        }
        self.nodes.iter().any(|node| node.id().as_bytes() == id)
    }
}

impl Node {
    /// 40 digits that follow from its address, so that they are the same after a restart, and at every proxy.
    fn id(&self) -> String {
        digest(&format!("{}:{}", self.host, self.port))
    }

    fn shard_id(&self) -> String {
        digest(&format!("shard {}:{}", self.host, self.port))
    }

    fn is_named(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }
}

fn entry(key: &str, value: &str, out: &mut Vec<u8>) {
    encode::bulk(out, key.as_bytes());
    encode::bulk(out, value.as_bytes());
}

fn digest(text: &str) -> String {
    Sha1::digest(text).iter().fold(String::with_capacity(40), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

impl View<'_> {
    /// The nodes with their slots.
    fn nodes(&self) -> impl Iterator<Item = (&Node, RangeInclusive<usize>)> {
        let count = self.nodes.len();
        let first = move |place: usize| SLOTS * place / count;
        self.nodes.iter().enumerate().map(move |(place, node)| (node, first(place)..=first(place + 1) - 1))
    }

    /// `CLUSTER SLOTS`
    pub fn slots(&self, resp3: bool, out: &mut Vec<u8>) {
        encode::array(out, self.nodes.len());
        for (node, slots) in self.nodes() {
            encode::array(out, 3);
            encode::integer(out, *slots.start() as i64);
            encode::integer(out, *slots.end() as i64);
            encode::array(out, 4);
            encode::bulk(out, node.host.as_bytes());
            encode::integer(out, node.port.into());
            encode::bulk(out, node.id().as_bytes());
            // A name's address is not known.
            encode::map(out, resp3, 0);
        }
    }

    /// `CLUSTER SHARDS`
    pub fn shards(&self, resp3: bool, out: &mut Vec<u8>) {
        encode::array(out, self.nodes.len());
        for (node, slots) in self.nodes() {
            encode::map(out, resp3, 2);
            encode::bulk(out, b"slots");
            encode::array(out, 2);
            encode::integer(out, *slots.start() as i64);
            encode::integer(out, *slots.end() as i64);
            encode::bulk(out, b"nodes");
            encode::array(out, 1);
            let name = node.is_named().then_some(node.host.as_str());
            encode::map(out, resp3, 7 + usize::from(name.is_some()));
            entry("id", &node.id(), out);
            encode::bulk(out, b"port");
            encode::integer(out, node.port.into());
            entry("ip", if name.is_some() { "" } else { &node.host }, out);
            entry("endpoint", &node.host, out);
            if let Some(name) = name {
                entry("hostname", name, out);
            }
            entry("role", "master", out);
            encode::bulk(out, b"replication-offset");
            encode::integer(out, 0);
            entry("health", "online", out);
        }
    }

    /// `CLUSTER NODES`: the host stands in the place of the address also where it is a name, for clients connect to what stands there.
    /// There is no bus.
    pub fn lines(&self, resp3: bool, out: &mut Vec<u8>) {
        let mut text = String::new();
        for (place, (node, slots)) in self.nodes().enumerate() {
            let Node { host, port } = node;
            let name = if node.is_named() { format!(",{host}") } else { String::new() };
            let flags = if place == self.own { "myself,master" } else { "master" };
            let (id, first, last) = (node.id(), slots.start(), slots.end());
            let _ =
                writeln!(text, "{id} {host}:{port}@0{name} {flags} - 0 0 {EPOCH} connected {first}-{last}");
        }
        encode::text_header(out, resp3, text.len());
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// `CLUSTER MYID`
    pub fn id(&self, out: &mut Vec<u8>) {
        encode::bulk(out, self.nodes[self.own].id().as_bytes());
    }

    /// `CLUSTER MYSHARDID`
    pub fn shard_id(&self, out: &mut Vec<u8>) {
        encode::bulk(out, self.nodes[self.own].shard_id().as_bytes());
    }
}

/// `CLUSTER INFO`: all is well, and no message was ever sent.
pub fn info(facade: &Facade, resp3: bool, out: &mut Vec<u8>) {
    let nodes = facade.node_count();
    let text = format!(
        "cluster_state:ok\r\ncluster_slots_assigned:{SLOTS}\r\ncluster_slots_ok:{SLOTS}\r\ncluster_slots_pfail:0\r\n\
         cluster_slots_fail:0\r\ncluster_known_nodes:{nodes}\r\ncluster_size:{nodes}\r\ncluster_current_epoch:{EPOCH}\r\n\
         cluster_my_epoch:{EPOCH}\r\ncluster_stats_messages_sent:0\r\ncluster_stats_messages_received:0\r\n\
         total_cluster_links_buffer_limit_exceeded:0\r\n"
    );
    encode::text_header(out, resp3, text.len());
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(view: &View<'_>) -> Vec<String> {
        view.nodes().map(|(node, _)| format!("{}:{}", node.host, node.port)).collect()
    }

    #[test]
    fn it_is_where_the_client_has_connected_to() {
        let facade = Facade::new(None, &[], false);
        for (local, host, port) in [
            ("10.0.0.1:6379", "10.0.0.1", 6379),
            ("[::ffff:10.0.0.1]:6379", "10.0.0.1", 6379),
            ("[2001:db8::1]:22121", "2001:db8::1", 22121),
            ("[fe80::1%3]:22121", "fe80::1", 22121),
        ] {
            let view = facade.view(local).expect(local);
            assert_eq!(hosts(&view), [format!("{host}:{port}")]);
        }
        for local in ["/run/memstore.sock:0", "?", "", "?:0"] {
            assert!(facade.view(local).is_none(), "{local}");
        }
        let own = Facade::new(Some(("cache.example", 6379)), &[], false);
        assert_eq!(
            hosts(&own.view("/run/memstore.sock:0").expect("it is announced")),
            ["cache.example:6379"]
        );
    }

    #[test]
    fn several_share_all_slots_whoever_is_asked() {
        for count in 1..=NODES_MAX {
            let names: Vec<String> = (0..count).map(|number| format!("10.0.1.{number}")).collect();
            let mut nodes: Vec<(&str, u16)> = names.iter().map(|name| (name.as_str(), 6379)).collect();
            let one = Facade::new(Some(nodes[count / 2]), &nodes, false);
            nodes.reverse();
            let other = Facade::new(None, &nodes, false);
            let (one, other) = (one.view("x").expect("known"), other.view("10.0.1.0:6379").expect("known"));
            assert_eq!(hosts(&one), hosts(&other));
            assert_eq!(one.nodes[one.own].host, names[count / 2]);
            assert_eq!(other.nodes[other.own].host, names[0]);
            let slots: Vec<usize> = one.nodes().flat_map(|(_, slots)| slots).collect();
            assert_eq!(slots, (0..SLOTS).collect::<Vec<_>>());
        }
    }

    #[test]
    fn ids_follow_from_addresses() {
        let node = |host: &str, port| Node { host: host.to_owned(), port };
        let id = node("10.0.0.1", 6379).id();
        assert_eq!(id, "509dee5b986aeb1c8d58e02a756691e79cebdd3c");
        for other in [node("10.0.0.1", 6380), node("10.0.0.2", 6379)] {
            assert_ne!(id, other.id());
        }
        assert_ne!(id, node("10.0.0.1", 6379).shard_id());
        let named = Facade::new(Some(("10.0.0.1", 6379)), &[], false);
        assert!(named.knows(id.as_bytes()) && !named.knows(&[b'0'; 40]));
        let unnamed = Facade::new(None, &[], false);
        assert!(unnamed.knows(&[b'0'; 40]) && !unnamed.knows(b"0") && !unnamed.knows(&[b'g'; 40]));
    }
}
