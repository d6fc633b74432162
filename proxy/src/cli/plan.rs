//! `memstore plan`: which keys move where, if one configuration takes the place of another.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use shard_discovery::Topology;

use super::common::{Format, keys_of_input, print};
use crate::config::{self, Config};

/// The two configurations.
#[derive(Args)]
pub struct Plan {
    /// Current configuration
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// New configuration
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Only this pool
    #[arg(long)]
    pool: Option<String>,
    /// `-` reads keys from standard input, one per line; default: a sample of all possible keys
    #[arg(value_parser = ["-"])]
    keys: Option<String>,
    /// Exit with 4 if more than this percentage of the keys of a pool moves or is lost, or if it is unknown
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    fail_above: Option<f64>,
    /// Output format: text, or one JSON object per line
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Shows what moves.
pub fn plan(asked: &Plan) -> anyhow::Result<ExitCode> {
    let (from, to) = (config::load(&asked.from)?, config::load(&asked.to)?);
    let keys = if asked.keys.is_some() { Some(keys_of_input()?) } else { None };
    let mut text = String::new();
    let mut is_above = false;
    let is_meant = |pool: &&config::Pool| asked.pool.as_ref().is_none_or(|name| *name == pool.name);
    let named = |config: &Config, name: &str| config.pools.iter().position(|pool| pool.name == name);
    let gone = from.pools.iter().filter(|pool| named(&to, &pool.name).is_none());
    for pool in to.pools.iter().chain(gone).filter(is_meant) {
        let [before, after] =
            [&from, &to].map(|config| named(config, &pool.name).map(|at| &config.pools[at]));
        let change = Change::of(before, after, keys.as_deref())?;
        is_above |= asked.fail_above.is_some_and(|most| change.is_above(most));
        text.push_str(&match asked.format {
            Format::Text => change.text(&pool.name),
            Format::Json => format!("{}\n", change.json(&pool.name)),
        });
    }
    anyhow::ensure!(!text.is_empty(), "there is no such pool in either file");
    print(&text)?;
    Ok(if is_above { ExitCode::from(4) } else { ExitCode::SUCCESS })
}

/// Keys that are made up where none are given: enough for a tenth of a percent.
const SAMPLES: u64 = 1_000_000;

/// What becomes of the keys of a pool.
pub enum Change {
    /// There was no such pool.
    New,
    /// There is no such pool any more, also where it has another name by now.
    Gone,
    /// Its clients find nothing of what they had, for this reason.
    Elsewhere(&'static str),
    /// Who owns what is not in the files, before or after, for this reason.
    Unknown(&'static str),
    /// It is over the shards that it was over, wherever they are listed: here.
    Same(&'static str),
    /// It is over these shards.
    Moves(Moves),
}

impl Change {
    /// From one configuration to the other, of which one has the pool.
    pub fn of(
        from: Option<&config::Pool>,
        to: Option<&config::Pool>,
        keys: Option<&[Vec<u8>]>,
    ) -> anyhow::Result<Self> {
        let (from, to) = match (from, to) {
            (None, _) => return Ok(Self::New),
            (_, None) => return Ok(Self::Gone),
            (Some(from), Some(to)) => (from, to),
        };
        if from.protocol != to.protocol {
            return Ok(Self::Elsewhere("speaks another protocol"));
        }
        if from.db != to.db {
            return Ok(Self::Elsewhere("uses another database"));
        }
        if from.source.polled().is_some() || to.source.polled().is_some() {
            let is_dealt_alike = from.distribution == to.distribution
                && from.key_hash == to.key_hash
                && from.hash_tag == to.hash_tag
                && from.pins == to.pins;
            return Ok(match from.source.polled() {
                Some(before) if is_dealt_alike && before.is_same(&to.source) => {
                    Self::Same("servers listed at the same URL")
                }
                _ => Self::Unknown("the servers are listed at a URL and not in the file"),
            });
        }
        match (from.cluster(), to.cluster()) {
            (None, None) => Ok(Self::Moves(Moves::of(&from.topology()?, &to.topology()?, keys))),
            (Some(before), Some(after)) if before.seeds == after.seeds => {
                Ok(Self::Same("a Redis Cluster by the same seeds"))
            }
            _ => Ok(Self::Unknown("the nodes of a Redis Cluster assign its slots and not the file")),
        }
    }

    /// Whether more than this share moves, in percent, or may.
    pub fn is_above(&self, most: f64) -> bool {
        match self {
            Self::New | Self::Same(_) => false,
            Self::Gone | Self::Elsewhere(_) => most < 100.0,
            Self::Unknown(_) => true,
            Self::Moves(moves) => moves.moved() > most || !moves.unsampled.is_empty(),
        }
    }

    /// For people.
    pub fn text(&self, pool: &str) -> String {
        match self {
            Self::New => format!("{pool}: new pool\n"),
            Self::Gone => format!("{pool}: removed; all of its keys are lost\n"),
            Self::Elsewhere(why) => format!("{pool}: {why}; all of its keys are lost\n"),
            Self::Unknown(why) => format!("{pool}: unknown, since {why}\n"),
            Self::Same(what) => format!("{pool}: {what}; nothing moves\n"),
            Self::Moves(moves) => moves.text(pool),
        }
    }

    /// For programs: one object.
    pub fn json(&self, pool: &str) -> serde_json::Value {
        let object = |change: &str, moved: Option<f64>| serde_json::json!({"pool": pool, "change": change, "moved_percent": moved});
        match self {
            Self::New => object("new", Some(0.0)),
            Self::Gone => object("gone", Some(100.0)),
            Self::Elsewhere(why) => object(why, Some(100.0)),
            Self::Unknown(_) => object("unknown", None),
            Self::Same(_) => object("none", Some(0.0)),
            Self::Moves(moves) => moves.json(pool),
        }
    }
}

/// A share in percent.
pub fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "allowed is a number from 0 to 100".into())
}

/// Where keys go from where.
#[derive(Default)]
pub struct Moves {
    keys: u64,
    stay: u64,
    moves: BTreeMap<(String, String), u64>,
    /// Prefixes whose keys are not pinned to the same shard as before, where a sample of the keys says nothing of theirs.
    unsampled: Vec<String>,
}

impl Moves {
    /// How these keys move, or without any a sample of the key space.
    pub fn of(from: &Topology, to: &Topology, keys: Option<&[Vec<u8>]>) -> Self {
        let mut moves = Self::default();
        let Some(keys) = keys else {
            moves.unsampled = pinned_otherwise(from, to);
            for number in 0..SAMPLES {
                moves.count(from, to, format!("{:016x}", mixed(number)).as_bytes());
            }
            return moves;
        };
        keys.iter().for_each(|key| moves.count(from, to, key));
        moves
    }

    fn count(&mut self, from: &Topology, to: &Topology, key: &[u8]) {
        let owner = |topology: &Topology| {
            topology
                .shard_for(key)
                .map_or_else(|| "none".into(), |shard| topology.shards()[shard].name.clone())
        };
        let (before, after) = (owner(from), owner(to));
        self.keys += 1;
        if before == after {
            self.stay += 1;
        } else {
            *self.moves.entry((before, after)).or_default() += 1;
        }
    }

    /// Share of the keys that move, in percent.
    pub fn moved(&self) -> f64 {
        self.percent(self.keys - self.stay)
    }

    fn percent(&self, count: u64) -> f64 {
        100.0 * count as f64 / self.keys.max(1) as f64
    }

    /// For people.
    pub fn text(&self, pool: &str) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{pool}: {:.2} % of {} keys stay, {:.2} % move",
            self.percent(self.stay),
            self.keys,
            self.moved()
        );
        for ((before, after), count) in &self.moves {
            let _ = writeln!(text, "{pool}: {:.2} % move from {before} to {after}", self.percent(*count));
        }
        for prefix in &self.unsampled {
            let why = "are pinned otherwise, or to a tag with another owner; a sample has none of them: give keys to have them counted";
            let _ = writeln!(text, "{pool}: keys that begin with {prefix:?} {why}");
        }
        text
    }

    /// For programs: one object.
    pub fn json(&self, pool: &str) -> serde_json::Value {
        let moves = self.moves.iter().map(|((before, after), count)| {
            serde_json::json!({"from": before, "to": after, "keys": count, "percent": self.percent(*count)})
        });
        serde_json::json!({
            "pool": pool, "keys": self.keys, "stay": self.stay, "moved_percent": self.moved(),
            "moves": moves.collect::<Vec<_>>(), "pinned_otherwise": self.unsampled,
        })
    }
}

/// Prefixes that one of the two pins and the other does not, or elsewhere, which also a tag is that has another owner.
fn pinned_otherwise(from: &Topology, to: &Topology) -> Vec<String> {
    let is_other = |prefix: &&str| {
        let place = |topology: &Topology| {
            let target = topology.pins().get(prefix)?.target.to_string();
            let owner =
                topology.shard_for(prefix.as_bytes()).map(|shard| topology.shards()[shard].name.clone());
            Some((target, owner))
        };
        place(from) != place(to)
    };
    let mut prefixes: Vec<&str> =
        from.pins().iter().chain(to.pins().iter()).map(|pin| &*pin.prefix).filter(is_other).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.into_iter().map(Into::into).collect()
}

/// SplitMix64.
fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shard_discovery::{Address, DistributionKind, KeyHash, Pins, Shard};

    fn topology(shards: usize, kind: DistributionKind) -> Topology {
        let address = Address::Tcp { host: "h".into(), port: 1 };
        let shards = (0..shards).map(|shard| Shard::new(address.clone(), 1, Some(format!("shard-{shard}"))));
        Topology::new(shards.collect(), kind, KeyHash::Fnv1a64, None).expect("a topology")
    }

    #[test]
    fn a_shard_more_takes_its_share_and_no_others_keys_move() {
        let ketama = |shards| topology(shards, DistributionKind::Ketama);
        let moves = Moves::of(&ketama(4), &ketama(5), None);
        let moved = (moves.keys - moves.stay) as f64 / moves.keys as f64;
        assert!((0.1..0.3).contains(&moved), "{moved}");
        // Rounding of points moves some keys between the others, but few.
        let to_new: u64 =
            moves.moves.iter().filter(|((_, to), _)| to == "shard-4").map(|(_, count)| count).sum();
        assert!(to_new * 10 > (moves.keys - moves.stay) * 9);
        let modula = |shards| topology(shards, DistributionKind::Modula);
        let moves = Moves::of(&modula(4), &modula(5), None);
        assert!(moves.stay * 4 < moves.keys, "modula moves most");
    }

    /// A sample has none of them, and all of them may move where the tag's owner is another one.
    #[test]
    fn keys_that_are_pinned_to_a_tag_move_with_it() {
        let pinned = |shards, tag: &str| {
            let pins = Pins::new([("s:", &*format!("{{{tag}}}")), ("rq:", "shard-1")]).expect("two pins");
            topology(shards, DistributionKind::Ketama).with_pins(pins).expect("its shards")
        };
        let moves = |tag: &str| Moves::of(&pinned(4, tag), &pinned(5, tag), None);
        let (before, after) = (pinned(4, "x"), pinned(5, "x"));
        let is_moving = |tag: &str| before.shard_for(tag.as_bytes()) != after.shard_for(tag.as_bytes());
        let tags: Vec<String> = (0..100).map(|number| format!("{:016x}", mixed(number))).collect();
        let [moving, staying] = [true, false].map(|moving| {
            tags.iter().find(|tag| is_moving(tag) == moving).expect("a fifth of the tags moves")
        });
        assert_eq!(moves(moving).unsampled, ["s:"]);
        assert!(moves(staying).unsampled.is_empty());
    }

    #[test]
    fn a_list_at_the_same_url_moves_nothing_unless_keys_are_dealt_otherwise() {
        let change = |from: &str, to: &str| {
            let [from, to] = [from, to].map(|settings| {
                let text = format!("pool:\n  listen: 127.0.0.1:1\n  redis: true\n  {settings}\n");
                let around = config::Surroundings {
                    read_file: &|_| Err(std::io::ErrorKind::NotFound.into()),
                    environment: &|_| None,
                };
                config::parse(&text, "file.yml".as_ref(), &around).expect("a configuration")
            });
            Change::of(from.pools.first(), to.pools.first(), None).expect("a change").text("p")
        };
        let [list, other] = ["servers_url: http://lists/a", "servers_url: http://lists/b"];
        let slower = "servers_url: http://lists/a\n  servers_url_refresh: 1h";
        let hashed = "servers_url: http://lists/a\n  hash: md5";
        assert_eq!(change(list, slower), "p: servers listed at the same URL; nothing moves\n");
        for after in [other, hashed, "servers: [127.0.0.1:1:1]"] {
            let told = change(list, after);
            assert_eq!(told, "p: unknown, since the servers are listed at a URL and not in the file\n");
        }
    }

    #[test]
    fn keys_that_are_given_are_those_that_count() {
        let ketama = |shards| topology(shards, DistributionKind::Ketama);
        let moves = Moves::of(&ketama(2), &ketama(2), Some(&[b"a".to_vec(), b"b".to_vec()]));
        assert_eq!(moves.text("p"), "p: 100.00 % of 2 keys stay, 0.00 % move\n");
    }
}
