//! `memstore check --connect`: what was found at the address of each shard, and what to do where that is not right.

use serde_json::{Value, json};

use super::plain::clean;
use super::terminal::Style;
use crate::config;
use crate::control::look::{Look, Seen};
use crate::failure::ShardFailure;

/// Why the shard is of no use, if so.
pub fn problem(look: &Look) -> Option<&ShardFailure> {
    look.found.as_ref().err()
}

/// What of it is most likely not meant.
fn warning(seen: &Seen, pool: &config::Pool) -> Option<String> {
    if let Some(databases) = seen.databases {
        return Some(format!(
            "it has {databases} databases and clients of the pool may select {}; set databases: {databases}, or raise it on the server",
            pool.databases
        ));
    }
    let primary = seen.replica_of.as_ref().filter(|_| pool.cluster().is_none())?;
    Some(format!("it is a replica of {primary}, so writes are refused; list the primary instead"))
}

/// What to do about a failure.
fn advice(failure: &ShardFailure, pool: &config::Pool) -> &'static str {
    use ShardFailure as F;
    let words = match failure {
        F::HandshakeRefused(words) => words.as_str(),
        _ => "",
    };
    match failure {
        F::ConnectRefused => {
            "start the server, or correct its address; a server that is there may listen elsewhere (bind, port)"
        }
        F::ConnectTimeout => {
            "correct the address, or let connections through (firewall, NetworkPolicy, security group)"
        }
        F::Unresolved(_) => "correct the host name, or let this machine resolve it (DNS, /etc/hosts)",
        F::LocalResources(_) => "give this process more of it (ulimit -n), or try again later",
        F::TlsFailed(_) => {
            "see servers_tls: ca, server_name and verify have to fit the server's certificate; a server without TLS on that port needs a pool without servers_tls"
        }
        F::ConnectFailed(_) | F::Closed | F::Reset | F::Malformed(_) | F::ResponseTimeout
            if pool.servers_tls.is_none() =>
        {
            "see whether it speaks TLS on that port (then set servers_tls), and the protocol of the pool (redis: true or false)"
        }
        F::ConnectFailed(_) | F::Closed | F::Reset | F::Malformed(_) | F::ResponseTimeout => {
            "see the protocol of the pool (redis: true or false), and the server's own log"
        }
        // Each answers the other's requests so.
        _ if words.starts_with("ERROR") || words.contains("unknown command") => {
            "see the protocol of the pool: redis: true for Redis and Valkey, false for memcached"
        }
        _ if words.starts_with("NOAUTH") => {
            "set redis_auth_file (or redis_auth, redis_auth_env) to the server's password"
        }
        _ if words.starts_with("WRONGPASS") || words.contains("invalid password") => {
            "correct the password, and redis_user if the server has a user of its own for the proxy"
        }
        _ if words.starts_with("NOPERM") => "give the server's user what it may not do (ACL SETUSER)",
        _ if words.starts_with("LOADING") || words.starts_with("BUSY") => "try again when it is ready",
        _ if words.starts_with("DENIED") => {
            "set a password on the server, or protected-mode no where its network is closed"
        }
        _ => "see the server's own log",
    }
}

/// What was found, for people.
pub fn text(look: &Look, pool: &config::Pool, colours: bool) -> String {
    let (name, address) = (clean(&look.shard.name), clean(&look.shard.address.to_string()));
    let who = if name == address { name } else { format!("{name} ({address})") };
    match &look.found {
        Ok(seen) => {
            let version = seen.version.as_deref().map_or("answers".to_owned(), clean);
            let mut text = format!("  {who}: {}, {version}\n", Style::Good.of("ok", colours));
            if let Some(warning) = warning(seen, pool) {
                let words = clean(&warning);
                text.push_str(&format!("    {}\n", Style::Warn.of(&format!("warning: {words}"), colours)));
            }
            text
        }
        Err(failure) => format!(
            "  {who}: {}\n    {}\n",
            Style::Bad.of(&clean(&failure.to_string()), colours),
            advice(failure, pool)
        ),
    }
}

/// The same as JSON.
pub fn json(look: &Look, pool: &config::Pool) -> Value {
    let mut told = json!({
        "shard": look.shard.name, "address": look.shard.address.to_string(), "ok": look.found.is_ok(),
        "version": null, "warning": null, "error": null, "advice": null,
    });
    match &look.found {
        Ok(seen) => {
            told["version"] = json!(seen.version);
            told["warning"] = json!(warning(seen, pool));
        }
        Err(failure) => {
            told["error"] = failure.to_string().into();
            told["advice"] = advice(failure, pool).into();
        }
    }
    told
}
