//! Clients that ask about clients: everybody is answered, and nobody else pays for it.

use std::time::{Duration, Instant};

use servers::{Client, Server, encoded, shown};

mod servers;

fn lines(listing: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(listing);
    text.lines().filter(|line| line.starts_with("id=")).map(str::to_owned).collect()
}

fn id(client: &mut Client) -> u64 {
    client.say("CLIENT ID").trim_matches(|byte: char| !byte.is_ascii_digit()).parse().expect("a number")
}

#[test]
fn many_who_list_many_are_all_answered() {
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&[], &shards);
    let idle: Vec<Client> = (0..400).map(|_| proxy.connect()).collect();
    let mut askers: Vec<Client> = (0..20).map(|_| proxy.connect()).collect();
    let mut other = proxy.connect();
    let before = proxy.memory();
    for asker in &mut askers {
        asker.send(&[encoded(&[b"CLIENT", b"LIST"]), encoded(&[b"CLIENT", b"INFO"])].concat().repeat(20));
    }
    // Meanwhile requests are served.
    for _ in 0..50 {
        assert_eq!(other.say("SET k v"), "+OK\\r\\n");
    }
    for asker in &mut askers {
        for _ in 0..20 {
            let all = lines(&asker.reply());
            assert_eq!(all.len(), 421);
            assert!(all.iter().all(|line| line.contains(" addr=127.") && line.contains(" laddr=127.")));
            let ids = all.iter().map(|line| line[3..line.find(' ').expect("a blank")].parse::<u64>());
            assert!(ids.map(|id| id.expect("a number")).is_sorted());
            assert_eq!(lines(&asker.reply()).len(), 1);
        }
    }
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    drop(idle);
}

#[test]
fn clients_are_killed_on_whatever_worker_they_are() {
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&[], &shards);
    let mut asker = proxy.connect();
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.connect()).collect();
    let ids: Vec<u64> = clients.iter_mut().map(id).collect();
    for id in &ids[..4] {
        assert_eq!(asker.say(&format!("CLIENT KILL ID {id}")), ":1\\r\\n");
        assert_eq!(asker.say(&format!("CLIENT KILL ID {id}")), ":0\\r\\n");
    }
    for client in &mut clients[..4] {
        assert_eq!(client.until_closed(), b"");
    }
    assert_eq!(clients[4].say("PING"), "+PONG\\r\\n");
    // One's own, and that of nobody.
    let own = id(&mut asker);
    assert_eq!(asker.say(&format!("CLIENT KILL ID {own}")), ":0\\r\\n");
    assert_eq!(asker.say("CLIENT KILL ID 4000000000"), ":0\\r\\n");
    let named = format!("CLIENT LIST ID {} {own} {} {} 77777", ids[5], ids[4], ids[4]);
    assert_eq!(lines(&asker.ask(&named.split(' ').map(str::as_bytes).collect::<Vec<_>>())).len(), 3);
    assert_eq!(asker.say(&format!("CLIENT KILL ID {own} SKIPME no")), ":1\\r\\n");
    assert_eq!(asker.until_closed(), b"");
}

#[test]
fn many_numbers_are_a_set() {
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&[], &shards);
    let _idle: Vec<Client> = (0..200).map(|_| proxy.connect()).collect();
    let mut asker = proxy.connect();
    let own = id(&mut asker).to_string();
    let numbers: Vec<String> = (1_000_000..1_200_000).map(|number: u32| number.to_string()).collect();
    let mut words: Vec<&[u8]> = vec![b"CLIENT", b"LIST", b"ID", own.as_bytes()];
    words.extend(numbers.iter().map(|number| number.as_bytes()));
    let begin = Instant::now();
    assert_eq!(lines(&asker.ask(&words)).len(), 1);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[test]
fn a_drain_does_not_wait_for_listings() {
    let shards = [Server::redis(&[])];
    let (mut proxy, _) = Server::memstore_with_admin(&[], &[shards[0].line(0)], &["--drain-limit", "2m"]);
    let mut asker = proxy.connect();
    asker.send(&encoded(&[b"CLIENT", b"LIST"]).repeat(500));
    assert_eq!(lines(&asker.reply()).len(), 1);
    proxy.signal("TERM");
    let begin = Instant::now();
    let rest = shown(&asker.until_closed());
    assert!(rest.contains("no longer lists clients") || rest.contains("id="), "{rest}");
    drop(asker);
    assert_eq!(proxy.ended(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}
