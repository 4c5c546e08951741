//! `cargo xtask prove`: compares trafctl's figures with those of independent witnesses, on real containers,
//! real machines and other kernels. The parts themselves are in `tests/src/bin/prove`.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Deserialize;

use crate::{
    build,
    command::{self, HOST_CRATES, ask, become_command, cargo, debug_directory, is_root, workspace},
    package,
    setup::{self, Purpose},
};

/// Compare the figures with independent witnesses; install missing tools first
///
/// Each part sends real traffic and compares the counts of trafctl with those of an independent witness.
/// Packages are installed without starting a service; QEMU, systemd-nspawn and other kernels are only
/// unpacked, below target/prove. Needs root; only requests for packages leave the machine. Fails on any
/// difference and on any part that cannot run.
#[derive(Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask prove                                   run everything
  cargo xtask prove --quick                           run only what takes seconds, as `cargo xtask ci` does
  cargo xtask prove --part kernels --report out.md    run one part, and write its report
  cargo xtask prove --list                            list the parts")]
pub struct Options {
    /// Run only this part; may be repeated
    #[arg(long = "part", value_name = "NAME", value_enum)]
    parts: Vec<Part>,
    /// Run only what takes seconds
    #[arg(long)]
    quick: bool,
    /// Write the report to this file, in Markdown [default: target/prove/report.md, none with --quick]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Directory of built programs, `prove`, `trafctl` and `store-histories`, to use instead of building them
    #[arg(long, value_name = "DIR", conflicts_with = "quick")]
    programs: Option<PathBuf>,
    /// List the parts and exit
    #[arg(long)]
    list: bool,
}

/// The names of the parts. They are repeated here so that a wrong name fails before anything is installed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Containers,
    Venet0,
    Vm,
    Kernels,
    Boot,
    Packages,
    Fuzz,
    Soak,
    Stores,
}

impl Part {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Options {
    /// The options of a run that takes seconds.
    pub fn quick() -> Self {
        Self { quick: true, ..Self::default() }
    }

    /// Whether a part runs that `--quick` leaves out.
    fn has(&self, part: Part) -> bool {
        !self.quick && (self.parts.is_empty() || self.parts.contains(&part))
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
        bail!("the proof needs root: it creates namespaces, starts containers and loads a kernel program");
    }
    if let Some(report) = &options.report {
        command::require_place_for(report)?;
    }
    let programs = match &options.programs {
        Some(given) => given.canonicalize().with_context(|| format!("cannot find {}", given.display()))?,
        None if options.quick => quick_programs()?,
        None => programs(options.has(Part::Stores))?,
    };
    let cache = workspace().join("target/prove");
    if options.has(Part::Packages) {
        package::for_proof(&programs.join("trafctl"), &cache.join("packages"))?;
    }
    let mut prove = Command::new(programs.join("prove"));
    prove.env("TRAFCTL_BIN", programs.join("trafctl")).arg("--cache").arg(&cache);
    for part in &options.parts {
        prove.args(["--part", &part.name()]);
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

/// Builds the programs of the development profile, as the tests do.
fn quick_programs() -> Result<PathBuf> {
    setup::ensure(Purpose::QuickProof)?;
    // The same options as for the tests, so that nothing is compiled twice.
    command::run(cargo().arg("build").args(HOST_CRATES).args(["--bins", "--tests"]))?;
    debug_directory()
}

/// Builds static, optimised programs. They also run in a machine that contains no libraries.
fn programs(with_simulator: bool) -> Result<PathBuf> {
    setup::ensure(Purpose::Prove)?;
    let target = host_target()?;
    // A separate target directory: the flags differ, and cargo would recompile everything each time.
    let directory = workspace().join("target/prove/build");
    let build = |arguments: &[&str]| {
        let mut command = cargo();
        command.args(arguments).args(["--release", "--target", &target, "--target-dir"]).arg(&directory);
        command.env("RUSTFLAGS", "-C target-feature=+crt-static");
        command
    };
    command::run(&mut build(&[
        "build",
        "--package",
        "traffic-user",
        "--package",
        "traffic-tests",
        "--bins",
    ]))?;
    let programs = directory.join(&target).join("release");
    if with_simulator {
        let mut simulator = build(&["test", "--package", "traffic-store", "--lib", "--no-run"]);
        let built = test_executable(&mut simulator, "traffic_store")?;
        let simulator = programs.join("store-histories");
        fs::copy(&built, &simulator).with_context(|| format!("cannot write {}", simulator.display()))?;
    }
    Ok(programs)
}

/// Builds the tests of a library by a command `cargo test --no-run`, and returns their executable.
fn test_executable(build: &mut Command, library: &str) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Artifact {
        target: Target,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }

    build.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let output = build.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cannot build the tests of {library} ({})", output.status);
    }
    // Messages of other kinds have no target.
    let artifacts =
        output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    artifacts
        .filter(|artifact: &Artifact| artifact.target.name == library)
        .find_map(|artifact| artifact.executable)
        .with_context(|| format!("cargo named no tests of {library}"))
}

/// The target of this machine's compiler.
fn host_target() -> Result<String> {
    let version = ask(Command::new("rustc").arg("-vV")).context("cannot run `rustc -vV`")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_those_of_the_proof() {
        let source = workspace().join("tests/src/bin/prove/main.rs");
        let source = fs::read_to_string(source).unwrap();
        let names: Vec<&str> = source
            .split("Part { name: \"")
            .skip(1)
            .filter_map(|rest| rest.split_once('"'))
            .map(|(name, _)| name)
            .collect();
        let ours: Vec<String> = Part::value_variants().iter().map(|part| part.name()).collect();
        assert_eq!(ours, names);
    }
}
