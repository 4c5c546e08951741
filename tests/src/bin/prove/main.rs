//! The program behind `cargo xtask prove`: compares trafctl's figures with those of independent witnesses, on
//! real containers, real machines and other kernels.
//!
//! A part is a module with a function that fills an [`evidence::Evidence`]; [`PARTS`] lists them. The report
//! and the exit status follow from the comparisons. Any difference, and any part that cannot run, is a
//! failure.

mod bench;
mod boot;
mod classes;
mod containers;
mod evidence;
mod fuzz;
mod kernels;
mod packages;
mod report;
mod soak;
mod stores;
mod venet;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use traffic_tests::lab;

use bench::Bench;
use evidence::{Evidence, Outcome};

/// One part of the proof.
struct Part {
    /// The name for `--part`.
    name: &'static str,
    /// What it proves, without a full stop.
    about: &'static str,
    /// Whether `--quick` runs it.
    quick: bool,
    /// Runs it. With [`Bench::quick`] it does only what takes seconds.
    run: fn(&Bench, &mut Evidence) -> Result<()>,
}

/// All parts, in the order in which they run. To add one, add a module and a line here, and its name to
/// `xtask/src/prove.rs`.
const PARTS: &[Part] = &[
    Part { name: "containers", about: containers::ABOUT, quick: true, run: containers::run },
    Part { name: "venet0", about: venet::ABOUT, quick: true, run: venet::run },
    Part { name: "vm", about: vm::ABOUT, quick: false, run: vm::run },
    Part { name: "kernels", about: kernels::ABOUT, quick: false, run: kernels::run },
    Part { name: "boot", about: boot::ABOUT, quick: false, run: boot::run },
    Part { name: "packages", about: packages::ABOUT, quick: false, run: packages::run },
    Part { name: "fuzz", about: fuzz::ABOUT, quick: false, run: fuzz::run },
    Part { name: "soak", about: soak::ABOUT, quick: false, run: soak::run },
    Part { name: "stores", about: stores::ABOUT, quick: false, run: stores::run },
];

/// Compares trafctl's figures with those of independent witnesses
#[derive(Parser)]
struct Cli {
    /// Run only this part; may be repeated
    #[arg(long = "part", value_name = "NAME")]
    parts: Vec<String>,
    /// Run only what takes seconds
    #[arg(long)]
    quick: bool,
    /// Write the report to this file, in Markdown
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// List the parts and exit
    #[arg(long)]
    list: bool,
    /// Directory for packages and images, which are kept between runs
    #[arg(long, value_name = "DIRECTORY", default_value = "target/prove")]
    cache: PathBuf,
    /// Run in an emulated machine and print for the host
    #[arg(long, hide = true)]
    guest: bool,
    /// Also send through tunnels and less common devices there
    #[arg(long, hide = true)]
    more: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    if cli.guest {
        return kernels::guest(cli.more).map(|()| true);
    }
    if cli.list {
        print(&PARTS.iter().map(listed).collect::<String>());
        return Ok(true);
    }
    let parts = chosen(cli)?;
    traffic_tests::require_root()?;
    let cache = std::path::absolute(&cli.cache).context("cannot find the cache")?;
    let bench = Bench { quick: cli.quick, unpacked: cache.join("unpacked"), cache };

    let outcomes: Vec<Outcome> = parts.into_iter().map(|part| outcome(part, &bench)).collect();
    if let Some(path) = &cli.report {
        std::fs::write(path, report::markdown(&outcomes, &versions()?))
            .with_context(|| format!("write the report to {}", path.display()))?;
        eprintln!("wrote the report to {}", path.display());
    }
    print(&report::summary(&outcomes));
    Ok(outcomes.iter().all(Outcome::passed))
}

fn listed(part: &Part) -> String {
    format!("{:20}  {}{}\n", part.name, part.about, if part.quick { " (also quick)" } else { "" })
}

fn chosen(cli: &Cli) -> Result<Vec<&'static Part>> {
    for name in &cli.parts {
        if !PARTS.iter().any(|part| part.name == name) {
            let known: Vec<_> = PARTS.iter().map(|part| part.name).collect();
            bail!("there is no part `{name}`; the parts are {}", known.join(", "));
        }
    }
    let wanted = |part: &&Part| {
        if cli.parts.is_empty() {
            !cli.quick || part.quick
        } else {
            cli.parts.iter().any(|name| name == part.name)
        }
    };
    Ok(PARTS.iter().filter(wanted).collect())
}

fn outcome(part: &'static Part, bench: &Bench) -> Outcome {
    eprintln!("==> {}", part.name);
    let start = Instant::now();
    let mut evidence = Evidence::default();
    let result = (part.run)(bench, &mut evidence);
    let failure = result.err().map(|error| format!("{error:#}"));
    if let Some(failure) = &failure {
        eprintln!("  ✗ {failure}");
    }
    Outcome { part: part.name, about: part.about, evidence, failure, took: start.elapsed() }
}

fn versions() -> Result<Vec<(String, String)>> {
    let trafctl = lab::trafctl_program()?;
    let kernel = bench::kernel_release()?;
    Ok(vec![
        ("trafctl".to_owned(), bench::version(trafctl, "--version")),
        ("kernel".to_owned(), kernel),
        ("iproute2".to_owned(), bench::version("ip", "-V")),
        ("iperf3".to_owned(), bench::version("iperf3", "--version")),
    ])
}

#[expect(clippy::print_stdout, reason = "the summary is the output of the program")]
fn print(text: &str) {
    print!("{text}");
}
