//! Runs the actions of quotas (`trafctl quota run`), in a process of its own with none of the daemon's rights.
//!
//! The ledger has the crossings, each with the names of the actions that it orders ([`orders`]). The journal in the
//! state directory has what became of each run, under an id that stays: it is not part of the ledger, so that an
//! older ledger that was restored fires nothing again. A run is noted as begun before it starts, and as done after
//! it succeeded. Whatever happens in between, it runs again under the same id.
//!
//! - `journal`: what became of each run.
//! - `command`: one run of a program.
//! - `runner`: which runs begin when, against the ledger, the file with the quotas and the journal.

mod command;
mod journal;
mod runner;

use std::path::Path;

use serde::Serialize;
use traffic_ledger::{Ledger, QuotaCrossing};
use traffic_quota::Change;

pub use journal::{Journal, Run, RunState, is_running};
pub use runner::Runner;

/// Version of the document that an action reads.
const VERSION: u32 = 1;

/// A run of an action that a crossing orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The id that stays.
    pub id: String,
    /// Name of the action.
    pub action: String,
    /// The crossing.
    pub crossing: QuotaCrossing,
}

impl Order {
    /// The runs that wait for each other: those of one action for one container, whatever the quota.
    pub fn subject(&self) -> String {
        format!("{}/{}", self.crossing.container_id, self.action)
    }
}

/// The runs that a crossing orders.
pub fn orders(crossing: &QuotaCrossing) -> impl Iterator<Item = Order> + '_ {
    crossing.actions.iter().map(|action| Order {
        id: format!("{}/{action}", crossing.id),
        action: action.clone(),
        crossing: crossing.clone(),
    })
}

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

/// What an action reads on its standard input.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    /// The same in each attempt.
    id: &'a str,
    /// `reached`, `undone` or `ended`.
    event: &'static str,
    action: &'a str,
    node: &'a str,
    container: &'a str,
    container_name: Option<&'a str>,
    quota: &'a str,
    period: PeriodField<'a>,
    threshold_percent: u16,
    /// `bytes` or `bit/s`.
    unit: &'static str,
    used: u64,
    /// Null without a limit.
    allowance: Option<u64>,
    found: String,
    /// From 1.
    attempt: u32,
}

#[derive(Serialize)]
struct PeriodField<'a> {
    label: &'a str,
    start: String,
    end: String,
}

/// Seconds since the Unix epoch as a time in UTC.
fn utc(unix_s: i64) -> String {
    jiff::Timestamp::from_second(unix_s).map_or_else(|_| unix_s.to_string(), |time| time.to_string())
}

impl Order {
    fn document(&self, node: &str, attempt: u32) -> Vec<u8> {
        let crossing = &self.crossing;
        let document = Document {
            version: VERSION,
            id: &self.id,
            event: crossing.change.name(),
            action: &self.action,
            node,
            container: &crossing.container_id,
            container_name: crossing.name.as_deref(),
            quota: &crossing.quota,
            period: PeriodField {
                label: &crossing.label,
                start: utc(crossing.span.start_s),
                end: utc(crossing.span.end_s),
            },
            threshold_percent: crossing.percent,
            unit: if crossing.is_rate { "bit/s" } else { "bytes" },
            used: crossing.used,
            allowance: Some(crossing.allowance).filter(|allowance| *allowance > 0),
            found: utc(crossing.made.as_second()),
            attempt,
        };
        let mut bytes = serde_json::to_vec(&document).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// What a shell script needs, without a reader of JSON.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let crossing = &self.crossing;
        vec![
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("LC_ALL", "C.UTF-8".to_owned()),
            ("TRAFCTL_ID", self.id.clone()),
            ("TRAFCTL_EVENT", crossing.change.name().to_owned()),
            ("TRAFCTL_CONTAINER", crossing.container_id.clone()),
            ("TRAFCTL_QUOTA", crossing.quota.clone()),
            ("TRAFCTL_PERCENT", crossing.percent.to_string()),
        ]
    }

    /// Whether it takes back what an earlier run did.
    fn is_lift(&self) -> bool {
        self.crossing.change != Change::Reached
    }
}
