//! What is in force, and what of it runs again: a reboot, a restart of the container or somebody's hand may have undone
//! what an action did.
//!
//! A repeated run keeps its id. The journal has when it ran last.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use traffic_ledger::{Ledger, QuotaCrossing};
use traffic_quota::{Action, Change, Means};

use super::{MOST_OF_ACTION, MOST_RUNNING, Runner, now_s};
use crate::quota_actions::{Order, order::Cause};

/// How often it is looked for runs to repeat.
const LOOKED_FOR_EVERY: Duration = Duration::from_secs(10);

/// Runs that are done and may be in force.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// By subject, and by the quota and the percent that may be in force.
    done: BTreeMap<String, BTreeMap<(String, u16), Order>>,
    looked: Option<Instant>,
}

impl Repeats {
    /// Takes a run that is done. Later ones of the same threshold replace it.
    pub fn take(&mut self, order: &Order) {
        if let Some(threshold) = threshold(order) {
            let order = Order { is_repeated: true, ..order.clone() };
            self.done.entry(order.subject()).or_default().insert(threshold, order);
        }
    }

    /// Forgets a run that is in force no more.
    pub fn forget(&mut self, order: &Order) {
        if let (Some(of_subject), Some(threshold)) = (self.done.get_mut(&order.subject()), threshold(order)) {
            of_subject.remove(&threshold);
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.done.clear();
    }

    /// Whether to look for runs to repeat now.
    pub fn is_time(&mut self) -> bool {
        let is_time = !self.done.is_empty() && self.looked.is_none_or(|at| at.elapsed() >= LOOKED_FOR_EVERY);
        if is_time {
            self.looked = Some(Instant::now());
        }
        is_time
    }

    /// What to repeat by these actions: of each list, the first that is in force. `busy` are the subjects that have
    /// another run. `ran_s` is when a run was last, in seconds since the Unix epoch.
    pub fn due(
        &self,
        actions: &[Action],
        busy: &BTreeSet<String>,
        ran_s: impl Fn(&Order) -> i64,
        now_s: i64,
    ) -> Vec<Vec<Order>> {
        let due = self.done.iter().filter(|(subject, _)| !busy.contains(*subject)).filter(|(_, orders)| {
            let action = orders.values().next().map(|order| &order.action);
            let action = action.and_then(|name| actions.iter().find(|action| action.name == *name));
            let again = action.and_then(|action| match action.means {
                Means::Command { again, .. } => again,
                _ => None,
            });
            // A clock that was set back holds nothing up.
            let last_s = orders.values().map(&ran_s).filter(|ran_s| *ran_s <= now_s).max().unwrap_or(0);
            let since_s = now_s.saturating_sub(last_s).unsigned_abs();
            again.is_some_and(|again| since_s >= again.as_secs())
        });
        due.map(|(_, orders)| orders.values().cloned().collect()).collect()
    }
}

/// The quota and the percent; `None` for what cannot be in force.
fn threshold(order: &Order) -> Option<(String, u16)> {
    match &order.cause {
        Cause::Crossing(crossing) if crossing.change == Change::Reached => {
            Some((crossing.quota.clone(), crossing.percent))
        }
        _ => None,
    }
}

impl Runner {
    /// Begins what is done, in force, and to be repeated.
    pub(super) fn begin_again(&mut self) -> anyhow::Result<usize> {
        if !self.repeats.is_time() {
            return Ok(0);
        }
        self.read_quotas()?;
        let now_s = now_s();
        let mut busy: BTreeSet<String> = self.pending.iter().map(Order::subject).collect();
        busy.extend(self.subjects.iter().cloned());
        let ran_s = |order: &Order| self.journal.run(&order.id).map_or(0, |run| run.begun_s);
        let due = self.repeats.due(&self.quotas.actions, &busy, ran_s, now_s);
        if due.is_empty() {
            return Ok(0);
        }
        let ledger = self.open()?;
        let mut begun = 0;
        for order in due.into_iter().flatten() {
            if !is_in_force(&ledger, &order)? {
                self.repeats.forget(&order);
                continue;
            }
            let runs = self.of_action.get(&order.action).copied().unwrap_or_default();
            let is_full = self.running.len() >= MOST_RUNNING || runs >= MOST_OF_ACTION;
            // Another threshold may have the same action in force.
            if is_full || self.subjects.contains(&order.subject()) {
                continue;
            }
            let found = self.quotas.actions.iter().find(|action| action.name == order.action).cloned();
            if let Some(action) = found {
                self.start(&order, action, 1);
                begun += 1;
            }
        }
        Ok(begun)
    }
}

/// A crossing by which an action is in force for a container now.
pub(super) fn in_force(
    ledger: &Ledger,
    crossing: &QuotaCrossing,
    action: &str,
) -> anyhow::Result<Option<(String, u16, String)>> {
    let all = ledger.quota_actions_in_force(&crossing.container_id)?;
    Ok(all.into_iter().find(|(_, _, of)| of == action))
}

/// Whether what an order is about still lasts.
pub(super) fn is_in_force(ledger: &Ledger, order: &Order) -> anyhow::Result<bool> {
    let crossing = match &order.cause {
        Cause::Crossing(crossing) => crossing,
        Cause::Alert(alert, change) => return Ok(*change == Change::Reached && alert.over_s.is_none()),
    };
    let all = ledger.quota_actions_in_force(&crossing.container_id)?;
    let is_it = |(quota, percent, action): &(String, u16, String)| {
        (quota, *percent, action) == (&crossing.quota, crossing.percent, &order.action)
    };
    Ok(crossing.change == Change::Reached && all.iter().any(is_it))
}

#[cfg(test)]
#[path = "in_force_tests.rs"]
mod tests;
