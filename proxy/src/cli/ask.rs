//! `memstore drain`, `reload`, `ready` and `alive`: what asks a running proxy.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::common::{Format, print};
use super::plain::clean_lines;
use crate::admin;
use crate::secret::Secret;

/// How long a proxy may take to answer a question.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The same for what changes it: a reload waits for new shards.
const CHANGE_LIMIT: Duration = Duration::from_secs(120);

/// Which proxy is asked.
#[derive(Args, Clone)]
pub struct Whom {
    /// Admin address of the proxy, or the path of its Unix socket
    #[arg(long, value_name = "HOST:PORT or /PATH", env = "MEMSTORE_ADMIN", default_value = "127.0.0.1:9121")]
    admin: String,
    /// File with the token of the admin server
    #[arg(long, value_name = "FILE", env = "MEMSTORE_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl Whom {
    fn token(&self) -> anyhow::Result<Option<Secret>> {
        self.token_file.as_deref().map(Secret::of_file).transpose()
    }

    /// Its answer, status and body, within this time. In the body is nothing that a terminal takes for orders; in a JSON document such
    /// characters are escaped, so whoever reads that has to mind the texts in it.
    pub fn ask(&self, method: &str, path: &str, limit: Duration) -> anyhow::Result<(u16, String)> {
        let token = self.token()?;
        let (status, body) = admin::ask(&self.admin, method, path, token.as_ref().map(Secret::expose), limit)
            .with_context(|| format!("cannot query the proxy at {}", self.admin))?;
        Ok((status, clean_lines(&body)))
    }
}

/// What is asked, and how the answer is shown.
#[derive(Args)]
pub struct Ask {
    #[command(flatten)]
    whom: Whom,
    /// Output format: text, or one JSON object
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

impl Ask {
    /// What the proxy says: the status and the body.
    pub fn send(&self, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
        self.whom.ask(method, path, if method == "GET" { ANSWER_LIMIT } else { CHANGE_LIMIT })
    }

    /// What the proxy says as it goes on: `show` gets it as it comes, bytes that a terminal might take for orders too.
    pub fn follow(
        &self,
        path: &str,
        show: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<(u16, String)> {
        let token = self.whom.token()?;
        let (status, said) =
            admin::follow(&self.whom.admin, path, token.as_ref().map(Secret::expose), ANSWER_LIMIT, show)
                .with_context(|| format!("cannot query the proxy at {}", self.whom.admin))?;
        Ok((status, clean_lines(&said)))
    }
}

/// Asks a running proxy; prints what it says.
pub fn ask(method: &str, path: &str, asked: &Ask) -> anyhow::Result<ExitCode> {
    let (status, body) = match asked.send(method, path) {
        Err(error) if asked.format == Format::Json => {
            let answer = serde_json::json!({"ok": false, "status": null, "answer": format!("{error:#}")});
            print(&format!("{answer}\n"))?;
            return Ok(ExitCode::FAILURE);
        }
        told => told?,
    };
    let is_success = (200..300).contains(&status);
    match asked.format {
        Format::Json => {
            let answer = serde_json::json!({"ok": is_success, "status": status, "answer": body.trim_end()});
            print(&format!("{answer}\n"))?;
        }
        Format::Text if is_success => print(&body)?,
        Format::Text => anyhow::bail!("{status}: {}", body.trim_end()),
    }
    Ok(match status {
        _ if !is_success => ExitCode::FAILURE,
        status if path == "/reload" && status == admin::RESTART_NEEDED.as_u16() => ExitCode::from(3),
        _ => ExitCode::SUCCESS,
    })
}
