//! Events of keys (`notify-keyspace-events`): what clients have asked for is set on every shard, and again where a shard has lost it.
//!
//! Flags are only ever added to those that a shard has, because clients share the shards: one that wants fewer must not take away what another one
//! listens to. They hold as long as the process does. Each shard is held on a connection, so that one that restarts is told at once; it is made anew
//! every few seconds, because the name of a shard may lead elsewhere meanwhile. Nothing of this is there until a client asks for events.

use std::rc::Rc;
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use shard_discovery::Shard;
use tokio::time::timeout;

use crate::control::pool::PoolControl;
use crate::control::probe;
use crate::failure::ShardFailure;
use crate::net::conversation::{Conversation, ConversationError};
use crate::protocol::events::Flags;

/// The parameter.
pub const PARAMETER: &str = "notify-keyspace-events";
/// How long a shard may take while a client waits.
const ANSWER_MAX: Duration = Duration::from_secs(2);
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
pub async fn want(pool: &Rc<PoolControl>, flags: Flags) -> Result<(), String> {
    let _one_at_a_time = pool.events.telling.lock().await;
    if pool.events.wanted.get().contains(flags) {
        return Ok(());
    }
    if pool.events.has_failed_often() {
        return Err("ERR flags were refused too often; try again in a second".into());
    }
    let answer = tell_all(pool, flags).await;
    if answer.is_err() {
        pool.events.failed();
        return answer;
    }
    // One that was not there is told once it is.
    pool.events.wanted.set(pool.events.wanted.get().with(flags));
    pool.events.changed.notify_waiters();
    pool.tell_store(None).await;
    Ok(())
}

/// Tells all shards; it is enough if one is told and none refuses.
async fn tell_all(pool: &Rc<PoolControl>, flags: Flags) -> Result<(), String> {
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
        for (name, answer) in telling.join_all().await {
            match answer {
                Ok(Ok(())) => told += 1,
                Ok(Err(ConversationError::Refused(words))) => return Err(words),
                Ok(Err(lost)) => silent = format!("shard {name}: {lost}"),
                Err(_) => silent = format!("shard {name}: timed out"),
            }
        }
    }
    if told == 0 { Err(format!("ERR {silent}")) } else { Ok(()) }
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
        conversation.ask(&["CONFIG", "SET", PARAMETER, &all]).await?;
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
    match conversation.ask(&["CONFIG", "GET", PARAMETER]).await? {
        BytesFrame::Array(elements) => match &elements[..] {
            [_, BytesFrame::BulkString(text)] => Ok(text.to_vec()),
            _ => Err(ConversationError::Refused(format!("ERR the shard does not know {PARAMETER}"))),
        },
        _ => Err(ConversationError::Refused("ERR unexpected response to CONFIG GET".into())),
    }
}
