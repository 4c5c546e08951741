//! bpf-linker, which links the compiler's output into a program that the kernel can load.

use std::process::Command;

use anyhow::Result;

use super::{State, Step};
use crate::{
    command::{ask, cargo, run_watched},
    report::Progress,
};

/// The last version that uses the LLVM inside rustup's compiler. Later ones need the development package of
/// LLVM.
const VERSION: &str = "0.10.0";

pub(super) struct Linker;

impl Step for Linker {
    fn name(&self) -> &'static str {
        "bpf-linker"
    }

    fn look(&self) -> State {
        match ask(Command::new("bpf-linker").arg("--version")) {
            // Any version is accepted. The link step shows whether it fits the compiler.
            Some(version) => State::Present(version.trim_start_matches("bpf-linker ").to_owned()),
            None => State::Missing(format!("{VERSION} (takes about two minutes to compile)")),
        }
    }

    fn install(&self, progress: &Progress) -> Result<()> {
        run_watched(cargo().args(["install", "bpf-linker", "--version", VERSION, "--locked"]), progress)
    }
}
