//! One question to one shard on a connection of its own: are you well?

use std::io;
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use shard_discovery::Address;
use shard_discovery::resolver::Resolver;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::config;
use crate::failure::ShardFailure;
use crate::net::connect::connect;
use crate::net::conversation::{Conversation, ConversationError, Stream};
use crate::net::socket::failure;
use crate::protocol::{About, is_called, questions};
use crate::worker;

/// A shard that takes longer is not well.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest answer to a probe that is looked at.
const ANSWER_MAX: usize = 1024;

/// Asks; an error says what is wrong.
pub async fn probe(
    address: &Address,
    names: &Resolver,
    config: &config::Pool,
) -> Result<(), ConversationError> {
    ask(address, names, config).await.map(|_| ())
}

/// The same, with what the shard has answered.
pub async fn ask(
    address: &Address,
    names: &Resolver,
    config: &config::Pool,
) -> Result<String, ConversationError> {
    let stream = enter(address, names, config).await?.into_stream();
    timeout(PROBE_TIMEOUT, is_well(stream, worker::about(config.protocol)))
        .await
        .unwrap_or(Err(ConversationError::Lost(ShardFailure::ResponseTimeout)))
}

async fn is_well(mut stream: impl Stream, about: About) -> Result<String, ConversationError> {
    let lost = |error: io::Error| ConversationError::Lost(failure(&error));
    stream.write_all(about.probe).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await.map_err(lost)? == 0 {
            return Err(ConversationError::Lost(ShardFailure::Closed));
        }
        match (about.probed)(&answer) {
            Some(Ok(())) => return Ok(String::from_utf8_lossy(&answer).into_owned()),
            Some(Err(words)) => return Err(ConversationError::Refused(words)),
            None if answer.len() > ANSWER_MAX => {
                return Err(ConversationError::Refused("the response to a probe is too long".into()));
            }
            None => {}
        }
    }
}

/// Connects to a shard, tells the password, and makes sure who it is, where that is asked for.
pub async fn enter(
    address: &Address,
    names: &Resolver,
    config: &config::Pool,
) -> Result<Conversation, ConversationError> {
    let socket = connect(address, names, config).await.map_err(ConversationError::Lost)?;
    let mut conversation = Conversation::over(socket, PROBE_TIMEOUT)?;
    conversation.authenticate(config.auth.as_ref()).await?;
    if config.shard_identity {
        identify(&mut conversation, address).await?;
    }
    Ok(conversation)
}

/// Asks who it is, on a connection of our own: the workers ask as it is usual in their protocol.
pub async fn identify(conversation: &mut Conversation, address: &Address) -> Result<(), ConversationError> {
    let Address::Tcp { host, .. } = address else { return Ok(()) };
    let answer = match conversation.ask(&questions::NAME).await? {
        BytesFrame::Array(elements) => Some(elements),
        _ => None,
    };
    let strings = answer.as_ref().map(|elements| elements.iter().map(string).collect::<Vec<_>>());
    is_called(host, strings.as_deref()).map_err(ConversationError::Refused)
}

fn string(element: &BytesFrame) -> Option<&[u8]> {
    match element {
        BytesFrame::BulkString(string) => Some(string),
        _ => None,
    }
}

/// Asks a Redis shard whether it speaks RESP3; an error says why that cannot be known now.
pub async fn speaks_resp3(
    address: &Address,
    names: &Resolver,
    config: &config::Pool,
) -> Result<bool, ConversationError> {
    let mut stream = enter(address, names, config).await?.into_stream();
    // The answer is RESP3 where it is a good one.
    let mut answer = [0; 128];
    let exchange = async {
        stream.write_all(questions::RESP3).await?;
        stream.flush().await?;
        stream.read(&mut answer).await
    };
    let length = match timeout(PROBE_TIMEOUT, exchange).await {
        Err(_) => return Err(ConversationError::Lost(ShardFailure::ResponseTimeout)),
        Ok(Err(_)) => return Err(ConversationError::Lost(ShardFailure::Reset)),
        Ok(Ok(0)) => return Err(ConversationError::Lost(ShardFailure::Closed)),
        Ok(Ok(length)) => length,
    };
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    match answer.strip_prefix('-') {
        None => Ok(true),
        Some(words) if questions::is_without_resp3(words) => Ok(false),
        Some(words) => Err(ConversationError::Refused(words.trim_end().to_owned())),
    }
}

/// Asks a Redis shard whether it tells of changed keys (CLIENT TRACKING), and says in its words why not. An error says why that cannot
/// be known now.
pub async fn why_untracked(
    address: &Address,
    names: &Resolver,
    config: &config::Pool,
) -> Result<Option<String>, ConversationError> {
    let mut conversation = enter(address, names, config).await?;
    match conversation.ask(&questions::TRACKING).await {
        Ok(_) => Ok(None),
        // It may be well soon.
        Err(ConversationError::Refused(words)) if questions::is_passing(&words) => {
            Err(ConversationError::Refused(words))
        }
        Err(ConversationError::Refused(words)) => Ok(Some(words)),
        Err(lost) => Err(lost),
    }
}

/// Asks a Redis shard how many databases it has, if that are less than so `many`. (Not by CONFIG, which is often renamed or
/// not allowed.) None if it does not say; an error says why that cannot be known now.
pub async fn databases(
    address: &Address,
    names: &Resolver,
    config: &config::Pool,
    many: u32,
) -> Result<Option<u32>, ConversationError> {
    let mut conversation = enter(address, names, config).await?;
    // It has at least the first number, and not more than the second.
    let (mut least, mut most) = (1, many);
    let mut tried = many;
    while least < most {
        match conversation.ask(&questions::use_database(&(tried - 1).to_string())).await {
            Ok(_) => least = tried,
            Err(ConversationError::Refused(words)) if questions::is_out_of_range(&words) => most = tried - 1,
            Err(ConversationError::Refused(_)) => return Ok(None),
            Err(lost) => return Err(lost),
        }
        tried = least + (most - least).div_ceil(2);
    }
    Ok(Some(least))
}
