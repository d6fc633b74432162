//! One RESP conversation beside the data path: probes, questions to shards, care of clusters.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use redis_protocol::codec::Resp2;
use redis_protocol::resp2::types::BytesFrame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::codec::{Decoder, Encoder, Framed};

use crate::config::Auth;
use crate::failure::ShardFailure;
use crate::net::plain::Plain;
use crate::net::socket::{Socket, failure};
use crate::net::stream::LayeredStream;
use crate::protocol::resp::decode::ResponseDecoder;
use crate::protocol::resp::is_needless_password;
use crate::secret::Secret;

/// Largest answer; the nodes and slots of a large cluster are told in a few megabytes.
const ANSWER_MAX: usize = 32 << 20;
/// Largest answer of who is asked how it is; INFO is told in some kilobytes, a hundred where there are many databases.
const SHORT_ANSWER_MAX: usize = 1 << 20;
/// Levels of arrays in each other; CLUSTER SLOTS has five.
const DEPTH_MAX: usize = 16;

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The socket for use inside a tokio runtime.
pub fn stream(socket: Socket) -> Result<Box<dyn Stream>, ConversationError> {
    let stream: io::Result<Box<dyn Stream>> = match socket {
        Socket::Plain(Plain::Tcp(stream)) => TcpStream::from_std(stream).map(|stream| Box::new(stream) as _),
        Socket::Plain(Plain::Unix(stream)) => {
            UnixStream::from_std(stream).map(|stream| Box::new(stream) as _)
        }
        Socket::Layered(layered) => LayeredStream::over(layered).map(|stream| Box::new(stream) as _),
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
            Self::Refused(words) => ShardFailure::HandshakeRefused(words),
        }
    }
}

/// A connection that questions are asked on, one after the other.
pub struct Conversation {
    framed: Framed<Box<dyn Stream>, Bounded>,
    limit: Duration,
}

impl Conversation {
    /// Over a connected socket; each answer may take as long as `limit`.
    pub fn over(socket: Socket, limit: Duration) -> Result<Self, ConversationError> {
        Ok(Self { framed: Framed::new(stream(socket)?, Bounded::default()), limit })
    }

    /// Further answers are short: many servers are asked at a time, and what they say is in no account.
    pub fn expect_short(&mut self) {
        self.framed.codec_mut().most = SHORT_ANSWER_MAX;
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
            _ => Err(ConversationError::Refused("the response is not a string".into())),
        }
    }

    /// As [`Self::ask`], where the answer is read by who asks: its bytes as they are.
    pub async fn bytes<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Bytes, ConversationError> {
        self.framed.codec_mut().as_it_is = true;
        let answer = self.ask(words).await;
        self.framed.codec_mut().as_it_is = false;
        match answer? {
            BytesFrame::BulkString(bytes) => Ok(bytes),
            _ => Err(ConversationError::Refused("the response is not an array".into())),
        }
    }

    /// The bare connection. Nothing that was asked for is left to be read on it.
    pub fn into_stream(self) -> Box<dyn Stream> {
        self.framed.into_inner()
    }
}

fn broken(error: io::Error) -> ConversationError {
    ConversationError::Lost(ShardFailure::ConnectFailed(error.to_string()))
}

/// RESP2 within bounds. What makes trees of answers calls itself for each level of them, and takes all that comes; so it is
/// shown whole answers only, and none that is too large or too deep.
struct Bounded {
    /// Bytes of an answer.
    most: usize,
    /// An answer that is an array is one string, with the bytes of the array.
    as_it_is: bool,
    resp: Resp2,
    measure: ResponseDecoder,
    /// Bytes of the answer at hand that are measured.
    measured: usize,
}

impl Default for Bounded {
    fn default() -> Self {
        Self {
            most: ANSWER_MAX,
            as_it_is: false,
            resp: Resp2::default(),
            measure: ResponseDecoder::default(),
            measured: 0,
        }
    }
}

impl Decoder for Bounded {
    type Item = BytesFrame;
    type Error = io::Error;

    fn decode(&mut self, came: &mut BytesMut) -> io::Result<Option<BytesFrame>> {
        let wrong = |words: String| io::Error::new(io::ErrorKind::InvalidData, words);
        let progress = self.measure.decode(&came[self.measured..]).map_err(|error| wrong(error.0))?;
        self.measured += progress.length;
        if self.measured > self.most {
            return Err(wrong(format!("the response is larger than {} bytes", self.most)));
        }
        if !progress.complete {
            return Ok(None);
        }
        let mut answer = came.split_to(std::mem::take(&mut self.measured));
        if self.as_it_is && answer.first() == Some(&b'*') {
            return Ok(Some(BytesFrame::BulkString(answer.freeze())));
        }
        if depth(&answer).is_none_or(|depth| depth > DEPTH_MAX) {
            return Err(wrong("the response is not RESP2, or nested too deeply".into()));
        }
        self.resp.decode(&mut answer).map_err(|error| wrong(error.to_string()))
    }
}

impl Encoder<BytesFrame> for Bounded {
    type Error = io::Error;

    fn encode(&mut self, frame: BytesFrame, out: &mut BytesMut) -> io::Result<()> {
        self.resp.encode(frame, out).map_err(|error| io::Error::other(error.to_string()))
    }
}

/// Levels of arrays in each other; none if the whole answer has what RESP2 does not know.
fn depth(answer: &[u8]) -> Option<usize> {
    // For each array that is open, how many values it lacks.
    let mut open: Vec<u64> = Vec::new();
    let (mut at, mut deepest) = (0, 0);
    loop {
        let kind = *answer.get(at)?;
        let line = &answer[at + 1..];
        let end = line.iter().position(|&byte| byte == b'\n')?;
        at += 1 + end + 1;
        let number = || std::str::from_utf8(&line[..end]).ok()?.trim_end().parse::<i64>().ok();
        match kind {
            b'+' | b'-' | b':' => {}
            b'$' => at += usize::try_from(number()?).map_or(0, |length| length + 2),
            b'*' => {
                let count = number()?.max(0) as u64;
                deepest = deepest.max(open.len() + 1);
                if count > 0 {
                    if deepest > DEPTH_MAX {
                        return Some(deepest);
                    }
                    open.push(count);
                    continue;
                }
            }
            _ => return None,
        }
        // One value is complete, and perhaps with it those that it is the last of.
        loop {
            let Some(missing) = open.last_mut() else { return Some(deepest) };
            *missing -= 1;
            if *missing > 0 {
                break;
            }
            open.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::late::{FAREWELL, Late};

    /// What becomes of the bytes, if they come in pieces of this size.
    fn decode(bytes: &[u8], piece: usize) -> io::Result<Vec<BytesFrame>> {
        let (mut codec, mut came, mut found) = (Bounded::default(), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            came.extend_from_slice(piece);
            while let Some(frame) = codec.decode(&mut came)? {
                found.push(frame);
            }
        }
        Ok(found)
    }

    #[test]
    fn answers_are_found_wherever_they_are_cut() {
        let answers = b"+OK\r\n-ERR x\r\n:-5\r\n$-1\r\n*-1\r\n*0\r\n$3\r\na\nb\r\n*2\r\n*1\r\n$1\r\na\r\n*2\r\n:1\r\n*0\r\n+end\r\n";
        let whole = decode(answers, answers.len()).expect("good answers");
        assert_eq!(whole.len(), 9);
        for piece in 1..answers.len() {
            assert_eq!(decode(answers, piece).expect("good answers"), whole, "in pieces of {piece}");
        }
        assert_eq!(depth(b"*2\r\n*1\r\n$1\r\na\r\n*2\r\n:1\r\n*0\r\n"), Some(3));
    }

    #[test]
    fn nothing_that_a_server_answers_is_too_deep_or_too_much() {
        let deep = [&b"*1\r\n".repeat(300_000)[..], b":1\r\n"].concat();
        let padded = [&b"*2\r\n:1\r\n".repeat(100_000)[..], b":1\r\n"].concat();
        for (bytes, is_error) in [
            (&deep[..], true),
            (&padded, true),
            (&deep[..deep.len() - 4], false),
            (b"*1000000000\r\n", false),
            (b"$9\r\n", false),
            (b"%1\r\n:1\r\n:2\r\n", true),
            (b"HTTP/1.1 400 Bad Request\r\n", true),
            (b"*-2\r\n", true),
        ] {
            for piece in [7, 65536] {
                let found = decode(bytes, piece);
                let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]);
                assert_eq!(found.is_err(), is_error, "{shown}: {:?}", found.map(|found| found.len()));
            }
        }
        let endless = [&b"$999999999\r\n"[..], &vec![b'x'; ANSWER_MAX]].concat();
        assert!(decode(&endless, 1 << 20).is_err());
    }

    /// One that writes a few bytes at a time.
    #[test]
    fn a_conversation_passes_the_layer_of_its_connection() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("descriptors");
            ours.set_nonblocking(true).expect("a socket");
            let word = "x".repeat(3_000);
            let request = format!("*2\r\n$4\r\nECHO\r\n$3000\r\n{word}\r\n");
            let length = request.len();
            let peer = std::thread::spawn(move || {
                let (mut heard, mut all) = (vec![0; length], Vec::new());
                for _ in 0..2 {
                    std::io::Read::read_exact(&mut theirs, &mut heard).expect("it is said");
                    std::io::Write::write_all(&mut theirs, b"$2\r\nhi\r\n").expect("it is heard");
                    all.extend_from_slice(&heard);
                }
                std::io::Read::read_to_end(&mut theirs, &mut all).expect("it ends");
                all
            });
            let mut conversation =
                Conversation::over(Late::over(ours), Duration::from_secs(60)).expect("a conversation");
            for _ in 0..2 {
                assert_eq!(conversation.text(&["ECHO", &word]).await.expect("an answer"), "hi");
            }
            let mut stream = conversation.into_stream();
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await.expect("it ends in good order");
            drop(stream);
            let heard = peer.join().expect("it has heard all");
            assert_eq!(String::from_utf8(heard).expect("text"), format!("{request}{request}{FAREWELL}"));
        });
    }

    #[test]
    fn who_is_asked_for_little_cannot_answer_much() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("descriptors");
            ours.set_nonblocking(true).expect("a socket");
            std::thread::spawn(move || {
                let answer = [&b"$3000000\r\n"[..], &vec![b'x'; 3_000_000], b"\r\n"].concat();
                // The second is not read to its end.
                (0..2).all(|_| std::io::Write::write_all(&mut &theirs, &answer).is_ok())
            });
            let mut conversation =
                Conversation::over(Socket::from(ours), Duration::from_secs(60)).expect("a conversation");
            assert_eq!(conversation.text(&["INFO"]).await.expect("a long answer").len(), 3_000_000);
            conversation.expect_short();
            assert!(conversation.text(&["INFO"]).await.is_err());
        });
    }
}
