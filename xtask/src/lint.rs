//! `cargo xtask lint`: runs every check of the sources that needs no test run.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    command::{self, HOST_CRATES, cargo, workspace},
    dependencies, pure_crates,
    report::headline,
    setup::{self, Purpose},
};

/// Check formatting, clippy, documentation and dependencies; every warning is an error
///
/// Runs all checks, even after one has failed.
#[derive(Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask lint                check everything
  cargo fmt --all                 correct the formatting")]
pub struct Options {}

/// Lints that do not apply to the kernel program.
const UNFIT_FOR_KERNEL: [&str; 4] = [
    // `#[classifier]` of aya passes the context by value.
    "--allow",
    "clippy::needless_pass_by_value",
    // A map key must be on the stack, which the borrow makes visible.
    "--allow",
    "clippy::needless_borrows_for_generic_args",
];

/// A check that is not a command of its own.
type Check = fn() -> Result<()>;

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
    let checks: [(&str, Check); 2] =
        [("dependencies", dependencies::check), ("pure crates", pure_crates::check)];
    for (name, check) in checks {
        headline(name);
        if let Err(error) = check() {
            eprintln!("{error:#}");
            failed.push(name);
        }
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

/// Checks the kernel program as if for the host, without linking. The BPF compiler comes without clippy, and
/// the build script that calls it does not turn warnings into errors.
fn clippy_on_kernel_program() -> Command {
    let mut command = cargo();
    command
        .args(["clippy", "--package", "traffic-ebpf", "--bins", "--all-features"])
        // There is no unwinding without std.
        .args(["--config", r#"profile.dev.panic="abort""#])
        // Build scripts depend on RUSTC_BOOTSTRAP. In the common target directory this would recompile half
        // of it each time.
        .arg("--target-dir")
        .arg(workspace().join("target/kernel-lint"))
        // aya-ebpf uses unstable features, which a stable compiler allows for crates named here.
        .env("RUSTC_BOOTSTRAP", "aya_ebpf,trafctl_ebpf,trafctl_drops,trafctl_paths")
        .args(["--", "--deny", "warnings"])
        .args(UNFIT_FOR_KERNEL);
    command
}

/// The manifest of the fuzzers, which are a workspace of their own.
const FUZZERS: &str = "traffic-user/fuzz/Cargo.toml";

fn rustfmt_on_fuzzers() -> Command {
    let mut command = cargo();
    command.args(["fmt", "--check", "--manifest-path", FUZZERS]);
    command
}

/// Checks the fuzzers in the common target directory, where most of their dependencies are already compiled.
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
