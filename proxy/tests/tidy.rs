//! The borders of ARCHITECTURE.md, as far as they can be kept mechanically.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// All Rust files below a folder of the package, with what they contain before their unit tests.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
}

fn files_below(folder: &Path) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder of this package") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(folder, &mut paths);
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a source file");
        // A file may have nothing else: `#![cfg(test)]`.
        let code = text.split("[cfg(test)]").next().unwrap_or_default().to_owned();
        (path, code)
    };
    paths.into_iter().map(read).collect()
}

/// Lines of code, without comments, that contain one of the words.
fn offences(folder: &str, words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, code) in files(folder) {
        if allowed.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            let line = line.trim_start();
            if !line.starts_with("//") && words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    found
}

fn check(rule: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

#[test]
fn the_core_does_no_io_and_knows_no_clock() {
    let words = [
        "tokio",
        "std::net",
        "std::fs",
        "std::thread",
        "std::io::Read",
        "Instant",
        "SystemTime",
        "rand::",
        "RandomState",
        "env::var",
        "rustix",
        "socket2",
        "RefCell",
    ];
    for folder in ["src/protocol", "src/pool"] {
        check("protocol/ and pool/ do no I/O; take it as an argument", offences(folder, &words, &[]));
    }
}

#[test]
fn only_one_match_knows_the_protocols() {
    for folder in
        ["src/pool", "src/worker", "src/control", "src/admin", "src/cli", "src/net", "src/reconcile"]
    {
        // A conversation is one with a Redis server.
        let allowed = ["worker/settings.rs", "net/conversation.rs"];
        check(
            "nobody outside protocol/ asks which protocol it is",
            offences(
                folder,
                &["resp::", "Resp>", "memcache::", "Memcache>", "Protocol::Redis", "Protocol::Memcache"],
                &allowed,
            ),
        );
    }
}

#[test]
fn a_command_is_its_row() {
    let commands = [
        "\"get\"",
        "\"mget\"",
        "\"del\"",
        "\"exists\"",
        "\"MGET\"",
        "b\"get\"",
        "b\"mget\"",
        "b\"eval\"",
        "\"eval\"",
    ];
    let allowed = ["command/table.rs", "command/mod.rs", "memcache/commands.rs"];
    check("no other file names a command", offences("src", &commands, &allowed));
}

#[test]
fn protocols_know_no_shards_and_no_configuration() {
    check(
        "protocol/ knows no shard, ring or configuration",
        offences("src/protocol", &["shard_discovery", "crate::config"], &[]),
    );
}

#[test]
fn files_hold_one_noun() {
    let long: Vec<_> = files("src")
        .into_iter()
        .filter(|(path, _)| !path.ends_with("command/table.rs"))
        .filter(|(_, code)| code.lines().count() > 600)
        .map(|(path, _)| path.display().to_string())
        .collect();
    check("a file over 600 lines has a second noun in it", long);
}

#[test]
fn a_test_is_read_in_one_go() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut long = Vec::new();
    for (path, _) in files_below(&tests) {
        let text = std::fs::read_to_string(&path).expect("a source file");
        if text.lines().count() > 700 {
            long.push(path.display().to_string());
        }
    }
    check("a test over 700 lines has a second subject in it", long);
}

/// The modules of a package by their path, each with the modules that it imports.
fn imports(root: &Path) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let root = folder.canonicalize().expect("a folder of the workspace");
    let mut modules = BTreeMap::new();
    for (path, code) in files_below(&root) {
        let path = path.strip_prefix(&root).expect("below it").with_extension("");
        let mut module: Vec<String> =
            path.iter().map(|part| part.to_str().expect("UTF-8").to_owned()).collect();
        module.pop_if(|last| last == "mod" || last == "lib");
        let plain: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        modules.insert(module, plain.join(" "));
    }
    let imported = |module: &Vec<String>, code: &str| {
        let mut found = BTreeSet::new();
        for path in paths(code) {
            let mut words =
                path.split("::").map(|word| word.split_whitespace().next().unwrap_or_default()).peekable();
            let mut place = match words.next() {
                Some("crate") => Vec::new(),
                Some("self") => module.clone(),
                _ => module[..module.len().saturating_sub(1)].to_vec(),
            };
            while words.next_if_eq(&"super").is_some() {
                place.pop();
            }
            for word in words {
                place.push(word.to_owned());
                if !modules.contains_key(&place) {
                    place.pop();
                    break;
                }
            }
            if place != *module {
                found.insert(place);
            }
        }
        found
    };
    modules.iter().map(|(module, code)| (module.clone(), imported(module, code))).collect()
}

/// What the code names with a path from `crate`, `super` or `self`, one by one.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || before == '_' || before == ':' {
                continue;
            }
            let is_use =
                code[..at].trim_end().ends_with("use") || code[..at].trim_end().ends_with("(crate) use");
            let ends = |character: char| match is_use {
                true => character == ';',
                false => !(character.is_alphanumeric() || character == '_' || character == ':'),
            };
            let end = code[at..].find(ends).map_or(code.len(), |end| at + end);
            expand("", &code[at..end], &mut found);
        }
    }
    found
}

/// `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(before: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        return found.push(format!("{before}{tree}"));
    };
    let before = format!("{before}{}", &tree[..open]);
    let inner = tree[open + 1..].trim_end().strip_suffix('}').unwrap_or_default();
    let (mut depth, mut start) = (0, 0);
    for (at, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    expand(&before, &inner[start..at], found);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// Modules that import each other, through however many others.
fn circles<N: Ord + Clone>(imports: &BTreeMap<N, BTreeSet<N>>) -> Vec<(N, N)> {
    let reached = |from: &N| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            for other in imports.get(&module).into_iter().flatten() {
                if seen.insert(other.clone()) {
                    next.push(other.clone());
                }
            }
        }
        seen
    };
    let all: BTreeMap<&N, BTreeSet<N>> = imports.keys().map(|module| (module, reached(module))).collect();
    let is_circle = |(from, to): &(&N, &N)| all.get(to).is_some_and(|reached| reached.contains(from));
    let edges = imports.iter().flat_map(|(from, others)| others.iter().map(move |to| (from, to)));
    edges.filter(is_circle).map(|(from, to)| (from.clone(), to.clone())).collect()
}

#[test]
fn imports_go_in_no_circle() {
    for root in ["src", "../shard-discovery/src"] {
        let files = imports(Path::new(root));
        assert!(
            files.values().map(BTreeSet::len).sum::<usize>() > 10,
            "{root}: the imports are not found any more"
        );
        let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let folder = |module: &Vec<String>| module.first().cloned().unwrap_or_default();
        for (from, others) in &files {
            let to = others.iter().map(folder).filter(|to| *to != folder(from));
            folders.entry(folder(from)).or_default().extend(to);
        }
        let mut found: Vec<String> = circles(&files)
            .into_iter()
            .map(|(from, to)| format!("{} imports {}", from.join("/"), to.join("/")))
            .collect();
        found.extend(circles(&folders).into_iter().map(|(from, to)| format!("{from}/ imports {to}/")));
        check("a reader has to be able to start somewhere; these import each other", found);
    }
}

/// Each folder or file, and those that it may import: what stands before it. ARCHITECTURE.md says what they are for.
const LAYERS: [&[&str]; 9] = [
    &["time", "table", "freed", "secret", "log_limit", "failure", "metrics", "privacy", "peers"],
    &["account", "buffer", "denied", "hot", "mailboxes", "scripts", "slow"],
    &["protocol"],
    &["monitor", "pool", "config", "net"],
    &["worker"],
    &["status", "log"],
    &["admin", "reconcile"],
    &["control"],
    &["cli"],
];

#[test]
fn layers_import_those_below_them() {
    let layer = |module: &[String]| {
        let name = module.first().map_or("", String::as_str);
        LAYERS.iter().position(|layer| layer.contains(&name))
    };
    let mut found = Vec::new();
    for (from, others) in imports(Path::new("src")) {
        let is_whole = from.first().is_none_or(|name| ["lib", "main"].contains(&name.as_str()));
        if is_whole {
            continue;
        }
        let Some(own) = layer(&from) else {
            found.push(format!("{} is in no layer", from.join("/")));
            continue;
        };
        let above = others.iter().filter(|to| layer(to).is_some_and(|other| other > own));
        found.extend(above.map(|to| format!("{} imports {}", from.join("/"), to.join("/"))));
    }
    check("what is below has to be usable without what is above it", found);
}

#[test]
fn a_circle_is_found() {
    let code = "use crate::a::{self, b::{C, D}};\nfn f() { super::x::y(); }";
    assert_eq!(paths(code), ["crate::a::self", "crate::a::b::C", "crate::a::b::D", "super::x::y"]);
    let imports = [("a", vec!["b"]), ("b", vec!["c"]), ("c", vec!["a"]), ("d", vec!["a"])];
    let imports = imports.map(|(from, to)| (from, to.into_iter().collect())).into_iter().collect();
    assert_eq!(circles(&imports), [("a", "b"), ("b", "c"), ("c", "a")]);
}

/// The public fields of a struct.
fn fields(file: &str, name: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    let code = std::fs::read_to_string(path).expect("a source file");
    let body = code.split(&format!("pub struct {name} {{\n")).nth(1).expect("it is there");
    let body = body.split("\n}").next().unwrap_or_default().lines();
    let fields = body.filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(": "));
    let fields: Vec<String> = fields.map(|(field, _)| field.to_owned()).collect();
    assert!(!fields.is_empty(), "{file}: the fields of {name} are not found any more");
    fields
}

/// Those that no file names, as `.field`, of those that are looked at.
fn unnamed(fields: Vec<String>, looked_at: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut code = String::new();
    for (path, text) in files("src") {
        if looked_at(path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("below it"))
        {
            code.extend(text.split_inclusive('\n').filter(|line| !line.trim_start().starts_with("//")));
        }
    }
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let is_named = |field: &String| {
        let name = format!(".{field}");
        let mut found = code.match_indices(&name).map(|(at, named)| at + named.len());
        found.any(|end| !code[end..].starts_with(is_word))
    };
    fields.into_iter().filter(|field| !is_named(field)).collect()
}

/// What is read and goes nowhere does nothing, and the compiler does not see it: the fields are public.
#[test]
fn what_is_configured_is_used() {
    for (file, name) in [("config/pool.rs", "Pool"), ("config/process.rs", "Process")] {
        let elsewhere = |path: &Path| !path.starts_with("config");
        check("a field of the configuration that nothing reads", unnamed(fields(file, name), elsewhere));
    }
    let in_core = |path: &Path| path.starts_with("pool") || path.starts_with("protocol");
    let limits = fields("pool/limits.rs", "Limits");
    check(
        "a limit that limits nothing",
        unnamed(limits, |path| in_core(path) && !path.ends_with("limits.rs")),
    );
    for file in ["protocol/resp/session.rs", "protocol/memcache/mod.rs"] {
        let of_protocol = |path: &Path| path.starts_with("protocol");
        check("a setting that the protocol does not heed", unnamed(fields(file, "Settings"), of_protocol));
    }
}

/// A counter that nobody counts, or nobody shows, is none.
#[test]
fn what_is_counted_is_shown() {
    for name in ["PoolCounters", "ShardCounters", "WorkerCounters"] {
        let is_about = |path: &Path| path.starts_with("admin") || path == Path::new("status.rs");
        check("nothing in admin/ shows it", unnamed(fields("metrics.rs", name), is_about));
        let counted = |path: &Path| !is_about(path) && path != Path::new("metrics.rs");
        check("nobody counts it", unnamed(fields("metrics.rs", name), counted));
    }
}

/// Links of Markdown pages to files, as they are written, without those to other sites.
fn links(page: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for part in page.split("](").skip(1) {
        let Some((target, _)) = part.split_once(')') else { continue };
        let file = target.split('#').next().unwrap_or_default();
        if !file.is_empty() && !file.contains("://") && !file.contains(' ') {
            found.push(file);
        }
    }
    found
}

#[test]
fn pages_link_to_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = root.join("docs");
    let mut pages: Vec<PathBuf> = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "chart/README.md",
        "chart/RUNBOOK.md",
    ]
    .iter()
    .map(|page| root.join(page))
    .collect();
    let of_the_book = std::fs::read_dir(&docs).expect("docs").map(|entry| entry.expect("a page").path());
    pages.extend(of_the_book.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    let mut broken = Vec::new();
    for page in &pages {
        let text = std::fs::read_to_string(page).expect("a page");
        let folder = page.parent().expect("a folder");
        broken.extend(
            links(&text)
                .iter()
                .filter(|link| !folder.join(link).exists())
                .map(|link| format!("{}: {link}", page.display())),
        );
    }
    check("a page links to nothing", broken);

    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).expect("docs/SUMMARY.md");
    let named = links(&summary);
    let unnamed = pages
        .iter()
        .filter(|page| page.parent() == Some(docs.as_path()))
        .filter_map(|page| page.file_name()?.to_str())
        .filter(|name| *name != "SUMMARY.md" && !named.contains(name))
        .map(str::to_owned);
    check("the summary of the book lacks a page", unnamed.collect());
}
