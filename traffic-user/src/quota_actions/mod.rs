//! Runs the actions of quotas (`trafctl quota run`), in a process of its own with none of the daemon's
//! rights.
//!
//! The ledger has the crossings, each with the names of the actions that it orders ([`orders`]). The journal
//! in the state directory has what became of each run, under an id that stays: it is not part of the ledger,
//! so that an older ledger that was restored fires nothing again. A run is noted as begun before it starts,
//! and as done after it succeeded. Whatever happens in between, it runs again under the same id.
//!
//! - `alerts`: problems of the node over time.
//! - `journal`: what became of each run.
//! - `order`: what is run, and what is told about it.
//! - `attempt`: one attempt of a run.
//! - `command`: one run of a program.
//! - `webhook`: an event to a server, signed.
//! - `mail`: a mail, for the node's `sendmail`.
//! - `runner`: which runs begin when, against the ledger, the file with the quotas and the journal. Its
//!   `in_force` has what runs again.

mod alerts;
mod attempt;
mod command;
mod journal;
mod last_looks;
mod mail;
mod order;
mod runner;
mod webhook;

use std::path::Path;

use traffic_ledger::Ledger;

pub use alerts::{Found, NodeAlert, NodeAlerts};
pub use journal::{Journal, Run, RunState, is_running};
pub use last_looks::LastLooks;
pub use order::{Order, orders, orders_of_alert};
pub use runner::Runner;

/// How many crossings are looked at for actions that failed.
const MOST: u32 = 10_000;

/// How many actions failed and are not done, of the last crossings.
///
/// # Errors
/// When the ledger or the journal cannot be read.
pub fn failed(ledger: &Ledger, state_dir: &Path) -> anyhow::Result<usize> {
    let crossings = ledger.last_quota_crossings(MOST)?;
    if crossings.iter().all(|crossing| crossing.actions.is_empty()) {
        return Ok(0);
    }
    let journal = Journal::read(state_dir)?;
    let is_failed = |order: &Order| journal.run(&order.id).is_some_and(|run| run.state == RunState::Failed);
    Ok(crossings.iter().flat_map(orders).filter(is_failed).count())
}
