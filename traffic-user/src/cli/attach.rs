//! `trafctl attach`

use anyhow::bail;
use clap::Args;

use crate::{
    cli::{Done, Global},
    kernel::{
        attach::Change,
        bpffs::Bpffs,
        load::{LoadOutcome, ProgramChoice},
    },
    node::{AttachReport, Host, Selection},
    privileges,
};

/// Attach to the interfaces of containers, and exit
///
/// Loads the program and the class table, or finds them loaded; attaches to the interfaces named, or to all that a rule
/// makes a container's; pins everything, so that counting goes on without any process. A second run changes nothing. In
/// a container's start hook, `trafctl attach veth101.0` returns when the first packet will be counted.
///
/// The class file is loaded only together with the program; later changes are taken over by `trafctl run` or `trafctl classes load`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl attach\n  \
    trafctl attach veth101.0 veth101.1\n  \
    trafctl attach --purge      start anew where an older version's maps can't be used")]
pub struct Options {
    /// Interfaces [default: all that match]
    #[arg(value_name = "IFNAME")]
    interfaces: Vec<String>,
    /// Forget all counters first, saying what they were
    #[arg(long)]
    purge: bool,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    // Read what can be wrong before anything is changed.
    let config = global.config()?;
    privileges::require()?;
    if options.purge {
        crate::cli::detach::purge(global, &config).await?;
    }
    let mut host = global.host(Bpffs::prepare(&global.bpffs)?)?;
    let selection = if options.interfaces.is_empty() {
        Selection::Matching
    } else {
        Selection::Named(options.interfaces.clone())
    };
    let interfaces = host.netlink.interfaces().await?;
    // Before the lock is taken: nobody waits for a command of the operator's.
    let concerned: Vec<_> = match &selection {
        Selection::Matching => interfaces.clone(),
        Selection::Named(names) => {
            interfaces.iter().filter(|interface| names.contains(&interface.name)).cloned().collect()
        }
    };
    host.ask_if_needed(&concerned).await?;
    let mut session = host.begin(ProgramChoice::Current).await?;
    // Anew: what another process attached while this one waited for the lock is not gone.
    let interfaces = host.netlink.interfaces().await?;
    host.release_gone(&mut session, &interfaces)?;
    host.go_first(&session, &interfaces).await?;
    let report = host.attach(&mut session, &interfaces, &selection).await?;
    host.sync_addresses(&mut session)?;
    tell(&host, session.loaded.outcome, &report);
    if !report.failed.is_empty() {
        bail!(
            "{} of {} interfaces could not be attached",
            report.failed.len(),
            report.failed.len() + report.attached.len()
        );
    }
    Ok(Done::Success)
}

/// Says on stderr what was done.
pub(super) fn tell(host: &Host, outcome: LoadOutcome, report: &AttachReport) {
    match outcome {
        LoadOutcome::Created => tracing::info!("loaded the program and made the counters"),
        LoadOutcome::Found | LoadOutcome::Replaced => {}
    }
    for (name, change) in &report.attached {
        match change {
            Change::Attached => tracing::info!("{name}: attached ({})", host.kind().name()),
            Change::Replaced => tracing::info!("{name}: program replaced"),
            Change::Kept => tracing::debug!("{name}: attached already"),
        }
    }
    for (name, reason) in &report.unresolved {
        tracing::warn!("{name}: not attached: {reason}");
    }
    for (name, reason) in &report.failed {
        tracing::error!("{name}: {reason}");
    }
    if report.attached.is_empty() && report.failed.is_empty() {
        tracing::info!("no interface matches a rule; nothing to attach to yet");
    }
}
