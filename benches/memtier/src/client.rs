//! A client that waits: for warm-up, for filling keys in, for idle connections. Not for load.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::loopback;
use crate::protocol::{self, Asked, Protocol, ReplyKind};
use crate::workload::Workload;

/// One connection.
pub struct Client {
    stream: TcpStream,
    protocol: Protocol,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Client {
    /// Connects to a port of loopback.
    pub fn connect(port: u16, protocol: Protocol) -> Result<Client> {
        const PATIENCE: Duration = Duration::from_secs(5);
        let stream = TcpStream::connect_timeout(&loopback(port), PATIENCE)
            .with_context(|| format!("cannot connect to port {port}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream, protocol, output: Vec::new(), input: Vec::new() })
    }

    /// Sends the requests `write` writes and waits for a good reply to each.
    pub fn ask<const REQUESTS: usize>(
        &mut self,
        write: impl FnOnce(Protocol, &mut Vec<u8>) -> [Asked; REQUESTS],
    ) -> Result<()> {
        self.output.clear();
        let asked = write(self.protocol, &mut self.output);
        self.stream.write_all(&self.output)?;
        asked.into_iter().try_for_each(|asked| self.hear(asked))
    }

    fn hear(&mut self, asked: Asked) -> Result<()> {
        loop {
            if let Some(reply) = self.protocol.reply(&self.input, asked)? {
                let bytes: Vec<u8> = self.input.drain(..reply.length).collect();
                return match reply.kind {
                    ReplyKind::Fine => Ok(()),
                    ReplyKind::Miss => bail!("a key that was set is not there"),
                    ReplyKind::Error => bail!("it answered {:?}", String::from_utf8_lossy(&bytes).trim_end()),
                };
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => bail!("it closed the connection"),
                bytes => self.input.extend_from_slice(&chunk[..bytes]),
            }
        }
    }
}

/// Waits until keys can be set and read through this port. `alive` says why it would be in vain.
pub fn warm_up(port: u16, protocol: Protocol, alive: impl Fn() -> Result<()>) -> Result<()> {
    // Enough keys that every shard gets some.
    const KEYS: u32 = 100;
    const PATIENCE: Duration = Duration::from_secs(10);
    let deadline = Instant::now() + PATIENCE;
    loop {
        alive()?;
        let attempt = Client::connect(port, protocol).and_then(|mut client| {
            (0..KEYS).try_for_each(|number| {
                let key = format!("warm-up-{number}");
                client.ask(|protocol, output| [protocol.set(output, &key, b"x"), protocol.get(output, &key)])
            })
        });
        match attempt {
            Ok(()) => return Ok(()),
            Err(failure) if Instant::now() > deadline => {
                return Err(failure.context("it does not answer SET and GET"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Sets every key of the workload, so that GETs hit. One at a time: a proxy that keeps the buffers it once
/// needed would show the peak memory of the filling instead of the load's.
pub fn fill(port: u16, workload: &Workload) -> Result<()> {
    let mut client = Client::connect(port, workload.protocol)?;
    let value = value(workload.value_bytes);
    for number in 1..=workload.keys {
        client
            .ask(|protocol, output| [protocol.set(output, &protocol::key(number), &value)])
            .context("cannot fill the keys in")?;
    }
    Ok(())
}

/// A value of this length.
pub fn value(bytes: usize) -> Vec<u8> {
    vec![b'x'; bytes]
}
