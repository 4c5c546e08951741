//! `trafctl detach`

use std::{fs::File, time::Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use traffic_model::Snapshot;

use crate::{
    class_source,
    cli::{Done, Format, Global, format::interface_name, output::print},
    config::Config,
    drain, health,
    kernel::{
        bpffs::Bpffs,
        counters,
        load::{self, StateError},
        tables::LoadLock,
    },
    node::Selection,
    privileges,
    render::attach::{self as render, Detached, PurgePreview, Purged},
};

/// Detach the program from interfaces
///
/// Removes only what belongs to trafctl. The counters stay in the kernel and continue when the program is
/// attached again; traffic in the meantime is not counted. While `trafctl run` runs, only single interfaces are
/// detached, and it attaches to them again; for all others stop the service first. `--purge --yes` deletes the
/// counters, after printing what they were.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  trafctl detach veth101.0\n  trafctl detach\n  trafctl detach --purge         show what would be deleted\n  trafctl detach --purge --yes"
)]
pub struct Options {
    /// Interfaces [default: all]
    #[arg(value_name = "IFNAME", value_parser = interface_name())]
    interfaces: Vec<String>,
    /// Delete the program, the maps and all counters too
    #[arg(long, conflicts_with = "interfaces")]
    purge: bool,
    /// Do it; without this, only show what would be done, with status 1
    #[arg(long, requires = "purge")]
    yes: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let config = global.config_or_last_good()?;
    privileges::require()?;
    let detached = if options.purge && !options.yes {
        preview_purge(global, &config)?
    } else if options.purge {
        purge(global, &config).await?
    } else {
        detach(global, &options.interfaces).await?
    };
    print(&match options.format {
        Format::Table if !detached.was_loaded => {
            format!("nothing is loaded under {}\n", global.bpffs.display())
        }
        Format::Table => render::detached_table(&detached.result),
        Format::Json => render::detached_json(&detached.result)?,
    })?;
    Ok(Done::success_if(detached.result.would_purge.is_none()))
}

/// What a detach did.
#[derive(Default)]
pub(super) struct Outcome {
    was_loaded: bool,
    pub(super) result: Detached,
}

async fn detach(global: &Global, names: &[String]) -> anyhow::Result<Outcome> {
    let bpffs = global.pinned();
    if !bpffs.root().exists() {
        return Ok(Outcome::default());
    }
    let selection = if names.is_empty() { Selection::Matching } else { Selection::Named(names.to_owned()) };
    // Of a single interface, the daemon puts its own program first again.
    let _no_daemon =
        if names.is_empty() { Some(without_daemon(&bpffs, "nothing was detached")?) } else { None };
    let host = global.host(bpffs)?;
    let detached = host.detach(&selection)?;
    if let Some(missing) = names.iter().find(|name| !detached.contains(name)) {
        bail!("cannot detach from {missing}: no program of trafctl is attached to it");
    }
    Ok(Outcome { was_loaded: true, result: Detached { detached, ..Detached::default() } })
}

/// What [`purge`] would delete.
pub(super) fn preview_purge(global: &Global, config: &Config) -> anyhow::Result<Outcome> {
    let bpffs = global.pinned();
    if !bpffs.root().exists() {
        return Ok(Outcome::default());
    }
    let preview = match load::open(&bpffs) {
        Ok(maps) => {
            let snapshot = counters::read(&maps, &config.node)?;
            let interfaces = snapshot.interfaces.iter().map(|counter| counter.interface.clone()).collect();
            PurgePreview { counters: Some(counters_of(&snapshot)), interfaces }
        }
        Err(error) if is_not_loaded(&error) => return Ok(Outcome::default()),
        Err(error) => {
            tracing::warn!("the counters cannot be read: {error:#}");
            PurgePreview { counters: None, interfaces: Vec::new() }
        }
    };
    let result = Detached { would_purge: Some(preview), ..Detached::default() };
    Ok(Outcome { was_loaded: true, result })
}

fn counters_of(snapshot: &Snapshot) -> Purged {
    let balance = snapshot.balance();
    Purged {
        containers: snapshot.containers().len(),
        since: snapshot.epoch_created.to_string(),
        in_bytes: balance.incoming.passed.bytes,
        out_bytes: balance.outgoing.passed.bytes,
    }
}

/// Refuses what a daemon would undo at once, losing what passes meanwhile. Keeps a daemon from starting as long as
/// the result exists.
fn without_daemon(bpffs: &Bpffs, refusal: &str) -> anyhow::Result<Option<File>> {
    let lock = bpffs.lock_of_daemon(Instant::now())?;
    if lock.is_none() {
        let pid = health::read(bpffs.root())
            .map_or_else(String::new, |(record, _)| format!(" (process {})", record.pid));
        bail!(
            "{refusal}: a daemon{pid} keeps the counters in {}; stop its service first (`systemctl stop trafctl`), then \
             run this again",
            bpffs.root().display()
        );
    }
    Ok(lock)
}

/// Detaches everywhere and deletes everything. Returns what is lost, for the caller to print.
pub(super) async fn purge(global: &Global, config: &Config) -> anyhow::Result<Outcome> {
    let bpffs = global.pinned();
    if !bpffs.root().exists() {
        return Ok(Outcome::default());
    }
    if let Ok(maps) = load::open(&bpffs) {
        drain::refuse_other_daemons(config, &global.state_dir, &maps).context("nothing was purged")?;
    }
    let _no_daemon = without_daemon(&bpffs, "nothing was purged")?;
    let host = global.host(bpffs)?;
    global.migrate_ledger();
    // A shadow class table that is about to begin would outlive the counters.
    let loading = LoadLock::take(&host.bpffs).context("nothing was purged")?;
    let lock = host.bpffs.lock().context("nothing was purged")?;
    let purged = match load::open(&host.bpffs) {
        Ok(maps) => {
            drain::drain_before_change(config, &global.state_dir, &maps).context("nothing was purged")?;
            Some(counters_of(&counters::read(&maps, &config.node)?))
        }
        Err(error) if is_not_loaded(&error) => None,
        Err(error) => {
            tracing::warn!("the counters cannot be read before they are deleted: {error:#}");
            None
        }
    };
    let detached = host.detach_everywhere(&lock)?;
    load::purge(&host.bpffs, &lock)?;
    class_source::shadow::forget(&global.state_dir, &loading);
    let was_loaded = purged.is_some() || !detached.is_empty();
    Ok(Outcome { was_loaded, result: Detached { detached, purged, would_purge: None } })
}

/// Whether there are no counters, in contrast to such as cannot be read.
fn is_not_loaded(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StateError::NotLoaded(_)))
}
