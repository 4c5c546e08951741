//! `cargo xtask pages`: writes the man pages and the completions, which packages contain.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    command::{self, become_command},
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
    let mut pages = Command::new("cargo");
    pages
        .current_dir(command::workspace())
        .args(["run", "--quiet", "--package", "traffic-user", "--example", "pages", "--"])
        .arg(directory);
    become_command(&mut pages)
}
