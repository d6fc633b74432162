//! SCRIPT KILL and FUNCTION KILL: a shard that has run a script for long does nothing else, so on a connection that requests share the order
//! to stop would wait behind the very script. It goes to all shards, on connections of its own.
//!
//! That is done in rounds: whoever asks while one is under way gets the next one, together with all who ask the same. So it costs the
//! same whether one client asks or a thousand do.

use std::rc::Rc;
use std::time::Duration;

use shard_discovery::Shard;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::kills::{Answer, WAITED_MAX};
use super::pool::PoolControl;
use super::probe;
use crate::failure::ShardFailure;
use crate::net::connect::connect;
use crate::net::conversation::{Conversation, ConversationError};
use crate::protocol::{Running, questions};

/// How long a shard may take: until a script has run for `busy-reply-threshold` (5 s) it says nothing to anybody. Less than a client waits.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// Shards that are told at a time.
const TOLD_MAX: usize = 64;
/// The pause between two rounds.
const PAUSE: Duration = Duration::from_millis(50);

/// A client asks for it.
pub async fn kill(pool: &Rc<PoolControl>, what: Running) -> Answer {
    let (told, answer) = oneshot::channel();
    let round = pool.kills.of(what);
    if !round.put(told) {
        return Err("ERR too many clients wait for scripts to be stopped; try again later".into());
    }
    if !round.busy.replace(true) {
        tokio::task::spawn_local(rounds(pool.clone(), what));
    }
    answer.await.unwrap_or_else(|_| Err("ERR the shards were not asked; try again".into()))
}

/// Until nobody waits.
async fn rounds(pool: Rc<PoolControl>, what: Running) {
    loop {
        let asked = pool.kills.of(what).take();
        if asked.is_empty() {
            break;
        }
        let until = asked.iter().map(|asked| asked.since + WAITED_MAX).max().expect("somebody waits");
        let mut asked = Some(asked);
        let mut tell = |answer: Answer| {
            for asked in asked.take().into_iter().flatten() {
                let _ = asked.told.send(answer.clone());
            }
        };
        let answer = kill_all(&pool, what, until, || tell(Ok(()))).await;
        tell(answer);
        tokio::time::sleep(PAUSE).await;
    }
    pool.kills.of(what).busy.set(false);
}

/// Tells all shards, as long as somebody waits: `until` then. It is enough if one has stopped something, and `stopped` is called then.
async fn kill_all(
    pool: &Rc<PoolControl>,
    what: Running,
    until: Instant,
    mut stopped: impl FnMut(),
) -> Answer {
    let mut judged = Judged::default();
    for some in pool.topology().shards().chunks(TOLD_MAX) {
        if Instant::now() >= until {
            // They may run something.
            judged.silent.get_or_insert_with(|| "ERR not all shards were told in time".into());
            break;
        }
        let until = until.min(Instant::now() + ANSWER_MAX);
        let mut telling = JoinSet::new();
        for shard in some.iter().cloned() {
            let pool = pool.clone();
            telling.spawn_local(async move {
                let lost = ConversationError::Lost(ShardFailure::ResponseTimeout);
                let told = timeout_at(until, tell(&pool, &shard, what)).await.unwrap_or(Err(lost));
                (shard.name, told)
            });
        }
        while let Some(told) = telling.join_next().await {
            let Ok((name, answer)) = told else { continue };
            if answer.is_ok() {
                stopped();
            }
            judged.hear(&name, answer);
        }
    }
    judged.answer()
}

async fn tell(pool: &PoolControl, shard: &Shard, what: Running) -> Result<(), ConversationError> {
    let (config, names) = (pool.config(), &pool.names);
    let socket = connect(&shard.address, names, &config).await.map_err(ConversationError::Lost)?;
    let mut conversation = Conversation::over(socket, ANSWER_MAX)?;
    conversation.expect_short();
    conversation.authenticate(config.auth.as_ref()).await?;
    if config.shard_identity {
        match probe::identify(&mut conversation, &shard.address).await {
            // It runs something, and says who it is only after that.
            Err(ConversationError::Refused(words)) if questions::is_busy(&words) => {}
            other => other?,
        }
    }
    conversation.ask(&questions::stop(what)).await.map(|_| ())
}

/// What shards have said.
#[derive(Default)]
struct Judged {
    has_stopped: bool,
    /// The first that runs something and does not stop it.
    refused: Option<String>,
    /// The first that does not answer: it may run something.
    silent: Option<String>,
    /// The first that runs nothing.
    idle: Option<String>,
}

impl Judged {
    fn hear(&mut self, name: &str, answer: Result<(), ConversationError>) {
        match answer {
            Ok(()) => self.has_stopped = true,
            Err(ConversationError::Refused(words)) if questions::is_idle(&words) => {
                self.idle.get_or_insert(words);
            }
            Err(ConversationError::Refused(words)) => {
                self.refused.get_or_insert(words);
            }
            Err(ConversationError::Lost(failure)) => {
                self.silent.get_or_insert_with(|| format!("ERR shard {name}: {failure}"));
            }
        }
    }

    /// Nothing runs only if all say so.
    fn answer(self) -> Answer {
        if self.has_stopped {
            return Ok(());
        }
        let words = self.refused.or(self.silent).or(self.idle);
        Err(words.unwrap_or_else(|| "ERR no shard is there".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &str) -> Result<(), ConversationError> {
        Err(ConversationError::Refused(words.into()))
    }

    fn judged(answers: Vec<Result<(), ConversationError>>) -> Answer {
        let mut judged = Judged::default();
        answers.into_iter().for_each(|answer| judged.hear("one", answer));
        judged.answer()
    }

    #[test]
    fn one_that_has_stopped_is_enough_and_nothing_runs_only_if_all_say_so() {
        const IDLE: &str = "NOTBUSY No scripts in execution right now.";
        const WROTE: &str = "UNKILLABLE Sorry";
        let lost = || Err(ConversationError::Lost(ShardFailure::Closed));
        assert_eq!(judged(vec![refused(IDLE), lost(), Ok(()), refused(WROTE)]), Ok(()));
        assert_eq!(judged(vec![refused(IDLE), lost(), refused(WROTE)]), Err(WROTE.into()));
        assert_eq!(judged(vec![refused(IDLE), refused(IDLE)]), Err(IDLE.into()));
        let words = judged(vec![refused(IDLE), lost()]).expect_err("it may run something");
        assert!(words.starts_with("ERR shard one: "), "{words}");
        assert!(judged(Vec::new()).is_err());
    }
}
