//! cargo-nextest, which runs each test in its own process. A test that changes its namespace or blocks
//! affects no other.

use anyhow::Result;

use super::{State, Step};
use crate::{
    command::{ask, cargo, run_watched},
    report::Progress,
};

/// A version that the oldest supported compiler can build.
const VERSION: &str = "0.9.143";

pub(super) struct Nextest;

/// The version of cargo-nextest, if it is installed.
pub fn nextest() -> Option<String> {
    let answer = ask(cargo().args(["nextest", "--version"]))?;
    // The first line is `cargo-nextest 0.9.143 (commit and date)`.
    Some(answer.split_whitespace().nth(1)?.to_owned())
}

impl Step for Nextest {
    fn name(&self) -> &'static str {
        "cargo-nextest"
    }

    fn look(&self) -> State {
        match nextest() {
            Some(version) => State::Present(version),
            None => State::Missing(format!("{VERSION} (takes several minutes to compile)")),
        }
    }

    fn install(&self, progress: &Progress) -> Result<()> {
        let mut command = cargo();
        command.args(["install", "cargo-nextest", "--version", VERSION, "--locked"]);
        // Without self-update, and the TLS library for that, it compiles much faster.
        command.args(["--no-default-features", "--features", "default-no-update"]);
        run_watched(&mut command, progress)
    }

    fn substitute(&self) -> Option<&'static str> {
        Some("the tests use `cargo test` instead")
    }
}
