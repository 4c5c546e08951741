//! `trafctl container history`: what a container was called, and which interfaces changed hands.

use clap::Args;
use traffic_ledger::{Ledger, LedgerError};
use traffic_model::local_time::LocalTime;

use crate::{
    cli::{Done, Format, Global, global::OnThisNode, print},
    queries::known_names,
    render::ledger as render,
};

/// Show what a container was called and when, and which of its interfaces changed hands
///
/// Names come from the platforms and the configuration, and are kept from when they were first seen. A change of
/// hands is dated when a drain first saw it: what was counted before it stays with the former container.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl container history 101\n  \
    trafctl container history shop_web --format json")]
pub(super) struct HistoryOptions {
    /// The container, by its id, label or name
    #[arg(value_name = "ID")]
    container: String,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(global: &Global, options: &HistoryOptions) -> anyhow::Result<Done> {
    let ledger = global.ledger()?;
    let labels = known_names(&ledger, std::slice::from_ref(&options.container), &OnThisNode::new(global))?;
    let histories = labels.iter().map(|label| of(&ledger, label)).collect::<anyhow::Result<Vec<_>>>()?;
    let histories: Vec<_> = histories.into_iter().flatten().collect();
    if histories.is_empty() {
        return Err(LedgerError::NoSuchContainer(options.container.clone()).into());
    }
    print(&render::histories(&histories, options.format.into(), &LocalTime::of(ledger.calendar()))?)?;
    Ok(Done::Success)
}

/// The history of the container of a label; `None` without such a container.
fn of(ledger: &Ledger, label: &str) -> anyhow::Result<Option<render::History>> {
    let known = ledger.containers()?.into_iter().find(|known| known.container == label);
    let owner_changes = ledger.owner_changes(Some(label))?;
    Ok(known.map(|known| render::History {
        container: known.container,
        since: known.since,
        retired: known.retired,
        names: known.names,
        owner_changes,
    }))
}
