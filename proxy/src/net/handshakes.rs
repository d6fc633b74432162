//! TLS handshakes, on threads of their own: one takes some 70 us of processor time, and a storm of them would hold up
//! everybody who is served by the thread that does them.

use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::layer::Layer as _;
use super::plain::{Plain, Read};
use super::socket::Socket;
use super::tls::Tls;

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

type Queue = mpsc::UnboundedSender<Job>;

/// The queues of the threads that run.
struct Threads(Mutex<[Option<Queue>; THREADS + 1]>);

/// A thread is started when it is needed: a process without TLS has none.
static RUNNING: Threads = Threads::new();
/// Whose turn it is.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Peer {
    /// The place of a thread for it.
    fn place(self) -> usize {
        match self {
            Self::Client => NEXT.fetch_add(1, Relaxed) % THREADS,
            Self::Shard => THREADS,
        }
    }
}

impl Threads {
    const fn new() -> Self {
        Self(Mutex::new([const { None }; THREADS + 1]))
    }

    /// The queue of the thread at this place. One that does not run is started; what was in the way before may be gone.
    fn queue(&self, place: usize, start: impl FnOnce(usize) -> io::Result<Queue>) -> io::Result<Queue> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = running[place].as_ref().filter(|queue| !queue.is_closed()) {
            return Ok(queue.clone());
        }
        // Whatever it lacks, no peer is at fault.
        let lacks = |error| {
            let words = format!("a thread for TLS handshakes cannot be started: {error}");
            io::Error::new(io::ErrorKind::OutOfMemory, words)
        };
        let queue = start(place).map_err(lacks)?;
        running[place] = Some(queue.clone());
        Ok(queue)
    }
}

/// Does the handshake of a connection that has been made. Whoever does not wait for it any more ends it.
///
/// # Errors
/// What went wrong, in words; a handshake that takes longer than `limit` is [`io::ErrorKind::TimedOut`], and where this
/// process has no thread for it that is [`io::ErrorKind::OutOfMemory`].
pub async fn shake_hands(socket: Socket, session: Tls, limit: Duration, with: Peer) -> io::Result<Socket> {
    let Socket::Plain(plain) = socket else { return Ok(socket) };
    let queue = RUNNING.queue(with.place(), start)?;
    let (done, result) = oneshot::channel();
    let job = Job { plain, session, limit, done };
    let gone = |_| io::Error::other("the thread for TLS handshakes has ended");
    queue.send(job).map_err(|_| gone(()))?;
    result.await.map_err(|_| gone(()))?
}

fn start(place: usize) -> io::Result<Queue> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (queue, jobs) = mpsc::unbounded_channel();
    let run = move || {
        // Where it is not allowed it goes on as all others.
        if place < THREADS {
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        }
        tokio::task::LocalSet::new().block_on(&runtime, serve(jobs));
    };
    std::thread::Builder::new().name("tls".into()).spawn(run)?;
    Ok(queue)
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::super::tls::tests::sessions;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test)
    }

    #[test]
    fn a_thread_that_could_not_be_started_is_started_later() {
        let threads = Threads::new();
        let lacking = threads.queue(0, |_| Err(io::Error::from_raw_os_error(libc::EAGAIN)));
        let lacking = lacking.expect_err("it was not started");
        assert!(crate::net::socket::is_local(&lacking), "no peer is at fault: {lacking}");
        let (queue, jobs) = mpsc::unbounded_channel();
        threads.queue(0, |_| Ok(queue)).expect("it is started");
        threads.queue(0, |_| panic!("it runs")).expect("it runs");
        drop(jobs);
        let (queue, _jobs) = mpsc::unbounded_channel();
        let again = threads.queue(0, |_| Ok(queue)).expect("one that has ended is started again");
        assert!(!again.is_closed(), "nobody takes what is given to a thread that has ended");
    }

    /// Clients keep their threads busy, however that may be.
    #[test]
    fn handshakes_with_shards_do_not_wait_for_those_with_clients() {
        run(async {
            let mut busy = Vec::new();
            for _ in 0..THREADS {
                // A socket that blocks and has no room: who writes to it waits.
                let (ours, theirs) = UnixStream::pair().expect("descriptors");
                let mut full = ours.try_clone().expect("a descriptor");
                full.set_nonblocking(true).expect("a socket");
                while io::Write::write(&mut full, &[0; 4096]).is_ok() {}
                full.set_nonblocking(false).expect("a socket");
                let [client, _] = sessions().map(|session| Tls::new(session, None));
                let mut waits = Box::pin(shake_hands(ours.into(), client, PATIENCE, Peer::Client));
                assert!(tokio::time::timeout(Duration::ZERO, &mut waits).await.is_err(), "nobody answers");
                theirs.set_nonblocking(true).expect("a socket");
                busy.push((waits, theirs));
            }
            let (ours, theirs) = UnixStream::pair().expect("descriptors");
            ours.set_nonblocking(true).expect("a socket");
            theirs.set_nonblocking(true).expect("a socket");
            let [client, server] = sessions().map(|session| Tls::new(session, None));
            let both = async {
                tokio::join!(
                    shake_hands(ours.into(), client, PATIENCE, Peer::Shard),
                    shake_hands(theirs.into(), server, PATIENCE, Peer::Shard)
                )
            };
            let (ours, theirs) = tokio::time::timeout(PATIENCE, both).await.expect("they wait for nobody");
            ours.expect("they agree");
            theirs.expect("they agree");
            for (waits, mut theirs) in busy {
                drop(waits);
                while theirs.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
            }
        });
    }
}
