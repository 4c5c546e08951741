//! `trafctl export`: prints the counters in the format of another program.

use clap::{Args, Subcommand};
use traffic_common::Family;

use crate::{
    cli::{Done, Global, print},
    kernel::{counters, load},
    vz::{self, reset_baseline::BaselineFile, venetstat},
};

/// Print the counters in the format of another program
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  trafctl export venetstat")]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the lines of Virtuozzo's /proc/vz/venetstat
    ///
    /// Each line has an id and the bytes in and out of the classes 0 to 15 since the last reset. The node
    /// itself has id 0. The format has no room for higher classes.
    #[command(after_long_help = "Examples:\n  \
        trafctl export venetstat\n  \
        trafctl export venetstat -6 | awk '$1 == 101'")]
    Venetstat {
        /// Print IPv6 (/proc/vz/venetstat_v6) instead of IPv4
        #[arg(short = '6')]
        ipv6: bool,
    },
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let What::Venetstat { ipv6 } = options.what;
    let mut snapshot = counters::read(&load::open(&global.pinned())?, "")?;
    BaselineFile::new(&global.state_dir).read()?.subtract_from(&mut snapshot);
    if let Some(counter) = snapshot.counters.iter().find(|counter| counter.class >= vz::CLASSES) {
        tracing::warn!("venetstat has no room for class {} and above; they are omitted", counter.class);
    }
    print(&venetstat::render(&snapshot, if ipv6 { Family::Ipv6 } else { Family::Ipv4 }))?;
    Ok(Done::Success)
}
