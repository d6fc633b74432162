//! The shards behind the proxies: real redis-servers that keep nothing on disk.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::client::{Client, warm_up};
use crate::process::{Nursery, Process, find_program, free_port};
use crate::protocol::Protocol;

/// One redis-server.
pub struct Shard {
    /// Where on loopback it listens.
    pub port: u16,
    /// The server.
    pub process: Process,
}

impl Shard {
    /// Starts one and waits until it answers.
    pub fn start(nursery: &Nursery, name: &str) -> Result<Shard> {
        let Some(program) = find_program("redis-server") else {
            bail!(
                "redis-server is not on PATH, and the shards are redis-servers: apt-get install redis-server"
            );
        };
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]);
        command.args(["--tcp-backlog", "4096", "--maxclients", "20000"]);
        command.arg("--dir").arg(nursery.scratch());
        let process = nursery.start(name, &mut command)?;
        warm_up(port, Protocol::Resp, || match process.exited() {
            None => Ok(()),
            Some(status) => bail!("it ended with {status}: {}", process.last_words()),
        })
        .with_context(|| format!("{name} did not start"))?;
        Ok(Shard { port, process })
    }

    /// Removes all its keys.
    pub fn empty(&self) -> Result<()> {
        let mut client = Client::connect(self.port, Protocol::Resp)?;
        client.ask(1, |protocol, output| protocol.flush(output)).context("a shard cannot be emptied")
    }
}
