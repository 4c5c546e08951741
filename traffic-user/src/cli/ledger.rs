//! `trafctl close`, `trafctl audit` and `trafctl ledger`: maintain the ledger.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use traffic_model::{Snapshot, local_time::LocalTime};

use crate::{
    cli::{Done, Format, Global, confirm::Confirm, import_pva, print},
    drain::{self, Drainer, ledger_path},
    kernel::{counters, load},
    render::{json, ledger as render},
    time,
};

/// Close a billing month, so that its figures never change again
///
/// The rows of the month are frozen under a hash that is chained to the previous month. Later corrections are
/// rows of their own (`trafctl adjust`). The 95th percentiles of the month are kept with it. Without a month,
/// the command lists the closed months.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  trafctl close 2026-10         show what would be closed\n  trafctl close 2026-10 --yes\n  trafctl close --format json   list the closed months"
)]
pub struct CloseOptions {
    /// Billing month to close
    #[arg(value_name = "YYYY-MM")]
    month: Option<String>,
    /// Do it; without this, only show what would be done, with status 1
    #[arg(long, requires = "month")]
    yes: bool,
    /// Close it although its figures are doubtful
    ///
    /// A month is refused if it holds no figures, if the clock is not trusted, or if the readings around its
    /// end are missing. Nothing opens it again.
    #[arg(long, requires = "month")]
    force: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Check all sums and hashes of the ledger; status 1 if any is wrong
///
/// Hours, days and months are summed again from the rows below them. For each counter epoch (from a reboot or
/// purge to the next), the rows must match the control totals of its drains, and classes + faults must equal
/// what passed the interfaces.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  trafctl audit --format json")]
pub struct AuditOptions {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Back up the ledger, or bring other data into it
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl ledger backup /backup/ledger.sqlite\n  \
    trafctl ledger adopt --yes\n  \
    trafctl ledger import-pva /var/opt/pva/agent/pva.db")]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a complete copy while the ledger is in use
    #[command(after_long_help = "Example:\n  trafctl ledger backup /backup/ledger.sqlite")]
    Backup {
        /// Path of the copy; must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Let this ledger take over the counters of a ledger that was lost
    ///
    /// The pinned counters belong to the ledger that drains them; any other ledger is refused. If that ledger
    /// is lost, this command binds the counters to the ledger in the state directory. The next drain then
    /// records everything that they have counted since the last reboot or purge.
    ///
    /// A ledger that another machine kept is refused as well, because its containers are other customers. With
    /// this command it continues here, under an id of its own.
    #[command(after_long_help = "Examples:\n  \
        trafctl ledger adopt         show what would be bound\n  \
        trafctl ledger adopt --yes")]
    Adopt {
        #[command(flatten)]
        confirm: Confirm,
        /// Output format
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    ImportPva(import_pva::Options),
}

pub(super) fn close(global: &Global, options: &CloseOptions) -> anyhow::Result<Done> {
    let format = options.format.into();
    let Some(month) = &options.month else {
        let ledger = global.ledger()?;
        let local_time = LocalTime::of(ledger.calendar());
        print(&render::closed(&ledger.closed_periods()?, None, format, &local_time)?)?;
        return Ok(Done::Success);
    };
    let now = time::now()?;
    if !options.yes {
        let ledger = global.ledger()?;
        let preview = ledger.preview_close(month, now, options.force)?;
        print(&render::close_preview(&preview, format, &LocalTime::of(ledger.calendar()))?)?;
        return Ok(Done::ProblemsFound);
    }
    let mut ledger = global.ledger_for_writing()?;
    let closed = if options.force { ledger.close_anyway(month, now) } else { ledger.close(month, now) }?;
    let gaps = ledger.gaps(Some(closed.start), Some(closed.end))?;
    let losses = gaps.iter().filter(|gap| gap.reason.loses_traffic()).count();
    print(&render::closed(&[closed], Some(losses), format, &LocalTime::of(ledger.calendar()))?)?;
    Ok(Done::Success)
}

pub(super) fn audit(global: &Global, options: &AuditOptions) -> anyhow::Result<Done> {
    let live_counters = || -> anyhow::Result<Snapshot> {
        let node = &global.config_to_show().0.node;
        counters::read(&load::open(&global.pinned())?, node)
    };
    let audit =
        global.ledger()?.audit_with_counters(|| live_counters().map_err(|error| format!("{error:#}")))?;
    print(&render::audit(&audit, options.format.into())?)?;
    Ok(Done::success_if(audit.problems.is_empty()))
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    match &options.action {
        Action::Backup { file } => {
            let copy = global.ledger()?.backup(file);
            copy.with_context(|| format!("cannot back the ledger up to {}", file.display()))?;
            Ok(Done::Success)
        }
        Action::Adopt { confirm, format } => adopt(global, *confirm, *format),
        Action::ImportPva(options) => import_pva::run(global, options),
    }
}

/// The JSON document of an adoption.
#[derive(Serialize)]
struct Adopted {
    /// False for a preview, or if nothing had to be done.
    written: bool,
    /// The ledger.
    ledger: String,
    /// Where the counters are pinned.
    counters: String,
    /// Whether the counters belonged to this ledger already.
    belonged_already: bool,
    /// When the counters began, unless they belonged to it already.
    counting_since: Option<Timestamp>,
}

impl Adopted {
    fn text(&self) -> String {
        let Self { counters, ledger, .. } = self;
        match (self.counting_since, self.written) {
            (None, _) => format!("the counters in {counters} already belong to the ledger {ledger}\n"),
            (Some(since), true) => format!(
                "the counters in {counters} now belong to the ledger {ledger}\nthe next drain records everything \
                 that they have counted since {since} and that this ledger does not have\n"
            ),
            (Some(since), false) => format!(
                "would bind the counters in {counters} to the ledger {ledger}: the next drain would record \
                 everything that they have counted since {since} and that this ledger does not have\nnothing was \
                 written; repeat the command with --yes to write it\n"
            ),
        }
    }
}

/// Binds the pinned counters to the ledger of the state directory, or shows whether that would change anything.
fn adopt(global: &Global, confirm: Confirm, format: Format) -> anyhow::Result<Done> {
    let bpffs = global.pinned();
    // Before waiting for the lock: there may be nothing to lock.
    let maps = load::open(&bpffs)?;
    let path = ledger_path(&global.state_dir);
    let missing =
        || format!("cannot adopt: there is no ledger {}; start `trafctl run` first", path.display());
    let config = global.config()?;
    let since = if confirm.yes {
        global.migrate_ledger();
        let _lock = bpffs.lock()?;
        let maps = load::open(&bpffs)?;
        Drainer::open_adopting(&config, &global.state_dir)?.with_context(missing)?.adopt(&maps)?
    } else {
        ensure!(path.try_exists()?, missing());
        drain::preview_adopt(&global.ledger()?, &config.node, &maps)?
    };
    let adopted = Adopted {
        written: confirm.yes && since.is_some(),
        ledger: path.display().to_string(),
        counters: bpffs.root().display().to_string(),
        belonged_already: since.is_none(),
        counting_since: since,
    };
    print(&match format {
        Format::Table => adopted.text(),
        Format::Json => json::document(&adopted)?,
    })?;
    // A ledger of another machine is adopted even if its counters are bound already.
    Ok(confirm.done())
}
