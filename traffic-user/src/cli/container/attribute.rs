//! `trafctl container attribute`: whose a pending owner's traffic is.

use clap::Args;
use traffic_ledger::{DrainTrigger, LedgerError};
use traffic_model::{ContainerId, is_pending, local_time::LocalTime};

use crate::{
    cli::{Done, Format, Global, confirm::Confirm, print},
    config::Config,
    drain::{Drainer, ledger_path},
    kernel::{
        counters,
        load::{self, ProgramChoice},
    },
    render::ledger as render,
};

/// Give what was counted for an owner who was not known to a container
///
/// An interface whose container is not known yet is counted under an id that begins with `pending:`. It becomes
/// the container's by itself once the container is known. This command is for what stayed pending, because the
/// interface went, or because nothing names its container. `trafctl status` and `trafctl report` show the ids.
///
/// Everything that was counted under the id becomes the container's, in the ledger and in the live counters. A
/// closed month does not change: corrections take the figures from the pending owner and give them to the
/// container. The ledger records when it was done and why.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl container attribute pending:veth1a2b3c:17:20261128T224530Z 101      show what it would do\n  \
    trafctl container attribute pending:veth1a2b3c:17:20261128T224530Z 101 --yes --reason \"test of customer 7\"")]
pub(super) struct AttributeOptions {
    /// The pending owner; with the time of its retirement behind it if it was retired
    #[arg(value_name = "PENDING")]
    pending: String,
    /// The container, by its id; without --yes, also by its name
    #[arg(value_name = "ID", value_parser = ContainerId::of_container)]
    container: ContainerId,
    /// Reason in one line, which the ledger keeps
    #[arg(long, value_name = "TEXT", default_value = "by hand")]
    reason: String,
    #[command(flatten)]
    confirm: Confirm,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(global: &Global, config: &Config, options: &AttributeOptions) -> anyhow::Result<Done> {
    let pending = options.pending.as_str();
    if !is_pending(pending) {
        return Err(LedgerError::Query(format!(
            "{pending} is not a pending owner: these begin with `pending:`; `trafctl status` lists them"
        ))
        .into());
    }
    let owner = global.meant(config, &options.container, options.confirm)?;
    let attributed = if options.confirm.yes {
        attribute(global, config, options)?
    } else {
        preview(global, config, (pending, &owner))?
    };
    if attributed.is_unknown() {
        return Err(LedgerError::NoSuchContainer(pending.to_owned()).into());
    }
    print(&render::attributed(&attributed, options.format.into())?)?;
    Ok(options.confirm.done())
}

/// Shows what would be attributed.
fn preview(
    global: &Global,
    config: &Config,
    (pending, owner): (&str, &ContainerId),
) -> anyhow::Result<render::Attributed> {
    let mut attributed = render::Attributed::new(pending, owner, LocalTime::named("UTC"));
    if let Ok(maps) = load::open(&global.pinned()) {
        let snapshot = counters::read(&maps, &config.node)?;
        attributed.has_live_counters =
            snapshot.containers().iter().any(|container| container.as_str() == pending);
    }
    if ledger_path(&global.state_dir).try_exists()? {
        let ledger = global.ledger()?;
        attributed.local_time = LocalTime::of(ledger.calendar());
        attributed.preview = ledger.preview_attribution(pending, owner)?;
        attributed.attribution = ledger.attribution(pending)?;
    }
    Ok(attributed)
}

/// The ledger first: whatever is still counted under the pending id belongs to the container then, whenever it is
/// read. If this is interrupted before the live counters are told, the same command completes it.
fn attribute(
    global: &Global,
    config: &Config,
    options: &AttributeOptions,
) -> anyhow::Result<render::Attributed> {
    let (pending, owner) = (options.pending.as_str(), &options.container);
    let mut attributed = render::Attributed::new(pending, owner, LocalTime::named("UTC"));
    attributed.written = true;
    if load::open(&global.pinned()).is_err() {
        // Without counters there are only the figures of earlier boots.
        let mut ledger = global.ledger_for_writing()?;
        attributed.local_time = LocalTime::of(ledger.calendar());
        attributed.attribution = ledger.attribute(pending, owner, &options.reason, crate::time::now()?)?;
        return Ok(attributed);
    }
    global.migrate_ledger();
    let host = global.host(global.pinned())?;
    let mut session = host.begin(ProgramChoice::Pinned)?;
    let owner = host.policy.rules().main_id(owner.clone());
    let in_kernel = ContainerId::new(pending).ok().filter(|id| session.registry.has_any(id));
    attributed.has_live_counters = in_kernel.is_some();
    if let Some(mut drainer) = Drainer::open_before_change(config, &global.state_dir, session.maps())? {
        attributed.local_time = LocalTime::of(drainer.ledger().calendar());
        drainer.drain(session.maps(), DrainTrigger::Event)?;
        attributed.attribution = drainer.attribute(pending, &owner, &options.reason)?;
    }
    if let Some(pending) = in_kernel {
        session.registry.attribute(&mut session.kernel, &pending, &owner)?;
    }
    Ok(attributed)
}
