//! The way of a request between MULTI and EXEC: it is judged as outside, and queued where it would be sent or answered.

use super::command::{Command, Handling, Local, Merge, flag};
use super::local::slowlog;
use super::mode::{Mode, SEVERAL, Within};
use super::plan::{find_command, find_keys, plan_command, refuse};
use super::session::Session;
use super::transaction::QUEUED;
use super::{Resp, Words, encode, rights};
use crate::protocol::{Facts, Plan, Route};

/// Why what has no key is not queued where its shard is configured.
const KEYLESS: &str =
    "without a key it runs on the shard that keyless_scripts names; send it before MULTI or after EXEC";

/// Why what names keys by a pattern is not.
const PATTERNS: &str = "its patterns may mean keys of other shards; send it before MULTI or after EXEC";

/// What is to be done with a request of a client between MULTI and EXEC.
pub fn plan_queued(
    row: Option<&Command<'_>>,
    words: &Words<'_>,
    session: &mut Session,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    // The way of most, as outside.
    if let Some(command) = row
        && command.handling == Handling::Forward
        && command.single_key > 0
        && command.accepts(words.count())
        && let Some(place) = words.decoder.place(command.single_key as usize)
        && rights::allow_plainly(command, words.canonical, place, session)
    {
        plan.keys.push(place);
        return queued(session.mode, false, plan);
    }
    let Some(command) = find_command(row, words, facts, plan) else {
        // EXEC ends the transaction all the same.
        let ends = row.is_some_and(|row| row.handling == Handling::Answer(Local::Exec));
        session.mode = if ends { Mode::Ordinary } else { Mode::Spoiled };
        return Route::Answer;
    };
    if command.flags.has(flag::NO_MULTI) {
        session.mode = Mode::Spoiled;
        return refuse(plan, "ERR Command not allowed inside a transaction");
    }
    if let Some(route) = rights::refuse(command, words, session, facts, plan) {
        let ends = command.handling == Handling::Answer(Local::Exec);
        session.mode = if ends { Mode::Ordinary } else { Mode::Spoiled };
        return route;
    }
    let route = match Within::of(command) {
        Within::Done => return plan_command(command, words, session, facts, plan),
        Within::Nested(error) => {
            encode::error(&mut plan.reply, error);
            return Route::Answer;
        }
        Within::Answered if slowlog::asks_shards(command, facts) => refuse_within(command, SEVERAL, plan),
        Within::Answered => Route::Queue { here: true },
        Within::AsOutside if command.flags.has(flag::NO_MULTI) => {
            refuse(plan, "ERR Command not allowed inside a transaction")
        }
        Within::AsOutside => match plan_command(command, words, session, facts, plan) {
            Route::AllShards(_) | Route::Scan(_) => refuse_within(command, SEVERAL, plan),
            Route::ForwardWith { .. } => refuse_within(command, PATTERNS, plan),
            Route::RunOn { .. } => refuse_within(command, KEYLESS, plan),
            route => route,
        },
        // It does not wait here.
        Within::Sent if command.keys.is_empty() => {
            // Any shard that executes the transaction.
            plan.keys.push((0, 0));
            Route::Forward
        }
        Within::Sent => match find_keys(command, words, facts, plan) {
            Ok(_) => Route::Forward,
            Err(error) => refuse(plan, &error),
        },
        Within::Refused(reason) => refuse_within(command, reason, plan),
    };
    match route {
        Route::Forward | Route::Wait(_) | Route::Split(_) => queued(session.mode, false, plan),
        Route::Run(run) => match queued(session.mode, false, plan) {
            Route::Queue { .. } => Route::QueueRun(run),
            route => route,
        },
        Route::Queue { here } => queued(session.mode, here, plan),
        route => {
            session.mode = Mode::Spoiled;
            route
        }
    }
}

fn refuse_within(command: &Command, reason: &str, plan: &mut Plan<Resp>) -> Route<Merge> {
    refuse(plan, &format!("ERR '{}' is refused inside a transaction: {reason}", command.words()))
}

/// The command is queued, or would be if the transaction were still to be executed.
fn queued(mode: Mode, here: bool, plan: &mut Plan<Resp>) -> Route<Merge> {
    plan.reply.extend_from_slice(QUEUED);
    if mode == Mode::Queueing { Route::Queue { here } } else { Route::Answer }
}
