//! `cargo xtask bench`: measures the cost of trafctl beside that of no counting and of other methods.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::{
    command::{self, become_command, cargo, is_root, workspace},
    setup::{self, Purpose},
};

/// Measure the cost of trafctl; install missing tools first
///
/// Measures in interleaved rounds, in temporary namespaces: variants of the kernel program by test runs; real
/// packets through a node with 100 containers, counted by trafctl, nftables and ipset; attach, load, dump and
/// drain; real tables beside the previous version, which is built from its commit. Prints medians with half the
/// interquartile range, and the bars, which are ratios that must hold. Checks all counts. Needs root and an
/// idle machine; no packet leaves it. A full run takes about forty minutes, a quick one about ten. Most of that
/// is the time in which the kernel attaches 1,000 interfaces in each round.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench                                   run everything
  cargo xtask bench --quick --part program            measure the program's variants roughly
  cargo xtask bench --part web                        what a page waits for; makes a ledger in half an hour
  cargo xtask bench --part fleet                      ship to ClickHouse and PostgreSQL; takes two hours
  cargo xtask bench --part real                       compare with the previous version on real tables
  cargo xtask bench --format json >bench.json         include the figures of every round
  cargo xtask bench --chart docs/performance.svg --gate")]
pub struct Options {
    /// Run only this part; may be repeated [default: all but web and fleet]
    #[arg(long = "part", value_enum)]
    parts: Vec<Part>,
    /// Rounds of each measurement [default: 9, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Use fewer rounds and packets
    #[arg(long)]
    quick: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Also write a chart of cost against number of prefixes, as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Fail when a bar is not met
    #[arg(long)]
    gate: bool,
    /// Ledger of part `web`, as seed-ledger makes it [default: target/bench/year/ledger.sqlite, made if it is missing]
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// State directory with the backlog of part `fleet` [default: target/bench/month, made if it is missing; with --quick,
    /// one that is made for the run]
    #[arg(long, value_name = "DIRECTORY")]
    backlog: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// Variants of the program by test runs
    Program,
    /// Real packets
    Packets,
    /// Attach, load, dump and drain
    Control,
    /// Real tables and real packets, beside the previous version
    Real,
    /// From the byte that reaches a threshold of a quota to its action, and what the looks for that cost
    Quotas,
    /// Whose interface is whose: the look at 1,000 containers, and the time until a new one is known
    Hosts,
    /// The web page, the API and the metrics, on a ledger of a year; only if it is named
    Web,
    /// Many nodes and one store, in ClickHouse and PostgreSQL; needs 12 GB of room, only if it is named
    Fleet,
}

/// The file that came with the present index. The previous version is the last commit without it. A commit's hash
/// would not outlive a rebase.
const PRESENT_INDEX: &str = "traffic-common/src/lookup.rs";

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    if !is_root() {
        bail!("the benchmark needs root: it creates network namespaces and loads kernel programs");
    }
    if let Some(chart) = &options.chart {
        command::require_place_for(chart)?;
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
    if options.parts.is_empty() || options.parts.iter().any(|part| matches!(part, Part::Real)) {
        bench.env("TRAFCTL_PREVIOUS", previous()?);
    }
    if options.parts.iter().any(|part| matches!(part, Part::Web)) {
        bench.arg("--ledger").arg(ledger(options.ledger.as_deref())?);
    }
    match &options.backlog {
        Some(backlog) => drop(bench.arg("--backlog").arg(std::path::absolute(backlog)?)),
        None if options.quick => {}
        None => drop(bench.arg("--backlog").arg(workspace().join("target/bench/month"))),
    }
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

/// The ledger of a year: the one that is named, or one that is made once.
fn ledger(named: Option<&Path>) -> Result<PathBuf> {
    let path = match named {
        Some(path) => std::path::absolute(path)?,
        None => workspace().join("target/bench/year/ledger.sqlite"),
    };
    if path.is_file() {
        return Ok(path);
    }
    if named.is_some() {
        bail!("{} does not exist; `cargo xtask seed-ledger FILE --quick` makes one", path.display());
    }
    // Only a complete one gets its place.
    let (place, partial) = (workspace().join("target/bench/year"), workspace().join("target/bench/partial"));
    for directory in [&place, &partial] {
        if directory.exists() {
            std::fs::remove_dir_all(directory)
                .with_context(|| format!("cannot remove {}", directory.display()))?;
        }
    }
    std::fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let mut seed = cargo();
    seed.args(["run", "--release", "--package", "traffic-ledger", "--features", "testing"]);
    seed.args(["--example", "seed-ledger", "--"]);
    seed.arg(partial.join("ledger.sqlite")).args(["1000", "4", "365", "1", "quick"]);
    // Results alone go to standard output.
    command::run(seed.stdout(std::io::stderr()))?;
    std::fs::rename(&partial, &place).with_context(|| format!("cannot rename {}", partial.display()))?;
    Ok(path)
}

/// Builds the previous version from its commit, and returns its program.
fn previous() -> Result<PathBuf> {
    let directory = workspace().join("target/previous");
    let (source, build) = (directory.join("source"), directory.join("build"));
    let program = build.join("release/trafctl");
    if program.is_file() {
        return Ok(program);
    }
    let mut log = Command::new("git");
    log.args(["log", "--diff-filter=A", "--format=%H", "--", PRESENT_INDEX]).current_dir(workspace());
    let output = log.output().context("cannot run git")?;
    let commits = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some(first) = commits.lines().last().filter(|_| output.status.success()) else {
        bail!("the previous version is not in this repository's history; fetch all of it");
    };
    std::fs::create_dir_all(&source).with_context(|| format!("cannot create {}", source.display()))?;
    let script =
        format!("git archive --output='{0}.tar' {first}^ && tar -x -f '{0}.tar' -C '{0}'", source.display());
    command::run(Command::new("sh").args(["-e", "-c", &script]).current_dir(workspace()))
        .context("cannot unpack the previous version")?;
    let mut command = cargo();
    command.args(["build", "--release", "--package", "traffic-user", "--target-dir"]).arg(&build);
    command::run(command.current_dir(&source))?;
    Ok(program)
}

/// The spelling of a value on the command line, which is the same for the benchmark.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
