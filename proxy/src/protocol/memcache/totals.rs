//! `stats` and `stats settings|items|slabs|sizes` of several shards as one server would say them: counts are added up. What is no count is said
//! once where all say the same, else for each shard behind its name, as `stats shards` has it. Classes of slabs of other sizes are not
//! added up where the sizes are told; `stats items` does not tell them, so there a class is that of its number.
//!
//! `stats` begins with what the proxy counts itself, which goes before what shards call the same.

use std::collections::{BTreeMap, BTreeSet};

use super::encode;
use super::response;
use crate::buffer::Output;
use crate::protocol::Part;

/// How the values of one name become one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Join {
    /// Counts are added up.
    Sum,
    /// So are seconds.
    SumOfSeconds,
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
    join(parts, join_of, &BTreeSet::new(), reply);
    reply.copy(b"END\r\n");
}

/// Joins what shards count with `own`, which is there whatever becomes of them: of shards that fail their error is told, and nothing
/// is added up.
pub fn merge_with_own(own: &[u8], parts: &[Part], reply: &mut Output) {
    reply.copy(own);
    let failed = |part: &&Part| !part.bytes.ends_with(b"END\r\n");
    if parts.iter().any(|part| failed(&part)) {
        for part in parts.iter().filter(failed) {
            let words = String::from_utf8_lossy(&part.bytes);
            let words = if response::is_error(&part.bytes) {
                words.trim_end()
            } else {
                "SERVER_ERROR unexpected response"
            };
            encode::stat(reply.tail(), &format!("{}:error", part.shard), words);
        }
    } else {
        let own = String::from_utf8_lossy(own);
        let names =
            own.lines().filter_map(|line| Some(line.strip_prefix("STAT ")?.split_once(' ')?.0)).collect();
        join(parts, join_of_general, &names, reply);
    }
    reply.copy(b"END\r\n");
}

/// Writes what all shards say but for these names.
fn join(parts: &[Part], join_of: fn(&str) -> Join, without: &BTreeSet<&str>, reply: &mut Output) {
    let texts: Vec<_> = parts.iter().map(|part| String::from_utf8_lossy(&part.bytes)).collect();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut lines: Vec<(&str, Said)> = Vec::new();
    for (shard, text) in texts.iter().enumerate() {
        let said = text.lines().filter_map(|line| line.strip_prefix("STAT ")?.split_once(' '));
        for (name, value) in said.filter(|(name, _)| !without.contains(name)) {
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
}

/// By the names that memcached has for them in `stats`, where nearly all are counts.
fn join_of_general(name: &str) -> Join {
    match name {
        "rusage_user" | "rusage_system" => Join::SumOfSeconds,
        "hash_power_level" | "hash_is_expanding" | "slab_reassign_running" | "lru_crawler_running" => {
            Join::Highest
        }
        "accepting_conns" | "libevent" => Join::Same,
        _ => Join::Sum,
    }
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
        Join::SumOfSeconds => {
            let seconds = said.iter().map(|(_, value)| value.parse::<f64>().ok()).sum::<Option<f64>>()?;
            Some(format!("{seconds:.6}"))
        }
        Join::Highest => Some(numbers()?.into_iter().max()?.to_string()),
        Join::Same if said.len() < shards => None,
        Join::Same | Join::SameOfClass => {
            let (_, first) = said.first()?;
            said.iter().all(|(_, value)| value == first).then(|| (*first).to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn general(own: &str, said: [&str; 2]) -> String {
        let parts: Vec<_> = said
            .iter()
            .enumerate()
            .map(|(number, text)| {
                let mut part = Part::new(format!("shard-{}", number + 1).into());
                part.bytes.extend_from_slice(text.replace('\n', "\r\n").as_bytes());
                part
            })
            .collect();
        let mut reply = Output::default();
        merge_with_own(own.replace('\n', "\r\n").as_bytes(), &parts, &mut reply);
        String::from_utf8_lossy(reply.tail()).replace("\r\n", "\n")
    }

    #[test]
    fn what_the_proxy_counts_goes_before_the_sums_of_shards() {
        let shards = [
            "STAT pid 1\nSTAT cmd_get 2\nSTAT rusage_user 0.250000\nSTAT libevent 2.1\nSTAT hash_power_level 16\nEND\n",
            "STAT pid 2\nSTAT cmd_get 3\nSTAT rusage_user 1.500000\nSTAT libevent 2.1\nSTAT hash_power_level 17\nEND\n",
        ];
        assert_eq!(
            general("STAT pid 77\n", shards),
            "STAT pid 77\nSTAT cmd_get 5\nSTAT rusage_user 1.750000\nSTAT libevent 2.1\nSTAT hash_power_level 17\nEND\n"
        );
    }

    #[test]
    fn without_those_of_a_shard_there_are_only_the_proxys_own() {
        let refused = "SERVER_ERROR shard shard-2: connection refused\n";
        for (said, shown) in
            [(refused, refused.trim_end()), ("STAT cmd_get 3\n", "SERVER_ERROR unexpected response")]
        {
            assert_eq!(
                general("STAT pid 77\n", ["STAT cmd_get 2\nEND\n", said]),
                format!("STAT pid 77\nSTAT shard-2:error {shown}\nEND\n")
            );
        }
    }
}
