//! `cargo xtask test`: runs every test, including those that load the program into the kernel.

use std::ffi::OsString;

use anyhow::{Result, bail};

use crate::{
    command::{self, HOST_CRATES, INTEGRATION_TESTS, become_command, cargo, debug_directory, is_root},
    setup::{self, Purpose, nextest},
};

/// Run every test; install missing tools first
///
/// Runs the doc tests, then all others in one run of cargo-nextest, or of `cargo test` where nextest cannot
/// be installed. Integration tests create network namespaces and load the kernel program, so they need root.
/// Without root all other tests run, and the task fails. TRAFCTL_BIN names the `trafctl` to test.
#[derive(Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test                                    run everything
  cargo xtask test -- wire                            run the tests with `wire` in their name
  cargo xtask test -- -E 'package(traffic-tests)'     run the integration tests
  cargo xtask test -- --no-capture venet0             show the output of the tests")]
pub struct Options {
    /// Arguments for the test runner; any argument also skips the doc tests
    #[arg(last = true)]
    runner: Vec<OsString>,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    let root = is_root();
    setup::ensure(if root { Purpose::AllTests } else { Purpose::UnitTests })?;
    // One build with the tests: both get the same features, and nothing is compiled twice.
    command::run(cargo().arg("build").args(HOST_CRATES).args(["--bins", "--tests"]))?;
    if options.runner.is_empty() {
        command::run(cargo().args(["test", "--quiet", "--doc"]).args(HOST_CRATES))?;
    }

    let mut tests = cargo();
    if nextest().is_some() {
        tests.args(["nextest", "run"]);
    } else {
        tests.args(["test", "--lib", "--bins", "--tests"]);
    }
    tests.args(HOST_CRATES).env("TRAFCTL_BIN", debug_directory()?.join("trafctl"));
    if root {
        return become_command(tests.args(&options.runner));
    }
    command::run(
        tests.args(INTEGRATION_TESTS.map(|name| format!("--exclude={name}"))).args(&options.runner),
    )?;
    bail!(
        "the tests of {} did not run because they need root; all others passed",
        INTEGRATION_TESTS.join(" and ")
    )
}
