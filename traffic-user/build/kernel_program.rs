//! Compiles the kernel program and leaves it in `OUT_DIR/trafctl-ebpf`. The build scripts of traffic-user and of the
//! benchmark share this.
//!
//! That takes bpf-linker and a compiler with `core` for BPF, which rustup's stable toolchains lack. Two do: `nightly` with
//! the component `rust-src` builds it from source, and Debian's package ships it ready-made. `cargo xtask setup`
//! installs what is missing, and judges by the same signs as this script (`xtask/src/bpf.rs`).

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, anyhow, bail};
use aya_build::{Package, Toolchain};

mod type_information;

/// The name under which `cargo xtask setup` links Debian's compiler into rustup.
const LINKED_TOOLCHAIN: &str = "trafctl-bpf";

/// Builds the program with these features of its crate; says on failure what is missing.
pub fn build(features: &[&str]) {
    // aya-build watches the crate itself. These too go into the program; a change of a dependency shows in the lock file.
    println!("cargo::rerun-if-changed=build.rs");
    let root = workspace();
    for path in ["traffic-user/build", "traffic-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    // Cargo shows these lines as they are. An error returned from `main` would come with all this script has printed.
    if let Err(error) = compile(&root, features) {
        for line in format!("{error:#}").lines() {
            println!("cargo::error={line}");
        }
    }
}

/// The workspace's directory: the nearest above the crate being built that holds the kernel program.
fn workspace() -> PathBuf {
    let mut directory = env::current_dir().unwrap_or_default();
    while !directory.join("traffic-ebpf").is_dir() && directory.pop() {}
    directory
}

fn compile(root: &Path, features: &[&str]) -> Result<()> {
    let toolchain = toolchain()?;
    // SAFETY: this is the script's only thread, so nobody reads the environment meanwhile.
    unsafe {
        // aya-ebpf asks for unstable features, which Debian's stable compiler grants to a crate named here. Set for the
        // whole script: aya-build starts the compiler itself, and reads this to decide against building `core`.
        if let Toolchain::Custom(_) = toolchain {
            env::set_var("RUSTC_BOOTSTRAP", "aya_ebpf");
        }
        // aya-build hands on all that cargo says as warnings, which cargo then repeats on every build. What the compiler
        // itself has to say comes all the same.
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    let program = root.join("traffic-ebpf");
    let root_dir =
        program.to_str().ok_or_else(|| anyhow!("{} is not UTF-8, which cargo wants", program.display()))?;
    let package = Package { name: "traffic-ebpf", root_dir, no_default_features: false, features };
    aya_build::build_ebpf([package], toolchain)
        .map_err(|error| anyhow!("the kernel program (traffic-ebpf) was not built: {error:#}"))?;
    let directory = env::var_os("OUT_DIR").ok_or_else(|| anyhow!("cargo named no OUT_DIR"))?;
    type_information::mend(&Path::new(&directory).join("trafctl-ebpf"))
}

/// The toolchain to compile the kernel program with, or everything that is missing for it.
fn toolchain() -> Result<Toolchain<'static>> {
    let mut missing = Vec::new();
    let toolchain = if !in_path("rustup") {
        missing.push("rustup is not in PATH".to_owned());
        None
    } else if sysroot("nightly").is_some_and(|root| root.join("lib/rustlib/src/rust/library").is_dir()) {
        Some(Toolchain::Nightly)
    } else if sysroot(LINKED_TOOLCHAIN).is_some_and(|root| has_core(&root)) {
        Some(Toolchain::Custom(LINKED_TOOLCHAIN))
    } else {
        missing.push(format!(
            "no compiler with `core` for BPF (rustup's `nightly` with `rust-src`, or Debian's linked as `{LINKED_TOOLCHAIN}`)"
        ));
        None
    };
    if !in_path("bpf-linker") {
        missing.push("bpf-linker is not in PATH".to_owned());
    }
    match toolchain {
        Some(toolchain) if missing.is_empty() => Ok(toolchain),
        _ => bail!(
            "the kernel program (traffic-ebpf) cannot be compiled: {}; `cargo xtask setup` installs what is missing",
            missing.join("; ")
        ),
    }
}

/// Where a toolchain lives, if rustup knows it and its compiler runs.
fn sysroot(toolchain: &str) -> Option<PathBuf> {
    let output = Command::new("rustup")
        .args(["run", toolchain, "rustc", "--print", "sysroot"])
        // Rustup may otherwise download what it does not have: installing is setup's task, with a word about it.
        .env("RUSTUP_AUTO_INSTALL", "0")
        .output()
        .ok()?;
    let root = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(root.trim_end()))
}

/// Whether a sysroot has `core` compiled for BPF, in the byte order that aya-build will ask for.
fn has_core(sysroot: &Path) -> bool {
    let big = env::var_os("CARGO_CFG_TARGET_ENDIAN").is_some_and(|endian| endian == "big");
    let target = if big { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    sysroot.join("lib/rustlib").join(target).join("lib").read_dir().is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().as_encoded_bytes().starts_with(b"libcore-"))
        })
    })
}

fn in_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}
