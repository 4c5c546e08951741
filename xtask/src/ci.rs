//! `cargo xtask ci`: runs every check that a change must pass.

use anyhow::Result;

use crate::{lint, prove, test};

/// Run every check that a change must pass: lint, quick proof, tests
///
/// The output ends with the summary of the test runner.
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
