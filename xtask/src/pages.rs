//! `cargo xtask pages`: writes the man pages and the completions, which packages contain.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Result;

use crate::{
    command::{self, become_command, cargo},
    setup::{self, Purpose},
};

/// Write the man pages of every command, and completions for bash, zsh and fish
///
/// The pages of the commands come from their help. Those of the file formats are in `traffic-user/man`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask pages
  man -l target/pages/man/trafctl-classes-check.1
  . target/pages/completions/trafctl             complete in this bash")]
pub struct Options {
    /// Directory for `man` and `completions` [default: target/pages]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Build)?;
    let directory = match &options.directory {
        Some(directory) => std::path::absolute(directory)?,
        None => command::workspace().join("target/pages"),
    };
    become_command(&mut writer(&directory))
}

/// Writes them below a directory, for a task that goes on.
///
/// # Errors
/// When the program that writes them cannot be built or fails.
pub fn write(directory: &Path) -> Result<()> {
    command::run(writer(directory).stdout(Stdio::null()))
}

fn writer(directory: &Path) -> Command {
    let mut pages = cargo();
    pages.args(["run", "--quiet", "--package", "traffic-user", "--example", "pages", "--"]).arg(directory);
    pages
}
