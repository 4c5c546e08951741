//! `trafctl detach`

use anyhow::{Context as _, bail};
use clap::Args;

use crate::{
    cli::{Done, Global},
    config::Config,
    drain,
    kernel::{counters, load},
    node::Selection,
    privileges,
};

/// Take the program off interfaces
///
/// Removes only what is trafctl's own. The counters stay in the kernel and go on when the program is attached again;
/// what passes meanwhile is not counted. `--purge` forgets them, after saying what would be lost.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  trafctl detach veth101.0\n  trafctl detach\n  trafctl detach --purge"
)]
pub struct Options {
    /// Interfaces [default: all]
    #[arg(value_name = "IFNAME")]
    interfaces: Vec<String>,
    /// Forget program, maps and all counters too
    #[arg(long, conflicts_with = "interfaces")]
    purge: bool,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let config = global.config()?;
    privileges::require()?;
    if options.purge {
        purge(global, &config).await?;
        return Ok(Done::Success);
    }
    let bpffs = global.pinned();
    if !bpffs.root().exists() {
        tracing::info!("nothing is loaded under {}", bpffs.root().display());
        return Ok(Done::Success);
    }
    let selection = if options.interfaces.is_empty() {
        Selection::Matching
    } else {
        Selection::Named(options.interfaces.clone())
    };
    let host = global.host(bpffs)?;
    let lock = host.bpffs.lock()?;
    let detached = host.detach(&lock, &selection).await?;
    if let Selection::Named(names) = &selection
        && let Some(missing) = names.iter().find(|name| !detached.contains(name))
    {
        bail!("nothing of ours is attached to {missing}");
    }
    for name in &detached {
        tracing::info!("{name}: detached; its counters stay");
    }
    Ok(Done::Success)
}

/// Detaches everywhere and forgets everything, saying first what is lost.
pub(super) async fn purge(global: &Global, config: &Config) -> anyhow::Result<()> {
    let bpffs = global.pinned();
    if !bpffs.root().exists() {
        tracing::info!("nothing is loaded under {}", bpffs.root().display());
        return Ok(());
    }
    let host = global.host(bpffs)?;
    let lock = host.bpffs.lock().context("nothing was purged")?;
    match load::open(&host.bpffs) {
        Ok(maps) => {
            drain::drain_before_change(config, &global.state_dir, &maps).with_context(|| {
                format!(
                    "nothing was purged; where the ledger is to be given up, move {} away first",
                    drain::ledger_path(&global.state_dir).display()
                )
            })?;
            let snapshot = counters::read(&maps, &config.node)?;
            let balance = snapshot.balance();
            tracing::warn!(
                "forgetting the counters of {} containers, kept since {}: {} bytes in, {} bytes out",
                snapshot.containers().len(),
                snapshot.epoch_created,
                balance.incoming.passed.bytes,
                balance.outgoing.passed.bytes,
            );
        }
        Err(error) => tracing::warn!("the counters can't be read before they are forgotten: {error:#}"),
    }
    host.detach(&lock, &Selection::Matching).await?;
    host.bpffs.clear()
}
