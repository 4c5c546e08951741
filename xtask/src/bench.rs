//! `cargo xtask bench`: what trafctl costs, against doing nothing and against other ways of counting.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::{
    command::{self, become_command, cargo, is_root, workspace},
    setup::{self, Purpose},
};

/// Measure what trafctl costs, after setting up what is missing
///
/// In interleaved rounds, in throwaway namespaces: variants of the kernel program by test runs; real packets through a
/// node with 100 containers, counted by trafctl, nftables and ipset; attaching, loading, dumping and draining. Prints medians
/// with half the distance of their quartiles, and the bars: ratios that must hold. All counts are checked. Needs root and
/// a quiet machine; nothing leaves the machine. A full run takes some half an hour, a quick one about eight; most of
/// it the kernel takes to attach 1,000 interfaces in each round.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench                                   everything
  cargo xtask bench --quick --part program            variants of the program, roughly
  cargo xtask bench --format json >bench.json         with the figures of every round
  cargo xtask bench --chart docs/performance.svg --gate")]
pub struct Options {
    /// Only this part; may be repeated
    #[arg(long = "part", value_enum)]
    parts: Vec<Part>,
    /// Rounds of each measurement [default: 9, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Fewer rounds and packets
    #[arg(long)]
    quick: bool,
    /// How to write the results
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Also draw cost against number of prefixes, as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Fail when a bar is missed
    #[arg(long)]
    gate: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// Variants of the program, by test runs
    Program,
    /// Real packets
    Packets,
    /// Attaching, loading, dumping, draining
    Control,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    if !is_root() {
        bail!("the benchmark needs root: it makes network namespaces and loads kernel programs");
    }
    setup::ensure(Purpose::Bench)?;
    command::run(cargo().args([
        "build",
        "--release",
        "--package",
        "traffic-user",
        "--package",
        "traffic-bench",
    ]))?;
    let programs = command::release_directory()?;
    let mut bench = Command::new(programs.join("traffic-bench"));
    bench.current_dir(workspace()).env("TRAFCTL_BIN", programs.join("trafctl"));
    for part in &options.parts {
        bench.args(["--part", name(part).as_str()]);
    }
    if let Some(rounds) = options.rounds {
        bench.arg(format!("--rounds={rounds}"));
    }
    if options.quick {
        bench.arg("--quick");
    }
    bench.args(["--format", name(&options.format).as_str()]);
    if let Some(chart) = &options.chart {
        bench.arg("--chart").arg(std::path::absolute(chart)?);
    }
    if options.gate {
        bench.arg("--gate");
    }
    become_command(&mut bench)
}

/// How a value is written on the command line, this one's and the program's.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
