//! nutcracker's command line, so that init scripts and unit files of Twemproxy's users go on as they are: as
//! `memstore nutcracker …`, or by the program's name.
//!
//! What nutcracker's flags say is said to `memstore serve`; only what that does not know is done here: the daemon, the PID
//! file and the log file.
//! Source of the flags: `nutcracker --help` of 0.5.0.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{ArgAction, Args, Command};

use super::serve::serve_with;
use crate::admin::stats;
use crate::{Hooks, config};

/// nutcracker's flags.
#[derive(Args)]
pub struct Nutcracker {
    /// Print the version and exit
    #[arg(short = 'V', long, action = ArgAction::SetTrue)]
    version: bool,
    /// Test the configuration for errors and exit
    #[arg(short = 't', long)]
    test_conf: bool,
    /// Run as a daemon
    #[arg(short, long)]
    daemonize: bool,
    /// Print a description of the statistics and exit
    #[arg(short = 'D', long)]
    describe_stats: bool,
    /// Log level: 0 to 3 error, 4 warn, 5 and 6 info, 7 and 8 debug, 9 and above trace
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    verbose: u32,
    /// Log file, reopened on SIGHUP; default: standard error
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = "conf/nutcracker.yml")]
    conf_file: PathBuf,
    /// Port for statistics
    #[arg(short, long, value_name = "PORT")]
    stats_port: Option<u16>,
    /// Listen address for statistics
    #[arg(short = 'a', long, value_name = "ADDRESS")]
    stats_addr: Option<String>,
    /// Accepted for compatibility and ignored: statistics are always current
    #[arg(short = 'i', long, value_name = "MILLISECONDS")]
    stats_interval: Option<u64>,
    /// PID file, removed on exit
    #[arg(short, long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Accepted for compatibility and ignored: buffers have no fixed size
    #[arg(short, long, value_name = "BYTES")]
    mbuf_size: Option<u64>,
}

/// The words of the command line, with the subcommand before nutcracker's flags where the program is called so; its usage is
/// nutcracker's then.
pub fn arguments(mut command: Command, words: impl Iterator<Item = OsString>) -> (Command, Vec<OsString>) {
    let mut words: Vec<OsString> = words.collect();
    let is_nutcracker =
        words.first().is_some_and(|program| Path::new(program).file_name() == Some("nutcracker".as_ref()));
    if is_nutcracker {
        words.insert(1, "nutcracker".into());
        command = command
            .mut_subcommand("nutcracker", |nutcracker| nutcracker.override_usage("nutcracker [OPTIONS]"));
    }
    (command, words)
}

impl Nutcracker {
    /// Does what the flags say.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if self.version {
            say(&format!("This is memstore-{}, in nutcracker's place\n", env!("CARGO_PKG_VERSION")))?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.describe_stats {
            say(&stats::descriptions())?;
            return Ok(ExitCode::SUCCESS);
        }
        let file = self.conf_file.display();
        if self.test_conf {
            return Ok(match config::load(&self.conf_file) {
                Ok(_) => {
                    let _ = writeln!(io::stderr(), "nutcracker: configuration file '{file}' syntax is ok");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    let _ = writeln!(
                        io::stderr(),
                        "{error:#}\nnutcracker: configuration file '{file}' syntax is invalid"
                    );
                    ExitCode::FAILURE
                }
            });
        }
        // While there is still somebody to tell.
        config::load(&self.conf_file)?;
        let log = self.output.as_deref().map(open_log).transpose()?;
        if self.daemonize {
            daemonize().context("cannot run as a daemon")?;
        }
        if let Some(log) = log {
            rustix::stdio::dup2_stderr(log)?;
        }
        let _pid_file = self.pid_file.clone().map(PidFile);
        let (output, pid_file) = (self.output.clone(), self.pid_file.clone());
        let hangup = move || {
            // What rotates logs moves the file away and sends SIGHUP; where that fails the old file is as good as any.
            if let Some(log) = output.as_deref().and_then(|path| open_log(path).ok()) {
                let _ = rustix::stdio::dup2_stderr(log);
            }
        };
        // Not before the addresses are its own: the file may be that of a process that has them.
        let bound = move || pid_file.as_deref().map_or(Ok(()), write_pid);
        let hooks = Hooks { bound: Box::new(bound), hangup: Box::new(hangup) };
        serve_with(self.flags(), hooks).map(|()| ExitCode::SUCCESS)
    }

    /// The flags of `memstore serve` that mean the same.
    fn flags(&self) -> Vec<OsString> {
        let level = match self.verbose {
            0..=3 => "error",
            4 => "warn",
            5 | 6 => "info",
            7 | 8 => "debug",
            _ => "trace",
        };
        let mut flags: Vec<OsString> = vec!["-c".into(), self.conf_file.clone().into()];
        flags.extend(["--log-level".into(), level.into()]);
        if let Some(port) = self.stats_port {
            flags.extend(["-s".into(), port.to_string().into()]);
        }
        if let Some(address) = &self.stats_addr {
            flags.extend(["-a".into(), address.into()]);
        }
        flags
    }
}

fn say(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.with_context(|| format!("cannot open the log file {}", path.display()))
}

/// Goes on in a child of its own session, with the standard streams closed; the parent ends.
fn daemonize() -> io::Result<()> {
    // SAFETY: called before any other thread is started.
    #[allow(unsafe_code)]
    let result = unsafe { libc::daemon(1, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn write_pid(path: &Path) -> anyhow::Result<()> {
    std::fs::write(path, format!("{}\n", std::process::id()))
        .with_context(|| format!("cannot write the PID file {}", path.display()))
}

/// The file that holds the process's PID while it lives.
struct PidFile(PathBuf);

impl Drop for PidFile {
    fn drop(&mut self) {
        let held = std::fs::read_to_string(&self.0).unwrap_or_default();
        if held.trim() == std::process::id().to_string() {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
