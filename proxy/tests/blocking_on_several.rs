//! Commands that wait for data on several shards, over real servers: answered as by one server. That every
//! element arrives once: arrivals.rs.

use servers::blocking::{ALL, blocked, like_one_server};
use servers::{Client, Server};

mod servers;

#[test]
fn what_waits_on_several_shards_is_answered_as_one_server_answers() {
    let shards = [(); 3].map(|()| Server::redis(&[]));
    let ours = Server::memstore_of(2, &["blocked_max: 100"], &shards);
    // Only the clients of one worker are served in the order in which they came.
    let in_order = Server::memstore_of(1, &["blocked_max: 100"], &shards);
    let mut client = ours.connect();
    for key in 0..10 {
        client.tell(&format!("SET {key}key v"));
    }
    for shard in &shards {
        assert_ne!(shard.connect().tell("DBSIZE"), ":0\r\n", "each shard has keys");
    }
    like_one_server(&ours, &in_order, |_| true);
    shards.iter().for_each(|shard| blocked(shard, 0));
}

/// Nothing is taken for those that have gone before it came.
#[test]
fn an_element_stays_where_who_waited_for_it_on_several_shards_has_gone() {
    let shards = [(); 3].map(|()| Server::redis(&[]));
    let proxy = Server::memstore(&[], &shards);
    let mut other = proxy.connect();
    let lists: Vec<String> = (0..9).map(|list| format!("{list}list")).collect();
    let ways: [fn(Client); 3] = [
        drop,
        |mut client| {
            client.finish_with(b"");
            assert!(client.until_closed().is_empty());
        },
        |mut client| {
            client.finish_with(b"PING\r\n");
            assert!(client.until_closed().is_empty());
        },
    ];
    for leave in ways {
        let mut client = proxy.connect();
        client.begin(&format!("BLPOP {} 0", lists.join(" ")));
        blocked(&proxy, 1);
        leave(client);
        blocked(&proxy, 0);
        for list in &lists {
            assert_eq!(other.tell(&format!("RPUSH {list} x")), ":1\r\n");
        }
        for list in &lists {
            assert_eq!(other.tell(&format!("LPOP {list}")), "$1\r\nx\r\n");
        }
    }
}

/// A user of a shard that may not be told of changes.
#[test]
fn a_shard_that_does_not_tell_of_changes_is_named() {
    let shards = [(); 3].map(|()| Server::redis(&[]));
    for shard in &shards {
        assert_eq!(shard.connect().tell("ACL SETUSER default -client|tracking"), "+OK\r\n");
    }
    let proxy = Server::memstore(&[], &shards);
    let mut client = proxy.connect();
    let reply = client.tell(&format!("BLPOP {ALL} 0"));
    assert!(reply.starts_with("-CROSSSLOT ") && reply.contains("refuses CLIENT TRACKING: NOPERM"), "{reply}");
    assert_eq!(client.tell("PING"), "+PONG\r\n");
}
