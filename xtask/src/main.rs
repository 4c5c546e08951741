//! Development tasks of trafctl, run as `cargo xtask TASK`.
//!
//! One module a task, each with its `Options` and `run`. Nothing here knows trafctl's own crates: the tasks drive
//! cargo, so they work before anything else compiles. [`command`] starts programs, [`report`] says how far a task is,
//! [`bpf`] finds the compiler of the kernel program.

mod bench;
mod bpf;
mod build;
mod ci;
mod command;
mod demo;
mod dependencies;
mod install;
mod lint;
mod prove;
mod report;
mod seed_ledger;
mod setup;
mod soak;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development tasks of trafctl: set up the machine, build, test, demonstrate, measure
#[derive(Parser)]
#[command(bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask setup               install what this machine lacks
  cargo xtask build --release     build everything, optimised
  cargo xtask test                run every test (as root)
  cargo xtask test -- wire        run the tests with `wire` in their name
  cargo xtask demo --keep         show trafctl at work, and leave it standing
  cargo xtask install --virtuozzo install it, with the names of Virtuozzo's commands
  cargo xtask soak --minutes 10   send everything at once for long, and compare
  cargo xtask bench --quick       what trafctl costs, against other ways of counting
  cargo xtask prove --quick       show that the figures are exact
  cargo xtask ci                  what a change must pass";

#[derive(Subcommand)]
enum Task {
    Setup(setup::Options),
    Build(build::Options),
    Test(test::Options),
    Lint(lint::Options),
    Demo(demo::Options),
    Install(install::Options),
    Bench(bench::Options),
    Prove(prove::Options),
    Ci(ci::Options),
    SeedLedger(seed_ledger::Options),
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
        Task::Bench(options) => bench::run(&options),
        Task::Prove(options) => prove::run(&options),
        Task::Ci(options) => ci::run(&options),
        Task::SeedLedger(options) => seed_ledger::run(&options),
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
