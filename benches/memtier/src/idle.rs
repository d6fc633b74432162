//! What many clients that do nothing cost a proxy in memory.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::client::Client;
use crate::measurement::IdleMemory;
use crate::protocol;
use crate::proxy::Proxy;
use crate::usage::Memory;
use crate::workload::Workload;

/// Connects the workload's clients and watches the proxy's memory.
pub fn measure(proxy: &Proxy, workload: &Workload) -> Result<IdleMemory> {
    let count = workload.clients;
    let before = settled(proxy)?;
    let per_client = || Ok::<f64, anyhow::Error>((settled(proxy)? - before) / count as f64);
    let mut clients = Vec::with_capacity(count);
    for number in 0..count {
        let client = Client::connect(proxy.port, workload.protocol);
        clients.push(client.with_context(|| format!("client {number} of {count}"))?);
    }
    let connected = per_client()?;
    for client in &mut clients {
        client.ask(|protocol, output| [protocol.ping(output)]).context("PING")?;
    }
    let after_ping = per_client()?;
    for (client, number) in clients.iter_mut().zip((1..=workload.keys).cycle()) {
        client.ask(|protocol, output| [protocol.get(output, &protocol::key(number))]).context("GET")?;
    }
    let after_get = per_client()?;
    drop(clients);
    let after_close = per_client()?;
    Ok(IdleMemory { clients: count, connected, after_ping, after_get, after_close })
}

/// Resident bytes, once the proxy has had time to see what clients did and to give back what it will.
fn settled(proxy: &Proxy) -> Result<f64> {
    std::thread::sleep(Duration::from_secs(1));
    Ok(Memory::of(proxy.process.pid)?.resident_bytes as f64)
}
