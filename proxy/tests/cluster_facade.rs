//! A pool that poses as a Redis Cluster, beside a real node that owns all slots, and over a real cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use servers::cluster::Nodes;
use servers::dice::Dice;
use servers::{Client, Server, address, encoded, eventually};

mod servers;

/// The values of a reply in order, without lengths, so that values of other lengths can be put in their place.
fn values(reply: &str) -> Vec<String> {
    let is_length = |line: &&str| line.starts_with(['$', '=']);
    reply.split("\r\n").filter(|line| !is_length(line)).map(str::to_owned).collect()
}

/// What a node says, without what is its own: its address, its port, its ID.
fn values_of_nobody(client: &mut Client, request: &str) -> Vec<String> {
    let id = values(&client.tell("CLUSTER MYID"))[0].clone();
    let at = client.peer();
    let text = client.tell(request).replace(&id, "ID").replace(&at.ip().to_string(), "HOST");
    values(&text.replace(&at.port().to_string(), "PORT"))
}

/// The same of CLUSTER NODES, without what nobody but nodes can have: a port of the bus, and an epoch that has grown.
fn lines_of_nobody(client: &mut Client) -> Vec<Vec<String>> {
    let lines = values_of_nobody(client, "CLUSTER NODES");
    let words = |line: &String| line.split([' ', '@']).map(str::to_owned).collect::<Vec<_>>();
    let mut lines: Vec<_> = lines.iter().map(words).collect();
    lines.iter_mut().filter(|words| words.len() > 7).for_each(|words| {
        words.remove(7);
        words.remove(2);
    });
    lines
}

#[test]
fn it_answers_as_a_node_that_owns_all_slots() {
    let nodes = Nodes::start(1, &[]);
    nodes.form(1);
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let proxy = Server::memstore(&["cluster_facade: true"], &shards);
    let [mut our, mut their] = [proxy.connect(), nodes.connect(0)];
    for version in ["2", "3"] {
        for request in [
            &format!("HELLO {version}"),
            "CLUSTER SLOTS",
            "CLUSTER SHARDS",
            "CLUSTER LINKS",
            "CLUSTER REPLICAS x",
            "CLUSTER COUNT-FAILURE-REPORTS x",
            "CLUSTER KEYSLOT foo",
            "READONLY",
            "READWRITE",
            "ASKING",
            "CONFIG GET cluster-enabled",
            "INFO cluster",
        ] {
            let [mut said, mut expected] =
                [&mut our, &mut their].map(|client| values_of_nobody(client, request));
            if request.starts_with("HELLO") {
                // The number of the client, and of the server.
                [&mut said, &mut expected].into_iter().for_each(|values| {
                    values.retain(|value| !value.starts_with(':') && !value.contains('.'));
                });
            }
            assert_eq!(said, expected, "{request}");
        }
        assert_eq!(lines_of_nobody(&mut our), lines_of_nobody(&mut their));
        // They have the same fields; a server of a later version has more.
        let info = |client: &mut Client| {
            let names = values(&client.tell("CLUSTER INFO"));
            names.iter().map(|line| line.split(':').next().expect("one").to_owned()).collect::<Vec<_>>()
        };
        let theirs = info(&mut their);
        assert!(info(&mut our).iter().all(|name| theirs.contains(name)), "{theirs:?}");
        for client in [&mut our, &mut their] {
            assert!(
                client.tell("CLUSTER INFO").contains("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n")
            );
            let id = values(&client.tell("CLUSTER MYID"))[0].clone();
            assert_eq!(client.tell(&format!("CLUSTER REPLICAS {id}")), "*0\r\n");
            assert_eq!(client.tell(&format!("CLUSTER COUNT-FAILURE-REPORTS {id}")), ":0\r\n");
        }
    }
}

#[test]
fn slots_of_keys_are_those_of_a_server() {
    let nodes = Nodes::start(1, &[]);
    let shard = Server::redis(&[]);
    let proxy = Server::memstore(&["cluster_facade: true"], &[shard]);
    let [mut our, mut their] = [proxy.connect(), nodes.connect(0)];
    let mut dice = Dice::new(7);
    for _ in 0..100 {
        let keys: Vec<Vec<u8>> = (0..100)
            .map(|_| {
                let length = dice.below(24);
                let mut key = dice.bytes(length);
                key.iter_mut()
                    .filter(|_| dice.one_in(3))
                    .for_each(|byte| *byte = b"{}{}\r\n"[usize::from(*byte) % 6]);
                key
            })
            .collect();
        let all: Vec<u8> = keys.iter().flat_map(|key| encoded(&[b"CLUSTER", b"KEYSLOT", key])).collect();
        [&mut our, &mut their].into_iter().for_each(|client| client.send(&all));
        for key in &keys {
            assert_eq!(our.reply(), their.reply(), "{}", key.escape_ascii());
        }
    }
}

/// Our proxy that listens there, whatever address it is.
fn proxy_at(listen: &str, settings: &str, shard: &Server) -> Server {
    Server::start(env!("CARGO_BIN_EXE_memstore"), "", |port| {
        let path =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("facade-{}-{port}.yml", address()));
        let text = format!(
            "pool:\n  listen: \"{listen}:{port}\"\n  redis: true\n  cluster_facade: true\n{settings}  servers: [\"{}\"]\n",
            shard.line(0)
        );
        std::fs::write(&path, text).expect("the folder for temporary files is writable");
        let path = path.to_str().expect("a path in UTF-8").to_owned();
        ["serve", "-c", &path, "-s", "0", "--admin-port", "0", "--workers", "2"].map(str::to_owned).to_vec()
    })
}

#[test]
fn clients_are_told_the_address_that_they_have_connected_to() {
    let shard = Server::redis(&[]);
    let proxy = proxy_at("[::]", "", &shard);
    let addresses: [IpAddr; 3] = [address().into(), Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let mut ids = Vec::new();
    for address in addresses {
        let mut client = servers::connect_to(address, proxy.port);
        let told = values(&client.tell("CLUSTER SLOTS"));
        let id = values(&client.tell("CLUSTER MYID"))[0].clone();
        assert_eq!(told[5..8], [address.to_string(), format!(":{}", proxy.port), id.clone()]);
        ids.push(id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[test]
fn what_is_announced_holds_after_a_reload() {
    let shard = Server::redis(&[]);
    let lines = [shard.line(0)];
    let proxy = Server::memstore_over(&["cluster_facade: true"], &lines);
    let mut client = proxy.connect();
    let host =
        |client: &mut Client| values(&client.tell("CLUSTER SLOTS")).get(5).cloned().unwrap_or_default();
    assert_eq!(host(&mut client), address().to_string());
    proxy.rewrite(&["cluster_facade: true", "cluster_facade_announce: cache.example:6379"], &lines);
    proxy.signal("HUP");
    eventually(|| host(&mut client), "cache.example");
    proxy.rewrite(&[], &lines);
    proxy.signal("HUP");
    eventually(|| client.tell("CLUSTER SLOTS"), "-ERR This instance has cluster support disabled\r\n");
}

#[test]
fn keys_of_slots_are_those_of_the_cluster_behind() {
    let nodes = Nodes::start(3, &[]);
    nodes.form(3);
    let cluster = format!("cluster: {{seeds: [\"{}\"]}}", nodes.place(0));
    let proxy = Server::memstore_over(&[&cluster, "cluster_facade: true"], &[]);
    let mut client = proxy.connect();
    eventually(|| client.tell("EXISTS a"), ":0\r\n");
    for number in 0..60 {
        for end in ["a", "b"] {
            assert_eq!(client.tell(&format!("SET {{{number}}}{end} x")), "+OK\r\n");
        }
    }
    for number in 0..60 {
        let slot = client.tell(&format!("CLUSTER KEYSLOT {{{number}}}"));
        let slot = slot.trim_start_matches(':').trim_end();
        assert_eq!(client.tell(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), ":2\r\n");
        let mut keys = values(&client.tell(&format!("CLUSTER GETKEYSINSLOT {slot} 10")));
        keys.sort();
        assert_eq!(keys[2..], [format!("{{{number}}}a"), format!("{{{number}}}b")]);
    }
    assert_eq!(values(&client.tell("CLUSTER SLOTS"))[..4], ["*1", "*3", ":0", ":16383"]);
}
