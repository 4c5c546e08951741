//! `cargo xtask setup`: installs what building and testing need. Every step looks for what it would install, so a
//! second run does nothing, and what was installed in another way counts.

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
    report::{self, Progress},
};

/// Install what building and testing need; what is there is left alone
///
/// Debian packages (only this needs root), a compiler for the kernel program, bpf-linker, cargo-nextest, lists of
/// networks and promtool for the tests, rustfmt and clippy. On a fresh machine that takes some minutes, most of them for compiling bpf-linker and cargo-nextest.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask setup               install everything that is missing
  cargo xtask setup --dry-run     only say what is missing")]
pub struct Options {
    /// Say what is missing and install nothing
    #[arg(long)]
    dry_run: bool,
}

/// What a task is going to do, which decides what must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Compile.
    Build,
    /// Compile, and judge the sources.
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
    /// All of the above but the proof, which brings much that nothing else needs.
    Everything,
}

/// Something to have on the machine.
trait Step {
    /// Few words for the start of a line.
    fn name(&self) -> &'static str;

    /// Looks for it.
    fn look(&self) -> State;

    /// Installs what [`Step::look`] found missing.
    fn install(&self, progress: &Progress) -> Result<()>;

    /// How the tasks get along without it, if they do.
    fn substitute(&self) -> Option<&'static str> {
        None
    }
}

/// What a step found.
enum State {
    /// It is there: which one.
    Present(String),
    /// It is not, or not all of it: what is missing.
    Missing(String),
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    require_rustup()?;
    for step in steps(Purpose::Everything) {
        match step.look() {
            State::Present(what) => report::line('✓', step.name(), &format!("skipped, there: {what}")),
            State::Missing(what) if options.dry_run => {
                report::line('✗', step.name(), &format!("missing: {what}"));
            }
            State::Missing(what) => install(step.as_ref(), &what)?,
        }
    }
    Ok(())
}

/// Installs what `purpose` needs, saying nothing of what is there.
pub fn ensure(purpose: Purpose) -> Result<()> {
    require_rustup()?;
    for step in steps(purpose) {
        if let State::Missing(what) = step.look() {
            install(step.as_ref(), &what)?;
        }
    }
    Ok(())
}

/// The steps in the order in which they build on each other.
fn steps(purpose: Purpose) -> Vec<Box<dyn Step>> {
    use Purpose::{AllTests, Bench, Build, Demo, Everything, Lint, Prove, QuickProof, UnitTests};

    let packages = match purpose {
        Build | Lint | UnitTests => packages::Packages::for_building(),
        AllTests | Demo => packages::Packages::for_testing(),
        Bench | Everything => packages::Packages::for_bench(),
        QuickProof => packages::Packages::for_quick_proof(),
        Prove => packages::Packages::for_proof(),
    };
    let mut steps: Vec<Box<dyn Step>> =
        vec![Box::new(packages), Box::new(toolchain::Toolchain), Box::new(linker::Linker)];
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
        State::Missing(what) => bail!("installed without an error, and yet missing: {what}"),
    });
    let elapsed = progress.elapsed();
    // The spinner must be gone before a line is printed.
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
        bail!("rustup is not in PATH: install Rust with rustup, which can hold a second compiler for BPF");
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
    fn everything_covers_every_purpose() {
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
    fn the_compiler_is_installed_before_it_is_linked_and_used() {
        for purpose in [Purpose::Build, Purpose::Demo, Purpose::Everything] {
            assert_eq!(
                names(purpose)[..3],
                ["Debian packages", "BPF toolchain", "bpf-linker"],
                "{purpose:?}"
            );
        }
    }
}
