//! The terminal: whether there is one that wants colours, how large it is, and what is pressed while something is shown live.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

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

/// A terminal that is ours: nothing of what is typed is shown, and the screen from before comes back when it is dropped.
pub struct Screen {
    before: Termios,
}

impl Screen {
    /// Takes the terminal.
    pub fn enter() -> io::Result<Self> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err(io::Error::other("this needs a terminal"));
        }
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &raw)?;
        let screen = Self { before };
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
        let _ = put("\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &self.before);
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
