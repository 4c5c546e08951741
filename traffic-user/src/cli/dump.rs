//! `trafctl dump`

use std::{io::IsTerminal as _, time::Duration};

use clap::Args;
use traffic_model::{Snapshot, units::parse_repeat_interval};

use crate::{
    class_source,
    cli::{
        Done, Global, SheetFormat,
        counter_filter::CounterFilter,
        output::{pause, print},
    },
    kernel::{counters, load},
    render::{
        ClassNames,
        dump::{self, Filter, Look},
    },
    vz::reset_baseline::BaselineFile,
};

/// Print the live counters
///
/// Reads the pinned maps; no daemon is needed. `in` is traffic to the container, `out` is traffic from it.
/// Bytes are layer-3 bytes and packets are packets, both as on the wire. Below the classes are the faults
/// (packets in no class, by reason) and the total that passed each interface.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl dump\n  \
    trafctl dump --container 101 --class 2 --class 3\n  \
    trafctl dump -6 --human --watch=2\n  \
    trafctl dump --since-mark\n  \
    trafctl dump --format json | jq '.counters[] | select(.class == 1)'")]
pub struct Options {
    #[command(flatten)]
    filter: CounterFilter,
    /// Include rows that are zero
    #[arg(long)]
    all: bool,
    /// Show class counters since `vztactl reset_ve_stat`, as vznetstat does
    #[arg(long)]
    since_mark: bool,
    /// Show bytes in KiB, MiB and GiB (tables only)
    #[arg(long)]
    human: bool,
    /// Print again after each interval until interrupted: 2, 0.5, 500ms, 1m [default: 1s]
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, require_equals = true, default_missing_value = "1s",
        value_parser = parse_repeat_interval)]
    watch: Option<Duration>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let maps = load::open(&global.pinned())?;
    let (config, is_usable) = global.config_to_show();
    let mut snapshot = counters::read(&maps, &config.node)?;
    let wanted = options.filter.wanted(global, &config, &snapshot)?;
    let filter = Filter { wanted, zeros: options.all };
    loop {
        if options.since_mark {
            BaselineFile::new(&global.state_dir).read()?.subtract_from(&mut snapshot);
        }
        // Read again each time: another table may come with other names.
        let names = class_source::class_names(&config, &global.state_dir);
        let text = render(&filter.apply(snapshot), &names, options)?;
        let Some(interval) = options.watch else {
            print(&text)?;
            return Ok(Done::success_if(is_usable));
        };
        // Home and clear, as `watch` does.
        let clear = std::io::stdout().is_terminal() && options.format == SheetFormat::Table;
        print(&if clear { format!("\x1b[H\x1b[2J{text}") } else { text })?;
        if !pause(interval).await? {
            return Ok(Done::success_if(is_usable));
        }
        snapshot = counters::read(&maps, &config.node)?;
    }
}

fn render(snapshot: &Snapshot, names: &ClassNames, options: &Options) -> anyhow::Result<String> {
    match options.format {
        SheetFormat::Table => {
            let look = Look { human: options.human, since_mark: options.since_mark };
            Ok(dump::table(snapshot, look, names))
        }
        SheetFormat::Json if options.watch.is_some() => dump::json_line(snapshot, names),
        SheetFormat::Json => dump::json(snapshot, names),
        SheetFormat::Csv => dump::csv(snapshot, names),
    }
}
