//! `cargo xtask build`: builds every program of the host. `trafctl` contains the kernel program.

use anyhow::Result;

use crate::{
    command::{self, HOST_CRATES, cargo},
    setup::{self, Purpose},
};

/// Build everything; install missing tools first
///
/// The programs are in target/debug or target/release. Once the machine is set up, a plain `cargo build` does
/// the same.
#[derive(Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask build               build for development
  cargo xtask build --release     build for a node")]
pub struct Options {
    /// Build with optimisation
    #[arg(long)]
    release: bool,
}

impl Options {
    /// A build with optimisation.
    pub fn optimised() -> Self {
        Self { release: true }
    }
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Build)?;
    let mut command = cargo();
    command.arg("build").args(HOST_CRATES);
    if options.release {
        command.arg("--release");
    }
    command::run(&mut command)
}
