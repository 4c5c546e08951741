//! The program behind `cargo xtask bench`: measures the cost of trafctl for packets and operators, beside
//! that of no counting and of other methods.
//!
//! - [`program`]: variants of the kernel program by `BPF_PROG_TEST_RUN`.
//! - [`packets`]: real packets through namespaces.
//! - [`control`]: attach, load, dump and drain.
//! - [`quotas`]: from the crossing of a threshold to the action.
//! - [`hosts`]: whose interface is whose, with 1,000 containers.
//! - [`web`]: the web page, the API and the metrics.
//! - [`fleet`]: many nodes and one store.
//! - [`results`], [`statistics`], [`bars`], [`report`], [`chart`]: evaluation of the figures.
//! - [`real`]: this version beside the previous one, on real tables.
//! - [`table`], [`geo`], [`random`]: class tables and peers.

mod bars;
mod chart;
mod control;
mod drains;
mod fleet;
mod geo;
mod hosts;
mod packets;
mod process;
mod program;
mod progress;
mod quotas;
mod random;
mod real;
mod report;
mod results;
mod statistics;
mod table;
mod web;

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

use self::{progress::Progress, results::Results};

/// Measures the cost of trafctl. Run it as `cargo xtask bench`.
#[derive(Debug, Parser)]
struct Options {
    /// Parts to run; may be repeated [default: all but web and fleet]
    #[arg(long = "part", value_enum)]
    parts: Vec<Part>,
    /// Rounds of each measurement [default: 9, with --quick 3]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
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
    /// Numbers of prefixes in part `program`
    #[arg(long, value_delimiter = ',', default_value = "1000,100000,800000")]
    sizes: Vec<usize>,
    /// The ledger of part `web`
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// The state directory with the backlog of part `fleet`; made if it is missing
    #[arg(long, value_name = "DIRECTORY")]
    backlog: Option<PathBuf>,
    /// How much part `fleet` measures [default: full, with --quick quick]
    #[arg(long, value_enum)]
    scale: Option<fleet::Scale>,
    /// Packets in each sample of part `program`
    #[arg(long)]
    repeat: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Program,
    Packets,
    Control,
    Real,
    Quotas,
    Hosts,
    Web,
    Fleet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether the run is a success.
fn run(options: &Options) -> Result<bool> {
    let mut results = Results::default();
    let progress = Progress::start();
    let rounds = usize::from(options.rounds.unwrap_or(if options.quick { 3 } else { 9 }));
    let wanted = |part| options.parts.is_empty() || options.parts.contains(&part);
    if wanted(Part::Program) {
        let repeat = options.repeat.unwrap_or(if options.quick { 50_000 } else { 200_000 });
        // No more addresses than are drawn: to fill the list takes longer than to draw from it.
        let addresses = (repeat.next_power_of_two() as usize * 4).min(1 << 20);
        let plan = program::Plan { rounds, sizes: options.sizes.clone(), repeat, addresses };
        program::run(&plan, &mut results, &progress).context("part program")?;
    }
    if wanted(Part::Packets) {
        let slices = if options.quick { 5 } else { 25 };
        packets::run(&packets::Plan { rounds, slices }, &mut results, &progress).context("part packets")?;
    }
    if wanted(Part::Control) {
        control::run(rounds, &mut results, &progress).context("part control")?;
    }
    if wanted(Part::Real) {
        real::run(rounds, &mut results, &progress).context("part real")?;
    }
    if wanted(Part::Quotas) {
        quotas::run(rounds, &mut results, &progress).context("part quotas")?;
    }
    if wanted(Part::Hosts) {
        hosts::run(rounds, &mut results, &progress).context("part hosts")?;
    }
    // Only where it is asked for: its ledger takes long to make.
    if options.parts.contains(&Part::Web) {
        let ledger = options.ledger.as_deref().context("part web needs --ledger")?;
        web::run(ledger, rounds, &mut results, &progress).context("part web")?;
    }
    // As well: it takes half an hour and much room.
    if options.parts.contains(&Part::Fleet) {
        let usual = if options.quick { fleet::Scale::Quick } else { fleet::Scale::Full };
        let scale = (options.scale.unwrap_or(usual), rounds);
        fleet::run(scale, options.backlog.as_deref(), &mut results, &progress).context("part fleet")?;
    }
    drop(progress);

    let bars = bars::all(&results);
    let text = match options.format {
        Format::Table => report::text(&results, &bars),
        Format::Json => {
            let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
            let value = serde_json::json!({
                "kernel": kernel.trim(), "cpus": cpus, "series": results.series, "bars": bars
            });
            format!("{value:#}\n")
        }
    };
    io::stdout().write_all(text.as_bytes()).context("cannot write the results")?;
    if let Some(path) = &options.chart {
        fs::write(path, chart::svg(&results, &options.sizes))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let missed: Vec<_> = bars.iter().filter(|bar| !bar.met).collect();
    for bar in &missed {
        eprintln!("missed: {}", bar.miss());
    }
    Ok(missed.is_empty() || !options.gate)
}
