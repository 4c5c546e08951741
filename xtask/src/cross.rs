//! Compiles for another machine than this one.
//!
//! Another machine needs a linker, a C library and Rust's standard library for it. The last is in rustup's
//! compiler (`rustup target add`), or `cargo xtask setup` unpacks it from Debian's package, and then Debian's
//! compiler of the same version is used (`setup/crossing.rs`).

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    bpf::{DEBIAN_SYSROOT, LINKED_TOOLCHAIN},
    command::{self, ask, workspace},
    package::Architecture,
};

/// Rust's standard library for a machine.
pub enum Library {
    /// In the sysroot of the compiler that runs this task.
    Installed(String),
    /// Unpacked from Debian's package, for the compiler that is installed as a Debian package.
    Unpacked(PathBuf),
}

impl Library {
    /// Looks for it.
    pub fn find(architecture: Architecture) -> Option<Self> {
        let has =
            |sysroot: &Path| sysroot.join("lib/rustlib").join(architecture.target()).join("lib").is_dir();
        let sysroot = ask(Command::new("rustc").args(["--print", "sysroot"]));
        if let Some(sysroot) = sysroot.filter(|sysroot| has(Path::new(sysroot))) {
            return Some(Self::Installed(sysroot));
        }
        let unpacked = unpacked_sysroot(architecture);
        has(&unpacked).then_some(Self::Unpacked(unpacked))
    }
}

/// Where the setup puts a standard library.
pub fn unpacked_sysroot(architecture: Architecture) -> PathBuf {
    workspace().join("target/cross").join(architecture.target())
}

/// How to compile for a machine.
pub struct Compiler {
    /// Cargo, with the linker of the machine.
    pub cargo: Command,
    /// Flags for `RUSTFLAGS`, to which others may be added.
    pub flags: String,
    /// The directory of the compiler.
    pub sysroot: String,
}

impl Compiler {
    /// The compiler for a machine.
    ///
    /// # Errors
    /// When there is no standard library for the machine.
    pub fn of(architecture: Architecture) -> Result<Self> {
        let target = architecture.target();
        let (mut cargo, flags, sysroot) = match Library::find(architecture) {
            Some(Library::Installed(sysroot)) => (command::cargo(), String::new(), sysroot),
            Some(Library::Unpacked(unpacked)) => {
                let flags = format!("--sysroot={} ", unpacked.display());
                (debian_cargo()?, flags, DEBIAN_SYSROOT.to_owned())
            }
            None => bail!("there is no standard library for {target}; try `rustup target add {target}`"),
        };
        if architecture != Architecture::of_machine()? {
            let name = target.replace('-', "_").to_uppercase();
            cargo.env(format!("CARGO_TARGET_{name}_LINKER"), architecture.tool("gcc"));
        }
        Ok(Self { cargo, flags, sysroot })
    }
}

/// Debian's cargo. The linker of the kernel program finds the library that generates its code in rustup's compiler.
fn debian_cargo() -> Result<Command> {
    let compiler = ask(Command::new("rustup").args(["which", "--toolchain", "stable", "rustc"]));
    let compiler = compiler.context("rustup has no stable compiler, whose library bpf-linker needs")?;
    let libraries = Path::new(&compiler).parent().and_then(Path::parent).map(|root| root.join("lib"));
    let mut cargo = Command::new("rustup");
    cargo.args(["run", LINKED_TOOLCHAIN, "cargo"]).current_dir(workspace());
    let mut path = libraries.context("rustup's compiler has no directory")?.into_os_string();
    if let Some(more) = env::var_os("LD_LIBRARY_PATH") {
        path.push(":");
        path.push(more);
    }
    cargo.env("LD_LIBRARY_PATH", path);
    Ok(cargo)
}
