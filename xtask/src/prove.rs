//! `cargo xtask prove`: trafctl's figures beside those of witnesses, on real containers, machines and other kernels.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    build,
    command::{self, HOST_CRATES, ask, become_command, cargo, debug_directory, is_root, workspace},
    setup::{self, Purpose},
};

/// Show that the figures are exact, after setting up what is missing
///
/// Every part sends real traffic and sets what trafctl counted beside what an independent witness did. Packages are
/// installed without starting a service; QEMU, systemd-nspawn and other kernels are only unpacked, under target/prove.
/// Needs root; nothing leaves the machine but the requests for packages. Any difference, and any part that cannot run,
/// is a failure.
#[derive(Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask prove                                   everything
  cargo xtask prove --quick                           what takes seconds, as `cargo xtask ci` does
  cargo xtask prove --part kernels --report out.md    one part, with its report
  cargo xtask prove --list                            the parts")]
pub struct Options {
    /// Run this part only; may be repeated
    #[arg(long = "part", value_name = "NAME")]
    parts: Vec<String>,
    /// Run what takes seconds only
    #[arg(long)]
    quick: bool,
    /// Where to write the report, in Markdown [default: target/prove/report.md, unless quick]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// List the parts and end
    #[arg(long)]
    list: bool,
}

impl Options {
    /// What takes seconds only.
    pub fn quick() -> Self {
        Self { quick: true, ..Self::default() }
    }
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    if options.list {
        setup::ensure(Purpose::Build)?;
        build::run(&build::Options::default())?;
        return become_command(Command::new(debug_directory()?.join("prove")).arg("--list"));
    }
    if !is_root() {
        bail!(
            "the proof needs root: it makes network namespaces, starts containers and loads a kernel program"
        );
    }
    let programs = if options.quick { quick_programs()? } else { programs()? };
    let cache = workspace().join("target/prove");
    let mut prove = Command::new(programs.join("prove"));
    prove.env("TRAFCTL_BIN", programs.join("trafctl")).arg("--cache").arg(&cache);
    for part in &options.parts {
        prove.args(["--part", part]);
    }
    if options.quick {
        prove.arg("--quick");
    }
    let report = options.report.clone().or_else(|| (!options.quick).then(|| cache.join("report.md")));
    if let Some(report) = report {
        prove.arg("--report").arg(report);
    }
    command::run(&mut prove)
}

/// The programs of the development profile, which the tests have built already.
fn quick_programs() -> Result<PathBuf> {
    setup::ensure(Purpose::QuickProof)?;
    // As the tests are built, so that nothing is compiled twice.
    command::run(cargo().arg("build").args(HOST_CRATES).args(["--bins", "--tests"]))?;
    debug_directory()
}

/// Optimised programs without a library of the system: they also run in a machine that has nothing but them.
fn programs() -> Result<PathBuf> {
    setup::ensure(Purpose::Prove)?;
    let target = host_target()?;
    // A directory of its own: cargo would otherwise see other flags each time and compile everything anew.
    let directory = workspace().join("target/prove/build");
    let mut command = cargo();
    command
        .args(["build", "--release", "--package", "traffic-user", "--package", "traffic-tests", "--bins"])
        .args(["--target", &target, "--target-dir"])
        .arg(&directory)
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    command::run(&mut command)?;
    Ok(Path::new(&directory).join(target).join("release"))
}

/// What this machine's compiler compiles for.
fn host_target() -> Result<String> {
    let version = ask(Command::new("rustc").arg("-vV")).context("asking rustc for its version")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say what it compiles for")
}
