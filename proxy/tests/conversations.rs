//! The rules of the core, each as a conversation: what clients and shards say, and what the proxy makes of it.
//!
//! The files of `conversations/` are a manual of the proxy's behaviour. docs/conversations.md says how one is written, and
//! has their contents. `CONVERSATION=pipelines` plays those whose name contains that.

use std::path::{Path, PathBuf};

use conversation::script::{CLIENT_DEEDS, SHARD_DEEDS, SHARD_STATEMENTS, STATEMENTS, Script};
use conversation::settings::{COUNTERS, Dialect, LIMITS, SCENE};
use conversation::stage::Stage;
use memstore_proxy::protocol::memcache::Memcache;
use memstore_proxy::protocol::resp::Resp;

mod conversation;
mod world;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conversations");
    let entries = std::fs::read_dir(folder).expect("the folder of conversations");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

/// The first line that did not go as written, and what was said instead.
fn play(path: &Path) -> Result<(), (usize, String)> {
    let script = Script::read(path)?;
    let protocol = script.header.iter().find(|setting| setting.name == "protocol");
    match protocol.map(|setting| setting.value.as_str()) {
        Some("redis") => play_in::<Resp>(&script),
        Some("memcache") => play_in::<Memcache>(&script),
        _ => Err((1, "the header has to say `protocol: redis` or `protocol: memcache`".into())),
    }
}

fn play_in<D: Dialect>(script: &Script) -> Result<(), (usize, String)> {
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
        if let Err((line, mismatch)) = play(&path) {
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
        let result = play(&path);
        std::fs::remove_file(path).expect("just written");
        result.expect_err("it is wrong")
    };
    for (steps, line, mismatch) in [
        (
            "client a> GET k1\nshard 1< GET k1\nshard 1> \"v\"\nclient a< \"w\"",
            6,
            "expected \"w\"\n         got \"v\"",
        ),
        ("client a> GET k1\nshard 1< nothing", 4, "expected nothing\n         got GET k1"),
        ("client a> PING", 3, "the conversation ends without:\n    client a< +PONG"),
        ("client a> QUIT\nclient a< +OK", 4, "the conversation ends without:\n    client a closed"),
        ("client a> PING\nclient a closed", 4, "client a is not closed"),
        ("client a dances", 3, "\"dances\" is nothing that a client does; see docs/conversations.md"),
        (
            "clint a> PING",
            3,
            "it begins with none of the words that a line can begin with; see docs/conversations.md",
        ),
        ("count requests is 1", 3, "expected 1\n         got 0"),
        ("count sheep is 1", 3, "no counter of conversation/settings.rs is called sheep"),
        ("timeout: soon\nclient a> PING", 3, "timeout: \"soon\" is no value of it"),
        ("tmeout: 1s\nclient a> PING", 3, "tmeout: no such setting"),
    ] {
        let (at, said) = play_text(&format!("# A rule.\nprotocol: redis\n{steps}\n"));
        assert_eq!(at, line, "{steps}: {said}");
        assert!(said.ends_with(mismatch), "{steps}: {said}");
    }
    assert_eq!(play_text("protocol: redis\nclient a> PING\n").0, 1, "it states no rule");
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conversations.md");
    std::fs::read_to_string(path).expect("the page")
}

/// Whoever writes a conversation looks there, and not here.
#[test]
fn the_page_has_every_word_that_is_known() {
    let page = page();
    let first = |words: &str| words.trim_end().to_owned();
    let mut forms: Vec<String> = STATEMENTS.iter().map(|(words, _)| first(words)).collect();
    forms.extend(CLIENT_DEEDS.iter().map(|(words, _)| format!("client a {words}")));
    forms.extend(SHARD_DEEDS.iter().map(|(words, _)| format!("shard 1 {words}")));
    forms.extend(SHARD_STATEMENTS.iter().map(|(words, _)| format!("shard 2 {}", first(words))));
    forms.extend(["a>", "a>>", "a<", "a<<", "a closed"].map(|form| format!("client {form}")));
    forms.extend(["1>", "1<", "1 closed", "1 closed: ", "1 finished"].map(|form| format!("shard {form}")));
    let names = LIMITS.iter().map(|(name, _)| *name);
    let names =
        names.chain(SCENE.iter().map(|(name, _)| *name)).chain(COUNTERS.iter().map(|(name, _)| *name));
    let names = names.chain(Resp::SETTINGS.iter().map(|(name, _)| *name));
    let names = names.chain(Memcache::SETTINGS.iter().map(|(name, _)| *name));
    let missing: Vec<String> = forms
        .into_iter()
        .map(|form| format!("`{form}"))
        .chain(names.map(|name| format!("`{name}`")))
        .filter(|words| !page.contains(words.as_str()))
        .collect();
    assert!(missing.is_empty(), "docs/conversations.md lacks {missing:?}");
}

/// It is a manual only if one finds what one looks for.
#[test]
fn the_page_has_every_conversation_in_its_contents() {
    let page = page();
    let contents = page.split("## Contents").nth(1).expect("a chapter with the contents");
    let known: Vec<String> =
        files().iter().map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
    let listed: Vec<&str> = contents.split('`').skip(1).step_by(2).collect();
    let missing: Vec<_> = known.iter().filter(|name| !listed.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "docs/conversations.md does not list {missing:?}");
    let gone: Vec<_> = listed.iter().filter(|name| !known.iter().any(|known| known == *name)).collect();
    assert!(gone.is_empty(), "docs/conversations.md lists {gone:?}, which are not there");
}
