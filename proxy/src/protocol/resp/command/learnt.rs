//! Which commands the shards have, as they say themselves: those that no row of ours knows, and rows of ours that they lack.
//!
//! A row of ours is never another one because of what a shard says; what is learnt is looked at only where there is none.

use std::cmp::Ordering;

use super::index::lookup;
use super::modules::{Correction, correction};
use super::reading::{Told, read};
use super::table::COMMANDS;
use super::{Categories, Command, Docs, Feature, Flags, Handling, KeySpec, Local, Since, flag};

/// Commands that are learnt, subcommands among them; several times what a server with all modules in use has.
const LEARNT_MAX: usize = 1024;
/// Bytes of the longest name that is learnt.
const NAME_MAX: usize = 64;
/// A server that knows fewer commands of ours is none, or tells of some only.
const KNOWN_MIN: usize = 50;
/// Flags that allow something: to ask a replica, or a server that loads, is cut off or runs a script.
const ALLOWING: u32 = flag::READONLY | flag::FAST | flag::LOADING | flag::STALE | flag::ALLOW_BUSY;

/// Which commands one shard has, or all shards of a pool taken together.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Commands {
    /// Those without a row of ours, by name without regard to case.
    learnt: Vec<Learnt>,
    /// Rows of ours that none of them has, by their place in memory.
    lacks: Vec<Row>,
    /// So many were not learnt, because there are too many, or for their names.
    passed_over: usize,
}

/// A row of ours, which is the same as no other one.
#[derive(Clone, Copy, Debug)]
struct Row(&'static Command<'static>);

impl Row {
    fn place(self) -> usize {
        std::ptr::from_ref(self.0).addr()
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

/// A command that a shard has told of.
#[derive(Clone, PartialEq, Debug)]
struct Learnt {
    name: Box<str>,
    arity: i8,
    flags: Flags,
    categories: Categories,
    keys: Box<[KeySpec]>,
    handling: Handling,
}

impl Commands {
    /// Those of a server that says this to COMMAND; none if it does not tell of them.
    pub fn read(answer: &[u8]) -> Option<Self> {
        let mut lacks = newer();
        let mut has = vec![false; lacks.len()];
        let mut tick = |row| {
            if let Ok(at) = lacks.binary_search_by_key(&Row(row).place(), |row| row.place()) {
                has[at] = true;
            }
        };
        let mut found = Self::default();
        let mut known = 0;
        read(answer, &mut |told| {
            let mut parts = told.name.splitn(2, |byte| *byte == b'|');
            let row = parts.next().and_then(lookup);
            match (row, parts.next()) {
                (Some(container), Some(word)) => container.subcommand(word).into_iter().for_each(&mut tick),
                (Some(row), None) => {
                    known += 1;
                    tick(row);
                    // One that does not tell may have any.
                    if told.subcommands.is_none() {
                        row.subcommands.iter().for_each(&mut tick);
                    }
                }
                (None, _) => found.learn(told),
            }
        })?;
        if known < KNOWN_MIN {
            return None;
        }
        let mut has = has.into_iter();
        lacks.retain(|_| !has.next().unwrap_or_default());
        found.lacks = lacks;
        found.settle();
        Some(found)
    }

    fn learn(&mut self, told: Told<'_>) {
        let is_printable = |byte: &u8| byte.is_ascii_graphic();
        let name = std::str::from_utf8(told.name).ok();
        let name = name.filter(|name| (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(|byte| is_printable(&byte)));
        match name.filter(|_| self.learnt.len() < LEARNT_MAX) {
            Some(name) => self.learnt.push(Learnt::new(name, told)),
            None => self.passed_over += 1,
        }
    }

    /// In the order in which they are looked for, each once.
    fn settle(&mut self) {
        self.learnt.sort_by(|one, other| compare(one.name.as_bytes(), other.name.as_bytes()));
        self.learnt.dedup_by(|next, kept| {
            let is_same = next.name.eq_ignore_ascii_case(&kept.name);
            if is_same {
                kept.agree(next);
            }
            is_same
        });
        if let Some(beyond) = self.learnt.len().checked_sub(LEARNT_MAX) {
            self.passed_over += beyond;
            self.learnt.truncate(LEARNT_MAX);
        }
    }

    /// Those that any of them has. One that has not told may have all rows of ours.
    pub fn of_all<'s>(shards: impl Iterator<Item = Option<&'s Self>>) -> Self {
        let mut all: Option<Self> = None;
        let mut is_known = true;
        for shard in shards {
            let Some(shard) = shard else {
                is_known = false;
                continue;
            };
            let Some(all) = &mut all else {
                all = Some(shard.clone());
                continue;
            };
            all.lacks.retain(|row| shard.lacks.contains(row));
            if all.learnt != shard.learnt {
                all.learnt.extend_from_slice(&shard.learnt);
                all.settle();
            }
            all.passed_over = all.passed_over.max(shard.passed_over);
        }
        let mut all = all.unwrap_or_default();
        if !is_known {
            all.lacks.clear();
        }
        all
    }

    /// The row that was learnt for a request that begins so: of a container, that of its subcommand.
    pub fn find(&self, name: &[u8], word: Option<&[u8]>) -> Option<Command<'_>> {
        let found = self.named(name)?;
        let subcommand = word.filter(|word| found.handling == Handling::Container && word.len() < NAME_MAX);
        let subcommand = subcommand.and_then(|word| self.named(&[name, b"|", word].concat()));
        Some(subcommand.unwrap_or(found).row())
    }

    fn named(&self, name: &[u8]) -> Option<&Learnt> {
        if name.len() > NAME_MAX {
            return None;
        }
        let found = self.learnt.binary_search_by(|learnt| compare(learnt.name.as_bytes(), name));
        found.ok().map(|at| &self.learnt[at])
    }

    /// Whether no shard has the command of this row of ours, which the proxy does not do itself. (That a server is no cluster it says
    /// in its stead.)
    pub fn lacks(&self, row: &Command<'_>) -> bool {
        let is_done_here = matches!(row.handling, Handling::Answer(local) if !matches!(local, Local::Cluster(_)));
        // Most are had by all.
        if row.since.is_everywhere() || self.lacks.is_empty() || is_done_here {
            return false;
        }
        let place = std::ptr::from_ref(row).addr();
        self.lacks.binary_search_by_key(&place, |row| row.place()).is_ok()
    }

    /// All that were learnt, by name; subcommands behind their containers.
    pub fn learnt(&self) -> impl Iterator<Item = Command<'_>> {
        self.learnt.iter().map(Learnt::row)
    }

    /// Whether clients find exactly what the rows of ours say.
    pub fn is_ours(&self) -> bool {
        self.learnt.is_empty() && self.lacks.is_empty()
    }

    /// So many were not learnt.
    pub fn passed_over(&self) -> usize {
        self.passed_over
    }

    /// Names of commands that others of a pool have, who are these taken together.
    pub fn missing_of<'s>(&'s self, all: &'s Self) -> impl Iterator<Item = &'s str> {
        let learnt = all.learnt.iter().filter(|learnt| self.named(learnt.name.as_bytes()).is_none());
        let rows = self.lacks.iter().filter(|row| !all.lacks.contains(row));
        learnt.map(|learnt| &*learnt.name).chain(rows.map(|row| row.0.name)).filter(|name| !name.contains('|'))
    }

    /// Names of commands that others of a pool say something else of, who are these taken together.
    pub fn other_than<'s>(&'s self, all: &'s Self) -> impl Iterator<Item = &'s str> {
        let other = |learnt: &&Learnt| all.named(learnt.name.as_bytes()).is_some_and(|joined| !joined.is_same(learnt));
        self.learnt.iter().filter(other).map(|learnt| &*learnt.name).filter(|name| !name.contains('|'))
    }

    /// Memory they hold.
    pub fn bytes(&self) -> usize {
        let learnt = self.learnt.iter().map(|learnt| {
            size_of::<Learnt>() + learnt.name.len() + size_of_val(&*learnt.keys)
        });
        learnt.sum::<usize>() + self.lacks.len() * size_of::<Row>()
    }
}

impl Learnt {
    fn new(name: &str, told: Told<'_>) -> Self {
        let correction = correction(name).filter(|_| told.flags.has(flag::MODULE));
        let told_keys = match correction {
            Some(Correction::Keys(keys)) => Some(keys.to_vec()),
            _ => told.keys,
        };
        let handling = match correction {
            _ if told.subcommands.is_some_and(|count| count > 0) => Handling::Container,
            Some(Correction::Later(feature)) => Handling::Later(feature),
            _ => handling(told.flags, told_keys.as_deref()),
        };
        let keys = told_keys.unwrap_or_default().into_boxed_slice();
        Self { name: name.into(), arity: told.arity, flags: told.flags, categories: told.categories, keys, handling }
    }

    /// What a second shard says of it counts as well, the careful way: what forbids something counts if any says it, what allows
    /// something if all do. The number of arguments is one that any of them takes, and the shard of the key judges for itself. Where they
    /// differ in where its keys are, or in whether it waits, it is refused.
    fn agree(&mut self, other: &Self) {
        if self.keys != other.keys || self.handling != other.handling {
            self.handling = Handling::Later(Feature::Agreement);
        }
        if self.arity != other.arity {
            self.arity = -self.arity.abs().min(other.arity.abs());
        }
        self.categories.0 |= other.categories.0;
        let allowed = self.flags.0 & other.flags.0 & ALLOWING;
        self.flags.0 = (self.flags.0 | other.flags.0) & !ALLOWING | allowed;
    }

    /// Whether both have the same words, but for the case of their names.
    fn is_same(&self, other: &Self) -> bool {
        (self.arity, self.flags, self.categories, self.handling) == (other.arity, other.flags, other.categories, other.handling)
            && self.keys == other.keys
    }

    fn row(&self) -> Command<'_> {
        Command {
            name: &self.name,
            arity: self.arity,
            flags: self.flags,
            keys: &self.keys,
            executed: None,
            handling: self.handling,
            single_key: 0,
            categories: self.categories,
            family: 0,
            tips: &[],
            leaves_database: None,
            blocks_with: None,
            trial: None,
            varies: None,
            transfers: None,
            scripts: None,
            subcommands: &[],
            since: Since::NOWHERE,
            docs: Docs(""),
        }
    }
}

/// What becomes of a command with these flags and keys. `blocking` means of a module that threads do the work: it does not hold up
/// the server, and answers in its turn.
fn handling(flags: Flags, keys: Option<&[KeySpec]>) -> Handling {
    let is_module = flags.has(flag::MODULE);
    // It changes who the connection is, or what comes on it.
    let is_of_connection = flags.has(flag::NO_AUTH) || flags.has(flag::PUBSUB);
    match keys {
        _ if is_of_connection || (!is_module && flags.has(flag::BLOCKING)) => Handling::Later(Feature::Unfamiliar),
        None => Handling::Later(Feature::HiddenKeys),
        Some([]) if is_module => Handling::Later(Feature::Keyless),
        Some([]) => Handling::Later(Feature::Unfamiliar),
        Some(_) => Handling::Forward,
    }
}

/// Rows that not all servers have, by their place in memory.
fn newer() -> Vec<Row> {
    let rows = COMMANDS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
    let mut found: Vec<Row> = rows.filter(|row| !row.since.is_everywhere()).map(Row).collect();
    found.sort_by_key(|row| row.place());
    found
}

fn compare(one: &[u8], other: &[u8]) -> Ordering {
    one.iter().map(u8::to_ascii_lowercase).cmp(other.iter().map(u8::to_ascii_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name arity flags first last step`, with `name>a,b` for subcommands.
    fn row(text: &str) -> String {
        let words: Vec<&str> = text.split(' ').collect();
        let flags: Vec<&str> = words[2].split('+').filter(|flag| *flag != "-").collect();
        let (name, subcommands) = words[0].split_once('>').unwrap_or((words[0], ""));
        let subcommands: Vec<&str> = subcommands.split(',').filter(|name| !name.is_empty()).collect();
        let mut out = format!("*10\r\n+{name}\r\n:{}\r\n*{}\r\n", words[1], flags.len());
        out.extend(flags.iter().map(|flag| format!("+{flag}\r\n")));
        out.extend(words[3..6].iter().map(|number| format!(":{number}\r\n")));
        out += "*1\r\n+@read\r\n*0\r\n*0\r\n";
        out += &format!("*{}\r\n", subcommands.len());
        for word in subcommands {
            out += &format!("*6\r\n+{name}|{word}\r\n:-2\r\n*1\r\n+module\r\n:2\r\n:2\r\n:1\r\n");
        }
        out
    }

    /// A server that has all commands of ours that everybody has, and these.
    fn server(further: &[&str]) -> Commands {
        let ours = COMMANDS.iter().filter(|row| row.since.is_everywhere());
        let ours: Vec<String> = ours.map(|ours| row(&format!("{} -1 - 0 0 0", ours.name))).collect();
        let rows: Vec<String> = ours.into_iter().chain(further.iter().map(|text| row(text))).collect();
        Commands::read(format!("*{}\r\n{}", rows.len(), rows.concat()).as_bytes()).expect("a good answer")
    }

    fn names(commands: &Commands) -> Vec<&str> {
        commands.learnt.iter().map(|learnt| &*learnt.name).collect()
    }

    fn handling_of(commands: &Commands, name: &str) -> Handling {
        commands.find(name.as_bytes(), None).expect("it is learnt").handling
    }

    const JSON: &str = "json.GET -1 module+readonly 1 1 1";

    #[test]
    fn rows_of_ours_are_told_from_what_is_learnt() {
        let commands = server(&[JSON, "get 7 module 0 0 0", "hpttl -5 readonly 1 1 1", "script>show -2 - 0 0 0"]);
        assert_eq!(names(&commands), ["json.GET"]);
        let [ttl, hpttl] = [&b"httl"[..], b"hpttl"].map(|name| lookup(name).expect("a row"));
        assert!(commands.lacks(ttl) && !commands.lacks(hpttl));
        // What the proxy does itself is there.
        let client = lookup(b"client").expect("a row");
        assert!(!commands.lacks(client.subcommand(b"no-touch").expect("a row")));
        let cluster = lookup(b"cluster").expect("a row");
        assert!(commands.lacks(cluster.subcommand(b"migration").expect("a row")));
        let script = lookup(b"script").expect("a row");
        assert!(!commands.lacks(script.subcommand(b"show").expect("a row")));
        assert!(server(&[]).lacks(script.subcommand(b"show").expect("a row")));
        assert!(COMMANDS.iter().filter(|row| row.since.is_everywhere()).all(|row| !commands.lacks(row)));
    }

    #[test]
    fn names_are_the_same_in_any_case_and_subcommands_are_found() {
        let commands = server(&[JSON, "m.x>One,two -2 module 0 0 0"]);
        assert_eq!(commands.find(b"JSON.get", None).map(|row| row.name), Some("json.GET"));
        assert_eq!(commands.find(b"M.X", Some(b"ONE")).map(|row| row.name), Some("m.x|One"));
        assert_eq!(commands.find(b"m.x", Some(b"three")).map(|row| row.handling), Some(Handling::Container));
        for name in [&b"json"[..], b"json.gets", b"", &[b'x'; 1 << 20]] {
            assert!(commands.find(name, Some(&[b'y'; 1 << 20])).is_none());
        }
    }

    #[test]
    fn shards_are_taken_together() {
        let one = server(&[JSON, "a.same -3 module+readonly 1 1 1", "hpttl -5 readonly 1 1 1"]);
        let two = server(&["a.same -2 module+write 1 1 1", "b.two -1 module 1 1 1", "httl -5 readonly 1 1 1"]);
        let both = Commands::of_all([Some(&one), Some(&two)].into_iter());
        assert_eq!(names(&both), ["a.same", "b.two", "json.GET"]);
        let same = both.find(b"a.same", None).expect("it is learnt");
        assert_eq!((same.arity, same.handling), (-2, Handling::Forward));
        assert!(same.flags.has(flag::WRITE) && !same.flags.has(flag::READONLY));
        for name in [&b"hpttl"[..], b"httl"] {
            assert!(!both.lacks(lookup(name).expect("a row")), "one of them has it");
        }
        assert!(both.lacks(lookup(b"hgetex").expect("a row")));
        assert_eq!(two.missing_of(&both).collect::<Vec<_>>(), ["json.GET", "hpttl"]);
        assert_eq!(both.missing_of(&both).count(), 0);
        // What one allows is not allowed by all, and what one forbids is forbidden.
        assert_eq!(one.other_than(&both).collect::<Vec<_>>(), ["a.same"]);
        assert_eq!(two.other_than(&both).count(), 0, "it is the stricter one");
        let eager = server(&["a.same -3 module+readonly+fast+loading 1 1 1"]);
        let strict = server(&["a.same -3 module+readonly+loading+denyoom 1 1 1"]);
        let joined = Commands::of_all([Some(&eager), Some(&strict)].into_iter());
        let same = joined.find(b"a.same", None).expect("it is learnt");
        assert!(same.flags.has(flag::READONLY | flag::LOADING | flag::DENYOOM) && !same.flags.has(flag::FAST));
        assert_eq!(joined.other_than(&joined).count(), 0);
        // Where its keys are is told differently.
        let three = server(&["a.same -2 module 2 2 1"]);
        let all = Commands::of_all([Some(&one), Some(&three)].into_iter());
        assert_eq!(handling_of(&all, "a.same"), Handling::Later(Feature::Agreement));
        // One that has not told may have all.
        let unknown = Commands::of_all([Some(&one), None].into_iter());
        assert!(!unknown.lacks(lookup(b"hgetex").expect("a row")));
        assert_eq!(names(&unknown), ["a.same", "json.GET"]);
        assert!(Commands::of_all(std::iter::empty()).is_ours());
    }

    #[test]
    fn what_goes_to_a_shard_is_known_not_to_change_its_connection() {
        let commands = server(&[
            "m.block -1 module+blocking 1 1 1",
            "block -1 blocking 1 1 1",
            "state -1 fast 0 0 0",
            "m.list -1 module 0 0 0",
            "m.auth -1 module+no_auth 1 1 1",
            "m.listen -1 module+pubsub 1 1 1",
            "m.code -1 module+movablekeys 1 1 1",
            "ft.search -1 module 1 1 1",
            "ft.sugget -1 module 1 1 1",
            "ft.native -1 - 1 1 1",
        ]);
        for (name, expected) in [
            ("m.block", Handling::Forward),
            ("block", Handling::Later(Feature::Unfamiliar)),
            ("state", Handling::Later(Feature::Unfamiliar)),
            ("m.list", Handling::Later(Feature::Keyless)),
            ("m.auth", Handling::Later(Feature::Unfamiliar)),
            ("m.listen", Handling::Later(Feature::Unfamiliar)),
            ("m.code", Handling::Later(Feature::HiddenKeys)),
            ("ft.search", Handling::Later(Feature::Indexes)),
            ("ft.sugget", Handling::Forward),
            ("ft.native", Handling::Forward),
        ] {
            assert_eq!(handling_of(&commands, name), expected, "{name}");
        }
    }

    #[test]
    fn what_is_learnt_is_bounded() {
        let many: Vec<String> = (0..LEARNT_MAX + 100).map(|number| format!("m.{number} -1 module 1 1 1")).collect();
        let odd = [format!("m.{} -1 module 1 1 1", "x".repeat(NAME_MAX)), "m.\u{e9} -1 module 1 1 1".into()];
        let all: Vec<&str> = many.iter().chain(&odd).map(String::as_str).collect();
        let commands = server(&all);
        assert_eq!((commands.learnt.len(), commands.passed_over()), (LEARNT_MAX, 102));
        let other = server(&[JSON]);
        let both = Commands::of_all([Some(&commands), Some(&other)].into_iter());
        assert_eq!(both.learnt.len(), LEARNT_MAX);
        assert!(both.passed_over() > 102);
        assert!((100 * LEARNT_MAX..300 * LEARNT_MAX).contains(&commands.bytes()), "{}", commands.bytes());
        // Less than a server has to tell is told by none.
        assert!(Commands::read(b"*0\r\n").is_none());
        assert!(Commands::read(format!("*1\r\n{}", row(JSON)).as_bytes()).is_none());
    }
}
