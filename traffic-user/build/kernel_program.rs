//! Compiles the kernel programs into `OUT_DIR`: the classifiers into `trafctl-ebpf`, the drop program into
//! `trafctl-drops`, the path programs into `trafctl-paths`. Shared by the build scripts of traffic-user and
//! the benchmark.
//!
//! This needs bpf-linker and a compiler with `core` for BPF, which rustup's stable toolchains lack. There are
//! two such compilers: `nightly` with the component `rust-src` builds `core` from source, and Debian's
//! package ships it built. `cargo xtask setup` installs what is missing, and tests for it in the same way as
//! this script (`xtask/src/bpf.rs`).

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, anyhow, bail};
use aya_build::{Package, Toolchain};

mod object_file;
mod type_information;

/// The rustup name that `cargo xtask setup` gives to Debian's compiler.
const LINKED_TOOLCHAIN: &str = "trafctl-bpf";

/// Why there is no program for some targets.
const BIG_ENDIAN: &str = "trafctl cannot be built for a big-endian target: its kernel program and maps are written \
    and tested for little-endian machines only; build it for x86_64 or aarch64";

/// Builds the program with these features of its crate. On failure, reports what is missing.
pub fn build(features: &[&str]) {
    // aya-build watches the crate itself. The program also depends on these; a changed dependency changes the
    // lock file.
    println!("cargo::rerun-if-changed=build.rs");
    let root = workspace();
    for path in ["traffic-user/build", "traffic-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    // Cargo prints these lines unchanged. An error returned from `main` would be mixed with the script's
    // whole output.
    if let Err(error) = compile(&root, features) {
        for line in format!("{error:#}").lines() {
            println!("cargo::error={line}");
        }
    }
}

/// The workspace's directory: the nearest one above the crate being built that contains the kernel program.
fn workspace() -> PathBuf {
    let mut directory = env::current_dir().unwrap_or_default();
    while !directory.join("traffic-ebpf").is_dir() && directory.pop() {}
    directory
}

fn compile(root: &Path, features: &[&str]) -> Result<()> {
    if env::var_os("CARGO_CFG_TARGET_ENDIAN").is_some_and(|endian| endian == "big") {
        bail!("{BIG_ENDIAN}");
    }
    let toolchain = toolchain()?;
    // SAFETY: this script has a single thread, so nothing reads the environment meanwhile.
    unsafe {
        // aya-ebpf uses unstable features, which a stable compiler allows for crates named here. It is set
        // for the whole script, because aya-build starts the compiler, and because it decides aya-build
        // against building `core`.
        if let Toolchain::Custom(_) = toolchain {
            env::set_var("RUSTC_BOOTSTRAP", "aya_ebpf,trafctl_ebpf,trafctl_drops,trafctl_paths");
        }
        // aya-build forwards all of cargo's messages as warnings, which cargo repeats on every build. The
        // compiler's own messages still appear.
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    let program = root.join("traffic-ebpf");
    let root_dir = program.to_str().ok_or_else(|| {
        anyhow!("the path {} is not UTF-8, as cargo requires; move the workspace", program.display())
    })?;
    let package = Package { name: "traffic-ebpf", root_dir, no_default_features: false, features };
    aya_build::build_ebpf([package], toolchain)
        .map_err(|error| anyhow!("cannot build the kernel program (traffic-ebpf): {error:#}"))?;
    let directory = env::var_os("OUT_DIR").ok_or_else(|| anyhow!("cargo did not set OUT_DIR"))?;
    for object in ["trafctl-ebpf", "trafctl-drops", "trafctl-paths"] {
        object_file::rewrite(&Path::new(&directory).join(object), root)?;
    }
    Ok(())
}

/// The toolchain for the kernel program, or an error that names everything that is missing.
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
            "no compiler with `core` for BPF (rustup's `nightly` with `rust-src`, or Debian's linked as \
             `{LINKED_TOOLCHAIN}`)"
        ));
        None
    };
    if !in_path("bpf-linker") {
        missing.push("bpf-linker is not in PATH".to_owned());
    }
    match toolchain {
        Some(toolchain) if missing.is_empty() => Ok(toolchain),
        _ => bail!(
            "the kernel program (traffic-ebpf) cannot be compiled: {}; `cargo xtask setup` installs what is \
             missing",
            missing.join("; ")
        ),
    }
}

/// A toolchain's sysroot, if rustup knows it and its compiler runs.
fn sysroot(toolchain: &str) -> Option<PathBuf> {
    let output = Command::new("rustup")
        .args(["run", toolchain, "rustc", "--print", "sysroot"])
        // Otherwise rustup may download a missing toolchain. Installing is the task of `cargo xtask setup`.
        .env("RUSTUP_AUTO_INSTALL", "0")
        .output()
        .ok()?;
    let root = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(root.trim_end()))
}

/// Whether a sysroot has `core` compiled for BPF.
fn has_core(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/bpfel-unknown-none/lib").read_dir().is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().as_encoded_bytes().starts_with(b"libcore-"))
        })
    })
}

fn in_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}
