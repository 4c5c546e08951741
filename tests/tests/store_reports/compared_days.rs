//! The comparison of some days: those that changed, and those whose turn it is.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use traffic_model::calendar::Calendar;
use traffic_store::{AnyStore, Scope, Shipper, Target, Verified, verify_days};
use traffic_tests::{Namespace, postgres::Postgres};

use crate::{
    block_on, new_store,
    random_node::{Habits, RandomNode},
};

const DAY_S: i64 = 86_400;

fn compare(node: &RandomNode, target: &Target, scope: Scope) -> Result<Verified> {
    block_on(async {
        let mut store = AnyStore::connect(target).await?;
        let shipper =
            Shipper { ledger: &node.ledger, machine: None, node: &node.about, size: Arc::default() };
        anyhow::Ok(verify_days(&shipper, &mut store, scope).await?)
    })?
}

#[test]
fn days_are_compared_that_changed_or_have_their_turn() -> Result<()> {
    let namespace = Namespace::new("store-days")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    let mut random = fastrand::Rng::with_seed(1);
    let target = new_store(&server)?;
    let mut node = RandomNode::new("n1", Calendar::utc(), &mut random)?;
    node.live(Habits { is_late: true, drains: 120 }, &mut random)?;
    node.ship(&target)?;
    let everything = Scope { until: i64::MAX, after: 0, turn: (0, 1), ..Scope::default() };
    let equal = compare(&node, &target, everything.clone())?;
    ensure!(equal.differences.is_empty() && equal.days > 5, "{equal:?}");
    ensure!(equal.changes == node.ledger.shipping_identity()?.changes);

    let start = server.query(
        "select number from trafctl.part p where name = '5min' and exists (select from trafctl.traffic t where t.ledger = \
         p.ledger and t.level = 0 and t.start = p.number) order by number offset 9 limit 1",
    )?;
    server.query(&format!(
        "update trafctl.traffic set in_bytes = in_bytes + 1 where level = 0 and start = {start}"
    ))?;
    let start: i64 = start.trim().parse().context(start)?;
    let day = start.div_euclid(DAY_S);
    let found = |scope: Scope| -> Result<bool> {
        let verified = compare(&node, &target, scope)?;
        ensure!(verified.differences.iter().all(|one| (one.name.as_str(), one.number) == ("5min", start)));
        Ok(!verified.differences.is_empty())
    };
    // The day is over at its end, and not before.
    ensure!(!found(Scope { until: (day + 1) * DAY_S - 1, ..everything.clone() })?);
    ensure!(found(Scope { until: (day + 1) * DAY_S, ..everything })?);
    // Nothing changed since, so each day waits for its turn.
    let idle =
        Scope { until: i64::MAX, after: equal.changes, turn: (day.rem_euclid(30), 30), ..Scope::default() };
    ensure!(found(idle.clone())? && !found(Scope { turn: ((day + 1).rem_euclid(30), 30), ..idle.clone() })?);
    // A day that changes is compared whole.
    let changed = node.ledger.changes(traffic_ledger::Changes { after: 0, until: i64::MAX, units: true })?;
    let newest = changed.iter().filter(|part| part.1.div_euclid(DAY_S) == day).map(|part| part.2).max();
    let after = newest.context("no parts")?;
    let never = (31, 30);
    ensure!(
        found(Scope { after: after - 1, turn: never, ..idle.clone() })?
            && !found(Scope { after, turn: never, ..idle.clone() })?
    );
    // One that is asked for is compared, also if it is not over.
    ensure!(found(Scope { until: 0, days: [day].into(), ..idle.clone() })?);
    ensure!(!found(Scope { until: 0, days: [day + 1].into(), ..idle.clone() })?);

    // Days that only the store has, before the ledger's first and after its last.
    let first = changed.iter().map(|part| part.1).min().context("no parts")? - 40 * DAY_S;
    let last = changed.iter().map(|part| part.1).max().context("no parts")? + 40 * DAY_S;
    for extra in [first, last] {
        server.query(&format!(
            "select trafctl.add_months(array[{extra}::bigint]);
             insert into trafctl.part (ledger, name, number, rev) select ledger, 'day', {extra}, rev from trafctl.part \
             where name = '5min' and number = {start}; insert into trafctl.unit (ledger, level, start, \"end\", day, month, \
             rev) select ledger, 2, {extra}, {extra} + 86400, day, month, rev from trafctl.unit where level = 0 and start \
             = {start}"
        ))?;
    }
    let nothing = Scope { until: i64::MAX, after, turn: never, ..Scope::default() };
    let found = compare(&node, &target, nothing)?.differences;
    let named: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.number, one.in_ledger)).collect();
    ensure!(named == [("day", first, 0), ("day", last, 0)], "{found:?}");
    Ok(())
}
