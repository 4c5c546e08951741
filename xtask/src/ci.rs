//! `cargo xtask ci`: what a change must pass.

use anyhow::Result;

use crate::{lint, test};

/// Run lint, then test: what a change must pass
///
/// The last lines are the test runner's.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  cargo xtask ci")]
pub struct Options {}

/// Runs the task.
pub fn run(_: &Options) -> Result<()> {
    lint::run(&lint::Options::default())?;
    test::run(&test::Options::default())
}
