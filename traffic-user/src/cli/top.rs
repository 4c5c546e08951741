//! `trafctl top`

use std::{
    io::{IsTerminal as _, stdout},
    time::Duration,
};

use clap::{Args, ValueEnum};
use tokio::time;
use traffic_common::Family;

use super::{Done, Format, Global, print};
use crate::{
    kernel::{counters, load},
    output::throughput as render,
    snapshot::ContainerId,
    throughput::{self, Order, Selection},
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
    /// Only IPv4
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only IPv6
    #[arg(short = '6')]
    ipv6: bool,
    /// Only this container; may be repeated
    #[arg(long = "container", value_name = "ID", value_parser = ContainerId::new)]
    containers: Vec<ContainerId>,
    /// Only this class; may be repeated
    #[arg(long = "class", value_name = "N")]
    classes: Vec<u8>,
    /// Each class for itself
    #[arg(long)]
    by_class: bool,
    /// What comes first
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Seconds between two readings
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
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

impl Options {
    fn selection(&self, containers: Vec<ContainerId>) -> Selection {
        Selection {
            family: match (self.ipv4, self.ipv6) {
                (true, _) => Some(Family::Ipv4),
                (_, true) => Some(Family::Ipv6),
                _ => None,
            },
            containers,
            classes: self.classes.clone(),
            by_class: self.by_class,
            order: match self.sort {
                Sort::Total => Order::Total,
                Sort::In => Order::In,
                Sort::Out => Order::Out,
                Sort::Packets => Order::Packets,
            },
        }
    }
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let config = global.config()?;
    let selection = options.selection(global.all_ids(&config, &options.containers)?);
    // Opened each time: counters that are made anew meanwhile are other maps.
    let read = || counters::read(&load::open(&global.pinned())?, &config.node);
    let screen = stdout().is_terminal() && options.format == Format::Table;
    let mut earlier = read()?;
    let mut shown = 0;
    while options.times.is_none_or(|times| shown < times) {
        tokio::select! {
            () = time::sleep(Duration::from_secs(options.interval)) => {}
            result = tokio::signal::ctrl_c() => {
                result?;
                break;
            }
        }
        let later = read()?;
        let throughput = throughput::between(&earlier, &later, &selection);
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
    Ok(Done::Well)
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
