//! `cargo xtask setup`: installs what the build and the tests need. Each step first looks for what it would
//! install. A second run changes nothing, and tools that were installed in another way are used.

mod crossing;
mod linker;
mod lints;
mod networks;
mod packages;
mod promtool;
mod runner;
mod toolchain;
mod unpacked;

pub use runner::nextest;

use anyhow::{Context, Result, bail};

use crate::{
    command::is_installed,
    package::Architecture,
    report::{self, Progress},
};

/// Install what the build and the tests need and this machine lacks
///
/// Installs Debian packages (only this needs root), a compiler for the kernel program, bpf-linker,
/// cargo-nextest, lists of networks and promtool for the tests, rustfmt and clippy. On a fresh machine this
/// takes some minutes, most of them to compile bpf-linker and cargo-nextest.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask setup               install everything that is missing
  cargo xtask setup --dry-run     only list what is missing")]
pub struct Options {
    /// List what is missing and install nothing
    #[arg(long)]
    dry_run: bool,
}

/// The purpose of a task, which decides what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Compile.
    Build,
    /// Compile for this machine or another.
    BuildFor(Architecture),
    /// Compile, and check the sources.
    Lint,
    /// Compile, and run the tests that need no root.
    UnitTests,
    /// Compile, and run every test.
    AllTests,
    /// Compile, and send traffic through namespaces.
    Demo,
    /// Compile, and measure.
    Bench,
    /// Compile, and run the quick part of the proof.
    QuickProof,
    /// Compile, and run the whole proof.
    Prove,
    /// All of the above except the proof, which needs much that nothing else does.
    Everything,
}

/// Something that a task needs on the machine.
trait Step {
    /// The name at the start of a line.
    fn name(&self) -> &'static str;

    /// Looks for it on the machine.
    fn look(&self) -> State;

    /// Installs what [`Step::look`] found missing.
    fn install(&self, progress: &Progress) -> Result<()>;

    /// What the tasks use instead, if it is optional.
    fn substitute(&self) -> Option<&'static str> {
        None
    }
}

/// The result of [`Step::look`].
enum State {
    /// It is present; describes it.
    Present(String),
    /// All or part of it is missing; names that.
    Missing(String),
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    require_rustup()?;
    for step in steps(Purpose::Everything) {
        match step.look() {
            State::Present(what) => report::line('✓', step.name(), &format!("present: {what}")),
            State::Missing(what) if options.dry_run => {
                report::line('✗', step.name(), &format!("missing: {what}"));
            }
            State::Missing(what) => install(step.as_ref(), &what)?,
        }
    }
    Ok(())
}

/// Installs what `purpose` needs. Prints nothing about what is present.
///
/// # Errors
/// When a step fails that has no substitute.
pub fn ensure(purpose: Purpose) -> Result<()> {
    require_rustup()?;
    for step in steps(purpose) {
        if let State::Missing(what) = step.look() {
            install(step.as_ref(), &what)?;
        }
    }
    Ok(())
}

/// The steps of a purpose, each after those that it needs.
fn steps(purpose: Purpose) -> Vec<Box<dyn Step>> {
    use Purpose::{AllTests, Bench, Build, BuildFor, Demo, Everything, Lint, Prove, QuickProof, UnitTests};

    let packages = match purpose {
        Build | Lint | UnitTests => packages::Packages::for_building(),
        BuildFor(architecture) => packages::Packages::for_building_for(architecture),
        AllTests | Demo => packages::Packages::for_testing(),
        Bench | Everything => packages::Packages::for_bench(),
        QuickProof => packages::Packages::for_quick_proof(),
        Prove => packages::Packages::for_proof(),
    };
    let mut steps: Vec<Box<dyn Step>> =
        vec![Box::new(packages), Box::new(toolchain::Toolchain), Box::new(linker::Linker)];
    if let BuildFor(architecture) = purpose {
        steps.push(Box::new(crossing::Crossing(architecture)));
    }
    if matches!(purpose, UnitTests | AllTests | Everything) {
        steps.push(Box::new(runner::Nextest));
    }
    if matches!(purpose, AllTests | Everything) {
        steps.push(Box::new(networks::Networks));
        steps.push(Box::new(promtool::Promtool));
    }
    if matches!(purpose, Prove) {
        steps.push(Box::new(unpacked::Unpacked));
    }
    if matches!(purpose, Lint | Everything) {
        steps.push(Box::new(lints::Components));
    }
    steps
}

fn install(step: &dyn Step, what: &str) -> Result<()> {
    let progress = Progress::start(step.name(), &format!("installing {what}"));
    let installed = step.install(&progress).and_then(|()| match step.look() {
        State::Present(what) => Ok(what),
        State::Missing(what) => bail!("the installation reported no error, but {what} is still missing"),
    });
    let elapsed = progress.elapsed();
    // The spinner must be removed before a line is printed.
    drop(progress);
    match (installed, step.substitute()) {
        (Ok(what), _) => report::line('✓', step.name(), &format!("installed in {elapsed}: {what}")),
        (Err(error), Some(substitute)) => {
            report::line('!', step.name(), &format!("not installed ({error:#}); {substitute}"));
        }
        (Err(error), None) => return Err(error).with_context(|| step.name().to_owned()),
    }
    Ok(())
}

fn require_rustup() -> Result<()> {
    if !is_installed("rustup") {
        bail!("rustup is not in PATH; install Rust with rustup, which can hold a second compiler");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(purpose: Purpose) -> Vec<&'static str> {
        steps(purpose).iter().map(|step| step.name()).collect()
    }

    #[test]
    fn everything_includes_every_other_purpose() {
        let everything = names(Purpose::Everything);
        for purpose in [
            Purpose::Build,
            Purpose::Lint,
            Purpose::UnitTests,
            Purpose::AllTests,
            Purpose::Demo,
            Purpose::Bench,
        ] {
            for name in names(purpose) {
                assert!(everything.contains(&name), "{name} of {purpose:?}");
            }
        }
    }

    #[test]
    fn the_compiler_comes_before_its_link_and_its_use() {
        for purpose in [Purpose::Build, Purpose::Demo, Purpose::Everything] {
            assert_eq!(
                names(purpose)[..3],
                ["Debian packages", "BPF toolchain", "bpf-linker"],
                "{purpose:?}"
            );
        }
    }
}
