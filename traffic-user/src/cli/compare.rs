//! `trafctl compare`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use traffic_model::Snapshot;

use crate::{
    class_source,
    cli::{Done, Global, SheetFormat, netstat::aliases, output::print},
    compare::{self, Comparison, Figures, Readings, baseline},
    config::Config,
    files,
    kernel::{counters, load},
    render::compare as render,
    vz,
};

/// Name of the first reading in the state directory.
const BASELINE: &str = "compare.json";

/// Compare the vznetstat output of another accounting with these counters
///
/// For running both side by side before switching over. The first call stores both readings. Each later call
/// shows what both counted since then, one row per container and class, with the likely reason of each
/// difference. A pipe takes both readings at nearly the same moment; a file should be as fresh as possible.
/// Status 1 if a difference has no known reason, or if a container is not counted here at all.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    /usr/sbin/vznetstat | trafctl compare --with -    store the first readings\n  \
    /usr/sbin/vznetstat | trafctl compare --with -    hours later: the differences\n  \
    trafctl compare --with old.txt --baseline /root/first.json --format csv\n  \
    /usr/sbin/vznetstat | trafctl compare --with - --restart")]
pub struct Options {
    /// Output of the other accounting's vznetstat, without -r; `-` for standard input
    #[arg(long = "with", value_name = "FILE")]
    theirs: PathBuf,
    /// File for the first readings [default: compare.json in the state directory]
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Start over: store these readings as the first ones
    #[arg(long)]
    restart: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let config = global.config_to_show().0;
    let now = readings(global, &config, &options.theirs)?;
    let path = options.baseline.clone().unwrap_or_else(|| global.state_dir.join(BASELINE));
    let first = if options.restart { None } else { baseline::read(&path)? };
    let Some(first) = first else {
        baseline::write(&path, &now)?;
        print(&match options.format {
            SheetFormat::Table => render::stored_table(&path),
            SheetFormat::Json => render::stored_json(&path, &now)?,
            SheetFormat::Csv => render::stored_csv()?,
        })?;
        return Ok(Done::Success);
    };
    ensure!(
        first.boot_id == now.boot_id && first.epoch == now.epoch,
        "cannot compare with the first readings in {}: they are of other counters, from before a reboot or \
         a purge; start over with --restart",
        path.display()
    );
    let comparison = Comparison::new(&first, &now);
    let names = class_source::class_names(&config, &global.state_dir);
    print(&match options.format {
        SheetFormat::Table => render::table(&comparison, &names),
        SheetFormat::Json => render::json(&comparison, &names)?,
        SheetFormat::Csv => render::csv(&comparison)?,
    })?;
    Ok(Done::success_if(!comparison.has_open()))
}

/// Reads both accountings, ours right after theirs.
fn readings(global: &Global, config: &Config, theirs: &Path) -> anyhow::Result<Readings> {
    let maps = load::open(&global.pinned())?;
    let text = read_theirs(theirs)?;
    let snapshot = counters::read(&maps, &config.node)?;
    let aliases = aliases(config);
    let counted = snapshot.containers();
    let theirs = compare::read(&text, &theirs.display().to_string(), |id| {
        let ids = vz::counted_ids(id, &counted, &aliases);
        Ok(ids.into_iter().next().unwrap_or_else(|| id.clone()))
    })?;
    Ok(Readings {
        time: snapshot.time,
        boot_id: snapshot.boot_id.clone(),
        epoch: snapshot.epoch,
        ours: ours(&snapshot),
        theirs,
    })
}

fn read_theirs(path: &Path) -> anyhow::Result<String> {
    if path.as_os_str() == "-" {
        let bytes = files::read_bounded(std::io::stdin(), files::MOST_COMPARE_BYTES);
        return bytes.and_then(files::text).context("cannot read standard input");
    }
    files::read_text(path, files::MOST_COMPARE_BYTES)
        .with_context(|| format!("cannot read {}", path.display()))
}

/// Our figures since the counters began; a reset baseline does not matter here.
fn ours(snapshot: &Snapshot) -> Figures {
    let containers = vz::containers(snapshot, None).into_iter();
    containers
        .flat_map(|(container, classes)| {
            classes.into_iter().map(move |(class, tallies)| ((container.clone(), class), tallies))
        })
        .collect()
}
