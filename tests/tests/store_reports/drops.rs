//! Stores from before there were drops: what is shipped to them, and what they get after their migration.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use traffic_ledger::{By, ReportQuery, Split};
use traffic_model::calendar::Calendar;
use traffic_store::{AnyStore, Shipper, Target, Verified, verify};
use traffic_tests::{
    Namespace,
    clickhouse::ClickHouse,
    clickhouse_cluster::{CLUSTER, ClickHouseCluster, Shape},
    postgres::Postgres,
};

use crate::{
    Server, block_on, new_store,
    random_node::{Habits, RandomNode},
};

/// What version 4 of the schema added, taken away again.
const AS_VERSION_3: &str = "
    drop table trafctl.dropped; drop function trafctl.put_dropped; drop function trafctl.take_parts;
    drop function trafctl.part_digests; drop function trafctl.note_drops;
    drop function trafctl.dropped_months;
    alter table trafctl.ledger drop column drops_from, drop column without_drops,
        drop column drops_kept_from;
    update trafctl.store_version set version = 3";

fn node(name: &str) -> Result<RandomNode> {
    let mut random = fastrand::Rng::with_seed(11);
    let mut node = RandomNode::new(name, Calendar::utc(), &mut random)?;
    node.live(Habits { is_late: true, drains: 60 }, &mut random)?;
    Ok(node)
}

fn verified(node: &RandomNode, target: &Target) -> Result<Verified> {
    block_on(async {
        let mut store = AnyStore::connect(target).await?;
        let shipper =
            Shipper { ledger: &node.ledger, machine: None, node: &node.about, size: Arc::default() };
        anyhow::Ok(verify(&shipper, &mut store, false).await?)
    })?
}

fn query() -> ReportQuery {
    let split = Split { class: true, direction: true, family: true };
    ReportQuery { by: By::Day, split, ..ReportQuery::default() }
}

/// Ledger and store have the same rows, and report the same drops.
fn is_equal(node: &RandomNode, target: &Target) -> Result<()> {
    let found = verified(node, target)?;
    ensure!(found.has_drops && found.differences.is_empty() && found.parts > 50, "{found:?}");
    let expected = node.ledger.report_drops(&query())?;
    ensure!(expected.total.has_drops() && node.stored(target)?.report_drops(&query())? == expected);
    Ok(())
}

#[test]
fn drops_come_to_postgresql_with_its_migration_and_after_older_shippers() -> Result<()> {
    let namespace = Namespace::new("store-drops")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    let target = new_store(&server)?;
    let node = node("n1")?;
    node.ship(&target)?;
    is_equal(&node, &target)?;
    // As a store that was shipped to before.
    server.query(AS_VERSION_3)?;
    let refused = node.ship(&target).err().map(|error| error.to_string());
    ensure!(refused.as_ref().is_some_and(|text| text.contains("trafctl store migrate")), "{refused:?}");
    block_on(target.migrate(None))??;
    let report = node.stored(&target)?.report_drops(&query())?;
    ensure!(report.nodes_without_drops == ["n1"] && !report.total.has_drops(), "{report:?}");
    ensure!(!verified(&node, &target)?.differences.is_empty());
    node.ship(&target)?;
    is_equal(&node, &target)?;
    // A shipper from before brings units, which lose their drops. It is updated later.
    server.query(
        "select t.* from trafctl.ledger l, lateral (select array_agg(p.number) numbers, array_agg(p.rev) revs
             from (select distinct p.number, p.rev from trafctl.dropped d join trafctl.part p on p.ledger = d.ledger
                 and p.name = '5min' and p.number = d.start where d.level = 0 order by 1 limit 3) p) p,
             trafctl.take(l.number, array['5min', '5min', '5min'], p.numbers, p.revs, true) t",
    )?;
    ensure!(server.query("select without_drops from trafctl.ledger")? == "1");
    ensure!(node.stored(&target)?.report_drops(&query())?.nodes_without_drops == ["n1"]);
    node.ship(&target)?;
    ensure!(server.query("select without_drops from trafctl.ledger")? == "0");
    is_equal(&node, &target)
}

/// A ledger that has dropped five minutes ships to a store of before there were drops, which `migrate` changes.
fn names_five_minutes_without_drops(target: &Target, migrate: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut node = node("n1")?;
    node.ship(target)?;
    let begin = node.ledger.shipped_extent()?.recorded.0;
    node.keep_days(2)?;
    let kept_from = node.ledger.shipping_identity()?.kept_from.context("it has dropped nothing")?;
    node.ship(target)?;
    migrate()?;
    node.ship(target)?;
    let stored = node.stored(target)?;
    let report = |by, from: i64, to: Option<i64>| {
        let (from, to) = (Timestamp::from_second(from)?, to.map(Timestamp::from_second).transpose()?);
        let of = ReportQuery { by, from: Some(from), to, ..query() };
        anyhow::Ok((of.clone(), stored.report_drops(&of)?))
    };
    let (_, gone) = report(By::FiveMinutes, begin, Some(kept_from))?;
    ensure!(gone.nodes_without_drops == ["n1"] && !gone.rows.is_empty(), "{gone:?}");
    for (by, from, to) in
        [(By::FiveMinutes, kept_from, None), (By::Day, (begin / 86_400 + 1) * 86_400, Some(kept_from))]
    {
        let (of, kept) = report(by, from, to)?;
        let expected = node.ledger.report_drops(&of)?;
        ensure!(
            kept.nodes_without_drops.is_empty() && kept.total.has_drops(),
            "{:?}",
            kept.nodes_without_drops
        );
        ensure!(kept == expected, "{:?}, {:?}", kept.total, expected.total);
    }
    Ok(())
}

#[test]
fn five_minutes_that_were_gone_before_the_migration_are_named() -> Result<()> {
    let namespace = Namespace::new("store-gone")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    let target = new_store(&server)?;
    // Everything that is shipped before is shipped without drops.
    names_five_minutes_without_drops(&target, || {
        server.query(AS_VERSION_3)?;
        block_on(target.migrate(None))??;
        Ok(())
    })
}

#[test]
fn five_minutes_that_were_gone_before_the_migration_are_named_from_clickhouse() -> Result<()> {
    let namespace = Namespace::new("ch-gone")?;
    let server = ClickHouse::start(&namespace, None)?;
    namespace.enter(|| {
        let target = older(&server, |sql| server.query(sql))?;
        names_five_minutes_without_drops(&target, || {
            block_on(target.migrate(None))??;
            Ok(())
        })
    })
}

/// What an older shipper does to bring units of a ledger again, and how many it is asked for the rows of.
fn brought_by_older(server: &Postgres<'_>, node: &str, condition: &str) -> Result<String> {
    let parts = format!(
        "select l.number ledger, array_agg(p.name) as names, array_agg(p.number) as numbers, array_agg(p.rev) as revs
         from trafctl.ledger l join trafctl.part p on p.ledger = l.number and p.name in ('5min', 'day')
         where l.node = '{node}' and {condition} group by l.number"
    );
    server.query(&format!("select trafctl.add_months(numbers) from ({parts}) p"))?;
    server.query(&format!(
        "select count(*) from ({parts}) p, trafctl.take(p.ledger, p.names, p.numbers, p.revs, true)"
    ))
}

#[test]
fn a_month_that_the_owner_dropped_does_not_come_back_in_part() -> Result<()> {
    let namespace = Namespace::new("store-months")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    let target = new_store(&server)?;
    let node = node("n1")?;
    node.ship(&target)?;
    let months = "select string_agg(distinct right(c.relname, 7), ' ' order by right(c.relname, 7)) from pg_inherits i
         join pg_class c on c.oid = i.inhrelid where i.inhparent::regclass::text ~ '^trafctl[.]' and c.relkind = 'r'";
    let all = server.query(months)?;
    let (dropped, left) = all.split_once(' ').context("a node of one month")?;
    for table in ["unit", "traffic", "fault", "passed", "span", "dropped"] {
        server.query(&format!("drop table trafctl.{table}_{dropped}"))?;
    }
    let is_refused = |of: &RandomNode, what: &str| {
        let stored = of.stored(&target)?;
        let total = ReportQuery { by: By::Total, ..ReportQuery::default() };
        for error in [stored.report(&total).err(), stored.report_drops(&total).err()] {
            let text = error.map_or_else(|| "an answer".to_owned(), |error| error.to_string());
            ensure!(text.contains("were dropped from the store"), "{what}: {text}");
        }
        let found = server.query(months)?;
        ensure!(found == left, "{what}: {found} and not {left}");
        anyhow::Ok(())
    };
    is_refused(&node, "dropped")?;
    server.query("update trafctl.ledger set without_drops = 1")?;
    node.ship(&target)?;
    is_refused(&node, "drops again")?;
    ensure!(server.query("select without_drops from trafctl.ledger")? == "0");
    // What is left is equal, and what is not is no difference.
    let found = block_on(async {
        let mut store = AnyStore::connect(&target).await?;
        let shipper =
            Shipper { ledger: &node.ledger, machine: None, node: &node.about, size: Arc::default() };
        anyhow::Ok(verify(&shipper, &mut store, true).await?)
    })??;
    ensure!(found.differences.is_empty() && found.parts > 50, "{found:?}");
    is_refused(&node, "repaired")?;
    let of_month = format!("to_char(to_timestamp(p.number) at time zone 'UTC', 'YYYY_MM') = '{dropped}'");
    ensure!(brought_by_older(&server, "n1", &of_month)? == "0");
    is_refused(&node, "an older shipper")?;
    let has_drops =
        "exists (select from trafctl.dropped d where d.ledger = l.number and d.start = p.number and d.level =
                         case p.name when '5min' then 0 else 2 end)";
    ensure!(brought_by_older(&server, "n1", &format!("not {of_month} and {has_drops}"))? != "0");
    node.ship(&target)?;
    // All of another node's history comes later.
    let other = self::node("n2")?;
    other.ship(&target)?;
    is_refused(&node, "another node")?;
    is_refused(&other, "the other node")?;
    // What remains answers.
    let later =
        ReportQuery { from: node.ledger.report(&query())?.rows.last().map(|row| row.start), ..query() };
    let expected = node.ledger.report_drops(&later)?;
    ensure!(!expected.rows.is_empty() && node.stored(&target)?.report_drops(&later)? == expected);
    Ok(())
}

/// Makes a store as it was before there were drops.
fn older(server: &impl Server, run: impl Fn(&str) -> Result<String>) -> Result<Target> {
    let target = server.emptied()?;
    for sql in block_on(target.statements(server.cluster()))?? {
        let sql = sql.replace(", 'dropped' = 19", "").replace(", 'drops' = 3", "");
        let sql = sql.replace("VALUES (3)", "VALUES (2)");
        if !sql.contains("'dropped'") {
            run(&sql)?;
        }
    }
    Ok(target)
}

fn comes_with_the_migration(target: &Target, cluster: Option<&str>) -> Result<()> {
    let node = node("n1")?;
    node.ship(target)?;
    let found = verified(&node, target)?;
    ensure!(!found.has_drops && found.differences.is_empty() && found.parts > 50, "{found:?}");
    ensure!(node.stored(target)?.report(&query())? == node.ledger.report(&query())?);
    let refused = node.stored(target)?.report_drops(&query()).err().map(|error| error.to_string());
    ensure!(refused.as_ref().is_some_and(|text| text.contains("trafctl store migrate")), "{refused:?}");
    for from in [2, 3] {
        let migrated = block_on(target.migrate(cluster))??;
        ensure!((migrated.from, migrated.to) == (from, 3), "{migrated:?}");
    }
    let report = node.stored(target)?.report_drops(&query())?;
    ensure!(report.nodes_without_drops == ["n1"], "{report:?}");
    node.ship(target)?;
    is_equal(&node, target)
}

#[test]
fn drops_come_to_clickhouse_with_its_migration() -> Result<()> {
    let namespace = Namespace::new("ch-drops")?;
    let server = ClickHouse::start(&namespace, None)?;
    namespace.enter(|| {
        let target = older(&server, |sql| server.query(sql))?;
        comes_with_the_migration(&target, None)?;
        let rows =
            server.query("SELECT count(), sum(in_bytes) > 0 FROM traffic.dropped WHERE reason >= 0")?;
        ensure!(rows.ends_with("\t1"), "{rows}");
        Ok(())
    })
}

#[test]
fn drops_come_to_a_cluster_with_its_migration() -> Result<()> {
    let namespace = Namespace::new("ch-drops2")?;
    let server = ClickHouseCluster::start(&namespace, Shape { shards: 2, replicas: 1 })?;
    namespace.enter(|| {
        let target = older(&server, |sql| server.query(0, sql))?;
        comes_with_the_migration(&target, Some(CLUSTER))
    })
}
