//! `trafctl dump`

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use traffic_model::{Snapshot, Wanted, live_rates::Order, units::parse_repeat_interval};

use crate::{
    class_source,
    cli::{
        Done, Global, SheetFormat,
        counter_filter::CounterFilter,
        output::{pause, print_message, print_one},
        screen, terminal,
    },
    kernel::{
        bpffs::Bpffs,
        counters,
        drops::{self, DropState, Drops},
        load,
    },
    render::{
        self, ClassNames,
        dump::{self, Filter, Look},
        screen::{Kind, Start},
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
    trafctl dump --drops --container 101\n  \
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
    /// Show what was counted, what the kernel dropped of it behind the hooks, and what was delivered
    #[arg(long, conflicts_with = "since_mark")]
    drops: bool,
    /// Show bytes in KiB, MiB and GiB (tables only)
    #[arg(long)]
    human: bool,
    /// Show the counters live on a terminal, in a pipe print again after each interval: 2, 0.5, 500ms, 1m
    /// [default: 1s]
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, require_equals = true, default_missing_value = "1s",
        value_parser = parse_repeat_interval)]
    watch: Option<Duration>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    load::open(&global.pinned())?;
    let (config, is_usable) = global.config_to_show();
    // Opened for each reading: counters that were made anew meanwhile are other maps.
    let (pinned, node, state_dir) = (global.pinned(), config.node.clone(), global.state_dir.clone());
    let since_mark = options.since_mark;
    let read = move || -> anyhow::Result<Snapshot> {
        let mut snapshot = counters::read(&load::open(&pinned)?, &node)?;
        if since_mark {
            BaselineFile::new(&state_dir).read()?.subtract_from(&mut snapshot);
        }
        Ok(snapshot)
    };
    let pinned = global.pinned();
    // Drops before counters: what was dropped is then in them.
    let read_all = || -> anyhow::Result<(Option<Drops>, Snapshot)> {
        let dropped = options.drops.then(|| read_drops(&pinned)).transpose()?;
        Ok((dropped, read()?))
    };
    let (mut dropped, mut snapshot) = read_all()?;
    let wanted = options.filter.wanted(global, &config, &snapshot)?;
    let filter = Filter { wanted, zeros: options.all };
    if let Some(interval) = options.watch
        && options.format == SheetFormat::Table
        && !options.drops
        && screen::is_possible()
    {
        let start = Start {
            kind: Kind::Totals,
            filter,
            order: Order::Total,
            by_class: true,
            by_family: true,
            human: options.human,
            colours: terminal::takes_colours(),
            ascii: terminal::is_ascii(),
        };
        let mut names = screen::Names::new(config, global.state_dir.clone());
        let read = Box::new(move || Ok(names.beside(read()?)));
        let done = screen::run(start, interval, read).await?;
        return Ok(if is_usable { done } else { Done::ProblemsFound });
    }
    loop {
        // Read again each time: another table may come with other names.
        let names = class_source::class_names(&config, &global.state_dir);
        let shown = filter.apply(snapshot);
        let text = match &dropped {
            Some(dropped) => render_drops(&shown, dropped, (&filter.wanted, options), &names)?,
            None => render(&shown, &names, options)?,
        };
        let is_read = print_one(&text)?;
        let Some(interval) = options.watch.filter(|_| is_read) else {
            return Ok(Done::success_if(is_usable));
        };
        let Some(next) = next(interval, &read_all).await? else { return Ok(Done::success_if(is_usable)) };
        (dropped, snapshot) = next;
    }
}

/// The next reading; `None` when interrupted. Says when there are no counters, and waits for new ones.
async fn next<T>(interval: Duration, read: &impl Fn() -> anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    let mut told = String::new();
    while pause(interval).await? {
        match read() {
            Ok(reading) => return Ok(Some(reading)),
            Err(error) => {
                let problem = format!("{error:#}");
                if problem != told {
                    print_message(&problem);
                    told = problem;
                }
            }
        }
    }
    Ok(None)
}

/// The drop counters, or why there are none.
fn read_drops(bpffs: &Bpffs) -> anyhow::Result<Drops> {
    if let Some(drops) = drops::read(bpffs, &load::open(bpffs)?)? {
        return Ok(drops);
    }
    match drops::state(bpffs)? {
        DropState::Refused(reason) => bail!("drops are not counted on this node: {reason}"),
        DropState::OtherVersion(_) => bail!(
            "drops are counted by another version of trafctl, in maps that this one cannot read; restart the \
             daemon, which replaces them"
        ),
        DropState::Counting(_) | DropState::Off => bail!(
            "drops are not counted: [drops] enabled is false, or the daemon has not loaded the program yet; \
             `trafctl status` says which, and `trafctl run` loads it"
        ),
    }
}

fn render_drops(
    snapshot: &Snapshot,
    dropped: &Drops,
    (wanted, options): (&Wanted, &Options),
    names: &ClassNames,
) -> anyhow::Result<String> {
    match options.format {
        SheetFormat::Table => {
            Ok(render::drops::table(snapshot, dropped, (wanted, options.all, options.human), names))
        }
        SheetFormat::Json => {
            render::drops::json(snapshot, dropped, (wanted, options.all, options.watch.is_some()), names)
        }
        SheetFormat::Csv => render::drops::csv(snapshot, dropped, wanted, names),
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
