//! Sections of INFO that shards are asked for: those that only they have (how often which command was called, how long that took, how large keys
//! are), and those of which the proxy knows only what they said last. What all shards say is told as of one server.
//!
//! Counts are added up. Percentiles of several servers make none of all; the highest of any is one that all of them together keep.
//! If a shard does not answer, what only shards have is left out, and of the others what was said last stands: numbers of some shards would
//! pass for those of all.

use std::collections::HashMap;

use super::encode;
use super::identity::string;
use crate::buffer::Output;
use crate::protocol::Part;
pub use crate::protocol::figures::Sections;
use crate::protocol::store::Store;

/// How the fields of a line are joined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Join {
    /// Sums, and how long a call takes.
    Calls,
    /// The highest.
    Highest,
    Sums,
}

/// One of them, which only shards have.
struct Section {
    name: &'static str,
    /// What stands in the names of its lines.
    mark: &'static str,
    join: Join,
}

const SECTIONS: [Section; 3] = [
    Section { name: "commandstats", mark: "cmdstat_", join: Join::Calls },
    Section { name: "latencystats", mark: "latency_percentiles_usec_", join: Join::Highest },
    Section { name: "keysizes", mark: "_distrib_", join: Join::Sums },
];

/// Those that are the proxy's, with figures of the shards.
const FIGURES: [&str; 7] = ["memory", "persistence", "stats", "cpu", "modules", "errorstats", "keyspace"];

/// Lines of a section, and fields that one shard says in a line: several times what servers have.
const LINES_MAX: usize = 10_000;
const FIELDS_MAX: usize = 256;
/// Bytes of what one shard says that are looked at: several times what a server says, with all its sections.
const FIGURES_MAX: usize = 1 << 20;
/// No server has a larger number with a fraction: one of a few bytes, as `1e308`, would be written with hundreds.
const FRACTION_MAX: f64 = 1e18;

/// The section before which they stand.
const BEFORE: &[u8] = b"# Cluster\r\n";

impl Sections {
    /// Those that a client names, and the databases that it is told of. None where it names none: that is what clients ask for as they begin.
    pub fn wanted(words: &[&[u8]], databases: (u32, u32)) -> Option<Self> {
        const NAMES: usize = SECTIONS.len() + FIGURES.len();
        let mut asked = 0;
        for word in words {
            let is_called = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            if is_called("all") || is_called("everything") {
                asked = (1 << NAMES) - 1;
            }
            let mut names = SECTIONS.iter().map(|section| section.name).chain(FIGURES);
            asked |= names.position(is_called).map_or(0, |place| 1 << place);
        }
        (asked > 0).then_some(Self { asked, databases })
    }

    fn has(self, place: usize) -> bool {
        self.asked & (1 << place) > 0
    }

    /// What is left where the figures that shards said last are good enough.
    pub fn without_figures(self) -> Option<Self> {
        let asked = self.asked & ((1 << SECTIONS.len()) - 1);
        (asked > 0).then_some(Self { asked, ..self })
    }

    /// Those that only shards have.
    fn of_shards(self) -> impl Iterator<Item = &'static Section> {
        SECTIONS.iter().enumerate().filter(move |(place, _)| self.has(*place)).map(|(_, section)| section)
    }

    /// Those with figures of the shards.
    fn of_figures(self) -> impl Iterator<Item = &'static str> {
        FIGURES
            .into_iter()
            .enumerate()
            .filter(move |(place, _)| self.has(SECTIONS.len() + place))
            .map(|(_, name)| name)
    }
}

/// The question to each shard. Servers before 7.0 tell one section, or all, or those that they tell who does not say.
pub fn write(sections: Sections, out: &mut Vec<u8>) {
    let mut names = sections.of_shards().map(|section| section.name).chain(sections.of_figures());
    let several = if sections.of_shards().next().is_some() { "all" } else { "default" };
    let name = names.next().filter(|_| names.next().is_none()).unwrap_or(several);
    out.clear();
    encode::request(out, &[b"INFO", name.as_bytes()]);
}

/// What the proxy has said itself is the last part. The shard whose response is none, if there is one.
pub fn merge<'p>(sections: Sections, parts: &'p [Part], reply: &mut Output) -> Result<(), &'p Part> {
    let Some((own, shards)) = parts.split_last() else { return Ok(()) };
    let (ours, _) = string(&own.bytes).ok_or(own)?;
    let is_complete = !shards.iter().any(|shard| encode::is_error(&shard.bytes));
    let ours = if is_complete { figures(sections, ours, shards)? } else { ours.to_vec() };
    let mut text = Vec::new();
    if is_complete {
        for section in sections.of_shards() {
            let lines = lines(section, shards)?;
            if !text.is_empty() {
                text.extend_from_slice(b"\r\n");
            }
            let (first, rest) = section.name.split_at(1);
            text.extend_from_slice(format!("# {}{rest}\r\n", first.to_ascii_uppercase()).as_bytes());
            text.extend_from_slice(&lines);
        }
    }
    let place = memchr::memmem::rfind(&ours, BEFORE).unwrap_or(ours.len());
    let (before, behind) = ours.split_at(place);
    let gap = |one: &[u8], two: &[u8]| if one.is_empty() || two.is_empty() { &b""[..] } else { b"\r\n" };
    let first_gap = if place == ours.len() { gap(before, &text) } else { b"" };
    let all = [before, first_gap, &text, gap(&text, behind), behind].concat();
    if own.bytes.starts_with(b"=") {
        encode::verbatim(reply.tail(), &all)
    } else {
        encode::bulk(reply.tail(), &all)
    }
    Ok(())
}

/// What one shard says, but for lines about databases that are not the pool's: `db0:` in `keyspace`, `db0_` in `keysizes`.
pub fn of_one((first, count): (u32, u32), response: &[u8], reply: &mut Output) {
    let is_others = |line: &[u8]| {
        let rest = line.strip_prefix(b"db").unwrap_or_default();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = std::str::from_utf8(&rest[..digits]).ok().and_then(|number| number.parse::<u32>().ok());
        let is_database = matches!(rest.get(digits), Some(b':' | b'_'));
        is_database && number.is_some_and(|db| db.checked_sub(first).is_none_or(|place| place >= count))
    };
    let lines = |text| <[u8]>::split_inclusive(text, |&byte| byte == b'\n');
    match string(response) {
        Some((text, _)) if lines(text).any(is_others) => {
            let left: Vec<&[u8]> = lines(text).filter(|line| !is_others(line)).collect();
            let text = left.concat();
            if response.starts_with(b"=") {
                encode::verbatim(reply.tail(), &text);
            } else {
                encode::bulk(reply.tail(), &text);
            }
        }
        // An error as well.
        _ => reply.copy(response),
    }
}

/// What the proxy has said, with the figures that shards say now in the place of those that they said last.
fn figures<'p>(sections: Sections, ours: &[u8], shards: &'p [Part]) -> Result<Vec<u8>, &'p Part> {
    if sections.of_figures().next().is_none() {
        return Ok(ours.to_vec());
    }
    let mut stores = Vec::with_capacity(shards.len());
    for shard in shards {
        let (text, _) = string(&shard.bytes).ok_or(shard)?;
        stores.push(Store::of_info(&String::from_utf8_lossy(&text[..text.len().min(FIGURES_MAX)])));
    }
    let all = Store::of_all(stores.iter());
    let (first, count) = sections.databases;
    let has_database = |db: u32| db.checked_sub(first).is_some_and(|place| place < count);
    let ours = String::from_utf8_lossy(ours);
    let mut text = String::new();
    // Sections are parted by empty lines.
    for part in ours.split("\r\n\r\n") {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let title = part.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
        let asked = sections.of_figures().find(|name| name.eq_ignore_ascii_case(title));
        for line in part.lines() {
            let name = line.split(':').next().unwrap_or_default();
            if asked.is_none_or(|section| line.starts_with('#') || !Store::writes(section, name)) {
                text.push_str(line);
                text.push_str("\r\n");
            }
        }
        asked.into_iter().for_each(|section| all.write(section, has_database, &mut text));
    }
    Ok(text.into_bytes())
}

/// The fields of a line, of all shards.
type Fields<'t> = Vec<(&'t [u8], Number)>;

/// The lines of a section.
fn lines<'p>(section: &Section, shards: &'p [Part]) -> Result<Vec<u8>, &'p Part> {
    let mut lines: Vec<(&[u8], Fields<'_>)> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for shard in shards {
        let (text, _) = string(&shard.bytes).ok_or(shard)?;
        // Fields take a dozen times what they are written with, and whoever is served by this worker waits.
        for line in text[..text.len().min(FIGURES_MAX)].split(|&byte| byte == b'\n') {
            let line = line.trim_ascii_end();
            let Some(end) = memchr::memchr(b':', line) else { continue };
            let (name, fields) = (&line[..end], &line[end + 1..]);
            if memchr::memmem::find(name, section.mark.as_bytes()).is_none() {
                continue;
            }
            let place = match places.get(name) {
                Some(place) => *place,
                None if lines.len() < LINES_MAX => {
                    places.insert(name, lines.len());
                    lines.push((name, Vec::new()));
                    lines.len() - 1
                }
                None => continue,
            };
            lines[place].1.extend(fields.split(|&byte| byte == b',').take(FIELDS_MAX).filter_map(field));
        }
    }
    let mut out = Vec::new();
    for (name, fields) in lines {
        let mut joined: Fields<'_> = Vec::new();
        let mut places: HashMap<&[u8], usize> = HashMap::new();
        for (field, number) in fields {
            let place = *places.entry(field).or_insert(joined.len());
            match joined.get_mut(place) {
                Some((_, known)) => known.join(number, section.join),
                None => joined.push((field, number)),
            }
        }
        let value = |wanted: &str| {
            let found = joined.iter().find(|(name, _)| *name == wanted.as_bytes());
            found.map(|(_, number)| number.value())
        };
        let per_call = value("usec")
            .zip(value("calls"))
            .map(|(usec, calls)| if calls > 0.0 { usec / calls } else { 0.0 });
        out.extend_from_slice(name);
        for (place, (field, number)) in joined.iter().enumerate() {
            out.push(if place == 0 { b':' } else { b',' });
            out.extend_from_slice(field);
            out.push(b'=');
            let text = match per_call {
                Some(per_call) if section.join == Join::Calls && *field == b"usec_per_call" => {
                    format!("{per_call:.2}")
                }
                _ => number.text(),
            };
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    Ok(out)
}

/// `name=number`.
fn field(text: &[u8]) -> Option<(&[u8], Number)> {
    let middle = memchr::memchr(b'=', text)?;
    Some((&text[..middle], Number::of(&text[middle + 1..])?))
}

/// A number as a server writes it: a count, or one with a fraction.
#[derive(Clone, Copy)]
enum Number {
    Count(u64),
    /// With so many digits behind the point.
    Fraction(f64, usize),
}

impl Number {
    fn of(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if let Ok(count) = text.parse() {
            return Some(Self::Count(count));
        }
        let digits = text.split_once('.').map_or(0, |(_, digits)| digits.len());
        text.parse()
            .ok()
            .filter(|number: &f64| number.abs() < FRACTION_MAX)
            .map(|number| Self::Fraction(number, digits.min(6)))
    }

    fn value(self) -> f64 {
        match self {
            Self::Count(count) => count as f64,
            Self::Fraction(number, _) => number,
        }
    }

    fn join(&mut self, other: Self, join: Join) {
        *self = match (*self, other) {
            (one, two) if join == Join::Highest => {
                if two.value() > one.value() {
                    two
                } else {
                    one
                }
            }
            (Self::Count(one), Self::Count(two)) => Self::Count(one.saturating_add(two)),
            (Self::Fraction(one, digits), two) => Self::Fraction(one + two.value(), digits),
            (one, Self::Fraction(two, digits)) => Self::Fraction(one.value() + two, digits),
        };
    }

    fn text(self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Fraction(number, digits) => format!("{number:.digits$}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::Merge;
    use super::super::split::joined;
    use super::*;

    fn bulk(text: &str) -> String {
        format!("${}\r\n{text}\r\n", text.len())
    }

    fn wanted(words: &[&[u8]]) -> Sections {
        Sections::wanted(words, (0, 16)).expect("some are")
    }

    fn merged(words: &[&[u8]], shards: &[&str], own: &str) -> String {
        let mut parts: Vec<String> = shards.iter().map(|text| bulk(text)).collect();
        parts.push(bulk(own));
        let parts: Vec<&str> = parts.iter().map(|part| &**part).collect();
        joined(Merge::Sections(wanted(words)), &parts)
    }

    #[test]
    fn calls_are_added_up_and_their_time_is_that_of_one() {
        let one = "# Commandstats\r\ncmdstat_get:calls=3,usec=6,usec_per_call=2.00,rejected_calls=1,failed_calls=0\r\nother:1\r\n";
        let two = "# Commandstats\r\ncmdstat_set:calls=0,usec=0,usec_per_call=0.00\r\n\
                   cmdstat_get:calls=1,usec=5,usec_per_call=5.00,rejected_calls=0,failed_calls=2\r\n";
        let text = "# Commandstats\r\ncmdstat_get:calls=4,usec=11,usec_per_call=2.75,rejected_calls=1,failed_calls=2\r\n\
                    cmdstat_set:calls=0,usec=0,usec_per_call=0.00\r\n";
        assert_eq!(merged(&[b"CommandStats"], &[one, two], ""), bulk(text));
    }

    #[test]
    fn percentiles_are_the_highest_and_sizes_are_added_up() {
        let one = "latency_percentiles_usec_get:p50=1.003,p99=9.999\r\ndb0_distrib_strings_sizes:1=2,4=1\r\n";
        let two = "latency_percentiles_usec_get:p50=2.007,p99=3.000\r\ndb0_distrib_strings_sizes:2=2,4=5\r\n";
        assert_eq!(
            merged(&[b"keysizes", b"latencystats"], &[one, two], "# Memory\r\n"),
            bulk(
                "# Memory\r\n\r\n# Latencystats\r\nlatency_percentiles_usec_get:p50=2.007,p99=9.999\r\n\r\n# Keysizes\r\ndb0_distrib_strings_sizes:1=2,4=6,2=2\r\n"
            )
        );
    }

    #[test]
    fn they_stand_where_a_server_has_them() {
        let own = "# Stats\r\na:1\r\n\r\n# Cluster\r\ncluster_enabled:0\r\n";
        assert_eq!(
            merged(&[b"commandstats"], &["cmdstat_get:calls=1\r\n"], own),
            bulk(
                "# Stats\r\na:1\r\n\r\n# Commandstats\r\ncmdstat_get:calls=1\r\n\r\n# Cluster\r\ncluster_enabled:0\r\n"
            )
        );
        let mut out = Vec::new();
        for (words, question) in [
            (&[&b"all"[..]][..], "all"),
            (&[b"LATENCYSTATS", b"x"], "latencystats"),
            (&[b"Memory"], "memory"),
            (&[b"memory", b"stats", b"clients"], "default"),
            (&[b"memory", b"keysizes"], "all"),
        ] {
            write(wanted(words), &mut out);
            assert_eq!(out, format!("*2\r\n$4\r\nINFO\r\n{}", bulk(question)).as_bytes());
        }
        for nothing in ["", "default", "server", "nosuch"] {
            assert_eq!(Sections::wanted(&[nothing.as_bytes()], (0, 16)), None, "{nothing}");
        }
    }

    #[test]
    fn figures_are_those_of_now() {
        let own = "# Memory\r\nused_memory:5\r\nused_memory_human:5B\r\nused_memory_lua:9\r\n\r\n# Stats\r\ntotal_commands_processed:3\r\nexpired_keys:1\r\n\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n";
        let one = "# Memory\r\nused_memory:7\r\nused_memory_lua:1\r\ntotal_commands_processed:8\r\nexpired_keys:2\r\ndb0:keys=2,expires=0,avg_ttl=0\r\ndb4:keys=2,expires=0,avg_ttl=0\r\n";
        let two = "used_memory:9\r\nexpired_keys:3\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n";
        // What one of them does not say is not known any more, and who asked for stats alone is told of these.
        let all = "# Memory\r\nused_memory:16\r\nused_memory_human:16B\r\n\r\n# Stats\r\ntotal_commands_processed:3\r\nexpired_keys:5\r\n\r\n# Keyspace\r\ndb0:keys=3,expires=0,avg_ttl=0\r\n";
        let of = |words: &[&[u8]], databases, shards: &[&str]| {
            let mut parts: Vec<String> = shards.iter().map(|text| (*text).to_owned()).collect();
            parts.push(bulk(own));
            let parts: Vec<&str> = parts.iter().map(|part| &**part).collect();
            joined(Merge::Sections(Sections::wanted(words, databases).expect("some")), &parts)
        };
        let both = [&*bulk(one), &bulk(two)];
        assert_eq!(of(&[b"memory", b"stats", b"keyspace"], (0, 4), &both), bulk(all));
        let fixed = of(&[b"keyspace"], (4, 1), &both);
        assert!(
            fixed.contains("used_memory:5\r\n") && fixed.ends_with("db4:keys=2,expires=0,avg_ttl=0\r\n\r\n"),
            "{fixed}"
        );
        assert_eq!(
            of(&[b"memory"], (0, 4), &[&bulk(one), "-LOADING no\r\n"]),
            bulk(own),
            "what was said last"
        );
        assert!(of(&[b"memory"], (0, 4), &[":1\r\n"]).starts_with("-ERR shard shard-1: unexpected"));
        let huge = format!("used_memory:1\r\n{}", "used_memory_rss:1\r\n".repeat(1_000_000));
        assert!(of(&[b"memory"], (0, 4), &[&bulk(&huge)]).contains("used_memory:1\r\n"));
        let odd = "\r\n\r\n\r\n# \r\n:\r\nused_memory\r\nused_memory:-1\r\nused_cpu_sys:inf\r\n\u{0}\u{ff}";
        assert!(of(&[b"all"], (0, 4), &[&bulk(odd)]).contains("# Memory\r\n\r\n"));
    }

    #[test]
    fn they_are_left_out_where_a_shard_does_not_answer() {
        let (own, some) = (bulk("# Memory\r\n"), bulk("cmdstat_get:calls=1\r\n"));
        let merge = Merge::Sections(wanted(&[b"commandstats"]));
        assert_eq!(joined(merge, &[&some, "-ERR shard shard-2: timed out\r\n", &own]), own);
        assert_eq!(joined(merge, &[&some, "-NOPERM no\r\n", &bulk("")]), "-NOPERM no (shard shard-2)\r\n");
        assert_eq!(joined(merge, &["-NOPERM no\r\n", &bulk("")]), "-NOPERM no\r\n");
        assert!(joined(merge, &[":1\r\n", &own]).starts_with("-ERR shard shard-1: unexpected"));
        let many: String = (0..20_000).map(|number| format!("cmdstat_{number}:calls=1\r\n")).collect();
        let wide = format!("cmdstat_wide:{}\r\n", "a=1,".repeat(1_000_000));
        let reply = joined(merge, &[&bulk(&many), &bulk(&wide), &own]);
        assert_eq!(reply.matches("cmdstat_").count(), LINES_MAX);
        assert!(joined(merge, &[&bulk(&wide), &own]).contains("cmdstat_wide:a=256\r\n"));
        // The same line again and again: a shard is not read without end.
        let endless = bulk(&"cmdstat_x:a=1\r\n".repeat(1_000_000));
        let counted = format!("cmdstat_x:a={}\r\n", FIGURES_MAX / "cmdstat_x:a=1\r\n".len());
        assert!(joined(merge, &[&endless, &own]).contains(&counted));
        // Nor written with more than it has said.
        let large = bulk("cmdstat_x:a=1e308,b=-1e308,c=nan,d=1e17\r\n");
        assert!(joined(merge, &[&large, &own]).contains("cmdstat_x:d=100000000000000000\r\n"));
        let odd = "cmdstat_x\r\ncmdstat_y:\r\ncmdstat_z:calls=nonsense,usec=-1,a=1e999,b\r\n";
        assert!(joined(merge, &[&bulk(odd), &own]).contains("# Memory"));
    }
}
