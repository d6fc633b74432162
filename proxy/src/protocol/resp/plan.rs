//! The way of all but the plainest requests: whether they are answered here, refused, forwarded or split.
//!
//! No command is named here: its row says what becomes of it.

use std::time::Duration;

use super::command::keys::KeyError;
use super::command::{
    Command, Feature, Handling, Merge, Reach, ScriptChange, TimeoutPlace, WrongArity, flag, index,
};
use super::decode::RequestDecoder;
use super::session::{self, Keyless, Session};
use super::{
    Resp, Words, channels, confirming, encode, local, pubsub, rights, scan, scripting, split, transaction,
    waiting, whole,
};
use crate::protocol::channels::Listening;
use crate::protocol::{Facts, Plan, Route, Scripted};

/// A reply of this size finds room whatever is held.
const ECHO_MAX: usize = 256 * 1024;

/// All but the plainest requests.
pub fn plan_slowly(
    row: Option<&Command>,
    words: &Words<'_>,
    session: &mut Session,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    match find_command(row, words, facts, plan) {
        Some(command) => plan_command(command, words, session, facts, plan),
        None => Route::Answer,
    }
}

/// The row that the request is judged by; none if there is none, or it has a wrong number of arguments. Then that is the reply.
pub fn find_command<'t>(
    row: Option<&'t Command<'t>>,
    words: &Words<'_>,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Option<&'t Command<'t>> {
    let refuse = |plan: &mut Plan<Resp>, text: &str| {
        encode::error(&mut plan.reply, text);
        None
    };
    // What no shard has is not there.
    let is_lacked = |row: &Command| facts.store.commands.lacks(row);
    let Some(row) = row.filter(|row| !is_lacked(row)) else { return refuse(plan, &unknown_command(words)) };
    let command = match words.decoder.head(1, words.canonical) {
        Some(word) if !row.subcommands.is_empty() => match row.subcommand(word) {
            Some(command) if !is_lacked(command) => command,
            _ => {
                local::command::unknown_subcommand(row.name, word, &mut plan.reply);
                return None;
            }
        },
        None if row.handling == Handling::Container => return refuse(plan, &WrongArity(row).to_string()),
        _ => row,
    };
    if !command.accepts(words.count()) {
        let reason = WrongArity(command).to_string();
        transaction::reject(command, &reason, &mut plan.reply);
        return None;
    }
    Some(command)
}

/// What is to be done with a request of this command.
pub fn plan_command(
    command: &Command,
    words: &Words<'_>,
    session: &mut Session,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    let Words { decoder, canonical } = *words;
    if session.lacks_password(command) {
        transaction::reject(command, "NOAUTH Authentication required.", &mut plan.reply);
        return Route::Answer;
    }
    if let Some(route) = rights::refuse(command, words, session, facts, plan) {
        return route;
    }
    if let Some(route) = channels::rule(command, session, facts, plan) {
        return route;
    }
    if command.leaves_database.is_some() {
        let all = words.to_vec();
        if facts.settings.db == 0 {
            // Where no client could find it again. What is no number of a database for any server is refused by the server,
            // in its words.
            let beyond = i64::from(facts.settings.databases)..=i64::from(i32::MAX);
            let is_beyond = |word| session::number(word).is_some_and(|db| beyond.contains(&db));
            if command.databases_named(all.len(), |index| all[index]).any(is_beyond) {
                return refuse(plan, "ERR DB index is out of range");
            }
        } else if command.is_leaving_database(all.len(), |index| all[index]) {
            let reply = format!(
                "ERR '{}' is refused here: this pool is fixed to database {} (redis_db)",
                command.name, facts.settings.db
            );
            return refuse(plan, &reply);
        }
    }
    plan.reads = command.flags.has(flag::READONLY);
    match command.handling {
        // The reply may be as large as the request.
        Handling::Answer(_) if canonical.len() > ECHO_MAX.max(facts.account.room()) => Route::NoRoom,
        Handling::Answer(local) => local::answer(local, words, session, facts, plan),
        Handling::Forward | Handling::Block(_) => match find_keys(command, words, facts, plan) {
            Ok(None) if !facts.settings.one_shard => with_patterns(command, words, plan),
            Ok(None) => Route::Forward,
            Ok(Some(patience)) => Route::Wait(patience),
            Err(_) if is_left_to_shard(session, facts) => {
                plan.keys.clear();
                Route::Forward
            }
            Err(_) if is_left_to_the_one(command, facts) => {
                plan.keys.clear();
                to_the_one(plan)
            }
            Err(reply) => refuse(plan, &reply),
        },
        Handling::Run(script) => {
            plan.scripted = Scripted::Yes;
            match find_keys(command, words, facts, plan) {
                Ok(_) => {
                    let run = scripting::run(script, words);
                    match facts.settings.keyless {
                        Keyless::On(shard) if plan.keys[..] == [(0, 0)] && !facts.settings.one_shard => {
                            Route::RunOn { run, shard }
                        }
                        _ => Route::Run(run),
                    }
                }
                Err(_) if is_left_to_shard(session, facts) => {
                    plan.keys.clear();
                    Route::Run(scripting::run(script, words))
                }
                Err(reply) => refuse(plan, &reply),
            }
        }
        Handling::Split(_) if is_left_to_shard(session, facts) => Route::Forward,
        Handling::Split(merge) => {
            if !(decoder.argument_count() - 1).is_multiple_of(split::step(merge)) {
                return refuse(plan, &WrongArity(command).to_string());
            }
            let base = canonical.as_ptr() as usize;
            let keys = decoder.arguments(canonical).skip(1).step_by(split::step(merge));
            plan.keys.extend(keys.map(|key| (key.value.as_ptr() as usize - base, key.value.len())));
            Route::Split(merge)
        }
        Handling::Listen(kind, on) => {
            channels::name(words.iter().skip(1), canonical, plan);
            Route::Listen(Listening { kind, on })
        }
        Handling::ToChannel => {
            channels::name(words.iter().skip(1).take(1), canonical, plan);
            Route::Forward
        }
        Handling::AskChannels(merge @ Merge::Counts(_)) => {
            if words.count() == 2 {
                encode::array(&mut plan.reply, 0);
                return Route::Answer;
            }
            if words.count() - 2 > pubsub::CHANNELS_MAX || canonical.len() > pubsub::BYTES_MAX {
                let reply = format!(
                    "ERR '{}' is limited to {} channels and {} bytes; send several",
                    command.words(),
                    pubsub::CHANNELS_MAX,
                    pubsub::BYTES_MAX
                );
                return refuse(plan, &reply);
            }
            channels::name(words.iter().skip(2), canonical, plan);
            Route::Split(merge)
        }
        Handling::AskChannels(merge) => Route::Everywhere(merge),
        // Of what modules do, only what is done at all is to be refused for that.
        Handling::Later(Feature::WholeServer | Feature::AtOnce | Feature::Keyless | Feature::Indexes)
            if facts.settings.confined && (facts.settings.one_shard || !command.is_learnt()) =>
        {
            withhold(command, BEYOND, plan)
        }
        Handling::ToAll(_, reach) if reach.is_beyond_database() && facts.settings.confined => {
            withhold(command, BEYOND, plan)
        }
        // What shards forget is forgotten here as well, once they are told.
        Handling::ToAll(merge, _)
            if command.scripts == Some(ScriptChange::Forgotten) && !session.mode.is_queueing() =>
        {
            whole::plan(merge, words, facts, plan)
        }
        Handling::ToAll(..) | Handling::Scan if facts.settings.one_shard => {
            note(command, words, session, facts);
            to_the_one(plan)
        }
        Handling::Scan => scan::plan(words, session, plan),
        Handling::ToAll(_, Reach::Names) if facts.settings.refuses_keys => withhold(
            command,
            "every shard would look at all its keys at once (keys_all_shards: false); use SCAN",
            plan,
        ),
        Handling::ToAll(_, Reach::Disk) if !facts.settings.saves_all_shards => withhold(
            command,
            "all shards would write their data at once; set save_all_shards, or ask the shards directly",
            plan,
        ),
        Handling::ToAll(merge, _) => {
            note(command, words, session, facts);
            whole::plan(merge, words, facts, plan)
        }
        Handling::Later(feature) if facts.settings.one_shard && feature.is_served_by_one_shard() => {
            to_the_one(plan)
        }
        Handling::Later(feature) => refuse(plan, &session::not_yet(command, feature)),
        Handling::Confirm { files } => match confirming::read(files, &words.to_vec()) {
            Ok((patience, marks)) => Route::Confirm { patience, marks },
            Err(error) => refuse(plan, error),
        },
        Handling::Watch => match find_keys(command, words, facts, plan) {
            Ok(_) => transaction::watch(session, &mut plan.reply),
            Err(error) => refuse(plan, &error),
        },
        Handling::Refuse(reason) => {
            refuse(plan, &format!("ERR {} is refused: {reason}", command.words().to_ascii_uppercase()))
        }
        Handling::Container => {
            let word = decoder.head(1, canonical).unwrap_or_default();
            local::command::unknown_subcommand(command.name, word, &mut plan.reply);
            Route::Answer
        }
    }
}

/// To all shards, though the proxy itself might answer it.
pub fn to_all(
    (merge, reach): (Merge, Reach),
    name: &str,
    words: &Words<'_>,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    if reach.is_beyond_database() && facts.settings.confined {
        return refuse(plan, &format!("ERR '{name}' is refused: {BEYOND}"));
    }
    if facts.settings.one_shard { to_the_one(plan) } else { whole::plan(merge, words, facts, plan) }
}

/// Why a pool that is kept to its databases does not do what concerns others.
const BEYOND: &str = "it affects databases outside of this pool (redis_db, databases)";

/// The pool does not let its clients do it, for this reason.
fn withhold(command: &Command, reason: &str, plan: &mut Plan<Resp>) -> Route<Merge> {
    refuse(plan, &format!("ERR '{}' is refused: {reason}", command.words()))
}

/// What the process itself remembers of what all shards are told.
fn note(command: &Command, words: &Words<'_>, session: &Session, facts: &Facts<'_, Resp>) {
    scripting::note(command, words, facts);
    if matches!(command.handling, Handling::ToAll(Merge::AllReset, _)) && !session.mode.is_queueing() {
        facts.counters.reset();
    }
}

/// To the shard that owns every key.
fn to_the_one(plan: &mut Plan<Resp>) -> Route<Merge> {
    plan.keys.push((0, 0));
    Route::Forward
}

/// Whether it does not matter where the keys of a command are: within a transaction a server says what is wrong with them as it
/// executes the command, not as it queues it.
fn is_left_to_shard(session: &Session, facts: &Facts<'_, Resp>) -> bool {
    session.mode.is_queueing() && facts.settings.one_shard
}

/// Whether a command that a shard has told of is judged by that shard: there is no other, and it knows best what is wrong.
fn is_left_to_the_one(command: &Command, facts: &Facts<'_, Resp>) -> bool {
    facts.settings.one_shard && command.is_learnt()
}

/// The request is forwarded. Keys that patterns mean have to be where its keys are.
fn with_patterns(command: &Command, words: &Words<'_>, plan: &mut Plan<Resp>) -> Route<Merge> {
    if !command.has_patterns() {
        return Route::Forward;
    }
    let (all, base) = (words.to_vec(), words.canonical.as_ptr() as usize);
    let patterns = command.foreign_patterns(all.len(), |index| all[index]);
    if patterns.is_empty() {
        return Route::Forward;
    }
    plan.keys.extend(patterns.iter().map(|&at| (all[at].as_ptr() as usize - base, all[at].len())));
    Route::ForwardWith { patterns: patterns.len() }
}

/// What all names begin with that a shard makes of this pattern: an element takes the place of the first asterisk.
pub fn beginning(pattern: &[u8]) -> &[u8] {
    pattern.split(|&byte| byte == b'*').next().unwrap_or_default()
}

/// The reply to a request with a pattern of keys that may be on other shards.
pub fn foreign_pattern(request: &[u8], pattern: &[u8], has_tags: bool) -> String {
    const SHOWN_MAX: usize = 128;
    let mut decoder = RequestDecoder::default();
    let words = waiting::words_of(&mut decoder, request).unwrap_or_default();
    let name = words.first().and_then(|name| index::lookup(name)).map_or("", |row| row.name);
    let pattern = String::from_utf8_lossy(&pattern[..pattern.len().min(SHOWN_MAX)]).into_owned();
    let way_out = if has_tags {
        "give the pattern the hash tag of the key, before the asterisk"
    } else {
        "only hash tags could tell, and this pool has none (hash_tag)"
    };
    let words = format!(
        "ERR '{name}' is refused with the pattern '{pattern}': matching keys may be on other shards; {way_out}"
    );
    let mut reply = Vec::new();
    encode::error(&mut reply, &words);
    String::from_utf8_lossy(&reply).into_owned()
}

/// Sets `plan.keys` to the places of the command's keys. Returns how long the request waits for data, if it does.
pub fn find_keys(
    command: &Command,
    words: &Words<'_>,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Result<Option<Option<Duration>>, String> {
    let all = words.to_vec();
    let base = words.canonical.as_ptr() as usize;
    // Where the timeout stands first the server looks at it last.
    let is_late = command.handling == Handling::Block(TimeoutPlace::First);
    let patience = if is_late { None } else { waiting::patience(command, &all)? };
    match command.key_positions(all.len(), |index| all[index]) {
        Ok(positions) => {
            let places =
                positions.map(|position| (all[position].as_ptr() as usize - base, all[position].len()));
            plan.keys.extend(places);
        }
        // It executes nothing, and what it says depends on scripts that only it knows.
        Err(error) if error.is_judged_late() => {
            plan.keys.push((0, 0));
            return Ok(None);
        }
        // Modules judge for themselves, and say so.
        Err(KeyError::Missing) if command.is_learnt() => return Err(WrongArity(command).to_string()),
        Err(error) => return Err(error.text(command.name)),
    }
    if plan.keys.is_empty() {
        // Where any shard will do, and where there is one only: that of the empty key.
        let keyless = &facts.settings.keyless;
        let is_script = matches!(command.handling, Handling::Run(_));
        let runs_somewhere = is_script && matches!(keyless, Keyless::Any | Keyless::On(_));
        if command.flags.has(flag::READONLY) || facts.counters.shards().len() == 1 || runs_somewhere {
            plan.keys.push((0, 0));
            return Ok(None);
        }
        if let Keyless::Missing(name) = keyless
            && is_script
        {
            return Err(format!(
                "ERR '{}' without a key is to run on shard {name} (keyless_scripts), which is not there",
                command.name
            ));
        }
        let way_out = if is_script { ", or set keyless_scripts" } else { "" };
        return Err(format!(
            "ERR '{}' without a key cannot be routed to a shard; give it at least one key{way_out}",
            command.name
        ));
    }
    Ok(if is_late { waiting::patience(command, &all)? } else { patience })
}

/// The reply is this error.
pub fn refuse(plan: &mut Plan<Resp>, text: &str) -> Route<Merge> {
    encode::error(&mut plan.reply, text);
    Route::Answer
}

/// As Redis words it: at most 128 bytes of the name and of the arguments.
fn unknown_command(words: &Words<'_>) -> String {
    const SHOWN_MAX: usize = 128;
    let mut words = words.iter();
    let name = words.next().unwrap_or_default();
    let mut shown = String::new();
    for word in words {
        if shown.len() >= SHOWN_MAX {
            break;
        }
        let room = SHOWN_MAX - shown.len();
        shown.push_str(&format!("'{}' ", String::from_utf8_lossy(&word[..word.len().min(room)])));
    }
    let name = String::from_utf8_lossy(&name[..name.len().min(SHOWN_MAX)]).into_owned();
    format!("ERR unknown command '{name}', with args beginning with: {shown}")
}
