//! Libraries of functions (FUNCTION LOAD): a shard that has come back empty, or has joined, is given those of another one.
//!
//! Shards say in INFO how many libraries they have. One that has none in a run that is new is told each library by its code, as a client
//! would: a dump is understood by some versions only. Where a server was told to forget its functions in a run that is known already,
//! somebody wanted that, and nothing is done. What clients have deleted through this process is not brought back, also while libraries are on
//! their way: what was deleted since is deleted again.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use shard_discovery::Shard;

use crate::control::pool::PoolControl;
use crate::control::probe;
use crate::net::conversation::{Conversation, ConversationError};
use crate::protocol::questions;

/// A shard that this process has never seen before, as it starts, may have restarted just before that: so long ago at most.
const UPTIME_MAX: u64 = 600;
/// So often it is tried to bring libraries to a run of a shard.
const TRIES_MAX: u32 = 3;
/// The pause before it is looked again whether something was deleted meanwhile, and how often.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const LOOKS_MAX: u32 = 10;

/// What a shard says in INFO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    run: String,
    /// Seconds since it was started.
    uptime: u64,
    /// How many libraries it has; none before Redis 7.
    libraries: Option<u64>,
}

impl Said {
    /// Read from INFO.
    pub fn read(info: &str) -> Self {
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim)
        };
        Self {
            run: field("run_id").unwrap_or_default().to_owned(),
            uptime: field("uptime_in_seconds").and_then(|text| text.parse().ok()).unwrap_or(u64::MAX),
            libraries: field("number_of_libraries").and_then(|text| text.parse().ok()),
        }
    }
}

/// What is known of the shards of a pool.
#[derive(Default)]
pub struct Functions {
    shards: HashMap<String, Known>,
    /// Some have said something before.
    is_begun: bool,
    /// What the log knows of shards that have other libraries than others.
    differences: String,
}

struct Known {
    said: Said,
    /// It has said that in the last round.
    is_fresh: bool,
    /// How often it may be given libraries in this run.
    tries: u32,
}

impl Functions {
    /// A shard has said this.
    pub fn note(&mut self, shard: &str, said: Said) {
        let is_empty = said.libraries == Some(0);
        let before = self.shards.get(shard).filter(|known| known.said.run == said.run);
        let is_new_here = || self.is_begun || said.uptime <= UPTIME_MAX;
        let tries = match (before, self.shards.contains_key(shard)) {
            _ if !is_empty => 0,
            (Some(known), _) => known.tries,
            (None, true) => TRIES_MAX,
            (None, false) if is_new_here() => TRIES_MAX,
            (None, false) => 0,
        };
        self.shards.insert(shard.to_owned(), Known { said, is_fresh: true, tries });
    }

    /// All have been asked. Those that are to be given libraries, and who has them.
    fn take_empty(&mut self, names: &[&str]) -> Option<(Vec<String>, String)> {
        self.shards.retain(|name, _| names.contains(&&**name));
        self.is_begun |= !self.shards.is_empty();
        let fresh = || self.shards.iter().filter(|(_, known)| known.is_fresh);
        let count = |known: &Known| known.said.libraries.unwrap_or(0);
        let source = fresh().max_by_key(|(name, known)| (count(known), std::cmp::Reverse(*name)));
        let source = source.filter(|(_, known)| count(known) > 0).map(|(name, _)| name.clone());
        let mut empty: Vec<String> =
            fresh().filter(|(_, known)| known.tries > 0).map(|(name, _)| name.clone()).collect();
        empty.sort_unstable();
        self.shards.values_mut().for_each(|known| known.is_fresh = false);
        let source = source.filter(|_| !empty.is_empty())?;
        for name in &empty {
            if let Some(known) = self.shards.get_mut(name) {
                known.tries -= 1;
            }
        }
        Some((empty, source))
    }

    /// Those that have another number of libraries than most have.
    fn differing(&self) -> Vec<(&str, u64)> {
        let mut counts: Vec<(&str, u64)> =
            self.shards.iter().filter_map(|(name, known)| Some((&**name, known.said.libraries?))).collect();
        counts.sort_unstable();
        let often = |number: u64| counts.iter().filter(|(_, other)| *other == number).count();
        let usual = counts.iter().map(|&(_, number)| number).max_by_key(|&number| (often(number), number));
        counts.iter().copied().filter(|&(_, number)| Some(number) != usual).collect()
    }

    fn tell_of_differences(&mut self, pool: &PoolControl) {
        const SHOWN_MAX: usize = 8;
        let differing = self.differing();
        pool.counters().function_differences.set(differing.len() as i64);
        let shown: Vec<String> =
            differing.iter().take(SHOWN_MAX).map(|(name, number)| format!("{name} has {number}")).collect();
        let differences = shown.join(", ");
        if differences == self.differences {
            return;
        }
        if differences.is_empty() {
            tracing::info!(pool = %pool.config().name, "all shards have as many libraries of functions again");
        } else {
            tracing::warn!(
                pool = %pool.config().name, %differences,
                "shards differ in their libraries of functions; FCALL depends on the shard of its key"
            );
        }
        self.differences = differences;
    }

    /// All have been asked: what is missing is brought.
    pub async fn settle(&mut self, pool: &Rc<PoolControl>) {
        let config = pool.config();
        let shards = pool.ejection.borrow().shards().to_vec();
        if config.cluster().is_some() || shards.len() < 2 {
            return self.forget(pool);
        }
        let names: Vec<&str> = shards.iter().map(|shard| &*shard.name).collect();
        let empty = self.take_empty(&names);
        self.tell_of_differences(pool);
        let Some((empty, source)) = empty else { return };
        let find = |name: &String| shards.iter().find(|shard| shard.name == *name);
        let Some(source) = find(&source) else { return };
        for target in empty.iter().filter_map(find) {
            match bring(pool, source, target).await {
                Ok(0) => {}
                Ok(libraries) => {
                    pool.counters().libraries_brought.add(libraries as u64);
                    tracing::info!(
                        pool = %config.name, shard = %target.name, from = %source.name, libraries,
                        "libraries of functions brought to a shard that had none"
                    );
                }
                Err(error) => tracing::warn!(
                    pool = %config.name, shard = %target.name, from = %source.name, %error,
                    "libraries of functions not brought to a shard that has none"
                ),
            }
        }
    }

    /// Nothing is known any more.
    pub fn forget(&mut self, pool: &PoolControl) {
        if !self.differences.is_empty() {
            pool.counters().function_differences.set(0);
        }
        *self = Self::default();
    }
}

/// Brings what one shard has to another one. Returns how many libraries it has got.
async fn bring(pool: &PoolControl, from: &Shard, to: &Shard) -> Result<usize, ConversationError> {
    let config = pool.config();
    let libraries = pool.scripts.libraries();
    let mut source = probe::enter(&from.address, &pool.names, &config).await?;
    let mut target = probe::enter(&to.address, &pool.names, &config).await?;
    let mut number = libraries.number();
    let mut brought = Vec::new();
    let mut refused = None;
    for (name, code) in listed(&source.ask(&questions::LIBRARIES).await?) {
        let Some(code) = code.filter(|code| libraries.may_come(&name, code)) else { continue };
        match target.ask(&questions::load_library(&code)).await {
            Ok(_) => brought.push((name, code)),
            // Somebody else has brought it.
            Err(ConversationError::Refused(words)) if words.contains("already exists") => {}
            Err(ConversationError::Refused(words)) => refused = Some(words),
            Err(lost) => return Err(lost),
        }
    }
    // What was deleted since is on its way to both of them, and may have come to this one before the library.
    for _ in 0..LOOKS_MAX {
        let before = std::mem::replace(&mut number, libraries.number());
        delete_again(pool, &mut source, &mut target, &mut brought).await?;
        if before == number && number == libraries.number() {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    match refused {
        Some(words) if brought.is_empty() => Err(ConversationError::Refused(words)),
        _ => Ok(brought.len()),
    }
}

/// Of what was brought the target keeps what the source has still, and nobody has deleted.
async fn delete_again(
    pool: &PoolControl,
    source: &mut Conversation,
    target: &mut Conversation,
    brought: &mut Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<(), ConversationError> {
    let there = listed(&source.ask(&questions::LIBRARY_NAMES).await?);
    let libraries = pool.scripts.libraries();
    let is_there = |name: &[u8]| there.iter().any(|(there, _)| there == name);
    for (name, _) in brought.extract_if(.., |(name, code)| !is_there(name) || !libraries.may_come(name, code))
    {
        match target.ask(&questions::delete_library(&name)).await {
            // It is not there any more.
            Ok(_) | Err(ConversationError::Refused(_)) => {}
            Err(lost) => return Err(lost),
        }
    }
    Ok(())
}

/// Names and code of what FUNCTION LIST has.
fn listed(answer: &BytesFrame) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let BytesFrame::Array(libraries) = answer else { return Vec::new() };
    let library = |library: &BytesFrame| {
        let BytesFrame::Array(fields) = library else { return None };
        let field = |name: &[u8]| {
            let mut pairs = fields.chunks_exact(2);
            let value = pairs.find(|pair| bytes(&pair[0]) == Some(name))?.get(1)?;
            bytes(value).map(<[u8]>::to_vec)
        };
        Some((field(b"library_name")?, field(b"library_code")))
    };
    libraries.iter().filter_map(library).collect()
}

fn bytes(frame: &BytesFrame) -> Option<&[u8]> {
    match frame {
        BytesFrame::BulkString(bytes) | BytesFrame::SimpleString(bytes) => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(run: &str, uptime: u64, libraries: u64) -> Said {
        Said { run: run.into(), uptime, libraries: Some(libraries) }
    }

    fn round(functions: &mut Functions, said: &[(&str, Said)]) -> Option<(Vec<String>, String)> {
        said.iter().for_each(|(name, said)| functions.note(name, said.clone()));
        functions.take_empty(&["a", "b", "c"])
    }

    #[test]
    fn info_is_read() {
        let info = "run_id:abc\r\nuptime_in_seconds:7\r\nnumber_of_libraries:2\r\n";
        assert_eq!(Said::read(info), said("abc", 7, 2));
        assert_eq!(Said::read("").libraries, None);
    }

    #[test]
    fn a_shard_that_comes_back_empty_is_filled_and_one_that_was_emptied_is_not() {
        let mut functions = Functions::default();
        let old = 100_000;
        let is_filled = Some((vec!["b".to_owned()], "a".to_owned()));
        // As the process starts: one that has run for long has none because somebody wants that.
        assert_eq!(round(&mut functions, &[("a", said("1", old, 2)), ("b", said("2", old, 0))]), None);
        // It restarts.
        assert_eq!(round(&mut functions, &[("a", said("1", old, 2)), ("b", said("3", 1, 0))]), is_filled);
        assert_eq!(round(&mut functions, &[("a", said("1", old, 2)), ("b", said("3", 1, 2))]), None);
        // Its functions are flushed in the same run.
        assert_eq!(round(&mut functions, &[("a", said("1", old, 2)), ("b", said("3", 9, 0))]), None);
        // Nobody has any.
        assert_eq!(round(&mut functions, &[("a", said("1", old, 0)), ("b", said("4", 1, 0))]), None);
        // One that joins.
        let joined = round(&mut functions, &[("a", said("1", old, 2)), ("c", said("5", old, 0))]);
        assert_eq!(joined, Some((vec!["c".to_owned()], "a".to_owned())));
    }

    #[test]
    fn a_shard_that_takes_nothing_is_not_asked_for_ever() {
        let mut functions = Functions::default();
        let mut tries = 0;
        for _ in 0..10 {
            let filled = round(&mut functions, &[("a", said("1", 1, 2)), ("b", said("2", 1, 0))]);
            tries += u32::from(filled.is_some());
        }
        assert_eq!(tries, TRIES_MAX);
        assert_eq!(functions.differing(), [("b", 0)]);
    }
}
