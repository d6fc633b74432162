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

/// A client that asks the cluster itself computes the same.
#[test]
fn route_shows_the_hash_that_a_cluster_takes_slots_from() {
    let file = std::env::temp_dir().join(format!("memstore-route-{}.yml", std::process::id()));
    let text = "p:\n  listen: 127.0.0.1:7999\n  redis: true\n  cluster: {seeds: [\"127.0.0.1:7001\"]}\n";
    std::fs::write(&file, text).expect("a file");
    let output = run(&["route", "-c", &file.display().to_string(), "123456789"]);
    // The check value of CRC-16/XMODEM.
    assert!(said(&output).contains("crc16 12739, slot 12739"), "{}", said(&output));
    std::fs::remove_file(&file).expect("our file");
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

/// Hashes of 15 bits meet one shard's points only.
#[test]
fn ring_shows_what_keys_really_do() {
    let output = memstore(&["ring"], "good/narrow_hash.yml", "");
    let text = said(&output);
    let share = |shard: &str| {
        let line = text.lines().find(|line| line.contains(shard)).expect("a line");
        line.split('%')
            .next()
            .and_then(|left| left.split_whitespace().last()?.parse::<f64>().ok())
            .expect("a share")
    };
    let mut shares = ["one", "two", "three"].map(share);
    shares.sort_by(f64::total_cmp);
    assert_eq!(shares, [0.0, 0.0, 100.0], "{text}");
    assert_eq!(share("feather"), 0.0, "{text}");
    let warned = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warned.contains("hash crc32 has only 15 bits"), "{warned}");
    assert!(
        warned.contains("shard feather has weight 1 beside much heavier ones and gets no keys"),
        "{warned}"
    );
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

/// Runs the binary with these words and nothing else.
fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_memstore")).args(words).output().expect("the binary was built")
}

#[test]
fn check_speaks_json() {
    let parse =
        |output: &Output| serde_json::from_str::<serde_json::Value>(&said(output)).expect("one JSON object");
    let good = parse(&memstore(&["check", "--format", "json"], "good/plain.yml", ""));
    assert_eq!((&good["ok"], good["pools"].as_array().map(Vec::len)), (&true.into(), Some(2)), "{good}");
    let output = memstore(&["check", "--format", "json"], "bad/many.yml", "");
    assert_eq!(output.status.code(), Some(1));
    let bad = parse(&output);
    let errors = bad["errors"].as_array().expect("a list");
    assert!(errors.len() > 5 && errors.iter().all(|error| error["line"].is_u64()), "{bad}");
}

#[test]
fn plan_fails_where_more_moves_than_may() {
    let scratch = std::env::temp_dir().join(format!("memstore-plan-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("a folder");
    let file = |shards: usize| {
        let servers: String =
            (0..shards).map(|shard| format!("   - 127.0.0.1:{}:1 shard-{shard}\n", 7000 + shard)).collect();
        let path = scratch.join(format!("{shards}.yml"));
        std::fs::write(&path, format!("p:\n  listen: 127.0.0.1:7999\n  redis: true\n  servers:\n{servers}"))
            .expect("a file");
        path.display().to_string()
    };
    let (from, to) = (file(3), file(4));
    let plan = |more: &[&str]| run(&[&["plan", "--from", &from, "--to", &to], more].concat());
    assert!(
        said(&plan(&[]))
            .lines()
            .next()
            .is_some_and(|line| line.contains(" stay, ") && line.ends_with(" % move"))
    );
    assert_eq!(plan(&["--fail-above", "50"]).status.code(), Some(0));
    assert_eq!(plan(&["--fail-above", "5"]).status.code(), Some(4));
    let json: serde_json::Value =
        serde_json::from_str(&said(&plan(&["--format", "json"]))).expect("one JSON object");
    let moved = json["moved_percent"].as_f64().expect("a number");
    assert!((10.0..50.0).contains(&moved), "{json}");
    std::fs::remove_dir_all(&scratch).expect("our folder");
}

#[test]
fn plan_fails_where_all_is_lost_or_nothing_is_known() {
    let scratch = std::env::temp_dir().join(format!("memstore-lost-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("a folder");
    let file = |name: &str, pool: &str, more: &str| {
        let path = scratch.join(name);
        let text = format!("{pool}:\n  listen: 127.0.0.1:7999\n  redis: true\n  {more}\n");
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let servers = "servers: [\"127.0.0.1:7000:1 a\"]";
    let plain = file("plain", "p", servers);
    let other_name = file("name", "q", servers);
    let other_database = file("database", "p", &format!("redis_db: 3\n  {servers}"));
    let cluster = file("cluster", "p", "cluster: {seeds: [\"127.0.0.1:7001\"]}");
    let other_cluster = file("other", "p", "cluster: {seeds: [\"127.0.0.1:7002\"]}");
    let plan = |from: &str, to: &str, most: &str| {
        let output = run(&["plan", "--from", from, "--to", to, "--fail-above", most]);
        (output.status.code(), said(&output))
    };
    for (from, to, word) in [
        (&plain, &other_name, "p: removed"),
        (&plain, &other_database, "another database"),
        (&cluster, &other_cluster, "unknown"),
        (&plain, &cluster, "unknown"),
        (&cluster, &plain, "unknown"),
    ] {
        let (code, text) = plan(from, to, "50");
        assert!(code == Some(4) && text.contains(word) && !text.contains(" stay"), "{from} {to}: {text}");
    }
    for same in [&plain, &cluster, &other_database] {
        assert_eq!(plan(same, same, "0").0, Some(0), "{same}");
    }
    for wrong in ["nan", "-1", "101", "inf"] {
        let (code, _) = plan(&plain, &plain, wrong);
        assert_eq!(code, Some(2), "{wrong}");
    }
    std::fs::remove_dir_all(&scratch).expect("our folder");
}

#[test]
fn keys_that_are_pinned_are_shown_by_route_ring_and_plan() {
    let scratch = std::env::temp_dir().join(format!("memstore-pin-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("a folder");
    let file = |name: &str, more: &str| {
        let path = scratch.join(name);
        let servers: String =
            (0..3).map(|shard| format!("  - 127.0.0.1:700{shard}:1 shard-{shard}\n")).collect();
        let text = format!("p:\n  listen: 127.0.0.1:7999\n  redis: true\n{more}  servers:\n{servers}");
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let plain = file("plain", "");
    let pinned = file("pinned", "  pin: {\"rq:\": shard-1, \"s:\": \"{user}\"}\n");
    let route = |format: &str, key: &str| said(&run(&["route", "-c", &pinned, "--format", format, key]));
    let text = route("text", "rq:queue");
    assert_eq!(text, "p: rq:queue -> shard-1 (127.0.0.1:7001): \"rq:\" is pinned to shard-1\n");
    assert!(route("text", "s:1").contains(": \"s:\" is pinned to {user}, point "));
    let json: serde_json::Value = serde_json::from_str(&route("json", "s:1")).expect("JSON");
    assert_eq!((&json["pin"]["prefix"], &json["hashed"]), (&"s:".into(), &"user".into()), "{json}");
    assert!(route("text", "t:1").contains("whole key"));
    let ring = said(&run(&["ring", "-c", &pinned]));
    assert!(ring.contains("p: keys that begin with \"rq:\" -> shard-1: pinned to shard-1\n"), "{ring}");
    let plan = |from: &str, to: &str| run(&["plan", "--from", from, "--to", to, "--fail-above", "0"]);
    assert_eq!(plan(&pinned, &pinned).status.code(), Some(0));
    let moved = plan(&plain, &pinned);
    assert_eq!(moved.status.code(), Some(4));
    assert!(
        said(&moved).contains("p: keys that begin with \"rq:\" are pinned otherwise"),
        "{}",
        said(&moved)
    );
    std::fs::remove_dir_all(&scratch).expect("our folder");
}

#[test]
fn ring_of_a_cluster_says_who_knows() {
    let file = std::env::temp_dir().join(format!("memstore-ring-{}.yml", std::process::id()));
    let text = "p:\n  listen: 127.0.0.1:7999\n  redis: true\n  cluster: {seeds: [\"127.0.0.1:7001\"]}\n";
    std::fs::write(&file, text).expect("a file");
    let output = run(&["ring", "-c", &file.display().to_string()]);
    assert!(said(&output).contains("p: a Redis Cluster"), "{}", said(&output));
    std::fs::remove_file(&file).expect("our file");
}

/// The subcommands that help lists, but for help itself.
fn commands_of(words: &[&str]) -> Vec<String> {
    let help = said(&run(&[words, &["--help"]].concat()));
    let Some((_, listed)) = help.split_once("Commands:\n") else { return Vec::new() };
    let block = listed.lines().take_while(|line| !line.is_empty());
    // Where the terminal is narrow a text goes on in further lines, which are indented more.
    let begin = block.filter_map(|line| line.strip_prefix("  ").filter(|name| !name.starts_with(' ')));
    let names = begin.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

/// The long flags that help shows.
fn flags_of(words: &[&str]) -> Vec<String> {
    let help = said(&run(&[words, &["--help"]].concat()));
    let begin = help.lines().filter(|line| line.trim_start().starts_with('-'));
    let flags = begin.filter_map(|line| line.split([' ', ',']).find(|word| word.starts_with("--")));
    flags.map(str::to_owned).collect()
}

/// All commands, those below others included.
fn all_commands() -> Vec<Vec<String>> {
    let top = commands_of(&[]);
    assert!(
        ["serve", "await-ring", "man"].iter().all(|name| top.iter().any(|known| known == name)),
        "{top:?}"
    );
    let below = |name: &String| {
        commands_of(&[name]).into_iter().map(|sub| vec![name.clone(), sub]).collect::<Vec<_>>()
    };
    let below: Vec<_> = top.iter().flat_map(below).collect();
    assert!(below.iter().any(|words| words[1] == "reconcile"), "{below:?}");
    top.into_iter().map(|name| vec![name]).chain(below).collect()
}

#[test]
fn shells_complete_what_help_shows() {
    let commands = all_commands();
    // As each shell has its words.
    for (shell, before, behind) in [("zsh", "'", ":"), ("fish", "-a \"", "\"")] {
        let script = said(&run(&["completions", shell]));
        for words in &commands {
            let word = format!("{before}{}{behind}", words[words.len() - 1]);
            assert!(script.contains(&word), "{shell} does not know {word}");
        }
    }
    let file = std::env::temp_dir().join(format!("memstore-completions-{}", std::process::id()));
    std::fs::write(&file, said(&run(&["completions", "bash"]))).expect("a file");
    // What bash offers behind these words, to who has begun so.
    let offered = |words: &[&str], begun: &str| {
        let script = r#"source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); cur=${!#}
            "$(complete -p memstore | sed 's/.*-F \([^ ]*\).*/\1/')" memstore "$cur" "${COMP_WORDS[-2]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let output = Command::new("bash")
            .args(["-c", script, "bash"])
            .arg(&file)
            .arg("memstore")
            .args(words)
            .arg(begun)
            .output()
            .expect("bash");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut found: Vec<_> = said(&output).lines().map(str::to_owned).collect();
        found.retain(|word| word != "help" && !(begun.is_empty() && word.starts_with('-')));
        found.sort();
        found
    };
    for words in std::iter::once(Vec::new()).chain(commands) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (mut known, flags) = (commands_of(&words), flags_of(&words));
        known.sort();
        let found = offered(&words, "");
        // Behind a word that has no further ones it offers those that a value may have, if any.
        assert!(found == known || known.is_empty(), "{words:?}: {found:?}, not {known:?}");
        let offered = offered(&words, "--");
        // It offers hidden ones as well.
        assert!(flags.iter().all(|flag| offered.contains(flag)), "{words:?}: {offered:?}, not {flags:?}");
    }
    std::fs::remove_file(&file).expect("our file");
    assert_eq!(run(&["completions", "csh"]).status.code(), Some(2));
}

#[test]
fn every_command_has_a_man_page() {
    let folder = std::env::temp_dir().join(format!("memstore-man-{}", std::process::id()));
    assert!(run(&["man", &folder.display().to_string()]).status.success());
    let pages = std::fs::read_dir(&folder).expect("a folder").map(|file| file.expect("a file").file_name());
    let mut found: Vec<_> = pages.map(|name| name.into_string().expect("text")).collect();
    found.sort();
    let commands: Vec<_> = std::iter::once(Vec::new()).chain(all_commands()).collect();
    let name = |words: &Vec<String>| {
        std::iter::once("memstore").chain(words.iter().map(String::as_str)).collect::<Vec<_>>().join("-")
    };
    let mut known: Vec<_> = commands.iter().map(|words| format!("{}.1", name(words))).collect();
    known.sort();
    assert_eq!(found, known);
    for words in &commands {
        let page = std::fs::read_to_string(folder.join(format!("{}.1", name(words)))).expect("just seen");
        assert!(page.contains(&format!(".TH {} 1", name(words))), "{page}");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let below = commands_of(&words).into_iter().map(|sub| format!("{sub}(1)"));
        for word in flags_of(&words).into_iter().chain(below) {
            assert!(page.contains(&word.replace('-', "\\-")), "{words:?} lacks {word}: {page}");
        }
    }
    std::fs::remove_dir_all(&folder).expect("our folder");
    let refused = run(&["man", "/dev/null/pages"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("/dev/null/pages"));
}

#[test]
fn nutcrackers_flags_mean_what_they_meant() {
    let good = example("good/plain.yml").display().to_string();
    let bad = example("bad/many.yml").display().to_string();
    let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let test = run(&["nutcracker", "-t", "-c", &good]);
    assert!(test.status.success() && told(&test).ends_with("syntax is ok\n"), "{}", told(&test));
    let test = run(&["nutcracker", "--test-conf", "--conf-file", &bad]);
    assert_eq!(test.status.code(), Some(1));
    assert!(told(&test).ends_with("syntax is invalid\n"), "{}", told(&test));
    assert!(said(&run(&["nutcracker", "-V"])).starts_with("This is memstore-"));
    let described = said(&run(&["nutcracker", "-D"]));
    assert!(described.contains("client_eof") && described.contains("out_queue_bytes"), "{described}");
}

/// With the name it had, behind a link, as a daemon that writes its log and its PID where it is told.
#[test]
fn a_link_called_nutcracker_is_nutcracker() {
    let scratch = std::env::temp_dir().join(format!("memstore-nutcracker-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("a folder");
    let link = scratch.join("nutcracker");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_memstore"), &link).expect("a link");
    let (config, log, pid) = (scratch.join("c.yml"), scratch.join("log"), scratch.join("pid"));
    let listen = scratch.join("socket");
    let text =
        format!("p:\n  listen: {}\n  redis: true\n  servers: [\"127.0.0.1:1:1 a\"]\n", listen.display());
    std::fs::write(&config, &text).expect("a file");
    let started = Command::new(&link)
        .args(["-d", "-v", "12", "-m", "16384", "-i", "1000", "-s", "0", "-c"])
        .arg(&config)
        .arg("-o")
        .arg(&log)
        .arg("-p")
        .arg(&pid)
        .env("MEMSTORE_ADMIN_PORT", "0")
        .status()
        .expect("it starts");
    assert!(started.success(), "the parent ends at once");
    let wait = |what: &str, until: &dyn Fn() -> bool| {
        let begin = std::time::Instant::now();
        while !until() {
            assert!(begin.elapsed().as_secs() < 60, "waited too long until {what}");
            std::thread::yield_now();
        }
    };
    let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    wait("it serves", &|| read(&log).contains("memstore is serving"));
    assert!(read(&log).contains("admin=\"none\"") || read(&log).contains("admin=none"), "{}", read(&log));
    let process = read(&pid).trim().to_owned();
    assert!(process.parse::<u32>().is_ok(), "{process:?}");
    // Another one that cannot have the address leaves the file alone.
    let second = run(&[
        "nutcracker",
        "-s",
        "0",
        "-c",
        &config.display().to_string(),
        "-p",
        &pid.display().to_string(),
    ]);
    assert!(!second.status.success());
    assert_eq!(read(&pid).trim(), process);
    let help = Command::new(&link).arg("-h").output().expect("it starts");
    assert!(said(&help).contains("Usage: nutcracker [OPTIONS]\n"), "{}", said(&help));
    // A reload that waits for a shard holds up nothing of this.
    let shard = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let added = format!("servers: [\"{}:1 b\"]\n  adopt_wait: 60s\n", shard.local_addr().expect("bound"));
    std::fs::write(&config, text.replace("servers: [\"127.0.0.1:1:1 a\"]\n", &added)).expect("a file");
    assert!(Command::new("kill").args(["-HUP", &process]).status().expect("kill").success());
    let _asked = shard.accept().expect("the shard is asked");
    // What rotates logs moves the file away, then tells the process.
    std::fs::rename(&log, scratch.join("log.1")).expect("our file");
    assert!(Command::new("kill").args(["-HUP", &process]).status().expect("kill").success());
    wait("the log is opened again", &|| log.exists());
    assert!(Command::new("kill").args(["-TERM", &process]).status().expect("kill").success());
    wait("the PID file is gone", &|| !pid.exists());
    std::fs::remove_dir_all(&scratch).expect("our folder");
}

/// Files that tell of the process would be taken for those of one that runs.
#[test]
fn nothing_is_left_behind_by_a_drain_that_is_cut_short() {
    let scratch = std::env::temp_dir().join(format!("memstore-cut-short-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("a folder");
    let [config, log, pid, listen, admin] =
        ["c.yml", "log", "pid", "socket", "admin"].map(|name| scratch.join(name));
    let text =
        format!("p:\n  listen: {}\n  redis: true\n  servers: [\"127.0.0.1:1:1 a\"]\n", listen.display());
    std::fs::write(&config, text).expect("a file");
    let mut process = Command::new(env!("CARGO_BIN_EXE_memstore"))
        .args(["nutcracker", "-v", "6", "-s", "0", "-c"])
        .arg(&config)
        .arg("-o")
        .arg(&log)
        .arg("-p")
        .arg(&pid)
        .env("MEMSTORE_ADMIN_ADDRESS", &admin)
        .env("MEMSTORE_DRAIN_GRACE", "10m")
        .spawn()
        .expect("it starts");
    let told = |text: &str| {
        let begin = std::time::Instant::now();
        while !std::fs::read_to_string(&log).unwrap_or_default().contains(text) {
            assert!(begin.elapsed().as_secs() < 60, "waited too long for {text:?}");
            std::thread::yield_now();
        }
    };
    let kill = |signal: &str| {
        let sent = Command::new("kill").args([signal, &process.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    };
    told("memstore is serving");
    let files = [&pid, &listen, &admin];
    assert!(files.iter().all(|path| path.exists()), "{files:?}");
    kill("-TERM");
    told("drain started");
    kill("-INT");
    told("second signal received; exiting immediately");
    assert_eq!(process.wait().expect("it ends").code(), Some(1));
    let left: Vec<_> = files.iter().filter(|path| path.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    std::fs::remove_dir_all(&scratch).expect("our folder");
}
