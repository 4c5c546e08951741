//! `trafctl container`: frees the id of a container for a new customer, attributes what was counted for an owner
//! who was not known, and shows what a container was called.

mod attribute;
mod history;

use anyhow::bail;
use clap::{Args, Subcommand};
use traffic_ledger::{DrainTrigger, LedgerError};
use traffic_model::{ContainerId, local_time::LocalTime};

use crate::{
    cli::{Done, Format, Global, confirm::Confirm, print},
    config::Config,
    drain::{Drainer, ledger_path},
    kernel::{
        counters,
        load::{self, ProgramChoice},
    },
    node::{LockedKernel, Selection, Session},
    ownership::interface_rules::Role,
    render::ledger as render,
};

/// Manage the figures of a container
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl container history 101\n  \
    trafctl container retire 101 --yes\n  \
    trafctl container attribute pending:veth1a2b3c:17:20261128T224530Z 101 --yes")]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Retire a container, so that its id is free for a new customer
    ///
    /// The recorded figures stay with the old customer. Without this, a container that returns under its id
    /// continues where it stopped.
    #[command(after_long_help = "Examples:\n  \
        trafctl container retire 101         show what would be retired\n  \
        trafctl container retire 101 --yes")]
    Retire {
        /// The container, by its id; without --yes, also by its name
        #[arg(value_name = "ID", value_parser = ContainerId::new)]
        container: ContainerId,
        #[command(flatten)]
        confirm: Confirm,
        /// Output format
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    Attribute(attribute::AttributeOptions),
    History(history::HistoryOptions),
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let config = global.config()?;
    let (container, confirm, format) = match &options.action {
        Action::Retire { container, confirm, format } => (container, confirm, format),
        Action::Attribute(options) => return attribute::run(global, &config, options),
        Action::History(options) => return history::run(global, options),
    };
    let container = &global.meant(&config, container, *confirm)?;
    if confirm.yes {
        retire(global, &config, container, *format).await?;
    } else {
        preview(global, &config, container, *format)?;
    }
    Ok(confirm.done())
}

/// Shows what would be retired.
fn preview(global: &Global, config: &Config, typed: &ContainerId, format: Format) -> anyhow::Result<()> {
    let snapshot = counters::read(&load::open(&global.pinned())?, &config.node)?;
    let ids = global.all_ids(config, std::slice::from_ref(typed))?;
    let has_live_counters = ids.iter().any(|id| snapshot.containers().contains(id));
    let mut figures = Vec::new();
    let mut local_time = LocalTime::named("UTC");
    if ledger_path(&global.state_dir).try_exists()? {
        let ledger = global.ledger()?;
        local_time = LocalTime::of(ledger.calendar());
        for id in &ids {
            match ledger.preview_retire(id.as_str()) {
                Ok(preview) => figures.push(preview),
                Err(LedgerError::UnknownContainer(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    if figures.is_empty() && !has_live_counters {
        return Err(LedgerError::UnknownContainer(typed.to_string()).into());
    }
    let retired = render::Retired { written: false, figures, labels: Vec::new(), has_live_counters };
    print(&render::retired(&retired, format.into(), &local_time)?)
}

async fn retire(global: &Global, config: &Config, typed: &ContainerId, format: Format) -> anyhow::Result<()> {
    load::open(&global.pinned())?;
    let mut host = global.host(global.pinned())?;
    global.migrate_ledger();
    host.ask_if_needed(&host.netlink.interfaces()?).await;
    let mut session = host.begin(ProgramChoice::Pinned)?;
    // It was counted under the id that was known when it appeared, or under several of them in turn.
    let ids = host.policy.rules().all_ids(typed);
    let in_kernel: Vec<_> =
        ids.iter().filter(|id| session.registry.container_slot(id).is_some()).cloned().collect();
    // The ledger first. Whatever the old slot still counts belongs to the old owner, even if it is read
    // later.
    let mut retired = render::Retired {
        written: true,
        figures: Vec::new(),
        labels: Vec::new(),
        has_live_counters: !in_kernel.is_empty(),
    };
    let mut local_time = LocalTime::named("UTC");
    if let Some(mut drainer) = Drainer::open_before_change(config, &global.state_dir, session.maps())? {
        local_time = LocalTime::of(drainer.ledger().calendar());
        drainer.drain(session.maps(), DrainTrigger::Event)?;
        for container in &ids {
            let figures = match drainer.ledger().preview_retire(container.as_str()) {
                Err(LedgerError::UnknownContainer(_)) => continue,
                other => other?,
            };
            retired.labels.push(drainer.retire(container)?);
            retired.figures.push(figures);
        }
        // If it has a slot, an earlier attempt was interrupted here.
        if retired.labels.is_empty() && in_kernel.is_empty() {
            return Err(LedgerError::UnknownContainer(typed.to_string()).into());
        }
    }
    print(&render::retired(&retired, format.into(), &local_time)?)?;
    if in_kernel.is_empty() {
        return Ok(());
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
    Ok(())
}
