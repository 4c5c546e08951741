//! A compiler for the kernel program, linked into rustup because aya-build starts it with `rustup run`.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use super::{State, Step, packages::has_debian_compiler};
use crate::{bpf, command::run_watched, report::Progress};

pub(super) struct Toolchain;

impl Step for Toolchain {
    fn name(&self) -> &'static str {
        "BPF toolchain"
    }

    fn look(&self) -> State {
        match bpf::toolchain() {
            Some(toolchain) => State::Present(toolchain),
            None => State::Missing(format!("{} = Debian's rustc", bpf::LINKED_TOOLCHAIN)),
        }
    }

    fn install(&self, progress: &Progress) -> Result<()> {
        let root = Path::new(bpf::DEBIAN_SYSROOT);
        if !has_debian_compiler() {
            bail!("cannot link a compiler: {} contains no rustc with `core` for BPF", root.display());
        }
        let mut command = Command::new("rustup");
        command.args(["toolchain", "link", bpf::LINKED_TOOLCHAIN]).arg(root);
        run_watched(&mut command, progress)
    }
}
