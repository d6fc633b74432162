//! TLS handshakes, on threads of their own: one takes some 70 us of processor time, and a storm of them would hold up
//! everybody who is served by the thread that does them.

use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::Connection;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::layer::Layer as _;
use super::plain::{Plain, Read};
use super::socket::Socket;
use super::tls::Tls;
use crate::account::Account;

/// Threads for handshakes with clients; one more is for those with shards, which clients wait for that are served already.
const THREADS: usize = 2;
/// How much other threads go before them, where there is not enough processor time for all. Source: setpriority(2).
const NICE: i32 = 5;

/// With whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A client, of which any number may come.
    Client,
    /// A shard.
    Shard,
}

/// One that is to be done.
struct Job {
    plain: Plain,
    session: Tls,
    limit: Duration,
    done: oneshot::Sender<io::Result<Socket>>,
}

/// The threads, started when they are needed first: a process without TLS has none.
static QUEUES: OnceLock<io::Result<Vec<mpsc::UnboundedSender<Job>>>> = OnceLock::new();
/// Whose turn it is.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Does the handshake of a connection that has been made. Whoever does not wait for it any more ends it.
///
/// # Errors
/// What went wrong, in words; a handshake that takes longer than `limit` is [`io::ErrorKind::TimedOut`].
pub async fn shake_hands(
    socket: Socket,
    connection: Connection,
    limit: Duration,
    with: Peer,
    account: Option<Arc<Account>>,
) -> io::Result<Socket> {
    let Socket::Plain(plain) = socket else { return Ok(socket) };
    let queues = QUEUES
        .get_or_init(start)
        .as_ref()
        .map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    let (done, result) = oneshot::channel();
    let job = Job { plain, session: Tls::new(connection, account), limit, done };
    let place = match with {
        Peer::Client => NEXT.fetch_add(1, Relaxed) % THREADS,
        Peer::Shard => THREADS,
    };
    let queue = &queues[place];
    let gone = |_| io::Error::other("the thread for TLS handshakes has ended");
    queue.send(job).map_err(|_| gone(()))?;
    result.await.map_err(|_| gone(()))?
}

fn start() -> io::Result<Vec<mpsc::UnboundedSender<Job>>> {
    (0..=THREADS)
        .map(|place| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (queue, jobs) = mpsc::unbounded_channel();
            let run = move || {
                // Where it is not allowed they go on as all others.
                if place < THREADS {
                    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
                }
                tokio::task::LocalSet::new().block_on(&runtime, serve(jobs));
            };
            std::thread::Builder::new().name("tls".into()).spawn(run)?;
            Ok(queue)
        })
        .collect()
}

async fn serve(mut jobs: mpsc::UnboundedReceiver<Job>) {
    while let Some(Job { plain, session, limit, mut done }) = jobs.recv().await {
        tokio::task::spawn_local(async move {
            let result = tokio::select! {
                result = timeout(limit, shake(plain, session)) => result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
                () = done.closed() => return,
            };
            let _ = done.send(result);
        });
    }
}

/// A socket as the runtime watches it.
struct Watched(Plain);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

async fn shake(plain: Plain, mut session: Tls) -> io::Result<Socket> {
    // SAFETY: the socket has its descriptor to itself, always the same, and is closed after it was registered no more.
    #[allow(unsafe_code)]
    let mut watched = unsafe { AsyncFd::register(Watched(plain)) }?;
    loop {
        session.flush(&mut watched.get_mut().0)?;
        if session.held() > 0 {
            watched.writable_mut().await?.clear_ready();
            continue;
        }
        if !session.is_handshaking() {
            break;
        }
        let mut ready = watched.readable_mut().await?;
        if session.shake(&mut ready.get_inner_mut().0)? != Read::Full {
            ready.clear_ready();
        }
        // The others have their turn.
        tokio::task::yield_now().await;
    }
    Ok(Socket::layered(watched.into_inner().0, Box::new(session)))
}

/// What went wrong, in words.
pub fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "the handshake timed out".into(),
        io::ErrorKind::UnexpectedEof => "the peer closed the connection during the handshake".into(),
        _ => error.to_string(),
    }
}
