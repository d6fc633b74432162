//! `memstore settings`: all settings that there are.

use clap::{Args, ValueEnum};

use super::common::print;
use crate::config;

/// How they are shown.
#[derive(Args)]
pub struct Settings {
    /// Output format: Markdown table, or JSON schema
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Markdown,
    JsonSchema,
}

/// Shows them.
pub fn settings(asked: &Settings) -> anyhow::Result<()> {
    print(&match asked.format {
        Format::Markdown => config::settings::markdown(),
        Format::JsonSchema => config::json_schema::text(),
    })
}
