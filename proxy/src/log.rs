//! The log, written by a thread of its own.
//!
//! Standard error may be a full disk, a file at its size limit, a pipe whose reader is gone or one that nobody reads.
//! None of that may end or hold up the process: whoever logs puts the line into a bounded queue and goes on; lines that
//! find no room or cannot be written are lost and counted. tracing-appender's `non_blocking` was looked at: it counts no
//! failed writes, holds a bounded number of lines of any length, and prints when it cannot end in order, which panics
//! where standard output is gone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, Process, process};

/// Sets the least level that is logged.
pub type SetLogLevel = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Bytes of lines that may wait to be written.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// How long the end of the process waits for lines to be written.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// Pause before writing again to a pipe that is not blocking and full.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// How often it is logged that lines were lost.
const LOST_PAUSE: Duration = Duration::from_secs(1);

/// There is one log, as there is one standard error.
static LOG: Log = Log::new();

struct Log {
    queue: Mutex<Queue>,
    /// There is a line to write.
    filled: Condvar,
    /// All lines are written.
    emptied: Condvar,
    lost_queue_full: AtomicU64,
    lost_write_failed: AtomicU64,
}

struct Queue {
    /// Oldest first.
    lines: VecDeque<Vec<u8>>,
    /// Their bytes. At most [`QUEUE_BYTES_MAX`].
    bytes: usize,
    /// The thread runs.
    begun: bool,
    /// A line has left the queue and is not written yet.
    writing: bool,
}

impl Log {
    const fn new() -> Self {
        Self {
            queue: Mutex::new(Queue { lines: VecDeque::new(), bytes: 0, begun: false, writing: false }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            lost_queue_full: AtomicU64::new(0),
            lost_write_failed: AtomicU64::new(0),
        }
    }

    /// Nothing that holds it can panic, and if it did, the lines would still be lines.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &[u8]) {
        let mut queue = self.lock();
        if queue.bytes + line.len() > QUEUE_BYTES_MAX {
            self.lost_queue_full.fetch_add(1, Relaxed);
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line.to_vec());
        self.filled.notify_one();
    }

    /// Writes lines for ever.
    fn write(&self, mut to: impl Write) {
        let (mut told, mut when) = (0, None::<Instant>);
        // The last line broke off.
        let mut torn = false;
        loop {
            let mut queue = self.lock();
            queue.writing = false;
            while queue.lines.is_empty() {
                self.emptied.notify_all();
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let line = queue.lines.pop_front().unwrap_or_default();
            queue.bytes -= line.len();
            queue.writing = true;
            drop(queue);
            let ends_line: &[u8] = if torn { b"\n" } else { b"" };
            let written = write_all(&mut to, ends_line).and_then(|_| write_all(&mut to, &line));
            match written {
                Ok(()) => torn = false,
                Err(begun) => {
                    torn |= begun;
                    self.lost_write_failed.fetch_add(1, Relaxed);
                    continue;
                }
            }
            let lost = self.lost_queue_full.load(Relaxed) + self.lost_write_failed.load(Relaxed);
            if lost > told && when.is_none_or(|when| when.elapsed() >= LOST_PAUSE) {
                // Not through the queue, which is full when this matters.
                let written = write_all(&mut to, &as_written(|| say_lost(lost - told)));
                match written {
                    Ok(()) => (told, when) = (lost, Some(Instant::now())),
                    Err(begun) => torn = begun,
                }
            }
        }
    }
}

fn say_lost(lines: u64) {
    tracing::warn!(lines, "log lines lost");
}

thread_local! {
    /// Where the lines of this thread go instead of into the queue.
    static ASIDE: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// What is logged meanwhile on this thread, as it would be written.
fn as_written(log: impl FnOnce()) -> Vec<u8> {
    ASIDE.set(Some(Vec::new()));
    log();
    ASIDE.take().unwrap_or_default()
}

/// Writes all of it, waiting while the peer has no room; an error says whether part of it is written.
fn write_all(to: &mut impl Write, mut bytes: &[u8]) -> Result<(), bool> {
    let length = bytes.len();
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(bytes.len() < length),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(FULL_PAUSE),
            Err(_) => return Err(bytes.len() < length),
        }
    }
    Ok(())
}

/// What tracing writes to: every event comes in one piece.
struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_aside =
            ASIDE.with_borrow_mut(|aside| aside.as_mut().map(|aside| aside.extend_from_slice(line)));
        if is_aside.is_none() {
            LOG.append(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Line {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        Self
    }
}

/// Begins to log; returns what changes the level.
pub fn begin(process: &Process) -> anyhow::Result<SetLogLevel> {
    ignore_file_size_limit();
    let thread = std::thread::Builder::new().name("log".into());
    thread.spawn(|| LOG.write(Stderr)).context("cannot start the log thread")?;
    LOG.lock().begun = true;
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::capture();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(thread, "{panic}\n{trace}");
        flush();
    }));
    let builder = tracing_subscriber::fmt()
        .with_writer(Line)
        .log_internal_errors(false)
        .with_ansi(
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        )
        .with_env_filter(EnvFilter::new(&process.log_level));
    Ok(match process.log_format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            setter(handle)
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            setter(handle)
        }
    })
}

fn setter<S: 'static>(handle: tracing_subscriber::reload::Handle<EnvFilter, S>) -> SetLogLevel {
    Arc::new(move |level| {
        let level: &str = process::read("log_level", level)?;
        handle.reload(EnvFilter::new(level)).map_err(|error| error.to_string())
    })
}

/// A line as it is: into the log once that has begun, to standard error before.
pub fn say(line: &str) {
    if LOG.lock().begun {
        LOG.append(format!("{line}\n").as_bytes());
    } else {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Waits until all lines are written, but not for ever: nobody may read them.
pub fn flush() {
    let queue = LOG.lock();
    if queue.begun {
        let is_busy = |queue: &mut Queue| !queue.lines.is_empty() || queue.writing;
        let _ = LOG.emptied.wait_timeout_while(queue, FLUSH_MAX, is_busy);
    }
}

/// Lines that were lost, by the reason.
pub fn lost() -> [(&'static str, u64); 2] {
    [("queue_full", LOG.lost_queue_full.load(Relaxed)), ("write_failed", LOG.lost_write_failed.load(Relaxed))]
}

/// A file that may not grow any more (`ulimit -f`) is an error of the write then, and not a signal that ends the process.
fn ignore_file_size_limit() {
    // SAFETY: no handler is installed, the signal is ignored from now on.
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Standard error as it is at the moment, for a log file may take its place; without the lock of `std::io::stderr`, which is
/// not to be held while a write blocks.
struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn lines_that_find_no_room_are_lost_and_counted() {
        let log = Log::new();
        let line = [b'x'; 1000];
        let most = QUEUE_BYTES_MAX / line.len();
        for _ in 0..most + 7 {
            log.append(&line);
        }
        assert_eq!(log.lost_queue_full.load(Relaxed), 7);
        assert_eq!(log.lock().lines.len(), most);
    }

    /// Takes some bytes, fails once, and goes on.
    struct Failing {
        calls: usize,
        written: Vec<u8>,
    }

    impl Write for &mut Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            match self.calls {
                1 => self.written.write(&bytes[..3]),
                2 => Err(ErrorKind::StorageFull.into()),
                3 => Err(ErrorKind::WouldBlock.into()),
                _ => self.written.write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_error_says_whether_part_of_the_line_is_written() {
        let mut to = Failing { calls: 0, written: Vec::new() };
        assert_eq!(write_all(&mut &mut to, b"first line"), Err(true));
        assert_eq!(write_all(&mut &mut to, b"\nsecond"), Ok(()));
        assert_eq!(to.written, b"fir\nsecond");
    }

    /// Takes no byte before the gate opens; hands over what it takes.
    struct Gate {
        opened: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Nobody holds the other end any more once it is open for good.
            let _ = self.opened.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_reads_late_is_told_that_lines_are_missing() {
        static LATE: Log = Log::new();
        let (open, opened) = mpsc::channel();
        let (written, read) = mpsc::channel();
        std::thread::spawn(move || {
            let shown = tracing_subscriber::fmt().with_writer(Line).with_ansi(false).finish();
            tracing::subscriber::with_default(shown, || LATE.write(Gate { opened, written }));
        });
        LATE.append(b"first\n");
        while !LATE.lock().writing {
            std::thread::yield_now();
        }
        let line = [b'x'; 1000];
        for _ in 0..QUEUE_BYTES_MAX / line.len() + 7 {
            LATE.append(&line);
        }
        drop(open);
        assert_eq!(read.recv().expect("a line"), b"first\n");
        let told = String::from_utf8(read.recv().expect("a line")).expect("text");
        assert!(told.contains("log lines lost lines=7"), "{told}");
        assert_eq!(read.recv().expect("a line"), line);
    }
}
