//! Actions of quotas that are not done: a problem for whoever bills.

use std::path::Path;

use traffic_ledger::Ledger;
use traffic_model::counted;

use crate::{
    drain::ledger_path,
    quota_actions::{Journal, NodeAlerts, Run, RunState, is_running, orders, orders_of_alert},
};

/// How long an action may wait for the process that runs actions, in seconds.
const GRACE_S: i64 = 300;
/// How many crossings are looked at.
const MOST: u32 = 10_000;

/// What is wrong with the actions of a state directory.
pub(super) fn problems(state_dir: &Path, now_s: i64) -> Vec<String> {
    // A ledger that cannot be read is a problem of its own, and so is what was found of the node.
    let crossings = Ledger::open_read_only(&ledger_path(state_dir))
        .and_then(|ledger| ledger.last_quota_crossings(MOST))
        .unwrap_or_default();
    let mut ordered = crossings.iter().flat_map(orders).collect::<Vec<_>>();
    let known = NodeAlerts::read(state_dir).ok().flatten().unwrap_or_default();
    ordered.extend(known.alerts.iter().flat_map(|alert| orders_of_alert(&known.node, alert)));
    if ordered.is_empty() {
        return Vec::new();
    }
    let journal = match Journal::read(state_dir) {
        Ok(journal) => journal,
        Err(error) => return vec![format!("the actions of quotas: {error:#}")],
    };
    let mut problems = Vec::new();
    let failed = |run: &Run| run.state == RunState::Failed;
    let runs = ordered.iter().filter_map(|order| Some((order, journal.run(&order.id)?)));
    let failed: Vec<_> = runs.filter(|(_, run)| failed(run)).collect();
    if let Some((order, run)) = failed.last() {
        problems.push(format!(
            "{} of quotas failed and {} tried again, the last one {} for {} ({} so far): {}; `trafctl quota \
             crossings --failed` and `trafctl quota alerts` list them",
            counted(failed.len(), "action"),
            if failed.len() == 1 { "is" } else { "are" },
            order.action,
            order.whom(),
            counted(run.attempts as usize, "attempt"),
            run.message.as_deref().unwrap_or("no reason is known"),
        ));
    }
    let is_late = |made_s: i64| now_s.saturating_sub(made_s) > GRACE_S;
    let waiting = ordered
        .iter()
        .filter(|order| journal.run(&order.id).is_none_or(|run| !run.is_over()) && is_late(order.found_s()));
    let waiting = waiting.count();
    if waiting > 0 && !is_running(state_dir) {
        problems.push(format!(
            "{} of quotas {} and nothing runs actions; start `trafctl quota run` (trafctl-quota.service)",
            counted(waiting, "action"),
            if waiting == 1 { "waits" } else { "wait" },
        ));
    }
    problems
}
