//! What one client or shard may take of a pass: the others wait for as long as that takes.
#![cfg(test)]

use std::time::Duration;

use super::{PASS_BYTES_MAX, PASS_WRITTEN_MAX, READ_LATE};
use crate::net::plain::WRITE_MAX;
use crate::net::socket::READ_MAX;
use crate::worker::driver::rig::{Rig, heard, say};

const ECHO: &str = "*2\r\n$4\r\nECHO\r\n";

fn value(size: usize) -> String {
    format!("${size}\r\n{}\r\n", "v".repeat(size))
}

fn sent(rig: &Rig) -> usize {
    rig.driver.pool.counters().client_sent_bytes.get() as usize
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
        assert!(written <= PASS_WRITTEN_MAX + WRITE_MAX + READ_LATE, "{written} bytes in pass {pass}");
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
