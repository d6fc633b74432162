//! Commands that wait for data on several shards, over real servers: answered as by one server. That every
//! element arrives once: arrivals.rs.

use servers::blocking::{blocked, play};
use servers::{Client, Server};

mod servers;

/// They are on all of three shards; in scripts they are called k0 to k9.
const ALL: &str = "0key 1key 2key 3key 4key 5key 6key 7key 8key 9key";

#[test]
fn what_waits_on_several_shards_is_answered_as_one_server_answers() {
    let shards = [(); 3].map(|()| Server::redis(&[]));
    let ours = Server::memstore_of(2, &["blocked_max: 100"], &shards);
    // Only the clients of one worker are served in the order in which they came.
    let in_order = Server::memstore_of(1, &["blocked_max: 100"], &shards);
    let theirs = Server::redis(&[]);
    let mut client = ours.connect();
    for key in 0..10 {
        client.tell(&format!("SET {key}key v"));
    }
    for shard in &shards {
        assert_ne!(shard.connect().tell("DBSIZE"), ":0\r\n", "each shard has keys");
    }
    let mut differences = Vec::new();
    for script in "
        a: BLPOP ALL 0.01
        a: BZPOPMIN ALL 0.01
        a: BLMPOP 0.01 10 ALL LEFT
        a: BZMPOP 0.01 10 ALL MAX COUNT 2
        a: HELLO 3 ; a: BLPOP ALL 0.01 ; a: BZPOPMAX ALL 0.01
        a: BLPOP ALL -1
        a: BLPOP ALL x
        a: BLMPOP x 10 ALL UP
        a: BLMPOP x 10 ALL LEFT COUNT 0
        a: BLMPOP x 10 ALL LEFT COUNT 1 2
        a: BLMPOP x 10 ALL LEFT
        a: BZMPOP x 10 ALL LEFT
        a: SET k5 v ; a: BLPOP ALL 0.01 ; a: BZPOPMIN ALL 0.01
        a: RPUSH k5 1 2 3 ; a: RPUSH k4 4 5 ; a: BLPOP ALL 0 ; a: BRPOP ALL 0 ; a: BLPOP ALL 0 ; a: BLMPOP 0 10 ALL LEFT COUNT 5 ; a: BLPOP ALL 0.01
        a: ZADD k7 1.5 a 2 b 3 c ; a: BZPOPMIN ALL 0 ; a: BZPOPMAX ALL 0 ; a: BZMPOP 0 10 ALL MIN ; a: EXISTS k7
        a: HELLO 3 ; a: ZADD k7 1.5 a 2 b 3 c ; a: BZPOPMIN ALL 0 ; a: BZPOPMAX ALL 0 ; a: BZMPOP 0 10 ALL MIN ; a: EXISTS k7
        a> BLPOP ALL 0 ; 1 wait ; b: RPUSH k0 x y ; a< ; b: LRANGE k0 0 -1
        a> BLPOP ALL 0 ; 1 wait ; b> BLPOP ALL 0 ; 2 wait ; c: RPUSH k6 1 2 ; a< ; b<
        a> BLPOP ALL 0 ; a> GET k3 ; 1 wait ; b: RPUSH k4 x ; a< ; a<
        a> BZPOPMIN ALL 0 ; 1 wait ; b: ZADD k9 1 x 2 y ; a< ; b: ZCARD k9
        a> BLPOP ALL 0 ; 1 wait ; b: EVAL redis.call('RPUSH',KEYS[1],'x')redis.call('DEL',KEYS[1]) 1 k2 ; b: RPUSH k2 y ; a<
        a> BLPOP ALL 0 ; 1 wait ; b: EVAL return(redis.call('RPUSH',KEYS[1],'x')) 1 k2 ; a<
        a: SELECT 3 ; a> BLPOP ALL 0 ; 1 wait ; b: RPUSH k1 x ; b: SELECT 3 ; b: RPUSH k1 y ; a<
        a: XADD k1 1-1 f v ; a: XADD k4 2-1 f w ; a: XREAD BLOCK 0 STREAMS k0 k1 k4 0 0 0 ; a: XREAD COUNT 1 BLOCK 10 STREAMS k0 k1 k4 0 1-1 2-1
        a: HELLO 3 ; a: XADD k1 1-1 f v ; a: XADD k4 2-1 f w ; a: XREAD COUNT 1 BLOCK 0 STREAMS k0 k1 k4 0 0 0 ; a: XREAD BLOCK 10 STREAMS k0 k1 k4 0 1-1 2-1
        a: XADD k1 1-1 f v ; a: XREAD BLOCK 10 STREAMS k0 k1 k4 $ $ $ ; a: SET k4 v ; a: XREAD BLOCK 10 STREAMS k0 k1 k4 0 1-1 0
        a: XADD k1 1-1 f v ; a> XREAD BLOCK 0 STREAMS k0 k1 k4 0 1-1 0 ; 1 wait ; b: XADD k4 5-1 f v ; a<
        a: XREAD BLOCK -1 STREAMS k0 k1 k4 0 0 0 ; a: XREAD BLOCK x STREAMS k0 k1 k4 0 0 0
        a: XREADGROUP GROUP g c BLOCK 0 STREAMS k0 k1 k4 > > >
        a: XGROUP CREATE k1 g 0 MKSTREAM ; a: XGROUP CREATE k4 g 0 MKSTREAM ; a: XADD k4 2-1 f w ; a: XREADGROUP GROUP g c BLOCK 0 STREAMS k1 k4 > > ; a: XREADGROUP GROUP g c BLOCK 10 STREAMS k1 k4 > > ; a: XPENDING k4 g
        a: XGROUP CREATE k1 g 0 MKSTREAM ; a: XGROUP CREATE k4 g 0 MKSTREAM ; a> XREADGROUP GROUP g c BLOCK 0 STREAMS k1 k4 > > ; 1 wait ; b: XADD k1 3-1 f v ; a< ; b: XPENDING k1 g
        a: XGROUP CREATE k1 g 0 MKSTREAM ; a: XGROUP CREATE k4 g 0 MKSTREAM ; a: XREADGROUP GROUP g c BLOCK 0 STREAMS k1 k4 0 >
        a: MULTI ; a: RPUSH k1 x ; a: BLPOP k1 k1 0 ; a: EXEC
        a: CLIENT REPLY SKIP ; a> BLPOP ALL 0.01 ; a: PING x
    "
    .lines()
    .map(str::trim)
    .filter(|line| !line.is_empty())
    {
        let mut script = script.replace("a: CLIENT REPLY SKIP", "a> CLIENT REPLY SKIP");
        for key in 0..10 {
            script = script.replace(&format!("k{key}"), &format!("{key}key"));
        }
        let script = script.replace("ALL", ALL);
        let without = |heard: String| {
            let parts = heard.split(" $2 id ");
            let plain = |part: &str| {
                part.trim_start_matches(|sign: char| ":0123456789".contains(sign)).to_owned()
            };
            parts.map(plain).collect::<String>()
        };
        let ours = if script.contains("b> BLPOP") { &in_order } else { &ours };
        let [our, their] = [ours, &theirs].map(|door| play(&script, &format!("DEL {ALL}"), door, door)).map(without);
        if our != their {
            differences.push(format!("{script}\n  ours   {our}\n  theirs {their}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
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
