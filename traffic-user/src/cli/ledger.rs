//! `trafctl close`, `trafctl audit`, `trafctl ledger` and `trafctl container`: maintain the ledger.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use traffic_ledger::{DrainTrigger, LedgerError};
use traffic_model::ContainerId;
use traffic_model::local_time::LocalTime;

use crate::{
    cli::{Done, Format, Global, import_pva, print},
    drain::{Drainer, ledger_path},
    kernel::load::{self, ProgramChoice},
    node::{LockedKernel, Selection, Session},
    ownership::interface_rules::Role,
    render::ledger as render,
    time,
};

/// Close a billing month, so that its figures never change again
///
/// The rows of the month are frozen under a hash that is chained to the previous month. Later corrections are
/// rows of their own (`trafctl adjust`). The 95th percentiles of the month are kept with it. Without a month,
/// the command lists the closed months.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  trafctl close 2026-10\n  trafctl close --format json   list the closed months"
)]
pub struct CloseOptions {
    /// Billing month to close
    #[arg(value_name = "YYYY-MM")]
    month: Option<String>,
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
    trafctl ledger adopt\n  \
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
    #[command(after_long_help = "Example:\n  trafctl ledger adopt")]
    Adopt,
    ImportPva(import_pva::Options),
}

/// Manage the figures of a container
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  trafctl container retire 101")]
pub struct ContainerOptions {
    #[command(subcommand)]
    action: ContainerAction,
}

#[derive(Debug, Subcommand)]
enum ContainerAction {
    /// Retire a container, so that its id is free for a new customer
    ///
    /// The recorded figures stay with the old customer. Without this, a container that returns under its id
    /// continues where it stopped.
    #[command(after_long_help = "Example:\n  trafctl container retire 101")]
    Retire {
        /// The container
        #[arg(value_name = "ID", value_parser = ContainerId::new)]
        container: ContainerId,
    },
}

pub(super) fn close(global: &Global, options: &CloseOptions) -> anyhow::Result<Done> {
    let (ledger, closed, losses) = match &options.month {
        None => {
            let ledger = global.ledger()?;
            let closed = ledger.closed_periods()?;
            (ledger, closed, None)
        }
        Some(month) => {
            let mut ledger = global.ledger_for_writing()?;
            let now = time::now()?;
            let closed =
                if options.force { ledger.close_anyway(month, now) } else { ledger.close(month, now) }?;
            let gaps = ledger.gaps(Some(closed.start), Some(closed.end))?;
            let losses = gaps.iter().filter(|gap| gap.reason.loses_traffic()).count();
            (ledger, vec![closed], Some(losses))
        }
    };
    let local_time = LocalTime::of(ledger.calendar());
    print(&render::closed(&closed, losses, options.format.into(), &local_time)?)?;
    Ok(Done::Success)
}

pub(super) fn audit(global: &Global, options: &AuditOptions) -> anyhow::Result<Done> {
    let audit = global.ledger()?.audit()?;
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
        Action::Adopt => adopt(global),
        Action::ImportPva(options) => import_pva::run(global, options),
    }
}

/// Binds the pinned counters to the ledger of the state directory.
fn adopt(global: &Global) -> anyhow::Result<Done> {
    let bpffs = global.pinned();
    // Before waiting for the lock: there may be nothing to lock.
    load::open(&bpffs)?;
    let _lock = bpffs.lock()?;
    let maps = load::open(&bpffs)?;
    let path = ledger_path(&global.state_dir);
    let drainer = Drainer::open_adopting(&global.config()?, &global.state_dir)?.with_context(|| {
        format!("cannot adopt: there is no ledger {}; start `trafctl run` first", path.display())
    })?;
    let (pins, ledger) = (bpffs.root().display(), path.display());
    print(&match drainer.adopt(&maps)? {
        None => format!("the counters in {pins} already belong to the ledger {ledger}\n"),
        Some(since) => format!(
            "the counters in {pins} now belong to the ledger {ledger}\nthe next drain records everything that \
             they have counted since {since} and that this ledger does not have\n"
        ),
    })?;
    Ok(Done::Success)
}

pub(super) async fn container(global: &Global, options: &ContainerOptions) -> anyhow::Result<Done> {
    let ContainerAction::Retire { container: typed } = &options.action;
    let config = global.config()?;
    load::open(&global.pinned())?;
    let mut host = global.host(global.pinned())?;
    host.ask_if_needed(&host.netlink.interfaces()?).await;
    let mut session = host.begin(ProgramChoice::Pinned)?;
    // It was counted under the id that was known when it appeared, or under several of them in turn.
    let ids = host.policy.rules().all_ids(typed);
    let in_kernel: Vec<_> =
        ids.iter().filter(|id| session.registry.container_slot(id).is_some()).cloned().collect();
    // The ledger first. Whatever the old slot still counts belongs to the old owner, even if it is read
    // later.
    match Drainer::open_before_change(&config, &global.state_dir, session.maps())? {
        None => print("there is no ledger; only the live counters start at zero\n")?,
        Some(mut drainer) => {
            drainer.drain(session.maps(), DrainTrigger::Event)?;
            let mut retired = false;
            for container in &ids {
                match drainer.retire(container) {
                    Ok(label) => print(&format!("the figures of {container} are kept under {label}\n"))?,
                    Err(LedgerError::UnknownContainer(_)) => continue,
                    Err(error) => return Err(error.into()),
                }
                retired = true;
            }
            // If it has a slot, an earlier attempt was interrupted here.
            if !retired && in_kernel.is_empty() {
                return Err(LedgerError::UnknownContainer(typed.to_string()).into());
            }
        }
    }
    if in_kernel.is_empty() {
        return Ok(Done::Success);
    }
    for container in &in_kernel {
        session.registry.retire_container(&mut session.kernel, container)?;
    }
    let interfaces = host.netlink.interfaces()?;
    let mut report = session.attach(&host.policy, &interfaces, &Selection::Matching)?;
    let is_there = interfaces
        .iter()
        .any(|interface| matches!(host.policy.role(interface), Role::Container(id) if ids.contains(&id)));
    let has_slot =
        |session: &Session<LockedKernel>| ids.iter().any(|id| session.registry.container_slot(id).is_some());
    if is_there && !has_slot(&session) {
        // All slots were in use, including the old one. Now no interface points to the old one any more.
        report = session.attach(&host.policy, &interfaces, &Selection::Matching)?;
    }
    host.sync_addresses(&mut session)?;
    if is_there && !has_slot(&session) {
        bail!("the container is retired, but all counter slots are in use; raise `containers` in [limits]");
    }
    if !report.failed.is_empty() {
        bail!(
            "the container is retired, but some of its interfaces have no new counters; run `trafctl attach`"
        );
    }
    Ok(Done::Success)
}
