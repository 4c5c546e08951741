//! Development tasks of trafctl, run as `cargo xtask TASK`.
//!
//! Each task is a module with its `Options` and `run`. Tasks call cargo and do not depend on trafctl's own
//! crates, so they work before anything else compiles. [`command`] runs programs, [`report`] shows progress,
//! [`bpf`] finds a compiler for the kernel program, [`cross`] one for another machine, [`dependencies`] and [`pure_crates`] are checks of the
//! lint task.

mod bench;
mod bpf;
mod build;
mod ci;
mod command;
mod cross;
mod demo;
mod dependencies;
mod install;
mod lint;
mod package;
mod pages;
mod prove;
mod pure_crates;
mod report;
mod seed_ledger;
mod setup;
mod simulate;
mod soak;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development tasks of trafctl: setup, build, test, demonstrate, measure
#[derive(Parser)]
#[command(bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask setup               install what is missing on this machine
  cargo xtask build --release     build everything with optimisation
  cargo xtask test                run every test (as root)
  cargo xtask test -- wire        run the tests with `wire` in their name
  cargo xtask demo --keep         show trafctl on real traffic, and keep the node
  cargo xtask install --virtuozzo install trafctl and the names of Virtuozzo's commands
  cargo xtask package             build packages for Debian and rpm
  cargo xtask pages               write the man pages and the completions
  cargo xtask soak --minutes 10   send mixed traffic for ten minutes, and compare
  cargo xtask bench --quick       measure the cost of trafctl and of other methods
  cargo xtask prove --quick       compare the figures with independent witnesses
  cargo xtask ci                  run every check that a change must pass";

#[derive(Subcommand)]
enum Task {
    Setup(setup::Options),
    Build(build::Options),
    Test(test::Options),
    Lint(lint::Options),
    Demo(demo::Options),
    Install(install::Options),
    Package(package::Options),
    Pages(pages::Options),
    Bench(bench::Options),
    Prove(prove::Options),
    Ci(ci::Options),
    SeedLedger(seed_ledger::Options),
    Simulate(simulate::Options),
    Soak(soak::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup(options) => setup::run(&options),
        Task::Build(options) => build::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Lint(options) => lint::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Install(options) => install::run(&options),
        Task::Package(options) => package::run(&options),
        Task::Pages(options) => pages::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Prove(options) => prove::run(&options),
        Task::Ci(options) => ci::run(&options),
        Task::SeedLedger(options) => seed_ledger::run(&options),
        Task::Simulate(options) => simulate::run(&options),
        Task::Soak(options) => soak::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
