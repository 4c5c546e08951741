//! Reports of days that came before their five minutes, twice, or in several versions.

use anyhow::{Result, ensure};
use traffic_ledger::{By, Report, ReportQuery};
use traffic_model::calendar::Calendar;
use traffic_store::Target;
use traffic_tests::{Namespace, clickhouse::ClickHouse, postgres::Postgres};

use crate::{
    Server, new_store,
    random_node::{Habits, RandomNode},
};

/// A node with some summed-up days, a store that has them, and what both report of them.
pub(crate) struct Days {
    pub node: RandomNode,
    pub target: Target,
    pub of: ReportQuery,
    pub report: Report,
}

impl Days {
    pub fn shipped(server: &impl Server) -> Result<Self> {
        let mut random = fastrand::Rng::with_seed(1);
        let target = new_store(server)?;
        let mut node = RandomNode::new("n1", Calendar::utc(), &mut random)?;
        node.live(Habits { is_late: true, drains: 60 }, &mut random)?;
        node.ledger.maintain(node.node.wall)?;
        node.ship(&target)?;
        let of = ReportQuery { by: By::Day, ..ReportQuery::default() };
        let report = node.ledger.report(&of)?;
        ensure!(node.stored(&target)?.report(&of)? == report && report.steps.len() > 3);
        Ok(Self { node, target, of, report })
    }
}

/// The columns of the table of units in ClickHouse but its version, as a list in SQL.
pub(crate) fn columns_of_units(server: &ClickHouse<'_>) -> Result<String> {
    let columns = server.query(
        "SELECT name FROM system.columns WHERE database = 'traffic' AND table = 'units' AND name != 'version'",
    )?;
    Ok(columns.lines().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
}

#[test]
fn a_day_that_is_older_than_its_five_minutes_does_not_answer() -> Result<()> {
    let namespace = Namespace::new("store-stale")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    let Days { node, target, of, report } = Days::shipped(&server)?;
    // Only whole days are altered: they are what answers.
    server.query("update trafctl.traffic set in_bytes = in_bytes + 1 where level = 2")?;
    ensure!(node.stored(&target)?.report(&of)? != report);
    // Five minutes of each day come to be newer than it.
    server.query(
        "update trafctl.part set rev = rev + 1000000 where name = '5min' and number in (
             select max(p.number) from trafctl.part p join trafctl.unit u on u.level = 2 and p.number >= u.start
                 and p.number < u.\"end\" where p.name = '5min' group by u.start)",
    )?;
    ensure!(node.stored(&target)?.report(&of)? == report);
    Ok(())
}

#[test]
fn days_that_arrived_twice_or_were_replaced_count_once_before_clickhouse_merges_them() -> Result<()> {
    let namespace = Namespace::new("ch-twice")?;
    let server = ClickHouse::start(&namespace, None)?;
    namespace.enter(|| {
        server.query("SYSTEM STOP MERGES")?;
        let Days { node, target, of, report } = Days::shipped(&server)?;
        // Only whole days are altered: they are what answers. What is added has the same version.
        let columns = columns_of_units(&server)?;
        let again = |version: &str, filter: &str| {
            server.query(&format!(
                "INSERT INTO traffic.units ({columns}, version) SELECT {columns}, {version} FROM traffic.units WHERE part = \
                 'day' AND {filter}"
            ))
        };
        again("version", "entity != 'part'")?;
        ensure!(node.stored(&target)?.report(&of)? != report, "these are not the rows that answer");
        again("version", "entity = 'part'")?;
        ensure!(node.stored(&target)?.report(&of)? == report, "a repetition counts");
        again("version - 1", "1 = 1")?;
        ensure!(node.stored(&target)?.report(&of)? == report, "an older version counts");
        Ok(())
    })
}
