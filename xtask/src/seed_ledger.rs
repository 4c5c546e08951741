//! `cargo xtask seed-ledger`: a ledger as a large node has it after a year, and what asking it costs.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::{
    command::{self, become_command},
    setup::{self, Purpose},
};

/// Fill a ledger through the daemon's own code, and print what its size and its answers cost
///
/// A full year of 1,000 containers takes half an hour and 4 GB. A file that is there already is only measured: a line for each
/// question, with the milliseconds of every round.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask seed-ledger /var/tmp/ledger.sqlite --containers 100 --days 60
  cargo xtask seed-ledger /var/tmp/ledger.sqlite         a year of 1,000 containers with 4 classes
  cargo xtask seed-ledger /var/tmp/ledger.sqlite --rounds 9    measure it again")]
pub struct Options {
    /// The ledger
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Containers, all of them busy in every bucket
    #[arg(long, value_name = "N", default_value_t = 1000)]
    containers: u32,
    /// Classes that each of them uses
    #[arg(long, value_name = "N", default_value_t = 4)]
    classes: u32,
    /// Days up to the last reading
    #[arg(long, value_name = "N", default_value_t = 365)]
    days: u32,
    /// How often each thing is measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    if options.containers == 0 || options.classes == 0 || options.classes > 255 {
        bail!("at least one container and 1 to 255 classes make a ledger");
    }
    setup::ensure(Purpose::Build)?;
    let mut seed = Command::new("cargo");
    seed.current_dir(command::workspace())
        .args(["run", "--release", "--package", "traffic-ledger", "--example", "seed-ledger", "--"])
        .arg(std::path::absolute(&options.file)?)
        .args(
            [options.containers, options.classes, options.days, options.rounds]
                .map(|number| number.to_string()),
        );
    become_command(&mut seed)
}
