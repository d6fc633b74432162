//! SLOWLOG: what the proxy has found to be slow, in the form in which a server tells it.
//!
//! An entry has the six fields that clients know, and no more: there are clients that lose step with others. So where the time went
//! stands behind the arguments, as the words of a server do that say how many were left out.

use crate::protocol::resp::command::{Command, Handling, Local, Merge, Reach};
use crate::protocol::resp::session::number;
use crate::protocol::resp::{Resp, Words, encode, plan};
use crate::protocol::{Facts, Plan, Route};
use crate::slow::{Entry, Spent};

/// Entries that are told of who does not say how many.
const ENTRIES_USUAL: usize = 10;
const WRONG_COUNT: &str = "ERR count should be greater than or equal to -1";

/// `SLOWLOG GET [count]`, `SLOWLOG LEN`, `SLOWLOG RESET`
pub fn answer(
    local: Local,
    words: &Words<'_>,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    if facts.settings.slow_log_of_shards {
        return of_shards(local, words, facts, plan);
    }
    match local {
        Local::SlowlogLen => encode::integer(&mut plan.reply, facts.slow.count() as i64),
        Local::SlowlogReset => {
            facts.slow.reset();
            encode::simple(&mut plan.reply, "OK");
        }
        _ => {
            let count = match words.iter().nth(2).map(number) {
                None => Some(ENTRIES_USUAL),
                Some(Some(-1)) => Some(usize::MAX),
                Some(count) => count.and_then(|count| usize::try_from(count).ok()),
            };
            let Some(count) = count else { return plan::refuse(plan, WRONG_COUNT) };
            let entries = facts.slow.latest(count);
            encode::array(&mut plan.reply, entries.len());
            entries.iter().for_each(|entry| write(entry, &mut plan.reply));
        }
    }
    Route::Answer
}

/// The logs of the shards.
fn of_shards(
    local: Local,
    words: &Words<'_>,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    let (asked, name) = match local {
        Local::SlowlogLen => ((Merge::Sum, Reach::Database), "slowlog len"),
        Local::SlowlogReset => ((Merge::AllOk, Reach::Server), "slowlog reset"),
        _ => ((Merge::Log(0), Reach::Server), "slowlog get"),
    };
    plan::to_all(asked, name, words, facts, plan)
}

/// Whether shards have to be asked.
pub fn asks_shards(command: &Command<'_>, facts: &Facts<'_, Resp>) -> bool {
    let is_of_log = matches!(
        command.handling,
        Handling::Answer(Local::SlowlogGet | Local::SlowlogLen | Local::SlowlogReset)
    );
    is_of_log && facts.settings.slow_log_of_shards
}

fn write(entry: &Entry, out: &mut Vec<u8>) {
    encode::array(out, 6);
    encode::integer(out, i64::try_from(entry.id).unwrap_or(i64::MAX));
    encode::integer(out, i64::try_from(entry.at / 1_000_000).unwrap_or(i64::MAX));
    encode::integer(out, i64::try_from(entry.spent.micros()).unwrap_or(i64::MAX));
    encode::array(out, entry.words.len() + 1);
    entry.words.iter().for_each(|word| encode::bulk(out, word));
    encode::bulk(out, where_time_went(entry).as_bytes());
    encode::bulk(out, entry.sender.address.as_bytes());
    encode::bulk(out, entry.sender.name.as_bytes());
}

fn where_time_went(Entry { shard, sender, spent, failed, .. }: &Entry) -> String {
    let Spent { queued, shard: served, merged, client } = spent;
    let failed = if *failed { " timed out" } else { "" };
    let user = &sender.user;
    format!(
        "# at={shard} user={user} queued={queued}us shard={served}us merged={merged}us client={client}us{failed}"
    )
}
