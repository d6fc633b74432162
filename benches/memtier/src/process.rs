//! Child processes that end with us: by handle when dropped, and all of them on Ctrl-C.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// All children that run, and the folder their files are in.
#[derive(Clone)]
pub struct Nursery {
    children: Arc<Mutex<Children>>,
    scratch: Arc<Scratch>,
}

#[derive(Default)]
struct Children {
    running: Vec<Child>,
    /// Set by Ctrl-C: what would be started now, nobody would end.
    closed: bool,
}

/// A folder that goes when its last owner does.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Nursery {
    /// An empty one, with a scratch folder of its own.
    pub fn new() -> Result<Nursery> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let scratch = std::env::temp_dir().join(format!("memstore-bench-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
        Ok(Nursery { children: Arc::default(), scratch: Arc::new(Scratch(scratch)) })
    }

    /// Where configurations and logs go.
    pub fn scratch(&self) -> &Path {
        &self.scratch.0
    }

    /// Starts a child. What it prints goes to `NAME.log` in the scratch folder.
    pub fn start(&self, name: &str, command: &mut Command) -> Result<Process> {
        let log = self.scratch().join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let errors = output.try_clone().context("cannot duplicate a file handle")?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let mut children = self.lock();
        if children.closed {
            bail!("interrupted");
        }
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let pid = child.id();
        children.running.push(child);
        Ok(Process { pid, log, nursery: self.clone() })
    }

    /// Ends all children, lets no more be started, and removes the scratch folder. For Ctrl-C, after which
    /// nothing is dropped.
    pub fn close(&self) {
        let mut children = self.lock();
        children.closed = true;
        for mut child in children.running.drain(..) {
            end(&mut child);
        }
        let _ = std::fs::remove_dir_all(self.scratch());
    }

    fn lock(&self) -> MutexGuard<'_, Children> {
        // A list of handles is as good after a panic as before it.
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(child: &mut Child) {
    // Neither shards nor proxies have anything to save, so they are not asked.
    let _ = child.kill();
    let _ = child.wait();
}

/// A child, ended when this is dropped.
pub struct Process {
    /// Its process id.
    pub pid: u32,
    log: PathBuf,
    nursery: Nursery,
}

impl Process {
    /// How it ended, when it has.
    pub fn exited(&self) -> Option<ExitStatus> {
        let mut children = self.nursery.lock();
        let child = children.running.iter_mut().find(|child| child.id() == self.pid)?;
        child.try_wait().ok().flatten()
    }

    /// Waits for it to end by itself.
    pub fn wait(&self, at_most: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + at_most;
        while Instant::now() < deadline {
            if let Some(status) = self.exited() {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("it did not end within {} seconds", at_most.as_secs())
    }

    /// The last lines it printed.
    pub fn last_words(&self) -> String {
        const LINES_MAX: usize = 5;
        let mut text = Vec::new();
        let _ = File::open(&self.log).and_then(|mut file| file.read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut children = self.nursery.lock();
        if let Some(place) = children.running.iter().position(|child| child.id() == self.pid) {
            end(&mut children.running.swap_remove(place));
        }
    }
}

/// A port of the system's choice on which nobody listens now. It is free again when this returns: proxies
/// want a number, not a socket. So none is given out twice.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind(loopback(0)).context("no free port on loopback")?;
        let port = listener.local_addr().context("a listener without an address")?.port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
}

/// This port on loopback; nothing here listens or connects anywhere else.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Where on PATH a program is.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_is_gone() {
        let nursery = Nursery::new().unwrap();
        let sleeper = nursery.start("sleeper", Command::new("sleep").arg("60")).unwrap();
        let proc = PathBuf::from(format!("/proc/{}", sleeper.pid));
        assert!(proc.exists() && sleeper.exited().is_none());
        drop(sleeper);
        assert!(!proc.exists());
    }

    #[test]
    fn a_closed_nursery_starts_nothing() {
        let nursery = Nursery::new().unwrap();
        let sleeper = nursery.start("sleeper", Command::new("sleep").arg("60")).unwrap();
        let proc = PathBuf::from(format!("/proc/{}", sleeper.pid));
        nursery.close();
        assert!(!proc.exists());
        assert!(nursery.start("late", &mut Command::new("true")).is_err());
    }

    #[test]
    fn last_words_are_what_it_printed() {
        let nursery = Nursery::new().unwrap();
        let shell = nursery.start("sh", Command::new("sh").args(["-c", "seq 9; exit 3"])).unwrap();
        assert_eq!(shell.wait(Duration::from_secs(10)).unwrap().code(), Some(3));
        assert_eq!(shell.last_words(), "5\n6\n7\n8\n9");
    }
}
