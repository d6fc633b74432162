//! The rules of the core, each as a conversation: what clients and shards say, and what the proxy makes of it.
//!
//! The files of `conversations/` are a manual of the proxy's behaviour. CONTRIBUTING.md says how one is written.
//! `CONVERSATION=pipelines` plays those whose name contains that.

use std::path::{Path, PathBuf};

use conversation::script::Script;
use conversation::speech;
use conversation::stage::{Dialect, Stage};
use memstore_proxy::protocol::memcache::{self, Memcache};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session;

mod conversation;
mod world;

impl Dialect for Resp {
    type Speech = speech::Redis;

    fn settings() -> session::Settings {
        session::Settings { databases: 16, ..session::Settings::default() }
    }

    fn set(settings: &mut session::Settings, name: &str, value: &str) -> bool {
        match name {
            "databases" => settings.databases = value.parse().expect("a number"),
            "redis_db" => settings.db = value.parse().expect("a number"),
            "redis_auth" => settings.password = Some(value.as_bytes().to_vec()),
            "resp3" => settings.resp2_only = value == "no",
            _ => return false,
        }
        true
    }
}

impl Dialect for Memcache {
    type Speech = speech::Memcache;

    fn settings() -> memcache::Settings {
        memcache::Settings::default()
    }

    fn set(settings: &mut memcache::Settings, name: &str, value: &str) -> bool {
        match name {
            "miss_on_get_errors" => settings.miss_on_get_errors = value == "yes",
            _ => return false,
        }
        true
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conversations");
    let entries = std::fs::read_dir(folder).expect("the folder of conversations");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

/// The first line that did not go as written, and what was said instead.
fn play<D: Dialect>(script: &Script) -> Result<(), (usize, String)> {
    let mut stage = Stage::<D>::set(script)?;
    for step in &script.steps {
        stage.play(step).map_err(|mismatch| (step.line, format!("{}\n    {mismatch}", step.text)))?;
    }
    let last = script.steps.last().map_or(1, |step| step.line);
    stage.end().map_err(|mismatch| (last, mismatch))
}

#[test]
fn every_conversation_goes_as_written() {
    let wanted = std::env::var("CONVERSATION").unwrap_or_default();
    let mut played = 0;
    let mut mismatches = Vec::new();
    for path in files() {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        if !name.contains(&wanted) {
            continue;
        }
        played += 1;
        let script = Script::read(&path);
        let protocol = script.header.iter().find(|(_, name, _)| name == "protocol");
        let result = match protocol.map(|(_, _, value)| value.as_str()) {
            Some("redis") => play::<Resp>(&script),
            Some("memcache") => play::<Memcache>(&script),
            _ => Err((1, "the header has to say `protocol: redis` or `protocol: memcache`".into())),
        };
        if let Err((line, mismatch)) = result {
            mismatches.push(format!("tests/conversations/{name}:{line}: {mismatch}"));
        }
    }
    assert!(mismatches.is_empty(), "{} of {played}\n\n{}\n", mismatches.len(), mismatches.join("\n\n"));
    assert!(played > 0, "no conversation is called so");
}

/// A file that cannot go wrong proves nothing.
#[test]
fn a_wrong_line_is_told_with_its_place_and_what_was_said() {
    let play_text = |text: &str| {
        let path = std::env::temp_dir().join(format!("conversation-{}.txt", std::process::id()));
        std::fs::write(&path, text).expect("a place for files");
        let script = Script::read(&path);
        std::fs::remove_file(path).expect("just written");
        play::<Resp>(&script)
    };
    let text = "protocol: redis\nclient a> GET k1\nshard 1< GET k1\nshard 1> \"v\"\nclient a< \"w\"\n";
    let (line, mismatch) = play_text(text).expect_err("it is wrong");
    assert_eq!((line, mismatch.as_str()), (5, "client a< \"w\"\n    expected \"w\"\n         got \"v\""));
    let (line, mismatch) = play_text("protocol: redis\nclient a> PING\n").expect_err("it is wrong");
    assert_eq!((line, mismatch.as_str()), (2, "the conversation ends without:\n    client a< +PONG"));
}
