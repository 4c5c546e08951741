//! `cargo xtask test`: every test, those on real kernels included.

use std::ffi::OsString;

use anyhow::{Result, bail};

use crate::{
    command::{self, HOST_CRATES, INTEGRATION_TESTS, become_command, cargo, debug_directory, is_root},
    setup::{self, Purpose, nextest},
};

/// Run every test, after setting up what is missing
///
/// Doc tests first, then unit and integration tests in one run of cargo-nextest (of `cargo test` where nextest could not
/// be installed). The integration tests make network namespaces and load the kernel program, so they need root;
/// without it everything else runs, and the task fails. The environment variable TRAFCTL_BIN tells tests where the
/// `trafctl` to test is.
#[derive(Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test                                    run everything
  cargo xtask test -- wire                            run the tests with `wire` in their name
  cargo xtask test -- -E 'package(traffic-tests)'     run the integration tests
  cargo xtask test -- --no-capture venet0             see what the tests print")]
pub struct Options {
    /// Arguments for the test runner; with any, the doc tests are left out
    #[arg(last = true)]
    runner: Vec<OsString>,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    let root = is_root();
    setup::ensure(if root { Purpose::AllTests } else { Purpose::UnitTests })?;
    // In one build with the tests, so that both see the same features and nothing is compiled twice.
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
    bail!("the tests of {} were left out: they need root; all others passed", INTEGRATION_TESTS.join(" and "))
}
