//! bpf-linker, which turns the compiler's output into a program that the kernel loads.

use std::process::Command;

use anyhow::Result;

use super::{State, Step};
use crate::{
    command::{ask, cargo, run_watched},
    report::Progress,
};

/// The last version that links with the LLVM inside rustup's compiler; later ones want LLVM's development package.
const VERSION: &str = "0.10.0";

pub(super) struct Linker;

impl Step for Linker {
    fn name(&self) -> &'static str {
        "bpf-linker"
    }

    fn look(&self) -> State {
        match ask(Command::new("bpf-linker").arg("--version")) {
            // Any version that somebody chose; whether it understands the compiler shows when linking.
            Some(version) => State::Present(version.trim_start_matches("bpf-linker ").to_owned()),
            None => State::Missing(format!("{VERSION} (compiles for about two minutes)")),
        }
    }

    fn install(&self, progress: &Progress) -> Result<()> {
        run_watched(cargo().args(["install", "bpf-linker", "--version", VERSION, "--locked"]), progress)
    }
}
