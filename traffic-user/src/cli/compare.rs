//! `trafctl compare`

use std::{fs, io::Read as _, path::PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::{
    cli::{Done, Global, SheetFormat, netstat::aliases, print},
    compare::{self, Comparison, Figures, Readings, baseline},
    kernel::{counters, load},
    render, vz,
};

/// Name of the first reading in the state directory.
const BASELINE: &str = "compare.json";

/// Set another accounting's vznetstat output against what is counted here
///
/// For running both side by side before switching over. The first call keeps what both show; each later one shows what
/// both counted since, a container and class a row, with the likely reason of a difference. A pipe takes both readings
/// nearly at one moment; a file should be as fresh as can be. Status 1 when some difference has no known reason, or a container is
/// not counted here at all.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    /usr/sbin/vznetstat | trafctl compare --with -      keep the first readings\n  \
    /usr/sbin/vznetstat | trafctl compare --with -      some hours later: the differences\n  \
    trafctl compare --with yesterday.txt --baseline /root/first.json --format csv\n  \
    /usr/sbin/vznetstat | trafctl compare --with - --restart")]
pub struct Options {
    /// The output of the other accounting's vznetstat, without -r; `-` for standard input
    #[arg(long = "with", value_name = "FILE")]
    theirs: PathBuf,
    /// Where the first readings are kept [default: compare.json in the state directory]
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Begin anew: keep these readings as the first
    #[arg(long)]
    restart: bool,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let config = global.config()?;
    let maps = load::open(&global.pinned())?;
    let text = theirs(options)?;
    // Right behind theirs; all else can wait.
    let snapshot = counters::read(&maps, &config.node)?;
    let aliases = aliases(&config);
    let counted = snapshot.containers();
    let place = options.theirs.display().to_string();
    let theirs = compare::read(&text, &place, |id| {
        let ids = vz::counted_ids(id, &counted, &aliases);
        Ok(ids.into_iter().next().unwrap_or_else(|| id.clone()))
    })?;
    let now = Readings {
        time: snapshot.time,
        boot_id: snapshot.boot_id.clone(),
        epoch: snapshot.epoch,
        ours: ours(&snapshot),
        theirs,
    };

    let path = options.baseline.clone().unwrap_or_else(|| global.state_dir.join(BASELINE));
    let first = if options.restart { None } else { baseline::read(&path)? };
    let Some(first) = first else {
        baseline::write(&path, &now)?;
        tracing::info!("the first readings are kept in {}; the next call shows differences", path.display());
        return Ok(Done::Success);
    };
    ensure!(
        first.boot_id == now.boot_id && first.epoch == now.epoch,
        "the first readings in {} are of other counters, before a reboot or a purge: begin anew with --restart",
        path.display()
    );
    let comparison = Comparison::new(&first, &now);
    print(&match options.format {
        SheetFormat::Table => render::compare::table(&comparison),
        SheetFormat::Json => render::compare::json(&comparison)?,
        SheetFormat::Csv => render::compare::csv(&comparison)?,
    })?;
    Ok(Done::success_if(!comparison.has_open()))
}

fn theirs(options: &Options) -> anyhow::Result<String> {
    if options.theirs.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(text);
    }
    fs::read_to_string(&options.theirs).with_context(|| format!("cannot read {}", options.theirs.display()))
}

/// Our figures, from the beginning of the counters and not since a mark.
fn ours(snapshot: &traffic_model::Snapshot) -> Figures {
    let containers = vz::containers(snapshot, None).into_iter();
    containers
        .flat_map(|(container, classes)| {
            classes.into_iter().map(move |(class, tallies)| ((container.clone(), class), tallies))
        })
        .collect()
}
