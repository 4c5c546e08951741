//! `trafctl close`, `trafctl audit`, `trafctl ledger`, `trafctl container`: keeping the ledger.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use traffic_ledger::{DrainTrigger, LedgerError};
use traffic_model::ContainerId;

use crate::{
    cli::{Done, Format, Global, import_pva, print},
    drain::Drainer,
    kernel::load::{self, ProgramChoice},
    node::{Selection, Session},
    ownership::interface_rules::Role,
    render,
};

/// Freeze a billing month: its figures never change again
///
/// The rows of the month are kept as they are now, under a hash that is chained to the month before. What comes to light
/// later is a correction of its own (`trafctl adjust`), shown beside. Without a month, shows which are closed.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  trafctl close 2026-10\n  trafctl close --format json   the closed months"
)]
pub struct CloseOptions {
    /// The billing month
    #[arg(value_name = "YYYY-MM")]
    month: Option<String>,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Recompute all sums and hashes of the ledger; status 1 if any does not agree
///
/// Hours, days and months are summed up again from what is below them. Of each set of counters (one from reboot or purge to the
/// next) the rows must hold what its drains booked, and classes + faults must be what passed the interfaces.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  trafctl audit --format json")]
pub struct AuditOptions {
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Copy the ledger, or take over an older one
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl ledger backup /backup/ledger.sqlite\n  \
    trafctl ledger import-pva /var/opt/pva/agent/pva.db")]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a whole copy while the ledger is in use
    #[command(after_long_help = "Example:\n  trafctl ledger backup /backup/ledger.sqlite")]
    Backup {
        /// The copy; must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    ImportPva(import_pva::Options),
}

/// Say what becomes of a container's figures
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  trafctl container retire 101")]
pub struct ContainerOptions {
    #[command(subcommand)]
    action: ContainerAction,
}

#[derive(Debug, Subcommand)]
enum ContainerAction {
    /// Give the id to a new customer: what it had so far stays under the old one
    ///
    /// Without this, a container that comes back under its id goes on where it stopped.
    #[command(after_long_help = "Example:\n  trafctl container retire 101")]
    Retire {
        /// The container
        #[arg(value_name = "ID", value_parser = ContainerId::new)]
        container: ContainerId,
    },
}

pub(super) fn close(global: &Global, options: &CloseOptions) -> anyhow::Result<Done> {
    let closed = match &options.month {
        None => global.ledger()?.closed_periods()?,
        Some(month) => {
            let mut ledger = global.ledger_for_writing()?;
            let closed = ledger.close(month, Timestamp::now())?;
            tracing::info!("{} is closed; whoever notes its hash elsewhere can prove it later", closed.name);
            let gaps = ledger.gaps(Some(closed.start), Some(closed.end))?;
            let losses = gaps.iter().filter(|gap| gap.reason.loses_traffic()).count();
            if losses > 0 {
                tracing::warn!(
                    "{losses} gaps in it have traffic that is not in the sums: see `trafctl gaps`"
                );
            }
            vec![closed]
        }
    };
    print(&match options.format {
        Format::Table => render::ledger::closed(&closed),
        Format::Json => serde_json::to_string_pretty(&closed)? + "\n",
    })?;
    Ok(Done::Success)
}

pub(super) fn audit(global: &Global, options: &AuditOptions) -> anyhow::Result<Done> {
    let audit = global.ledger()?.audit()?;
    print(&match options.format {
        Format::Table => {
            let mut text = format!(
                "{} sums recomputed, {} left out (still open, or their finer rows are gone)\n{} sets of counters compared with what \
                 was booked, and classes + faults with what passed\n{} entries of the chain of closed months recomputed\n",
                audit.units, audit.units_skipped, audit.counter_sets, audit.chain_entries
            );
            if audit.counter_sets_skipped > 0 {
                text += &format!(
                    "{} sets of counters left out: the ledger was of an older version when they began\n",
                    audit.counter_sets_skipped
                );
            }
            if let Some(hash) = &audit.chain_hash {
                text += &format!("last hash of the chain: {hash}\n");
            }
            for problem in &audit.problems {
                text += &format!("PROBLEM {problem}\n");
            }
            if audit.problems.is_empty() {
                text += "no problems\n";
            }
            text
        }
        Format::Json => serde_json::to_string_pretty(&audit)? + "\n",
    })?;
    Ok(Done::success_if(audit.problems.is_empty()))
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    match &options.action {
        Action::Backup { file } => {
            global.ledger()?.backup(file).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Action::ImportPva(options) => return import_pva::run(global, options),
    }
    Ok(Done::Success)
}

pub(super) async fn container(global: &Global, options: &ContainerOptions) -> anyhow::Result<Done> {
    let ContainerAction::Retire { container: typed } = &options.action;
    let config = global.config()?;
    load::open(&global.pinned())?;
    let mut host = global.host(global.pinned())?;
    host.ask_if_needed(&host.netlink.interfaces().await?).await?;
    let mut session = host.begin(ProgramChoice::Pinned).await?;
    // Counted under whichever of its ids was known when it came, or under one after the other.
    let ids = host.naming().all_ids(typed);
    let in_kernel: Vec<_> =
        ids.iter().filter(|id| session.registry.container_slot(id).is_some()).cloned().collect();
    // The ledger first: what the old slot still counts belongs to the old owner, whenever it is read.
    match Drainer::open_existing(&config, &global.state_dir)? {
        None => tracing::warn!("there is no ledger; only the live counters begin anew"),
        Some(mut books) => {
            books.drain(&session.loaded.maps, DrainTrigger::Event)?;
            let mut retired = false;
            for container in &ids {
                match books.retire(container) {
                    Ok(label) => tracing::info!("what {container} had so far stays under {label}"),
                    Err(LedgerError::UnknownContainer(_)) => continue,
                    Err(error) => return Err(error.into()),
                }
                retired = true;
            }
            // If it is in the kernel, an earlier attempt came this far and no further.
            if !retired && in_kernel.is_empty() {
                return Err(LedgerError::UnknownContainer(typed.to_string()).into());
            }
        }
    }
    if in_kernel.is_empty() {
        return Ok(Done::Success);
    }
    for container in &in_kernel {
        session.registry.retire_container(&mut session.loaded.maps, container)?;
    }
    let interfaces = host.netlink.interfaces().await?;
    let mut report = host.attach(&mut session, &interfaces, &Selection::Matching).await?;
    let is_there = interfaces
        .iter()
        .any(|interface| matches!(host.role(interface), Role::Container(id) if ids.contains(&id)));
    let has_slot = |session: &Session| ids.iter().any(|id| session.registry.container_slot(id).is_some());
    if is_there && !has_slot(&session) {
        // All slots are taken, the old one too as long as an interface pointed to it, which no one does by now.
        report = host.attach(&mut session, &interfaces, &Selection::Matching).await?;
    }
    host.sync_addresses(&mut session)?;
    if is_there && !has_slot(&session) {
        bail!("retired, but all counter slots are taken: raise `containers` under [limits]");
    }
    if !report.failed.is_empty() {
        bail!("retired, but not every interface could be given its new counters; run `trafctl attach`");
    }
    Ok(Done::Success)
}
