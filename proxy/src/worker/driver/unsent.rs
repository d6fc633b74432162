//! What a transport has taken and not written is not sent: whoever waits until all is sent waits for that too.
#![cfg(test)]

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::account::Account;
use crate::net::late::{CHUNK, FAREWELL};
use crate::worker::Order;
use crate::worker::driver::rig::{Rig, heard, say};
use crate::worker::driver::sockets::ids;

const SECOND: Duration = Duration::from_secs(1);
const REPLY: &str = "+the quick brown fox jumps over the lazy dog\r\n";
const QUIT: &str = "+OK\r\n";

/// A client with a late transport that has been answered, and has read nothing yet; what it has said behind its request.
fn answered(rig: &mut Rig, behind: &str) -> UnixStream {
    let mut client = rig.late_client();
    say(&mut client, &format!("GET a\r\n{behind}"));
    rig.passes();
    let mut shard = rig.shard();
    rig.passes();
    say(&mut shard, REPLY);
    rig.passes();
    // The shard stays.
    std::mem::forget(shard);
    client
}

/// All that comes as the peer goes on reading.
fn all_of(rig: &mut Rig, peer: &mut UnixStream) -> String {
    let mut all = String::new();
    loop {
        let some = heard(peer);
        all.push_str(&some);
        if some.is_empty() || some.ends_with('|') {
            return all;
        }
        rig.passes();
    }
}

#[test]
fn a_client_that_quits_gets_all_that_it_is_owed() {
    let mut rig = Rig::new(16, |_| {});
    let mut client = answered(&mut rig, "QUIT\r\n");
    rig.passes();
    assert_eq!(rig.driver.pool.client_count(), 1, "its replies are not sent");
    assert_eq!(all_of(&mut rig, &mut client), format!("{REPLY}{QUIT}{FAREWELL}|"));
    assert_eq!(rig.driver.pool.client_count(), 0);
}

#[test]
fn a_client_that_has_ended_gets_all_that_it_is_owed() {
    let mut rig = Rig::new(16, |_| {});
    let mut client = answered(&mut rig, "");
    client.shutdown(Shutdown::Write).expect("a socket");
    rig.passes();
    assert_eq!(all_of(&mut rig, &mut client), format!("{REPLY}|"));
    assert_eq!(rig.driver.pool.client_count(), 0);
}

#[test]
fn a_drain_waits_for_what_is_not_sent() {
    let mut rig = Rig::new(16, |_| {});
    let mut client = answered(&mut rig, "");
    rig.order(Order::Drain { limit: 60 * SECOND });
    rig.blind_pass(2 * SECOND);
    assert_eq!(rig.driver.pool.client_count(), 1, "its reply is not sent");
    assert_eq!(all_of(&mut rig, &mut client), format!("{REPLY}{FAREWELL}|"));
}

/// The reply that it is to go with cannot be written at once.
#[test]
fn a_client_that_is_let_go_gets_all_that_it_is_owed() {
    let mut rig = Rig::new(16, |_| {});
    rig.order(Order::Retire { within: SECOND });
    rig.blind_pass(2 * SECOND);
    let mut client = answered(&mut rig, "");
    assert_eq!(rig.driver.pool.client_count(), 1, "its reply is not sent");
    assert_eq!(all_of(&mut rig, &mut client), format!("{REPLY}{FAREWELL}|"));
}

/// The last reply is sent, but what is said after it has to wait.
#[test]
fn the_last_words_of_a_transport_are_waited_for() {
    let mut rig = Rig::new(16, |_| {});
    let mut client = rig.late_client();
    say(&mut client, "QUIT\r\n");
    rig.passes();
    assert_eq!(heard(&mut client), QUIT, "nothing else, and not the end");
    rig.passes();
    assert_eq!(all_of(&mut rig, &mut client), format!("{FAREWELL}|"));
    assert!(!rig.driver.lingering.is_empty(), "until the client closes");
    drop(client);
    rig.passes();
    assert!(rig.driver.lingering.is_empty());
}

#[test]
fn a_client_that_takes_what_its_transport_holds_is_not_stuck() {
    let mut rig = Rig::new(16, |limits| limits.client_idle_timeout = Some(3 * SECOND));
    let mut client = answered(&mut rig, "");
    for taken in 1..REPLY.len() / CHUNK {
        rig.blind_pass(2 * SECOND);
        assert_eq!(heard(&mut client), REPLY[(taken - 1) * CHUNK..taken * CHUNK]);
        rig.passes();
    }
    rig.blind_pass(2 * SECOND);
    rig.blind_pass(2 * SECOND);
    assert_eq!(rig.driver.pool.client_count(), 0, "now it has taken nothing for too long");
}

/// The driver counts what is held for its clients and shards; what their transports hold is a part of it.
#[test]
fn what_a_transport_holds_is_in_the_account() {
    let mut rig = Rig::new(16, |_| {});
    let client = answered(&mut rig, "");
    let id = ids(&rig.driver.clients).next().expect("it is there");
    let output = rig.driver.pool.client_output(id).expect("something waits");
    assert!(output.is_empty() && output.held() == REPLY.len() - CHUNK, "{output:?}");
    assert_eq!(output.memory(), output.held());
    drop(client);
}

/// What transports hold the pool does not see; whoever has most of it goes all the same, and nobody else.
#[test]
fn who_holds_most_in_its_transport_goes() {
    const HOARD: usize = 20_000;
    let account = Account::new(1_000_000);
    let mut rig = Rig::new(16, |limits| limits.memory_max = 1_000_000);
    rig.driver.pool.share_account(&account, 0);
    let mut hoarders: Vec<_> = (0..30).map(|_| rig.hoarder(&account, HOARD)).collect();
    let mut idle = rig.hoarder(&account, 7_000);
    let mut others: Vec<_> = (0..90).map(|_| rig.client()).collect();
    rig.passes();
    assert_eq!(account.held(), 30 * HOARD + 7_000);
    // Requests that are not complete.
    let part = format!("*2\r\n$4\r\nECHO\r\n$100000\r\n{}", "x".repeat(5_000));
    for other in &mut others {
        say(other, &part);
        rig.passes();
    }
    assert!(account.held() <= 1_000_000, "{} bytes", account.held());
    assert!(others.iter_mut().chain([&mut idle]).all(|other| heard(other).is_empty()));
    let mut gone = 0;
    for hoarder in &mut hoarders {
        let words = all_of(&mut rig, hoarder);
        assert!(words.is_empty() || words.starts_with("-OOM ") && words.ends_with('|'), "{words}");
        gone += usize::from(!words.is_empty());
    }
    assert!((1..=20).contains(&gone), "{gone} are gone");
}

/// Many hold little each, and nobody else has anything to tell.
#[test]
fn what_transports_hold_leaves_a_quarter_to_others() {
    let account = Account::new(1_000_000);
    let mut rig = Rig::new(16, |limits| limits.memory_max = 1_000_000);
    rig.driver.pool.share_account(&account, 0);
    let mut client = rig.client();
    // More than any of them holds, and not complete.
    say(&mut client, &format!("*2\r\n$4\r\nECHO\r\n$1000000\r\n{}", "x".repeat(100_000)));
    let mut idle = rig.hoarder(&account, 7_000);
    rig.passes();
    let mut hoarders = Vec::new();
    for _ in 0..100 {
        hoarders.push(rig.hoarder(&account, 20_000));
        rig.passes();
        assert!(account.aside() <= 750_000, "{} bytes", account.aside());
    }
    assert_eq!((heard(&mut client).as_str(), heard(&mut idle).as_str()), ("", ""));
    let gone = hoarders
        .iter_mut()
        .map(|hoarder| all_of(&mut rig, hoarder))
        .filter(|words| !words.is_empty())
        .count();
    assert!((63..75).contains(&gone), "{gone} are gone");
}

#[test]
fn a_request_is_written_on_as_the_shard_reads() {
    let mut rig = Rig::new(16, |_| {});
    let mut client = rig.client();
    say(&mut client, "SET a 12345678901234567890\r\n");
    rig.passes();
    let mut shard = rig.late_shard();
    rig.passes();
    assert_eq!(all_of(&mut rig, &mut shard), "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$20\r\n12345678901234567890\r\n");
    say(&mut shard, "+OK\r\n");
    rig.passes();
    assert_eq!(heard(&mut client), "+OK\r\n");
    // What was held for this connection is none of the next one's.
    say(&mut client, "SET a 12345678901234567890\r\n");
    rig.passes();
    drop(shard);
    rig.passes();
    assert!(heard(&mut client).contains("connection"));
    while rig.reports.try_recv().is_ok() {}
    say(&mut client, "GET a\r\n");
    rig.passes();
    let mut shard = rig.shard();
    let id = rig.driver.shards.iter().flatten().next().expect("it is connected").id;
    assert_eq!(rig.driver.pool.shard_output(id).map(|output| output.held()), Some(0));
    rig.passes();
    assert_eq!(heard(&mut shard), "*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
}

/// Of a write that has timed out the shard is asked nothing more, but what is on its way to it may still be executed: the
/// connection stays only if nothing is.
#[test]
fn a_write_that_timed_out_is_not_left_with_the_transport() {
    let mut rig = Rig::new(16, |limits| limits.timeout = Some(SECOND));
    let (mut client, mut other) = (rig.client(), rig.client());
    say(&mut client, "SET a 1\r\n");
    say(&mut other, "GET b\r\n");
    rig.passes();
    let mut shard = rig.late_shard();
    rig.passes();
    assert_eq!(heard(&mut shard).len(), CHUNK);
    // It is not silent.
    say(&mut shard, "+O");
    rig.now = rig.now.plus(SECOND / 2);
    rig.pass();
    assert_eq!(heard(&mut shard).len(), CHUNK);
    rig.blind_pass(SECOND / 2);
    assert!(heard(&mut client).contains("timed out"));
    assert!(heard(&mut shard).ends_with('|'), "it is closed");
}
