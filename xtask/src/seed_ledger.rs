//! `cargo xtask seed-ledger`: fills a ledger as a large node does in a year, and measures queries on it.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::{
    command::{self, become_command},
    setup::{self, Purpose},
};

/// Fill a ledger with the daemon's own code, and measure its size and queries
///
/// A full year of 1,000 containers takes half an hour and 4 GB. An existing file is only measured. Prints one
/// line for each query, with the milliseconds of every round.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask seed-ledger /var/tmp/ledger.sqlite --containers 100 --days 60
  cargo xtask seed-ledger /var/tmp/ledger.sqlite         a year of 1,000 containers in 4 classes
  cargo xtask seed-ledger /var/tmp/ledger.sqlite --rounds 9    measure it again")]
pub struct Options {
    /// Path of the ledger
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Number of containers, each with traffic in every bucket
    #[arg(long, value_name = "N", default_value_t = 1000)]
    containers: u32,
    /// Number of classes that each container uses
    #[arg(long, value_name = "N", default_value_t = 4)]
    classes: u32,
    /// Length of the history in days
    #[arg(long, value_name = "N", default_value_t = 365)]
    days: u32,
    /// Readings of five minutes for the last ten days only, one a day before: the same days and months in a fifth
    /// of the time, and few hours
    #[arg(long)]
    quick: bool,
    /// Rounds of each measurement
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    if options.containers == 0 || options.classes == 0 || options.classes > 255 {
        bail!("--containers must be at least 1, and --classes from 1 to 255");
    }
    command::require_place_for(&options.file)?;
    setup::ensure(Purpose::Build)?;
    let mut seed = Command::new("cargo");
    seed.current_dir(command::workspace())
        .args(["run", "--release", "--package", "traffic-ledger", "--features", "testing"])
        .args(["--example", "seed-ledger", "--"])
        .arg(std::path::absolute(&options.file)?)
        .args(
            [options.containers, options.classes, options.days, options.rounds]
                .map(|number| number.to_string()),
        )
        .args(options.quick.then_some("quick"));
    become_command(&mut seed)
}
