//! `cargo xtask build`: everything that runs on the host, and the kernel program inside it.

use anyhow::Result;

use crate::{
    command::{self, HOST_CRATES, cargo},
    setup::{self, Purpose},
};

/// Build everything, after setting up what is missing
///
/// The programs are left in target/debug or target/release. A plain `cargo build` does the same once the machine is
/// set up.
#[derive(Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask build               build for development
  cargo xtask build --release     build for use")]
pub struct Options {
    /// Build optimised
    #[arg(long)]
    release: bool,
}

impl Options {
    /// Build for use.
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
