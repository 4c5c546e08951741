//! `trafctl ledger import-pva`: imports PVA's database as history from before this ledger.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use traffic_ledger::{PvaImport, PvaProgress};
use traffic_model::local_time::LocalTime;

use crate::{
    cli::{Done, Format, Global, confirm::Confirm, format::parse_class, print, progress::Progress},
    render::ledger as render,
    shipping, time,
};

/// Import what Virtuozzo's PVA agent recorded, as history from before this ledger
///
/// The import takes samples from before this ledger began to count. It skips what an earlier import took: the
/// same file changes nothing, and a longer file adds only new samples. Values that differ are reported
/// (status 1), and the ledger keeps its own. History older than the five-minute retention becomes hours or
/// days. Unusable rows are counted by reason.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl ledger import-pva /var/opt/pva/agent/pva.db\n  \
    trafctl ledger import-pva /var/opt/pva/agent/pva.db --class 1 --yes\n  \
    trafctl ledger import-pva old.db --until 2026-10-01T00:00:00Z --format json --yes")]
pub struct Options {
    /// PVA's database, or a copy of it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Class for the totals over all classes
    ///
    /// Used where the file has no single classes, or where they do not add up to the total.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_class)]
    class: u8,
    /// Only history before this time [default: when this ledger began to count]
    #[arg(long, value_name = "T")]
    until: Option<Timestamp>,
    /// Report what would be imported, as without --yes, with status 0
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    confirm: Confirm,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let now = time::now()?;
    let config = global.config()?;
    let import = PvaImport {
        node: config.node.clone(),
        class: options.class,
        until: options.until,
        dry_run: !options.confirm.yes,
        now,
    };
    let mut ledger = if options.confirm.yes { global.ledger_for_writing() } else { global.ledger() }?;
    ledger.set_retention(config.retention);
    let mut steps = Steps::default();
    let imported = ledger.import_pva(&options.file, &import, &mut |progress| steps.show(progress));
    drop(steps);
    let imported =
        imported.with_context(|| format!("cannot import {}, nothing was written", options.file.display()))?;
    print(&render::imported(&imported, options.format.into(), &LocalTime::of(ledger.calendar()))?)?;
    if options.confirm.yes {
        shipping::hold(&mut ledger, &global.state_dir, &config.ship)
            .and_then(|()| ledger.maintain(now))
            .context("everything was imported, but cannot sum it yet; `trafctl run` will try again")?;
    }
    let was_asked = options.confirm.yes || options.dry_run;
    Ok(Done::success_if(was_asked && imported.conflicts.count == 0))
}

/// The progress of an import: first it reads, then it writes.
#[derive(Default)]
struct Steps {
    reading: Option<Progress>,
    writing: Option<Progress>,
}

impl Steps {
    fn show(&mut self, progress: PvaProgress) {
        // Millions of samples: not every one is worth a look at the terminal.
        const EVERY: u64 = 4096;
        match progress {
            PvaProgress::Read(samples) if samples % EVERY == 0 => {
                self.reading.get_or_insert_with(|| Progress::counter("samples read:")).count(samples);
            }
            PvaProgress::Written(done, all) if done % EVERY == 0 => {
                self.reading = None;
                let writing = self.writing.get_or_insert_with(|| Progress::start("writing"));
                writing.set(
                    usize::try_from(done).unwrap_or(usize::MAX),
                    usize::try_from(all).unwrap_or(usize::MAX),
                );
            }
            PvaProgress::Read(_) | PvaProgress::Written(..) => {}
        }
    }
}
