//! What one client or shard may take of a pass: the others wait for as long as that takes.
#![cfg(test)]

use std::time::Duration;

use super::sockets::ids;
use super::{
    OWED_PARTS, PASS_BYTES_MAX, PASS_WRITTEN_MAX, READ_LATE, TURNS_BYTES_MIN, WRITE_MAX, WRITE_MAX_OF_SHARD,
};
use crate::net::socket::READ_MAX;
use crate::worker::driver::rig::{Rig, heard, say};

const ECHO: &str = "*2\r\n$4\r\nECHO\r\n";

fn value(size: usize) -> String {
    format!("${size}\r\n{}\r\n", "v".repeat(size))
}

fn sent(rig: &Rig) -> usize {
    rig.driver.pool.counters().client_sent_bytes.get() as usize
}

/// To all clients.
fn owed(rig: &mut Rig) -> usize {
    let ids: Vec<_> = ids(&rig.driver.clients).collect();
    ids.iter().map(|id| rig.driver.pool.client_output(*id).map_or(0, |output| output.len())).sum()
}

/// The kernel may take megabytes at once.
#[test]
fn a_large_reply_is_written_in_parts() {
    let mut rig = Rig::new(16, |_| {});
    let mut client = rig.client();
    let reply = value(1_000_000);
    say(&mut client, ECHO);
    for part in reply.as_bytes().chunks(100_000) {
        say(&mut client, std::str::from_utf8(part).expect("ASCII"));
        rig.pass();
    }
    let mut taken = heard(&mut client).len();
    // The kernel tells of nothing any more, but there is room for more than is written in a pass.
    while taken < reply.len() {
        let before = sent(&rig);
        rig.blind_pass(Duration::ZERO);
        assert!((1..=WRITE_MAX).contains(&(sent(&rig) - before)), "{} bytes", sent(&rig) - before);
        taken += heard(&mut client).len();
    }
    assert_eq!(taken, reply.len());
}

/// Each of them is owed about as much as may be written to one in a pass.
#[test]
fn many_large_replies_do_not_hold_up_a_small_one() {
    const CLIENTS: usize = 50;
    let mut rig = Rig::new(16, |_| {});
    let mut large: Vec<_> = (0..CLIENTS).map(|_| rig.client()).collect();
    let mut small = rig.client();
    say(&mut small, "GET a\r\n");
    rig.passes();
    let mut shard = rig.shard();
    rig.passes();
    assert!(heard(&mut shard).ends_with("a\r\n"));
    large.iter_mut().for_each(|client| say(client, "COMMAND DOCS\r\n"));
    let mut counts = vec![0; CLIENTS];
    for pass in 0.. {
        let before = sent(&rig);
        if pass == 3 {
            say(&mut shard, "$1\r\nv\r\n");
        }
        rig.pass();
        let written = sent(&rig) - before;
        let most = PASS_WRITTEN_MAX.max((owed(&mut rig) + written) / OWED_PARTS);
        assert!(written <= most + WRITE_MAX + READ_LATE, "{written} bytes in pass {pass}");
        if pass == 3 {
            assert_eq!(heard(&mut small), "$1\r\nv\r\n");
        }
        large.iter_mut().zip(&mut counts).for_each(|(client, count)| *count += heard(client).len());
        if written == 0 {
            break;
        }
    }
    assert!(counts[0] > WRITE_MAX && counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}

/// All of them have more to say than a pass has time for, and one has little.
#[test]
fn many_large_requests_do_not_hold_up_a_small_one() {
    const CLIENTS: usize = 64;
    const SIZE: usize = 100_000;
    let mut rig = Rig::new(16, |_| {});
    let mut large: Vec<_> = (0..CLIENTS).map(|_| rig.client()).collect();
    let mut small = rig.client();
    rig.passes();
    // None of them is complete.
    large.iter_mut().for_each(|client| say(client, &format!("{ECHO}$1000000\r\n{}", "v".repeat(SIZE))));
    say(&mut small, "PING\r\n");
    let received = |rig: &Rig| rig.driver.pool.counters().client_received_bytes.get() as usize;
    let before = received(&rig);
    rig.pass();
    assert_eq!(heard(&mut small), "+PONG\r\n");
    let read = received(&rig) - before;
    assert!(read <= PASS_BYTES_MAX + READ_MAX + CLIENTS * READ_LATE, "{read} bytes in one pass");
    // Everybody has a turn.
    rig.passes();
    assert!(received(&rig) - before > CLIENTS * SIZE, "not all was read");
}

/// However often a shard is looked at in a pass: others have something for it meanwhile, and it has said something itself.
#[test]
fn a_large_request_is_written_in_parts_whoever_else_has_something_for_its_shard() {
    const SIZE: usize = 4_000_000;
    let mut rig = Rig::new(16, |limits| {
        limits.request_bytes_max = 2 * SIZE as u64;
        limits.shard_queue_bytes_max = 2 * SIZE as u64;
        // On the connection of the other one.
        limits.large_value_min = usize::MAX;
    });
    let (mut large, mut small) = (rig.client(), rig.client());
    say(&mut small, "GET a\r\n");
    rig.passes();
    let mut shard = rig.shard();
    rig.passes();
    say(&mut shard, "$1\r\nv\r\n");
    rig.passes();
    drop(heard(&mut shard));
    for part in format!("*3\r\n$3\r\nSET\r\n$1\r\nb\r\n{}", value(SIZE)).as_bytes().chunks(100_000) {
        say(&mut large, std::str::from_utf8(part).expect("ASCII"));
        rig.passes();
    }
    let mut before = usize::MAX;
    loop {
        say(&mut small, "GET a\r\n");
        rig.pass();
        let id = rig.driver.shards.iter().flatten().next().expect("it is connected").id;
        let left = rig.driver.pool.shard_output(id).map_or(0, |output| output.len());
        assert!(left > 0 || before != usize::MAX, "it was to wait");
        if left == 0 {
            break;
        }
        assert!(
            before == usize::MAX || before - left <= WRITE_MAX_OF_SHARD,
            "{} bytes in a pass",
            before - left
        );
        assert!(rig.driver.paused_shards.len() <= 1, "{} turns", rig.driver.paused_shards.len());
        before = left;
        drop(heard(&mut shard));
    }
}

/// What is read for clients is written to them if they take it: it does not pile up here.
#[test]
fn replies_do_not_pile_up_for_clients_that_take_them() {
    const SHARDS: usize = 16;
    let mut rig = Rig::new(SHARDS, |limits| limits.server_connections = SHARDS);
    let mut clients: Vec<_> = (0..SHARDS).map(|_| rig.client()).collect();
    clients.iter_mut().for_each(|client| say(client, "GET a\r\n"));
    rig.passes();
    let mut shards: Vec<_> = clients.iter().map(|_| rig.shard()).collect();
    rig.passes();
    for shard in &mut shards {
        assert!(heard(shard).ends_with("a\r\n"));
        say(shard, "$1000000000\r\n");
    }
    let some = "x".repeat(64 * 1024);
    for pass in 0..400 {
        shards.iter_mut().for_each(|shard| say(shard, &some));
        rig.pass();
        clients.iter_mut().for_each(|client| assert!(!heard(client).contains('|')));
        let owed = owed(&mut rig);
        assert!(owed < 2 * OWED_PARTS * SHARDS * some.len(), "{owed} bytes after pass {pass}");
    }
}

/// It was stuck once, and has taken all that it was given since.
#[test]
fn a_client_that_takes_its_reply_in_parts_is_not_stuck() {
    const SECOND: Duration = Duration::from_secs(1);
    let mut rig = Rig::new(16, |limits| limits.client_idle_timeout = Some(3 * SECOND));
    let mut client = rig.client();
    let reply = value(1_000_000);
    say(&mut client, ECHO);
    for part in reply.as_bytes().chunks(100_000) {
        say(&mut client, std::str::from_utf8(part).expect("ASCII"));
        rig.passes();
    }
    let mut taken = 0;
    while taken < reply.len() {
        let some = heard(&mut client);
        assert!(!some.is_empty() && !some.contains('|'), "closed after {taken} bytes");
        taken += some.len();
        rig.pass();
        rig.now = rig.now.plus(SECOND);
    }
}

/// Those that send little at a time are read in every pass, and may say all that it is to read.
#[test]
fn who_has_sent_much_is_read_on_while_many_send_little_at_a_time() {
    const LARGE: usize = 8;
    const SIZE: usize = 100_000;
    const SMALL: usize = 40;
    let mut rig = Rig::new(16, |_| {});
    let mut large: Vec<_> = (0..LARGE).map(|_| rig.client()).collect();
    let mut small: Vec<_> = (0..SMALL).map(|_| rig.client()).collect();
    // None of them is complete.
    let begin = format!("{ECHO}$1000000\r\n");
    small.iter_mut().for_each(|client| say(client, &begin));
    rig.passes();
    large.iter_mut().for_each(|client| say(client, &format!("{begin}{}", "v".repeat(SIZE))));
    let some = "v".repeat(PASS_BYTES_MAX / SMALL + 1);
    let received = |rig: &Rig| rig.driver.pool.counters().client_received_bytes.get() as usize;
    let before = received(&rig);
    let passes = LARGE * SIZE / TURNS_BYTES_MIN + LARGE;
    for _ in 0..passes {
        small.iter_mut().for_each(|client| say(client, &some));
        rig.pass();
    }
    let read = received(&rig) - before - passes * SMALL * some.len();
    assert!(read > LARGE * SIZE, "{read} bytes in {passes} passes");
}
