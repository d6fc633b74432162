//! The settings as operators are shown them: what holds, and where that was said. Never a password: what holds one is not copied
//! here.

use std::path::PathBuf;

use serde_json::{Map, Value};
use shard_discovery::yaml::{self, Entry, Node};

use super::kind::Kind;
use super::mistake::Place;
use super::settings::{CLUSTER, POOL, PROCESS, SERVERS_TLS, Setting, TLS, row};

/// Entries of a list or mapping that are shown; of a longer one it is said how many it has.
const ENTRIES_MAX: usize = 100;
/// Settings that are lists or mappings and hold nothing that is to be kept secret.
const OPEN: [&str; 6] = ["servers", "seeds", "pin", "cluster_facade_nodes", "listen", "certificates"];

/// All settings of a configuration.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Shown {
    /// Where it was read from.
    pub file: PathBuf,
    /// Those of the process.
    pub process: Vec<Row>,
    /// Those of each pool, by its name, in the order of the file.
    pub pools: Vec<(String, Vec<Row>)>,
}

/// One setting.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// As the table has it; of a setting within another one `tls.key`.
    pub name: String,
    /// As it is written; null if nothing holds, or if it is secret.
    pub value: Value,
    /// It is set, and nobody is shown to what.
    pub is_secret: bool,
    /// Where it was said.
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody has said anything else.
    Default,
    /// The file, at this place.
    File(Place),
    /// The command line.
    Flag,
    /// The environment variable of this name.
    Environment(String),
}

impl Shown {
    /// Of a file whose settings beside `pools:` and whose pools are these.
    pub fn of(process: &[Entry], pools: &[Entry]) -> Self {
        let of_pool = |pool: &Entry| {
            let yaml::Value::Map(entries) = &pool.node.value else { return (pool.key.clone(), Vec::new()) };
            (pool.key.clone(), rows("", POOL, entries))
        };
        let mut process = rows("", PROCESS, process);
        process.retain(|row| row.name != "pools");
        Self { file: PathBuf::new(), process, pools: pools.iter().map(of_pool).collect() }
    }

    /// A setting of the process was said elsewhere than in the file.
    pub fn set(&mut self, name: &str, value: String, origin: Origin) {
        if let Some(row) = self.process.iter_mut().find(|row| row.name == name) {
            (row.value, row.origin) = (without_query(&value).into(), origin);
        }
    }

    /// These settings of the process stay as they were before, whatever is said now.
    pub fn keep(&mut self, before: &Self, names: &[&str]) {
        for row in &mut self.process {
            let is_kept = names.iter().flat_map(|names| names.split(", ")).any(|name| name == row.name);
            let known = before.process.iter().find(|known| known.name == row.name);
            if let Some(known) = known.filter(|_| is_kept) {
                *row = known.clone();
            }
        }
    }
}

fn rows(prefix: &str, table: &'static [Setting], entries: &[Entry]) -> Vec<Row> {
    let mut rows = Vec::new();
    for setting in table {
        let name = format!("{prefix}{}", setting.name);
        let Some(entry) = entries.iter().find(|entry| entry.key == setting.name) else {
            let value = setting.default.map_or(Value::Null, Value::from);
            rows.push(Row { name, value, is_secret: false, origin: Origin::Default });
            continue;
        };
        let below = match setting.name {
            "cluster" => Some(CLUSTER),
            "tls" => Some(TLS),
            "servers_tls" | "otlp_tls" => Some(SERVERS_TLS),
            _ => None,
        };
        if let (Some(table), yaml::Value::Map(entries)) = (below, &entry.node.value) {
            rows.extend(self::rows(&format!("{name}."), table, entries));
            continue;
        }
        let is_secret = setting.kind.is_secret();
        let value = if is_secret { Value::Null } else { value(setting, &entry.node) };
        rows.push(Row { name, value, is_secret, origin: Origin::File(entry.place) });
    }
    rows
}

fn value(setting: &Setting, node: &Node) -> Value {
    let count = match &node.value {
        // The query of an URL may have a password.
        yaml::Value::Text(text) => return without_query(text).into(),
        yaml::Value::Nothing => return Value::Null,
        yaml::Value::List(nodes) => nodes.len(),
        yaml::Value::Map(entries) => entries.len(),
    };
    if count > ENTRIES_MAX || !OPEN.contains(&setting.name) {
        return format!("{count} entries").into();
    }
    tree(node)
}

fn without_query(text: &str) -> String {
    match text.split_once('?') {
        Some((before, _)) if text.contains("://") => format!("{before}?..."),
        _ => text.to_owned(),
    }
}

fn tree(node: &Node) -> Value {
    match &node.value {
        yaml::Value::Text(text) => text.as_str().into(),
        yaml::Value::Nothing => Value::Null,
        yaml::Value::List(nodes) => nodes.iter().map(tree).collect(),
        yaml::Value::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), tree(&entry.node))).collect::<Map<_, _>>().into()
        }
    }
}

impl Kind {
    /// Whether nobody is to be shown what was written.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret(_))
    }
}

/// What a mistake says of a value that cannot be used. It goes to the log and to `/status`, so nothing that is a secret by its setting, or
/// by its looks: a private key where the path of its file is meant, an URL with a password; nor what is no variable, since it may be the
/// password whose variable is meant.
pub fn in_mistake(table: &'static [Setting], name: &str, text: &str) -> String {
    let is_key = text.contains('\n') || text.contains("-----BEGIN");
    let has_user = text.contains("://") && text.contains('@');
    let is_no_variable = name.ends_with("_env");
    if row(table, name).kind.is_secret() || is_no_variable || is_key || has_user {
        return "what is written".to_owned();
    }
    format!("{:?}", without_query(text))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::super::settings::{CERTIFICATE, LISTENER};
    use super::super::{Surroundings, parse};
    use super::*;

    fn shown(text: &str) -> Shown {
        let around = Surroundings {
            read_file: &|_| Err(io::ErrorKind::NotFound.into()),
            environment: &|name| (name == "PASSWORD").then(|| "s3cret-1".into()),
        };
        parse(text, Path::new("m.yml"), &around).expect("it is right").shown
    }

    const TEXT: &str = "log_level: debug\npools:\n  a:\n    listen: 127.0.0.1:1\n    redis: true\n    timeout: 400\n    \
                        redis_auth: s3cret-2\n    pin: {user: shard-0}\n    servers: [\"127.0.0.1:2:1 shard-0\"]\n  b:\n    \
                        listen: 127.0.0.1:3\n    redis: true\n    redis_auth_env: PASSWORD\n    servers_tls: {verify: none}\n    \
                        servers_url: http://127.0.0.1:1/list?token=s3cret-3\n";

    #[test]
    fn each_setting_is_shown_with_its_place_and_no_password_is() {
        let mut shown = shown(TEXT);
        assert!(!format!("{shown:?}").contains("s3cret"), "{shown:?}");
        let find =
            |rows: &[Row], name: &str| rows.iter().find(|row| row.name == name).cloned().expect("a row");
        let (name, rows) = &shown.pools[0];
        let line = |row: Row| match row.origin {
            Origin::File(place) => place.line,
            other => panic!("{other:?}"),
        };
        assert_eq!((name.as_str(), find(rows, "timeout").value), ("a", "400".into()));
        assert_eq!((line(find(rows, "timeout")), find(rows, "redis_auth").is_secret), (6, true));
        assert_eq!(find(rows, "servers").value, serde_json::json!(["127.0.0.1:2:1 shard-0"]));
        assert_eq!(find(rows, "hash").origin, Origin::Default);
        assert_eq!(find(rows, "hash").value, "fnv1a_64");
        let rows = &shown.pools[1].1;
        assert_eq!(find(rows, "servers_tls.verify").value, "none");
        assert_eq!(find(rows, "servers_url").value, "http://127.0.0.1:1/list?...");
        assert_eq!(find(&shown.process, "log_level").value, "debug");
        shown.set("otlp_endpoint", "http://127.0.0.1:4318/v1/traces?key=s3cret-4".into(), Origin::Flag);
        assert_eq!(find(&shown.process, "otlp_endpoint").value, "http://127.0.0.1:4318/v1/traces?...");
        shown.set("workers", "3".into(), Origin::Flag);
        let before = shown.clone();
        shown.set("workers", "4".into(), Origin::Environment("MEMSTORE_WORKERS".into()));
        shown.keep(&before, &["stats_address, stats_port", "workers"]);
        assert_eq!(shown, before);
    }

    #[test]
    fn no_mistake_shows_what_looks_like_a_secret() {
        for (table, name, text, told) in [
            (TLS, "key", "-----BEGIN PRIVATE KEY----- s3cret", "what is written"),
            (TLS, "key", "MIIEvQ\ns3cret", "what is written"),
            (TLS, "key", "tls.key", "\"tls.key\""),
            (POOL, "redis_auth", "s3cret", "what is written"),
            (POOL, "redis_auth_env", "s3cret", "what is written"),
            (PROCESS, "otlp_endpoint", "http://user:s3cret@host:1", "what is written"),
            (PROCESS, "otlp_endpoint", "https://host:1/?key=s3cret", "\"https://host:1/?...\""),
        ] {
            assert_eq!(in_mistake(table, name, text), told);
        }
    }

    /// Whoever adds a setting that is a password has to say so.
    #[test]
    fn what_is_about_a_password_is_secret_or_only_says_where_it_is() {
        for setting in [POOL, LISTENER, CLUSTER, TLS, CERTIFICATE, SERVERS_TLS, PROCESS].into_iter().flatten()
        {
            let is_about = ["password", "token", "secret"].iter().any(|word| setting.meaning.contains(word));
            let is_open = match setting.kind {
                Kind::Text(words) => words == "string",
                Kind::Node(_) => OPEN.contains(&setting.name),
                _ => false,
            };
            let is_user = setting.name.ends_with("_user");
            assert!(!is_about || !is_open || is_user, "{} may be shown", setting.name);
        }
    }
}
