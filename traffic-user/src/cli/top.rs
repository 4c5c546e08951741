//! `trafctl top`

use std::{
    io::{IsTerminal as _, stdout},
    time::Duration,
};

use clap::{Args, ValueEnum};
use traffic_model::{
    live_rates::{self, Order, Selection},
    units::parse_repeat_interval,
};

use crate::{
    cli::{Done, Format, Global, Shown, pause, print},
    kernel::{counters, load},
    render::live_rates as render,
};

/// Show who sends and receives most, now
///
/// Reads the pinned maps again and again and shows what passed in between; no daemon is needed. `in` is to the container,
/// `out` is from it, in bits and packets a second at layer 3, as on the wire; class 0 is in it. Containers that were still
/// are left out. `(no class)` is what is no IP, or malformed, or nobody's.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl top\n  \
    trafctl top --by-class --sort out --interval 5\n  \
    trafctl top --container 101 --times 1\n  \
    trafctl top --format json | jq '{time, most: .rows[0].container}'")]
pub struct Options {
    #[command(flatten)]
    shown: Shown,
    /// Each class for itself
    #[arg(long)]
    by_class: bool,
    /// What comes first
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Time between two readings (1s, 500ms, 1m)
    #[arg(long, value_name = "INTERVAL", default_value = "1s", value_parser = parse_repeat_interval)]
    interval: Duration,
    /// How often to show it; for ever unless given
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    times: Option<u64>,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// The most bytes in and out together
    #[default]
    Total,
    /// The most bytes in
    In,
    /// The most bytes out
    Out,
    /// The most packets in and out together
    Packets,
}

impl From<Sort> for Order {
    fn from(sort: Sort) -> Self {
        match sort {
            Sort::Total => Self::Total,
            Sort::In => Self::In,
            Sort::Out => Self::Out,
            Sort::Packets => Self::Packets,
        }
    }
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let config = global.config()?;
    let selection = Selection {
        wanted: options.shown.wanted(global, &config)?,
        by_class: options.by_class,
        order: options.sort.into(),
    };
    // Opened each time: counters that are made anew meanwhile are other maps.
    let read = || counters::read(&load::open(&global.pinned())?, &config.node);
    let screen = stdout().is_terminal() && options.format == Format::Table;
    let mut earlier = read()?;
    let mut shown = 0;
    while options.times.is_none_or(|times| shown < times) {
        if !pause(options.interval).await? {
            break;
        }
        let later = read()?;
        let throughput = live_rates::between(&earlier, &later, &selection);
        let text = match options.format {
            Format::Table => {
                let room = screen.then(terminal_lines).flatten();
                render::table(&throughput, options.by_class, room)
            }
            Format::Json => render::json_line(&throughput)?,
        };
        print(&if screen { over_the_last(&text) } else { text })?;
        earlier = later;
        shown += 1;
    }
    Ok(Done::Success)
}

/// Written over what the terminal shows, line by line, so that nothing flickers; then the rest is cleared. Lines too long
/// for it are cut, not wrapped.
fn over_the_last(text: &str) -> String {
    format!("\x1b[?7l\x1b[H{}\x1b[J\x1b[?7h", text.replace('\n', "\x1b[K\n"))
}

/// How many lines the terminal has.
fn terminal_lines() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
    (size.ws_row > 0).then(|| size.ws_row.into())
}
