//! `trafctl ledger import-pva`: PVA's database as history from before this ledger.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use traffic_ledger::{PvaImport, PvaImported, PvaProgress};

use crate::{
    cli::{Done, Format, Global, print},
    render,
};

/// Take over what Virtuozzo's PVA agent stored, as history from before this ledger
///
/// Taken is what was over when this ledger's own counting began. What an earlier import took is not taken again: the
/// same file changes nothing, a longer one adds what is new, and values that differ are reported (status 1) and stay as
/// they are. History older than the ledger keeps five-minute rows becomes hours or days. What cannot be taken is counted by
/// its reason.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl ledger import-pva /var/opt/pva/agent/pva.db --dry-run\n  \
    trafctl ledger import-pva /var/opt/pva/agent/pva.db --class 1\n  \
    trafctl ledger import-pva old.db --until 2026-10-01T00:00:00Z --format json")]
pub struct Options {
    /// PVA's database, or a copy of it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The class of what PVA stored for all classes together
    ///
    /// Taken where there are no single classes, or where they do not add up to the total.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=254))]
    class: u8,
    /// Only what was over before this time [default: when this ledger's own counting began]
    #[arg(long, value_name = "T")]
    until: Option<Timestamp>,
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let now = Timestamp::now();
    let import = PvaImport {
        node: global.config()?.node,
        class: options.class,
        until: options.until,
        dry_run: options.dry_run,
        now,
    };
    let mut ledger = global.ledger_for_writing()?;
    let mut meter = Meter::new();
    let imported = ledger.import_pva(&options.file, &import, &mut |progress| meter.show(progress));
    meter.clear();
    let imported = imported
        .with_context(|| format!("cannot take over {}, nothing was written", options.file.display()))?;
    print(&match options.format {
        Format::Table => table(&imported),
        Format::Json => serde_json::to_string_pretty(&imported)? + "\n",
    })?;
    if !options.dry_run {
        ledger
            .maintain(now)
            .context("everything was taken over, but not yet summed up; `trafctl run` will")?;
    }
    Ok(Done::success_if(imported.conflicts.count == 0))
}

fn table(imported: &PvaImported) -> String {
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let mut lines: Vec<Vec<String>> = Vec::new();
    for container in &imported.containers {
        let numbers = [container.in_packets, container.in_bytes, container.out_packets, container.out_bytes];
        let mut line = vec![container.container.clone(), time(container.first), time(container.last)];
        line.extend(numbers.map(|number| number.to_string()));
        lines.push(line);
    }
    let header = ["CONTAINER", "FIRST", "LAST", "IN PACKETS", "IN BYTES", "OUT PACKETS", "OUT BYTES"];
    let mut text = render::columns(&header.map(str::to_owned), &(3..7), &lines);
    let mut say = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").is_ok();
    say(format_args!("taken until {}", imported.until));
    say(format_args!(
        "{} samples are new, {} were imported before",
        imported.samples, imported.samples_imported_before
    ));
    let rows = imported.rows;
    say(format_args!(
        "rows: {} of five minutes, {} of hours, {} of days",
        rows.five_minutes, rows.hours, rows.days
    ));
    for container in imported.containers.iter().filter(|container| container.retired) {
        say(format_args!(
            "history of {} goes to {}, who had that id then",
            container.eid, container.container
        ));
    }
    if imported.totals_taken.count > 0 {
        let first = imported.totals_taken.first.as_deref().unwrap_or_default();
        say(format_args!(
            "{} times the classes do not add up to the total, which was taken instead; first: {first}",
            imported.totals_taken.count
        ));
    }
    for skipped in &imported.skipped {
        let period = skipped.period.as_ref().map(|period| format!(" {period}")).unwrap_or_default();
        say(format_args!(
            "not taken: {} {}{period}; first: {}",
            skipped.count,
            skipped.reason.text(),
            skipped.first
        ));
    }
    if imported.conflicts.count > 0 {
        say(format_args!(
            "CONFLICT: {} sums that were imported before are others in this file; the ledger's stay:",
            imported.conflicts.count
        ));
        for conflict in &imported.conflicts.first {
            say(format_args!("  {conflict}"));
        }
    }
    if imported.dry_run {
        say(format_args!("nothing was written"));
    }
    text
}

/// A line on a terminal that says how far it is.
struct Meter {
    shown: Option<Instant>,
    on: bool,
}

impl Meter {
    fn new() -> Self {
        Self { shown: None, on: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, progress: PvaProgress) {
        // The clock is looked at now and then only.
        let (PvaProgress::Read(count) | PvaProgress::Booked(count, _)) = progress;
        if !self.on || count % 4096 != 0 {
            return;
        }
        let now = Instant::now();
        if self.shown.is_some_and(|shown| now.duration_since(shown) < Duration::from_millis(200)) {
            return;
        }
        self.shown = Some(now);
        let text = match progress {
            PvaProgress::Read(count) => format!("{count} samples read"),
            PvaProgress::Booked(done, all) => format!("{done} of {all} sums booked"),
        };
        self.write(&format!("\r\x1b[K{text}"));
    }

    fn clear(&self) {
        if self.shown.is_some() {
            self.write("\r\x1b[K");
        }
    }

    /// A terminal that has gone away is no reason to stop.
    fn write(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        let written = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        if let Err(error) = written {
            tracing::debug!("cannot show the progress: {error}");
        }
    }
}
