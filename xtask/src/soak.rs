//! `cargo xtask soak`: everything at once, for a long time.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::{
    build,
    command::{self, become_command, debug_directory, is_root},
    setup::{self, Purpose},
};

/// Send mixed traffic for a time while classes change, interfaces come and go and the daemon is killed; then compare
///
/// Bridged and routed containers and a machine's tap, TCP, UDP, pings and odd frames over IPv4 and IPv6. In the end the
/// senders' own figures, the counters and the ledger must be equal, and the daemon's memory flat. Needs root; nothing
/// leaves the machine.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask soak                          an hour
  cargo xtask soak --minutes 10 --json soak.json")]
pub struct Options {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// Where to write all figures, with every reading of the daemon's memory, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    if !is_root() {
        bail!("the run needs root: it makes network namespaces and loads a kernel program");
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
