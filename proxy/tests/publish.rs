//! Publish and subscribe over real servers: what a subscriber is told beside what the server itself tells it, and messages over
//! three shards, two workers and two proxies.

use std::collections::{BTreeMap, BTreeSet};

use servers::cluster::Nodes;
use servers::{Client, Server, encoded, eventually, shown};

mod servers;

/// All replies up to the one that has the last word of the script in it.
fn play(client: &mut Client, script: &str) -> Vec<String> {
    let mut bytes = Vec::new();
    for request in script.split(" ; ") {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        bytes.extend(encoded(&words));
    }
    client.send(&bytes);
    let last = script.rsplit(' ').next().expect("a word");
    let mut replies = Vec::new();
    loop {
        let reply = shown(&client.reply());
        let is_last = reply.contains(last);
        replies.push(reply);
        if is_last {
            return replies;
        }
    }
}

#[test]
fn a_subscriber_is_told_what_the_server_tells() {
    let shards = [Server::redis(&[])];
    let (ours, theirs) = (Server::memstore(&[], &shards), Server::redis(&[]));
    for script in [
        "SUBSCRIBE a b a ; PING ; PING x ; GET k ; UNSUBSCRIBE a ; UNSUBSCRIBE nosuch ; UNSUBSCRIBE ; UNSUBSCRIBE ; PING end",
        "PSUBSCRIBE a* ; SUBSCRIBE b ; PUNSUBSCRIBE ; PUNSUBSCRIBE ; GET k ; UNSUBSCRIBE b ; PING end",
        "SUBSCRIBE a ; SUBSCRIBE ; UNSUBSCRIBE ; PSUBSCRIBE ; PUNSUBSCRIBE ; PING end",
        "UNSUBSCRIBE ; PUNSUBSCRIBE ; UNSUBSCRIBE x y ; GET nosuch ; PING end",
        "SUBSCRIBE a ; PUBLISH a x ; HELLO 3 ; CONFIG GET save ; CLIENT ID ; NOSUCH x ; GET ; PING a b ; PING end",
        "SUBSCRIBE a ; RESET ; GET nosuch ; PING end",
        "SUBSCRIBE a ; PSUBSCRIBE b ; RESET ; SUBSCRIBE c ; PING end",
        "SUBSCRIBE a ; CLIENT REPLY OFF ; UNSUBSCRIBE ; CLIENT REPLY SKIP ; SUBSCRIBE a ; PING end",
        "CLIENT REPLY SKIP ; SUBSCRIBE a ; PING end",
        "HELLO 3 ; CLIENT REPLY SKIP ; SUBSCRIBE a ; CLIENT REPLY SKIP ; UNSUBSCRIBE a ; GET k ; PING end",
        "HELLO 3 ; SUBSCRIBE a ; GET k ; UNSUBSCRIBE ; UNSUBSCRIBE ; PUNSUBSCRIBE x ; PING end",
        "SUBSCRIBE a ; QUIT ; PING OK",
        "SSUBSCRIBE a b a ; PING ; GET k ; SUBSCRIBE a ; PSUBSCRIBE * ; SUNSUBSCRIBE a ; SUNSUBSCRIBE nosuch ; UNSUBSCRIBE ; SUNSUBSCRIBE ; PING ; PUNSUBSCRIBE ; SUNSUBSCRIBE ; PING end",
        "SSUBSCRIBE a ; SSUBSCRIBE ; SUNSUBSCRIBE ; SUNSUBSCRIBE x y ; GET nosuch ; PING end",
        "SSUBSCRIBE a ; SPUBLISH a x ; MULTI ; CLIENT ID ; UNSUBSCRIBE ; PING a b ; PING end",
        "SSUBSCRIBE a ; SUBSCRIBE b ; RESET ; SSUBSCRIBE c ; PING end",
        "SSUBSCRIBE a ; QUIT ; PING OK",
        "CLIENT REPLY SKIP ; SSUBSCRIBE a ; PING end",
    ] {
        let [our, their] = [&ours, &theirs].map(|server| play(&mut server.connect(), script));
        // Valkey 8.0, and no server before or since, refuses to leave what is not listened to.
        if their.iter().any(|reply| reply.starts_with("-NOSUB ")) {
            continue;
        }
        // HELLO says who is there.
        let from = usize::from(script.starts_with("HELLO"));
        assert_eq!(our[from..], their[from..], "{script}");
        // In RESP3 nothing is refused.
        let [mut our, mut their] = [&ours, &theirs].map(|server| server.connect());
        our.tell("HELLO 3");
        their.tell("HELLO 3");
        if !["HELLO", "CLIENT", "PUBLISH"].iter().any(|word| script.contains(word)) {
            assert_eq!(play(&mut our, script), play(&mut their, script), "HELLO 3 ; {script}");
        }
    }
}

#[test]
fn messages_are_what_the_server_sends() {
    let shards = [Server::redis(&[])];
    let (ours, theirs) = (Server::memstore(&[], &shards), Server::redis(&[]));
    let large = "x".repeat(100_000);
    for version in ["2", "3"] {
        let mut heard = Vec::new();
        for server in [&ours, &theirs] {
            let (mut subscriber, mut publisher) = (server.connect(), server.connect());
            if version == "3" {
                subscriber.tell("HELLO 3");
            }
            play(&mut subscriber, "SUBSCRIBE a b ; PSUBSCRIBE a* ; SSUBSCRIBE a b ; PSUBSCRIBE nosuch");
            let mut replies = Vec::new();
            for (channel, message) in
                [("a", "1"), ("b", ""), ("c", "lost"), ("ab", "\r\n"), ("a", &large), ("b", "end")]
            {
                publisher.ask(&[b"PUBLISH", channel.as_bytes(), message.as_bytes()]);
                publisher.ask(&[b"SPUBLISH", channel.as_bytes(), message.as_bytes()]);
            }
            while replies
                .last()
                .is_none_or(|reply: &String| !(reply.contains("smessage") && reply.contains("end")))
            {
                replies.push(shown(&subscriber.reply()));
            }
            heard.push(replies);
        }
        assert_eq!(heard[0], heard[1], "version {version}");
        assert_eq!(heard[0].len(), 7 + 4);
    }
}

/// Clients of two proxies with two workers each, and of the shards themselves.
#[test]
fn listeners_are_counted_wherever_they_are() {
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    for (pubsub, subscribe, numsub, channels) in [
        ("pubsub: all", "SUBSCRIBE", "NUMSUB", "CHANNELS"),
        ("pubsub: owner", "SUBSCRIBE", "NUMSUB", "CHANNELS"),
        ("pubsub: all", "SSUBSCRIBE", "SHARDNUMSUB", "SHARDCHANNELS"),
    ] {
        let settings = [pubsub];
        let proxies =
            [Server::memstore_of(2, &settings, &shards), Server::memstore_of(2, &settings, &shards)];
        let mut askers: Vec<Client> = (0..8).map(|number| proxies[number % 2].connect()).collect();
        let mut subscribers: Vec<Client> = Vec::new();
        for count in 1..=13 {
            let mut subscriber = proxies[count % 2].connect();
            assert!(subscriber.tell(&format!("{subscribe} news")).contains("subscribe"));
            subscribers.push(subscriber);
            // What is acknowledged is counted, whoever asks.
            let expected = format!("*4\r\n$4\r\nnews\r\n:{count}\r\n$6\r\nnobody\r\n:0\r\n");
            assert_eq!(askers[count % 8].tell(&format!("PUBSUB {numsub} news nobody")), expected);
        }
        let mut direct: Vec<Client> = shards.iter().map(Server::connect).collect();
        direct.iter_mut().for_each(|client| {
            assert!(client.tell(&format!("{subscribe} news")).contains("news"));
        });
        let news = |count: usize| format!("*2\r\n$4\r\nnews\r\n:{count}\r\n");
        let (numsub, channels) = (format!("PUBSUB {numsub} news"), format!("PUBSUB {channels}"));
        assert_eq!(askers[0].tell(&numsub), news(14), "the one on the shard that owns it");
        assert_eq!(askers[0].tell(&channels), "*1\r\n$4\r\nnews\r\n");
        drop(direct);
        for count in (0..13).rev() {
            drop(subscribers.pop());
            // A client that has gone is noticed in its time.
            servers::eventually(|| askers[count % 8].tell(&numsub), &news(count));
        }
        servers::eventually(|| askers[0].tell(&format!("{channels} *")), "*0\r\n");
    }
}

/// Of one request over three shards, published through two proxies of two workers each.
#[test]
fn each_message_of_a_sharded_channel_reaches_each_subscriber_once() {
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let proxies = [Server::memstore_of(2, &[], &shards), Server::memstore_of(2, &[], &shards)];
    let channels: Vec<String> = (0..10).map(|number| format!("channel-{number}")).collect();
    let mut subscribers: Vec<Client> = (0..6).map(|number| proxies[number % 2].connect()).collect();
    for subscriber in &mut subscribers {
        subscriber.send(&encoded(
            &[&[&b"SSUBSCRIBE"[..]], &channels.iter().map(String::as_bytes).collect::<Vec<_>>()[..]].concat(),
        ));
        for (count, channel) in channels.iter().enumerate() {
            let told = format!("*3\r\n$10\r\nssubscribe\r\n$9\r\n{channel}\r\n:{}\r\n", count + 1);
            assert_eq!(String::from_utf8_lossy(&subscriber.reply()), told);
        }
    }
    let mut publishers: Vec<Client> = (0..4).map(|number| proxies[number % 2].connect()).collect();
    for message in 0..200 {
        let channel = &channels[message % 10];
        assert!(publishers[message % 4].tell(&format!("SPUBLISH {channel} {message}")).starts_with(':'));
    }
    for subscriber in &mut subscribers {
        let heard: BTreeMap<String, usize> = (0..200).map(|_| (shown(&subscriber.reply()), 1)).collect();
        assert_eq!(heard.len(), 200);
        assert_eq!(subscriber.tell("PING"), "*2\r\n$4\r\npong\r\n$0\r\n\r\n", "and nothing more");
    }
    drop(subscribers);
    for shard in &shards {
        let mut client = shard.connect();
        servers::eventually(|| client.tell("PUBSUB SHARDCHANNELS"), "*0\r\n");
    }
}

/// Through one proxy or another, of two workers each, and by scripts on whatever shard their keys are.
#[test]
fn each_message_reaches_each_subscriber_once() {
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let proxies = [Server::memstore_of(2, &[], &shards), Server::memstore_of(2, &[], &shards)];
    let channels: Vec<String> = (0..10).map(|number| format!("channel-{number}")).collect();
    let mut subscribers: Vec<Client> = (0..12).map(|number| proxies[number % 2].connect()).collect();
    for (number, subscriber) in subscribers.iter_mut().enumerate() {
        if number % 3 == 0 {
            subscriber.tell("HELLO 3");
        }
        for channel in &channels {
            assert!(subscriber.tell(&format!("SUBSCRIBE {channel}")).contains("subscribe"));
        }
        assert!(subscriber.tell("PSUBSCRIBE channel-1*").contains("psubscribe"));
    }
    let mut publishers: Vec<Client> = (0..4).map(|number| proxies[number % 2].connect()).collect();
    for message in 0..500 {
        let publisher = &mut publishers[message % 4];
        let channel = &channels[message % 10];
        if message % 5 == 0 {
            let key = format!("key-{message}");
            let text = format!("{message}");
            let script = b"return redis.call('publish', ARGV[1], ARGV[2])";
            publisher.ask(&[b"EVAL", script, b"1", key.as_bytes(), channel.as_bytes(), text.as_bytes()]);
        } else {
            assert!(publisher.tell(&format!("PUBLISH {channel} {message}")).starts_with(':'));
        }
    }
    for subscriber in &mut subscribers {
        let mut heard: BTreeMap<String, usize> = BTreeMap::new();
        // One in ten matches the pattern as well.
        for _ in 0..550 {
            let reply = shown(&subscriber.reply());
            *heard.entry(reply.trim_start_matches(['*', '>']).to_owned()).or_default() += 1;
        }
        assert_eq!(heard.len(), 550);
        assert!(heard.values().all(|&times| times == 1));
    }
    for channel in &channels {
        for proxy in &proxies {
            proxy.connect().tell(&format!("PUBLISH {channel} end"));
        }
    }
    drop(subscribers);
    // Nothing is left at the shards.
    for shard in &shards {
        let mut client = shard.connect();
        servers::eventually(|| client.tell("PUBSUB CHANNELS"), "*0\r\n");
        servers::eventually(|| client.tell("PUBSUB NUMPAT"), ":0\r\n");
    }
}

/// Subscribers of a Redis Cluster whose slots move, and whose nodes change places, hear each message that is published once they are subscribed
/// again, and nothing else.
#[test]
fn sharded_channels_go_with_their_slots() {
    let nodes = Nodes::start(3, &["--cluster-node-timeout", "2000"]);
    nodes.form(3);
    nodes.is_well();
    let (proxy, admin) = nodes.proxy(&[], &[0, 1, 2]);
    let channels: Vec<String> = (0..8).map(|number| format!("channel-{number}")).collect();
    let mut subscribers: Vec<Client> = (0..3).map(|_| proxy.connect()).collect();
    for subscriber in &mut subscribers {
        for (count, channel) in channels.iter().enumerate() {
            let told = format!("*3\r\n$10\r\nssubscribe\r\n$9\r\n{channel}\r\n:{}\r\n", count + 1);
            assert_eq!(subscriber.tell(&format!("SSUBSCRIBE {channel}")), told);
        }
    }
    let mut publisher = proxy.connect();
    let numsub = format!("PUBSUB SHARDNUMSUB {}", channels.join(" "));
    let counted: String = channels.iter().map(|channel| format!("$9\r\n{channel}\r\n:3\r\n")).collect();
    let counted = format!("*16\r\n{counted}");
    eventually(|| publisher.tell(&numsub), &counted);
    for round in 0..4 {
        let channel = &channels[round];
        let reply = nodes.ask(0, &format!("CLUSTER KEYSLOT {channel}"));
        let slot: usize = reply.trim().trim_start_matches(':').parse().expect("a slot");
        let owner =
            (0..3).find(|&number| !nodes.ask(number, &format!("GET {{{channel}}}")).contains("MOVED"));
        let owner = owner.expect("a node serves it");
        nodes.move_slot(slot, owner, (owner + 1) % 3);
        // What counts them is there again as well.
        eventually(|| publisher.tell(&numsub), &counted);
        for (number, channel) in channels.iter().enumerate() {
            assert!(publisher.tell(&format!("SPUBLISH {channel} {round}-{number}")).starts_with(':'));
        }
        for subscriber in &mut subscribers {
            let heard: BTreeSet<Vec<u8>> = channels.iter().map(|_| subscriber.reply()).collect();
            let wanted = |number: usize| {
                let said = format!("{round}-{number}");
                encoded(&[b"smessage", channels[number].as_bytes(), said.as_bytes()])
            };
            assert_eq!(heard, (0..8).map(wanted).collect(), "round {round}");
        }
    }
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.tell("PING"), "*2\r\n$4\r\npong\r\n$0\r\n\r\n", "nobody was told of it");
    }
    assert!(servers::metrics(&admin).contains("memstore_cluster_redirects"));
    drop(subscribers);
    for number in 0..3 {
        eventually(|| nodes.ask(number, "PUBSUB SHARDCHANNELS"), "*0");
    }
}
