//! `trafctl dump`

use std::{io::IsTerminal as _, time::Duration};

use clap::Args;
use traffic_model::units::parse_repeat_interval;

use crate::{
    cli::{Done, Global, SheetFormat, Shown, pause, print},
    kernel::{counters, load},
    render::dump::{self, Filter, Look},
    vz::reset_baseline::MarkFile,
};

/// Show the live counters
///
/// Reads the pinned maps; no daemon is needed. `in` is to the container, `out` is from it. Bytes are layer-3 bytes as
/// on the wire, packets are packets on the wire. Below the classes stand the faults: what is in no class, by reason;
/// and what passed each interface in all.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl dump\n  \
    trafctl dump --container 101 --class 2 --class 3\n  \
    trafctl dump -6 --human --watch=2\n  \
    trafctl dump --since-mark\n  \
    trafctl dump --format json | jq '.counters[] | select(.container==\"101\")'")]
pub struct Options {
    #[command(flatten)]
    shown: Shown,
    /// Rows of zeros too
    #[arg(long)]
    all: bool,
    /// Class counters since `vztactl reset_ve_stat`, as vznetstat shows them
    #[arg(long)]
    since_mark: bool,
    /// Bytes in KiB, MiB, GiB (table only)
    #[arg(long)]
    human: bool,
    /// Repeat at this interval until interrupted (1s, 500ms, 1m)
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, require_equals = true, default_missing_value = "1s",
        value_parser = parse_repeat_interval)]
    watch: Option<Duration>,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let config = global.config()?;
    let maps = load::open(&global.pinned())?;
    let filter = Filter { wanted: options.shown.wanted(global, &config)?, zeros: options.all };
    loop {
        let mut snapshot = counters::read(&maps, &config.node)?;
        if options.since_mark {
            MarkFile::new(&global.state_dir).read()?.subtract_from(&mut snapshot);
        }
        let snapshot = filter.apply(snapshot);
        let text = match options.format {
            SheetFormat::Table => {
                dump::table(&snapshot, Look { human: options.human, since_mark: options.since_mark })
            }
            SheetFormat::Json if options.watch.is_some() => dump::json_line(&snapshot)?,
            SheetFormat::Json => dump::json(&snapshot)?,
            SheetFormat::Csv => dump::csv(&snapshot)?,
        };
        let Some(interval) = options.watch else {
            print(&text)?;
            return Ok(Done::Success);
        };
        // Home and clear, as `watch` does.
        let clear = std::io::stdout().is_terminal() && options.format == SheetFormat::Table;
        print(&if clear { format!("\x1b[H\x1b[2J{text}") } else { text })?;
        if !pause(interval).await? {
            return Ok(Done::Success);
        }
    }
}
