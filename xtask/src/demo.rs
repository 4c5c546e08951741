//! `cargo xtask demo`: trafctl at work on real traffic, in namespaces that are thrown away.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    build,
    command::{self, become_command, debug_directory, is_root},
    setup::{self, Purpose},
};

/// Show trafctl at work on real traffic, after setting up what is missing
///
/// Makes a throwaway node in a network namespace, with bridged and routed containers and a virtual machine's tap, sends
/// traffic through them, and prints what `trafctl dump` counted beside what the senders did. Needs root; nothing
/// leaves the machine.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask demo                show it and clean up
  cargo xtask demo --keep         leave it standing, and say how to look around")]
pub struct Options {
    /// Leave the node standing, and say how to look around
    #[arg(long)]
    keep: bool,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    if !is_root() {
        bail!("the demonstration needs root: it makes network namespaces and loads a kernel program");
    }
    setup::ensure(Purpose::Demo)?;
    build::run(&build::Options::default())?;
    // Started directly: `cargo run` for the one package would resolve other features and compile once more.
    let programs = debug_directory()?;
    let mut demo = Command::new(programs.join("demo"));
    demo.current_dir(command::workspace()).env("TRAFCTL_BIN", programs.join("trafctl"));
    if options.keep {
        demo.arg("--keep");
    }
    become_command(&mut demo)
}
