//! `memstore man` and `memstore completions`: what is written from the command line itself, so that it cannot say anything else.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;

use super::common::print;

/// Where the pages go.
#[derive(Args)]
pub struct Man {
    /// Folder, made if it is missing: memstore.1, and a page for each subcommand
    folder: PathBuf,
}

/// Which shell completes.
#[derive(Args)]
pub struct Completions {
    /// Shell that reads them
    shell: Shell,
}

/// Writes a page for `line` and each of its subcommands.
pub fn man(asked: &Man, line: Command) -> anyhow::Result<()> {
    let folder = &asked.folder;
    // Pages that say how to ask for help would be as many again.
    let line = line.disable_help_subcommand(true);
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(line, folder))
        .with_context(|| format!("cannot write the pages to {}", folder.display()))
}

/// Prints what the shell is to read.
pub fn completions(asked: &Completions, mut line: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let name = line.get_name().to_owned();
    clap_complete::generate(asked.shell, &mut line, name, &mut script);
    print(&String::from_utf8_lossy(&script))
}
