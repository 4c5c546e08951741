//! Finds a compiler for the kernel program. `traffic-user/build.rs` chooses by the same criteria: keep the
//! two alike.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::command::ask;

/// The name of Debian's compiler in rustup.
pub const LINKED_TOOLCHAIN: &str = "trafctl-bpf";

/// The sysroot of Debian's compiler.
pub const DEBIAN_SYSROOT: &str = "/usr";

/// The target of the kernel program. Big-endian machines are refused.
const TARGET: &str = "bpfel-unknown-none";

/// A description of the rustup toolchain that can compile the kernel program, if there is one.
pub fn toolchain() -> Option<String> {
    if sysroot("nightly").is_some_and(|root| root.join("lib/rustlib/src/rust/library").is_dir()) {
        return Some("nightly with rust-src".to_owned());
    }
    let root = sysroot(LINKED_TOOLCHAIN).filter(|root| has_core(root))?;
    Some(format!("{LINKED_TOOLCHAIN} = {}", root.display()))
}

/// Whether a sysroot has `core` compiled for BPF.
pub fn has_core(sysroot: &Path) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    libraries.read_dir().is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().as_encoded_bytes().starts_with(b"libcore-"))
        })
    })
}

/// The sysroot of a toolchain, if rustup has it and its compiler runs.
fn sysroot(toolchain: &str) -> Option<PathBuf> {
    let mut command = Command::new("rustup");
    // Otherwise rustup may download a missing toolchain without asking.
    command.args(["run", toolchain, "rustc", "--print", "sysroot"]).env("RUSTUP_AUTO_INSTALL", "0");
    ask(&mut command).map(PathBuf::from)
}
