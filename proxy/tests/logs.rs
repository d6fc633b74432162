//! A log line that cannot be written costs nobody anything but the line.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use servers::{Server, metrics, told};

mod servers;

fn lost(admin: &str, reason: &str) -> u64 {
    let page = metrics(admin);
    let name = format!("memstore_log_lines_lost_total{{reason=\"{reason}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&name)).expect("the metric");
    value.parse().expect("a number")
}

/// A client whose mistake is logged, and that has the answer: the line was handed on before.
fn make_a_mistake(proxy: &Server) {
    let mut client = proxy.connect();
    client.send(b"*1\r\n$-5\r\n");
    let reply = servers::shown(&client.until_closed());
    assert!(reply.starts_with("-ERR Protocol error"), "{reply}");
}

/// Clients are served whatever becomes of lines, and the process ends in order.
fn goes_on(stderr: Stdio, limit_file: bool, loses: bool) {
    let shards = [Server::redis(&[])];
    let (mut proxy, admin) = Server::memstore_logging_to(Some(stderr), &[], &[shards[0].line(0)], &[]);
    if limit_file {
        let pid = i32::try_from(proxy.id()).expect("a process");
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        prlimit(Pid::from_raw(pid), Resource::Fsize, none).expect("it is ours");
    }
    let mut client = proxy.connect();
    assert_eq!(client.say("SET k v"), "+OK\\r\\n");
    make_a_mistake(&proxy);
    make_a_mistake(&proxy);
    assert_eq!(client.say("GET k"), "$1\\r\\nv\\r\\n");
    assert_eq!(told(&admin, "/alive"), "alive\n");
    let begin = Instant::now();
    while loses && lost(&admin, "write_failed") == 0 {
        assert!(begin.elapsed() < Duration::from_secs(30), "no line is lost");
    }
    drop(client);
    proxy.signal("TERM");
    assert_eq!(proxy.ended(), Some(0));
}

#[test]
fn standard_error_is_a_full_disk() {
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    goes_on(full.into(), false, true);
}

#[test]
fn standard_error_is_a_pipe_whose_reader_is_gone() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    goes_on(writer.into(), false, true);
}

#[test]
fn standard_error_is_a_file_at_its_size_limit() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("limited-{}.log", std::process::id()));
    let limited = File::create(&path).expect("the folder for temporary files is writable");
    goes_on(limited.into(), true, true);
    let _ = fs::remove_file(path);
}

#[test]
fn standard_error_is_a_pipe_that_nobody_reads() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    // As many bytes as a pipe holds: not one line more finds room.
    writer.write_all(&[b'.'; 65536]).expect("it has room");
    goes_on(writer.into(), false, false);
    drop(reader);
}

#[test]
fn the_last_lines_are_written_at_the_end() {
    let shards = [Server::redis(&[])];
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let (mut proxy, _) = Server::memstore_logging_to(Some(writer.into()), &[], &[shards[0].line(0)], &[]);
    proxy.signal("TERM");
    assert_eq!(proxy.ended(), Some(0));
    drop(proxy);
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("text");
    assert!(said.contains("drain started") && said.trim_end().ends_with("drain completed"), "{said}");
}
