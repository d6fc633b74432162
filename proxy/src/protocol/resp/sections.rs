//! Sections of INFO that only shards have: how often which command was called, how long that took, how large keys are. What all shards say is
//! told as of one server.
//!
//! Counts are added up. Percentiles of several servers make none of all; the highest of any is one that all of them together keep.
//! If a shard does not answer the sections are left out: numbers of some shards would pass for those of all.

use std::collections::HashMap;

use super::encode;
use super::identity::string;
use crate::buffer::Output;
use crate::protocol::Part;

/// Which of them, as bits in the order of [`SECTIONS`].
pub type Sections = u8;

/// How the fields of a line are joined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Join {
    /// Sums, and how long a call takes.
    Calls,
    /// The highest.
    Highest,
    Sums,
}

/// One of them.
struct Section {
    name: &'static str,
    /// What stands in the names of its lines.
    mark: &'static str,
    join: Join,
}

static SECTIONS: [Section; 3] = [
    Section { name: "commandstats", mark: "cmdstat_", join: Join::Calls },
    Section { name: "latencystats", mark: "latency_percentiles_usec_", join: Join::Highest },
    Section { name: "keysizes", mark: "_distrib_", join: Join::Sums },
];

/// Lines of a section, and fields that one shard says in a line: several times what servers have.
const LINES_MAX: usize = 10_000;
const FIELDS_MAX: usize = 256;

/// The section before which they stand.
const BEFORE: &[u8] = b"# Cluster\r\n";

/// Those that are asked for, where nothing stands for what a server tells nobody who does not ask.
pub fn wanted(words: &[&[u8]]) -> Sections {
    let mut wanted = 0;
    for (place, section) in SECTIONS.iter().enumerate() {
        let is_wanted = |word: &&[u8]| {
            ["all", "everything", section.name].iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
        };
        wanted |= u8::from(words.iter().any(is_wanted)) << place;
    }
    wanted
}

fn chosen(sections: Sections) -> impl Iterator<Item = &'static Section> {
    SECTIONS
        .iter()
        .enumerate()
        .filter(move |(place, _)| sections & (1 << place) > 0)
        .map(|(_, section)| section)
}

/// The question to each shard. Servers before 7.0 tell one section, or all.
pub fn write(sections: Sections, out: &mut Vec<u8>) {
    let mut names = chosen(sections).map(|section| section.name);
    let name = names.next().filter(|_| names.next().is_none()).unwrap_or("all");
    out.clear();
    encode::request(out, &[b"INFO", name.as_bytes()]);
}

/// What the proxy has said itself is the last part. The shard whose response is none, if there is one.
pub fn merge<'p>(sections: Sections, parts: &'p [Part], reply: &mut Output) -> Result<(), &'p Part> {
    let Some((own, shards)) = parts.split_last() else { return Ok(()) };
    let (ours, _) = string(&own.bytes).ok_or(own)?;
    let mut text = Vec::new();
    if !shards.iter().any(|shard| encode::is_error(&shard.bytes)) {
        for section in chosen(sections) {
            let lines = lines(section, shards)?;
            if !text.is_empty() {
                text.extend_from_slice(b"\r\n");
            }
            let (first, rest) = section.name.split_at(1);
            text.extend_from_slice(format!("# {}{rest}\r\n", first.to_ascii_uppercase()).as_bytes());
            text.extend_from_slice(&lines);
        }
    }
    let place = memchr::memmem::rfind(ours, BEFORE).unwrap_or(ours.len());
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

/// The fields of a line, of all shards.
type Fields<'t> = Vec<(&'t [u8], Number)>;

/// The lines of a section.
fn lines<'p>(section: &Section, shards: &'p [Part]) -> Result<Vec<u8>, &'p Part> {
    let mut lines: Vec<(&[u8], Fields<'_>)> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for shard in shards {
        let (text, _) = string(&shard.bytes).ok_or(shard)?;
        for line in text.split(|&byte| byte == b'\n') {
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
            .filter(|number: &f64| number.is_finite())
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
        for (words, question) in [(&[&b"all"[..]][..], "all"), (&[b"LATENCYSTATS", b"x"], "latencystats")] {
            write(wanted(words), &mut out);
            assert_eq!(out, format!("*2\r\n$4\r\nINFO\r\n{}", bulk(question)).as_bytes());
        }
        assert_eq!(
            [wanted(&[]), wanted(&[b"default"]), wanted(&[b"memory"]), wanted(&[b"everything"])],
            [0, 0, 0, 7]
        );
    }

    #[test]
    fn they_are_left_out_where_a_shard_does_not_answer() {
        let (own, some) = (bulk("# Memory\r\n"), bulk("cmdstat_get:calls=1\r\n"));
        let merge = Merge::Sections(1);
        assert_eq!(joined(merge, &[&some, "-ERR shard shard-2: timed out\r\n", &own]), own);
        assert_eq!(joined(merge, &[&some, "-NOPERM no\r\n", &bulk("")]), "-NOPERM no (shard shard-2)\r\n");
        assert_eq!(joined(merge, &["-NOPERM no\r\n", &bulk("")]), "-NOPERM no\r\n");
        assert!(joined(merge, &[":1\r\n", &own]).starts_with("-ERR shard shard-1: unexpected"));
        let many: String = (0..20_000).map(|number| format!("cmdstat_{number}:calls=1\r\n")).collect();
        let wide = format!("cmdstat_wide:{}\r\n", "a=1,".repeat(1_000_000));
        let reply = joined(merge, &[&bulk(&many), &bulk(&wide), &own]);
        assert_eq!(reply.matches("cmdstat_").count(), LINES_MAX);
        assert!(joined(merge, &[&bulk(&wide), &own]).contains("cmdstat_wide:a=256\r\n"));
        let odd = "cmdstat_x\r\ncmdstat_y:\r\ncmdstat_z:calls=nonsense,usec=-1,a=1e999,b\r\n";
        assert!(joined(merge, &[&bulk(odd), &own]).contains("# Memory"));
    }
}
