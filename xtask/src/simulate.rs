//! `cargo xtask simulate`: runs histories of a simulated node against the ledger, and compares its figures.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{self, become_command};

const TEST: &str = "tests::simulator::every_history_ends_with_the_right_sums";

/// Run simulated histories of a node against the ledger
///
/// Each history comes from its seed: years of readings, wrong clocks, reboots, power failures, clones, restored
/// copies, closed months, and kills at any write. A failure prints its seed. The tests run the first 2,000.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask simulate                       the histories with seeds 0 to 9,999
  cargo xtask simulate --histories 1000000   about a working day on two cores
  cargo xtask simulate --seed 4711           one history, compared after each step")]
pub struct Options {
    /// Number of histories
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    histories: u64,
    /// Seed of the first history
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first: u64,
    /// Run only the history with this seed
    #[arg(long, value_name = "SEED", conflicts_with_all = ["histories", "first"])]
    seed: Option<u64>,
    /// Number of threads [default: all CPUs]
    #[arg(long, value_name = "N")]
    threads: Option<u64>,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    if options.histories == 0 || options.threads == Some(0) {
        bail!("--histories and --threads must be at least 1");
    }
    let mut test = Command::new("cargo");
    test.current_dir(command::workspace())
        .args(["test", "--release", "--package", "traffic-ledger", "--lib", "--", "--exact", TEST])
        .arg("--nocapture")
        .env("TRAFCTL_HISTORIES", options.histories.to_string())
        .env("TRAFCTL_FIRST", options.first.to_string());
    for (name, value) in [("TRAFCTL_SEED", options.seed), ("TRAFCTL_THREADS", options.threads)] {
        match value {
            Some(value) => test.env(name, value.to_string()),
            None => test.env_remove(name),
        };
    }
    become_command(&mut test)
}
