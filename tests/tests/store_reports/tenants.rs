//! Reports by tenant, against the five minutes of the ledgers.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use traffic_ledger::{By, Ledger, ReportQuery, Split};
use traffic_model::calendar::Calendar;
use traffic_store::{Assignment, Reported, open_ledger};
use traffic_tests::{
    Namespace,
    clickhouse::ClickHouse,
    clickhouse_cluster::{ClickHouseCluster, Shape},
    postgres::Postgres,
};

use crate::{
    BEGIN, CONTAINERS, Server, block_on, histories, new_store,
    random_node::{Habits, RandomNode},
    time,
};

/// Sums of one five minutes of a container: packets in, bytes in, packets out, bytes out.
type FiveMinutes = BTreeMap<(String, i64, Option<u8>), [u64; 4]>;

/// The same of a step of a report, and a tenant.
type FiveMinutesOf = BTreeMap<(i64, String, Option<u8>), [u64; 4]>;

/// The same of what was dropped.
fn dropped(ledger: &Ledger) -> Result<FiveMinutes> {
    let split = Split { class: true, direction: true, ..Split::default() };
    let report =
        ledger.report_drops(&ReportQuery { by: By::FiveMinutes, split, ..ReportQuery::default() })?;
    let mut rows = FiveMinutes::new();
    for row in report.rows {
        let of = rows.entry((row.container, row.start.as_second(), row.class)).or_default();
        let at = if row.direction == Some("in") { 0 } else { 2 };
        let total = row.delivery.dropped.total;
        (of[at], of[at + 1]) = (of[at] + total.packets, of[at + 1] + total.bytes);
    }
    rows.retain(|_, sums| *sums != [0; 4]);
    Ok(rows)
}

/// All rows of a ledger in five minutes, by container and class.
fn five_minutes(ledger: &Ledger) -> Result<FiveMinutes> {
    let split = Split { class: true, ..Split::default() };
    let report = ledger.report(&ReportQuery { by: By::FiveMinutes, split, ..ReportQuery::default() })?;
    let mut rows = FiveMinutes::new();
    for row in report.rows {
        let (a, b) = (row.figures.incoming.unwrap_or_default(), row.figures.outgoing.unwrap_or_default());
        let key = (row.container, row.start.as_second(), row.class);
        rows.insert(key, [a.packets, a.bytes, b.packets, b.bytes]);
    }
    Ok(rows)
}

/// Containers whose tenants change, also in the middle of days and of closed months.
fn tenants(server: &impl Server, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let target = new_store(server)?;
    let mut nodes = Vec::new();
    for name in ["n1", "n2"] {
        let mut node = RandomNode::new(name, Calendar::utc(), &mut random)?;
        node.live(Habits { is_late: true, drains: 90 }, &mut random)?;
        node.ship(&target)?;
        nodes.push(node);
    }
    let mut assigned: Vec<Assignment> = Vec::new();
    let mut refused = 0;
    for _ in 0..14 {
        let from = if random.u8(..4) == 0 { 0 } else { BEGIN + random.i64(0..3_000_000) };
        let new = Assignment {
            number: 0,
            tenant: ["acme", "beta", "gamma"][random.usize(..3)].to_owned(),
            container: CONTAINERS[random.usize(..CONTAINERS.len())].to_owned(),
            node: Some(["n1", "n2"][random.usize(..2)].to_owned()),
            from,
            until: random.bool().then(|| from.max(BEGIN) + random.i64(300..2_000_000)),
        };
        let made = block_on(target.assign(&new))?;
        let start = |time: i64| time.div_euclid(300) * 300;
        let (from, until) = (start(new.from), new.until.map_or(i64::MAX, start));
        let overlaps = assigned.iter().any(|other| {
            (&other.container, &other.node) == (&new.container, &new.node)
                && other.from < until
                && other.until.unwrap_or(i64::MAX) > from
        });
        ensure!(made.is_err() == overlaps, "{new:?} {made:?} {assigned:?}");
        match made {
            Ok(made) => assigned.push(made.assignment),
            Err(error) => {
                refused += 1;
                ensure!(
                    error.to_string().contains(&new.tenant) && error.to_string().contains("while"),
                    "{error}"
                );
            }
        }
    }
    ensure!(refused > 0 && assigned.len() > 3, "{refused} {assigned:?}");
    let tenant_of = |node: &str, container: &str, at: i64| -> String {
        let is_it = |one: &&Assignment| {
            one.container == container
                && one.node.as_deref() == Some(node)
                && one.from <= at
                && one.until.is_none_or(|until| at < until)
        };
        assigned.iter().find(is_it).map_or_else(|| "(no tenant)".to_owned(), |one| one.tenant.clone())
    };
    let stored = open_ledger(&target, &Reported { by_tenant: true, ..Reported::default() })?;
    let fine: Vec<(String, FiveMinutes)> = nodes
        .iter()
        .map(|node| Ok((node.about.name.clone(), five_minutes(&node.ledger)?)))
        .collect::<Result<_>>()?;
    let fine_drops: Vec<(String, FiveMinutes)> = nodes
        .iter()
        .map(|node| Ok((node.about.name.clone(), dropped(&node.ledger)?)))
        .collect::<Result<_>>()?;
    for by in [By::Total, By::Month, By::Day, By::Hour] {
        let split = Split { class: true, ..Split::default() };
        let from = time(if random.bool() { BEGIN } else { BEGIN + 300 * random.i64(0..300) });
        let report = stored.report(&ReportQuery { by, split, from, ..ReportQuery::default() })?;
        let by_tenant = |all: &[(String, FiveMinutes)]| -> Result<FiveMinutesOf> {
            let mut expected = FiveMinutesOf::new();
            for (node, rows) in all {
                for ((container, start, class), sums) in rows {
                    let at = Timestamp::from_second(*start)?;
                    let Some(step) = report.steps.iter().find(|step| step.start <= at && at < step.end)
                    else {
                        continue;
                    };
                    let key = (step.start.as_second(), tenant_of(node, container, *start), *class);
                    let of = expected.entry(key).or_default();
                    of.iter_mut().zip(sums).for_each(|(sum, value)| *sum += value);
                }
            }
            Ok(expected)
        };
        let expected = by_tenant(&fine)?;
        let mut found = BTreeMap::new();
        for row in &report.rows {
            let (a, b) = (row.figures.incoming.unwrap_or_default(), row.figures.outgoing.unwrap_or_default());
            let sums = [a.packets, a.bytes, b.packets, b.bytes];
            // A tenant may have a correction of a month without traffic of its own.
            if sums != [0; 4] {
                found.insert((row.start.as_second(), row.container.clone(), row.class), sums);
            }
        }
        ensure!(found == expected, "{by:?}\n{found:?}\n{expected:?}\n{assigned:#?}");
        let both = Split { direction: true, ..split };
        let of_drops =
            stored.report_drops(&ReportQuery { by, split: both, from, ..ReportQuery::default() })?;
        let mut found = FiveMinutesOf::new();
        for row in of_drops.rows.iter().filter(|row| row.delivery.has_drops()) {
            let of = found.entry((row.start.as_second(), row.container.clone(), row.class)).or_default();
            let at = if row.direction == Some("in") { 0 } else { 2 };
            (of[at], of[at + 1]) = (row.delivery.dropped.total.packets, row.delivery.dropped.total.bytes);
        }
        let expected = by_tenant(&fine_drops)?;
        ensure!(found == expected && !found.is_empty(), "{by:?}\n{found:?}\n{expected:?}");
        let only = ReportQuery { by, containers: vec!["acme".to_owned()], ..ReportQuery::default() };
        if assigned.iter().any(|one| one.tenant == "acme") && stored.has_label("acme")? {
            let one = stored.report(&only)?;
            ensure!(one.rows.iter().all(|row| row.container == "acme"));
        }
    }
    Ok(())
}

#[test]
fn a_tenant_has_what_its_containers_counted_while_they_were_its_own() -> Result<()> {
    let namespace = Namespace::new("store-tenant")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    (0..histories()).try_for_each(|seed| tenants(&server, seed).with_context(|| format!("seed {seed}")))
}

#[test]
fn a_tenant_has_it_from_clickhouse() -> Result<()> {
    let namespace = Namespace::new("ch-tenant")?;
    let server = ClickHouse::start(&namespace, None)?;
    namespace.enter(|| {
        (0..histories()).try_for_each(|seed| tenants(&server, seed).with_context(|| format!("seed {seed}")))
    })
}

#[test]
fn a_tenant_has_it_from_a_cluster() -> Result<()> {
    let namespace = Namespace::new("ch-tenants")?;
    let server = ClickHouseCluster::start(&namespace, Shape { shards: 2, replicas: 1 })?;
    namespace.enter(|| tenants(&server, 1))
}

/// The rate of each tenant is that of its five minutes, whoever else had the container.
fn rates(server: &impl Server) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(3);
    let target = new_store(server)?;
    let mut node = RandomNode::new("n1", Calendar::utc(), &mut random)?;
    node.node.wall = Timestamp::from_second(BEGIN)?;
    node.node.epoch_created = node.node.wall;
    node.live(Habits { is_late: false, drains: 200 }, &mut random)?;
    node.ship(&target)?;
    let border = BEGIN + 300 * 90;
    for (tenant, from, until) in [("acme", 0, Some(border)), ("beta", border, None)] {
        let new = Assignment {
            number: 0,
            tenant: tenant.to_owned(),
            container: "101".to_owned(),
            node: None,
            from,
            until,
        };
        block_on(target.assign(&new))??;
    }
    let stored = open_ledger(&target, &Reported { by_tenant: true, ..Reported::default() })?;
    let of = ReportQuery { by: By::Total, percentile: Some(100.0), ..ReportQuery::default() };
    let report = stored.report(&of)?;
    let fine = node.ledger.report(&ReportQuery {
        by: By::FiveMinutes,
        containers: vec!["101".to_owned()],
        ..ReportQuery::default()
    })?;
    for tenant in ["acme", "beta"] {
        let is_its = |start: i64| (start < border) == (tenant == "acme");
        let mut most: BTreeMap<bool, u64> = BTreeMap::new();
        for row in fine.rows.iter().filter(|row| is_its(row.start.as_second())) {
            let bytes = row.figures.incoming.unwrap_or_default().bytes;
            let one = most.entry(row.billed).or_default();
            *one = (*one).max(bytes);
        }
        let rows: Vec<_> = report.rows.iter().filter(|row| row.container == tenant).collect();
        ensure!(!rows.is_empty(), "{tenant} has no rows");
        for row in rows {
            let found = row.percentile.and_then(|rates| rates.incoming);
            let expected = most.get(&row.billed).map(|bytes| bytes * 8 / 300);
            ensure!(found == expected && found.is_some(), "{tenant}: {found:?} is not {expected:?}");
        }
    }
    Ok(())
}

#[test]
fn the_rate_of_a_tenant_is_that_of_its_own_five_minutes() -> Result<()> {
    let namespace = Namespace::new("store-trate")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    rates(&server)
}

#[test]
fn the_rate_of_a_tenant_is_that_of_its_own_five_minutes_from_clickhouse() -> Result<()> {
    let namespace = Namespace::new("ch-trate")?;
    let server = ClickHouse::start(&namespace, None)?;
    namespace.enter(|| rates(&server))
}
