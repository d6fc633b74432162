//! Configurations that are accepted and refused, and nutcracker's opinion of those it could read.

use std::path::{Path, PathBuf};
use std::process::Command;

use memstore_proxy::config::kind::Kind;
use memstore_proxy::config::settings::{self, Setting};
use memstore_proxy::config::{self, Config, Protocol, Surroundings};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Config, String> {
    let around = Surroundings {
        read_file: &|path| {
            if path == Path::new("secret") {
                Ok("from file\n".into())
            } else {
                Err(std::io::ErrorKind::NotFound.into())
            }
        },
        environment: &|name| (name == "PASSWORD").then(|| "from environment".into()),
    };
    config::parse(text, Path::new("file.yml"), &around).map_err(|mistakes| mistakes.to_string())
}

fn files(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(kind);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of examples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn what_nutcracker_accepts_is_accepted() {
    for path in files("good") {
        let judged = Command::new("nutcracker").arg("-t").arg("-c").arg(&path).output();
        let judged = judged.expect("nutcracker is not installed: apt-get install nutcracker");
        let words = String::from_utf8_lossy(&judged.stderr).into_owned();
        assert!(judged.status.success(), "nutcracker refuses {}: {words}", path.display());
        let text = std::fs::read_to_string(&path).expect("an example");
        parse(&text).unwrap_or_else(|mistakes| panic!("{}: {mistakes}", path.display()));
    }
}

/// `UPDATE=1` writes the answers anew; read them before you commit them.
#[test]
fn mistakes_are_told_all_at_once_with_their_places() {
    for path in files("bad") {
        let text = std::fs::read_to_string(&path).expect("an example");
        let said = parse(&text).map(|_| "accepted".to_owned()).unwrap_or_else(|mistakes| mistakes) + "\n";
        let expected_path = path.with_extension("txt");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&expected_path, &said).expect("the answer can be written");
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        assert_eq!(said, expected, "{}", path.display());
        assert_ne!(said, "accepted\n", "{}", path.display());
    }
}

const SERVERS: &str = "  listen: 127.0.0.1:1\n  servers:\n  - 127.0.0.1:2:1\n";

fn password_of(setting: &str) -> Result<String, String> {
    let config = parse(&format!("a:\n  redis: true\n  {setting}\n{SERVERS}"))?;
    Ok(config.pools[0].auth.as_ref().expect("a password").password.expose().to_owned())
}

#[test]
fn a_password_is_its_text() {
    for text in ["00123", "null", "1e5", "yes", "0x10", "true", "12:30", "~x"] {
        assert_eq!(password_of(&format!("redis_auth: {text}")), Ok(text.to_owned()));
    }
    assert_eq!(password_of("redis_auth: ' quoted '"), Ok(" quoted ".to_owned()));
    assert_eq!(password_of("redis_auth_file: secret"), Ok("from file".to_owned()));
    assert_eq!(password_of("redis_auth_env: PASSWORD"), Ok("from environment".to_owned()));
    assert!(
        password_of("redis_auth_env: NOWHERE")
            .is_err_and(|text| text.contains("no such environment variable"))
    );
    assert!(password_of("redis_auth_file: other").is_err());
}

#[test]
fn a_secret_does_not_show_itself() {
    let config = parse(&format!("a:\n  redis: true\n  redis_auth: hunter2\n{SERVERS}")).expect("good");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn defaults_are_nutcrackers() {
    let config = parse(&format!("a:\n{SERVERS}")).expect("good");
    let pool = &config.pools[0];
    assert_eq!(pool.protocol, Protocol::Memcache);
    assert_eq!((pool.key_hash.name(), pool.distribution.name()), ("fnv1a_64", "ketama"));
    assert_eq!((pool.timeout, pool.backlog, pool.client_connections, pool.db), (None, 512, None, 0));
    assert_eq!((pool.server_connections, pool.server_failure_limit), (1, 2));
    assert_eq!(pool.server_retry_timeout.as_millis(), 30_000);
    assert_eq!(config.process.stats.map(|stats| stats.port), Some(22222));
}

#[test]
fn the_superset_has_settings_of_the_process() {
    let config = parse(
        "workers: 3\nstats_port: 0\ndrain_grace: 5s\nmemory_max: 2GiB\npools:\n  a:\n    listen: '[::1]:7'\n    \
         redis: true\n    timeout: 2s\n    client_idle_timeout: 5m\n    servers: ['[::1]:6379:1 six', '/s.sock:1']\n",
    )
    .expect("good");
    assert_eq!(
        (config.process.workers, config.process.stats, config.process.memory_max),
        (Some(3), None, Some(2 << 30))
    );
    let pool = &config.pools[0];
    assert_eq!(pool.timeout.map(|timeout| timeout.as_millis()), Some(2_000));
    assert_eq!(pool.client_idle_timeout.map(|timeout| timeout.as_secs()), Some(300));
    assert_eq!(pool.listens(), "[::1]:7");
    assert_eq!(pool.shards.iter().map(|shard| shard.name.as_str()).collect::<Vec<_>>(), ["six", "/s.sock:"]);
}

#[test]
fn nesting_and_size_are_bounded() {
    let deep = "a:\n  b: ".to_owned() + &"[".repeat(100_000);
    assert!(parse(&deep).is_err());
    assert!(parse(&"#".repeat(5 << 20)).is_err_and(|text| text.contains("larger than")));
    assert!(parse("a\0b: c").is_err_and(|text| text.contains("NUL")));
}

#[test]
fn a_pool_may_have_several_listeners() {
    let read = |listen: &str| {
        let config = parse(&format!("p: {{listen: {listen}, redis: true, servers: ['h:1:1']}}"));
        config.map(|config| config.pools[0].listens()).map_err(|error| error.to_string())
    };
    assert_eq!(read("h:1").as_deref(), Ok("h:1"));
    assert_eq!(
        read("[h:1, {address: 'h:2'}, '/s 0600', {address: /t, tls: false}]").as_deref(),
        Ok("h:1, h:2, /s, /t")
    );
    let many = format!("[{}]", (1..=65).map(|port| format!("h:{port}")).collect::<Vec<_>>().join(", "));
    for (listen, why) in [
        ("[]", "allowed are 1 to 64"),
        (&many, "allowed are 1 to 64"),
        ("{address: 'h:1'}", "an address or a list"),
        ("[h:1, h:1]", "listed twice"),
        ("[h:1, {address: 'h:1', tls: false}]", "listed twice"),
        ("[{tls: false}]", "address is missing"),
        ("[[h:1]]", "an address or a mapping"),
        ("[h]", "allowed is host:port"),
        ("[{address: 'h:1', adress: 1}]", "did you mean address"),
        ("[{address: 'h:1', tls: true}]", "needs the tls of the pool"),
        ("[{address: 'h:1', tls: maybe}]", "allowed are true and false"),
        ("[{address: 'h:1', tls: {}}]", "certificate is missing"),
        ("[{address: 'h:1', tls: {certificates: []}}]", "a list of 1 to 64"),
        ("[{address: 'h:1', tls: {certificates: [x]}}]", "has to be a mapping"),
        ("[{address: 'h:1', tls: {certificates: [{certificate: x}]}}]", "needs key as well"),
    ] {
        let error = read(listen).expect_err(listen);
        assert!(error.contains(why), "{listen}: {error}");
    }
    let twice =
        "a: {listen: [h:1, h:2], servers: ['h:1:1']}\nb: {listen: [{address: 'h:2'}], servers: ['h:1:1']}";
    let error = parse(twice).map(|_| ()).expect_err("one address").to_string();
    assert!(error.contains("already used by pool a"), "{error}");
}

/// `UPDATE=1` (`make settings`) writes them anew.
#[test]
fn the_tables_of_settings_in_the_docs_are_the_codes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    let page = std::fs::read_to_string(&path).expect("docs/settings.md");
    let start = page.find("| Pool setting |").expect("the tables");
    let tables = format!("{}\n", config::settings::markdown().trim_end());
    if std::env::var_os("UPDATE").is_some() {
        let written = format!("{}{tables}", &page[..start]);
        std::fs::write(&path, written).expect("docs/settings.md can be written");
        return;
    }
    let differs = page[start..].lines().zip(tables.lines()).find(|(kept, told)| kept != told);
    assert_eq!(differs, None, "`make settings` writes other tables into docs/settings.md");
    assert_eq!(page[start..], tables, "`make settings` writes other tables into docs/settings.md");
}

/// Another value than the default; none where the setting has a reader of its own.
fn another_value(kind: Kind, default: &str) -> Option<String> {
    Some(match kind {
        Kind::Flag => (default != "true").to_string(),
        Kind::Word(words) => words.iter().find(|word| **word != default)?.to_string(),
        Kind::Whole(least, most) if least.to_string() == default => most.to_string(),
        Kind::Whole(least, _) => least.to_string(),
        Kind::Percent => "77%".into(),
        Kind::Duration | Kind::Positive | Kind::Limit => "77s".into(),
        Kind::Size => "77MiB".into(),
        Kind::Off(kind) if default == "-1" => another_value(*kind, "")?,
        Kind::Off(_) => "-1".into(),
        Kind::Auto(kind) => another_value(*kind, "")?,
        Kind::Text(_) | Kind::Secret(_) | Kind::Node(_) => return None,
    })
}

/// The pools in which a setting has a meaning, with a place for it.
const POOLS: [&str; 5] = [
    "redis: true\n  servers: [h:1:1]\n  ?",
    "servers: [h:1:1]\n  ?",
    "servers_dns: h-{}:1\n  servers_count: 2\n  ?",
    "servers_dns: h-{}:1\n  ?",
    "servers_url: http://h/list\n  ?",
];

#[test]
fn every_setting_changes_what_is_read() {
    let cluster = ["redis: true\n  cluster:\n    seeds: [h:1]\n    ?"];
    let mut tried = 0;
    for (table, pools) in
        [(settings::POOL, &POOLS[..]), (settings::CLUSTER, &cluster), (settings::PROCESS, &[])]
    {
        for Setting { name, default, kind, .. } in table {
            let Some(value) = another_value(*kind, default.unwrap_or_default()) else { continue };
            let line = format!("{name}: {value}");
            let of_pool =
                |pool: &&str, line: &str| format!("p:\n  listen: h:1\n  {}\n", pool.replace('?', line));
            let of_process =
                |line: &str| format!("{line}\npools: {{p: {{listen: h:1, servers: [h:1:1]}}}}\n");
            let texts: Vec<[String; 2]> = match pools {
                [] => vec![["", &line].map(of_process)],
                pools => pools.iter().map(|pool| ["", &line].map(|line| of_pool(pool, line))).collect(),
            };
            let differs = |[without, with]: &[String; 2]| {
                let shown = |text| parse(text).ok().map(|config| format!("{config:?}"));
                shown(with).is_some_and(|with| Some(with) != shown(without))
            };
            assert!(texts.iter().any(differs), "{line} changes nothing");
            tried += 1;
        }
    }
    assert!(tried > 40, "only {tried} settings were tried");
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_nearly_good_text_panics(at in 0usize..400, with in "[-:\\[\\]{}&*!|>'\"%@`#, \t\n0a]{1,3}") {
        let mut text = std::fs::read_to_string(&files("good")[1]).expect("an example");
        let at = at.min(text.len());
        text.insert_str(at, &with);
        let _ = parse(&text);
    }
}
