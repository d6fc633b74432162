//! The signals that the process knows.

/// What a signal says.
pub enum Told {
    /// The process is to end.
    End(&'static str),
    /// The configuration is to be read again.
    Reload,
}

/// The signals the proxy knows.
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// The configuration is to be read again.
    hangup: tokio::signal::unix::Signal,
    on_hangup: Box<dyn Fn()>,
    /// Kept, so that these do not end the process: operators of Twemproxy send them.
    _harmless: Vec<tokio::signal::unix::Signal>,
}

impl Signals {
    /// From now on none ends the process by itself; `on_hangup` is called at every SIGHUP.
    pub fn new(on_hangup: Box<dyn Fn()>) -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let [more, less] = [libc::SIGTTIN, libc::SIGTTOU].map(SignalKind::from_raw);
        let harmless = [SignalKind::user_defined1(), SignalKind::user_defined2(), more, less].map(signal);
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            on_hangup,
            _harmless: harmless.into_iter().collect::<Result<_, _>>()?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End("SIGTERM"),
            _ = self.interrupt.recv() => Told::End("SIGINT"),
            _ = self.hangup.recv() => {
                (self.on_hangup)();
                Told::Reload
            }
        }
    }

    /// The next one that is to end the process.
    pub async fn end(&mut self) -> &'static str {
        loop {
            if let Told::End(name) = self.next().await {
                return name;
            }
        }
    }
}
