//! The terminal: whether there is one that wants colours, how large it is, and what is pressed while something is shown live.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A way to show some text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
    Reverse,
}

impl Style {
    /// The text with it, if `colours` are wanted.
    pub fn of(self, text: &str, colours: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Reverse => "7",
        };
        if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Whether standard output is a terminal, and nobody has said NO_COLOR (<https://no-color.org>).
pub fn colours() -> bool {
    io::stdout().is_terminal() && is_colour_allowed()
}

/// Whether nobody has said NO_COLOR.
pub fn is_colour_allowed() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// What a terminal was like that is ours for now.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
/// What ends a program that does not mind them.
const SIGNALS: [SignalKind; 4] =
    [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate()];

/// A terminal that is ours: nothing of what is typed is shown, and the screen from before comes back when it is dropped, and also where
/// a signal ends the process, or a mistake of ours.
pub struct Screen;

impl Screen {
    /// Takes the terminal.
    pub fn enter() -> io::Result<Self> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err(io::Error::other("this needs a terminal"));
        }
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // A panic ends the process without dropping anything.
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            tell(panic);
        }));
        let (ready, is_ready) = mpsc::channel();
        std::thread::Builder::new().name("signals".into()).spawn(move || end_by_signal(&ready))?;
        is_ready.recv().map_err(io::Error::other)??;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let screen = Self;
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &raw)?;
        put("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(rustix::stdio::stdout());
        let (columns, rows) = size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()));
        (if columns == 0 { 80 } else { columns }, if rows == 0 { 24 } else { rows })
    }

    /// What was pressed within this time; nothing of it is waited for longer. At the end of the input it is as if `q` was pressed.
    pub fn pressed(&self, within: Duration) -> Vec<u8> {
        let mut stdin = [PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN)];
        let wait = Timespec::try_from(within).ok();
        if !poll(&mut stdin, wait.as_ref()).is_ok_and(|ready| ready > 0) {
            return Vec::new();
        }
        let mut bytes = [0; 64];
        match rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
            Ok(0) => b"q".to_vec(),
            Ok(count) => bytes[..count].to_vec(),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Vec::new(),
            Err(_) => b"q".to_vec(),
        }
    }

    /// Shows these lines; what was shown before is gone.
    pub fn show(&self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        put(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// The terminal is as it was, once.
fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &before);
        let _ = put("\x1b[?25h\x1b[?1049l");
    }
}

/// Waits for a signal, and ends the process as if nobody had waited.
fn end_by_signal(ready: &Sender<io::Result<()>>) {
    let wait = async || -> io::Result<i32> {
        let mut signals = SIGNALS.into_iter().map(signal).collect::<io::Result<Vec<Signal>>>()?;
        let _ = ready.send(Ok(()));
        let come = |context: &mut Context<'_>| {
            let come = signals.iter_mut().position(|signal| signal.poll_recv(context).is_ready());
            come.map_or(Poll::Pending, |place| Poll::Ready(SIGNALS[place].as_raw_value()))
        };
        Ok(std::future::poll_fn(come).await)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(wait())) {
        Err(error) => drop(ready.send(Err(error))),
        Ok(number) => {
            // Nothing is drawn over it any more.
            let _drawing = io::stdout().lock();
            restore();
            std::process::exit(128 + number);
        }
    }
}

fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// At most so many characters.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(std::iter::once('~')).collect()
}
