//! `cargo xtask demo`: shows trafctl on real traffic, in temporary namespaces.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    build,
    command::{self, become_command, debug_directory, is_root},
    setup::{self, Purpose},
};

/// Show trafctl on real traffic; install missing tools first
///
/// Creates a temporary node in a network namespace, with bridged and routed containers and the tap of a
/// virtual machine. Sends traffic between them and prints the counts of `trafctl dump` beside those of the
/// senders. Needs root; no packet leaves the machine.
///
/// With --fleet, it creates three nodes that ship their ledgers to a PostgreSQL, which is stopped half way while a
/// container moves, and prints the figures of senders, ledgers and store side by side.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask demo                show it and clean up
  cargo xtask demo --keep         keep the node, and print how to inspect it
  cargo xtask demo --fleet        show three nodes and their store")]
pub struct Options {
    /// Keep the node, and print how to inspect it
    #[arg(long)]
    keep: bool,
    /// Show three nodes and their store in PostgreSQL
    #[arg(long, conflicts_with = "keep")]
    fleet: bool,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    if !is_root() {
        bail!("the demonstration needs root: it creates network namespaces and loads a kernel program");
    }
    setup::ensure(Purpose::Demo)?;
    build::run(&build::Options::default())?;
    // Not `cargo run`: for this one package it would resolve other features and compile again.
    let programs = debug_directory()?;
    let mut demo = Command::new(programs.join("demo"));
    demo.current_dir(command::workspace()).env("TRAFCTL_BIN", programs.join("trafctl"));
    if options.keep {
        demo.arg("--keep");
    }
    if options.fleet {
        demo.arg("--fleet");
    }
    become_command(&mut demo)
}
