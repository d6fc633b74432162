//! `memstore monitor`: requests of a running proxy, as they are served.

use std::io::{Error, ErrorKind, Write as _};
use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;

use super::ask::Ask;
use super::hot::encoded;

/// What is watched.
#[derive(Args)]
pub struct Monitor {
    #[command(flatten)]
    asked: Ask,
    /// Only this pool
    #[arg(long)]
    pool: Option<String>,
    /// Only requests whose first key is on this shard
    #[arg(long)]
    shard: Option<String>,
    /// Only requests of this client: its id in CLIENT LIST, its IP address, or ADDRESS:PORT
    #[arg(long)]
    client: Option<String>,
    /// Only requests with a key that matches this pattern, as in KEYS
    #[arg(long)]
    pattern: Option<String>,
    /// Only one request in so many
    #[arg(long)]
    sample: Option<u64>,
}

/// Prints requests until the proxy ends the connection, or the reader has seen enough.
pub fn monitor(monitor: &Monitor) -> anyhow::Result<ExitCode> {
    let Monitor { asked, pool, shard, client, pattern, sample } = monitor;
    let sample = sample.map(|sample| sample.to_string());
    let given =
        [("pool", pool), ("shard", shard), ("client", client), ("pattern", pattern), ("sample", &sample)];
    let query: Vec<String> = given
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_deref()?))))
        .collect();
    let followed = asked.follow(&format!("/monitor?{}", query.join("&")), |lines| {
        Ok(std::io::stdout().write_all(&printable(lines)).and_then(|()| std::io::stdout().flush())?)
    });
    let is_enough = |error: &Error| error.kind() == ErrorKind::BrokenPipe;
    let (status, said) = match followed {
        Err(error) if error.downcast_ref().is_some_and(is_enough) => return Ok(ExitCode::SUCCESS),
        followed => followed?,
    };
    ensure!(status == 200, "{status}: {}", said.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// What a proxy sends is ASCII; of what is not no terminal is to take orders.
fn printable(lines: &[u8]) -> Vec<u8> {
    let shown = |&byte: &u8| if matches!(byte, b' '..=b'~' | b'\n') { byte } else { b'?' };
    lines.iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_orders_for_the_terminal_are_shown() {
        assert_eq!(printable(b"1.0 [0 a] \"\\x1b\"\n\x1b[2J\xc2\x9b"), b"1.0 [0 a] \"\\x1b\"\n?[2J??");
    }
}
