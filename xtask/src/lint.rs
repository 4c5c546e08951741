//! `cargo xtask lint`: what the compilers and their helpers have to say about the sources, all of it an error.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    command::{self, HOST_CRATES, cargo, workspace},
    dependencies,
    report::headline,
    setup::{self, Purpose},
};

/// Check formatting, clippy, documentation and dependencies; every warning is an error
///
/// All checks run, also when an earlier one failed.
#[derive(Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask lint                check everything
  cargo fmt --all                 mend the formatting")]
pub struct Options {}

/// Lints that clippy raises in the kernel program and that do not fit there.
const UNFIT_FOR_KERNEL: [&str; 4] = [
    // aya's `#[classifier]` hands the context over by value.
    "--allow",
    "clippy::needless_pass_by_value",
    // A map's key must be on the stack: the borrow says so.
    "--allow",
    "clippy::needless_borrows_for_generic_args",
];

/// Runs the task.
pub fn run(_: &Options) -> Result<()> {
    setup::ensure(Purpose::Lint)?;
    let mut failed = Vec::new();
    for (name, mut command) in [
        ("rustfmt", rustfmt()),
        ("clippy", clippy()),
        ("clippy on the kernel program", clippy_on_kernel_program()),
        ("rustdoc", rustdoc()),
        ("rustfmt on the fuzzers", rustfmt_on_fuzzers()),
        ("the fuzzers compile", check_of_fuzzers()),
    ] {
        headline(name);
        if command::run(&mut command).is_err() {
            failed.push(name);
        }
    }
    headline("dependencies");
    if let Err(error) = dependencies::check() {
        eprintln!("{error:#}");
        failed.push("dependencies");
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn rustfmt() -> Command {
    let mut command = cargo();
    command.args(["fmt", "--all", "--check"]);
    command
}

fn clippy() -> Command {
    let mut command = cargo();
    command.arg("clippy").args(HOST_CRATES).args(["--all-targets", "--", "--deny", "warnings"]);
    command
}

/// The kernel program as if for the host, short of linking: the BPF compiler brings no clippy, and what it warns of when
/// the build script calls it is no error there.
fn clippy_on_kernel_program() -> Command {
    let mut command = cargo();
    command
        .args(["clippy", "--package", "traffic-ebpf", "--bins", "--all-features"])
        // Without std there is no unwinding.
        .args(["--config", r#"profile.dev.panic="abort""#])
        // Build scripts watch RUSTC_BOOTSTRAP: in the common directory this would compile half of it anew, each time.
        .arg("--target-dir")
        .arg(workspace().join("target/kernel-lint"))
        // aya-ebpf asks for unstable features, which a stable compiler grants to a crate named here.
        .env("RUSTC_BOOTSTRAP", "aya_ebpf")
        .args(["--", "--deny", "warnings"])
        .args(UNFIT_FOR_KERNEL);
    command
}

/// The fuzzers' manifest, that of a workspace of their own.
const FUZZERS: &str = "traffic-user/fuzz/Cargo.toml";

fn rustfmt_on_fuzzers() -> Command {
    let mut command = cargo();
    command.args(["fmt", "--check", "--manifest-path", FUZZERS]);
    command
}

/// In the common directory, where most of what they depend on has been compiled by the same rules.
fn check_of_fuzzers() -> Command {
    let mut command = cargo();
    command
        .args(["check", "--locked", "--manifest-path", FUZZERS, "--target-dir"])
        .arg(workspace().join("target"));
    command
}

fn rustdoc() -> Command {
    let mut command = cargo();
    command
        .args(["doc", "--no-deps", "--document-private-items"])
        .args(HOST_CRATES)
        .env("RUSTDOCFLAGS", "--deny warnings");
    command
}
