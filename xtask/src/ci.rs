//! `cargo xtask ci`: what a change must pass.

use anyhow::Result;

use crate::{lint, prove, test};

/// Run lint, the quick part of the proof, then test: what a change must pass
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
    prove::run(&prove::Options::quick())?;
    test::run(&test::Options::default())
}
