//! The shards behind the proxies: real servers of each protocol that keep nothing on disk.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::client::{Client, warm_up};
use crate::process::{Nursery, Process, find_program, free_port};
use crate::protocol::Protocol;

/// One redis-server or memcached.
pub struct Shard {
    /// Where on loopback it listens.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// The server.
    pub process: Process,
}

impl Shard {
    /// Starts one and waits until it answers.
    pub fn start(nursery: &Nursery, name: &str, protocol: Protocol) -> Result<Shard> {
        let server = protocol.server();
        let Some(program) = find_program(server) else {
            bail!("{server} is not on PATH, and the shards are such servers: apt-get install {server}");
        };
        let port = free_port()?;
        let mut command = Command::new(program);
        match protocol {
            Protocol::Resp => {
                command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
                command.args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]);
                command.args(["--tcp-backlog", "4096", "--maxclients", "30000"]);
                command.arg("--dir").arg(nursery.scratch());
            }
            Protocol::Memcache => {
                command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-U", "0"]);
                // One thread, as redis-server has; and memory that evicts nothing, or GETs would miss.
                command.args(["-t", "1", "-m", "1024"]);
                // It refuses to be root and ignores this otherwise.
                command.args(["-u", "nobody"]);
            }
        }
        let process = nursery.start(name, &mut command)?;
        warm_up(port, protocol, || match process.exited() {
            None => Ok(()),
            Some(status) => bail!("it ended with {status}: {}", process.last_words()),
        })
        .with_context(|| format!("{name} did not start"))?;
        Ok(Shard { port, protocol, process })
    }

    /// Removes all its keys.
    pub fn empty(&self) -> Result<()> {
        let mut client = Client::connect(self.port, self.protocol)?;
        client.ask(|protocol, output| [protocol.flush(output)]).context("a shard cannot be emptied")
    }
}
