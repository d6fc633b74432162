//! `memstore commands`: what becomes of every command of Redis and Valkey.

use clap::{Args, ValueEnum};

use super::common::print;
use crate::protocol::handbook;

/// How they are shown.
#[derive(Args)]
pub struct Commands {
    /// Output format: Markdown tables, or JSON
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Markdown,
    Json,
}

/// Shows them.
pub fn commands(asked: &Commands) -> anyhow::Result<()> {
    print(&match asked.format {
        Format::Markdown => handbook::markdown(),
        Format::Json => handbook::json(),
    })
}
