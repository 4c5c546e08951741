//! `cargo xtask simulate`: runs histories of a simulated node against the ledger, and compares its figures.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{self, become_command};

/// Crate and filter of the tests that run histories of a node.
const OF_A_NODE: [&str; 2] = ["traffic-ledger", "tests::simulator::every_history_ends_with_the_right_sums"];
/// The same of ledgers that are shipped to a store.
const OF_A_STORE: [&str; 2] = ["traffic-store", "holds_what_the_ledger_holds"];

/// Run simulated histories of a node against the ledger
///
/// Each history comes from its seed: years of readings, wrong clocks, reboots, power failures, clones, restored
/// copies, closed months, and kills at any write. A failure prints its seed. The tests run the first 2,000.
///
/// With --store, a node is shipped to a store by connections that fail, repeat and delay anything; its ledger is restored
/// from copies, and store and shipper are older for a while. The tests run the first 500.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask simulate                       the histories with seeds 0 to 9,999
  cargo xtask simulate --histories 1000000   about a working day on two cores
  cargo xtask simulate --seed 4711           one history, compared after each step
  cargo xtask simulate --store               10,000 histories of a node and its store")]
pub struct Options {
    /// Number of histories
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    histories: u64,
    /// Seed of the first history
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first: u64,
    /// Run only the history with this seed
    #[arg(long, value_name = "SEED", conflicts_with_all = ["histories", "first", "store"])]
    seed: Option<u64>,
    /// Number of threads [default: all CPUs]
    #[arg(long, value_name = "N", conflicts_with = "store")]
    threads: Option<u64>,
    /// Run histories of a node and the store that it is shipped to
    #[arg(long)]
    store: bool,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    if options.histories == 0 || options.threads == Some(0) {
        bail!("--histories and --threads must be at least 1");
    }
    let [package, tests] = if options.store { OF_A_STORE } else { OF_A_NODE };
    let mut test = Command::new("cargo");
    test.current_dir(command::workspace())
        .args(["test", "--release", "--package", package, "--lib", "--", "--nocapture", tests])
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
