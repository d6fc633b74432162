//! MEMORY STATS and LATENCY HISTOGRAM of all shards: figures in maps, added up as one server would tell them.

use std::collections::HashMap;

use super::encode;
use super::identity::string;
use super::reports::pairs;
use super::whole;
use crate::buffer::Output;
use crate::protocol::Part;

/// Maps in each other; a server has two.
const DEPTH_MAX: usize = 4;

/// What says how much each shard counts where a figure is a ratio: another figure, and one that is taken off it.
type Weight = (&'static str, Option<&'static str>);

/// Figures that are ratios.
const RATIOS: [(&str, Weight); 7] = [
    ("keys.bytes-per-key", ("keys.count", None)),
    ("dataset.percentage", ("total.allocated", Some("startup.allocated"))),
    ("peak.percentage", ("peak.allocated", None)),
    ("allocator-fragmentation.ratio", ("allocator.allocated", None)),
    ("allocator-rss.ratio", ("allocator.active", None)),
    ("rss-overhead.ratio", ("allocator.resident", None)),
    ("fragmentation", ("total.allocated", None)),
];

/// A map of figures: names and values, as they came.
type Figures<'r> = Vec<(&'r [u8], &'r [u8])>;

/// MEMORY STATS. Sums, of ratios the average by what they are ratios of.
pub fn merge_stats<'p>(parts: &'p [Part], reply: &mut Output) -> Result<(), &'p Part> {
    let mut maps = Vec::new();
    for part in parts {
        maps.push(pairs(&part.bytes).ok_or(part)?);
    }
    let resp3 = parts.first().is_some_and(|part| part.bytes.starts_with(b"%"));
    write_sums(&maps, resp3, DEPTH_MAX, reply.tail());
    Ok(())
}

fn write_sums(maps: &[Figures<'_>], resp3: bool, depth: usize, out: &mut Vec<u8>) {
    let mut names: Vec<&[u8]> = Vec::new();
    // What each of the maps has by that name.
    let mut values: HashMap<&[u8], Vec<(usize, &[u8])>> = HashMap::new();
    for (number, map) in maps.iter().enumerate() {
        for &(name, value) in map {
            let values = values.entry(name).or_default();
            if values.is_empty() {
                names.push(name);
            }
            values.push((number, value));
        }
    }
    let mut told = Vec::new();
    for name in names {
        let mut value = Vec::new();
        if write_sum(name, &values, maps.len(), resp3, depth, &mut value).is_some() {
            told.push((name, value));
        }
    }
    encode::map(out, resp3, told.len());
    for (name, value) in told {
        out.extend_from_slice(name);
        out.extend_from_slice(&value);
    }
}

/// Writes what all have by this name together; none where that is no figure.
fn write_sum(
    name: &[u8],
    values: &HashMap<&[u8], Vec<(usize, &[u8])>>,
    maps: usize,
    resp3: bool,
    depth: usize,
    out: &mut Vec<u8>,
) -> Option<()> {
    let all = values.get(name)?;
    let first = all.first()?.1;
    let is_map = |value: &[u8]| matches!(value.first(), Some(b'*' | b'%'));
    if is_map(first) {
        let depth = depth.checked_sub(1)?;
        let within: Vec<Figures<'_>> = all.iter().filter_map(|(_, value)| pairs(value)).collect();
        write_sums(&within, resp3, depth, out);
        return Some(());
    }
    let text = string(name)?.0;
    let numbers = |wanted: &str| {
        let mut numbers = vec![0.0; maps];
        let named =
            values.iter().find(|(name, _)| string(name).is_some_and(|(name, _)| name == wanted.as_bytes()));
        for &(number, value) in named.map(|(_, values)| &values[..]).unwrap_or_default() {
            numbers[number] = self::number(value).unwrap_or_default();
        }
        numbers
    };
    if let Some((_, (weight, less))) = RATIOS.iter().find(|(ratio, _)| text == ratio.as_bytes()) {
        let mut weights = numbers(weight);
        for (weight, less) in weights.iter_mut().zip(less.map(numbers).unwrap_or_default()) {
            *weight -= less;
        }
        let (mut sum, mut weight) = (0.0, 0.0);
        for &(number, value) in all {
            sum += self::number(value)? * weights[number];
            weight += weights[number];
        }
        let ratio = if weight > 0.0 { sum / weight } else { self::number(first)? };
        match first.first()? {
            b':' => encode::integer(out, ratio.round() as i64),
            b',' => out.extend_from_slice(format!(",{ratio}\r\n").as_bytes()),
            _ => encode::bulk(out, ratio.to_string().as_bytes()),
        }
        return Some(());
    }
    let mut sum = 0i64;
    for &(_, value) in all {
        sum = sum.saturating_add(integer(value)?);
    }
    encode::integer(out, sum);
    Some(())
}

/// LATENCY HISTOGRAM. For each command its calls, and how many of them took so long at most.
pub fn merge_histogram<'p>(parts: &'p [Part], reply: &mut Output) -> Result<(), &'p Part> {
    let mut commands: Vec<(&[u8], Calls)> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for part in parts {
        for (name, value) in pairs(&part.bytes).ok_or(part)? {
            let calls = Calls::of(value).ok_or(part)?;
            let place = *places.entry(name).or_insert(commands.len());
            match commands.get_mut(place) {
                Some((_, known)) => known.add(calls),
                None => commands.push((name, calls)),
            }
        }
    }
    let resp3 = parts.first().is_some_and(|part| part.bytes.starts_with(b"%"));
    let out = reply.tail();
    encode::map(out, resp3, commands.len());
    for (name, calls) in commands {
        out.extend_from_slice(name);
        calls.write(resp3, out);
    }
    Ok(())
}

/// What shards tell of one command.
struct Calls {
    count: i64,
    /// How many took so many microseconds at most; in each shard's reply they grow, and what grows by nothing is left out.
    shards: Vec<Vec<(i64, i64)>>,
}

impl Calls {
    fn of(value: &[u8]) -> Option<Self> {
        let (mut count, mut bounds) = (None, None);
        for (name, value) in pairs(value)? {
            match string(name)?.0 {
                b"calls" => count = whole::integer(value),
                b"histogram_usec" => {
                    let steps = pairs(value)?.into_iter();
                    let steps =
                        steps.map(|(bound, count)| Some((whole::integer(bound)?, whole::integer(count)?)));
                    bounds = steps.collect::<Option<Vec<_>>>();
                }
                _ => {}
            }
        }
        Some(Self { count: count?, shards: vec![bounds?] })
    }

    fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.shards.extend(other.shards);
    }

    fn write(&self, resp3: bool, out: &mut Vec<u8>) {
        let mut grown: Vec<(i64, i64)> = Vec::new();
        for steps in &self.shards {
            let mut before = 0;
            for &(bound, count) in steps {
                grown.push((bound, count.saturating_sub(before)));
                before = count;
            }
        }
        grown.sort_unstable_by_key(|(bound, _)| *bound);
        let mut steps: Vec<(i64, i64)> = Vec::new();
        let mut sum = 0i64;
        for (bound, count) in grown {
            sum = sum.saturating_add(count);
            match steps.last_mut().filter(|(last, _)| *last == bound) {
                Some((_, known)) => *known = sum,
                None => steps.push((bound, sum)),
            }
        }
        encode::map(out, resp3, 2);
        encode::bulk(out, b"calls");
        encode::integer(out, self.count);
        encode::bulk(out, b"histogram_usec");
        encode::map(out, resp3, steps.len());
        for (bound, count) in steps {
            encode::integer(out, bound);
            encode::integer(out, count);
        }
    }
}

/// A number, which may be less than none.
fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value.strip_prefix(b":")?.strip_suffix(b"\r\n")?).ok()?.parse().ok()
}

/// A number of any kind.
fn number(value: &[u8]) -> Option<f64> {
    let text = match value.first()? {
        b':' | b',' => value[1..].strip_suffix(b"\r\n")?,
        _ => string(value)?.0,
    };
    std::str::from_utf8(text).ok()?.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::super::command::Merge;
    use super::super::split::joined;

    /// Words are names, those with a point and digits only ratios, those in brackets maps.
    fn map(resp3: bool, text: &str) -> String {
        fn write<'w>(words: &mut impl Iterator<Item = &'w str>, resp3: bool) -> String {
            let (mut out, mut count) = (String::new(), 0);
            while let Some(word) = words.next().filter(|word| *word != ")") {
                count += 1;
                let ratio = word.parse::<f64>().ok().filter(|_| word.contains('.'));
                out += &match ratio {
                    _ if word == "(" => write(words, resp3),
                    Some(_) if resp3 => format!(",{word}\r\n"),
                    None if word.parse::<i64>().is_ok() => format!(":{word}\r\n"),
                    _ => format!("${}\r\n{word}\r\n", word.len()),
                };
            }
            if resp3 { format!("%{}\r\n{out}", count / 2) } else { format!("*{count}\r\n{out}") }
        }
        write(&mut text.split_whitespace(), resp3)
    }

    #[test]
    fn memory_is_added_up_and_ratios_are_those_of_all() {
        let one = "total.allocated 300 startup.allocated 100 db.0 ( overhead.hashtable.main 5 ) keys.count 1 keys.bytes-per-key 200 \
                   dataset.percentage 50.5 peak.allocated 400 peak.percentage 75.5 fragmentation 2.5 fragmentation.bytes -10 words abc";
        let two = "total.allocated 100 startup.allocated 100 db.0 ( overhead.hashtable.main 7 ) db.1 ( overhead.hashtable.main 1 ) \
                   keys.count 3 keys.bytes-per-key 100 dataset.percentage 10.5 peak.allocated 100 peak.percentage 25.5 \
                   fragmentation 4.5 fragmentation.bytes 30 new 1";
        let all = "total.allocated 400 startup.allocated 200 db.0 ( overhead.hashtable.main 12 ) keys.count 4 keys.bytes-per-key 125 \
                   dataset.percentage 50.5 peak.allocated 500 peak.percentage 65.5 fragmentation 3.0 fragmentation.bytes 20 \
                   db.1 ( overhead.hashtable.main 1 ) new 1";
        for resp3 in [false, true] {
            let reply = joined(Merge::MemoryStats, &[&map(resp3, one), &map(resp3, two)]);
            // As it is written here there is a digit behind the point.
            let expected = map(resp3, all).replace("$3\r\n3.0", "$1\r\n3").replace(",3.0", ",3");
            assert_eq!(reply, expected);
        }
        let none = map(false, "keys.count 0 keys.bytes-per-key 0");
        assert_eq!(joined(Merge::MemoryStats, &[&none, &none]), none);
    }

    #[test]
    fn histograms_are_those_of_all_calls() {
        let one = "get ( calls 3 histogram_usec ( 1 1 4 3 ) ) set ( calls 1 histogram_usec ( 8 1 ) )";
        let two = "get ( calls 6 histogram_usec ( 2 4 4 5 16 6 ) )";
        let all =
            "get ( calls 9 histogram_usec ( 1 1 2 5 4 8 16 9 ) ) set ( calls 1 histogram_usec ( 8 1 ) )";
        for resp3 in [false, true] {
            let parts = [one, two].map(|text| map(resp3, text));
            assert_eq!(joined(Merge::Histogram, &[&parts[0], &parts[1]]), map(resp3, all));
            assert_eq!(joined(Merge::Histogram, &[&map(resp3, ""), &map(resp3, "")]), map(resp3, ""));
        }
    }

    #[test]
    fn what_is_no_map_of_figures_is_not_taken_for_one() {
        let deep = format!("{}:1\r\n", "*2\r\n+a\r\n".repeat(100));
        for (merge, odd) in [
            (Merge::MemoryStats, "*1\r\n:1\r\n"),
            (Merge::MemoryStats, ":1\r\n"),
            (Merge::Histogram, "*2\r\n$1\r\na\r\n:1\r\n"),
            (Merge::Histogram, "*2\r\n$1\r\na\r\n*2\r\n$5\r\ncalls\r\n:1\r\n"),
        ] {
            let reply = joined(merge, &["*0\r\n", odd]);
            assert_eq!(
                reply, "-ERR shard shard-2: unexpected response to a part of the request\r\n",
                "{odd:?}"
            );
        }
        assert!(joined(Merge::MemoryStats, &[&deep, &deep]).len() < deep.len());
        assert_eq!(
            joined(Merge::MemoryStats, &["-NOPERM no\r\n", "*0\r\n"]),
            "-NOPERM no (shard shard-1)\r\n"
        );
    }
}
