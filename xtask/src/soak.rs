//! `cargo xtask soak`: a long run of mixed traffic under disturbances.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::{
    build,
    command::{self, become_command, debug_directory, is_root},
    setup::{self, Purpose},
};

/// Send mixed traffic for a long time under disturbances, then compare
///
/// Bridged and routed containers and the tap of a machine send TCP, UDP, pings and odd frames over IPv4 and
/// IPv6. Meanwhile classes change, interfaces come and go, and the daemon is killed. At the end the figures
/// of the senders, the counters and the ledger must be equal, and the memory of the daemon must not have
/// grown. Needs root; no packet leaves the machine.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask soak                          run for an hour
  cargo xtask soak --minutes 10 --json soak.json")]
pub struct Options {
    /// Length of the run in minutes
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// Write all figures and every reading of the daemon's memory to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    if !is_root() {
        bail!("the run needs root: it creates network namespaces and loads a kernel program");
    }
    if let Some(file) = &options.json {
        command::require_place_for(file)?;
    }
    setup::ensure(Purpose::Demo)?;
    build::run(&build::Options::default())?;
    let programs = debug_directory()?;
    let mut soak = Command::new(programs.join("soak"));
    soak.current_dir(command::workspace()).env("TRAFCTL_BIN", programs.join("trafctl"));
    soak.arg((options.minutes * 60).to_string());
    if let Some(file) = &options.json {
        soak.arg(std::path::absolute(file)?);
    }
    become_command(&mut soak)
}
