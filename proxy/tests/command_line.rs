//! What the `memstore` command prints and how it ends.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name)
}

fn memstore(words: &[&str], file: &str, input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memstore"));
    command.args(words).arg("-c").arg(example(file)).stdin(Stdio::piped());
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary was built");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads or has ended");
    child.wait_with_output().expect("it ends")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn check_says_all_that_is_wrong_and_fails() {
    let good = memstore(&["check"], "good/plain.yml", "");
    assert!(good.status.success());
    assert_eq!(said(&good).lines().count(), 2, "{}", said(&good));
    let bad = memstore(&["check"], "bad/many.yml", "");
    assert_eq!(bad.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&bad.stderr).lines().count(), 12);
    let serve = memstore(&["serve"], "bad/many.yml", "");
    assert_eq!(serve.status.code(), Some(1));
}

#[test]
fn route_says_which_shard_and_why() {
    let output = memstore(&["route", "--pool", "beta", "user:1", "-"], "good/plain.yml", "a{tag}b\n");
    let text = said(&output);
    assert!(text.contains("beta: user:1 -> ") && text.contains("whole key, fnv1a_64 "), "{text}");
    assert!(text.contains("a{tag}b -> ") && text.contains("tag tag, "), "{text}");
    let json =
        said(&memstore(&["route", "--format", "json", "--pool", "beta", "a\"b"], "good/plain.yml", ""));
    assert!(json.contains(r#""key":"a\"b""#) && json.contains(r#""point":"#), "{json}");
}

#[test]
fn ring_shares_add_up() {
    let text = said(&memstore(&["ring", "--pool", "beta"], "good/plain.yml", ""));
    let share = |line: &str| {
        line.split('%').next().and_then(|left| left.split_whitespace().last()?.parse::<f64>().ok())
    };
    let sum: f64 = text.lines().filter_map(share).sum();
    assert!((sum - 100.0).abs() < 0.1, "{text}");
}

#[test]
fn an_unknown_pool_is_told_with_those_there_are() {
    let output = memstore(&["ring", "--pool", "gamma"], "good/plain.yml", "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("alpha, beta"));
}

#[test]
fn nutcrackers_users_are_told_what_to_write() {
    let output = memstore(&[], "good/plain.yml", "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("memstore serve -c "));
}
