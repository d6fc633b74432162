//! What the shards say of themselves, taken together: to its clients the proxy is one server, whose memory is all of
//! theirs.
//!
//! A number is known if each of them has told it; a sum over some would be a lie that nobody notices.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::events::Flags;
use super::figures::{DECIMALS, NUMBERS, SHOWN, STATES, human};
pub use super::resp::command::Commands;

/// What one server says of itself, or several taken together.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Store {
    /// The lowest version of any, of the Redis that it is or came from.
    pub version: Option<String>,
    /// The lowest version of any Valkey, if all are that.
    pub valkey: Option<String>,
    /// Which commands any of them has.
    pub commands: Arc<Commands>,
    /// What happens at the limit of memory: what any of them does that loses most.
    pub policy: Option<String>,
    /// Of which events of keys any of them tells, in its words if all say the same.
    pub events: Option<String>,
    /// Those that are known, by their place in [`NUMBERS`].
    numbers: BTreeMap<usize, u64>,
    /// In the order of [`DECIMALS`].
    decimals: [Option<f64>; DECIMALS.len()],
    /// Whether it is well, in the order of [`STATES`].
    states: [Option<bool>; STATES.len()],
    /// How often which errors were said, by the line of INFO.
    errors: BTreeMap<String, u64>,
    /// Lines of INFO about modules.
    modules: BTreeSet<String>,
    /// What manages their memory, if it is the same everywhere.
    allocator: Option<String>,
    /// By the number of the database.
    pub keyspace: BTreeMap<u32, Keys>,
    /// It follows another one, so that it has nothing of its own.
    is_replica: bool,
}

/// The keys of one database.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Keys {
    /// How many there are.
    pub keys: u64,
    /// How many of them expire.
    pub expires: u64,
    /// How long those live on average, in milliseconds.
    pub average_ttl: u64,
}

/// Kinds of errors and modules that are kept, and bytes of a line about one. A server tells of 128 kinds.
const LINES_MAX: usize = 128;
const LINE_MAX: usize = 512;
/// Names of lines.
const POLICY: &str = "maxmemory_policy";
const ALLOCATOR: &str = "mem_allocator";
const FRAGMENTATION: &str = "mem_fragmentation_ratio";
const MODULE: &str = "module";
/// What the name of a size ends with where it is written for people.
const FOR_PEOPLE: &str = "_human";
/// What lines about errors begin with.
const ERROR: &str = "errorstat_";

impl Store {
    /// What a Redis server's reply to INFO says.
    pub fn of_info(text: &str) -> Self {
        let mut store = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.trim_end().split_once(':')) {
            if let Some(place) = NUMBERS.iter().position(|(_, known, _)| *known == name) {
                store.numbers.extend(value.parse().ok().map(|number: u64| (place, number)));
                continue;
            }
            if let Some(place) = DECIMALS.iter().position(|(_, known, _)| *known == name) {
                store.decimals[place] = value.parse().ok().filter(|number: &f64| number.is_finite());
                continue;
            }
            if let Some(place) = STATES.iter().position(|(_, known)| *known == name) {
                store.states[place] = Some(value == "ok");
                continue;
            }
            match name {
                "redis_version" => store.version = version(value).is_some().then(|| value.to_owned()),
                "valkey_version" => store.valkey = version(value).is_some().then(|| value.to_owned()),
                POLICY => store.policy = is_word(value).then(|| value.to_owned()),
                ALLOCATOR => store.allocator = is_line(value).then(|| value.to_owned()),
                "role" => store.is_replica = value == "slave",
                MODULE if is_line(value) && store.modules.len() < LINES_MAX => {
                    store.modules.insert(value.to_owned());
                }
                _ if name.starts_with(ERROR) && is_line(name) && store.errors.len() < LINES_MAX => {
                    let count = value.strip_prefix("count=").and_then(|count| count.parse().ok());
                    store.errors.insert(name.to_owned(), count.unwrap_or(0));
                }
                _ => {
                    if let Some(db) = name.strip_prefix("db").and_then(|number| number.parse().ok()) {
                        store.keyspace.insert(db, Keys::of_info(value));
                    }
                }
            }
        }
        store
    }

    /// What tells a run of a server from others of it: as long as that is the same, it has the same commands. From its reply to
    /// INFO.
    pub fn run(text: &str) -> String {
        const TOLD_MAX: usize = 16 * 1024;
        const NAMES: [&str; 4] = ["run_id", "redis_version", "valkey_version", "module"];
        let mut run = String::new();
        for line in text.lines().filter(|line| NAMES.contains(&line.split(':').next().unwrap_or_default())) {
            if run.len() + line.len() > TOLD_MAX {
                break;
            }
            run.push_str(line);
            run.push('\n');
        }
        run
    }

    /// What kind of server it is and of which version, and nothing else of it.
    pub fn kind(&self) -> Self {
        Self { version: self.version.clone(), valkey: self.valkey.clone(), ..Self::default() }
    }

    /// All of them taken together.
    pub fn of_all<'s>(stores: impl Iterator<Item = &'s Self> + Clone) -> Self {
        let mut own = stores.filter(|store| !store.is_replica);
        let Some(first) = own.next() else { return Self::default() };
        own.fold(first.clone(), |sum, next| sum.with(next))
    }

    fn with(mut self, other: &Self) -> Self {
        self.version = lower(self.version.take(), &other.version);
        self.valkey = lower(self.valkey.take(), &other.valkey);
        self.policy = match (self.policy.take(), &other.policy) {
            (Some(one), Some(two)) => Some(if loss(two) > loss(&one) { two.clone() } else { one }),
            _ => None,
        };
        self.allocator = self.allocator.take().filter(|one| Some(one) == other.allocator.as_ref());
        self.events = match (self.events.take(), &other.events) {
            (Some(one), Some(two)) if one == *two => Some(one),
            (Some(one), Some(two)) => Some(flags(&one).with(flags(two)).to_string()),
            _ => None,
        };
        // What one of them does not tell is not known of all.
        self.numbers.retain(|place, number| {
            let (Some(other), Some((_, _, join))) = (other.numbers.get(place), NUMBERS.get(*place)) else {
                return false;
            };
            *number = join.of(*number, *other);
            true
        });
        for (sum, other) in self.decimals.iter_mut().zip(other.decimals) {
            *sum = sum.zip(other).map(|(one, two)| one + two);
        }
        for (all, other) in self.states.iter_mut().zip(other.states) {
            *all = all.zip(other).map(|(one, two)| one && two);
        }
        for (name, count) in &other.errors {
            if self.errors.len() < LINES_MAX || self.errors.contains_key(name) {
                let sum = self.errors.entry(name.clone()).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        for line in &other.modules {
            if self.modules.len() < LINES_MAX {
                self.modules.insert(line.clone());
            }
        }
        for (db, keys) in &other.keyspace {
            self.keyspace.entry(*db).or_default().add(*keys);
        }
        self
    }

    /// They tell of these as well.
    pub fn tells_of(&mut self, wanted: Flags) {
        let present = self.events.as_deref().map(flags).unwrap_or_default();
        if !present.contains(wanted) {
            self.events = Some(present.with(wanted).to_string());
        }
    }

    /// One of the numbers, if it is known.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.numbers.get(&NUMBERS.iter().position(|(_, known, _)| *known == name)?).copied()
    }

    /// The numbers of a section of INFO that are known.
    fn section(&self, wanted: &str) -> impl Iterator<Item = (&'static str, u64)> {
        let numbers = self.numbers.iter().filter_map(|(place, number)| Some((NUMBERS.get(*place)?, *number)));
        numbers
            .filter(move |((section, ..), _)| *section == wanted)
            .map(|((_, name, _), number)| (*name, number))
    }
}

impl Store {
    /// Writes what is known of a section, as a server does; of the keyspace the databases that clients have.
    pub fn write(&self, section: &str, has_database: impl Fn(u32) -> bool, text: &mut String) {
        if let Some(policy) = self.policy.as_ref().filter(|_| section == "memory") {
            let _ = write!(text, "{POLICY}:{policy}\r\n");
        }
        for (name, number) in self.section(section) {
            let _ = write!(text, "{name}:{number}\r\n");
            if SHOWN.contains(&name) {
                let _ = write!(text, "{name}{FOR_PEOPLE}:{}\r\n", human(number));
            }
        }
        let decimals = DECIMALS.iter().zip(self.decimals).filter(|((of, ..), _)| *of == section);
        for (&(_, name, digits), number) in decimals.filter_map(|(row, number)| Some((row, number?))) {
            let _ = write!(text, "{name}:{number:.digits$}\r\n");
        }
        let states = STATES.iter().zip(self.states).filter(|((of, _), _)| *of == section);
        for ((_, name), is_well) in states.filter_map(|(row, state)| Some((row, state?))) {
            let _ = write!(text, "{name}:{}\r\n", if is_well { "ok" } else { "err" });
        }
        match section {
            "memory" => {
                let numbers = self.number("used_memory_rss").zip(self.number("used_memory"));
                if let Some((resident, used)) = numbers.filter(|(_, used)| *used > 0) {
                    let _ = write!(text, "{FRAGMENTATION}:{:.2}\r\n", resident as f64 / used as f64);
                }
                if let Some(allocator) = &self.allocator {
                    let _ = write!(text, "{ALLOCATOR}:{allocator}\r\n");
                }
            }
            "modules" => self.modules.iter().for_each(|line| {
                let _ = write!(text, "{MODULE}:{line}\r\n");
            }),
            "errorstats" => self.errors.iter().for_each(|(name, count)| {
                let _ = write!(text, "{name}:count={count}\r\n");
            }),
            "keyspace" => {
                for (db, Keys { keys, expires, average_ttl }) in
                    self.keyspace.iter().filter(|(db, _)| has_database(**db))
                {
                    let _ = write!(text, "db{db}:keys={keys},expires={expires},avg_ttl={average_ttl}\r\n");
                }
            }
            _ => {}
        }
    }

    /// Whether a line of this name is what [`Store::write`] writes of such a section.
    pub fn writes(section: &str, name: &str) -> bool {
        let number = name.strip_suffix(FOR_PEOPLE).unwrap_or(name);
        match section {
            "memory" if [POLICY, FRAGMENTATION, ALLOCATOR].contains(&name) => return true,
            // They have nothing else.
            "modules" | "errorstats" | "keyspace" => return true,
            _ => {}
        }
        NUMBERS.iter().any(|(of, known, _)| *of == section && *known == number)
            || DECIMALS.iter().any(|(of, known, _)| *of == section && *known == name)
            || STATES.iter().any(|(of, known)| *of == section && *known == name)
    }
}

impl Keys {
    /// `keys=1,expires=0,avg_ttl=0`, and whatever else a version has to say.
    fn of_info(text: &str) -> Self {
        let mut keys = Self::default();
        for (name, value) in text.split(',').filter_map(|field| field.split_once('=')) {
            let field = match name {
                "keys" => &mut keys.keys,
                "expires" => &mut keys.expires,
                "avg_ttl" => &mut keys.average_ttl,
                _ => continue,
            };
            *field = value.parse().unwrap_or(0);
        }
        keys
    }

    fn add(&mut self, other: Self) {
        let expires = self.expires.saturating_add(other.expires);
        let weight = |keys: Self| u128::from(keys.average_ttl) * u128::from(keys.expires);
        let ttl = weight(*self).saturating_add(weight(other)).checked_div(u128::from(expires)).unwrap_or(0);
        self.keys = self.keys.saturating_add(other.keys);
        self.expires = expires;
        self.average_ttl = u64::try_from(ttl).unwrap_or(u64::MAX);
    }
}

/// The flags of a server, as far as they are some.
fn flags(text: &str) -> Flags {
    Flags::of(text.as_bytes()).unwrap_or_default()
}

/// The lower of two versions, if both are known.
fn lower(one: Option<String>, two: &Option<String>) -> Option<String> {
    let (one, two) = (one?, two.as_ref()?);
    Some(if version(two) < version(&one) { two.clone() } else { one })
}

/// For comparison: `7.10.0` is above `7.9.9`.
fn version(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

/// How much a policy may lose: nothing, keys that expire, any key.
pub fn loss(policy: &str) -> u8 {
    match policy.split('-').next() {
        Some("noeviction") => 0,
        Some("volatile") => 1,
        _ => 2,
    }
}

/// A peer's line goes to clients as it is.
fn is_line(text: &str) -> bool {
    text.len() <= LINE_MAX && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// A peer's word goes to clients as it is.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(version: &str, used: u64, limit: u64, policy: &str, keyspace: &str) -> Store {
        Store::of_info(&format!(
            "# Server\r\nredis_version:{version}\r\n\r\n# Memory\r\nused_memory:{used}\r\nused_memory_human:1K\r\n\
             maxmemory:{limit}\r\nmaxmemory_policy:{policy}\r\n# Replication\r\nrole:master\r\n# Keyspace\r\n\
             {keyspace}\r\n"
        ))
    }

    #[test]
    fn several_servers_are_one() {
        let one = store("7.10.0", 10, 100, "volatile-lru", "db0:keys=3,expires=1,avg_ttl=10,subexpiry=0");
        let two = store(
            "7.9.1",
            5,
            50,
            "noeviction",
            "db0:keys=4,expires=3,avg_ttl=30\r\ndb2:keys=1,expires=0,avg_ttl=0",
        );
        let both = Store::of_all([&one, &two].into_iter());
        assert_eq!(both.version.as_deref(), Some("7.9.1"));
        assert_eq!(both.policy.as_deref(), Some("volatile-lru"));
        assert_eq!((both.number("used_memory"), both.number("maxmemory")), (Some(15), Some(150)));
        assert_eq!(both.keyspace[&0], Keys { keys: 7, expires: 4, average_ttl: 25 });
        assert_eq!(both.keyspace[&2].keys, 1);
        assert_eq!(both.number("evicted_keys"), None, "nobody has told it");

        let worse = store("8.0.0", 1, 0, "allkeys-lfu", "");
        let all = Store::of_all([&one, &two, &worse].into_iter());
        assert_eq!(all.policy.as_deref(), Some("allkeys-lfu"));
        assert_eq!(all.number("maxmemory"), Some(0), "one of them has no limit");
        let agreed = Store::of_all([&two, &two].into_iter());
        assert_eq!(agreed.policy.as_deref(), Some("noeviction"));
    }

    #[test]
    fn changes_that_are_not_saved_are_added_up() {
        let store =
            |changes| Store::of_info(&format!("rdb_changes_since_last_save:{changes}\r\nloading:1\r\n"));
        let both = Store::of_all([&store(3), &store(4)].into_iter());
        let told = both.section("persistence").collect::<Vec<_>>();
        assert_eq!(told, [("loading", 1), ("rdb_changes_since_last_save", 7)]);
    }

    #[test]
    fn what_a_section_has_beside_its_numbers_is_that_of_all() {
        let one = Store::of_info(
            "used_memory:100\r\nused_memory_rss:150\r\nused_cpu_sys:1.500000\r\nrdb_last_bgsave_status:ok\r\nrdb_last_save_time:9\r\naof_enabled:1\r\n\
             errorstat_ERR:count=3\r\nerrorstat_A:count=x\r\nmodule:name=a,ver=1\r\n",
        );
        let two = Store::of_info(
            "used_memory:100\r\nused_memory_rss:350\r\nused_cpu_sys:0.25\r\nrdb_last_bgsave_status:err\r\nrdb_last_save_time:5\r\naof_enabled:0\r\n\
             errorstat_ERR:count=4\r\nmodule:name=b,ver=1\r\nmodule:\u{7f}\r\n",
        );
        let both = Store::of_all([&one, &two].into_iter());
        let mut text = String::new();
        for section in ["memory", "cpu", "persistence", "errorstats", "modules"] {
            both.write(section, |_| true, &mut text);
        }
        assert_eq!(
            text,
            "used_memory:200\r\nused_memory_human:200B\r\nused_memory_rss:500\r\nused_memory_rss_human:500B\r\nmem_fragmentation_ratio:2.50\r\n\
             used_cpu_sys:1.750000\r\nrdb_last_save_time:5\r\naof_enabled:0\r\nrdb_last_bgsave_status:err\r\nerrorstat_A:count=0\r\nerrorstat_ERR:count=7\r\n\
             module:name=a,ver=1\r\nmodule:name=b,ver=1\r\n"
        );
        assert_eq!((both.number("rdb_last_save_time"), both.number("aof_enabled")), (Some(5), Some(0)));
        let many = |mark: &str| {
            (0..10_000).map(|number| format!("errorstat_{mark}{number}:count=1\r\n")).collect::<String>()
        };
        let all = Store::of_all([&Store::of_info(&many("a")), &Store::of_info(&many("b"))].into_iter());
        assert_eq!(all.errors.len(), LINES_MAX);
    }

    #[test]
    fn they_are_a_valkey_if_all_are() {
        let valkey =
            |version| Store::of_info(&format!("redis_version:7.2.4\r\nvalkey_version:{version}\r\n"));
        let both = Store::of_all([&valkey("9.1.2"), &valkey("8.1.10")].into_iter());
        assert_eq!((both.version.as_deref(), both.valkey.as_deref()), (Some("7.2.4"), Some("8.1.10")));
        let redis = store("7.0.15", 1, 0, "noeviction", "");
        let mixed = Store::of_all([&valkey("9.1.2"), &redis].into_iter());
        assert_eq!((mixed.version.as_deref(), mixed.valkey), (Some("7.0.15"), None));
        assert_eq!(valkey("9.1.2").kind(), valkey("9.1.2"));
        assert_eq!(redis.kind().number("used_memory"), None);
    }

    #[test]
    fn a_run_ends_with_the_process_and_with_its_modules() {
        let info = "# Server\r\nredis_version:8.2.3\r\nrun_id:a\r\nuptime_in_seconds:5\r\n# Modules\r\nmodule:name=graph,ver=1\r\n";
        let run = Store::run(info);
        assert_eq!(run, Store::run(&info.replace("seconds:5", "seconds:6")));
        for (one, other) in [("run_id:a", "run_id:b"), ("8.2.3", "8.2.4"), ("ver=1", "ver=2")] {
            assert_ne!(run, Store::run(&info.replace(one, other)));
        }
        assert!(Store::run(&"module:x\n".repeat(1 << 20)).len() < 20_000);
    }

    #[test]
    fn what_one_does_not_tell_is_not_known_and_replicas_do_not_count() {
        let one = store("7.0.0", 10, 100, "noeviction", "db0:keys=1");
        let silent =
            Store::of_info("redis_version:7.0.0\r\nused_memory:nonsense\r\nmaxmemory_policy:x\ty\r\n");
        let both = Store::of_all([&one, &silent].into_iter());
        assert_eq!((both.number("used_memory"), both.number("maxmemory"), both.policy), (None, None, None));
        let replica = Store::of_info("role:slave\r\nused_memory:10\r\ndb0:keys=1\r\n");
        assert_eq!(Store::of_all([&one, &replica].into_iter()), one);
        assert_eq!(Store::of_all(std::iter::empty()), Store::default());
    }

    #[test]
    fn nothing_a_server_says_is_too_much() {
        for text in [
            "",
            ":",
            "db0",
            "db99999999999:keys=1",
            "dbx:keys=1",
            "db0:keys=-1,expires",
            "redis_version:\u{7f}",
        ] {
            let store = Store::of_info(text);
            Store::of_all([&store, &store].into_iter());
        }
        let most = Store::of_info(
            "used_memory:18446744073709551615\ndb0:keys=18446744073709551615,expires=18446744073709551615,avg_ttl=18446744073709551615",
        );
        let twice = Store::of_all([&most, &most].into_iter());
        assert_eq!(twice.number("used_memory"), Some(u64::MAX));
    }
}
