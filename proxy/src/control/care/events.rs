//! Events of keys (`notify-keyspace-events`): what clients have asked for is set on every shard, and again where a shard has lost it.
//!
//! Flags are only ever added to those that a shard has, because clients share the shards: one that wants fewer must not take away what another one
//! listens to. They hold as long as the process does. Each shard is held on a connection, so that one that restarts is told at once; it is made anew
//! every few seconds, because the name of a shard may lead elsewhere meanwhile. Nothing of this is there until a client asks for events.
//!
//! Shards are told in rounds: whoever asks while one is under way waits for the next one, which is for all that wait then.

use std::rc::Rc;
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use shard_discovery::Shard;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::control::events::Asked;
use crate::control::kills::Answer;
use crate::control::pool::PoolControl;
use crate::control::probe;
use crate::failure::ShardFailure;
use crate::net::conversation::{Conversation, ConversationError};
use crate::protocol::events::Flags;
use crate::protocol::questions::{self, EVENTS};

/// How long a shard may take while a client waits.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Who has waited for so long is told by its worker that there is no answer, so no shard is asked for it.
const WAITED_MAX: Duration = Duration::from_secs(5);
/// The pause between two rounds.
const PAUSE: Duration = Duration::from_millis(50);
/// Shards that are told at a time.
const TOLD_MAX: usize = 64;
/// A shard is looked at so often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How soon a shard that has come to the pool is told.
const NOTICE: Duration = Duration::from_millis(200);
/// The pauses before a shard that was lost is told again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A client asks for these events. An error is what it is told.
pub async fn want(pool: &Rc<PoolControl>, flags: Flags) -> Answer {
    let events = &pool.events;
    if events.wanted.get().contains(flags) {
        return Ok(());
    }
    if events.refuses(flags) {
        pool.counters().events_refused.add(1);
        return Err("ERR a shard has just refused such flags; try again in a second".into());
    }
    let (told, answer) = oneshot::channel();
    if !events.put(Asked { flags, since: Instant::now(), told }) {
        pool.counters().events_refused.add(1);
        return Err("ERR too many clients wait for flags to be set; try again later".into());
    }
    if !events.busy.replace(true) {
        tokio::task::spawn_local(rounds(pool.clone()));
    }
    answer.await.unwrap_or_else(|_| Err("ERR the shards were not asked; try again".into()))
}

/// Until nobody waits.
async fn rounds(pool: Rc<PoolControl>) {
    loop {
        let asked = pool.events.take();
        if asked.is_empty() {
            break;
        }
        round(&pool, asked).await;
        tokio::time::sleep(PAUSE).await;
    }
    pool.events.busy.set(false);
}

/// Asks shards for all that they want. If that is refused, each is asked for by itself: one that asks for what no shard knows is to
/// spoil it for nobody else.
async fn round(pool: &Rc<PoolControl>, mut asked: Vec<Asked>) {
    asked.retain(|asked| asked.since.elapsed() < WAITED_MAX);
    let Some(first) = asked.first().map(|asked| asked.flags) else { return };
    let all = asked.iter().fold(first, |all, asked| all.with(asked.flags));
    if asked.iter().any(|asked| asked.flags != all) {
        match tell_all(pool, all).await {
            Ok(()) => {
                set(pool, all).await;
                return tell_clients(asked, &Ok(()));
            }
            Err(Failed::Silent(words)) => return tell_clients(asked, &Err(words)),
            Err(Failed::Refused(_)) => {}
        }
        asked.sort_by_key(|asked| !asked.flags.strange().is_empty());
    }
    while let Some(flags) = asked.first().map(|asked| asked.flags) {
        let (same, others): (Vec<_>, Vec<_>) = asked.into_iter().partition(|asked| asked.flags == flags);
        asked = others;
        if same.iter().all(|asked| asked.since.elapsed() >= WAITED_MAX) {
            continue;
        }
        tell_clients(same, &tell_of(pool, flags).await);
    }
}

fn tell_clients(asked: Vec<Asked>, answer: &Answer) {
    for asked in asked {
        let _ = asked.told.send(answer.clone());
    }
}

/// Asks shards for what some want, unless the answer is known.
async fn tell_of(pool: &Rc<PoolControl>, flags: Flags) -> Answer {
    if pool.events.wanted.get().contains(flags) {
        return Ok(());
    }
    if pool.events.refuses(flags) {
        return Err("ERR a shard has just refused such flags; try again in a second".into());
    }
    match tell_all(pool, flags).await {
        Ok(()) => {
            set(pool, flags).await;
            Ok(())
        }
        Err(Failed::Silent(words)) => Err(words),
        Err(Failed::Refused(words)) => {
            pool.events.refused(flags);
            Err(words)
        }
    }
}

/// From now on these are wanted. A shard that was not there is told once it is.
async fn set(pool: &Rc<PoolControl>, flags: Flags) {
    pool.events.wanted.set(pool.events.wanted.get().with(flags));
    pool.events.changed.notify_waiters();
    pool.tell_store(None).await;
}

/// Why no shard was told.
enum Failed {
    /// One refuses, in these words.
    Refused(String),
    /// None answers.
    Silent(String),
}

/// Tells all shards; it is enough if one is told and none refuses.
async fn tell_all(pool: &Rc<PoolControl>, flags: Flags) -> Result<(), Failed> {
    let (mut told, mut silent) = (0, String::from("no shard is there"));
    for some in pool.topology().shards().chunks(TOLD_MAX) {
        let mut telling = tokio::task::JoinSet::new();
        for shard in some.iter().cloned() {
            let pool = pool.clone();
            telling.spawn_local(async move {
                let told =
                    timeout(ANSWER_MAX, async { tell(&mut enter(&pool, &shard).await?, flags).await }).await;
                (shard.name, told)
            });
        }
        // The first that refuses is enough: others may be silent.
        while let Some(told_one) = telling.join_next().await {
            let Ok((name, answer)) = told_one else { continue };
            match answer {
                Ok(Ok(())) => told += 1,
                Ok(Err(ConversationError::Refused(words))) => return Err(Failed::Refused(words)),
                Ok(Err(lost)) => silent = format!("shard {name}: {lost}"),
                Err(_) => silent = format!("shard {name}: timed out"),
            }
        }
    }
    if told == 0 { Err(Failed::Silent(format!("ERR {silent}"))) } else { Ok(()) }
}

/// Holds the shards as long as the pool is served.
pub async fn follow(pool: Rc<PoolControl>) {
    while !pool.removed.get() {
        if pool.events.wanted.get().is_empty() {
            // Whoever sets the first is there.
            let changed = pool.events.changed.notified();
            let _ = timeout(LOOK_AGAIN, changed).await;
            continue;
        }
        for shard in pool.topology().shards() {
            if pool.events.held.borrow_mut().insert(shard.clone()) {
                tokio::task::spawn_local(hold(pool.clone(), shard.clone()));
            }
        }
        tokio::time::sleep(NOTICE).await;
    }
}

/// Holds one of them as long as it is one.
async fn hold(pool: Rc<PoolControl>, shard: Shard) {
    let mut pause = PAUSE_MIN;
    while !pool.removed.get() && pool.topology().shards().contains(&shard) {
        match look(&pool, &shard).await {
            Ok(()) => pause = PAUSE_MIN,
            Err(reason) => {
                tracing::debug!(pool = %pool.config().name, shard = %shard.name, %reason, "keyspace events not set");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
    pool.events.held.borrow_mut().remove(&shard);
}

/// Tells the shard what is wanted, and waits until it is to be told again: it is gone, more is wanted, or some time has passed.
async fn look(pool: &Rc<PoolControl>, shard: &Shard) -> Result<(), ConversationError> {
    let mut conversation = enter(pool, shard).await?;
    tell(&mut conversation, pool.events.wanted.get()).await?;
    tokio::select! {
        // It has closed, or says what nobody has asked.
        said = conversation.hear() => Err(said.err().unwrap_or(ConversationError::Lost(ShardFailure::Closed))),
        () = pool.events.changed.notified() => Ok(()),
        () = tokio::time::sleep(LOOK_AGAIN) => Ok(()),
    }
}

async fn enter(pool: &PoolControl, shard: &Shard) -> Result<Conversation, ConversationError> {
    let mut conversation = probe::enter(&shard.address, &pool.names, &pool.config()).await?;
    conversation.expect_short();
    Ok(conversation)
}

/// The shard is told what it lacks of these.
async fn tell(conversation: &mut Conversation, flags: Flags) -> Result<(), ConversationError> {
    let present = flags_of(conversation).await?;
    if !present.contains(flags) {
        let all = present.with(flags).to_string();
        conversation.ask(&questions::tell_events(&all)).await?;
    }
    Ok(())
}

/// What the shard tells of.
async fn flags_of(conversation: &mut Conversation) -> Result<Flags, ConversationError> {
    let text = text(conversation).await?;
    Flags::of(&text)
        .ok_or_else(|| ConversationError::Refused("ERR the shard has flags that are no letters".into()))
}

/// The same in its words.
pub async fn text(conversation: &mut Conversation) -> Result<Vec<u8>, ConversationError> {
    match conversation.ask(&questions::TOLD_EVENTS).await? {
        BytesFrame::Array(elements) => match &elements[..] {
            [_, BytesFrame::BulkString(text)] => Ok(text.to_vec()),
            _ => Err(ConversationError::Refused(format!("ERR the shard does not know {EVENTS}"))),
        },
        _ => Err(ConversationError::Refused("ERR unexpected response to CONFIG GET".into())),
    }
}
