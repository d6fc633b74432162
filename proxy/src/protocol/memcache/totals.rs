//! `stats settings|items|slabs|sizes` of several shards as one server would say them: counts are added up. What is no count is said
//! once where all say the same, else for each shard behind its name, as `stats shards` has it. Classes of slabs of other sizes are not
//! added up where the sizes are told; `stats items` does not tell them, so there a class is that of its number.

use std::collections::BTreeMap;

use super::encode;
use super::response;
use crate::buffer::Output;
use crate::protocol::Part;

/// How the values of one name become one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Join {
    /// Counts are added up.
    Sum,
    /// The highest: ages, and how many classes of slabs there are.
    Highest,
    /// Only what all say.
    Same,
    /// What all say that have this class of slabs.
    SameOfClass,
}

/// What the shards say of one name: the place of the shard and the value.
type Said<'p> = Vec<(usize, &'p str)>;

/// Joins the statistics of all shards. Without those of one of them there are none: a sum over some would be a lie that nobody
/// notices.
pub fn merge(parts: &[Part], reply: &mut Output) {
    if let Some(odd) = parts.iter().find(|part| !part.bytes.ends_with(b"END\r\n")) {
        return if response::is_error(&odd.bytes) {
            reply.copy(&odd.bytes)
        } else {
            encode::odd_part(reply.tail(), &odd.shard)
        };
    }
    if let [only] = parts {
        return reply.copy(&only.bytes);
    }
    let texts: Vec<_> = parts.iter().map(|part| String::from_utf8_lossy(&part.bytes)).collect();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut lines: Vec<(&str, Said)> = Vec::new();
    for (shard, text) in texts.iter().enumerate() {
        for (name, value) in text.lines().filter_map(|line| line.strip_prefix("STAT ")?.split_once(' ')) {
            let place = *places.entry(name).or_insert_with(|| {
                lines.push((name, Vec::new()));
                lines.len() - 1
            });
            lines[place].1.push((shard, value));
        }
    }
    let is_mixed = |name: &str| {
        // A number means other sizes in servers that were started otherwise.
        let class = name.split_once(':').map(|(class, _)| format!("{class}:chunk_size"));
        let sizes = class.and_then(|name| places.get(&*name)).map(|&place| &lines[place].1);
        sizes.is_some_and(|sizes| sizes.iter().any(|(_, size)| *size != sizes[0].1))
    };
    for (name, said) in &lines {
        let joined = if is_mixed(name) { None } else { joined(join_of(name), said, parts.len()) };
        match joined {
            Some(value) => encode::stat(reply.tail(), name, value),
            None => {
                for (shard, value) in said {
                    encode::stat(reply.tail(), &format!("{}:{name}", parts[*shard].shard), value);
                }
            }
        }
    }
    reply.copy(b"END\r\n");
}

/// By the names that memcached has for them.
fn join_of(name: &str) -> Join {
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let of_class = name.strip_prefix("items:").unwrap_or(name).split_once(':');
    match of_class.filter(|(class, _)| is_number(class)) {
        Some((_, "chunk_size" | "chunks_per_page")) => Join::SameOfClass,
        Some((_, "age" | "age_hot" | "age_warm" | "evicted_time")) => Join::Highest,
        Some(_) => Join::Sum,
        None if name == "active_slabs" => Join::Highest,
        // Of `stats sizes`: how many items there are of this size.
        None if is_number(name) || name == "total_malloced" => Join::Sum,
        None => Join::Same,
    }
}

/// One value for all; none if they cannot become one. There are so many `shards`.
fn joined(join: Join, said: &Said, shards: usize) -> Option<String> {
    let numbers = || said.iter().map(|(_, value)| value.parse::<u64>().ok()).collect::<Option<Vec<_>>>();
    match join {
        Join::Sum => Some(numbers()?.into_iter().fold(0, u64::saturating_add).to_string()),
        Join::Highest => Some(numbers()?.into_iter().max()?.to_string()),
        Join::Same if said.len() < shards => None,
        Join::Same | Join::SameOfClass => {
            let (_, first) = said.first()?;
            said.iter().all(|(_, value)| value == first).then(|| (*first).to_owned())
        }
    }
}
