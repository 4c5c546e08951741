//! cargo-nextest, which runs every test in a process of its own: a test that changes its namespace, or hangs, harms no other.

use anyhow::Result;

use super::{State, Step};
use crate::{
    command::{ask, cargo, run_watched},
    report::Progress,
};

/// A version that the workspace's oldest compiler builds.
const VERSION: &str = "0.9.143";

pub(super) struct Nextest;

/// The version of cargo-nextest, if it is there.
pub fn nextest() -> Option<String> {
    let answer = ask(cargo().args(["nextest", "--version"]))?;
    // `cargo-nextest 0.9.143 (commit and date)`, and more lines after it.
    Some(answer.split_whitespace().nth(1)?.to_owned())
}

impl Step for Nextest {
    fn name(&self) -> &'static str {
        "cargo-nextest"
    }

    fn look(&self) -> State {
        match nextest() {
            Some(version) => State::Present(version),
            None => State::Missing(format!("{VERSION} (compiles for several minutes)")),
        }
    }

    fn install(&self, progress: &Progress) -> Result<()> {
        let mut command = cargo();
        command.args(["install", "cargo-nextest", "--version", VERSION, "--locked"]);
        // Without the code by which it updates itself, and a TLS library for that, it compiles much faster.
        command.args(["--no-default-features", "--features", "default-no-update"]);
        run_watched(&mut command, progress)
    }

    fn substitute(&self) -> Option<&'static str> {
        Some("the tests run with `cargo test`")
    }
}
