//! One RESP conversation beside the data path: probes, questions to shards, care of clusters.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use redis_protocol::codec::Resp2;
use redis_protocol::resp2::types::BytesFrame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::codec::Framed;

use crate::config::{Auth, Secret};
use crate::pool::failure::ShardFailure;
use crate::protocol::resp::is_needless_password;
use crate::worker::socket::{Socket, failure};

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// The socket for use inside a tokio runtime.
pub fn stream(socket: Socket) -> Result<Box<dyn Stream>, ConversationError> {
    let stream: std::io::Result<Box<dyn Stream>> = match socket {
        Socket::Tcp(stream) => TcpStream::from_std(stream).map(|stream| Box::new(stream) as _),
        Socket::Unix(stream) => UnixStream::from_std(stream).map(|stream| Box::new(stream) as _),
    };
    stream.map_err(|error| ConversationError::Lost(failure(&error)))
}

/// Why there is no good answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConversationError {
    /// The server cannot be reached, or is silent, or is lost.
    #[error("{0}")]
    Lost(ShardFailure),
    /// The server's own error, or an answer that cannot be meant, in words.
    #[error("{0}")]
    Refused(String),
}

impl ConversationError {
    /// The same as a failure of the server.
    pub fn failure(self) -> ShardFailure {
        match self {
            Self::Lost(failure) => failure,
            Self::Refused(words) => ShardFailure::GreetingRefused(words),
        }
    }

    /// Whether our own process or machine is the reason: nothing is known of the server then.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Lost(ShardFailure::LocalResources(_)))
    }
}

/// A connection that questions are asked on, one after the other.
pub struct Conversation {
    framed: Framed<Box<dyn Stream>, Resp2>,
    limit: Duration,
}

impl Conversation {
    /// Over a connected socket; each answer may take as long as `limit`.
    pub fn over(socket: Socket, limit: Duration) -> Result<Self, ConversationError> {
        Ok(Self { framed: Framed::new(stream(socket)?, Resp2::default()), limit })
    }

    /// Tells the password, if there is one. A server that needs none is content.
    pub async fn authenticate(&mut self, auth: Option<&Auth>) -> Result<(), ConversationError> {
        let Some(auth) = auth else { return Ok(()) };
        let refused = match self.say_password(auth, &auth.password).await {
            Err(ConversationError::Refused(words)) => words,
            other => return other,
        };
        match &auth.previous {
            Some(previous) if self.say_password(auth, previous).await.is_ok() => Ok(()),
            _ => Err(ConversationError::Refused(refused)),
        }
    }

    async fn say_password(&mut self, auth: &Auth, password: &Secret) -> Result<(), ConversationError> {
        let mut words = vec!["AUTH"];
        words.extend(auth.user.as_deref());
        words.push(password.expose());
        match self.ask(&words).await {
            Err(ConversationError::Refused(words)) if is_needless_password(words.as_bytes()) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Asks; the server's errors are errors.
    pub async fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<BytesFrame, ConversationError> {
        let words = words.iter().map(|word| BytesFrame::BulkString(word.as_ref().to_vec().into())).collect();
        let exchange = async {
            self.framed.send(BytesFrame::Array(words)).await.map_err(broken)?;
            match self.framed.next().await {
                None => Err(ConversationError::Lost(ShardFailure::Closed)),
                Some(Err(error)) => Err(broken(error)),
                Some(Ok(BytesFrame::Error(words))) => Err(ConversationError::Refused(words.to_string())),
                Some(Ok(reply)) => Ok(reply),
            }
        };
        timeout(self.limit, exchange)
            .await
            .unwrap_or(Err(ConversationError::Lost(ShardFailure::ResponseTimeout)))
    }

    /// What the server says next without being asked, however long that takes.
    pub async fn hear(&mut self) -> Result<BytesFrame, ConversationError> {
        match self.framed.next().await {
            None => Err(ConversationError::Lost(ShardFailure::Closed)),
            Some(said) => said.map_err(broken),
        }
    }

    /// As [`Self::ask`], where the answer is a text.
    pub async fn text<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<String, ConversationError> {
        match self.ask(words).await? {
            BytesFrame::BulkString(bytes) | BytesFrame::SimpleString(bytes) => {
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => Err(ConversationError::Refused("the answer is no text".into())),
        }
    }

    /// The bare connection. Nothing that was asked for is left to be read on it.
    pub fn into_stream(self) -> Box<dyn Stream> {
        self.framed.into_inner()
    }
}

fn broken(error: redis_protocol::error::RedisProtocolError) -> ConversationError {
    ConversationError::Lost(ShardFailure::ConnectFailed(error.to_string()))
}
