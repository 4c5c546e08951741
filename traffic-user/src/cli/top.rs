//! `trafctl top`

use std::time::Duration;

use clap::Args;
use traffic_model::{
    Snapshot,
    live_rates::{self, Selection},
    units::parse_repeat_interval,
};

use crate::{
    class_source,
    cli::{
        Done, Format, Global,
        counter_filter::CounterFilter,
        output::{pause, print_one},
        screen, terminal,
    },
    kernel::{
        counters,
        drops::{self, Drops},
        load,
    },
    queries::Sort,
    render::{
        dump::Filter,
        live_rates as render,
        screen::{Kind, Start},
    },
};

/// Show the containers with the most traffic right now
///
/// Reads the pinned maps at each interval and shows the difference; no daemon is needed. `in` is traffic to
/// the container, `out` is traffic from it, in bits and packets per second at layer 3, as on the wire; class
/// 0 is included. Idle containers are omitted. `(no class)` is traffic that is not IP, is malformed, or
/// belongs to no container. What the kernel dropped of the packets is in a column of its own; they are in the others too.
///
/// On a terminal, the screen shows everybody who had traffic within the last minute, until q is pressed; ? shows
/// the keys. In a pipe, and with --times, each reading is printed.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl top\n  \
    trafctl top --by-class --sort out --interval 5\n  \
    trafctl top --container 101 --times 1\n  \
    trafctl top --format json | jq '{time, most: .rows[0].container}'")]
pub struct Options {
    #[command(flatten)]
    filter: CounterFilter,
    /// One row per class instead of one per container
    #[arg(long)]
    by_class: bool,
    /// Sort order
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Time between two readings: 2, 0.5, 500ms, 1m
    #[arg(long, value_name = "INTERVAL", default_value = "1s", value_parser = parse_repeat_interval)]
    interval: Duration,
    /// How many times to print [default: until interrupted]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    times: Option<u64>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    load::open(&global.pinned())?;
    let (config, is_usable) = global.config_to_show();
    // Opened for each reading: counters that were made anew meanwhile are other maps.
    let pinned = global.pinned();
    let node = config.node.clone();
    let read = move || -> anyhow::Result<Snapshot> {
        let maps = load::open(&pinned)?;
        // Before the counters: what was dropped is then in them. Without drops, everything else is shown.
        let drops = drops::read(&pinned, &maps).ok().flatten().map(Drops::into_reading);
        Ok(Snapshot { drops, ..counters::read(&maps, &node)? })
    };
    let mut earlier = read()?;
    let selection = Selection {
        wanted: options.filter.wanted(global, &config, &earlier)?,
        by_class: options.by_class,
        order: options.sort.into(),
    };
    if options.format == Format::Table && options.times.is_none() && screen::is_possible() {
        let start = Start {
            kind: Kind::Rates,
            filter: Filter { wanted: selection.wanted, zeros: false },
            order: selection.order,
            by_class: selection.by_class,
            by_family: false,
            human: true,
            colours: terminal::takes_colours(),
            ascii: terminal::is_ascii(),
        };
        let mut names = screen::Names::new(config, global.state_dir.clone());
        let read = Box::new(move || Ok(names.beside(read()?)));
        let done = screen::run(start, options.interval, read).await?;
        return Ok(if is_usable { done } else { Done::ProblemsFound });
    }
    let mut shown = 0;
    while options.times.is_none_or(|times| shown < times) {
        if !pause(options.interval).await? {
            break;
        }
        let later = read()?;
        let rates = live_rates::between(&earlier, &later, &selection);
        // Read again each time: another table may come with other names.
        let names = class_source::class_names(&config, &global.state_dir);
        let is_read = print_one(&match options.format {
            Format::Table => render::table(&rates, options.by_class, &names),
            Format::Json => render::json_line(&rates, &names)?,
        })?;
        if !is_read {
            break;
        }
        earlier = later;
        shown += 1;
    }
    Ok(Done::success_if(is_usable))
}
