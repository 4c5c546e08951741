//! Part 8: many nodes and one store. What it takes to ship the backlog of a node, and to report of all of them, in a
//! throwaway ClickHouse and PostgreSQL on this machine.
//!
//! A *row* is what the ledger has of one container, class and family in five minutes: four counters. The totals of
//! interfaces, the days, and what describes them are shipped with the rows and not counted as such.
//!
//! - [`backlog`]: a month that a store does not have yet: time, memory, size.
//! - [`node`]: a node with a daemon: what one bucket costs, and drains while a backlog ships.
//! - [`month`]: the report of many nodes.
//! - [`server`]: the two kinds of stores.

mod backlog;
mod month;
mod node;
mod server;

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use traffic_ledger::{
    Ledger, LedgerConfig,
    testing::seeded::{self, Volume},
};
use traffic_tests::{Lab, lab::trafctl_program};

use crate::{progress::Progress, results::Results};
use server::Kind;

/// The names of the tables of figures.
pub const TIME: &str = "fleet";
/// See [`TIME`].
pub const CPU: &str = "fleet, CPU of the shipper";
/// See [`TIME`].
pub const CPU_OF_REPORT: &str = "fleet, CPU of the report beside the server";
/// See [`TIME`].
pub const MEMORY: &str = "fleet, memory of the shipper";
/// See [`TIME`].
pub const ROWS: &str = "fleet, rows of five minutes";
/// See [`TIME`].
pub const SIZE: &str = "fleet, size";
/// See [`TIME`].
pub const DRAINS: &str = "fleet, drains";

/// The whole backlog of a node.
pub const BACKLOG: &str = "the backlog of a node";
/// The report of a month, by containers.
pub const MONTH: &str = "a month's report";
/// A bucket of all containers.
pub const BUCKET: &str = "one bucket, 1,000 containers";
/// A drain beside the shipping of a backlog, and alone.
pub const DRAIN: &str = "a drain, ms";
/// The size of a row, with all that is shipped beside it.
pub const ROW: &str = "a row";
/// Drains while nothing ships.
pub const ALONE: &str = "alone";

/// The variants, as they are called in the results.
pub const CLICKHOUSE: &str = "ClickHouse";
/// See [`CLICKHOUSE`].
pub const POSTGRES: &str = "PostgreSQL";

/// Classes that every container uses, in both families.
const CLASSES: u8 = 4;
const DAY_S: i64 = 86_400;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scale {
    /// Some rows, to see that everything works.
    Tiny,
    /// A day of 1,000 containers, and reports of a hundredth of the rows.
    Quick,
    /// A month of 1,000 containers, and reports of 300 million rows.
    Full,
}

impl Scale {
    const fn containers(self) -> u32 {
        match self {
            Self::Tiny => 3,
            _ => 1000,
        }
    }

    /// Days of the backlog.
    const fn days(self) -> i64 {
        match self {
            Self::Full => 30,
            _ => 1,
        }
    }

    /// Nodes of the report.
    const fn nodes(self) -> u32 {
        match self {
            Self::Tiny => 2,
            _ => 20,
        }
    }

    /// Days with rows in the report's month.
    const fn days_of_month(self) -> i64 {
        match self {
            Self::Tiny => 2,
            _ => 30,
        }
    }

    /// Seconds between two rows of a series in the report's month, so that there are as many rows as wanted.
    const fn apart_s(self, kind: Kind) -> u64 {
        match (self, kind) {
            (Self::Tiny, _) => 43_200,
            (Self::Full, Kind::ClickHouse) => 1200,
            (Self::Full, Kind::Postgres) => 10_800,
            (Self::Quick, Kind::ClickHouse) => 43_200,
            (Self::Quick, Kind::Postgres) => 86_400,
        }
    }

    /// Days that are shipped anew in every round of drains.
    const fn backlog_beside_drains(self) -> i64 {
        match self {
            Self::Tiny => 1,
            _ => 4,
        }
    }

    /// Drains of a round.
    const fn drains(self) -> usize {
        match self {
            Self::Tiny => 2,
            _ => 9,
        }
    }
}

/// What the backlog of the full scale is called.
pub fn full_backlog() -> String {
    backlog::case(Scale::Full)
}

/// What the report of the full scale is called.
pub fn full_month() -> String {
    month::case(Scale::Full)
}

/// Drains beside shipping to one kind of store. A case for each: only figures of the same round are compared.
pub fn drain_case(kind: &str) -> String {
    format!("{DRAIN}, {kind}")
}

/// Runs the measurement. `ledger` is the state directory with the ledger of the backlog, which is made if it is missing;
/// without it, it is made for this run.
pub fn run(
    (scale, rounds): (Scale, usize),
    ledger: Option<&Path>,
    results: &mut Results,
    progress: &Progress,
) -> Result<()> {
    let own = tempfile::tempdir()?;
    let state = ledger.map_or_else(|| own.path().join("state"), Path::to_owned);
    seed(&state, (scale.containers(), scale.days()), progress)?;
    for kind in Kind::ALL {
        backlog::run(kind, scale, &state, (results, progress))?;
    }
    node::run(scale, rounds, results, progress)?;
    for kind in Kind::ALL {
        month::run(kind, (scale, rounds), results, progress)?;
    }
    Ok(())
}

/// Makes a state directory with a ledger that ends with the last whole day, unless there is one.
fn seed(state: &Path, (containers, days): (u32, i64), progress: &Progress) -> Result<()> {
    if state.exists() {
        return Ok(());
    }
    progress.note(&format!("fleet: filling a ledger with {days} days of {containers} containers"));
    // Only a complete one gets its name.
    let partial = state.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    fill(&partial.join("ledger.sqlite"), (containers, days), 300, today()?)?;
    fs::rename(&partial, state).with_context(|| format!("cannot rename {}", partial.display()))
}

/// The beginning of this day in UTC.
fn today() -> Result<Timestamp> {
    Ok(Timestamp::from_second(Timestamp::now().as_second() / DAY_S * DAY_S)?)
}

/// Makes a ledger of some days before a time, in which each series has a row every `apart_s` seconds.
fn fill(path: &Path, (containers, days): (u32, i64), apart_s: u64, end: Timestamp) -> Result<()> {
    let begin = end - SignedDuration::from_secs(days * DAY_S);
    let mut ledger = Ledger::open(path, LedgerConfig::default())?;
    let mut snapshot = seeded::first_snapshot(begin, containers, CLASSES);
    seeded::fill(&mut ledger, &mut snapshot, (end, apart_s), Volume::Mixed)?;
    // The last day is summed up when a reading has come after it. Nothing has passed until then.
    snapshot.time += SignedDuration::from_mins(10);
    snapshot.boottime_ns += 600_000_000_000;
    ledger.drain(&snapshot, seeded::every(600))?;
    ledger.maintain(end + SignedDuration::from_hours(2))?;
    Ok(())
}

/// `trafctl` in the namespace of a lab, with another state directory.
fn trafctl(lab: &Lab, state: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = lab.host().command(trafctl_program()?);
    command.arg("--state-dir").arg(state).arg("--config").arg(lab.config()).args(arguments);
    Ok(command)
}
